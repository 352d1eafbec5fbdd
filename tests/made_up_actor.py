"""Actors without training: random ones, one that balances, and one quantised until it is spoilt."""

import dataclasses

import numpy as np

from edge_dsac.bundle.actor import Actor
from edge_dsac.bundle.baselines import CascadedPd
from edge_dsac.records import Observation
from edge_dsac.spec.layout import ObservationLayout


def random_actor(spec, widths=(16, 24), activation="gelu", seed=3, squash="tanh"):
    generator = np.random.default_rng(seed)
    sizes = [ObservationLayout(spec).size, *widths, len(spec.actions)]
    layers = tuple(
        ((generator.normal(size=(b, a)) / np.sqrt(a)).astype(np.float32), (generator.normal(size=b) * 0.1).astype(np.float32))
        for a, b in zip(sizes, sizes[1:], strict=False)
    )
    return Actor(layers, activation, ObservationLayout(spec).scale, spec.policy_fingerprint, 0x1234567890ABCDEF, squash)


def balancing_actor(spec):
    """The cascaded PD without its limits: each of its gains is a derivative, and relu(x) - relu(-x) is x; tanh bends it a little."""
    layout, gains = ObservationLayout(spec), balancing_gains(spec)
    first = np.vstack([gains, -gains]) / layout.scale
    last = np.hstack([np.eye(len(gains)), -np.eye(len(gains))])
    layers = tuple((np.asarray(w, np.float32), np.zeros(len(w), np.float32)) for w in (first, last))
    return Actor(layers, "relu", layout.scale, spec.policy_fingerprint, 0xBA1A0CE)


def balancing_gains(spec):
    """[actions, observations]: the cascaded PD's action by each observation in SI."""
    pd, small = CascadedPd(spec), np.eye(ObservationLayout(spec).size) * 1e-3
    return np.array([pd.act(Observation(row, 0, True)) for row in small]).T / 1e-3


def with_weights_of(actor, bits):
    """Its weights rounded to `bits` bits, one scale for a whole layer: what nobody should fly."""

    def rounded(weight):
        step = np.abs(weight).max() / (2 ** (bits - 1) - 1)
        return (np.rint(weight / step) * step).astype(np.float32)

    return dataclasses.replace(actor, layers=tuple((rounded(weight), bias) for weight, bias in actor.layers))


def spread_observations(spec, count=200, seed=9):
    clip = ObservationLayout(spec).clip
    return np.random.default_rng(seed).uniform(-clip, clip, (count, len(clip))).astype(np.float32)
