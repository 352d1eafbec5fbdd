"""`edge-dsac keys`: make a key to sign policies with, and say whose policies this machine obeys."""

from __future__ import annotations

import argparse
import dataclasses
import getpass
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_dsac.bundle.keyring import KeyringError, key_folder, new_key, read_public_file, remove, secret_names, trust, trusted_keys


def add(verbs: Any) -> None:
    keys = verbs.add_parser("keys", help="keys that sign policies, and keys that are trusted (minisign's files)")
    actions = keys.add_subparsers(dest="action", metavar="ACTION", required=True)
    new = actions.add_parser("new", help="make a key pair; its public half is trusted here at once")
    new.add_argument("name", metavar="NAME")
    new.add_argument("--passphrase", action="store_true", help="encrypt the secret key; asks twice, or takes EDGE_DSAC_PASSPHRASE")
    new.set_defaults(run=make)
    listing = actions.add_parser("list", help="trusted keys, and which of them this machine can sign with")
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(run=show)
    trusting = actions.add_parser("trust", help="obey policies signed by this key from now on")
    trusting.add_argument("file", type=Path, metavar="FILE", help="a minisign .pub file")
    trusting.add_argument("--name", help="what to call it here; the file's own name where not given")
    trusting.set_defaults(run=take)
    removing = actions.add_parser("remove", help="trust a key no more; a secret key of that name stays where it is")
    removing.add_argument("name", metavar="NAME")
    removing.set_defaults(run=drop)


def make(args: argparse.Namespace) -> int:
    folder = key_folder(os.environ)
    key = new_key(folder, args.name, asked_twice(getpass.getpass) if args.passphrase else "")
    print(f"secret key  {folder / 'secret' / args.name}.key ({'encrypted' if args.passphrase else 'not encrypted'}; keep it to yourself)")
    print(f"public key  {folder / 'trusted' / args.name}.pub ({key.hex_id}); on each robot: edge-dsac keys trust {args.name}.pub")
    return 0


def asked_twice(ask: Callable[[str], str]) -> str:
    given = os.environ.get("EDGE_DSAC_PASSPHRASE")
    passphrase = given if given is not None else ask("passphrase: ")
    if given is None and ask("again: ") != passphrase:
        raise KeyringError("the two passphrases differ; nothing was written")
    if not passphrase:
        raise KeyringError("the passphrase is empty; leave --passphrase out for a key without one")
    return passphrase


def show(args: argparse.Namespace) -> int:
    folder = key_folder(os.environ)
    secret = secret_names(folder)
    rows = [
        {"name": key.name, "key_id": key.hex_id, "public_key": key.text, "can_sign": key.name in secret} for key in trusted_keys(folder)
    ]
    untrusted = [name for name in secret if name not in {row["name"] for row in rows}]
    if args.json:
        print(json.dumps({"folder": str(folder), "trusted": rows, "secret_not_trusted": untrusted}))
        return 0
    print(f"{folder}: {len(rows)} trusted")
    for row in rows:
        print(f"  {row['name']:<20} {row['key_id']}  {row['public_key']}{'  signs here' if row['can_sign'] else ''}")
    for name in untrusted:
        print(f"  {name:<20} signs here, but is not trusted here")
    return 0


def take(args: argparse.Namespace) -> int:
    name = args.name or args.file.stem
    key = trust(key_folder(os.environ), dataclasses.replace(read_public_file(args.file, name), name=name))
    print(f"trusted: {key.name} ({key.hex_id})")
    return 0


def drop(args: argparse.Namespace) -> int:
    folder = key_folder(os.environ)
    key = remove(folder, args.name)
    print(f"no longer trusted: {key.name} ({key.hex_id})")
    if args.name in secret_names(folder):
        print(f"its secret key is still there: {folder / 'secret' / args.name}.key")
    return 0
