"""Which ONNX graphs are read, that what is read computes the same, and why others are not."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'edge_dsac[compile]'")

from foreign_files import Graph, normaliser, plain, random_layers
from onnx import TensorProto, helper

from edge_dsac.bundle.actor import NONLINEARITY
from edge_dsac.bundle.foreign_file import ForeignError
from edge_dsac.bundle.foreign_graph import read_network

LAYERS = random_layers(6)
X = np.random.default_rng(8).uniform(-2, 2, (20, 6))


def answer(network, x):
    """By hand, from what was read."""
    for weight, bias in network.layers[:-1]:
        x = NONLINEARITY[network.activation](x @ weight.T + bias)
    x = x @ network.layers[-1][0].T + network.layers[-1][1]
    return np.tanh(x) if network.squash == "tanh" else x


def wanted(layers, x, activation):
    for weight, bias in layers[:-1]:
        x = NONLINEARITY[activation](x @ weight.T + bias)
    return x @ layers[-1][0].T + layers[-1][1]


@pytest.mark.parametrize("opset", [17, 18, 20])
@pytest.mark.parametrize("style", ["Gemm", "MatMul"])
@pytest.mark.parametrize(("written", "read"), [("Elu", "elu"), ("Relu", "relu"), ("Tanh", "tanh"), ("gelu in pieces", "gelu")])
def test_perceptrons_are_read_as_they_are_written(opset, style, written, read):
    network = read_network(plain(LAYERS, written, style).model(6, opset=opset), "p.onnx")
    assert (network.activation, network.squash, network.inputs, network.outputs) == (read, "none", 6, 2)
    assert answer(network, X) == pytest.approx(wanted(LAYERS, X, read), abs=1e-5)


def test_gelu_as_one_operator_is_read_from_opset_20():
    network = read_network(plain(LAYERS, "Gelu").model(6, opset=20), "p.onnx")
    assert answer(network, X) == pytest.approx(wanted(LAYERS, X, "gelu"), abs=1e-5)


def test_the_normaliser_is_folded_into_the_first_layer():
    mean, std = np.arange(6) * 0.1, 0.5 + np.arange(6) * 0.2
    network = read_network(plain(LAYERS, before=normaliser(mean, std)).model(6), "p.onnx")
    assert len(network.layers) == 3
    assert answer(network, X) == pytest.approx(wanted(LAYERS, (X - mean) / (std + 0.01), "elu"), abs=1e-5)


def test_constant_minus_x_and_factors_behind_a_layer_are_folded():
    def before(graph):
        graph.add("Sub", graph.constant(np.full(6, 0.5)), first=False)

    def after(graph):
        graph.add("Mul", graph.constant([2.0, 3.0]))
        graph.add("Add", graph.constant([0.1, 0.2]))

    network = read_network(plain(LAYERS, before=before, after=after).model(6), "p.onnx")
    assert answer(network, X) == pytest.approx(wanted(LAYERS, 0.5 - X, "elu") * [2.0, 3.0] + [0.1, 0.2], abs=1e-5)


def test_a_tanh_at_the_end_and_a_clip_of_the_output_are_told_apart():
    assert read_network(plain(LAYERS, after=lambda graph: graph.add("Tanh")).model(6), "p.onnx").squash == "tanh"
    clipped = read_network(
        plain(LAYERS, after=lambda graph: graph.add("Clip", graph.constant(-3.0), graph.constant(3.0))).model(6), "p.onnx"
    )
    assert (clipped.squash, clipped.output_clip) == ("none", 3.0)


def test_a_clip_of_the_normalised_input_is_told_in_raw_numbers():
    def before(graph):
        normaliser(np.full(6, 1.0), np.full(6, 1.99))(graph)
        graph.add("Clip", graph.constant(-5.0), graph.constant(5.0))

    network = read_network(plain(LAYERS, before=before).model(6), "p.onnx")
    assert network.input_low == pytest.approx(np.full(6, 1.0 - 10.0))  # (x - 1) / 2 = -5
    assert network.input_high == pytest.approx(np.full(6, 1.0 + 10.0))


def test_shapes_that_change_nothing_are_passed():
    def before(graph):
        graph.add("Identity")
        graph.add("Flatten", axis=1)

    network = read_network(plain(LAYERS, before=before).model(6), "p.onnx")
    assert answer(network, X) == pytest.approx(wanted(LAYERS, X, "elu"), abs=1e-5)


def bad_weight(value):
    layers = [(weight.copy(), bias.copy()) for weight, bias in LAYERS]
    layers[1][0][2, 3] = value
    return plain(layers).model(6)


def with_node(*words, **attributes):
    return plain(LAYERS, after=lambda graph: graph.add(*words, **attributes)).model(6)


def mixed():
    graph = Graph()
    for (weight, bias), activation in zip(LAYERS, ("Elu", "Relu", None), strict=True):
        graph.dense(weight, bias)
        if activation:
            graph.activate(activation)
    return graph.model(6)


def residual():
    graph = plain(LAYERS[:2])
    graph.add("Add", "v1")  # what came behind the first activation
    return graph.model(6)


def not_quite_gelu():
    graph = Graph()
    graph.dense(*LAYERS[0])
    x = graph.chain
    graph.add("Div", graph.constant(1.5))
    graph.add("Erf")
    graph.add("Add", graph.constant(1.0))
    graph.add("Mul", x)
    graph.add("Mul", graph.constant(0.5))
    graph.dense(LAYERS[1][0], LAYERS[1][1])
    return graph.model(6)


def external():
    model = onnx.load_model_from_string(plain(LAYERS).model(6))
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    entry = model.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    return model.SerializeToString()


def recurrent():
    graph = Graph()
    graph.nodes.append(
        helper.make_node("LSTM", ["obs", graph.constant(np.zeros((1, 8, 6))), graph.constant(np.zeros((1, 8, 2)))], ["y"], hidden_size=2)
    )
    graph.chain = "y"
    return graph.model(6)


def foreign_domain():
    graph = plain(LAYERS)
    graph.nodes.append(helper.make_node("FusedGelu", [graph.chain], ["y"], domain="com.microsoft"))
    graph.chain = "y"
    return graph.model(6)


def without_operands():
    graph = plain(LAYERS)
    del graph.nodes[0].input[1:]
    return graph.model(6)


def outer_sum():
    """Two small constants, a sum of 8 TB."""
    graph = Graph()
    graph.nodes.append(helper.make_node("Add", [graph.constant(np.zeros((1, 1000000))), graph.constant(np.zeros((1000000, 1)))], ["sum"]))
    graph.add("Add", "sum")
    return graph.model(6)


def twice_the_same_key():
    model = onnx.load_model_from_string(plain(LAYERS).model(6))
    for value in ("a,b", "b,a"):
        entry = model.metadata_props.add()
        entry.key, entry.value = "joint_names", value
    return model.SerializeToString()


REFUSED = {
    "nan": (lambda: bad_weight(np.nan), "weights 'c2': NaN or infinity"),
    "infinity": (lambda: bad_weight(np.inf), "weights 'c2': NaN or infinity"),
    "recurrent": (recurrent, "LSTM .*: a recurrent policy cannot be taken over"),
    "recurrent by its inputs": (lambda: plain(LAYERS).model(6, more_inputs=("h_in", "c_in")), "one input, got obs, h_in, c_in; a recurrent"),
    "a recorded motion": (lambda: plain(LAYERS).model(6, more_inputs=("time_step",)), "one input, got obs, time_step; .*recorded motion"),
    "several outputs": (lambda: plain(LAYERS).model(6, more_outputs=("v1",)), "one output"),
    "external weights": (external, "its weights lie in another file"),
    "an unknown operator": (lambda: with_node("Softmax"), "Softmax .* is not read; only Gemm"),
    "softplus": (lambda: plain(LAYERS, "Softplus").model(6), "Softplus .* is not read"),
    "another domain": (foreign_domain, "of the domain 'com.microsoft'"),
    "another alpha": (lambda: plain(LAYERS, after=lambda g: (g.add("Elu", alpha=0.5), g.dense(np.eye(2), np.zeros(2)))).model(6), "alpha 0.5"),
    "mixed activations": (mixed, "activations elu, relu; expected the same everywhere"),
    "a residual connection": (residual, "goes several ways and they are not GELU"),
    "not quite gelu": (not_quite_gelu, "goes several ways and they are not GELU"),
    "relu at the end": (lambda: with_node("Relu"), "ends in relu"),
    "scaled behind the tanh": (lambda: plain(LAYERS, after=lambda g: (g.add("Tanh"), g.add("Mul", g.constant(2.0)))).model(6), "ends in tanh and what follows"),
    "a lopsided clip": (lambda: plain(LAYERS, after=lambda g: g.add("Clip", g.constant(-1.0), g.constant(2.0))).model(6), "clips the output at -1 and 2"),
    "a clip, then more": (
        lambda: plain(LAYERS, after=lambda g: (g.add("Clip", g.constant(-1.0), g.constant(1.0)), g.add("Mul", g.constant(2.0)))).model(6),
        "comes after the clip",
    ),
    "a reshape that mixes": (lambda: plain(LAYERS, before=lambda g: g.add("Reshape", g.constant([2, 3], np.int64))).model(6), "may mix values"),
    "a division by zero": (lambda: plain(LAYERS, before=lambda g: g.add("Div", g.constant(np.zeros(6)))).model(6), "divides by zero"),
    "a normaliser of the wrong width": (lambda: plain(LAYERS, before=lambda g: g.add("Sub", g.constant(np.zeros(5)))).model(6), "expected 1 or 6 numbers"),
    "a metadata key twice": (twice_the_same_key, "key is there twice"),
    "another output": (lambda: plain(LAYERS).model(6, output="v2"), "the output is 'v2'"),
    "an operator without operands": (without_operands, "expected the observation times a constant matrix"),
    "constants that grow": (outer_sum, "of constants is larger than a policy"),
    "garbage": (lambda: b"\x08\x07garbage", "not an ONNX file"),
    "nothing": (lambda: b"", "not an ONNX file"),
    "no weights": (lambda: Graph().model(6, output="obs"), "not an ONNX file with a graph"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_a_plain_perceptron_is_refused_with_the_reason(case):
    make, said = REFUSED[case]
    with pytest.raises(ForeignError, match=said) as caught:
        read_network(make(), "p.onnx")
    assert caught.value.refused
    assert str(caught.value).startswith("p.onnx: ")


def test_spoilt_files_are_read_or_refused_by_name(generator):
    whole = plain(random_layers(4, widths=(3,)), before=normaliser(np.zeros(4), np.ones(4))).model(4, {"joint_names": "a,b"})
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        for at in generator.integers(0, len(data), 3):
            data[at] = generator.integers(0, 256)
        try:
            read_network(bytes(data), "p.onnx")
        except ForeignError:
            refused += 1
    assert refused > 100
