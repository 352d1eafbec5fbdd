"""Ed25519 signatures and keys in minisign's own formats, so that `minisign` can check, make and read every one of them.

Signs and checks bytes; knows no bundle and no folder (keyring.py does). Format: the manual page minisign(1), "NOTES".
Rule that must stay true: a signature is good or `SigningError` says why, and one text alone is the spelling of each value.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PUBLIC, PREHASHED, LEGACY = b"Ed", b"ED", b"Ed"
NO_KDF, SCRYPT, BLAKE2B = b"\0\0", b"Sc", b"B2"
# libsodium's limits for N = 2^17, r = 8, p = 1: 128 MB for about half a second, which a robot's board can still afford.
# minisign itself writes 1 GB (N = 2^20) and reads any.
OPERATIONS, MEMORY = 1 << 22, 1 << 27
MOST_MEMORY = 1 << 30
COMMENT = "untrusted comment: "
TRUSTED = "trusted comment: "


class SigningError(ValueError):
    """A key or a signature that is not one, is damaged, or is not trusted."""

    refused = True


@dataclass(frozen=True, slots=True)
class PublicKey:
    key_id: bytes  # 8 random bytes, chosen by whoever made the key
    raw: bytes  # 32 bytes
    name: str = ""  # what its file is called here

    @property
    def hex_id(self) -> str:
        """As minisign shows it."""
        return self.key_id[::-1].hex().upper()

    @property
    def text(self) -> str:
        """What `minisign -P` takes."""
        return encode(PUBLIC + self.key_id + self.raw)

    @property
    def file(self) -> str:
        return f"{COMMENT}minisign public key {self.hex_id}\n{self.text}\n"


@dataclass(frozen=True, slots=True)
class SecretKey:
    key_id: bytes
    seed: bytes = field(repr=False)  # a secret is never printed by accident

    @property
    def private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.key_id, self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


@dataclass(frozen=True, slots=True)
class Signature:
    key_id: bytes
    raw: bytes  # 64 bytes over BLAKE2b-512 of what is signed
    trusted_comment: str
    over_comment: bytes  # 64 bytes over `raw` and the trusted comment

    @property
    def hex_id(self) -> str:
        return self.key_id[::-1].hex().upper()

    @property
    def file(self) -> str:
        first = encode(PREHASHED + self.key_id + self.raw)
        return f"{COMMENT}signature from edge-dsac\n{first}\n{TRUSTED}{self.trusted_comment}\n{encode(self.over_comment)}\n"


# ---- signatures


def sign(data: bytes, key: SecretKey, trusted_comment: str) -> Signature:
    """The same bytes and comment give the same signature: Ed25519 needs no random number."""
    if not trusted_comment.isprintable():
        raise SigningError(f"a trusted comment is one printable line, got {trusted_comment!r}")
    raw = key.private.sign(hashlib.blake2b(data).digest())
    return Signature(key.key_id, raw, trusted_comment, key.private.sign(raw + trusted_comment.encode()))


def verify(data: bytes, signature: Signature, keys: Iterable[PublicKey]) -> PublicKey | None:
    """Whose signature it is; None if by none of these keys. A wrong one by a key that is known raises."""
    for key in keys:
        if key.key_id != signature.key_id:
            continue
        public = Ed25519PublicKey.from_public_bytes(key.raw)
        try:
            public.verify(signature.raw, hashlib.blake2b(data).digest())
            public.verify(signature.over_comment, signature.raw + signature.trusted_comment.encode())
        except InvalidSignature:
            raise SigningError(f"the signature is wrong for key {key.hex_id} ({key.name}): what was signed has been changed") from None
        return key
    return None


def read_signature(text: str) -> Signature:
    lines = text.split("\n")
    if len(lines) != 5 or lines[4] or not lines[0].startswith(COMMENT) or not lines[2].startswith(TRUSTED):
        raise SigningError("not a minisign signature: expected two comments, each with a line of base64 below it")
    first, over_comment, comment = decode(lines[1], 74, "signature"), decode(lines[3], 64, "signature"), lines[2][len(TRUSTED) :]
    if first[:2] == LEGACY:
        raise SigningError("a signature in minisign's legacy format (not prehashed); sign again without -l")
    if first[:2] != PREHASHED:
        raise SigningError(f"a signature by the unknown algorithm {first[:2]!r}; expected 'ED'")
    if not comment.replace("\t", "").isprintable():  # minisign's own comments hold tabs
        raise SigningError("the trusted comment holds what cannot be printed")
    return Signature(first[2:10], first[10:], comment, over_comment)


# ---- keys


def make_secret_key(random: bytes) -> SecretKey:
    """From 40 random bytes: `os.urandom(40)`."""
    assert len(random) == 40
    return SecretKey(random[:8], random[8:])


def read_public_key(text: str, name: str = "") -> PublicKey:
    """A .pub file, or its second line alone as people paste it."""
    lines = text.strip("\r\n").replace("\r\n", "\n").split("\n")
    if len(lines) > 2 or (len(lines) == 2 and not lines[0].startswith(COMMENT)):
        raise SigningError("not a minisign public key: expected a line of comment and a line of base64")
    data = decode(lines[-1], 42, "public key")
    if data[:2] != PUBLIC:
        raise SigningError(f"a public key for the unknown algorithm {data[:2]!r}; expected 'Ed'")
    return PublicKey(data[2:10], data[10:], name)


def secret_key_file(key: SecretKey, passphrase: str = "", salt: bytes | None = None) -> str:
    """minisign's format: as `minisign -G -W` without a passphrase, encrypted with one."""
    body = key.key_id + key.seed + key.public.raw
    if not passphrase:  # no checksum then, as minisign has it: the public half inside is the check
        head, body = PUBLIC + NO_KDF + BLAKE2B + bytes(48), body + bytes(32)
    else:
        salt = os.urandom(32) if salt is None else salt
        head = PUBLIC + SCRYPT + BLAKE2B + salt + OPERATIONS.to_bytes(8, "little") + MEMORY.to_bytes(8, "little")
        body = mixed(body + checksum(body), passphrase, salt, OPERATIONS, MEMORY)
    return f"{COMMENT}minisign encrypted secret key\n{encode(head + body)}\n"


