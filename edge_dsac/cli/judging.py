"""Brings actor, simulation and gate together: every precision on the same observations and in the same episodes.

Called by `edge-dsac compile`, on a desktop. A larger precision is flown only once all smaller ones are refused, or when it is asked
for: flights are nearly all of the time. Rule that must stay true: nothing is judged on what its ranges were taken from, neither
the observations (held out) nor the episodes (another seed). Flights run side by side, one thread each: MuJoCo lets go of the
interpreter, and each flight has its own robots and random numbers, so that the order they end in changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calibration.activations import CalibrationSet, Provenance, coverage, make_set, warnings, widened
from edge_dsac.bundle.actor import Actor
from edge_dsac.bundle.export import make_onnx
from edge_dsac.bundle.gate import PREFERENCE, Comparison, Flight, Limits, Measured, Verdict, compare, judge, measure
from edge_dsac.bundle.half import act_float16
from edge_dsac.bundle.integer import IntegerActor, make_integer
from edge_dsac.bundle.ort_engine import OrtEngine
from edge_dsac.bundle.quantize import make_int8_onnx
from edge_dsac.records import Float, Observation
from edge_dsac.spec.layout import ActionLayout, ObservationLayout
from edge_dsac.spec.robot import RobotSpec
from edge_dsac.watch.compiled import CompiledPicture, draw_compiled, make_report
from sim.env import EpisodeOptions
from sim.recording import Episodes, Policy, fly, record_observations

NOBODY: Mapping[str, Policy] = {}
NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class JudgingOptions:
    recorded_robots: int = 32  # each with its own masses, delays, biases
    recorded_s: float = 6.0  # of each of them; 19200 rows at 100 Hz, of which 7700 are held out
    episodes: int = 32  # flown by each precision
    episode_s: float = 6.0  # two changes of the target
    randomization: str = "full"  # of both
    seed: int = 20_000  # far from the trainer's and the exam's
    asked: str = "auto"  # a precision that is flown whatever the smaller ones do
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Judgement:
    verdict: Verdict
    observations: CalibrationSet
    warnings: list[str]
    picture: CompiledPicture
    flown: Mapping[str, Episodes]  # by float32, each candidate, and whoever flew beside them: all the same episodes


def record_set(actor: Actor, spec: RobotSpec, options: JudgingOptions) -> CalibrationSet:
    obs = record_observations(spec, actor.act, options.recorded_s, options.recorded_robots, options.seed, options.randomization)
    provenance = Provenance(
        spec.model, spec.policy_fingerprint, f"{actor.identity:016x}", "simulation", (options.seed,), options.randomization,
        options.recorded_s, options.recorded_robots,
    )  # fmt: skip
    return make_set(obs, spec, provenance, options.seed)


def candidates(actor: Actor, spec: RobotSpec, calibration: Float) -> dict[str, Policy]:
    return {
        "int8": calibrated_integer(actor, spec, calibration).act,
        "int16": calibrated_integer(actor, spec, calibration, "int16").act,
        "float16": lambda obs: act_float16(actor, obs),
        "int8 onnx": by_rows(OrtEngine(calibrated_onnx(actor, spec, calibration), spec, actor.identity)),
    }


def calibrated_integer(actor: Actor, spec: RobotSpec, calibration: Float, form: str = "int8") -> IntegerActor:
    """What is judged as int8 or int16, bit by bit what the generated C answers: generate it from this one."""
    clip = ObservationLayout(spec).clip
    return make_integer(actor, widened(calibration, clip), clip, form)


def calibrated_onnx(actor: Actor, spec: RobotSpec, calibration: Float) -> bytes:
    """What is judged as int8 onnx. Not widened: one range for a whole layer has room to spare, and coarse steps already."""
    return make_int8_onnx(make_onnx(actor, spec), calibration)


def by_rows(engine: OrtEngine) -> Policy:
    return lambda obs: np.array([engine.act(Observation(row, 0, True)) for row in obs])


def judge_actor(
    actor: Actor,
    spec: RobotSpec,
    options: JudgingOptions = JudgingOptions(),
    observations: CalibrationSet | None = None,
    make: Callable[[Actor, RobotSpec, Float], dict[str, Policy]] = candidates,
    beside: Mapping[str, Policy] = NOBODY,
) -> Judgement:
    """`observations`: recorded before (a robot's own, say); none means simulated ones. `beside`: others who fly the same episodes
    and are not judged here."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "flight") as pool, abandoned_on_error(pool):
        first = {"float32": actor.act, **beside}  # they wait for no calibration
        flights = {name: pool.submit(fly_judged, spec, policy, options) for name, policy in first.items()}
        chosen = observations or record_set(actor, spec, options)
        held, to_command = chosen.held_out, ActionLayout(spec).to_command
        policies = make(actor, spec, chosen.calibration)
        waiting = [name for name in PREFERENCE if name in policies]
        due = [name for name in policies if name not in waiting[1:] or name == options.asked]
        tested = {name: pool.submit(answer_and_fly, spec, policies[name], held, options) for name in due}
        wanted = actor.act(held)
        answers = {name: answered(policy, held) for name, policy in policies.items() if name not in tested}
        flown = {name: flight.result() for name, flight in flights.items()}
        while True:
            for name, test in tested.items():
                answers[name], flown[name] = test.result()
            beside_float = {name: compared(flown["float32"], flown[name], options) for name in policies if name in flown}
            errors = {name: measure(wanted, answers[name], to_command) for name in policies}
            verdict = judge({name: Measured(errors[name], beside_float.get(name)) for name in policies}, options.limits)
            left = [name for name in waiting if name not in flown]
            if verdict.chosen != "float32" or not left:
                break
            tested = {left[0]: pool.submit(answer_and_fly, spec, policies[left[0]], held, options)}
    picture = CompiledPicture(
        spec, f"{actor.identity:016x}", wanted, answers, {name: episode.obs[:, 0] for name, episode in flown.items()},
        {name: episode.actions[:, 0] for name, episode in flown.items()}, {name: episode.returns for name, episode in flown.items()},
        verdict.as_json(),
    )  # fmt: skip
    return Judgement(verdict, chosen, warnings(chosen.calibration, spec), picture, flown)


def answer_and_fly(spec: RobotSpec, policy: Policy, held_out: Float, options: JudgingOptions) -> tuple[Float, Episodes]:
    """One after the other, by one thread: an engine answers in memory of its own, and two who ask at once read each other's answers."""
    return answered(policy, held_out), fly_judged(spec, policy, options)


def answered(policy: Policy, obs: Float) -> Float:
    return np.asarray(policy(obs), np.float64)


def fly_judged(spec: RobotSpec, policy: Policy, options: JudgingOptions) -> Episodes:
    episodes = EpisodeOptions(randomization=options.randomization, seconds=options.episode_s)
    return fly(spec, policy, options.episodes, options.seed + 1, episodes)


@contextmanager
def abandoned_on_error(pool: ThreadPoolExecutor) -> Iterator[None]:
    """Flights that have not begun are not flown for an answer that nobody will get."""
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def compared(reference: Episodes, candidate: Episodes, options: JudgingOptions) -> Comparison:
    """Also of other pilots than a precision's, a smaller actor and its teacher say."""
    one, other = (Flight(flown.actions, flown.alive, flown.returns, flown.failed) for flown in (reference, candidate))
    return compare(one, other, options.seed, options.limits.confidence)


def write_report(judgement: Judgement, spec: RobotSpec, folder: Path, more: Mapping[str, Any] = NOTHING) -> tuple[Path, Path]:
    """compile-report.png and compile-report.json; `more` goes into the second one's evidence."""
    png, words = folder / "compile-report.png", folder / "compile-report.json"
    draw_compiled(judgement.picture, png)
    words.write_text(make_report(judgement.picture, {**evidence(judgement, spec), **more}))
    return png, words


def evidence(judgement: Judgement, spec: RobotSpec) -> dict[str, Any]:
    chosen = judgement.observations
    return {
        "provenance": {name: getattr(chosen.provenance, name) for name in Provenance.__dataclass_fields__},
        "calibration_rows": len(chosen.calibration),
        "held_out_rows": len(chosen.held_out),
        "coverage": {term.label: [term.low, term.high, term.share] for term in coverage(chosen.calibration, spec)},
        "warnings": judgement.warnings,
    }
