"""Bytes <-> packets: COBS, CRC-32, header. Any byte stream gives packets or counted errors, never an exception.

A frame is whatever stands between two zero bytes; empty ones are nothing, not errors. Whether the bytes come whole, one by
one or after garbage changes nothing. Knows sizes of payloads, not what is in them (wire.py) nor what they mean (session.py).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, fields
from typing import NamedTuple

from cobs import cobs

from edge_dsac.spec.robot import RobotSpec
from firmware_bridge.messages import (
    CRC_BYTES,
    HEADER_BYTES,
    MAX_PACKET_BYTES,
    MESSAGES,
    OPEN_MESSAGES,
    OPEN_SEED,
    PROTOCOL_MAJOR,
    MessageId,
    closed_seed,
    make_dtype,
)

MAX_CODED_BYTES = MAX_PACKET_BYTES + 1
HEADER_STRUCT = struct.Struct("<BBHHI")
CRC_STRUCT = struct.Struct("<I")
OPEN_IDS = frozenset(int(message) for message in OPEN_MESSAGES)
HELLO = int(MessageId.HELLO)


class Packet(NamedTuple):
    """One checked packet. `protocol` differs from ours only in a HELLO: that is how two strangers find out."""

    protocol: int
    message: int
    seq: int
    t_mcu_us: int
    payload: bytes


@dataclass(slots=True)
class FrameErrors:
    """Frames that could not be used, by the first check they failed."""

    length: int = 0
    cobs: int = 0
    crc: int = 0
    protocol: int = 0
    flags: int = 0
    message: int = 0
    payload: int = 0

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


def payload_sizes(spec: RobotSpec) -> dict[int, int]:
    return {int(m): make_dtype(table, len(spec.joints), len(spec.extras)).itemsize for m, table in MESSAGES.items()}


class Framer:
    """Makes frames of one sender; counts its packets."""

    def __init__(self, spec: RobotSpec) -> None:
        self.closed_seed = closed_seed(spec.firmware_fingerprint)
        self.seq = 0

    def frame(self, message: int, payload: bytes = b"", t_mcu_us: int = 0) -> bytes:
        body = HEADER_STRUCT.pack(PROTOCOL_MAJOR, message, self.seq, 0, t_mcu_us) + payload
        self.seq = (self.seq + 1) & 0xFFFF
        seed = OPEN_SEED if message in OPEN_IDS else self.closed_seed
        coded: bytes = cobs.encode(body + CRC_STRUCT.pack(zlib.crc32(body, seed)))
        return coded + b"\0"


class Deframer:
    """Makes packets of one sender's bytes."""

    def __init__(self, spec: RobotSpec) -> None:
        self.closed_seed = closed_seed(spec.firmware_fingerprint)
        self.sizes = payload_sizes(spec)
        self.errors = FrameErrors()
        self.rest = b""

    def feed(self, data: bytes) -> list[Packet]:
        parts = (self.rest + data).split(b"\0")
        self.rest = parts.pop()[: MAX_CODED_BYTES + 1]  # one too many is enough to know that it is too long
        packets = []
        for part in parts:
            if part:
                packet = self.decode(part)
                if packet is not None:
                    packets.append(packet)
        return packets

    def forget(self) -> None:
        """The port was reopened: what is left of the old stream belongs to no frame of the new one."""
        self.rest = b""

    def decode(self, coded: bytes) -> Packet | None:
        errors = self.errors
        if len(coded) > MAX_CODED_BYTES:
            errors.length += 1
            return None
        try:
            raw = cobs.decode(coded)
        except cobs.DecodeError:
            errors.cobs += 1
            return None
        size = len(raw) - HEADER_BYTES - CRC_BYTES
        if size < 0:
            errors.length += 1
            return None
        protocol, message, seq, flags, t_mcu_us = HEADER_STRUCT.unpack_from(raw)
        seed = OPEN_SEED if message in OPEN_IDS else self.closed_seed
        if zlib.crc32(raw[:-CRC_BYTES], seed) != CRC_STRUCT.unpack_from(raw, len(raw) - CRC_BYTES)[0]:
            errors.crc += 1
            return None
        if protocol != PROTOCOL_MAJOR and message != HELLO:
            errors.protocol += 1
            return None
        if flags:
            errors.flags += 1
            return None
        expected = self.sizes.get(message)
        if expected is None:
            errors.message += 1
            return None
        if size != expected and protocol == PROTOCOL_MAJOR:
            errors.payload += 1
            return None
        return Packet(protocol, message, seq, t_mcu_us, raw[HEADER_BYTES:-CRC_BYTES])
