"""The controllers a learned policy has to beat, as engines: a cascaded PD that balances, and pure pursuit for a rover.

They read the observation by term name and answer in [-1, 1] like any policy. Gains come from the robot file; the board's
fallback is the same cascaded PD in C. A term the robot file does not observe is an error at start.
"""

from __future__ import annotations

import hashlib

import numpy as np

from edge_dsac.records import Float, Observation
from edge_dsac.spec.layout import ActionLayout, ObservationLayout
from edge_dsac.spec.robot import RobotSpec
from edge_dsac.spec.schema import SpecError


class CascadedPd:
    """Speed error -> wanted lean -> duty, and yaw-rate error -> difference of the duties."""

    def __init__(self, spec: RobotSpec) -> None:
        if spec.balance_pd is None:
            raise SpecError(f"{spec.model}: the cascaded PD needs the table balance_pd in the robot file")
        self.gains = spec.balance_pd
        self.pitch, self.pitch_rate, self.speed, self.yaw_rate, self.speed_target, self.yaw_target, self.integral = find_terms(
            spec, "pitch_rad", "pitch_rate_rad_s", "speed_m_s", "yaw_rate_rad_s", "speed_target_m_s", "yaw_rate_target_rad_s",
            "speed_error_integral_m",
        )  # fmt: skip
        self.to_action = wheels_to_action(spec)
        self.bundle_id = identity(spec, "cascaded PD")

    def act(self, obs: Observation) -> Float:
        gains, see = self.gains, obs.vector
        speed_error = see[..., self.speed_target] - see[..., self.speed]
        lean = gains.balance_rad + gains.speed_kp * speed_error + gains.speed_ki * see[..., self.integral]
        lean = clipped(lean, gains.lean_limit_rad)
        common = gains.pitch_kp * (see[..., self.pitch] - lean) + gains.pitch_kd * see[..., self.pitch_rate]
        differential = gains.yaw_kp * (see[..., self.yaw_target] - see[..., self.yaw_rate]) + gains.yaw_ff * see[..., self.yaw_target]
        return clipped(shares(common, differential) @ self.to_action, 1.0)


class PurePursuit:
    """Steers along the arc to a point ahead on the path; slows down and stops for what the radar sees ahead."""

    def __init__(self, spec: RobotSpec) -> None:
        if spec.pure_pursuit is None:
            raise SpecError(f"{spec.model}: pure pursuit needs the table pure_pursuit in the robot file")
        self.gains = spec.pure_pursuit
        self.speed, self.yaw_rate, ahead, obstacle = find_terms(spec, "speed_m_s", "yaw_rate_rad_s", "path_ahead_m", "obstacle")
        self.ahead_x, self.ahead_y = ahead + 2 * self.gains.lookahead, ahead + 2 * self.gains.lookahead + 1
        self.obstacle_x, self.obstacle_y, self.seen = obstacle, obstacle + 1, obstacle + 3
        self.to_action = wheels_to_action(spec)
        self.bundle_id = identity(spec, "pure pursuit")

    def act(self, obs: Observation) -> Float:
        gains, see = self.gains, obs.vector
        wanted = gains.cruise_m_s * self.free_share(see)
        x, y = see[..., self.ahead_x], see[..., self.ahead_y]
        curvature = 2.0 * y / np.maximum(x * x + y * y, 1e-3)
        wanted_yaw = wanted * curvature
        common = gains.speed_ff * wanted + gains.speed_kp * (wanted - see[..., self.speed])
        differential = gains.yaw_ff * wanted_yaw + gains.yaw_kp * (wanted_yaw - see[..., self.yaw_rate])
        return clipped(shares(common, differential) @ self.to_action, 1.0)

    def free_share(self, see: Float) -> Float:
        """1 on a free path, 0 with something nearer than stop_m."""
        distance_m = np.hypot(see[..., self.obstacle_x], see[..., self.obstacle_y])
        free = (distance_m - self.gains.stop_m) / max(self.gains.slow_m - self.gains.stop_m, 1e-6)
        return np.where(see[..., self.seen] < 0.5, 1.0, np.maximum(np.minimum(free, 1.0), 0.0))


def make_baseline(spec: RobotSpec) -> CascadedPd | PurePursuit:
    """The baseline this robot file has gains for."""
    if spec.balance_pd is not None:
        return CascadedPd(spec)
    if spec.pure_pursuit is not None:
        return PurePursuit(spec)
    raise SpecError(f"{spec.model}: no baseline: add the table balance_pd or pure_pursuit to the robot file, or run a policy")


def find_terms(spec: RobotSpec, *terms: str) -> list[int]:
    """Index of the first entry of each term in the observation vector."""
    newest = ObservationLayout(spec).newest
    missing = [term for term in terms if term not in newest]
    if missing:
        raise SpecError(f"{spec.model}: the baseline needs {', '.join(missing)} among the observations of the robot file")
    return [newest[term].start for term in terms]


def wheels_to_action(spec: RobotSpec) -> Float:
    """From duty shares of two wheels to the action whose command they are."""
    layout = ActionLayout(spec)
    return layout.command_limit[:, None] * layout.to_action


def shares(common: Float, differential: Float) -> Float:
    """Duty shares of the left and the right wheel."""
    return np.stack((common - differential, common + differential), axis=-1)


def clipped(value: Float, limit: float) -> Float:
    return np.maximum(np.minimum(value, limit), -limit)


def identity(spec: RobotSpec, kind: str) -> int:
    """A baseline is named in the log by what it is and by the robot file it was made from."""
    return int.from_bytes(hashlib.sha256(f"{kind} {spec.text}".encode()).digest()[:8], "big")
