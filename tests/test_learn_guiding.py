"""Recipe critic: critics that have learned choose near the actor's own action, and everything that looks at the child says so."""

import dataclasses

import numpy as np
import pytest
import torch
from guide_fixture import drawn_guide
from tuning_fixture import SMALL, MadeUpFlights, TuneDesk, flown, policy_of, small_carried, with_one_opinion

from edge_dsac.bundle.container import lay_out
from edge_dsac.bundle.describe import describe, summary_lines
from edge_dsac.bundle.engines import judge, numpy_engine
from edge_dsac.bundle.golden import check_golden
from edge_dsac.bundle.guide import GuidedActor, make_guide_file
from edge_dsac.bundle.guided_engine import GuidedMlp
from edge_dsac.bundle.manifest import BundleError
from edge_dsac.bundle.numpy_engine import NumpyMlp
from edge_dsac.bundle.package import check_hashes, read_bundle
from edge_dsac.bundle.slot_folder import Outcome, Stage, name_of
from edge_dsac.learn.child import make_child
from edge_dsac.learn.course import Course
from edge_dsac.learn.evidence import Limits, deployed, judge_offline
from edge_dsac.learn.guiding import Guidance, directions, make_guide
from edge_dsac.learn.learner import Learner, tensors
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.watch.tuned import lines_of, report_of

EAGER = Course(
    first_s=2.0, updates_per_row=1000.0, first_updates=20, candidate_updates=20, window_s=0.5, settle_s=0.1, pairs=6,
    limits=Limits(least_observations=20, least_blocks=2),
)  # fmt: skip


@pytest.fixture
def parent(bot):
    carried = with_one_opinion(small_carried(ObservationLayout(bot).size, len(bot.actions)))
    return read_bundle(policy_of(bot, carried), (), allow_unsigned=True), carried


def guided_child(parent, carried, seen):
    objective = Learner(carried, SMALL).recipe.objective
    guide = make_guide(carried, objective, seen * parent.actor.obs_scale, Guidance())
    return guide, make_child(parent, carried, seen, {}, None, guide)


@pytest.fixture
def child(bot, parent):
    guide, data = guided_child(*parent, flown(bot, 400)["obs"])
    return guide, read_bundle(data, (), allow_unsigned=True), data


# ---- which actions


