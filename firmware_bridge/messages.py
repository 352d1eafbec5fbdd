"""The one table of what may be on the wire: messages, their fields, the link's states. Python and C are both made from it.

Knows names, types and order; does not convert units (wire.py), frame bytes (framing.py) or keep a session (session.py).
A packet is header + payload + CRC-32, COBS-coded and ended by 0x00; all integers are little-endian, nothing is padded.
Changing anything here changes PROTOCOL_MAJOR.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

PROTOCOL_MAJOR = 1
PROTOCOL_MINOR = 0
MAX_PACKET_BYTES = 254  # header + payload + CRC: one COBS block, so coding adds exactly one byte
SPEC_CHUNK_BYTES = 128
HELLO_RETRY_MS = 100
HEARTBEAT_MS = 100
TIME_SYNC_MS = 100
SILENCE_MS = 500  # nothing valid for this long: the link is down and needs a new HELLO
OPEN_SEED = zlib.crc32(b"edge_dsac")  # CRC seed of the messages that two strangers must be able to read


class MessageId(IntEnum):
    HELLO = 1
    TELEMETRY = 2
    COMMAND = 3
    HEARTBEAT = 4
    ARM = 5
    DISARM = 6
    ESTOP = 7
    ACK = 8
    TIME_SYNC = 9
    SPEC_READ = 10
    SPEC_TEXT = 11
    FAULT = 12


class Role(IntEnum):
    HOST = 0
    BOARD = 1


class AckResult(IntEnum):
    """The board's answer to ARM, DISARM and ESTOP. Anything but OK leaves the motors as they were."""

    OK = 0
    NOT_GREETED = 1
    WRONG_PROTOCOL = 2
    WRONG_FINGERPRINT = 3
    WRONG_SESSION = 4  # the ARM was meant for an earlier boot of this board
    FAULT_LATCHED = 5  # DISARM first
    TILTED = 6
    LOW_BATTERY = 7
    BAD_SENSOR = 8
    ESTOPPED = 9


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    type: str  # u8 u16 u32 u64 i16 i32 f32
    count: int | str = 1  # a number, "joints" or "extras"
    meaning: str = ""


HEADER = (
    Field("protocol", "u8", meaning="PROTOCOL_MAJOR"),
    Field("message", "u8", meaning="MessageId"),
    Field("seq", "u16", meaning="counts this sender's packets, wraps"),
    Field("flags", "u16", meaning="reserved, 0; anything else is not understood and is dropped"),
    Field("t_mcu_us", "u32", meaning="board clock at sending, wraps; 0 from the host"),
)

MESSAGES: dict[MessageId, tuple[Field, ...]] = {
    MessageId.HELLO: (
        Field("role", "u8", meaning="Role of the sender"),
        Field("minor", "u8", meaning="PROTOCOL_MINOR"),
        Field("session", "u32", meaning="drawn anew at each boot of the sender"),
        Field("firmware_fingerprint", "u8", 8),
        Field("model", "u8", 16, "robot model, zero padded"),
    ),
    MessageId.TELEMETRY: (
        Field("board", "u8", meaning="BoardMode"),
        Field("rx_errors", "u8", meaning="packets the board could not use, wraps"),
        Field("faults", "u16", meaning="Fault bits"),
        Field("answered_seq", "u16", meaning="seq of the last COMMAND the board accepted"),
        Field("counts", "i32", "joints", "encoder counts, board sign, wraps"),
        Field("velocity_cps", "i32", "joints", "counts per second over the last sensor period"),
        Field("applied", "i16", "joints", "command being driven, 1/32767 of command_limit, board sign"),
        Field("gyro", "i16", 3, "sensor axes; -32768 is no reading, in every i16 field below too"),
        Field("accel", "i16", 3),
        Field("battery", "u16"),
        Field("extras", "i16", "extras"),
    ),
    MessageId.COMMAND: (
        Field("answers_seq", "u16", meaning="seq of the TELEMETRY this answers"),
        Field("deadline_mcu_us", "u32", meaning="not to be obeyed after this instant of the board's clock"),
        Field("command", "f32", "joints", "in command_unit, board sign"),
    ),
    MessageId.HEARTBEAT: (),
    MessageId.ARM: (Field("session", "u32", meaning="the board's session, from its HELLO"),),
    MessageId.DISARM: (),
    MessageId.ESTOP: (),
    MessageId.ACK: (
        Field("message", "u8", meaning="MessageId that is answered"),
        Field("result", "u8", meaning="AckResult"),
        Field("acked_seq", "u16"),
        Field("faults", "u16", meaning="Fault bits"),
    ),
    MessageId.TIME_SYNC: (
        Field("host_send_ns", "u64", meaning="echoed by the board"),
        Field("mcu_receive_us", "u32", meaning="0 in the host's question"),
        Field("mcu_send_us", "u32", meaning="0 in the host's question"),
    ),
    MessageId.SPEC_READ: (Field("offset", "u16"),),
    MessageId.SPEC_TEXT: (
        Field("offset", "u16"),
        Field("total", "u16"),
        Field("length", "u8"),
        Field("data", "u8", SPEC_CHUNK_BYTES, "the board's firmware facts, `key = value` lines"),
    ),
    MessageId.FAULT: (
        Field("board", "u8", meaning="BoardMode after the fault"),
        Field("faults", "u16", meaning="Fault bits, newly set ones included"),
        Field("milli", "i32", meaning="the offending value times 1000, 0 where there is none"),
    ),
}
OPEN_MESSAGES = frozenset({MessageId.HELLO, MessageId.SPEC_READ, MessageId.SPEC_TEXT})  # CRC seeded with OPEN_SEED


