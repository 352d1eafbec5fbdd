"""SensorFrame -> Observation: estimates what is not measured, and puts the robot file's terms in their order.

The very same code serves one robot on its board and thousands in simulation: floats there, arrays here (lanes.py), and
`batch` says which. Knows no policy and no port. Rule that must stay true: it needs frames and a Reference, nothing else,
so that a log holds all it needs to be run again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_dsac.loop.lanes import columns_of, make_lanes, mix
from edge_dsac.loop.path import Path, PathTracker
from edge_dsac.loop.target import TargetTracker
from edge_dsac.records import Observation, SensorFrame, Values
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
        self.spec, self.batch = spec, batch
        self.lanes = make_lanes(batch)
        self.layout = ObservationLayout(spec)
        self.limits = tuple(self.layout.clip.astype(float).tolist())
        self.to_action = columns_of(ActionLayout(spec).to_action)
        self.filter_s = spec.imu.filter_s if spec.imu else 1.0
        self.wheel_share_m = spec.drive.wheel_radius_m / len(spec.joints) if spec.drive else 0.0
        self.body_share_m = spec.drive.wheel_radius_m if spec.drive and spec.drive.wheels_tilt_with_body else 0.0
        self.home_rad = [joint.home_rad for joint in spec.joints]
        names = [extra.name for extra in spec.extras]
        self.radar = [names.index(name) for name in ("radar_x_m", "radar_y_m", "radar_speed_m_s") if name in names]
        terms = {entry.term for entry in spec.observations}
        self.tracker = PathTracker(self.lanes) if terms & PATH_TERMS else None
        self.target = TargetTracker(self.lanes) if terms & TARGET_TERMS else None
        self.terms = [(getattr(self, f"see_{entry.term}"), entry.history - 1) for entry in spec.observations]
        self.older: list[Values] = [()] * len(self.terms)  # what each term showed at earlier frames, newest first
        self.reference = Reference()
        self.pitch_rad = self.speed_m_s = self.usable_speed_m_s = self.integral_m = self.lanes.full(0.0)
        self.last_t_mcu_us: Any = self.lanes.full(0)
        self.last_position_rad: Values = (self.lanes.full(0.0),) * len(spec.joints)
        self.fresh: Any = self.lanes.full(True)
        self.any_fresh = True

    def set_reference(self, reference: Reference) -> None:
        """What to track from the next frame on. A path is followed from its first point, on which the robot stands."""
        if self.tracker and reference.path is not None and reference.path is not self.reference.path:
            self.tracker.set_path(reference.path)
            self.tracker.place()
        self.reference = reference

    def reset(self, where: Any = None) -> None:
        """Forgets the past of the robots `where` (a mask of the batch's shape; None: all)."""
        self.fresh = self.lanes.full(True) if where is None else self.fresh | where
        self.any_fresh = self.lanes.any(self.fresh)
        if self.tracker:
            self.tracker.place(True if where is None else where)

    def observe(self, frame: SensorFrame, ticked: bool = True) -> Observation:
        """`ticked=False`: no time has passed since the last frame, so that the history stands (of robots that begin, it is made)."""
        elapsed_s = (frame.t_mcu_us - self.last_t_mcu_us) * 1e-6
        gap = (elapsed_s > LONGEST_GAP_S) | (elapsed_s < 0)
        if self.any_fresh or self.lanes.any(gap):
            elapsed_s = self.start_afresh(frame, elapsed_s, gap)
        self.last_t_mcu_us = frame.t_mcu_us
        self.estimate(frame, elapsed_s)
        values: list[Any] = []
        for i, (see, history) in enumerate(self.terms):
            newest = see(frame)
            values += newest
            if history:
                older = self.fill_history(newest, self.older[i], history) if self.any_fresh else self.older[i]
                values += older
                shifted = (newest + older)[: len(older)]
                self.older[i] = shifted if ticked else older
        if self.any_fresh:
            self.fresh, self.any_fresh = self.lanes.full(False), False
        vector, ok = self.lanes.vector(values, self.limits)
        return Observation(vector, frame.t_mcu_us, ok)

    def start_afresh(self, frame: SensorFrame, elapsed_s: Any, gap: Any) -> Any:
        self.fresh = fresh = self.fresh | gap
        self.any_fresh = True
        self.integral_m = self.lanes.choose(fresh, 0.0, self.integral_m)
        if self.target:
            self.target.forget(fresh)
        self.last_position_rad = self.choose_each(fresh, frame.position_rad, self.last_position_rad)
        return self.lanes.choose(fresh, 0.0, elapsed_s)

    def fill_history(self, newest: Values, older: Values, history: int) -> Values:
        """A robot without a past has always seen what it sees now."""
        repeated = newest * history
        return self.choose_each(self.fresh, repeated, older or repeated)

    def choose_each(self, condition: Any, yes: Values, no: Values) -> Values:
        return tuple(self.lanes.choose(condition, a, b) for a, b in zip(yes, no, strict=True))

    def estimate(self, frame: SensorFrame, elapsed_s: Any) -> None:
        """Lean by the complementary filter, speed over ground, the leaky integral of its error, dead reckoning."""
        pitch_rate = frame.gyro_rad_s[1]
        if self.spec.imu:
            self.pitch_rad = self.keep_finite(self.filtered_pitch(frame, pitch_rate, elapsed_s), self.pitch_rad)
        if self.spec.drive:
            speed = sum(frame.velocity_rad_s) * self.wheel_share_m + pitch_rate * self.body_share_m
            self.speed_m_s = speed  # NaN shows in the observation, and only there
            self.usable_speed_m_s = self.keep_finite(speed, self.usable_speed_m_s)
            error = self.reference.speed_target_m_s - self.usable_speed_m_s
            self.integral_m = self.integral_m + elapsed_s * (error - self.integral_m * (1.0 / INTEGRAL_LEAK_S))
        if self.tracker or self.target:
            self.reckon(frame, elapsed_s)

    def reckon(self, frame: SensorFrame, elapsed_s: Any) -> None:
        """How far and how much round since the last frame, for who keeps places in mind."""
        turned = [now - last for now, last in zip(frame.position_rad, self.last_position_rad, strict=True)]
        distance_m, turn_rad = sum(turned) * self.wheel_share_m, frame.gyro_rad_s[2] * elapsed_s
        finite = self.lanes.is_finite(distance_m + turn_rad)
        distance_m, turn_rad = self.lanes.choose(finite, distance_m, 0.0), self.lanes.choose(finite, turn_rad, 0.0)
        if self.tracker:
            self.tracker.advance(distance_m, turn_rad)
        if self.target:
            scan = tuple(frame.extra[i] for i in self.radar)
            self.target.advance(distance_m, turn_rad, elapsed_s, self.usable_speed_m_s, scan)
        self.last_position_rad = frame.position_rad

    def filtered_pitch(self, frame: SensorFrame, pitch_rate: Any, elapsed_s: Any) -> Any:
        by_gravity = self.lanes.arctan2(-frame.accel_m_s2[0], frame.accel_m_s2[2])
        keep = self.filter_s / (self.filter_s + elapsed_s)
        pitch = keep * (self.pitch_rad + pitch_rate * elapsed_s) + (1.0 - keep) * by_gravity
        return self.lanes.choose(self.fresh, by_gravity, pitch) if self.any_fresh else pitch

    def keep_finite(self, new: Any, old: Any) -> Any:
        """A reading that is missing for one frame must not poison the filters for ever."""
        return self.lanes.choose(self.lanes.is_finite(new), new, old)

    # One method per term of layout.TERMS: what it shows now.

    def see_pitch_rad(self, frame: SensorFrame) -> Values:
        # A missing IMU must show, although the filter itself lives on: NaN - NaN is NaN.
        accel = sum(frame.accel_m_s2)
        return (self.pitch_rad + (accel - accel),)

    def see_pitch_rate_rad_s(self, frame: SensorFrame) -> Values:
        return (frame.gyro_rad_s[1],)

    def see_yaw_rate_rad_s(self, frame: SensorFrame) -> Values:
        return (frame.gyro_rad_s[2],)

    def see_gyro_rad_s(self, frame: SensorFrame) -> Values:
        return frame.gyro_rad_s

    def see_accel_m_s2(self, frame: SensorFrame) -> Values:
        return frame.accel_m_s2

    def see_joint_position_rad(self, frame: SensorFrame) -> Values:
        return tuple(position - home for position, home in zip(frame.position_rad, self.home_rad, strict=True))

    def see_joint_velocity_rad_s(self, frame: SensorFrame) -> Values:
        return frame.velocity_rad_s

    def see_speed_m_s(self, frame: SensorFrame) -> Values:
        return (self.speed_m_s,)

    def see_speed_target_m_s(self, frame: SensorFrame) -> Values:
        return (self.reference.speed_target_m_s,)

    def see_yaw_rate_target_rad_s(self, frame: SensorFrame) -> Values:
        return (self.reference.yaw_rate_target_rad_s,)

    def see_speed_error_integral_m(self, frame: SensorFrame) -> Values:
        return (self.integral_m,)

    def see_applied_action(self, frame: SensorFrame) -> Values:
        return mix(frame.applied, self.to_action)

    def see_battery_v(self, frame: SensorFrame) -> Values:
        return (frame.battery_v,)

    def see_cross_track_m(self, frame: SensorFrame) -> Values:
        return (self.on_path.cross_m,)

    def see_heading_error(self, frame: SensorFrame) -> Values:
        return self.on_path.sin_error, self.on_path.cos_error

    def see_path_ahead_m(self, frame: SensorFrame) -> Values:
        return self.on_path.ahead_m

    def see_path_speed_m_s(self, frame: SensorFrame) -> Values:
        return (self.speed_m_s * self.on_path.cos_error,)

    def see_obstacle(self, frame: SensorFrame) -> Values:
        target = [frame.extra[i] for i in self.radar]
        seen = self.lanes.is_finite(target[0])
        return (*(self.lanes.choose(seen, value, 0.0) for value in target), seen * 1.0)

    def see_obstacle_track(self, frame: SensorFrame) -> Values:
        target = self.tracked
        known = target.known * 1.0
        entries = (target.x_m, target.y_m, target.vx_m_s - self.usable_speed_m_s, target.vy_m_s)
        return (*(self.lanes.choose(known > 0.0, value, 0.0) for value in entries), known)

    def see_obstacle_miss(self, frame: SensorFrame) -> Values:
        known = self.tracked.known
        return tuple(self.lanes.choose(known, value, 0.0) for value in self.tracked.nearest(self.usable_speed_m_s))

    @property
    def tracked(self) -> TargetTracker:
        assert self.target is not None  # only target terms ask
        return self.target

    @property
    def on_path(self) -> PathTracker:
        assert self.tracker is not None  # only path terms ask, and they make one
        return self.tracker


PATH_TERMS = {"cross_track_m", "heading_error", "path_ahead_m", "path_speed_m_s"}
TARGET_TERMS = {"obstacle_track", "obstacle_miss"}
