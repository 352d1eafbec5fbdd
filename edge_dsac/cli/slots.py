"""`edge-dsac slots`: the folder that a robot's policies live in, by hand: make it, look into it, go back, promote."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from edge_dsac.bundle.container import TOTAL_LIMIT
from edge_dsac.bundle.keyring import key_folder, secret_key, trusted_keys
from edge_dsac.bundle.manifest import BundleError
from edge_dsac.bundle.package import signed_again
from edge_dsac.bundle.slot_folder import name_of
from edge_dsac.bundle.slots import Slots, create_slots

EPILOG = """\
examples:
  edge-dsac slots create policies balance.policy      the policy that drives, and the one to go back to
  edge-dsac run --robot balance_bot --port /dev/ttyUSB0 --slots policies
  edge-dsac slots show policies                       current, candidate and its trial, golden, what was done
  edge-dsac slots undo policies                       the parent of the current policy drives again; --all: the golden one
  edge-dsac slots promote policies                    the current policy becomes the golden one
  edge-dsac slots promote policies --key owner --out better.policy
                                                      and a policy file of it, signed for other robots by a key of yours

A running loop takes up each change at a tick boundary.
exit codes: 0 done; 1 failed; 2 wrong arguments; 3 refused for safety
"""


def add(verbs: Any) -> None:
    slots = verbs.add_parser(
        "slots", help="the folder of policies that a robot runs, tries and goes back to", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    actions = slots.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, does, run in (
        ("create", "a new folder with this policy in it", create),
        ("show", "what is in it", show),
        ("drop", "take the candidate away", drop),
        ("undo", "back to the parent of the current policy", undo),
        ("promote", "the current policy is golden from now on", promote),
    ):
        action = actions.add_parser(name, help=does)
        action.add_argument("folder", type=Path, metavar="FOLDER")
        action.add_argument("--allow-unsigned", action="store_true", help="take policies without a trusted signature")
        action.set_defaults(run=run)
        if name == "create":
            action.add_argument("file", type=Path, metavar="FILE", help="a .policy file")
        if name == "show":
            action.add_argument("--json", action="store_true")
        if name == "drop":
            action.add_argument("--why", default="dropped by hand", help="for the folder's events (default: %(default)s)")
        if name == "undo":
            action.add_argument("--all", action="store_true", help="back to the golden policy instead")
        if name == "promote":
            action.add_argument("--key", metavar="NAME", help="also write it as a file signed by this key of yours (see edge-dsac keys)")
            action.add_argument("--out", type=Path, metavar="FILE", help="that file (default: NAME-VERSION.policy here)")
            action.add_argument("--force", action="store_true", help="also where no trial here found it better than its parent")


def opened(args: argparse.Namespace) -> Slots:
    return Slots(args.folder, trusted_keys(key_folder(os.environ)), allow_unsigned=args.allow_unsigned)


def create(args: argparse.Namespace) -> int:
    with args.file.open("rb") as file:
        data = file.read(TOTAL_LIMIT + 1)
    slots = create_slots(args.folder, data, trusted_keys(key_folder(os.environ)), allow_unsigned=args.allow_unsigned)
    print(f"{args.folder}: {name_of(slots.current())} is current and golden; edge-dsac run --slots {args.folder}")
    return 0


def show(args: argparse.Namespace) -> int:
    slots = opened(args)
    candidate, outcome = slots.candidate(), slots.outcome()
    facts: dict[str, Any] = {
        "current": name_of(slots.current()),
        "golden": name_of(slots.golden()),
        "candidate": name_of(candidate[0]) if candidate else None,
        "trial": {"of": f"{outcome.candidate:016x}", "stage": outcome.stage.value, "why": outcome.why} if outcome else None,
        "events": slots.events(),
    }
    if args.json:
        print(json.dumps(facts))
        return 0
    for what in ("current", "golden", "candidate"):
        print(f"{what:<10} {facts[what] or 'none'}")
    if outcome:
        print(f"last trial {outcome.candidate:016x} {outcome.stage.value}{': ' + outcome.why if outcome.why else ''}")
    for event in facts["events"][-10:]:
        print(f"  {event.get('at')}  {event.get('event'):<18} {event.get('policy')}  {event.get('why')}")
    return 0


def drop(args: argparse.Namespace) -> int:
    if not opened(args).drop(args.why):
        raise BundleError(f"{args.folder}: there is no candidate to drop")
    print(f"{args.folder}: the candidate is gone")
    return 0


def undo(args: argparse.Namespace) -> int:
    slots = opened(args)
    print(f"{args.folder}: {name_of(slots.restore_golden() if args.all else slots.undo())} is current")
    return 0


def promote(args: argparse.Namespace) -> int:
    slots = opened(args)
    if args.out and not args.key:
        raise ValueError("--out is for the file that --key signs; give --key NAME")
    if args.key is None:
        print(f"{args.folder}: {name_of(slots.promote(forced=args.force))} is golden")
        return 0
    current, key = slots.current(), secret_key(key_folder(os.environ), args.key, os.environ.get("EDGE_DSAC_PASSPHRASE", ""))
    if current.signer is not None and key.public.hex_id == current.key_id:
        raise BundleError(f"{name_of(current)} is signed by {args.key} already: {slots.current_path}")
    out = args.out or Path(f"{current.manifest.name}-{current.manifest.version}.policy")
    if out.exists():
        raise ValueError(f"{out} is there already; give --out another name")
    promoted = slots.promote(forced=args.force)
    slots.disk.put(out, signed_again(promoted, key))
    print(f"{args.folder}: {name_of(promoted)} is golden; {out} is the same policy, signed by {args.key} ({key.public.hex_id})")
    print(f"  on another machine that trusts {args.key}: edge-dsac verify {out}")
    return 0
