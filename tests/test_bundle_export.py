"""The ONNX files: the same bytes, the same answers, and nothing in them that is not on the list."""

import dataclasses
import math

import numpy as np
import onnx
import pytest
from made_up_actor import random_actor, spread_observations
from onnx import TensorProto, helper, numpy_helper

from edge_dsac.bundle.actor import Actor, ActorError
from edge_dsac.bundle.export import agreement, both_outputs, make_onnx, operators
from edge_dsac.bundle.half import act_float16
from edge_dsac.bundle.onnx_check import ExportError, check_onnx
from edge_dsac.bundle.ort_engine import OrtEngine
from edge_dsac.bundle.quantize import expect_quantised, make_int8_onnx
from edge_dsac.records import Observation
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import load_robot

BOT, ROVER = load_robot("balance_bot"), load_robot("rover")
ACTOR = random_actor(BOT)
OBS = spread_observations(BOT)


@pytest.fixture(scope="module")
def model():
    return make_onnx(ACTOR, BOT)


@pytest.fixture(scope="module")
def int8(model):
    return make_int8_onnx(model, OBS)


# ---- float32


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "squash"), [("gelu", "tanh"), ("relu", "tanh"), ("tanh", "tanh"), ("elu", "clip"), ("elu", "tanh")])
@pytest.mark.parametrize("spec", [BOT, ROVER], ids=["balance_bot", "rover"])
def test_pytorch_onnxruntime_and_numpy_agree(spec, activation, squash):
    actor = random_actor(spec, activation=activation, squash=squash)
    model = make_onnx(actor, spec)
    check_onnx(model, actor, spec)
    found = agreement(model, actor, spec, spread_observations(spec))
    assert 0 < max(found.torch, found.onnxruntime, found.numpy) < 1e-5
    assert found.observations == 200


def test_one_action_worked_by_hand(model):
    """SI in, SI out: the normaliser and the command's matrix are in the file."""
    layout, row = ObservationLayout(BOT), OBS[3].astype(float)
    x = row * layout.scale
    for weight, bias in ACTOR.layers[:-1]:
        x = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in weight @ x + bias])
    common, differential = np.tanh(ACTOR.layers[-1][0] @ x + ACTOR.layers[-1][1])
    action, command = both_outputs(model, OBS[3:4])
    assert action[0] == pytest.approx([common, differential], abs=2e-6)
    # balance_bot mixes 0.8 of common into both wheels and 0.2 of differential, left backwards
    assert command[0] == pytest.approx([0.8 * common - 0.2 * differential, 0.8 * common + 0.2 * differential], abs=2e-6)


def test_the_same_actor_gives_the_same_bytes_and_another_gives_others(model):
    assert make_onnx(ACTOR, BOT) == model
    assert make_onnx(random_actor(BOT, seed=4), BOT) != model


def test_the_file_says_whose_it_is(model):
    found = {entry.key: entry.value for entry in onnx.load_from_string(model).metadata_props}
    assert found["robot"] == "balance_bot"
    assert found["policy_fingerprint"] == BOT.policy_fingerprint
    assert found["actor"] == "1234567890abcdef"
    assert found["actions"] == "common,differential"
    assert found["observations"].split(",")[0] == "pitch_rad"
    assert found["commands"] == "left_wheel:duty,right_wheel:duty"


@pytest.mark.slow
def test_another_actors_file_does_not_agree(model):
    layers = list(ACTOR.layers)
    layers[1] = (layers[1][0].copy(), layers[1][1])
    layers[1][0][5, 7] += 0.02
    with pytest.raises(ExportError, match=r"agree within 1e-05, off are onnxruntime by"):
        agreement(model, dataclasses.replace(ACTOR, layers=tuple(layers)), BOT, OBS)


# ---- float16


