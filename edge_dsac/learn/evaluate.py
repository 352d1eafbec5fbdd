"""How good a policy is, and how well the critics know it: numbers from episodes of their own, with seeds of their own.

`evaluate` runs the deployed policy; `check_value` runs the exploring one, whose return is what the critics estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from edge_dsac.learn.act import Bounds
from edge_dsac.learn.collect import Policy, World
from edge_dsac.learn.losses import Objective
from edge_dsac.learn.networks import Params, action_distribution, squash, value_distribution
from edge_dsac.records import Float

REST = 0.1  # a start is counted when at most this share of its return lies beyond what was lived through
VALUE_SPANS = 3  # length of a value check, in the steps a start needs behind it


def value_steps(gamma: float) -> int:
    """How long a check must be: at gamma 0.99 a start needs 230 steps behind it."""
    return math.ceil(VALUE_SPANS * math.log(REST) / math.log(gamma))


@dataclass(frozen=True, slots=True)
class Score:
    """Of whole episodes."""

    returns: list[float]
    lengths: list[int]
    survival: float  # share of episodes that were not terminated
    means: dict[str, float] = field(default_factory=dict)  # of the truths the world told, over all steps
    ends: dict[str, float] = field(default_factory=dict)  # of those that are yes or no: the share of episodes that ended with a yes

    @property
    def mean(self) -> float:
        return float(np.mean(self.returns))

    def figures(self) -> dict[str, float]:
        spread = float(np.std(self.returns))
        low, high = float(np.min(self.returns)), float(np.max(self.returns))
        return {"mean": self.mean, "std": spread, "min": low, "max": high, "survival": self.survival, **self.means, **self.ends}


def evaluate(world: World, policy: Policy, seed: int, episodes: int) -> Score:
    """At least `episodes` whole ones; each place of the world runs the same number, so that short ones do not count double.

    The means are of the truths' magnitudes, over all steps.
    """
    each = math.ceil(episodes / world.n)
    obs = world.begin(seed)
    done, total, length = np.zeros(world.n, int), np.zeros(world.n), np.zeros(world.n, int)
    returns: list[float] = []
    lengths: list[int] = []
    terminated, steps = 0, 0
    sums: dict[str, float] = {}
    ends: dict[str, int] = {}
    while (done < each).any():
        outcome = world.step(policy(obs))
        running = done < each
        total += outcome.reward
        length += 1
        steps += int(running.sum())
        ended = (outcome.terminated | outcome.truncated) & running
        for name, values in outcome.info.items():
            if values.dtype == bool:
                ends[name] = ends.get(name, 0) + int(values[ended].sum())
            else:
                sums[name] = sums.get(name, 0.0) + float(np.abs(values[running]).sum())
        returns += total[ended].tolist()
        lengths += length[ended].tolist()
        terminated += int((outcome.terminated & ended).sum())
        done += ended
        over = outcome.terminated | outcome.truncated
        total[over], length[over] = 0.0, 0
        obs = outcome.obs
    means = {name: value / steps for name, value in sums.items() if math.isfinite(value)}
    shares = {name: count / len(returns) for name, count in ends.items()}
    return Score(returns, lengths, 1.0 - terminated / len(returns), means, shares)


@dataclass(frozen=True, slots=True)
class ValueCheck:
    """Estimated against realised, one entry per start; soft returns, as the critics learn them.

    Empty where no start had enough behind it (a world that ends its episodes early): its figures are then NaN.
    """

    estimated: Float
    sigma: Float
    realised: Float

    def figures(self) -> dict[str, float]:
        if not len(self.estimated):
            return dict.fromkeys(("estimated", "realised", "bias", "sigma", "spread", "within_2_sigma"), math.nan)
        error = self.estimated - self.realised
        spread = float(np.sqrt(np.mean(error**2)))
        return {
            "estimated": float(self.estimated.mean()), "realised": float(self.realised.mean()), "bias": float(error.mean()),
            "sigma": float(self.sigma.mean()), "spread": spread, "within_2_sigma": float((np.abs(error) < 2 * self.sigma).mean()),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judged:
    """Whose value is checked."""

    actor: Params
    critics: Params
    alpha: float
    bounds: Bounds
    objective: Objective
    gamma: float
    reward_scale: float


def judge(judged: Judged, obs: Float, generator: torch.Generator) -> tuple[Float, Float, Float, Float]:
    """An action of the exploring policy, its log-probability, and what the critics say of it."""
    with torch.no_grad():
        seen = torch.from_numpy(np.asarray(obs, np.float32)).to(judged.actor[0].device)
        mean, std = action_distribution(judged.actor, seen, judged.objective.activation, judged.objective.log_std_range)
        act, log_prob = squash(mean, std, torch.randn(mean.shape, generator=generator).to(mean.device), *judged.bounds)
        q, sigma = value_distribution(judged.critics, seen, act, judged.objective.activation, judged.objective.critic_layer_norm)
        smaller = q.argmin(dim=0, keepdim=True)
        picked = (q.gather(0, smaller)[0], sigma.gather(0, smaller)[0])
        return tuple(np.asarray(value.cpu(), float) for value in (act, log_prob, *picked))  # type: ignore[return-value]


Judge = Callable[[Judged, Float, torch.Generator], tuple[Float, Float, Float, Float]]  # as `judge`


def check_value(world: World, judged: Judged, seed: int, steps: int, look: Judge = judge) -> ValueCheck:
    """Lives through `steps` steps; every start with enough behind it is held against what followed.

    `look` is another's networks, for a comparison with them: of `judged` only gamma, alpha and the reward's scale are then used.
    """
    generator = torch.Generator().manual_seed(seed)
    obs = world.begin(seed)
    lived: list[dict[str, Any]] = []
    for _ in range(steps):
        act, log_prob, q, sigma = look(judged, obs, generator)
        outcome = world.step(act)
        obs = outcome.obs
        cut = outcome.truncated & ~outcome.terminated if len(lived) + 1 < steps else ~outcome.terminated  # nothing was lived beyond
        beyond = np.zeros(world.n)
        if cut.any():
            _, next_log_prob, next_q, _ = look(judged, outcome.next_obs, generator)
            beyond = np.asarray(next_q - judged.alpha * next_log_prob)
        lived.append({
            "q": q, "sigma": sigma, "log_prob": log_prob, "reward": outcome.reward * judged.reward_scale,
            "terminated": outcome.terminated, "cut": cut, "beyond": beyond,
        })  # fmt: skip
    return realise(lived, judged)


def realise(lived: list[dict[str, Any]], judged: Judged) -> ValueCheck:
    """Backwards: what each start really brought. `rest` is the share that the critics had to fill in beyond a cut."""
    soft_return, rest = np.zeros(len(lived[0]["q"])), np.zeros(len(lived[0]["q"]))
    estimated, sigma, realised = [], [], []
    for step in reversed(lived):
        goes_on = ~step["terminated"]
        after = np.where(step["cut"], step["beyond"], soft_return)
        soft_return = step["reward"] + judged.gamma * goes_on * after
        rest = judged.gamma * goes_on * np.where(step["cut"], 1.0, rest)
        counted = rest <= REST
        estimated.append(step["q"][counted])
        sigma.append(step["sigma"][counted])
        realised.append(soft_return[counted])
        soft_return = soft_return - judged.alpha * step["log_prob"]
    columns = [np.concatenate(values) for values in (estimated, sigma, realised)]
    return ValueCheck(*columns)
