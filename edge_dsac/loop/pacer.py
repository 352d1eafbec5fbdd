"""When the next tick is due. Absolute deadlines on one grid, a short spin at the end, lateness as data.

Missed-tick rule: a tick that starts more than a period late drops the deadlines that have passed and counts them; the loop
never runs two ticks back to back to catch up, because a burst of commands is worse than a hole.
The idle time right before a deadline may be used to rehearse (rehearsal.py); it never delays the deadline.
The grid may be shifted, slowly, to sit just behind the arrival of the board's frames (`follow`); it never stretches.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

SPIN_NS = 100_000  # the kernel wakes a FIFO thread 20-60 us late; the rest is spun away
WIDEST_TRIM = 1 / 1000  # of a period per tick: invisible to a controller, yet faster than any crystal drifts
TRIM_GAIN = 1 / 64
IMPATIENCE, CALM, MOST_PATIENCE = 1 / 50, 0.9995, 0.3  # of a sensor period, per frame that came too late; per tick; at most
REHEARSALS = 2  # the first one is slow, for it meets cold caches; the second one shows that they are warm
ROOM = 2  # a rehearsal starts only if there is time for so many usual ones: it must never delay the deadline
FIRST_GUESS_NS = 150_000
LONGER, SHORTER = 1.05, 0.998  # the guess moves by a share, not to what was measured: nine of ten are to be shorter


@dataclass(slots=True)
class Pacer:
    """`clock` and `sleep` are arguments so that tests own the time. Every attribute in ns of the host's monotonic clock."""

    period_ns: int
    clock: Callable[[], int] = time.monotonic_ns
    sleep: Callable[[float], None] = time.sleep
    spin_ns: int = SPIN_NS
    rehearse: Callable[[], None] | None = None
    rehearsal_ns: float = FIRST_GUESS_NS  # longer than nine of ten took
    patience_ns: float = 0.0  # added to the age that is wanted, where frames come later than that
    deadline_ns: int = 0
    missed: int = 0
    trimmed_ns: int = 0

    def start(self) -> None:
        self.deadline_ns = self.clock() + self.period_ns

    def wait(self) -> int:
        """Sleeps until the next deadline; returns how late the tick starts after it."""
        early_ns = self.spin_ns + self.room_ns()
        remaining = self.deadline_ns - self.clock()
        if remaining > early_ns:
            self.sleep((remaining - early_ns) * 1e-9)
        if self.rehearse is not None:
            self.warm_up(self.rehearse)
        now = self.clock()
        while now < self.deadline_ns:
            now = self.clock()
        late_ns = now - self.deadline_ns
        passed = late_ns // self.period_ns
        self.missed += passed
        self.deadline_ns += (passed + 1) * self.period_ns
        return late_ns

    def room_ns(self) -> int:
        """How long before the spin to wake up for rehearsing; 0 where it would take more than half of the period."""
        wanted = int((REHEARSALS - 1 + ROOM) * self.rehearsal_ns)
        return 0 if self.rehearse is None or wanted > self.period_ns // 2 else wanted

    def warm_up(self, rehearse: Callable[[], None]) -> None:
        begun = self.clock()
        for _ in range(REHEARSALS):
            if self.deadline_ns - begun < ROOM * self.rehearsal_ns:
                break
            rehearse()
            ended = self.clock()
            if ended > self.deadline_ns:
                self.rehearsal_ns *= 2.0  # not again soon: there is no room until this has shrunk
                return
            self.rehearsal_ns *= LONGER if ended - begun > self.rehearsal_ns else SHORTER
            begun = ended
        else:
            return
        self.rehearsal_ns *= SHORTER  # there was no room: or one slow rehearsal would have ended rehearsing for good

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
