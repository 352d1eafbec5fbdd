"""From an ONNX file to the `tensorrt` engine of this board: device, then TensorRT, then plan, then engine; in this order and no other.

The one place that imports `tensorrt`. Knows no bundle: it is given bytes. Rule that must stay true: nothing of TensorRT is imported or
made before a device was found.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edge_dsac.bundle.cuda import open_cuda
from edge_dsac.bundle.device import Device, NoDevice, find_device
from edge_dsac.bundle.plan_cache import PlanCache, load_or_build, make_key
from edge_dsac.bundle.tensorrt import PlanConfig
from edge_dsac.bundle.tensorrt_engine import Cuda, EngineError, TensorRtEngine, UnreadablePlan

MISSING = "tensorrt is not installed: on a Jetson it comes with JetPack (python3-libnvinfer), elsewhere pip install tensorrt"


def why_not(found: Device | NoDevice | None = None, is_installed: Callable[[str], bool] = lambda name: find_spec(name) is not None) -> str:
    """Empty if this machine can run the engine."""
    if not is_installed("tensorrt"):
        return MISSING
    device = find_device() if found is None else found
    return device.reason if isinstance(device, NoDevice) else ""


def load_engine(onnx_bytes: bytes, bundle_id: int, folder: Path, config: PlanConfig, say: Callable[[str], None]) -> TensorRtEngine:
    """`folder`: where this board keeps its plans. Takes seconds to minutes the first time; never to be called by the loop's thread."""
    device = find_device()
    if isinstance(device, NoDevice):
        raise EngineError(f"the tensorrt engine cannot run here: {device.reason}")
    try:
        import tensorrt
    except ImportError as error:
        raise EngineError(f"the tensorrt engine cannot run here: {error}: {MISSING}") from None
    return open_engine(onnx_bytes, bundle_id, PlanCache(folder), config, tensorrt, device, open_cuda(), say)


def open_engine(
    onnx_bytes: bytes,
    bundle_id: int,
    plans: PlanCache,
    config: PlanConfig,
    trt: Any,
    device: Device,
    cuda: Cuda,
    say: Callable[[str], None],
) -> TensorRtEngine:
    """A plan that is whole but that TensorRT cannot read any more (a driver was exchanged) is built again, once."""
    plan = load_or_build(plans, trt, onnx_bytes, config, device, say)
    try:
        return TensorRtEngine(bundle_id, plan, device, trt, cuda)
    except UnreadablePlan as error:
        say(f"building it again: {error}")
    plans.drop(make_key(trt, onnx_bytes, config, device))
    return TensorRtEngine(bundle_id, load_or_build(plans, trt, onnx_bytes, config, device, say), device, trt, cuda)
