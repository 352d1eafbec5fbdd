"""One flight on a virtual board with one unplugged cable, and the pictures of it: a demo for any robot, and a part of the whole story."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_dsac.cli.story import Child, Story, StoryError
from edge_dsac.spec.robot import RobotSpec

BOARD_READY_S = 120.0  # the first start compiles the firmware
UNPLUGGED_S = 1.5
MORE_S = 90.0  # that a flight may take beside its own seconds: starting, ending, a loud machine
FILM_HZ, RECORDED_HZ = 6, 25  # every fourth of the recorded poses: the film is drawn in seconds


@dataclass(frozen=True, slots=True)
class Drive:
    """What a flight is asked for."""

    robot: str
    seconds: float
    speed_m_s: float = 0.25
    yaw_rate_rad_s: float = 0.6
    policy: Path | None = None


def short_demo(story: Story, drive: Drive, spec: RobotSpec) -> int:
    story.heading(f"a virtual {spec.model}: firmware in C, physics in MuJoCo, a pty between (compiled on first use)")
    summary = fly_with_a_pulled_cable(story, drive, spec)
    story.heading("the pictures of it")
    pictures = draw(story.out, spec)
    survived = said_of(story, summary)
    for name, path in pictures.items():
        story.tell(f"  {name:<8} {path}")
    story.tell(f"  log      {story.out / 'log'}   (edge-dsac log info {story.out / 'log'})")
    return 0 if survived else 1


def fly_with_a_pulled_cable(story: Story, drive: Drive, spec: RobotSpec) -> dict[str, Any]:
    """The summary of the flight; its log is in `log`, the robot's poses in trajectory.npz."""
    unplug_at = round(drive.seconds * 0.45, 1)
    board = start_board(
        story, "board", drive.robot, drive.seconds,
        ["--seed", "1", "--trajectory", str(story.out / "trajectory.npz"), "--fault", f"disconnect@{unplug_at}+{UNPLUGGED_S}"],
    )  # fmt: skip
    story.tell(
        f"     the loop at {spec.rates.control_hz} Hz for {drive.seconds:g} s; the cable is pulled at {unplug_at:g} s for {UNPLUGGED_S:g} s"
    )
    words = ["run", "--robot", drive.robot, "--port", str(story.out / "board"), "--seconds", f"{drive.seconds:g}", "--rearm"]
    words += ["--speed", f"{drive.speed_m_s:g}", "--yaw-rate", f"{drive.yaw_rate_rad_s:g}"]
    words += [] if drive.policy is None else ["--policy", str(drive.policy)]
    summary = story.out / "summary.json"
    words += ["--log", str(story.out / "log"), "--summary", str(summary)]
    code = story.do(words, drive.seconds + MORE_S, may_end_with=(0, 1))
    board.end()
    if not summary.exists():
        raise StoryError(f"the loop ended with {code} and left no summary; its message is above")
    return dict(json.loads(summary.read_text()))


def start_board(story: Story, name: str, robot: str, seconds: float, more: Sequence[str]) -> Child:
    """On its own it ends some time after the story should be over: also where nobody is left to end it."""
    link = story.out / name
    words = ["mcu", "--robot", robot, "--link", str(link), *more, "--seconds", f"{seconds + MORE_S:g}", "--json"]
    board = story.start(name, words)
    story.until(lambda: True if link.exists() else None, "the virtual board was ready", BOARD_READY_S, board, "waiting for the board")
    return board


def said_of(story: Story, summary: dict[str, Any]) -> bool:
    """Whether the robot kept its balance, told with the numbers."""
    survived = summary["mode"] == "RUNNING" and summary["board_still"]
    late = summary["flight"]["late_us"]["p99"]
    story.tell(f"     {'the robot kept its balance' if survived else 'the flight ended early: ' + summary['because']}; {summary['ticks']} ticks, "
               f"{summary['missed']} missed, lateness p99 {late:.0f} us, {summary['link'].get('reconnects', 0)} reconnect")  # fmt: skip
    return bool(survived)


def draw(out: Path, spec: RobotSpec) -> dict[str, Path]:
    """run.png and robot.gif. A demo is not lost because a robot's film cannot be drawn here."""
    import numpy as np

    from edge_dsac.steplog import open_log
    from edge_dsac.watch.picture import draw as draw_flight
    from sim.render import RenderError, render_gif

    pictures = {"picture": out / "run.png"}
    draw_flight(open_log(out / "log"), pictures["picture"])
    try:
        with np.load(out / "trajectory.npz", allow_pickle=False) as recorded:
            render_gif(spec, recorded["qpos"][:: RECORDED_HZ // FILM_HZ], out / "robot.gif", fps=FILM_HZ)
    except (RenderError, FileNotFoundError) as error:
        return {**pictures, "no film": Path(str(error))}
    return {**pictures, "robot": out / "robot.gif"}
