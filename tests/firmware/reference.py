"""The wire written down a second time, as simply as it can be: what the C decoder is held against.

Shares no code with firmware_bridge: sizes, codes and seeds are typed here by hand, so that a mistake there has to be made twice.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

OPEN_SEED = zlib.crc32(b"edge_dsac")
OPEN = {1, 10, 11}
ERRORS = ("length", "cobs", "crc", "protocol", "flags", "message", "payload")


class Packet(NamedTuple):
    protocol: int
    message: int
    seq: int
    t_mcu_us: int
    payload: bytes


def sizes(joints: int, extras: int) -> dict[int, int]:
    return {1: 30, 2: 20 + 10 * joints + 2 * extras, 3: 6 + 4 * joints, 4: 0, 5: 4, 6: 0, 7: 0, 8: 6, 9: 16, 10: 2, 11: 133, 12: 7}


def closed_seed(fingerprint: str) -> int:
    return zlib.crc32(bytes.fromhex(fingerprint), OPEN_SEED)


def stuff(raw: bytes) -> bytes:
    """COBS: each run of at most 254 bytes that are not zero is led by its length plus one."""
    out, run = b"", b""
    for position, byte in enumerate(raw):
        if byte:
            run += bytes([byte])
            if len(run) == 254:
                out, run = out + b"\xff" + run, b""
                if position == len(raw) - 1:
                    return out
        else:
            out, run = out + bytes([len(run) + 1]) + run, b""
    return out + bytes([len(run) + 1]) + run


def unstuff(coded: bytes) -> bytes | None:
    raw = b""
    while coded:
        run, coded = coded[1 : coded[0]], coded[0:1] + coded[coded[0] :]
        if len(run) != coded[0] - 1:
            return None
        raw += run
        if coded[0] < 255 and len(coded) > 1:
            raw += b"\0"
        coded = coded[1:]
    return raw


def frame(message: int, payload: bytes, seed: int, seq: int = 0, t_mcu_us: int = 0, protocol: int = 1, flags: int = 0) -> bytes:
    body = struct.pack("<BBHHI", protocol, message, seq & 0xFFFF, flags, t_mcu_us & 0xFFFFFFFF) + payload
    return stuff(body + struct.pack("<I", zlib.crc32(body, OPEN_SEED if message in OPEN else seed))) + b"\0"


def judge(coded: bytes, payload_sizes: dict[int, int], seed: int) -> Packet | str:
    """What stands between two zeros: a packet, or the name of the first thing that is wrong with it."""
    if len(coded) > 255:
        return "length"
    raw = unstuff(coded)
    if raw is None:
        return "cobs"
    if len(raw) < 14:
        return "length"
    protocol, message, seq, flags, t_mcu_us = struct.unpack("<BBHHI", raw[:10])
    if zlib.crc32(raw[:-4], OPEN_SEED if message in OPEN else seed) != struct.unpack("<I", raw[-4:])[0]:
        return "crc"
    if protocol != 1 and message != 1:
        return "protocol"
    if flags:
        return "flags"
    if message not in payload_sizes:
        return "message"
    if protocol == 1 and len(raw) - 14 != payload_sizes[message]:
        return "payload"
    return Packet(protocol, message, seq, t_mcu_us, raw[10:-4])


def decode(stream: bytes, payload_sizes: dict[int, int], seed: int) -> tuple[list[Packet], dict[str, int]]:
    packets, errors = [], dict.fromkeys(ERRORS, 0)
    for coded in stream.split(b"\0")[:-1]:
        if coded:
            found = judge(coded, payload_sizes, seed)
            if isinstance(found, str):
                errors[found] += 1
            else:
                packets.append(found)
    return packets, errors
