"""DSAC-T's losses: pure functions of parameters, batch and noise. Trainer and tuner use these and no others.

Symbols follow arXiv 2310.05858: Q and sigma are a critic's mean and deviation, m the running mean of sigma, alpha the
entropy's temperature. Rule that must stay true: nothing here keeps state, draws a random number or knows a device.
The refinements can be switched off one by one (`Objective`): what is left is DSAC v1, and with the value distribution
off too, SAC.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from edge_dsac.learn.networks import Params, action_distribution, squash, value_distribution

Z_LIMIT = 3.0  # the sampled return is drawn within three sigma
BOUND = 3.0  # refinement 3: and the target of sigma within three m of the mean
EPSILON = 0.1  # keeps weights finite where sigma vanishes
HUBER_DELTA = 50.0


class Batch(NamedTuple):
    """`[batch, n]`; reward and done `[batch]`. `discount` is gamma for one step, gamma**n for n-step returns."""

    obs: Tensor
    act: Tensor
    reward: Tensor
    next_obs: Tensor
    done: Tensor
    discount: Tensor


class Noise(NamedTuple):
    """Everything random in one update, drawn by the caller."""

    actor: Tensor  # [batch, act] for the actor's own sample
    target: Tensor  # [batch, act] for the target actor's sample
    z: Tensor  # [2, batch] for the two critics' sampled returns, before the clamp


@dataclass(frozen=True, slots=True)
class Objective:
    """What is optimised. The defaults are the paper's."""

    critic_loss: Literal["paper", "huber", "mse"] = "paper"
    """paper: sigma is calibrated; huber: the authors' later code; mse: no value distribution, sigma is not trained (SAC)"""
    activation: str = "gelu"
    """between layers: gelu, relu or tanh"""
    critic_layer_norm: bool = False
    """an addition to DSAC-T: layer normalisation, without parameters, in the critics"""
    log_std_range: tuple[float, float] = (-20.0, 0.5)
    """the actor's log-deviation is clamped to this"""
    expected_value_substitution: bool = True
    """refinement 1: the mean of the next value is the target of the mean; off: a sample of it"""
    twin_value_distributions: bool = True
    """refinement 2: two critics, the smaller counts; off: one"""
    variance_based_bound: bool = True
    """refinement 3: the sample for sigma stays within 3 m of the mean; off: it is free"""
    target_actor: bool = True
    """the next action comes from a slowly moving copy of the actor; off: from the actor itself (SAC)"""


Joined = Callable[[Params], Params]  # the mean over the batches of several learners (ranks.py)


def alone(values: Params) -> Params:
    return values


class CriticTargets(NamedTuple):
    mean: Tensor  # y_q
    sample: Tensor  # y_z


def critic_targets(
    target_critics: Params,
    target_actor: Params,
    alpha: Tensor,
    batch: Batch,
    noise: Noise,
    bounds: tuple[Tensor, Tensor],
    objective: Objective,
) -> CriticTargets:
    """What both critics should have said, `[batch]` each. No gradient flows."""
    with torch.no_grad():
        mean, std = action_distribution(target_actor, batch.next_obs, objective.activation, objective.log_std_range)
        next_act, next_log_prob = squash(mean, std, noise.target, *bounds)
        q, sigma = value_distribution(target_critics, batch.next_obs, next_act, objective.activation, objective.critic_layer_norm)
        sampled = q + noise.z.clamp(-Z_LIMIT, Z_LIMIT) * sigma
        if objective.twin_value_distributions:
            q_next = torch.minimum(q[0], q[1])
            z_next = torch.where(q[0] < q[1], sampled[0], sampled[1])  # a tie goes to critic 2
        else:
            q_next, z_next = q[0], sampled[0]
        soft = alpha * next_log_prob
        keep = batch.discount * (1.0 - batch.done)
        y_z = batch.reward + keep * (z_next - soft)
        y_q = batch.reward + keep * (q_next - soft) if objective.expected_value_substitution else y_z
        return CriticTargets(y_q, y_z)


