"""What may go along on a flight of `edge-dsac run`: the policy that drives, its successors, candidates on trial, a person, an exercise.

Puts together what the loop's aides need and takes it apart again. Rule that must stay true: without its options nothing of this is in
the loop, and with them nothing of it can end a flight.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from edge_dsac.bundle.engines import make_engine
from edge_dsac.bundle.keyring import board_key, key_folder, trusted_keys
from edge_dsac.bundle.parts import unpack
from edge_dsac.bundle.slots import Slots
from edge_dsac.cli.policy import BASELINE, open_policy
from edge_dsac.cli.scouting import Orders, send_out
from edge_dsac.loop.cockpit import NearCockpit
from edge_dsac.loop.control import ControlLoop
from edge_dsac.loop.exercise import LAPS, Exercise, read_lap
from edge_dsac.loop.exploration import Exploration, draw
from edge_dsac.loop.pacer import Pacer
from edge_dsac.loop.realtime import ask_not_to_be_starved
from edge_dsac.loop.scout import LAST_WORDS_S, Scout
from edge_dsac.loop.slot import Engine
from edge_dsac.loop.takeover import Listener, Takeover
from edge_dsac.loop.trial import Seat
from edge_dsac.spec.robot import RobotSpec

MOST_EXPLORATION = 0.3  # three deviations are then nearly the whole range of an action


def add_field_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--slots",
        type=Path,
        metavar="FOLDER",
        help="instead of --policy: drive the folder's current policy, and try its candidates in windows",
    )
    parser.add_argument(
        "--takeover", type=Path, metavar="SOCKET", help="let a person take over from there at any time; the sender is `edge-dsac takeover`"
    )
    parser.add_argument(
        "--exercise",
        metavar="LAP",
        help=f"ask for the same speeds and turns over and over: {', '.join(LAPS)}, or a file with [[legs]] of seconds, speed_m_s, yaw_rate_rad_s",
    )
    parser.add_argument(
        "--explore",
        type=float,
        metavar="S",
        help="add slow noise of this standard deviation to the policy's action, at most three times that; not in trials, not to a person",
    )
    parser.add_argument("--explore-seed", type=int, default=0, metavar="N", help="of that noise (default: %(default)s)")


class Fieldwork:
    def __init__(self, args: argparse.Namespace, spec: RobotSpec) -> None:
        """Opens the policy that drives first; starts nothing."""
        if args.slots and args.policy:
            raise ValueError("--slots and --policy exclude each other: the folder says what drives")
        if args.explore is not None and not 0.0 < args.explore <= MOST_EXPLORATION:
            raise ValueError(f"--explore {args.explore}: expected more than 0 and at most {MOST_EXPLORATION} (actions are in [-1, 1])")
        if args.explore_seed < 0:
            raise ValueError(f"--explore-seed {args.explore_seed}: expected 0 or more")
        self.args, self.spec = args, spec
        self.exercise = Exercise(read_lap(args.exercise), spec.rates.control_hz) if args.exercise else None
        self.takeover = Takeover(len(spec.actions), fade_ticks(spec)) if args.takeover else None
        self.listener: Listener | None = None
        self.slots: Slots | None = None
        if args.slots:
            board_key(key_folder(os.environ), platform.node())  # made now if need be: what this board tunes in this flight is trusted in it
            self.slots = Slots(args.slots, trusted_keys(key_folder(os.environ)), allow_unsigned=args.allow_unsigned)
            self.slots.current()  # refuses what is no folder of slots by name
        path = str(self.slots.current_path) if self.slots else args.policy or BASELINE
        self.path = None if path == BASELINE else Path(path)
        self.policy = open_policy(path, spec, args.engine, args.allow_unsigned)
        self.scout: Scout | None = None
        self.scouting: subprocess.Popen[bytes] | None = None

    def said(self) -> list[str]:
        """For the status lines at the start."""
        lines = [f"slots: {self.slots.folder}; a candidate there is tried in windows"] if self.slots else []
        if self.takeover:
            lines.append(f"a person may take over: edge-dsac takeover --to {self.args.takeover} --robot {self.args.robot}")
        if self.exercise:
            lines.append(f"exercise: {self.args.exercise}, laps of {self.exercise.lap_ticks} ticks")
        if self.args.explore:
            lines.append(f"exploration: noise of {self.args.explore:g} on each action")
        return lines

    def open(self) -> None:
        """Before anything moves: what can fail because of where this runs."""
        if self.takeover:
            self.listener = Listener(self.args.takeover, self.takeover.receive, self.prepare)

    def logged_in(self, folder: Path) -> None:
        if self.slots is not None:
            self.slots.point_to(folder)

    def join(self, loop: ControlLoop, pacer: Pacer) -> None:
        """Before the first tick. The aides act in this order: a trial begins laps, a person's word goes over the lap's."""
        seat = Seat(self.exercise) if self.slots else None
        exploration = None
        if self.args.explore:
            hz = self.spec.rates.control_hz
            exploration = Exploration(draw(len(self.spec.actions), self.args.explore, hz, self.args.explore_seed), seat)
        loop.aides = tuple(aide for aide in (seat, self.exercise, self.takeover, exploration) if aide is not None)
        loop.slot.overlays = tuple(overlay for overlay in (exploration, self.takeover) if overlay is not None)
        if self.listener:
            self.listener.start()
        if self.path is None:
            return
        self.scouting, pipes = send_out(
            Orders(
                robot=self.args.robot, policy=str(self.path), slots=str(self.slots.folder) if self.slots else "", engine=self.args.engine,
                allow_unsigned=self.args.allow_unsigned, lap_ticks=self.exercise.lap_ticks if self.exercise else None,
                bundle_id=loop.slot.bundle_id, running=self.policy.running,
            )
        )  # fmt: skip
        self.scout = Scout(pipes, NearCockpit(loop.slot, seat or Seat()), partial(self.make, pacer.out_of_the_way), self.prepare)
        self.scout.start()

    def prepare(self) -> None:
        """What each helper thread does first."""
        if not self.args.no_rt:
            ask_not_to_be_starved()

    def make(self, breathe: Callable[[], None], data: bytes) -> Engine:
        """What the scout found in order."""
        breathe()
        parts = unpack(data, self.spec)
        breathe()
        return make_engine(parts, breathe)

    def leave(self, failed: bool) -> None:
        """After the last tick, whatever ended it. `failed`: an exception did."""
        if self.listener:
            self.listener.close()
        if self.scout and self.scouting:
            self.scout.close(failed)
            for pipe in (self.scouting.stdin, self.scouting.stdout):
                if pipe is not None:
                    pipe.close()  # a scout that is still there leaves now
            try:
                self.scouting.wait(timeout=LAST_WORDS_S)
            except subprocess.TimeoutExpired:
                self.scouting.kill()
                self.scouting.wait()

    def words(self) -> dict[str, Any]:
        """For the summary of the flight."""
        words: dict[str, Any] = {"refused_policies": []}
        if self.scout:
            words |= self.scout.last_words
            words["refused_policies"] += self.scout.complaints
        if self.takeover:
            words["takeover"] = {"taken": self.takeover.taken, "words": self.takeover.words, "malformed": self.takeover.malformed}
        if self.exercise:
            words["exercise"] = {"lap": self.args.exercise, "lap_ticks": self.exercise.lap_ticks}
        if self.args.explore:
            words["explore"] = {"deviation": self.args.explore, "seed": self.args.explore_seed}
        return words


def fade_ticks(spec: RobotSpec) -> int:
    return max(1, spec.rates.control_hz // 5)
