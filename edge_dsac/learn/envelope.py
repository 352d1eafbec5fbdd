"""How far the robot may go while a candidate drives it, per entry of the observation: beyond, the loop takes the candidate off.

Drawn around what the robot itself has lived through and most of what the simulation saw, with some room. Falls are among both: so of
the lean the robot's own rows alone count, without their last few thousandths, and no room reaches near the angle at which the board
lets go. And `habit`: what it usually does, of all entries together. Knows no trial and no loop.
"""

from __future__ import annotations

import numpy as np

from edge_dsac.bundle.trial_plan import Habit
from edge_dsac.records import Float
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec

Ends = tuple[Float, Float]
OPEN = ("applied_action", "speed_target_m_s", "yaw_rate_target_rad_s")  # what says nothing about danger
AROUND = ("path_ahead", "obstacle", "battery")  # what is not the robot's doing
ASKED = {"speed_m_s": "speed_target_m_s", "yaw_rate_rad_s": "yaw_rate_target_rad_s"}
LEAN = "pitch_rad"
RARE = 0.05  # of the simulation's rows, at either end: what learning lived through before it could balance
FALLS = 0.002  # of the robot's rows, at either end of its lean: a fall under the parent is no measure of what is safe
CAUGHT = 0.7  # of the board's tilt limit: a robot that leans further is on its way to the floor, whoever drives
UNUSUAL = 0.001  # of the robot's rows: a second in a quarter of an hour, and its falls
LEAST = 0.02  # of an entry's scale: the range of one that never moved


def envelope(spec: RobotSpec, layout: ObservationLayout, simulated: Float, own: Float, room: float, lean_room: float) -> Ends:
    """(low, high) in SI units of rows as the networks see them (scaled). `room`: a share of each range, added at both ends."""
    low = np.minimum(np.quantile(simulated, RARE, axis=0), own.min(axis=0))
    high = np.maximum(np.quantile(simulated, 1.0 - RARE, axis=0), own.max(axis=0))
    wide_low, wide_high = widened(low, high, room)
    lean_low, lean_high = lean_ends(spec, layout, own, lean_room)
    lean, open_ends = named(layout, (LEAN,)), named(layout, OPEN)
    low = np.where(lean, lean_low, wide_low / layout.scale)
    high = np.where(lean, lean_high, wide_high / layout.scale)
    return np.where(open_ends, -layout.clip, low), np.where(open_ends, layout.clip, high)


def habit(layout: ObservationLayout, own: Float) -> Habit:
    """What the robot's own rows (scaled) are like, as they go together: one that is falling leans and turns at once, and each of the two
    may still be within what it does when it shakes. What was asked for is taken off: a candidate that turns as it is told does nothing
    unusual, though the robot never did it before."""
    count = errors(layout)
    entries = np.flatnonzero(count.any(axis=1))
    seen = own[:, entries] / layout.scale[entries]
    mean = seen.mean(axis=0)
    away = (seen - mean) @ count[entries]
    least = LEAST / layout.scale[count.argmax(axis=0)]
    spread = np.atleast_2d(np.cov(away.T)) + np.diag(np.square(least))
    whitening = np.linalg.cholesky(np.linalg.inv(spread))
    most = np.quantile(np.square(away @ whitening).sum(axis=1), 1.0 - UNUSUAL)
    return Habit(tuple(entries.tolist()), tuple(mean.tolist()), tuple((count[entries] @ whitening).ravel().tolist()), float(most))


def errors(layout: ObservationLayout) -> Float:
    """`[entries, told]`: an observation times it is what tells of the robot's doing, less what was asked for."""
    at = {label: i for i, label in enumerate(layout.labels)}
    told = [label for label, out in zip(layout.labels, named(layout, OPEN + AROUND), strict=True) if not out]
    count = np.zeros((len(at), len(told)))
    for column, label in enumerate(told):
        name, *back = label.split("@")
        asked = at.get("@".join([ASKED.get(name, ""), *back]))
        count[at[label], column] = 1.0
        if asked is not None:
            count[asked, column] = -1.0
    return count


def lean_ends(spec: RobotSpec, layout: ObservationLayout, own: Float, room: float) -> Ends:
    """With room, but not beyond where a robot is caught; where it was itself it may be."""
    caught = CAUGHT * spec.safety.tilt_limit_rad
    low, high = np.quantile(own, [FALLS, 1.0 - FALLS], axis=0)
    wide_low, wide_high = widened(low, high, room)
    most_low, most_high = np.minimum(low / layout.scale, -caught), np.maximum(high / layout.scale, caught)
    return np.maximum(wide_low / layout.scale, most_low), np.minimum(wide_high / layout.scale, most_high)


def widened(low: Float, high: Float, room: float) -> Ends:
    more = room * np.maximum(high - low, LEAST)
    return low - more, high + more


def named(layout: ObservationLayout, beginnings: tuple[str, ...]) -> Float:
    """Of each entry whether its name begins so."""
    return np.array([label.startswith(beginnings) for label in layout.labels])
