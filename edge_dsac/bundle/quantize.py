"""int8 for TensorRT and onnxruntime: explicit QuantizeLinear and DequantizeLinear pairs in the ONNX file, by static calibration.

The first layer stays float: behind a normaliser observations still differ in size by a hundred, and with it in int8 the actions were
off by up to 1.9 of 2. Biases stay float and zero points are 0, or TensorRT refuses the file; sums (Gemm outputs) stay float, or the
action itself would have 8 bits. Min and max, not percentiles: what clipping cuts off is what a robot that is about to fall sees.
Rule that must stay true: what is returned was looked at, since a conversion can report success and stay float.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from edge_dsac.bundle.onnx_check import ExportError
from edge_dsac.records import Float

FIRST = "layer0"


class Rows(CalibrationDataReader):  # type: ignore[misc]
    """One observation at a time, in their order."""

    def __init__(self, obs: Float) -> None:
        self.left: Iterator[Float] = iter(np.asarray(obs, np.float32))

    def get_next(self) -> dict[str, Float] | None:
        row = next(self.left, None)
        return None if row is None else {"obs": row[None]}


def make_int8_onnx(model: bytes, observations: Float) -> bytes:
    """`model`: what make_onnx wrote in float32. `observations[samples, n]` in SI: what the ranges inside are taken from."""
    if observations.ndim != 2 or not len(observations) or not np.isfinite(observations).all():
        raise ExportError(f"calibration: expected finite observations [samples, n], got the shape {observations.shape}")
    source = onnx.load_from_string(model)
    with tempfile.TemporaryDirectory() as folder, quiet():
        out = Path(folder) / "int8.onnx"
        quantize_static(
            source, out, Rows(observations), quant_format=QuantFormat.QDQ, op_types_to_quantize=["Gemm"], per_channel=True,
            activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, nodes_to_exclude=[FIRST],
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False, "OpTypesToExcludeOutputQuantization": ["Gemm"],
            },
        )  # fmt: skip
        made = onnx.load(out)
    before = onnx.load_from_string(model)
    del made.metadata_props[:]  # the tool adds its own
    made.metadata_props.extend(before.metadata_props)
    made.producer_name, made.producer_version = before.producer_name, before.producer_version
    expect_quantised(made)
    return bytes(made.SerializeToString(deterministic=True))


@contextmanager
def quiet() -> Iterator[None]:
    """It advises, through the root logger, a preparation that a graph without convolutions has no use for."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def expect_quantised(model: Any) -> None:
    """Every layer but the first: its input through a pair, its weights int8 by rows, its bias float; the first: none of it."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    made_by = {output: node for node in model.graph.node for output in node.output}
    first, *others = [node for node in model.graph.node if node.op_type == "Gemm"]
    if first.input[0] in made_by and made_by[first.input[0]].op_type == "DequantizeLinear" or first.input[1] not in constants:
        raise ExportError("int8: the first layer was quantised; it must stay float")
    for gemm in others:
        back = operator_before(gemm.input[0], "DequantizeLinear", made_by, gemm.name)
        there = operator_before(back.input[0], "QuantizeLinear", made_by, gemm.name)
        weight = operator_before(gemm.input[1], "DequantizeLinear", made_by, gemm.name)
        stored = constants.get(weight.input[0])
        if stored is None or stored.data_type != TensorProto.INT8 or constants[weight.input[1]].dims != stored.dims[:1]:
            raise ExportError(f"int8: the weights of {gemm.name} are not int8 with a scale for each row")
        if gemm.input[2] not in constants or constants[gemm.input[2]].data_type != TensorProto.FLOAT:
            raise ExportError(f"int8: the bias of {gemm.name} was quantised; TensorRT refuses that")
        for node in (there, back, weight):
            if len(node.input) > 2 and numpy_helper.to_array(constants[node.input[2]]).any():
                raise ExportError(f"int8: {node.name} has a zero point; TensorRT refuses that")
    pairs = sum(node.op_type == "QuantizeLinear" for node in model.graph.node)
    if not others or pairs != len(others):
        raise ExportError(f"int8: expected {len(others)} QuantizeLinear, one before each layer but the first, got {pairs}")


def operator_before(name: str, wanted: str, made_by: dict[str, Any], layer: str) -> Any:
    node = made_by.get(name)
    if node is None or node.op_type != wanted:
        raise ExportError(f"int8: {layer} stayed float: expected {wanted} before {name}, got {node.op_type if node else 'a constant'}")
    return node
