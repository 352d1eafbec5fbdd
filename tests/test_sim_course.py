"""What crosses the rover's way, what its radar tells of it, and the courses: smooth, closed, fair, and a baseline can drive them."""

import numpy as np
import pytest

from edge_dsac.bundle.baselines import make_baseline
from edge_dsac.records import Observation
from sim.course import COMES_FROM_M, CROSSES_AHEAD_M, GONE_M, OBSTACLE_SPEED_M_S, POINTS, Course, draw_loop
from sim.env import RobotVectorEnv
from sim.obstacle import OBSTACLE_RADIUS_M, RADAR_HALF_ANGLE_RAD, ROVER_RADIUS_M, Obstacle
from sim.randomize import Drawn
from sim.rollout import Rollout

EXACT = {"radar_noise_m": np.zeros(1), "radar_dropout": np.zeros(1)}
ORIGIN = np.zeros((1, 2))


def look(obstacle, position_m=ORIGIN, heading_rad=0.0, speed_m_s=0.0, drawn=EXACT):
    seen = obstacle.seen_from(position_m, np.array([heading_rad]), np.array([speed_m_s]), Drawn(drawn))
    return [float(seen[name][0]) for name in ("radar_x_m", "radar_y_m", "radar_speed_m_s")]


def obstacle_at(x, y, vx=0.0, vy=0.0):
    obstacle = Obstacle(1, np.random.default_rng(0))
    obstacle.send([0], np.array([[x, y]]), np.array([[vx, vy]]))
    return obstacle


# The obstacle and the radar


def test_the_radar_shows_the_nearest_point_ahead():
    assert look(obstacle_at(2.0, 0.0)) == pytest.approx([2.0 - OBSTACLE_RADIUS_M, 0.0, 0.0])


def test_left_is_positive_y():
    # 3-4-5: the centre is 2.5 away at (2.0, 1.5), the nearest point 2.35: 0.94 of it.
    assert look(obstacle_at(2.0, 1.5)) == pytest.approx([1.88, 1.41, 0.0])
    assert look(obstacle_at(2.0, -1.5)) == pytest.approx([1.88, -1.41, 0.0])


def test_the_radar_turns_and_moves_with_the_rover():
    # The rover stands at (1, 1) and looks along +y; the obstacle is 2 ahead of it and 0.5 to its right, at (1.5, 3).
    x, y, _ = look(obstacle_at(1.5, 3.0), np.array([[1.0, 1.0]]), np.pi / 2)
    share = 1.0 - OBSTACLE_RADIUS_M / np.hypot(2.0, 0.5)
    assert (x, y) == pytest.approx((2.0 * share, -0.5 * share))


def test_the_range_rate_is_negative_while_they_approach():
    assert look(obstacle_at(2.0, 0.0, vx=-0.3))[2] == pytest.approx(-0.3)
    assert look(obstacle_at(2.0, 0.0), speed_m_s=0.5)[2] == pytest.approx(-0.5)
    assert look(obstacle_at(2.0, 0.0, vx=0.5), speed_m_s=0.5)[2] == pytest.approx(0.0)
    assert look(obstacle_at(2.0, 0.0, vy=0.4))[2] == pytest.approx(0.0)  # across, not along


@pytest.mark.parametrize(("x", "y", "seen"), [(3.99, 0.0, True), (4.01, 0.0, False), (-1.0, 0.0, False), (0.0, 1.0, False)])
def test_the_radar_sees_four_metres_and_nothing_behind(x, y, seen):
    assert np.isfinite(look(obstacle_at(x, y))).all() == seen
    assert np.isnan(look(obstacle_at(x, y))).any() != seen


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_the_radar_sees_sixty_degrees_to_each_side(side):
    for angle, seen in ((RADAR_HALF_ANGLE_RAD - 0.01, True), (RADAR_HALF_ANGLE_RAD + 0.01, False)):
        assert np.isfinite(look(obstacle_at(2 * np.cos(angle), side * 2 * np.sin(angle)))[0]) == seen


def test_a_radar_that_drops_every_reading_reads_nothing_and_noise_is_noise(generator):
    assert np.isnan(look(obstacle_at(2.0, 0.0), drawn={**EXACT, "radar_dropout": np.ones(1)})).all()
    n = 2000
    obstacle = Obstacle(n, generator)
    obstacle.send(np.arange(n), np.tile([2.0, 0.0], (n, 1)), np.zeros((n, 2)))
    drawn = Drawn({"radar_noise_m": np.full(n, 0.05), "radar_dropout": np.full(n, 0.25)})
    seen = obstacle.seen_from(np.zeros((n, 2)), np.zeros(n), np.zeros(n), drawn)["radar_x_m"]
    assert np.isnan(seen).mean() == pytest.approx(0.25, abs=0.05)  # five sigma of 2000
    assert np.nanmean(seen) == pytest.approx(1.85, abs=0.007)
    assert np.nanstd(seen) == pytest.approx(0.05, rel=0.15)


