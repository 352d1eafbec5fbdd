"""Where the board's clock stands against ours: four stamps per exchange, the quickest ones kept, a line through them.

The only place where instants of two clocks are subtracted from one another. Pure: every stamp is an argument. Plain floats
and short lists, no arrays, because it runs inside the control loop. Rule that must stay true: one odd exchange changes
nothing, and while the exchanges disagree with the estimate there is no estimate.
"""

from __future__ import annotations

BUCKET_NS = 1_000_000_000  # of each second only the quickest exchange is kept: what waited in a queue says little
BUCKETS = 16  # a crystal's drift changes over minutes; what is older than this is forgotten
TRUSTED_NS = 20_000  # excess of a round trip over the quickest at which its weight is down to a quarter
SETTLED_BUCKETS = 3  # before that two exchanges' jitter would look like drift
MAX_DRIFT = 1e-3  # no crystal is off by more than 1000 ppm; more is jitter over too short a time
JUMP_NS = 5_000_000  # nothing that drifts moves this far between two exchanges: a clock was set, or the board restarted
JUMP_EXCHANGES = 3  # a stalled process looks like a jump too, once

Sample = tuple[int, float, int]  # instant on our clock, offset from the first one, round trip; all in ns


class ClockSync:
    """host_ns = mcu_us * 1000 + offset, and how fast the offset moves."""

    def __init__(self) -> None:
        self.jumps = 0
        self.restart()

    def restart(self) -> None:
        """What was known belongs to another boot, or to a clock that was set."""
        self.exchanges = self.disagreeing = 0
        self.base_ns = 0  # the first offset; kept whole, because a float would round a long uptime
        self.past: list[Sample] = []  # the quickest exchange of each past second, oldest first
        self.quickest: Sample | None = None  # of the second that is running
        self.bucket = 0
        self.at_ns, self.offset_ns, self.slope = 0, 0.0, 0.0  # the line, through (at_ns, base_ns + offset_ns)
        self.quickest_ns = 0

    def exchange(self, host_send_ns: int, mcu_receive_us: int, mcu_send_us: int, host_receive_ns: int) -> None:
        """One question and answer; the board's stamps are on the unwrapped scale of its frames."""
        round_trip_ns = (host_receive_ns - host_send_ns) - (mcu_send_us - mcu_receive_us) * 1000
        if round_trip_ns < 0:
            return  # the board's clock stood or was set within the exchange
        whole_offset_ns = (host_send_ns + host_receive_ns) // 2 - (mcu_receive_us + mcu_send_us) * 500
        if self.exchanges == 0:
            self.base_ns = whole_offset_ns
        offset_ns = float(whole_offset_ns - self.base_ns)
        if self.exchanges and abs(offset_ns - self.line_at(host_receive_ns)) > JUMP_NS + round_trip_ns / 2:
            self.disagree()
            return
        self.disagreeing = 0
        self.exchanges += 1
        self.keep((host_receive_ns, offset_ns, round_trip_ns))

    def disagree(self) -> None:
        self.disagreeing += 1
        if self.disagreeing >= JUMP_EXCHANGES:
            self.jumps += 1
            self.restart()

    def keep(self, sample: Sample) -> None:
        bucket = sample[0] // BUCKET_NS
        if self.quickest is not None and bucket != self.bucket:
            self.past.append(self.quickest)
            del self.past[:-BUCKETS]
            self.quickest = None
        self.bucket = bucket
        if self.quickest is None or sample[2] <= self.quickest[2]:
            self.quickest = sample
            self.fit([*self.past, sample])

    def fit(self, samples: list[Sample]) -> None:
        """A line by least squares, each sample weighted by how little it waited; level until there are enough of them."""
        self.quickest_ns = quickest_ns = min(sample[2] for sample in samples)
        newest_ns = samples[-1][0]
        points = [(1.0 / (1.0 + (trip - quickest_ns) / TRUSTED_NS) ** 2, t - newest_ns, offset) for t, offset, trip in samples]
        total = sum(weight for weight, _, _ in points)
        mean_t = sum(weight * t for weight, t, _ in points) / total
        mean_offset = sum(weight * offset for weight, _, offset in points) / total
        if len(samples) >= SETTLED_BUCKETS:
            spread = sum(weight * (t - mean_t) ** 2 for weight, t, _ in points)
            slope = sum(weight * (t - mean_t) * (offset - mean_offset) for weight, t, offset in points) / spread
            self.slope = max(-MAX_DRIFT, min(MAX_DRIFT, slope))
        self.at_ns, self.offset_ns = newest_ns, mean_offset - self.slope * mean_t

    def line_at(self, host_ns: int) -> float:
        return self.offset_ns + self.slope * (host_ns - self.at_ns)

    def host_ns_of(self, mcu_us: int) -> int | None:
        """When, on our clock, the board's clock showed this; None before the first exchange and while they disagree."""
        if not self.exchanges or self.disagreeing:
            return None
        roughly_ns = mcu_us * 1000 + self.base_ns
        return roughly_ns + round(self.line_at(roughly_ns + int(self.offset_ns)))

    @property
    def drift_ppm(self) -> float:
        """How much faster our clock runs than the board's."""
        return self.slope * 1e6

    @property
    def uncertainty_ns(self) -> int:
        """Half the quickest round trip, because the two ways need not take the same time; -1 while there is no estimate."""
        return self.quickest_ns // 2 if self.exchanges and not self.disagreeing else -1
