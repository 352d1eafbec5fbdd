"""Reads an ONNX policy as layers of weights, if it is a plain multilayer perceptron, and says why if it is not.

One input, one output, one chain of operators of the table below; normalisers are folded into the weights beside them. Knows no
robot: what the numbers mean is `foreign_metadata.py`'s. Rule that must stay true: an operator, attribute or shape that is not
understood is an error, never skipped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import erf, inf
from typing import Any

import numpy as np

from edge_dsac.bundle.actor import gelu
from edge_dsac.bundle.foreign_file import (
    ACTIVATIONS,
    ARITHMETIC,
    SHAPES,
    ForeignError,
    attributes,
    constants_of,
    fold_constant,
    named,
    one_input,
    one_output,
    parsed,
    refuse_foreign,
)
from edge_dsac.records import Float


@dataclass(frozen=True, slots=True)
class ForeignNetwork:
    """squash(layers(input)); all float64, normaliser and constants folded in."""

    layers: tuple[tuple[Float, Float], ...]
    activation: str
    squash: str  # "tanh" or "none"
    input_low: Float  # within these the graph's own clip of its input does nothing; -inf without one
    input_high: Float
    output_clip: float  # the graph cuts its outputs at +- this; inf if it does not
    metadata: dict[str, str]

    @property
    def inputs(self) -> int:
        return int(self.layers[0][0].shape[1])

    @property
    def outputs(self) -> int:
        return int(self.layers[-1][0].shape[0])


def read_network(data: bytes, source: str) -> ForeignNetwork:
    try:
        return follow(parsed(data, source), source)
    except ForeignError:
        raise
    except (
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        AttributeError,
        StopIteration,
    ) as error:
        raise ForeignError(f"{source}: not a well-formed graph: {type(error).__name__}: {' '.join(str(error).split())}") from None


def follow(model: Any, source: str) -> ForeignNetwork:
    graph = model.graph
    constants = constants_of(graph, source)
    start, end = one_input(graph, constants, source), one_output(graph, source)
    walk = Walk(source)
    nodes, current, at = list(graph.node), start, 0
    while at < len(nodes):
        node = nodes[at]
        taken = 1
        refuse_foreign(node, source)
        if all(name in constants for name in node.input if name):
            fold_constant(node, constants, source)
        elif current not in node.input:
            raise ForeignError(f"{source}: {named(node)} is not in one chain from {start!r} to {end!r}; only a plain perceptron is taken")
        else:
            users = [other for other in nodes if current in other.input]
            if len(users) > 1:  # GELU in pieces, as exporters below opset 20 write it
                taken, current = gelu_in_pieces(nodes[at:], current, constants, source)
                walk.activate("gelu")
            else:
                walk.step(node, current, constants)
                current = node.output[0]
        at += taken
    if current != end:
        raise ForeignError(f"{source}: the chain ends at {current!r}, the output is {end!r}")
    return walk.network({entry.key: entry.value for entry in model.metadata_props})


def gelu_in_pieces(nodes: list[Any], current: str, constants: dict[str, Float], source: str) -> tuple[int, str]:
    """Judged by what the pieces compute and not by how they are written: 5 operators, of which one is Erf, that equal GELU."""
    x = np.linspace(-6.0, 6.0, 121)
    values: dict[str, Float] = {current: x}
    pieces = 0
    for taken, node in enumerate(nodes, 1):
        refuse_foreign(node, source)
        if all(name in constants for name in node.input if name):
            fold_constant(node, constants, source)
            continue
        operands = [values.get(name, constants.get(name)) for name in node.input]
        if any(
            operand is None or (operand is not x and name in constants and operand.size != 1)
            for name, operand in zip(node.input, operands, strict=True)
        ):
            break
        if node.op_type == "Erf":
            values[node.output[0]] = np.array([erf(v) for v in values[node.input[0]]])
        elif node.op_type in ARITHMETIC and len(operands) == 2:
            values[node.output[0]] = np.asarray(ARITHMETIC[node.op_type](*operands)).reshape(-1)
        else:
            break
        pieces += 1
        if pieces == 5:
            if not np.allclose(values[node.output[0]], gelu(x), rtol=0, atol=1e-6):
                break
            later = {name for other in nodes[taken:] for name in other.input}
            if later & (set(values) - {node.output[0]}):
                break
            return taken, str(node.output[0])
    raise ForeignError(f"{source}: {current!r} goes several ways and they are not GELU; only a plain perceptron is taken")


@dataclass
class Walk:
    """Along the chain. An `open` layer has not met its activation yet: what comes is folded into its rows, else into `scale`, `shift`."""

    source: str
    layers: list[tuple[Float, Float]] = field(default_factory=list)
    activations: list[str] = field(default_factory=list)
    open: bool = False
    ended: bool = False  # by a clip of the output
    scale: Float = field(default_factory=lambda: np.ones(1))
    shift: Float = field(default_factory=lambda: np.zeros(1))
    low: Float = field(default_factory=lambda: np.full(1, -inf))
    high: Float = field(default_factory=lambda: np.full(1, inf))
    output_clip: float = inf

    def step(self, node: Any, current: str, constants: dict[str, Float]) -> None:
        kind, given = node.op_type, attributes(node)
        others = [constants.get(name) for name in node.input if name != current and name]
        if any(other is None for other in others):
            raise self.error(node, "takes something that is neither constant nor in the chain")
        values = [other for other in others if other is not None]
        if self.ended and kind not in SHAPES:
            raise self.error(node, "comes after the clip of the output")
        if kind in ("Gemm", "MatMul"):
            self.multiply(node, node.input[0] == current, values, given)
        elif kind in ARITHMETIC:
            self.shift_and_scale(node, node.input[0] == current, values)
        elif kind in ACTIVATIONS:
            if kind == "Elu" and given.get("alpha", 1.0) != 1.0:
                raise self.error(node, f"alpha {given['alpha']:g}; only 1 is read")
            if kind == "Gelu" and given.get("approximate", b"none") != b"none":
                raise self.error(node, "the tanh approximation of GELU; export the exact one")
            self.activate(ACTIVATIONS[kind], named(node))
        elif kind == "Clip":
            self.clip(node, node.input, constants, given)
        elif kind in SHAPES:
            self.keep_shape(node, values, given)
        else:
            raise self.error(node, "is read only among constants")

    def error(self, node: Any, why: str) -> ForeignError:
        return ForeignError(f"{self.source}: {node if isinstance(node, str) else named(node)}: {why}")

    def multiply(self, node: Any, first: bool, values: list[Float], given: dict[str, Any]) -> None:
        if not first or not values or values[0].ndim != 2 or given.get("transA"):
            raise self.error(node, "expected the observation times a constant matrix")
        weight = values[0] if given.get("transB") else values[0].T
        weight = weight * given.get("alpha", 1.0)
        bias: Float = np.zeros(len(weight))
        if len(values) > 1:
            bias = bias + given.get("beta", 1.0) * self.row(node, values[1], len(weight))
        if self.open:  # two in a row are one
            inner, inner_bias = self.layers.pop()
            if weight.shape[1] != len(inner):
                raise self.error(node, f"takes {weight.shape[1]} values, gets {len(inner)}")
            weight, bias = weight @ inner, weight @ inner_bias + bias
        else:
            width = weight.shape[1]
            if self.layers and len(self.layers[-1][0]) != width:
                raise self.error(node, f"takes {width} values, gets {len(self.layers[-1][0])}")
            scale, shift = (self.row(node, values, width) for values in (self.scale, self.shift))
            weight, bias = weight * scale, bias + weight @ shift
            if not self.layers:
                self.low, self.high = self.row(node, self.low, width), self.row(node, self.high, width)
            self.scale, self.shift = np.ones(1), np.zeros(1)
        self.layers.append((weight, bias))
        self.open = True

    def row(self, node: Any, values: Float, width: int) -> Float:
        if values.size not in (1, width) or (values.ndim and values.shape[-1] != values.size):
            raise self.error(node, f"expected 1 or {width} numbers, got an array {values.shape}")
        return np.broadcast_to(values.reshape(-1), (width,)).astype(np.float64)

    def shift_and_scale(self, node: Any, first: bool, values: list[Float]) -> None:
        if len(values) != 1 or (node.op_type == "Div" and not first):
            raise self.error(node, "expected the chain and one constant")
        width = len(self.layers[-1][0]) if self.layers else max(values[0].size, self.scale.size)
        value = self.row(node, values[0], width)
        if node.op_type == "Div" and not value.all():
            raise self.error(node, "divides by zero")
        factor: Float = np.ones(width)
        summand: Float = np.zeros(width)
        if node.op_type == "Add":
            summand = value
        elif node.op_type == "Sub":
            factor, summand = (factor, -value) if first else (-factor, value)  # x - constant, constant - x
        else:
            factor = value if node.op_type == "Mul" else 1.0 / value
        if self.open:
            weight, bias = self.layers[-1]
            self.layers[-1] = (weight * factor[:, None], bias * factor + summand)
        else:
            self.scale, self.shift = self.scale * factor, self.shift * factor + summand

    def activate(self, name: str, where: str = "GELU") -> None:
        if not self.open:
            raise self.error(where, "an activation that no layer comes before")
        self.activations.append(name)
        self.open = False

    def clip(self, node: Any, names: list[str], constants: dict[str, Float], given: dict[str, Any]) -> None:
        bounds = [constants[name] if name else None for name in names[1:3]] + [None, None]
        low = float(given.get("min", -inf) if bounds[0] is None else bounds[0].reshape(-1)[0])
        high = float(given.get("max", inf) if bounds[1] is None else bounds[1].reshape(-1)[0])
        if not self.layers:  # of the normalised input: in raw numbers
            with np.errstate(divide="ignore", invalid="ignore"):
                ends = np.stack([(low - self.shift) / self.scale, (high - self.shift) / self.scale])
            self.low, self.high = np.maximum(self.low, ends.min(axis=0)), np.minimum(self.high, ends.max(axis=0))
        elif self.open:
            if low != -high:
                raise self.error(node, f"clips the output at {low:g} and {high:g}; only the same on both sides is read")
            self.output_clip, self.ended = high, True
        elif self.activations[-1] != "tanh" or low > -1.0 or high < 1.0:
            raise self.error(node, "a clip after an activation")

    def keep_shape(self, node: Any, values: list[Float], given: dict[str, Any]) -> None:
        """Allowed where it cannot mix values: the last dimension stays, what comes before is the batch."""
        kind = node.op_type
        width = len(self.layers[-1][0]) if self.layers else -1
        good = kind in ("Identity", "Dropout")
        good |= kind == "Flatten" and given.get("axis", 1) == 1
        good |= kind == "Cast" and given.get("to") == 1  # float32
        good |= kind == "Reshape" and len(values) == 1 and values[0].size == 2 and values[0][-1] in (-1, width)
        good |= kind in ("Squeeze", "Unsqueeze") and len(values) == 1 and values[0].reshape(-1).tolist() == [0]
        if not good:
            raise self.error(node, "may mix values; export the actor for one plain vector")

    def network(self, metadata: dict[str, str]) -> ForeignNetwork:
        if not self.layers:
            raise ForeignError(f"{self.source}: no layer of weights in it")
        hidden = self.activations if self.open else self.activations[:-1]
        if not self.open and (self.activations[-1] != "tanh" or not (self.scale == 1).all() or self.shift.any()):
            raise ForeignError(
                f"{self.source}: ends in {self.activations[-1]} and what follows it; expected a plain layer or tanh at the end"
            )
        if len(set(hidden)) > 1:
            raise ForeignError(f"{self.source}: activations {', '.join(hidden)}; expected the same everywhere")
        if not all(np.isfinite(weight).all() and np.isfinite(bias).all() for weight, bias in self.layers):
            raise ForeignError(f"{self.source}: weights become NaN or infinity once the normaliser is folded in")
        return ForeignNetwork(
            tuple(self.layers),
            hidden[0] if hidden else "relu",
            "none" if self.open else "tanh",
            self.low,
            self.high,
            self.output_clip,
            metadata,
        )
