"""Is the new policy better? A verdict on paired windows that may be asked for after every pair, and acted on at once.

The test is a sequential t-test: an e-process for "no better" and one for "no worse", with a right-Haar prior on the spread and a
half-normal one on the effect, so that the units of reward do not matter. One wrong acceptance in 1 / alpha trials holds at any stop
if differences are normal; that it also holds where neighbouring pairs are correlated by .3, or where a candidate is mostly a bit better
and now and then much worse, is what SPREAD and EFFECT are for (simulated; the tests repeat it). Knows windows; knows no log, no
clock and no torch. Rule that must stay true: nothing but a verdict of "better" lets a candidate become current, and a fall forbids it.

Rejected in its favour: betting on bounded differences holds for any shape, but reward's range is so much wider than a difference that
an effect of one deviation took 26 pairs and one of a half was never found; the sign test was fooled by rare large losses (26 %).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_dsac.learn.windows import Pair, Window, pairs
from edge_dsac.records import Float

Decision = Literal["better", "worse", "no evidence", "undecided"]
# Variance of the prior on the effect, in deviations. A wider one decides large effects in 5 pairs, not 8, and is fooled twice as often.
EFFECT = 0.25
SPREAD = 1.3 / 0.7  # the variance of a mean of values that are correlated by .3, over that of independent ones
FLOOR = 1e-6  # of reward per tick: differences this near to each other are the same


@dataclass(frozen=True, slots=True)
class Demands:
    """What a candidate must show."""

    alpha: float = 0.05
    """share of trials in which a candidate that is no better may be accepted, and in which either end of the interval may be wrong"""
    least_pairs: int = 3
    """no verdict on the reward before; a fall needs no pair"""
    most_pairs: int = 16
    """more are not flown for one candidate: meanwhile the learner has got further than it"""
    foretell_from: int = 5
    """pairs after which a trial ends that, going on like this, would show no gain within `most_pairs`"""
    tolerance: float = 0.1
    """m/s and rad/s by which what was asked for in the two windows of a pair may differ"""
    limited_factor: float = 1.5
    """times the old one's share of ticks on which the limiter stepped in, ..."""
    limited_margin: float = 0.05
    """... and this much of all ticks on top: more, and the gain is the limiter's"""
    rate_factor: float = 1.5
    """times the old one's mean change of the action per tick, ..."""
    rate_margin: float = 0.02
    """... and this much on top: more, and the motors pay for the gain. A real gain moves actions, so not tighter"""
    interventions_more: int = 1
    """a person may have stepped in so much more often while the new one drove"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Rewards are means per tick. What is per policy is (old, new)."""

    decision: Decision
    reasons: tuple[str, ...]
    pairs: int
    rewards: tuple[float, float]
    gain: float
    interval: tuple[float, float]  # of the gain; holds at every stop at once, and has left zero wherever the reward has decided
    e_better: float  # evidence against "no better"
    e_worse: float
    falls: tuple[int, int]
    interventions: tuple[int, int]
    limited_share: tuple[float, float]
    action_rate: tuple[float, float]
    void: int
    unlike: int
    alone: int

    def as_json(self) -> dict[str, Any]:
        """Every number is one that JSON has: what is not known is null."""
        return {key: plain(value) for key, value in asdict(self).items()}


def plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---- the test


