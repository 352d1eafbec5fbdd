"""FP8 written into a float32 graph: what it computes, by onnxruntime on the CPU, and what is refused."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'edge_dsac[compile]'")

from onnx_actors import make_layers, make_onnx

from edge_dsac.bundle.actor import Actor
from edge_dsac.bundle.quantize_fp8 import Fp8Error, activation_ranges, make_fp8_onnx

SIZES = (12, 64, 64, 2)
LAYERS = make_layers(SIZES)
ACTOR = Actor(tuple(LAYERS), "gelu", np.ones(12, np.float32), "f" * 8, 1)
OBS = np.random.default_rng(4).normal(size=(200, 12)).astype(np.float32)


def kinds(model):
    return [node.op_type for node in onnx.load_from_string(model).graph.node]


def test_ranges_are_the_largest_value_that_goes_into_each_layer():
    hidden = np.maximum(0, OBS @ LAYERS[0][0].T + LAYERS[0][1])  # relu: easy by hand
    relu = Actor(tuple(LAYERS), "relu", np.ones(12, np.float32), "f" * 8, 1)
    found = activation_ranges(relu, OBS)
    assert len(found) == 2
    assert found[0] == pytest.approx(hidden.max(), rel=1e-5)


def test_every_layer_but_the_first_is_quantised_and_the_float_weights_are_gone():
    model = make_fp8_onnx(make_onnx("fp32", LAYERS), activation_ranges(ACTOR, OBS))
    assert kinds(model) == [
        "Mul", "Gemm", "Gelu", "QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "Gemm", "Gelu",
        "QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "Gemm", "Tanh",
    ]  # fmt: skip
    constants = {tensor.name: tensor for tensor in onnx.load_from_string(model).graph.initializer}
    assert {"w0", "b0", "b1", "b2"} <= set(constants)
    assert not {"w1", "w2"} & set(constants)
    assert constants["w1_fp8_q"].data_type == onnx.TensorProto.FLOAT8E4M3FN
    assert constants["b1"].data_type == onnx.TensorProto.FLOAT


def test_the_same_actor_gives_the_same_bytes():
    assert make_fp8_onnx(make_onnx("fp32", LAYERS), (3.0, 3.0)) == make_fp8_onnx(make_onnx("fp32", LAYERS), (3.0, 3.0))


@pytest.mark.slow
def test_its_actions_are_the_actors_to_what_three_bits_of_mantissa_allow():
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'edge_dsac[compile]'")
    model = make_fp8_onnx(make_onnx("fp32", LAYERS), activation_ranges(ACTOR, OBS))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = np.array([session.run(["action"], {"obs": row[None]})[0][0] for row in OBS])
    wanted = ACTOR.act(OBS)
    ratio_db = 10 * np.log10((wanted**2).mean() / ((found - wanted) ** 2).mean())
    assert 20.0 < ratio_db < 50.0  # above 50 it would not have been quantised
    assert np.abs(found - wanted).max() < 0.2


@pytest.mark.slow
def test_a_clipped_policy_of_elu_is_quantised_too():
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'edge_dsac[compile]'")
    from edge_dsac.bundle.export import both_outputs, make_graph

    actor = Actor(tuple(LAYERS), "elu", np.ones(12, np.float32), "f" * 8, 1, "clip")
    model = make_fp8_onnx(make_graph(actor, np.eye(2), {}), activation_ranges(actor, OBS))
    assert [kind for kind in kinds(model) if "Linear" not in kind] == ["Mul", "Gemm", "Elu", "Gemm", "Elu", "Gemm", "Clip", "MatMul"]
    found, wanted = both_outputs(model, OBS)[0], actor.act(OBS)
    assert 1e-3 < np.abs(found - wanted).mean() < 0.05
    assert np.abs(found).max() <= 1.0


@pytest.mark.parametrize(
    ("graph", "ranges", "said"),
    [
        (make_onnx("fp32", LAYERS), (3.0,), "a range for each of 2 layers after the first, got 1"),
        (make_onnx("fp32", LAYERS), (3.0, 0.0), "expected ranges above 0"),
        (make_onnx("fp32", LAYERS), (3.0, float("nan")), "expected ranges above 0"),
        (make_onnx("int8", LAYERS), (3.0, 3.0), "its weights are not a constant of the graph; start from the float32 export"),
    ],
    ids=["too few", "zero", "nan", "quantised already"],
)
def test_what_cannot_be_quantised_is_refused(graph, ranges, said):
    with pytest.raises(Fp8Error, match=said):
        make_fp8_onnx(graph, ranges)
