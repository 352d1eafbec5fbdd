"""Before anything moves: is a fine-tuned actor whole, is it still near its parent, and do the critics say that it is better?

Judges from parameters and recorded observations; knows no bundle, no log and no clock. It is a veto, not a proof: the child was made by
climbing these very critics, so they will like it, and where they are wrong both are. What it finds is the broken
candidate: a wrong sign, stale or exploded weights, numbers that are none. The proof is the trial (sequential.py). Rule that must stay
true: what was not measured, or not on enough, does not pass.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_dsac.bundle.guide import Guide
from edge_dsac.learn.losses import Objective
from edge_dsac.learn.networks import Params, action_distribution, value_distribution
from edge_dsac.records import Float

SATURATED = 0.99  # of |action|
RESAMPLES = 2000
CORNERS = 256  # drawn by a fixed seed; all of them are 2 to the power of the observation's size
LEAST_SIGMA = 0.01  # of the mean sigma: a return that is known to nothing better would count for everything
ROWS = 4096  # at a time, for the memory of a small board


class EvidenceError(ValueError):
    """Arrays or networks that do not belong together."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of actions in [-1, 1], so the whole range is 2. A parent that shakes on the real robot drives from end to end, and a child that has
    learnt to be calm differs from it by .6 on average and 1.3 in the 99th percentile (one session in simulation); with its sign turned
    round that parent would differ from itself by 1.4. A calm parent's turned sign is small: that one the critics see."""

    shift_mean: float = 0.9
    """mean change of an action over the observations"""
    shift_p99: float = 1.8
    """its 99th percentile"""
    shift_most: float = 2.0
    """its largest"""
    saturated_more: float = 0.2
    """share of observations with an action beyond .99, over the parent's share: more is a switch, no controller"""
    confidence: float = 0.95
    """of the critics' advantage, one-sided"""
    least_observations: int = 200
    least_blocks: int = 5
    """stretches of time; observations within one are nearly the same one"""


@dataclass(frozen=True, slots=True)
class Shift:
    """How far the child's actions are from the parent's, one entry per action."""

    mean: tuple[float, ...]
    p99: tuple[float, ...]
    most: tuple[float, ...]
    saturated_parent: tuple[float, ...]  # share of observations
    saturated_child: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Gain:
    """What the critics say of child against parent: of each observation the smaller of the two advantages, in that critic's sigmas."""

    mean: float
    low: float  # lower confidence bound of that mean; minus infinity where none can be given
    of_q: float  # its mean before it is divided by sigma, in units of the scaled return
    improved: float  # share of observations with an advantage above 0
    agreed: float  # share of observations in which both critics say better, or both say worse
    sigma: float  # mean, at the parent's actions


@dataclass(frozen=True, slots=True)
class Evidence:
    passed: bool
    reasons: tuple[str, ...]  # every one against it
    observations: int
    blocks: int
    not_finite: tuple[str, ...]  # where
    shift: Shift | None  # None: not measured, because something is not finite or there are no observations
    gain: Gain | None

    def as_json(self) -> dict[str, Any]:
        """JSON has no infinity: what cannot be given is null."""
        table = asdict(self)
        if self.gain is not None and not np.isfinite(self.gain.low):
            table["gain"]["low"] = None
        return table


@dataclass(frozen=True, slots=True)
class Advantage:
    """Of the child over the parent, by both critics."""

    worse: Float  # [n] the smaller of the two, in sigmas
    of_q: Float  # [n] the smaller of the two
    agreed: NDArray[np.bool_]  # [n]
    sigma: float


def time_blocks(t_ns: NDArray[np.integer[Any]], block_s: float = 2.0) -> NDArray[np.int64]:
    """Which stretch of time each observation belongs to. A balancing robot has forgotten what it did 2 s ago."""
    return np.asarray(t_ns, np.int64) // round(block_s * 1e9)


