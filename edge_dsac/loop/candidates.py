"""Carries the word between the slot folder and the trial in the loop: what is to be tried, and how it went.

Its own thread, asleep nearly always; a tick never waits for it. Rules that must stay true: a candidate sits on trial only after it passed
every check of a policy that is to drive, and after the folder says that its trial has begun; so one that ends a flight, or the whole
computer, is not tried again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from edge_dsac.bundle.disk import stamp
from edge_dsac.bundle.package import Bundle
from edge_dsac.bundle.slot_folder import NOT_TRIED, Outcome, Stage
from edge_dsac.bundle.slots import Slots
from edge_dsac.bundle.trial_plan import TrialError, TrialPlan
from edge_dsac.loop.slot import Engine, Slot
from edge_dsac.loop.stager import POLL_S, Stager
from edge_dsac.loop.trial import Seat, Trial


class Loaded(Protocol):
    """A policy that has passed every check, golden vectors included."""

    @property
    def engine(self) -> Engine: ...
    @property
    def bundle(self) -> Bundle | None: ...


class Candidates(threading.Thread):
    def __init__(
        self, slots: Slots, load: Callable[[Path], Loaded], current: Callable[[], Loaded], stager: Stager, seat: Seat,
        lap_ticks: int | None = None,
    ) -> None:  # fmt: skip
        """`load` raises ValueError for what must not drive. `lap_ticks`: of the exercise; a window is whole laps of it.

        `stager` watches the current policy; it has no thread of its own here, so that a new current one is always seen before its child.
        """
        super().__init__(name="candidates", daemon=True)
        self.slots, self.load, self.current, self.stager, self.seat, self.lap_ticks = slots, load, current, stager, seat, lap_ticks
        self.slot: Slot = stager.slot
        self.seen: tuple[int, int, int] | None = None
        self.under_way: Trial | None = None
        self.tried: dict[str, dict[str, Any]] = {}  # identity -> how it went, for the summary of the flight
        self.complaints: list[str] = []
        self.leave = threading.Event()

    def run(self) -> None:
        if self.stager.prepare is not None:
            self.stager.prepare()
        while not self.leave.wait(POLL_S):
            self.look()

    def look(self) -> None:
        try:
            self.stager.look()
            self.collect()
            now = stamp(self.slots.candidate_path)
            if now == self.seen:
                return
            self.seen = now
            if self.under_way is not None:
                self.seat.withdrawn = self.under_way
                self.seen = None  # looked at again once the trial has left its seat
            elif now is not None and self.slot.offered is not None:
                self.seen = None  # its parent has yet to take the wheel
            elif now is not None:
                self.consider()
        except FileNotFoundError:
            self.seen = None  # proposed or taken away just now: the next look sees what came of it
        except (OSError, ValueError) as error:
            self.complain(str(error))

    def close(self, failed: bool) -> None:
        """After the last tick: what became of a trial is in the folder before this returns."""
        self.leave.set()
        if self.is_alive():
            self.join()
        self.seat.land(failed)
        try:
            self.collect()
        except (OSError, ValueError) as error:
            self.complain(str(error))

    def consider(self) -> None:
        """A candidate nobody here has looked at yet."""
        trial = self.slots.trial()
        if trial is None:
            raise TrialError(f"{self.slots.candidate_path}: no trial.json says how to try it")
        identity, plan = trial
        outcome = self.slots.outcome()
        if outcome is not None and outcome.candidate == identity:
            if outcome.stage is Stage.BEGUN:
                self.slots.record(Outcome(identity, Stage.INTERRUPTED, "the last flight did not end in order", {}))
            return
        try:
            engine = self.checked(identity, plan)
        except ValueError as error:
            self.complain(str(error))
            self.slots.drop(f"{NOT_TRIED}{error}", identity)
            return
        self.slots.begin(identity)
        self.under_way = Trial(self.slot.engine, engine, plan)
        self.seat.offered = self.under_way

    def checked(self, identity: int, plan: TrialPlan) -> Engine:
        loaded, running = self.load(self.slots.candidate_path), self.current().bundle
        bundle = loaded.bundle
        if bundle is None or running is None or bundle.identity != identity:
            raise TrialError(f"the candidate is not the one that trial.json names, {identity:016x}")
        if bundle.manifest.parent != running.manifest.sha256:
            raise TrialError(f"the candidate was not made from the policy that drives, {running.identity:016x}")
        plan.check_for(bundle.actor.sizes[0])
        if self.lap_ticks is not None and plan.window_ticks % self.lap_ticks:
            told = f"a window of {plan.window_ticks} ticks is not a whole number of the exercise's laps of {self.lap_ticks}"
            raise TrialError(f"{told} (tune start --window-s)")
        return loaded.engine

    def collect(self) -> None:
        """A trial that has ended: into the folder with it."""
        trial, self.seat.ended = self.seat.ended, None
        if trial is None or trial.stage is None:
            return
        self.under_way = None
        identity = trial.new.bundle_id
        self.tried[f"{identity:016x}"] = {"verdict": f"{trial.stage.value}: {trial.why}", **trial.details()}
        self.slots.record(Outcome(identity, trial.stage, trial.why, trial.details()))
        if trial.stage is Stage.ABORTED:
            self.slots.drop(f"aborted: {trial.why}", identity)

    def complain(self, text: str) -> None:
        if text not in self.complaints:
            self.complaints.append(text)
