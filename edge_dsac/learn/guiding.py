"""The guide of a child whose critics alone have learned: which actions around the actor's own they may choose among.

Pure functions of the learner's networks. Knows no bundle's form and no robot. Rule that must stay true: the same learner and the same
observations give the same guide.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from edge_dsac.bundle.guide import Guide
from edge_dsac.learn.carried import Carried
from edge_dsac.learn.losses import Objective
from edge_dsac.learn.networks import action_distribution
from edge_dsac.records import Float

MOST_DIAGONAL = 2  # actions: beyond that, corners outnumber what a tick has time for


@dataclass(frozen=True, slots=True)
class Guidance:
    """How far from the actor's own action the critics may go, and how sure they have to be."""

    reach: float = 1.0
    """in the actor's own deviations, as it explored when the critics learned what actions are worth"""
    least: float = 0.02
    """of an action in [-1, 1]: an actor that has become sure leaves its critics some room"""
    most: float = 0.25
    """and no actor leaves them more"""
    beta: float = 0.0
    """sigmas less than the mean that an action counts for; sigma is the spread of returns, not what the critics do not know"""


def make_guide(carried: Carried, objective: Objective, seen: Float, guidance: Guidance) -> Guide:
    """`seen[n, observations]`: scaled, the robot's own."""
    params = tuple(torch.from_numpy(np.array(layer, np.float32)) for layer in carried.networks["actor"])
    with torch.no_grad():
        obs = torch.from_numpy(np.ascontiguousarray(seen, np.float32))
        mean, std = action_distribution(params, obs, objective.activation, objective.log_std_range)
        spread = (std * (1.0 - torch.tanh(mean).square())).mean(dim=0).numpy()  # after tanh
    step = np.clip(guidance.reach * spread, guidance.least, guidance.most)
    used = 2 if objective.twin_value_distributions else 1
    critics = [np.ascontiguousarray(layer[:used], np.float32) for layer in carried.networks["critics"]]
    layers = tuple(zip(critics[0::2], critics[1::2], strict=True))
    offsets = (directions(len(step)) * step).astype(np.float32)
    return Guide(layers, objective.activation, objective.critic_layer_norm, offsets, float(np.float32(guidance.beta)))


def directions(actions: int) -> Float:
    """None first; each axis both ways; of two actions the diagonals too."""
    axes = [sign * axis for axis in np.eye(actions) for sign in (1.0, -1.0)]
    corners = [np.array(signs) for signs in product((1.0, -1.0), repeat=actions)] if actions == MOST_DIAGONAL else []
    return np.array([np.zeros(actions), *axes, *corners])
