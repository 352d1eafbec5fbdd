"""The table of engines: every way to run a bundle's policy that this project knows, and why one cannot be used here.

To add one: write a module with `why_not(bundle)` and `load(bundle)`, and a row below. Rule that must stay true: looking at the table
imports nothing heavy; what an engine needs is imported by its own two functions.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from edge_dsac.bundle import tensorrt_here
from edge_dsac.bundle.golden import TOLERANCE, Engine, check_golden
from edge_dsac.bundle.guided_engine import GuidedMlp
from edge_dsac.bundle.manifest import BundleError
from edge_dsac.bundle.native_engine import NativeActor, NativeNetwork
from edge_dsac.bundle.numpy_engine import NumpyMlp
from edge_dsac.bundle.ort_engine import OrtEngine
from edge_dsac.bundle.parts import Parts, Runnable
from edge_dsac.bundle.targets import best_target
from edge_dsac.bundle.tensorrt import PlanConfig, Precision


@dataclass(frozen=True, slots=True)
class EngineKind:
    name: str
    exact: bool  # answers in whole numbers, bit by bit those of the golden vectors
    why_not: Callable[[Runnable], str]  # empty if it can run this bundle here and now
    load: Callable[[Runnable], Engine]
    tolerance: Callable[[Runnable], float] = lambda bundle: TOLERANCE  # of an engine that is not exact; by what it computes in
    needs: Callable[[Runnable], tuple[str, ...]] = lambda bundle: ()  # the files that `load` looks into


def numpy_engine(bundle: Runnable) -> Engine:
    """What drives wherever no other engine can, with its guide where it has one."""
    return GuidedMlp(bundle.actor, bundle.guide) if bundle.guide else NumpyMlp(bundle.actor)


def guided(bundle: Runnable) -> str:
    """All engines but numpy's are the actor alone, and that is another policy."""
    return "the policy is critic-guided, which the numpy engine alone can do" if bundle.guide else ""


def no_native(bundle: Runnable) -> str:
    if bundle.guide:
        return guided(bundle)
    here = platform.machine()
    return "" if best_target(bundle.files) is not None else f"the policy file holds no compiled actor for this machine ({here})"


def not_chosen(bundle: Runnable) -> str:
    """Whole numbers are run only where the gate let them pass; float32 always may."""
    precision = bundle.precision
    return "" if precision.chosen in ("int8", "int16") else f"the policy was compiled for {precision.chosen}: {precision.because}"


def native_file(bundle: Runnable) -> tuple[str, ...]:
    target = best_target(bundle.files)
    assert target is not None  # no_native was asked
    return (target.file,)


def native_library(bundle: Runnable) -> bytes:
    return bundle.files[native_file(bundle)[0]]


def native_integer(bundle: Runnable) -> Engine:
    return NativeActor(native_library(bundle), "integer", bundle.actor.sizes, bundle.identity)


def native_float32(bundle: Runnable) -> Engine:
    """With the weights of actor.npz: a policy tuned on the robot carries what its parent was compiled to."""
    return NativeNetwork(native_library(bundle), bundle.actor, bundle.identity)


def no_onnxruntime(bundle: Runnable) -> str:
    if bundle.guide:
        return guided(bundle)
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed: pip install 'edge_dsac[compile]'"
    return no_file(bundle, "actor.onnx")


def onnxruntime(bundle: Runnable) -> Engine:
    return OrtEngine(bundle.files["actor.onnx"], bundle.spec, bundle.identity)


def tensorrt_precision(bundle: Runnable) -> str:
    """Its int8 is QDQ, another one than the native engine's, and passed the gate or not by itself."""
    accepted = bundle.precision.measured.get("accepted", [])
    return next((precision for name, precision in (("int8 onnx", "int8"), ("float16", "float16")) if name in accepted), "float32")


def tensorrt_file(bundle: Runnable) -> str:
    return TENSORRT[tensorrt_precision(bundle)][0]


