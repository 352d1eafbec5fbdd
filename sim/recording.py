"""Simulated robots under a policy: what they saw, for ranges and errors; and whole episodes, to compare two policies tick by tick.

A policy here is a function of SI observations `[n, obs]`. Knows no file and no engine. Rule that must stay true: from the same seed
every policy gets the same robots, the same noise and the same targets, whoever of them falls. (A rover's later obstacles are drawn
when the earlier one has passed, which is the rover's doing: its episodes are the same up to there.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_dsac.records import Float
from edge_dsac.spec.robot import RobotSpec
from sim.env import EpisodeOptions, RobotVectorEnv
from sim.tasks import RobotTask

Policy = Callable[[Float], Float]
# Before a fall nothing is recorded: the float policy had lost the robot too, so what it wanted there is no measure of another's error, and
# ranges that hold a fall are twice as coarse for a robot that stands. Falls are judged by counting them (`fly`).
LOST_S = 0.5


def record_observations(
    spec: RobotSpec, policy: Policy, seconds: float, robots: int, seed: int, randomization: str = "full", lost_s: float = LOST_S,
    threads: int = 1,
) -> Float:  # fmt: skip
    """`[rows, n]` in SI, float32: robot after robot, each in the order of time. Robots that end begin anew.

    `threads` of the physics: they change how long it takes, and nothing else.
    """
    task = RobotTask(spec, robots, EpisodeOptions(randomization=randomization, threads=threads))
    clip = task.env.single_observation_space.high
    obs, seen = task.begin(seed), []
    ticks, lost_ticks = round(seconds * spec.rates.control_hz), round(lost_s * spec.rates.control_hz)
    kept = np.ones((robots, ticks), bool)
    for tick in range(ticks):
        seen.append(np.clip(obs / task.scale, -clip, clip))  # scaling and back may step over the clip by a rounding
        outcome = task.step(policy(seen[-1]))
        kept[outcome.terminated, max(0, tick + 1 - lost_ticks) : tick + 1] = False
        obs = outcome.obs
    task.close()
    return np.stack(seen, axis=1)[kept].astype(np.float32)


@dataclass(frozen=True, slots=True)
class Episodes:
    """One episode of each of n robots. After a robot's end its rows mean nothing and `alive` is False."""

    obs: Float  # [ticks, n, obs] SI, what the action was chosen for
    actions: Float  # [ticks, n, actions] wanted
    alive: NDArray[Any]  # [ticks, n] bool
    returns: Float  # [n]
    failed: NDArray[Any]  # [n] bool: fallen, collided or off the path


def fly(spec: RobotSpec, policy: Policy, episodes: int, seed: int, options: EpisodeOptions) -> Episodes:
    """All at once. Nobody begins anew: a robot that fell early would draw from the others' random numbers."""
    env = RobotVectorEnv(spec, episodes, dataclasses.replace(options), seed=seed)
    obs, _ = env.reset(seed=seed)
    ticks = round(options.seconds * spec.rates.control_hz)
    alive, returns, failed = np.ones(episodes, bool), np.zeros(episodes), np.zeros(episodes, bool)
    rows: list[tuple[Float, Float, NDArray[Any]]] = []
    for _ in range(ticks):
        action = np.asarray(policy(obs), float)
        rows.append((obs, action, alive.copy()))
        obs, reward, terminated, _, _ = env.step(np.where(alive[:, None], np.nan_to_num(action), 0.0))
        env.ended[:] = False
        returns += np.where(alive, reward, 0.0)
        failed |= alive & terminated
        alive &= ~terminated
    env.close()
    seen, actions, living = (np.stack(column) for column in zip(*rows, strict=True))
    return Episodes(seen, actions, living, returns, failed)