def judge_offline(
    parent: Params, child: Params, critics: Params, objective: Objective, observations: Float, blocks: NDArray[Any], clip: Float,
    limits: Limits = Limits(), seed: int = 0, guides: tuple[Guide | None, Guide | None] = (None, None),
) -> Evidence:  # fmt: skip
    """`observations[n, obs]`: float32, scaled as networks see them, real, and held out from the child's learning. `blocks[n]`: the stretch
    of time of each. `clip[obs]`: the largest magnitude of each scaled entry. `critics`: the twins, whole, as they are after the learning.
    `guides`: of parent and child; judged is the action that would drive, not the actor's alone. A guide takes what its critics like best,
    so what they say of it is even less of a proof; a gain that only one of the twins sees is none here either.
    """
    check_shapes(parent, child, observations, blocks, clip)
    count, stretches = len(observations), len(np.unique(blocks))
    seen = torch.as_tensor(np.ascontiguousarray(observations, np.float32))
    not_finite = where_not_finite(child, critics, objective, seen, clip, guides[1])
    if not_finite or not count:
        reasons = [f"NaN or infinity: {', '.join(not_finite)}"] if not_finite else ["too little data: no observations"]
        return Evidence(False, tuple(reasons), count, stretches, not_finite, None, None)
    before, after = (deployed(actor, guide, objective, seen) for actor, guide in zip((parent, child), guides, strict=True))
    shift = shift_between(before, after)
    found = advantage_of(critics, objective, seen, before, after)
    gain = Gain(
        float(found.worse.mean()), lower_bound(found.worse, blocks, limits.confidence, seed), float(found.of_q.mean()),
        float((found.worse > 0.0).mean()), float(found.agreed.mean()), found.sigma,
    )  # fmt: skip
    reasons = [*reasons_of_shift(shift, limits), *reasons_of_data(count, stretches, limits)]
    if not gain.low > 0.0:
        reasons.append(f"no gain by the critics: {gain.mean:.3g} sigma, but perhaps only {gain.low:.3g}; that must be above 0")
    return Evidence(not reasons, tuple(reasons), count, stretches, (), shift, gain)


def check_shapes(parent: Params, child: Params, observations: Float, blocks: NDArray[Any], clip: Float) -> None:
    for name, actor in (("parent", parent), ("child", child)):
        size = actor[0].shape[-1]
        if observations.ndim != 2 or observations.shape[1] != size or clip.shape != (size,):
            raise EvidenceError(f"the {name} sees {size} values; got observations {observations.shape} and clip {clip.shape}")
    if parent[-1].shape != child[-1].shape:
        raise EvidenceError(f"the parent has {parent[-1].shape[0] // 2} actions, the child {child[-1].shape[0] // 2}")
    if blocks.shape != (len(observations),):
        raise EvidenceError(f"{len(observations)} observations, but blocks {blocks.shape}; give each observation its stretch of time")
    if not np.isfinite(observations).all():
        raise EvidenceError("an observation is NaN or infinite; only steps whose observation is ok belong here")


# ---- 1: finite


def where_not_finite(
    child: Params, critics: Params, objective: Objective, seen: Tensor, clip: Float, guide: Guide | None = None
) -> tuple[str, ...]:
    found = [name for name, params in (("the child's weights", child), ("the critics' weights", critics)) if not all_finite(params)]
    if found:
        return tuple(found)  # whatever they answer is no news
    places = (
        ("on the observations", seen),
        ("at the corners of the clip range", corners(clip)),
        ("at zero", seen.new_zeros((1, len(clip)))),
    )
    for where, obs in places:
        with torch.no_grad():
            for part in obs.split(ROWS):
                if not all_finite(action_distribution(child, part, objective.activation, objective.log_std_range)):
                    found.append(f"the child {where}")
                    break
                if guide is not None and not np.isfinite(values_at(guide, part, actions_of(child, objective, part))).all():
                    found.append(f"the child's guide {where}")
                    break
    return tuple(found)


