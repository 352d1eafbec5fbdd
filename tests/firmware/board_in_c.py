"""The firmware's C behind ctypes, with a bench around it: a clock, sensors with a rattle in their last bit, and a host's pen.

Everything a test sends is written by reference.py, never by the code under test.
"""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

import numpy as np
from firmware import reference

from edge_dsac.records import BoardMode, Fault
from edge_dsac.spec.robot import RobotSpec, load_robot
from firmware_bridge.build import build_host_library
from firmware_bridge.messages import AckResult, MessageId

BENCH_BOT = Path(__file__).with_name("bench_bot.toml")
SESSION, HOST_SESSION = 0xB0A2D, 0x4057
WRAP_SOON_US = (1 << 32) - 100_000  # so that every test of more than 100 ms takes the board's clock over its wrap
TICK_US = 1000


def bench_bot() -> RobotSpec:
    return load_robot(str(BENCH_BOT))


def load_core(library: Path) -> ctypes.CDLL:
    core = ctypes.CDLL(str(library))
    u8, u16, u32, f32, pointer = ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_float, ctypes.c_void_p
    signatures = {
        "host_board_size": ([], u32),
        "host_board_start": ([pointer, u32, u32], None),
        "host_board_tick": ([pointer, u32, ctypes.c_char_p, u32, pointer, pointer, u32, pointer, pointer], u32),
        "host_deframe": ([ctypes.c_char_p, u32, pointer, u32, pointer], u32),
        "host_enframe": ([pointer, u8, u16, u32, ctypes.c_char_p, u32], u32),
        "host_crc32": ([u32, ctypes.c_char_p, u32], u32),
        "host_arctan2": ([f32, f32], f32),
        "host_limited": ([f32, f32, f32, f32, pointer], f32),
        "host_pitch": ([pointer], f32),
    }
    for name, (arguments, result) in signatures.items():
        function = getattr(core, name)
        function.argtypes, function.restype = arguments, result
    return core


def deframe(core: ctypes.CDLL, stream: bytes) -> tuple[list[reference.Packet], dict[str, int]]:
    out = ctypes.create_string_buffer(len(stream) + 64)
    errors = (ctypes.c_uint32 * 7)()
    length = core.host_deframe(stream, len(stream), out, len(out), errors)
    packets, rest = [], out.raw[:length]
    while rest:
        size = int.from_bytes(rest[:2], "little")
        protocol, message, seq, _, t_mcu_us = struct.unpack("<BBHHI", rest[2:12])
        packets.append(reference.Packet(protocol, message, seq, t_mcu_us, rest[12 : 2 + size]))
        rest = rest[2 + size :]
    return packets, dict(zip(reference.ERRORS, errors, strict=True))


