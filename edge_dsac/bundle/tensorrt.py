"""ONNX bytes -> a TensorRT plan, with a look at what was really built. One `build` for the board's own `tensorrt` and for `tensorrt_rtx`.

The module is handed in: this file imports neither, and knows no device, no cache and no robot. With `tensorrt` a device must have
been found first (device.py): without a driver its builder fails and its runtime crashes. `tensorrt_rtx` builds with no GPU at all.
Rule that must stay true: a plan asked for in INT8, FP8 or strongly typed FP16 is refused unless the graph holds that type and the
weights in the plan have shrunk to it. A conversion that says "done" can still be float32 throughout.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from enum import Enum
from math import prod
from pathlib import Path
from typing import Any

BYTES_OF = {"FLOAT": 4, "HALF": 2, "BF16": 2, "INT8": 1, "UINT8": 1, "FP8": 1, "BOOL": 1, "INT32": 4, "INT64": 8}
STRONGLY_TYPED_SINCE = (10, 12)  # before, types in the graph are hints and builder flags decide: JetPack 6 has 10.3
PADDING = 256  # bytes a tensor may cost beyond its own (seen: up to 200). In an actor of some hundred weights it hides the saving
LEAST_SHARE = 0.5  # of the weights; the first layer stays in float on purpose, and is the smaller part of any actor worth quantising
UNPROVEN_SHARE = 0.25  # of the saving that may be missing; one hidden layer of three left in float32 misses a third
WEIGHTS_MEMORY = re.compile(r"Total Weights Memory: (\d+) bytes")


class PlanError(ValueError):
    """No plan, or not the plan that was asked for."""


class Precision(Enum):
    """Of the arithmetic in the plan. INT8 and FP8 come from the graph's QuantizeLinear, never from a flag."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    FP8 = "fp8"


QUANTISED = {Precision.INT8: "INT8", Precision.FP8: "FP8"}  # -> the type TensorRT gives what QuantizeLinear puts out


@dataclass(frozen=True, slots=True)
class PlanConfig:
    precision: Precision = Precision.FP32
    """What the plan must compute in; anything else is refused."""
    workspace_bytes: int = 32 << 20
    """Scratch memory the builder may plan with. 32 MiB: a 256-wide actor asked for 8, and a board shares it with everything else."""
    optimisation_level: int = 3
    """0 to 5, TensorRT's own scale; 3 is its default."""
    timing_cache: Path | None = None
    """File of measured kernel times, read and written by `tensorrt`; `tensorrt_rtx` measures nothing while building."""
    compute_capabilities: tuple[int, ...] = ()
    """GPUs to build for ahead of time, as 89 for SM 8.9; `tensorrt_rtx` alone. Empty: every one it knows."""

    def key(self) -> dict[str, Any]:
        """What makes two plans different. Where kernel times are kept does not."""
        return {**asdict(self), "precision": self.precision.value, "timing_cache": None}


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """A layer of the parsed network, before the builder fuses it away; `elements` is how many weights a CONSTANT holds."""

    name: str
    kind: str
    type: str
    elements: int = 0


@dataclass(frozen=True, slots=True)
class BuiltPlan:
    plan: bytes
    weights_memory: int | None  # bytes, by the builder's own account; None: it did not say, so nothing is proven
    layers: tuple[LayerInfo, ...]
    log: tuple[str, ...]

    def count(self, kind: str) -> int:
        return sum(layer.kind == kind for layer in self.layers)


def flavour_of(trt: Any) -> str:
    return "tensorrt-rtx" if trt.__name__ == "tensorrt_rtx" else "tensorrt"


def is_strongly_typed(trt: Any) -> bool:
    if flavour_of(trt) == "tensorrt-rtx":
        return True
    numbers = [int(part) for part in re.findall(r"\d+", trt.__version__)[:2]]
    return tuple(numbers) >= STRONGLY_TYPED_SINCE


def build(trt: Any, onnx_bytes: bytes, config: PlanConfig) -> BuiltPlan:
    log = make_log(trt)
    try:
        builder = trt.Builder(log)
    except TypeError:  # how the binding says that the library gave it nothing
        raise PlanError(f"{named(trt)}: no builder: {log.complaints()}; it needs a working driver") from None
    network = parse(trt, builder, log, onnx_bytes)
    layers = look_at(network)
    check_asked(trt, layers, config.precision)
    settings = make_settings(trt, builder, config)
    attach_timing_cache(trt, settings, config.timing_cache)
    serialised = builder.build_serialized_network(network, settings)
    if serialised is None:
        raise PlanError(f"{named(trt)}: the {config.precision.value} plan was not built: {log.complaints()}")
    keep_timing_cache(trt, settings, config.timing_cache)
    memory = weights_memory(log.lines)
    if is_strongly_typed(trt):
        check_built(memory, layers, config.precision)
    return BuiltPlan(bytes(serialised), memory, layers, tuple(log.lines))


def named(trt: Any) -> str:
    return f"{flavour_of(trt)} {trt.__version__}"


def make_log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]  # the base class comes with the module
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity.name != "VERBOSE":  # 600 lines a build
                self.lines.append(f"{severity.name}: {message}")

        def complaints(self) -> str:
            return "; ".join(line for line in self.lines if "ERROR" in line.partition(":")[0]) or "and it said nothing"

    return Log()


