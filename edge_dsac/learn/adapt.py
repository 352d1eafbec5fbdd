"""Which part of a network may change in the field: a few own parameters, and how they make a whole network with the fixed ones.

Whatever the recipe, what comes out is a plain network of the same kind, so that every engine runs it and every loss takes it. At
the start the whole network is the base, to rounding. Leading axes (the twin critics) pass through. Knows no loss and no robot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from edge_dsac.learn.networks import Params

SATURATION = 3.0  # half the reach of the pair of units that bounds an edit
OVERSHOOT = 0.17  # of gelu's pair beyond it


class Adaptation(Protocol):
    def start(self, base: Params, generator: torch.Generator) -> Params:
        """The own parameters before anything was learnt."""

    def whole(self, base: Params, own: Params) -> Params:
        """The network that they make."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Nothing changes."""

    def start(self, base: Params, generator: torch.Generator) -> Params:
        return ()

    def whole(self, base: Params, own: Params) -> Params:
        return base


@dataclass(frozen=True, slots=True)
class Full:
    """Everything changes."""

    def start(self, base: Params, generator: torch.Generator) -> Params:
        return tuple(p.clone() for p in base)

    def whole(self, base: Params, own: Params) -> Params:
        return own


@dataclass(frozen=True, slots=True)
class LastLayer:
    """The features stay; what is made of them changes."""

    def start(self, base: Params, generator: torch.Generator) -> Params:
        return tuple(p.clone() for p in base[-2:])

    def whole(self, base: Params, own: Params) -> Params:
        return base[:-2] + own


@dataclass(frozen=True, slots=True)
class LowRank:
    """Each weight changes by a matrix of so low a rank, each bias freely (LoRA, arXiv 2106.09685)."""

    rank: int = 1

    def start(self, base: Params, generator: torch.Generator) -> Params:
        own: list[Tensor] = []
        for weight, bias in pairs(base):
            *leading, outputs, inputs = weight.shape
            down = torch.randn((*leading, self.rank, inputs), generator=generator, dtype=weight.dtype) / inputs**0.5
            own += [weight.new_zeros((*leading, outputs, self.rank)), down, torch.zeros_like(bias)]
        return tuple(own)

    def whole(self, base: Params, own: Params) -> Params:
        made: list[Tensor] = []
        for i, (weight, bias) in enumerate(pairs(base)):
            up, down, shift = own[3 * i : 3 * i + 3]
            made += [weight + up @ down, bias + shift]
        return tuple(made)


@dataclass(frozen=True, slots=True)
class Edit:
    """Of an actor: a small network beside it adds at most `bound` to each mean before tanh, whatever it learns.

    The bound is part of the network: per action two units of the last hidden layer, whose difference gelu(v + c) - gelu(v - c)
    saturates at both ends (relu's is a clamp). So the whole is a plain network, wider by the edit.
    """

    bound: float = 0.5
    width: int = 16
    activation: str = "gelu"

    def start(self, base: Params, generator: torch.Generator) -> Params:
        """The small network's hidden layers, then the layer of v, which starts at zero: no edit."""
        weights = base[0::2]
        hidden, actions = len(weights) - 1, weights[-1].shape[-2] // 2
        sizes = [weights[0].shape[-1], *[self.width] * (hidden - 1), actions]
        own: list[Tensor] = []
        for inputs, outputs in zip(sizes[:-2], sizes[1:-1], strict=True):
            weight = (torch.rand((outputs, inputs), generator=generator, dtype=weights[0].dtype) * 2.0 - 1.0) / inputs**0.5
            own += [weight, weight.new_zeros(outputs)]
        last = weights[0].new_zeros((actions, sizes[-2]))
        return (*own, last, last.new_zeros(actions))

    def whole(self, base: Params, own: Params) -> Params:
        made: list[Tensor] = []
        small = pairs(own)
        for i, (weight, bias) in enumerate(pairs(base)[:-1]):
            extra, shift = small[i] if i < len(small) - 1 else self.saturating(*small[-1])
            made += [cat_rows(weight, extra) if i == 0 else blocks(weight, extra), torch.cat((bias, shift))]
        weight, bias = base[-2:]
        actions = weight.shape[0] // 2
        read, offset = self.reading(weight, actions)
        return (*made, torch.cat((weight, read), dim=1), bias + offset)

    def saturating(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """v, twice: shifted up and shifted down. tanh saturates by itself."""
        apart = 0.0 if self.activation == "tanh" else SATURATION
        return torch.cat((weight, weight)), torch.cat((bias + apart, bias - apart))

    def reading(self, like: Tensor, actions: int) -> tuple[Tensor, Tensor]:
        """What the last layer makes of the two units: their difference, centred and scaled to the bound; nothing for the deviations."""
        one = torch.eye(actions, dtype=like.dtype)
        none = torch.zeros_like(one)
        if self.activation == "tanh":
            return torch.cat((torch.cat((one, none), dim=1), torch.cat((none, none), dim=1))) * self.bound, like.new_zeros(2 * actions)
        scale = self.bound / (SATURATION + (OVERSHOOT if self.activation == "gelu" else 0.0))
        means = torch.cat((one, -one), dim=1) * scale
        offset = torch.cat((like.new_full((actions,), -SATURATION * scale), like.new_zeros(actions)))
        return torch.cat((means, torch.zeros_like(means))), offset


def pairs(params: Params) -> list[tuple[Tensor, Tensor]]:
    return list(zip(params[0::2], params[1::2], strict=True))


def cat_rows(upper: Tensor, lower: Tensor) -> Tensor:
    return torch.cat((upper, lower))


def blocks(one: Tensor, other: Tensor) -> Tensor:
    """[[one, 0], [0, other]]"""
    above = torch.cat((one, one.new_zeros((one.shape[0], other.shape[1]))), dim=1)
    below = torch.cat((other.new_zeros((other.shape[0], one.shape[1])), other), dim=1)
    return torch.cat((above, below))
