"""A float32 ONNX actor -> the same with FP8 (E4M3) QuantizeLinear and DequantizeLinear pairs, for TensorRT on Ada, Hopper and Blackwell.

The first Gemm stays in float, as in INT8: behind the normaliser observations still differ in size. Scales per tensor, zero points 0,
biases float32: what TensorRT accepts. Knows no TensorRT and no robot; an Orin (SM 8.7) has no FP8.
Rule that must stay true: what comes out is finite and within FP8's range; a value beyond 448 becomes NaN in E4M3, not infinity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_dsac.bundle.actor import NONLINEARITY, Actor
from edge_dsac.records import Float

FP8_MAX = 448.0
TINIEST = 1e-30  # a layer of zeros has a scale too


class Fp8Error(ValueError):
    """A graph that is not an actor's, or ranges that do not fit it."""


def activation_ranges(actor: Actor, observations: Float) -> tuple[float, ...]:
    """The largest magnitude that goes into each layer but the first, over recorded `observations[samples, n]` in SI."""
    sums = actor.before_tanh(observations)[:-1]
    return tuple(float(np.abs(NONLINEARITY[actor.activation](total)).max()) for total in sums)


def make_fp8_onnx(float_onnx: bytes, ranges: Sequence[float]) -> bytes:
    """`ranges`: one for each Gemm but the first, in the graph's order."""
    model = onnx.load_from_string(float_onnx)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type == "Gemm"][1:]
    if len(layers) != len(ranges) or not layers:
        raise Fp8Error(f"expected a range for each of {len(layers)} layers after the first, got {len(ranges)}")
    if not all(np.isfinite(value) and value > 0.0 for value in ranges):
        raise Fp8Error(f"expected ranges above 0, got {tuple(ranges)}; calibrate with observations of a flight")
    nodes: list[Any] = []
    made: list[Any] = []
    reach = dict(zip((node.output[0] for node in layers), ranges, strict=True))
    for node in model.graph.node:
        if node.output[0] in reach:
            x, weight, *bias = node.input
            if weight not in constants:
                raise Fp8Error(f"{node.output[0]}: its weights are not a constant of the graph; start from the float32 export")
            activation = there_and_back(x, f"{node.output[0]}_x", reach[node.output[0]] / FP8_MAX, nodes, made)
            del node.input[:]
            node.input.extend([activation, stored(constants[weight], nodes, made), *bias])
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *made])
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def there_and_back(x: str, name: str, scale: float, nodes: list[Any], made: list[Any]) -> str:
    made.extend(scale_and_zero(name, scale))
    nodes.append(helper.make_node("QuantizeLinear", [x, f"{name}_scale", f"{name}_zero"], [f"{name}_q"], f"{name}_quantise"))
    return dequantised(f"{name}_q", name, nodes)


def stored(weight: Any, nodes: list[Any], made: list[Any]) -> str:
    """The weight in FP8, and the node that reads it."""
    values = numpy_helper.to_array(weight).astype(np.float32)
    scale = max(float(np.abs(values).max()), TINIEST) / FP8_MAX
    name = f"{weight.name}_fp8"
    within = np.clip(values / np.float32(scale), -FP8_MAX, FP8_MAX)  # rounding of the division may pass the limit by a hair
    made.append(helper.make_tensor(f"{name}_q", TensorProto.FLOAT8E4M3FN, values.shape, within.ravel()))
    made.extend(scale_and_zero(name, scale))
    return dequantised(f"{name}_q", name, nodes)


def dequantised(q: str, name: str, nodes: list[Any]) -> str:
    nodes.append(helper.make_node("DequantizeLinear", [q, f"{name}_scale", f"{name}_zero"], [f"{name}_back"], f"{name}_dequantise"))
    return f"{name}_back"


def scale_and_zero(name: str, scale: float) -> tuple[Any, Any]:
    return (
        numpy_helper.from_array(np.array(scale, np.float32), f"{name}_scale"),
        helper.make_tensor(f"{name}_zero", TensorProto.FLOAT8E4M3FN, (), [0.0]),
    )
