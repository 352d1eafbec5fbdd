"""Falls, as the robot's rows tell of them. Knows no trial, no journal and no loop."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from edge_dsac.learn.transitions import Rows
from edge_dsac.records import Float

FALLING_S = 1.0  # before the board says that it fell, it was on its way; and nobody could have caught it


def upright(rows: Rows) -> Float:
    """The observations of all rows but those on the way to the floor, under whomever: a candidate that made the robot fall does not make
    falling usual. Of a robot that does nothing else, all."""
    t_ns, fallen_ns = np.asarray(rows.t_host_ns), moments(rows)
    next_fall_ns = np.append(fallen_ns, np.iinfo(np.int64).max)[np.searchsorted(fallen_ns, t_ns)]
    keep = next_fall_ns - t_ns > FALLING_S * 1e9
    return np.asarray(rows.obs)[keep] if keep.any() else np.asarray(rows.obs)


def falls_under(rows: Rows, policies: Collection[int]) -> int:
    """While one of these drove, or so soon after that whoever drove then could not help it."""
    drove = np.isin(np.asarray(rows.bundle_id), np.array(sorted(policies), np.uint64))
    drove_ns, fallen_ns = np.sort(np.asarray(rows.t_host_ns)[drove]), moments(rows)
    if not len(drove_ns):
        return 0
    last = np.searchsorted(drove_ns, fallen_ns, side="right") - 1
    return int(((last >= 0) & (fallen_ns - drove_ns[last] <= FALLING_S * 1e9)).sum())


def moments(rows: Rows) -> np.ndarray:
    """When it fell; the last rows before a fall all tell of the same one."""
    told_ns = np.sort(np.asarray(rows.t_host_ns)[np.asarray(rows.done) > 0.0])
    return told_ns[np.append(np.diff(told_ns) > FALLING_S * 1e9, True)] if len(told_ns) else told_ns
