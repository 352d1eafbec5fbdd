"""A robot that is played: a log made up beforehand goes into real rings, again and again, at a quick pace.

To a tuner it is what `edge-dsac run --slots` is: a flight that the slot folder points to, a recorder that drains it, trials of candidates
in windows, and a verdict that each step's name leads to. What a candidate is worth is drawn from its identity: calmer than the parent,
rougher, the same, or taken off by the guard. Every step is written to `truth` before the ring has it, so that an auditor knows
what was flown without the tuner's way of reading. Rule that must stay true: a flight ends only once the tuner has its last row, for the
steps of a flight that has ended and that nobody follows are no tuner's to lose.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_dsac.bundle.slot_folder import Outcome, SlotsError, Stage
from edge_dsac.bundle.slots import Slots
from edge_dsac.bundle.trial_plan import TrialPlan
from edge_dsac.cli.tuning_place import rows_folder
from edge_dsac.learn.rows_file import Shape, read_records, segments
from edge_dsac.records import Event, Mode, Step
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec
from edge_dsac.steplog import Ring
from edge_dsac.steplog.layout import FRESH, OBS_OK, RecordLayout
from edge_dsac.steplog.recorder import Recorder

CALM, USUAL, ROUGH = range(3)
WIDTHS = (0.1, 0.2, 0.4)  # of what is seen and done, as a share of its range; reward falls with it
CORRELATION_S = 0.2
FLIGHT_TICKS = 5000  # a tuner that is started again reads all of it
TURN_S = 0.02
RING_S = 60


def make_recordings(spec: RobotSpec, seconds: float, seed: int) -> list[np.ndarray]:
    """For each level records in which a policy drives; what is seen and done wanders about, slowly, and so widely."""
    layout, drawn = ObservationLayout(spec), np.random.default_rng(seed)
    count, hz, found = round(seconds * spec.rates.control_hz), spec.rates.control_hz, []
    for width in WIDTHS:
        rows = np.zeros(count, RecordLayout(spec).dtype)
        rows["mode"], rows["because"], rows["flags"] = Mode.RUNNING, Event.FRAME_FRESH, FRESH | OBS_OK
        rows["late_ns"] = 50_000
        rows["obs"] = layout.clip * wander(drawn, count, layout.size, width, hz)
        for name in ("speed_target_m_s", "yaw_rate_target_rad_s"):
            rows["obs"][:, layout.newest[name].start] = 0.0  # nobody asks for anything: all windows are alike in that
        rows["applied_action"] = wander(drawn, count, len(spec.actions), width, hz)
        rows["action"] = rows["applied_action"]
        found.append(rows)
    return found


def wander(drawn: np.random.Generator, count: int, size: int, width: float, hz: int) -> np.ndarray:
    keep = np.exp(-1.0 / (CORRELATION_S * hz))
    walk = drawn.normal(size=(count, size))
    for i in range(1, count):
        walk[i] = keep * walk[i - 1] + np.sqrt(1.0 - keep**2) * walk[i]
    return np.clip(width * walk, -1.0, 1.0)


@dataclass(slots=True)
class Played:
    """A candidate on trial."""

    identity: int
    plan: TrialPlan
    order: tuple[bool, ...]
    at: int = 0  # ticks

    @property
    def worth(self) -> str:
        return ("better", "better", "better", "better", "worse", "worse", "same", "aborted")[self.identity % 8]


class Player:
    def __init__(self, slots: Slots, spec: RobotSpec, recordings: list[np.ndarray], folder: Path, pace: float) -> None:
        self.slots, self.spec, self.recordings, self.folder, self.pace = slots, spec, recordings, folder, pace
        layout = RecordLayout(spec)
        self.steps: list[list[Step]] = [[layout.step(row) for row in rows] for rows in recordings]
        self.period_ns = 1_000_000_000 // spec.rates.control_hz
        self.tried: set[int] = set()
        self.trial: Played | None = None
        self.current = slots.current().identity
        (folder / "truth").mkdir(parents=True)
        self.flights = 0
        self.take_off()

    def take_off(self) -> None:
        path = self.folder / f"flight-{self.flights}"
        path.mkdir()
        self.ring = Ring.create(path / "ring", self.spec, RING_S * self.spec.rates.control_hz)
        self.recorder = Recorder(path / "ring", path)
        self.flight = self.ring.header.wall_start_ns
        self.truth = (self.folder / "truth" / f"{self.flight}.steps").open("ab")
        self.begun_ns = (1 + self.flights) * 10_000_000_000_000  # the loop's clock, which nothing compares with another one
        self.flights += 1
        self.slots.point_to(path)

    def live(self, leader: int) -> None:
        """Until that process is gone."""
        begun, flown = time.monotonic(), 0
        while os.getppid() == leader:
            due = round((time.monotonic() - begun) * self.pace * self.spec.rates.control_hz) - flown
            self.look()
            self.play(due)
            flown += due
            if self.ring.head >= FLIGHT_TICKS and (self.trial is None or self.ring.head >= 4 * FLIGHT_TICKS):
                self.land()
                while not self.heard() and os.getppid() == leader:
                    time.sleep(TURN_S)
                self.take_off()
                begun, flown = time.monotonic(), 0
            time.sleep(TURN_S)

    # ---- what the loop's helper thread does

    def look(self) -> None:
        try:
            self.current, found = self.slots.current().identity, self.slots.candidate()
        except (SlotsError, OSError):
            return  # proposed or taken away just now
        identity = found[0].identity if found else None
        if self.trial is not None and self.trial.identity != identity:
            self.trial = None
        if found is not None and identity is not None and identity not in self.tried:
            self.tried.add(identity)
            self.slots.begin(identity)
            self.trial = Played(identity, found[1], found[1].order())

    def end_trial(self, trial: Played, stage: Stage, why: str) -> None:
        self.trial = None
        self.slots.record(Outcome(trial.identity, stage, why, {"ticks": trial.at}))
        if stage is Stage.ABORTED:
            self.slots.drop(f"aborted: {why}", trial.identity)

    # ---- what the loop does

    def play(self, ticks: int) -> None:
        while ticks > 0:
            trial = self.trial
            if trial is None:
                return self.append(ticks, self.current, USUAL)
            window, within = divmod(trial.at, trial.plan.window_ticks)
            count = min(ticks, trial.plan.window_ticks - within)
            new = trial.order[window]
            level = {"better": CALM, "worse": ROUGH}.get(trial.worth, USUAL) if new else USUAL
            self.append(count, trial.identity if new else self.current, level)
            trial.at, ticks = trial.at + count, ticks - count
            if trial.at >= len(trial.order) * trial.plan.window_ticks:
                self.end_trial(trial, Stage.OVER, "all windows flown")
            elif trial.worth == "aborted" and trial.at >= 3 * trial.plan.window_ticks:
                self.end_trial(trial, Stage.ABORTED, "it leaned too far")
        return None

    def append(self, count: int, identity: int, level: int) -> None:
        at = self.ring.head
        where = np.arange(at, at + count) % len(self.recordings[level])
        rows = self.recordings[level][where].copy()
        rows["index"], rows["bundle_id"] = np.arange(at, at + count), identity
        rows["t_host_ns"] = self.begun_ns + np.arange(at, at + count) * self.period_ns
        self.truth.write(rows.tobytes())
        self.truth.flush()
        for i, t_ns in zip(where.tolist(), rows["t_host_ns"].tolist(), strict=True):
            self.ring.append(self.steps[level][i]._replace(bundle_id=identity, t_host_ns=t_ns))
        self.recorder.drain()

    def land(self) -> None:
        if self.trial is not None:
            self.end_trial(self.trial, Stage.INTERRUPTED, "the flight ended")
        self.ring.close()
        self.truth.close()
        (self.folder / "truth" / f"{self.flight}.over").touch()
        while not self.recorder.done():
            self.recorder.drain()
        self.recorder.finish()

    def heard(self) -> bool:
        """Has the tuner the row of the last step but one? The very last one makes none."""
        newest = newest_row(rows_folder(self.slots.folder / "tuning", self.spec), self.spec)
        return newest is not None and (int(newest["flight"]), int(newest["index"])) == (self.flight, self.ring.head - 2)


def newest_row(folder: Path, spec: RobotSpec) -> Any:
    found, _ = segments(folder)
    for path, header in reversed(found):
        if header is not None:
            records = read_records(path, Shape(header.shape.obs, header.shape.act, header.shape.fingerprint), -1).records
            if len(records):
                return records[-1]
    return None
