"""What the radar saw, remembered: where the nearest target is and how it moves, also while no scan shows it.

A radar tells place and range rate; whether something that crosses will hit tells its sideways motion, which only several scans
together show. An alpha-beta filter in the body frame, carried along as the robot drives and turns. Knows one target: a
scan far from where it should be begins a new one. One robot in floats or a batch in arrays, as lanes.py has it.
"""

from __future__ import annotations

from typing import Any

from edge_dsac.loop.lanes import Lanes
from edge_dsac.records import Values

PLACE_GAIN, VELOCITY_GAIN = 0.5, 0.12  # per scan: a velocity good to 0.1 m/s after some 0.4 s at 20 scans a second
RATE_GAIN = 0.5  # the range rate is measured directly
SAME_WITHIN_M = 0.6  # a person's stride between two scans is 0.1
FORGET_S = 2.5
LEAST_SCAN_S, LONGEST_SCAN_S = 0.02, 0.5
LOOK_AHEAD_S = 3.0


class TargetTracker:
    """`advance` once per frame, then read `place_m`, `velocity_m_s` (of the target over ground, in body axes) and `known`."""

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes
        self.x_m = self.y_m = self.vx_m_s = self.vy_m_s = lanes.full(0.0)
        self.last_x_m = self.last_y_m = lanes.full(0.0)
        self.since_scan_s = lanes.full(FORGET_S)

    @property
    def known(self) -> Any:
        return self.since_scan_s < FORGET_S

    def forget(self, where: Any) -> None:
        self.since_scan_s = self.lanes.choose(where, FORGET_S, self.since_scan_s)

    def advance(self, distance_m: Any, turn_rad: Any, elapsed_s: Any, speed_m_s: Any, scan: Values) -> None:
        """`scan` is x, y and range rate as the frame has them; NaN where the radar saw nothing."""
        self.carry(distance_m, turn_rad, elapsed_s)
        x, y, rate = scan
        new = self.lanes.is_finite(x + y + rate) & ((x != self.last_x_m) | (y != self.last_y_m))  # between scans a reading stands
        if self.lanes.any(new):
            self.correct(new, x, y, rate, speed_m_s)

    def carry(self, distance_m: Any, turn_rad: Any, elapsed_s: Any) -> None:
        """The robot moved, the target moved on: both seen from the body."""
        cos, sin = self.lanes.cos(turn_rad), self.lanes.sin(turn_rad)
        x, y = self.x_m + self.vx_m_s * elapsed_s - distance_m, self.y_m + self.vy_m_s * elapsed_s
        self.x_m, self.y_m = cos * x + sin * y, cos * y - sin * x
        self.vx_m_s, self.vy_m_s = cos * self.vx_m_s + sin * self.vy_m_s, cos * self.vy_m_s - sin * self.vx_m_s
        self.since_scan_s = self.since_scan_s + elapsed_s

    def correct(self, new: Any, x: Any, y: Any, rate: Any, speed_m_s: Any) -> None:
        choose, hypot = self.lanes.choose, self.lanes.hypot
        x, y, rate = (choose(new, value, 0.0) for value in (x, y, rate))
        off_x, off_y = x - self.x_m, y - self.y_m
        another = (hypot(off_x, off_y) > SAME_WITHIN_M) | (self.since_scan_s >= FORGET_S)
        distance = hypot(x, y) + 1e-6
        sight_x, sight_y = x / distance, y / distance
        away = rate + speed_m_s * sight_x  # the target's own speed along the line of sight
        step = VELOCITY_GAIN / self.lanes.clamp(self.since_scan_s, LEAST_SCAN_S, LONGEST_SCAN_S)
        vx, vy = choose(another, 0.0, self.vx_m_s + step * off_x), choose(another, 0.0, self.vy_m_s + step * off_y)
        missing = choose(another, 1.0, RATE_GAIN) * (away - vx * sight_x - vy * sight_y)
        self.vx_m_s = choose(new, vx + missing * sight_x, self.vx_m_s)
        self.vy_m_s = choose(new, vy + missing * sight_y, self.vy_m_s)
        self.x_m = choose(new, choose(another, x, self.x_m + PLACE_GAIN * off_x), self.x_m)
        self.y_m = choose(new, choose(another, y, self.y_m + PLACE_GAIN * off_y), self.y_m)
        self.last_x_m, self.last_y_m = choose(new, x, self.last_x_m), choose(new, y, self.last_y_m)
        self.since_scan_s = choose(new, 0.0, self.since_scan_s)

    def nearest(self, speed_m_s: Any) -> Values:
        """If both go on as they do: seconds until they are nearest (at most LOOK_AHEAD_S), and where the target is then."""
        vx, vy = self.vx_m_s - speed_m_s, self.vy_m_s
        until_s = self.lanes.clamp(-(self.x_m * vx + self.y_m * vy) / (vx * vx + vy * vy + 1e-3), 0.0, LOOK_AHEAD_S)
        return until_s, self.x_m + vx * until_s, self.y_m + vy * until_s
