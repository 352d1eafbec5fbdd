"""The simulated robot: the same seed gives the same robot, motors and battery do what the formulas say, and every sign is the convention's.

The convention (spec/robot.py): body x forward, y left, z up; a positive pitch leans forward, a positive turn goes left, a positive
wheel turn drives forward. A sign that is wrong in simulation is learned by the policy and then destroys a robot.
"""

import dataclasses

import mujoco
import numpy as np
import pytest

from edge_dsac.bundle.baselines import make_baseline
from edge_dsac.loop.observer import Reference
from sim.plant import MOST_LEAN_AT_RESET_RAD, Plant, SinglePlant
from sim.randomize import load_ranges
from sim.rollout import Rollout

GRAVITY = 9.81
LEVEL_PLACE = (np.ones(1, bool), np.zeros(2), 0.0)


def ranges_with(**fixed):
    """The nominal robot with ideal sensors, no dead band and no delay, but for what is named."""
    still = dict.fromkeys(("gyro_noise_rad_s", "accel_noise_m_s2", "dead_band", "delay_s", "radar_noise_m", "radar_dropout"), 0.0)
    return dataclasses.replace(load_ranges("nominal"), **{name: (value, value) for name, value in {**still, **fixed}.items()})


@pytest.fixture(params=["balance_bot", "rover"])
def robot(request, bot, rover):
    return {"balance_bot": bot, "rover": rover}[request.param]


def upright(spec, **fixed):
    """One exact robot, upright at the origin, heading along +x."""
    plant = Plant(spec, 1, 0, ranges_with(**fixed))
    plant.place(*LEVEL_PLACE)
    return plant


def lean(plant, pitch_rad):
    """Turns the body about +y by hand, as the convention counts it."""
    plant.states[:, 3], plant.states[:, 5] = np.cos(pitch_rad / 2), np.sin(pitch_rad / 2)
    plant.batch.forward()


def duties(plant, left, right):
    return np.tile([left, right], (plant.n, 1)).astype(float)


# The same numbers again


