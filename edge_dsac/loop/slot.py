"""Holds the policy that drives, and changes it between ticks without a jolt. The one owner of the active policy.

`offer` may be called from another thread; the swap happens only in `swap_if_offered`, at a tick boundary. A policy that
cannot be loaded never gets here: the running one stays. What else may have a say in an action (exploration, a person) lies
over the policy's answer as an overlay; without one there is nothing between the policy and the limiter.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from edge_dsac.records import Float, Observation, Rule

BLEND = int(Rule.BLEND)


class Engine(Protocol):
    """Runs one policy. `bundle_id` names it in every logged step."""

    bundle_id: int

    def act(self, obs: Observation) -> Float:
        """`[actions]` in [-1, 1]; must not keep or change what it is given."""
        ...


class Overlay(Protocol):
    """Changes an action after the policy has answered. `rules` says so in the log (bits of Rule)."""

    rules: int

    def over(self, action: Float) -> Float: ...


class Slot:
    def __init__(self, engine: Engine, fade_ticks: int = 20) -> None:
        """`fade_ticks`: how long the difference between the old and the new policy's first answer is faded out."""
        self.engine = engine
        self.fade_ticks = max(fade_ticks, 1)
        self.offered: Engine | None = None
        self.replaced: Engine | None = None  # between a swap and the new engine's first answer, or as long as both are asked
        self.ask_both = False
        self.fade_left = self.fading_ticks = 0
        self.jump: Float = np.zeros(1)
        self.swaps = 0
        self.overlays: tuple[Overlay, ...] = ()  # in their order; set before the first tick

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
        self.take(engine)
        self.swaps += 1

    def take(self, engine: Engine, fade: bool = True, approach_ticks: int = 0) -> None:
        """At a tick boundary. `fade=False`: what drove is not trusted any more, so not even its difference is kept.

        `approach_ticks`: for so long both are asked, and the share of the new one rises from none to all.
        """
        self.replaced, self.engine = (self.engine if fade else None), engine
        self.ask_both = fade and approach_ticks > 0
        self.fade_left, self.fading_ticks = 0, approach_ticks or self.fade_ticks

    def act(self, obs: Observation) -> Float:
        action = self.engine.act(obs)
        if self.replaced is not None or self.fade_left:
            action = self.fade(obs, action)
        for overlay in self.overlays:
            action = overlay.over(action)
        return action

    def fade(self, obs: Observation, action: Float) -> Float:
        """The first answer after a swap equals the old policy's; then their difference melts away linearly."""
        if self.replaced is not None:
            jump = self.replaced.act(obs) - action
            self.jump = np.where(np.isfinite(jump), jump, 0.0)
            self.fade_left = self.fade_left or self.fading_ticks
        action = np.clip(action + self.jump * (self.fade_left / self.fading_ticks), -1.0, 1.0)
        self.fade_left -= 1
        if not (self.ask_both and self.fade_left):
            self.replaced = None
        return action

    @property
    def fading(self) -> bool:
        return self.fade_left > 0

    @property
    def rules(self) -> int:
        """Why an action of this slot is not the policy's alone."""
        rules = BLEND if self.fade_left > 0 else 0
        for overlay in self.overlays:
            rules |= overlay.rules
        return rules
