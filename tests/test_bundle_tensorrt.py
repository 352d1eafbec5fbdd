"""Plans: what every version of TensorRT is asked for (stand-ins), and what TensorRT-RTX really builds, ahead of time and with no GPU.

A TensorRT-RTX build is no test of `tensorrt`, and of no GPU: it proves that the graphs parse, build, and shrink to their type.
"""

import pytest
from trt_fakes import FLOAT_LAYERS, HALF_LAYERS, INT8_LAYERS, FakeTrt

from edge_dsac.bundle.tensorrt import PlanConfig, PlanError, Precision, build, check_built, is_strongly_typed, look_at, weights_memory

FP32, FP16, INT8, FP8 = Precision.FP32, Precision.FP16, Precision.INT8, Precision.FP8
STRONG, WEAK = 1 << 1, 0  # the stand-in's STRONGLY_TYPED is bit 1
INT8_MEMORY = 17 * 256 * 4 + 256 * 256


# ---- every version's surface


@pytest.mark.parametrize(
    ("version", "strong"), [("10.3.0", False), ("10.11.9", False), ("10.12.0", True), ("10.16.1.11", True), ("11.0.0", True)]
)
def test_types_are_the_graphs_from_10_12_on(version, strong):
    trt = FakeTrt(version)
    assert is_strongly_typed(trt) is strong
    build(trt, b"onnx", PlanConfig())
    assert trt.network_flags == [STRONG if strong else WEAK]
    assert trt.flags == []


def test_rtx_is_strongly_typed_whatever_its_own_number_is():
    assert is_strongly_typed(FakeTrt("1.5.0.114", "tensorrt_rtx"))


def test_jetpack_6_gets_flags_and_float16_from_a_float32_graph():
    trt = FakeTrt("10.3.0")
    build(trt, b"onnx", PlanConfig(FP16))
    assert trt.flags == ["FP16"]
    trt = FakeTrt("10.3.0", layers=INT8_LAYERS, weights_memory=INT8_MEMORY)
    build(trt, b"onnx", PlanConfig(INT8))
    assert trt.flags == ["INT8"]


def test_fp8_on_jetpack_6_is_refused_by_version():
    layers = tuple((name, kind, "FP8" if of == "INT8" else of, shape) for name, kind, of, shape in INT8_LAYERS)
    with pytest.raises(PlanError, match=r"fp8 needs TensorRT 10\.12 or newer, this is tensorrt 10\.3\.0; ask for int8"):
        build(FakeTrt("10.3.0", layers=layers), b"onnx", PlanConfig(FP8))


@pytest.mark.parametrize("version", ["10.16.1", "11.0.0"])
def test_a_new_version_is_never_asked_with_a_flag_it_may_lack(version):
    for precision, layers, memory in ((INT8, INT8_LAYERS, INT8_MEMORY), (FP16, HALF_LAYERS, 17 * 256 * 2)):
        trt = FakeTrt(version, layers=layers, weights_memory=memory)
        assert build(trt, b"onnx", PlanConfig(precision)).weights_memory == memory
        assert trt.flags == []


def test_a_plan_that_went_back_to_float_is_refused_though_the_graph_is_quantised():
    silently_float = 17 * 256 * 4 + 256 * 256 * 4
    with pytest.raises(PlanError, match=f"holds {silently_float} bytes .* come to {INT8_MEMORY} .* went back to float"):
        build(FakeTrt(layers=INT8_LAYERS, weights_memory=silently_float), b"onnx", PlanConfig(INT8))


def test_one_hidden_layer_of_three_left_in_float_is_enough_to_be_refused():
    layers = [layer for i in range(3) for layer in ((f"w{i}", "CONSTANT", "INT8", (256, 256)),)]
    found = look_at(FakeTrt(layers=layers).Builder(None).create_network(0))
    check_built(3 * 65536 + 500, found, INT8)
    with pytest.raises(PlanError, match="went back to float"):
        check_built(2 * 65536 + 4 * 65536, found, INT8)


def test_a_builder_that_does_not_say_proves_nothing_and_is_not_called_wrong():
    assert build(FakeTrt(layers=INT8_LAYERS, weights_memory=None), b"onnx", PlanConfig(INT8)).weights_memory is None


def test_a_build_that_fails_says_what_the_builder_said():
    with pytest.raises(PlanError, match=r"tensorrt 10\.16\.1: the fp32 plan was not built: ERROR: no kernel fits"):
        build(FakeTrt(says_no="no kernel fits"), b"onnx", PlanConfig())


def test_a_library_that_gives_no_builder_is_an_error_with_its_words():
    with pytest.raises(PlanError, match="no builder: ERROR: CUDA initialization failure .*; it needs a working driver"):
        build(FakeTrt(starts=False), b"onnx", PlanConfig())


