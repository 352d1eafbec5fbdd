"""Every kind of engine: can it run on this machine, and if not, why; its version, its device, and what was never tried for real.

Knows no policy: whether an engine can run one is the registry's to say. Rule that must stay true: asking is safe everywhere. Nothing of
TensorRT is touched before a GPU was found, and torch_tensorrt is not imported to learn its version.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from edge_dsac.bundle import tensorrt_engine, tensorrt_here, torch_trt
from edge_dsac.bundle.device import Device, NoDevice, find_device
from edge_dsac.bundle.targets import TARGETS, Target, best_target

NEVER_ON_JETSON = "never run on a Jetson by this project"
NEVER_ON_HARDWARE = "the level aarch64_dotprod has never run on real hardware"
RTX_RUNS_ON = (75, 80, 86, 89, 120, 121)  # of tensorrt_rtx 1.5; no Orin (87), Hopper (90) or Thor (110)
AHEAD_OF_TIME = "builds plans ahead of time for SM 7.5, 8.0, 8.6, 8.9, 12.0 and 12.1; " + tensorrt_engine.NEVER_RUN


@dataclass(frozen=True, slots=True)
class EngineReport:
    kind: str
    runs_here: bool
    reason: str  # why not; empty if it runs
    version: str  # empty if it is not installed
    device: str
    caution: str  # what of it this project has never tried


def describe(device: Device | NoDevice | None = None, version_of: Callable[[str], str] | None = None) -> list[EngineReport]:
    """What needs no GPU first. Every row of engines.py's table has its own here, and so has what that table cannot load yet."""
    gpu = find_device() if device is None else device
    version = version_of or installed_version
    processor = f"{platform.machine()}, {os.cpu_count()} cores"
    return [
        EngineReport("numpy", True, "", np.__version__, processor, ""),
        *(native(kind, processor, best_target(target.file for target in TARGETS.values())) for kind in NATIVE),
        onnxruntime(version("onnxruntime"), processor),
        tensorrt(version("tensorrt"), gpu),
        tensorrt_rtx(version("tensorrt_rtx"), gpu),
        torch_tensorrt(version("torch_tensorrt"), gpu),
    ]


NATIVE = ("native-integer", "native-float32")


def native(kind: str, processor: str, level: Target | None) -> EngineReport:
    """Its compiled actors travel in the bundle: Linux on a processor that one of them was made for is all it needs. `level`: that one."""
    caution = f"{NEVER_ON_JETSON}; {NEVER_ON_HARDWARE}"
    if level is None or sys.platform != "linux":
        made_for = ", ".join(name for name, target in TARGETS.items() if target.machine)
        reason = f"bundles carry it for Linux on {made_for}, this is {sys.platform} on {platform.machine()}"
        return EngineReport(kind, False, reason, "", processor, caution)
    return EngineReport(kind, True, "", "", f"{processor}, as {Path(level.file).stem}", caution)


def onnxruntime(version: str, processor: str) -> EngineReport:
    reason = "" if version else "onnxruntime is not installed: pip install 'edge_dsac[compile]'"
    return EngineReport("onnxruntime", bool(version), reason, version, processor, NEVER_ON_JETSON)


def tensorrt(version: str, gpu: Device | NoDevice) -> EngineReport:
    return on_gpu("tensorrt", version, gpu, tensorrt_here.MISSING, tensorrt_engine.NEVER_RUN)


def tensorrt_rtx(version: str, gpu: Device | NoDevice) -> EngineReport:
    missing = "tensorrt_rtx is not installed: pip install 'edge_dsac[trt-rtx]'"
    report = on_gpu("tensorrt-rtx", version, gpu, missing, AHEAD_OF_TIME)
    if report.runs_here and isinstance(gpu, Device) and gpu.sm not in RTX_RUNS_ON:
        return replace(report, runs_here=False, reason=f"TensorRT-RTX has nothing for SM {gpu.sm // 10}.{gpu.sm % 10}; use tensorrt")
    return report


def torch_tensorrt(version: str, gpu: Device | NoDevice) -> EngineReport:
    return on_gpu("torch-tensorrt", version, gpu, torch_trt.why_not(gpu, bool(version)), torch_trt.NEVER_RUN)


def on_gpu(kind: str, version: str, gpu: Device | NoDevice, missing: str, caution: str) -> EngineReport:
    if isinstance(gpu, NoDevice):
        return EngineReport(kind, False, gpu.reason if version else missing, version, "none", caution)
    device = f"{gpu.name}, SM {gpu.sm // 10}.{gpu.sm % 10}, {gpu.board}"
    return EngineReport(kind, bool(version), "" if version else missing, version, device, caution)


def installed_version(package: str) -> str:
    """By what its wheel says; by its directory alone where a board's own package has no such record."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown" if find_spec(package) is not None else ""
