"""The actor in float16 as numpy can show it: what float16 engines round, rounded at the same places; batched, for judging.

Weights, what a layer adds up to and what its nonlinearity gives are rounded to float16; sums are kept in float32, as tensor
cores and onnxruntime keep them. Not an engine: numpy has no fast float16.
"""

from __future__ import annotations

import numpy as np

from edge_dsac.bundle.actor import NONLINEARITY, SQUASH, Actor
from edge_dsac.records import Float


def act_float16(actor: Actor, obs: Float) -> Float:
    """`obs[..., n]` in SI -> `[..., actions]`."""
    with np.errstate(over="ignore"):  # an overflow becomes infinity, as on the device; the gate sees what comes of it
        x = half(np.asarray(obs, np.float32) * actor.obs_scale)
        last = len(actor.layers) - 1
        for i, (weight, bias) in enumerate(actor.layers):
            total = half(x @ half(weight).T + half(bias))
            x = total if i == last else half(NONLINEARITY[actor.activation](total))
    return SQUASH[actor.squash](x)


def half(values: Float) -> Float:
    return np.asarray(values).astype(np.float16).astype(np.float32)
