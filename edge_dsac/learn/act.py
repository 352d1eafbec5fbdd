"""An actor's parameters as a policy: observations in, actions out, for collecting and for evaluating."""

from __future__ import annotations

import numpy as np
import torch

from edge_dsac.learn.collect import Policy
from edge_dsac.learn.losses import Objective
from edge_dsac.learn.networks import Params, action_distribution, mode_action, squash
from edge_dsac.records import Float

Bounds = tuple[torch.Tensor, torch.Tensor]


class Diverged(ValueError):
    """Learning produced a number that is none."""


def explorer(actor: Params, bounds: Bounds, objective: Objective, generator: torch.Generator) -> Policy:
    """Samples: what learning collects with. The noise is drawn on the CPU, the same on every device."""

    def act(obs: Float) -> Float:
        with torch.no_grad():
            mean, std = action_distribution(actor, to_device(obs, actor), objective.activation, objective.log_std_range)
            eps = torch.randn(mean.shape, generator=generator).to(mean.device)
            wanted = np.asarray(squash(mean, std, eps, *bounds)[0].cpu())
        if not np.isfinite(wanted).all():  # here, or the world would be blamed for what it makes of it
            raise Diverged(
                "learning diverged: the policy's action is not finite. The last checkpoint is intact; lower the learning rates, or look at "
                "the rewards' size (report.png)"
            )
        return wanted

    return act


def deployed(actor: Params, bounds: Bounds, objective: Objective) -> Policy:
    """No noise: what a robot would do."""

    def act(obs: Float) -> Float:
        with torch.no_grad():
            mean, _ = action_distribution(actor, to_device(obs, actor), objective.activation, objective.log_std_range)
            return np.asarray(mode_action(mean, *bounds).cpu())

    return act


def to_device(obs: Float, actor: Params) -> torch.Tensor:
    return torch.from_numpy(np.asarray(obs, np.float32)).to(actor[0].device)
