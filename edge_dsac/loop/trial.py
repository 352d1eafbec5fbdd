"""A candidate on trial: windows in which the old policy and the new one drive in turn, and a guard that ends it at once.

Decides at each tick boundary which of the two the slot holds for the next tick. Before the first window the new one is in the shadow: it
is asked, and does not drive: a robot that shakes by itself is lost after a tenth of a second of a wrong sign, and no guard is quicker.
Then it approaches: its share of the action rises from none to all, and what does not hold the robot loses it slowly, under the guard.
Knows no file: candidates.py carries the word between the folder and here. Rules that must stay true: the new one drives only in its own
windows, and the plan bounds their number, the repeated ones included; after a breach the old one drives the very next tick, without a fade.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_dsac.bundle.slot_folder import Stage
from edge_dsac.bundle.trial_plan import TrialPlan
from edge_dsac.loop.modes import MOVING
from edge_dsac.loop.slot import Engine
from edge_dsac.records import Fault, Mode, Rule

if TYPE_CHECKING:
    from edge_dsac.loop.control import ControlLoop
    from edge_dsac.loop.exercise import Exercise

HUMAN, BAD_NUMBER = int(Rule.HUMAN), int(Rule.BAD_NUMBER)
STEPPED_IN = int(Rule.LIMIT | Rule.SLEW | Rule.SPEED)
REAL_FAULTS = int(~(Fault.LIMITED | Fault.SLEWED) & 0xFFFF)  # the two others only describe a command
RESTLESS_FOR = 10  # times as long as a rest and an approach take, under the old one: a robot without rest until then is not the habit's
HEARD_AFTER_TICKS = 5  # so long at most until the board's complaint of a silence has come back to us


class Trial:
    """One trial from its first window to its end. All memory is taken here."""

    def __init__(self, old: Engine, new: Engine, plan: TrialPlan) -> None:
        self.old, self.new, self.plan = old, new, plan
        self.order = plan.order()
        self.starts = [-1] * len(self.order)  # per window: index of its first step in the log, of the attempt that counted
        self.window = self.ticks = self.voids = self.limited = self.coasted = self.new_ticks = 0
        self.driving = old  # what the slot should hold now
        self.stage: Stage | None = None  # None while it goes on
        self.why = ""
        self.shadowed = self.approached = 0
        self.shadow_shift: list[float] = []  # of each action, summed over the ticks in the shadow
        self.busy_ns = 0  # of the tick before
        self.stalls, self.stalled_tick, self.excused = 0, -HEARD_AFTER_TICKS, False
        self.low, self.high = np.array(plan.low, np.float32), np.array(plan.high, np.float32)
        self.retreats = self.rest = self.restless = 0
        self.since_new = plan.settle_ticks  # ticks since it last drove, or as good as never
        self.entries, self.mean = np.array(plan.habit.entries, np.intp), np.array(plan.habit.mean)
        self.whitening = np.array(plan.habit.whitening).reshape(len(self.entries), len(plan.habit.whitening) // max(len(self.entries), 1))
        self.below, self.above = np.zeros(len(plan.low), bool), np.zeros(len(plan.low), bool)

    @property
    def in_shadow(self) -> bool:
        return self.shadowed < self.plan.shadow_ticks

    @property
    def in_approach(self) -> bool:
        return not self.in_shadow and self.approached < self.plan.approach_ticks

    def end(self, stage: Stage, why: str) -> None:
        if self.stage is None:
            self.stage, self.why = stage, why
            self.driving = self.old

    def after_tick(self, loop: ControlLoop) -> None:
        """What the last tick means for the trial; then `driving` is right for the next one."""
        mode, is_new = loop.modes.mode, self.driving is self.new
        self.new_ticks += is_new
        self.since_new = 0 if is_new else self.since_new + 1
        excused = self.computer_to_blame(loop, mode)
        why = self.breach(loop, mode, is_new)
        if why and not excused:
            self.end(Stage.ABORTED, why)
            return
        person = bool(loop.slot.rules & HUMAN)
        if self.in_shadow:
            if mode == Mode.RUNNING and not loop.slot.rules:  # of a blend, nobody is the author
                self.ask_in_shadow(loop)
            if self.in_shadow:
                return
        elif self.in_approach:
            self.approach(loop, is_new, mode in MOVING and not person)
        elif mode in MOVING and not person and is_new == self.order[self.window]:
            self.count(loop.ticks - 1, mode == Mode.COASTING)
        elif self.ticks:
            self.void()
        if self.stage is None:
            due = self.rest <= 0 if self.in_approach else self.order[self.window]
            self.driving = self.new if due and mode in MOVING and not person else self.old

    def how_to_take(self) -> tuple[bool, int]:
        """(with a fade, in an approach of so many ticks) for the slot: what was taken off leaves no difference behind."""
        if self.driving is self.new:
            return True, 2 * self.plan.approach_ticks // 3 if self.in_approach else 0
        return self.stage is not Stage.ABORTED and not self.in_approach, 0

    def ask_in_shadow(self, loop: ControlLoop) -> None:
        """What would it have done? Its answer goes nowhere."""
        moved = [abs(float(wanted) - float(did)) for wanted, did in zip(self.new.act(loop.obs), loop.action, strict=True)]
        self.shadow_shift = [total + by for total, by in zip(self.shadow_shift or [0.0] * len(moved), moved, strict=True)]
        self.shadowed += 1
        most = self.plan.max_shadow_shift
        if self.shadowed < self.plan.shadow_ticks or most is None:
            return
        for total in self.shadow_shift:
            if not total <= most * self.shadowed:
                why = f"in the shadow its action was {total / self.shadowed:.3g} from the old one's on average, at most {most:g} may be"
                self.end(Stage.ABORTED, why)

    def approach(self, loop: ControlLoop, is_new: bool, free: bool) -> None:
        """One more tick of it; or the old one takes over, and when the robot has come to rest it begins anew."""
        if not is_new:
            self.rest = self.plan.settle_ticks if self.unusual(loop) else self.rest - free
            self.restless += free
            if self.restless > RESTLESS_FOR * (self.plan.settle_ticks + self.plan.approach_ticks):
                self.end(Stage.INTERRUPTED, "the robot does what it usually does not under the old policy, too")
            return
        if free and (self.approached + 1 == self.plan.approach_ticks or not self.unusual(loop)):
            self.approached += 1  # the last one is not asked: who cuts the log into windows sees by their number that all went well
            return
        if free:
            self.retreats += 1
        else:
            self.void()
        share, self.approached, self.limited, self.rest = self.approached / self.plan.approach_ticks, 0, 0, self.plan.settle_ticks
        if self.retreats > self.plan.max_retreats:
            self.end(Stage.ABORTED, f"the robot did what it usually does not at {share:.0%} of the approach, for the {self.retreats}. time")

    def unusual(self, loop: ControlLoop) -> bool:
        away = (loop.obs.vector[self.entries] - self.mean) @ self.whitening
        return bool(len(self.entries)) and not float(away @ away) <= self.plan.habit.most

    def count(self, index: int, coasted: bool) -> None:
        """One more tick of this window; `index` is its step in the log. A lost frame now and then belongs to a robot's life."""
        if self.ticks == 0:
            self.starts[self.window] = index
            self.limited = self.coasted = 0
        self.ticks += 1
        self.coasted += coasted
        if self.ticks < self.plan.window_ticks:
            return
        if self.coasted > self.plan.max_coasted_share * self.plan.window_ticks:
            self.void()
            return
        self.window += 1
        self.ticks = 0
        if self.window == len(self.order):
            self.end(Stage.OVER, "all windows flown")

    def void(self) -> None:
        """The robot did not run, was seldom heard, or a person drove: this window is flown again, but not without end."""
        self.ticks = 0
        self.starts[self.window] = -1
        self.voids += 1
        if self.voids > self.plan.max_voids:
            self.end(Stage.INTERRUPTED, f"{self.voids} windows were not flown through, {self.plan.max_voids} may be")

    # ---- the guard

    def breach(self, loop: ControlLoop, mode: Mode, is_new: bool) -> str:
        """Why the new one must not go on; empty if it may."""
        if mode not in MOVING:
            return self.blame(loop, mode, is_new)
        if not is_new:
            return ""
        faults = loop.frame.faults & REAL_FAULTS
        if faults:
            return f"board fault {names_of(faults)}"
        return self.beyond_envelope(loop) or self.beyond_limits(loop) or self.beyond_shift(loop)

    def blame(self, loop: ControlLoop, mode: Mode, is_new: bool) -> str:
        """The robot stopped obeying. While the old one settles it, that is still the new one's doing."""
        after_new = self.since_new < self.plan.settle_ticks
        if mode not in (Mode.DAMPED, Mode.FAULT, Mode.ESTOP) or not (is_new or after_new):
            return ""
        faults = names_of(loop.frame.faults & REAL_FAULTS)
        whose = "while it drove" if is_new else "right after it drove"
        return f"{mode.name} ({loop.modes.because.name}{', board fault ' + faults if faults else ''}) {whose}"

    def computer_to_blame(self, loop: ControlLoop, mode: Mode) -> bool:
        """The board stopped for want of commands, and for nothing else, right after the loop had been left waiting; until it runs again.

        Left waiting: the tick was late though the one before it was quick. A slow policy makes long ticks, and answers for them.
        """
        stalled_ns, self.busy_ns = loop.late_ns - self.busy_ns, loop.busy_ns
        if 2 * stalled_ns > loop.command_timeout_ns:
            self.stalled_tick = loop.ticks
        told = loop.ticks - self.stalled_tick <= HEARD_AFTER_TICKS and loop.frame.faults & REAL_FAULTS == Fault.TIMEOUT
        self.stalls += told and not self.excused
        self.excused = told or (self.excused and mode not in MOVING)
        return self.excused

    def beyond_envelope(self, loop: ControlLoop) -> str:
        seen = loop.obs.vector
        if not (np.less(seen, self.low, self.below).any() or np.greater(seen, self.high, self.above).any()):
            return ""
        i = int(np.argmax(self.below | self.above))
        return f"{loop.observer.layout.labels[i]} is {seen[i]:.4g}, outside {self.low[i]:.4g} to {self.high[i]:.4g}"

    def beyond_limits(self, loop: ControlLoop) -> str:
        rules = int(loop.command.rules)
        if rules & BAD_NUMBER:
            return "it answered with what is no number"
        if rules & STEPPED_IN:
            self.limited += 1
            if self.limited > self.plan.max_limited_share * self.plan.window_ticks:
                return f"the limiter stepped in on {self.limited} of a window's {self.plan.window_ticks} ticks"
        return ""

    def beyond_shift(self, loop: ControlLoop) -> str:
        most = self.plan.max_action_shift
        if most is None or loop.modes.mode != Mode.RUNNING or loop.slot.rules:  # of a blend, nobody is the author
            return ""
        for wanted, before in zip(loop.action, self.old.act(loop.obs), strict=True):
            if not abs(wanted - before) <= most:
                return f"its action is {abs(wanted - before):.3g} from the old one's, at most {most:g} was agreed"
        return ""

    def details(self) -> dict[str, Any]:
        """For people and for the judge: whole windows by the index of their first step in the log."""
        windows = [{"new": new, "first": first} for new, first in zip(self.order, self.starts, strict=True) if first >= 0]
        return {
            "windows": windows[: self.window], "window_ticks": self.plan.window_ticks, "settle_ticks": self.plan.settle_ticks,
            "of": len(self.order), "voids": self.voids, "stalls": self.stalls, "retreats": self.retreats, "new_ticks": self.new_ticks,
            "shadow_shift": [total / self.shadowed if math.isfinite(total) else None for total in self.shadow_shift],
        }  # fmt: skip


