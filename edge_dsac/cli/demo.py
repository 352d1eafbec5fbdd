"""`edge-dsac demo`: the whole way of one value without hardware, in one command, with the pictures of it.

A virtual board (the real firmware against a simulated robot) on a pty, the control loop on that pty, one unplugged cable
in the middle. Everything runs as a user would run it: as the commands it prints.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edge_dsac.spec.robot import load_robot

BOARD_READY_S = 90.0  # the first start compiles the firmware
UNPLUGGED_S = 1.5


def add(verbs: Any) -> None:
    parser = verbs.add_parser("demo", help="virtual board, loop, one unplugged cable, and the pictures of it")
    parser.add_argument("--robot", default="balance_bot", help="a shipped model name, or the path of a robot file (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=25.0, help="how long the loop runs (default: %(default)s)")
    parser.add_argument("--speed", type=float, default=0.25, metavar="M_S", help="forward speed asked for (default: %(default)s)")
    parser.add_argument(
        "--yaw-rate", type=float, default=0.6, metavar="RAD_S", help="yaw rate asked for, so that it drives a circle (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for log and pictures (default: %(default)s)")
    parser.set_defaults(run=demo)


def demo(args: argparse.Namespace) -> int:
    spec = load_robot(args.robot)
    out: Path = args.out / time.strftime("%Y%m%d-%H%M%S")
    out.mkdir(parents=True)
    link, trajectory = out / "board", out / "trajectory.npz"
    unplug_at = round(args.seconds * 0.45, 1)
    print(f"1/4  a virtual {spec.model}: firmware in C, physics in MuJoCo, a pty between (compiled on first use)")
    board = start([
        "mcu", "--robot", args.robot, "--link", str(link), "--seed", "1", "--trajectory", str(trajectory),
        "--fault", f"disconnect@{unplug_at}+{UNPLUGGED_S}", "--json",
    ])  # fmt: skip
    try:
        wait_for(link, board)
        print(
            f"2/4  the loop at {spec.rates.control_hz} Hz for {args.seconds:g} s; the cable is pulled at {unplug_at:g} s for {UNPLUGGED_S:g} s"
        )
        summary = fly(args, link, out)
    finally:
        board.terminate()
        board.wait(timeout=20)
    print("3/4  the picture of the run")
    picture = draw_run(out)
    print("4/4  the robot itself")
    gif = draw_robot(spec, trajectory, out)
    survived = summary["mode"] == "RUNNING" and summary["board_still"]
    timing = summary["flight"]
    print(f"\n{'The robot kept its balance' if survived else 'The run ended early: ' + summary['because']}.")
    print(
        f"  {summary['ticks']} ticks, {summary['missed']} missed, lateness p99 {timing['late_us']['p99']:.0f} us; {summary['link'].get('reconnects', 0)} reconnect"
    )
    print(f"  picture  {picture}\n  robot    {gif}\n  log      {out / 'log'}   (edge-dsac log info {out / 'log'})")
    return 0 if survived else 1


def start(words: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "edge_dsac.cli.main", *words]
    print("     $ edge-dsac " + " ".join(words))
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for(link: Path, board: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + BOARD_READY_S
    while not link.exists():
        if board.poll() is not None:
            said = board.stderr.read().decode() if board.stderr else ""
            raise OSError(f"the virtual board ended with {board.returncode} before it was ready: {said.strip()}")
        if time.monotonic() > give_up:
            raise OSError(f"the virtual board was not ready within {BOARD_READY_S:g} s")
        time.sleep(0.05)


def fly(args: argparse.Namespace, link: Path, out: Path) -> dict[str, Any]:
    words = ["run", "--robot", args.robot, "--port", str(link), "--seconds", f"{args.seconds:g}", "--speed", f"{args.speed:g}"]
    words += ["--yaw-rate", f"{args.yaw_rate:g}", "--rearm", "--log", str(out / "log")]
    print("     $ edge-dsac " + " ".join(words))
    summary = out / "summary.json"
    code = subprocess.call([sys.executable, "-m", "edge_dsac.cli.main", *words, "--summary", str(summary)])
    if not summary.exists():
        raise OSError(f"the loop ended with {code} and left no summary; its message is above")
    return dict(json.loads(summary.read_text()))


def draw_run(out: Path) -> Path:
    from edge_dsac.steplog import open_log
    from edge_dsac.watch.picture import draw

    picture = out / "run.png"
    draw(open_log(out / "log"), picture)
    return picture


def draw_robot(spec: Any, trajectory: Path, out: Path) -> Path:
    import numpy as np

    from sim.render import render_gif

    gif = out / "robot.gif"
    with np.load(trajectory, allow_pickle=False) as recorded:
        render_gif(spec, recorded["qpos"][::2], gif, fps=12)  # half of the poses: a few MB instead of many
    return gif
