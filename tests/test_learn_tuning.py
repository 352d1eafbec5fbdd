"""The update of fine-tuning against the trainer's own: the same step where the same is asked, and just what the recipe allows."""

import dataclasses
from itertools import pairwise

import pytest
import torch
from tuning_fixture import same_bits

from edge_dsac.learn.adapt import Edit, Fixed, Full, LastLayer, LowRank
from edge_dsac.learn.losses import Batch, Noise, Objective
from edge_dsac.learn.networks import Shape, action_distribution
from edge_dsac.learn.tuning import Fixtures, Recipe, make_tune_state, tune
from edge_dsac.learn.update import Rates, make_state, update

pytestmark = pytest.mark.slow  # torch takes seconds before its first gradient

OBS, ACT, ROWS = 4, 2, 12
SHAPE = Shape(OBS, ACT, (6, 6), (6, 6))
BOUNDS = -torch.ones(ACT, dtype=torch.float64), torch.ones(ACT, dtype=torch.float64)
OBJECTIVE = Objective(log_std_range=(-5.0, 0.5))


def drawn(seed):
    """A batch and noise."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    done = (torch.arange(ROWS) == 3).double()
    batch = Batch(normal(ROWS, OBS), normal(ROWS, ACT).tanh(), normal(ROWS), normal(ROWS, OBS), done, torch.full_like(done, 0.9))
    return batch, Noise(normal(ROWS, ACT), normal(ROWS, ACT), normal(2, ROWS))


def trained(seed=0):
    """The trainer's state after a few steps, so that targets, m and the networks all differ; moments begin anew, as in the field."""
    rates = Rates(critic_lr=1e-2, actor_lr=1e-2, tau=0.1, objective=OBJECTIVE)
    state = make_state(SHAPE, torch.Generator().manual_seed(seed), 0.3, torch.float64)
    for k in range(3):
        state, _ = update(state, *drawn(100 + k), BOUNDS, rates, True)
    fresh = make_state(SHAPE, torch.Generator(), 0.3, torch.float64)
    names = ("critic_moments", "actor_moments", "alpha_moments", "critic_steps", "actor_steps")
    return state._replace(**{name: getattr(fresh, name) for name in names})


def begun(recipe, state=None):
    state = state or trained()
    fixed = Fixtures(state.critics, state.actor, state.log_alpha.exp())
    generator = torch.Generator().manual_seed(1)
    return fixed, make_tune_state(recipe, fixed, state.target_critics, state.target_actor, state.m, generator)


def run(recipe, count, every=None, state=None):
    """(fixed, [state after each update], [figures])"""
    fixed, now = begun(recipe, state)
    states, told = [now], []
    for k in range(count):
        now, figures = tune(now, fixed, *drawn(k), BOUNDS, recipe, k % (every or recipe.actor_every) == 0)
        states.append(now)
        told.append(figures)
    return fixed, states, told


def whole_actor(recipe, fixed, state):
    return recipe.actor.whole(fixed.actor, state.actor)


def away(recipe, fixed, state):
    obs = drawn(50)[0].obs
    means = [action_distribution(actor, obs, "gelu", (-5.0, 0.5))[0] for actor in (whole_actor(recipe, fixed, state), fixed.actor)]
    return float((means[0] - means[1]).abs().mean())


FULL = Recipe(
    actor=Full(), critics=Full(), critic_lr=1e-3, actor_lr=2e-3, tau=0.25, actor_every=1, objective=OBJECTIVE
)  # 1 - (1 - .25) is .25 exactly


@pytest.mark.parametrize(
    "changes", [{}, {"target_actor": False}, {"critic_loss": "huber"}, {"critic_loss": "mse", "twin_value_distributions": False}], ids=str
)
def test_with_all_free_and_the_temperature_at_rest_it_is_the_trainers_update_bit_for_bit(changes):
    objective = dataclasses.replace(OBJECTIVE, **changes)
    rates = Rates(critic_lr=1e-3, actor_lr=2e-3, tau=0.25, delay=1, tune_alpha=False, objective=objective)
    theirs = trained()
    _, states, told = run(dataclasses.replace(FULL, objective=objective), 4, state=theirs)
    for k, ours in enumerate(states[1:]):
        theirs, figures = update(theirs, *drawn(k), BOUNDS, rates, True)
        for name in ("critics", "actor", "target_critics", "target_actor"):
            assert same_bits(getattr(ours, name), getattr(theirs, name)), (k, name)
        assert torch.equal(ours.m, theirs.m)
        assert (told[k].critic_loss, told[k].actor_loss) == (figures.critic_loss, figures.actor_loss)


