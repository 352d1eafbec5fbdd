"""From ONNX bytes to an engine in one go: what is kept, what is built again, and that no GPU means no TensorRT."""

import sys

import numpy as np
import pytest
from trt_fakes import FakeCuda, FakeRuntime, FakeTrt

from edge_dsac.bundle.device import Device, NoDevice
from edge_dsac.bundle.plan_cache import PlanCache
from edge_dsac.bundle.tensorrt import PlanConfig
from edge_dsac.bundle.tensorrt_engine import EngineError, UnreadablePlan
from edge_dsac.bundle.tensorrt_here import load_engine, open_engine, why_not
from edge_dsac.records import Observation

ORIN = Device("Orin", 87, 12060, "NVIDIA Jetson Orin Nano Developer Kit")


class Both(FakeTrt):
    """Builder and runtime in one module. `unreadable`: how many of the next plans it cannot read."""

    def __init__(self, cuda, unreadable=0):
        super().__init__("10.3.0")
        self.runtime, self.unreadable = FakeRuntime(cuda), unreadable

    def Runtime(self, log):
        self.runtime.readable = self.unreadable == 0
        self.unreadable = max(self.unreadable - 1, 0)
        return self.runtime.Runtime(log)


def start(tmp_path, trt, cuda, said):
    return open_engine(b"onnx", 17, PlanCache(tmp_path), PlanConfig(), trt, ORIN, cuda, said.append)


def test_the_second_start_builds_nothing(tmp_path):
    cuda, said = FakeCuda(), []
    trt = Both(cuda)
    for _ in range(2):
        engine = start(tmp_path, trt, cuda, said)
        assert engine.act(Observation(np.array([0.5, -1.0, 9.0], np.float32), 0, True)).tolist() == [0.25, -0.5]
        engine.close()
    assert trt.builds == 1
    assert len(said) == 1


def test_a_whole_plan_that_cannot_be_read_is_built_again_once_and_said(tmp_path):
    cuda, said = FakeCuda(), []
    start(tmp_path, Both(cuda), cuda, said).close()
    trt = Both(cuda, unreadable=1)
    start(tmp_path, trt, cuda, said).close()
    assert trt.builds == 1
    assert said[1].startswith("building it again: tensorrt 10.3.0 cannot read the plan: ERROR: the serialisation magic")
    with pytest.raises(UnreadablePlan):
        start(tmp_path, Both(cuda, unreadable=2), cuda, said)
    assert cuda.held == 0


def test_without_a_device_tensorrt_is_not_even_imported(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_dsac.bundle.tensorrt_here.find_device", lambda: NoDevice("no NVIDIA driver"))
    with pytest.raises(EngineError, match="cannot run here: no NVIDIA driver"):
        load_engine(b"onnx", 17, tmp_path, PlanConfig(), print)
    assert "tensorrt" not in sys.modules
    assert list(tmp_path.iterdir()) == []


def test_why_not_names_the_missing_thing():
    assert why_not(ORIN, lambda name: True) == ""
    assert why_not(NoDevice("no NVIDIA driver"), lambda name: True) == "no NVIDIA driver"
    assert "JetPack" in why_not(ORIN, lambda name: False)
