"""What becomes of a candidate, whoever made it: the robot's rows, the evidence, a trial in windows, the verdict, the folder.

The log is the only way in and the slot folder the only way out. Knows no learner, no clock, no loop and no process. Rule that must stay
true: nothing drives because of the mean reward of one round: only by the verdict of a trial in paired windows, or it does not drive.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from edge_dsac.bundle.guide import Guide
from edge_dsac.bundle.slot_folder import NOT_TRIED, SlotsError
from edge_dsac.bundle.slots import Slots
from edge_dsac.bundle.trial_plan import TrialPlan
from edge_dsac.learn.attempt import Attempt, Judged, window_words
from edge_dsac.learn.buffer import Buffer, held_out
from edge_dsac.learn.carried import Carried, read_carried
from edge_dsac.learn.course import Course, TunerStop
from edge_dsac.learn.envelope import envelope, habit
from edge_dsac.learn.evidence import Evidence, Limits, judge_offline, reasons_of_data, time_blocks
from edge_dsac.learn.falls import upright
from edge_dsac.learn.learner import tensors
from edge_dsac.learn.losses import Objective
from edge_dsac.learn.sequential import Demands
from edge_dsac.learn.session import Session
from edge_dsac.learn.transitions import Rows, Transitions
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec
from edge_dsac.steplog.follow import Chunk

BLOCK_S = 5.0  # of held-out observations: one held-out second in each


class Flights(Protocol):
    """Where steps come from: steplog.Follower, or a bench."""

    def look(self) -> list[Chunk]: ...


class Gatekeeper:
    def __init__(
        self, slots: Slots, session: Session, carried: Carried, objective: Objective, buffer: Buffer, flights: Flights, course: Course,
        demands: Demands,
    ) -> None:  # fmt: skip
        """`carried`: by the policy that drove when the session began. `objective`: of a candidate's critics."""
        self.slots, self.session, self.carried, self.objective = slots, session, carried, objective
        self.buffer, self.flights, self.course, self.demands = buffer, flights, course, demands
        self.current = slots.current()
        self.spec = self.current.spec
        self.layout = ObservationLayout(self.spec)
        self.transitions: Transitions | None = None
        self.attempt: Attempt | None = None
        self.number = 0  # of the newest round of learning, where there is any
        self.dropped: dict[str, int] = {}
        self.session.note("opened", **buffer.told())

    def look(self) -> str | None:
        """What has been flown since; and the verdict, if there is one now."""
        self.check_current()
        for chunk in self.flights.look():
            self.take_in(chunk)
        return self.hear()

    # ---- in: the log

    def take_in(self, chunk: Chunk) -> None:
        """Step -> Transition -> buffer; and the windows of a trial."""
        if self.transitions is None or self.transitions.flight != chunk.flight:
            self.transitions = transitions_of(self.spec, self.carried.settings, chunk.flight)
            # From here on rows are this flight's, those after `last`: with this the rows of every round can be made again from the logs.
            self.session.note("flight", flight=chunk.flight, rows=self.buffer.total, last=self.buffer.last(chunk.flight))
        self.buffer.extend(self.transitions.feed(chunk.columns))
        if chunk.over:
            self.buffer.extend(self.transitions.finish())
        self.dropped = self.transitions.dropped
        if self.attempt is not None:
            self.read_windows(self.attempt, chunk)

    def read_windows(self, attempt: Attempt, chunk: Chunk) -> None:
        trial = self.slots.trial()
        if trial is not None and trial[0] == attempt.identity:
            attempt.follow(chunk, trial[1], self.spec, self.current.identity)

    # ---- the gate, and on trial

    def held(self) -> Rows:
        """The robot's own observations that no learning has seen."""
        return seen_by(held_rows(self.buffer.rows), self.current.identity, self.course.limits)

    def weigh(self, carried: Carried, held: Rows, guide: Guide | None = None) -> Evidence:
        """Of an actor, by the critics that it comes with."""
        parent = read_carried(self.current.files, self.current.manifest.name)
        return judge_offline(
            tensors(parent.networks["actor"]), tensors(carried.networks["actor"]), tensors(carried.networks["critics"]), self.objective,
            held.obs, time_blocks(held.t_host_ns, BLOCK_S), self.layout.clip * self.layout.scale, self.course.limits,
            guides=(self.current.guide, guide),
        )  # fmt: skip

    def try_out(self, data: bytes, identity: int, words: dict[str, Any]) -> None:
        """In the journal first: after a kill its trial must find its judge."""
        self.session.note("candidate", **words, identity=f"{identity:016x}")
        self.slots.propose(data, self.plan())
        self.attempt = Attempt(identity)

    def plan(self) -> TrialPlan:
        course, hz = self.course, self.spec.rates.control_hz
        simulated, own = self.carried.anchors["obs"], upright(self.buffer.rows)
        low, high = envelope(self.spec, self.layout, simulated, own, course.envelope, course.envelope_lean)
        return TrialPlan(
            window_ticks=round(course.window_s * hz), pairs=course.pairs, low=tuple(low.tolist()), high=tuple(high.tolist()),
            seed=self.number, settle_ticks=round(course.settle_s * hz), max_voids=4 * course.pairs,
            shadow_ticks=round(course.shadow_s * hz), approach_ticks=round(course.approach_s * hz),
            max_shadow_shift=course.limits.shift_mean if course.shadow_s else None, habit=habit(self.layout, own),
        )  # fmt: skip

    # ---- what the trial says

    def hear(self) -> str | None:
        """The verdict on the candidate, as soon as there is one. None while it flies, or where none is on trial."""
        attempt = self.attempt
        if attempt is None:
            return None
        gone = self.gone(attempt.identity)  # first: the loop says that it took one off before it takes it away
        judged = attempt.judged(self.slots.outcome(), gone, self.demands)
        return None if judged is None else self.close(attempt, judged)

    def close(self, attempt: Attempt, judged: Judged) -> str:
        """In the journal first; then the folder."""
        self.attempt = None
        self.session.note(
            "verdict", identity=f"{attempt.identity:016x}", decision=judged.decision, why=judged.why, trial=judged.verdict.as_json(),
            loop=judged.outcome.details if judged.outcome is not None else {}, windows=[window_words(window) for window in attempt.windows],
        )  # fmt: skip
        word = self.settle(attempt.identity, judged.decision, judged.why)
        if judged.why.startswith(NOT_TRIED):
            raise TunerStop(f"the loop does not try what is proposed, so there is nothing to learn for: {judged.why[len(NOT_TRIED) :]}")
        return word

    def gone(self, identity: int) -> str | None:
        """Why the candidate is not in the folder any more, as whoever took it away said; None while it is."""
        if self.slots.candidate() is not None:
            return None
        said = [event["why"] for event in self.slots.events() if event["event"] == "dropped" and event["policy"] == f"{identity:016x}"]
        return said[-1] if said else "the candidate was taken away"

    def settle(self, identity: int, decision: str, why: str) -> str:
        """What a verdict in the journal says is done to the folder; again, if a kill came between the two."""
        if decision == "better":
            try:
                self.current = self.slots.accept(why, judged=True)
                return decision
            except SlotsError as error:  # in the meantime the loop took it off: that is the newer word
                decision, why = "no evidence", f"judged better, but {error}"
                self.session.note("not accepted", identity=f"{identity:016x}", why=why)
        self.slots.drop(f"{decision}: {why}", identity)
        return decision

    # ---- reasons to end

    def check_current(self) -> None:
        """Somebody else's hand on the folder (an undo, another policy) ends the session: its learner began with another parent."""
        now = self.slots.current()
        if now.identity != self.current.identity:
            raise TunerStop(f"another policy drives now ({now.manifest.name} version {now.manifest.version}); start a new session on it")


def transitions_of(spec: RobotSpec, settings: dict[str, Any], flight: int) -> Transitions:
    """`settings`: those that the policy carries."""
    return Transitions(spec, settings["gamma"], settings["n_step"], settings["reward_scale"], spec.calibration_id, flight)


def held_rows(rows: Rows) -> Rows:
    held = held_out(rows).held
    return Rows(*(np.asarray(column)[held] for column in rows))


def seen_by(rows: Rows, identity: int, limits: Limits) -> Rows:
    """What this policy has seen itself, where that is enough to judge by: a calm child has no business where its shaking parent was."""
    own = np.asarray(rows.bundle_id) == np.uint64(identity)
    seen = Rows(*(np.asarray(column)[own] for column in rows))
    return seen if enough(seen, limits) else rows


def enough(held: Rows, limits: Limits) -> bool:
    return not reasons_of_data(len(held.obs), len(np.unique(time_blocks(held.t_host_ns, BLOCK_S))), limits)
