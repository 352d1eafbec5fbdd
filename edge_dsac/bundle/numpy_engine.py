"""The numpy engine: the reference for all others, and what runs where nothing else does.

Knows no robot, no link, no clock. Rule that must stay true: the same observation gives the same action, whatever came before.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from edge_dsac.bundle.actor import ERF, NONLINEARITY, REACH, SQUASH, Actor
from edge_dsac.records import Float, Observation

ERF32 = ERF.astype(np.float32)
GELU_GAIN = REACH / sqrt(2.0)  # gelu(x) = GELU_GAIN * unit_gelu(x / (2 GELU_GAIN))

Layer = Callable[[Float], Float]


class UnitGelu:
    """unit_gelu(q) = q (1 + erf(REACH q)), of all entries of one array, in place."""

    def __init__(self, values: Float) -> None:
        """`values`: flat; what it holds is replaced at each call."""
        width = len(values)
        self.values, self.near = values, np.zeros(width, np.float32)
        self.powers: NDArray[np.float32] = np.ones((6, width), np.float32)  # of near squared; the first stays 1
        self.one, self.two, self.three, self.two_three, self.four_five = (self.powers[i] for i in (1, 2, 3, slice(2, 4), slice(4, 6)))
        self.fraction = np.zeros((2, width), np.float32)

    def __call__(self) -> None:
        q, near, fraction = self.values, self.near, self.fraction
        np.minimum(q, 1.0, out=near)
        np.maximum(near, -1.0, out=near)
        np.multiply(near, near, self.one)
        np.multiply(self.one, self.one, self.two)
        np.multiply(self.one, self.two, self.three)
        np.multiply(self.two_three, self.two, self.four_five)
        np.dot(ERF32, self.powers, fraction)
        np.divide(fraction[0], fraction[1], out=fraction[0])
        np.multiply(fraction[0], near, fraction[0])
        np.multiply(fraction[0], q, fraction[0])
        np.add(fraction[0], q, q)


class GeluLayer:
    """unit_gelu(weight @ x + bias): its scales belong to the weights around it."""

    def __init__(self, weight: Float, bias: Float) -> None:
        self.weight, self.bias = np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32)
        self.sum = np.zeros(len(bias), np.float32)
        self.gelu = UnitGelu(self.sum)

    def __call__(self, x: Float) -> Float:
        np.dot(self.weight, x, self.sum)
        np.add(self.sum, self.bias, self.sum)
        self.gelu()
        return self.sum


class PlainLayer:
    def __init__(self, weight: Float, bias: Float, nonlinearity: Callable[[Float], Float]) -> None:
        self.weight, self.bias = np.ascontiguousarray(weight, np.float32), bias.astype(np.float32)
        self.nonlinearity = nonlinearity

    def __call__(self, x: Float) -> Float:
        return self.nonlinearity(np.dot(self.weight, x) + self.bias)


def make_layers(layers: list[tuple[Float, Float]], activation: str, squash: str = "tanh") -> list[Layer]:
    """Every scale is folded into the weights before the first tick."""
    made: list[Layer] = []
    gain = 1.0  # of what comes in, over what the weights expect
    for weight, bias in layers[:-1]:
        if activation == "gelu":
            made.append(GeluLayer(weight * (gain * 0.5 / GELU_GAIN), bias * (0.5 / GELU_GAIN)))
            gain = GELU_GAIN
        else:
            made.append(PlainLayer(weight, bias, NONLINEARITY[activation]))
    weight, bias = layers[-1]
    return [*made, PlainLayer(weight * gain, bias, SQUASH[squash])]


class NumpyMlp:
    """Deployed action = squash(mean). The observation scale is folded into the first layer."""

    def __init__(self, actor: Actor) -> None:
        self.bundle_id = actor.identity
        (first, first_bias), *rest = actor.layers
        self.layers = make_layers([(first * actor.obs_scale, first_bias), *rest], actor.activation, actor.squash)

    def act(self, obs: Observation) -> Float:
        x = obs.vector
        for layer in self.layers:
            x = layer(x)
        return x
