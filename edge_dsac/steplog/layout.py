"""What one Step looks like as bytes: fixed size, made from the robot file, the same in the ring and on disk.

A record is whole if its index is the expected one and its CRC-32 (the last four bytes) holds; anything else is torn.
Positions are float64: a wheel that has turned for an hour has more counts than float32 has digits. All else is float32,
which is finer than any sensor here.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from edge_dsac.records import BoardMode, CommandFrame, Event, Fault, Mode, Observation, Rule, SensorFrame, Step
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec, robot_from_text

MAGIC = b"EDSACLOG"
VERSION = 1
HEADER_BYTES = 4096
PAGE = 4096
FILE_HEADER = struct.Struct("<8sIIQQQIIIIqqQQ")
HEAD_AT, RECORDED_AT, RECORDER_STATE_AT, CLOSED_AT = 24, 32, 40, 44  # the words that change in flight
VALUES = ("position_rad", "velocity_rad_s", "applied", "gyro_rad_s", "accel_m_s2", "extra")
FRESH, OBS_OK = 1, 2  # bits of `flags`


class LogError(ValueError):
    """A log that cannot be read, and why."""


class HeaderCut(LogError):
    """The file ends before its first step: all there is of a segment that was begun at a power cut."""


@dataclass(frozen=True, slots=True)
class FileHeader:
    """The first page of a ring or segment, less the words that change (ring.py)."""

    record_bytes: int
    capacity: int  # records in the ring; 0 in a segment
    spec_bytes: int
    writer_pid: int
    wall_start_ns: int  # of the wall clock, once, for people; everything else is monotonic
    mono_start_ns: int
    first_index: int
    writer_start: int  # of the writer's process, in kernel ticks since boot: a process id alone is given away again; 0: not known

    @property
    def data_at(self) -> int:
        return HEADER_BYTES + (self.spec_bytes + PAGE - 1) // PAGE * PAGE

    def pack(self) -> bytes:
        return FILE_HEADER.pack(
            MAGIC, VERSION, self.record_bytes, self.capacity, 0, 0, 0, 0, self.writer_pid, self.spec_bytes, self.wall_start_ns,
            self.mono_start_ns, self.first_index, self.writer_start,
        )  # fmt: skip


def unpack_header(data: bytes, source: str) -> FileHeader:
    if data[:8] != MAGIC[: len(data)]:
        raise LogError(f"{source}: expected a flight log, got something else (no {MAGIC.decode()} at its start)")
    check_length(len(data), HEADER_BYTES, source)
    _, version, record, capacity, _, _, _, _, pid, spec_bytes, wall, mono, first, start = FILE_HEADER.unpack_from(data)
    if version != VERSION:
        raise LogError(f"{source}: log version {version}, this program reads {VERSION}; open it with the edge_dsac that wrote it")
    return FileHeader(record, capacity, spec_bytes, pid, wall, mono, first, start)


def check_length(size: int, needed: int, source: str) -> None:
    if size < needed:
        raise HeaderCut(f"{source}: cut off within its header ({size} of {needed} bytes); no step of it can be read")


def check_record_size(header: FileHeader, layout: RecordLayout, source: str) -> None:
    if header.record_bytes != layout.bytes:
        raise LogError(
            f"{source}: records of {header.record_bytes} bytes, the robot file inside makes {layout.bytes}; "
            "the file is damaged, or its observation terms had other sizes in the edge_dsac that wrote it"
        )


class RecordLayout:
    """dtype and packing of one robot's records."""

    def __init__(self, spec: RobotSpec) -> None:
        self.spec = spec
        joints, extras, actions, obs = len(spec.joints), len(spec.extras), len(spec.actions), ObservationLayout(spec).size
        self.dtype = np.dtype([
            ("index", "<u8"), ("t_host_ns", "<i8"), ("t_mcu_us", "<i8"), ("late_ns", "<i8"), ("busy_ns", "<i8"), ("frame_age_ns", "<i8"),
            ("bundle_id", "<u8"), ("seq", "<u2"), ("answered_seq", "<u2"), ("answers_seq", "<u2"), ("faults", "<u2"), ("rules", "<u2"),
            ("mode", "u1"), ("because", "u1"), ("board", "u1"), ("flags", "u1"), ("battery_v", "<f4"),
            ("position_rad", "<f8", (joints,)),
            ("velocity_rad_s", "<f4", (joints,)), ("applied", "<f4", (joints,)), ("gyro_rad_s", "<f4", (3,)), ("accel_m_s2", "<f4", (3,)),
            ("extra", "<f4", (extras,)), ("obs", "<f4", (obs,)), ("action", "<f4", (actions,)), ("applied_action", "<f4", (actions,)),
            ("command", "<f4", (joints,)), ("crc", "<u4"),
        ])  # fmt: skip
        self.bytes = self.dtype.itemsize
        self.record = struct.Struct(
            f"<QqqqqqQHHHHHBBBBf{joints}d{2 * joints + 6 + extras + obs + 2 * actions + joints}f"
        )  # all but the CRC

    def good(self, record: memoryview | bytes) -> bool:
        return zlib.crc32(record[: self.bytes - 4]) == int.from_bytes(record[self.bytes - 4 : self.bytes], "little")

    def step(self, row: np.void) -> Step:
        """A record back as the Step it was made from."""
        values = {name: tuple(row[name].tolist()) for name in VALUES}
        frame = SensorFrame(
            seq=int(row["seq"]), t_mcu_us=int(row["t_mcu_us"]), board=BoardMode(int(row["board"])), faults=Fault(int(row["faults"])),
            answered_seq=int(row["answered_seq"]), battery_v=float(row["battery_v"]), **values,
        )  # fmt: skip
        obs = Observation(row["obs"].copy(), int(row["t_mcu_us"]), bool(row["flags"] & OBS_OK))
        sent, applied = tuple(row["command"].tolist()), tuple(row["applied_action"].tolist())
        command = CommandFrame(int(row["answers_seq"]), sent, applied, Rule(int(row["rules"])))
        return Step(
            frame, obs, row["action"].copy(), command, int(row["bundle_id"]), Mode(int(row["mode"])), Event(int(row["because"])),
            int(row["t_host_ns"]), int(row["late_ns"]), int(row["busy_ns"]), int(row["frame_age_ns"]), bool(row["flags"] & FRESH),
        )  # fmt: skip


def spec_of(text: bytes, source: str) -> RobotSpec:
    """A log brings its own robot file: it can be read when the robot's has long changed."""
    inside = f"{source} (the robot file inside)"
    try:
        return robot_from_text(text.decode("utf-8"), inside)
    except UnicodeDecodeError as error:
        raise LogError(f"{inside}: not text: {error}; the file is damaged") from None
