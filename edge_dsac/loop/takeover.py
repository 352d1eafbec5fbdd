"""A person takes over: what comes in on a socket replaces the policy's action, or says what the policy is to track.

A helper thread reads the socket and leaves the newest word in one attribute; the tick only looks at it. An overlay of the slot (actions)
and an aide of the loop (references). Rules that must stay true: a word counts for 200 ms and no longer; a person's action passes the
limiter like any other and is labelled HUMAN; what is malformed is counted and changes nothing.
"""

from __future__ import annotations

import json
import math
import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edge_dsac.loop.observer import Reference
from edge_dsac.records import Float, Rule

if TYPE_CHECKING:
    from edge_dsac.loop.control import ControlLoop

FRESH_NS = 200_000_000  # one lost word of a sender at 10 Hz is forgiven; a sender that has died is noticed within 20 ticks
MOST_BYTES = 512
FASTEST_M_S, FASTEST_RAD_S = 5.0, 10.0
HUMAN, BLEND, NO_RULE = int(Rule.HUMAN), int(Rule.BLEND), 0


class TakeoverError(ValueError):
    """A socket that cannot be used, and why."""


class Word(NamedTuple):
    """What a person asked for last: an action, or a reference."""

    at_ns: int
    action: Float | None
    reference: Reference | None


def read_word(data: bytes, actions: int, at_ns: int) -> Word | None:
    """`{"action": [...]}` in [-1, 1], or `{"speed": m/s, "yaw_rate": rad/s}`; None for anything else."""
    try:
        table = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(table, dict) or not table:
        return None
    if set(table) == {"action"}:
        wanted = table["action"]
        if not isinstance(wanted, list) or len(wanted) != actions or not all(is_within(value, 1.0) for value in wanted):
            return None
        return Word(at_ns, np.array(wanted, np.float64), None)
    speed, yaw_rate = table.get("speed", 0.0), table.get("yaw_rate", 0.0)
    if not set(table) <= {"speed", "yaw_rate"} or not is_within(speed, FASTEST_M_S) or not is_within(yaw_rate, FASTEST_RAD_S):
        return None
    return Word(at_ns, None, Reference(float(speed), float(yaw_rate)))


def is_within(value: Any, most: float) -> bool:
    return type(value) in (int, float) and abs(value) <= most and math.isfinite(value)


class Takeover:
    def __init__(self, actions: int, fade_ticks: int, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.actions, self.fade_ticks, self.clock = actions, max(fade_ticks, 1), clock
        self.newest = Word(-FRESH_NS, None, None)  # a single assignment by the helper thread
        self.taken = self.malformed = self.words = 0
        self.rules = NO_RULE
        self.last: Float = np.zeros(actions)  # the person's, while they drive
        self.jump: Float = np.zeros(actions)
        self.fade_left = 0
        self.asked_before: Reference | None = None  # what the loop tracked when a person's reference took its place
        self.given: Reference | None = None

    def receive(self, data: bytes) -> None:
        """One datagram; by the helper thread."""
        word = read_word(data, self.actions, self.clock()) if len(data) <= MOST_BYTES else None
        if word is None:
            self.malformed += 1
        else:
            self.words += 1
            self.newest = word

    def over(self, action: Float) -> Float:
        """The person's action while their word is fresh; then back to the policy's, whose difference melts away."""
        word = self.newest
        if word.action is None and self.rules == NO_RULE:  # nearly always: nobody is there
            return action
        age_ns = self.clock() - word.at_ns
        if word.action is not None and age_ns < FRESH_NS:
            if self.rules != HUMAN:
                self.taken += 1
            self.rules, self.last = HUMAN, word.action
            return self.last
        if self.rules == HUMAN:
            jump = self.last - action
            lately = word.action is None or age_ns < 2 * FRESH_NS  # else the robot was damped meanwhile: nothing to go on from
            self.jump = np.where(np.isfinite(jump) & lately, jump, 0.0)
            self.fade_left, self.rules = self.fade_ticks, BLEND
        if self.rules == BLEND:
            action = np.clip(action + self.jump * (self.fade_left / self.fade_ticks), -1.0, 1.0)
            self.fade_left -= 1
            if self.fade_left < 0:
                self.rules = NO_RULE
        return action

    def between_ticks(self, loop: ControlLoop) -> None:
        """A person's reference goes over the operator's, and over an exercise that has just set its own."""
        word, observer = self.newest, loop.observer
        if word.reference is not None and self.clock() - word.at_ns < FRESH_NS:
            if self.asked_before is None:
                self.asked_before = observer.reference
            self.given = observer.reference = word.reference
        elif self.asked_before is not None:
            if observer.reference is self.given:  # an exercise has long gone on
                observer.reference = self.asked_before
            self.asked_before = None


class Listener(threading.Thread):
    """The socket: a name in the file system that only this user can write to, and no other machine can reach.

    Asleep until somebody writes, or the end: each time it wakes up it may take the interpreter from a tick that is due.
    """

    def __init__(self, path: Path, receive: Callable[[bytes], None], prepare: Callable[[], None] | None = None) -> None:
        super().__init__(name="takeover", daemon=True)
        self.path, self.receive, self.prepare = path, receive, prepare
        self.leave = threading.Event()
        self.socket = open_socket(path)

    def run(self) -> None:
        if self.prepare is not None:
            self.prepare()
        while True:
            data = self.socket.recv(MOST_BYTES + 1)
            if self.leave.is_set():
                return
            self.receive(data)

    def close(self) -> None:
        self.leave.set()
        if self.is_alive():
            self.socket.shutdown(socket.SHUT_RD)  # who waits there hears an empty word
            self.join()
        self.socket.close()
        self.path.unlink(missing_ok=True)


def open_socket(path: Path) -> socket.socket:
    """Where an earlier run was killed its socket is left, and taken away; one that somebody listens on is not."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    before = os.umask(0o177)  # the name is there with its mode, from the first instant
    try:
        if path.exists():
            check_dead(path)
            path.unlink()
        made.bind(str(path))
    except OSError as error:
        made.close()
        raise TakeoverError(f"{path}: cannot listen there: {error}") from None
    except TakeoverError:
        made.close()
        raise
    finally:
        os.umask(before)
    return made


def check_dead(path: Path) -> None:
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise TakeoverError(f"{path} is there and is no socket; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return
    raise TakeoverError(f"{path}: somebody listens there already; is another loop running?")
