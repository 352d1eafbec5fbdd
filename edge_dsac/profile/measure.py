"""How long engines take on this board, as a loop would call them: paced, alone and beside a busy neighbour, and after an idle pause.

A tight loop flatters: it keeps caches warm that a robot's pause between two ticks lets go cold. Knows no bundle and no choice.
Rule that must stay true: engines take turns within every condition, so that what else runs on the board hits them alike.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edge_dsac.profile.histogram import Histogram
from edge_dsac.records import Float, Observation

TURN_S = 0.25  # an engine's turn before the next one's
BUSY_BYTES = 32 << 20  # more than most caches hold: the neighbour is a memory copy, which a learner is too
FIRST_ACTS = 20  # not counted: pages are touched, tables looked up


class Engine(Protocol):
    def act(self, obs: Observation) -> Float: ...


@dataclass(frozen=True, slots=True)
class Plan:
    period_s: float = 0.001
    """between two calls; a robot's own control period, or quicker to have more of them"""
    seconds: float = 5.0
    """of calls, per engine and condition: 5000 at 1 kHz, so that five of them are beyond the p99.9"""
    idle_s: float = 10.0
    """pause before one call; boards clock down in it"""
    idle_calls: int = 3
    """such calls per engine, each after a pause of its own: the first after a shared one would warm the board for the next"""


CONDITIONS = ("alone", "busy", "idle")
Say = Callable[[str], None]


def measure(engines: Mapping[str, Engine], obs: Float, plan: Plan, say: Say = lambda text: None) -> dict[str, dict[str, Histogram]]:
    """`obs[n, observations]`, called with in turn. -> result[engine][condition]."""
    seen = [Observation(np.ascontiguousarray(row, np.float32), 0, True) for row in obs]
    found = {name: {condition: Histogram() for condition in CONDITIONS} for name in engines}
    for engine in engines.values():
        timed(engine, seen, FIRST_ACTS, 0.0)
    paced(engines, seen, plan, found, "alone", say)
    with busy_neighbours():
        paced(engines, seen, plan, found, "busy", say)
    for i in range(plan.idle_calls):
        names = list(engines)
        for name in names[i % len(names) :] + names[: i % len(names)]:  # who comes first after a pause changes
            say(f"after {plan.idle_s:g} s of nothing: {name}, {i + 1} of {plan.idle_calls}")
            time.sleep(plan.idle_s)
            found[name]["idle"].add(timed(engines[name], seen[:1], 1, 0.0))
    return found


def paced(
    engines: Mapping[str, Engine], seen: list[Observation], plan: Plan, found: dict[str, dict[str, Histogram]], condition: str, say: Say
) -> None:
    turns = max(1, round(plan.seconds / TURN_S))
    calls = max(1, round(plan.seconds / turns / plan.period_s))
    for turn in range(turns):
        say(f"{condition}: turn {turn + 1} of {turns}")
        for name, engine in engines.items():
            found[name][condition].add(timed(engine, seen, calls, plan.period_s))


def timed(engine: Engine, seen: list[Observation], calls: int, period_s: float) -> list[int]:
    """Nanoseconds of each call."""
    times, clock, act = [0] * calls, time.perf_counter_ns, engine.act
    for i in range(calls):
        if period_s:
            time.sleep(period_s)
        obs = seen[i % len(seen)]
        begun = clock()
        act(obs)
        times[i] = clock() - begun
    return times


@contextmanager
def busy_neighbours() -> Iterator[None]:
    """One process per core, copying memory."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=copy_memory, daemon=True) for _ in os.sched_getaffinity(0)]
    for worker in workers:
        worker.start()
    time.sleep(0.5)  # they have to come up, numpy and all
    try:
        yield
    finally:
        for worker in workers:
            worker.kill()
            worker.join()


def copy_memory() -> None:
    a, b = np.zeros(BUSY_BYTES // 8), np.zeros(BUSY_BYTES // 8)
    while True:
        np.copyto(a, b)
