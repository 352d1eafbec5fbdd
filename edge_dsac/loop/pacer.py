"""When the next tick is due. Absolute deadlines on one grid, a short spin at the end, lateness as data.

Missed-tick rule: a tick that starts more than a period late drops the deadlines that have passed and counts them; the loop
never runs two ticks back to back to catch up, because a burst of commands is worse than a hole.
The idle time right before a deadline may be used to rehearse (rehearsal.py); it never delays the deadline.
The grid may be shifted, slowly, to sit just behind the arrival of the board's frames (`follow`); it never stretches.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

WIDEST_TRIM = 1 / 1000  # of a period per tick: invisible to a controller, yet faster than any crystal drifts
TRIM_GAIN = 1 / 64
IMPATIENCE, CALM, MOST_PATIENCE = 1 / 50, 0.9995, 0.3  # of a sensor period, per frame that came too late; per tick; at most
REHEARSALS = 2  # the first one is slow, for it meets cold caches; the second one shows that they are warm
ROOM = 2  # a rehearsal starts only if there is time for so many usual ones: it must never delay the deadline
LONGEST_REST = 1024  # ticks without a rehearsal after one that did delay it; doubles from 1 as long as they go on doing so
FIRST_WAKING_NS, MOST_WAKING = 100_000, 1 / 4  # the kernel wakes a FIFO thread 20-60 us late, 150 where caches are cold; of a period
FIRST_REHEARSAL_NS = 150_000
PIECE_NS, TICK = 150_000, 0.35  # of another thread's work; of a period, in which nearly every tick has done its own


@dataclass(slots=True)
class Usual:
    """How long something usually takes: `longer` and `shorter` are in balance where it takes longer in
    (1 - shorter) / (longer - shorter) of all cases. It moves by a share, not to what was measured, so one odd case says little.
    """

    ns: float
    longer: float
    shorter: float

    def learn(self, took_ns: int) -> None:
        self.ns *= self.longer if took_ns > self.ns else self.shorter


@dataclass(slots=True)
class Pacer:
    """`clock` and `sleep` are arguments so that tests own the time. Every attribute in ns of the host's monotonic clock."""

    period_ns: int
    clock: Callable[[], int] = time.monotonic_ns
    sleep: Callable[[float], None] = time.sleep
    rehearse: Callable[[], None] | None = None
    waking: Usual = field(default_factory=lambda: Usual(FIRST_WAKING_NS, 1.05, 0.99995))  # later than that: one in a thousand
    rehearsal: Usual = field(default_factory=lambda: Usual(FIRST_REHEARSAL_NS, 1.05, 0.998))  # longer than that: one in twenty-five
    rest: int = 0  # ticks to come without a rehearsal
    rested: int = 0  # as many after the last one that was too long
    patience_ns: float = 0.0  # added to the age that is wanted, where frames come later than that
    deadline_ns: int = 0
    wake_ns: int = 0  # until then the loop sleeps, or slept
    missed: int = 0
    trimmed_ns: int = 0

    def start(self) -> None:
        self.deadline_ns = self.clock() + self.period_ns

    def wait(self) -> int:
        """Sleeps until shortly before the next deadline, rehearses, spins; returns how late the tick starts after it."""
        waking_ns = min(self.waking.ns, MOST_WAKING * self.period_ns)
        rehearsals = self.rehearsals(waking_ns)
        self.wake_ns = self.deadline_ns - int(waking_ns + self.room_ns(rehearsals))
        remaining = self.wake_ns - self.clock()
        if remaining > 0:
            self.sleep(remaining * 1e-9)
            self.waking.learn(self.clock() - self.wake_ns)
        if self.rehearse is not None:
            self.warm_up(self.rehearse, rehearsals)
        now = self.clock()
        while now < self.deadline_ns:
            now = self.clock()
        late_ns = now - self.deadline_ns
        passed = late_ns // self.period_ns
        self.missed += passed
        self.deadline_ns += (passed + 1) * self.period_ns
        return late_ns

    def rehearsals(self, waking_ns: float) -> int:
        """As many as fit into half of a period: a FIFO thread that is hardly ever asleep is stopped by the kernel, for 50 ms."""
        if self.rehearse is None or self.rest > 0:
            return 0
        return next((count for count in range(REHEARSALS, 0, -1) if 2 * (waking_ns + self.room_ns(count)) <= self.period_ns), 0)

    def room_ns(self, rehearsals: int) -> float:
        return (rehearsals - 1 + ROOM) * self.rehearsal.ns if rehearsals else 0.0

    def warm_up(self, rehearse: Callable[[], None], rehearsals: int) -> None:
        if self.rest > 0:
            self.rest -= 1
            return
        done, begun = 0, self.clock()
        while done < rehearsals and self.deadline_ns - begun >= self.room_ns(1):
            rehearse()
            ended = self.clock()
            self.rehearsal.learn(ended - begun)
            if ended > self.deadline_ns:
                self.rest = self.rested = min(2 * self.rested + 1, LONGEST_REST)
                return
            self.rested //= 2
            done, begun = done + 1, ended
        if done < max(rehearsals, 1):
            self.rehearsal.learn(0)  # there was no room: or one slow rehearsal would have ended rehearsing for good

    def out_of_the_way(self) -> None:
        """For another thread of this process, between two short pieces of its work: returns at once while the loop sleeps for as long
        as such a piece takes; else after the next tick, when it sleeps again.
        """
        now = self.clock()
        if self.wake_ns - now < PIECE_NS:
            self.sleep(max(self.deadline_ns + int(TICK * self.period_ns) - now, PIECE_NS) * 1e-9)

    def follow(self, age_ns: int, target_ns: int, every_ns: int, at_once: bool) -> None:
        """Shifts the grid so that frames sent each `every_ns` are `target_ns` old when a tick starts.

        `at_once` while the motors are off; otherwise by at most a thousandth of a period.
        """
        if age_ns > every_ns + target_ns // 2:  # the frame that should have been there was still on its way
            self.patience_ns = min(self.patience_ns + every_ns * IMPATIENCE, MOST_PATIENCE * every_ns)
        else:
            self.patience_ns *= CALM
        error = (age_ns - target_ns - int(self.patience_ns) + every_ns // 2) % every_ns - every_ns // 2  # positive: we start too late
        if at_once:
            shift = -error
        else:
            widest = int(self.period_ns * WIDEST_TRIM)
            shift = max(-widest, min(widest, int(-error * TRIM_GAIN)))
        self.deadline_ns += shift
        self.trimmed_ns += shift
