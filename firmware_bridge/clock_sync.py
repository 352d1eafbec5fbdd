"""Where the board's clock stands against ours: four stamps per exchange, the quickest exchanges trusted, drift followed.

The only place where instants of two clocks are subtracted from one another. Pure: every stamp is an argument. A few floats
and no arrays, because it runs inside the control loop.
"""

from __future__ import annotations

TRUST = 1.5  # an exchange slower than this times the quickest one says little about the offset
FORGET = 1.02  # the quickest one is forgotten by 2 % per exchange, so that a link that became slower is believed again
OFFSET_GAIN, DRIFT_GAIN = 0.25, 0.02
JUMP_NS = 20_000_000  # nothing that drifts moves this far between two exchanges: a clock was set, or the board restarted
SETTLED_EXCHANGES = 3


class ClockSync:
    """host_ns = mcu_us * 1000 + offset, and how fast the offset moves."""

    def __init__(self) -> None:
        self.jumps = 0
        self.restart()

    def restart(self) -> None:
        self.exchanges = 0
        self.offset_ns = 0.0
        self.drift_ppm = 0.0
        self.quickest_ns = 1e12
        self.at_ns = 0

    def exchange(self, host_send_ns: int, mcu_receive_us: int, mcu_send_us: int, host_receive_ns: int) -> None:
        """One question and answer; the board's stamps are on the unwrapped scale of its frames."""
        round_trip_ns = (host_receive_ns - host_send_ns) - (mcu_send_us - mcu_receive_us) * 1000
        if round_trip_ns < 0:
            return
        offset_ns = ((host_send_ns + host_receive_ns) - (mcu_receive_us + mcu_send_us) * 1000) / 2
        if self.exchanges and abs(offset_ns - self.offset_at(host_receive_ns)) > JUMP_NS + round_trip_ns:
            self.jumps += 1
            self.restart()
        self.quickest_ns = min(self.quickest_ns * FORGET, max(round_trip_ns, 1))
        if self.exchanges == 0:
            self.offset_ns = offset_ns
        elif round_trip_ns <= TRUST * self.quickest_ns:
            self.correct(offset_ns, host_receive_ns)
        else:
            return
        self.at_ns = host_receive_ns
        self.exchanges += 1

    def correct(self, offset_ns: float, now_ns: int) -> None:
        elapsed_s = max((now_ns - self.at_ns) * 1e-9, 1e-3)
        predicted = self.offset_at(now_ns)
        error = offset_ns - predicted
        gain = max(OFFSET_GAIN, 1.0 / (self.exchanges + 1))
        self.offset_ns = predicted + gain * error
        if self.exchanges >= SETTLED_EXCHANGES:
            self.drift_ppm += DRIFT_GAIN * error / elapsed_s * 1e-3

    def offset_at(self, host_ns: int) -> float:
        return self.offset_ns + self.drift_ppm * 1e-6 * (host_ns - self.at_ns)

    def host_ns_of(self, mcu_us: int) -> int | None:
        """When, on our clock, the board's clock showed this; None before the first exchange."""
        if not self.exchanges:
            return None
        return mcu_us * 1000 + round(self.offset_at(mcu_us * 1000 + int(self.offset_ns)))

    @property
    def uncertainty_ns(self) -> int:
        """Half the quickest round trip: the two ways need not take the same time."""
        return int(self.quickest_ns / 2) if self.exchanges else -1