def test_float16_holds_float16_between_a_float32_normaliser_and_a_float32_tanh():
    model = make_onnx(ACTOR, BOT, "float16")
    check_onnx(model, ACTOR, BOT)
    assert operators(model) == ["Mul", "Cast", "Gemm", "Gelu", "Gemm", "Gelu", "Gemm", "Cast", "Tanh", "MatMul"]
    kinds = {tensor.name: tensor.data_type for tensor in onnx.load_from_string(model).graph.initializer}
    assert kinds.pop("obs_scale") == kinds.pop("to_command") == TensorProto.FLOAT
    assert set(kinds.values()) == {TensorProto.FLOAT16}


def test_float16_in_numpy_is_as_far_from_float32_as_the_file_is():
    """onnxruntime on a processor rounds fewer steps than a GPU; both are of one size, and neither is 0."""
    wanted = ACTOR.act(OBS)
    file = np.abs(both_outputs(make_onnx(ACTOR, BOT, "float16"), OBS)[0] - wanted)
    ours = np.abs(act_float16(ACTOR, OBS) - wanted)
    assert 5e-5 < file.mean() < 2e-3
    assert 0.5 < ours.mean() / file.mean() < 2.5


def one_by_one(last, bias, activation):
    layers = ((np.ones((1, 1), np.float32), np.zeros(1, np.float32)), (np.array([[last]], np.float32), np.array([bias], np.float32)))
    return Actor(layers, activation, np.ones(1, np.float32), "", 1)


def test_float16_in_numpy_rounds_weights_sums_and_what_nonlinearities_give():
    """From 1 on float16 has steps of 2^-10, and tanh(1) = .76159 becomes .76171875."""
    one, little = np.ones((1, 1)), 2.0**-12
    assert act_float16(one_by_one(1.0 + little, 0.0, "relu"), one) == np.tanh(np.float32(1.0))  # the weight
    assert act_float16(one_by_one(1.0, little, "relu"), one) == np.tanh(np.float32(1.0))  # the sum
    assert act_float16(one_by_one(1.0, -0.76171875, "tanh"), one) == 0.0  # the nonlinearity


def test_a_clipped_policy_of_elu_is_written_as_one_in_every_precision():
    actor = random_actor(BOT, activation="elu", squash="clip")
    whole = make_onnx(actor, BOT)
    files = {"float32": whole, "float16": make_onnx(actor, BOT, "float16"), "int8": make_int8_onnx(whole, OBS)}
    kinds = {name: [kind for kind in operators(file) if "Linear" not in kind] for name, file in files.items()}
    layers = ["Mul", "Gemm", "Elu", "Gemm", "Elu", "Gemm"]
    assert kinds["float32"] == kinds["int8"] == [*layers, "Clip", "MatMul"]
    assert kinds["float16"] == ["Mul", "Cast", *layers[1:], "Cast", "Clip", "MatMul"]
    wanted = actor.act(OBS)
    assert 0.05 < (np.abs(wanted) == 1.0).mean() < 0.95  # both ends and what lies between
    assert np.abs(both_outputs(whole, OBS)[0] - wanted).max() < 1e-5
    half = np.abs(both_outputs(files["float16"], OBS)[0] - wanted)
    assert 5e-5 < half.mean() < 4e-3
    assert 0.5 < np.abs(act_float16(actor, OBS) - wanted).mean() / half.mean() < 2.5
    assert 1e-3 < np.abs(both_outputs(files["int8"], OBS)[0] - wanted).mean() < 0.04
    for file in files.values():
        check_onnx(file, actor, BOT)


def test_a_nonlinearity_that_the_file_cannot_say_is_refused():
    with pytest.raises(ActorError, match="the ONNX file: knows gelu, relu, tanh, elu, the actor has swish"):
        make_onnx(dataclasses.replace(ACTOR, activation="swish"), BOT)
    with pytest.raises(ActorError, match="the ONNX file: ends in tanh, clip, the actor in none"):
        make_onnx(dataclasses.replace(ACTOR, squash="none"), BOT)