def test_the_critics_first_step_is_the_trainers_whatever_becomes_of_the_actor():
    state = trained()
    theirs, _ = update(state, *drawn(0), BOUNDS, Rates(critic_lr=1e-3, tau=0.05, objective=OBJECTIVE), False)
    for actor in (Fixed(), LastLayer(), LowRank(1), Full()):
        recipe = dataclasses.replace(FULL, actor=actor)
        _, states, _ = run(recipe, 1, state=state)
        assert same_bits(states[1].critics, theirs.critics)
        assert same_bits(states[1].critic_moments.first, theirs.critic_moments.first)


def test_the_actors_first_step_is_the_trainers_for_what_is_free():
    """The last layer's gradient does not ask whether the layers below may move."""
    state = trained()
    theirs, _ = update(state, *drawn(0), BOUNDS, Rates(actor_lr=2e-3, objective=OBJECTIVE), True)
    recipe = dataclasses.replace(FULL, actor=LastLayer())
    fixed, states, _ = run(recipe, 1, state=state)
    actor = whole_actor(recipe, fixed, states[1])
    assert same_bits(actor[-2:], theirs.actor[-2:])
    assert same_bits(actor[:-2], state.actor[:-2])


@pytest.mark.parametrize("every", [1, 2, 3])
def test_the_actor_moves_at_every_so_many_updates_and_its_target_comes_as_far_as_the_critics(every):
    recipe = dataclasses.replace(FULL, actor_every=every)
    _, states, _ = run(recipe, 6)
    moved = [not same_bits(a.actor, b.actor) for a, b in pairwise(states)]
    assert moved == [k % every == 0 for k in range(6)]
    assert states[-1].actor_steps == len(range(0, 6, every))
    share = 1.0 - 0.75**every  # so much of the way goes whoever goes a quarter at each of `every` updates
    for before, after, actor in zip(states[0].target_actor, states[1].target_actor, states[1].actor, strict=True):
        torch.testing.assert_close(after, before + share * (actor - before))


def test_the_temperature_stays():
    recipe = FULL
    fixed, states, _ = run(recipe, 4)
    assert torch.equal(fixed.alpha, trained().log_alpha.exp())
    assert not any("alpha" in name for name in states[-1]._fields)


def test_a_fixed_actor_never_changes_while_its_target_rests_and_the_critics_learn():
    recipe = dataclasses.replace(FULL, actor=Fixed())
    fixed, states, told = run(recipe, 5)
    assert same_bits(whole_actor(recipe, fixed, states[-1]), trained().actor)
    assert same_bits(states[-1].target_actor, trained().target_actor)
    assert not same_bits(states[-1].critics, states[0].critics)
    assert [float(one.moved) for one in told] == [0.0] * 5


def test_fixed_critics_never_change():
    recipe = dataclasses.replace(FULL, critics=Fixed())
    _, states, _ = run(recipe, 3)
    assert states[-1].critics == ()
    assert not same_bits(states[-1].actor, states[0].actor)


def test_who_is_told_to_stay_moves_less():
    free, held = FULL, dataclasses.replace(FULL, stay=100.0)
    far = [away(recipe, *last(run(recipe, 25))) for recipe in (free, held)]
    assert 0.0 < far[1] < 0.7 * far[0]


def last(found):
    fixed, states, _ = found
    return fixed, states[-1]


def test_how_far_it_moved_is_measured_on_the_batch():
    recipe = FULL
    fixed, states, told = run(recipe, 2)
    assert float(told[0].moved) == 0.0  # of the actor before its first step
    obs = drawn(1)[0].obs
    now, parents = (action_distribution(actor, obs, "gelu", (-5.0, 0.5))[0] for actor in (states[1].actor, fixed.actor))
    assert float(told[1].moved) == pytest.approx(float((now - parents).abs().mean()), rel=1e-12)
    assert float(told[1].moved) > 0.0


@pytest.mark.parametrize("actor", [Fixed(), LastLayer(), LowRank(2), Edit(0.5, 4), Full()], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("critics", [Full(), LowRank(1)], ids=lambda one: type(one).__name__)
def test_figures_and_states_are_finite_with_every_recipe(actor, critics):
    recipe = dataclasses.replace(FULL, actor=actor, critics=critics, stay=0.1)
    _, states, told = run(recipe, 3)
    assert all(bool(torch.isfinite(torch.stack(one)).all()) for one in told)
    flat = [values for part in states[-1] for values in (part if isinstance(part, tuple) else (part,)) if torch.is_tensor(values)]
    assert all(bool(torch.isfinite(values).all()) for values in flat)
    assert not same_bits(states[-1].critics, states[0].critics)


def test_an_edits_target_begins_as_the_edited_actor_because_the_parents_has_other_shapes():
    recipe = dataclasses.replace(FULL, actor=Edit(0.5, 4))
    fixed, state = begun(recipe)
    assert same_bits(state.target_actor, whole_actor(recipe, fixed, state))
