"""From the flight log to rows one can learn from: what was seen, what was really done, what it was worth, what was seen then.

Knows records and the robot file; knows no ring, no file, no clock and no torch. Rewards are the robot's own, n-step rows are
those of learn/collect.py (a test holds the two together). Rule that must stay true: the rows follow from the flight alone;
how it was cut into chunks changes when a row comes out, never a bit of it.

A step is usable if the policy drove (RUNNING), on a fresh frame, with numbers everywhere. It becomes part of a row if the
record after it is usable too, or is the board saying that the robot fell or ran away: that ends the row with done = 1.
Whatever else comes after it cuts: rows still open bootstrap from the last usable observation.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Any, NamedTuple

import numpy as np

from edge_dsac.learn.rewards import Reward
from edge_dsac.records import BoardMode, Fault, Mode, Rule
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec
from edge_dsac.steplog.layout import FRESH, OBS_OK, LogError, RecordLayout

CLAMPS = Rule.LIMIT | Rule.SLEW | Rule.SPEED
OWN_DOING = Fault.TILT | Fault.OVERSPEED  # how a policy brings a robot to its end; the other faults are not its fault
NOT_LATCHED = Fault.LIMITED | Fault.SLEWED  # these two only describe a command


class Label(IntFlag):
    """What was peculiar about a row's steps."""

    NONE = 0
    CLAMPED = 1  # the limiter had a word
    BLENDED = 2  # a new policy was being faded in
    HUMAN = 4  # a person drove
    MIXED = 8  # more than one bundle drove


class Why(IntEnum):
    """Why a step makes no row; the names are those of the counts."""

    KEPT = 0
    COASTED = 1  # no fresh frame: the last command was held, here or right after
    STALE = 2  # RUNNING, yet without a new frame
    NOT_RUNNING = 3  # the policy did not drive, here or right after
    BAD_NUMBER = 4  # NaN or infinity in what was seen or done
    GAP = 5  # the record before or after it is missing


class Rows(NamedTuple):
    """One entry per row; the first six are learn.losses.Batch's, float32, observations scaled as networks see them."""

    obs: Any  # [rows, obs]
    act: Any  # [rows, act] applied, never the wish
    reward: Any
    next_obs: Any  # [rows, obs]
    done: Any
    discount: Any
    index: Any  # uint64, of its first step, as all that follow
    t_host_ns: Any  # int64
    bundle_id: Any  # uint64
    calibration_id: Any  # uint64
    mode: Any  # uint8
    label: Any  # uint8, bits of Label, of all its steps
    flight: Any  # uint64, wall_start_ns of the log


