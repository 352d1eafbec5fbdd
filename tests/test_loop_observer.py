"""The observer: what it estimates, by hand; what it does with missing readings; that a batch is many robots."""

import math

import numpy as np
import pytest

from edge_dsac.loop.observer import Observer, Reference
from edge_dsac.loop.path import make_figure_eight, make_path
from edge_dsac.records import BoardMode, Fault, SensorFrame
from edge_dsac.spec.robot import load_robot

BOT, ROVER = load_robot("balance_bot"), load_robot("rover")
G = 9.81


def frame(spec, t_s, lean=0.0, gyro=(0.0, 0.0, 0.0), wheels=(0.0, 0.0), turned=(0.0, 0.0), applied=(0.0, 0.0), extra=None):
    extra = (math.nan,) * len(spec.extras) if extra is None else extra
    accel = (-G * math.sin(lean), 0.0, G * math.cos(lean))
    return SensorFrame(
        0, round(t_s * 1e6), BoardMode.ARMED, Fault.NONE, 0, floats(turned), floats(wheels), floats(applied), floats(gyro), accel, 11.1,
        floats(extra),
    )  # fmt: skip


def floats(values):
    return tuple(float(value) for value in values)


def see(observer, observation, term):
    return observation.vector[observer.layout.newest[term]]


def test_the_first_frame_gives_the_lean_by_gravity():
    observer = Observer(BOT)
    assert see(observer, observer.observe(frame(BOT, 5.0, lean=0.2)), "pitch_rad") == pytest.approx(0.2)


def test_the_lean_follows_the_gyro_at_once_and_gravity_slowly():
    observer = Observer(BOT)
    observer.observe(frame(BOT, 0.0))
    lean = see(observer, observer.observe(frame(BOT, 0.01, gyro=(0.0, 1.0, 0.0))), "pitch_rad")
    keep = 0.5 / 0.51  # filter_s / (filter_s + dt)
    assert lean == pytest.approx(keep * 0.01)
    for i in range(300):
        lean = see(observer, observer.observe(frame(BOT, 0.02 + 0.01 * i, lean=0.3)), "pitch_rad")
    assert lean == pytest.approx(0.3, abs=2e-3)


def test_speed_counts_the_wheels_and_the_body_they_sit_on():
    observer = Observer(BOT)
    seen = observer.observe(frame(BOT, 0.0, wheels=(9.0, 11.0), gyro=(0.0, 2.0, 0.0)))
    assert see(observer, seen, "speed_m_s") == pytest.approx(0.04 * (10.0 + 2.0))


def test_the_applied_action_comes_from_the_board_and_is_stacked_newest_first():
    observer = Observer(BOT)
    observer.observe(frame(BOT, 0.0, applied=(0.4, 0.4)))
    seen = observer.observe(frame(BOT, 0.01, applied=(-0.1, 0.1)))
    assert seen.vector[observer.layout.stacked["applied_action"]] == pytest.approx([0.0, 0.5, 0.5, 0.0], abs=1e-6)


def test_the_first_frame_fills_the_whole_history():
    observer = Observer(BOT)
    seen = observer.observe(frame(BOT, 0.0, applied=(0.4, 0.4)))
    assert seen.vector[observer.layout.stacked["applied_action"]] == pytest.approx([0.5, 0.0, 0.5, 0.0], abs=1e-6)


def test_the_speed_error_is_integrated_with_a_leak():
    observer = Observer(BOT)
    observer.set_reference(Reference(speed_target_m_s=0.5))
    for i in range(101):
        seen = observer.observe(frame(BOT, 0.01 * i))
    assert see(observer, seen, "speed_error_integral_m") == pytest.approx(5 * 0.5 * (1 - np.exp(-1 / 5)), rel=0.01)


def test_terms_are_clipped_in_their_own_unit():
    observer = Observer(BOT)
    seen = observer.observe(frame(BOT, 0.0, wheels=(500.0, 500.0), gyro=(0.0, 0.0, -90.0)))
    assert see(observer, seen, "speed_m_s") == pytest.approx(3.0)
    assert see(observer, seen, "yaw_rate_rad_s") == pytest.approx(-10.0)


@pytest.mark.parametrize("broken", ["gyro_rad_s", "accel_m_s2", "velocity_rad_s"])
def test_a_frame_with_a_missing_reading_is_not_ok_and_the_next_good_one_is(broken):
    observer = Observer(BOT)
    observer.observe(frame(BOT, 0.0, lean=0.1))
    good = frame(BOT, 0.01, lean=0.1)
    bad = good._replace(**{broken: (math.nan,) * len(getattr(good, broken))})
    seen = observer.observe(bad)
    assert not seen.ok
    assert not np.isfinite(seen.vector).all()
    after = observer.observe(frame(BOT, 0.02, lean=0.1))
    assert after.ok
    assert see(observer, after, "pitch_rad") == pytest.approx(0.1, abs=0.01)


def test_a_long_silence_starts_the_filters_afresh():
    observer = Observer(BOT)
    observer.set_reference(Reference(speed_target_m_s=1.0))
    for i in range(50):
        observer.observe(frame(BOT, 0.01 * i))
    seen = observer.observe(frame(BOT, 3.0, lean=0.25))
    assert see(observer, seen, "pitch_rad") == pytest.approx(0.25)
    assert see(observer, seen, "speed_error_integral_m") == pytest.approx(0.0)


