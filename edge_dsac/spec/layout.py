"""Where each value sits in an observation, in an action and in a command. Derived from the robot file, never typed.

Knows sizes and order; does not compute a single observation (loop/observer.py does).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edge_dsac.records import Float
from edge_dsac.spec.robot import RobotSpec

PATH_AHEAD_M = (0.15, 0.40, 0.80, 1.40)  # distances along the path of the four points a path follower sees


@dataclass(frozen=True, slots=True)
class Term:
    meaning: str
    size: str  # "1", "2", ... or "joints" | "actions" | "extras"
    needs: tuple[str, ...] = ()  # tables of the robot file it cannot do without; "extras.NAME" for one extra


RADAR = ("extras.radar_x_m", "extras.radar_y_m", "extras.radar_speed_m_s")
TERMS: dict[str, Term] = {
    "pitch_rad": Term("lean of the body by the complementary filter, forward positive", "1", ("imu",)),
    "pitch_rate_rad_s": Term("gyro about y", "1", ("imu",)),
    "yaw_rate_rad_s": Term("gyro about z, left positive", "1", ("imu",)),
    "gyro_rad_s": Term("the whole gyro", "3", ("imu",)),
    "accel_m_s2": Term("the whole accelerometer", "3", ("imu",)),
    "joint_position_rad": Term("positions from home", "joints"),
    "joint_velocity_rad_s": Term("velocities", "joints"),
    "speed_m_s": Term("forward speed over ground from the wheels", "1", ("drive",)),
    "speed_target_m_s": Term("forward speed asked for", "1"),
    "yaw_rate_target_rad_s": Term("yaw rate asked for", "1"),
    "speed_error_integral_m": Term("leaky integral of the speed error (5 s)", "1", ("drive",)),
    "applied_action": Term("the command the board reported to be driving, mapped back to [-1, 1]", "actions"),
    "battery_v": Term("battery voltage", "1"),
    "cross_track_m": Term("distance from the path, left positive", "1", ("drive", "imu")),
    "heading_error": Term("sine and cosine of heading minus path direction", "2", ("drive", "imu")),
    "path_ahead_m": Term("four points of the path ahead, x and y in the body frame", "8", ("drive", "imu")),
    "path_speed_m_s": Term("speed along the path", "1", ("drive", "imu")),
    "obstacle": Term("radar target: x, y in m, range rate in m/s, 1 if seen; zeros where nothing is seen", "4", RADAR),
    "obstacle_track": Term(
        "the target remembered: x, y in m, velocity against the robot in m/s, 1 while known; zeros otherwise", "5", (*RADAR, "drive", "imu")
    ),
    "obstacle_miss": Term(
        "if both go on: seconds until the target is nearest (at most 3), its x, y then; zeros where none is known",
        "3",
        (*RADAR, "drive", "imu"),
    ),
}


class ObservationLayout:
    """Slices of the observation vector: term -> the newest entry, and the whole stacked history."""

    def __init__(self, spec: RobotSpec) -> None:
        sizes = {"joints": len(spec.joints), "actions": len(spec.actions), "extras": len(spec.extras)}
        self.newest: dict[str, slice] = {}
        self.stacked: dict[str, slice] = {}
        scales: list[float] = []
        clips: list[float] = []
        labels: list[str] = []
        at = 0
        for entry in spec.observations:
            size_name = TERMS[entry.term].size
            size = sizes[size_name] if size_name in sizes else int(size_name)
            total = size * entry.history
            self.newest[entry.term] = slice(at, at + size)
            self.stacked[entry.term] = slice(at, at + total)
            scales += [entry.scale] * total
            clips += [entry.clip] * total
            for age in range(entry.history):
                suffix = f"@-{age}" if age else ""
                labels += [f"{entry.term}{f'[{i}]' if size > 1 else ''}{suffix}" for i in range(size)]
            at += total
        self.size = at
        self.labels = tuple(labels)
        self.scale: Float = np.array(scales, np.float32)
        self.clip: Float = np.array(clips, np.float32)


@dataclass(frozen=True)
class ActionLayout:
    """The affine map between an action in [-1, 1] and the joints' commands. `commands = actions @ to_command`."""

    spec: RobotSpec

    @cached_property
    def command_limit(self) -> Float:
        return np.array([joint.command_limit for joint in self.spec.joints])

    @cached_property
    def to_command(self) -> Float:
        return np.array([part.mix for part in self.spec.actions]) * self.command_limit

    @cached_property
    def to_action(self) -> Float:
        """Least-squares inverse: exact for every command an action can make (checked at load to have full rank)."""
        return np.asarray(np.linalg.pinv(self.to_command))
