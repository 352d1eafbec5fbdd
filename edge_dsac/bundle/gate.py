"""Which precision may drive: measured errors against limits, the smallest first, and why each larger one was needed.

Decides from arrays and numbers; runs no actor and no simulation (cli/judging.py does). Rule that must stay true: a candidate that was not
measured, or not on enough, is refused; float32 is what everything is measured against, and the last to fall back to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_dsac.records import Float

PREFERENCE = ("int8", "int16", "float16")  # the fastest first; a name like "int8 onnx" is judged by int8's limits and never chosen
RESAMPLES = 2000


class GateError(ValueError):
    """A measurement that cannot be made: arrays that do not belong together."""


@dataclass(frozen=True, slots=True)
class ErrorLimits:
    """Of one action in [-1, 1]: absolute difference from float32 over recorded observations."""

    mean: float
    p99: float
    most: float


@dataclass(frozen=True, slots=True)
class Limits:
    # Healthy int8 actors were measured at .02, .10 and .20; what clipping or a first layer in int8 spoils lies at 1.8 and more.
    int8: ErrorLimits = ErrorLimits(0.02, 0.10, 0.20)
    # Whole numbers with 16-bit hidden values: five times what healthy ones showed; more means a range was outrun.
    int16: ErrorLimits = ErrorLimits(0.002, 0.01, 0.05)
    # Five times the .0002 of a healthy float16 actor: more means an overflow or a subnormal weight, not rounding.
    float16: ErrorLimits = ErrorLimits(0.001, 0.005, 0.02)
    # Of the action's change per tick in closed loop, over float32's. Healthy int8 gave +0 to +13 %; motors heat, returns do not see it.
    jitter: float = 1.15
    # Return is blunt (4-bit weights showed no drop), so it is only a veto: the whole interval must not lie below this share of float's.
    return_drop: float = 0.01
    confidence: float = 0.95  # of that interval, and of the test of falls
    least_observations: int = 1000  # a 99th percentile of fewer is a maximum
    least_episodes: int = 16  # of a bootstrap with fewer the interval is too narrow


@dataclass(frozen=True, slots=True)
class Errors:
    """One entry per action; the SI ones per joint. Range: from the lowest to the highest action or command there can be."""

    observations: int
    not_finite: int
    mean: list[float]
    p99: list[float]
    most: list[float]
    percent_of_range: list[float]  # the 99th percentile
    snr_db: list[float]  # not judged: it is small for an action that hardly moves, where no error matters
    si_mean: list[float]
    si_p99: list[float]
    si_most: list[float]
    si_percent_of_range: list[float]


@dataclass(frozen=True, slots=True)
class Flight:
    """One episode of each of n robots under one precision."""

    actions: Float  # [ticks, n, actions]
    alive: NDArray[Any]  # [ticks, n] bool
    returns: Float  # [n]
    failed: NDArray[Any]  # [n] bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate's flight beside float32's, the same episodes."""

    episodes: int
    jitter: list[float]  # rms of an action's change per tick
    jitter_ratio: list[float]  # over float32's
    return_mean: float
    return_difference: float  # candidate minus float32, per episode
    interval: tuple[float, float]  # of that mean, by bootstrap
    float_return: float
    fall_rate: float
    float_fall_rate: float
    only_candidate_fell: int
    only_float_fell: int


@dataclass(frozen=True, slots=True)
class Measured:
    errors: Errors
    comparison: Comparison | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    chosen: str
    because: str
    refused: dict[str, list[str]]  # name -> every reason; an accepted one is not in it
    accepted: list[str]
    figures: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


# ---- measuring


def measure(reference: Float, candidate: Float, to_command: Float) -> Errors:
    """`[observations, actions]` each. What is no number counts as off by the whole range, so that every figure is one."""
    reference, candidate = np.asarray(reference, np.float64), np.asarray(candidate, np.float64)
    if reference.ndim != 2 or reference.shape != candidate.shape or reference.shape[1] != to_command.shape[0]:
        raise GateError(f"expected two arrays [observations, {to_command.shape[0]}], got {reference.shape} and {candidate.shape}")
    if not np.isfinite(reference).all():
        raise GateError("the float32 actor itself answers NaN or infinity; there is nothing to compare with")
    good = np.isfinite(candidate)
    difference = np.where(good, np.where(good, candidate, 0.0) - reference, 2.0)
    off, si = np.abs(difference), np.abs(difference @ to_command)
    p99, si_p99 = np.percentile(off, 99, axis=0), np.percentile(si, 99, axis=0)
    noise = np.maximum((difference**2).mean(axis=0), 1e-30)
    snr_db = 10.0 * np.log10(np.maximum((reference**2).mean(axis=0), 1e-30) / noise)
    span = 2.0 * np.abs(to_command).sum(axis=0)
    columns = (
        off.mean(axis=0), p99, off.max(axis=0), 50.0 * p99, snr_db,
        si.mean(axis=0), si_p99, si.max(axis=0), 100.0 * si_p99 / np.maximum(span, 1e-30),
    )  # fmt: skip
    return Errors(len(good), int((~good).any(axis=1).sum()), *(column.tolist() for column in columns))


