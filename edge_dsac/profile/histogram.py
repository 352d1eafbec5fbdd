"""Times in a log-linear histogram: 3 % wide buckets from a nanosecond to ten minutes, a fixed size, whatever is put in.

Knows nothing of what is timed. Rule that must stay true: a quantile is never below the true one; it may be 3 % above.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FINE_BITS = 5  # 32 buckets per power of two
POWERS = 40  # up to 2^40 ns, 18 minutes
SIZE = (POWERS - FINE_BITS + 1) << FINE_BITS


class Histogram:
    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(SIZE, np.int64)
        self.longest_ns = 0

    def add(self, times_ns: NDArray[np.int64] | list[int]) -> None:
        times = np.atleast_1d(np.asarray(times_ns, np.int64))
        if len(times):
            self.counts += np.bincount(bucket_of(times), minlength=SIZE)
            self.longest_ns = max(self.longest_ns, int(times.max()))

    @property
    def count(self) -> int:
        return int(self.counts.sum())

    def quantile_ns(self, share: float) -> int:
        """The upper edge of the bucket in which it lies; the longest time itself at the end. 0 where nothing was added."""
        if not self.count:
            return 0
        rank = max(1, int(np.ceil(share * self.count)))
        bucket = int(np.searchsorted(np.cumsum(self.counts), rank))
        return self.longest_ns if bucket == SIZE - 1 else min(upper_edge_ns(bucket), self.longest_ns)

    def figures(self) -> dict[str, float]:
        """In microseconds, as every report of this project has them."""
        quantiles = {"p50_us": 0.5, "p99_us": 0.99, "p999_us": 0.999}
        found = {name: self.quantile_ns(share) / 1000.0 for name, share in quantiles.items()}
        return {**found, "max_us": self.longest_ns / 1000.0, "count": self.count}


def bucket_of(times_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Below 64 ns one bucket per nanosecond; above, 32 per power of two."""
    times = np.clip(times_ns, 0, (1 << POWERS) - 1)
    shift = np.maximum(np.frexp(times.astype(np.float64))[1] - 1 - FINE_BITS, 0)
    return np.asarray((shift << FINE_BITS) + (times >> shift), np.int64)


def upper_edge_ns(bucket: int) -> int:
    """The largest time that falls into it."""
    shift = max((bucket >> FINE_BITS) - 1, 0)
    return ((bucket - (shift << FINE_BITS) + 1) << shift) - 1
