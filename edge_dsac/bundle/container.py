"""The zip around a bundle: one way to write it, and a reader that takes nothing else.

Entries are stored, not deflated: then a bundle is the same bytes whatever zlib wrote it, there is nothing to inflate, and no bit is
without meaning. (Weights do not shrink; npz files inside may be deflated, arrays.py bounds those.) Any zip tool reads it. Knows
names and sizes; knows nothing of what the files hold. Rule that must stay true: `lay_out(take_apart(data)) == data`, else refused.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from edge_dsac.bundle.manifest import BundleError
from edge_dsac.bundle.targets import TARGETS

MANIFEST, SIGNATURE = "manifest.json", "manifest.json.minisig"
ACTOR, GOLDEN, GUIDE = "actor.npz", "golden.npz", "guide.npz"
MIB = 1 << 20
# Processors that compiled policies are for, as targets of bundle/codegen.py's C file.
# All that a bundle may hold, and the most bytes of each.
LIMITS: dict[str, int] = {
    MANIFEST: MIB, SIGNATURE: 4096, ACTOR: 16 * MIB, "actor.onnx": 16 * MIB, "actor_float16.onnx": 16 * MIB, "actor_int8.onnx": 16 * MIB,
    "actor.c": 32 * MIB, "critic.npz": 32 * MIB, "anchors.npz": 32 * MIB, GOLDEN: 4 * MIB, GUIDE: 32 * MIB,
    "report.png": 4 * MIB, "LICENSE.txt": MIB // 4,
    **{target.file: 16 * MIB for target in TARGETS.values()},
}  # fmt: skip
TOTAL_LIMIT = 128 * MIB  # a board keeps three bundles and reads one into memory
REQUIRED = (MANIFEST, ACTOR, GOLDEN)

LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")
JANUARY_1980 = 0x21  # a zip's earliest day; a real date would make every bundle differ
MADE_BY, NEEDS = 3 << 8 | 20, 20  # Unix, for the mode below; version 2.0
REGULAR_FILE, KIND, SYMLINK = 0o100644, 0o170000, 0o120000


class Entry(NamedTuple):
    """One record of the central directory, as it stands there."""

    signature: bytes
    made_by: int
    needs: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    stored: int
    size: int
    name_length: int
    extra_length: int
    comment_length: int
    disk: int
    internal: int
    external: int
    offset: int


def lay_out(files: Mapping[str, bytes]) -> bytes:
    """Sorted by name, no date, no comment, no extra field."""
    body, directory = bytearray(), bytearray()
    for name in sorted(files):
        data, raw = files[name], name.encode("utf-8")
        common = (0, 0, 0, JANUARY_1980, zlib.crc32(data), len(data), len(data), len(raw), 0)
        directory += CENTRAL.pack(b"PK\1\2", MADE_BY, NEEDS, *common, 0, 0, 0, REGULAR_FILE << 16, len(body)) + raw
        body += LOCAL.pack(b"PK\3\4", NEEDS, *common) + raw + data
    end = END.pack(b"PK\5\6", 0, 0, len(files), len(files), len(directory), len(body), 0)
    return bytes(body + directory + end)


def take_apart(data: bytes) -> dict[str, bytes]:
    """Name -> contents. Nothing is allocated, inflated or looked into before all sizes and names are known to be good."""
    if len(data) > TOTAL_LIMIT:
        raise BundleError(f"{len(data)} bytes; a policy file has at most {TOTAL_LIMIT}")
    begin, count = find_directory(data)
    entries: dict[str, Entry] = {}
    at = begin
    for _ in range(count):
        name, entry, at = read_entry(data, at)
        if name in entries:
            raise BundleError(f"the entry {name!r} is there twice")
        entries[name] = check_entry(name, entry)
    if at != len(data) - END.size:
        raise BundleError(f"{len(data) - END.size - at} bytes between the directory and the end record")
    total = sum(entry.size for entry in entries.values())
    if total > TOTAL_LIMIT:
        raise BundleError(f"the entries say they are {total} bytes together; at most {TOTAL_LIMIT} are taken")
    files = {name: contents(data, name, entry, begin) for name, entry in entries.items()}
    for name in REQUIRED:
        if name not in files:
            raise BundleError(f"{name} is missing; there: {', '.join(files) or 'nothing'}")
    if lay_out(files) != data:  # whatever is left: a local header that says otherwise, gaps, other dates, another order
        raise BundleError("not laid out as edge_dsac writes it; two readers could see two different bundles in it")
    return files


def find_directory(data: bytes) -> tuple[int, int]:
    """(where it begins, how many entries): only where the last 22 bytes say so."""
    at = len(data) - END.size
    if at < 0 or data[at : at + 4] != b"PK\5\6":
        found = data.rfind(b"PK\5\6")
        if data[:4] == b"PK\3\4" and 0 <= found <= at:
            raise BundleError(f"{at - found} bytes follow the end record: a comment, something appended, or a file cut off")
        raise BundleError("not a policy file, or cut off: it does not end with a zip's end record")
    _, disk, first_disk, here, count, size, begin, comment = END.unpack_from(data, at)
    if disk or first_disk or here != count or comment:
        raise BundleError("the end record speaks of several disks, of a comment or of several directories")
    if count > len(LIMITS):
        raise BundleError(f"{count} entries; a policy file has at most {len(LIMITS)}")
    if begin + size < at:
        raise BundleError(f"{at - begin - size} bytes before the first entry or between the parts, or a second directory")
    if begin + size > at or data[:4] != b"PK\3\4":
        raise BundleError("the end record points outside the file, or something stands before the first entry")
    return begin, count


def read_entry(data: bytes, at: int) -> tuple[str, Entry, int]:
    if at + CENTRAL.size > len(data) - END.size or data[at : at + 4] != b"PK\1\2":
        raise BundleError(f"the directory is damaged at byte {at}")
    entry = Entry(*CENTRAL.unpack_from(data, at))
    at += CENTRAL.size
    raw = data[at : at + entry.name_length]
    try:
        return raw.decode("ascii"), entry, at + entry.name_length + entry.extra_length + entry.comment_length
    except UnicodeDecodeError:
        raise BundleError(f"the entry {raw!r} has a name that is not plain text") from None


def check_entry(name: str, entry: Entry) -> Entry:
    if "\0" in name or "\\" in name or name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise BundleError(f"the entry {name!r} has an absolute or foreign path")
    if ".." in name.split("/"):
        raise BundleError(f"the entry {name!r} leads out of the folder")
    if name not in LIMITS:
        raise BundleError(f"the entry {name!r} is none of a policy file's")
    if entry.flags & 1:
        raise BundleError(f"the entry {name!r} is encrypted")
    if entry.external >> 16 & KIND == SYMLINK:
        raise BundleError(f"the entry {name!r} is a symbolic link")
    if entry.method or entry.stored != entry.size:
        raise BundleError(f"the entry {name!r} is compressed (method {entry.method}); a policy file's entries are stored")
    if entry.size > LIMITS[name]:
        raise BundleError(f"the entry {name!r} says it is {entry.size} bytes; at most {LIMITS[name]} are taken")
    if entry.extra_length or entry.comment_length:
        raise BundleError(f"the entry {name!r} carries an extra field or a comment")
    return entry


def contents(data: bytes, name: str, entry: Entry, directory: int) -> bytes:
    begin = entry.offset + LOCAL.size + entry.name_length
    if begin + entry.size > directory:
        raise BundleError(f"the entry {name!r} reaches beyond the entries; the file is damaged")
    found = data[begin : begin + entry.size]
    if zlib.crc32(found) != entry.crc:
        raise BundleError(f"the entry {name!r} is damaged: its CRC does not fit")
    return found
