"""A trial as the log tells it: windows in which the old policy drove and windows in which the new one did, in figures, and in pairs.

Knows records and the robot file; knows no file, no clock, no torch, and not who decides (sequential.py). Rule that must stay true: the
windows follow from the flight alone; how it was cut into chunks changes when a window comes out, never a bit of it.

A window is `window_ticks` ticks in a row of one policy, RUNNING, or COASTING over a lost frame; a longer run of one policy is several,
as where a coin lets the same one begin the next pair. A run that ends earlier, or has too few fresh frames, is void: never compared, but
what it ended in counts. Before them a candidate may have approached: no window, and what it ended in counts too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from edge_dsac.learn.rewards import Reward
from edge_dsac.records import Fault, Mode, Rule
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec
from edge_dsac.steplog.layout import FRESH, OBS_OK, LogError, RecordLayout

Who = Literal["old", "new"]
NOBODY, OLD, NEW, PERSON = range(4)  # who drove at a tick; while the loop coasts it repeats a policy's last command: still that policy
NAMES: dict[int, Who] = {OLD: "old", NEW: "new"}
STEPPED_IN = int(Rule.LIMIT | Rule.SLEW | Rule.SPEED)
FALLEN = int(Fault.TILT | Fault.OVERSPEED)  # how a policy brings a robot to its end; the other faults are not its fault
FALL_WITHIN_S = 0.25  # from a policy's last tick to the frame that tells of a fall, with a few frames lost in between
REFERENCES = ("speed_target_m_s", "yaw_rate_target_rad_s")  # what an operator asks for
LEAST_SHARE = 0.5  # of a window's settled ticks that must count


@dataclass(frozen=True, slots=True)
class Window:
    """Means are over the counted ticks, NaN where none counts. Of what came after the run: until a policy drove again."""

    who: Who
    first: int  # index of its first record
    ticks: int  # flown
    counted: int  # settled, not blended, with the frame that shows what they were worth
    void: str  # why it is not compared; empty: it is
    reward: float  # mean per tick
    action_abs: float  # mean |applied action|
    action_square: float  # its mean square: a measure of effort
    action_rate: float  # mean change of the applied action from tick to tick
    limited_share: float  # of ticks on which the limiter stepped in
    references: tuple[float, ...]  # what was asked for: per term its mean, then its mean magnitude
    parts: dict[str, float] = field(default_factory=dict)  # of the reward, by term
    coasted: int = 0  # of its ticks, those without a fresh frame
    human: int = 0  # ticks after it in which a person drove
    interventions: int = 0  # a person took over, or pressed the emergency stop
    fell: Who | Literal[""] = ""  # whom the fall after it counts against


@dataclass(slots=True)
class Ended:
    """A window whose aftermath is still being read."""

    window: Window
    blamed: Who
    last: int  # index of the last tick for which the policy is answerable
    is_approach: bool = False  # or a beginning of one


class Windows:
    """Of one trial. `feed` it records in order, in any chunks; `finish` when the trial is over."""

    def __init__(
        self, spec: RobotSpec, old: int, new: int, window_ticks: int, settle_ticks: int, begin: int = 0, max_coasted: float = 0.2,
        approach_ticks: int = 0,
    ) -> None:  # fmt: skip
        """`begin`: index of the trial's first tick, so that windows are cut where the loop cut them; what was before is left out.
        `max_coasted`: share of a window's ticks; the loop repeats one with more, so here it is void.
        `approach_ticks`: of the new one, in a row, before the first window."""
        if not 0 <= settle_ticks < window_ticks:
            raise LogError(f"windows: {settle_ticks} ticks to settle leave nothing of a window of {window_ticks}")
        if old == new:
            raise LogError(f"windows: the old and the new policy are both {old:016x}; a trial needs two")
        self.old, self.new, self.window_ticks, self.settle_ticks, self.begin = old, new, window_ticks, settle_ticks, begin
        self.max_coasted = max_coasted * window_ticks
        self.approach_ticks = approach_ticks  # 0 once it is over
        layout = ObservationLayout(spec)
        self.dtype, self.reward, self.source = RecordLayout(spec).dtype, Reward(spec), spec.model
        self.references = [layout.newest[term].start for term in REFERENCES if term in layout.newest]
        self.fall_within = round(FALL_WITHIN_S * spec.rates.control_hz)
        self.records = np.zeros(0, self.dtype)  # from the one before the run that is still open
        self.at = 0  # where that run begins in them
        self.ended: Ended | None = None
        self.falls: dict[Who, int] = {"old": 0, "new": 0}  # at once, while a window waits for its aftermath
        self.elsewhere = 0  # ticks RUNNING under a policy that is neither

    def feed(self, columns: np.ndarray) -> list[Window]:
        if columns.dtype != self.dtype:
            raise LogError(
                f"{self.source}: a record of {self.dtype.itemsize} bytes was expected, got one of {columns.dtype.itemsize}; "
                "the log is another robot's, or the robot file has changed: give the robot file that is inside the log"
            )
        self.records = np.concatenate([self.records, columns[columns["index"] >= self.begin]])
        return self.advance(over=False)

    def finish(self) -> list[Window]:
        """The trial is over: what is still open ends here."""
        return self.advance(over=True) + self.release()

    # ---- cutting

    def drivers(self, records: np.ndarray) -> np.ndarray:
        ours = np.where(records["bundle_id"] == self.old, OLD, np.where(records["bundle_id"] == self.new, NEW, NOBODY))
        moving = np.isin(records["mode"], (Mode.RUNNING, Mode.COASTING))
        return np.where(moving & ((records["rules"] & int(Rule.HUMAN)) != 0), PERSON, np.where(moving, ours, NOBODY))

    def advance(self, over: bool) -> list[Window]:
        records, found = self.records, list[Window]()
        count, who = len(records), self.drivers(records)
        follows = np.concatenate([[False], np.diff(records["index"].astype(np.int64)) == 1]) if count else np.zeros(0, bool)
        cuts = np.append(np.flatnonzero((who[1:] != who[:-1]) | ~follows[1:]) + 1, count)
        at = self.at
        while at < count:
            end = int(cuts[np.searchsorted(cuts, at, side="right")])
            if who[at] == NEW if self.approach_ticks else who[at] in NAMES:
                found += self.release()
                stop = min(end, at + (self.approach_ticks or self.window_ticks))
                if stop == count and not over:
                    break  # its fate, or the worth of its last tick, hangs on the next record
                self.ended = replace(self.end_run(who, follows, at, stop), is_approach=self.approach_ticks > 0)
                self.note_fall(at, stop)
                if stop - at == self.approach_ticks:
                    self.approach_ticks = 0
            else:
                stop = end
                self.read_aftermath(who, follows, at, stop)
            at = stop
        keep = max(at - 1, 0)
        self.records, self.at = records[keep:].copy(), at - keep
        return found

    def release(self) -> list[Window]:
        ended, self.ended = self.ended, None
        if ended is None or (ended.is_approach and not ended.window.fell):
            return []
        return [replace(ended.window, void="its approach") if ended.is_approach else ended.window]

    # ---- figures

    def end_run(self, who: np.ndarray, follows: np.ndarray, at: int, stop: int) -> Ended:
        records, ticks, driver = self.records, stop - at, NAMES[int(who[at])]
        window = self.measure(driver, follows, at, stop)
        if ticks < self.window_ticks:
            window = replace(window, void=self.why_ended(who, follows, stop))
        elif window.coasted > self.max_coasted:
            window = replace(window, void=f"no fresh frame at {window.coasted} of its ticks")
        elif window.counted < LEAST_SHARE * (self.window_ticks - self.settle_ticks):
            window = replace(window, void=f"only {window.counted} of its ticks count")
        taken_over = at > 0 and follows[at] and who[at - 1] in NAMES and who[at - 1] != who[at]
        # While one settles after the other nobody can tell whose fall it is. Safety first, as in the loop's guard: the new one's.
        blamed: Who = "new" if taken_over and ticks <= self.settle_ticks else driver
        return Ended(window, blamed, int(records["index"][stop - 1]))

    def why_ended(self, who: np.ndarray, follows: np.ndarray, stop: int) -> str:
        if stop == len(who):
            return "the log ends"
        if not follows[stop]:
            return "records are missing"
        words = {PERSON: "a person drove", OLD: "the old policy took over", NEW: "the new policy took over"}
        mode = int(self.records["mode"][stop])
        return words.get(int(who[stop])) or ("another policy took over" if mode == Mode.RUNNING else f"mode {Mode(mode).name}")

    def measure(self, driver: Who, follows: np.ndarray, at: int, stop: int) -> Window:
        records, last = self.records, len(self.records) - 1
        here = np.arange(at + self.settle_ticks, stop)
        after = np.minimum(here + 1, last)
        seen = (records["flags"][after] & (FRESH | OBS_OK)) == (FRESH | OBS_OK)
        unblended = (records["rules"][here] & int(Rule.BLEND)) == 0
        answered = records["mode"][here] == Mode.RUNNING
        here = here[follows[here] & (here < last) & follows[after] & seen & unblended & answered]
        applied, before = records["applied_action"][here].astype(np.float64), records["applied_action"][here - 1].astype(np.float64)
        parts = {
            name: np.broadcast_to(part, here.shape) for name, part in self.reward.parts(records["obs"][here + 1], applied, before).items()
        }
        worth = sum(parts.values(), np.zeros(len(here)))
        good = np.isfinite(worth) & np.isfinite(applied).all(axis=-1)
        here, applied, before, worth = here[good], applied[good], before[good], worth[good]
        asked = records["obs"][here][:, self.references].astype(np.float64)
        return Window(
            driver, int(records["index"][at]), stop - at, len(here), "", mean(worth), mean(np.abs(applied)), mean(applied**2),
            mean(np.abs(applied - before)), mean((records["rules"][here] & STEPPED_IN) != 0),
            tuple(mean(column) for column in (*asked.T, *np.abs(asked).T)), {name: mean(part[good]) for name, part in parts.items()},
            coasted=int((records["mode"][at:stop] == Mode.COASTING).sum()),
        )  # fmt: skip

    # ---- what came after

    def read_aftermath(self, who: np.ndarray, follows: np.ndarray, at: int, stop: int) -> None:
        modes = self.records["mode"]
        self.elsewhere += int(((who[at:stop] == NOBODY) & (modes[at:stop] == Mode.RUNNING)).sum())
        ended = self.ended
        if ended is None:
            return
        window, first = ended.window, int(who[at])
        stepped_in = bool(at > 0 and follows[at] and who[at - 1] in (OLD, NEW)) and (first == PERSON or modes[at] == Mode.ESTOP)
        if first == PERSON:
            window = replace(window, human=window.human + stop - at)
        ended.window = replace(window, interventions=window.interventions + int(stepped_in))
        self.note_fall(at, stop)

    def note_fall(self, at: int, stop: int) -> None:
        """Does the board latch a fall within records[at:stop], soon enough after the window that ended?"""
        ended, records = self.ended, self.records
        before = np.arange(at, stop) - 1
        fallen = (records["faults"] & FALLEN) != 0
        risen = at + np.flatnonzero(fallen[at:stop] & (before >= 0) & ~fallen[before])
        late = records["index"][risen].astype(np.int64) - (ended.last if ended else 0)
        if ended is not None and not ended.window.fell and (late <= self.fall_within).any():
            ended.window = replace(ended.window, fell=ended.blamed)
            self.falls[ended.blamed] += 1


def mean(values: np.ndarray) -> float:
    return float(np.mean(values, dtype=np.float64)) if len(values) else float("nan")


# ---- pairs


@dataclass(frozen=True, slots=True)
class Pair:
    old: Window
    new: Window

    @property
    def gain(self) -> float:
        """Mean reward per tick, new minus old."""
        return self.new.reward - self.old.reward


@dataclass(frozen=True, slots=True)
class Pairing:
    pairs: tuple[Pair, ...]
    void: int  # windows that were not flown through
    unlike: int  # pairs dropped because something else was asked for
    alone: int  # whole windows without a neighbour of the other policy


def pairs(windows: Sequence[Window], tolerance: float = 0.1) -> Pairing:
    """Neighbours among the whole windows, each used once. `tolerance`: of what was asked for, in m/s and rad/s, as a mean of a window."""
    whole = [window for window in windows if not window.void]
    found: list[Pair] = []
    unlike = alone = i = 0
    while i < len(whole):
        if i + 1 == len(whole) or whole[i].who == whole[i + 1].who:
            alone, i = alone + 1, i + 1
            continue
        one, other = whole[i], whole[i + 1]
        i += 2
        if np.allclose(one.references, other.references, rtol=0.0, atol=tolerance):
            found.append(Pair(one, other) if one.who == "old" else Pair(other, one))
        else:
            unlike += 1
    return Pairing(tuple(found), len(windows) - len(whole), unlike, alone)
