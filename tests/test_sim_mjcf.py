"""A robot file and its MuJoCo model must agree; where they do not, both values are named before anything moves."""

import dataclasses
from pathlib import Path

import pytest

from edge_dsac.spec.robot import load_robot
from edge_dsac.spec.schema import SpecError
from sim.mjcf import SHIPPED, find_mjcf, load_model, tyre_of


def with_model(spec, folder, *changes):
    """The shipped model with some words exchanged, in a folder beside which the robot file is said to lie."""
    text = (SHIPPED / spec.mjcf).read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, f"the shipped model has no {old!r}"
        text = text.replace(old, new)
    (folder / spec.mjcf).write_text(text, encoding="utf-8")
    return dataclasses.replace(spec, folder=str(folder))


def refusal(spec):
    with pytest.raises(SpecError) as caught:
        load_model(spec)
    return str(caught.value)


@pytest.mark.parametrize("name", ["balance_bot", "rover"])
def test_the_shipped_robots_fit_their_models(name):
    spec = load_robot(name)
    model = load_model(spec)
    assert model.opt.timestep == 1.0 / spec.rates.board_hz
    assert [model.actuator(i).name for i in range(model.nu)] == [joint.name for joint in spec.joints]
    assert model.geom_size[tyre_of(model, "left_wheel"), 0] == spec.drive.wheel_radius_m


def test_the_model_beside_the_robot_file_comes_before_the_shipped_one(bot, tmp_path):
    assert find_mjcf(with_model(bot, tmp_path)) == tmp_path / "balance_bot.xml"
    assert find_mjcf(bot) == SHIPPED / "balance_bot.xml"


def test_a_missing_model_names_both_places(bot, tmp_path):
    message = refusal(dataclasses.replace(bot, mjcf="nowhere.xml", folder=str(tmp_path)))
    assert str(tmp_path / "nowhere.xml") in message
    assert str(SHIPPED / "nowhere.xml") in message


def test_what_mujoco_refuses_is_a_spec_error_with_the_file(bot, tmp_path):
    message = refusal(with_model(bot, tmp_path, ("<worldbody>", "<wrldbody>")))
    assert str(tmp_path / "balance_bot.xml") in message


def test_another_wheel_radius_is_refused_with_both(bot):
    message = refusal(dataclasses.replace(bot, drive=dataclasses.replace(bot.drive, wheel_radius_m=0.05)))
    assert "0.05" in message
    assert "0.04" in message
    assert "left_wheel" in message
    assert "balance_bot.xml" in message


def test_one_wheel_of_another_radius_is_refused_too(bot, tmp_path):
    spec = with_model(bot, tmp_path, ('"right_tyre" type="cylinder" size="0.04 ', '"right_tyre" type="cylinder" size="0.045 '))
    message = refusal(spec)
    assert "right_wheel" in message
    assert "0.045" in message
    assert "0.04," in message


def test_another_track_is_refused_with_both(rover):
    message = refusal(dataclasses.replace(rover, drive=dataclasses.replace(rover.drive, track_m=0.25)))
    assert "0.25" in message
    assert "0.26" in message


def test_a_length_that_is_off_by_a_tenth_of_a_millimetre_is_refused_and_float_noise_is_not(rover):
    refusal(dataclasses.replace(rover, drive=dataclasses.replace(rover.drive, track_m=0.2601)))
    load_model(dataclasses.replace(rover, drive=dataclasses.replace(rover.drive, track_m=0.26 + 1e-9)))


def test_another_joint_name_is_refused_with_both(bot):
    first, second = bot.joints
    message = refusal(dataclasses.replace(bot, joints=(dataclasses.replace(first, name="port_wheel"), second)))
    assert "port_wheel" in message
    assert "left_wheel" in message


def test_another_order_of_joints_is_refused_with_both(bot):
    message = refusal(dataclasses.replace(bot, joints=bot.joints[::-1]))
    assert "['right_wheel', 'left_wheel']" in message
    assert "['left_wheel', 'right_wheel']" in message


