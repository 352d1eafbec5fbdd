"""One session of fine-tuning from start to end, in simulated time, scored at some marks: a cell of tools/bench_tune.py.

    python tools/tune_cell.py '{"base": "runs/tune/base-0", "hidden": "hidden", "recipe": "full", "marks": [60, 180, 300]}' OUT.json

The robot is the real loop and firmware on a simulated body (tune_robot.py), the tuner is the real one. What drives at a mark is
scored in episodes of the training simulation on the same hidden body, the same ones before and after (a guide's choice included); so is
the learner's own actor, which no gate has seen. The control learns as often, from simulated anchors alone.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from tunable_policy import policy_file_of
from tune_robot import TuneRobot

from edge_dsac.bundle.actor import actor_from_bytes, make_actor_file
from edge_dsac.bundle.golden import Reference
from edge_dsac.bundle.slots import create_slots
from edge_dsac.cli.source import source_of
from edge_dsac.cli.train import parse
from edge_dsac.learn import ahead
from edge_dsac.learn.buffer import Buffer
from edge_dsac.learn.carried import read_carried
from edge_dsac.learn.child import layers_of
from edge_dsac.learn.compiled import prepare
from edge_dsac.learn.course import Course, TunerStop
from edge_dsac.learn.evaluate import evaluate
from edge_dsac.learn.learner import Learner, Tuning
from edge_dsac.learn.run_folder import source_state
from edge_dsac.learn.session import Session
from edge_dsac.learn.transitions import Rows
from edge_dsac.learn.tuner import Tuner
from edge_dsac.loop.exercise import read_lap
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec
from sim.tasks import RobotTask

EPISODES, EPISODE_S, EXAM_SEED = 40, 10.0, 9_000_011
ROWS = 60_000


@dataclass(frozen=True, slots=True)
class Cell:
    """What is asked for. Everything that a session's numbers depend on, but the code."""

    base: str  # a training run's folder
    hidden: str  # what is different about this robot
    recipe: str = "full"
    seed: int = 0
    marks: tuple[float, ...] = (60.0, 180.0, 300.0)
    real: bool = True
    """False: the control, as many updates on simulated anchors alone"""
    gate: bool = True
    """False: every candidate drives at once, unjudged"""
    lap: str = "brisk"
    explore: float = 0.1
    tuning: tuple[tuple[str, float], ...] = ()  # what differs from Tuning's defaults
    course: tuple[tuple[str, float], ...] = ()  # and from Course's


class WithoutRobot(Learner):
    """The control: the same updates at the same times, and not one row of the robot's."""

    def round(self, rows: Rows | None, number: int, updates: int | None = None) -> dict[str, float]:
        return super().round(None, number, updates)


class WithoutGate(Tuner):
    """Whatever was learnt drives at once."""

    def propose(self) -> None:
        super().propose()
        if self.attempt is not None:
            self.current = self.slots.accept("nobody asks", untried=True)
            self.attempt = None

    def check_falls(self) -> None:
        """Nobody counts them either."""

    def weigh(self, *what: Any) -> Any:
        return replace(super().weigh(*what), passed=True)


def run_cell(cell: Cell, folder: Path) -> dict[str, Any]:
    begun = time.monotonic()
    policy = policy_file_of(source_of(Path(cell.base), None), Path(cell.base).name)
    slots = create_slots(folder / "slots", policy, allow_unsigned=True)
    spec, parent = slots.current().spec, slots.current()
    carried = read_carried(parent.files, parent.manifest.name)
    tuning = Tuning(recipe=cell.recipe, seed=cell.seed, **dict(cell.tuning))  # type: ignore[arg-type]
    learner = (Learner if cell.real else WithoutRobot)(carried, tuning, ahead.compiled(Learner(carried, tuning)))
    buffer = Buffer(folder / "rows", parent.actor.sizes[0], parent.actor.sizes[-1], ROWS, fingerprint=spec.policy_fingerprint)
    robot = TuneRobot(slots, spec, folder / "flights", cell.hidden, 1 + cell.seed, cell.lap, cell.explore)
    session = Session(folder / "session", {"parent": parent.manifest.sha256}, resume=False)
    lap_s = sum(leg.seconds for leg in read_lap(cell.lap).legs)
    course = Course(**{"window_s": lap_s, **dict(cell.course)})  # type: ignore[arg-type]
    tuner = (Tuner if cell.gate else WithoutGate)(slots, session, learner, buffer, robot, None, course)
    before = score(parent.reference, spec, cell.hidden)
    rows, scores, ended = [], {parent.manifest.sha256: before}, ""
    for mark in cell.marks:
        while robot.seconds < mark:
            robot.live(1.0)
            ended = ended or improved(tuner)
        rows.append(row_of(cell, tuner, robot, before, scores, mark))
        tell(f"{mark:g} s: {rows[-1]['after']:.0f} of {before['mean']:.0f} before, {learner.updates} updates, {robot.falls} falls")
    robot.close()
    took = time.monotonic() - begun
    return {
        "cell": asdict(cell), "source": source_state(), "before": before, "rows": rows, "verdicts": verdicts(session), "ended": ended,
        "seconds": took,
    }  # fmt: skip


