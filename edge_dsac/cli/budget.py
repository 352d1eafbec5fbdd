"""How long actors of different sizes take on this machine, as the engine that a robot would run.

The measure of a budget is the 99th percentile of one call, paced at 1 kHz, the engine alone on the machine: profile.measure's
condition `alone`, the call from Python included, as the loop pays it. It is the median over short turns, so that a burst of something
else costs the turns it fell into. Beside busy neighbours it is the operating system's answer and not the network's; `edge-dsac profile`
has it. Run it on the board itself, or one like it, with little else going on. Knows no learning. Rule that must stay true: all sizes
take turns.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from edge_dsac.bundle.actor import Actor
from edge_dsac.bundle.codegen import make_c
from edge_dsac.bundle.manifest import BundleError
from edge_dsac.bundle.native_engine import NativeActor
from edge_dsac.bundle.targets import TARGETS, best_target, compile_actor
from edge_dsac.cli.judging import calibrated_integer
from edge_dsac.loop.realtime import ask_for_realtime, release_realtime
from edge_dsac.profile.histogram import Histogram
from edge_dsac.profile.measure import FIRST_ACTS, timed
from edge_dsac.records import Float, Observation
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec

PERIOD_S, TURNS, CALLS = 0.001, 12, 200
LADDER = ((256, 256), (192, 192), (128, 128), (96, 96), (64, 64), (48, 48), (32, 32), (24, 24), (16, 16), (8, 8))


class BudgetError(BundleError):
    """No actor of this ladder is quick enough on this machine."""


@dataclass(frozen=True, slots=True)
class Ladder:
    teacher_us: float
    teacher_fits: bool
    least_us: float  # of all sizes
    fitting: tuple[tuple[int, ...], ...]  # the largest first


def native_here(actor: Actor, spec: RobotSpec, calibration: Float, precision: str) -> tuple[str, NativeActor]:
    """(its name, the engine) that `run` takes for a policy of this precision on this machine. float16 and float32 drive as float32."""
    target = best_target([one.file for one in TARGETS.values()])
    if target is None:
        raise BudgetError("nothing compiled runs on this machine: a budget can be measured only where the policy's own engines run")
    form = "int8" if precision == "int8" else "int16"
    library = compile_actor(make_c(actor, calibrated_integer(actor, spec, calibration, form)), target)
    engine = "integer" if precision in ("int8", "int16") else "float32"
    return f"native-{engine}", NativeActor(library, engine, actor.sizes, actor.identity)


def p99s_us(engines: Mapping[str, NativeActor], obs: Float, turns: int = TURNS, calls: int = CALLS) -> dict[str, dict[str, float]]:
    """Name -> p50, p99 (the median of the turns'), p999 and most in microseconds."""
    seen = [Observation(np.ascontiguousarray(row, np.float32), 0, True) for row in obs[:1000]]
    whole = {name: Histogram() for name in engines}
    p99s: dict[str, list[float]] = {name: [] for name in engines}
    for engine in engines.values():
        timed(engine, seen, FIRST_ACTS, 0.0)
    ask_for_realtime()  # as the loop does; where it is not granted, what else runs here is in the figures
    try:
        for _ in range(turns):
            for name, engine in engines.items():
                times = timed(engine, seen, calls, PERIOD_S)
                whole[name].add(times)
                p99s[name].append(float(np.quantile(times, 0.99)) / 1000.0)
    finally:
        release_realtime()
    return {name: {**whole[name].figures(), "p99_us": round(float(np.median(p99s[name])), 2)} for name in engines}


def measured_us(actors: Mapping[str, Actor], spec: RobotSpec, calibration: Float, precision: str) -> dict[str, dict[str, float]]:
    """In the same precision, in turns."""
    named = {name: native_here(actor, spec, calibration, precision) for name, actor in actors.items()}
    figures = p99s_us({name: engine for name, (_, engine) in named.items()}, calibration)
    return {name: {**figures[name], "engine": named[name][0]} for name in named}  # type: ignore[dict-item]


def sizes_within(
    teacher: Actor, spec: RobotSpec, budget_us: float, say: Callable[[str], None], time: Callable[..., dict[str, dict[str, float]]] = measured_us
) -> Ladder:  # fmt: skip
    """Made-up weights of every smaller size, and the teacher, in int8: whichever form the gate picks later is measured again."""
    clip = ObservationLayout(spec).clip
    obs = (np.random.default_rng(0).uniform(-0.3, 0.3, (1000, len(clip))) * clip).astype(np.float32)
    smaller = [widths for widths in LADDER if products((teacher.sizes[0], *widths, teacher.sizes[-1])) < products(teacher.sizes)]
    actors = {"teacher": teacher} | {"x".join(map(str, widths)): made_up(teacher, widths) for widths in smaller}
    found = {name: figures["p99_us"] for name, figures in time(actors, spec, obs, "int8").items()}
    for larger, name in itertools.pairwise(found):
        found[name] = min(found[name], found[larger])  # less work takes no longer: what a larger one was quick enough for holds for it
    say("           p99 on this machine: " + ", ".join(f"{name} {us:.1f} us" for name, us in found.items()))
    fitting = tuple(widths for widths in smaller if found["x".join(map(str, widths))] <= budget_us)
    least = min(found.values())
    if not fitting and found["teacher"] > budget_us:
        raise BudgetError(f"--budget-us {budget_us:g}: no size down to 8x8 is that quick here; the best had a p99 of {least:.1f} us")
    return Ladder(found["teacher"], found["teacher"] <= budget_us, least, fitting)


def products(sizes: tuple[int, ...]) -> int:
    return sum(a * b for a, b in zip(sizes, sizes[1:], strict=False))


def made_up(teacher: Actor, widths: tuple[int, ...]) -> Actor:
    """The time of a call depends on sizes alone."""
    generator = np.random.default_rng(1)
    sizes = (teacher.sizes[0], *widths, teacher.sizes[-1])
    layers = tuple(
        ((generator.normal(size=(b, a)) / np.sqrt(a)).astype(np.float32), np.zeros(b, np.float32))
        for a, b in zip(sizes, sizes[1:], strict=False)
    )
    return replace(teacher, layers=layers, identity=0)
