"""The actor as data: what engines run, what export, quantisation and code generation start from; and its plain npz file.

Holds float32 layers, the observation scale and the policy fingerprint they were made for. Never pickle: an object array
is refused by numpy itself. Rule that must stay true: nothing is returned that has not been checked.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np

from edge_dsac.records import Float
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec

# erf(REACH q) = q N(q^2) / D(q^2) for |q| <= 1, and +-1 beyond. Fitted in the least-maximum sense in float64: |error| <= 1.1e-8 within,
# 7.7e-8 beyond, which is float32's own. numpy has no erf and the robot has no scipy.
REACH = 3.8
ERF = np.array([
    [4.287840484775963, 10.322330707137718, 41.63600528079293, 42.26085320443879, 47.58215656231077, 5.086655958806445],  # N
    [1.0, 7.220667098647168, 23.615215929637678, 44.63097696124193, 50.16256946506253, 24.54642284733811],  # D
])  # fmt: skip


def gelu(x: Float) -> Float:
    """x times the normal distribution's cdf."""
    q = np.clip(x * (1.0 / (REACH * sqrt(2.0))), -1.0, 1.0)
    square = q * q
    numerator, denominator = (np.polynomial.polynomial.polyval(square, row) for row in ERF)
    return np.asarray(0.5 * x * (1.0 + q * numerator / denominator))


def relu(x: Float) -> Float:
    return np.asarray(np.maximum(x, 0.0))


def elu(x: Float) -> Float:
    return np.asarray(np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0))))


def clip(x: Float) -> Float:
    return np.asarray(np.clip(x, -1.0, 1.0))


NONLINEARITY: dict[str, Callable[[Float], Float]] = {"gelu": gelu, "relu": relu, "tanh": np.tanh, "elu": elu}
SQUASH: dict[str, Callable[[Float], Float]] = {"tanh": np.tanh, "clip": clip}  # clip: policies of other trainers end in a plain layer


class ActorError(ValueError):
    """A weights file that must not drive this robot, and why."""

    refused = True


@dataclass(frozen=True, slots=True)
class Actor:
    """action = squash(layers(obs * obs_scale)). `layers[i] = (weight[out, in], bias[out])`; a stochastic actor's log-deviations are
    cut off: they do not drive motors."""

    layers: tuple[tuple[Float, Float], ...]
    activation: str
    obs_scale: Float
    policy_fingerprint: str
    identity: int  # first 8 bytes of the file's SHA-256
    squash: str = "tanh"
    assumed: tuple[str, ...] = ()  # what an import took for granted; for the bundle's manifest

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the observation, of each layer's outputs; the last are the actions."""
        return (self.layers[0][0].shape[1], *(weight.shape[0] for weight, _ in self.layers))

    @property
    def form(self) -> tuple[tuple[int, ...], str, str]:
        """All but the numbers: what must be alike for one actor's weights to take another's place."""
        return self.sizes, self.activation, self.squash

    def act(self, obs: Float) -> Float:
        """`obs[..., n]` in SI -> `[..., actions]` in [-1, 1], in float64: what every engine is measured against."""
        return np.asarray(SQUASH[self.squash](self.before_tanh(obs)[-1]))

    def before_tanh(self, obs: Float) -> list[Float]:
        """What each layer adds up to, before its nonlinearity."""
        x: Float = np.asarray(obs, np.float64) * self.obs_scale
        sums: list[Float] = []
        for weight, bias in self.layers:
            sums.append(x @ weight.T.astype(np.float64) + bias)
            x = NONLINEARITY[self.activation](sums[-1])
        return sums


def require_form(actor: Actor, activations: tuple[str, ...], squashes: tuple[str, ...], form: str) -> None:
    """For whoever writes an actor in another form: what that form cannot say is an error, not another policy."""
    if actor.activation not in activations:
        raise ActorError(f"{form}: knows {', '.join(activations)}, the actor has {actor.activation}; run it with the numpy engine")
    if actor.squash not in squashes:
        raise ActorError(f"{form}: ends in {', '.join(squashes)}, the actor in {actor.squash}; run it with the numpy engine")


