"""Counts <-> SI, board sign <-> joint sign, sensor axes <-> body axes. The only place where any of these is converted.

A payload goes in, a record comes out, and the other way round. Stateful only where a counter wraps: encoder counts (int32)
and the board's clock (uint32). Knows no port and no session.
"""

from __future__ import annotations

import math
import struct
from operator import mul
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_dsac.records import BoardMode, CommandFrame, Fault, Float, Readings, SensorFrame
from edge_dsac.spec.robot import RobotSpec
from firmware_bridge.framing import Packet
from firmware_bridge.messages import MESSAGES, NO_READING_I16, PROTOCOL_MINOR, SPEC_CHUNK_BYTES, MessageId, Role, make_dtype

APPLIED_FULL_SCALE = 32767
HALF_I32 = 1 << 31
BOARD_MODES = {int(mode): mode for mode in BoardMode}
FAULTS = {int(fault): fault for fault in Fault}  # one by one: making a flag's member takes longer than decoding the frame
FAULTS[0] = Fault.NONE


def make_raw_dtype(spec: RobotSpec) -> np.dtype[np.void]:
    """`struct raw_sensors` of the firmware's HAL."""
    joints, extras = len(spec.joints), len(spec.extras)
    columns: list[Any] = [("counts", "<i4", (joints,)), ("gyro", "<i2", (3,)), ("accel", "<i2", (3,)), ("battery", "<u2")]
    return np.dtype(columns + ([("extras", "<i2", (extras,))] if extras else []))


class Wire:
    """The conversions of one robot. `reset()` at every new board session: its counters start anew."""

    def __init__(self, spec: RobotSpec) -> None:
        self.joints, self.extras = len(spec.joints), len(spec.extras)
        self.signs = [float(joint.sign) for joint in spec.joints]
        self.sign = np.array(self.signs)
        self.rad_per_count = [joint.sign / joint.counts_per_rad for joint in spec.joints]
        self.counts_per_rad = self.sign * np.array([joint.counts_per_rad for joint in spec.joints])
        self.raw_dtype = make_raw_dtype(spec)
        self.make_i16_scales(spec)
        self.command = struct.Struct(f"<HI{self.joints}f")
        self.reset()

    def make_i16_scales(self, spec: RobotSpec) -> None:
        """Of the 16-bit block of TELEMETRY (applied, gyro, accel, battery, extras): whose entry, and how much of its SI unit."""
        joints = self.joints
        axes = spec.imu.axes if spec.imu else ("+x", "+y", "+z")
        self.axis_of = np.array(["xyz".index(axis[1]) for axis in axes])
        self.axis_sign = np.array([1.0 if axis[0] == "+" else -1.0 for axis in axes])
        self.gyro_lsb = spec.imu.gyro_lsb_per_rad_s if spec.imu else 1.0
        self.accel_lsb = spec.imu.accel_lsb_per_m_s2 if spec.imu else 1.0
        self.battery_lsb = spec.battery.lsb_per_v
        self.extra_lsb = np.array([extra.lsb_per_unit for extra in spec.extras])
        axes_and_signs = list(zip(self.axis_of.tolist(), self.axis_sign.tolist(), strict=True))
        self.applied_scale = [joint.command_limit * joint.sign / APPLIED_FULL_SCALE for joint in spec.joints]
        self.gyro_places = [(joints + axis, sign / self.gyro_lsb) for axis, sign in axes_and_signs]
        self.accel_places = [(joints + 3 + axis, sign / self.accel_lsb) for axis, sign in axes_and_signs]
        self.extra_places = [(joints + 7 + i, 1.0 / extra.lsb_per_unit) for i, extra in enumerate(spec.extras)]
        self.telemetry = struct.Struct(f"<BBHH{2 * joints}i{joints + 6}hH{self.extras}h")

    def reset(self) -> None:
        self.last_counts: tuple[int, ...] | None = None
        self.total_counts: tuple[int, ...] = (0,) * self.joints
        self.last_t_us: int | None = None
        self.total_t_us = 0

    def decode_telemetry(self, packet: Packet) -> SensorFrame:
        """In order of sending: the session has dropped what came twice or too late."""
        joints = self.joints
        board, _, faults, answered, *raw = self.telemetry.unpack(packet.payload)
        counts, speeds, words = tuple(raw[:joints]), raw[joints : 2 * joints], raw[2 * joints :]
        mode, fault = BOARD_MODES.get(board, BoardMode.FAULT), FAULTS[faults] if faults in FAULTS else Fault(faults)
        return SensorFrame(
            packet.seq, self.unwrap_clock(packet.t_mcu_us), mode, fault, answered,
            tuple(map(mul, self.unwrap_counts(counts), self.rad_per_count)), tuple(map(mul, speeds, self.rad_per_count)),
            tuple(map(mul, words, self.applied_scale)), readings(words, self.gyro_places), readings(words, self.accel_places),
            words[joints + 6] / self.battery_lsb, readings(words, self.extra_places),
        )  # fmt: skip

    def unwrap_counts(self, counts: tuple[int, ...]) -> tuple[int, ...]:
        """The board's int32 counters, made whole: they overflow in an hour of driving."""
        if self.last_counts is None:
            self.total_counts = counts
        elif counts != self.last_counts:
            moved = zip(self.total_counts, counts, self.last_counts, strict=True)
            self.total_counts = tuple([total + ((new - last + HALF_I32) & 0xFFFFFFFF) - HALF_I32 for total, new, last in moved])
        self.last_counts = counts
        return self.total_counts

    def unwrap_clock(self, t_us: int) -> int:
        if self.last_t_us is None:
            self.total_t_us = t_us
        else:
            self.total_t_us += (t_us - self.last_t_us) & 0xFFFFFFFF
        self.last_t_us = t_us
        return self.total_t_us

    def full_time_us(self, t_us: int) -> int:
        """A stamp of the board's clock on the unwrapped scale of the frames, without moving it."""
        if self.last_t_us is None:
            return t_us
        near = (t_us - self.last_t_us) & 0xFFFFFFFF
        return self.total_t_us + (near - (1 << 32) if near >= 1 << 31 else near)

    def make_command(self, command: CommandFrame, deadline_mcu_us: int) -> bytes:
        return self.command.pack(command.answers_seq, deadline_mcu_us & 0xFFFFFFFF, *map(mul, command.command, self.signs))

    def command_from_board(self, board_command: Float) -> Float:
        """What the board drives, in joint order and joint sign: for whoever plays the motors."""
        command: Float = np.asarray(board_command, float) * self.sign
        return command

    def raw_from_readings(self, readings: Readings) -> np.ndarray[Any, np.dtype[np.void]]:
        """What the sensors would have counted: the inverse of decode_telemetry, for whoever plays the sensors."""
        raw = np.zeros((), self.raw_dtype)
        counts = np.rint(numbers(readings.position_rad * self.counts_per_rad)).astype(np.int64)
        raw["counts"] = counts.astype(np.int32)  # keeps the low 32 bits: an encoder counter wraps
        raw["gyro"][self.axis_of] = to_i16(readings.gyro_rad_s * self.axis_sign * self.gyro_lsb)
        raw["accel"][self.axis_of] = to_i16(readings.accel_m_s2 * self.axis_sign * self.accel_lsb)
        battery = float(readings.battery_v) * self.battery_lsb
        raw["battery"] = 0 if math.isnan(battery) else round(min(max(battery, 0.0), 65535.0))
        if self.extras:
            raw["extras"] = to_i16(readings.extra * self.extra_lsb)
        return raw