def read_secret_key(text: str, passphrase: str = "") -> SecretKey:
    lines = text.split("\n")
    if len(lines) != 3 or lines[2] or not lines[0].startswith(COMMENT):
        raise SigningError("not a minisign secret key: expected a line of comment and a line of base64")
    data = decode(lines[1], 158, "secret key")
    algorithm, kdf, check, salt, body = data[:2], data[2:4], data[4:6], data[6:38], data[54:]
    if algorithm != PUBLIC or check != BLAKE2B or kdf not in (NO_KDF, SCRYPT):
        raise SigningError("a secret key in a format unknown here; expected Ed25519, BLAKE2b and scrypt or no passphrase")
    if kdf == SCRYPT:
        if not passphrase:
            raise SigningError("the secret key is encrypted: its passphrase is needed")
        operations, memory = int.from_bytes(data[38:46], "little"), int.from_bytes(data[46:54], "little")
        body = mixed(body, passphrase, salt, operations, memory)
        if body[72:] != checksum(body[:72]):
            raise SigningError("wrong passphrase, or the secret key is damaged")
    key = SecretKey(body[:8], body[8:40])
    if key.public.raw != body[40:72]:
        raise SigningError("the secret key is damaged: its two halves do not belong together")
    return key


def is_encrypted(text: str) -> bool:
    lines = text.split("\n")
    return len(lines) > 1 and decode(lines[1], 158, "secret key")[2:4] == SCRYPT


def checksum(body: bytes) -> bytes:
    return hashlib.blake2b(PUBLIC + body, digest_size=32).digest()


def mixed(body: bytes, passphrase: str, salt: bytes, operations: int, memory: int) -> bytes:
    """XOR with scrypt's stream: the same step encrypts and decrypts."""
    n, p = scrypt_cost(operations, memory)
    if 1024 * n > MOST_MEMORY:
        raise SigningError(f"the secret key wants {n >> 10} MB for its passphrase; at most {MOST_MEMORY >> 20} MB are given")
    stream = hashlib.scrypt(passphrase.encode(), salt=salt, n=n, r=8, p=p, maxmem=1024 * n + (1 << 20), dklen=len(body))
    return bytes(a ^ b for a, b in zip(body, stream, strict=True))


def scrypt_cost(operations: int, memory: int) -> tuple[int, int]:
    """(N, p) as libsodium's pickparams derives them from its two limits, at r = 8."""
    operations = max(operations, 32768)
    if operations < memory // 32:
        return power_of_two(operations // 32), 1
    n = power_of_two(memory // 1024)
    return n, max(min(operations // 4 // n, 0x3FFFFFFF) // 8, 1)


def power_of_two(most: int) -> int:
    n = 2
    while n <= most // 2:
        n *= 2
    return n


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def decode(text: str, size: int, what: str) -> bytes:
    """Strict: one text per value, so that no bit of a file is without meaning."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise SigningError(f"the {what} is not base64") from None
    if len(data) != size or encode(data) != text:
        raise SigningError(f"the {what} is damaged: expected {size} bytes in base64, got {len(data)}")
    return data
