"""How the C kernels (c/real.h, c/whole.h) want weights to lie: 32 units side by side, padded with zeros.

Knows no kernel's arithmetic. Rule that must stay true: what is packed here is read there in the same order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_dsac.bundle.actor import Actor
from edge_dsac.records import Float

Numbers = NDArray[Any]
BLOCK = 32  # as in c/whole.h


def wide(units: int) -> int:
    return -(-units // BLOCK) * BLOCK


def widened(weight: Numbers, inputs: int) -> Numbers:
    return np.pad(weight, ((0, 0), (0, inputs - weight.shape[1])))


def widened_rows(values: Numbers) -> Numbers:
    return np.pad(values, (0, wide(len(values)) - len(values)))


def in_blocks(weight: Numbers, group: int) -> Numbers:
    """[outputs, inputs] -> [outputs / 32, inputs / group, 32, group]."""
    units, inputs = wide(len(weight)), weight.shape[1]
    padded = np.pad(weight, ((0, units - len(weight)), (0, 0)))
    return np.asarray(padded.reshape(units // BLOCK, BLOCK, inputs // group, group).transpose(0, 2, 1, 3))


def packed(actor: Actor) -> Float:
    """All of a float32 actor in one row, as `network_float32` reads it: of each layer the bias, then the weights; SI observations in."""
    (first, first_bias), *rest = actor.layers
    *hidden, (last, last_bias) = [(first * actor.obs_scale, first_bias), *rest]
    parts, inputs = [], actor.sizes[0]
    for weight, bias in hidden:
        parts += [widened_rows(bias), in_blocks(widened(weight, inputs), 1).ravel()]
        inputs = wide(len(bias))
    parts += [last_bias, widened(last, inputs).ravel()]
    return np.concatenate(parts).astype(np.float32)


def room(actor: Actor) -> int:
    """Numbers that `network_float32` needs for its hidden layers."""
    return max(1, sum(wide(units) for units in actor.sizes[1:-1]))