class Seat:
    """Where a trial sits in the loop, at most one at a time. An aide of the loop; another thread offers, withdraws and collects."""

    def __init__(self, exercise: Exercise | None = None) -> None:
        """`exercise`: begins anew with each window, so that both policies are asked for the same."""
        self.exercise = exercise
        self.offered: Trial | None = None  # a single assignment by the other thread, as is `withdrawn`
        self.withdrawn: Trial | None = None
        self.trial: Trial | None = None
        self.ended: Trial | None = None  # for the other thread to tell the folder
        self.tell: Callable[[], None] | None = None  # wakes it

    def between_ticks(self, loop: ControlLoop) -> None:
        trial = self.trial
        if trial is None:
            if self.offered is None:
                return
            self.trial, self.offered = self.offered, None
            self.begin_lap()
            return  # the tick that has just been was nobody's window
        if loop.slot.engine is not trial.driving:
            trial.end(Stage.INTERRUPTED, "another policy became current")
            self.leave(trial)
            return
        if self.withdrawn is trial:
            trial.end(Stage.INTERRUPTED, "the candidate was taken away or replaced")
        else:
            trial.after_tick(loop)
        if loop.slot.engine is not trial.driving:
            loop.slot.take(trial.driving, *trial.how_to_take())
        if trial.stage is not None:
            self.leave(trial)
        elif trial.ticks == 0 and not trial.in_shadow and not trial.in_approach:
            self.begin_lap()

    def begin_lap(self) -> None:
        if self.exercise is not None:
            self.exercise.restart()

    def leave(self, trial: Trial) -> None:
        self.trial, self.ended = None, trial
        if self.tell is not None:
            self.tell()

    def land(self, failed: bool) -> None:
        """The flight is over. `failed`: by an exception, of which nobody knows yet whose it was."""
        trial = self.trial or self.offered
        if trial is None:
            return
        if failed and trial.driving is trial.new:
            trial.end(Stage.ABORTED, "an exception in the loop while it drove")
        trial.end(Stage.INTERRUPTED, "the flight ended")
        self.offered = None
        self.leave(trial)


def names_of(faults: int) -> str:
    return "+".join(str(fault.name) for fault in Fault if fault and fault & faults)
