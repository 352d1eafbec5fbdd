"""What a critic-guided policy carries beside its actor: the child's critics, and the few actions around the actor's own that they judge.

`guide.npz`, as data, checked, and as the float64 reference that its engine (guided_engine.py) is measured against. Of the actor's own
action and `own + offset`, within [-1, 1], the one with the highest lower value is taken: the smaller of what the twins expect, each
less beta of its sigmas. Knows no learner. Rules that must stay true: the first offset is zero, and a tie goes to the first, so a guide
that sees no difference is the actor; no action is further from the actor's own than the largest offset.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_dsac.bundle.actor import NONLINEARITY, Actor
from edge_dsac.bundle.manifest import BundleError
from edge_dsac.records import Float

ACTIVATIONS = ("gelu", "relu", "tanh")
MOST = 33  # actions to judge: 16 axes both ways, and the actor's own
NORM_EPSILON = 1e-5  # torch's, of a layer normalisation
CLEAR = 1e-4  # of the values: float32 and float64 choose alike where the best is better by more than this


@dataclass(frozen=True, slots=True)
class Guide:
    """`layers[i] = (weight[critics, out, in], bias[critics, out])`, float32; in: the scaled observation, then the action; out: mean and,
    before softplus, sigma."""

    layers: tuple[tuple[Float, Float], ...]
    activation: str
    layer_norm: bool
    offsets: Float  # [candidates, actions]
    beta: float

    @property
    def reach(self) -> float:
        """The furthest that an action may be from the actor's own."""
        return float(np.abs(self.offsets).max())

    @property
    def words(self) -> str:
        """For status lines."""
        return f"critic-guided: the best of {len(self.offsets)} actions within {self.reach:.3g} of the actor's own"

    def candidates(self, own: Float) -> Float:
        """`own[n, actions]` -> `[n, candidates, actions]`."""
        return np.asarray(np.clip(np.asarray(own, np.float64)[:, None] + self.offsets, -1.0, 1.0))

    def values(self, seen: Float, actions: Float) -> Float:
        """Of each candidate: `seen[n, observations]` scaled, `actions[n, candidates, actions]` -> `[n, candidates]`."""
        count, choices = actions.shape[:2]
        x = np.concatenate([np.repeat(np.asarray(seen, np.float64), choices, axis=0), actions.reshape(count * choices, -1)], axis=1)
        found = []
        for critic in range(len(self.layers[0][0])):
            h = x
            for weight, bias in self.layers[:-1]:
                h = h @ weight[critic].T.astype(np.float64) + bias[critic]
                if self.layer_norm:
                    h = (h - h.mean(axis=1, keepdims=True)) / np.sqrt(h.var(axis=1, keepdims=True) + NORM_EPSILON)
                h = NONLINEARITY[self.activation](h)
            weight, bias = self.layers[-1]
            mean, before = (h @ weight[critic].T.astype(np.float64) + bias[critic]).T
            found.append(mean - self.beta * np.logaddexp(0.0, before))
        return np.asarray(np.min(found, axis=0).reshape(count, choices))

    def choose(self, seen: Float, own: Float) -> Float:
        """`[n, actions]`, in float64."""
        actions = self.candidates(own)
        return np.asarray(actions[np.arange(len(actions)), self.values(seen, actions).argmax(axis=1)])

    def clear(self, seen: Float, own: Float) -> np.ndarray:
        """Where rounding cannot change the choice: golden vectors are of these."""
        actions = self.candidates(own)
        values = self.values(seen, actions)
        at = np.arange(len(actions)), values.argmax(axis=1)
        elsewhere = np.abs(actions - actions[at][:, None]).max(axis=2) > 1e-6
        next_best = np.where(elsewhere, values, -np.inf).max(axis=1)
        return np.asarray(values[at] - next_best > CLEAR * (1.0 + np.abs(values[at])))


