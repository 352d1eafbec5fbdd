"""From steps to transitions: what spans how many steps, what cuts the bootstrap, and whose observation follows."""

import math

import numpy as np
import pytest
from learn_fakes import Scripted

from edge_dsac.learn.collect import Collector, WorldError
from edge_dsac.learn.losses import Batch


def collected(world, steps, n_step=1, gamma=0.5, reward_scale=1.0, act=0.25):
    """All rows of one round, one list of dicts."""
    collector = Collector(world, gamma, n_step, reward_scale)
    collector.begin(0)
    batches = collector.collect(lambda obs: np.full((world.n, 1), act, np.float32), steps) + collector.finish()
    assert all(len(batch.reward) for batch in batches)
    joined = Batch(*(np.concatenate(column) for column in zip(*batches, strict=True)))
    names = ("obs", "next_obs", "reward", "done", "discount")
    return [
        dict(zip(names, (row.tolist() for row in rows), strict=True))
        for rows in zip(*(getattr(joined, name) for name in names), strict=True)
    ]


def row(obs, next_obs, reward, done, discount):
    return {"obs": obs, "next_obs": next_obs, "reward": reward, "done": done, "discount": discount}


# One step


def test_one_step_rows_hold_their_own_step_and_one_discount():
    rows = collected(Scripted([[]]), 3)
    assert rows == [
        row([0, 0, 0], [0, 1, 0], 0.0, 0.0, 0.5),
        row([0, 1, 0], [0, 2, 0], 1.0, 0.0, 0.5),
        row([0, 2, 0], [0, 3, 0], 2.0, 0.0, 0.5),
    ]


def test_a_death_cuts_and_a_time_limit_does_not_and_both_show_the_old_episodes_end():
    rows = collected(Scripted([[(2, True), (1, False)]]), 4)
    assert rows == [
        row([0, 0, 0], [0, 1, 0], 0.0, 0.0, 0.5),
        row([0, 1, 0], [0, 2, 0], 1.0, 1.0, 0.5),  # dead; next is where it died, not [0, 0, 1]
        row([0, 0, 1], [0, 1, 1], 0.0, 0.0, 0.5),  # cut by time: bootstraps from its own last observation
        row([0, 0, 2], [0, 1, 2], 0.0, 0.0, 0.5),
    ]


def test_what_is_stored_is_the_action_that_was_applied():
    world = Scripted([[]])  # its limiter lets through 0.5 at most
    collector = Collector(world, 0.5, 1, 1.0)
    collector.begin(0)
    (rows,) = collector.collect(lambda obs: np.array([[0.9]]), 1)
    assert rows.act.tolist() == [[0.5]]


@pytest.mark.parametrize("n_step", [1, 3])
def test_the_reward_scale_is_applied_once_to_rows_and_never_to_the_tally(n_step):
    world = Scripted([[(3, False)]], reward=lambda i, k: 4.0)
    collector = Collector(world, 0.5, n_step, 0.1)
    collector.begin(0)
    (rows,) = collector.collect(lambda obs: np.zeros((1, 1)), 3)
    assert rows.reward == pytest.approx([0.4, 0.4, 0.4] if n_step == 1 else [0.4 + 0.2 + 0.1, 0.4 + 0.2, 0.4])
    assert collector.tally.returns == [12.0]


# Three steps


def test_three_step_rows_worked_by_hand():
    rows = collected(Scripted([[]], reward=lambda i, k: 10.0**k), 4, n_step=3)
    assert rows == [
        row([0, 0, 0], [0, 3, 0], 1 + 5 + 25, 0.0, 0.125),  # 1 + 10/2 + 100/4
        row([0, 1, 0], [0, 4, 0], 10 + 50 + 250, 0.0, 0.125),
        row([0, 2, 0], [0, 4, 0], 100 + 500, 0.0, 0.25),  # the round is over: they close with what they span
        row([0, 3, 0], [0, 4, 0], 1000, 0.0, 0.5),
    ]


def test_at_a_death_every_open_row_closes_and_is_cut():
    rows = collected(Scripted([[(4, True)]], reward=lambda i, k: 10.0**k), 4, n_step=3)
    assert rows == [
        row([0, 0, 0], [0, 3, 0], 31.0, 0.0, 0.125),
        row([0, 1, 0], [0, 4, 0], 310.0, 1.0, 0.125),
        row([0, 2, 0], [0, 4, 0], 600.0, 1.0, 0.25),
        row([0, 3, 0], [0, 4, 0], 1000.0, 1.0, 0.5),
    ]


