"""The simulated robot: motors and sensors in SI, `n` at once, in steps of the board's own tick.

Serves the training environments (n many) and the virtual board (n = 1) alike. Knows no wire, no observer and no reward.
Motors off means both low sides of the H-bridge are on: the wheels brake on their own back-EMF.
Sensors show the state at the beginning of the last tick, as a sampled IMU does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import mujoco
import numpy as np
from mujoco.batch import Batch

from edge_dsac.records import Float, Readings
from edge_dsac.spec.robot import RobotSpec
from sim.mjcf import load_model, tyre_of
from sim.obstacle import RADAR_HZ, Obstacle
from sim.randomize import Drawn, Ranges, draw, load_ranges
from sim.warp import EngineError, WarpBatch

MOST_LEAN_AT_RESET_RAD = 0.06
Engine = Literal["mujoco", "warp"]


@dataclass(frozen=True, slots=True)
class Truth:
    """What no sensor tells: for ending episodes, scores and pictures. `[n]` or `[n, k]`."""

    pitch_rad: Float
    roll_rad: Float
    position_m: Float  # [n, 2]
    heading_rad: Float
    speed_m_s: Float  # forward, over ground
    yaw_rate_rad_s: Float
    obstacle_gap_m: Float  # between the hulls; infinite where there is no obstacle


class Physics(Protocol):
    """What the plant asks of a batch of simulations; mujoco.batch.Batch has it, and more. `ids` None means all."""

    def bind(self, name: str) -> Float: ...

    def expand(self, name: str) -> Float: ...

    def step(self, *, nstep: int = 1) -> None: ...

    def forward(self, ids: Any = None) -> None: ...

    def reset(self, ids: Any = None) -> None: ...

    def set_const(self, ids: Any = None) -> None: ...


def make_physics(engine: Engine, model: mujoco.MjModel, n: int, threads: int) -> Physics:
    if engine == "mujoco":
        return Batch(model, n, nthread=threads, persistent=True)
    if engine == "warp":
        return WarpBatch(model, n, RANDOMIZED_FIELDS)
    raise EngineError(f"engine {engine!r} is not one of mujoco, warp")


class Plant:
    def __init__(
        self, spec: RobotSpec, n: int = 1, seed: int = 0, ranges: Ranges | None = None, threads: int = 1, engine: Engine = "mujoco"
    ) -> None:
        self.spec, self.n = spec, n
        self.ranges = ranges or load_ranges("nominal")
        self.model = load_model(spec)
        self.generator = np.random.default_rng(seed)
        self.batch = make_physics(engine, self.model, n, threads)
        self.joints = [int(self.model.joint(joint.name).qposadr[0]) for joint in spec.joints]
        self.dofs = [int(self.model.joint(joint.name).dofadr[0]) for joint in spec.joints]
        self.tyres = [tyre_of(self.model, joint.name) for joint in spec.joints] if spec.drive else []
        self.chassis = int(self.model.body("chassis").id)
        # Bound once: every look-up of a batch's attribute costs microseconds, and a virtual board makes thousands a second.
        self.states, self.speeds, self.volts = self.batch.bind("qpos"), self.batch.bind("qvel"), self.batch.bind("ctrl")
        self.sensordata = self.batch.bind("sensordata")
        self.fields = {name: self.batch.expand(name) for name in RANDOMIZED_FIELDS}
        self.base = {name: np.array(getattr(self.model, name)) for name in RANDOMIZED_FIELDS}
        self.counts_per_rad = np.array([joint.counts_per_rad for joint in spec.joints])
        self.command_limit = np.array([joint.command_limit for joint in spec.joints])
        self.delay_limit_s = float(self.model.actuator_history[:, 0].min()) * self.model.opt.timestep
        self.drawn: Drawn = draw(self.ranges, n, self.generator)
        self.amps = np.zeros(n)
        self.has_radar = any(extra.name == "radar_x_m" for extra in spec.extras)
        self.obstacle = Obstacle(n, self.generator)
        self.extras = np.full((n, len(spec.extras)), np.nan)
        self.ticks_since_scan = 0
        self.reset()

    def reset(self, where: Any = None) -> None:
        """New robots, drawn anew, standing nearly upright at the origin; `where` is a mask, None means all."""
        ids = np.arange(self.n) if where is None else np.flatnonzero(where)
        if not len(ids):
            return
        fresh = draw(self.ranges, len(ids), self.generator)
        for name, values in fresh.values.items():
            self.drawn.values[name][ids] = values
        self.write_fields(ids)
        self.batch.set_const(ids)
        self.batch.reset(ids)
        lean = self.generator.uniform(-MOST_LEAN_AT_RESET_RAD, MOST_LEAN_AT_RESET_RAD, len(ids)) if self.tilts else np.zeros(len(ids))
        qpos = self.states
        qpos[ids, 2] = self.model.qpos0[2] * self.drawn["wheel_radius_scale"][ids]
        qpos[ids, 3], qpos[ids, 5] = np.cos(lean / 2), np.sin(lean / 2)
        self.amps[ids] = 0.0
        self.batch.forward(ids)
        self.obstacle.clear(ids)
        self.extras[ids] = np.nan

    @property
    def tilts(self) -> bool:
        return bool(self.spec.drive and self.spec.drive.wheels_tilt_with_body)

    def write_fields(self, ids: Any) -> None:
        """One robot's own masses, motors and tyres into its own copy of the model."""
        drawn, base, fields = self.drawn, self.base, self.fields
        mass = drawn["mass_scale"][ids, None]
        fields["body_mass"][ids] = base["body_mass"] * mass
        fields["body_inertia"][ids] = base["body_inertia"] * mass[..., None]
        fields["body_ipos"][ids] = base["body_ipos"]
        fields["body_ipos"][ids, self.chassis, 0] += drawn["com_forward_m"][ids]
        fields["body_ipos"][ids, self.chassis, 2] += drawn["com_up_m"][ids]
        fields["actuator_gainprm"][ids] = base["actuator_gainprm"]
        fields["actuator_gainprm"][ids, :, 1] *= drawn["motor_constant_scale"][ids, None]
        fields["actuator_delay"][ids] = np.minimum(drawn["delay_s"][ids, None], self.delay_limit_s)
        fields["dof_frictionloss"][ids] = base["dof_frictionloss"] * drawn["friction_scale"][ids, None]
        fields["dof_damping"][ids] = base["dof_damping"] * drawn["damping_scale"][ids, None]
        fields["geom_size"][ids] = base["geom_size"]
        fields["geom_friction"][ids] = base["geom_friction"]
        for tyre in self.tyres:
            fields["geom_size"][ids, tyre, 0] = base["geom_size"][tyre, 0] * drawn["wheel_radius_scale"][ids]
            fields["geom_friction"][ids, tyre] = base["geom_friction"][tyre] * drawn["ground_friction_scale"][ids, None]

    def drive(self, command: Float | None, ticks: int = 1) -> None:
        """Holds `command[n, joints]` (command_unit) for so many ticks of the board; None is motors off."""
        volts = self.battery_v()
        if command is None:
            self.volts[:] = 0.0
        else:
            duty = np.where(np.abs(command) < self.drawn["dead_band"][:, None], 0.0, command)
            self.volts[:] = duty * volts[:, None]
        self.batch.step(nstep=ticks)
        if self.has_radar:
            self.obstacle.advance(ticks / self.spec.rates.board_hz)
            self.ticks_since_scan += ticks
        motor = self.fields["actuator_gainprm"]
        back_emf = motor[:, :, 1] * self.speeds[:, self.dofs]
        self.amps = np.abs((self.volts - back_emf) / motor[:, :, 0]).sum(axis=1) if command is not None else np.zeros(self.n)

    def battery_v(self) -> Float:
        """Under the load of the last tick."""
        return np.maximum(self.spec.battery.nominal_v * self.drawn["battery_scale"] - self.drawn["battery_ohm"] * self.amps, 0.0)

    def position_rad(self) -> Float:
        """What the encoders count, `[n, joints]`, to the last whole count."""
        return np.asarray(np.round(self.states[:, self.joints] * self.counts_per_rad) / self.counts_per_rad)

    def sense(self, at_rest: Any = False) -> Readings:
        """`at_rest` (for all, or a mask): a hand still holds the robot, and its IMU feels gravity alone."""
        drawn, noise = self.drawn, self.generator.standard_normal((self.n, 6))
        gyro = self.sensordata[:, 0:3] + drawn["gyro_bias_rad_s"] + noise[:, 0:3] * drawn["gyro_noise_rad_s"][:, None]
        felt = self.sensordata[:, 3:6]
        if np.any(at_rest):
            felt = np.where(np.broadcast_to(at_rest, (self.n,))[:, None], self.gravity(), felt)
        accel = felt + drawn["accel_bias_m_s2"] + noise[:, 3:6] * drawn["accel_noise_m_s2"][:, None]
        if self.spec.imu:
            gyro = np.round(gyro * self.spec.imu.gyro_lsb_per_rad_s) / self.spec.imu.gyro_lsb_per_rad_s
            accel = np.round(accel * self.spec.imu.accel_lsb_per_m_s2) / self.spec.imu.accel_lsb_per_m_s2
        return Readings(self.position_rad(), gyro, accel, self.battery_v(), self.sense_extras())

    def gravity(self) -> Float:
        """In body axes, as an accelerometer at rest shows it."""
        w, x, y, z = self.states[:, 3], self.states[:, 4], self.states[:, 5], self.states[:, 6]
        up = np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], axis=-1)
        return np.asarray(up * -self.model.opt.gravity[2])

    def sense_extras(self) -> Float:
        """The radar scans at its own rate; between scans its last reading stands."""
        if self.has_radar and self.ticks_since_scan >= self.spec.rates.board_hz // RADAR_HZ:
            self.ticks_since_scan = 0
            truth = self.truth()
            seen = self.obstacle.seen_from(truth.position_m, truth.heading_rad, truth.speed_m_s, self.drawn)
            for i, extra in enumerate(self.spec.extras):
                if extra.name in seen:
                    self.extras[:, i] = seen[extra.name]
        return self.extras.copy()

    def truth(self) -> Truth:
        qpos, qvel = self.states, self.speeds
        w, x, y, z = qpos[:, 3], qpos[:, 4], qpos[:, 5], qpos[:, 6]
        forward = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], axis=-1)
        left_up = 2 * (y * z + w * x)
        up_up = 1 - 2 * (x * x + y * y)
        heading = np.arctan2(forward[:, 1], forward[:, 0])
        speed = qvel[:, 0] * np.cos(heading) + qvel[:, 1] * np.sin(heading)
        # Beyond a quarter turn the forward axis leans back again: the lean is told by where up points.
        pitch = np.arctan2(-forward[:, 2], np.copysign(np.hypot(forward[:, 0], forward[:, 1]), up_up))
        position = np.array(qpos[:, :2])
        gap = self.obstacle.gap_m(position) if self.has_radar else np.full(self.n, np.inf)
        return Truth(pitch, np.arctan2(left_up, up_up), position, heading, speed, np.array(qvel[:, 5]), gap)

    def place(self, where: Any, position_m: Float, heading_rad: Float) -> None:
        """Puts the robots `where` (a mask) down at a pose on the floor, upright and at rest."""
        ids = np.flatnonzero(where)
        self.states[ids, :2] = position_m
        self.states[ids, 3], self.states[ids, 6] = np.cos(heading_rad / 2), np.sin(heading_rad / 2)
        self.states[ids, 4:6] = 0.0
        self.batch.forward(ids)

    def qpos(self, row: int = 0) -> Float:
        return np.array(self.states[row])


