"""Is this ONNX file an actor of this robot and nothing else? Judged before anything builds or runs it.

Reads bytes, knows no runtime. Rule that must stay true: what is not on the list is refused, with its name and what was expected.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_dsac.bundle.actor import Actor
from edge_dsac.spec.robot import RobotSpec

OPSET, IR_VERSION = 20, 10
ALLOWED = ("Mul", "Gemm", "Gelu", "Relu", "Tanh", "Elu", "Clip", "MatMul", "Cast", "QuantizeLinear", "DequantizeLinear")
MOST_BYTES = 64 << 20  # of the whole file; the largest actor of this project has 600 kB


class ExportError(ValueError):
    """An ONNX file that must not drive this robot, or an actor that cannot become one; and why."""

    refused = True


def check_onnx(model: bytes, actor: Actor, spec: RobotSpec) -> None:
    """Raises ExportError; the cheap and telling checks first, onnx's own last."""
    import onnx

    if len(model) > MOST_BYTES:
        raise ExportError(f"ONNX file: {len(model)} bytes; an actor has at most {MOST_BYTES}")
    try:
        parsed = onnx.load_from_string(model)
    except Exception as error:  # protobuf's DecodeError has a different home in each of its versions
        raise ExportError(f"ONNX file: cannot be read: {error}") from None
    check_versions(parsed)
    check_operators(parsed)
    check_constants(parsed.graph)
    check_layers(parsed.graph, actor)
    check_ends(parsed.graph, actor, spec)
    check_properties(parsed, actor, spec)
    try:
        onnx.checker.check_model(parsed, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"ONNX file: the onnx checker refuses it: {error}") from None


def check_versions(model: Any) -> None:
    opsets = [(entry.domain, entry.version) for entry in model.opset_import]
    if opsets != [("", OPSET)]:
        raise ExportError(f"ONNX file: expected opset {OPSET} of the default domain alone, got {opsets}")
    if not 0 < model.ir_version <= IR_VERSION:
        raise ExportError(f"ONNX file: IR version {model.ir_version}; boards read at most {IR_VERSION}")
    if model.functions or model.training_info:
        raise ExportError("ONNX file: holds functions or training graphs; an actor has none")


def check_operators(model: Any) -> None:
    for node in model.graph.node:
        if node.domain or node.op_type not in ALLOWED:
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise ExportError(f"ONNX file: node {node.name!r} is the operator {name}; allowed are {', '.join(ALLOWED)}")
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ExportError(f"ONNX file: node {node.name!r} holds a graph of its own")


def check_constants(graph: Any) -> None:
    from onnx import TensorProto

    if graph.sparse_initializer:
        raise ExportError("ONNX file: holds sparse constants; expected plain ones")
    attributes = chain.from_iterable(node.attribute for node in graph.node)
    tensors = chain(graph.initializer, chain.from_iterable((attribute.t, *attribute.tensors) for attribute in attributes))
    for tensor in tensors:
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise ExportError(f"ONNX file: constant {tensor.name!r} lies in another file; a policy is one file")
    for tensor in graph.initializer:
        if tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8):
            kind = TensorProto.DataType.Name(tensor.data_type)
            raise ExportError(f"ONNX file: constant {tensor.name!r} is {kind}; expected FLOAT, FLOAT16 or INT8")
        if not np.isfinite(values(tensor).astype(np.float64)).all():
            raise ExportError(f"ONNX file: constant {tensor.name!r} holds NaN or infinity")


def values(tensor: Any) -> NDArray[Any]:
    from onnx import numpy_helper

    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError) as error:
        raise ExportError(f"ONNX file: constant {tensor.name!r} is damaged: {error}") from None


def check_layers(graph: Any, actor: Actor) -> None:
    """Each Gemm has its actor's sizes, whether its weights are read as they are or through a DequantizeLinear."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    source = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    gemms = [node for node in graph.node if node.op_type == "Gemm"]
    found = [tuple(shapes.get(source.get(name, name), ()) for name in node.input[1:]) for node in gemms]
    wanted = [(weight.shape, bias.shape) for weight, bias in actor.layers]
    if found != wanted:
        raise ExportError(f"ONNX file: expected layers of the shapes {wanted}, got {found}")


def check_ends(graph: Any, actor: Actor, spec: RobotSpec) -> None:
    wanted = [("obs", actor.sizes[0]), ("action", actor.sizes[-1]), ("command", len(spec.joints))]
    found = [describe(value) for value in (*graph.input, *graph.output)]
    expected = [f"{name}: FLOAT[1, {size}]" for name, size in wanted]
    if found != expected or len(graph.input) != 1:
        raise ExportError(f"ONNX file: expected {', '.join(expected)}; got {', '.join(found)}")


def describe(value: Any) -> str:
    from onnx import TensorProto

    kind = value.type.tensor_type
    sizes = [str(dim.dim_param or dim.dim_value) for dim in kind.shape.dim]
    return f"{value.name}: {TensorProto.DataType.Name(kind.elem_type)}[{', '.join(sizes)}]"


def check_properties(model: Any, actor: Actor, spec: RobotSpec) -> None:
    found = {entry.key: entry.value for entry in model.metadata_props}
    for name, wanted in (
        ("robot", spec.model), ("policy_fingerprint", spec.policy_fingerprint), ("actor", f"{actor.identity:016x}"),
    ):  # fmt: skip
        if found.get(name) != wanted:
            raise ExportError(f"ONNX file: its {name} is {found.get(name)!r}, expected {wanted!r}; compile the actor for this robot again")
