"""Golden vectors: observations and the actions they must give, carried by a bundle and run on every engine before it may drive.

Float engines are compared within a tolerance, whole-number engines bit by bit. Knows no zip and no particular engine. Rule that
must stay true: the expected actions are the float64 reference's, not those of the engine that is judged.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edge_dsac.bundle.actor import Actor
from edge_dsac.bundle.integer import Int, IntegerActor
from edge_dsac.bundle.manifest import BundleError
from edge_dsac.records import Float, Observation

if TYPE_CHECKING:
    from edge_dsac.bundle.parts import Runnable

TOLERANCE = 1e-5  # of [-1, 1]: float32 sums in another order differ by some 1e-6
MOST = 4096


class Engine(Protocol):
    bundle_id: int

    def act(self, obs: Observation) -> Float: ...


class Reference(Protocol):
    """The policy in float64: an Actor, or a GuidedActor."""

    def act(self, obs: Float) -> Float: ...


@dataclass(frozen=True, slots=True)
class Golden:
    obs: Float  # [n, observations], SI, float32
    action: Float  # [n, actions], float32
    whole: Int | None  # [n, actions], int16: action = whole / 32768; None where the policy has no whole-number form

    @property
    def count(self) -> int:
        return len(self.obs)


def make_golden(reference: Reference, integer: IntegerActor | None, obs: Float) -> bytes:
    """`obs[n, observations]` in SI: best from flights, so that they are where the robot will be."""
    inputs = np.asarray(obs, np.float32)
    arrays = {"obs": inputs, "float32": reference.act(inputs).astype(np.float32)}
    if integer is not None:
        arrays["whole"] = integer.act_integer(integer.whole(inputs)).astype(np.int16)
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def read_golden(arrays: Mapping[str, np.ndarray], actor: Actor, reference: Reference | None = None) -> Golden:
    """`reference`: of a guided policy, which acts otherwise than its actor alone."""
    unknown = set(arrays) - {"obs", "float32", "whole"}
    if unknown or not {"obs", "float32"} <= set(arrays):
        raise BundleError(f"golden.npz: expected the arrays obs, float32 and perhaps whole, got {', '.join(sorted(arrays)) or 'none'}")
    obs, action, whole = arrays["obs"], arrays["float32"], arrays.get("whole")
    count = len(obs) if obs.ndim == 2 else 0
    if not 1 <= count <= MOST or obs.shape[1] != actor.sizes[0] or action.shape != (count, actor.sizes[-1]):
        raise BundleError(
            f"golden.npz: expected 1 to {MOST} rows of {actor.sizes[0]} and {actor.sizes[-1]} entries, got {obs.shape} and {action.shape}"
        )
    if whole is not None and (whole.shape != action.shape or whole.dtype != np.int16):
        raise BundleError(f"golden.npz: whole expected int16 {action.shape}, got {whole.dtype} {whole.shape}")
    if obs.dtype != np.float32 or action.dtype != np.float32 or not (np.isfinite(obs).all() and np.isfinite(action).all()):
        raise BundleError("golden.npz: expected finite float32")
    wrong = np.abs((reference or actor).act(obs) - action).max()
    if not wrong <= TOLERANCE:
        guided = " with guide.npz" if reference else ""
        raise BundleError(f"golden.npz: its actions are not those of actor.npz{guided}: {wrong:.2g} apart, at most {TOLERANCE:g}")
    return Golden(obs, action, whole)


def check_golden(
    engine: Engine, bundle: Runnable, exact: bool = False, tolerance: float = TOLERANCE, breathe: Callable[[], None] = lambda: None
) -> list[str]:
    """What this engine gets wrong, one line each; empty if it may drive. `exact`: it answers in whole numbers. `breathe`: after each."""
    golden = bundle.golden
    failures = []
    if engine.bundle_id != bundle.identity:
        failures.append(f"calls itself {engine.bundle_id:016x} in the log, the bundle is {bundle.identity:016x}")
    if exact and golden.whole is None:
        return [*failures, "the bundle has no whole-number golden actions to compare with"]
    if exact and golden.whole is not None:
        expected, allowed = golden.whole.astype(np.float64) / 32768.0, 0.0
    else:
        expected, allowed = np.asarray(golden.action, np.float64), tolerance
    for i in range(golden.count):
        action = np.array(engine.act(Observation(golden.obs[i].copy(), 0, True)), np.float64)
        breathe()
        if action.shape != expected[i].shape:
            return [*failures, f"vector {i}: expected {expected[i].shape[0]} actions, got an array of shape {action.shape}"]
        difference = np.abs(action - expected[i])
        if not difference.max() <= allowed:  # also where it is NaN
            worst = int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
            failures.append(f"vector {i}, action {worst}: expected {expected[i][worst]:.9g}, got {action[worst]:.9g}, allowed {allowed:g}")
    return failures