def run_of(spec, n, seed, ranges=None, ticks=150):
    plant = Plant(spec, n, seed, ranges)
    track = []
    for i in range(ticks // 5):
        plant.drive(duties(plant, 0.2 * np.sin(i), 0.2 * np.cos(i)), 5)
        readings = plant.sense()
        track.append(np.concatenate([plant.states, readings.gyro_rad_s, readings.accel_m_s2, readings.position_rad], axis=-1))
    return np.array(track)


@pytest.mark.slow
def test_one_seed_gives_one_trajectory_and_another_seed_another(robot):
    full = load_ranges("full")
    first = run_of(robot, 3, 7, full)
    assert np.array_equal(first, run_of(robot, 3, 7, full))
    assert not np.array_equal(first, run_of(robot, 3, 8, full))


def test_robots_of_one_batch_differ_from_each_other(robot):
    track = run_of(robot, 3, 7, load_ranges("full"))
    assert not np.allclose(track[-1, 0], track[-1, 1])


@pytest.mark.slow
def test_the_first_robot_of_sixteen_moves_as_the_only_one_would(robot):
    # Holds where nothing but the lean at reset is drawn: the first draw of a generator does not depend on how many follow.
    # What the sensors add does depend on it, so the poses are compared, not the readings.
    many, one = run_of(robot, 16, 7), run_of(robot, 1, 7)
    poses = slice(0, Plant(robot).states.shape[1])
    assert np.array_equal(many[:, 0, poses], one[:, 0, poses])


@pytest.mark.slow
def test_robots_put_down_alike_stay_alike(robot):
    plant = Plant(robot, 16, 3)
    plant.place(np.ones(16, bool), np.zeros((16, 2)), np.zeros(16))
    plant.drive(duties(plant, 0.3, 0.1), 200)
    assert np.array_equal(plant.states[5], plant.states[0])
    assert abs(plant.states[0, 0]) > 0.01


def test_reset_draws_a_new_robot_and_spares_the_others(robot):
    plant = Plant(robot, 3, 5, load_ranges("full"))
    plant.drive(duties(plant, 0.5, 0.2), 100)
    before, masses = np.array(plant.states), plant.drawn["mass_scale"].copy()
    plant.reset(np.array([False, True, False]))
    assert np.array_equal(plant.states[[0, 2]], before[[0, 2]])
    assert not np.array_equal(plant.states[1], before[1])
    assert np.array_equal(plant.drawn["mass_scale"] != masses, [False, True, False])
    assert np.allclose(plant.speeds[1], 0.0)


def test_a_command_from_before_the_reset_does_not_act_after_it(bot):
    plant = upright(bot, delay_s=0.005)
    plant.drive(duties(plant, 1.0, 1.0), 4)  # on its way for four of five ticks
    plant.reset()
    plant.place(*LEVEL_PLACE)
    plant.drive(None, 5)
    assert abs(plant.speeds[0, plant.dofs]).max() < 1e-3


def test_reset_leans_a_balancing_robot_within_its_bound_and_no_rover(bot, rover):
    plant, leans = Plant(bot, 20, 1), []
    for _ in range(10):
        plant.reset()
        leans.append(plant.truth().pitch_rad)
    leans = np.concatenate(leans)
    assert abs(leans).max() <= MOST_LEAN_AT_RESET_RAD
    assert leans.min() < -0.04
    assert leans.max() > 0.04
    assert np.array_equal(Plant(rover, 5, 1).truth().pitch_rad, np.zeros(5))


def test_a_larger_wheel_stands_higher_by_its_radius(robot):
    plain, large = upright(robot), upright(robot, wheel_radius_scale=1.3)
    for plant in (plain, large):
        plant.drive(None, 20)
    assert large.states[0, 2] - plain.states[0, 2] == pytest.approx(0.3 * robot.drive.wheel_radius_m, abs=5e-4)


# Motors and battery


@pytest.mark.slow
def test_motors_off_brake_on_their_own_back_emf(rover):
    coasting, driven = upright(rover), upright(rover)
    for plant in (coasting, driven):
        plant.drive(duties(plant, 0.5, 0.5), 500)
    speed = driven.truth().speed_m_s[0]
    assert speed > 0.5
    coasting.drive(None, 500)
    driven.drive(duties(driven, 0.5, 0.5), 500)
    assert abs(coasting.truth().speed_m_s[0]) < 0.02
    assert driven.truth().speed_m_s[0] > speed - 0.05


def test_motors_off_takes_no_current_and_is_a_duty_of_zero(rover):
    off, zero = upright(rover), upright(rover)
    for plant, command in ((off, None), (zero, np.zeros((1, 2)))):
        plant.drive(duties(plant, 0.5, 0.5), 300)
        plant.drive(command, 50)
    assert np.array_equal(off.states, zero.states)
    assert off.battery_v()[0] == rover.battery.nominal_v


def test_the_battery_sags_by_its_resistance_times_the_stall_current(bot):
    # 0.55 Nm at stall and 34 rad/s unloaded at 11.1 V: K = 11.1 / 34 = 0.3265 Nm/A, I = 0.55 / K = 1.685 A a motor.
    plant = upright(bot, battery_ohm=0.1, delay_s=0.002)
    assert plant.battery_v()[0] == 11.1
    plant.drive(duties(plant, 1.0, -1.0), 1)  # the voltage is still on its way, so the wheels stand: both at stall
    assert plant.battery_v()[0] == pytest.approx(11.1 - 0.1 * 2 * 0.55 / (11.1 / 34), abs=1e-3)
    assert plant.sense().battery_v[0] == plant.battery_v()[0]
    plant.reset()
    assert plant.battery_v()[0] == 11.1


@pytest.mark.slow
def test_a_sagging_battery_drives_slower(rover):
    speeds = []
    for scale, ohm in ((1.0, 0.0), (1.0, 2.0), (0.8, 0.0)):
        plant = upright(rover, battery_scale=scale, battery_ohm=ohm)
        for _ in range(100):
            plant.drive(duties(plant, 0.6, 0.6), 10)
        speeds.append(plant.truth().speed_m_s[0])
    assert speeds[1] < speeds[0] - 0.01
    assert speeds[2] == pytest.approx(0.8 * speeds[0], rel=0.08)  # friction takes a little more of a weaker drive


def test_no_load_speed_is_the_motors(rover):
    # Duty 1 at 14.8 V: 26 rad/s unloaded, 1.3 m/s; friction keeps it a little below.
    plant = upright(rover, battery_ohm=0.0)
    plant.drive(duties(plant, 1.0, 1.0), 2000)
    assert 0.9 * 26.0 < plant.speeds[0, plant.dofs].mean() < 26.0


def test_a_duty_inside_the_dead_band_does_not_move_and_one_above_does(rover):
    inside, above = upright(rover, dead_band=0.09), upright(rover, dead_band=0.09)
    inside.drive(duties(inside, 0.089, -0.089), 300)
    above.drive(duties(above, 0.091, 0.091), 300)
    untouched = upright(rover, dead_band=0.09)
    untouched.drive(None, 300)
    assert np.array_equal(inside.states, untouched.states)
    assert above.truth().position_m[0, 0] > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("delay_ticks", [0, 2, 20, 60])
def test_a_command_acts_only_after_the_actuator_delay(robot, delay_ticks):
    plant = upright(robot, delay_s=delay_ticks / robot.rates.board_hz)
    for _ in range(delay_ticks):
        plant.drive(duties(plant, 1.0, 1.0), 1)
        assert abs(plant.speeds[0, plant.dofs]).max() < 0.1  # it settles on its tyres
    plant.drive(duties(plant, 1.0, 1.0), 1)
    assert plant.speeds[0, plant.dofs].min() > 0.3


# Signs: where a positive wheel turn goes, and what the sensors say of it


@pytest.mark.parametrize("duty", [0.5, -0.5])
def test_a_positive_duty_turns_the_wheels_positive_and_drives_towards_plus_x(robot, duty):
    plant = upright(robot)
    plant.drive(duties(plant, duty, duty), 60)
    sign, truth = np.sign(duty), plant.truth()
    assert (sign * plant.sense().position_rad[0] > 0.1).all()
    assert sign * truth.position_m[0, 0] > 0.003
    assert sign * truth.speed_m_s[0] > 0.1
    assert abs(truth.position_m[0, 1]) < 1e-4
    assert abs(truth.heading_rad[0]) < 1e-3


def test_a_rover_rolls_its_wheel_turns_times_their_radius(rover):
    plant = upright(rover)
    plant.drive(duties(plant, 0.4, 0.4), 1500)
    rolled_m = plant.sense().position_rad[0].mean() * rover.drive.wheel_radius_m
    assert rolled_m > 0.5
    assert plant.truth().position_m[0, 0] == pytest.approx(rolled_m, rel=0.02)


@pytest.mark.parametrize("duty", [0.3, -0.3])
def test_wheels_that_drive_forward_throw_the_body_back(bot, duty):
    plant = upright(bot)
    plant.drive(duties(plant, duty, duty), 50)
    assert np.sign(plant.truth().pitch_rad[0]) == -np.sign(duty)
    assert np.sign(plant.sense().gyro_rad_s[0, 1]) == -np.sign(duty)


@pytest.mark.slow
@pytest.mark.parametrize("duty", [0.3, -0.3])
def test_right_forward_and_left_back_turns_left(robot, duty):
    plant, turned = upright(robot), 0.0
    for _ in range(250):
        plant.drive(duties(plant, -duty, duty), 1)
        turned += plant.sense().gyro_rad_s[0, 2] / robot.rates.board_hz
    truth, wheels = plant.truth(), plant.sense().position_rad[0]
    assert truth.heading_rad[0] * np.sign(duty) > 0.2
    assert truth.yaw_rate_rad_s[0] * np.sign(duty) > 0.2
    assert turned == pytest.approx(truth.heading_rad[0], rel=0.02)
    by_wheels = (wheels[1] - wheels[0]) * robot.drive.wheel_radius_m / robot.drive.track_m
    assert truth.heading_rad[0] == pytest.approx(by_wheels, rel=0.15)  # wide tyres turn on their outer edges, and slip


@pytest.mark.parametrize("pitch_rad", [0.2, -0.2])
def test_a_falling_body_goes_on_to_the_side_it_leans_to_and_the_gyro_says_so(bot, pitch_rad):
    plant, turned = upright(bot), 0.0
    lean(plant, pitch_rad)
    assert plant.truth().pitch_rad[0] == pytest.approx(pitch_rad)
    for _ in range(150):
        plant.drive(None, 1)
        turned += plant.sense().gyro_rad_s[0, 1] / bot.rates.board_hz
    fell = plant.truth().pitch_rad[0] - pitch_rad
    assert fell * np.sign(pitch_rad) > 0.1
    assert turned == pytest.approx(fell, rel=0.03)


@pytest.mark.parametrize("pitch_rad", [0.3, -0.3])
def test_the_accelerometer_of_a_leaning_robot_shows_where_up_is(robot, pitch_rad):
    # At rest it feels -gravity: up, seen from a body that leans forward, points backward: (-g sin, 0, g cos).
    plant = upright(robot)
    lean(plant, pitch_rad)
    felt = plant.sense(at_rest=True).accel_m_s2[0]
    assert felt == pytest.approx([-GRAVITY * np.sin(pitch_rad), 0.0, GRAVITY * np.cos(pitch_rad)], abs=2e-3)
    assert np.arctan2(-felt[0], felt[2]) == pytest.approx(pitch_rad, abs=1e-3)  # the observer's formula


@pytest.mark.parametrize("pitch_rad", [0.3, -0.3])
def test_mujocos_own_accelerometer_has_the_same_sign_as_a_robot_at_rest(bot, pitch_rad):
    # It is falling, so the number is not g sin: the IMU sits low, where the fall adds less than gravity takes away.
    plant = upright(bot)
    lean(plant, pitch_rad)
    plant.drive(None, 2)
    felt = plant.sense().accel_m_s2[0]
    assert np.sign(felt[0]) == -np.sign(pitch_rad)
    assert felt[2] > 5.0


def test_a_standing_rover_feels_gravity_upward_and_nothing_else(rover):
    plant = upright(rover)
    plant.drive(None, 500)
    readings = plant.sense()
    assert readings.accel_m_s2[0] == pytest.approx([0.0, 0.0, GRAVITY], abs=0.05)
    assert readings.gyro_rad_s[0] == pytest.approx([0.0, 0.0, 0.0], abs=2e-3)


def test_a_rover_that_speeds_up_is_pushed_in_the_back(rover):
    plant = upright(rover)
    plant.drive(None, 200)
    plant.drive(duties(plant, 0.5, 0.5), 20)
    assert plant.sense().accel_m_s2[0, 0] > 0.3
    plant.drive(duties(plant, 0.5, 0.5), 1000)
    plant.drive(duties(plant, 0.3, 0.3), 20)  # gently: full reverse lifts its driven wheels
    assert plant.sense().accel_m_s2[0, 0] < -0.3


def test_a_left_turn_while_driving_is_felt_to_the_left(rover):
    # Centripetal: v times the yaw rate, towards the centre of the curve, which is on the left.
    plant = upright(rover)
    plant.drive(duties(plant, 0.3, 0.5), 1500)
    felt = np.mean([(plant.drive(duties(plant, 0.3, 0.5), 1), plant.sense().accel_m_s2[0, 1])[1] for _ in range(50)])
    truth = plant.truth()
    assert truth.yaw_rate_rad_s[0] > 0.3
    # The IMU sits above the axle's middle, the point whose speed the truth tells.
    assert felt == pytest.approx(truth.speed_m_s[0] * truth.yaw_rate_rad_s[0], rel=0.15)


def test_truth_and_gravity_are_those_of_the_rotation_matrix(bot, generator):
    n = 30
    plant = Plant(bot, n, 0, ranges_with())
    quaternions = generator.standard_normal((n, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    plant.states[:, 3:7] = quaternions
    truth, up = plant.truth(), plant.gravity()
    for i, quaternion in enumerate(quaternions):
        flat = np.zeros(9)
        mujoco.mju_quat2Mat(flat, quaternion)
        matrix = flat.reshape(3, 3)  # columns: body axes in the world
        assert up[i] == pytest.approx(matrix.T @ [0.0, 0.0, GRAVITY])
        assert truth.heading_rad[i] == pytest.approx(np.arctan2(matrix[1, 0], matrix[0, 0]))
        assert np.sign(truth.pitch_rad[i]) == -np.sign(matrix[2, 0])  # the nose points down
        assert np.sin(truth.pitch_rad[i]) == pytest.approx(-matrix[2, 0])
        assert np.sign(truth.roll_rad[i]) == np.sign(matrix[2, 1])  # the left side is up


@pytest.mark.parametrize("pitch_rad", [-3.0, -1.0, 0.0, 0.5, 1.5, 2.0, 3.0])
def test_a_lean_beyond_a_quarter_turn_is_still_told_as_one(bot, pitch_rad):
    plant = upright(bot)
    lean(plant, pitch_rad)
    assert plant.truth().pitch_rad[0] == pytest.approx(pitch_rad)


@pytest.mark.slow
@pytest.mark.parametrize(("common", "differential"), [(0.4, 0.0), (-0.4, 0.0), (0.2, 0.5), (0.2, -0.5)])
def test_what_the_observer_believes_of_a_rover_is_what_is_true(rover, common, differential):
    rollout = Rollout(rover, 1, 0, ranges_with())
    rollout.plant.place(*LEVEL_PLACE)
    for _ in range(100):
        rollout.step(np.array([[common, differential]]))
    truth, see = rollout.plant.truth(), rollout.observer.layout.newest
    seen = {term: float(rollout.obs.vector[0, see[term].start]) for term in ("speed_m_s", "yaw_rate_rad_s", "path_speed_m_s")}
    assert seen["speed_m_s"] == pytest.approx(truth.speed_m_s[0], abs=0.03)
    assert np.sign(seen["speed_m_s"]) == np.sign(common)
    assert seen["yaw_rate_rad_s"] == pytest.approx(truth.yaw_rate_rad_s[0], abs=0.03)
    assert np.sign(np.round(truth.yaw_rate_rad_s[0], 1)) == np.sign(differential)  # the second action, positive, turns left


@pytest.mark.slow
@pytest.mark.parametrize(("speed_m_s", "yaw_rate_rad_s"), [(0.4, 1.0), (-0.4, -1.0)])
def test_what_the_observer_believes_of_a_balancing_robot_is_what_is_true(bot, speed_m_s, yaw_rate_rad_s):
    rollout, baseline = Rollout(bot, 1, 0, ranges_with()), make_baseline(bot)
    rollout.observer.set_reference(Reference(speed_m_s, yaw_rate_rad_s))
    see, apart = rollout.observer.layout.newest, []
    for _ in range(200):
        rollout.step(baseline.act(rollout.obs))
        truth = rollout.plant.truth()
        believed = [rollout.obs.vector[0, see[term].start] for term in ("pitch_rad", "speed_m_s", "yaw_rate_rad_s")]
        apart.append(np.subtract(believed, [truth.pitch_rad[0], truth.speed_m_s[0], truth.yaw_rate_rad_s[0]]))
    assert truth.speed_m_s[0] * np.sign(speed_m_s) > 0.15
    assert truth.yaw_rate_rad_s[0] * np.sign(yaw_rate_rad_s) > 0.3  # a P controller: 0.45 of 1.0
    off = np.abs(np.mean(apart, axis=0))
    assert off[0] < 0.03  # acceleration leans the filter a little
    assert off[1] < 0.03
    assert np.abs(apart)[:, 1].mean() < 0.02  # also while it tips: the wheels' turn is counted from the body
    assert off[2] < 0.03


# Sensors


def test_encoders_count_whole_counts(rover):
    plant = upright(rover)
    plant.drive(duties(plant, 0.4, 0.2), 100)
    counts = plant.sense().position_rad[0] * rover.joints[0].counts_per_rad
    assert counts == pytest.approx(np.round(counts), abs=1e-6)
    assert abs(plant.sense().position_rad[0] - plant.states[0, plant.joints]).max() <= 0.5 / rover.joints[0].counts_per_rad + 1e-12


def test_sensor_noise_and_bias_are_as_large_as_drawn(bot):
    plant = Plant(bot, 20, 4, ranges_with(gyro_noise_rad_s=0.02, accel_noise_m_s2=0.5, gyro_bias_rad_s=0.1, accel_bias_m_s2=-0.2))
    plant.place(np.ones(20, bool), np.zeros((20, 2)), np.zeros(20))
    readings = [plant.sense(at_rest=True) for _ in range(25)]
    gyro = np.concatenate([reading.gyro_rad_s for reading in readings])
    accel = np.concatenate([reading.accel_m_s2 for reading in readings])
    assert gyro.mean() == pytest.approx(0.1, abs=0.003)  # 1500 numbers of 0.02: 0.0005 a sigma
    assert gyro.std() == pytest.approx(0.02, rel=0.1)
    assert accel.mean(axis=0) == pytest.approx([-0.2, -0.2, GRAVITY - 0.2], abs=0.1)
    assert (accel - accel.mean(axis=0)).std() == pytest.approx(0.5, rel=0.1)


def test_the_radar_reads_nothing_before_its_first_scan_and_where_nothing_is(rover):
    plant = upright(rover)
    assert np.isnan(plant.sense().extra).all()
    plant.obstacle.send([0], np.array([[2.0, 0.0]]), np.array([[0.0, 0.0]]))
    plant.drive(None, 49)  # it scans every 50 ticks
    assert np.isnan(plant.sense().extra).all()
    plant.drive(None, 1)
    assert np.isfinite(plant.sense().extra).all()
    plant.obstacle.clear([0])
    plant.drive(None, 49)
    assert np.isfinite(plant.sense().extra).all()  # between scans the last reading stands
    plant.drive(None, 1)
    assert np.isnan(plant.sense().extra).all()


def test_a_robot_without_a_radar_has_no_obstacle(bot):
    plant = upright(bot)
    assert plant.sense().extra.shape == (1, 0)
    assert np.isinf(plant.truth().obstacle_gap_m).all()


# The single plant of a virtual board


def test_a_hand_holds_a_balancing_robot_until_it_is_first_driven(bot):
    single = SinglePlant(bot, 0, ranges_with())
    pose = single.qpos()
    single.drive(None, 1000)
    assert np.array_equal(single.qpos(), pose)
    felt = single.sense().accel_m_s2
    assert np.linalg.norm(felt) == pytest.approx(GRAVITY, abs=2e-3)
    single.drive(np.zeros(2), 1000)
    assert abs(single.plant.truth().pitch_rad[0]) > 0.5
    single.reset()
    single.drive(None, 100)
    assert abs(single.plant.truth().pitch_rad[0]) < MOST_LEAN_AT_RESET_RAD + 1e-9


def test_a_rover_needs_no_hand(rover):
    single = SinglePlant(rover, 0, ranges_with())
    height = single.qpos()[2]
    single.drive(None, 100)
    assert single.qpos()[2] != height


def test_the_single_plant_is_the_batch_of_one(rover):
    single, many = SinglePlant(rover, 3), Plant(rover, 1, 3)
    for _ in range(5):
        single.drive(np.array([0.4, 0.2]), 20)
        many.drive(np.array([[0.4, 0.2]]), 20)
    one, batch = single.sense(), many.sense()
    for field in ("position_rad", "gyro_rad_s", "accel_m_s2", "battery_v"):
        assert np.array_equal(np.asarray(getattr(one, field)), np.asarray(getattr(batch, field))[0])