def student_cdf(t: Float, degrees: int) -> Float:
    """Of whole degrees of freedom, in closed form (Abramowitz and Stegun 26.7.3 and 26.7.4): a robot has no scipy."""
    angle = np.arctan(np.asarray(t, np.float64) / math.sqrt(degrees))
    sine, square = np.sin(angle), np.cos(angle) ** 2
    odd = degrees % 2 == 1
    term, total = np.ones_like(angle), np.zeros_like(angle)
    for k in range(degrees // 2):
        total = total + term
        term = term * square * ((2 * k + 2) / (2 * k + 3) if odd else (2 * k + 1) / (2 * k + 2))
    inside = 2.0 / math.pi * (angle + sine * np.cos(angle) * total) if odd else sine * total
    return np.asarray(0.5 + 0.5 * inside)


def e_values(gains: Float) -> tuple[Float, Float]:
    """(for better, for worse) of `gains[..., pairs]`: how much better than "no effect" an effect of that sign foretold them."""
    gains = np.asarray(gains, np.float64)
    n = gains.shape[-1]
    if n == 0:
        return np.ones(gains.shape[:-1]), np.ones(gains.shape[:-1])
    mean = gains.mean(axis=-1)
    return evidence(n, mean, np.square(gains - mean[..., None]).sum(axis=-1))


def evidence(n: int, mean: Float, squares: Float) -> tuple[Float, Float]:
    """The same, of `n` gains with that mean and that sum of squares around it."""
    scatter = SPREAD * (squares + n * FLOOR**2)
    without = scatter + n * mean**2
    with_effect = scatter + mean**2 * n / (1.0 + n * EFFECT)
    either = np.exp(0.5 * n * np.log(without / with_effect) - 0.5 * math.log1p(n * EFFECT))
    shrunk = n * mean / (n + 1.0 / EFFECT)  # the posterior's mean; it has Student's form, with n degrees
    positive = student_cdf(shrunk / np.sqrt(with_effect / (n * (n + 1.0 / EFFECT))), n)
    better, worse = 2.0 * either * positive, 2.0 * either * (1.0 - positive)
    # Against the mean's own sign there is never evidence (the likelihood ratio of an effect rises with t, and is below 1 at 0), but there
    # is rounding, times the evidence for the other side: many pairs that are all much worse must not be called better.
    return np.where(mean > 0.0, better, np.minimum(better, 1.0)), np.where(mean < 0.0, worse, np.minimum(worse, 1.0))


def interval(gains: Float, alpha: float) -> tuple[float, float]:
    """Of the mean gain: every value against which the two-sided e-value is below 1 / alpha. Endless while there are too few pairs."""
    n = len(gains)
    grown = 1.0 + n * EFFECT
    most = (math.sqrt(grown) / alpha) ** (2.0 / n) if n else math.inf
    if most >= grown:
        return -math.inf, math.inf
    scatter = SPREAD * (np.square(gains - gains.mean()).sum() + n * FLOOR**2)
    half = math.sqrt((most - 1.0) / (1.0 - most / grown) * scatter / n)
    return float(gains.mean()) - half, float(gains.mean()) + half


def decide(gains: Float, demands: Demands) -> NDArray[np.str_]:
    """`gains[..., pairs]` -> better, worse or undecided, by the reward alone."""
    better, worse = e_values(gains)
    enough = gains.shape[-1] >= demands.least_pairs
    word = np.where(better >= 1.0 / demands.alpha, "better", np.where(worse >= 1.0 / demands.alpha, "worse", "undecided"))
    return np.where(enough, word, "undecided")


def is_hopeless(gains: Float, demands: Demands) -> bool:
    """Would even pairs as good as the best so far, or two deviations above the mean, be no gain? Eight pairs to prove it are not driven."""
    enough = len(gains) >= max(demands.least_pairs, 2)
    return bool(enough and max(gains.max(), gains.mean() + 2.0 * gains.std(ddof=1)) <= 0.0)


def takes_too_long(gains: Float, demands: Demands) -> bool:
    """If the pairs to come were like those so far, would none of the looks to come show a gain?"""
    n = len(gains)
    if n < demands.foretell_from:
        return False
    mean, square = gains.mean(), np.square(gains - gains.mean()).sum() / (n - 1)
    return all(evidence(total, mean, square * (total - 1))[0] < 1.0 / demands.alpha for total in range(n, demands.most_pairs + 1))


# ---- the verdict


def judge(windows: Sequence[Window], demands: Demands = Demands()) -> Verdict:
    """What the windows so far come to; to be asked after each pair, and believed at the first word other than undecided."""
    paired = pairs(windows, demands.tolerance)
    used = paired.pairs
    gains = np.array([pair.gain for pair in used])
    fallen = count(windows, lambda window, who: window.fell == who)
    stepped_in = count(windows, lambda window, who: window.interventions if window.who == who else 0)
    decision, reasons = verdict_on(gains, fallen, over_the_limits(used, stepped_in, demands), demands)
    better, worse = e_values(gains)
    return Verdict(
        decision, tuple(reasons), len(used), of_both(used, "reward"), float(gains.mean()) if len(used) else math.nan,
        interval(gains, 2.0 * demands.alpha), float(better), float(worse), fallen, stepped_in,
        of_both(used, "limited_share"), of_both(used, "action_rate"), paired.void, paired.unlike, paired.alone,
    )  # fmt: skip


def verdict_on(gains: Float, falls: tuple[int, int], vetoes: list[str], demands: Demands) -> tuple[Decision, list[str]]:
    """The worst news first."""
    n = len(gains)
    if falls[1]:
        return "worse", [f"the new policy fell {falls[1]} times, the old one {falls[0]}"]
    by_reward = str(decide(gains, demands))
    if by_reward == "worse":
        return "worse", [f"less reward in {n} pairs: {gains.mean():+.3g} per tick"]
    if by_reward == "better" and not vetoes:
        return "better", [f"more reward in {n} pairs: {gains.mean():+.3g} per tick"]
    refused = [f"not accepted: {veto}" for veto in vetoes]
    if n >= demands.most_pairs:
        return "no evidence", refused or [f"{n} pairs flown, and no difference to be seen"]
    so_far = f"after {n} pairs {gains.mean():+.3g} per tick" if n else ""
    if by_reward != "better" and is_hopeless(gains, demands):
        return "no evidence", [*refused, f"{so_far}: no gain to hope for"]
    if by_reward != "better" and takes_too_long(gains, demands):
        return "no evidence", [*refused, f"{so_far}: more than {demands.most_pairs} would be needed to show a gain"]
    return "undecided", refused


def over_the_limits(used: Sequence[Pair], stepped_in: tuple[int, int], demands: Demands) -> list[str]:
    """What speaks against a candidate whatever it earns."""
    vetoes = []
    for name, words, factor, margin in (
        ("limited_share", "share of ticks on which the limiter stepped in", demands.limited_factor, demands.limited_margin),
        ("action_rate", "change of the action per tick", demands.rate_factor, demands.rate_margin),
    ):
        old, new = of_both(used, name)
        if used and not new <= factor * old + margin:
            vetoes.append(f"{words} {new:.3g}, the old one's {old:.3g} (at most {factor:g} times that and {margin:g})")
    if stepped_in[1] > stepped_in[0] + demands.interventions_more:
        vetoes.append(f"a person stepped in {stepped_in[1]} times while the new one drove, {stepped_in[0]} while the old one did")
    return vetoes


def of_both(used: Sequence[Pair], name: str) -> tuple[float, float]:
    if not used:
        return math.nan, math.nan
    return float(np.mean([getattr(pair.old, name) for pair in used])), float(np.mean([getattr(pair.new, name) for pair in used]))


def count(windows: Sequence[Window], of: Any) -> tuple[int, int]:
    """(old, new), over all windows, void ones too."""
    return sum(int(of(window, "old")) for window in windows), sum(int(of(window, "new")) for window in windows)
