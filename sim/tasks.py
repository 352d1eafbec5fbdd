"""What is learnt: a robot of this project, or any Gymnasium id, n at a time, behind one form.

Where an episode ends the next one begins in the same step. Robots run in one batch; Gymnasium's environments one after
another in this process, or each in a process of its own (`workers`), which pays only where there are cores to spare: on two shared
ones it halved Humanoid's steps a second (bench/envs.json, tools/bench_envs.py).
"""

from __future__ import annotations

from dataclasses import replace
from multiprocessing.connection import wait
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from edge_dsac.records import Float, Outcome
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec
from sim.env import EpisodeOptions, RobotVectorEnv

ENDLESS_S, ENDLESS_STEPS = 1e6, 1_000_000


class TaskError(ValueError):
    """A task that cannot be learnt here, or an environment that broke; says what to do."""


class RobotTask:
    def __init__(self, robot: str | RobotSpec, n: int, options: EpisodeOptions = EpisodeOptions()) -> None:
        self.env = RobotVectorEnv(robot, n, options, seed=0)
        self.name, self.n = self.env.robot.model, n
        self.obs_size = int(self.env.single_observation_space.shape[0])
        self.low, self.high = self.env.single_action_space.low, self.env.single_action_space.high
        self.scale = ObservationLayout(self.env.robot).scale  # networks see the scaled observation, here and on the robot

    def begin(self, seed: int) -> Float:
        obs, _ = self.env.reset(seed=seed)
        return obs * self.scale

    def step(self, action: Float) -> Outcome:
        env = self.env
        next_obs, reward, terminated, truncated, info = env.step(action)
        applied, obs = env.last_action, next_obs
        if env.ended.any():
            applied = applied.copy()  # a new episode begins with an action of zero
            ended = env.ended.copy()
            env.begin(ended)
            obs = np.where(ended[:, None], env.rollout.obs.vector, next_obs)  # the others were looked at again, with other noise
        return Outcome(applied, reward, next_obs * self.scale, terminated, truncated, obs * self.scale, info)

    def close(self) -> None:
        self.env.close()


class GymTask:
    """Gymnasium environments in this process: no copies, no vector wrapper, one after another."""

    def __init__(self, env_id: str, n: int, **choices: Any) -> None:
        self.name, self.n = env_id, n
        self.envs = [make_env(env_id, **choices) for _ in range(n)]
        self.obs_size, self.low, self.high = sizes(env_id, self.envs[0].observation_space, self.envs[0].action_space)

    def begin(self, seed: int) -> Float:
        seeds = np.random.SeedSequence(seed).generate_state(self.n)
        return np.stack([self.shaped(env.reset(seed=int(s))[0]) for env, s in zip(self.envs, seeds, strict=True)])

    def step(self, action: Float) -> Outcome:
        action = np.asarray(action, np.float32)
        next_obs = np.empty((self.n, self.obs_size), np.float32)
        reward = np.empty(self.n)
        terminated, truncated = np.zeros(self.n, bool), np.zeros(self.n, bool)
        for i, env in enumerate(self.envs):
            seen, reward[i], terminated[i], truncated[i], _ = env.step(action[i])
            next_obs[i] = self.shaped(seen)
        obs = next_obs
        ended = terminated | truncated
        if ended.any():
            obs = next_obs.copy()
            for i in np.flatnonzero(ended).tolist():
                obs[i] = self.shaped(self.envs[i].reset()[0])
        return Outcome(action, reward, next_obs, terminated, truncated, obs, {})

    def shaped(self, obs: Any) -> Float:
        return expect_shape(self.name, obs, self.obs_size)

    def close(self) -> None:
        for env in self.envs:
            env.close()


