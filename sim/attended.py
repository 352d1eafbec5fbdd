"""A simulated robot with somebody beside it: one that has lain there with its motors off is put on its wheels again.

What a person does between two flights of a session. Knows no board and no policy. Rule that must stay true: nobody reaches for a
robot whose motors are on.
"""

from __future__ import annotations

import numpy as np

from edge_dsac.records import Float, Readings
from sim.plant import SinglePlant

AFTER_S = 2.0  # motors off for so long before anybody dares


class Attended:
    """A Plant of firmware_bridge.virtual_mcu around the one that falls."""

    def __init__(self, plant: SinglePlant, after_s: float = AFTER_S) -> None:
        self.plant = plant
        self.after_ticks = round(after_s * plant.plant.spec.rates.board_hz)
        self.off_ticks = self.picked_up = 0

    def reset(self) -> None:
        self.plant.reset()
        self.off_ticks = 0

    def drive(self, command: Float | None, ticks: int) -> None:
        self.off_ticks = self.off_ticks + ticks if command is None else 0
        if self.off_ticks >= self.after_ticks and self.lies():
            self.plant.pick_up()
            self.picked_up += 1
            self.off_ticks = 0
        self.plant.drive(command, ticks)

    def lies(self) -> bool:
        truth = self.plant.plant.truth()
        return bool(max(abs(truth.pitch_rad[0]), abs(truth.roll_rad[0])) > self.plant.plant.spec.safety.tilt_limit_rad)

    def sense(self) -> Readings:
        return self.plant.sense()

    def qpos(self) -> Float:
        return np.asarray(self.plant.qpos())
