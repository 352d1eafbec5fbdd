"""The control loop. Start reading here: `tick` is the whole way of one value, from the board's frame to the motor command.

One thread, one process; no torch, no disk, nothing that grows. In `tick` nothing raises for bad input: it becomes an event
and moves the mode (modes.py). Rule that must stay true: a command is sent only in RUNNING or COASTING.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edge_dsac.loop.limiter import Limiter
from edge_dsac.loop.modes import MOVING, ModeKeeper
from edge_dsac.loop.observer import Observer
from edge_dsac.loop.pacer import Pacer
from edge_dsac.loop.slot import Slot
from edge_dsac.records import BoardMode, CommandFrame, Event, Fault, Float, Mode, Observation, SensorFrame, Step
from edge_dsac.spec.robot import RobotSpec

STOPPED_OBEYING = frozenset({BoardMode.DISARMED, BoardMode.DAMPED, BoardMode.FALLBACK})
LATCHED = frozenset({BoardMode.FAULT, BoardMode.ESTOP})
ASK_AGAIN_NS = 100_000_000  # an ARM that is not answered is repeated at this interval


class Link(Protocol):
    """The board as the loop sees it. None of these blocks, and none raises for what comes over the wire."""

    def receive(self) -> SensorFrame | None: ...
    def send(self, command: CommandFrame) -> None: ...
    def is_up(self) -> bool: ...
    def is_refused(self) -> bool: ...
    def request_arm(self) -> None: ...
    def request_disarm(self) -> None: ...
    def request_estop(self) -> None: ...
    def reopen_if_gone(self, now_ns: int) -> None: ...
    def frame_age_ns(self, now_ns: int) -> int: ...


class Log(Protocol):
    """Where steps go. `append` must neither block nor raise; `free` is how many fit before one unrecorded is lost."""

    def append(self, step: Step) -> None: ...
    def free(self) -> int: ...


class Aide(Protocol):
    """Has something to do between ticks: a trial of another policy, an exercise, a person's word. In `tick` nobody has."""

    def between_ticks(self, loop: ControlLoop) -> None: ...


@dataclass(frozen=True, slots=True)
class Conduct:
    """The choices of whoever runs the loop; facts about the robot are in its file."""

    rearm: bool = False  # after the board stopped obeying, ask it again by ourselves (never after a fault)
    rearm_after_ms: int = 200  # only once the link has been good for this long
    phase_us: int = 0  # how old a frame should be when the tick starts; 0: the wire's own time and a margin
    overwrite_log: bool = False  # rather lose old steps than stop the robot, when the recorder cannot keep up


