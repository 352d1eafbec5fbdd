"""A small bundle for balance_bot from random weights: what the tests of bundles, verbs and flashing start from."""

import io
from functools import lru_cache
from pathlib import Path

import numpy as np

from edge_dsac.bundle.actor import check_actor, make_actor_file
from edge_dsac.bundle.codegen import make_c
from edge_dsac.bundle.golden import make_golden
from edge_dsac.bundle.integer import make_integer
from edge_dsac.bundle.manifest import Precision, make_manifest
from edge_dsac.bundle.package import make_bundle, read_bundle, short_hash
from edge_dsac.bundle.signing import make_secret_key
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import load_robot

KEY = make_secret_key(bytes(range(40)))
OTHER_KEY = make_secret_key(bytes(range(100, 140)))
PRECISION = Precision(
    "int8", "as good as float32 within noise, and twice as fast", {"int8": {"max_error": 0.01}, "float32": {"max_error": 0.0}}
)
TRAINING = {
    "run": "runs/robots/balance_bot-0",
    "commit": "e842b3f",
    "changed": False,
    "seed": 0,
    "config": {"updates": 14000, "rates": {"actor_lr": 0.001}},
    "evaluation": {"mean": 812.25, "survival": 1.0},
    "exam": {"policy/nominal": {"mean": 812.25, "std": 59.5, "survival": 1.0}, "baseline/nominal": {"mean": 823.5, "std": 77.0}},
}


def bundle_parts(seed=3, widths=(4, 4), spec=None, rows=4, c=False):
    """(spec, actor, files): all that a manifest is made from."""
    spec = spec or load_robot("balance_bot")
    layout, generator = ObservationLayout(spec), np.random.default_rng(seed)
    sizes = [layout.size, *widths, len(spec.actions)]
    layers = [(generator.normal(size=(b, a)) / np.sqrt(a), generator.normal(size=b) * 0.1) for a, b in zip(sizes, sizes[1:], strict=False)]
    data = make_actor_file(layers, "gelu", spec)
    with np.load(io.BytesIO(data)) as file:
        actor = check_actor(dict(file), "actor.npz", short_hash(data), spec)
    obs = generator.uniform(-layout.clip, layout.clip, (64, layout.size)).astype(np.float32)
    integer = make_integer(actor, obs, layout.clip)
    files = {"actor.npz": data, "golden.npz": make_golden(actor, integer, obs[:rows])}
    if c:
        files["actor.c"] = make_c(actor, integer).encode()
    return spec, actor, files


def bundle_bytes(key=KEY, parts=None, **said):
    """`said` goes over the manifest's words: name, version, precision, training, parent, assumed."""
    spec, actor, files = parts or bundle_parts()
    words = {"name": "balance_bot-0", "version": 3, "precision": PRECISION, "training": TRAINING, **said}
    return make_bundle(make_manifest(spec, actor, files, **words), files, key)


@lru_cache
def small_bundle():
    """Signed by KEY, some 20 kB; the same bytes each time."""
    return bundle_bytes()


def opened_bundle(data=None):
    return read_bundle(small_bundle() if data is None else data, [KEY.public])


def write_bundle(folder: Path, name="balance_bot.policy", data=None) -> Path:
    path = Path(folder) / name
    path.write_bytes(small_bundle() if data is None else data)
    return path