def test_the_log_keeps_what_matters():
    built = build(FakeTrt(), b"onnx", PlanConfig())
    assert built.log == ("INFO: Total Weights Memory: 17408 bytes",)
    assert weights_memory([*built.log, "INFO: Total Weights Memory: 99 bytes", "INFO: Total Activation Memory: 5 bytes"]) == 99


def test_only_rtx_builds_for_other_gpus():
    with pytest.raises(PlanError, match="builds for the GPU it runs on"):
        build(FakeTrt(), b"onnx", PlanConfig(compute_capabilities=(89,)))


def test_kernel_times_are_read_written_and_started_again_when_damaged(tmp_path):
    path = tmp_path / "kernels.times"
    build(FakeTrt(), b"onnx", PlanConfig(timing_cache=path))
    assert path.read_bytes() == b"+timed"
    build(FakeTrt(), b"onnx", PlanConfig(timing_cache=path))
    assert path.read_bytes() == b"+timed+timed"
    path.write_bytes(b"damaged")
    build(FakeTrt(), b"onnx", PlanConfig(timing_cache=path))
    assert path.read_bytes() == b"+timed"
    assert [file.name for file in tmp_path.iterdir()] == ["kernels.times"]


def test_where_kernel_times_are_kept_does_not_make_another_plan(tmp_path):
    assert PlanConfig(timing_cache=tmp_path).key() == PlanConfig().key()
    assert PlanConfig(INT8).key() != PlanConfig().key()
    assert PlanConfig(workspace_bytes=1 << 20).key() != PlanConfig().key()


def test_a_quantised_graph_is_not_built_as_something_else():
    for precision in (FP32, FP16, FP8):
        with pytest.raises(PlanError, match=f"asked for {precision.value}, but QuantizeLinear makes INT8"):
            build(FakeTrt(layers=INT8_LAYERS), b"onnx", PlanConfig(precision))
    with pytest.raises(PlanError, match="asked for int8, but there is no QuantizeLinear in it"):
        build(FakeTrt(layers=FLOAT_LAYERS), b"onnx", PlanConfig(INT8))


# ---- what TensorRT-RTX really builds: ahead of time, no GPU


@pytest.fixture(scope="session")
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (x86-64 Linux: pip install 'edge_dsac[trt-rtx]')")


@pytest.fixture(scope="session")
def onnx_actors():
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'edge_dsac[compile]'")
    import onnx_actors

    return onnx_actors


@pytest.fixture(scope="session")
def plans(rtx, onnx_actors):
    return {precision: build(rtx, onnx_actors.make_onnx(precision.value), PlanConfig(precision)) for precision in Precision}


# 17-256x3-6: 137,216 weights, 774 biases, 17 scales = 552,028 bytes in float32, less what the builder folds; INT8 and FP8 with the first
# layer in float: 17,408 + 132,608 + biases and scales. Read off the log; a new version may pad a little differently.
MEMORY = {FP32: (545_000, 560_000), FP16: (272_000, 280_000), INT8: (152_000, 161_000), FP8: (152_000, 161_000)}


@pytest.mark.slow
@pytest.mark.parametrize("precision", Precision, ids=lambda p: p.value)
def test_rtx_builds_a_plan_whose_weights_are_of_the_type_asked_for(plans, precision):
    built, (least, most) = plans[precision], MEMORY[precision]
    assert least < built.weights_memory < most
    assert built.count("MATRIX_MULTIPLY") == 4
    assert built.count("QUANTIZE") == (3 if precision in (INT8, FP8) else 0)
    assert {layer.type for layer in built.layers if layer.kind == "QUANTIZE"} == ({precision.name} if precision in (INT8, FP8) else set())
    assert built.plan[:4] == b"vtrt"


@pytest.mark.slow
def test_rtx_plans_get_smaller_with_their_weights(plans):
    size = {precision: len(built.plan) for precision, built in plans.items()}
    assert size[FP32] - size[FP16] > 200_000
    assert size[FP16] - size[INT8] > 200_000
    assert size[FP16] - size[FP8] > 200_000


@pytest.mark.slow
def test_rtx_with_the_first_layer_in_int8_too_holds_a_quarter(rtx, onnx_actors):
    built = build(rtx, onnx_actors.make_onnx("int8", quantised_from=0), PlanConfig(INT8))
    assert 143_000 < built.weights_memory < 147_000


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(12, 64, 64, 2), (47, 64, 64, 2)], ids=str)
def test_rtx_proves_int8_and_fp8_of_a_small_robots_actor_too(rtx, onnx_actors, sizes):
    layers = onnx_actors.make_layers(sizes)
    as_float = build(rtx, onnx_actors.make_onnx("fp32", layers), PlanConfig()).weights_memory
    for precision in (INT8, FP8):
        built = build(rtx, onnx_actors.make_onnx(precision.value, layers), PlanConfig(precision))
        assert built.weights_memory < as_float - 2 * 64 * 64
        check_built(built.weights_memory, built.layers, precision)
        with pytest.raises(PlanError, match="went back to float"):
            check_built(as_float, built.layers, precision)


