"""A GIF of a policy at work, in a robot of this project or in any Gymnasium environment that can be drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np

from edge_dsac.records import Float
from sim.render import RenderError, render_gif
from sim.tasks import GymTask, RobotTask

FPS = 12.5
Policy = Callable[[Float], Float]


def film_robot(task: RobotTask, policy: Policy, seconds: float, seed: int, out: Path) -> None:
    """One robot of a task made with n = 1; where it fails the next one begins."""
    obs, poses = task.begin(seed), []
    plant = task.env.rollout.plant
    hz = task.env.robot.rates.control_hz
    every = max(1, round(hz / FPS))
    for tick in range(round(seconds * hz)):
        if tick % every == 0:
            poses.append(np.concatenate([plant.qpos(), plant.obstacle.position_m[0]]))
        obs = task.step(policy(obs)).obs
    render_gif(task.env.robot, poses, out, fps=round(hz / every))


def film_env(env_id: str, policy: Policy, seconds: float, seed: int, out: Path) -> None:
    from PIL import Image

    task = GymTask(env_id, 1, render_mode="rgb_array")
    obs, frames = task.begin(seed), []
    fps = float(task.envs[0].metadata.get("render_fps") or 30)
    every = max(1, round(fps / FPS))
    try:
        for tick in range(round(seconds * fps)):
            if tick % every == 0:
                picture = Image.fromarray(np.asarray(task.envs[0].render()))
                frames.append(picture.resize((320, round(320 * picture.height / picture.width))).quantize(64))
            obs = task.step(policy(obs)).obs
    except gym.error.Error as error:
        raise RenderError(f"{env_id} cannot be drawn: {error}") from None
    finally:
        task.close()
    frames[0].save(out, save_all=True, append_images=frames[1:], duration=round(1000 * every / fps), loop=0, optimize=False)
