"""The robots as Gymnasium environments: `EdgeDsac/BalanceBot-v0` and `EdgeDsac/Rover-v0`, one or many at once.

An action goes through the loop's own Limiter, the plant, a SensorFrame and the loop's own Observer; the reward is the robot's
own (learn/rewards.py). What is written here is only what a robot does not have: targets that change, an end of the episode,
and the truth in `info` for scores.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from edge_dsac.learn.rewards import Reward
from edge_dsac.loop.observer import Reference
from edge_dsac.records import Float
from edge_dsac.spec.robot import RobotSpec, load_robot
from sim.course import Course
from sim.plant import Engine
from sim.randomize import load_ranges
from sim.rollout import Rollout


@dataclass(frozen=True, slots=True)
class EpisodeOptions:
    """Choices of whoever trains or evaluates."""

    randomization: str = "full"  # a set of sim/randomization, or a file
    seconds: float = 5.0  # length of an episode; its end truncates, it does not terminate
    target_speed_m_s: float = 0.5  # targets are drawn within plus and minus this (balancing robot)
    target_yaw_rate_rad_s: float = 1.5
    target_every_s: float = 2.5  # how often they are drawn anew
    leave_path_m: float = 1.0  # a rover further off its path than this has failed
    obstacle: bool = True  # something crosses the rover's path
    threads: int = 1  # of the physics
    engine: Engine = "mujoco"  # warp: mujoco_warp, which pays for thousands of robots on a GPU; threads are then without meaning


class RobotVectorEnv(VectorEnv[Float, Float, Float]):
    """`n` robots in one batch. An episode that ended starts again at the next step, as Gymnasium's NEXT_STEP has it."""

    def __init__(
        self, robot: str | RobotSpec, num_envs: int = 1, options: EpisodeOptions = EpisodeOptions(), seed: int | None = None, **choices: Any
    ) -> None:
        self.robot = load_robot(robot) if isinstance(robot, str) else robot
        known = EpisodeOptions.__dataclass_fields__
        unknown = [name for name in choices if name not in known and name != "render_mode"]
        if unknown:
            raise ValueError(f"{self.robot.model}: unknown option {unknown[0]!r}; known: {', '.join(known)}")
        self.options = EpisodeOptions(
            **{**{name: getattr(options, name) for name in known}, **{k: v for k, v in choices.items() if k in known}}
        )
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}
        self.start(int.from_bytes(os.urandom(4), "little") if seed is None else seed)  # nobody asked for two alike
        clip = self.rollout.observer.layout.clip
        self.single_observation_space = gym.spaces.Box(-clip, clip, dtype=np.float32)
        self.single_action_space = gym.spaces.Box(-1.0, 1.0, (len(self.robot.actions),), np.float32)
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)

    def start(self, seed: int) -> None:
        """Everything from one seed: robots, noise, targets, paths."""
        options = self.options
        self.rollout = Rollout(self.robot, self.num_envs, seed, load_ranges(options.randomization), options.threads, options.engine)
        self.generator = np.random.default_rng([seed, 1])
        self.reward = Reward(self.robot)
        self.course = Course(self.rollout, self.generator, self.options.obstacle) if self.rollout.observer.tracker else None
        self.ticks = np.zeros(self.num_envs, int)
        self.ended = np.zeros(self.num_envs, bool)
        self.last_action: Float = np.zeros((self.num_envs, len(self.robot.actions)))
        self.speed, self.yaw_rate = np.zeros(self.num_envs), np.zeros(self.num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Float, dict[str, Any]]:
        if seed is not None:
            self.start(seed)
        self.begin(np.ones(self.num_envs, bool))
        return self.rollout.obs.vector.copy(), {}

    def begin(self, where: np.ndarray) -> None:
        """New robots, new targets, a new path for the robots `where`."""
        self.rollout.reset(where)
        self.ticks[where], self.ended[where], self.last_action[where] = 0, False, 0.0
        self.draw_targets(where)
        if self.course:
            self.course.lay(where)
        self.rollout.observer.set_reference(self.reference())
        self.rollout.look(where)

    def draw_targets(self, where: np.ndarray) -> None:
        count = int(where.sum())
        if self.course:
            self.speed[where] = self.generator.uniform(0.4, 0.7, count)
            return
        limit, yaw = self.options.target_speed_m_s, self.options.target_yaw_rate_rad_s
        calm = self.generator.random(count) < 0.25  # standing still is a task of its own
        self.speed[where] = np.where(calm, 0.0, self.generator.uniform(-limit, limit, count))
        self.yaw_rate[where] = np.where(calm, 0.0, self.generator.uniform(-yaw, yaw, count))

    def reference(self) -> Reference:
        return Reference(self.speed, self.yaw_rate, self.course.path if self.course else None)

    def step(self, actions: Float) -> tuple[Float, Float, np.ndarray, np.ndarray, dict[str, Any]]:
        again = self.ended.copy()
        if again.any():
            self.begin(again)
            actions = np.where(again[:, None], 0.0, actions)  # chosen for the robot that failed, not for the new one
        self.rollout.step(np.asarray(actions, float))
        self.ticks += ~again
        truth = self.rollout.plant.truth()
        applied = self.rollout.applied_action
        reward = np.asarray(self.reward(self.rollout.obs.vector, applied, self.last_action), float)
        self.last_action = applied.copy()
        fallen = np.maximum(np.abs(truth.pitch_rad), np.abs(truth.roll_rad)) > self.robot.safety.tilt_limit_rad
        collided = truth.obstacle_gap_m <= 0.0
        off_path_m = self.course.distance_m(truth.position_m) if self.course else np.zeros(self.num_envs)
        terminated = fallen | collided | (off_path_m > self.options.leave_path_m)
        truncated = ~terminated & (self.ticks >= round(self.options.seconds * self.robot.rates.control_hz))
        if again.any():  # the step after an end only shows the new robot: nothing was earned by it
            reward[again], terminated[again], truncated[again] = 0.0, False, False
        self.ended = terminated | truncated
        self.change_targets()
        info = {
            "pitch_rad": truth.pitch_rad, "speed_m_s": truth.speed_m_s, "yaw_rate_rad_s": truth.yaw_rate_rad_s, "fallen": fallen,
            "collided": collided, "off_path_m": off_path_m, "obstacle_gap_m": truth.obstacle_gap_m,
        }  # fmt: skip
        return self.rollout.obs.vector.copy(), reward, terminated, truncated, info

    def change_targets(self) -> None:
        every = max(1, round(self.options.target_every_s * self.robot.rates.control_hz))
        due = (self.ticks > 0) & (self.ticks % every == 0)
        if due.any() and not self.course:
            self.draw_targets(due)
            self.rollout.observer.set_reference(self.reference())
        if self.course:
            self.course.send_obstacles()


