"""Takes over a policy that another trainer made: what is known, what is missing, what is assumed, and the weights once nothing is missing.

The network comes from the ONNX file, its meaning from metadata, YAML and answers; the robot file is what all of it is held
against. Position targets held by gains, which most legged robots' policies give, fit no board of this project and are refused.
Rule that must stay true: no weights come out while a part is missing, and those that do were compared with the graph they came from.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from edge_dsac.bundle.actor import SQUASH, Actor, actor_from_bytes, make_actor_file
from edge_dsac.bundle.foreign_answers import WHY, Answers, Missing, joined
from edge_dsac.bundle.foreign_file import ForeignError
from edge_dsac.bundle.foreign_graph import ForeignNetwork, read_network
from edge_dsac.bundle.foreign_match import OURS, Match, differences, match, raise_differences
from edge_dsac.bundle.foreign_onnx import metadata_of_onnx
from edge_dsac.bundle.foreign_parts import Part, Parts
from edge_dsac.bundle.foreign_yaml import metadata_of_yaml
from edge_dsac.bundle.safe_yaml import load_yaml
from edge_dsac.spec.layout import TERMS, ObservationLayout
from edge_dsac.spec.robot import RobotSpec

TRIALS = 32
LARGEST_ERROR = 1e-3  # of an action in [-1, 1]; both sides are float32, 1e-6 is usual

HOW = {
    "observation_scales": "give observation_scales, one per term; a normaliser inside the ONNX file does not count",
    "history_by": "give history_by = 'term' (all steps of a term together) or 'time' (whole observations one after another)",
    "history_first": "give history_first = 'oldest' or 'newest'",
    "command_unit": "give command_unit = 'duty' or 'torque_nm': what output times action_scale is",
    "action_scale": "give action_scale; or outputs = 'actions' if its outputs are the robot file's actions in [-1, 1]",
}


@dataclass(frozen=True, slots=True)
class Known:
    value: Any
    source: str


@dataclass(frozen=True, slots=True)
class Imported:
    known: dict[str, Known]
    missing: list[Missing]
    assumed: list[str]
    actor: Actor | None  # none while something is missing
    file: bytes  # the actor's, to be written; empty while something is missing
    largest_error: float | None  # of the actor's actions against the ONNX graph's, in [-1, 1]


def import_policy(policy: Path, metadata: list[Path], spec: RobotSpec, answers: Parts | None = None) -> Imported:
    data = read_bytes(policy)
    documents = [(str(path), load_yaml(read_text(path), str(path))) for path in metadata]
    network = read_network(data, str(policy))
    stated = metadata_of_onnx(network.metadata, str(policy))
    parts, assumed = stated.parts, list(stated.assumed)
    if documents:
        beside = metadata_of_yaml(documents)
        parts, assumed = joined(parts, beside.parts), [*assumed, *beside.assumed]
    parts = with_scales(joined(parts, answers or {}))
    raise_differences(differences(parts, spec), spec, str(policy))
    missing = what_is_missing(parts, spec)
    known = {"network": Known(shape_of(network), str(policy))} | {
        name: Known(part.value, part.source) for name, part in sorted(parts.items())
    }
    if missing:
        return Imported(known, missing, assumed, None, b"", None)
    found = match(network, parts, spec, str(policy))
    assumed += found.assumed
    file = make_file(network, found, spec, assumed)
    actor = actor_from_bytes(file, str(policy), spec)
    return Imported(known, [], assumed, actor, file, compare(data, actor, found, spec, network.squash))


def with_scales(parts: Parts) -> Parts:
    """rl_sar and unitree_rl_gym have one scale per kind of reading and not per term."""
    if "observation_scales" in parts or "named_scales" not in parts or "observation_names" not in parts:
        return parts
    scales = {OURS.get(name, name): scale for name, scale in parts["named_scales"].value.items()}
    names = [OURS.get(name, name) for name in parts["observation_names"].value]
    if not all(name in scales for name in names):
        return parts
    return parts | {"observation_scales": Part(tuple(scales[name] for name in names), parts["named_scales"].source)}


def what_is_missing(parts: Parts, spec: RobotSpec) -> list[Missing]:
    names = [entry.term for entry in spec.observations]
    by_joint = any(TERMS[name].size == "joints" for name in names)
    own_actions = "outputs" in parts and parts["outputs"].value == "actions"
    if own_actions and "action_scale" in parts:
        raise ForeignError(
            f"{parts['outputs'].source}: outputs = 'actions', but {parts['action_scale'].source} has an action_scale of joints"
        )
    needed = ["control_hz", "observation_names", "observation_scales", "history", "history_by"]
    if by_joint or not own_actions:
        needed.insert(0, "joint_names")
    if "joint_position_rad" in names:
        needed.append("default_position")
    if not own_actions:
        needed += ["action_scale", "command_unit"]
    absent = [name for name in needed if name not in parts]
    if "history" in absent and "history_by" not in parts and all(entry.history == 1 for entry in spec.observations):
        absent.remove("history_by")  # one step of each: answered by history alone
    if "history" in absent:
        absent.insert(absent.index("history") + 1 + ("history_by" in absent), "history_first")
    meaning = {field.name: field.metadata["meaning"] for field in fields(Answers)}
    return [Missing(name, WHY[name], HOW.get(name, f"give {name}: {meaning[name]}")) for name in absent]


def make_file(network: ForeignNetwork, found: Match, spec: RobotSpec, assumed: list[str]) -> bytes:
    """Scales, order and units go into the first and the last layer; the observation scale stays the robot file's."""
    layers = list(network.layers)
    weight, bias = layers[0]
    layers[0] = (weight @ found.inputs / ObservationLayout(spec).scale.astype(np.float64), bias)
    weight, bias = layers[-1]
    layers[-1] = (found.outputs.T @ weight, found.outputs.T @ bias)
    largest = max(float(np.abs(values).max()) for layer in layers for values in layer)
    if not largest < np.finfo(np.float32).max:
        raise ForeignError(f"weights up to {largest:g} do not fit float32 once scales are folded in")
    return make_actor_file(layers, network.activation, spec, "tanh" if network.squash == "tanh" else "clip", tuple(assumed))


