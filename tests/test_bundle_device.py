"""Is there a GPU: every way in which there is none gives its reason; and the driver's calls, made on a stand-in written in C."""

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_dsac.bundle.cuda import CudaDriver, CudaError
from edge_dsac.bundle.device import Device, NoDevice, find_device

HERE = Path(__file__).parent
CUDA_HEADER = Path("/usr/local/cuda/include/cuda.h")


class Driver:
    """A libcuda as ctypes would call it: answers go through pointers."""

    def __init__(self, init=0, count=(0, 1), name=(0, b"Orin"), sm=(8, 7)):
        self.init, self.count, self.name, self.sm, self.asked = init, count, name, sm, []

    def cuInit(self, flags):
        self.asked.append("init")
        return self.init

    def cuDeviceGetCount(self, out):
        out._obj.value = self.count[1]
        return self.count[0]

    def cuDeviceGet(self, out, ordinal):
        out._obj.value = 0
        return 0

    def cuDeviceGetName(self, buffer, size, device):
        buffer.value = self.name[1]
        return self.name[0]

    def cuDeviceGetAttribute(self, out, attribute, device):
        out._obj.value = {75: self.sm[0], 76: self.sm[1]}[attribute]
        return 0

    def cuDriverGetVersion(self, out):
        out._obj.value = 12060
        return 0


def find(driver):
    return find_device(lambda: driver, lambda: "a board")


def test_a_gpu_is_described():
    assert find(Driver()) == Device("Orin", 87, 12060, "a board")
    assert find_device(Driver, lambda: "").board == platform.machine()  # a PC
    assert find(Driver(name=(0, b"Thor"), sm=(11, 0))) == Device("Thor", 110, 12060, "a board")


def absent():
    raise OSError("libcuda.so.1: cannot open shared object file")


def test_no_driver_a_driver_that_does_not_start_and_no_gpu_are_three_different_reasons():
    assert find_device(absent) == NoDevice("no NVIDIA driver: libcuda.so.1 cannot be loaded")
    assert find(Driver(init=999)) == NoDevice("the NVIDIA driver does not start: cuInit answered 999")
    assert find(Driver(count=(0, 0))) == NoDevice("the NVIDIA driver sees no GPU: cuDeviceGetCount answered 0, 0 GPUs")
    assert "cuDeviceGetCount answered 100" in find(Driver(count=(100, 3))).reason
    assert "does not describe its GPU: it answered (0, 1, 0, 0, 0)" in find(Driver(name=(1, b""))).reason


def test_on_this_very_machine_asking_is_safe():
    assert isinstance(find_device(), (Device, NoDevice))


# ---- the real ctypes calls, on a driver written in C that keeps GPU memory in host memory