class Transitions:
    """Of one flight. `feed` it records in order, in any chunks; `finish` when the flight is over."""

    def __init__(self, spec: RobotSpec, gamma: float, n_step: int, reward_scale: float, calibration_id: int = 0, flight: int = 0) -> None:
        """`flight`: wall_start_ns of the log's header."""
        self.gamma, self.n_step, self.reward_scale = gamma, n_step, reward_scale
        self.calibration_id, self.flight = calibration_id, flight
        self.dtype, self.scale, self.reward = RecordLayout(spec).dtype, ObservationLayout(spec).scale, Reward(spec)
        self.source = spec.model
        self.counts = np.zeros(len(Why), np.int64)
        self.carry(np.zeros(0, self.dtype), 0, 0)

    @property
    def dropped(self) -> dict[str, int]:
        """Steps that begin no row, by reason. Rows and these together are the records judged so far."""
        return {why.name.lower(): int(self.counts[why]) for why in Why if why != Why.KEPT}

    def carry(self, records: np.ndarray, begin: int, judged: int) -> None:
        """What the next chunk is joined to: rows begin at `begin`; of the records before `judged` the fate is counted."""
        self.records, self.begin, self.judged = records, begin, judged

    def feed(self, columns: np.ndarray) -> Rows:
        if columns.dtype != self.dtype:
            raise LogError(
                f"{self.source}: a record of {self.dtype.itemsize} bytes was expected, got one of {columns.dtype.itemsize}; "
                "the log is another robot's, or the robot file has changed: give the robot file that is inside the log"
            )
        return self.make(columns, over=False)

    def finish(self) -> Rows:
        """The flight is over: what is still open ends here, as at a time limit."""
        rows = self.make(self.records[:0], over=True)
        self.carry(self.records[:0].copy(), 0, 0)
        return rows

    def make(self, columns: np.ndarray, over: bool) -> Rows:
        records = np.concatenate([self.records, columns])
        known = len(records) if over else max(len(records) - 1, 0)  # the last step's fate hangs on what comes next
        why, terminal = judge(records)
        kept = why[:known] == Why.KEPT
        self.counts += np.bincount(why[self.judged : known], minlength=len(Why))
        position = np.arange(known)
        stop = np.minimum.accumulate(np.where(kept, known, position)[::-1])[::-1]  # the first step after it that is not kept
        span = np.minimum(stop - position, self.n_step)
        open_still = kept & (span < self.n_step) & (stop == known) & (not over)
        end = int(open_still.argmax()) if open_still.any() else known
        starts = self.begin + np.flatnonzero(kept[self.begin : end])
        rows = self.rows(records, terminal, starts, span[starts])
        before = max(end - 1, 0)  # the action before a row's first is part of its reward
        self.carry(records[before:].copy(), end - before, known - before)
        return rows

    def rows(self, records: np.ndarray, terminal: np.ndarray, starts: np.ndarray, span: np.ndarray) -> Rows:
        count = len(starts)
        reward, discount = np.zeros(count), np.ones(count)
        label, label_of = np.zeros(count, np.uint8), labels(records["rules"])
        worth = self.worth(records, starts, span)
        bundle = records["bundle_id"]
        for k in range(self.n_step):  # float64, in the order in which NStep.push adds
            at = np.flatnonzero(span > k)
            step = starts[at] + k
            reward[at] += discount[at] * worth[step]
            discount[at] *= self.gamma
            label[at] |= label_of[step] | np.where(bundle[step] != bundle[starts[at]], Label.MIXED, 0).astype(np.uint8)
        ends = starts + span
        return Rows(
            obs=records["obs"][starts] * self.scale, act=records["applied_action"][starts], reward=reward.astype(np.float32),
            next_obs=records["obs"][ends] * self.scale, done=terminal[ends].astype(np.float32), discount=discount.astype(np.float32),
            index=records["index"][starts], t_host_ns=records["t_host_ns"][starts], bundle_id=bundle[starts],
            calibration_id=np.full(count, self.calibration_id, np.uint64), mode=records["mode"][starts], label=label,
            flight=np.full(count, self.flight, np.uint64),
        )  # fmt: skip

    def worth(self, records: np.ndarray, starts: np.ndarray, span: np.ndarray) -> np.ndarray:
        """The scaled reward of every step that is in a row, zero elsewhere."""
        inside = np.zeros(len(records), bool)
        for k in range(self.n_step):
            inside[starts[span > k] + k] = True
        steps = np.flatnonzero(inside)
        applied = records["applied_action"].astype(np.float64)
        earlier = np.where((steps > 0)[:, None], applied[steps - 1], 0.0)
        worth = np.zeros(len(records))
        worth[steps] = self.reward(records["obs"][steps + 1], applied[steps], earlier) * self.reward_scale
        return worth


def judge(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(Why of each step, whether the record shows the robot's own end). The last step's is as if nothing came after it."""
    alone, terminal = seen_alone(records)
    index = records["index"]
    follows = np.zeros(len(records), bool)
    follows[1:] = (index[1:] > 0) & (index[1:] - 1 == index[:-1])
    known_before = follows.copy()
    known_before[:1] = index[:1] == 0  # a flight begins with motors that were still
    done_before = np.isfinite(records["applied_action"]).all(axis=1)
    done_before[1:] = done_before[:-1].copy()
    done_before[:1] = True
    after = np.full(len(records), Why.GAP, np.int64)
    after[:-1] = np.where(follows[1:], np.where(terminal[1:], Why.KEPT, alone[1:]), Why.GAP)
    why = np.select([alone != Why.KEPT, ~known_before, ~done_before], [alone, np.int64(Why.GAP), np.int64(Why.BAD_NUMBER)], after)
    return why, terminal


def seen_alone(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(Why of each record on its own, whether it shows the robot's own end)."""
    mode, faults, flags = records["mode"], records["faults"], records["flags"]
    fresh = (flags & FRESH) != 0
    seen = ((flags & OBS_OK) != 0) & np.isfinite(records["obs"]).all(axis=1)
    done = np.isfinite(records["applied_action"]).all(axis=1) & ((records["rules"] & Rule.BAD_NUMBER) == 0)
    latched = (records["board"] == BoardMode.FAULT) | (records["board"] == BoardMode.ESTOP)
    own = ((faults & OWN_DOING) != 0) & ((faults & np.uint16(0xFFFF & ~(OWN_DOING | NOT_LATCHED))) == 0)
    terminal = (records["board"] == BoardMode.FAULT) & own & fresh & seen
    why = np.select(
        [mode == Mode.COASTING, mode != Mode.RUNNING, ~fresh, ~(seen & done), latched],
        [np.int64(why) for why in (Why.COASTED, Why.NOT_RUNNING, Why.STALE, Why.BAD_NUMBER, Why.NOT_RUNNING)],
        np.int64(Why.KEPT),
    )
    return why, terminal


def labels(rules: np.ndarray) -> np.ndarray:
    pairs = ((CLAMPS, Label.CLAMPED), (Rule.BLEND, Label.BLENDED), (Rule.HUMAN, Label.HUMAN))
    bits = [np.where((rules & np.uint16(rule)) != 0, label, 0) for rule, label in pairs]
    return np.bitwise_or.reduce(bits).astype(np.uint8)