def test_of_two_actions_there_are_nine_and_the_first_is_the_actors_own():
    assert directions(2).tolist() == [[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [1, -1], [-1, 1], [-1, -1]]
    assert directions(1).tolist() == [[0], [1], [-1]]
    assert directions(3).shape == (7, 3)


def test_an_offset_is_a_deviation_of_the_actor_within_its_bounds(parent):
    """Deviations of e^-1 for one action and e^-9 for the other, at a mean of 0 where tanh bends nothing."""
    _, carried = parent
    last = np.zeros_like(carried.networks["actor"][-2])
    actor = (*carried.networks["actor"][:-2], last, np.array([0, 0, -1, -9], np.float32))
    objective = dataclasses.replace(Learner(carried, SMALL).recipe.objective, log_std_range=(-20.0, 0.5))
    carried = dataclasses.replace(carried, networks={**carried.networks, "actor": actor})
    seen = np.zeros((3, carried.anchors["obs"].shape[1]), np.float32)
    offsets = make_guide(carried, objective, seen, Guidance(most=1.0)).offsets
    assert offsets[1].tolist() == pytest.approx([np.exp(-1), 0.0])
    assert offsets[3].tolist() == pytest.approx([0.0, 0.02])
    assert make_guide(carried, objective, seen, Guidance()).offsets[1, 0] == np.float32(0.25)


# ---- the child


@pytest.mark.slow
def test_a_guided_child_drives_by_its_guide_and_is_the_same_bytes_again(bot, parent, child):
    guide, bundle, data = child
    assert guided_child(*parent, flown(bot, 400)["obs"])[1] == data
    engine = numpy_engine(bundle)
    assert isinstance(engine, GuidedMlp)
    assert check_golden(engine, bundle) == []
    assert check_golden(NumpyMlp(bundle.actor), bundle) != []  # the actor alone is not what was signed
    assert bundle.golden.count > 100
    assert {one.engine: one.result for one in judge(bundle)}["numpy"] == "passed"
    assert all("critic-guided" in one.why for one in judge(bundle) if one.engine != "numpy")


@pytest.mark.slow
def test_who_looks_at_it_is_told(child, parent):
    _, bundle, _ = child
    assert "critic-guided" in name_of(bundle)
    assert any("critic-guided: the best of 9 actions" in line for line in summary_lines(bundle))
    assert describe(bundle)["guide"]["offsets"][0] == [0.0, 0.0]
    plain, _ = parent
    assert "critic-guided" not in name_of(plain)
    assert describe(plain)["guide"] is None
    assert plain.reference is plain.actor
    assert isinstance(bundle.reference, GuidedActor)


@pytest.mark.slow
def test_a_guide_that_was_changed_is_not_the_one_that_was_signed(child):
    guide, bundle, _ = child
    other = make_guide_file(dataclasses.replace(guide, beta=1.0))
    with pytest.raises(BundleError, match=r"guide.npz is not the file that was signed"):
        read_bundle(lay_out({**bundle.files, "guide.npz": other}), (), allow_unsigned=True)
    without = {name: data for name, data in bundle.files.items() if name not in ("guide.npz", "manifest.json")}
    with pytest.raises(BundleError, match=r"missing \['guide.npz'\]"):
        check_hashes(bundle.manifest, without)


def test_a_guide_for_other_sizes_is_refused_when_the_child_is_made(bot, parent):
    bundle, carried = parent
    with pytest.raises(BundleError, match="guide.npz: layer 0: expected"):
        make_child(bundle, carried, flown(bot, 50)["obs"], {}, None, drawn_guide(obs=3))


# ---- the gate


@pytest.mark.slow
def test_the_gate_judges_the_action_that_would_drive(bot, parent, child):
    guide, _, _ = child
    _, carried = parent
    objective = Learner(carried, SMALL).recipe.objective
    actor, critics = tensors(carried.networks["actor"]), tensors(carried.networks["critics"])
    layout = ObservationLayout(bot)
    seen = (flown(bot, 3000)["obs"] * layout.scale).astype(np.float32)
    blocks = np.arange(3000) // 300
    clip = layout.clip * layout.scale
    alone = judge_offline(actor, actor, critics, objective, seen, blocks, clip)
    assert not alone.passed
    assert max(alone.shift.most) == 0.0
    guided = judge_offline(actor, actor, critics, objective, seen, blocks, clip, guides=(None, guide))
    assert guided.passed, guided.reasons
    assert 0.0 < max(guided.shift.most) <= guide.reach + 1e-6
    assert guided.gain.low > 0.0
    again = judge_offline(actor, actor, critics, objective, seen, blocks, clip, guides=(guide, guide))
    assert max(again.shift.most) == 0.0  # against a parent that is guided alike, nothing moves
    rows = deployed(actor, guide, objective, torch.from_numpy(seen[:40]))
    assert np.abs(rows - guide.choose(seen[:40], deployed(actor, None, objective, torch.from_numpy(seen[:40])))).max() < 1e-6


@pytest.mark.slow
def test_a_guide_that_answers_nan_does_not_pass(bot, parent, child):
    guide, _, _ = child
    _, carried = parent
    (weight, bias), *rest = guide.layers
    broken = dataclasses.replace(guide, layers=((weight, np.full_like(bias, np.inf)), *rest))
    layout = ObservationLayout(bot)
    actor, critics = tensors(carried.networks["actor"]), tensors(carried.networks["critics"])
    seen = (flown(bot, 300)["obs"] * layout.scale).astype(np.float32)
    objective = Learner(carried, SMALL).recipe.objective
    found = judge_offline(actor, actor, critics, objective, seen, np.arange(300) // 30, layout.clip * layout.scale, guides=(None, broken))
    assert not found.passed
    assert "the child's guide on the observations" in found.not_finite


# ---- the session


@pytest.mark.slow
def test_a_session_of_recipe_critic_proposes_a_guided_child_and_goes_on_from_it(bot, tmp_path):
    desk = TuneDesk(tmp_path, bot, MadeUpFlights(), EAGER, recipe="critic", critic_lr=1e-6, real_share=1.0)
    desk.flights.add(flown(bot, 15 * bot.rates.control_hz, desk.tuner.current.identity))
    for _ in range(8):
        desk.tuner.improve()
        if desk.tuner.attempt is not None:
            break
    else:
        raise AssertionError(desk.session.of("refused")[:1])
    bundle, _ = desk.slots.candidate()
    assert bundle.guide is not None
    assert bundle.files["actor.npz"] == desk.slots.current().files["actor.npz"]
    (noted,) = desk.session.of("candidate")
    assert noted["guide"].startswith("critic-guided: the best of 9")
    desk.slots.record(Outcome(bundle.identity, Stage.OVER, "", {}))
    assert desk.tuner.improve() == "no evidence"
    found = report_of({"parent": "ab" * 32, "tuning": {"recipe": "critic", "round_updates": 5}}, desk.session.events, 60.0)
    assert any("critic-guided: the best of 9" in line for line in lines_of(found))
