"""`edge-dsac engines`: an honest table on any machine."""

import json

import numpy as np
import pytest

from edge_dsac.bundle.device import Device, NoDevice
from edge_dsac.bundle.engines import ENGINES
from edge_dsac.bundle.probes import describe, native
from edge_dsac.bundle.targets import TARGETS, best_target
from edge_dsac.cli.main import main

KINDS = ["numpy", "native-integer", "native-float32", "onnxruntime", "tensorrt", "tensorrt-rtx", "torch-tensorrt"]
ON_GPU = KINDS[4:]
ORIN = Device("Orin", 87, 12060, "NVIDIA Jetson Orin Nano Developer Kit")
ADA = Device("RTX 4070", 89, 13000, "x86_64")
NOTHING = NoDevice("no NVIDIA driver: libcuda.so.1 cannot be loaded")


def table(device, installed):
    return {report.kind: report for report in describe(device, lambda name: installed.get(name, ""))}


def test_without_a_gpu_no_gpu_engine_runs_and_each_says_why():
    found = table(NOTHING, {"tensorrt": "10.3.0", "tensorrt_rtx": "1.5.0.114", "torch_tensorrt": "2.13.0"})
    assert list(found) == KINDS
    assert found["numpy"].runs_here
    assert found["numpy"].version == np.__version__
    for kind in ON_GPU:
        assert not found[kind].runs_here
        assert found[kind].reason == NOTHING.reason
    assert "builds plans ahead of time" in found["tensorrt-rtx"].caution


def test_every_engine_that_can_run_a_bundle_is_described():
    described = [report.kind for report in describe(NOTHING, lambda name: "")]
    assert {kind.name for kind in ENGINES} <= set(described)
    assert len(set(described)) == len(described)


def test_the_native_engines_name_the_level_they_would_load_and_what_never_ran():
    level = best_target(target.file for target in TARGETS.values())
    found = table(NOTHING, {})
    for kind in ("native-integer", "native-float32"):
        assert found[kind].runs_here is (level is not None)
        assert level is None or found[kind].device.endswith(f", as {level.file.removeprefix('native/').removesuffix('.so')}")
        assert "aarch64_dotprod has never run on real hardware" in found[kind].caution
    assert native("native-float32", "aarch64, 4 cores", TARGETS["aarch64_dotprod"]).device == "aarch64, 4 cores, as aarch64_dotprod"
    nowhere = native("native-integer", "riscv64, 4 cores", None)
    assert not nowhere.runs_here
    assert "x86_64_v2, aarch64_dotprod, aarch64, this is" in nowhere.reason
    assert "cortex_m4" not in nowhere.reason


def test_what_is_not_installed_names_the_extra():
    found = table(ADA, {})
    for kind, extra in (("onnxruntime", "compile"), ("tensorrt-rtx", "trt-rtx"), ("torch-tensorrt", "torch-tensorrt")):
        assert not found[kind].runs_here
        assert f"pip install 'edge_dsac[{extra}]'" in found[kind].reason
    assert "JetPack" in found["tensorrt"].reason


def test_on_an_orin_the_boards_tensorrt_runs_and_rtx_does_not():
    found = table(ORIN, {"tensorrt": "10.3.0", "tensorrt_rtx": "1.5.0.114"})
    assert found["tensorrt"].runs_here
    assert found["tensorrt"].device == "Orin, SM 8.7, NVIDIA Jetson Orin Nano Developer Kit"
    assert found["tensorrt-rtx"].reason == "TensorRT-RTX has nothing for SM 8.7; use tensorrt"
    assert table(ADA, {"tensorrt_rtx": "1.5.0.114"})["tensorrt-rtx"].runs_here


@pytest.mark.parametrize("device", [NOTHING, ORIN, ADA], ids=["none", "orin", "ada"])
def test_what_this_project_has_never_tried_is_said_even_where_it_would_run(device):
    found = table(device, {"tensorrt": "10.3.0", "tensorrt_rtx": "1.5.0.114", "torch_tensorrt": "2.13.0"})
    for kind in ON_GPU:
        assert "never run on a GPU by this project" in found[kind].caution


def test_the_verb_prints_the_table(capsys):
    assert main(["engines"]) == 0
    printed = capsys.readouterr().out
    for kind in KINDS:
        assert f"\n{kind} " in "\n" + printed
    assert "never run on a GPU" in printed


def test_the_verb_prints_json_for_programs(capsys):
    assert main(["engines", "--json"]) == 0
    reports = json.loads(capsys.readouterr().out)
    assert [report["kind"] for report in reports] == KINDS
    assert set(reports[0]) == {"kind", "runs_here", "reason", "version", "device", "caution"}
    assert all(bool(report["reason"]) != report["runs_here"] for report in reports)
