"""What of a training run travels to the robot in a policy file, for learning to go on there: networks, m_i, and anchors.

Anchors are transitions of the simulation, drawn evenly from the replay, so that fine-tuning can mix them half and half with the
robot's own. Optimisers' moments stay at home: the field's rates are others. Knows no bundle's form. The actor in critic.npz
is the one that drives, a distilled one too (`distilled_critic_file`). Rule that must stay true: whatever
the losses need to go on from here is in these two files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_dsac.bundle.actor import NONLINEARITY, Actor
from edge_dsac.bundle.arrays import read_arrays
from edge_dsac.bundle.container import LIMITS
from edge_dsac.bundle.manifest import BundleError
from edge_dsac.learn.checkpoint import Saved, npz
from edge_dsac.records import Float

NETWORKS = ("critics", "actor", "target_critics", "target_actor", "log_alpha", "m")
LEARNING = ("gamma", "n_step", "reward_scale")  # of the run's settings, what anchors and values depend on
COLUMNS = ("obs", "act", "reward", "next_obs", "done", "discount")  # of an anchor: losses.Batch, without torch
ANCHORS = 4096


@dataclass(frozen=True, slots=True)
class Carried:
    """The two files, read: what fine-tuning begins with."""

    networks: dict[str, tuple[Float, ...]]  # critics, actor, target_critics, target_actor: (w0, b0, w1, ...), float32
    log_alpha: float
    m: Float  # [2]
    settings: dict[str, Any]  # rates (with the objective), gamma, n_step, reward_scale
    anchors: dict[str, Float]


def read_carried(files: Mapping[str, bytes], source: str) -> Carried:
    """From a bundle's files. Nothing that is missing is made up: without critics there is nothing to go on from."""
    absent = [name for name in ("critic.npz", "anchors.npz") if name not in files]
    if absent:
        raise BundleError(f"{source}: has no {' and no '.join(absent)}, so nothing can learn from it; compile it from its training run")
    arrays, anchors = (read_arrays(files[name], name, LIMITS[name]) for name in ("critic.npz", "anchors.npz"))
    networks: dict[str, tuple[Float, ...]] = {}
    for name in NETWORKS[:4]:
        count = sum(key.startswith(f"{name}.") for key in arrays)
        networks[name] = tuple(arrays[f"{name}.{i}"] for i in range(count) if f"{name}.{i}" in arrays)
        if not count or count % 2 or len(networks[name]) != count:
            raise BundleError(f"{source}: critic.npz: {name} is not whole; compile the policy again")
    bad = [name for name, values in arrays.items() if values.dtype.kind == "f" and not np.isfinite(values).all()]
    if bad:
        raise BundleError(f"{source}: critic.npz: {', '.join(bad[:4])} holds NaN or infinity; compile the policy again")
    lost = [name for name in ("log_alpha", "m", "settings") if name not in arrays]
    if lost:
        raise BundleError(f"{source}: critic.npz: has no {' and no '.join(lost)}; compile the policy again")
    check_anchors(anchors, source)
    settings = json.loads(str(arrays["settings"]))
    return Carried(networks, float(arrays["log_alpha"]), np.asarray(arrays["m"], np.float32), settings, dict(anchors))


def check_anchors(anchors: Mapping[str, Float], source: str) -> None:
    """A batch is made of them from the first update on."""
    lost = [name for name in COLUMNS if name not in anchors]
    if lost:
        raise BundleError(f"{source}: anchors.npz: has no {' and no '.join(lost)}; compile the policy from a run that kept its replay")
    counts = {name: len(np.atleast_1d(anchors[name])) for name in COLUMNS}
    if len(set(counts.values())) > 1 or not counts["reward"]:
        raise BundleError(f"{source}: anchors.npz: is empty or its columns have not as many rows each ({counts}); compile the policy again")
    bad = [name for name in COLUMNS if not np.isfinite(anchors[name]).all()]
    if bad:
        raise BundleError(f"{source}: anchors.npz: {', '.join(bad)} holds NaN or infinity; compile the policy again")


