"""One update of fine-tuning as a pure function: the trainer's losses, on networks of which only a part may change.

Unlike training: the temperature stays (the robot explores as it was told to), the actor moves seldom and not far from the parent
it began as, and both networks are made of fixed and own parameters (adapt.py). Knows no buffer, no robot and no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from edge_dsac.learn.adapt import Adaptation, Fixed, Full, LastLayer
from edge_dsac.learn.losses import Batch, Noise, Objective, actor_loss, critic_loss, critic_targets
from edge_dsac.learn.networks import Params, action_distribution
from edge_dsac.learn.update import Moments, adam, clone, no_moments, polyak


@dataclass(frozen=True, slots=True)
class Recipe:
    """What may change, and how fast."""

    actor: Adaptation = LastLayer()
    critics: Adaptation = Full()
    critic_lr: float = 3e-4
    actor_lr: float = 3e-4
    tau: float = 0.005
    """Polyak share of the targets, at every update"""
    tau_b: float = 0.005
    """share of the running means of sigma"""
    actor_every: int = 4
    """updates of the critics per update of the actor"""
    stay: float = 0.0
    """weight of the squared distance between the child's means and the parent's, before tanh"""
    objective: Objective = field(default_factory=Objective)

    @property
    def moves_actor(self) -> bool:
        return not isinstance(self.actor, Fixed)


class Fixtures(NamedTuple):
    """What does not change in a session."""

    critics: Params
    actor: Params
    alpha: Tensor


class TuneState(NamedTuple):
    """All that a session's learning remembers, buffer aside."""

    critics: Params  # own parameters
    actor: Params
    target_critics: Params  # whole networks
    target_actor: Params
    m: Tensor
    critic_moments: Moments
    actor_moments: Moments
    critic_steps: Tensor
    actor_steps: Tensor


class TuneFigures(NamedTuple):
    critic_loss: Tensor
    actor_loss: Tensor
    q_mean: Tensor
    sigma_mean: Tensor
    moved: Tensor  # mean absolute difference of the means from the parent's, before tanh


def make_tune_state(
    recipe: Recipe, fixed: Fixtures, target_critics: Params, target_actor: Params, m: Tensor, generator: torch.Generator
) -> TuneState:
    critics, actor = recipe.critics.start(fixed.critics, generator), recipe.actor.start(fixed.actor, generator)
    started = recipe.actor.whole(fixed.actor, actor)
    same_shape = all(a.shape == b.shape for a, b in zip(started, target_actor, strict=True))
    zero = torch.zeros((), dtype=m.dtype)
    return TuneState(
        critics, actor, clone(target_critics), clone(target_actor if same_shape else started), m.clone(), no_moments(critics),
        no_moments(actor), zero, zero.clone(),
    )  # fmt: skip


def tune(
    state: TuneState, fixed: Fixtures, batch: Batch, noise: Noise, bounds: tuple[Tensor, Tensor], recipe: Recipe, with_actor: bool
) -> tuple[TuneState, TuneFigures]:
    """`with_actor` is a Python bool, so that each of the two forms compiles without a branch."""
    objective = recipe.objective
    next_actor = state.target_actor if objective.target_actor else recipe.actor.whole(fixed.actor, state.actor)
    targets = critic_targets(state.target_critics, next_actor, fixed.alpha, batch, noise, bounds, objective)

    def of_critics(own: Params) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
        whole = recipe.critics.whole(fixed.critics, own)
        loss, (m, q, sigma) = critic_loss(whole, state.m, targets, batch, recipe.tau_b, objective)
        return loss, (loss.detach(), m, q, sigma)

    gradient, (loss_q, m, q, sigma) = torch.func.grad(of_critics, has_aux=True)(state.critics)
    steps = state.critic_steps + 1.0
    critics, moments = adam(state.critics, gradient, state.critic_moments, recipe.critic_lr, steps)
    after = state._replace(
        critics=critics, critic_moments=moments, critic_steps=steps, m=m,
        target_critics=polyak(state.target_critics, recipe.critics.whole(fixed.critics, critics), recipe.tau),
    )  # fmt: skip
    loss_pi, moved = torch.zeros_like(loss_q), torch.zeros_like(loss_q)
    if with_actor and recipe.moves_actor:
        after, loss_pi, moved = tune_actor(state, after, fixed, batch, noise, bounds, recipe)
    return after, TuneFigures(loss_q, loss_pi, q.mean(), sigma.mean(), moved)


def tune_actor(
    before: TuneState, after: TuneState, fixed: Fixtures, batch: Batch, noise: Noise, bounds: tuple[Tensor, Tensor], recipe: Recipe
) -> tuple[TuneState, Tensor, Tensor]:
    objective = recipe.objective
    critics = recipe.critics.whole(fixed.critics, before.critics)
    parents, _ = action_distribution(fixed.actor, batch.obs, objective.activation, objective.log_std_range)

    def of_actor(own: Params) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        whole = recipe.actor.whole(fixed.actor, own)
        loss, _ = actor_loss(whole, critics, fixed.alpha, batch, noise, bounds, objective)
        mean, _ = action_distribution(whole, batch.obs, objective.activation, objective.log_std_range)
        away = mean - parents
        loss = loss + recipe.stay * away.square().sum(dim=-1).mean()
        return loss, (loss.detach(), away.detach().abs().mean())

    gradient, (loss, moved) = torch.func.grad(of_actor, has_aux=True)(before.actor)
    steps = after.actor_steps + 1.0
    actor, moments = adam(before.actor, gradient, before.actor_moments, recipe.actor_lr, steps)
    whole = recipe.actor.whole(fixed.actor, actor)
    tau = 1.0 - (1.0 - recipe.tau) ** recipe.actor_every  # as far as the critics' targets come in the same time
    target = polyak(before.target_actor, whole, tau)
    return after._replace(actor=actor, actor_moments=moments, actor_steps=steps, target_actor=target), loss, moved