class LinkState(IntEnum):
    DOWN = 0
    GREETING = 1  # HELLO sent, none received
    UP = 2
    REFUSED = 3  # the other side speaks another protocol or was built for another robot: it may look, not arm


class LinkEvent(IntEnum):
    START = 0
    HELLO_MATCHES = 1
    HELLO_DIFFERS = 2
    SILENCE = 3
    PORT_GONE = 4


# Role-blind: host and board run this very table. A pair that is not listed changes nothing.
LINK_TABLE: dict[tuple[LinkState, LinkEvent], LinkState] = {
    (LinkState.DOWN, LinkEvent.START): LinkState.GREETING,
    (LinkState.DOWN, LinkEvent.HELLO_MATCHES): LinkState.UP,
    (LinkState.DOWN, LinkEvent.HELLO_DIFFERS): LinkState.REFUSED,
    (LinkState.GREETING, LinkEvent.HELLO_MATCHES): LinkState.UP,
    (LinkState.GREETING, LinkEvent.HELLO_DIFFERS): LinkState.REFUSED,
    (LinkState.GREETING, LinkEvent.PORT_GONE): LinkState.DOWN,
    (LinkState.UP, LinkEvent.HELLO_DIFFERS): LinkState.REFUSED,
    (LinkState.UP, LinkEvent.SILENCE): LinkState.DOWN,
    (LinkState.UP, LinkEvent.PORT_GONE): LinkState.DOWN,
    (LinkState.REFUSED, LinkEvent.HELLO_MATCHES): LinkState.UP,
    (LinkState.REFUSED, LinkEvent.SILENCE): LinkState.DOWN,
    (LinkState.REFUSED, LinkEvent.PORT_GONE): LinkState.DOWN,
}

NUMPY_TYPES = {"u8": "<u1", "u16": "<u2", "u32": "<u4", "u64": "<u8", "i16": "<i2", "i32": "<i4", "f32": "<f4"}


def make_dtype(fields: tuple[Field, ...], joints: int, extras: int) -> np.dtype[np.void]:
    """The packed layout of a payload for one robot."""
    counts = {"joints": joints, "extras": extras}
    columns = []
    for field in fields:
        count = counts[field.count] if isinstance(field.count, str) else field.count
        many = isinstance(field.count, str) or count > 1
        columns.append((field.name, NUMPY_TYPES[field.type], (count,)) if many else (field.name, NUMPY_TYPES[field.type]))
    return np.dtype(columns)


HEADER_BYTES = make_dtype(HEADER, 0, 0).itemsize
CRC_BYTES = 4
NO_READING_I16 = -32768


def closed_seed(firmware_fingerprint: str) -> int:
    """CRC seed between two sides that were built from the same robot file."""
    return zlib.crc32(bytes.fromhex(firmware_fingerprint), OPEN_SEED)
