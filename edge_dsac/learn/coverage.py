"""What a robot has seen often can go: rows by the cell of observation space they lie in, and whose turn it is to leave.

Pure functions. Cells are buckets of a few fixed projections of the scaled observation, the same on every machine and in every
version of numpy: the signs are bits of a hash. Rule that must stay true: no row leaves while a cell more crowded than its own
has one that may.
"""

from __future__ import annotations

import hashlib

import numpy as np

from edge_dsac.records import Float

NAME = b"edge_dsac coverage cells 1"  # the seed; another number is another set of cells
PROJECTIONS = 5
BUCKETS = 5  # per projection: 3125 cells
AT_ONCE = 4096  # rows: in float64 all of them would be twice the buffer
WIDTH = 0.5  # scaled observations are about one in size, and so are their projections


def directions(obs_size: int) -> Float:
    """`[obs, projections]`, signs over the root of the size."""
    count = obs_size * PROJECTIONS
    bits = np.unpackbits(np.frombuffer(hashlib.shake_256(NAME).digest((count + 7) // 8), np.uint8))[:count]
    return (bits.reshape(obs_size, PROJECTIONS) * 2.0 - 1.0) / np.sqrt(max(obs_size, 1))


def cells(obs: Float) -> np.ndarray:
    """The cell of each row of `obs[rows, n]`, scaled."""
    along, half = directions(obs.shape[1]), BUCKETS // 2
    found = np.empty(len(obs), np.int64)
    for at in range(0, len(obs), AT_ONCE):
        bucket = np.clip(np.rint(obs[at : at + AT_ONCE] @ along / WIDTH), -half, half).astype(np.int64) + half
        found[at : at + AT_ONCE] = bucket @ BUCKETS ** np.arange(PROJECTIONS)
    return found


def surplus(cell: np.ndarray, candidates: int, count: int) -> np.ndarray:
    """Which of the first `candidates` rows go, as a mask of them: `count`, of the most crowded cells, there the oldest first."""
    _, of, crowd = np.unique(cell, return_inverse=True, return_counts=True)
    may_go = np.bincount(of[:candidates], minlength=len(crowd))
    low, high = 0, int(crowd.max(initial=0))  # the least level to which no more than `count` rows have to go
    while low < high:
        level = (low + high) // 2
        if np.minimum(may_go, np.maximum(crowd - level, 0)).sum() > count:
            low = level + 1
        else:
            high = level
    go = np.minimum(may_go, np.maximum(crowd - low, 0))
    at_the_level = np.flatnonzero((go < may_go) & (crowd - go == low))
    go[at_the_level[: max(count - int(go.sum()), 0)]] += 1
    order = np.argsort(of[:candidates], kind="stable")
    starts = np.concatenate([[0], np.cumsum(may_go)[:-1]])
    rank = np.empty(candidates, np.int64)
    rank[order] = np.arange(candidates) - starts[of[:candidates][order]]
    return rank < go[of[:candidates]]
