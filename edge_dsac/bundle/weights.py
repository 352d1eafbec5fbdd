"""The weights of a policy network in one plain npz file: what a trainer hands to a runtime before there is a bundle.

Holds float32 layers, the observation scale and the policy fingerprint they were made for. Never pickle: an object array
is refused by numpy itself. Rule that must stay true: nothing is returned that has not been checked.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_dsac.records import Float
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec

ACTIVATIONS = ("gelu", "relu", "tanh")


class WeightsError(ValueError):
    """A weights file that must not drive this robot, and why."""

    refused = True


@dataclass(frozen=True, slots=True)
class Weights:
    """`layers[i] = (weight[out, in], bias[out])`; the last layer's first `actions` outputs are the means, before tanh."""

    layers: tuple[tuple[Float, Float], ...]
    activation: str
    obs_scale: Float
    policy_fingerprint: str
    identity: int  # first 8 bytes of the file's SHA-256


def make_weights_file(layers: list[tuple[Float, Float]], activation: str, spec: RobotSpec) -> bytes:
    arrays = {f"w{i}": np.asarray(w, np.float32) for i, (w, _) in enumerate(layers)}
    arrays |= {f"b{i}": np.asarray(b, np.float32) for i, (_, b) in enumerate(layers)}
    arrays["obs_scale"] = ObservationLayout(spec).scale
    arrays["activation"] = np.array(activation)
    arrays["policy_fingerprint"] = np.array(spec.policy_fingerprint)
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def load_weights(path: str | Path, spec: RobotSpec) -> Weights:
    try:
        data = Path(path).read_bytes()
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from None
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path}: not a weights file: {error}") from None
    identity = int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
    return check_weights(arrays, str(path), identity, spec)


def check_weights(arrays: dict[str, np.ndarray], source: str, identity: int, spec: RobotSpec) -> Weights:
    for name in ("obs_scale", "activation", "policy_fingerprint", "w0", "b0"):
        if name not in arrays:
            raise WeightsError(f"{source}: expected the array {name!r}, got {sorted(arrays)}")
    made_for = str(arrays["policy_fingerprint"])
    if made_for != spec.policy_fingerprint:
        raise WeightsError(f"{source}: made for policy {made_for}, {spec.model} has {spec.policy_fingerprint}; train or compile it again")
    activation = str(arrays["activation"])
    if activation not in ACTIVATIONS:
        raise WeightsError(f"{source}: activation {activation!r} is unknown; expected one of {', '.join(ACTIVATIONS)}")
    layout = ObservationLayout(spec)
    layers: list[tuple[Float, Float]] = []
    width = layout.size
    while f"w{len(layers)}" in arrays:
        i = len(layers)
        weight, bias = arrays[f"w{i}"], arrays.get(f"b{i}", np.zeros(0))
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != (weight.shape[0],):
            raise WeightsError(f"{source}: layer {i} expected [n, {width}] and [n], got {weight.shape} and {bias.shape}")
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise WeightsError(f"{source}: layer {i} holds NaN or infinity; the run that made it diverged")
        layers.append((weight.astype(np.float32), bias.astype(np.float32)))
        width = weight.shape[0]
    if width < len(spec.actions):
        raise WeightsError(f"{source}: the last layer has {width} outputs, {spec.model} needs {len(spec.actions)}")
    if arrays["obs_scale"].shape != (layout.size,):
        raise WeightsError(f"{source}: obs_scale expected [{layout.size}], got {arrays['obs_scale'].shape}")
    return Weights(tuple(layers), activation, arrays["obs_scale"].astype(np.float32), made_for, identity)