def test_the_gap_is_between_the_hulls_and_zero_at_contact():
    assert obstacle_at(1.0, 0.0).gap_m(ORIGIN)[0] == pytest.approx(1.0 - OBSTACLE_RADIUS_M - ROVER_RADIUS_M)
    assert obstacle_at(0.0, OBSTACLE_RADIUS_M + ROVER_RADIUS_M).gap_m(ORIGIN)[0] == pytest.approx(0.0)


def test_the_obstacle_walks_straight_at_its_own_speed_until_it_is_cleared():
    obstacle = obstacle_at(2.0, 1.0, vx=-0.2, vy=0.1)
    for _ in range(50):
        obstacle.advance(0.02)
    assert obstacle.position_m[0].tolist() == pytest.approx([1.8, 1.1])
    obstacle.clear([0])
    obstacle.advance(10.0)
    assert obstacle.gap_m(ORIGIN)[0] > 100.0


@pytest.mark.slow
def test_a_plant_moves_the_obstacle_by_the_boards_clock(rover):
    rollout = Rollout(rover, 1, 0)
    rollout.plant.obstacle.send([0], np.array([[3.0, 0.0]]), np.array([[-0.5, 0.0]]))
    for _ in range(50):
        rollout.step(np.zeros((1, 2)))
    assert rollout.plant.obstacle.position_m[0].tolist() == pytest.approx([2.5, 0.0])  # one second


# The course


def course_of(rover, n=8, seed=1, obstacle=True):
    rollout = Rollout(rover, n, 0)
    course = Course(rollout, np.random.default_rng(seed), obstacle)
    course.lay(np.ones(n, bool))
    return rollout, course


def test_a_loop_is_closed_even_and_without_a_bend_sharper_than_a_rover_can_turn(generator):
    for _ in range(20):
        loop = draw_loop(generator)
        assert loop.shape == (POINTS, 2)
        steps = np.roll(loop, -1, axis=0) - loop
        lengths = np.linalg.norm(steps, axis=1)
        assert lengths.max() < 1.05 * lengths.min()  # also from the last point to the first
        headings = np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))
        turns = np.diff(np.concatenate([headings, headings[:1] + np.round((headings[-1] - headings[0]) / 2 / np.pi) * 2 * np.pi]))
        assert abs(turns.sum()) == pytest.approx(2 * np.pi, abs=0.5)  # once round
        assert abs(turns).max() / lengths.mean() < 6.0  # a radius of 17 cm; half the track is 13


def test_loops_run_both_ways(generator):
    areas = []
    for _ in range(40):
        x, y = draw_loop(generator).T
        areas.append(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))
    assert 5 < np.sum(np.array(areas) > 0) < 35  # of 40 fair coins: less than one in 10^6 outside


def test_every_rover_stands_on_its_first_point_and_looks_along_its_path(rover):
    rollout, course = course_of(rover)
    truth = rollout.plant.truth()
    assert truth.position_m == pytest.approx(course.points[:, 0])
    ahead = course.points[:, 1] - course.points[:, 0]
    along = np.cos(truth.heading_rad) * ahead[:, 0] + np.sin(truth.heading_rad) * ahead[:, 1]
    assert (along > 0.98 * np.linalg.norm(ahead, axis=1)).all()
    assert course.distance_m(truth.position_m) == pytest.approx(np.zeros(8), abs=1e-9)


def test_the_distance_from_the_path_is_that_of_the_true_position(rover):
    _, course = course_of(rover, 2)
    normal = np.stack([-course.path.tangents[:, 7, 1], course.path.tangents[:, 7, 0]], axis=-1)
    assert course.distance_m(course.points[:, 7] + 0.05 * normal) == pytest.approx([0.05, 0.05], abs=0.002)


def test_a_new_path_for_one_leaves_the_others_on_theirs(rover):
    rollout, course = course_of(rover, 3, obstacle=False)
    for _ in range(20):
        rollout.step(np.tile([0.5, 0.1], (3, 1)))
    points, where = course.points.copy(), rollout.plant.truth().position_m.copy()
    along, cross = rollout.observer.on_path.along_m.copy(), rollout.observer.on_path.cross_m.copy()
    assert along.min() > 0.05
    one = np.array([False, True, False])
    rollout.reset(one)
    course.lay(one)
    rollout.look(one)
    assert np.array_equal(course.points[[0, 2]], points[[0, 2]])
    assert not np.array_equal(course.points[1], points[1])
    assert np.array_equal(rollout.plant.truth().position_m[[0, 2]], where[[0, 2]])
    # The tracker's projection settles a little more with every frame: a fraction of a millimetre.
    assert rollout.observer.on_path.along_m[[0, 2]] == pytest.approx(along[[0, 2]], abs=5e-4)
    assert rollout.observer.on_path.cross_m[[0, 2]] == pytest.approx(cross[[0, 2]], abs=5e-4)
    assert rollout.observer.on_path.along_m[1] == pytest.approx(0.0, abs=1e-9)


