"""Scores and the value check: whose episodes count, and what a start really brought, worked by hand."""

import numpy as np
import pytest
from learn_fakes import Scripted

from edge_dsac.learn.evaluate import Judged, ValueCheck, evaluate, realise


def still(obs):
    return np.zeros((len(obs), 1))


# Scores


def test_each_place_runs_the_same_number_of_episodes():
    short, long = [(2, False)] * 9, [(6, True)] * 9
    score = evaluate(Scripted([short, long], reward=lambda i, k: 1.0), still, 0, 4)
    assert sorted(score.returns) == [2.0, 2.0, 6.0, 6.0]  # not six short ones and two long ones
    assert sorted(score.lengths) == [2, 2, 6, 6]
    assert score.survival == 0.5
    assert score.mean == 4.0


def test_an_odd_number_of_episodes_is_rounded_up_to_whole_turns():
    score = evaluate(Scripted([[(1, False)] * 9, [(1, False)] * 9]), still, 0, 3)
    assert len(score.returns) == 4


def test_truths_are_means_of_their_size_over_the_steps_that_count():
    world = Scripted([[(1, False)] * 9, [(3, False)]], info=lambda obs: {"pitch_rad": np.where(obs[:, 0] == 0, -8.0, obs[:, 1])})
    score = evaluate(world, still, 0, 2)
    assert score.means == {"pitch_rad": pytest.approx((8.0 + 1 + 2 + 3) / 4)}  # place 0 counts once, by its size


def test_a_truth_that_is_no_number_is_left_out():
    world = Scripted([[(2, False)]], info=lambda obs: {"gap_m": np.full(1, np.inf), "speed_m_s": np.ones(1)})
    assert evaluate(world, still, 0, 1).means == {"speed_m_s": 1.0}


def test_figures_of_a_score():
    score = evaluate(Scripted([[(2, True)], [(4, False)]]), still, 0, 2)  # 0 + 1, and 0 + 1 + 2 + 3
    assert score.figures() == {"mean": 3.5, "std": 2.5, "min": 1.0, "max": 6.0, "survival": 0.5}


# The value check

JUDGED = Judged((), (), 2.0, (), None, 0.5, 1.0)  # gamma 0.5, alpha 2: a start needs four steps behind it


def lived(rewards, terminated=(), cut=(), log_prob=0.0, beyond=100.0):
    """One robot; q of step k is k."""
    return [
        {
            "q": np.array([float(k)]), "sigma": np.array([1.0]), "log_prob": np.array([log_prob]), "reward": np.array([reward]),
            "terminated": np.array([k in terminated]), "cut": np.array([k in cut]), "beyond": np.array([beyond]),
        }
        for k, reward in enumerate(rewards)
    ]  # fmt: skip


def by_start(check):
    return dict(zip(check.estimated.tolist(), check.realised.tolist(), strict=True))


def test_a_death_ends_the_return():
    check = realise(lived([1.0, 2.0, 4.0, 7.0], terminated=[2, 3]), JUDGED)
    assert by_start(check) == {3.0: 7.0, 2.0: 4.0, 1.0: 2 + 4 / 2, 0.0: 1 + 2 / 2 + 4 / 4}  # nothing of 7, nor of what lay beyond


def test_the_entropy_of_the_first_action_is_not_counted_and_that_of_the_later_ones_is():
    check = realise(lived([1.0, 1.0], terminated=[1], log_prob=3.0), JUDGED)
    assert by_start(check) == {1.0: 1.0, 0.0: 1 + (1 - 2 * 3) / 2}


def test_beyond_a_cut_the_critics_fill_in_and_starts_too_near_to_it_are_left_out():
    check = realise(lived([0.0] * 5, cut=[4], beyond=64.0), JUDGED)
    assert by_start(check) == {1.0: 64 / 16, 0.0: 64 / 32}  # a share of 1/16 is less than a tenth, 1/8 is not


def test_a_cut_on_the_way_keeps_two_episodes_apart():
    check = realise(lived([1.0] * 4 + [1000.0], cut=[3], terminated=[4], beyond=16.0), JUDGED)
    assert by_start(check) == {4.0: 1000.0, 0.0: 1 + 1 / 2 + 1 / 4 + 1 / 8 + 16 / 16}


def test_a_check_without_any_start_knows_nothing_and_does_not_end_the_run():
    check = realise(lived([0.0] * 3, cut=[2]), JUDGED)
    assert len(check.estimated) == 0
    assert all(np.isnan(value) for value in check.figures().values())


def test_figures_of_a_value_check():
    check = ValueCheck(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 1.0, 0.4, 1.0]), np.array([0.0, 4.0, 2.0, 1.0]))
    figures = check.figures()  # errors 1, -2, 1, 3: only the first is within two sigma
    assert figures["bias"] == pytest.approx(0.75)
    assert figures["spread"] == pytest.approx(np.sqrt(15 / 4))
    assert figures["within_2_sigma"] == 0.25
    assert (figures["estimated"], figures["realised"], figures["sigma"]) == (2.5, 1.75, pytest.approx(0.85))
