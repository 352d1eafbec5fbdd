"""Counts <-> SI, board sign <-> joint sign, sensor axes <-> body axes. The only place where any of these is converted.

A payload goes in, a record comes out, and the other way round. Stateful only where a counter wraps: encoder counts (int32)
and the board's clock (uint32). Knows no port and no session.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_dsac.records import BoardMode, CommandFrame, Fault, Float, Readings, SensorFrame
from edge_dsac.spec.robot import RobotSpec
from firmware_bridge.framing import Packet
from firmware_bridge.messages import MESSAGES, NO_READING_I16, PROTOCOL_MINOR, SPEC_CHUNK_BYTES, MessageId, Role, make_dtype

APPLIED_FULL_SCALE = 32767
NO_READING_BYTES = struct.pack("<h", NO_READING_I16)
TELEMETRY_HEAD = struct.Struct("<BBHH")
BOARD_MODES = {int(mode): mode for mode in BoardMode}


def make_raw_dtype(spec: RobotSpec) -> np.dtype[np.void]:
    """`struct raw_sensors` of the firmware's HAL."""
    joints, extras = len(spec.joints), len(spec.extras)
    columns: list[Any] = [("counts", "<i4", (joints,)), ("gyro", "<i2", (3,)), ("accel", "<i2", (3,)), ("battery", "<u2")]
    return np.dtype(columns + ([("extras", "<i2", (extras,))] if extras else []))


class Wire:
    """The conversions of one robot. `reset()` at every new board session: its counters start anew."""

    def __init__(self, spec: RobotSpec) -> None:
        self.joints, self.extras = len(spec.joints), len(spec.extras)
        self.sign = np.array([float(joint.sign) for joint in spec.joints])
        self.rad_per_count = self.sign / np.array([joint.counts_per_rad for joint in spec.joints])
        self.counts_per_rad = self.sign * np.array([joint.counts_per_rad for joint in spec.joints])
        self.raw_dtype = make_raw_dtype(spec)
        self.make_i16_scales(spec)
        self.command = struct.Struct(f"<HI{self.joints}f")
        self.reset()

    def make_i16_scales(self, spec: RobotSpec) -> None:
        """The 16-bit block of TELEMETRY (applied, gyro, accel, battery, extras), put into body axes and SI by one product."""
        joints = self.joints
        limit = np.array([joint.command_limit for joint in spec.joints])
        axes = spec.imu.axes if spec.imu else ("+x", "+y", "+z")
        self.axis_of = np.array(["xyz".index(axis[1]) for axis in axes])
        self.axis_sign = np.array([1.0 if axis[0] == "+" else -1.0 for axis in axes])
        self.gyro_lsb = spec.imu.gyro_lsb_per_rad_s if spec.imu else 1.0
        self.accel_lsb = spec.imu.accel_lsb_per_m_s2 if spec.imu else 1.0
        self.battery_lsb = spec.battery.lsb_per_v
        self.extra_lsb = np.array([extra.lsb_per_unit for extra in spec.extras])
        self.order = np.concatenate([
            np.arange(joints), joints + self.axis_of, joints + 3 + self.axis_of, [joints + 6], joints + 7 + np.arange(self.extras),
        ]).astype(int)  # fmt: skip
        self.scale = np.concatenate([
            limit * self.sign / APPLIED_FULL_SCALE, self.axis_sign / self.gyro_lsb, self.axis_sign / self.accel_lsb,
            [1.0 / self.battery_lsb], 1.0 / self.extra_lsb,
        ])  # fmt: skip
        self.count_i16 = joints + 7 + self.extras
        self.at_i32 = TELEMETRY_HEAD.size
        self.at_i16 = self.at_i32 + 8 * joints

    def reset(self) -> None:
        self.last_counts: NDArray[np.int32] | None = None
        self.total_counts: NDArray[Any] = np.zeros(self.joints, np.int64)
        self.last_t_us: int | None = None
        self.total_t_us = 0

    def decode_telemetry(self, packet: Packet) -> SensorFrame:
        """In order of sending: the session has dropped what came twice or too late."""
        payload, joints = packet.payload, self.joints
        board, _, faults, answered = TELEMETRY_HEAD.unpack_from(payload)
        i32 = np.frombuffer(payload, "<i4", 2 * joints, self.at_i32)
        values = np.frombuffer(payload, "<i2", self.count_i16, self.at_i16)[self.order] * self.scale
        battery_raw = payload[self.at_i16 + 2 * (joints + 6)] | payload[self.at_i16 + 2 * (joints + 6) + 1] << 8  # the one unsigned
        if NO_READING_BYTES in payload[self.at_i16 :]:
            self.mark_missing(payload, values)
        counts = i32[:joints]
        if self.last_counts is None:
            self.total_counts = counts.astype(np.int64)
        else:
            self.total_counts = self.total_counts + (counts - self.last_counts)  # int32 difference: a wrap is harmless
        self.last_counts = counts
        return SensorFrame(
            packet.seq, self.unwrap_clock(packet.t_mcu_us), BOARD_MODES.get(board, BoardMode.FAULT), Fault(faults), answered,
            self.total_counts * self.rad_per_count, i32[joints:] * self.rad_per_count, values[:joints],
            values[joints : joints + 3], values[joints + 3 : joints + 6], battery_raw / self.battery_lsb, values[joints + 7 :],
        )  # fmt: skip

    def mark_missing(self, payload: bytes, values: Float) -> None:
        """The byte pair was seen somewhere; only where a whole 16-bit field holds it there is no reading."""
        missing = np.frombuffer(payload, "<i2", self.count_i16, self.at_i16)[self.order] == NO_READING_I16
        missing[: self.joints] = False
        values[missing] = np.nan

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
        return self.command.pack(command.answers_seq, deadline_mcu_us & 0xFFFFFFFF, *(command.command * self.sign).tolist())

    def command_from_board(self, board_command: Float) -> Float:
        """What the board drives, in joint order and joint sign: for whoever plays the motors."""
        command: Float = np.asarray(board_command, float) * self.sign
        return command

    def raw_from_readings(self, readings: Readings) -> np.ndarray[Any, np.dtype[np.void]]:
        """What the sensors would have counted: the inverse of decode_telemetry, for whoever plays the sensors."""
        raw = np.zeros((), self.raw_dtype)
        counts = np.round(np.nan_to_num(readings.position_rad * self.counts_per_rad)).astype(np.int64)
        raw["counts"] = counts.astype(np.int32)  # keeps the low 32 bits: an encoder counter wraps
        raw["gyro"][self.axis_of] = to_i16(readings.gyro_rad_s * self.axis_sign * self.gyro_lsb)
        raw["accel"][self.axis_of] = to_i16(readings.accel_m_s2 * self.axis_sign * self.accel_lsb)
        raw["battery"] = int(np.clip(np.round(np.nan_to_num(float(readings.battery_v) * self.battery_lsb)), 0, 65535))
        if self.extras:
            raw["extras"] = to_i16(readings.extra * self.extra_lsb)
        return raw


def to_i16(counts: Float) -> NDArray[np.int16]:
    """Rounded and saturated as an ADC does it; NaN becomes the sign of no reading."""
    whole = np.clip(np.round(np.nan_to_num(counts)), -32767, 32767).astype(np.int16)
    return np.where(np.isfinite(counts), whole, np.int16(NO_READING_I16)).astype(np.int16)


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
