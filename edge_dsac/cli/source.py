"""What is compiled and where it comes from: a training run's best checkpoint, or a lone actor file.

Reads; decides nothing. Rule that must stay true: what is carried to the robot for learning to go on belongs to the actor that drives.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_dsac.bundle.actor import Actor, load_actor, make_actor_file
from edge_dsac.bundle.manifest import BundleError
from edge_dsac.cli.from_logs import HOME
from edge_dsac.learn.carried import actor_layers, anchor_file, critic_file, distilled_critic_file
from edge_dsac.learn.checkpoint import Checkpoints, Saved
from edge_dsac.spec.robot import RobotSpec, load_robot


@dataclass(frozen=True, slots=True)
class Source:
    """What is compiled, and where it comes from."""

    actor_file: bytes
    spec: RobotSpec
    provenance: dict[str, Any]
    carried: dict[str, bytes]  # critic.npz and anchors.npz of a run; nothing of a lone actor file
    saved: Saved | None = None  # the run's checkpoint that it is


def source_of(path: Path, robot: str | None) -> Source:
    if path.is_file():
        if robot is None:
            raise BundleError(f"{path} is an actor file and does not say for which robot: --robot MODEL")
        spec = load_robot(robot)
        load_actor(path, spec)  # what is wrong with it is said with its path
        return Source(path.read_bytes(), spec, {"file": path.name}, {})
    try:
        words = json.loads((path / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: not a training run: {error}") from None
    model = robot or words["config"]["robot"]
    if model is None:
        raise BundleError(f"{path}: was trained for the Gymnasium id {words['config']['env']}; only a robot's run makes a policy file")
    spec = load_robot(model)
    checkpoints = Checkpoints(path, words["config"]["learning"]["capacity"])
    newest = checkpoints.load(with_replay=False)
    best = checkpoints.load(newest.progress.best_round)
    objective = best.config["learning"]["rates"]["objective"]
    actor_file = make_actor_file(actor_layers(best), objective["activation"], spec)
    carried = {"critic.npz": critic_file(best), "anchors.npz": anchor_file(best)}
    return Source(actor_file, spec, provenance_of(path, words, best), carried, best)


def provenance_of(path: Path, words: dict[str, Any], best: Any) -> dict[str, Any]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()] if (path / "metrics.jsonl").exists() else []
    evaluation = next((line["evaluation"] for line in lines if line["round"] == best.progress.round), None)
    exam = json.loads((path / "exam.json").read_text()) if (path / "exam.json").exists() else None
    return home_of(path) | {
        "run": path.resolve().name, "source": words["source"], "machine": words["machine"], "config": words["config"],
        "seed": words["config"]["learning"]["seed"], "round": best.progress.round, "updates": best.progress.updates,
        "env_steps": best.progress.env_steps, "evaluation": evaluation, "exam": exam,
    }  # fmt: skip


def home_of(path: Path) -> dict[str, Any]:
    """The logs and the base of a run that learnt from any. Names without folders: where they lay is nobody's business on a robot."""
    if not (path / HOME).exists():
        return {}
    home = json.loads((path / HOME).read_text())
    logs = [{**log, "log": Path(log["log"]).name} for log in home["logs"]]
    return {"home": {**home, "base": {**home["base"], "source": Path(home["base"]["source"]).name}, "logs": logs}}


def with_student(source: Source, student: Actor, file: bytes, words: dict[str, Any]) -> Source:
    """The teacher's critics stay: they judge actions, whoever chose them."""
    carried = source.carried
    if source.saved is not None:
        carried = {**carried, "critic.npz": distilled_critic_file(source.saved, student)}
    return replace(source, actor_file=file, carried=carried, provenance={**source.provenance, "distilled": words})
