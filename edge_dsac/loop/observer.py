"""SensorFrame -> Observation: estimates what is not measured, and puts the robot file's terms in their order.

The very same object serves one robot on its board and thousands in simulation: every array may have leading batch axes,
`batch` names them. Knows no policy and no port. Rule that must stay true: it needs frames and a Reference, nothing else,
so that a log holds all it needs to be run again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_dsac.loop.path import Path, PathTracker
from edge_dsac.records import Float, Observation, SensorFrame
from edge_dsac.spec.layout import ActionLayout, ObservationLayout
from edge_dsac.spec.robot import RobotSpec

LONGEST_GAP_S = 0.25  # after a longer silence the filters start afresh: integrating a gyro over it would be a guess
INTEGRAL_LEAK_S = 5.0


@dataclass(frozen=True, slots=True)
class Reference:
    """What the operator asks for. Scalars, or arrays of the batch's shape."""

    speed_target_m_s: Any = 0.0
    yaw_rate_target_rad_s: Any = 0.0
    path: Path | None = None


class Observer:
    def __init__(self, spec: RobotSpec, batch: tuple[int, ...] = ()) -> None:
        self.spec = spec
        self.batch = batch
        # For one robot plain floats are ten times cheaper than arrays of one; what is computed is the same.
        self.pick = pick_one if batch == () else pick_many
        self.arctan2: Any = math.atan2 if batch == () else np.arctan2
        self.layout = ObservationLayout(spec)
        self.vector: Float = np.zeros((*batch, self.layout.size), np.float32)
        self.to_action = ActionLayout(spec).to_action
        self.filter_s = spec.imu.filter_s if spec.imu else 1.0
        self.wheel_share_m = np.full(len(spec.joints), (spec.drive.wheel_radius_m if spec.drive else 0.0) / len(spec.joints))
        self.body_share_m = spec.drive.wheel_radius_m if spec.drive and spec.drive.wheels_tilt_with_body else 0.0
        self.home_rad = np.array([joint.home_rad for joint in spec.joints])
        names = [extra.name for extra in spec.extras]
        self.radar = [names.index(name) for name in ("radar_x_m", "radar_y_m", "radar_speed_m_s") if name in names]
        terms = {entry.term for entry in spec.observations}
        self.tracker = PathTracker(int(np.prod(batch))) if terms & PATH_TERMS else None
        self.writers = [
            (getattr(self, f"see_{entry.term}"), self.vector[..., self.layout.newest[entry.term]]) for entry in spec.observations
        ]
        self.shifts = [self.make_shift(entry.term) for entry in spec.observations if entry.history > 1]
        self.low, self.high = -self.layout.clip, self.layout.clip
        self.nothing = np.zeros(self.layout.size, np.float32)
        self.reference = Reference()
        self.pitch_rad: Any = np.zeros(batch)
        self.speed_m_s: Any = np.zeros(batch)
        self.usable_speed_m_s: Any = np.zeros(batch)
        self.integral_m: Any = np.zeros(batch)
        self.last_t_mcu_us: Any = np.zeros(batch, np.int64) if batch else 0
        self.last_position_rad: Float = np.zeros((*batch, len(spec.joints)))
        self.fresh: Any = np.ones(batch, bool)
        self.any_fresh = True

    def make_shift(self, term: str) -> tuple[Float, Float, Float]:
        """(older entries, where they come from, newest entry) as views of the vector."""
        whole, newest = self.layout.stacked[term], self.layout.newest[term]
        size = newest.stop - newest.start
        older = self.vector[..., whole.start + size : whole.stop]
        return older, self.vector[..., whole.start : whole.stop - size], self.vector[..., newest]

    def set_reference(self, reference: Reference) -> None:
        """What to track from the next frame on. A path is followed from its first point, on which the robot stands."""
        if self.tracker and reference.path is not None and reference.path is not self.reference.path:
            self.tracker.set_path(reference.path)
            self.tracker.place()
        self.reference = reference

    def reset(self, where: Any = None) -> None:
        """Forgets the past of the robots `where` (a mask of the batch's shape; None: all)."""
        self.fresh = np.ones(self.batch, bool) if where is None else self.fresh | where
        self.any_fresh = bool(np.any(self.fresh))
        if self.tracker:
            self.tracker.place(slice(None) if where is None else np.flatnonzero(where))

    def observe(self, frame: SensorFrame) -> Observation:
        elapsed_s = (frame.t_mcu_us - self.last_t_mcu_us) * 1e-6
        gap = (elapsed_s > LONGEST_GAP_S) | (elapsed_s < 0)
        if self.any_fresh or (gap if self.batch == () else gap.any()):
            elapsed_s = self.start_afresh(frame, elapsed_s, gap)
        self.last_t_mcu_us = frame.t_mcu_us
        self.estimate(frame, elapsed_s)
        for older, source, _ in self.shifts:
            older[...] = source
        for see, out in self.writers:
            see(frame, out)
        if self.any_fresh:
            self.fill_history()
        vector = np.maximum(self.vector, self.low)
        np.minimum(vector, self.high, out=vector)
        total = vector @ self.nothing  # 0 for finite numbers, NaN otherwise: one product instead of a test per entry
        return Observation(vector, frame.t_mcu_us, total == 0.0)

    def start_afresh(self, frame: SensorFrame, elapsed_s: Any, gap: Any) -> Any:
        self.fresh = self.fresh | gap
        self.any_fresh = True
        self.integral_m = np.where(self.fresh, 0.0, self.integral_m)
        self.last_position_rad = np.where(self.fresh[..., None], frame.position_rad, self.last_position_rad)
        return np.where(self.fresh, 0.0, elapsed_s)

    def estimate(self, frame: SensorFrame, elapsed_s: Any) -> None:
        """Lean by the complementary filter, speed over ground, the leaky integral of its error, dead reckoning."""
        pitch_rate = self.pick(frame.gyro_rad_s, 1)
        if self.spec.imu:
            self.pitch_rad = self.keep_finite(self.filtered_pitch(frame, pitch_rate, elapsed_s), self.pitch_rad)
        if self.spec.drive:
            speed = self.pick(frame.velocity_rad_s @ self.wheel_share_m, None)
            if self.body_share_m:
                speed = speed + self.body_share_m * pitch_rate
            self.speed_m_s = speed  # NaN shows in the observation, and only there
            self.usable_speed_m_s = self.keep_finite(speed, self.usable_speed_m_s)
            error = self.reference.speed_target_m_s - self.usable_speed_m_s
            self.integral_m = self.integral_m + elapsed_s * (error - self.integral_m * (1.0 / INTEGRAL_LEAK_S))
        if self.tracker:
            distance = (frame.position_rad - self.last_position_rad) @ self.wheel_share_m
            turn = self.pick(frame.gyro_rad_s, 2) * elapsed_s
            finite = np.isfinite(distance + turn)
            self.tracker.advance(np.where(finite, distance, 0.0).reshape(-1), np.where(finite, turn, 0.0).reshape(-1))
            self.last_position_rad = frame.position_rad

    def filtered_pitch(self, frame: SensorFrame, pitch_rate: Any, elapsed_s: Any) -> Any:
        by_gravity = self.arctan2(-self.pick(frame.accel_m_s2, 0), self.pick(frame.accel_m_s2, 2))
        keep = self.filter_s / (self.filter_s + elapsed_s)
        pitch = keep * (self.pitch_rad + pitch_rate * elapsed_s) + (1.0 - keep) * by_gravity
        return np.where(self.fresh, by_gravity, pitch) if self.any_fresh else pitch

    def keep_finite(self, new: Any, old: Any) -> Any:
        """A reading that is missing for one frame must not poison the filters for ever."""
        if self.batch:
            return np.where(np.isfinite(new), new, old)
        return new if abs(new) < 1e9 else old  # NaN is not smaller than anything

    def fill_history(self) -> None:
        for older, _, newest in self.shifts:
            copies = older.shape[-1] // newest.shape[-1]
            older[...] = np.where(self.fresh[..., None], np.concatenate([newest] * copies, axis=-1), older)
        self.fresh = np.zeros(self.batch, bool)
        self.any_fresh = False

    # One writer per term of layout.TERMS: `out` is the term's newest entry in the vector.

    def see_pitch_rad(self, frame: SensorFrame, out: Float) -> None:
        # A missing IMU must show, although the filter itself lives on: NaN - NaN is NaN.
        accel = self.pick(frame.accel_m_s2, 0) + self.pick(frame.accel_m_s2, 1) + self.pick(frame.accel_m_s2, 2)
        out[..., 0] = self.pitch_rad + (accel - accel)

    def see_pitch_rate_rad_s(self, frame: SensorFrame, out: Float) -> None:
        out[..., 0] = self.pick(frame.gyro_rad_s, 1)

    def see_yaw_rate_rad_s(self, frame: SensorFrame, out: Float) -> None:
        out[..., 0] = self.pick(frame.gyro_rad_s, 2)

    def see_gyro_rad_s(self, frame: SensorFrame, out: Float) -> None:
        out[...] = frame.gyro_rad_s

    def see_accel_m_s2(self, frame: SensorFrame, out: Float) -> None:
        out[...] = frame.accel_m_s2

    def see_joint_position_rad(self, frame: SensorFrame, out: Float) -> None:
        out[...] = frame.position_rad - self.home_rad

    def see_joint_velocity_rad_s(self, frame: SensorFrame, out: Float) -> None:
        out[...] = frame.velocity_rad_s

    def see_speed_m_s(self, frame: SensorFrame, out: Float) -> None:
        out[..., 0] = self.speed_m_s

    def see_speed_target_m_s(self, frame: SensorFrame, out: Float) -> None:
        out[..., 0] = self.reference.speed_target_m_s

    def see_yaw_rate_target_rad_s(self, frame: SensorFrame, out: Float) -> None:
        out[..., 0] = self.reference.yaw_rate_target_rad_s

    def see_speed_error_integral_m(self, frame: SensorFrame, out: Float) -> None:
        out[..., 0] = self.integral_m

    def see_applied_action(self, frame: SensorFrame, out: Float) -> None:
        out[...] = frame.applied @ self.to_action

    def see_battery_v(self, frame: SensorFrame, out: Float) -> None:
        out[..., 0] = frame.battery_v

    def see_cross_track_m(self, frame: SensorFrame, out: Float) -> None:
        out[..., 0] = self.on_path.cross_m.reshape(self.batch)

    def see_heading_error(self, frame: SensorFrame, out: Float) -> None:
        out[..., 0] = self.on_path.sin_error.reshape(self.batch)
        out[..., 1] = self.on_path.cos_error.reshape(self.batch)

    def see_path_ahead_m(self, frame: SensorFrame, out: Float) -> None:
        out[...] = self.on_path.ahead_m.reshape((*self.batch, -1))

    def see_path_speed_m_s(self, frame: SensorFrame, out: Float) -> None:
        out[..., 0] = self.speed_m_s * self.on_path.cos_error.reshape(self.batch)

    def see_obstacle(self, frame: SensorFrame, out: Float) -> None:
        target = frame.extra[..., self.radar]
        seen = np.isfinite(target[..., 0])
        out[..., :3] = np.where(seen[..., None], target, 0.0)
        out[..., 3] = seen

    @property
    def on_path(self) -> PathTracker:
        assert self.tracker is not None  # only path terms ask, and they make one
        return self.tracker


def pick_one(array: Any, entry: int | None) -> float:
    """One entry (None: the value itself) of a single robot's array, as a plain float."""
    return float(array) if entry is None else float(array.item(entry))


def pick_many(array: Any, entry: int | None) -> Any:
    """The same of every robot of a batch."""
    return array if entry is None else array[..., entry]


PATH_TERMS = {"cross_track_m", "heading_error", "path_ahead_m", "path_speed_m_s"}