def sigma_means(sigma: Tensor, m: Tensor, tau_b: float, joined: Joined = alone) -> Tensor:
    """Running means m `[2]` of sigma `[2, batch]`; a negative m is one that was never set and starts at the batch's mean."""
    (now,) = joined((sigma.detach().mean(dim=-1),))
    return torch.where(m < 0.0, now, (1.0 - tau_b) * m + tau_b * now)


def bounded_sample(q: Tensor, y_z: Tensor, m: Tensor, objective: Objective) -> Tensor:
    """y_b: the sampled return, no further than 3 m from the mean."""
    if not objective.variance_based_bound:
        return y_z.expand_as(q)
    width = BOUND * m.unsqueeze(-1)
    return q + torch.minimum(torch.maximum(y_z - q, -width), width)


def critic_loss(
    critics: Params, m: Tensor, targets: CriticTargets, batch: Batch, tau_b: float, objective: Objective, joined: Joined = alone
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """L_1 + L_2; and (new m, Q, sigma), detached."""
    q, sigma = value_distribution(critics, batch.obs, batch.act, objective.activation, objective.critic_layer_norm)
    m = sigma_means(sigma, m, tau_b, joined)
    y_b = bounded_sample(q.detach(), targets.sample, m, objective)
    losses = FORMS[objective.critic_loss](q, sigma, targets.mean, y_b, m.unsqueeze(-1))
    loss = losses.sum() if objective.twin_value_distributions else losses[0]
    return loss, (m, q.detach(), sigma.detach())


def paper_form(q: Tensor, sigma: Tensor, y_q: Tensor, y_b: Tensor, m: Tensor) -> Tensor:
    """The paper's gradient, as a surrogate: its fixed point for sigma is the true spread. One loss per critic."""
    q_now, sigma_now = q.detach(), sigma.detach()
    for_mean = -(y_q - q_now) / (sigma_now.square() + EPSILON) * q
    for_sigma = -((q_now - y_b).square() - sigma_now.square()) / (sigma_now.pow(3) + EPSILON) * sigma
    return (m.squeeze(-1).square() + EPSILON) * (for_mean + for_sigma).mean(dim=-1)


def huber_form(q: Tensor, sigma: Tensor, y_q: Tensor, y_b: Tensor, m: Tensor) -> Tensor:
    """The authors' later code: a Huber loss on the mean; its sigma settles below the true spread."""
    q_now, sigma_now = q.detach(), sigma.detach()
    weight = (m.square() / (sigma_now.square() + EPSILON)).clamp(0.1, 10.0)
    for_mean = functional.huber_loss(q, y_q.expand_as(q), reduction="none", delta=HUBER_DELTA)
    spread = functional.huber_loss(q_now, y_b, reduction="none", delta=HUBER_DELTA)
    for_sigma = sigma * (sigma_now.square() - spread) / (sigma_now + EPSILON)
    return (weight * (for_mean + for_sigma)).mean(dim=-1)


def squared_form(q: Tensor, sigma: Tensor, y_q: Tensor, y_b: Tensor, m: Tensor) -> Tensor:
    """No value distribution: what SAC's critics minimise."""
    return 0.5 * (q - y_q).square().mean(dim=-1)


FORMS = {"paper": paper_form, "huber": huber_form, "mse": squared_form}


def actor_loss(
    actor: Params, critics: Params, alpha: Tensor, batch: Batch, noise: Noise, bounds: tuple[Tensor, Tensor], objective: Objective
) -> tuple[Tensor, Tensor]:
    """mean(alpha log pi - min Q), with the critics as they were before their step; and log pi, detached."""
    mean, std = action_distribution(actor, batch.obs, objective.activation, objective.log_std_range)
    act, log_prob = squash(mean, std, noise.actor, *bounds)
    q, _ = value_distribution(critics, batch.obs, act, objective.activation, objective.critic_layer_norm)
    worth = torch.minimum(q[0], q[1]) if objective.twin_value_distributions else q[0]
    return (alpha * log_prob - worth).mean(), log_prob.detach()


def alpha_loss(log_alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    return -log_alpha * (log_prob + target_entropy).mean()