def test_a_board_whose_clock_went_back_starts_the_filters_afresh():
    observer = Observer(BOT)
    observer.observe(frame(BOT, 100.0))
    assert see(observer, observer.observe(frame(BOT, 0.5, lean=-0.2)), "pitch_rad") == pytest.approx(-0.2)


def test_an_observation_is_never_changed_afterwards():
    observer = Observer(BOT)
    first = observer.observe(frame(BOT, 0.0, lean=0.1))
    kept = first.vector.copy()
    observer.observe(frame(BOT, 0.01, lean=-0.4, applied=(1, 1)))
    assert np.array_equal(first.vector, kept)


def test_a_rover_on_its_path_sees_no_error_and_the_path_ahead():
    straight = make_path(np.stack([np.arange(100) * 0.1, np.zeros(100)], axis=-1), closed=False)
    observer = Observer(ROVER)
    observer.set_reference(Reference(path=straight))
    observer.observe(frame(ROVER, 0.0))
    seen = observer.observe(frame(ROVER, 0.02, turned=(4.0, 4.0), wheels=(10.0, 10.0)))  # 4 rad * 5 cm = 0.2 m
    assert see(observer, seen, "cross_track_m") == pytest.approx(0.0, abs=1e-6)
    assert see(observer, seen, "heading_error") == pytest.approx([0.0, 1.0], abs=1e-6)
    assert see(observer, seen, "path_ahead_m") == pytest.approx([0.15, 0, 0.40, 0, 0.80, 0, 1.40, 0], abs=1e-6)
    assert see(observer, seen, "path_speed_m_s") == pytest.approx(0.5)


def test_a_rover_left_of_its_path_sees_a_positive_error():
    straight = make_path(np.stack([np.arange(100) * 0.1, np.zeros(100)], axis=-1), closed=False)
    observer = Observer(ROVER)
    observer.set_reference(Reference(path=straight))
    observer.observe(frame(ROVER, 0.0))
    turned = 0.0
    for i in range(1, 51):  # turn left at 0.5 rad/s while driving 0.5 m/s for one second
        turned += 0.2
        seen = observer.observe(frame(ROVER, 0.02 * i, gyro=(0, 0, 0.5), wheels=(10, 10), turned=(turned, turned)))
    assert see(observer, seen, "cross_track_m") == pytest.approx((1 - np.cos(0.5)) * 1.0, abs=2e-3)
    assert see(observer, seen, "heading_error") == pytest.approx([np.sin(0.5), np.cos(0.5)], abs=1e-3)


def test_nothing_on_the_radar_is_an_observation_and_not_an_error():
    observer = Observer(ROVER)
    seen = observer.observe(frame(ROVER, 0.0))
    assert seen.ok
    assert see(observer, seen, "obstacle") == pytest.approx([0, 0, 0, 0])
    seen = observer.observe(frame(ROVER, 0.02, extra=(1.5, -0.5, -0.3)))
    assert see(observer, seen, "obstacle") == pytest.approx([1.5, -0.5, -0.3, 1.0])


def test_a_closed_path_can_be_followed_for_ever():
    eight = make_figure_eight()
    observer = Observer(ROVER)
    observer.set_reference(Reference(path=eight))
    tracker = observer.on_path
    for along in np.arange(0.0, 2.5 * float(eight.length_m[0]), 0.05):
        tracker.x_m, tracker.y_m, tangent_x, tangent_y = tracker.at(float(along))
        tracker.heading_rad = math.atan2(tangent_y, tangent_x)
        tracker.look()
        assert abs(tracker.cross_m) < 1e-3
        assert tracker.along_m == pytest.approx(along, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [BOT, ROVER], ids=lambda spec: spec.model)
def test_a_batch_gives_each_robot_what_it_would_get_alone(spec):
    generator = np.random.default_rng(11)
    together, alone = Observer(spec, (5,)), [Observer(spec) for _ in range(5)]
    targets = generator.uniform(-0.5, 0.5, 5)
    together.set_reference(Reference(targets, -targets))
    for i, observer in enumerate(alone):
        observer.set_reference(Reference(targets[i], -targets[i]))
    for tick in range(30):
        frames = [
            frame(spec, 0.01 * tick, generator.uniform(-0.3, 0.3), generator.normal(size=3), generator.normal(size=2) * 5, np.full(2, tick * 0.3),
                  generator.uniform(-1, 1, 2), generator.normal(size=len(spec.extras)))
            for _ in range(5)
        ]  # fmt: skip
        arrays = {name: np.array([getattr(f, name) for f in frames]) for name in ("t_mcu_us", "battery_v")}
        for name in ("position_rad", "velocity_rad_s", "applied", "gyro_rad_s", "accel_m_s2", "extra"):
            arrays[name] = tuple(np.array([getattr(f, name) for f in frames]).T)
        if tick == 15:  # robot 3 falls over and starts again
            together.reset(np.arange(5) == 3)
            alone[3].reset()
        many = together.observe(SensorFrame(seq=0, board=BoardMode.ARMED, faults=Fault.NONE, answered_seq=0, **arrays))
        for i in range(5):
            one = alone[i].observe(frames[i])
            assert many.vector[i] == pytest.approx(one.vector, abs=1e-5), f"robot {i}, tick {tick}"
            assert bool(many.ok[i]) == bool(one.ok)
