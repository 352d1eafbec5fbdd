"""One control tick of many simulated robots: Limiter -> plant -> SensorFrame -> Observer, the very objects of the loop.

What the environments, the baselines' tuning and every comparison stand on. Knows no reward and no end of an episode.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_dsac.loop.limiter import Limiter
from edge_dsac.loop.observer import Observer
from edge_dsac.records import BoardMode, Fault, Float, SensorFrame, Values
from edge_dsac.spec.robot import RobotSpec
from sim.plant import Engine, Plant
from sim.randomize import Ranges


class Rollout:
    def __init__(
        self, spec: RobotSpec, n: int, seed: int, ranges: Ranges | None = None, threads: int = 1, engine: Engine = "mujoco"
    ) -> None:
        self.spec, self.n = spec, n
        self.plant = Plant(spec, n, seed, ranges, threads, engine)
        self.observer, self.limiter = Observer(spec, (n,)), Limiter(spec, (n,))
        rates = spec.rates
        self.sensor_ticks = rates.board_hz // rates.sensor_hz
        self.early_ticks = rates.board_hz // rates.control_hz - self.sensor_ticks
        self.period_us = 1_000_000 // rates.control_hz
        self.t_mcu_us = np.zeros(n, np.int64)
        self.applied: Values = self.limiter.still
        self.applied_action: Float = np.zeros((n, len(spec.actions)))
        self.position_before = self.plant.position_rad()
        self.look(True)

    def look(self, put_down: Any) -> None:
        """A frame without a step, for robots that were just put down (a mask, or True for all); the others neither stop nor age."""
        new = np.broadcast_to(put_down, (self.n,))
        self.position_before = np.where(new[:, None], self.plant.position_rad(), self.position_before)
        self.frame = self.make_frame(self.position_before, at_rest=put_down)
        self.obs = self.observer.observe(self.frame, ticked=False)

    def step(self, action: Float) -> None:
        """One control period under `action[n, actions]`; afterwards `frame`, `obs` and `applied_action` are the new ones."""
        command = self.limiter.limit(action, self.frame)
        join = self.limiter.lanes.join
        driven = join(command.command)
        if self.early_ticks:
            self.plant.drive(driven, self.early_ticks)
        self.position_before = self.plant.position_rad()
        self.plant.drive(driven, self.sensor_ticks)
        self.t_mcu_us = self.t_mcu_us + self.period_us
        self.applied, self.applied_action = command.command, join(command.applied_action)
        self.frame = self.make_frame(self.position_before)
        self.obs = self.observer.observe(self.frame)

    def make_frame(self, position_before: Float, at_rest: Any = False) -> SensorFrame:
        """As the board makes it: the velocity is the difference of counts over one sensor period."""
        readings = self.plant.sense(at_rest)
        velocity = (readings.position_rad - position_before) * self.spec.rates.sensor_hz
        split = self.limiter.lanes.split
        return SensorFrame(
            0, self.t_mcu_us, BoardMode.ARMED, Fault.NONE, 0, split(readings.position_rad), split(velocity), self.applied,
            split(readings.gyro_rad_s), split(readings.accel_m_s2), readings.battery_v, split(readings.extra),
        )  # fmt: skip

    def reset(self, where: Any = None) -> None:
        """New robots at rest; `where` is a mask, None means all. Look again once they stand where they should."""
        mask = np.ones(self.n, bool) if where is None else np.asarray(where)
        self.plant.reset(mask)
        self.observer.reset(mask)
        self.limiter.reset(mask)
        self.applied = self.limiter.last