def compile_driver(folder, *flags):
    pytest.importorskip("ziglang", reason="ziglang is not installed: pip install 'edge_dsac[sim]'")
    out = folder / "libfake_cuda.so"
    words = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-shared",
        "-fPIC",
        "-O1",
        "-Wall",
        "-Werror",
        *flags,
        "-o",
        str(out),
        str(HERE / "fake_cuda.c"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return ctypes.CDLL(str(compile_driver(tmp_path_factory.mktemp("fake_cuda"))))


@pytest.fixture
def driver(library):
    library.fake_reset()
    return CudaDriver(library)


@pytest.mark.slow
def test_nvidias_own_header_agrees_with_the_driver_in_c(tmp_path):
    """So that what the next tests check is what the real libcuda expects."""
    if not CUDA_HEADER.exists():
        pytest.skip(f"no CUDA toolkit: {CUDA_HEADER} is absent")
    compile_driver(tmp_path, f'-DCUDA_HEADER="{CUDA_HEADER}"')


@pytest.mark.slow
def test_a_device_is_found_through_real_ctypes_calls(library):
    library.fake_reset()
    assert find_device(lambda: library, lambda: "a board") == Device("Fake GPU", 87, 13000, "a board")


@pytest.mark.slow
def test_bytes_travel_to_the_device_and_back_and_everything_is_given_back(driver, library):
    driver.enter_thread()
    stream, size = driver.make_stream(), 8 * 4
    assert stream > 1 << 32  # the driver in C answers with large handles on purpose
    host, device = driver.make_pinned_buffer(size), driver.make_device_buffer(size)
    seen = np.ctypeslib.as_array((ctypes.c_float * 8).from_address(host))
    seen[:] = np.arange(8)
    driver.copy_in(device, host, size, stream)
    driver.synchronise(stream)
    seen[:] = -1.0
    driver.copy_out(host, device, size, stream)
    driver.synchronise(stream)
    assert seen.tolist() == list(range(8))
    driver.free_device_buffer(device)
    driver.free_pinned_buffer(host)
    driver.free_stream(stream)
    assert library.fake_held() == 0


@pytest.mark.slow
def test_a_captured_graph_copies_when_it_is_launched_and_not_before(driver, library):
    driver.enter_thread()
    stream = driver.make_stream()
    host, device = driver.make_pinned_buffer(4), driver.make_device_buffer(4)
    seen = np.ctypeslib.as_array((ctypes.c_float * 1).from_address(host))
    seen[0] = 5.0
    driver.copy_in(device, host, 4, stream)
    seen[0] = 0.0
    driver.begin_capture(stream)
    driver.copy_out(host, device, 4, stream)
    graph = driver.end_capture(stream)
    assert seen[0] == 0.0
    driver.launch(graph, stream)
    driver.synchronise(stream)
    assert seen[0] == 5.0
    for free, handle in (
        (driver.free_graph, graph), (driver.free_device_buffer, device), (driver.free_pinned_buffer, host), (driver.free_stream, stream),
    ):  # fmt: skip
        free(handle)
    assert library.fake_held() == 0


@pytest.mark.slow
def test_an_error_of_the_driver_has_its_name_and_number(driver, library):
    library.fake_fail_next(2)
    with pytest.raises(CudaError, match=r"cuMemAlloc_v2: CUDA_ERROR_OUT_OF_MEMORY \(2\)"):
        driver.make_device_buffer(1 << 40)
    library.fake_fail_next(1234567)
    with pytest.raises(CudaError, match=r"cuStreamCreate: unknown error \(1234567\)"):
        driver.make_stream()


@pytest.mark.slow
def test_the_whole_engine_runs_on_the_driver_in_c(driver, library):
    """TensorRT's part is a stand-in; every call of the driver is a real ctypes call."""
    from types import SimpleNamespace

    from trt_fakes import FakeRuntime

    from edge_dsac.bundle.tensorrt_engine import TensorRtEngine
    from edge_dsac.records import Observation

    class Context:
        def __init__(self):
            self.at = {}

        def set_tensor_address(self, name, address):
            self.at[name] = address
            return True

        def execute_async_v3(self, stream):
            library.fake_half.argtypes = [ctypes.c_void_p, ctypes.c_ulonglong, ctypes.c_ulonglong, ctypes.c_int]
            return library.fake_half(stream, self.at["action"], self.at["obs"], 2) == 0

    trt = FakeRuntime(SimpleNamespace(calls=[]))
    engine_of = trt.engine
    trt.engine = lambda log, plan: SimpleNamespace(**{**vars(engine_of(log, plan)), "create_execution_context": Context})
    engine = TensorRtEngine(17, b"plan", Device("Fake GPU", 87, 13000, "a board"), trt, driver)
    assert engine.no_graph_because == ""
    for scale in (1.0, 3.0):
        assert engine.act(Observation(scale * np.array([0.5, -1.0, 9.0], np.float32), 0, True)).tolist() == [scale * 0.25, scale * -0.5]
    engine.close()
    assert library.fake_held() == 0
