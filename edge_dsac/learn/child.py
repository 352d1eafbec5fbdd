"""A child of the policy that drives: the learner's networks as a signed bundle that names its parent.

A child holds the actor, golden vectors of the robot's own observations, what learning goes on from, and where its critics alone have
learned, the guide that lets them choose. A board has no compiler: the child carries the shared objects that its parent was compiled to,
whose float32 network runs any weights; whole numbers have to wait for a desktop. Rule that must stay true: a child comes from a learner
that began with this very parent, and the same learner gives the same bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_dsac.bundle.actor import Actor, actor_from_bytes, make_actor_file
from edge_dsac.bundle.arrays import read_arrays
from edge_dsac.bundle.container import GUIDE, LIMITS
from edge_dsac.bundle.golden import make_golden
from edge_dsac.bundle.guide import Guide, GuidedActor, make_guide_file, read_guide
from edge_dsac.bundle.manifest import Precision, make_manifest
from edge_dsac.bundle.package import Bundle, make_bundle
from edge_dsac.bundle.signing import SecretKey
from edge_dsac.bundle.targets import TARGETS
from edge_dsac.learn.carried import Carried, carried_files
from edge_dsac.records import Float
from edge_dsac.spec.layout import ObservationLayout

GOLDEN_ROWS = 256
BECAUSE = "tuned on the robot, in float32; compile it on a desktop for whole numbers"
SHARED_OBJECTS = tuple(target.file for target in TARGETS.values() if target.machine)  # a microcontroller's object is its weights


def make_child(
    parent: Bundle, carried: Carried, seen: Float, words: dict[str, Any], key: SecretKey | None, guide: Guide | None = None
) -> bytes:
    """`seen[rows, obs]`: the robot's own observations, SI. `words`: what the session says about it, for the manifest."""
    activation = parent.actor.activation
    actor_file = make_actor_file(layers_of(carried.networks["actor"]), activation, parent.spec)
    actor = actor_from_bytes(actor_file, "the child", parent.spec)
    rows = golden_rows(actor, seen, parent)
    if guide is None:
        files = {"golden.npz": make_golden(actor, None, rows)}
    else:
        data = make_guide_file(guide)
        guide = read_guide(read_arrays(data, GUIDE, LIMITS[GUIDE]), actor)  # what cannot be read back is not written
        rows = rows[guide.clear(rows * actor.obs_scale, actor.act(rows))]  # elsewhere two right engines may choose two actions
        files = {GUIDE: data, "golden.npz": make_golden(GuidedActor(actor, guide), None, rows)}
    files |= {"actor.npz": actor_file, **carried_files(carried)}
    files |= {name: parent.files[name] for name in SHARED_OBJECTS if name in parent.files}
    training = {"tuned": words, "from": {key: parent.manifest.training.get(key) for key in ("run", "seed", "source")}}
    manifest = make_manifest(
        parent.spec, actor, files, name=parent.manifest.name, version=parent.manifest.version + 1,
        precision=Precision("float32", BECAUSE, {}), training=training, parent=parent.manifest.sha256, assumed=parent.manifest.assumed,
    )  # fmt: skip
    return make_bundle(manifest, files, key)


def layers_of(params: tuple[Float, ...]) -> list[tuple[Float, Float]]:
    return list(zip(params[0::2], params[1::2], strict=True))


def golden_rows(actor: Actor, seen: Float, parent: Bundle) -> Float:
    """The robot's own, the parent's, and the ends of every observation's range."""
    clip = ObservationLayout(parent.spec).clip
    own = np.clip(np.asarray(seen, np.float32), -clip, clip)[:: max(1, len(seen) // GOLDEN_ROWS)][:GOLDEN_ROWS]
    return np.concatenate([own, parent.golden.obs[:GOLDEN_ROWS], clip[None], -clip[None]]).astype(np.float32)
