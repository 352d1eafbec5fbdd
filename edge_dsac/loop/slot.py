"""Holds the policy that drives, and changes it between ticks without a jolt. The one owner of the active policy.

`offer` may be called from another thread; the swap happens only in `swap_if_offered`, at a tick boundary. A policy that
cannot be loaded never gets here: the running one stays.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from edge_dsac.records import Float, Observation


class Engine(Protocol):
    """Runs one policy. `bundle_id` names it in every logged step."""

    bundle_id: int

    def act(self, obs: Observation) -> Float:
        """`[actions]` in [-1, 1]; must not keep or change what it is given."""
        ...


class Slot:
    def __init__(self, engine: Engine, fade_ticks: int = 20) -> None:
        """`fade_ticks`: how long the difference between the old and the new policy's first answer is faded out."""
        self.engine = engine
        self.fade_ticks = max(fade_ticks, 1)
        self.offered: Engine | None = None
        self.replaced: Engine | None = None  # set between a swap and the new engine's first answer
        self.fade_left = 0
        self.jump: Float = np.zeros(1)
        self.swaps = 0

    @property
    def bundle_id(self) -> int:
        return self.engine.bundle_id

    def offer(self, engine: Engine) -> None:
        """The next tick boundary takes it. A single assignment, so a half-made offer cannot be seen."""
        self.offered = engine

    def swap_if_offered(self) -> None:
        engine = self.offered
        if engine is None:
            return
        self.offered = None
        self.replaced, self.engine = self.engine, engine
        self.swaps += 1

    def act(self, obs: Observation) -> Float:
        action = self.engine.act(obs)
        if self.replaced is not None or self.fade_left:
            action = self.fade(obs, action)
        return action

    def fade(self, obs: Observation, action: Float) -> Float:
        """The first answer after a swap equals the old policy's; then their difference melts away linearly."""
        if self.replaced is not None:
            jump = self.replaced.act(obs) - action
            self.jump = np.where(np.isfinite(jump), jump, 0.0)
            self.replaced = None
            self.fade_left = self.fade_ticks
        action = np.clip(action + self.jump * (self.fade_left / self.fade_ticks), -1.0, 1.0)
        self.fade_left -= 1
        return action

    @property
    def fading(self) -> bool:
        return self.fade_left > 0
