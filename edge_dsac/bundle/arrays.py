"""Reads an npz file that may be anybody's: every size is checked before a byte of it is allocated, and nothing is ever unpickled.

`numpy.load` would allocate what a header asks for, however much. Knows no actor and no robot. Rule that must stay true: what is
inflated is bounded by `limit`, whatever the file says about itself.
"""

from __future__ import annotations

import io
import math
import struct
import tokenize
import zipfile
import zlib

import numpy as np

KINDS = "biufU"  # numbers and text; an object array ('O') is a program
MOST_ARRAYS = 256
HEADER_LIMIT = 4096

DAMAGE = (
    ValueError, EOFError, KeyError, TypeError, OverflowError, RuntimeError, SyntaxError, MemoryError, zipfile.BadZipFile, zlib.error,
    struct.error, tokenize.TokenError, OSError,
)  # fmt: skip


class ArraysError(ValueError):
    """An npz file that is damaged or is not what it should be."""

    refused = True


def read_arrays(data: bytes, source: str, limit: int) -> dict[str, np.ndarray]:
    """Name -> array, read-only; `limit` in bytes, of all arrays together."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            entries = file.infolist()
            if len(entries) > MOST_ARRAYS or len({entry.filename for entry in entries}) < len(entries):
                raise ArraysError(f"{source}: more than {MOST_ARRAYS} arrays, or one of them twice")
            arrays: dict[str, np.ndarray] = {}
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                if name == entry.filename:
                    raise ArraysError(f"{source}: holds {name!r}, which is no array")
                with file.open(entry) as stream:
                    raw = stream.read(limit + 1)  # a bare read() inflates it all, whatever size the entry gives itself
                if len(raw) > limit:
                    raise ArraysError(f"{source}: inflates to more than it may; a bomb, or not this file")
                limit -= len(raw)
                arrays[name] = read_array(raw, f"{source}: {name}")
            return arrays
    except ArraysError:
        raise
    except DAMAGE as error:
        raise ArraysError(f"{source}: not an npz file: {error}") from None


def read_array(raw: bytes, source: str) -> np.ndarray:
    stream = io.BytesIO(raw)
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=HEADER_LIMIT)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream, max_header_size=HEADER_LIMIT)
    else:
        raise ArraysError(f"{source}: version {version} of the npy format; expected 1.0 or 2.0")
    if dtype.kind not in KINDS or dtype.hasobject:
        raise ArraysError(f"{source}: holds {dtype}; expected numbers or text")
    rest = raw[stream.tell() :]
    if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != len(rest):
        raise ArraysError(f"{source}: says {shape} of {dtype}, has {len(rest)} bytes")
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C")
