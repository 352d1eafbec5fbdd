"""What crosses the rover's path: one upright cylinder that walks straight, and the radar's view of it.

Knows no physics: it is never touched. A collision is a gap of zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_dsac.records import Float
from sim.randomize import Drawn

OBSTACLE_RADIUS_M = 0.15
ROVER_RADIUS_M = 0.20  # a circle round the rover's hull
FAR_AWAY_M = 100.0
RADAR_HZ = 20
RADAR_RANGE_M = 4.0
RADAR_HALF_ANGLE_RAD = np.radians(60.0)


class Obstacle:
    def __init__(self, n: int, generator: np.random.Generator) -> None:
        self.generator = generator
        self.position_m: Float = np.full((n, 2), FAR_AWAY_M)
        self.velocity_m_s: Float = np.zeros((n, 2))

    def clear(self, ids: Any) -> None:
        self.position_m[ids], self.velocity_m_s[ids] = FAR_AWAY_M, 0.0

    def send(self, ids: Any, position_m: Float, velocity_m_s: Float) -> None:
        self.position_m[ids], self.velocity_m_s[ids] = position_m, velocity_m_s

    def advance(self, seconds: float) -> None:
        self.position_m += self.velocity_m_s * seconds

    def gap_m(self, position_m: Float) -> Float:
        return np.asarray(np.linalg.norm(self.position_m - position_m, axis=-1) - OBSTACLE_RADIUS_M - ROVER_RADIUS_M)

    def seen_from(self, position_m: Float, heading_rad: Float, speed_m_s: Float, drawn: Drawn) -> dict[str, Float]:
        """Nearest point of the obstacle in the body frame and its range rate; NaN where the radar sees nothing."""
        offset = self.position_m - position_m
        cos, sin = np.cos(heading_rad), np.sin(heading_rad)
        x, y = cos * offset[:, 0] + sin * offset[:, 1], cos * offset[:, 1] - sin * offset[:, 0]
        distance = np.maximum(np.hypot(x, y), 1e-6)
        shown = np.maximum(distance - OBSTACLE_RADIUS_M, 0.0) / distance
        own = np.stack([cos, sin], axis=-1) * speed_m_s[:, None]
        rate = np.sum(offset * (self.velocity_m_s - own), axis=-1) / distance
        noise = self.generator.standard_normal((3, len(x))) * drawn["radar_noise_m"]
        hidden = (distance > RADAR_RANGE_M) | (np.abs(np.arctan2(y, x)) > RADAR_HALF_ANGLE_RAD)
        hidden |= self.generator.random(len(x)) < drawn["radar_dropout"]
        seen = {"radar_x_m": x * shown + noise[0], "radar_y_m": y * shown + noise[1], "radar_speed_m_s": rate + noise[2]}
        return {name: np.where(hidden, np.nan, value) for name, value in seen.items()}
