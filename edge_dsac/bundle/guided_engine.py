"""The engine of a critic-guided policy: the actor's own action and a few around it, judged by the critics, the best of them taken.

Pure numpy, float32; everything is allocated before the first tick and the observation's share of the first layer is computed once for
all candidates. Knows no robot, no link, no clock. Rule that must stay true: the same observation gives the same action, whatever came
before, and it is one of the guide's candidates.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_dsac.bundle.actor import Actor
from edge_dsac.bundle.guide import NORM_EPSILON, Guide
from edge_dsac.bundle.numpy_engine import GELU_GAIN, NumpyMlp, UnitGelu
from edge_dsac.records import Float, Observation


class HiddenLayer:
    """weight @ x + bias over all candidates of one critic, normalised where the critics are, then the nonlinearity, in place."""

    def __init__(self, weight: Float, bias: Float, choices: int, guide: Guide, gain: float) -> None:
        """`gain`: of what comes in over what the weights expect, folded into them."""
        self.before = 0.5 / GELU_GAIN if guide.activation == "gelu" else 1.0  # of unit_gelu's argument
        fold = 1.0 if guide.layer_norm else self.before
        self.weight = np.ascontiguousarray(weight * (gain * fold), np.float32)
        self.bias = np.ascontiguousarray(bias[:, None] * fold, np.float32)
        self.norm, self.sum = guide.layer_norm, np.zeros((len(weight), choices), np.float32)
        self.square = np.zeros_like(self.sum)
        flat = self.sum.reshape(-1)  # a view
        self.finish: Callable[[], None] = UnitGelu(flat) if guide.activation == "gelu" else getattr(self, guide.activation)

    def relu(self) -> None:
        np.maximum(self.sum, 0.0, out=self.sum)

    def tanh(self) -> None:
        np.tanh(self.sum, out=self.sum)

    def normalise(self) -> None:
        self.sum -= self.sum.mean(axis=0)
        np.multiply(self.sum, self.sum, out=self.square)
        self.sum *= self.before / np.sqrt(self.square.mean(axis=0) + np.float32(NORM_EPSILON))

    def __call__(self, x: Float) -> Float:
        np.dot(self.weight, x, self.sum)
        return self.end()

    def end(self) -> Float:
        self.sum += self.bias
        if self.norm:
            self.normalise()
        self.finish()
        return self.sum


class Critic:
    """One of the twins."""

    def __init__(self, guide: Guide, index: int, observations: int) -> None:
        choices, gain = len(guide.offsets), 1.0
        self.hidden: list[HiddenLayer] = []
        for weight, bias in guide.layers[:-1]:
            self.hidden.append(HiddenLayer(weight[index], bias[index], choices, guide, gain))
            gain = GELU_GAIN if guide.activation == "gelu" else 1.0
        first = self.hidden[0]
        self.of_seen = np.ascontiguousarray(first.weight[:, :observations])
        self.of_action = np.ascontiguousarray(first.weight[:, observations:])
        self.seen_sum = np.zeros(len(self.of_seen), np.float32)
        weight, bias = guide.layers[-1]
        self.last = np.ascontiguousarray(weight[index] * gain, np.float32)
        self.last_bias = np.ascontiguousarray(bias[index][:, None], np.float32)
        self.out, self.sigma = np.zeros((2, choices), np.float32), np.zeros(choices, np.float32)
        self.beta = np.float32(guide.beta)

    def judge(self, seen: Float, actions: Float) -> Float:
        """`actions[actions, candidates]` -> `[candidates]`, a view that the next call changes."""
        first = self.hidden[0]
        np.dot(self.of_seen, seen, self.seen_sum)
        np.dot(self.of_action, actions, first.sum)
        first.sum += self.seen_sum[:, None]
        x = first.end()
        for layer in self.hidden[1:]:
            x = layer(x)
        np.dot(self.last, x, self.out)
        self.out += self.last_bias
        value: Float = self.out[0]
        if self.beta:
            np.logaddexp(np.float32(0.0), self.out[1], out=self.sigma)
            self.sigma *= self.beta
            value -= self.sigma
        return value


class GuidedMlp:
    def __init__(self, actor: Actor, guide: Guide) -> None:
        self.bundle_id = actor.identity
        self.actor, self.scale = NumpyMlp(actor), np.ascontiguousarray(actor.obs_scale, np.float32)
        self.critics = [Critic(guide, index, actor.sizes[0]) for index in range(len(guide.layers[0][0]))]
        self.offsets = np.ascontiguousarray(guide.offsets.T, np.float32)
        self.actions, self.seen = np.zeros_like(self.offsets), np.zeros(actor.sizes[0], np.float32)
        self.values = np.zeros(len(guide.offsets), np.float32)

    def act(self, obs: Observation) -> Float:
        own = self.actor.act(obs)
        np.add(self.offsets, own[:, None], out=self.actions)
        np.minimum(self.actions, 1.0, out=self.actions)
        np.maximum(self.actions, -1.0, out=self.actions)
        np.multiply(obs.vector, self.scale, out=self.seen, casting="same_kind")
        first, *others = self.critics
        np.copyto(self.values, first.judge(self.seen, self.actions))
        for critic in others:
            np.minimum(self.values, critic.judge(self.seen, self.actions), out=self.values)
        chosen: Float = self.actions[:, int(self.values.argmax())].copy()  # whoever keeps it must not see the next tick's
        return chosen