def test_wheels_that_changed_sides_in_the_model_are_refused(bot, tmp_path):
    crossed = (
        ('joint name="left_wheel"', 'joint name="x"'),
        ('joint name="right_wheel"', 'joint name="left_wheel"'),
        ('"x"', '"right_wheel"'),
    )
    message = refusal(with_model(bot, tmp_path, *crossed))
    assert "hinge joints in order" in message
    assert "['left_wheel', 'right_wheel']" in message
    assert "['right_wheel', 'left_wheel']" in message


def test_another_order_of_actuators_is_refused(bot, tmp_path):
    # Commands go by actuator, positions by joint: crossed, the left command would turn the right wheel.
    swapped = (
        ('<dcmotor name="left_wheel" joint="left_wheel"', '<dcmotor name="x" joint="left_wheel"'),
        ('<dcmotor name="right_wheel" joint="right_wheel"', '<dcmotor name="left_wheel" joint="right_wheel"'),
        ('name="x"', 'name="right_wheel"'),
    )
    message = refusal(with_model(bot, tmp_path, *swapped))
    assert "actuators in order" in message
    assert "['right_wheel', 'left_wheel']" in message


def test_an_actuator_that_turns_another_joint_than_its_name_says_is_refused(bot, tmp_path):
    crossed = (('joint="left_wheel" nominal', 'joint="x" nominal'), ('joint="right_wheel" nominal', 'joint="left_wheel" nominal'))
    message = refusal(with_model(bot, tmp_path, *crossed, ('joint="x"', 'joint="right_wheel"')))
    assert "left_wheel" in message
    assert "right_wheel" in message


@pytest.mark.parametrize("wheel", ["left_wheel", "right_wheel"])
def test_a_wheel_whose_positive_turn_drives_back_is_refused(bot, tmp_path, wheel):
    spec = with_model(
        bot, tmp_path, (f'joint name="{wheel}" type="hinge" axis="0 1 0"', f'joint name="{wheel}" type="hinge" axis="0 -1 0"')
    )
    message = refusal(spec)
    assert wheel in message
    assert "axis" in message


def test_a_model_without_the_imu_sensors_is_refused(bot, tmp_path):
    message = refusal(with_model(bot, tmp_path, ('<accelerometer name="accel" site="imu"/>', "")))
    assert "['gyro', 'accel']" in message
    assert "['gyro']" in message


def test_a_motor_that_knows_no_voltage_is_refused_for_a_duty(bot, tmp_path):
    motor = ('<dcmotor name="left_wheel" joint="left_wheel" nominal="11.1 0.55 34"', '<motor name="left_wheel" joint="left_wheel"')
    message = refusal(with_model(bot, tmp_path, motor))
    assert "dcmotor" in message
    assert "left_wheel" in message


def test_a_torque_joint_is_refused_because_the_simulation_has_only_duty(bot):
    first, second = bot.joints
    message = refusal(dataclasses.replace(bot, joints=(dataclasses.replace(first, command_unit="torque_nm"), second)))
    assert "torque_nm" in message


def test_a_wheel_that_touches_nothing_is_refused(bot, tmp_path):
    spec = with_model(bot, tmp_path, ('material="tyre" friction', 'material="tyre" contype="0" conaffinity="0" friction'))
    assert "no colliding cylinder" in refusal(spec)


def test_a_model_without_a_chassis_is_refused(bot, tmp_path):
    message = refusal(with_model(bot, tmp_path, ('<body name="chassis"', '<body name="torso"')))
    assert "chassis" in message


def test_the_new_robot_templates_fit_each_other(tmp_path):
    templates = Path(__file__).parent.parent / "edge_dsac" / "spec" / "templates"
    for file in ("robot.toml", "robot.xml"):
        text = (templates / file).read_text(encoding="utf-8").replace("NAME", "mine")
        (tmp_path / file.replace("robot", "mine")).write_text(text, encoding="utf-8")
    load_model(load_robot(str(tmp_path / "mine.toml")))