def make_actor_file(
    layers: list[tuple[Float, Float]], activation: str, spec: RobotSpec, squash: str = "tanh", assumed: tuple[str, ...] = ()
) -> bytes:
    arrays = {f"w{i}": np.asarray(w, np.float32) for i, (w, _) in enumerate(layers)}
    arrays |= {f"b{i}": np.asarray(b, np.float32) for i, (_, b) in enumerate(layers)}
    arrays["obs_scale"] = ObservationLayout(spec).scale
    arrays["activation"] = np.array(activation)
    arrays["policy_fingerprint"] = np.array(spec.policy_fingerprint)
    if squash != "tanh":
        arrays["squash"] = np.array(squash)
    if assumed:
        arrays["assumed"] = np.array(assumed)
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def load_actor(path: str | Path, spec: RobotSpec) -> Actor:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ActorError(f"{path}: cannot be read: {error}") from None
    return actor_from_bytes(data, str(path), spec)


def actor_from_bytes(data: bytes, source: str, spec: RobotSpec) -> Actor:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, EOFError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ActorError(f"{source}: not a weights file: {error}") from None
    identity = int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
    return check_actor(arrays, source, identity, spec)


def check_actor(arrays: dict[str, np.ndarray], source: str, identity: int, spec: RobotSpec) -> Actor:
    for name in ("obs_scale", "activation", "policy_fingerprint", "w0", "b0"):
        if name not in arrays:
            raise ActorError(f"{source}: expected the array {name!r}, got {sorted(arrays)}")
    made_for = str(arrays["policy_fingerprint"])
    if made_for != spec.policy_fingerprint:
        raise ActorError(f"{source}: made for policy {made_for}, {spec.model} has {spec.policy_fingerprint}; train or compile it again")
    activation = str(arrays["activation"])
    if activation not in NONLINEARITY:
        raise ActorError(f"{source}: activation {activation!r} is unknown; expected one of {', '.join(NONLINEARITY)}")
    squash = str(arrays.get("squash", "tanh"))
    if squash not in SQUASH:
        raise ActorError(f"{source}: the end {squash!r} is unknown; expected one of {', '.join(SQUASH)}")
    layout = ObservationLayout(spec)
    layers: list[tuple[Float, Float]] = []
    width = layout.size
    while f"w{len(layers)}" in arrays:
        i = len(layers)
        weight, bias = arrays[f"w{i}"], arrays.get(f"b{i}", np.zeros(0))
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != (weight.shape[0],):
            raise ActorError(f"{source}: layer {i} expected [n, {width}] and [n], got {weight.shape} and {bias.shape}")
        if weight.dtype.kind != "f" or bias.dtype.kind != "f":
            raise ActorError(f"{source}: layer {i} expected floating point, got {weight.dtype} and {bias.dtype}")
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ActorError(f"{source}: layer {i} holds NaN or infinity; the run that made it diverged")
        layers.append((weight.astype(np.float32), bias.astype(np.float32)))
        width = weight.shape[0]
    if width < len(spec.actions):
        raise ActorError(f"{source}: the last layer has {width} outputs, {spec.model} needs {len(spec.actions)}")
    scale = arrays["obs_scale"]
    if scale.shape != (layout.size,) or scale.dtype.kind != "f" or not np.isfinite(scale).all():
        raise ActorError(f"{source}: obs_scale expected [{layout.size}] finite numbers, got {scale.shape} of {scale.dtype}")
    actions = len(spec.actions)
    layers[-1] = (layers[-1][0][:actions], layers[-1][1][:actions])
    assumed = tuple(str(line) for line in arrays.get("assumed", ()))
    return Actor(tuple(layers), activation, scale.astype(np.float32), made_for, identity, squash, assumed)
