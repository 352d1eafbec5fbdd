"""Writes the actor as an ONNX file: raw SI observation in, action in [-1, 1] and SI command out.

    obs [1, n] -> Mul obs_scale -> Gemm, nonlinearity, ... -> Gemm -> Tanh -> action [1, a] -> MatMul to_command -> command [1, joints]

An actor that ends in a clip has Clip for the last Tanh. The clip of an observation is the observer's and is not in here. Written node
by node, not traced: the same actor gives the same bytes. Opset 20 is the first with Gelu as one operator; IR 10 is what onnxruntime
1.23, the last for Python 3.10, reads.
Rule that must stay true: what `make_onnx` writes passes `check_onnx` (onnx_check.py) and `agreement`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_dsac.bundle.actor import Actor, require_form
from edge_dsac.bundle.numpy_engine import NumpyMlp
from edge_dsac.bundle.onnx_check import IR_VERSION, OPSET, ExportError
from edge_dsac.bundle.ort_engine import OrtEngine
from edge_dsac.bundle.torch_trt import sequential
from edge_dsac.records import Float, Observation
from edge_dsac.spec.layout import ActionLayout, ObservationLayout
from edge_dsac.spec.robot import RobotSpec

OPERATOR = {"gelu": "Gelu", "relu": "Relu", "tanh": "Tanh", "elu": "Elu"}
NUMBERS: dict[str, Any] = {"float32": np.float32, "float16": np.float16}
AGREEMENT = 1e-5  # float32 sums of 256 products, in whatever order, stay below a tenth of it


def make_onnx(actor: Actor, spec: RobotSpec, precision: str = "float32") -> bytes:
    """In float16 the layers alone are float16: the normaliser, the end and both outputs stay float32.

    The batch is 1 and not a name: a robot asks for one action at a time, and TensorRT then needs no optimisation profile.
    """
    return make_graph(actor, ActionLayout(spec).to_command, properties(actor, spec), precision)


def make_graph(actor: Actor, to_command: Float, properties: dict[str, str], precision: str = "float32") -> bytes:
    """Of any actor, a robot's or not."""
    if precision not in NUMBERS:
        raise ExportError(f"precision {precision!r} cannot be exported; expected one of {', '.join(NUMBERS)}")
    require_form(actor, tuple(OPERATOR), ("tanh", "clip"), "the ONNX file")
    constants = [constant("obs_scale", actor.obs_scale)]
    nodes = [helper.make_node("Mul", ["obs", "obs_scale"], ["scaled"], "normalise")]
    x = "scaled"
    if precision == "float16":
        nodes.append(helper.make_node("Cast", [x], ["half"], "to_float16", to=TensorProto.FLOAT16))
        x = "half"
    last = len(actor.layers) - 1
    for i, (weight, bias) in enumerate(actor.layers):
        constants += [constant(f"w{i}", narrowed(weight, precision, f"w{i}")), constant(f"b{i}", narrowed(bias, precision, f"b{i}"))]
        nodes.append(helper.make_node("Gemm", [x, f"w{i}", f"b{i}"], [f"sum{i}"], f"layer{i}", transB=1))
        x = f"sum{i}"
        if i < last:
            nodes.append(helper.make_node(OPERATOR[actor.activation], [x], [f"x{i + 1}"], f"nonlinearity{i}"))
            x = f"x{i + 1}"
    if precision == "float16":
        nodes.append(helper.make_node("Cast", [x], ["mean"], "to_float32", to=TensorProto.FLOAT))
        x = "mean"
    constants.append(constant("to_command", to_command))
    if actor.squash == "clip":
        constants += [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in (("least", -1.0), ("most", 1.0))]
        nodes.append(helper.make_node("Clip", [x, "least", "most"], ["action"], "squash"))
    else:
        nodes.append(helper.make_node("Tanh", [x], ["action"], "squash"))
    nodes.append(helper.make_node("MatMul", ["action", "to_command"], ["command"], "to_si"))
    ends = {"obs": actor.sizes[0], "action": actor.sizes[-1], "command": to_command.shape[1]}
    obs, *outputs = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name, size in ends.items())
    graph = helper.make_graph(nodes, "actor", [obs], outputs, constants)
    model = helper.make_model(graph, producer_name="edge_dsac", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    helper.set_model_props(model, properties)
    return bytes(model.SerializeToString(deterministic=True))


def properties(actor: Actor, spec: RobotSpec) -> dict[str, str]:
    """What a stranger with the file alone must know; the engine on the robot compares the fingerprint."""
    return {
        "robot": spec.model,
        "policy_fingerprint": actor.policy_fingerprint,
        "firmware_fingerprint": spec.firmware_fingerprint,
        "actor": f"{actor.identity:016x}",
        "observations": ",".join(ObservationLayout(spec).labels),
        "actions": ",".join(action.name for action in spec.actions),
        "commands": ",".join(f"{joint.name}:{joint.command_unit}" for joint in spec.joints),
    }


def constant(name: str, values: Float) -> Any:
    return numpy_helper.from_array(np.ascontiguousarray(values, values.dtype if values.dtype == np.float16 else np.float32), name)


def narrowed(values: Float, precision: str, name: str) -> Float:
    most = float(np.finfo(NUMBERS[precision]).max)
    if not (np.abs(values) <= most).all():
        raise ExportError(f"{name}: a value of {np.abs(values).max():.4g} does not fit {precision} (at most {most:.0f}); keep float32")
    return np.asarray(values, NUMBERS[precision])


# ---- do all who run it say the same?


@dataclass(frozen=True, slots=True)
class Agreement:
    """The largest difference of an action from the float64 reference, over all observations."""

    observations: int
    torch: float
    onnxruntime: float
    numpy: float
    command: float  # the file's command from action @ to_command, in the joints' unit
    limit: float


def agreement(model: bytes, actor: Actor, spec: RobotSpec, obs: Float, limit: float = AGREEMENT) -> Agreement:
    """`obs[samples, n]` in SI. PyTorch, onnxruntime on the file's bytes, and numpy; an error if any is further off than `limit`."""
    wanted = actor.act(obs)
    engine, mlp = OrtEngine(model, spec, actor.identity), NumpyMlp(actor)
    rows = [Observation(row, 0, True) for row in np.asarray(obs, np.float32)]
    answers = {
        "torch": torch_actions(actor, obs),
        "onnxruntime": np.array([engine.act(row) for row in rows]),
        "numpy": np.array([mlp.act(row) for row in rows]),
    }
    off = {name: float(np.abs(answer - wanted).max()) for name, answer in answers.items()}
    action, command = both_outputs(model, obs)
    off["command"] = float(np.abs(command - action @ ActionLayout(spec).to_command).max())
    bad = [f"{name} by {value:.3g}" for name, value in off.items() if not value <= limit]
    if bad:
        raise ExportError(f"actor {actor.identity:016x}: expected all to agree within {limit:g}, off are {', '.join(bad)}")
    return Agreement(len(rows), **off, limit=limit)


def torch_actions(actor: Actor, obs: Float) -> Float:
    import torch

    with torch.no_grad():
        return np.asarray(torch_module(actor)(torch.from_numpy(np.asarray(obs, np.float32) * actor.obs_scale)))


def torch_module(actor: Actor) -> Any:
    """The deployed network as PyTorch has it: scaled observation in, action out."""
    return sequential(list(actor.layers), actor.activation, actor.squash)


def both_outputs(model: bytes, obs: Float) -> tuple[Float, Float]:
    """Action and command of each row; the robot's engine fetches the action alone."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    pairs = [session.run(["action", "command"], {"obs": row[None]}) for row in np.asarray(obs, np.float32)]
    return np.array([pair[0][0] for pair in pairs]), np.array([pair[1][0] for pair in pairs])


def operators(model: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(model).graph.node]