def test_a_weight_beyond_float16_is_refused():
    layers = ((ACTOR.layers[0][0] * np.float32(1e6), ACTOR.layers[0][1]), *ACTOR.layers[1:])
    with pytest.raises(ExportError, match=r"w0: a value of .* does not fit float16 \(at most 65504\); keep float32"):
        make_onnx(dataclasses.replace(ACTOR, layers=layers), BOT, "float16")
    with pytest.raises(ExportError, match="'bfloat16' cannot be exported; expected one of float32, float16"):
        make_onnx(ACTOR, BOT, "bfloat16")


# ---- int8


def test_int8_is_int8_in_every_layer_but_the_first(int8):
    check_onnx(int8, ACTOR, BOT)
    assert [name for name in operators(int8) if name != "DequantizeLinear"] == [
        "Mul", "Gemm", "Gelu", "QuantizeLinear", "Gemm", "Gelu", "QuantizeLinear", "Gemm", "Tanh", "MatMul"
    ]  # fmt: skip
    kinds = {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in onnx.load_from_string(int8).graph.initializer}
    assert kinds["w0"] == (TensorProto.FLOAT, (16, 11))
    assert kinds["w1_quantized"] == (TensorProto.INT8, (24, 16))
    assert kinds["w1_scale"] == (TensorProto.FLOAT, (24,))
    assert kinds["b1"] == (TensorProto.FLOAT, (24,))


def test_int8_answers_nearly_as_float32_and_not_exactly(int8):
    off = np.abs(both_outputs(int8, OBS)[0] - ACTOR.act(OBS))
    assert 1e-3 < off.mean() < 0.02
    assert off.max() < 0.2


@pytest.mark.slow
def test_int8_has_the_same_bytes_again_and_others_from_other_observations(model, int8):
    assert make_int8_onnx(model, OBS) == int8
    assert make_int8_onnx(model, OBS * 0.5) != int8


def test_a_file_that_silently_stayed_float_is_found(model):
    with pytest.raises(ExportError, match="layer1 stayed float: expected DequantizeLinear"):
        expect_quantised(onnx.load_from_string(model))


def changed(model, change):
    parsed = onnx.load_from_string(model)
    change(parsed)
    return parsed


def test_a_half_quantised_file_is_found(int8):
    def float_input(parsed):
        next(node for node in parsed.graph.node if node.name == "layer2").input[0] = "x2"

    def float_weights(parsed):
        tensor = next(tensor for tensor in parsed.graph.initializer if tensor.name == "w2_quantized")
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), "w2_quantized"))

    def zero_point(parsed):
        tensor = next(tensor for tensor in parsed.graph.initializer if tensor.name == "x1_zero_point")
        tensor.CopyFrom(numpy_helper.from_array(np.array(3, np.int8), "x1_zero_point"))

    def first_layer(parsed):
        next(node for node in parsed.graph.node if node.name == "layer0").input[1] = "w1_DequantizeLinear_Output"

    for change, said in (
        (float_input, "layer2 stayed float"), (float_weights, "weights of layer2 are not int8"), (zero_point, "has a zero point"),
        (first_layer, "the first layer was quantised"),
    ):  # fmt: skip
        with pytest.raises(ExportError, match=said):
            expect_quantised(changed(int8, change))


@pytest.mark.parametrize("obs", [OBS[:0], OBS[0], np.full_like(OBS, np.nan)], ids=["none", "one row flat", "nan"])
def test_calibration_observations_that_are_none_are_refused(model, obs):
    with pytest.raises(ExportError, match="calibration: expected finite observations"):
        make_int8_onnx(model, obs)


# ---- what is refused


def node_of(parsed, name):
    return next(node for node in parsed.graph.node if node.name == name)


def constant_of(parsed, name):
    return next(tensor for tensor in parsed.graph.initializer if tensor.name == name)


def set_constant(parsed, name, values):
    constant_of(parsed, name).CopyFrom(numpy_helper.from_array(values, name))


