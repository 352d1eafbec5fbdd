"""The table of engines: every way to run a bundle's policy that this project knows, and why one cannot be used here.

To add one: write a module with `why_not(bundle)` and `load(bundle)`, and a row below. Rule that must stay true: looking at the table
imports nothing heavy; what an engine needs is imported by its own two functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_dsac.bundle.golden import TOLERANCE, Engine, check_golden
from edge_dsac.bundle.numpy_engine import NumpyMlp
from edge_dsac.bundle.package import Bundle


@dataclass(frozen=True, slots=True)
class EngineKind:
    name: str
    exact: bool  # answers in whole numbers, bit by bit those of the golden vectors
    why_not: Callable[[Bundle], str]  # empty if it can run this bundle here and now
    load: Callable[[Bundle], Engine]
    tolerance: float = TOLERANCE  # of an engine that is not exact; float16 needs more


ENGINES: tuple[EngineKind, ...] = (EngineKind("numpy", False, lambda bundle: "", lambda bundle: NumpyMlp(bundle.actor)),)


@dataclass(frozen=True, slots=True)
class Verdict:
    engine: str
    result: str  # "passed", "failed" or "skipped"
    why: str


def judge(bundle: Bundle, kinds: tuple[EngineKind, ...] = ENGINES) -> list[Verdict]:
    """Runs the golden vectors on every engine that is here."""
    return [judge_one(bundle, kind) for kind in kinds]


def judge_one(bundle: Bundle, kind: EngineKind) -> Verdict:
    why_not = kind.why_not(bundle)
    if why_not:
        return Verdict(kind.name, "skipped", why_not)
    try:
        failures = check_golden(kind.load(bundle), bundle, kind.exact, kind.tolerance)
    except Exception as error:  # whatever a backend throws: an engine that cannot run is an answer, not a crash of the check
        return Verdict(kind.name, "failed", f"{type(error).__name__}: {error}")
    if failures:
        return Verdict(kind.name, "failed", f"{len(failures)} failures on {bundle.golden.count} golden vectors, the first: {failures[0]}")
    kind_of = "bit by bit" if kind.exact else f"within {kind.tolerance:g}"
    return Verdict(kind.name, "passed", f"{bundle.golden.count} golden vectors {kind_of}")
