"""Rewards: functions of what the robot itself knows (observation and action), the same on the robot and in simulation.

Each term is a magnitude in [0, 1] of the observation vector and the applied actions; the robot file gives its weight and the
width at which it is used up. Batch shaped. Terms that need the simulator's truth do not belong here: sim/privileged.py.
Linear, not Gaussian: far from the target a Gaussian has no slope to climb.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import numpy as np

from edge_dsac.records import Float, Step
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec
from edge_dsac.spec.schema import SpecError

Magnitude = Callable[["Reader"], Any]


class Reader:
    """One step's observation by term, and the action before and after."""

    def __init__(self, layout: ObservationLayout) -> None:
        self.at = {term: where.start for term, where in layout.newest.items()}
        self.vector: Float = np.zeros(layout.size)
        self.action: Float = np.zeros(0)
        self.last_action: Float = np.zeros(0)

    def __call__(self, term: str, entry: int = 0) -> Any:
        return self.vector[..., self.at[term] + entry]


def obstacle_distance_m(see: Reader) -> Any:
    """To the radar's target; far away where nothing is seen."""
    return np.where(see("obstacle", 3) > 0.5, np.hypot(see("obstacle", 0), see("obstacle", 1)), 1e3)


# name: (magnitude before the width, observation terms it reads)
TERMS: dict[str, tuple[Magnitude, tuple[str, ...]]] = {
    "alive": (lambda see: np.ones(see.vector.shape[:-1]), ()),
    "speed_error": (lambda see: np.abs(see("speed_m_s") - see("speed_target_m_s")), ("speed_m_s", "speed_target_m_s")),
    "yaw_rate_error": (
        lambda see: np.abs(see("yaw_rate_rad_s") - see("yaw_rate_target_rad_s")),
        ("yaw_rate_rad_s", "yaw_rate_target_rad_s"),
    ),
    "lean": (lambda see: np.abs(see("pitch_rad")), ("pitch_rad",)),
    "action_rate": (lambda see: np.abs(see.action - see.last_action).mean(axis=-1), ()),
    "path_progress": (lambda see: see("path_speed_m_s"), ("path_speed_m_s",)),
    "cross_track": (lambda see: np.abs(see("cross_track_m")), ("cross_track_m",)),
    "obstacle_near": (lambda see: obstacle_distance_m(see), ("obstacle",)),
}
SIGNED = frozenset({"path_progress"})  # driving backwards costs
NEAR = frozenset({"obstacle_near"})  # 1 at contact, 0 at the width


class Reward:
    def __init__(self, spec: RobotSpec) -> None:
        layout = ObservationLayout(spec)
        self.see = Reader(layout)
        self.terms = []
        for entry in spec.rewards:
            if entry.term not in TERMS:
                guess = difflib.get_close_matches(entry.term, TERMS, 1)
                raise SpecError(
                    f"{spec.model}: reward {entry.term!r} is not known; {f'did you mean {guess[0]!r}?' if guess else ', '.join(TERMS)}"
                )
            magnitude, needs = TERMS[entry.term]
            missing = [need for need in needs if need not in layout.newest]
            if missing:
                raise SpecError(f"{spec.model}: reward {entry.term!r} needs {', '.join(missing)} among the observations")
            self.terms.append((entry, magnitude))

    def parts(self, vector: Float, action: Float, last_action: Float) -> dict[str, Any]:
        """Each term's weighted share. `vector` is what was seen after `action` was applied; actions are the applied ones."""
        see = self.see
        see.vector, see.action, see.last_action = vector, action, last_action
        shares = {}
        for entry, magnitude in self.terms:
            used = magnitude(see) / entry.width
            used = np.clip(1.0 - used, 0.0, 1.0) if entry.term in NEAR else np.clip(used, -1.0 if entry.term in SIGNED else 0.0, 1.0)
            shares[entry.term] = entry.weight * used
        return shares

    def __call__(self, vector: Float, action: Float, last_action: Float) -> Any:
        return sum(self.parts(vector, action, last_action).values())

    def of_steps(self, earlier: Step, step: Step, after: Step) -> float:
        """From a log: what the action of `step` was worth, seen in `after`, with the action before it in `earlier`."""
        return float(self(after.obs.vector, np.array(step.command.applied_action), np.array(earlier.command.applied_action)))
