"""The scout of a flight: a process that looks after the policy file and the slot folder, and hands the loop what has passed every check.

Started by `run`, and ends with it. An ordinary process: it may be held up by anything, and the loop does not notice. Rule that must stay
true: a policy reaches the pipe only after its signature, its hashes, its robot, its version and its golden vectors were found in order.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_dsac.bundle.keyring import key_folder, trusted_keys
from edge_dsac.bundle.package import Bundle, Running
from edge_dsac.bundle.parts import pack
from edge_dsac.bundle.slots import Slots
from edge_dsac.cli.policy import check_policy, tried
from edge_dsac.loop.candidates import Candidates
from edge_dsac.loop.messages import Gone, Message, Pipes
from edge_dsac.loop.scout import FarCockpit, Packed
from edge_dsac.loop.stager import POLL_S, Stager
from edge_dsac.spec.robot import load_robot


@dataclass(frozen=True, slots=True)
class Orders:
    robot: str
    policy: str  # the file
    slots: str  # the folder that it is in; empty: it is a file by itself
    engine: str
    allow_unsigned: bool
    lap_ticks: int | None
    bundle_id: int  # of what drives
    running: Running | None  # None: a bare weights file

    @property
    def text(self) -> str:
        return json.dumps(asdict(self))


def read_orders(text: str) -> Orders:
    words = json.loads(text)
    return Orders(**{**words, "running": Running(**words["running"]) if words["running"] else None})


def send_out(orders: Orders) -> tuple[subprocess.Popen[bytes], Pipes]:
    """In a session of its own: a Ctrl-C on the terminal is for the loop."""
    command = [sys.executable, "-m", "edge_dsac.cli.scouting", orders.text]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True)
    assert process.stdin is not None
    assert process.stdout is not None
    return process, Pipes(process.stdout.fileno(), process.stdin.fileno())


@dataclass(frozen=True, slots=True)
class Found:
    """A candidate, checked."""

    engine: Packed
    bundle: Bundle | None


class Scouting:
    def __init__(self, orders: Orders, pipes: Pipes) -> None:
        self.orders, self.spec, self.running = orders, load_robot(orders.robot), orders.running
        self.cockpit = FarCockpit(pipes, orders.bundle_id)
        self.stager = Stager(Path(orders.policy), self.load_successor, self.cockpit)
        self.stager.seen = None  # it may have been replaced since the loop opened it
        self.slots: Slots | None = None
        self.candidates: Candidates | None = None
        if orders.slots:
            self.slots = Slots(Path(orders.slots), trusted_keys(key_folder(os.environ)), allow_unsigned=orders.allow_unsigned)
            self.candidates = Candidates(
                self.slots, self.load_candidate, lambda: self.running, self.stager, self.cockpit, orders.lap_ticks
            )  # fmt: skip

    def load_successor(self, path: Path) -> Packed:
        """Of the current policy: a newer version, or one of those it was tuned from."""
        older = self.slots.may_return(self.running.parent) if self.slots and self.running else frozenset()
        checked = check_policy(path, self.spec, self.orders.engine, self.orders.allow_unsigned, self.running, older)
        tried(checked, path)
        self.running = checked.running
        return Packed(checked.parts.identity, pack(checked.parts))

    def load_candidate(self, path: Path) -> Found:
        checked = check_policy(path, self.spec, self.orders.engine, self.orders.allow_unsigned, self.running)
        tried(checked, path)
        return Found(Packed(checked.parts.identity, pack(checked.parts)), checked.bundle)

    def keep_looking(self) -> None:
        """Until the flight is over."""
        while self.cockpit.hear(POLL_S):
            if self.candidates is not None:
                self.candidates.look()
            else:
                self.stager.look()

    def last_words(self) -> dict[str, Any]:
        refused = [*self.stager.refusals, *self.cockpit.refusals]
        if self.candidates is None:
            return {"refused_policies": refused}
        self.candidates.close()
        return {"refused_policies": [*refused, *self.candidates.complaints], "trials": self.candidates.tried}


def main() -> int:
    pipes = Pipes(sys.stdin.fileno(), os.dup(sys.stdout.fileno()))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what anybody prints does not get in between
    try:
        scouting = Scouting(read_orders(sys.argv[1]), pipes)
        scouting.keep_looking()
        pipes.say(Message({"do": "farewell", "words": scouting.last_words()}))
    except Gone:
        return 1  # the loop was killed: a trial that had begun stays so, and is not tried again
    return 0


if __name__ == "__main__":
    sys.exit(main())
