"""Opens an ONNX file that others wrote: what is read at all, its weights as float64, and constants worked out.

Follows no chain (`foreign_graph.py` does). Rule that must stay true: nothing outside the file is opened, and no number that is
not finite leaves this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edge_dsac.records import Float

MOST_BYTES = 64 << 20  # a policy has some hundred kB; more is a mistaken file
RECURRENT = ("LSTM", "GRU", "RNN")
ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}
ACTIVATIONS = {"Relu": "relu", "Tanh": "tanh", "Elu": "elu", "Gelu": "gelu"}
SHAPES = ("Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Cast", "Dropout")
KNOWN = ("Gemm", "MatMul", *ARITHMETIC, *ACTIVATIONS, "Clip", *SHAPES, "Constant")


class ForeignError(ValueError):
    """A policy from elsewhere that is not taken over, and why."""

    refused = True


def parsed(data: bytes, source: str) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    if len(data) > MOST_BYTES:
        raise ForeignError(f"{source}: expected at most {MOST_BYTES} bytes, got {len(data)}; is it a policy?")
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError:
        raise ForeignError(f"{source}: not an ONNX file") from None
    if not model.graph.node:
        raise ForeignError(f"{source}: not an ONNX file with a graph")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise ForeignError(f"{source}: its weights lie in another file; export it again with everything in one (external_data=False)")
    if model.functions or model.graph.sparse_initializer:
        raise ForeignError(f"{source}: functions of its own or sparse weights; export it again without them")
    keys = [entry.key for entry in model.metadata_props]
    if len(keys) != len(set(keys)):
        raise ForeignError(f"{source}: a metadata key is there twice; which one holds?")
    return model


def constants_of(graph: Any, source: str) -> dict[str, Float]:
    return {tensor.name: numbers(tensor, f"{source}: weights {tensor.name!r}") for tensor in graph.initializer}


def numbers(tensor: Any, where: str) -> Float:
    from onnx import numpy_helper

    try:
        values = np.asarray(numpy_helper.to_array(tensor), np.float64)
    except (ValueError, TypeError) as error:
        raise ForeignError(f"{where}: cannot be read: {error}") from None
    if not np.isfinite(values).all():
        raise ForeignError(f"{where}: NaN or infinity in them; the run that made them diverged")
    return values


def one_input(graph: Any, constants: dict[str, Float], source: str) -> str:
    names = [value.name for value in graph.input if value.name not in constants]
    if len(names) != 1:
        advice = ""
        if "time_step" in names:
            advice = "; one that follows a recorded motion has the motion inside: export the actor alone"
        elif any(name.startswith(("h_", "c_", "hidden")) for name in names):
            advice = "; a recurrent policy cannot be taken over: train it with a history of observations instead"
        raise ForeignError(f"{source}: expected one input, got {', '.join(names) or 'none'}{advice}")
    kind = next(value for value in graph.input if value.name == names[0]).type.tensor_type
    if kind.elem_type != 1 or len(kind.shape.dim) not in (1, 2):
        raise ForeignError(
            f"{source}: expected float32 [n] or [batch, n] as input, got type {kind.elem_type} of {len(kind.shape.dim)} dimensions"
        )
    return str(names[0])


def one_output(graph: Any, source: str) -> str:
    if len(graph.output) != 1:
        raise ForeignError(f"{source}: expected one output, got {', '.join(value.name for value in graph.output)}; export the actor alone")
    return str(graph.output[0].name)


def refuse_foreign(node: Any, source: str) -> None:
    if node.domain not in ("", "ai.onnx"):
        raise ForeignError(f"{source}: {named(node)} is of the domain {node.domain!r}; only ONNX's own operators are read")
    if node.op_type in RECURRENT:
        raise ForeignError(
            f"{source}: {named(node)}: a recurrent policy cannot be taken over: train it with a history of observations instead"
        )
    if node.op_type not in (*KNOWN, "Erf", "Sqrt", "Transpose"):
        raise ForeignError(f"{source}: {named(node)} is not read; only {', '.join(KNOWN)} are")


def named(node: Any) -> str:
    return f"{node.op_type} ({node.name})" if node.name else f"{node.op_type} -> {', '.join(node.output)}"


def attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def fold_constant(node: Any, constants: dict[str, Float], source: str) -> None:
    values, given = [constants[name] for name in node.input if name], attributes(node)
    if node.op_type == "Constant":
        name, value = next(iter(given.items()))
        if name not in ("value", "value_float", "value_floats", "value_int", "value_ints"):
            raise ForeignError(f"{source}: {named(node)}: a constant of kind {name!r}")
        result = numbers(value, f"{source}: {named(node)}") if name == "value" else np.asarray(value, np.float64)
    elif node.op_type in ARITHMETIC:
        if np.prod(np.broadcast_shapes(*(value.shape for value in values)), dtype=np.float64) > MOST_BYTES / 4:
            raise ForeignError(f"{source}: {named(node)} of constants is larger than a policy")
        with np.errstate(all="ignore"):
            result = ARITHMETIC[node.op_type](*values)
    elif node.op_type == "Sqrt":
        result = np.sqrt(np.maximum(values[0], 0.0)) if (values[0] >= 0).all() else np.full(1, np.nan)
    elif node.op_type == "Transpose":
        result = np.transpose(values[0], given.get("perm"))
    elif node.op_type == "Identity":
        result = values[0]
    else:
        raise ForeignError(f"{source}: {named(node)} of constants is not read")
    if not np.isfinite(result).all():
        raise ForeignError(f"{source}: {named(node)} of constants gives NaN or infinity")
    constants[node.output[0]] = np.asarray(result)