def external(parsed):
    tensor = constant_of(parsed, "w1")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def nan(parsed):
    weight = numpy_helper.to_array(constant_of(parsed, "w1")).copy()
    weight[2, 3] = np.nan
    set_constant(parsed, "w1", weight)


def narrower(parsed):
    set_constant(parsed, "w1", numpy_helper.to_array(constant_of(parsed, "w1"))[:, :-1].copy())


def truncated(parsed):
    constant_of(parsed, "w1").raw_data = constant_of(parsed, "w1").raw_data[:-4]


def batched(parsed):
    parsed.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def another_input(parsed):
    parsed.graph.input.append(helper.make_tensor_value_info("extra", TensorProto.FLOAT, [1]))


def with_a_graph_inside(parsed):
    node = node_of(parsed, "squash")
    node.attribute.append(helper.make_attribute("body", helper.make_graph([], "inner", [], [])))


REFUSED = {
    "a foreign operator": (lambda m: setattr(node_of(m, "squash"), "op_type", "Sin"), r"'squash' is the operator Sin; allowed are Mul, Gemm"),
    "a foreign domain": (lambda m: setattr(node_of(m, "squash"), "domain", "com.evil"), r"com\.evil\.Tanh"),
    "a graph inside": (with_a_graph_inside, "holds a graph of its own"),
    "external data": (external, "'w1' lies in another file"),
    "nan": (nan, "'w1' holds NaN or infinity"),
    "a wrong shape": (narrower, r"expected layers of the shapes .*got"),
    "a damaged constant": (truncated, "'w1' is damaged"),
    "double": (lambda m: set_constant(m, "w1", np.zeros((24, 16))), "'w1' is DOUBLE; expected FLOAT, FLOAT16 or INT8"),
    "another opset": (lambda m: setattr(m.opset_import[0], "version", 18), r"expected opset 20 .*18"),
    "another ir": (lambda m: setattr(m, "ir_version", 14), "IR version 14; boards read at most 10"),
    "a named batch": (batched, r"expected obs: FLOAT\[1, 11\].* got obs: FLOAT\[batch, 11\]"),
    "another input": (another_input, "extra"),
    "another output": (lambda m: setattr(m.graph.output[0], "name", "torque"), "torque"),
    "another robot": (lambda m: setattr(m.metadata_props[1], "value", "00000000"), "its policy_fingerprint is '00000000'"),
    "a broken wire": (lambda m: node_of(m, "layer1").input.__setitem__(0, "nowhere"), "the onnx checker refuses it"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_belong_in_the_file_is_refused_with_its_name(model, name):
    change, said = REFUSED[name]
    with pytest.raises(ExportError, match=said):
        check_onnx(changed(model, change).SerializeToString(), ACTOR, BOT)


def test_garbage_is_refused(model):
    for data in (b"garbage", model[: len(model) // 2], b""):
        with pytest.raises(ExportError):
            check_onnx(data, ACTOR, BOT)


# ---- the engine


def test_the_engine_refuses_another_robots_file_garbage_and_other_shapes(model):
    with pytest.raises(ActorError, match=f"made for policy {BOT.policy_fingerprint}, rover has {ROVER.policy_fingerprint}"):
        OrtEngine(model, ROVER, 1)
    with pytest.raises(ActorError, match="refuses it"):
        OrtEngine(b"garbage", BOT, 1)
    wider = changed(model, lambda m: setattr(m.graph.output[0], "name", "act"))
    node_of(wider, "squash").output[0] = node_of(wider, "to_si").input[0] = "act"
    with pytest.raises(ActorError, match="'action'.*got.*'act'"):
        OrtEngine(wider.SerializeToString(), BOT, 1)


def test_an_answer_outlives_the_next_one(model):
    engine = OrtEngine(model, BOT, 1)
    first = engine.act(Observation(OBS[0], 0, True))
    kept = first.copy()
    engine.act(Observation(OBS[1], 0, True))
    assert np.array_equal(first, kept)
