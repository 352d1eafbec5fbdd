"""Is there a GPU that can be used, and on what board are we? Asked through the driver's own library, before any TensorRT object is made.

Knows nothing of TensorRT. Rule that must stay true: `find_device` answers on every machine, with a reason where it finds none; without
a driver TensorRT's runtime does not raise, it crashes the process.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge_dsac.bundle.processor import board_model

LIBRARY = "libcuda.so.1"  # comes with the driver, never with a toolkit
SM_MAJOR, SM_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_* of cuda.h
NAME_BYTES = 256


@dataclass(frozen=True, slots=True)
class Device:
    """The first GPU. A plan built on one device must not be run on another."""

    name: str
    sm: int  # 87 for SM 8.7
    driver: int  # 13000 for CUDA 13.0
    board: str


@dataclass(frozen=True, slots=True)
class NoDevice:
    reason: str


def open_libcuda() -> Any:
    return ctypes.CDLL(LIBRARY)


def find_device(open_library: Callable[[], Any] = open_libcuda, board: Callable[[], str] = board_model) -> Device | NoDevice:
    try:
        cuda = open_library()
    except OSError:
        return NoDevice(f"no NVIDIA driver: {LIBRARY} cannot be loaded")
    code = cuda.cuInit(0)
    if code:
        return NoDevice(f"the NVIDIA driver does not start: cuInit answered {code}")
    count = ctypes.c_int(0)
    code = cuda.cuDeviceGetCount(ctypes.byref(count))
    if code or count.value < 1:
        return NoDevice(f"the NVIDIA driver sees no GPU: cuDeviceGetCount answered {code}, {count.value} GPUs")
    handle, major, minor, driver = (ctypes.c_int(0) for _ in range(4))
    name = ctypes.create_string_buffer(NAME_BYTES)
    codes = (
        cuda.cuDeviceGet(ctypes.byref(handle), 0),
        cuda.cuDeviceGetName(name, NAME_BYTES, handle),
        cuda.cuDeviceGetAttribute(ctypes.byref(major), SM_MAJOR, handle),
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), SM_MINOR, handle),
        cuda.cuDriverGetVersion(ctypes.byref(driver)),
    )
    if any(codes):
        return NoDevice(f"the NVIDIA driver does not describe its GPU: it answered {codes}")
    return Device(name.value.decode(errors="replace"), 10 * major.value + minor.value, driver.value, board() or platform.machine())
