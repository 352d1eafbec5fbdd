"""One candidate on trial on the robot in simulated time, by the real tuner; and what the log says of it, read without the tuner's help.

The log is read Step by Step against the plan: who drove, for how long, and who it was that fell. Knows no study. Rule that must stay true:
nothing here asks the loop, the guard or the judge whether they did their work; every figure of theirs is counted again.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sim_flight import SimFlight
from tunable_policy import policy_file_of
from tune_robot import TuneRobot

from edge_dsac.bundle.actor import actor_from_bytes, make_actor_file
from edge_dsac.bundle.numpy_engine import NumpyMlp
from edge_dsac.bundle.slots import create_slots
from edge_dsac.bundle.trial_plan import TrialPlan
from edge_dsac.cli.source import Source
from edge_dsac.learn.buffer import Buffer
from edge_dsac.learn.carried import Carried, read_carried
from edge_dsac.learn.child import layers_of
from edge_dsac.learn.course import Course
from edge_dsac.learn.gatekeeper import held_rows, transitions_of
from edge_dsac.learn.learner import Learner, Tuning
from edge_dsac.learn.session import Session
from edge_dsac.learn.transitions import Rows, Transitions
from edge_dsac.learn.tuner import Tuner
from edge_dsac.loop.exercise import Exercise, read_lap
from edge_dsac.records import Fault, Mode, Rule
from edge_dsac.spec.robot import RobotSpec
from edge_dsac.steplog import Chunk

LAP = "brisk"  # 4 s: a window is one of it
LOOK_S = 0.2  # between two looks of the tuner, as `edge-dsac tune` has it
BEFORE_S, AFTER_S = 0.8, 1.2  # flown under the parent before the proposal, and after the verdict
SOON_S = 0.5  # a fall so soon after the candidate drove is the trial's
LATER_S = 2.0  # one so soon after is told apart
FALLEN = int(Fault.TILT | Fault.OVERSPEED)
REAL_FAULTS = int(~(Fault.LIMITED | Fault.SLEWED) & 0xFFFF)


# ---- what the log says


@dataclass(frozen=True, slots=True)
class Stay:
    """How long the candidate drove, in ticks. The last three must be 0."""

    ticks: int  # in all, until it was accepted
    span: int  # from its first tick to the one after its last
    after_window: int  # in a window that was not its own, or beyond the end of its own
    after_breach: int  # after the first step that showed a breach while it drove
    in_other_flights: int  # than the one in which its trial began


def stay_of(flights: list[np.ndarray], new: int, plan: TrialPlan, accepted: tuple[int, int] | None = None) -> Stay:
    """`accepted`: flight (its place in the list) and index of the last step before it became current; from then on it may drive."""
    driven = [np.flatnonzero(records["bundle_id"] == new) for records in flights]
    home = next((i for i, ticks in enumerate(driven) if len(ticks)), None)
    if home is None:
        return Stay(0, 0, 0, 0, 0)
    records = flights[home]
    if accepted is not None and accepted[0] == home:
        records = records[records["index"] <= accepted[1]]
    mine = np.flatnonzero(records["bundle_id"] == new)
    others = sum(len(ticks) for i, ticks in enumerate(driven) if i != home and (accepted is None or i < accepted[0]))
    if not len(mine):
        return Stay(0, 0, 0, 0, others)
    late = beyond_windows(records, new, plan, int(mine[0]))
    after = (mine > first_breach(records, new, plan)).sum()
    return Stay(len(mine), int(mine[-1] - mine[0]) + 1, late, int(after), others)


def beyond_windows(records: np.ndarray, new: int, plan: TrialPlan, first: int) -> int:
    """The plan's approach and windows walked through tick by tick, from the candidate's first one on."""
    order, most_coasted = plan.order(), plan.max_coasted_share * plan.window_ticks
    window, ticks, coasted, beyond = -1 if plan.approach_ticks else order.index(True), 0, 0, 0
    moving = np.isin(records["mode"], (Mode.RUNNING, Mode.COASTING)) & ((records["rules"] & int(Rule.HUMAN)) == 0)
    columns = (records["bundle_id"] == new, moving, records["mode"] == Mode.COASTING)
    for drove, counts, held in zip(*(column[first:].tolist() for column in columns), strict=True):
        whose = window < 0 or (order[window] if window < len(order) else False)
        beyond += drove and not whose
        if not counts or drove != whose:
            ticks = coasted = 0  # flown again
            continue
        ticks, coasted = ticks + 1, coasted + held
        if window < 0 and ticks == plan.approach_ticks:
            window, ticks, coasted = 0, 0, 0
        elif window >= 0 and ticks == plan.window_ticks:
            window, ticks, coasted = window + (coasted <= most_coasted), 0, 0
    return int(beyond)


def first_breach(records: np.ndarray, new: int, plan: TrialPlan) -> float:
    """Place of the first step that shows why the candidate must not go on; infinity where none does."""
    low, high = np.array(plan.low, np.float32), np.array(plan.high, np.float32)
    outside = ((records["obs"] < low) | (records["obs"] > high)).any(axis=1)
    stopped = ~np.isin(records["mode"], (Mode.RUNNING, Mode.COASTING))
    faulty = (records["faults"] & REAL_FAULTS) != 0
    nothing = (records["rules"] & int(Rule.BAD_NUMBER)) != 0
    at = np.flatnonzero((records["bundle_id"] == new) & (outside | stopped | faulty | nothing))
    return float(at[0]) if len(at) else math.inf


def falls_of(flights: list[np.ndarray], new: int, hz: int) -> list[dict[str, Any]]:
    """Each fall: who drove last, and how long ago the candidate had driven (None: never in this flight)."""
    found = []
    for records in flights:
        fallen = (records["faults"] & FALLEN) != 0
        for at in np.flatnonzero(fallen & ~np.concatenate([[False], fallen[:-1]])).tolist():
            drove = np.flatnonzero(records["mode"][:at] == Mode.RUNNING)
            ticks = np.flatnonzero((records["bundle_id"][:at] == new) & (records["mode"][:at] == Mode.RUNNING))
            who = "new" if len(ticks) and ticks[-1] == drove[-1] else "old"
            ago = (int(records["index"][at]) - int(records["index"][ticks[-1]])) / hz if len(ticks) else None
            found.append({"who": who, "since_new_s": ago, "of_trial": ago is not None and (who == "new" or ago <= SOON_S)})
    return found


# ---- flying


@dataclass(frozen=True, slots=True)
class Home:
    """A policy with the robot that it flies, made once."""

    name: str
    ranges: str
    spec: RobotSpec
    bundle: bytes
    carried: Carried
    rows: Rows  # of the parent's own flight


def actor_bytes(carried: Carried, spec: RobotSpec) -> bytes:
    return make_actor_file(layers_of(carried.networks["actor"]), carried.settings["rates"]["objective"]["activation"], spec)


class Witness:
    """Stands between the robot and the tuner, and keeps every Step."""

    def __init__(self, robot: TuneRobot) -> None:
        self.robot = robot
        self.flights: list[list[np.ndarray]] = []
        self.names: list[int] = []

    def look(self) -> list[Chunk]:
        chunks = self.robot.look()
        for chunk in chunks:
            if chunk.flight not in self.names:
                self.names.append(chunk.flight)
                self.flights.append([])
            self.flights[self.names.index(chunk.flight)].append(chunk.columns)
        return chunks

    def whole(self) -> list[np.ndarray]:
        return [np.concatenate(parts) for parts in self.flights]

    def last(self) -> tuple[int, int]:
        """(flight, index) of the newest step."""
        return len(self.flights) - 1, int(self.whole()[-1]["index"][-1])


def make_home(source: Source, name: str, ranges: str) -> Home:
    """Without rows as yet."""
    nothing = Rows(*(np.zeros(0) for _ in Rows._fields))
    return Home(name, ranges, source.spec, policy_file_of(source, name), read_carried(source.carried, name), nothing)


def fly_parent(home: Home, folder: Path, seconds: float, seed: int) -> tuple[Rows, int]:
    """(Rows to learn from, falls): what it does by itself."""
    robot = TuneRobot(
        create_slots(folder / "slots", home.bundle, allow_unsigned=True), home.spec, folder / "flights", home.ranges, seed, LAP
    )
    robot.live(seconds)
    robot.close()
    settings, parts = home.carried.settings, []
    reader: Transitions | None = None
    for chunk in robot.look():
        if reader is None or reader.flight != chunk.flight:
            reader = transitions_of(home.spec, settings, chunk.flight)
        parts += [reader.feed(chunk.columns)] + ([reader.finish()] if chunk.over else [])
    return Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True))), robot.falls


def try_out(home: Home, candidate: Carried, believed: Rows, folder: Path, seed: int, course: Course) -> dict[str, Any]:
    """The gate's word; then, whatever it is, the trial. `believed`: the rows the candidate was made from, which are what the gate sees."""
    spec, hz = home.spec, home.spec.rates.control_hz
    slots = create_slots(folder / "slots", home.bundle, allow_unsigned=True)
    robot = TuneRobot(slots, spec, folder / "flights", home.ranges, seed, lap=LAP)
    witness = Witness(robot)
    session = Session(folder / "session", {"parent": slots.current().manifest.sha256}, resume=False)
    room = len(believed.reward) + 60_000
    sizes = believed.obs.shape[1], len(spec.actions)
    buffer = Buffer(folder / "rows", *sizes, room, fsync_s=math.inf, fingerprint=spec.policy_fingerprint)
    buffer.extend(believed)
    silent = dataclasses.replace(course, first_s=math.inf)  # it judges; it learns nothing
    tuner = Tuner(slots, session, Learner(home.carried, Tuning()), buffer, witness, None, silent)
    try:
        robot.live(BEFORE_S)
        tuner.improve()
        held = held_rows(believed)
        evidence = tuner.weigh(candidate, held)
        tuner.number = seed  # of the coin that orders the windows
        tuner.put_up(candidate, held, {"evidence": evidence.as_json()})
        trial, accepted, word, begun_s = slots.trial(), None, "", robot.seconds
        assert trial is not None
        identity, plan = trial
        while tuner.attempt is not None:
            robot.live(LOOK_S)
            word = tuner.improve()
        if word == "better":
            accepted = witness.last()
        seconds = robot.seconds - begun_s
        robot.live(AFTER_S)
        robot.close()
        witness.look()
    finally:
        buffer.close()
        session.close()
    flights, verdict = witness.whole(), session.of("verdict")[0]
    stay = stay_of(flights, identity, plan, accepted)
    falls = falls_of(flights, identity, hz)
    return {
        "gate": {"passed": evidence.passed, "reasons": list(evidence.reasons)}, "verdict": word, "why": verdict["why"],
        "pairs": verdict["trial"]["pairs"], "gain": verdict["trial"]["gain"], "trial_s": round(seconds, 2),
        "drove_s": stay.ticks / hz, "seconds_to_off": stay.span / hz, "too_long": dataclasses.asdict(stay), "falls": falls,
        "flown_s": round(robot.seconds, 2), "drives_now": slots.current().identity == identity,
    }  # fmt: skip


def fly_straight(home: Home, data: bytes, seed: int, seconds: float) -> dict[str, Any]:
    """The candidate drives with nobody beside it."""
    flight = SimFlight(home.spec, NumpyMlp(actor_from_bytes(data, "the candidate", home.spec)), seed, home.ranges)
    flight.log.append = lambda step: None
    flight.loop.aides = (Exercise(read_lap(LAP), home.spec.rates.control_hz),)
    flight.loop.arm()
    for tenth in range(round(10 * seconds)):
        flight.ticks(home.spec.rates.control_hz // 10)
        if flight.loop.modes.mode in (Mode.FAULT, Mode.DAMPED):
            return {"fell": bool(flight.loop.frame.faults & FALLEN), "seconds": (tenth + 1) / 10}
    return {"fell": False, "seconds": seconds}
