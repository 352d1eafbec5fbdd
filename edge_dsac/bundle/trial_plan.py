"""How a candidate is tried beside the policy it came from: windows, their order, and what ends the trial at once.

Written by the tuner, read by the loop, which import each other never; so it lives with the bundle that it accompanies. Rule that must
stay true: a plan bounds by itself how many ticks the candidate may drive, whatever happens in the flight.
"""

from __future__ import annotations

import dataclasses
import json
import random
from dataclasses import dataclass
from typing import Any

from edge_dsac.bundle.manifest import BundleError, ManifestReader, canonical_json
from edge_dsac.spec.schema import SpecError, fact


class TrialError(BundleError):
    """A plan by which nothing is tried, and why."""


@dataclass(frozen=True, slots=True)
class Habit:
    """What the robot usually does: the distance of an observation from its mean, in deviations and as its entries go together, is small.

    Where two entries count by their difference (what is, and what was asked for), there are fewer columns than entries.
    """

    entries: tuple[int, ...] = fact("of the observation, that tell; none: nothing is unusual", low=0, default=())
    mean: tuple[float, ...] = fact("of each, SI", default=())
    whitening: tuple[float, ...] = fact("a row per entry: (entries - mean) times it are uncorrelated, each with deviation 1", default=())
    most: float = fact("sum of their squares; more is unusual", low=0.0, default=0.0)


@dataclass(frozen=True, slots=True)
class TrialPlan:
    window_ticks: int = fact("length of one window", low=2, high=1_000_000)
    pairs: int = fact("each is one window of the old and one of the new", low=1, high=1000)
    low: tuple[float, ...] = fact("the least that each entry of the observation may be while the new one drives, SI")
    high: tuple[float, ...] = fact("the most")
    seed: int = fact("of the coin that says who goes first in each pair", low=0, high=2**63 - 1, default=0)
    settle_ticks: int = fact("at the start of each window, not counted: the fade and what is left of the other's motion", low=0, default=50)
    max_voids: int = fact("windows that may be repeated because the robot did not run through them", low=0, high=10_000, default=20)
    max_coasted_share: float = fact("of a window's ticks without a fresh frame; with more it is repeated", low=0.0, high=1.0, default=0.2)
    max_limited_share: float = fact("of a window's ticks on which the limiter may step in", low=0.0, high=1.0, default=1.0)
    max_action_shift: float | None = fact(
        "largest difference between the two answers to one observation; null: the old one is not asked", default=None
    )
    shadow_ticks: int = fact(
        "before the first window, in which the new one is asked and the old one drives", low=0, high=100_000, default=0
    )
    approach_ticks: int = fact(
        "then, before the first window: both are asked, the new one's share of the action rises from none to all; the last third all",
        low=0, high=100_000, default=0,
    )  # fmt: skip
    habit: Habit = fact("during the approach the old one takes over at once from what is unusual", default=Habit())
    max_retreats: int = fact("so often, each time to begin the approach again; then the trial is over", low=0, high=100, default=1)
    max_shadow_shift: float | None = fact(
        "largest mean difference between their answers in these, of each action; null: none is too large", default=None
    )

    @property
    def most_new_ticks(self) -> int:
        """The candidate drives no longer than this, in all."""
        return (self.pairs + self.max_voids) * self.window_ticks + (1 + self.max_voids + self.max_retreats) * self.approach_ticks

    def order(self) -> tuple[bool, ...]:
        """Per window: is it the new one's. A fair coin per pair, or what drifts (battery, floor) would count for one of the two."""
        coin = random.Random(self.seed)
        firsts = [coin.random() < 0.5 for _ in range(self.pairs)]
        return tuple(new for first in firsts for new in (first, not first))

    def check_for(self, observations: int) -> None:
        if len(self.low) != observations:
            raise TrialError(f"trial: the envelope has {len(self.low)} entries, the policy sees {observations}")
        if any(entry >= observations for entry in self.habit.entries):
            raise TrialError(f"trial: the habit tells of entry {max(self.habit.entries)}, the policy sees {observations}")


def plan_table(plan: TrialPlan) -> dict[str, Any]:
    return dataclasses.asdict(plan)


def read_plan(table: Any) -> TrialPlan:
    """Every value checked: what stands here decides how long something untried moves a robot."""
    try:
        plan = ManifestReader("", "trial.json").read(TrialPlan, table, "plan")
    except SpecError as error:
        raise TrialError(str(error)) from None
    if len(plan.low) != len(plan.high):
        raise TrialError(f"trial.json: plan.low has {len(plan.low)} entries, plan.high {len(plan.high)}")
    for i, (low, high) in enumerate(zip(plan.low, plan.high, strict=True)):
        if not low <= high:
            raise TrialError(f"trial.json: entry {i} of the envelope is empty: from {low} to {high}")
    count = len(plan.habit.entries)
    means, numbers = len(plan.habit.mean), len(plan.habit.whitening)
    if means != count or numbers not in range(count, count**2 + 1, count or 1):
        told = f"{count} means and a row of the whitening for each, at most {count} long"
        raise TrialError(f"trial.json: plan.habit: for {count} entries expected {told}; got {means} and {numbers} numbers")
    if plan.settle_ticks >= plan.window_ticks:
        raise TrialError(f"trial.json: {plan.settle_ticks} ticks to settle leave nothing of a window of {plan.window_ticks}")
    if plan.max_action_shift is not None and not plan.max_action_shift > 0.0:
        raise TrialError(f"trial.json: plan.max_action_shift: expected more than 0 or null, got {plan.max_action_shift}")
    if plan.max_shadow_shift is not None and not (plan.max_shadow_shift > 0.0 and plan.shadow_ticks):
        raise TrialError(f"trial.json: plan.max_shadow_shift: expected more than 0 with shadow_ticks, or null, got {plan.max_shadow_shift}")
    return plan


def trial_file(candidate: int, plan: TrialPlan) -> bytes:
    """`candidate`: the bundle's identity. A plan that could not be read back raises."""
    data = canonical_json({"candidate": f"{candidate:016x}", "plan": plan_table(plan)}).encode()
    read_trial(data)
    return data


def read_trial(data: bytes) -> tuple[int, TrialPlan]:
    """(identity of the bundle that is to be tried, how)."""
    try:
        table = json.loads(data.decode("ascii"))
        if set(table) != {"candidate", "plan"}:
            raise ValueError(f"expected candidate and plan, got {', '.join(sorted(map(str, table)))}")
        text = table["candidate"]
        if not (isinstance(text, str) and len(text) == 16 and set(text) <= set("0123456789abcdef")):
            raise ValueError(f"candidate: expected 16 hex digits, got {text!r}")
        return int(text, 16), read_plan(table["plan"])
    except TrialError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise TrialError(f"trial.json: not a trial: {error}") from None
