"""What learns on the robot: the same bits whenever the same is asked, never a held-out row, never weights that were made up."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from tuning_fixture import SMALL, first_rows, in_the_held_block, made_up_rows_of, same_bits, same_state, small_carried, small_learner

from edge_dsac.bundle.manifest import BundleError
from edge_dsac.learn.carried import carried_files, read_carried
from edge_dsac.learn.checkpoint import CheckpointError, npz
from edge_dsac.learn.learner import Learner, LearnerError, Tuning
from edge_dsac.learn.losses import Objective
from edge_dsac.learn.tuning import tune
from edge_dsac.learn.update import Rates

pytestmark = pytest.mark.slow  # torch takes seconds before its first gradient

KINDS = ["critic", "last-layer", "low-rank", "edit", "full"]
ROWS = made_up_rows_of(300)


def learnt(learner, *numbers, rows=ROWS):
    for number in numbers:
        learner.round(rows, number)
    return learner


def changed(rows, at, **columns):
    new = {name: getattr(rows, name).copy() for name in columns}
    for name, value in columns.items():
        new[name][at] = value
    return rows._replace(**new)


# ---- the same bits


@pytest.mark.parametrize("recipe", KINDS)
def test_two_learners_come_to_the_same_bits_and_other_rounds_to_others(recipe):
    one, other = (learnt(small_learner(recipe=recipe), 1, 2) for _ in range(2))
    assert same_state(one, other)
    assert not same_state(one, learnt(small_learner(recipe=recipe), 1, 3))
    assert not same_state(one, learnt(small_learner(recipe=recipe), 1))


def test_a_round_follows_from_state_rows_and_number_and_nothing_else():
    """What was drawn before, by whom, and how the rows came to lie in memory: none of it counts."""
    one = learnt(small_learner(), 1, 2)
    other = learnt(small_learner(), 7)
    other.restore(learnt(small_learner(), 1).save())
    torch.manual_seed(99)
    np.random.default_rng().random(5)
    spread = type(ROWS)(*(np.repeat(column, 2, axis=0)[::2] for column in ROWS))
    assert same_state(one, learnt(other, 2, rows=spread))


def test_the_seed_the_rows_and_the_settings_do_count():
    one = learnt(small_learner(), 1)
    for other in (
        learnt(small_learner(seed=1), 1),
        learnt(small_learner(), 1, rows=first_rows(ROWS, 200)),
        learnt(small_learner(stay=1.0), 1),
    ):
        assert not same_state(one, other)


@pytest.mark.parametrize("recipe", KINDS)
def test_a_saved_state_goes_on_with_the_same_bits(recipe):
    whole = learnt(small_learner(recipe=recipe), 1, 2, 3)
    first = learnt(small_learner(recipe=recipe), 1)
    kept = {name: values.copy() for name, values in first.save().items()}
    learnt(first, 9)  # what was saved is a copy: it does not move on with the learner
    second = small_learner(recipe=recipe)
    second.restore(kept)
    assert second.updates == SMALL.round_updates
    assert same_state(whole, learnt(second, 2, 3))


def test_saving_midway_between_two_of_the_actors_turns_keeps_the_turn():
    """5 updates a round and the actor's turn every other one: the second round begins with an update that is not the actor's."""
    turns = []

    def spied(recipe):
        def step(state, fixed, batch, noise, bounds, with_actor):
            turns.append(with_actor)
            return tune(state, fixed, batch, noise, bounds, recipe, with_actor)

        return step

    first = Learner(small_carried(), SMALL, spied)
    first.round(ROWS, 1)
    second = Learner(small_carried(), SMALL, spied)
    second.restore(first.save())
    second.round(ROWS, 2)
    assert turns == [True, False, True, False, True, False, True, False, True, False]


@pytest.mark.parametrize("other", ["low-rank", "edit", "full", "critic"])
def test_a_state_of_another_recipe_is_refused(other):
    saved = learnt(small_learner(recipe=other), 1).save()
    with pytest.raises(CheckpointError, match="other networks"):
        small_learner(recipe="last-layer").restore(saved)


def test_a_state_of_another_bundle_is_refused_and_nothing_of_it_stays():
    saved = learnt(small_learner(small_carried(hidden=(8, 9))), 1).save()
    learner = small_learner()
    with pytest.raises(CheckpointError):
        learner.restore(saved)
    assert same_state(learner, small_learner())


# ---- which rows


def test_held_out_rows_never_enter_a_batch():
    held = in_the_held_block(ROWS)
    assert 40 <= held.sum() <= 80  # every fifth second of 30, at 10 Hz
    poisoned = changed(ROWS, held, obs=np.nan, act=np.nan, reward=np.nan, next_obs=np.nan, discount=np.nan)
    learner = learnt(small_learner(real_share=1.0), 1, 2, 3, rows=poisoned)
    assert same_state(learner, learnt(small_learner(real_share=1.0), 1, 2, 3))


def test_any_other_row_that_is_no_number_is_named_and_stops_learning():
    poisoned = changed(ROWS, ~in_the_held_block(ROWS), reward=np.nan)
    with pytest.raises(LearnerError, match=r"diverged in round 4.*not finite"):
        learnt(small_learner(), 4, rows=poisoned)


@pytest.mark.parametrize(("share", "real"), [(0.0, 0), (0.25, 4), (0.5, 8), (1.0, 16)])
def test_of_each_batch_the_share_asked_for_is_the_robots_own(share, real):
    """The robot's rows are marked by a reward that no anchor has."""
    found = []

    def spied(recipe):
        def step(state, fixed, batch, noise, bounds, with_actor):
            found.append(int((batch.reward == 77.0).sum()))
            assert len(batch.reward) == 16
            return tune(state, fixed, batch, noise, bounds, recipe, with_actor)

        return step

    learner = Learner(small_carried(), dataclasses.replace(SMALL, real_share=share), spied)
    learner.round(changed(ROWS, slice(None), reward=77.0), 1)
    assert found == [real] * 5


