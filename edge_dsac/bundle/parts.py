"""What one engine is made of and judged by: the part of a checked policy that crosses from the process that checks to the one that drives.

As bytes: one line of JSON, then arrays and files one after the other. Rule that must stay true: only what has passed every check is
packed, and only what came from our own process is unpacked; it is not checked again. Never a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np

from edge_dsac.bundle.actor import Actor
from edge_dsac.bundle.golden import Golden
from edge_dsac.bundle.guide import Guide
from edge_dsac.bundle.manifest import Precision
from edge_dsac.records import Float
from edge_dsac.spec.robot import RobotSpec

UNSAID = Precision("float32", "a bare weights file", {})


class Runnable(Protocol):
    """What the table of engines looks at: a whole bundle, or its parts."""

    @property
    def identity(self) -> int: ...
    @property
    def actor(self) -> Actor: ...
    @property
    def guide(self) -> Guide | None: ...
    @property
    def golden(self) -> Golden: ...
    @property
    def files(self) -> Mapping[str, bytes]: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def spec(self) -> RobotSpec: ...


@dataclass(frozen=True, slots=True)
class Parts:
    engine: str  # a row of the table of engines
    identity: int
    actor: Actor
    guide: Guide | None
    golden: Golden
    files: Mapping[str, bytes]  # only what that engine runs
    precision: Precision
    spec: RobotSpec


def parts_of(policy: Runnable, engine: str, needs: tuple[str, ...]) -> Parts:
    files = {name: policy.files[name] for name in needs}
    return Parts(engine, policy.identity, policy.actor, policy.guide, policy.golden, files, policy.precision, policy.spec)


def parts_of_weights(actor: Actor, engine: str, spec: RobotSpec) -> Parts:
    """Of a bare weights file, which has no golden vectors."""
    nothing = Golden(np.zeros((0, actor.sizes[0]), np.float32), np.zeros((0, actor.sizes[-1]), np.float32), None)
    return Parts(engine, actor.identity, actor, None, nothing, {}, UNSAID, spec)


def pack(parts: Parts) -> bytes:
    actor, guide, golden = parts.actor, parts.guide, parts.golden
    arrays: dict[str, np.ndarray] = {"obs_scale": actor.obs_scale, "golden.obs": golden.obs, "golden.action": golden.action}
    arrays |= layer_arrays("actor", actor.layers)
    if golden.whole is not None:
        arrays["golden.whole"] = golden.whole
    if guide is not None:
        arrays |= {"guide.offsets": guide.offsets, **layer_arrays("guide", guide.layers)}
    words = {
        "engine": parts.engine, "identity": f"{parts.identity:016x}", "activation": actor.activation, "squash": actor.squash,
        "guide": None if guide is None else {"activation": guide.activation, "layer_norm": guide.layer_norm, "beta": guide.beta},
        "precision": asdict(parts.precision), "arrays": [[name, values.dtype.str, values.shape] for name, values in arrays.items()],
        "files": [[name, len(data)] for name, data in parts.files.items()],
    }  # fmt: skip
    return b"".join([json.dumps(words).encode(), b"\n", *(values.tobytes() for values in arrays.values()), *parts.files.values()])


def unpack(data: bytes, spec: RobotSpec) -> Parts:
    """`spec`: the robot's, which it was checked for."""
    at = data.index(b"\n") + 1
    words = json.loads(data[:at])
    arrays: dict[str, np.ndarray] = {}
    for name, dtype, shape in words["arrays"]:
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(data, dtype, count, at).reshape(shape)
        at += arrays[name].nbytes
    files = {}
    for name, size in words["files"]:
        files[name] = data[at : at + size]
        at += size
    identity = int(words["identity"], 16)
    layers = layers_from("actor", arrays)
    actor = Actor(layers, words["activation"], arrays["obs_scale"], spec.policy_fingerprint, identity, words["squash"])
    guide = Guide(layers_from("guide", arrays), offsets=arrays["guide.offsets"], **words["guide"]) if words["guide"] else None
    golden = Golden(arrays["golden.obs"], arrays["golden.action"], arrays.get("golden.whole"))
    return Parts(words["engine"], identity, actor, guide, golden, files, Precision(**words["precision"]), spec)


def layer_arrays(whose: str, layers: tuple[tuple[Float, Float], ...]) -> dict[str, Float]:
    return {f"{whose}.{kind}{i}": values for i, layer in enumerate(layers) for kind, values in zip("wb", layer, strict=True)}


def layers_from(whose: str, arrays: Mapping[str, np.ndarray]) -> tuple[tuple[Float, Float], ...]:
    count = sum(name.startswith(f"{whose}.w") for name in arrays)
    return tuple((arrays[f"{whose}.w{i}"], arrays[f"{whose}.b{i}"]) for i in range(count))
