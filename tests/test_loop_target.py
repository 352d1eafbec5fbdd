"""The radar's target remembered: place and velocity from scans that show neither sideways motion nor what is out of sight."""

import math

import numpy as np
import pytest

from edge_dsac.loop.lanes import make_lanes
from edge_dsac.loop.target import FORGET_S, LOOK_AHEAD_S, TargetTracker

TICK_S, SCAN_TICKS = 0.02, 3
NOTHING = (math.nan, math.nan, math.nan)


class Scene:
    """A target that walks straight over the floor and a robot that drives an arc; says what the radar shows."""

    def __init__(self, at, velocity, speed=0.0, yaw_rate=0.0):
        self.at, self.velocity, self.speed, self.yaw_rate = np.array(at, float), np.array(velocity, float), speed, yaw_rate
        self.robot, self.heading = np.zeros(2), 0.0

    def tick(self):
        middle = self.heading + 0.5 * self.yaw_rate * TICK_S
        self.robot = self.robot + self.speed * TICK_S * np.array([math.cos(middle), math.sin(middle)])
        self.heading += self.yaw_rate * TICK_S
        self.at = self.at + self.velocity * TICK_S

    def in_body(self, vector):
        cos, sin = math.cos(self.heading), math.sin(self.heading)
        return cos * vector[0] + sin * vector[1], cos * vector[1] - sin * vector[0]

    def scan(self):
        x, y = self.in_body(self.at - self.robot)
        vx, vy = self.in_body(self.velocity)
        return x, y, ((vx - self.speed) * x + vy * y) / math.hypot(x, y)


def follow(tracker, scene, ticks, hidden=lambda tick: False):
    shown = NOTHING
    for tick in range(ticks):
        scene.tick()
        if tick % SCAN_TICKS == 0:  # between scans the last reading stands
            shown = NOTHING if hidden(tick) else scene.scan()
        tracker.advance(scene.speed * TICK_S, scene.yaw_rate * TICK_S, TICK_S, scene.speed, shown)


def test_a_first_scan_is_believed_and_its_range_rate_is_the_velocity_along_the_line_of_sight():
    tracker = TargetTracker(make_lanes(()))
    tracker.advance(0.0, 0.0, TICK_S, 0.5, (2.0, 0.0, -0.8))
    assert (tracker.x_m, tracker.y_m) == (2.0, 0.0)
    assert tracker.vx_m_s == pytest.approx(-0.3, abs=1e-5)  # 0.8 m/s nearer per second, 0.5 of it the robot's own
    assert tracker.known


def test_what_crosses_is_found_to_cross():
    tracker, scene = TargetTracker(make_lanes(())), Scene([2.0, -1.0], [0.0, 0.4])
    follow(tracker, scene, 100)
    assert tracker.vx_m_s == pytest.approx(0.0, abs=0.03)
    assert tracker.vy_m_s == pytest.approx(0.4, abs=0.03)
    assert (tracker.x_m, tracker.y_m) == pytest.approx(scene.in_body(scene.at), abs=0.03)


def test_a_target_that_stands_does_not_move_when_the_robot_drives_and_turns():
    tracker, scene = TargetTracker(make_lanes(())), Scene([3.0, 0.5], [0.0, 0.0], speed=0.5, yaw_rate=0.4)
    follow(tracker, scene, 100)
    assert math.hypot(tracker.vx_m_s, tracker.vy_m_s) < 0.06
    assert (tracker.x_m, tracker.y_m) == pytest.approx(scene.in_body(scene.at - scene.robot), abs=0.04)


def test_out_of_sight_it_goes_on_as_it_went_and_is_forgotten_in_time():
    tracker, scene = TargetTracker(make_lanes(())), Scene([2.0, -1.0], [0.0, 0.4], speed=0.3, yaw_rate=0.3)
    follow(tracker, scene, 100)
    follow(tracker, scene, 50, hidden=lambda tick: True)
    assert tracker.known
    assert (tracker.x_m, tracker.y_m) == pytest.approx(scene.in_body(scene.at - scene.robot), abs=0.1)
    follow(tracker, scene, round(FORGET_S / TICK_S), hidden=lambda tick: True)
    assert not tracker.known


def test_a_scan_elsewhere_is_another_target():
    tracker, scene = TargetTracker(make_lanes(())), Scene([2.0, -1.0], [0.0, 0.4])
    follow(tracker, scene, 60)
    tracker.advance(0.0, 0.0, TICK_S, 0.0, (3.5, 1.0, 0.0))
    assert (tracker.x_m, tracker.y_m) == (3.5, 1.0)
    assert (tracker.vx_m_s, tracker.vy_m_s) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("place", "velocity", "expected"),
    [
        ((2.0, 0.0), (-0.5, 0.0), (2.0, (1.0, 0.0))),  # 1 m/s nearer per second with the robot's 0.5: 2 s, and then it is here
        ((1.0, -1.0), (0.5, 1.0), (1.0, (1.0, 0.0))),  # crosses in front as fast as we drive: nearest straight ahead
        ((1.0, 0.0), (2.0, 0.0), (0.0, (1.0, 0.0))),  # goes away: nearest is now
    ],
)
def test_nearest_is_what_both_going_on_would_bring(place, velocity, expected):
    tracker = TargetTracker(make_lanes(()))
    (tracker.x_m, tracker.y_m), (tracker.vx_m_s, tracker.vy_m_s) = place, velocity
    until_s, x_m, y_m = tracker.nearest(0.5)
    if expected[0] == 2.0:  # 2 m at 1 m/s
        assert (until_s, x_m) == pytest.approx((2.0, 0.0), abs=0.01)
    else:
        assert (until_s, (x_m, y_m)) == (pytest.approx(expected[0], abs=0.01), pytest.approx(expected[1], abs=0.01))
    assert 0.0 <= until_s <= LOOK_AHEAD_S


def test_one_and_many_say_the_same():
    generator = np.random.default_rng(3)
    one, many = TargetTracker(make_lanes(())), TargetTracker(make_lanes((2,)))
    for tick in range(200):
        scan = NOTHING if tick % 7 == 0 else tuple(generator.normal(size=3) + [2.0, 0.0, 0.0])
        moved = tuple(generator.normal(size=3) * 0.02)
        one.advance(moved[0], moved[1], TICK_S, moved[2], scan)
        many.advance(*(np.full(2, value) for value in moved[:2]), TICK_S, np.full(2, moved[2]), tuple(np.full(2, value) for value in scan))
        assert one.known == many.known[1]
        for ours, theirs in zip((*one.nearest(0.4), one.vx_m_s), (*many.nearest(0.4), many.vx_m_s), strict=True):
            assert ours == pytest.approx(theirs[1], rel=1e-12, abs=1e-12)
