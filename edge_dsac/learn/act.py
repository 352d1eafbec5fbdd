"""An actor's parameters as a policy: observations in, actions out, for collecting and for evaluating."""

from __future__ import annotations

import numpy as np
import torch

from edge_dsac.learn.collect import Policy
from edge_dsac.learn.losses import Objective
from edge_dsac.learn.networks import Params, action_distribution, mode_action, squash
from edge_dsac.records import Float

Bounds = tuple[torch.Tensor, torch.Tensor]


def explorer(actor: Params, bounds: Bounds, objective: Objective, generator: torch.Generator) -> Policy:
    """Samples: what learning collects with. The noise is drawn on the CPU, the same on every device."""

    def act(obs: Float) -> Float:
        with torch.no_grad():
            mean, std = action_distribution(actor, to_device(obs, actor), objective.activation, objective.log_std_range)
            eps = torch.randn(mean.shape, generator=generator).to(mean.device)
            return np.asarray(squash(mean, std, eps, *bounds)[0].cpu())

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
