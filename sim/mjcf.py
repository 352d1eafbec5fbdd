"""Finds, loads and checks the MuJoCo model of a robot: what the robot file says and what the model is must agree."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np

from edge_dsac.spec.robot import RobotSpec
from edge_dsac.spec.schema import SpecError

SHIPPED = Path(__file__).parent / "robots"
LENGTH_TOLERANCE_M = 1e-6


def find_mjcf(spec: RobotSpec) -> Path:
    """Beside the robot file first, then among the shipped ones."""
    places = [Path(spec.folder) / spec.mjcf, SHIPPED / spec.mjcf]
    for place in places:
        if place.is_file():
            return place
    raise SpecError(f"{spec.model}: mjcf {spec.mjcf!r} is neither at {places[0]} nor at {places[1]}")


def load_model(spec: RobotSpec) -> mujoco.MjModel:
    path = find_mjcf(spec)
    try:
        model = mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise SpecError(f"{path}: MuJoCo refuses it: {error}") from None
    check_mjcf(spec, model, str(path))
    model.opt.timestep = 1.0 / spec.rates.board_hz
    return model


def check_mjcf(spec: RobotSpec, model: mujoco.MjModel, path: str) -> None:
    def fail(what: str, expected: object, got: object) -> SpecError:
        return SpecError(f"{path}: {what}: the robot file of {spec.model} says {expected}, the model has {got}; change one of the two")

    wanted = [joint.name for joint in spec.joints]
    hinges = [
        mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_JOINT, i)
        for i in range(model.njnt)
        if model.jnt_type[i] == mujoco.mjtJoint.mjJNT_HINGE
    ]
    if hinges != wanted:
        raise fail("hinge joints in order", wanted, hinges)
    motors = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_ACTUATOR, i) for i in range(model.nu)]
    if motors != wanted:
        raise fail("actuators in order", wanted, motors)
    turned = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_JOINT, joint) for joint in model.actuator_trnid[:, 0]]
    if turned != wanted:
        raise fail("joints that the actuators turn", wanted, turned)
    bodies = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_BODY, i) for i in range(1, model.nbody)]
    if "chassis" not in bodies:  # whose mass is randomized, and whose pose is the robot's
        raise SpecError(f"{path}: expected a body named 'chassis', got {', '.join(map(str, bodies))}; rename the one with the free joint")
    for i, joint in enumerate(spec.joints):
        if joint.command_unit == "duty" and model.actuator_gaintype[i] != mujoco.mjtGain.mjGAIN_DCMOTOR:
            raise fail(f"actuator {joint.name}", "a dcmotor (command_unit duty)", mujoco.mjtGain(model.actuator_gaintype[i]).name)
        if joint.command_unit != "duty":
            raise SpecError(f"{path}: joint {joint.name}: the simulation drives command_unit duty only, got {joint.command_unit!r}")
    sensors = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_SENSOR, i) for i in range(model.nsensor)]
    if spec.imu and sensors[:2] != ["gyro", "accel"]:
        raise fail("sensors", ["gyro", "accel"], sensors)
    if spec.drive:
        check_drive(spec, model, fail)


def check_drive(spec: RobotSpec, model: mujoco.MjModel, fail: object) -> None:
    assert spec.drive is not None
    assert callable(fail)
    for joint in spec.joints:
        radius = model.geom_size[tyre_of(model, joint.name), 0]
        if abs(radius - spec.drive.wheel_radius_m) > LENGTH_TOLERANCE_M:
            raise fail(f"radius of {joint.name}", spec.drive.wheel_radius_m, float(radius))
        turns_about = np.zeros(3)
        wheel = model.joint(joint.name)
        mujoco.mju_rotVecQuat(turns_about, wheel.axis, model.body_quat[wheel.bodyid[0]])
        if turns_about[1] < 0.99:  # a policy learned on a wheel that turns the other way drives the real robot backwards
            raise fail(f"axis of {joint.name}", "[0, 1, 0], so that a positive turn drives forward", turns_about.round(3).tolist())
    sides = [float(model.body_pos[model.jnt_bodyid[model.joint(joint.name).id], 1]) for joint in spec.joints]
    track = max(sides) - min(sides)
    if abs(track - spec.drive.track_m) > LENGTH_TOLERANCE_M:
        raise fail("distance between the wheels", spec.drive.track_m, track)


def tyre_of(model: mujoco.MjModel, joint: str) -> int:
    """The colliding cylinder of the wheel that a joint turns."""
    body = model.jnt_bodyid[model.joint(joint).id]
    for geom in range(model.ngeom):
        if model.geom_bodyid[geom] == body and model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CYLINDER and model.geom_contype[geom]:
            return geom
    raise SpecError(f"{joint}: its body has no colliding cylinder, so it is no wheel; add one to the MJCF")
