"""ONNX graphs of actors, as export writes them, and as nobody should: Mul (normaliser) -> Gemm -> Gelu -> ... -> Tanh."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZES = (17, 256, 256, 256, 6)
OPSET, IR = 20, 10
INT8_REACH, FP8_REACH = 127.0, 448.0
ACTIVATION_RANGE = 4.0


def make_layers(sizes=SIZES, seed=3):
    generator = np.random.default_rng(seed)
    return [
        ((generator.normal(size=(b, a)) / np.sqrt(a)).astype(np.float32), (generator.normal(size=b) * 0.1).astype(np.float32))
        for a, b in zip(sizes, sizes[1:], strict=False)
    ]


class Graph:
    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, name, array):
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def fp8(self, name, array):
        array = np.asarray(array, np.float32)
        self.constants.append(helper.make_tensor(name, TensorProto.FLOAT8E4M3FN, array.shape, array.ravel()))
        return name

    def add(self, kind, inputs, output, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def through_int8(self, x, name, weight, x_zero, weight_zero):
        """Activations per tensor, weights per output."""
        scale = np.abs(weight).max(1) / INT8_REACH
        self.constant(f"{name}_q", np.clip(np.rint(weight / scale[:, None]), -127, 127).astype(np.int8))
        self.constant(f"{name}_s", scale.astype(np.float32))
        self.constant(f"{name}_z", np.full(len(scale), weight_zero, np.int8))
        self.add("DequantizeLinear", [f"{name}_q", f"{name}_s", f"{name}_z"], name, axis=0)
        self.constant(f"{name}_xs", np.float32(ACTIVATION_RANGE / INT8_REACH))
        self.constant(f"{name}_xz", np.int8(x_zero))
        return self.there_and_back(x, name)

    def through_fp8(self, x, name, weight):
        scale = np.abs(weight).max() / FP8_REACH
        self.fp8(f"{name}_q", weight / scale)
        self.constant(f"{name}_s", np.float32(scale))
        self.fp8(f"{name}_z", 0.0)
        self.add("DequantizeLinear", [f"{name}_q", f"{name}_s", f"{name}_z"], name)
        self.constant(f"{name}_xs", np.float32(ACTIVATION_RANGE / FP8_REACH))
        self.fp8(f"{name}_xz", 0.0)
        return self.there_and_back(x, name)

    def there_and_back(self, x, name):
        q = self.add("QuantizeLinear", [x, f"{name}_xs", f"{name}_xz"], f"{name}_xq")
        return self.add("DequantizeLinear", [q, f"{name}_xs", f"{name}_xz"], f"{name}_xd")


def make_onnx(kind="fp32", layers=None, *, quantised_from=1, x_zero=0, weight_zero=0, int32_bias=False, before_tanh=None, batch=1):
    layers, graph = layers or make_layers(), Graph()
    observations, actions = layers[0][0].shape[1], layers[-1][0].shape[0]
    real = np.float16 if kind == "fp16" else np.float32
    x = graph.add("Cast", ["obs"], "obs16", to=TensorProto.FLOAT16) if kind == "fp16" else "obs"
    x = graph.add("Mul", [x, graph.constant("scale", np.ones(observations, real))], "scaled")
    for i, (weight, bias) in enumerate(layers):
        name = f"w{i}"
        if kind == "int8" and i >= quantised_from:
            x = graph.through_int8(x, name, weight, x_zero, weight_zero)
        elif kind == "fp8" and i >= quantised_from:
            x = graph.through_fp8(x, name, weight)
        else:
            graph.constant(name, weight.astype(real))
        if int32_bias and i:
            graph.constant(f"b{i}_q", np.rint(bias / 1e-4).astype(np.int32))
            graph.add("DequantizeLinear", [f"b{i}_q", graph.constant(f"b{i}_s", np.float32(1e-4))], f"b{i}")
        else:
            graph.constant(f"b{i}", bias.astype(real))
        x = graph.add("Gemm", [x, name, f"b{i}"], f"sum{i}", transB=1)
        if i < len(layers) - 1:
            x = graph.add("Gelu", [x], f"hidden{i}")
    if before_tanh:
        x = graph.add(before_tanh, [x], "odd")
    if kind == "fp16":
        graph.add("Cast", [graph.add("Tanh", [x], "action16")], "action", to=TensorProto.FLOAT)
    else:
        graph.add("Tanh", [x], "action")
    model = helper.make_model(
        helper.make_graph(
            graph.nodes, "actor",
            [helper.make_tensor_value_info("obs", TensorProto.FLOAT, [batch, observations])],
            [helper.make_tensor_value_info("action", TensorProto.FLOAT, [batch, actions])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
    )  # fmt: skip
    onnx.checker.check_model(model)
    return model.SerializeToString()