def tensorrt_tolerance(bundle: Runnable) -> float:
    return TENSORRT_TOLERANCE[tensorrt_precision(bundle)]


def no_tensorrt(bundle: Runnable) -> str:
    return guided(bundle) or tensorrt_here.why_not() or no_file(bundle, tensorrt_file(bundle))


def no_file(bundle: Runnable, name: str) -> str:
    return "" if name in bundle.files else f"the policy file holds no {name}"


def tensorrt(bundle: Runnable) -> Engine:
    file, precision = TENSORRT[tensorrt_precision(bundle)]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge_dsac" / "plans"
    return tensorrt_here.load_engine(bundle.files[file], bundle.identity, folder, PlanConfig(precision), say)


def say(text: str) -> None:
    """A plan takes up to minutes to build the first time."""
    sys.stderr.write(f"tensorrt: {text}\n")


TENSORRT = {
    "int8": ("actor_int8.onnx", Precision.INT8),
    "float16": ("actor_float16.onnx", Precision.FP16),
    "float32": ("actor.onnx", Precision.FP32),
}
# The gate's largest error of each (Limits): what it let pass must pass here, and no more. float32 may be TF32 inside.
TENSORRT_TOLERANCE = {"int8": 0.2, "float16": 0.02, "float32": 1e-3}
# The order is that of preference where nothing was measured: quick on every board first.
ENGINES: tuple[EngineKind, ...] = (
    EngineKind("native-integer", True, lambda bundle: no_native(bundle) or not_chosen(bundle), native_integer, needs=native_file),
    EngineKind("native-float32", False, no_native, native_float32, needs=native_file),
    EngineKind("onnxruntime", False, no_onnxruntime, onnxruntime, needs=lambda bundle: ("actor.onnx",)),
    EngineKind("numpy", False, lambda bundle: "", numpy_engine),
    EngineKind("tensorrt", False, no_tensorrt, tensorrt, tensorrt_tolerance, lambda bundle: (tensorrt_file(bundle),)),
)


def make_engine(parts: Parts, breathe: Callable[[], None] = lambda: None) -> Engine:
    """One that may drive: it has answered the golden vectors as the policy says, in this process, on this machine.

    `breathe`: called after each answer, by a thread that must not hold up another one.
    """
    kind = next(kind for kind in ENGINES if kind.name == parts.engine)
    made = kind.load(parts)
    failures = check_golden(made, parts, kind.exact, kind.tolerance(parts), breathe)
    if failures:
        raise BundleError(f"the engine {kind.name} does not act as the policy says: {failures[0]} ({len(failures)} in all)")
    return made


@dataclass(frozen=True, slots=True)
class Verdict:
    engine: str
    result: str  # "passed", "failed" or "skipped"
    why: str


def judge(bundle: Runnable, kinds: tuple[EngineKind, ...] = ENGINES) -> list[Verdict]:
    """Runs the golden vectors on every engine that is here."""
    return [judge_one(bundle, kind) for kind in kinds]


def judge_one(bundle: Runnable, kind: EngineKind) -> Verdict:
    why_not = kind.why_not(bundle)
    if why_not:
        return Verdict(kind.name, "skipped", why_not)
    try:
        failures = check_golden(kind.load(bundle), bundle, kind.exact, kind.tolerance(bundle))
    except Exception as error:  # whatever a backend throws: an engine that cannot run is an answer, not a crash of the check
        return Verdict(kind.name, "failed", f"{type(error).__name__}: {error}")
    if failures:
        return Verdict(kind.name, "failed", f"{len(failures)} failures on {bundle.golden.count} golden vectors, the first: {failures[0]}")
    kind_of = "bit by bit" if kind.exact else f"within {kind.tolerance(bundle):g}"
    return Verdict(kind.name, "passed", f"{bundle.golden.count} golden vectors {kind_of}")
