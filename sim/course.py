"""Courses for the rover: a smooth closed path per robot, and something that comes across it now and then."""

from __future__ import annotations

import numpy as np

from edge_dsac.loop.path import Path, make_path, resample
from edge_dsac.records import Float
from sim.rollout import Rollout

POINTS = 160
OBSTACLE_SPEED_M_S = (0.15, 0.5)
CROSSES_AHEAD_M = (1.0, 2.5)  # how far along the path from the rover the ways cross
COMES_FROM_M = (1.0, 2.0)  # how far from the path it starts
GONE_M = 4.0


class Course:
    def __init__(self, rollout: Rollout, generator: np.random.Generator, obstacle: bool) -> None:
        self.rollout, self.generator, self.obstacle = rollout, generator, obstacle
        self.points: Float = np.stack([draw_loop(generator) for _ in range(rollout.n)])
        self.path: Path = make_path(self.points, closed=True)

    def lay(self, where: np.ndarray) -> None:
        """A new path for the robots `where`, each put down on its first point, heading along it."""
        for i in np.flatnonzero(where):
            self.points[i] = draw_loop(self.generator)
        self.path = make_path(self.points, closed=True)
        tracker = self.rollout.observer.on_path
        tracker.set_path(self.path)
        tracker.place(where)
        # The observer keeps the tracker's place of everybody else: only the polylines were exchanged.
        self.rollout.observer.reference = self.rollout.observer.reference.__class__(path=self.path)
        heading = np.arctan2(self.path.tangents[where, 0, 1], self.path.tangents[where, 0, 0])
        self.rollout.plant.place(where, self.points[where, 0], heading)
        self.send_obstacles()

    def distance_m(self, position_m: Float) -> Float:
        """Of the true position from the nearest point of the path."""
        gaps = np.linalg.norm(self.points - position_m[:, None], axis=-1)
        return np.asarray(gaps.min(axis=1))

    def send_obstacles(self) -> None:
        """Where the last one has gone, the next one sets out, across the path some way ahead of the rover."""
        if not self.obstacle:
            return
        plant = self.rollout.plant
        truth = plant.truth()
        ids = np.flatnonzero(truth.obstacle_gap_m > GONE_M)
        if not len(ids):
            return
        ahead = self.generator.uniform(*CROSSES_AHEAD_M, len(ids))
        nearest = np.linalg.norm(self.points[ids] - truth.position_m[ids, None], axis=-1).argmin(axis=1)
        cross_at = (nearest + np.round(ahead / self.path.spacing_m[ids]).astype(int)) % self.points.shape[1]
        crossing, tangent = self.points[ids, cross_at], self.path.tangents[ids, cross_at]
        side = np.where(self.generator.random(len(ids)) < 0.5, 1.0, -1.0)[:, None]
        normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=-1) * side
        speed = self.generator.uniform(*OBSTACLE_SPEED_M_S, len(ids))[:, None]
        start = crossing + normal * self.generator.uniform(*COMES_FROM_M, len(ids))[:, None]
        plant.obstacle.send(ids, start, -normal * speed)


def draw_loop(generator: np.random.Generator, size_m: float = 2.0) -> Float:
    """A closed curve of a few low harmonics, evenly resampled: smooth, and different each time."""
    phase = np.linspace(0.0, 2.0 * np.pi, 1500, endpoint=False)
    radius = np.full_like(phase, size_m)
    for harmonic in (2, 3, 4):
        radius += generator.uniform(-0.35, 0.35) * size_m / harmonic * np.cos(harmonic * phase + generator.uniform(0, 2 * np.pi))
    curve = np.stack([radius * np.cos(phase), radius * np.sin(phase)], axis=-1)
    if generator.random() < 0.5:
        curve = curve[::-1]
    return resample(curve, POINTS)