RANDOMIZED_FIELDS = (
    "body_mass", "body_inertia", "body_ipos", "actuator_gainprm", "actuator_delay", "dof_frictionloss", "dof_damping", "geom_size",
    "geom_friction",
)  # fmt: skip


class SinglePlant:
    """One robot without the batch axis: what a virtual board drives. A hand holds it upright until it is first driven."""

    def __init__(self, spec: RobotSpec, seed: int = 0, ranges: Ranges | None = None) -> None:
        self.plant = Plant(spec, 1, seed, ranges)
        self.held = self.plant.tilts

    def reset(self) -> None:
        self.plant.reset()
        self.held = self.plant.tilts

    def pick_up(self) -> None:
        """The same robot where it is, upright and at rest, in a hand."""
        plant, truth = self.plant, self.plant.truth()
        plant.states[0, 2] = plant.model.qpos0[2] * plant.drawn["wheel_radius_scale"][0]
        plant.speeds[0] = 0.0
        plant.place(np.array([True]), truth.position_m[0], truth.heading_rad[0])
        self.held = plant.tilts

    def drive(self, command: Float | None, ticks: int) -> None:
        if self.held and command is None:
            return
        self.held = False
        self.plant.drive(None if command is None else command[None], ticks)

    def sense(self) -> Readings:
        many = self.plant.sense(at_rest=self.held)
        return Readings(many.position_rad[0], many.gyro_rad_s[0], many.accel_m_s2[0], float(many.battery_v[0]), many.extra[0])

    def qpos(self) -> Float:
        """Pose for pictures: the model's qpos, then the obstacle's x and y."""
        return np.concatenate([self.plant.qpos(), self.plant.obstacle.position_m[0]])
