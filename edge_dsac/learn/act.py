"""An actor's parameters as a policy: observations in, actions out, for collecting and for evaluating.

Acting is many small calls, and each has its price whatever it computes: one call per layer, the rest in numpy.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from edge_dsac.learn.collect import Policy
from edge_dsac.learn.losses import Objective
from edge_dsac.learn.networks import ACTIVATIONS, Params
from edge_dsac.records import Float

Bounds = tuple[torch.Tensor, torch.Tensor]


class Diverged(ValueError):
    """Learning produced a number that is none."""


def explorer(actor: Params, bounds: Bounds, objective: Objective, generator: torch.Generator) -> Policy:
    """Samples: what learning collects with. The noise is drawn on the CPU, the same on every device."""
    half, middle = span_of(bounds)

    def act(obs: Float) -> Float:
        mean, std = gaussian(actor, obs, objective)
        eps = torch.randn(mean.shape, generator=generator).numpy()
        wanted: Float = half * np.tanh(mean + std * eps) + middle
        if not np.isfinite(wanted).all():  # here, or the world would be blamed for what it makes of it
            raise Diverged(
                "learning diverged: the policy's action is not finite. The last checkpoint is intact; lower the learning rates, or look at "
                "the rewards' size (report.png)"
            )
        return wanted

    return act


def deployed(actor: Params, bounds: Bounds, objective: Objective) -> Policy:
    """No noise: what a robot would do."""
    half, middle = span_of(bounds)

    def act(obs: Float) -> Float:
        wanted: Float = half * np.tanh(gaussian(actor, obs, objective)[0]) + middle
        return wanted

    return act


def span_of(bounds: Bounds) -> tuple[Float, Float]:
    low, high = (limit.cpu().numpy() for limit in bounds)
    return (high - low) / 2.0, (high + low) / 2.0


def gaussian(actor: Params, obs: Float, objective: Objective) -> tuple[Float, Float]:
    """`networks.action_distribution` of a few rows, without gradients: mean and deviation before tanh."""
    nonlinear, last = ACTIVATIONS[objective.activation], len(actor) - 2
    x = torch.from_numpy(np.asarray(obs, np.float32)).to(actor[0].device)
    with torch.no_grad():
        for i in range(0, last, 2):
            x = nonlinear(functional.linear(x, actor[i], actor[i + 1]))
        out: Float = functional.linear(x, actor[last], actor[last + 1]).cpu().numpy()
    size, (least, most) = out.shape[1] // 2, objective.log_std_range
    return out[:, :size], np.exp(np.minimum(np.maximum(out[:, size:], least), most))