def readings(words: list[int], places: list[tuple[int, float]]) -> tuple[float, ...]:
    """Some of the 16-bit words in SI units; NaN where there was no reading."""
    return tuple([math.nan if words[i] == NO_READING_I16 else words[i] * scale for i, scale in places])


def to_i16(counts: Float) -> NDArray[np.int16]:
    """Rounded and saturated as an ADC does it; NaN becomes the sign of no reading."""
    whole = np.minimum(np.maximum(np.rint(numbers(counts)), -32767), 32767).astype(np.int16)
    if np.isfinite(counts).all():
        return np.asarray(whole)
    return np.where(np.isfinite(counts), whole, np.int16(NO_READING_I16)).astype(np.int16)


def numbers(values: Float) -> Float:
    """np.nan_to_num, which takes a fifth of a simulated flight, only where it changes anything."""
    return values if np.isfinite(values).all() else np.nan_to_num(values)


PAYLOADS = {message: make_dtype(table, 0, 0) for message, table in MESSAGES.items()}  # right for all without joints or extras


def parse(message: MessageId, payload: bytes) -> np.void:
    """A payload of a message without per-joint fields, by field name."""
    return np.frombuffer(payload, PAYLOADS[message])[0]  # type: ignore[no-any-return]


def make_payload(message: MessageId, /, **values: Any) -> bytes:
    record = np.zeros((), PAYLOADS[message])
    for name, value in values.items():
        record[name] = value
    return record.tobytes()


def make_hello(spec: RobotSpec, role: Role, session: int) -> bytes:
    fingerprint = np.frombuffer(bytes.fromhex(spec.firmware_fingerprint), np.uint8)
    model = np.frombuffer(spec.model.encode().ljust(16, b"\0"), np.uint8)
    return make_payload(MessageId.HELLO, role=role, minor=PROTOCOL_MINOR, session=session, firmware_fingerprint=fingerprint, model=model)


def make_spec_text(text: bytes, offset: int) -> bytes:
    chunk = text[offset : offset + SPEC_CHUNK_BYTES]
    data = np.frombuffer(chunk.ljust(SPEC_CHUNK_BYTES, b"\0"), np.uint8)
    return make_payload(MessageId.SPEC_TEXT, offset=offset, total=len(text), length=len(chunk), data=data)
