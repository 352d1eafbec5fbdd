"""Pictures of a robot without a screen: a PNG of one pose, a GIF of a run. EGL where there is a GPU driver, else OSMesa."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from mujoco.rendering.classic.gl_context import GLContext

from edge_dsac.records import Float
from edge_dsac.spec.robot import RobotSpec
from sim.mjcf import load_model

WIDTH, HEIGHT = 400, 300


class RenderError(OSError):
    """No way to draw without a screen."""


class Camera:
    """Follows the robot. A pose is the model's qpos, and after it, where there is one, the obstacle's x and y."""

    def __init__(self, spec: RobotSpec, width: int = WIDTH, height: int = HEIGHT) -> None:
        self.model, self.renderer = open_renderer(spec, width, height)
        self.data = mujoco.MjData(self.model)

    def see(self, pose: Float) -> np.ndarray:
        """`[height, width, 3]` uint8."""
        self.data.qpos[:] = pose[: self.model.nq]
        if self.model.nmocap and len(pose) >= self.model.nq + 2:
            self.data.mocap_pos[0, :2] = pose[self.model.nq : self.model.nq + 2]
        mujoco.mj_forward(self.model, self.data)
        self.renderer.update_scene(self.data, camera="follow")
        return np.asarray(self.renderer.render())

    def close(self) -> None:
        self.renderer.close()


def open_renderer(spec: RobotSpec, width: int, height: int) -> tuple[Any, Any]:
    model = load_model(spec)
    if "glfw" in GLContext.__module__ and not os.environ.get("DISPLAY"):  # it would end the whole process
        raise RenderError(
            "cannot draw: mujoco was imported before sim, which chooses a way without a screen; import sim first, or set MUJOCO_GL"
        )
    try:
        return model, mujoco.Renderer(model, height, width)
    except Exception as error:  # each GL platform fails with an exception of its own
        way = os.environ.get("MUJOCO_GL", "its default")
        raise RenderError(
            f"cannot draw without a screen by MUJOCO_GL={way}: {error}; apt-get install libegl1 libosmesa6, or set MUJOCO_GL"
        ) from None


def render_png(spec: RobotSpec, pose: Float, out: Path) -> None:
    from PIL import Image

    camera = Camera(spec)
    try:
        Image.fromarray(camera.see(pose)).save(out)
    finally:
        camera.close()


def render_gif(spec: RobotSpec, poses: Iterable[Float], out: Path, fps: int = 25) -> None:
    """One frame per pose."""
    from PIL import Image

    camera = Camera(spec)
    try:
        frames = [Image.fromarray(camera.see(np.asarray(pose, float))).quantize(64) for pose in poses]
    finally:
        camera.close()
    if not frames:
        raise ValueError(f"{out}: no poses, so there is nothing to draw")
    frames[0].save(out, save_all=True, append_images=frames[1:], duration=1000 // fps, loop=0, optimize=False)
