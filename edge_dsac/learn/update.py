"""One DSAC-T iteration as a pure function: state, batch and noise in; state and figures out.

Pure so that it can be compiled as a whole, replayed bit by bit from a checkpoint, and vmapped over a leading seed axis.
All gradients are taken at the parameters the iteration began with. Knows no environment, no buffer and no clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from edge_dsac.learn.losses import Batch, Joined, Noise, Objective, actor_loss, alone, alpha_loss, critic_loss, critic_targets
from edge_dsac.learn.networks import Params, Shape, make_params

BETA_1, BETA_2, ADAM_EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast things move. The defaults are the paper's."""

    critic_lr: float = 1e-4
    """learning rate of the critics"""
    actor_lr: float = 1e-4
    """learning rate of the actor"""
    alpha_lr: float = 3e-4
    """learning rate of the entropy's temperature"""
    tau: float = 0.005
    """Polyak share of the three targets"""
    tau_b: float = 0.005
    """share of the running means of sigma"""
    delay: int = 2
    """the actor, alpha and the targets move every so many iterations"""
    tune_alpha: bool = True
    """off: the temperature stays at its first value"""
    objective: Objective = field(default_factory=Objective)


class Moments(NamedTuple):
    """Adam's running moments of one set of parameters."""

    first: Params
    second: Params


class State(NamedTuple):
    """All that learning remembers, replay and random generators aside. Complete: a checkpoint is this."""

    critics: Params  # leading axis 2: the twins
    actor: Params
    target_critics: Params
    target_actor: Params
    log_alpha: Tensor
    m: Tensor  # [2] running means of sigma; -1 before the first iteration
    critic_moments: Moments
    actor_moments: Moments
    alpha_moments: Moments
    critic_steps: Tensor
    actor_steps: Tensor


class Figures(NamedTuple):
    """What an iteration says about itself; scalars."""

    critic_loss: Tensor
    actor_loss: Tensor
    alpha: Tensor
    q_mean: Tensor
    sigma_mean: Tensor
    log_prob: Tensor


def make_state(shape: Shape, generator: torch.Generator, alpha: float = math.e, dtype: torch.dtype = torch.float32) -> State:
    critics = make_params(shape.critic, generator, (2,), dtype)
    actor = make_params(shape.actor, generator, (), dtype)
    log_alpha = torch.tensor(math.log(alpha), dtype=dtype)
    return State(
        critics, actor, clone(critics), clone(actor), log_alpha, torch.full((2,), -1.0, dtype=dtype),
        no_moments(critics), no_moments(actor), no_moments((log_alpha,)), torch.zeros((), dtype=dtype), torch.zeros((), dtype=dtype),
    )  # fmt: skip


def clone(params: Params) -> Params:
    return tuple(p.clone() for p in params)


def no_moments(params: Params) -> Moments:
    return Moments(tuple(torch.zeros_like(p) for p in params), tuple(torch.zeros_like(p) for p in params))


def update(
    state: State,
    batch: Batch,
    noise: Noise,
    bounds: tuple[Tensor, Tensor],
    rates: Rates,
    with_actor: bool,
    pace: Tensor | float = 1.0,
    joined: Joined = alone,
) -> tuple[State, Figures]:
    """`with_actor` is iteration % delay == 0: a Python bool, so that each of the two forms compiles without a branch.

    `pace` scales all learning rates (a schedule). `joined` makes several learners take one step together.
    """
    objective = rates.objective
    alpha = state.log_alpha.exp()
    next_actor = state.target_actor if objective.target_actor else state.actor
    targets = critic_targets(state.target_critics, next_actor, alpha, batch, noise, bounds, objective)

    def of_critics(critics: Params) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
        loss, (m, q, sigma) = critic_loss(critics, state.m, targets, batch, rates.tau_b, objective, joined)
        return loss, (loss.detach(), m, q, sigma)

    critic_gradient, (loss_q, m, q, sigma) = torch.func.grad(of_critics, has_aux=True)(state.critics)
    critic_gradient = joined(critic_gradient)
    critic_steps = state.critic_steps + 1.0
    critics, critic_moments = adam(state.critics, critic_gradient, state.critic_moments, rates.critic_lr * pace, critic_steps)
    state_after = state._replace(critics=critics, critic_moments=critic_moments, critic_steps=critic_steps, m=m)
    loss_pi, log_prob = torch.zeros_like(loss_q), torch.zeros_like(loss_q)
    if with_actor:
        state_after, loss_pi, log_prob = update_actor(state, state_after, alpha, batch, noise, bounds, rates, pace, joined)
    return state_after, Figures(loss_q, loss_pi, alpha, q.mean(), sigma.mean(), log_prob)


def update_actor(
    before: State,
    after: State,
    alpha: Tensor,
    batch: Batch,
    noise: Noise,
    bounds: tuple[Tensor, Tensor],
    rates: Rates,
    pace: Tensor | float,
    joined: Joined,
) -> tuple[State, Tensor, Tensor]:
    def of_actor(actor: Params) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        loss, log_prob = actor_loss(actor, before.critics, alpha, batch, noise, bounds, rates.objective)
        return loss, (loss.detach(), log_prob)

    gradient, (loss, log_prob) = torch.func.grad(of_actor, has_aux=True)(before.actor)
    target_entropy = -float(batch.act.shape[-1])
    slope = torch.func.grad(alpha_loss)(before.log_alpha, log_prob, target_entropy)
    *actor_gradient, slope = joined((*gradient, slope))
    steps = after.actor_steps + 1.0
    actor, actor_moments = adam(before.actor, tuple(actor_gradient), before.actor_moments, rates.actor_lr * pace, steps)
    log_alpha, alpha_moments = before.log_alpha, before.alpha_moments
    if rates.tune_alpha:
        (log_alpha,), alpha_moments = adam((log_alpha,), (slope,), alpha_moments, rates.alpha_lr * pace, steps)
    moved = after._replace(
        actor=actor, actor_moments=actor_moments, actor_steps=steps, log_alpha=log_alpha, alpha_moments=alpha_moments,
        target_critics=polyak(before.target_critics, after.critics, rates.tau), target_actor=polyak(before.target_actor, actor, rates.tau),
    )  # fmt: skip
    return moved, loss, log_prob.mean()


def adam(params: Params, gradient: Params, moments: Moments, lr: Tensor | float, steps: Tensor) -> tuple[Params, Moments]:
    first = tuple(BETA_1 * m + (1.0 - BETA_1) * g for m, g in zip(moments.first, gradient, strict=True))
    second = tuple(BETA_2 * v + (1.0 - BETA_2) * g * g for v, g in zip(moments.second, gradient, strict=True))
    # As exponentials, not powers: a scalar with an exp in it inductor computes once, a power anew for every eight parameters.
    size = lr / (1.0 - (steps * math.log(BETA_1)).exp())
    per_spread = (1.0 - (steps * math.log(BETA_2)).exp()).rsqrt()
    moved = tuple(p - size * m / (v.sqrt() * per_spread + ADAM_EPSILON) for p, m, v in zip(params, first, second, strict=True))
    return moved, Moments(first, second)


def polyak(targets: Params, params: Params, tau: float) -> Params:
    return tuple((1.0 - tau) * t + tau * p for t, p in zip(targets, params, strict=True))