def carried_files(carried: Carried) -> dict[str, bytes]:
    """The two files again, for a child's bundle."""
    arrays = {f"{name}.{i}": values for name, layers in carried.networks.items() for i, values in enumerate(layers)}
    settings = np.array(json.dumps(carried.settings, sort_keys=True))
    arrays |= {"log_alpha": np.array(carried.log_alpha, np.float32), "m": carried.m, "settings": settings}
    return {"critic.npz": npz(arrays), "anchors.npz": npz(carried.anchors)}


def critic_file(saved: Saved) -> bytes:
    """Networks, targets, temperature and the running means of sigma; `settings` is JSON: the objective, rates and horizon."""
    arrays = {name: values for name, values in saved.state.items() if name.split(".")[0] in NETWORKS}
    return critic_arrays_file(saved, arrays)


def critic_arrays_file(saved: Saved, arrays: dict[str, Float]) -> bytes:
    learning = saved.config["learning"]
    settings = {"rates": learning["rates"], **{name: learning[name] for name in LEARNING}}
    return npz(arrays | {"settings": np.array(json.dumps(settings, sort_keys=True))})


def anchor_file(saved: Saved, seed: int = 0, most: int = ANCHORS) -> bytes:
    """The replay's own columns: obs as the network sees it (scaled), applied action, n-step reward, next obs, done, discount."""
    columns = {name: np.concatenate([part[name] for part in saved.replay]) for name in saved.replay[0]} if saved.replay else {}
    count = min((len(values) for values in columns.values()), default=0)
    picked = np.sort(np.random.default_rng(seed).permutation(count)[:most])
    return npz({name: values[picked] for name, values in columns.items()})


def actor_layers(saved: Saved) -> list[tuple[Float, Float]]:
    """The actor's as they were learnt, log-deviations included."""
    count = sum(name.startswith("actor.") for name in saved.state) // 2
    return [(saved.state[f"actor.{2 * i}"], saved.state[f"actor.{2 * i + 1}"]) for i in range(count)]


def distilled_critic_file(saved: Saved, student: Actor) -> bytes:
    """critic.npz where a smaller actor drives: the teacher's critics, for they judge actions whoever chose them; the student's layers.

    A student has means alone. Its log-deviations are constants: for each action the mean of the teacher's own over the replay, so
    that fine-tuning explores about as widely as learning did when it ended. The target actor is the same, as after a long rest.
    Nothing here is made anew: a tuner that loads this file has the actor that was judged, or none.
    """
    outputs = student.sizes[-1]
    deviations = mean_log_std(saved, student, outputs)
    layers = [*student.layers[:-1], with_deviations(student.layers[-1], deviations)]
    arrays = {name: values for name, values in saved.state.items() if name.split(".")[0] in NETWORKS and "actor" not in name.split(".")[0]}
    for i, (weight, bias) in enumerate(layers):
        for owner in ("actor", "target_actor"):
            arrays |= {f"{owner}.{2 * i}": weight, f"{owner}.{2 * i + 1}": bias}
    return critic_arrays_file(saved, arrays)


def with_deviations(layer: tuple[Float, Float], log_std: Float) -> tuple[Float, Float]:
    weight, bias = layer
    constant = np.asarray(log_std, np.float32)
    return np.concatenate([weight, np.zeros_like(weight)]), np.concatenate([bias, constant])


def mean_log_std(saved: Saved, student: Actor, outputs: int) -> Float:
    """Of the teacher, within the range its losses clamp it to; at rest where no replay was kept."""
    objective = saved.config["learning"]["rates"]["objective"]
    x: Float = np.concatenate([part["obs"] for part in saved.replay]) if saved.replay else np.zeros((1, student.sizes[0]))
    x = x[:: max(1, len(x) // ANCHORS)]
    layers = actor_layers(saved)
    for weight, bias in layers[:-1]:
        x = NONLINEARITY[objective["activation"]](x @ weight.T + bias)
    weight, bias = layers[-1]
    low, high = objective["log_std_range"]
    return np.asarray(np.clip((x @ weight.T + bias)[:, outputs:], low, high).mean(axis=0))


def digest(carried: Carried) -> str:
    """Of all networks: two learners with the same are the same, bit by bit."""
    hash_ = hashlib.sha256()
    for name, layers in sorted(carried.networks.items()):
        for values in layers:
            hash_.update(name.encode() + np.ascontiguousarray(values, np.float32).tobytes())
    return hash_.hexdigest()[:32]
