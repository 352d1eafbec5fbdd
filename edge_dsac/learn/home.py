"""Flight logs that came home: from one or many robots, checked, judged step by step, and told apart into rows to learn from
and rows that are kept for judging.

Knows logs and the robot file; knows no simulator and no network. Rule that must stay true: the rows follow from the logs'
contents and the settings alone: neither the order they were named in nor how the recorder had cut them changes a bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_dsac.learn.buffer import held_out
from edge_dsac.learn.losses import Batch
from edge_dsac.learn.transitions import Label, Rows, Transitions
from edge_dsac.spec.robot import RobotSpec, differing
from edge_dsac.steplog import FlightLog, open_log


class HomeError(ValueError):
    """Logs that nothing can be learnt from, and why."""


class AnotherRobot(HomeError):
    """What it lived through says nothing about this one."""

    refused = True


@dataclass(frozen=True, slots=True)
class Horizon:
    """What a row is worth depends on these; they are the run's."""

    gamma: float
    n_step: int
    reward_scale: float


@dataclass(frozen=True, slots=True)
class Flight:
    """One log, as rows, and what is told of it."""

    sha256: str  # of what it holds, however it is cut into files
    train: Rows
    held: Rows
    told: dict[str, Any]


def read_flights(paths: Iterable[Path], spec: RobotSpec, horizon: Horizon, without_human: bool) -> list[Flight]:
    """In the order of their contents. A log that gives nothing is an error: it was named for a reason."""
    flights, seen = [], dict[int, Path]()
    for path in paths:
        log = open_log(path)
        if log.wall_start_ns in seen:
            raise HomeError(f"{path} is the flight of {seen[log.wall_start_ns]} again; name each flight once")
        seen[log.wall_start_ns] = path
        flights.append(read_flight(log, spec, horizon, without_human))
    if not sum(len(flight.train.reward) for flight in flights):
        held = sum(len(flight.held.reward) for flight in flights)
        raise HomeError(f"no row to learn from: {held} are in blocks held out for judging, the rest at their edges; give longer flights")
    return sorted(flights, key=lambda flight: flight.sha256)


def read_flight(log: FlightLog, spec: RobotSpec, horizon: Horizon, without_human: bool) -> Flight:
    expect_same_robot(log, spec)
    if not len(log.columns):
        raise HomeError(f"{log.source}: holds no whole step ({log.torn} torn, {log.dropped_bytes} bytes cut off); leave it out")
    rows, dropped = rows_of(log, spec, horizon)
    human = (rows.label & Label.HUMAN) != 0
    if without_human:
        rows, dropped = picked(rows, ~human), dropped | {"human": int(human.sum())}
    if not len(rows.reward):
        why = ", ".join(f"{name} {count}" for name, count in dropped.items() if count)
        raise HomeError(f"{log.source}: none of its {len(log.columns)} steps can be learnt from (dropped: {why}); leave it out")
    split = held_out(rows)
    train, held = picked(rows, split.train), picked(rows, split.held)
    t_ns = log.columns["t_host_ns"]
    told = {
        "log": log.source, "sha256": content_hash(log), "robot": log.spec.model, "firmware": log.spec.firmware_fingerprint,
        "steps": len(log.columns), "seconds": round(float(t_ns[-1] - t_ns[0]) * 1e-9, 3), "gaps": log.gaps, "torn": log.torn,
        "rows": len(rows.reward), "train": len(train.reward), "held_out": len(held.reward), "dropped": dropped,
        "labels": {label.name.lower(): int(((rows.label & label) != 0).sum()) for label in Label if label.name},
        "reward_per_tick": reward_per_tick(log, spec),
    }  # fmt: skip
    return Flight(str(told["sha256"]), train, held, told)


def expect_same_robot(log: FlightLog, spec: RobotSpec) -> None:
    apart = differing(log.spec.policy_facts, spec.policy_facts)
    if apart:
        lines = [f"  {key}: log {theirs}, robot {ours}" for key, theirs, ours in apart]
        head = f"{log.source}: flown by {log.spec.model} policy {log.spec.policy_fingerprint}, {spec.model} has {spec.policy_fingerprint}"
        raise AnotherRobot("\n".join([f"{head}; leave it out, or train that robot", *lines]))


def rows_of(log: FlightLog, spec: RobotSpec, horizon: Horizon) -> tuple[Rows, dict[str, int]]:
    transitions = Transitions(spec, horizon.gamma, horizon.n_step, horizon.reward_scale, log.spec.calibration_id, log.wall_start_ns)
    parts = [transitions.feed(log.columns), transitions.finish()]
    return Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True))), transitions.dropped


def reward_per_tick(log: FlightLog, spec: RobotSpec) -> dict[str, float]:
    """Mean of each bundle that drove, unscaled."""
    rows, _ = rows_of(log, spec, Horizon(0.5, 1, 1.0))  # of one step: the discount does not matter
    return {f"{int(one):016x}": round(float(rows.reward[rows.bundle_id == one].mean()), 4) for one in np.unique(rows.bundle_id)}


def content_hash(log: FlightLog) -> str:
    whole = hashlib.sha256(log.spec.text.encode())
    whole.update(log.wall_start_ns.to_bytes(8, "little"))
    whole.update(np.ascontiguousarray(log.columns).tobytes())
    return whole.hexdigest()


def picked(rows: Rows, which: np.ndarray) -> Rows:
    return Rows(*(column[which] for column in rows))


def batch_of(rows: Iterable[Rows]) -> Batch:
    """What the losses read of them."""
    parts = [part[:6] for part in rows]
    return Batch(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def lines_of(flight: Flight) -> list[str]:
    """For people: what the log gave."""
    told = flight.told
    dropped = ", ".join(f"{name} {count}" for name, count in told["dropped"].items() if count) or "none"
    labels = ", ".join(f"{name} {count}" for name, count in told["labels"].items() if count) or "none"
    drove = ", ".join(f"{bundle} {mean:.3f}" for bundle, mean in told["reward_per_tick"].items())
    return [
        f"  {told['log']}: {told['seconds']:.1f} s, {told['steps']} steps: {told['train']} rows to learn from, {told['held_out']} held out",
        f"    dropped: {dropped}; labels: {labels}; mean reward per tick by policy: {drove}",
    ]
