"""The reward, term by term, worked by hand; one robot and a batch agree; what the robot file gets wrong is named at start."""

import dataclasses

import numpy as np
import pytest

from edge_dsac.learn.rewards import TERMS, Reward
from edge_dsac.records import BoardMode, CommandFrame, Event, Fault, Mode, Observation, Rule, SensorFrame, Step
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RewardTerm
from edge_dsac.spec.schema import SpecError

STILL = np.zeros(2)


def vector_of(spec, **terms):
    """An observation with these newest entries, zeros elsewhere."""
    layout = ObservationLayout(spec)
    vector = np.zeros(layout.size, np.float32)
    for term, values in terms.items():
        where = layout.newest[term]
        vector[where] = values
    return vector


def rewarding(spec, term, weight=1.0, width=1.0):
    return Reward(dataclasses.replace(spec, rewards=(RewardTerm(term, weight, width),)))


def worth(spec, term, weight, width, action=STILL, last_action=STILL, **terms):
    return float(rewarding(spec, term, weight, width)(vector_of(spec, **terms), action, last_action))


def test_being_alive_is_worth_its_weight(bot):
    assert worth(bot, "alive", 1.5, 1.0) == 1.5


def test_speed_error_costs_in_proportion_up_to_its_width(bot):
    # |0.2 - 0.5| = 0.3 of a width of 0.6 is half of the weight.
    assert worth(bot, "speed_error", -1.0, 0.6, speed_m_s=0.2, speed_target_m_s=0.5) == pytest.approx(-0.5)
    assert worth(bot, "speed_error", -1.0, 0.6, speed_m_s=0.5, speed_target_m_s=0.2) == pytest.approx(-0.5)
    assert worth(bot, "speed_error", -1.0, 0.6, speed_m_s=-2.0, speed_target_m_s=0.5) == -1.0
    assert worth(bot, "speed_error", -1.0, 0.6, speed_m_s=0.5, speed_target_m_s=0.5) == 0.0


def test_yaw_rate_error_costs_in_proportion(bot):
    assert worth(bot, "yaw_rate_error", -0.3, 2.0, yaw_rate_rad_s=-0.5, yaw_rate_target_rad_s=0.5) == pytest.approx(-0.15)


def test_lean_costs_the_same_to_both_sides(bot):
    assert worth(bot, "lean", -0.3, 0.5, pitch_rad=0.25) == pytest.approx(-0.15)
    assert worth(bot, "lean", -0.3, 0.5, pitch_rad=-0.25) == pytest.approx(-0.15)


def test_action_rate_is_the_mean_change_of_the_action(bot):
    # (|0.5 - 0.1| + |-0.2 - 0.0|) / 2 = 0.3
    assert worth(bot, "action_rate", -0.1, 1.0, np.array([0.5, -0.2]), np.array([0.1, 0.0])) == pytest.approx(-0.03)


def test_path_progress_pays_forward_and_costs_backward(rover):
    assert worth(rover, "path_progress", 1.0, 0.6, path_speed_m_s=0.3) == pytest.approx(0.5)
    assert worth(rover, "path_progress", 1.0, 0.6, path_speed_m_s=-0.3) == pytest.approx(-0.5)
    assert worth(rover, "path_progress", 1.0, 0.6, path_speed_m_s=3.0) == 1.0  # no more for speeding
    assert worth(rover, "path_progress", 1.0, 0.6, path_speed_m_s=-3.0) == -1.0


def test_cross_track_costs_the_same_to_both_sides(rover):
    assert worth(rover, "cross_track", -1.0, 0.3, cross_track_m=0.15) == pytest.approx(-0.5)
    assert worth(rover, "cross_track", -1.0, 0.3, cross_track_m=-0.15) == pytest.approx(-0.5)


def test_an_obstacle_costs_most_at_contact_nothing_at_the_width_and_nothing_unseen(rover):
    # Entries: x, y, range rate, seen. 0.18 and 0.24 are 0.3 away: half of the width.
    assert worth(rover, "obstacle_near", -2.0, 0.6, obstacle=(0.18, 0.24, 0.0, 1.0)) == pytest.approx(-1.0)
    assert worth(rover, "obstacle_near", -2.0, 0.6, obstacle=(0.0, 0.0, 0.0, 1.0)) == -2.0
    assert worth(rover, "obstacle_near", -2.0, 0.6, obstacle=(0.0, -0.6, 0.0, 1.0)) == pytest.approx(0.0)
    assert worth(rover, "obstacle_near", -2.0, 0.6, obstacle=(3.0, 0.0, 0.0, 1.0)) == 0.0
    assert worth(rover, "obstacle_near", -2.0, 0.6, obstacle=(0.0, 0.0, 0.0, 0.0)) == 0.0


def test_only_the_newest_of_a_stacked_term_counts(rover):
    stacked = [dataclasses.replace(entry, history=2) if entry.term == "obstacle" else entry for entry in rover.observations]
    remembering = dataclasses.replace(rover, observations=tuple(stacked))
    layout = ObservationLayout(remembering)
    vector = vector_of(remembering)
    older = slice(layout.newest["obstacle"].stop, layout.stacked["obstacle"].stop)
    vector[older] = (0.0, 0.0, 0.0, 1.0)  # at contact a tick ago
    assert float(rewarding(remembering, "obstacle_near", -2.0, 0.6)(vector, STILL, STILL)) == 0.0


