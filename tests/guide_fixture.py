"""Critic-guided policies for tests: drawn critics, or ones whose best action is known."""

import dataclasses

import numpy as np

from edge_dsac.bundle.actor import Actor
from edge_dsac.bundle.guide import Guide
from edge_dsac.learn.guiding import directions


def drawn_actor(obs=5, act=2, hidden=(16, 16), seed=0, activation="gelu"):
    drawn = np.random.default_rng(seed)
    sizes = (obs, *hidden, act)
    layers = tuple(
        (drawn.normal(0, 1 / np.sqrt(a), (b, a)).astype(np.float32), drawn.normal(0, 0.1, b).astype(np.float32))
        for a, b in zip(sizes, sizes[1:], strict=False)
    )
    return Actor(layers, activation, drawn.uniform(0.5, 2.0, obs).astype(np.float32), "f" * 16, 77)


def drawn_guide(obs=5, act=2, hidden=(32, 32), critics=2, seed=1, step=0.1, **changes):
    drawn = np.random.default_rng(seed)
    sizes = (obs + act, *hidden, 2)
    layers = tuple(
        (drawn.normal(0, 1 / np.sqrt(a), (critics, b, a)).astype(np.float32), drawn.normal(0, 0.1, (critics, b)).astype(np.float32))
        for a, b in zip(sizes, sizes[1:], strict=False)
    )
    return dataclasses.replace(Guide(layers, "gelu", False, (directions(act) * step).astype(np.float32), 0.0), **changes)


def wanting(slopes, act=2, obs=5, step=0.1, sigma=(0.0, 0.0)):
    """Twins without a bend: critic i expects `slopes[i]` @ action, as relu(x) - relu(-x)."""
    first = np.zeros((2, 2, obs + act), np.float32)
    for i, slope in enumerate(slopes):
        first[i, 0, obs:], first[i, 1, obs:] = slope, -np.asarray(slope)
    last = np.zeros((2, 2, 2), np.float32)
    last[:, 0] = (1.0, -1.0)
    bias = np.zeros((2, 2), np.float32)
    bias[:, 1] = sigma
    layers = ((first, np.zeros((2, 2), np.float32)), (last, bias))
    return Guide(layers, "relu", False, (directions(act) * step).astype(np.float32), 0.0)
