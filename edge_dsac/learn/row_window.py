"""The rows kept, in memory: a window that slides over one array, so that the learner sees them whole and oldest first.

Knows records as bytes only. Rule that must stay true: no operation copies more than an eighth of the window at once, or the
memory of a small board would have to hold everything twice.
"""

from __future__ import annotations

import numpy as np


class RowWindow:
    def __init__(self, dtype: np.dtype[np.void], capacity: int, slack: int) -> None:
        """`slack`: how many rows the window may slide before it is moved back; pages are touched as they fill."""
        self.bytes = np.empty((capacity + slack, dtype.itemsize), np.uint8)
        self.table = self.bytes.view(dtype)[:, 0]
        self.slack, self.start, self.stop = slack, 0, 0

    @property
    def records(self) -> np.ndarray:
        """A view; what follows moves it."""
        return self.table[self.start : self.stop]

    def push(self, records: np.ndarray) -> None:
        if self.stop + len(records) > len(self.table):
            self.slide_back()
        self.bytes[self.stop : self.stop + len(records)] = np.ascontiguousarray(records).view(np.uint8).reshape(len(records), -1)
        self.stop += len(records)

    def slide_back(self) -> None:
        size, step = self.stop - self.start, max(self.slack, 1)
        for at in range(0, size, step):
            end = min(at + step, size)
            self.bytes[at:end] = self.bytes[self.start + at : self.start + end]
        self.start, self.stop = 0, size

    def drop_oldest(self, count: int) -> None:
        self.start += count

    def replace_oldest(self, count: int, kept: np.ndarray) -> None:
        """`kept`, a copy of some of the first `count` rows, takes their place."""
        self.start += count - len(kept)
        self.bytes[self.start : self.start + len(kept)] = kept.view(np.uint8).reshape(len(kept), -1)
