"""Where the robot is along a path: dead reckoning from wheels and gyro, and the path seen from the body.

Knows one polyline per robot and how to walk along it; does not plan, avoid or correct (there is no absolute position
sensor: the error of dead reckoning is part of the task). One robot in floats or a batch in arrays, as lanes.py has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_dsac.loop.lanes import Lanes
from edge_dsac.records import Float, Values
from edge_dsac.spec.layout import PATH_AHEAD_M

MAX_STEP_M = 0.2  # a projection never jumps further along the path in one tick: it must not cut across a loop


@dataclass(frozen=True, slots=True)
class Path:
    """`points_m[n, k, 2]`, evenly spaced along each path; `closed` joins the last point to the first."""

    points_m: Float
    spacing_m: Float  # [n]
    tangents: Float  # [n, k, 2], unit length
    closed: bool

    @property
    def length_m(self) -> Float:
        segments = self.points_m.shape[1] - (0 if self.closed else 1)
        return np.asarray(self.spacing_m * segments)


def make_path(points_m: Float, closed: bool) -> Path:
    """`points_m[k, 2]` or `[n, k, 2]`, evenly spaced."""
    points = np.atleast_3d(np.asarray(points_m, float)) if np.ndim(points_m) == 3 else np.asarray(points_m, float)[None]
    after, before = np.roll(points, -1, axis=1), np.roll(points, 1, axis=1)
    if not closed:
        after[:, -1], before[:, 0] = points[:, -1], points[:, 0]
    chord = after - before
    tangents = chord / np.linalg.norm(chord, axis=-1, keepdims=True)
    spacing = np.linalg.norm(np.diff(points, axis=1), axis=-1).mean(axis=1)
    return Path(points, spacing, tangents, closed)


def make_figure_eight(size_m: float = 2.0, points: int = 240) -> Path:
    """The path a rover follows when it is given none: a figure of eight that starts at the origin, heading along +x."""
    phase = np.linspace(0.0, 2.0 * np.pi, 4000, endpoint=False)
    fine = np.stack([size_m * np.sin(phase), size_m * np.sin(phase) * np.cos(phase)], axis=-1)
    heading = np.arctan2(fine[1, 1] - fine[0, 1], fine[1, 0] - fine[0, 0])
    turn = np.array([[np.cos(heading), -np.sin(heading)], [np.sin(heading), np.cos(heading)]])
    return make_path(resample(fine @ turn, points), closed=True)


def resample(fine: Float, points: int) -> Float:
    """Evenly spaced points along a closed curve given by many."""
    loop = np.concatenate([fine, fine[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(loop, axis=0), axis=1))])
    wanted = np.linspace(0.0, along[-1], points, endpoint=False)
    return np.stack([np.interp(wanted, along, loop[:, axis]) for axis in (0, 1)], axis=-1)


class PathTracker:
    """Pose by dead reckoning and progress along the path. `advance` once per frame, then read the attributes."""

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes
        self.x_m = self.y_m = self.heading_rad = self.along_m = lanes.full(0.0)
        self.cross_m = self.sin_error = self.cos_error = lanes.full(0.0)
        self.ahead_m: Values = (lanes.full(0.0),) * (2 * len(PATH_AHEAD_M))  # x and y of each point, from the body
        self.set_path(make_figure_eight())

    def set_path(self, path: Path) -> None:
        """One path for all, or one each. Does not move the robot: `place` does."""
        robots = math.prod(self.lanes.batch)
        if path.points_m.shape[0] not in (1, robots):
            raise ValueError(f"path: expected 1 or {robots} polylines, got {path.points_m.shape[0]}")
        self.path = path
        self.spacing_m, self.length_m = self.lanes.each(path.spacing_m), self.lanes.each(path.length_m)
        self.corner = self.lanes.lookup(np.concatenate([path.points_m, path.tangents], axis=-1))

    def place(self, where: Any = True) -> None:
        """Puts the robots `where` (a mask) on the first point of their path, heading along it: how an operator starts one."""
        choose = self.lanes.choose
        x_m, y_m, tangent_x, tangent_y = self.corner(self.lanes.full(0))
        self.x_m, self.y_m = choose(where, x_m, self.x_m), choose(where, y_m, self.y_m)
        self.heading_rad = choose(where, self.lanes.arctan2(tangent_y, tangent_x), self.heading_rad)
        self.along_m = choose(where, 0.0, self.along_m)

    def advance(self, distance_m: Any, turn_rad: Any) -> None:
        middle = self.heading_rad + 0.5 * turn_rad  # the chord of the arc that was driven
        self.x_m = self.x_m + distance_m * self.lanes.cos(middle)
        self.y_m = self.y_m + distance_m * self.lanes.sin(middle)
        self.heading_rad = self.heading_rad + turn_rad
        self.look()

    def look(self) -> None:
        """Projects the pose on the path and sees the path from the body."""
        x_m, y_m, tangent_x, tangent_y = self.at(self.along_m)
        forward_m = (self.x_m - x_m) * tangent_x + (self.y_m - y_m) * tangent_y
        self.along_m = self.along_m + self.lanes.clamp(forward_m, -MAX_STEP_M, MAX_STEP_M)
        if not self.path.closed:
            self.along_m = self.lanes.clamp(self.along_m, 0.0, self.length_m)
        x_m, y_m, tangent_x, tangent_y = self.at(self.along_m)
        self.cross_m = tangent_x * (self.y_m - y_m) - tangent_y * (self.x_m - x_m)
        cos, sin = self.lanes.cos(self.heading_rad), self.lanes.sin(self.heading_rad)
        self.sin_error = sin * tangent_x - cos * tangent_y
        self.cos_error = cos * tangent_x + sin * tangent_y
        ahead: list[Any] = []
        for distance_m in PATH_AHEAD_M:
            x_m, y_m, _, _ = self.at(self.along_m + distance_m)
            dx, dy = x_m - self.x_m, y_m - self.y_m
            ahead += (cos * dx + sin * dy, cos * dy - sin * dx)
        self.ahead_m = tuple(ahead)

    def at(self, along_m: Any) -> Values:
        """Point and unit tangent (x, y, tangent_x, tangent_y) at a distance along the path; an open one goes straight on past its end."""
        count = self.path.points_m.shape[1]
        place = along_m / self.spacing_m
        low = self.lanes.floor(place)
        if self.path.closed:
            share = place - low
            low, high = low % count, (low + 1) % count
        else:
            low = self.lanes.clamp(low, 0, count - 2)
            share, high = place - low, low + 1
        x_m, y_m, tangent_x, tangent_y = self.corner(low)
        next_x_m, next_y_m, next_tangent_x, next_tangent_y = self.corner(high)
        turn = self.lanes.clamp(share, 0.0, 1.0)
        tangent_x = tangent_x + turn * (next_tangent_x - tangent_x)
        tangent_y = tangent_y + turn * (next_tangent_y - tangent_y)
        length = self.lanes.hypot(tangent_x, tangent_y)
        return x_m + share * (next_x_m - x_m), y_m + share * (next_y_m - y_m), tangent_x / length, tangent_y / length