def test_where_there_are_no_rows_to_learn_from_the_anchors_are_all():
    held = in_the_held_block(ROWS)
    held_alone = type(ROWS)(*(column[held] for column in ROWS))
    assert same_state(learnt(small_learner(), 1, rows=None), learnt(small_learner(), 1, rows=held_alone))
    assert not same_state(learnt(small_learner(), 1, rows=None), learnt(small_learner(), 1))


# ---- what it begins with, and what comes of it


@pytest.mark.parametrize("recipe", ["critic", "last-layer", "low-rank", "full"])
def test_a_learner_that_learnt_nothing_gives_the_bundles_networks_bit_for_bit(recipe):
    carried = small_carried()
    child = small_learner(carried, recipe=recipe).child()
    assert child.networks.keys() == carried.networks.keys()
    for name, layers in carried.networks.items():
        assert same_bits(child.networks[name], layers), name
    assert (child.log_alpha, child.settings, child.anchors) == (carried.log_alpha, carried.settings, carried.anchors)
    assert same_bits([child.m], [carried.m])


def test_the_actor_is_the_bundles_whatever_the_seed():
    for seed in (0, 1, 2):
        for kind in KINDS:
            learner = small_learner(recipe=kind, seed=seed)
            obs = torch.from_numpy(ROWS.obs)
            ours, theirs = (means(actor, obs) for actor in (learner.actor(), learner.fixed.actor))
            torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-6)


def means(actor, obs):
    from edge_dsac.learn.networks import mlp

    return mlp(actor, obs, "gelu")


def test_learning_leaves_the_bundle_it_began_with_alone():
    carried = small_carried()
    learnt(small_learner(carried, recipe="full"), 1, 2)
    for name, layers in small_carried().networks.items():
        assert same_bits(carried.networks[name], layers)


def test_what_a_learner_holds_of_critic_and_actor_is_in_its_child():
    learner = learnt(small_learner(recipe="last-layer"), 1, 2)
    child = learner.child()
    assert same_bits(child.networks["actor"][:-2], small_carried().networks["actor"][:-2])
    assert not same_bits(child.networks["actor"][-2:], small_carried().networks["actor"][-2:])
    assert same_bits(child.networks["critics"], learner.critics())
    assert same_bits(child.networks["target_critics"], learner.state.target_critics)
    again = Learner(read_carried(carried_files(child), "the child"), SMALL)
    for ours, theirs in ((again.actor(), learner.actor()), (again.critics(), learner.critics()), ([again.state.m], [learner.state.m])):
        assert same_bits(ours, theirs)


