"""Carries the word between the slot folder and the loop that flies: what is to be tried, and how it went.

Looks when it is asked to; scouting.py asks, in a process of its own. Rules that must stay true: a candidate is to be tried only after it
passed every check of a policy that is to drive, and after the folder says that its trial has begun; so one that ends a flight, or the
whole computer, is not tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from edge_dsac.bundle.disk import stamp
from edge_dsac.bundle.package import Bundle, Running
from edge_dsac.bundle.slot_folder import NOT_TRIED, Outcome, Stage
from edge_dsac.bundle.slots import Slots
from edge_dsac.bundle.trial_plan import TrialError, TrialPlan
from edge_dsac.loop.cockpit import Cockpit, Successor
from edge_dsac.loop.stager import Stager


class Loaded(Protocol):
    """A policy that has passed every check, golden vectors included."""

    @property
    def engine(self) -> Successor: ...
    @property
    def bundle(self) -> Bundle | None: ...


class Candidates:
    def __init__(
        self, slots: Slots, load: Callable[[Path], Loaded], running: Callable[[], Running | None], stager: Stager, cockpit: Cockpit,
        lap_ticks: int | None = None,
    ) -> None:  # fmt: skip
        """`load` raises ValueError for what must not drive. `lap_ticks`: of the exercise; a window is whole laps of it.

        `stager` watches the current policy and is asked first, so that a new current one is always seen before its child.
        """
        self.slots, self.load, self.running, self.stager, self.cockpit, self.lap_ticks = slots, load, running, stager, cockpit, lap_ticks
        self.seen: tuple[int, int, int] | None = None
        self.under_way: int | None = None  # identity
        self.tried: dict[str, dict[str, Any]] = {}  # identity -> how it went, for the summary of the flight
        self.complaints: list[str] = []

    def look(self) -> None:
        try:
            self.stager.look()
            self.collect()
            now = stamp(self.slots.candidate_path)
            if now == self.seen:
                return
            self.seen = now
            if self.under_way is not None:
                self.cockpit.withdraw()
                self.seen = None  # looked at again once the trial has left its seat
            elif now is not None and self.cockpit.busy:
                self.seen = None  # its parent has yet to take the wheel
            elif now is not None:
                self.consider()
        except FileNotFoundError:
            self.seen = None  # proposed or taken away just now: the next look sees what came of it
        except (OSError, ValueError) as error:
            self.complain(str(error))

    def close(self) -> None:
        """After the last tick, and after the cockpit heard of it: what became of a trial is in the folder before this returns."""
        try:
            self.collect()
            if self.under_way is not None:  # it never got there
                self.slots.record(Outcome(self.under_way, Stage.INTERRUPTED, "the flight ended", {}))
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
        self.under_way = identity
        self.cockpit.try_out(engine, plan)

    def checked(self, identity: int, plan: TrialPlan) -> Successor:
        loaded, running = self.load(self.slots.candidate_path), self.running()
        bundle = loaded.bundle
        if bundle is None or running is None or bundle.identity != identity:
            raise TrialError(f"the candidate is not the one that trial.json names, {identity:016x}")
        if bundle.manifest.parent != running.sha256:
            raise TrialError(f"the candidate was not made from the policy that drives, {running.identity:016x}")
        plan.check_for(bundle.actor.sizes[0])
        if self.lap_ticks is not None and plan.window_ticks % self.lap_ticks:
            told = f"a window of {plan.window_ticks} ticks is not a whole number of the exercise's laps of {self.lap_ticks}"
            raise TrialError(f"{told} (tune start --window-s)")
        return loaded.engine

    def collect(self) -> None:
        """A trial that has ended: into the folder with it."""
        ended = self.cockpit.ended()
        if ended is None:
            return
        self.under_way = None
        self.tried[f"{ended.identity:016x}"] = {"verdict": f"{ended.stage.value}: {ended.why}", **ended.details}
        self.slots.record(Outcome(ended.identity, ended.stage, ended.why, ended.details))
        if ended.stage is Stage.ABORTED:
            self.slots.drop(f"aborted: {ended.why}", ended.identity)

    def complain(self, text: str) -> None:
        if text not in self.complaints:
            self.complaints.append(text)
