"""The folder of keys: whose policies this machine obeys (`trusted/NAME.pub`) and what it signs with (`secret/NAME.key`).

    ~/.config/edge_dsac/keys, or where EDGE_DSAC_KEYS says

The files are minisign's. Knows no bundle. Rule that must stay true: a secret key is readable by its owner alone, from the first
byte on, and no key is ever overwritten.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edge_dsac.bundle.signing import PublicKey, SecretKey, SigningError, make_secret_key, read_public_key, read_secret_key, secret_key_file

KEY_FILE_LIMIT = 4096


class KeyringError(SigningError):
    """A folder of keys that cannot be used as asked."""


def key_folder(environment: Mapping[str, str]) -> Path:
    """`environment`: os.environ, handed in by the command line."""
    place = environment.get("EDGE_DSAC_KEYS")
    if place:
        return Path(place)
    return Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edge_dsac" / "keys"


def trusted_keys(folder: Path) -> tuple[PublicKey, ...]:
    """All of them, by name. One damaged file is an error: a key that silently does not count is a robot that silently does not start."""
    found = []
    for path in sorted((folder / "trusted").glob("*.pub")):
        found.append(read_public_file(path, path.stem))
    return tuple(found)


def new_key(folder: Path, name: str, passphrase: str = "") -> PublicKey:
    """A key pair; trusted here at once, because this machine has to run what it signs."""
    secret_path, public_path = folder / "secret" / f"{checked(name)}.key", folder / "trusted" / f"{name}.pub"
    for path in (secret_path, public_path):
        if path.exists():
            raise KeyringError(f"{path} is there already; choose another name, keys are not overwritten")
    key = make_secret_key(os.urandom(40))
    secret_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_new(secret_path, secret_key_file(key, passphrase), 0o600)
    return trust(folder, replace(key.public, name=name))


def board_key(folder: Path, hostname: str) -> SecretKey:
    """What this very machine signs the policies with that it has tuned itself: made at first use, trusted here and nowhere else.

    No passphrase: nobody is there to type one. Whoever holds this machine can have it sign anything, for this machine.
    """
    name = f"board-{hashlib.sha256(hostname.encode()).hexdigest()[:8]}"
    if name not in secret_names(folder):
        new_key(folder, name)
    key = secret_key(folder, name)
    if not any(known.raw == key.public.raw for known in trusted_keys(folder)):  # a person has ended the trust in it
        secret = folder / "secret" / f"{name}.key"
        raise KeyringError(f"the board's own key {name} ({key.public.hex_id}) is not trusted here; remove {secret} to have a new one made")
    return key


def trust(folder: Path, key: PublicKey) -> PublicKey:
    """`key.name` is what the key is called from now on."""
    for known in trusted_keys(folder):
        if known.name == key.name:
            raise KeyringError(f"a key named {key.name!r} is trusted already ({known.hex_id}); remove it first or give --name")
        if known.key_id == key.key_id:
            raise KeyringError(f"key {key.hex_id} is trusted already, as {known.name!r}")
    path = folder / "trusted" / f"{checked(key.name)}.pub"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_new(path, key.file, 0o644)
    return key


def remove(folder: Path, name: str) -> PublicKey:
    """Ends the trust in a key; a secret key of that name stays where it is."""
    path = folder / "trusted" / f"{checked(name)}.pub"
    if not path.exists():
        names = ", ".join(key.name for key in trusted_keys(folder)) or "none"
        raise KeyringError(f"no key named {name!r} in {folder / 'trusted'}; trusted: {names}")
    key = read_public_file(path, name)
    path.unlink()
    return key


def secret_names(folder: Path) -> tuple[str, ...]:
    return tuple(path.stem for path in sorted((folder / "secret").glob("*.key")))


def secret_text(folder: Path, name: str) -> str:
    """The file of a secret key, once it is sure that nobody else has read it."""
    path = folder / "secret" / f"{checked(name)}.key"
    if not path.exists():
        names = ", ".join(secret_names(folder)) or "none; make one: edge-dsac keys new NAME"
        raise KeyringError(f"no secret key named {name!r} in {path.parent}; there: {names}")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise KeyringError(f"{path} can be read by others (mode {mode:04o}): chmod 600 {path}, and think about who has read it")
    return read_text(path)


def secret_key(folder: Path, name: str, passphrase: str = "") -> SecretKey:
    return read_secret_key(secret_text(folder, name), passphrase)


def read_public_file(path: Path, name: str) -> PublicKey:
    try:
        return read_public_key(read_text(path), checked(name))
    except SigningError as error:
        raise KeyringError(f"{path}: {error}") from None


def read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(KEY_FILE_LIMIT + 1)
        if len(data) > KEY_FILE_LIMIT:
            raise KeyringError(f"{path}: not a key: more than {KEY_FILE_LIMIT} bytes")
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KeyringError(f"{path}: cannot be read: {error}") from None


def write_new(path: Path, text: str, mode: int) -> None:
    """Created with its mode, so that there is no moment in which others could open it."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise KeyringError(f"{path} is there already; keys are not overwritten") from None
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)


def checked(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise KeyringError(f"a key's name is letters, digits, '.', '_' and '-', got {name!r}")
    return name