def test_the_bundles_objective_stays():
    rates = Rates(tau_b=0.25, objective=Objective(critic_loss="huber", activation="tanh", target_actor=False, log_std_range=(-4.0, 0.25)))
    recipe = small_learner(small_carried(rates=rates)).recipe
    assert recipe.objective == rates.objective
    assert recipe.tau_b == 0.25


@pytest.mark.parametrize(
    "wrong",
    [{"rank": 0}, {"batch": 0}, {"actor_every": 0}, {"tau": 0.0}, {"critic_lr": float("nan")}, {"real_share": 1.5}, {"bound": -1.0}],
    ids=str,
)
def test_settings_that_cannot_be_learnt_with_are_named(wrong):
    with pytest.raises(LearnerError, match=next(iter(wrong))):
        Tuning(**wrong)


# ---- the two files of a bundle


def test_what_is_carried_comes_back_bit_for_bit():
    carried = small_carried()
    read = read_carried(carried_files(carried), "policy")
    assert read.networks.keys() == carried.networks.keys()
    for name, layers in carried.networks.items():
        assert same_bits(read.networks[name], layers)
        assert all(values.dtype == np.float32 for values in read.networks[name])
    assert read.settings == json.loads(json.dumps(carried.settings))
    assert (read.log_alpha, read.m.tolist()) == (carried.log_alpha, carried.m.tolist())
    assert all(same_bits([read.anchors[name]], [values]) for name, values in carried.anchors.items())
    assert carried_files(read) == carried_files(carried)


@pytest.mark.parametrize("name", ["critic.npz", "anchors.npz"])
def test_without_critics_or_anchors_nothing_is_made_up(name):
    files = carried_files(small_carried())
    del files[name]
    with pytest.raises(BundleError, match=rf"policy x: has no {name}"):
        read_carried(files, "policy x")


def broken(file, change):
    files = carried_files(small_carried())
    from edge_dsac.bundle.arrays import read_arrays

    arrays = {name: values.copy() for name, values in read_arrays(files[file], file, 1 << 20).items()}
    change(arrays)
    return {**files, file: npz(arrays)}


@pytest.mark.parametrize("name", ["critics.2", "actor.0", "target_actor.5", "log_alpha", "m"])
def test_numbers_that_are_none_are_named(name):
    def spoil(arrays):
        arrays[name][(0,) * arrays[name].ndim] = np.nan

    with pytest.raises(BundleError, match=rf"critic.npz: {name} holds NaN"):
        read_carried(broken("critic.npz", spoil), "policy")


@pytest.mark.parametrize("name", ["critics.2", "actor.5", "target_critics.0"])
def test_a_network_that_is_not_whole_is_named(name):
    with pytest.raises(BundleError, match=rf"{name.split('.')[0]} is not whole"):
        read_carried(broken("critic.npz", lambda arrays: arrays.pop(name)), "policy")


@pytest.mark.parametrize("name", ["log_alpha", "m", "settings"])
def test_what_is_missing_beside_the_networks_is_named(name):
    with pytest.raises(BundleError, match=rf"critic.npz: .*{name}"):
        read_carried(broken("critic.npz", lambda arrays: arrays.pop(name)), "policy")


def test_anchors_that_cannot_be_learnt_from_are_named():
    def spoil(arrays):
        arrays["reward"][3] = np.inf

    def shorten(arrays):
        arrays["done"] = arrays["done"][:-1]

    with pytest.raises(BundleError, match=r"anchors.npz: reward holds NaN or infinity"):
        read_carried(broken("anchors.npz", spoil), "policy")
    with pytest.raises(BundleError, match=r"anchors.npz: .*next_obs"):
        read_carried(broken("anchors.npz", lambda arrays: arrays.pop("next_obs")), "policy")
    with pytest.raises(BundleError, match=r"anchors.npz: .*as many"):
        read_carried(broken("anchors.npz", shorten), "policy")
    with pytest.raises(BundleError, match=r"anchors.npz: .*empty"):
        read_carried(broken("anchors.npz", lambda arrays: arrays.update({name: values[:0] for name, values in arrays.items()})), "policy")