@dataclass(frozen=True, slots=True)
class GuidedActor:
    """The reference of a guided policy: what `Actor` is for one without."""

    actor: Actor
    guide: Guide

    def act(self, obs: Float) -> Float:
        """`obs[..., n]` in SI."""
        rows = np.asarray(obs, np.float64).reshape(-1, self.actor.sizes[0])
        chosen = self.guide.choose(rows * self.actor.obs_scale, self.actor.act(rows))
        return np.asarray(chosen.reshape(*np.shape(obs)[:-1], -1))


def make_guide_file(guide: Guide) -> bytes:
    arrays = {f"w{i}": np.asarray(w, np.float32) for i, (w, _) in enumerate(guide.layers)}
    arrays |= {f"b{i}": np.asarray(b, np.float32) for i, (_, b) in enumerate(guide.layers)}
    arrays |= {
        "activation": np.array(guide.activation), "layer_norm": np.array(guide.layer_norm), "beta": np.array(guide.beta, np.float32),
        "offsets": np.asarray(guide.offsets, np.float32),
    }  # fmt: skip
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def read_guide(arrays: Mapping[str, np.ndarray], actor: Actor) -> Guide:
    count = sum(name[:1] == "w" for name in arrays)
    expected = {"activation", "layer_norm", "beta", "offsets", *(f"{kind}{i}" for kind in "wb" for i in range(max(count, 1)))}
    if set(arrays) != expected:
        lost, extra = sorted(expected - set(arrays)), sorted(set(arrays) - expected)
        raise BundleError(f"guide.npz: missing {lost}, unknown {extra}; tune the policy again")
    bad = [
        name
        for name in sorted(expected - {"activation", "layer_norm"})
        if arrays[name].dtype != np.float32 or not np.isfinite(arrays[name]).all()
    ]
    if bad:
        raise BundleError(f"guide.npz: {', '.join(bad[:4])}: expected finite float32; tune the policy again")
    if str(arrays["activation"]) not in ACTIVATIONS or arrays["layer_norm"].dtype != np.bool_ or arrays["layer_norm"].shape != ():
        raise BundleError(f"guide.npz: activation {arrays['activation']}, layer_norm {arrays['layer_norm']}: this edge_dsac knows neither")
    layers = tuple((arrays[f"w{i}"], arrays[f"b{i}"]) for i in range(count))
    check_layers(layers, actor.sizes[0] + actor.sizes[-1])
    offsets, beta = arrays["offsets"], arrays["beta"]
    if offsets.ndim != 2 or offsets.shape[1] != actor.sizes[-1] or not 1 <= len(offsets) <= MOST:
        raise BundleError(f"guide.npz: offsets: expected 1 to {MOST} of {actor.sizes[-1]} actions, got {offsets.shape}")
    if offsets[0].any() or np.abs(offsets).max() > 1.0 or beta.shape != () or not 0.0 <= float(beta) <= 10.0:
        raise BundleError("guide.npz: expected offsets within [-1, 1], the first of them zero, and a beta of 0 to 10")
    return Guide(layers, str(arrays["activation"]), bool(arrays["layer_norm"]), offsets, float(beta))


def check_layers(layers: tuple[tuple[Float, Float], ...], width: int) -> None:
    if len(layers) < 2:
        raise BundleError("guide.npz: the critics have no hidden layer; tune the policy again")
    critics = len(layers[0][0]) if layers[0][0].ndim == 3 else 0
    for i, (weight, bias) in enumerate(layers):
        if critics not in (1, 2) or weight.ndim != 3 or weight.shape[::2] != (critics, width) or bias.shape != weight.shape[:2]:
            raise BundleError(f"guide.npz: layer {i}: expected [1 or 2, n, {width}] and [1 or 2, n], got {weight.shape} and {bias.shape}")
        width = weight.shape[1]
    if width != 2:
        raise BundleError(f"guide.npz: the critics end in {width} numbers; expected a mean and a sigma")
