"""The second half of the demo: the robot changes, is tuned beside its running loop, and the tuning is taken back.

Sees what everybody sees: the tuner's status file, the slot folder, the flight's log. Rule that must stay true: what is told is read from
those, never expected; nothing accepted is an outcome too, and is shown as one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_dsac.cli.short_demo import start_board
from edge_dsac.cli.story import Child, Story, StoryError
from edge_dsac.records import Fault
from edge_dsac.spec.robot import RobotSpec
from edge_dsac.steplog import RingReader, open_log
from edge_dsac.steplog.summary import fault_names
from edge_dsac.watch.progress import clock

HIDDEN = "mass +40 %, motor constant -25 %, friction x 2, two more ticks of delay, smaller wheels, a dead band, biased sensors"
LAST_STEPS = 100  # of a flight: why it ended is in them
MOST_FLIGHTS = 40  # a robot that falls is put on its wheels and flies again; one that only falls shows nothing
LOOP_READY_S, TUNER_READY_S, TAKEN_UP_S, REPORT_S = 120.0, 240.0, 60.0, 120.0  # tens of times what they take on a quiet machine


@dataclass(frozen=True, slots=True)
class Field:
    """How the changed robot is tuned."""

    minutes: float = 2.5
    """of the tuner at most; it is stopped as soon as a candidate is accepted"""
    first_updates: int = 2500
    """before the first candidate"""
    updates_per_row: float = 1.0
    """no more than this for each row"""
    window_s: float = 3.0
    """of a trial: one lap of the exercise"""
    exercise: str = "dash"
    """what is asked for, over and over"""
    recipe: str = "full"
    """what of the actor may change"""
    seed: int = 0
    """of robot and tuner"""


class Flights:
    """The loop on the changed robot, flight after flight: after a fall the next one begins."""

    def __init__(self, story: Story, words: list[str], folder: Path) -> None:
        self.story, self.words, self.folder = story, words, folder
        self.count, self.ended = 0, ""  # how the last one ended
        self.child = self.take_off()

    @property
    def log(self) -> Path:
        return self.folder / f"flight-{self.count}"

    def take_off(self) -> Child:
        self.count += 1
        words = [*self.words, "--log", str(self.log), "--quiet"]
        return self.story.start("loop", words, shown=self.count == 1)

    def keep(self) -> None:
        if self.child.code is None:
            return
        if self.count >= MOST_FLIGHTS:
            raise StoryError(f"{self.count} flights ended: this robot falls at once under this policy; the loop said: {self.child.said()}")
        self.story.children.remove(self.child)
        self.ended = ending_of(self.log)
        self.child = self.take_off()

    def driving(self) -> int | None:
        """Identity of the policy of the newest step; None while there is none."""
        self.keep()
        try:
            reader = RingReader(self.log / "ring")
            head = reader.head()
            reader.cursor = max(0, head - 1)
            rows = reader.take(1)
        except (OSError, ValueError):
            return None
        return int(rows["bundle_id"][-1]) if len(rows) else None


def ending_of(log: Path) -> str:
    """In the board's own words: which faults its last frames told of."""
    try:
        faults = int(np.bitwise_or.reduce(open_log(log).columns["faults"][-LAST_STEPS:])) & ~int(Fault.LIMITED | Fault.SLEWED)
    except (OSError, ValueError):
        faults = 0
    fell = faults & (Fault.TILT | Fault.OVERSPEED)
    return f"the flight ended ({fault_names(faults) or 'no fault'}); the robot {'is put on its wheels and ' if fell else ''}flies on"


def tell_of_the_change(story: Story, robot: str, policy: Path, spec: RobotSpec, field: Field) -> tuple[Path, Flights]:
    """The changed robot, flying under the policy it has. (the slot folder, its flights)"""
    slots = story.out / "policies"
    story.do(["slots", "create", str(slots), str(policy)], 60.0)
    seconds = 60.0 * field.minutes + 2 * TUNER_READY_S
    more = ["--seed", str(100 + field.seed), "--hidden", "hidden", "--attended"]
    start_board(story, "changed", robot, seconds, more)
    words = ["run", "--robot", robot, "--port", str(story.out / "changed"), "--slots", str(slots), "--exercise", field.exercise, "--rearm"]
    flights = Flights(story, [*words, "--seconds", f"{seconds:g}"], story.out / "flights")
    story.until(flights.driving, "the loop drove the changed robot", LOOP_READY_S, saying="waiting for the loop")
    return slots, flights


