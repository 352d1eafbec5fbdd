"""Where a trial ends: beyond what the robot lived through, and before the floor."""

import numpy as np
import pytest

from edge_dsac.learn.envelope import AROUND, CAUGHT, UNUSUAL, envelope, errors, habit
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import load_robot


def rows(layout, count=2000, width=0.1, seed=0):
    return np.random.default_rng(seed).uniform(-width, width, (count, layout.size)).astype(np.float32)


def entry(layout, name):
    return next(i for i, label in enumerate(layout.labels) if label.startswith(name))


@pytest.fixture
def layout(bot):
    return ObservationLayout(bot)


def test_it_holds_all_that_the_robot_saw_with_room(bot, layout):
    own = rows(layout)
    gyro = entry(layout, "pitch_rate")
    own[7, gyro] = 0.8  # once
    low, high = envelope(bot, layout, rows(layout, width=0.01), own, room=0.5, lean_room=0.5)
    scaled = own / layout.scale
    for i, label in enumerate(layout.labels):
        if not label.startswith("pitch_rad"):
            assert low[i] < scaled[:, i].min(), label
            assert high[i] > scaled[:, i].max(), label
    assert high[gyro] == pytest.approx((0.8 + 0.5 * (0.8 - own[:, gyro].min())) / layout.scale[gyro], rel=1e-5)


def test_falls_in_simulation_do_not_widen_it(bot, layout):
    own, simulated = rows(layout), rows(layout)
    before = envelope(bot, layout, simulated, own, room=0.5, lean_room=0.5)
    simulated[:20] = 5.0  # one in a hundred
    after = envelope(bot, layout, simulated, own, room=0.5, lean_room=0.5)
    assert np.allclose(before, after, rtol=0.1)


def test_a_fall_under_the_parent_does_not_widen_the_lean(bot, layout):
    own, lean = rows(layout), entry(layout, "pitch_rad")
    before = envelope(bot, layout, rows(layout), own, room=0.5, lean_room=0.5)
    own[:3, lean] = 0.99 * bot.safety.tilt_limit_rad * layout.scale[lean]
    after = envelope(bot, layout, rows(layout), own, room=0.5, lean_room=0.5)
    assert after[1][lean] == pytest.approx(before[1][lean], rel=0.1)


def test_room_for_the_lean_ends_before_the_board_lets_go(bot, layout):
    lean = entry(layout, "pitch_rad")
    limit = CAUGHT * bot.safety.tilt_limit_rad
    own = rows(layout)
    own[:, lean] *= 0.9 * limit * layout.scale[lean] / 0.1
    low, high = envelope(bot, layout, rows(layout), own, room=2.0, lean_room=2.0)
    assert high[lean] == pytest.approx(limit)
    assert low[lean] == pytest.approx(-limit)


def test_what_was_asked_for_says_nothing_about_danger(bot, layout):
    low, high = envelope(bot, layout, rows(layout), rows(layout), room=0.5, lean_room=0.5)
    for name in ("applied_action", "speed_target", "yaw_rate_target"):
        i = entry(layout, name)
        assert (low[i], high[i]) == (-layout.clip[i], layout.clip[i])


def test_a_robot_without_a_lean_has_one_too():
    rover = load_robot("rover")
    layout = ObservationLayout(rover)
    low, high = envelope(rover, layout, rows(layout), rows(layout, seed=1), room=0.5, lean_room=0.5)
    assert (low < high).all()
    assert np.isfinite([low, high]).all()


def distances(found, layout, rows):
    seen = rows[:, list(found.entries)] / layout.scale[list(found.entries)] - np.array(found.mean)
    return np.square(seen @ np.array(found.whitening).reshape(len(found.mean), -1)).sum(axis=1)


def test_a_habit_is_what_the_robots_rows_are_like_together(bot, layout):
    own, (lean, rate) = rows(layout, width=1.0), (entry(layout, "pitch_rad"), entry(layout, "pitch_rate"))
    own[:, rate] = -own[:, lean] + 0.1 * own[:, rate]  # it swings: leaning one way it turns the other
    found = habit(layout, own)
    assert {lean, rate} <= set(found.entries)
    own_distances = distances(found, layout, own)
    assert (own_distances > found.most).mean() == pytest.approx(UNUSUAL, abs=1e-3)
    assert own_distances.mean() == pytest.approx(len(found.whitening) / len(found.entries), rel=0.2)
    falling = own[:1].copy()
    falling[0] = own.mean(axis=0)
    falling[0, lean] = falling[0, rate] = 0.9 * own[:, lean].max()  # each within what it does
    assert distances(found, layout, falling)[0] > 2.0 * found.most


def test_doing_as_it_is_told_is_nothing_unusual_and_doing_it_untold_is(layout):
    """A shaking robot that hardly turns, whatever it is asked; then one that turns fast, asked and not."""
    own, (is_so, asked) = rows(layout), (entry(layout, "yaw_rate_rad_s"), entry(layout, "yaw_rate_target"))
    own[:, asked] = np.where(np.arange(len(own)) % 2, 0.2, -0.2) * layout.scale[asked]
    found = habit(layout, own)
    turning = own[1:2].copy()
    turning[0] = own.mean(axis=0)
    turning[0, is_so], turning[0, asked] = 1.0 * layout.scale[is_so], 1.0 * layout.scale[asked]
    assert distances(found, layout, turning)[0] < found.most
    turning[0, asked] = 0.0
    assert distances(found, layout, turning)[0] > found.most


def test_what_tells_is_the_robots_doing_and_not_what_is_around_it(layout):
    rover = ObservationLayout(load_robot("rover"))
    for one in (layout, rover):
        count = errors(one)
        told = [[(one.labels[i], column[i]) for i in np.flatnonzero(column)] for column in count.T]
        assert [("speed_m_s", 1.0), ("speed_target_m_s", -1.0)] in told
        assert not any(label.startswith(("applied_action", *AROUND)) for column in told for label, _ in column)
        assert all(column[0][1] == 1.0 for column in told)
    assert [("yaw_rate_rad_s", 1.0), ("yaw_rate_target_rad_s", -1.0)] in [
        [(layout.labels[i], column[i]) for i in np.flatnonzero(column)] for column in errors(layout).T
    ]
    assert [("yaw_rate_rad_s", 1.0)] in told  # nobody asks a path follower for one


def test_an_entry_that_never_moves_makes_no_habit_endless(layout):
    own = rows(layout)
    own[:, entry(layout, "yaw_rate_rad_s")] = 0.0
    found = habit(layout, own)
    assert np.isfinite(found.whitening).all()
    assert np.isfinite(found.most)
    assert found.most < 100.0
