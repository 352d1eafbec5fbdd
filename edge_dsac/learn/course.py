"""When fine-tuning does what, in the robot's own time; and that there is nothing more to do."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_dsac.learn.evidence import Limits
from edge_dsac.learn.guiding import Guidance


class TunerStop(ValueError):
    """There is nothing more to do here, and why."""


@dataclass(frozen=True, slots=True)
class Course:
    """When what is done. Seconds are the robot's."""

    first_s: float = 15.0
    """of rows before anything is learned from them"""
    updates_per_row: float = 1.0
    """no more updates than this for each row there is"""
    first_updates: int = 2500
    """before the first candidate"""
    candidate_updates: int = 400
    """between two candidates: seldom enough to be another one, and often, for the seconds in which one drives before it is taken off
    tell the critics what they were wrong about. Without them they lead the actor to where it is worse, and there it stays"""
    window_s: float = 4.0
    """of a trial: the old and the new policy drive so long in turn; whole laps where there is an exercise"""
    settle_s: float = 1.0
    """at a window's start, not counted"""
    shadow_s: float = 2.0
    """before the first window, in which a candidate is asked and does not drive: its mean shift is held to `limits` once more"""
    approach_s: float = 6.0
    """then its share of the action rises from none to all: what would lose the robot at once loses it slowly, and is taken off"""
    pairs: int = 24
    """of windows, at most; a clear difference takes eight"""
    most_falls: int = 2
    """of the robot, by candidates: then the session ends, for what it believes of this robot is wrong"""
    envelope: float = 1.0
    """room around what was seen so far, as a share of its range, that the robot may reach while a candidate drives, ..."""
    envelope_lean: float = 0.25
    """... and of how far it leans: the old one must still be able to catch it"""
    limits: Limits = field(default_factory=Limits)
    """what a candidate must keep before it is tried"""
    guidance: Guidance = field(default_factory=Guidance)
    """of recipe critic: how far its critics may go from the actor's own action"""