def test_at_a_time_limit_every_open_row_closes_and_bootstraps_from_the_episodes_own_last_observation():
    rows = collected(Scripted([[(2, False)]]), 5, n_step=3)
    assert rows == [
        row([0, 0, 0], [0, 2, 0], 0.5, 0.0, 0.25),
        row([0, 1, 0], [0, 2, 0], 1.0, 0.0, 0.5),
        row([0, 0, 1], [0, 3, 1], 0.5 + 0.5, 0.0, 0.125),  # nothing of the first episode's rewards
        row([0, 1, 1], [0, 3, 1], 1.0 + 1.0, 0.0, 0.25),
        row([0, 2, 1], [0, 3, 1], 2.0, 0.0, 0.5),
    ]


def test_two_environments_that_end_at_different_times_do_not_touch_each_other():
    ends = [[(2, True)], [(3, False)]]
    together = collected(Scripted(ends), 6, n_step=3)
    for i in (0, 1):
        nobody_else = [[], []]
        nobody_else[i] = ends[i]
        alone = [one for one in collected(Scripted(nobody_else), 6, n_step=3) if one["obs"][0] == i]
        by_start = sorted((one for one in together if one["obs"][0] == i), key=lambda one: (one["obs"][2], one["obs"][1]))
        assert by_start == sorted(alone, key=lambda one: (one["obs"][2], one["obs"][1]))
        assert len(by_start) == 6  # one row per step, whatever ended
    dead = [one for one in together if one["done"]]
    assert [one["obs"] for one in dead] == [[0, 0, 0], [0, 1, 0]]
    assert all(one["obs"][2] == one["next_obs"][2] for one in together)  # no row spans two episodes


def test_a_new_round_carries_nothing_of_the_last_one():
    collector = Collector(Scripted([[]]), 0.5, 3, 1.0)
    for _ in range(2):
        collector.begin(0)
        rows = collector.collect(lambda obs: np.zeros((1, 1)), 2)
        assert rows == []  # nothing is three steps long yet
    assert [batch.obs.tolist() for batch in collector.finish()] == [[[0, 0, 0], [0, 1, 0]]]
    assert collector.finish() == []


def test_a_round_may_be_collected_in_pieces():
    whole = collected(Scripted([[(4, True), (3, False)]]), 9, n_step=3)
    collector = Collector(Scripted([[(4, True), (3, False)]]), 0.5, 3, 1.0)
    collector.begin(0)
    pieces = [batch for _ in range(3) for batch in collector.collect(lambda obs: np.zeros((1, 1)), 3)] + collector.finish()
    assert len(pieces) == 4
    assert np.concatenate([batch.reward for batch in pieces]).tolist() == [one["reward"] for one in whole]


# The tally


def test_the_tally_counts_episodes_that_ended_and_only_those():
    collector = Collector(Scripted([[(2, True), (3, False)], [(4, False)]]), 0.5, 1, 1.0)
    collector.begin(0)
    collector.collect(lambda obs: np.zeros((2, 1)), 6)
    tally = collector.tally
    assert tally.returns == [0 + 1, 0 + 1 + 2 + 3, 0 + 1 + 2]  # at the steps 2, 4 and 5
    assert tally.lengths == [2, 4, 3]
    assert tally.terminated == 1


# What nothing can be learnt from


class Broken(Scripted):
    """Environment 1 goes wrong at its step 2, in `field`."""

    def __init__(self, field, value):
        super().__init__([[], [(3, False)], []])
        self.field, self.value = field, value

    def step(self, action):
        outcome = super().step(action)
        if outcome.next_obs[1, 1] == 3:
            getattr(outcome, self.field)[1] = self.value
        return outcome


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("field", "word"), [("reward", "reward"), ("next_obs", "observation"), ("obs", "observation")])
def test_a_number_that_is_none_names_the_environment_and_the_step(field, word, value):
    collector = Collector(Broken(field, value), 0.5, 1, 1.0)
    collector.begin(0)
    with pytest.raises(WorldError, match=rf"scripted: the {word} of environment 1 is .*{value}.* at step 2;"):
        collector.collect(lambda obs: np.zeros((3, 1)), 10)


def test_a_reward_too_large_for_the_replays_float32_is_refused_as_well():
    collector = Collector(Broken("reward", 1e39), 0.5, 1, 1.0)
    collector.begin(0)
    with pytest.raises(WorldError, match=r"the reward of environment 1 is .*1e\+39"):
        collector.collect(lambda obs: np.zeros((3, 1)), 10)


def test_a_first_observation_that_is_none_is_refused():
    class Blind(Scripted):
        def begin(self, seed):
            obs = super().begin(seed)
            obs[1, 0] = math.nan
            return obs

    with pytest.raises(WorldError, match="the observation of environment 1 is .*nan"):
        Collector(Blind([[], []]), 0.5, 1, 1.0).begin(0)