class WorkerTask:
    """Gymnasium environments, each in a process of its own."""

    def __init__(self, env_id: str, n: int, **choices: Any) -> None:
        self.name, self.n = env_id, n
        self.envs = AsyncVectorEnv([lambda: make_env(env_id, **choices)] * n, autoreset_mode=AutoresetMode.SAME_STEP)
        self.obs_size, self.low, self.high = sizes(env_id, self.envs.single_observation_space, self.envs.single_action_space)

    def begin(self, seed: int) -> Float:
        seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(self.n)]
        return np.asarray(self.ask(lambda: self.envs.reset(seed=seeds))[0], np.float32)

    def step(self, action: Float) -> Outcome:
        action = np.asarray(action, np.float32)
        obs, reward, terminated, truncated, info = self.ask(lambda: self.envs.step(action))
        obs = np.asarray(obs, np.float32)
        next_obs = obs
        ended = terminated | truncated
        if ended.any():
            next_obs = obs.copy()
            for i in np.flatnonzero(ended).tolist():
                next_obs[i] = expect_shape(self.name, info["final_obs"][i], self.obs_size)
        return Outcome(action, np.asarray(reward, float), next_obs, terminated, truncated, obs, {})

    def ask(self, call: Any) -> Any:
        try:
            return call()
        except (EOFError, ConnectionError, BrokenPipeError) as error:
            # Its sentinel, not is_alive: a dying process closes its pipes before anyone can see that it is dead.
            ended = wait([process.sentinel for process in self.envs.processes], timeout=1.0)
            gone = [i for i, process in enumerate(self.envs.processes) if process.sentinel in ended]
            raise TaskError(
                f"{self.name}: worker {', '.join(map(str, gone)) or '?'} of {self.n} is gone ({type(error).__name__}; killed, or out of "
                "memory?). The last checkpoint is as it was: go on with --resume auto, or with --workers 0 to see its own message"
            ) from None

    def close(self) -> None:
        self.envs.close(terminate=True)


def make_env(env_id: str, **choices: Any) -> gym.Env[Any, Any]:
    try:
        env = gym.make(env_id, **choices)
    except (gym.error.Error, ModuleNotFoundError) as error:
        raise TaskError(f"{env_id}: {error}; `python -c 'import gymnasium; gymnasium.pprint_registry()'` lists what is here") from None
    return env if isinstance(env.observation_space, gym.spaces.Box) else gym.wrappers.FlattenObservation(env)


def sizes(name: str, observations: Any, actions: Any) -> tuple[int, Float, Float]:
    if not isinstance(actions, gym.spaces.Box) or len(actions.shape or ()) != 1:
        raise TaskError(f"{name}: expected a continuous action vector (Box), got {actions}; DSAC-T has no other")
    if not np.isfinite(actions.low).all() or not np.isfinite(actions.high).all():
        raise TaskError(f"{name}: expected finite action limits, got {actions}; wrap it in gymnasium.wrappers.RescaleAction")
    if len(observations.shape or ()) != 1:
        raise TaskError(f"{name}: expected an observation vector, got the shape {observations.shape}; images are not learnt here")
    return int(observations.shape[0]), actions.low.astype(np.float32), actions.high.astype(np.float32)


def expect_shape(name: str, obs: Any, size: int) -> Float:
    obs = np.asarray(obs, np.float32)
    if obs.shape != (size,):
        raise TaskError(
            f"{name}: an observation of the shape {obs.shape}; it was ({size},) at the start. An environment must keep its spaces"
        )
    return obs


class Tasks:
    """The worlds of one training run: to learn in, to be judged in, and without a time limit."""

    def __init__(self, robot: str | RobotSpec | None, env_id: str | None, options: EpisodeOptions, workers: bool) -> None:
        self.robot, self.env_id, self.options, self.workers = robot, env_id, options, workers

    def training(self, n: int) -> RobotTask | GymTask | WorkerTask:
        if self.robot is not None:
            return RobotTask(self.robot, n, self.options)
        return WorkerTask(str(self.env_id), n) if self.workers else GymTask(str(self.env_id), n)

    def evaluation(self, n: int) -> RobotTask | GymTask:
        return RobotTask(self.robot, n, self.options) if self.robot is not None else GymTask(str(self.env_id), n)

    def endless(self, n: int) -> RobotTask | GymTask:
        if self.robot is not None:
            return RobotTask(self.robot, n, replace(self.options, seconds=ENDLESS_S))
        return GymTask(str(self.env_id), n, max_episode_steps=ENDLESS_STEPS)