class BenchBoard:
    """bench_bot's board, level, at rest, battery full; one call of `tick` is a millisecond."""

    def __init__(self, spec: RobotSpec | None = None, library: Path | None = None, now_us: int = WRAP_SOON_US) -> None:
        self.spec = spec or bench_bot()
        self.core = load_core(library or build_host_library(self.spec))
        self.joints, self.extras = len(self.spec.joints), len(self.spec.extras)
        self.sizes = reference.sizes(self.joints, self.extras)
        self.seed = reference.closed_seed(self.spec.firmware_fingerprint)
        self.memory = ctypes.create_string_buffer(self.core.host_board_size())
        self.tx, self.mode_byte = ctypes.create_string_buffer(4096), ctypes.c_uint8()
        self.command = np.zeros(self.joints, np.float32)
        self.counts = np.zeros(self.joints, np.int64)
        self.gyro_rad_s, self.accel_m_s2 = np.zeros(3), np.array([0.0, 0.0, 9.81])  # of the body
        self.battery_v, self.extra = 12.0, [0] * self.extras
        self.rattles, self.blind, self.ticks, self.seq = True, False, 0, 0
        self.telemetry: dict[str, object] = {}
        self.sent: list[reference.Packet] = []
        self.power_on(now_us)

    def power_on(self, now_us: int) -> None:
        self.now_us = now_us
        self.core.host_board_start(self.memory, SESSION, now_us)

    # What the board sees.

    def raw_sensors(self) -> bytes:
        """Body axes to this IMU's, turned by a quarter: body x is its +y, body y its -x."""
        gyro, accel = ([-v[1], v[0], v[2]] for v in (self.gyro_rad_s, self.accel_m_s2))
        words = [round(value * 1000) for value in (*gyro, *accel)]
        words[3] += self.ticks % 2 if self.rattles else 0
        if self.blind:
            words[0] = -32768
        counts = [(int(count) + (1 << 31)) % (1 << 32) - (1 << 31) for count in self.counts]
        return struct.pack(f"<{self.joints}i6hH{self.extras}h", *counts, *words, round(self.battery_v * 1000), *self.extra)

    def lean(self, pitch_rad: float = 0.0, roll_rad: float = 0.0) -> None:
        """What an accelerometer at rest says of a body that leans, one angle at a time."""
        self.accel_m_s2 = 9.81 * np.array([-np.sin(pitch_rad), np.sin(roll_rad), np.cos(pitch_rad) * np.cos(roll_rad)])

    # What the host says.

    def frame(self, message: MessageId, payload: bytes = b"", seq: int | None = None) -> bytes:
        if seq is None:
            self.seq = seq = (self.seq + 1) & 0xFFFF
        return reference.frame(message, payload, self.seed, seq)

    def hello(self, fingerprint: str | None = None, protocol: int = 1, session: int = HOST_SESSION) -> bytes:
        self.seq = (self.seq + 1) & 0xFFFF
        payload = (
            struct.pack("<BBI", 0, 0, session)
            + bytes.fromhex(fingerprint or self.spec.firmware_fingerprint)
            + b"bench_bot".ljust(16, b"\0")
        )
        return reference.frame(MessageId.HELLO, payload, self.seed, self.seq, protocol=protocol)

    def arm_frame(self, session: int = SESSION, seq: int | None = None) -> bytes:
        return self.frame(MessageId.ARM, struct.pack("<I", session), seq)

    def command_frame(self, *command: float, deadline_us: int | None = None, seq: int | None = None) -> bytes:
        """`deadline_us` from now; by default the timeout, as the host writes it."""
        deadline = self.now_us + (60_000 if deadline_us is None else deadline_us)
        return self.frame(MessageId.COMMAND, struct.pack(f"<HI{self.joints}f", 0, deadline & 0xFFFFFFFF, *command), seq)

    # A millisecond.

    def tick(self, *frames: bytes) -> list[reference.Packet]:
        received, raw = b"".join(frames), self.raw_sensors()
        length = self.core.host_board_tick(
            self.memory,
            self.now_us,
            received,
            len(received),
            raw,
            self.tx,
            len(self.tx),
            self.command.ctypes.data,
            ctypes.byref(self.mode_byte),
        )
        self.now_us = (self.now_us + TICK_US) & 0xFFFFFFFF
        self.ticks += 1
        packets, errors = reference.decode(self.tx.raw[:length], self.sizes, self.seed)
        assert not any(errors.values()), errors
        for packet in packets:
            if packet.message == MessageId.TELEMETRY:
                self.telemetry = self.parse_telemetry(packet.payload)
        self.sent += packets
        return packets

    def run(self, milliseconds: int) -> list[reference.Packet]:
        return [packet for _ in range(milliseconds) for packet in self.tick()]

    def parse_telemetry(self, payload: bytes) -> dict[str, object]:
        n = self.joints
        board, rx_errors, faults, answered, *rest = struct.unpack(f"<BBHH{n}i{n}i{n}h6hH{self.extras}h", payload)
        return {
            "board": BoardMode(board), "rx_errors": rx_errors, "faults": Fault(faults), "answered": answered, "counts": rest[:n],
            "velocity_cps": rest[n : 2 * n], "applied": rest[2 * n : 3 * n], "gyro": rest[3 * n : 3 * n + 3],
            "accel": rest[3 * n + 3 : 3 * n + 6], "battery": rest[3 * n + 6], "extras": rest[3 * n + 7 :],
        }  # fmt: skip

    # Shorthands.

    @property
    def mode(self) -> BoardMode:
        return BoardMode(self.mode_byte.value)

    @property
    def pitch_rad(self) -> float:
        return float(self.core.host_pitch(self.memory))

    @property
    def faults(self) -> Fault:
        """As the next telemetry will tell them."""
        faults = self.telemetry["faults"]
        assert isinstance(faults, Fault)
        return faults

    @property
    def rx_errors(self) -> int:
        return int(str(self.telemetry["rx_errors"]))

    def greet(self) -> BenchBoard:
        self.run(3)
        self.tick(self.hello())
        return self

    def arm(self) -> AckResult:
        return self.answer(self.arm_frame())

    def armed(self) -> BenchBoard:
        assert self.greet().arm() == AckResult.OK
        return self

    def answer(self, *frames: bytes) -> AckResult:
        acks = [packet for packet in self.tick(*frames) if packet.message == MessageId.ACK]
        assert len(acks) == 1, acks
        return AckResult(acks[0].payload[1])

    def obey_for(self, milliseconds: int, *command: float) -> None:
        """A healthy host: a command every 10 ms."""
        for millisecond in range(milliseconds):
            self.tick(*([self.command_frame(*command)] if millisecond % 10 == 0 else []))