def parse(trt: Any, builder: Any, log: Any, onnx_bytes: bytes) -> Any:
    strong = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if is_strongly_typed(trt) else 0
    network = builder.create_network(strong)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(onnx_bytes):
        reasons = [reason_of(parser.get_error(i)) for i in range(parser.num_errors)]
        raise PlanError(f"{named(trt)} refuses the ONNX file: {'; '.join(reasons) or log.complaints()}; export it again")
    if not network.num_inputs or not network.num_outputs:  # what an empty file parses to
        raise PlanError(
            f"the ONNX file: expected an observation and an action, got {network.num_inputs} inputs, {network.num_outputs} outputs"
        )
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        if min(tensor.shape, default=1) < 1:
            raise PlanError(f"the ONNX file: input {tensor.name} has the shape {tuple(tensor.shape)}; export it with a batch of 1")
    return network


def reason_of(error: Any) -> str:
    """The parser's own words, with the node they are about."""
    description = str(error.desc()).splitlines()
    operator = str(error.node_operator()) if hasattr(error, "node_operator") else ""  # not in every version
    text = " ".join(description[:2])
    if "UNSUPPORTED" in str(error.code()):
        return f"the operator {operator or text} is not supported"
    return f"{operator or 'the file'}: {text}"


def look_at(network: Any) -> tuple[LayerInfo, ...]:
    found = []
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        out = layer.get_output(0)
        elements = prod(out.shape) if layer.type.name == "CONSTANT" else 0
        found.append(LayerInfo(layer.name, layer.type.name, out.dtype.name, elements))
    return tuple(found)


def check_asked(trt: Any, layers: tuple[LayerInfo, ...], precision: Precision) -> None:
    """The graph itself must be of the precision asked for, in most of its weights and not somewhere."""
    strong = is_strongly_typed(trt)
    found = sorted({layer.type for layer in layers if layer.kind == "QUANTIZE"})
    wanted = [QUANTISED[precision]] if precision in QUANTISED else []
    if wanted and not found:
        raise PlanError(f"asked for {precision.value}, but there is no QuantizeLinear in it: quantise the ONNX file first")
    if found != wanted:
        raise PlanError(f"asked for {precision.value}, but QuantizeLinear makes {', '.join(found)} in this ONNX file")
    if precision is Precision.FP8 and not strong:
        raise PlanError(
            f"fp8 needs TensorRT {STRONGLY_TYPED_SINCE[0]}.{STRONGLY_TYPED_SINCE[1]} or newer, this is {named(trt)}; ask for int8"
        )
    if precision is Precision.FP32 or (precision is Precision.FP16 and not strong):
        return
    type_wanted = QUANTISED.get(precision, "HALF")
    weights = sum(layer.elements for layer in layers)
    share = sum(layer.elements for layer in layers if layer.type == type_wanted) / max(weights, 1)
    if share < LEAST_SHARE:
        raise PlanError(
            f"asked for {precision.value}, but {share:.0%} of the weights in this ONNX file are; export it in {precision.value}"
        )


def make_settings(trt: Any, builder: Any, config: PlanConfig) -> Any:
    settings = builder.create_builder_config()
    settings.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, config.workspace_bytes)
    settings.builder_optimization_level = config.optimisation_level
    if not is_strongly_typed(trt) and config.precision is not Precision.FP32:
        # FP16 is a permission here, not an order; INT8 alone leaves what is not quantised in float32, as it was exported.
        settings.set_flag(trt.BuilderFlag.INT8 if config.precision is Precision.INT8 else trt.BuilderFlag.FP16)
    if config.compute_capabilities:
        if flavour_of(trt) != "tensorrt-rtx":
            raise PlanError(f"{named(trt)} builds for the GPU it runs on; leave compute_capabilities empty")
        known = trt.ComputeCapability.__members__
        settings.num_compute_capabilities = len(config.compute_capabilities)
        for i, sm in enumerate(config.compute_capabilities):
            if f"SM{sm}" not in known or not settings.set_compute_capability(known[f"SM{sm}"], i):
                raise PlanError(
                    f"{named(trt)} does not build for SM {sm}; it knows {', '.join(name for name in known if name[:2] == 'SM')}"
                )
    return settings


def attach_timing_cache(trt: Any, settings: Any, path: Path | None) -> None:
    if path is None or flavour_of(trt) != "tensorrt":
        return
    known = path.read_bytes() if path.exists() else b""
    cache = settings.create_timing_cache(known)
    if cache is None or not settings.set_timing_cache(cache, False):  # of another GPU or version: kernels are timed again
        settings.set_timing_cache(settings.create_timing_cache(b""), False)


def keep_timing_cache(trt: Any, settings: Any, path: Path | None) -> None:
    if path is None or flavour_of(trt) != "tensorrt":
        return
    half = path.with_name(path.name + ".half")
    half.write_bytes(bytes(settings.get_timing_cache().serialize()))
    half.replace(path)


def weights_memory(log: list[str]) -> int | None:
    found = [int(match[1]) for line in log if (match := WEIGHTS_MEMORY.search(line))]
    return found[-1] if found else None


def check_built(memory: int | None, layers: tuple[LayerInfo, ...], precision: Precision) -> None:
    """The plan's weights against what the graph's types come to."""
    constants = [layer for layer in layers if layer.elements]
    typed = sum(layer.elements * BYTES_OF.get(layer.type, 4) for layer in constants)
    as_float = sum(layer.elements * BYTES_OF["FLOAT"] for layer in constants)
    most = typed + UNPROVEN_SHARE * (as_float - typed) + PADDING * len(constants)
    if precision is not Precision.FP32 and memory is not None and memory > most:
        raise PlanError(
            f"asked for {precision.value}, but the plan holds {memory} bytes of weights where the graph's types come to {typed} "
            f"and float32 to {as_float}: the builder went back to float"
        )
