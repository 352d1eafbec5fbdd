"""One control tick of many robots by the loop's own objects: a new robot brings nothing along, and nobody else notices it."""

import dataclasses

import numpy as np
import pytest

from sim.randomize import load_ranges
from sim.rollout import Rollout

SECOND = np.array([False, True])


@pytest.fixture
def driven(bot):
    """Two robots without sensor noise, a few ticks under way at full duty."""
    quiet = dataclasses.replace(load_ranges("nominal"), gyro_noise_rad_s=(0.0, 0.0), accel_noise_m_s2=(0.0, 0.0))
    rollout = Rollout(bot, 2, 3, quiet)
    for _ in range(6):
        rollout.step(np.tile([1.0, 0.0], (2, 1)))
    return rollout


def seen(rollout, term, robot):
    return rollout.obs.vector[robot, rollout.observer.layout.stacked[term]].tolist()


def test_a_new_robot_starts_with_its_motors_off(driven):
    assert seen(driven, "applied_action", 1) == pytest.approx([1.0, 0.0, 1.0, 0.0])
    driven.reset(SECOND)
    driven.look(SECOND)
    assert seen(driven, "applied_action", 1) == [0.0, 0.0, 0.0, 0.0]
    assert seen(driven, "speed_m_s", 1) == [0.0]
    # The slew starts from zero again: of a wanted duty of 0.8 the first tick allows 50 / 100 = 0.5.
    driven.step(np.tile([1.0, 0.0], (2, 1)))
    assert seen(driven, "applied_action", 1)[:2] == pytest.approx([0.5 / 0.8, 0.0])
    assert seen(driven, "applied_action", 0)[:2] == pytest.approx([1.0, 0.0])


def test_a_look_at_a_new_robot_leaves_the_others_as_they_were(driven):
    before = driven.obs.vector[0].copy()
    assert abs(seen(driven, "speed_m_s", 0)[0]) > 0.1
    driven.reset(SECOND)
    driven.look(SECOND)
    assert driven.obs.vector[0] == pytest.approx(before)


def test_a_new_robot_is_seen_to_lean_as_it_truly_does(driven):
    driven.reset(SECOND)
    driven.look(SECOND)
    assert seen(driven, "pitch_rad", 1)[0] == pytest.approx(driven.plant.truth().pitch_rad[1], abs=1e-3)


def test_a_tick_lasts_one_control_period(bot, rover):
    for spec in (bot, rover):
        rollout = Rollout(spec, 1, 0)
        for _ in range(5):
            rollout.step(np.zeros((1, 2)))
        assert int(rollout.t_mcu_us[0]) == 5 * 1_000_000 // spec.rates.control_hz
        assert float(rollout.plant.batch.bind("time")[0]) == pytest.approx(5 / spec.rates.control_hz)


@pytest.mark.slow
def test_wheel_speed_is_the_difference_of_counts_over_one_sensor_period(rover):
    rollout = Rollout(rover, 1, 0)
    for _ in range(100):
        rollout.step(np.array([[0.5, 0.0]]))
    true = rollout.plant.speeds[0, rollout.plant.dofs].mean()
    assert float(np.mean(np.asarray(rollout.frame.velocity_rad_s))) == pytest.approx(true, rel=0.02)
    assert true > 5.0
