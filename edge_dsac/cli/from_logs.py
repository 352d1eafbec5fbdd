"""The part of `edge-dsac train` that is about robots' logs: what --base and --from-logs name, opened, checked and told.

Writes home.json into the run's folder: which logs, what each of them gave, and what the critics say on what was held out. Rule
that must stay true: the run's configuration holds contents (hashes), home.json also the names; nothing decides by a name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_dsac.bundle.keyring import key_folder, trusted_keys
from edge_dsac.bundle.package import read_bundle
from edge_dsac.learn.act import Bounds
from edge_dsac.learn.base import Base, BaseError, base_of_bundle, base_of_run, layers
from edge_dsac.learn.checkpoint import write
from edge_dsac.learn.home import Flight, Horizon, batch_of, lines_of, read_flights
from edge_dsac.learn.losses import Batch, Objective
from edge_dsac.learn.mixed import Real, from_logs
from edge_dsac.learn.opinions import compared
from edge_dsac.learn.trainer import Learning, to_device
from edge_dsac.learn.update import State
from edge_dsac.spec.robot import RobotSpec

HOME = "home.json"


def wrong_words(robot: str | None, base: Path | None, logs: Sequence[Path]) -> str:
    """What is missing beside --from-logs or --base; empty: nothing."""
    if logs and base is None:
        return "--from-logs goes on from the policy that flew: --base RUN or --base NAME.policy says which"
    if base is not None and not logs:
        return "--base is what --from-logs goes on from: name the logs too (a run of its own needs no base)"
    return "--from-logs is for a robot of this project: --robot MODEL" if logs and robot is None else ""


def open_base(path: Path, spec: RobotSpec, allow_unsigned: bool) -> Base:
    if path.is_dir():
        return base_of_run(path, spec)
    if path.suffix != ".policy":
        raise BaseError(f"{path}: holds no critics; expected a finished run's folder or a .policy file of one")
    bundle = read_bundle(path, trusted_keys(key_folder(os.environ)), allow_unsigned=allow_unsigned)
    return base_of_bundle(bundle, spec, str(path))


@dataclass(frozen=True, slots=True)
class Home:
    """What came home, ready to be learnt from."""

    flights: tuple[Flight, ...]
    real: Real
    without_human: bool

    @property
    def config(self) -> dict[str, Any]:
        """What the run's numbers depend on."""
        logs = [flight.sha256[:16] for flight in self.flights]
        return {"logs": logs, "real_share": self.real.share, "without_human": self.without_human}

    @property
    def held_out(self) -> Batch:
        return batch_of(flight.held for flight in self.flights)

    def lines(self, batch: int) -> list[str]:
        count = len(self.real.rows.reward)
        share = f"  {from_logs(batch, self.real.share)} of the {batch} rows of every batch are from {count} rows of logs, the rest from simulation"
        return [share, *(line for flight in self.flights for line in lines_of(flight))]

    def told(self, folder: Path, base: Base, state: State, bounds: Bounds, objective: Objective) -> list[str]:
        """Writes home.json; for people, what the critics say on observations that were not learnt from."""
        words: dict[str, Any] = {
            "base": {"source": base.source, "critics": base.sha256, "manifest": base.manifest}, "real_share": self.real.share,
            "without_human": self.without_human, "rows": len(self.real.rows.reward), "logs": [flight.told for flight in self.flights],
        }  # fmt: skip
        held = self.held_out.obs
        if len(held):
            old, new = (layers(base, "actor"), layers(base, "critics")), to_device((state.actor, state.critics), "cpu")
            words["held_out"] = compared(old, new, np.asarray(held), to_device(bounds, "cpu"), objective)
        write(folder / HOME, (json.dumps(words, indent=1) + "\n").encode())
        return [f"  logs     {folder / HOME}", *opinion_lines(words.get("held_out"))]


def opinion_lines(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["  no row was held out: the flights are too short; the critics are not asked"]
    lines = [f"  on {found['rows']} observations held out, mean value of what each actor would do (an opinion; the robot's trial decides):"]
    for who in ("old_critics", "new_critics"):
        said = found[who]
        lines.append(f"    {who.replace('_', ' ')}: old actor {said['old_actor']:.2f}, new actor {said['new_actor']:.2f}")
    return [*lines, f"    actions differ by {found['shift']:.3f} on average, of 2"]


def open_home(logs: Sequence[Path], spec: RobotSpec, learning: Learning, real_share: float, without_human: bool) -> Home:
    horizon = Horizon(learning.gamma, learning.n_step, learning.reward_scale)
    flights = tuple(read_flights(logs, spec, horizon, without_human))
    return Home(flights, Real(batch_of(flight.train for flight in flights), real_share), without_human)
