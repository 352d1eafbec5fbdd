"""What crosses from the process that checks to the one that drives acts there as it did here."""

import dataclasses

import numpy as np
import pytest
from bundle_fixture import opened_bundle
from guide_fixture import drawn_guide

from edge_dsac.bundle.engines import ENGINES, make_engine
from edge_dsac.bundle.golden import check_golden
from edge_dsac.bundle.manifest import BundleError
from edge_dsac.bundle.parts import pack, parts_of, parts_of_weights, unpack
from edge_dsac.records import Observation

NUMPY = next(kind for kind in ENGINES if kind.name == "numpy")


def alike(one, other):
    """Of dataclasses with arrays in them."""
    if dataclasses.is_dataclass(one):
        return all(alike(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(one))
    if isinstance(one, tuple):
        return len(one) == len(other) and all(alike(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return one == other


def test_a_policy_comes_through_as_it_was():
    bundle = opened_bundle()
    parts = parts_of(bundle, "numpy", ("actor.npz",))
    there = unpack(pack(parts), bundle.spec)
    assert alike(there, parts)
    assert set(there.files) == {"actor.npz"}
    assert make_engine(there).bundle_id == bundle.identity


def test_a_guide_comes_through_as_it_was():
    bundle = opened_bundle()
    guide = drawn_guide(obs=bundle.actor.sizes[0], layer_norm=True, beta=0.5)
    parts = dataclasses.replace(parts_of(bundle, "numpy", ()), guide=guide)
    assert alike(unpack(pack(parts), bundle.spec), parts)


def test_a_bare_weights_file_has_no_golden_vectors_and_comes_through():
    bundle = opened_bundle()
    parts = parts_of_weights(bundle.actor, "numpy", bundle.spec)
    there = unpack(pack(parts), bundle.spec)
    assert alike(there, parts)
    seen = Observation(bundle.golden.obs[0], 0, True)
    assert np.array_equal(make_engine(there).act(seen), make_engine(parts_of(bundle, "numpy", ())).act(seen))


def test_the_golden_vectors_are_asked_again_where_it_drives_with_a_breath_after_each():
    bundle, breaths = opened_bundle(), []
    parts = unpack(pack(parts_of(bundle, "numpy", ())), bundle.spec)
    assert check_golden(make_engine(parts, lambda: breaths.append(1)), parts) == []
    assert len(breaths) == bundle.golden.count
    off = dataclasses.replace(parts, golden=dataclasses.replace(parts.golden, action=parts.golden.action + np.float32(0.01)))
    with pytest.raises(BundleError, match="the engine numpy does not act as the policy says"):
        make_engine(off)
