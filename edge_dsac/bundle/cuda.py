"""The two dozen calls of the CUDA driver that a policy needs, through ctypes: no toolkit, no cuda-python on the robot.

libcuda is there wherever there is a driver, and its functions do not change; the toolkit's libcudart comes in versions. Knows no
TensorRT. Rule that must stay true: every answer is looked at, and a handle is a whole 64-bit number (ctypes would cut it to 32).
"""

from __future__ import annotations

from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from functools import cache
from typing import Any

from edge_dsac.bundle.device import open_libcuda

STREAM_NON_BLOCKING = 1  # a stream that does not wait for the default one
CAPTURE_THREAD_LOCAL = 1  # a capture that forbids nothing to other threads: the loop's policy drives while this one is made

SIGNATURES: dict[str, list[Any]] = {
    "cuInit": [c_uint],
    "cuDeviceGet": [POINTER(c_int), c_int],
    "cuDevicePrimaryCtxRetain": [POINTER(c_void_p), c_int],
    "cuCtxSetCurrent": [c_void_p],
    "cuStreamCreate": [POINTER(c_void_p), c_uint],
    "cuStreamDestroy_v2": [c_void_p],
    "cuStreamSynchronize": [c_void_p],
    "cuMemAlloc_v2": [POINTER(c_ulonglong), c_size_t],
    "cuMemFree_v2": [c_ulonglong],
    "cuMemAllocHost_v2": [POINTER(c_void_p), c_size_t],
    "cuMemFreeHost": [c_void_p],
    "cuMemcpyHtoDAsync_v2": [c_ulonglong, c_void_p, c_size_t, c_void_p],
    "cuMemcpyDtoHAsync_v2": [c_void_p, c_ulonglong, c_size_t, c_void_p],
    "cuStreamBeginCapture_v2": [c_void_p, c_int],
    "cuStreamEndCapture": [c_void_p, POINTER(c_void_p)],
    "cuGraphInstantiateWithFlags": [POINTER(c_void_p), c_void_p, c_ulonglong],
    "cuGraphDestroy": [c_void_p],
    "cuGraphExecDestroy": [c_void_p],
    "cuGraphLaunch": [c_void_p, c_void_p],
    "cuGetErrorName": [c_int, POINTER(c_char_p)],
}


class CudaError(ValueError):
    """The driver said no."""


class CudaDriver:
    def __init__(self, library: Any = None) -> None:
        self.library = open_libcuda() if library is None else library
        for name, arguments in SIGNATURES.items():
            function = getattr(self.library, name)
            function.argtypes, function.restype = arguments, c_int
        self.call("cuInit", 0)
        ordinal, context = c_int(0), c_void_p()
        self.call("cuDeviceGet", byref(ordinal), 0)
        # The context TensorRT itself uses. Never released: it is the process's, and ends with it.
        self.call("cuDevicePrimaryCtxRetain", byref(context), ordinal.value)
        self.context = context.value

    def call(self, name: str, *arguments: Any) -> None:
        code = getattr(self.library, name)(*arguments)
        if code:
            text = c_char_p()
            self.library.cuGetErrorName(code, byref(text))
            raise CudaError(f"{name}: {(text.value or b'unknown error').decode()} ({code})")

    def enter_thread(self) -> None:
        """Before a thread's first call: the driver knows one current context per thread."""
        self.call("cuCtxSetCurrent", self.context)

    def make_stream(self) -> int:
        return self.handle("cuStreamCreate", STREAM_NON_BLOCKING)

    def free_stream(self, stream: int) -> None:
        self.call("cuStreamDestroy_v2", stream)

    def synchronise(self, stream: int) -> None:
        self.call("cuStreamSynchronize", stream)

    def make_device_buffer(self, size: int) -> int:
        address = c_ulonglong()
        self.call("cuMemAlloc_v2", byref(address), size)
        return address.value

    def free_device_buffer(self, address: int) -> None:
        self.call("cuMemFree_v2", address)

    def make_pinned_buffer(self, size: int) -> int:
        """Host memory that does not move: an asynchronous copy from any other kind is not asynchronous."""
        return self.handle("cuMemAllocHost_v2", size)

    def free_pinned_buffer(self, address: int) -> None:
        self.call("cuMemFreeHost", address)

    def copy_in(self, to_device: int, from_host: int, size: int, stream: int) -> None:
        self.call("cuMemcpyHtoDAsync_v2", to_device, from_host, size, stream)

    def copy_out(self, to_host: int, from_device: int, size: int, stream: int) -> None:
        self.call("cuMemcpyDtoHAsync_v2", to_host, from_device, size, stream)

    def begin_capture(self, stream: int) -> None:
        self.call("cuStreamBeginCapture_v2", stream, CAPTURE_THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """The graph captured, ready to launch; an error if anything forbidden happened in between."""
        graph, ready = c_void_p(), c_void_p()
        self.call("cuStreamEndCapture", stream, byref(graph))
        try:
            self.call("cuGraphInstantiateWithFlags", byref(ready), graph, 0)
        finally:
            self.call("cuGraphDestroy", graph)
        return ready.value or 0

    def launch(self, graph: int, stream: int) -> None:
        self.call("cuGraphLaunch", graph, stream)

    def free_graph(self, graph: int) -> None:
        self.call("cuGraphExecDestroy", graph)

    def handle(self, name: str, argument: int) -> int:
        out = c_void_p()
        self.call(name, byref(out), argument)
        return out.value or 0


@cache
def open_cuda() -> CudaDriver:
    """The process's one. Only after `find_device` has found a device."""
    return CudaDriver()
