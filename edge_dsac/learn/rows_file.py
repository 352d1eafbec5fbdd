"""Rows on disk: fixed-size records with a checksum, in segment files with one page of header. Reading never raises for damage.

Knows bytes and files; knows nothing of what is kept or for how long (buffer.py). Rule that must stay true: a row is believed
only if its CRC-32 holds. The CRC starts from the sizes and the robot's fingerprint, so that another robot's rows do not pass
even where the header that names it is lost.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_dsac.learn.transitions import Rows

MAGIC = b"EDSACROW"
VERSION = 1
PAGE = 4096
FIXED = struct.Struct("<8sIIIIQQQ64s")  # magic, version, obs, act, record bytes, first ordinal, until, flights, fingerprint
ENTRY = struct.Struct("<QQ")  # flight, its highest index so far
FLIGHTS = (PAGE - FIXED.size - 4) // ENTRY.size  # how many flights a header remembers
SUFFIX = ".rows"


class RowsError(ValueError):
    """A buffer that cannot be used, and why."""


class OtherRobot(RowsError):
    """The rows belong to another robot, or to another policy layout of this one."""

    refused = True


@dataclass(frozen=True)
class Shape:
    """What makes rows comparable: sizes, and the fingerprint of the robot that lived them."""

    obs: int
    act: int
    fingerprint: str

    def __post_init__(self) -> None:
        if not self.fingerprint or len(self.fingerprint.encode()) > 64:
            raise RowsError(f"fingerprint {self.fingerprint!r}: expected 1 to 64 bytes; give the robot's policy_fingerprint")

    @property
    def dtype(self) -> np.dtype[np.void]:
        return np.dtype([
            ("ordinal", "<u8"), ("index", "<u8"), ("t_host_ns", "<i8"), ("bundle_id", "<u8"), ("calibration_id", "<u8"), ("flight", "<u8"),
            ("reward", "<f4"), ("done", "<f4"), ("discount", "<f4"), ("obs", "<f4", (self.obs,)), ("act", "<f4", (self.act,)),
            ("next_obs", "<f4", (self.obs,)), ("mode", "u1"), ("label", "u1"), ("spare", "<u2"), ("crc", "<u4"),
        ])  # fmt: skip

    @property
    def seed(self) -> int:
        return zlib.crc32(f"{VERSION} {self.obs} {self.act} {self.fingerprint}".encode())

    def pack(self, rows: Rows, picked: np.ndarray, first_ordinal: int) -> np.ndarray:
        """The rows `picked` (positions) as records, numbered from `first_ordinal` on."""
        records = np.zeros(len(picked), self.dtype)
        for name, column in zip(Rows._fields, rows, strict=True):
            records[name] = np.asarray(column)[picked]
        records["ordinal"] = first_ordinal + np.arange(len(picked), dtype=np.uint64)
        records["crc"] = self.checksums(records)
        return records

    def checksums(self, records: np.ndarray) -> np.ndarray:
        size, seed, data = self.dtype.itemsize, self.seed, np.ascontiguousarray(records).view(np.uint8).data
        return np.array([zlib.crc32(data[at : at + size - 4], seed) for at in range(0, len(data), size)], np.uint32)


def as_rows(records: np.ndarray) -> Rows:
    """Views, no copies."""
    return Rows(*(records[name] for name in Rows._fields))


@dataclass(frozen=True)
class Header:
    """The first page of a segment."""

    shape: Shape
    first: int  # ordinal of its first row: the rows that were ever added before it
    until: int = 0  # 0, or: stands for all older segments whose first ordinal is below this
    flights: dict[int, int] = field(default_factory=dict)  # flight -> highest index stored before this segment began

    def pack(self) -> bytes:
        newest = list(self.flights.items())[-FLIGHTS:]
        shape = self.shape
        fixed = FIXED.pack(
            MAGIC, VERSION, shape.obs, shape.act, shape.dtype.itemsize, self.first, self.until, len(newest), shape.fingerprint.encode()
        )
        page = (fixed + b"".join(ENTRY.pack(*entry) for entry in newest)).ljust(PAGE - 4, b"\0")
        return page + zlib.crc32(page).to_bytes(4, "little")


def unpack_header(page: bytes, source: str) -> Header | None:
    """None: damaged, or cut off."""
    if len(page) < PAGE or page[:8] != MAGIC or zlib.crc32(page[: PAGE - 4]) != int.from_bytes(page[PAGE - 4 : PAGE], "little"):
        return None
    _, version, obs, act, _, first, until, flights, fingerprint = FIXED.unpack_from(page)
    if version != VERSION:
        raise RowsError(f"{source}: rows of version {version}, this program reads {VERSION}; move the folder away to begin a new buffer")
    entries = [ENTRY.unpack_from(page, FIXED.size + k * ENTRY.size) for k in range(min(flights, FLIGHTS))]
    return Header(Shape(obs, act, fingerprint.rstrip(b"\0").decode()), first, until, dict(entries))


def read_header(path: Path) -> Header | None:
    with open(path, "rb") as file:
        return unpack_header(file.read(PAGE), str(path))


@dataclass(frozen=True, slots=True)
class Found:
    """What a segment gave."""

    records: np.ndarray
    slots: int  # places in the file up to and with the last whole row
    damaged: int  # rows before that which failed their check
    torn: int  # rows after it, a part of one counted as one


def read_records(path: Path, shape: Shape, after: int) -> Found:
    """The whole rows, in order; one whose ordinal is not above `after` and those before it stands elsewhere already."""
    dtype = shape.dtype
    data = path.read_bytes()
    count, rest = divmod(max(len(data) - PAGE, 0), dtype.itemsize)
    records = np.frombuffer(data, dtype, count, PAGE) if count else np.zeros(0, dtype)
    good = records["crc"] == shape.checksums(records)
    slots = int(np.flatnonzero(good)[-1]) + 1 if good.any() else 0
    torn, damaged = count - slots + bool(rest), int((~good[:slots]).sum())
    ordinal = np.where(good, records["ordinal"].astype(np.int64), -1)
    good &= ordinal > np.maximum.accumulate(np.concatenate([[after], ordinal]))[:-1]
    return Found(records if good.all() else records[good], slots, damaged, torn)


def segments(folder: Path) -> tuple[list[tuple[Path, Header | None]], list[Path]]:
    """(those in force, oldest first; those that a merged one stands for)."""
    found: list[tuple[Path, Header | None]] = []
    over: list[Path] = []
    until = 0
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            header = read_header(path)
        except FileNotFoundError:
            continue  # its writer has just let it go
        if first_of(path) < until:
            over.append(path)
            continue
        found.append((path, header))
        until = max(until, header.until if header else 0)
    return found, over


def path_of(folder: Path, first: int) -> Path:
    return folder / f"{first:016d}{SUFFIX}"


def first_of(path: Path) -> int:
    digits = path.name[: -len(SUFFIX)]
    return int(digits) if digits.isdigit() else 0


class Disk:
    """The few operations on files that a buffer makes; a test puts one in its place that fails, or dies, at any of them."""

    def create(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)

    def reopen(self, path: Path, size: int) -> int:
        """For more rows; what stands after `size` goes."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        os.ftruncate(descriptor, size)
        return descriptor

    def write(self, descriptor: int, data: memoryview | bytes, at: int) -> None:
        left = memoryview(data)
        while left:
            written = os.pwrite(descriptor, left, at)  # at its place: what a failed write left is written over
            left, at = left[written:], at + written

    def sync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        os.replace(old, new)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
