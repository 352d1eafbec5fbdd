"""The loop's end of its scout: the process next door that looks after policy files, so that the loop's own interpreter does not.

While a thread of the loop's process reads, hashes and parses a policy, the loop waits for the interpreter again and again: at 1 kHz a
candidate cost a hundred deadlines. So a scout (cli/scouting.py) opens, checks and writes, and what crosses the pipe are the weights of
what has passed. Knows no file. Rules that must stay true: an engine answers the golden vectors here, too, before it is offered; a scout
that is gone ends the trial under way and nothing else.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from edge_dsac.bundle.slot_folder import Stage
from edge_dsac.bundle.trial_plan import Habit, TrialPlan
from edge_dsac.loop.cockpit import Ended, NearCockpit
from edge_dsac.loop.messages import Bell, Gone, Message, Pipes
from edge_dsac.loop.slot import Engine

TURN_S = 0.005  # between two looks whether a successor has taken the wheel, which it does at the next tick
LAST_WORDS_S = 10.0


class Packed:
    """What an engine is made from, on its way through the pipe."""

    def __init__(self, identity: int, data: bytes) -> None:
        self.bundle_id, self.data = identity, data


class FarCockpit:
    """The scout's: what it asks for goes through the pipe, and what is answered is picked up by `hear`."""

    def __init__(self, pipes: Pipes, bundle_id: int) -> None:
        self.pipes, self.drove = pipes, bundle_id
        self.ends: list[Ended] = []
        self.refusals: list[str] = []

    @property
    def bundle_id(self) -> int:
        return self.drove

    @property
    def busy(self) -> bool:
        return False  # what is said is done in its order

    def offer(self, engine: Packed) -> None:
        self.pipes.say(Message({"do": "offer"}, engine.data))

    def try_out(self, engine: Packed, plan: TrialPlan) -> None:
        self.pipes.say(Message({"do": "try", "plan": dataclasses.asdict(plan), "identity": f"{engine.bundle_id:016x}"}, engine.data))

    def withdraw(self) -> None:
        self.pipes.say(Message({"do": "withdraw"}))

    def ended(self) -> Ended | None:
        return self.ends.pop(0) if self.ends else None

    def hear(self, seconds: float) -> bool:
        """False once the flight is over."""
        message = self.pipes.hear(seconds)
        if message is None:
            return True
        words = message.words
        if words["said"] == "ended":
            self.ends.append(Ended(int(words["identity"], 16), Stage(words["stage"]), words["why"], words["details"]))
        elif words["said"] == "refused":
            self.refusals.append(words["why"])
        return bool(words["said"] != "over")


class Scout(threading.Thread):
    """Asleep until the scout speaks or a trial has ended: each time it wakes up it may take the interpreter from a tick that is due."""

    def __init__(self, pipes: Pipes, cockpit: NearCockpit, make: Callable[[bytes], Engine], prepare: Callable[[], None]) -> None:
        """`make`: an engine that may drive, or ValueError. `prepare`: what the thread does first, for itself."""
        super().__init__(name="scout", daemon=True)
        self.pipes, self.cockpit, self.make, self.prepare = pipes, cockpit, make, prepare
        self.bell = Bell()
        cockpit.seat.tell = self.bell.ring
        self.leave = threading.Event()
        self.complaints: list[str] = []
        self.last_words: dict[str, Any] = {}

    def run(self) -> None:
        self.prepare()
        try:
            while not self.leave.is_set():
                self.turn(None)
        except Gone:
            self.give_up("the scout has gone")
        except Exception as error:  # whatever an engine's library throws: a thread that dies in silence leaves a trial to itself
            self.give_up(f"{type(error).__name__}: {error}")

    def give_up(self, why: str) -> None:
        self.cockpit.withdraw()  # nobody could take it off any more
        self.complaints.append(f"{why}: no policy was looked after from then on")
        sys.stderr.write(f"run: {why}: no policy is looked after any more, an undo or a new one waits for the next flight\n")

    def turn(self, seconds: float | None) -> None:
        message = self.pipes.hear(seconds, self.bell)
        self.bell.hush()
        if message is not None:
            self.do(message)
        self.report()

    def do(self, message: Message) -> None:
        words = message.words
        if words["do"] == "withdraw":
            self.cockpit.withdraw()
        elif words["do"] == "offer":
            try:
                self.cockpit.offer(self.make(message.data))
            except ValueError as error:
                self.pipes.say(Message({"said": "refused", "why": str(error)}))
        elif words["do"] == "try":
            try:
                engine = self.make(message.data)
            except ValueError as error:
                self.tell(Ended(int(words["identity"], 16), Stage.ABORTED, str(error), {}))
                return
            while self.cockpit.busy and not self.leave.is_set():  # its parent has yet to take the wheel
                time.sleep(TURN_S)
            self.cockpit.try_out(engine, plan_from(words["plan"]))
        elif words["do"] == "farewell":
            self.last_words = words["words"]

    def report(self) -> None:
        ended = self.cockpit.ended()
        if ended is not None:
            self.tell(ended)

    def tell(self, ended: Ended) -> None:
        words = {"said": "ended", "identity": f"{ended.identity:016x}", "stage": ended.stage.value, "why": ended.why}
        self.pipes.say(Message({**words, "details": ended.details}))

    def close(self, failed: bool) -> None:
        """After the last tick: what became of a trial is in the folder before this returns."""
        self.leave.set()
        self.bell.ring()
        if self.is_alive():
            self.join(LAST_WORDS_S)
        self.cockpit.seat.land(failed)
        if self.is_alive():
            self.complaints.append("the scout stopped in the middle of a word: what became of a trial is not in the folder")
            return
        give_up = time.monotonic() + LAST_WORDS_S
        try:
            self.report()
            self.pipes.say(Message({"said": "over"}))
            while not self.last_words and time.monotonic() < give_up:
                message = self.pipes.hear(LAST_WORDS_S)
                if message is not None and message.words["do"] == "farewell":
                    self.last_words = message.words["words"]
        except Gone:
            pass
        self.cockpit.seat.tell = None
        self.bell.close()


def plan_from(table: dict[str, Any]) -> TrialPlan:
    """As the scout read and checked it."""
    return TrialPlan(**{**with_tuples(table), "habit": Habit(**with_tuples(table["habit"]))})


def with_tuples(table: dict[str, Any]) -> dict[str, Any]:
    """JSON has only lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}
