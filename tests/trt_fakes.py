"""Stand-ins for a TensorRT module of any version, and for the CUDA driver. Memory is real and the fake GPU computes; freed memory is poisoned."""

import ctypes
from types import SimpleNamespace

import numpy as np

from edge_dsac.bundle.cuda import CudaError


def named(name):
    return SimpleNamespace(name=name)


class ILogger:
    pass


FLOAT_LAYERS = (("w0", "CONSTANT", "FLOAT", (256, 17)), ("product", "MATRIX_MULTIPLY", "FLOAT", (1, 256)))
INT8_LAYERS = (
    ("w0", "CONSTANT", "FLOAT", (256, 17)), ("w1_q", "CONSTANT", "INT8", (256, 256)), ("there", "QUANTIZE", "INT8", (1, 256)),
    ("back", "DEQUANTIZE", "FLOAT", (1, 256)), ("product", "MATRIX_MULTIPLY", "FLOAT", (1, 256)),
)  # fmt: skip
HALF_LAYERS = (("w0", "CONSTANT", "HALF", (256, 17)), ("product", "MATRIX_MULTIPLY", "HALF", (1, 256)))


class FakeTrt:
    """Of a version's surface: from 11 on there are no precision flags, and RTX alone has compute capabilities."""

    def __init__(self, version="10.16.1", name="tensorrt", layers=FLOAT_LAYERS, weights_memory=17408, says_no="", starts=True):
        self.__name__, self.__version__ = name, version
        self.starts = starts
        self.layers, self.weights_memory, self.says_no = layers, weights_memory, says_no
        self.ILogger = ILogger
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        self.BuilderFlag = SimpleNamespace(TF32="TF32")
        if int(version.split(".")[0]) < 11 and name == "tensorrt":
            self.BuilderFlag = SimpleNamespace(FP16="FP16", INT8="INT8", FP8="FP8", TF32="TF32")
        self.network_flags, self.flags, self.timing_caches, self.builds = [], [], [], 0

    def Builder(self, log):
        if not self.starts:
            log.log(named("ERROR"), "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return FakeBuilder(self, log)

    def OnnxParser(self, network, log):
        return SimpleNamespace(parse=lambda data: data != b"garbage", num_errors=0)


class FakeBuilder:
    def __init__(self, trt, log):
        self.trt, self.log_object = trt, log

    def create_network(self, flags):
        self.trt.network_flags.append(flags)
        made = [
            SimpleNamespace(name=name, type=named(kind), get_output=lambda _, t=kind_of, s=shape: SimpleNamespace(dtype=named(t), shape=s))
            for name, kind, kind_of, shape in self.trt.layers
        ]
        tensor = SimpleNamespace(name="obs", shape=(1, 17))
        return SimpleNamespace(
            num_inputs=1, num_outputs=1, num_layers=len(made), get_layer=lambda i: made[i], get_input=lambda i: tensor
        )  # fmt: skip

    def create_builder_config(self):
        return FakeSettings(self.trt)

    def build_serialized_network(self, network, settings):
        self.trt.builds += 1
        if self.trt.says_no:
            self.log_object.log(named("ERROR"), self.trt.says_no)
            return None
        self.log_object.log(named("VERBOSE"), "a kernel was timed")
        if self.trt.weights_memory is not None:
            self.log_object.log(named("INFO"), f"Total Weights Memory: {self.trt.weights_memory} bytes")
        return b"plan of " + self.trt.__version__.encode()


class FakeSettings:
    def __init__(self, trt):
        self.trt, self.timing = trt, None

    def set_memory_pool_limit(self, pool, size):
        self.pool = (pool, size)

    def set_flag(self, flag):
        self.trt.flags.append(flag)

    def create_timing_cache(self, known):
        return None if known == b"damaged" else SimpleNamespace(serialize=lambda: known + b"+timed")

    def set_timing_cache(self, cache, ignore_mismatch):
        self.timing = cache
        return True

    def get_timing_cache(self):
        return self.timing


class FakeCuda:
    """Records each call by name. `fail_at`: the call with this number raises; `broken`: all of them do, as after an error in a kernel."""

    def __init__(self, fail_at=None):
        self.calls, self.fail_at, self.broken = [], fail_at, False
        self.memory, self.graves, self.streams, self.graphs = {}, {}, set(), {}
        self.recording, self.forbidden = None, False
        self.next_handle = 1 << 40  # more than 32 bits, as real handles are

    def note(self, name):
        self.calls.append(name)
        if self.broken or len(self.calls) - 1 == self.fail_at:
            raise CudaError(f"{name}: CUDA_ERROR_MADE_UP (999)")

    def take(self, calls=()):
        taken, self.calls = self.calls, list(calls)
        return taken

    def alloc(self, size):
        array = np.full(size // 4, np.nan, np.float32)
        self.memory[array.ctypes.data] = array
        return array.ctypes.data

    def free(self, address):
        array = self.memory.pop(address)
        array[:] = np.nan
        self.graves[address] = array  # kept, so that the address is not given out again

    def do(self, work):
        if self.recording is None:
            work()
        else:
            self.recording.append(work)

    def enter_thread(self):
        self.note("enter_thread")

    def make_stream(self):
        self.note("make_stream")
        self.next_handle += 1
        self.streams.add(self.next_handle)
        return self.next_handle

    def free_stream(self, stream):
        self.note("free_stream")
        self.streams.remove(stream)

    def synchronise(self, stream):
        self.note("synchronise")
        assert stream in self.streams
        assert self.recording is None, "waiting is forbidden within a capture"

    def make_device_buffer(self, size):
        self.note("make_device_buffer")
        return self.alloc(size)

    def free_device_buffer(self, address):
        self.note("free_device_buffer")
        self.free(address)

    def make_pinned_buffer(self, size):
        self.note("make_pinned_buffer")
        return self.alloc(size)

    def free_pinned_buffer(self, address):
        self.note("free_pinned_buffer")
        self.free(address)

    def copy_in(self, to_device, from_host, size, stream):
        self.note("copy_in")
        self.do(lambda: ctypes.memmove(self.living(to_device), self.living(from_host), size))

    def copy_out(self, to_host, from_device, size, stream):
        self.note("copy_out")
        self.do(lambda: ctypes.memmove(self.living(to_host), self.living(from_device), size))

    def living(self, address):
        assert address in self.memory, "memory that is not ours, or not any more"
        return address

    def begin_capture(self, stream):
        self.note("begin_capture")
        self.recording = []

    def end_capture(self, stream):
        recorded, self.recording = self.recording, None
        self.note("end_capture")
        if self.forbidden:
            raise CudaError("cuStreamEndCapture: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED (901)")
        self.next_handle += 1
        self.graphs[self.next_handle] = recorded
        return self.next_handle

    def launch(self, graph, stream):
        self.note("launch")
        assert stream in self.streams
        for work in self.graphs[graph]:
            work()

    def free_graph(self, graph):
        self.note("free_graph")
        del self.graphs[graph]

    @property
    def held(self):
        return len(self.memory) + len(self.streams) + len(self.graphs)


class FakeRuntime:
    """The `trt` of the runner. Its network answers half the first observations; `tensors`: name -> (mode, type, shape)."""

    TENSORS = {"obs": ("INPUT", "FLOAT", (1, 3)), "action": ("OUTPUT", "FLOAT", (1, 2))}

    def __init__(
        self, cuda, tensors=None, readable=True, context=True, fails_in_capture=False, refuses_address=False, capturable=None, starts=True
    ):
        self.__name__, self.__version__ = "tensorrt", "10.16.1"
        self.ILogger, self.cuda, self.tensors = ILogger, cuda, tensors or self.TENSORS
        self.readable, self.has_context, self.fails_in_capture, self.capturable = readable, context, fails_in_capture, capturable
        self.refuses_address, self.starts = refuses_address, starts
        self.living = []

    def Runtime(self, log):
        if not self.starts:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return SimpleNamespace(deserialize_cuda_engine=lambda plan: self.engine(log, plan))

    def engine(self, log, plan):
        if not self.readable:
            log.log(named("ERROR"), "the serialisation magic is wrong")
            return None
        names = list(self.tensors)
        return SimpleNamespace(
            num_io_tensors=len(names),
            get_tensor_name=lambda i: names[i],
            get_tensor_mode=lambda name: named(self.tensors[name][0]),
            get_tensor_dtype=lambda name: named(self.tensors[name][1]),
            get_tensor_shape=lambda name: self.tensors[name][2],
            create_execution_context=lambda: FakeContext(self) if self.has_context else None,
        )


class FakeContext:
    def __init__(self, trt):
        self.trt, self.addresses = trt, {}
        trt.living.append("context")
        if trt.capturable is not None:
            self.is_stream_capturable = lambda stream: trt.capturable

    def __del__(self):
        self.trt.living.remove("context")
        self.trt.cuda.calls.append("(the network is gone)")

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return not self.trt.refuses_address

    def execute_async_v3(self, stream):
        cuda = self.trt.cuda
        cuda.note("execute")
        if cuda.recording is not None and self.trt.fails_in_capture:
            return False
        cuda.do(self.compute)
        return True

    def compute(self):
        memory = self.trt.cuda.memory
        obs = memory[self.addresses["obs"]]
        for name, address in self.addresses.items():
            if name != "obs":
                out = memory[address]
                out[:] = 0.5 * obs[: len(out)] if name == "action" else 7.0