def test_an_obstacle_starts_beside_the_path_and_walks_across_it(rover):
    rollout, course = course_of(rover, 16)
    obstacle, truth = rollout.plant.obstacle, rollout.plant.truth()
    speed = np.linalg.norm(obstacle.velocity_m_s, axis=1)
    assert OBSTACLE_SPEED_M_S[0] <= speed.min()
    assert speed.max() <= OBSTACLE_SPEED_M_S[1]
    for i in range(16):
        # Follow it: somewhere between its least and its greatest way it meets the path, near where it should.
        way = np.linspace(*COMES_FROM_M, 400)
        track = obstacle.position_m[i] + np.outer(way, obstacle.velocity_m_s[i] / speed[i])
        gaps = np.linalg.norm(track[:, None] - course.points[i], axis=-1)
        places = np.flatnonzero(gaps.min(axis=0) < 1.5 * course.path.spacing_m[i]) * course.path.spacing_m[i]
        assert ((places > CROSSES_AHEAD_M[0] - 0.2) & (places < CROSSES_AHEAD_M[1] + 0.2)).any()
    assert truth.obstacle_gap_m.min() > 0.4  # nobody is hit at the start
    assert truth.obstacle_gap_m.max() < GONE_M


def test_the_next_obstacle_comes_when_the_last_one_has_gone_and_not_before(rover):
    rollout, course = course_of(rover, 2)
    before = rollout.plant.obstacle.position_m.copy()
    course.send_obstacles()
    assert np.array_equal(rollout.plant.obstacle.position_m, before)
    rollout.plant.obstacle.clear([1])
    course.send_obstacles()
    assert np.array_equal(rollout.plant.obstacle.position_m[0], before[0])
    assert rollout.plant.truth().obstacle_gap_m[1] < GONE_M


def test_a_course_without_obstacles_has_none(rover):
    rollout, course = course_of(rover, 3, obstacle=False)
    course.send_obstacles()
    assert rollout.plant.truth().obstacle_gap_m.min() > 90.0


# The baseline on its course. An episode ends at a collision only; what is counted is what happened until then.


def drive(rover, robots, seconds, obstacle, blind=False):
    env, baseline = (
        RobotVectorEnv(rover, robots, randomization="nominal", obstacle=obstacle, seconds=1e6, leave_path_m=50.0),
        make_baseline(rover),
    )
    obs, _ = env.reset(seed=1)
    see = env.rollout.observer.layout.newest["obstacle"]
    alive, worst_m, driven_m, ran_into = np.ones(robots, bool), np.zeros(robots), np.zeros(robots), 0
    for _ in range(round(seconds * rover.rates.control_hz)):
        if blind:
            obs[:, see] = 0.0
        obs, _, terminated, _, info = env.step(baseline.act(Observation(obs, 0, True)))
        # Who stands still when he is walked into has done what he could: only a collision at speed is the driver's.
        ran_into += int((alive & info["collided"] & (info["speed_m_s"] > 0.3)).sum())
        alive &= ~terminated
        worst_m = np.where(alive, np.maximum(worst_m, info["off_path_m"]), worst_m)
        driven_m += alive * info["speed_m_s"] / rover.rates.control_hz
    return worst_m, driven_m, ran_into


@pytest.mark.slow
def test_pure_pursuit_drives_a_free_course_near_its_path(rover):
    worst_m, driven_m, _ = drive(rover, 8, 15.0, obstacle=False)
    assert driven_m.min() > 6.0  # cruise is 0.6 m/s: 9 m at most
    # Dead reckoning drifts and nothing corrects it, so this is a bound for 15 s and not for ever. Seen: 0.1.
    assert worst_m.max() < 0.20


@pytest.mark.slow
def test_pure_pursuit_runs_into_less_than_a_blind_one_does(rover):
    # Not "never": the radar sees 60 degrees to each side, and what comes from further round is not seen at all.
    _, _, seeing = drive(rover, 24, 12.0, obstacle=True)
    _, _, blind = drive(rover, 24, 12.0, obstacle=True, blind=True)
    print(f"collisions at speed: {seeing} seeing, {blind} blind, of 24 rovers in 12 s")
    assert blind >= 6
    assert seeing <= blind / 2
