"""What critics say of two actors on the same observations: cheap, and no more than an opinion.

Each pair of critics judges both actors, for critics that learnt beside an actor like it. Knows no log, no episode and no gate.
Rule that must stay true: the smaller of the twins counts, as in the losses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from edge_dsac.learn.act import Bounds
from edge_dsac.learn.losses import Objective
from edge_dsac.learn.networks import Params, action_distribution, mode_action, value_distribution
from edge_dsac.records import Float

AT_ONCE = 8192  # rows


def mean_value(critics: Params, actor: Params, obs: Float, bounds: Bounds, objective: Objective) -> tuple[float, Float]:
    """(mean Q of the deployed actor's actions, those actions)."""
    sums, actions = 0.0, []
    with torch.no_grad():
        for part in torch.from_numpy(np.asarray(obs, np.float32)).split(AT_ONCE):
            mean, _ = action_distribution(actor, part, objective.activation, objective.log_std_range)
            act = mode_action(mean, *bounds)
            q, _ = value_distribution(critics, part, act, objective.activation, objective.critic_layer_norm)
            sums += float(q.min(dim=0).values.double().sum())
            actions.append(act.numpy())
    return sums / len(obs), np.concatenate(actions)


def compared(old: tuple[Params, Params], new: tuple[Params, Params], obs: Float, bounds: Bounds, objective: Objective) -> dict[str, Any]:
    """`old` and `new`: (actor, critics), on the CPU. `shift` is the mean absolute difference of their actions."""
    found: dict[str, Any] = {"rows": len(obs)}
    for judge, (_, critics) in (("old_critics", old), ("new_critics", new)):
        values, acted = {}, []
        for who, (actor, _) in (("old_actor", old), ("new_actor", new)):
            values[who], actions = mean_value(critics, actor, obs, bounds, objective)
            acted.append(actions)
        found[judge] = values
    return found | {"shift": float(np.abs(acted[0] - acted[1]).mean())}
