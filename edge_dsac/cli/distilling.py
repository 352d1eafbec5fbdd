"""`compile --size` and `--budget-us`: a smaller actor instead of the run's own, judged beside the one it was distilled from.

Brings learn/distill.py, simulation, gate and stopwatch together. Rule that must stay true: the student is judged by the gate like
any actor, and besides flies the very episodes its teacher flies; one that loses too much of the return is not written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from calibration.activations import CalibrationSet
from edge_dsac.bundle.actor import Actor
from edge_dsac.bundle.gate import Comparison, chance_of_falls
from edge_dsac.bundle.manifest import BundleError, Precision
from edge_dsac.cli.budget import BudgetError, Ladder, measured_us, sizes_within
from edge_dsac.cli.judging import Judgement, JudgingOptions, compared, judge_actor
from edge_dsac.learn.distill import Distilled, Distilling, Round, distill
from edge_dsac.spec.robot import RobotSpec
from sim.recording import record_observations

LOSS = 0.05  # share of the teacher's return that the interval's lower end may lie below it
DRIVEN_ROBOTS, DRIVEN_S = 16, 6.0  # of each round of distilling: 9600 rows at 100 Hz
SMALLEST, WIDEST = 4, 1024  # of a layer


@dataclass(frozen=True, slots=True)
class Sized:
    widths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Within:
    budget_us: float


Wish = Sized | Within


class LossError(BundleError):
    """A student that gave up more of its teacher's return than it may."""


@dataclass(frozen=True, slots=True)
class Judged:
    """An actor that may be compiled."""

    actor: Actor
    file: bytes
    judgement: Judgement
    precision: Precision
    words: dict[str, Any] | None  # for the manifest and the report; None: it is the run's own


def widths_of(text: str) -> tuple[int, ...]:
    """`32x32`."""
    if not re.fullmatch(r"\d+(x\d+)*", text):
        raise BundleError(f"--size {text}: expected the widths of the hidden layers, as 32x32")
    widths = tuple(int(part) for part in text.split("x"))
    if not all(SMALLEST <= width <= WIDEST for width in widths):
        raise BundleError(f"--size {text}: a layer has {SMALLEST} to {WIDEST} units")
    return widths


@dataclass(frozen=True, slots=True)
class Distillery:
    """Everything that stays the same from one size to the next."""

    teacher: Actor
    spec: RobotSpec
    judging: JudgingOptions
    recorded: CalibrationSet | None
    decide: Callable[[Judgement], Precision]
    accept_loss: float | None
    say: Callable[[str], None]
    distilling: Distilling = Distilling()
    driven_robots: int = DRIVEN_ROBOTS
    driven_s: float = DRIVEN_S

    def student(self, widths: tuple[int, ...]) -> Distilled:
        threads = len(os.sched_getaffinity(0))
        simulate = partial(record_driven, self.spec, self.driven_s, self.driven_robots, self.judging.randomization, threads)
        return distill(self.teacher, self.spec, widths, simulate, self.distilling, self.tell)

    def tell(self, done: Round) -> None:
        driver = "the teacher drove" if done.number == 0 else f"off by {done.fresh:.4f} of an action where it drove itself"
        self.say(f"           round {done.number}: {done.rows} rows, {driver}; {done.error:.4f} held out after {done.steps} steps")

    def judged(self, student: Distilled) -> Judged:
        """Refuses what lost too much."""
        judgement = judge_actor(student.actor, self.spec, self.judging, self.recorded, beside={"teacher": self.teacher.act})
        precision = self.decide(judgement)
        beside = compared(judgement.flown["teacher"], judgement.flown["float32"], self.judging)
        refuse_loss(beside, self.accept_loss, self.judging.limits.confidence)
        actors = {"student": student.actor, "teacher": self.teacher}
        times = measured_us(actors, self.spec, judgement.observations.calibration, precision.chosen)
        words = words_of(self.teacher, student, beside, self.accept_loss, times)
        return Judged(student.actor, student.file, judgement, precision, words)


def record_driven(spec: RobotSpec, seconds: float, robots: int, randomization: str, threads: int, policy: Any, seed: int) -> Any:
    """What leads to a fall is kept: it is just where the student has to be told what to do."""
    return record_observations(spec, policy, seconds, robots, seed, randomization, lost_s=0.0, threads=threads)