def improved(tuner: Tuner) -> str:
    """As much as there are rows for; why the session has come to its end by itself, if it has."""
    try:
        while tuner.improve() == "learned":
            pass
    except TunerStop as stopped:
        tell(str(stopped))
        return str(stopped)
    return ""


def score(policy: Reference, spec: RobotSpec, hidden: str) -> dict[str, Any]:
    """Whole episodes of the training simulation on that body."""
    own = parse(["--robot", spec.model]).episode  # what this robot is trained for
    task = RobotTask(spec, EPISODES, replace(own, randomization=hidden, seconds=max(EPISODE_S, own.seconds)))
    scale = ObservationLayout(spec).scale
    found = evaluate(task, lambda scaled: policy.act(scaled / scale), EXAM_SEED, EPISODES)
    return {"mean": found.mean, "survival": found.survival, "returns": [round(value, 2) for value in found.returns]}


def row_of(
    cell: Cell, tuner: Tuner, robot: TuneRobot, before: dict[str, Any], scores: dict[str, dict[str, Any]], mark: float
) -> dict[str, Any]:
    """`scores`: of what drove at earlier marks, by its hash; what drives now joins them."""
    spec, current = tuner.spec, tuner.slots.current()
    key = current.manifest.sha256
    drives = scores[key] = scores.get(key) or score(current.reference, spec, cell.hidden)
    learnt_file = make_actor_file(layers_of(tuner.learner.child().networks["actor"]), current.actor.activation, spec)
    learnt = score(actor_from_bytes(learnt_file, "the learner's", spec), spec, cell.hidden)
    difference = np.array(drives["returns"]) - np.array(before["returns"])
    said = [entry["decision"] for entry in tuner.session.of("verdict")]
    return {
        "recipe": cell.recipe, "robot_s": mark, "policy": Path(cell.base).name, "hidden": cell.hidden, "real": cell.real, "gate": cell.gate,
        "before": before["mean"], "after": drives["mean"], "gained_by_episode": round(float(difference.mean()), 2),
        "survival": drives["survival"], "learnt": learnt["mean"], "learnt_survival": learnt["survival"], "falls": robot.falls,
        "rollbacks": said.count("worse"), "accepted": said.count("better"), "no_evidence": said.count("no evidence"),
        "refused": len(tuner.session.of("refused")), "updates": tuner.learner.updates, "rows": tuner.buffer.total,
    }  # fmt: skip


def verdicts(session: Session) -> list[dict[str, Any]]:
    words = ("updates", "rows", "round")
    asked = {entry["identity"]: {name: entry[name] for name in words} for entry in session.of("candidate")}
    judged = [
        {"decision": entry["decision"], "why": entry["why"], "windows": len(entry["windows"]), **asked.get(entry["identity"], {})}
        for entry in session.of("verdict")
    ]
    return judged + [
        {"decision": "refused", "why": "; ".join(entry["evidence"]["reasons"]), **{name: entry[name] for name in words}}
        for entry in session.of("refused")
    ]


def cell_from(words: dict[str, Any]) -> Cell:
    pairs = {name: tuple((key, value) for key, value in words.get(name, ())) for name in ("tuning", "course")}
    return Cell(**{**words, "marks": tuple(words.get("marks", Cell.marks)), **pairs})


def tell(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def main() -> int:
    words, out = json.loads(sys.argv[1]), Path(sys.argv[2])
    prepare(1)
    folder = Path(tempfile.mkdtemp(prefix="tune-cell-"))
    try:
        found = run_cell(cell_from(words), folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    unfinished = out.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(found, indent=1) + "\n")
    os.replace(unfinished, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
