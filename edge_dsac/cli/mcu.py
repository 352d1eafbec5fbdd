"""`edge-dsac mcu`: a virtual motor board on a pty: the firmware's own C against a simulated robot."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge_dsac.records import Float, Readings
from edge_dsac.spec.robot import RobotSpec, load_robot
from firmware_bridge.build import build_host_library
from firmware_bridge.faults import describe_faults, parse_fault
from firmware_bridge.virtual_mcu import Plant, Pty, VirtualBoard, serve

# Of SCHED_FIFO: below the loop (80) and its helper threads (40), which physics must not keep waiting; above every ordinary process.
PRIORITY = 20
EPILOG = f"""\
A fault is KIND[:SIDE][=VALUE][@START[+DURATION]]; SIDE is host, board or both (frames from there), times are seconds of the board.
{describe_faults()}

examples:
  edge-dsac mcu --robot balance_bot --link /tmp/board
  edge-dsac mcu --robot balance_bot --link /tmp/board --fault drop=0.02 --fault disconnect@10+1.5 --fault bitflip:board=0.001
  edge-dsac mcu --robot balance_bot --hidden hidden          a robot that is not quite the one the policy knows

The port is printed as `port PATH`, then a line as each minute passes; Ctrl-C ends it.
"""


def add(verbs: Any) -> None:
    parser = verbs.add_parser(
        "mcu", help="a virtual motor board on a pty: the real firmware against a simulated robot", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--robot", required=True, help="a shipped model name, or the path of a robot file")
    parser.add_argument("--link", type=Path, metavar="PATH", help="a symbolic link that always points to the port, also after a reconnect")
    parser.add_argument("--seed", type=int, default=0, help="of everything random: sensors, robot, faults (default: %(default)s)")
    parser.add_argument("--fault", action="append", default=[], metavar="FAULT", help="something that goes wrong; may be repeated")
    parser.add_argument(
        "--hidden",
        default="nominal",
        metavar="SET",
        help="how this robot differs from the design: nominal, narrow, full, hidden, or a file (default: %(default)s)",
    )
    parser.add_argument("--still", action="store_true", help="no physics: the robot hangs on a stand (for measuring the loop alone)")
    parser.add_argument(
        "--attended", action="store_true", help="a robot that has lain for 2 s with its motors off is put on its wheels again"
    )
    parser.add_argument(
        "--lockstep", action="store_true", help="time passes only by what the host sends; two runs with one seed are the same"
    )
    parser.add_argument(
        "--no-priority",
        action="store_true",
        help="do not ask to come before ordinary processes; a busy machine then stops the robot's world",
    )
    parser.add_argument("--seconds", type=float, help="end after this long (default: until Ctrl-C)")
    parser.add_argument("--trajectory", type=Path, metavar="FILE", help="keep the robot's pose 25 times a second, for a picture")
    parser.add_argument("--json", action="store_true", help="print what it came to as one JSON object at the end")
    parser.set_defaults(run=run)


class OnAStand:
    """A robot that hangs in the air, upright: healthy sensors, and nothing moves. For measurements of everything else."""

    def __init__(self, spec: RobotSpec, seed: int) -> None:
        generator = np.random.default_rng(seed)
        noise = generator.normal(size=(4096, 6)) * np.array([0.003] * 3 + [0.05] * 3) + np.array([0, 0, 0, 0, 0, 9.81])
        still, extra = np.zeros(len(spec.joints)), np.full(len(spec.extras), np.nan)
        self.readings = [Readings(still, row[:3], row[3:], spec.battery.nominal_v, extra) for row in noise]
        self.at = 0

    def reset(self) -> None:
        self.at = 0

    def drive(self, command: Float | None, ticks: int) -> None:
        self.at = (self.at + ticks) % len(self.readings)

    def sense(self) -> Readings:
        return self.readings[self.at]


def run(args: argparse.Namespace) -> int:
    spec = load_robot(args.robot)
    faults = tuple(parse_fault(text) for text in args.fault)
    library = build_host_library(spec)
    plant, pose = make_plant(spec, args)
    board = VirtualBoard(spec, plant, args.seed, faults, library)
    stop = {"asked": False}
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.update(asked=True))
    cable = Announced(args.link, quiet=args.json)
    begun = time.monotonic(), time.process_time()
    if not (args.no_priority or args.lockstep):  # lock-step waits for its host anyway
        come_before_others()
    served = serve(board, cable, lambda: stop["asked"], args.seconds, pose if args.trajectory else None, args.lockstep)
    wall_s, cpu_s = time.monotonic() - begun[0], time.process_time() - begun[1]
    if args.trajectory and served.trajectory:
        save_trajectory(args.trajectory, served.trajectory)
    summary = {
        "ticks": served.ticks, "late_ticks": served.late_ticks, "skipped_ticks": served.skipped_ticks, "lost_bytes": served.lost_bytes,
        "reconnects": served.reconnects, "boots": board.boots, "mode": board.board_mode.name, "cpu_share": round(cpu_s / max(wall_s, 1e-9), 3),
        "frames_hurt": board.from_host.touched + board.from_board.touched,
    }  # fmt: skip
    if args.json:
        print(json.dumps(summary))
    else:
        print(", ".join(f"{name} {value}" for name, value in summary.items()), file=sys.stderr)
    return 0


def come_before_others() -> None:
    """A real board shares its processor with nobody. Where this is not permitted the board is as late as the machine is busy."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    except (AttributeError, OSError):
        pass


class Announced(Pty):
    """Says the port whenever there is a new one."""

    def __init__(self, link: Path | None, quiet: bool) -> None:
        super().__init__(link)
        self.quiet = quiet

    def plug(self) -> None:
        super().plug()
        print(f"port {self.link or self.path}", file=sys.stderr if self.quiet else sys.stdout, flush=True)


def make_plant(spec: RobotSpec, args: argparse.Namespace) -> tuple[Plant, Any]:
    if args.still:
        return OnAStand(spec, args.seed), None
    from sim.attended import Attended
    from sim.plant import SinglePlant
    from sim.randomize import load_ranges

    plant = SinglePlant(spec, args.seed, load_ranges(args.hidden))
    return Attended(plant) if args.attended else plant, plant.qpos


def save_trajectory(path: Path, poses: list[Float]) -> None:
    fresh = path.with_name(path.name + ".part.npz")
    np.savez_compressed(fresh, qpos=np.array(poses, np.float32))
    os.replace(fresh, path)