def tune(story: Story, slots: Path, flights: Flights, field: Field, meanwhile: Callable[[], None]) -> dict[str, Any]:
    """The tuner beside the loop, told as it goes; its last status. `meanwhile`: what is done while the first rows come in."""
    tuner = story.start("tune", [
        "tune", "start", "--slots", str(slots), "--recipe", field.recipe, "--minutes", f"{field.minutes:g}", "--cpu-share", "1", "--nice", "0",
        "--memory-mb", "1500", "--compile", "ready", "--window-s", f"{field.window_s:g}", "--first-updates", str(field.first_updates),
        "--updates-per-row", f"{field.updates_per_row:g}", "--seed", str(field.seed),
    ])  # fmt: skip
    meanwhile()
    told = Told(story, field)

    # Better is what there is to show; after any other verdict the tuner goes on while its minutes last.
    def over() -> dict[str, Any] | None:
        flights.keep()
        status = read_json(slots / "tuning" / "status.json")
        told.tell(status, flights.count, flights.ended)
        done = status and (status["ended"] or any(verdict["decision"] == "better" for verdict in status["verdicts"]))
        return status if done else None

    status = story.until(over, "the tuner had ended", 60.0 * field.minutes + TUNER_READY_S, tuner)
    if not status["ended"]:
        story.do(["tune", "stop", "--slots", str(slots)], 60.0)
        story.until(lambda: tuner.code, "the tuner had stopped", 60.0, saying="the tuner ends in good order")
    return read_json(slots / "tuning" / "status.json")


class Told:
    """What of the tuner's status has been told: each thing once, the figures as a line that is rewritten."""

    def __init__(self, story: Story, field: Field) -> None:
        self.story, self.field = story, field
        self.trial: str | None = None
        self.verdicts = self.refused = 0
        self.flights = 1

    def tell(self, status: dict[str, Any], flights: int, ended: str) -> None:
        if flights > self.flights:
            self.flights = flights
            self.story.tell(f"     {ended}")
        if not status:
            self.story.progress("the tuner starts; the robot drives, and its log fills")
            return
        now = f"     {clock(status['seconds'])}  "
        if status["refused"] > self.refused:
            self.refused = status["refused"]
            self.story.tell(f"{now}a candidate was refused before its trial; the next one is on its way")
        if status["on_trial"] and status["on_trial"] != self.trial:
            self.trial = status["on_trial"]
            self.story.tell(
                f"{now}candidate {self.trial[:8]} after {status['updates']} updates on {status['rows']} rows: old and new drive in turn"
            )
        for verdict in status["verdicts"][self.verdicts :]:
            self.story.tell(f"{now}{verdict['decision']}: {verdict['why']}")
        self.verdicts = len(status["verdicts"])
        self.story.progress(progress_of(status, self.field))


def progress_of(status: dict[str, Any], field: Field) -> str:
    text = f"{clock(status['seconds'])}  {status['rows']} rows, {status['updates']}/{field.first_updates} updates ({status['updates_per_s']:.0f}/s)"
    return text + (f"; on trial, {status['windows']} windows of {field.window_s:g} s begun" if status["on_trial"] else "")


def read_json(path: Path) -> dict[str, Any]:
    """Nothing where it is not there yet."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def undo(story: Story, slots: Path, flights: Flights, parent: Path) -> bool:
    """Takes the tuning back where there is some, beside the flying loop; True: what drives now is the parent, byte by byte."""
    wanted, current = sha256(parent), slots / "current.policy"
    if sha256(current) == wanted:
        story.tell("     nothing was accepted, so there is nothing to undo: the parent has been driving all along")
    else:
        story.tell(f"     current.policy before  sha256 {sha256(current)[:16]}  (the child)")
        story.do(["tune", "undo", "--slots", str(slots)], 60.0)
    identity = identity_of(current)
    story.until(
        lambda: flights.driving() == identity or None, "the loop had taken up the parent", TAKEN_UP_S, saying="the loop takes it up"
    )
    same = sha256(current) == wanted
    story.tell(f"     current.policy now     sha256 {sha256(current)[:16]}  ({'the parent, byte by byte' if same else 'NOT the parent'})")
    story.tell(f"     {'compiled in step 2':22} sha256 {wanted[:16]}; the loop's newest step names {identity:016x}")
    return same


def identity_of(policy: Path) -> int:
    from edge_dsac.bundle.package import read_bundle

    return read_bundle(policy, (), allow_unsigned=True).identity  # who may drive the loop has decided


def who_drove(flights: Flights) -> list[str]:
    """Of the last flight, in its own words: every step names its policy."""
    rows = open_log(flights.log).columns
    hz = 1e9 / max(1.0, float(np.median(np.diff(rows["t_host_ns"])))) if len(rows) > 1 else 1.0
    identities, counts = np.unique(rows["bundle_id"], return_counts=True)
    return [f"{identity:016x} drove {count / hz:.0f} s" for identity, count in zip(identities.tolist(), counts.tolist(), strict=True)]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
