"""Living through it: a policy acts in a world, and what happens becomes transitions.

Knows a `World` only by what it does here; which simulator stands behind it is not known. Rule that must stay true: only
`terminated` cuts the bootstrap; whatever else ends an episode (a time limit, the end of a round) bootstraps from the last
observation. Actions are stored as they were applied, not as they were wished.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edge_dsac.learn.losses import Batch
from edge_dsac.records import Float, Outcome

LARGEST = float(np.finfo(np.float32).max)  # beyond it a number of the replay is infinite
Policy = Callable[[Float], Float]  # [n, obs] -> [n, act], within the world's bounds


class WorldError(ValueError):
    """An environment that gives what nothing can be learnt from; the message says what to do."""


class World(Protocol):
    name: str
    n: int
    obs_size: int
    low: Float  # [act]
    high: Float

    def begin(self, seed: int) -> Float:
        """n new episodes, everything in them from the seed."""

    def step(self, action: Float) -> Outcome:
        """In arrays of its own, which it never writes to again."""

    def close(self) -> None: ...


@dataclass(slots=True)
class Tally:
    """Episodes that ended, as they went by."""

    returns: list[float]
    lengths: list[int]
    terminated: int = 0


class Collector:
    """n episodes at a time; each call of `collect` lives through some more steps of them."""

    def __init__(self, world: World, gamma: float, n_step: int, reward_scale: float) -> None:
        self.world, self.reward_scale = world, reward_scale
        self.span = NStep(world.n, gamma, n_step)
        self.obs: Float = np.zeros((world.n, world.obs_size), np.float32)
        self.tally = Tally([], [])
        self.steps = 0

    def begin(self, seed: int) -> None:
        """New episodes: nothing of what ran before is carried on."""
        self.obs = self.world.begin(seed)
        expect_numbers(self.world, "observation", self.obs, self.steps)
        self.span.clear()
        self.tally = Tally([], [])
        self.running_return, self.running_length = np.zeros(self.world.n), np.zeros(self.world.n, int)

    def collect(self, policy: Policy, steps: int) -> list[Batch]:
        """The rows that were closed, in one piece, if any were."""
        rows = []
        for _ in range(steps):
            outcome = self.world.step(policy(self.obs))
            check(self.world, outcome, self.steps)
            ended = outcome.terminated | outcome.truncated
            rows += self.span.push(self.obs, outcome, outcome.reward * self.reward_scale, ended)
            self.count(outcome, ended)
            self.obs = outcome.obs
            self.steps += 1
        return joined(rows)

    def finish(self) -> list[Batch]:
        """The round is over: what is still under way ends here, as at a time limit."""
        return joined(self.span.flush())

    def count(self, outcome: Outcome, ended: Any) -> None:
        self.running_return += outcome.reward
        self.running_length += 1
        if ended.any():
            self.tally.returns += self.running_return[ended].tolist()
            self.tally.lengths += self.running_length[ended].tolist()
            self.tally.terminated += int(outcome.terminated.sum())
            self.running_return[ended], self.running_length[ended] = 0.0, 0


def joined(pieces: list[Batch]) -> list[Batch]:
    columns = zip(*pieces, strict=True)
    return [Batch(*(np.concatenate(column, dtype=np.float32, casting="same_kind") for column in columns))] if pieces else []  # type: ignore[arg-type]


def check(world: World, outcome: Outcome, step: int) -> None:
    """One bad number in the replay poisons everything after it."""
    expect_numbers(world, "reward", outcome.reward, step)
    expect_numbers(world, "observation", outcome.next_obs, step)
    if outcome.obs is not outcome.next_obs:
        expect_numbers(world, "observation", outcome.obs, step)


def expect_numbers(world: World, what: str, values: Float, step: int) -> None:
    good = np.abs(values) <= LARGEST  # NaN is not
    if good.all():
        return
    who = int((~good.reshape(world.n, -1).all(axis=1)).argmax())
    raise WorldError(
        f"{world.name}: the {what} of environment {who} is {values[who].tolist()} at step {step}; expected finite numbers. "
        "Mend the environment (or clip there); the last checkpoint is as it was, --resume auto goes on from it"
    )


class NStep:
    """Rows that span up to n steps: R = r0 + gamma r1 + ..., the observation n steps on, and gamma**n to discount it by.

    n = 1 is DSAC-T, where a row is whole at once; more is an addition to it. At the end of an episode the rows still open close with
    what they span.
    """

    def __init__(self, n: int, gamma: float, n_step: int) -> None:
        self.gamma, self.n_step, self.everyone = gamma, n_step, np.ones(n, bool)
        self.discount = np.full(n, gamma)
        self.open: list[Opened] = []
        self.last_obs: Float = np.zeros((n, 0))

    def clear(self) -> None:
        self.open = []

    def push(self, obs: Float, outcome: Outcome, reward: Float, ended: Any) -> list[Batch]:
        if self.n_step == 1:
            return [Batch(obs, outcome.applied, reward, outcome.next_obs, outcome.terminated, self.discount)]  # type: ignore[arg-type]
        self.open.append(Opened(obs, outcome.applied, np.zeros(len(reward)), np.ones(len(reward)), self.everyone.copy()))
        for row in self.open:
            row.reward += row.discount * reward
            row.discount *= self.gamma
        self.last_obs = outcome.next_obs
        closed = []
        if len(self.open) == self.n_step:
            closed.append(self.open.pop(0).close(self.everyone, outcome.next_obs, outcome.terminated))
        if ended.any():
            closed += [row.close(ended, outcome.next_obs, outcome.terminated) for row in self.open]
            for row in self.open:
                row.alive &= ~ended
        return [rows for rows in closed if len(rows.reward)]

    def flush(self) -> list[Batch]:
        nobody = np.zeros(len(self.everyone), bool)
        closed = [row.close(self.everyone, self.last_obs, nobody) for row in self.open]
        self.open = []
        return [rows for rows in closed if len(rows.reward)]


@dataclass(slots=True)
class Opened:
    """The rows of one step of all environments, not yet n steps long."""

    obs: Float
    act: Float
    reward: Float
    discount: Float
    alive: Any  # whose row has not been closed by the end of its episode

    def close(self, who: Any, next_obs: Float, terminated: Any) -> Batch:
        rows = np.flatnonzero(self.alive & who)
        columns = (self.obs, self.act, self.reward, next_obs, terminated, self.discount)
        return Batch(*(column[rows] for column in columns))  # type: ignore[arg-type]