def refuse_loss(beside: Comparison, accepted: float | None, confidence: float) -> None:
    share, lost = LOSS if accepted is None else accepted, -beside.interval[0] / max(abs(beside.float_return), 1e-9)
    reasons = []
    if not lost <= share:
        reasons.append(
            f"it may lose {max(lost, 0.0):.1%} of the teacher's return of {beside.float_return:.4g} "
            f"(difference {beside.return_difference:.3g}, interval {beside.interval[0]:.3g} to {beside.interval[1]:.3g}); {share:.1%} is accepted"
        )
    fell, alone = beside.only_candidate_fell, beside.only_float_fell
    if accepted is None and chance_of_falls(fell, alone) < 1.0 - confidence:
        reasons.append(f"it falls in {fell} episodes in which the teacher does not, the reverse in {alone}")
    if reasons:
        raise LossError(f"the distilled actor is refused: {'; '.join(reasons)}; take a larger one, or say --accept-loss SHARE")


def words_of(teacher: Actor, student: Distilled, beside: Comparison, accepted: float | None, times: dict[str, dict[str, float]]) -> Any:
    """Every number in the report and the manifest; `return_lost` is positive where the student is worse."""
    return {
        "from": f"{teacher.identity:016x}", "from_sizes": list(teacher.sizes), "sizes": list(student.actor.sizes),
        "rounds": [asdict(done) for done in student.rounds], "rows": student.rows, "error": {"mean": student.error, "p99": student.p99},
        "return": {"teacher": beside.float_return, "student": beside.return_mean, "episodes": beside.episodes},
        "return_lost": {"mean": -beside.return_difference, "low": -beside.interval[1], "high": -beside.interval[0]},
        "survival": {"teacher": 1.0 - beside.float_fall_rate, "student": 1.0 - beside.fall_rate},
        "falls": {"only_student": beside.only_candidate_fell, "only_teacher": beside.only_float_fell},
        "accepted_loss": LOSS if accepted is None else accepted, "measured_us": times,
    }  # fmt: skip


def lines_of(words: dict[str, Any] | None) -> list[str]:
    if words is None:
        return []
    lost, error, survival, us = words["return_lost"], words["error"], words["survival"], words["measured_us"]
    teacher = words["return"]["teacher"]
    share = lost["mean"] / max(abs(teacher), 1e-9)
    return [
        f"distilled {shape(words['from_sizes'])} -> {shape(words['sizes'])}: off by {error['mean']:.4f} of an action (99 %: {error['p99']:.3f})",
        f"return lost {lost['mean']:.3g} of {teacher:.4g} ({share:.1%}; 95 %: {lost['low']:.3g} to {lost['high']:.3g}), "
        f"survival {survival['student']:.0%} / {survival['teacher']:.0%}",
        f"p99 {us['student']['p99_us']:.1f} us / {us['teacher']['p99_us']:.1f} us, {us['student']['engine']}, paced at 1 kHz, alone on this machine",
    ]


def shape(sizes: list[int]) -> str:
    return "-".join(map(str, sizes))


def smaller(distillery: Distillery, wish: Wish) -> Judged | None:
    """None: the teacher is within the budget as it is."""
    if isinstance(wish, Sized):
        return distillery.judged(distillery.student(wish.widths))
    return within_budget(distillery, wish.budget_us)


def within_budget(distillery: Distillery, budget_us: float, find: Callable[..., Ladder] = sizes_within) -> Judged | None:
    """The largest size that is quick enough before anything was learnt (weights do not change the time) is distilled; if the form that
    the gate then picks is slower than that one was, the next smaller one."""
    teacher, spec, say = distillery.teacher, distillery.spec, distillery.say
    ladder = find(teacher, spec, budget_us, say)
    if ladder.teacher_fits:
        say(f"           the actor itself takes {ladder.teacher_us:.1f} us (p99): nothing is distilled")
        return None
    best = ladder.least_us
    for widths in ladder.fitting:
        found = distillery.judged(distillery.student(widths))
        assert found.words is not None  # of a student there always are some
        p99_us = found.words["measured_us"]["student"]["p99_us"]
        found.words["budget_us"] = budget_us
        if p99_us <= budget_us:
            return found
        say(
            f"           {'x'.join(map(str, widths))} as {found.precision.chosen} takes {p99_us:.1f} us (p99) of {budget_us:g}: a smaller one"
        )
        best = min(best, p99_us)
    raise BudgetError(f"--budget-us {budget_us:g}: no size down to 8x8 is that quick here; the best had a p99 of {best:.1f} us")
