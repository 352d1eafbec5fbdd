"""Somebody beside a simulated robot: who picks it up, and when."""

import numpy as np
import pytest

from sim.attended import Attended
from sim.plant import SinglePlant
from sim.randomize import load_ranges

FULL_DUTY = np.array([1.0, 1.0])


def lean_rad(robot):
    return abs(robot.plant.plant.truth().pitch_rad[0])


def driven_until_it_lies(robot):
    for _ in range(3000):
        robot.drive(FULL_DUTY, 1)
        if robot.lies():
            return robot
    raise AssertionError("it did not fall")


@pytest.fixture
def robot(bot):
    return Attended(SinglePlant(bot, 1, load_ranges("hidden")), after_s=0.5)


@pytest.mark.slow
def test_a_fallen_robot_is_put_on_its_wheels_once_its_motors_have_been_off(bot, robot):
    driven_until_it_lies(robot)
    for _ in range(499):
        robot.drive(None, 1)
    assert robot.lies()
    before = robot.plant.plant.truth().position_m.copy()
    robot.drive(None, 1)
    assert robot.picked_up == 1
    assert lean_rad(robot) < 1e-6
    assert np.abs(robot.plant.plant.truth().position_m - before).max() < 1e-6
    for _ in range(2000):  # a hand holds it: it neither falls nor rolls
        robot.drive(None, 1)
    assert (lean_rad(robot) < 1e-6, robot.picked_up) == (True, 1)
    readings = robot.sense()
    assert np.abs(readings.gyro_rad_s).max() < 0.1
    assert abs(readings.accel_m_s2[2] - 9.81) < 1.0


def test_it_is_the_same_robot_afterwards(robot):
    drawn = {name: values.copy() for name, values in robot.plant.plant.drawn.values.items()}
    driven_until_it_lies(robot)
    robot.drive(None, 600)
    assert robot.picked_up == 1
    assert all((robot.plant.plant.drawn[name] == values).all() for name, values in drawn.items())
    driven_until_it_lies(robot)  # and it can fall again


@pytest.mark.slow
def test_nobody_reaches_for_a_robot_whose_motors_are_on(robot):
    driven_until_it_lies(robot)
    for _ in range(20):
        robot.drive(None, 400)
        robot.drive(0.0 * FULL_DUTY, 1)
    assert robot.picked_up == 0


def test_one_that_stands_is_left_alone(robot):
    robot.drive(0.0 * FULL_DUTY, 1)
    robot.drive(None, 600)
    assert robot.picked_up == 0