def compare(data: bytes, actor: Actor, found: Match, spec: RobotSpec, squash: str) -> float:
    """The whole graph as ONNX defines it, on observations all over the robot's range, against what was made of it."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.load_model_from_string(data)
    constants = {tensor.name for tensor in model.graph.initializer}
    value = next(value for value in model.graph.input if value.name not in constants)
    flat = len(value.type.tensor_type.shape.dim) == 1
    run = ReferenceEvaluator(model)
    clip = ObservationLayout(spec).clip
    trials = np.random.default_rng(1).uniform(-clip, clip, (TRIALS, len(clip)))
    worst = 0.0
    for obs in trials:
        seen = (found.inputs @ obs).astype(np.float32)
        with np.errstate(all="ignore"):
            theirs = np.asarray(run.run(None, {value.name: seen if flat else seen[None]})[0], np.float64).reshape(-1) @ found.outputs
        wanted = theirs if squash == "tanh" else SQUASH["clip"](theirs)
        worst = max(worst, float(np.abs(wanted - actor.act(obs)).max(initial=0.0)))
    if not worst <= LARGEST_ERROR:
        raise ForeignError(
            f"the weights taken over differ from the ONNX graph by {worst:.2g} of an action; expected at most {LARGEST_ERROR:g}"
        )
    return worst


def shape_of(network: ForeignNetwork) -> str:
    sizes = [network.inputs, *(len(weight) for weight, _ in network.layers)]
    return f"{'-'.join(map(str, sizes))}, {network.activation}, ends in {'tanh' if network.squash == 'tanh' else 'a plain layer'}"


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ForeignError(f"{path}: cannot be read: {error}") from None


def read_text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise ForeignError(f"{path}: not text in UTF-8") from None