def all_finite(tensors: tuple[Tensor, ...]) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def corners(clip: Float) -> Tensor:
    """Both ends of everything at once, of each entry alone, and of all in signs drawn by a fixed seed."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (CORNERS, len(clip)))
    ones = np.eye(len(clip))
    return torch.as_tensor(
        (np.concatenate([np.ones((1, len(clip))), -np.ones((1, len(clip))), ones, -ones, signs]) * clip).astype(np.float32)
    )


# ---- 2: not too far


def actions_of(actor: Params, objective: Objective, seen: Tensor) -> Float:
    """`[n, act]` in [-1, 1], without noise: what is deployed."""
    with torch.no_grad():
        parts = [
            torch.tanh(action_distribution(actor, part, objective.activation, objective.log_std_range)[0]) for part in seen.split(ROWS)
        ]
    return np.asarray(torch.cat(parts).numpy())


def deployed(actor: Params, guide: Guide | None, objective: Objective, seen: Tensor) -> Float:
    """What drives."""
    own = actions_of(actor, objective, seen)
    if guide is None:
        return own
    size = ROWS // len(guide.offsets)  # a row is as many rows as there are candidates
    chosen = [guide.choose(seen[at : at + size].numpy(), own[at : at + size]) for at in range(0, len(own), size)]
    return np.concatenate(chosen).astype(np.float32)


def values_at(guide: Guide, seen: Tensor, own: Float) -> Float:
    with np.errstate(invalid="ignore", over="ignore"):  # that is what is looked for
        return guide.values(seen.numpy(), guide.candidates(own))


def shift_between(before: Float, after: Float) -> Shift:
    moved = np.abs(after - before).astype(np.float64)
    figures = (moved.mean(axis=0), np.percentile(moved, 99, axis=0), moved.max(axis=0))
    return Shift(*(tuple(values.tolist()) for values in (*figures, saturated(before), saturated(after))))


def saturated(actions: Float) -> Float:
    return np.asarray(np.mean(np.abs(actions) > SATURATED, axis=0))


def reasons_of_shift(shift: Shift, limits: Limits) -> list[str]:
    reasons = []
    for word, values, most in (
        ("on average", shift.mean, limits.shift_mean), ("in the 99th percentile", shift.p99, limits.shift_p99),
        ("at most", shift.most, limits.shift_most),
    ):  # fmt: skip
        if not max(values) <= most:
            reasons.append(f"an action moves by {max(values):.3g} {word} (limit {most:g} of 2)")
    for i, (parent, child) in enumerate(zip(shift.saturated_parent, shift.saturated_child, strict=True)):
        if not child <= parent + limits.saturated_more:
            reasons.append(f"action {i} is saturated in {child:.0%} of the observations, the parent's in {parent:.0%}")
    return reasons


def reasons_of_data(count: int, stretches: int, limits: Limits) -> list[str]:
    if count >= limits.least_observations and stretches >= limits.least_blocks:
        return []
    return [f"too little data: {count} observations in {stretches} blocks; {limits.least_observations} in {limits.least_blocks} are needed"]


# ---- 3: better, say the critics


def advantage_of(critics: Params, objective: Objective, seen: Tensor, before: Float, after: Float) -> Advantage:
    at_parent, sigma = values_of(critics, objective, seen, before)
    at_child, _ = values_of(critics, objective, seen, after)
    gain = at_child - at_parent
    if objective.critic_loss == "mse":  # sigma was never trained: the spread of the values themselves stands for it
        sigma = np.broadcast_to(at_parent.std(axis=1, keepdims=True), gain.shape)
    known = np.maximum(sigma, max(LEAST_SIGMA * float(sigma.mean()), 1e-12))
    signs = np.sign(gain)
    return Advantage((gain / known).min(axis=0), gain.min(axis=0), (signs == signs[0]).all(axis=0), float(sigma.mean()))


def values_of(critics: Params, objective: Objective, seen: Tensor, actions: Float) -> tuple[Float, Float]:
    """Mean and sigma of the return, `[critics, n]` float64; a single critic where the other is not trained."""
    found = []
    with torch.no_grad():
        for obs, act in zip(seen.split(ROWS), torch.as_tensor(actions).split(ROWS), strict=True):
            found.append(torch.stack(value_distribution(critics, obs, act, objective.activation, objective.critic_layer_norm)))
    whole = torch.cat(found, dim=-1).numpy().astype(np.float64)
    used = 2 if objective.twin_value_distributions else 1
    return whole[0, :used], whole[1, :used]


def lower_bound(values: Float, blocks: NDArray[Any], confidence: float, seed: int) -> float:
    """Of the mean, by resampling whole blocks; minus infinity with fewer than two."""
    _, where = np.unique(blocks, return_inverse=True)
    sizes, totals = np.bincount(where).astype(np.float64), np.bincount(where, values)
    n = len(sizes)
    if n < 2:
        return float("-inf")
    picked = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
    means = totals[picked].sum(axis=1) / sizes[picked].sum(axis=1)
    centre = float(values.mean())
    # Resampling n blocks shows a spread that is too small by sqrt((n - 1) / n): a tenth with five.
    return centre - (centre - float(np.quantile(means, 1.0 - confidence))) * float(np.sqrt(n / (n - 1)))
