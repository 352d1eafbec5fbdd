"""Engines: ways to run a policy, all behind `act(obs) -> action`. Here the numpy one, the reference for all others.

Knows no robot, no link, no clock. Rule that must stay true: the same observation gives the same action, whatever came before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edge_dsac.bundle.weights import Weights
from edge_dsac.records import Float, Observation

# Abramowitz and Stegun 7.1.26: |error| <= 1.5e-7, which is float32's own. numpy has no erf and the robot has no scipy.
ERF_P = np.float32(0.3275911)
ERF = tuple(np.float32(c) for c in (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429))
INVERSE_ROOT_2 = np.float32(0.7071067811865476)


def gelu(x: Float) -> Float:
    """x * Phi(x), exact to float32."""
    z = np.abs(x) * INVERSE_ROOT_2
    t = 1.0 / (1.0 + ERF_P * z)
    tail = t * (ERF[0] + t * (ERF[1] + t * (ERF[2] + t * (ERF[3] + t * ERF[4])))) * np.exp(-z * z)
    return np.asarray(0.5 * x * (1.0 + np.copysign(1.0 - tail, x)))


def relu(x: Float) -> Float:
    return np.maximum(x, 0.0)


NONLINEARITY: dict[str, Callable[[Any], Any]] = {"gelu": gelu, "relu": relu, "tanh": np.tanh}


class NumpyMlp:
    """Deployed action = tanh(mean). The observation scale is folded into the first layer before the first tick."""

    def __init__(self, weights: Weights, actions: int) -> None:
        self.bundle_id = weights.identity
        self.actions = actions
        self.nonlinearity = NONLINEARITY[weights.activation]
        first, bias = weights.layers[0]
        folded = ((first * weights.obs_scale).astype(np.float32), bias)
        layers = [folded, *weights.layers[1:]]
        last, last_bias = layers[-1]
        layers[-1] = (last[:actions], last_bias[:actions])  # a stochastic actor's log-deviations do not drive motors
        self.hidden = [(np.ascontiguousarray(w), b) for w, b in layers[:-1]]
        self.out_weight, self.out_bias = np.ascontiguousarray(layers[-1][0]), layers[-1][1]

    def act(self, obs: Observation) -> Float:
        x = obs.vector
        for weight, bias in self.hidden:
            x = self.nonlinearity(weight @ x + bias)
        return np.tanh(self.out_weight @ x + self.out_bias)