class ControlLoop:
    def __init__(
        self, spec: RobotSpec, link: Link, observer: Observer, slot: Slot, limiter: Limiter, log: Log, conduct: Conduct = Conduct(),
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:  # fmt: skip
        self.link, self.observer, self.slot, self.limiter, self.log = link, observer, slot, limiter, log
        self.conduct, self.clock = conduct, clock
        self.aides: tuple[Aide, ...] = ()  # in the order in which they act; set before the first tick
        self.modes = ModeKeeper()
        self.max_coast_ticks = spec.rates.max_coast_ticks
        self.frame = blank_frame(spec)  # the last one that came
        self.obs = Observation(np.zeros(observer.layout.size, np.float32), 0, False)
        self.action: Float = np.zeros(len(spec.actions))
        self.command = limiter.damp(self.frame)
        self.arm_wanted = False
        self.asked_ns = 0
        self.good_since_ns = 0
        self.coasted = self.coasted_total = self.ticks = 0
        self.age_ns = -1  # of the last frame, at the deadline of the last tick
        self.late_ns = self.busy_ns = 0  # of the last tick
        self.command_timeout_ns = spec.rates.command_timeout_ms * 1_000_000  # the board's patience with us

    def tick(self, late_ns: int) -> None:
        """The way of one value."""
        start_ns = self.clock()
        frame = self.link.receive()
        if frame is not None:
            self.frame, self.obs = frame, self.observer.observe(frame)
        mode = self.judge(frame is not None and bool(self.obs.ok), start_ns)
        if mode == Mode.RUNNING:
            self.action = self.slot.act(self.obs)
            self.command = self.limiter.limit(self.action, self.frame)
        elif mode == Mode.COASTING:
            self.command = self.limiter.hold(self.frame)
        else:
            self.command = self.limiter.damp(self.frame)
        if mode in MOVING:
            self.link.send(self.command)
        self.remember(start_ns, late_ns)

    def judge(self, fresh: bool, now_ns: int) -> Mode:
        """What was seen becomes events; the table decides. Worst news last, so that it has the last word."""
        modes, board = self.modes, self.frame.board
        if fresh:
            self.coasted = 0
            modes.on(Event.FRAME_FRESH)
            if self.arm_wanted and board == BoardMode.ARMED and modes.on(Event.BOARD_ARMED):
                self.arm_wanted = False
        else:
            self.coasted += 1
            if self.coasted > self.max_coast_ticks:
                modes.on(Event.COAST_EXHAUSTED)
            elif modes.on(Event.FRAME_MISSING) or modes.mode == Mode.COASTING:
                self.coasted_total += 1
        if fresh and board != BoardMode.ARMED:
            modes.on(Event.BOARD_FAULT if board in LATCHED else Event.BOARD_STOPPED_OBEYING)
        if self.log.free() <= 1 and not self.conduct.overwrite_log:
            modes.on(Event.LOG_FULL)
        self.judge_link()
        if modes.mode not in MOVING:
            self.while_still(fresh, now_ns)
        return modes.mode

    def judge_link(self) -> None:
        if self.link.is_up():
            if self.modes.mode == Mode.BOOT:
                self.modes.on(Event.LINK_UP)
        else:
            self.modes.on(Event.LINK_REFUSED if self.link.is_refused() else Event.LINK_DOWN)

    def while_still(self, fresh: bool, now_ns: int) -> None:
        """Nothing moves by our hand: look for the port again, and ask for the motors if that is wanted and in order."""
        self.link.reopen_if_gone(now_ns)
        if not fresh:
            self.good_since_ns = now_ns
        steady = now_ns - self.good_since_ns > self.conduct.rearm_after_ms * 1_000_000
        if self.modes.mode == Mode.DAMPED and self.conduct.rearm and steady:
            self.arm_wanted = True
        may_ask = self.modes.mode in (Mode.IDLE, Mode.DAMPED) and self.link.is_up() and now_ns - self.asked_ns > ASK_AGAIN_NS
        if self.arm_wanted and may_ask:
            self.asked_ns = now_ns
            self.link.request_arm()

    def remember(self, start_ns: int, late_ns: int) -> None:
        rules = self.slot.rules
        if rules and self.modes.mode in MOVING:
            self.command = self.command._replace(rules=self.command.rules | rules)
        age_ns = self.link.frame_age_ns(start_ns)
        self.age_ns = age_ns - late_ns if age_ns >= 0 else -1
        self.late_ns, self.busy_ns = late_ns, self.clock() - start_ns
        self.log.append(
            Step(
                self.frame, self.obs, self.action, self.command, self.slot.bundle_id, self.modes.mode, self.modes.because,
                start_ns, late_ns, self.busy_ns, age_ns, self.coasted == 0,
            )
        )  # fmt: skip
        self.ticks += 1

    def between_ticks(self, pacer: Pacer, target_ns: int, sensor_period_ns: int) -> None:
        """What may happen only where no value is under way."""
        for aide in self.aides:
            aide.between_ticks(self)
        self.slot.swap_if_offered()
        if self.coasted == 0 and self.age_ns >= 0:
            pacer.follow(self.age_ns, target_ns, sensor_period_ns, at_once=self.modes.mode not in MOVING)

    def arm(self) -> None:
        """The operator's explicit word; the board has the last one."""
        self.arm_wanted = True

    def stop(self) -> None:
        """Motors off, in good order. Repeated by the caller until the board says so."""
        self.arm_wanted = False
        self.modes.on(Event.STOP)
        self.link.request_disarm()

    def fail(self) -> None:
        """An exception got out of a tick: off, and latched."""
        self.arm_wanted = False
        self.modes.on(Event.LOOP_ERROR)
        self.link.request_disarm()


def blank_frame(spec: RobotSpec) -> SensorFrame:
    """What stands in the log before the first frame: no reading of anything."""
    joints, three, extra = (math.nan,) * len(spec.joints), (math.nan,) * 3, (math.nan,) * len(spec.extras)
    return SensorFrame(0, 0, BoardMode.DISARMED, Fault.NONE, 0, joints, joints, (0.0,) * len(spec.joints), three, three, math.nan, extra)
