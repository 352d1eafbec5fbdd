"""Where the robot is along a path: dead reckoning from wheels and gyro, and the path seen from the body.

Knows one polyline per robot and how to walk along it; does not plan, avoid or correct (there is no absolute position
sensor: the error of dead reckoning is part of the task). Shapes are `[n, ...]`; a single robot is n = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_dsac.records import Float
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

    def __init__(self, n: int) -> None:
        self.x_m, self.y_m, self.heading_rad, self.along_m = (np.zeros(n) for _ in range(4))
        self.cross_m, self.sin_error, self.cos_error = (np.zeros(n) for _ in range(3))
        self.ahead_m: Float = np.zeros((n, len(PATH_AHEAD_M), 2))
        self.rows = np.arange(n)
        self.path = make_figure_eight()
        self.set_path(self.path)

    def set_path(self, path: Path) -> None:
        """One path for all, or one each. Does not move the robot: `place` does."""
        n = len(self.rows)
        if path.points_m.shape[0] not in (1, n):
            raise ValueError(f"path: expected 1 or {n} polylines, got {path.points_m.shape[0]}")
        self.path = path
        self.path_rows = self.rows if path.points_m.shape[0] == n else np.zeros(n, int)

    def place(self, where: Any = slice(None)) -> None:
        """Puts the robots `where` on the first point of their path, heading along it: how an operator starts one."""
        rows = self.path_rows[where]
        self.x_m[where], self.y_m[where] = self.path.points_m[rows, 0, 0], self.path.points_m[rows, 0, 1]
        self.heading_rad[where] = np.arctan2(self.path.tangents[rows, 0, 1], self.path.tangents[rows, 0, 0])
        self.along_m[where] = 0.0

    def advance(self, distance_m: Float, turn_rad: Float) -> None:
        middle = self.heading_rad + 0.5 * turn_rad  # the chord of the arc that was driven
        self.x_m += distance_m * np.cos(middle)
        self.y_m += distance_m * np.sin(middle)
        self.heading_rad += turn_rad
        self.look()

    def look(self) -> None:
        """Projects the pose on the path and sees the path from the body."""
        point, tangent = self.at(self.along_m)
        off = np.stack([self.x_m, self.y_m], axis=-1) - point
        self.along_m += np.clip(np.sum(off * tangent, axis=-1), -MAX_STEP_M, MAX_STEP_M)
        if not self.path.closed:
            np.clip(self.along_m, 0.0, self.path.length_m[self.path_rows], out=self.along_m)
        point, tangent = self.at(self.along_m)
        off = np.stack([self.x_m, self.y_m], axis=-1) - point
        self.cross_m = tangent[:, 0] * off[:, 1] - tangent[:, 1] * off[:, 0]
        cos, sin = np.cos(self.heading_rad), np.sin(self.heading_rad)
        self.sin_error = sin * tangent[:, 0] - cos * tangent[:, 1]
        self.cos_error = cos * tangent[:, 0] + sin * tangent[:, 1]
        for i, distance_m in enumerate(PATH_AHEAD_M):
            seen, _ = self.at(self.along_m + distance_m)
            dx, dy = seen[:, 0] - self.x_m, seen[:, 1] - self.y_m
            self.ahead_m[:, i, 0] = cos * dx + sin * dy
            self.ahead_m[:, i, 1] = cos * dy - sin * dx

    def at(self, along_m: Float) -> tuple[Float, Float]:
        """Point and unit tangent at a distance along the path; an open path goes straight on past its end."""
        points, tangents, rows = self.path.points_m, self.path.tangents, self.path_rows
        count = points.shape[1]
        place = along_m / self.path.spacing_m[rows]
        if self.path.closed:
            low = np.floor(place).astype(int)
            share = (place - low)[:, None]
            low, high = low % count, (low + 1) % count
        else:
            low = np.clip(np.floor(place).astype(int), 0, count - 2)
            share, high = (place - low)[:, None], low + 1
        point = points[rows, low] + share * (points[rows, high] - points[rows, low])
        tangent = tangents[rows, low] + np.clip(share, 0.0, 1.0) * (tangents[rows, high] - tangents[rows, low])
        return point, tangent / np.linalg.norm(tangent, axis=-1, keepdims=True)