def test_every_term_has_a_test_here():
    assert set(TERMS) == {
        "alive", "speed_error", "yaw_rate_error", "lean", "action_rate", "path_progress", "cross_track", "obstacle_near",
    }  # fmt: skip


def test_the_reward_is_the_sum_of_its_named_parts(bot):
    vector = vector_of(bot, speed_m_s=0.2, speed_target_m_s=0.5, pitch_rad=0.25, yaw_rate_rad_s=1.0)
    action, last = np.array([0.5, -0.2]), np.array([0.1, 0.0])
    # As in balance_bot.toml: alive 1; speed 0.3 / 0.6; yaw 1 / 2 of 0.3; lean 0.25 / 0.5 of 0.3; change 0.3 of 0.1.
    expected = {"alive": 1.0, "speed_error": -0.5, "yaw_rate_error": -0.15, "lean": -0.15, "action_rate": -0.03}
    reward = Reward(bot)
    parts = reward.parts(vector, action, last)
    assert {name: float(share) for name, share in parts.items()} == pytest.approx(expected)
    assert float(reward(vector, action, last)) == pytest.approx(0.17)


@pytest.mark.parametrize("name", ["balance_bot", "rover"])
def test_a_batch_is_worth_what_its_robots_are_worth_one_by_one(name, bot, rover, generator):
    spec = {"balance_bot": bot, "rover": rover}[name]
    reward = Reward(spec)
    vectors = generator.uniform(-2.0, 2.0, (4, 5, ObservationLayout(spec).size)).astype(np.float32)
    actions, lasts = generator.uniform(-1.0, 1.0, (2, 4, 5, 2))
    together = reward(vectors, actions, lasts)
    assert together.shape == (4, 5)
    for i in range(4):
        for j in range(5):
            assert together[i, j] == pytest.approx(float(reward(vectors[i, j], actions[i, j], lasts[i, j])))
    assert together.std() > 0.1


def test_no_observation_however_wild_leaves_the_sum_of_the_weights(rover, generator):
    reward = Reward(rover)
    vectors = generator.standard_normal((1000, ObservationLayout(rover).size)) * 1e3
    values = reward(vectors, generator.uniform(-1, 1, (1000, 2)), generator.uniform(-1, 1, (1000, 2)))
    assert values.max() <= 1.5 + 1.0  # alive and path_progress pay
    assert values.min() >= 1.5 - 1.0 - 1.0 - 2.0 - 0.1


def test_an_unknown_term_gets_a_guess(bot):
    with pytest.raises(SpecError, match=r"balance_bot: reward 'speed_eror' is not known; did you mean 'speed_error'\?"):
        rewarding(bot, "speed_eror")


def test_a_term_like_no_other_gets_the_list(bot):
    with pytest.raises(SpecError, match="alive, speed_error"):
        rewarding(bot, "zzzzzz")


@pytest.mark.parametrize(
    ("term", "needs"), [("cross_track", "cross_track_m"), ("obstacle_near", "obstacle"), ("path_progress", "path_speed_m_s")]
)
def test_a_term_without_its_observation_names_it(bot, term, needs):
    with pytest.raises(SpecError, match=f"balance_bot: reward '{term}' needs {needs} among the observations"):
        rewarding(bot, term)


def test_the_observation_that_is_missing_is_the_one_that_is_named(bot):
    without = dataclasses.replace(bot, observations=tuple(entry for entry in bot.observations if entry.term != "speed_target_m_s"))
    with pytest.raises(SpecError, match="needs speed_target_m_s among"):
        Reward(without)


# From a log: the action of one step is judged by what was seen after it


def step_of(vector, applied_action):
    two, three = (0.0, 0.0), (0.0, 0.0, 0.0)
    frame = SensorFrame(0, 0, BoardMode.ARMED, Fault.NONE, 0, two, two, two, three, three, 11.1, ())
    command = CommandFrame(0, np.array(applied_action), np.array(applied_action), Rule.NONE)
    wanted = np.array([9.0, 9.0])  # nobody may reward the wish
    return Step(frame, Observation(vector, 0, True), wanted, command, 0, Mode.RUNNING, Event.FRAME_FRESH, 0, 0, 0, 0)


def test_a_logged_step_is_worth_what_its_successor_saw_and_what_was_applied(bot):
    earlier = step_of(vector_of(bot, pitch_rad=0.5), [0.0, 0.0])
    step = step_of(vector_of(bot, pitch_rad=0.4), [0.4, 0.0])
    after = step_of(vector_of(bot, pitch_rad=0.1), [0.0, 1.0])
    # alive 1; lean 0.1 / 0.5 of 0.3 = 0.06; the action changed by 0.4 and 0: mean 0.2, of 0.1 = 0.02.
    assert Reward(bot).of_steps(earlier, step, after) == pytest.approx(1.0 - 0.06 - 0.02)