@pytest.mark.slow
def test_rtx_builds_for_the_gpus_named_and_refuses_what_they_cannot(rtx, onnx_actors):
    int8, fp8 = onnx_actors.make_onnx("int8"), onnx_actors.make_onnx("fp8")
    assert build(rtx, int8, PlanConfig(INT8, compute_capabilities=(86, 120))).plan
    with pytest.raises(PlanError, match="the fp8 plan was not built: .*sm75.*fp8"):  # Turing has no FP8: the target is heard
        build(rtx, fp8, PlanConfig(FP8, compute_capabilities=(75,)))
    with pytest.raises(PlanError, match="does not build for SM 87; it knows SM75, SM80"):
        build(rtx, int8, PlanConfig(INT8, compute_capabilities=(87,)))


REFUSED = {
    "float asked as int8": ({"kind": "fp32"}, INT8, "there is no QuantizeLinear in it"),
    "float asked as fp8": ({"kind": "fp32"}, FP8, "there is no QuantizeLinear in it"),
    "float asked as fp16": ({"kind": "fp32"}, FP16, "asked for fp16, but 0% of the weights"),
    "int8 asked as fp32": ({"kind": "int8"}, FP32, "QuantizeLinear makes INT8"),
    "int8 asked as fp8": ({"kind": "int8"}, FP8, "QuantizeLinear makes INT8"),
    "int8 in the last layer alone": ({"kind": "int8", "quantised_from": 3}, INT8, "asked for int8, but 1% of the weights"),
    "an operator nobody has": ({"kind": "fp32", "before_tanh": "Det"}, FP32, "the operator Det is not supported"),
    "an int32 bias": ({"kind": "int8", "int32_bias": True}, INT8, "DequantizeLinear: .*has type Int32 but must have"),
    "asymmetric activations": ({"kind": "int8", "x_zero": 3}, INT8, "QuantizeLinear: .*Non-zero zero point is not supported"),
    "asymmetric weights": ({"kind": "int8", "weight_zero": 3}, INT8, "DequantizeLinear: .*Non-zero zero point is not supported"),
    "a batch without a number": ({"kind": "fp32", "batch": "n"}, FP32, r"shape \(-1, 17\); export it with a batch of 1"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_rtx_refuses_by_name(rtx, onnx_actors, case):
    graph, precision, said = REFUSED[case]
    with pytest.raises(PlanError, match=said):
        build(rtx, onnx_actors.make_onnx(**graph), PlanConfig(precision))


@pytest.mark.slow
@pytest.mark.parametrize("data", [b"", b"garbage", b"\x08\x0a" * 500], ids=["empty", "garbage", "half a header"])
def test_rtx_refuses_what_is_no_onnx_file(rtx, data):
    with pytest.raises(PlanError, match="ONNX file"):
        build(rtx, data, PlanConfig())


@pytest.mark.slow
def test_rtx_refuses_a_truncated_file(rtx, onnx_actors):
    whole = onnx_actors.make_onnx()
    for length in (len(whole) // 2, len(whole) - 7):
        with pytest.raises(PlanError, match="ONNX file"):
            build(rtx, whole[:length], PlanConfig())


@pytest.mark.slow
def test_rtx_builds_the_fp8_graph_that_is_made_from_the_float_one(rtx, onnx_actors):
    from edge_dsac.bundle.quantize_fp8 import make_fp8_onnx

    built = build(rtx, make_fp8_onnx(onnx_actors.make_onnx(), (4.0, 4.0, 4.0)), PlanConfig(FP8))
    assert 152_000 < built.weights_memory < 161_000
    assert built.count("QUANTIZE") == 3


@pytest.mark.slow
@pytest.mark.parametrize("precision", Precision)
def test_rtx_builds_a_clipped_policy_of_elu_in_every_precision(rtx, onnx_actors, precision):
    import numpy as np

    from edge_dsac.bundle.actor import Actor
    from edge_dsac.bundle.export import make_graph
    from edge_dsac.bundle.quantize import make_int8_onnx
    from edge_dsac.bundle.quantize_fp8 import make_fp8_onnx

    actor = Actor(tuple(onnx_actors.make_layers()), "elu", np.ones(17, np.float32), "f" * 8, 1, "clip")
    graph = make_graph(actor, np.eye(6), {}, "float16" if precision is FP16 else "float32")
    if precision is INT8:
        graph = make_int8_onnx(graph, np.random.default_rng(0).standard_normal((50, 17)))
    if precision is FP8:
        graph = make_fp8_onnx(graph, (4.0, 4.0, 4.0))
    built = build(rtx, graph, PlanConfig(precision))
    least, most = MEMORY[precision]
    assert least < built.weights_memory < most + 512  # and the matrix of commands
    assert built.count("ACTIVATION") == 4  # three of elu, and the clip
