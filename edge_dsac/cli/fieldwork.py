"""What may go along on a flight of `edge-dsac run`: the policy that drives and its successors, and candidates on trial beside it.

Puts together what the loop's aides need and takes it apart again. Rule that must stay true: without its options nothing of this is in
the loop, and with them nothing of it can end a flight.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from edge_dsac.bundle.keyring import key_folder, trusted_keys
from edge_dsac.bundle.slots import Slots
from edge_dsac.cli.policy import BASELINE, Ready, open_policy
from edge_dsac.loop.candidates import Candidates
from edge_dsac.loop.control import ControlLoop
from edge_dsac.loop.realtime import ask_not_to_be_starved
from edge_dsac.loop.slot import Engine
from edge_dsac.loop.stager import Stager
from edge_dsac.loop.trial import Seat
from edge_dsac.spec.robot import RobotSpec


def add_field_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--slots",
        type=Path,
        metavar="FOLDER",
        help="instead of --policy: drive the folder's current policy, and try its candidates in windows",
    )


class Fieldwork:
    def __init__(self, args: argparse.Namespace, spec: RobotSpec) -> None:
        """Opens the policy that drives first; starts nothing."""
        if args.slots and args.policy:
            raise ValueError("--slots and --policy exclude each other: the folder says what drives")
        self.args, self.spec = args, spec
        self.slots = Slots(args.slots, trusted_keys(key_folder(os.environ)), allow_unsigned=args.allow_unsigned) if args.slots else None
        if self.slots is not None:
            self.slots.current()  # refuses what is no folder of slots by name
        path = str(self.slots.current_path) if self.slots else args.policy or BASELINE
        self.path = None if path == BASELINE else Path(path)
        self.policy = self.running = open_policy(path, spec, args.engine, args.allow_unsigned)
        self.stager: Stager | None = None
        self.candidates: Candidates | None = None

    def said(self) -> list[str]:
        """For the status lines at the start."""
        return [f"slots: {self.slots.folder}; a candidate there is tried in windows"] if self.slots else []

    def join(self, loop: ControlLoop) -> None:
        """Before the first tick."""
        if self.path is None:
            return
        self.stager = Stager(self.path, self.load_successor, loop.slot, None if self.args.no_rt else ask_not_to_be_starved)
        if self.slots is None:
            self.stager.start()
            return
        seat = Seat()
        loop.aides = (seat,)
        self.candidates = Candidates(self.slots, self.load_candidate, lambda: self.running, self.stager, seat)
        self.candidates.start()

    def load_successor(self, path: Path) -> Engine:
        """Of the current policy: a newer version, or one of those it was tuned from."""
        older = self.slots.may_return(self.running.bundle) if self.slots and self.running.bundle else frozenset()
        self.running = open_policy(str(path), self.spec, self.args.engine, self.args.allow_unsigned, self.running, older)
        return self.running.engine

    def load_candidate(self, path: Path) -> Ready:
        return open_policy(str(path), self.spec, self.args.engine, self.args.allow_unsigned, self.running)

    def leave(self, failed: bool) -> None:
        """After the last tick, whatever ended it. `failed`: an exception did."""
        if self.candidates:
            self.candidates.close(failed)
        elif self.stager:
            self.stager.leave.set()

    def words(self) -> dict[str, Any]:
        """For the summary of the flight."""
        words: dict[str, Any] = {"refused_policies": list(self.stager.refusals) if self.stager else []}
        if self.candidates:
            words["refused_policies"] += self.candidates.complaints
            words["trials"] = self.candidates.tried
        return words