class RobotEnv(gym.Env[Float, Float]):
    """One robot, in Gymnasium's plain form."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}

    def __init__(self, robot: str | RobotSpec, render_mode: str | None = None, **choices: Any) -> None:
        self.many = RobotVectorEnv(robot, 1, **choices)
        self.render_mode = render_mode
        self.observation_space, self.action_space = self.many.single_observation_space, self.many.single_action_space
        self.camera: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Float, dict[str, Any]]:
        super().reset(seed=seed)
        obs, info = self.many.reset(seed=seed)
        return obs[0], info

    def step(self, action: Float) -> tuple[Float, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.many.step(np.asarray(action)[None])
        self.many.ended[:] = False  # here the caller resets
        return obs[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), {name: value[0] for name, value in info.items()}

    def render(self) -> Any:
        from sim.render import Camera

        if self.render_mode != "rgb_array":
            return None
        self.camera = self.camera or Camera(self.many.robot)
        plant = self.many.rollout.plant
        return self.camera.see(np.concatenate([plant.qpos(), plant.obstacle.position_m[0]]))

    def close(self) -> None:
        if self.camera:
            self.camera.close()


def make_vector(robot: str, num_envs: int = 1, **choices: Any) -> RobotVectorEnv:
    return RobotVectorEnv(robot, num_envs, **choices)


def register() -> None:
    """Idempotent; done at `import sim`."""
    for name, robot in (("EdgeDsac/BalanceBot-v0", "balance_bot"), ("EdgeDsac/Rover-v0", "rover")):
        if name not in gym.registry:
            gym.register(
                name, entry_point="sim.env:RobotEnv", vector_entry_point="sim.env:make_vector", kwargs={"robot": robot}, order_enforce=True
            )
