"""A child runs on the C that its parent was compiled to, with its own weights, and on nothing that holds its parent's."""

import dataclasses

import numpy as np
import pytest
from tuning_fixture import SMALL, flown, policy_of, small_carried

from edge_dsac.bundle.actor import actor_from_bytes, make_actor_file
from edge_dsac.bundle.codegen import make_c
from edge_dsac.bundle.engines import ENGINES, judge
from edge_dsac.bundle.integer import make_integer
from edge_dsac.bundle.package import read_bundle
from edge_dsac.bundle.targets import TARGETS, best_target, compile_actor
from edge_dsac.learn.child import layers_of, make_child
from edge_dsac.learn.learner import Learner
from edge_dsac.learn.transitions import Transitions
from edge_dsac.records import Observation
from edge_dsac.spec.layout import ObservationLayout


def read(data):
    return read_bundle(data, (), allow_unsigned=True)


@pytest.fixture(scope="module")
def carried(bot):
    return small_carried(ObservationLayout(bot).size, len(bot.actions))


@pytest.fixture(scope="module")
def compiled(bot, carried):
    """What a desktop compiled the carried actor to: the object of this processor, and a microcontroller's."""
    layout = ObservationLayout(bot)
    activation = carried.settings["rates"]["objective"]["activation"]
    actor = actor_from_bytes(make_actor_file(layers_of(carried.networks["actor"]), activation, bot), "actor.npz", bot)
    source = make_c(actor, make_integer(actor, flown(bot, 400)["obs"], layout.clip))
    target = best_target(target.file for target in TARGETS.values())
    return {target.file: compile_actor(source, target), TARGETS["cortex_m4"].file: b"the parent's weights"}


def learned(bot, carried, recipe):
    settings = carried.settings
    made = Transitions(bot, settings["gamma"], settings["n_step"], settings["reward_scale"], bot.calibration_id, 7)
    learner = Learner(carried, dataclasses.replace(SMALL, recipe=recipe, actor_lr=1e-2, round_updates=20))
    learner.round(made.feed(flown(bot, 2000)), 1)
    return learner.child()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["last-layer", "edit"])  # an edit makes the network wider
def test_a_child_runs_in_c_with_its_own_weights(bot, carried, compiled, recipe):
    parent = read(policy_of(bot, carried, more=compiled.items()))
    own = learned(bot, carried, recipe)
    child = read(make_child(parent, own, flown(bot, 400)["obs"], {}, None))
    verdicts = {verdict.engine: verdict.result for verdict in judge(child)}
    assert verdicts["native-float32"] == "passed"
    assert verdicts["native-integer"] == "skipped"  # those are the parent's whole numbers
    engine = next(kind for kind in ENGINES if kind.name == "native-float32").load(child)
    seen = [Observation(row, 0, True) for row in flown(bot, 50)["obs"]]
    answers = np.array([engine.act(one) for one in seen])
    assert answers == pytest.approx(child.actor.act(np.array([one.vector for one in seen])), abs=1e-5)
    assert np.abs(answers - parent.actor.act(np.array([one.vector for one in seen]))).max() > 1e-3
    assert engine.bundle_id == child.identity
    assert child.actor.sizes[1] > parent.actor.sizes[1] or recipe != "edit"


@pytest.mark.slow
def test_a_childs_child_has_the_same_c_and_no_microcontrollers_object(bot, carried, compiled):
    first = read(make_child(read(policy_of(bot, carried, more=compiled.items())), carried, flown(bot, 400)["obs"], {}, None))
    second = read(make_child(first, carried, flown(bot, 400)["obs"], {}, None))
    for child in (first, second):
        assert {name: data for name, data in child.files.items() if name.startswith("native/")} == {
            name: data for name, data in compiled.items() if name.endswith(".so")
        }


@pytest.mark.slow
def test_a_parent_without_c_has_a_child_without(bot, carried):
    child = read(make_child(read(policy_of(bot, carried)), carried, flown(bot, 400)["obs"], {}, None))
    assert not [name for name in child.files if name.startswith("native/")]
    assert {verdict.engine: verdict.result for verdict in judge(child)}["numpy"] == "passed"
