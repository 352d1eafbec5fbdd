"""Bounded exploration: a slow random walk around the policy's action, for data that the policy alone would never give.

An overlay of the slot. The noise is drawn before the first tick and goes round, so a tick draws nothing and a seed says all. Rules that
must stay true: never more than three times its standard deviation, and none at all while a candidate is on trial or a person drives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_dsac.loop.trial import HUMAN, Seat
from edge_dsac.records import Float

if TYPE_CHECKING:
    from edge_dsac.loop.control import ControlLoop

CORRELATION_S = 0.2  # slower than the motors, quicker than the robot tips: noise from tick to tick would only wear the gears
BLOCK = 1 << 16  # ticks until it goes round: 11 minutes at 100 Hz
MOST = 3.0  # standard deviations


def draw(actions: int, deviation: float, control_hz: int, seed: int, ticks: int = BLOCK) -> Float:
    """`[ticks, actions]`: an Ornstein-Uhlenbeck process of this standard deviation, cut off at three times that."""
    generator = np.random.default_rng(seed)
    keep = np.exp(-1.0 / (CORRELATION_S * control_hz))
    walk = generator.normal(size=(ticks, actions))
    walk[1:] *= np.sqrt(1.0 - keep**2)
    for i in range(1, ticks):
        walk[i] += keep * walk[i - 1]
    return np.clip(deviation * walk, -MOST * deviation, MOST * deviation)


class Exploration:
    rules = 0  # the action in the log is the one with the noise: it is what was wanted at that tick

    def __init__(self, noise: Float, seat: Seat | None = None) -> None:
        """`seat`: where a candidate may be on trial."""
        self.rows = list(noise)
        self.seat = seat
        self.at = 0
        self.may = False  # decided between ticks

    def over(self, action: Float) -> Float:
        if not self.may:
            return action
        self.at = self.at + 1 if self.at + 1 < len(self.rows) else 0
        noisy: Float = np.clip(action + self.rows[self.at], -1.0, 1.0)
        return noisy

    def between_ticks(self, loop: ControlLoop) -> None:
        on_trial = self.seat is not None and (self.seat.trial is not None or self.seat.offered is not None)
        self.may = not on_trial and not loop.slot.rules & HUMAN
