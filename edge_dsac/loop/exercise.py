"""A lap of references that is flown again and again, so that two policies are asked for the same and can be compared.

An aide of the loop: says before each tick what is asked for. Knows no policy and no clock: a lap is a number of ticks. Rule that must
stay true: the same tick of a lap asks for the same, whenever the lap began.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from edge_dsac.loop.observer import Reference
from edge_dsac.spec.schema import Reader, SpecError, fact, parse_toml

if TYPE_CHECKING:
    from edge_dsac.loop.control import ControlLoop


@dataclass(frozen=True, slots=True)
class Leg:
    seconds: float = fact("how long this is asked for", low=0.01, high=600.0)
    speed_m_s: float = fact("forward", low=-5.0, high=5.0, default=0.0)
    yaw_rate_rad_s: float = fact("left positive", low=-10.0, high=10.0, default=0.0)


@dataclass(frozen=True, slots=True)
class Lap:
    legs: tuple[Leg, ...] = fact("one after the other, and again from the first")


# Gentle for both robots; what is turned left is turned right again, what is driven forward is driven back: a lap ends where it began.
LAPS = {
    "drive": Lap((Leg(1.4), Leg(2.0, 0.3), Leg(1.3, 0.0, 0.6), Leg(2.0, -0.3), Leg(1.3, 0.0, -0.6))),
    "brisk": Lap((Leg(0.5), Leg(1.0, 0.3), Leg(0.75, 0.0, 0.8), Leg(1.0, -0.3), Leg(0.75, 0.0, -0.8))),
    "dash": Lap((Leg(0.5), Leg(0.75, 0.3), Leg(0.5, 0.0, 0.8), Leg(0.75, -0.3), Leg(0.5, 0.0, -0.8))),
    "stand": Lap((Leg(8.0),)),
}


def read_lap(name: str) -> Lap:
    """A lap by its name, or the file that describes one: `[[legs]]` with seconds, speed_m_s and yaw_rate_rad_s."""
    if name in LAPS:
        return LAPS[name]
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"exercise {name!r}: neither one of {', '.join(LAPS)} nor a file that can be read: {error}") from None
    lap = Reader(text, name).read(Lap, parse_toml(text, name), "")
    if not lap.legs:
        raise SpecError(f"{name}: legs: expected at least one")
    return lap


class Exercise:
    def __init__(self, lap: Lap, control_hz: int) -> None:
        """One Reference per leg is made here, and a list that says for each tick of the lap which one."""
        self.references: list[Reference] = []
        ends_s = accumulate(leg.seconds for leg in lap.legs)
        for leg, end_s in zip(lap.legs, ends_s, strict=True):
            ticks = max(1, round(end_s * control_hz) - len(self.references))  # so that the lap is as long as it says at any rate
            self.references += [Reference(leg.speed_m_s, leg.yaw_rate_rad_s)] * ticks
        self.lap_ticks = len(self.references)
        self.at = 0  # tick of the lap that comes next

    def restart(self) -> None:
        """The next tick is the first of a lap."""
        self.at = 0

    def between_ticks(self, loop: ControlLoop) -> None:
        loop.observer.reference = self.references[self.at]
        self.at = self.at + 1 if self.at + 1 < self.lap_ticks else 0
