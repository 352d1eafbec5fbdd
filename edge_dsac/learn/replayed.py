"""A fine-tuning session done again from its journal and its flights' logs, and compared with what it came to, bit by bit.

Every round sees the very rows that it saw then: the journal names how many, and of which flight each stretch of them came. Compared are
the weights behind each candidate and refusal, the buffer at each restart, and the states that still lie there. Knows no folder, no
clock and no terminal; writes nothing. Rule that must stay true: what could not be compared is never called the same.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_dsac.learn.buffer import Buffer
from edge_dsac.learn.carried import digest
from edge_dsac.learn.gatekeeper import transitions_of
from edge_dsac.learn.home import expect_same_robot
from edge_dsac.learn.learner import Learner
from edge_dsac.learn.session import Past, SavedState
from edge_dsac.learn.transitions import Rows
from edge_dsac.records import Float
from edge_dsac.spec.robot import RobotSpec
from edge_dsac.steplog import FlightLog


class ReplayError(ValueError):
    """A session that cannot be done again, and why."""


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that was done again."""

    round: int
    what: str  # "round": nothing to compare; "candidate", "refused", "state", "restart": compared; "rows": they are not there
    same: bool
    why: str  # of a difference


@dataclass(slots=True)
class Stretch:
    """The flight whose rows are coming in."""

    flight: int
    source: str  # of its log; empty: nobody gave it
    rows: Rows
    taken: int  # rows of the log that the buffer has


class Replay:
    def __init__(self, past: Past, learner: Learner, buffer: Buffer, spec: RobotSpec, logs: Mapping[int, FlightLog]) -> None:
        """`learner`: as the session's began. `buffer`: with the rows that it began with. `logs`: by wall_start_ns."""
        if not any(event["event"] == "opened" for event in past.events):
            raise ReplayError(f"{past.folder}: its journal does not say which rows came from which flight: it is of an older edge_dsac")
        self.past, self.learner, self.buffer, self.spec, self.logs = past, learner, buffer, spec, logs
        self.states = {state.round: state for state in past.states}
        self.stretch: Stretch | None = None
        self.made: dict[int, Rows] = {}
        self.number = 0

    def run(self) -> Iterator[Found]:
        """In the journal's order; ends at the first difference, for all that follows would differ."""
        for event in self.past.events:
            for found in self.again(event):
                yield replace(found, why="") if found.same else found
                if not found.same:
                    return

    def again(self, event: dict[str, Any]) -> Iterator[Found]:
        what = event["event"]
        if what in ("opened", "flight", "round"):
            missing = self.fill(event["rows"])
            if missing:
                yield Found(self.number, "rows", False, missing)
                return
        if what == "opened":
            yield Found(self.number, "restart", *compared_rows(self.buffer.told(), event))
            self.stretch = None
        elif what == "flight":
            self.stretch = self.turn_to(event["flight"], event["last"])
        elif what == "round":
            self.number = event["round"]
            self.learner.round(self.buffer.rows, self.number)
            yield Found(self.number, "round", True, "")
            if self.number in self.states:
                yield Found(self.number, "state", *compared_states(self.learner.save(), self.states[self.number]))
        elif what in ("candidate", "refused"):
            ours = digest(self.learner.child())
            yield Found(self.number, what, ours == event["weights"], f"weights differ: {event['weights']} then, {ours} now")

    # ---- rows

    def turn_to(self, flight: int, last: int) -> Stretch:
        """`last`: its highest index in the buffer by then; a log that is fed again brings no row twice."""
        log = self.logs.get(flight)
        if log is None:
            return Stretch(flight, "", Rows(*(np.zeros(0, np.uint64) for _ in Rows._fields)), 0)
        if flight not in self.made:
            expect_same_robot(log, self.spec)
            transitions = transitions_of(self.spec, self.learner.carried.settings, flight)
            parts = [transitions.feed(log.columns), transitions.finish()]
            self.made[flight] = Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        rows = self.made[flight]
        return Stretch(flight, log.source, rows, int(np.searchsorted(rows.index.astype(np.int64), last, side="right")))

    def fill(self, total: int) -> str:
        """Until so many rows were ever added; else what is missing."""
        wanted = total - self.buffer.total
        if wanted < 0:
            return f"rows too many: {self.buffer.total} were added by now, the journal says {total} (a power cut in that session?)"
        if not wanted:
            return ""
        stretch = self.stretch
        if stretch is None:
            return f"rows missing: the journal says {total} and names no flight that they came from, {self.buffer.total} are there"
        there = len(stretch.rows.reward) - stretch.taken
        if there < wanted:
            where = f"its log {stretch.source} gives {there}" if stretch.source else "its log was not given"
            return f"rows missing: {wanted} of flight {name_of_flight(stretch.flight)} came next, {where}"
        piece = slice(stretch.taken, stretch.taken + wanted)
        stretch.taken += self.buffer.extend(Rows(*(column[piece] for column in stretch.rows)))
        short = total - self.buffer.total
        return f"rows missing: {short} of flight {name_of_flight(stretch.flight)} were in the buffer before" if short else ""


def compared_rows(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[bool, str]:
    apart = [f"{name} {theirs[name]} then, {ours[name]} now" for name in ours if ours[name] != theirs.get(name)]
    return not apart, f"the buffer differs: {'; '.join(apart)}"


def compared_states(ours: Mapping[str, Float], theirs: SavedState) -> tuple[bool, str]:
    names = sorted(ours.keys() | theirs.arrays.keys())
    apart = [name for name in names if not same_bits(ours.get(name), theirs.arrays.get(name))]
    return not apart, f"the saved state differs in {len(apart)} of {len(names)} arrays: {', '.join(apart[:4])}"


def same_bits(one: Float | None, other: Float | None) -> bool:
    if one is None or other is None:
        return False
    return np.shape(one) == np.shape(other) and np.asarray(one).tobytes() == np.asarray(other).tobytes()


def name_of_flight(flight: int) -> str:
    """For people, who know when they flew."""
    try:
        began = datetime.datetime.fromtimestamp(flight // 1_000_000_000, datetime.timezone.utc)
    except (ValueError, OverflowError, OSError):
        return str(flight)
    return f"{flight} ({began:%Y-%m-%d %H:%M:%S} UTC)"
