"""Runs a plan: observation into pinned memory, one launch of a captured graph (copy in, network, copy out), action out of pinned memory.

NEVER RUN ON A GPU by this project so far: order of calls, refusals and lifetimes are tested against a recorded driver, nothing else is
claimed. Knows no file and no cache. Rules that must stay true: the graph is let go before the network, the network before the buffers, and
nothing handed out points into them; a plan that cannot be captured still runs, call by call, and says why.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from contextlib import ExitStack, suppress
from math import prod
from typing import Any, Protocol

import numpy as np

from edge_dsac.bundle.cuda import CudaError
from edge_dsac.bundle.device import Device
from edge_dsac.bundle.tensorrt import make_log, named
from edge_dsac.records import Float, Observation

FLOAT_BYTES = 4
NEVER_RUN = "never run on a GPU by this project: tested against a recorded driver only"


class EngineError(ValueError):
    """A plan that cannot be run here."""


class UnreadablePlan(EngineError):
    """Of another version or another GPU: it has to be built again."""


class Cuda(Protocol):
    """What of the driver is needed; cuda.py has the real one. A handle is a number, sizes are bytes."""

    def enter_thread(self) -> None: ...
    def make_stream(self) -> int: ...
    def free_stream(self, stream: int) -> None: ...
    def synchronise(self, stream: int) -> None: ...
    def make_device_buffer(self, size: int) -> int: ...
    def free_device_buffer(self, address: int) -> None: ...
    def make_pinned_buffer(self, size: int) -> int: ...
    def free_pinned_buffer(self, address: int) -> None: ...
    def copy_in(self, to_device: int, from_host: int, size: int, stream: int) -> None: ...
    def copy_out(self, to_host: int, from_device: int, size: int, stream: int) -> None: ...
    def begin_capture(self, stream: int) -> None: ...
    def end_capture(self, stream: int) -> int: ...
    def launch(self, graph: int, stream: int) -> None: ...
    def free_graph(self, graph: int) -> None: ...


class Port:
    """One tensor of the plan: its place on the GPU, and its pinned twin seen as a numpy array."""

    def __init__(self, cuda: Cuda, name: str, entries: int, held: ExitStack) -> None:
        self.name, self.size = name, entries * FLOAT_BYTES
        self.device = cuda.make_device_buffer(self.size)
        held.callback(cuda.free_device_buffer, self.device)
        self.host = cuda.make_pinned_buffer(self.size)
        held.callback(cuda.free_pinned_buffer, self.host)
        self.array = np.ctypeslib.as_array((ctypes.c_float * entries).from_address(self.host))
        self.array[:] = 0.0


class OpenPlan:
    """A plan with all it holds on the GPU, ready to run on the newest observation."""

    def __init__(self, plan: bytes, trt: Any, cuda: Cuda) -> None:
        self.cuda, self.trt = cuda, trt
        self.runtime: Any = None
        self.engine: Any = None
        self.context: Any = None
        self.graph: int | None = None
        self.no_graph_because = ""
        self.held = ExitStack()  # let go in reverse: graph, network, buffers, stream
        try:
            cuda.enter_thread()
            self.stream = cuda.make_stream()
            self.held.callback(cuda.free_stream, self.stream)
            self.open(plan)
            self.step()  # the first run sets up what may not be set up within a capture
            cuda.synchronise(self.stream)
            self.capture()
            self.held.callback(cuda.synchronise, self.stream)
        except BaseException:
            self.release()
            raise

    def open(self, plan: bytes) -> None:
        self.log = make_log(self.trt)
        try:
            self.runtime = self.trt.Runtime(self.log)
        except TypeError:  # how the binding says that the library gave it nothing
            raise EngineError(f"{named(self.trt)} does not start: {self.log.complaints()}") from None
        engine = self.engine = self.runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise UnreadablePlan(f"{named(self.trt)} cannot read the plan: {self.log.complaints()}")
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name).name == "INPUT"]
        outputs = [name for name in names if name not in inputs]
        if len(inputs) != 1 or (outputs != outputs[:1] and "action" not in outputs) or not outputs:
            raise EngineError(f"the plan has the inputs {inputs} and the outputs {outputs}; expected one observation and one `action`")
        ports = {name: Port(self.cuda, name, entries_of(engine, name), self.held) for name in names}
        self.input = ports[inputs[0]]
        self.output = ports["action" if "action" in outputs else outputs[0]]
        self.held.callback(self.drop_network)
        self.context = engine.create_execution_context()
        if self.context is None:
            raise EngineError(f"{named(self.trt)} cannot run the plan: {self.log.complaints()}")
        for name, port in ports.items():
            if not self.context.set_tensor_address(name, port.device):
                raise EngineError(f"{named(self.trt)} refuses the buffer of {name}: {self.log.complaints()}")

    def capture(self) -> None:
        """One launch in place of three calls; whatever forbids it costs the graph and not the policy."""
        allowed = getattr(self.context, "is_stream_capturable", None)  # TensorRT-RTX can say so beforehand
        if allowed is not None and not allowed(self.stream):
            self.no_graph_because = f"{named(self.trt)} says that this plan cannot be captured"
            return
        self.cuda.begin_capture(self.stream)
        failure: Exception | None = None
        try:
            self.step()
        except (CudaError, EngineError) as error:
            failure = error
        try:
            graph = self.cuda.end_capture(self.stream)  # even after a failure, or the stream stays in capture for ever
            self.held.callback(self.cuda.free_graph, graph)
        except CudaError as error:
            failure = failure or error
        if failure is None:
            self.graph = graph
            return
        self.no_graph_because = str(failure)
        self.step()  # the plain way must work after a capture that did not
        self.cuda.synchronise(self.stream)

    def step(self) -> None:
        cuda, source, result = self.cuda, self.input, self.output
        cuda.copy_in(source.device, source.host, source.size, self.stream)
        if not self.context.execute_async_v3(self.stream):
            raise EngineError(f"the plan did not run: {self.log.complaints()}")
        cuda.copy_out(result.host, result.device, result.size, self.stream)

    def run(self) -> None:
        """From `input.array` to `output.array`."""
        if self.graph is None:
            self.step()
        else:
            self.cuda.launch(self.graph, self.stream)
        self.cuda.synchronise(self.stream)

    def drop_network(self) -> None:
        self.context = self.engine = self.runtime = None

    def release(self) -> None:
        # After an error in a kernel the driver refuses everything, the giving back too; then only the process's end helps.
        with suppress(CudaError):
            self.cuda.enter_thread()
        with suppress(CudaError):
            self.held.close()
        self.drop_network()


class TensorRtEngine:
    """Made in one thread (the stager's), used in another (the loop's), never in two at once."""

    def __init__(self, bundle_id: int, plan: bytes, device: Device, trt: Any, cuda: Cuda) -> None:
        """`device` is the proof that one was found: without it the runtime would crash here, not raise."""
        self.bundle_id, self.device, self.cuda = bundle_id, device, cuda
        self.plan = OpenPlan(plan, trt, cuda)
        self.thread = threading.get_ident()
        self.finalizer = weakref.finalize(self, self.plan.release)
        self.finalizer.atexit = False  # at the interpreter's end the driver may be gone; it takes everything with it

    @property
    def no_graph_because(self) -> str:
        """Empty: a tick is one launch."""
        return self.plan.no_graph_because

    def act(self, obs: Observation) -> Float:
        if threading.get_ident() != self.thread:
            self.cuda.enter_thread()
            self.thread = threading.get_ident()
        self.plan.input.array[:] = obs.vector
        self.plan.run()
        action: Float = self.plan.output.array.copy()
        return action

    def close(self) -> None:
        """Gives back the GPU's memory; it must not act any more. The garbage collector does the same, at a time of its own choosing."""
        self.finalizer()


def entries_of(engine: Any, name: str) -> int:
    shape, kind = tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name).name
    if kind != "FLOAT" or min(shape, default=1) < 1:
        raise EngineError(f"the plan's {name} is {kind} {shape}; expected FLOAT of a fixed shape: export the policy again")
    return prod(shape)