def jitter(flight: Flight) -> Float:
    """[actions]: rms change from one tick to the next, over all ticks that a robot lived through."""
    both = (flight.alive[1:] & flight.alive[:-1])[..., None]
    change = np.where(both, np.diff(np.nan_to_num(flight.actions), axis=0), 0.0)
    return np.asarray(np.sqrt((change**2).sum(axis=(0, 1)) / max(1, int(both.sum()))))


def compare(reference: Flight, candidate: Flight, seed: int, confidence: float = 0.95) -> Comparison:
    if reference.returns.shape != candidate.returns.shape or reference.actions.shape != candidate.actions.shape:
        raise GateError(f"flights of {reference.actions.shape} and {candidate.actions.shape}: not the same episodes")
    shaken, calm = jitter(candidate), jitter(reference)
    difference = candidate.returns - reference.returns
    return Comparison(
        len(difference), shaken.tolist(), (shaken / np.maximum(calm, 1e-12)).tolist(),
        float(candidate.returns.mean()), float(difference.mean()), interval(difference, seed, confidence), float(reference.returns.mean()),
        float(candidate.failed.mean()), float(reference.failed.mean()),
        int((candidate.failed & ~reference.failed).sum()), int((reference.failed & ~candidate.failed).sum()),
    )  # fmt: skip


def interval(difference: Float, seed: int, confidence: float) -> tuple[float, float]:
    """Of the mean, by resampling whole episodes."""
    picked = np.random.default_rng(seed).integers(0, len(difference), (RESAMPLES, len(difference)))
    means = difference[picked].mean(axis=1)
    low, high = np.quantile(means, [0.5 * (1.0 - confidence), 0.5 * (1.0 + confidence)])
    return float(low), float(high)


# ---- judging


def judge(measured: Mapping[str, Measured], limits: Limits = Limits()) -> Verdict:
    refused = {name: reasons for name, found in measured.items() if (reasons := reasons_against(name, found, limits))}
    refused |= {name: ["was not measured"] for name in PREFERENCE if name not in measured}
    chosen = next((name for name in PREFERENCE if name not in refused), "float32")
    passed_over = [name for name in (*PREFERENCE, "float32") if name in refused]
    because = "; ".join(f"{name} refused: {', '.join(refused[name])}" for name in passed_over[: (*PREFERENCE, "float32").index(chosen)])
    figures = {"limits": asdict(limits), "measured": {name: asdict(found) for name, found in measured.items()}}
    accepted = [name for name in measured if name not in refused]
    return Verdict(chosen, because or f"{chosen} keeps every limit", refused, accepted, figures)


def reasons_against(name: str, found: Measured, limits: Limits) -> list[str]:
    precision = name.split()[0]
    if precision not in PREFERENCE:
        raise GateError(f"{name!r} has no limits; known are {', '.join(PREFERENCE)}")
    allowed: ErrorLimits = getattr(limits, precision)
    errors, reasons = found.errors, []
    if errors.not_finite:
        reasons.append(f"answers NaN or infinity on {errors.not_finite} of {errors.observations} observations")
    if errors.observations < limits.least_observations:
        reasons.append(f"measured on {errors.observations} observations, {limits.least_observations} are needed")
    for word, values, most in (
        ("mean error", errors.mean, allowed.mean), ("99th percentile", errors.p99, allowed.p99),
        ("largest error", errors.most, allowed.most),
    ):  # fmt: skip
        if not max(values) <= most:
            reasons.append(f"{word} {max(values):.3g} of an action (limit {most:g})")
    if found.comparison is None:
        return [*reasons, "was not flown"]
    return reasons + reasons_of_flight(found.comparison, limits)


def reasons_of_flight(flown: Comparison, limits: Limits) -> list[str]:
    reasons = []
    if flown.episodes < limits.least_episodes:
        reasons.append(f"flown in {flown.episodes} episodes, {limits.least_episodes} are needed")
    if not max(flown.jitter_ratio) <= limits.jitter:
        reasons.append(f"jitter {max(flown.jitter_ratio):.2f} of float32's (limit {limits.jitter:g})")
    if not flown.interval[1] >= -limits.return_drop * abs(flown.float_return):
        low, high = flown.interval
        reasons.append(f"return falls by {-flown.return_difference:.3g} of {flown.float_return:.4g} (interval {low:.3g} to {high:.3g})")
    chance = chance_of_falls(flown.only_candidate_fell, flown.only_float_fell)
    if chance < 1.0 - limits.confidence:
        reasons.append(f"falls in {flown.only_candidate_fell} episodes in which float32 does not, the reverse in {flown.only_float_fell}")
    return reasons


def chance_of_falls(candidate: int, reference: int) -> float:
    """That so many or more of the episodes in which only one of two fell are the candidate's, were both as good (McNemar, exact)."""
    total = candidate + reference
    return sum(comb(total, k) for k in range(candidate, total + 1)) / 2.0**total
