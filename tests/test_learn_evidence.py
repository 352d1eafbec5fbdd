"""The gate before a trial: broken candidates are refused and named, a true improvement passes, and nothing passes unmeasured.

The critics' optimum is known by construction: they read the distance between the action and what is best in a state.
"""

import dataclasses
import json

import numpy as np
import pytest
import torch

from edge_dsac.learn.evidence import EvidenceError, Limits, judge_offline, lower_bound, time_blocks
from edge_dsac.learn.losses import Objective
from edge_dsac.learn.networks import value_distribution

OBJECTIVE = Objective(activation="relu")
OBS, ACT, COUNT = 3, 2, 600
BEST = np.array([[0.6, 0.0, 0.0], [0.0, -0.5, 0.2]], np.float32)  # before tanh, of the observation
CLIP = np.array([3.0, 3.0, 3.0], np.float32)
SIGMA = 2.0


def actor_of(weight, shift=(0.0, 0.0)):
    """means = weight @ observation + shift, exactly: relu(x) - relu(-x) = x. Deviations are 1."""
    first = np.concatenate([np.eye(OBS), -np.eye(OBS)]).astype(np.float32)
    last = np.zeros((2 * ACT, 2 * OBS), np.float32)
    last[:ACT] = np.concatenate([weight, -np.asarray(weight)], axis=1)
    bias = np.zeros(2 * ACT, np.float32)
    bias[:ACT] = shift
    return tuple(torch.from_numpy(array) for array in (first, np.zeros(2 * OBS, np.float32), last, bias))


def critics_of(best, sigmas=(SIGMA, SIGMA), weights=(1.0, 1.0)):
    """Q = -weight * the sum of |action - best @ observation|, one weight per twin; sigma is constant."""
    twins = []
    for sigma, weight in zip(sigmas, weights, strict=True):
        off = np.concatenate([-np.asarray(best), np.eye(ACT)], axis=1)  # of (observation, action)
        first = np.concatenate([off, -off]).astype(np.float32)
        last = np.zeros((2, 2 * ACT), np.float32)
        last[0] = -weight
        bias = np.array([0.0, np.log(np.expm1(sigma))], np.float32)
        twins.append((first, np.zeros(2 * ACT, np.float32), last, bias))
    return tuple(torch.from_numpy(np.stack(arrays)) for arrays in zip(*twins, strict=True))


PARENT, IDEAL = actor_of(0.6 * BEST), actor_of(BEST)
CRITICS = critics_of(BEST)  # their best is BEST @ observation, which IDEAL nearly says: tanh bends it a little


@pytest.fixture
def seen(generator):
    return np.clip(0.5 * generator.standard_normal((COUNT, OBS)), -3.0, 3.0).astype(np.float32)


BLOCKS = np.arange(COUNT) // 50  # twelve


def judged(child, seen, critics=CRITICS, parent=PARENT, blocks=BLOCKS, objective=OBJECTIVE, **more):
    return judge_offline(parent, child, critics, objective, seen, blocks, CLIP, **more)


def with_number(params, value, i=-2):
    spoilt = [p.clone() for p in params]
    spoilt[i].view(-1)[0] = value
    return tuple(spoilt)


def test_a_true_improvement_passes(seen):
    found = judged(IDEAL, seen)
    assert (found.passed, found.reasons, found.not_finite) == (True, (), ())
    assert (found.observations, found.blocks) == (600, 12)
    assert 0.0 < found.gain.low < found.gain.mean
    assert found.gain.improved > 0.95
    assert found.gain.agreed == 1.0  # the twins are the same
    assert found.gain.sigma == pytest.approx(SIGMA)
    assert max(found.shift.most) < 0.5


def test_the_advantage_is_what_a_hand_computes():
    """One observation: best is .6 and .1; the parent says tanh of .36 and .06, the child tanh of .6 and .1."""
    one = np.tile(np.array([[1.0, 0.0, 0.5]], np.float32), (200, 1))
    found = judged(IDEAL, one, blocks=np.arange(200) // 20)
    before, after = np.tanh([0.36, 0.06]), np.tanh([0.6, 0.1])
    gain = np.abs(before - [0.6, 0.1]).sum() - np.abs(after - [0.6, 0.1]).sum()
    assert found.gain.of_q == pytest.approx(gain, abs=1e-6)
    assert found.gain.mean == pytest.approx(gain / SIGMA, abs=1e-6)
    assert found.gain.low == pytest.approx(gain / SIGMA, abs=1e-6)  # all blocks say the same
    for figure in ("mean", "p99", "most"):
        assert getattr(found.shift, figure) == pytest.approx(after - before, abs=1e-6)


def test_the_pessimistic_critic_counts_in_its_own_sigma(seen):
    calm, wild = judged(IDEAL, seen, critics_of(BEST, sigmas=(2.0, 2.0))), judged(IDEAL, seen, critics_of(BEST, sigmas=(2.0, 20.0)))
    of_one = judged(IDEAL, seen, critics_of(BEST, sigmas=(20.0, 20.0)))
    assert of_one.gain.mean == pytest.approx(calm.gain.mean / 10.0)
    assert 0.0 < wild.gain.mean < calm.gain.mean
    against = judged(IDEAL, seen, critics_of(BEST, weights=(1.0, -1.0)))  # the second says the reverse of the first
    assert against.gain.mean < 0.0
    assert against.gain.agreed == 0.0
    assert not against.passed


def test_where_one_critic_is_trained_one_is_asked(seen):
    alone = dataclasses.replace(OBJECTIVE, twin_value_distributions=False)
    assert judged(IDEAL, seen, critics_of(BEST, weights=(1.0, -1.0)), objective=alone).passed


def test_without_a_value_distribution_the_spread_of_the_values_stands_for_sigma(seen):
    plain = dataclasses.replace(OBJECTIVE, critic_loss="mse")
    found = judged(IDEAL, seen, objective=plain)
    q, _ = value_distribution(CRITICS, torch.from_numpy(seen), torch.tanh(torch.from_numpy(seen @ (0.6 * BEST).T)), "relu")
    assert found.passed
    assert found.gain.sigma == pytest.approx(float(q[0].std(unbiased=False)), rel=1e-4)


# Broken candidates


def test_a_wrong_sign_is_refused(seen):
    found = judged(actor_of(-BEST), seen)
    assert not found.passed
    assert "no gain by the critics" in found.reasons[-1]
    assert found.gain.mean < 0.0
    assert found.gain.improved < 0.05


def test_the_parent_itself_is_no_gain(seen):
    found = judged(PARENT, seen)
    assert (found.gain.mean, found.gain.low, found.gain.agreed) == (0.0, 0.0, 1.0)
    assert len(found.reasons) == 1
    assert found.reasons[0].startswith("no gain by the critics")


def test_a_gain_in_seven_stretches_of_twelve_is_no_gain(seen):
    """A push to one side helps while the first entry is positive: more often than not here, which may be chance."""
    seen[:, 0] = np.where(BLOCKS < 7, 0.5, -0.5)
    found = judged(actor_of(0.0 * BEST, (0.1, 0.0)), seen, parent=actor_of(0.0 * BEST))
    assert found.gain.mean > 0.0 > found.gain.low
    assert found.reasons[0].startswith("no gain by the critics")


@pytest.mark.slow
def test_weights_that_moved_at_random_are_no_gain(seen, generator):
    lucky = sum(judged(actor_of(0.6 * BEST + 0.3 * generator.standard_normal((ACT, OBS))), seen).passed for _ in range(20))
    assert lucky <= 2


def test_an_exploded_last_layer_is_refused_though_the_critics_love_it(seen):
    found = judged(actor_of(300.0 * BEST), seen, critics_of(100.0 * BEST))
    assert found.gain.low > 0.0
    assert any(reason.startswith("action 0 is saturated in 9") and reason.endswith("the parent's in 0%") for reason in found.reasons)


def test_each_limit_of_the_shift_is_held(seen):
    assert judged(IDEAL, seen, limits=Limits()).passed
    shift = judged(IDEAL, seen).shift
    for name, found in (("shift_mean", shift.mean), ("shift_p99", shift.p99), ("shift_most", shift.most)):
        tight = dataclasses.replace(Limits(), **{name: 0.99 * max(found)})
        assert len(judged(IDEAL, seen, limits=tight).reasons) == 1
        assert judged(IDEAL, seen, limits=dataclasses.replace(Limits(), **{name: max(found)})).passed


def test_a_parent_that_is_saturated_itself_may_have_such_a_child(seen):
    banging, more = actor_of(40.0 * BEST), actor_of(50.0 * BEST)
    found = judged(more, seen, critics_of(1e3 * BEST), parent=banging)
    assert min(found.shift.saturated_child) > 0.5
    assert not [reason for reason in found.reasons if "saturated" in reason]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("i", range(4))
def test_a_number_that_is_none_is_refused_wherever_it_stands(seen, value, i):
    for found, named in (
        (judged(with_number(IDEAL, value, i), seen), "the child's weights"),
        (judged(IDEAL, seen, with_number(CRITICS, value, i)), "the critics' weights"),
    ):
        assert (found.passed, found.not_finite) == (False, (named,))
        assert found.reasons == (f"NaN or infinity: {named}",)
        assert found.shift is found.gain is None


def test_an_overflow_that_only_a_corner_shows_is_refused(seen):
    """Hidden values of 1e38 a unit of observation: 3 at once is beyond float32, what was recorded is not."""
    first = 1e38 * np.ones((2 * OBS, OBS), np.float32)
    last = np.zeros((2 * ACT, 2 * OBS), np.float32)
    quiet = tuple(torch.from_numpy(array) for array in (first, np.zeros(2 * OBS, np.float32), last, np.zeros(2 * ACT, np.float32)))
    found = judged(quiet, 0.1 * seen)
    assert found.not_finite == ("the child at the corners of the clip range",)
    assert not found.passed


# Too little


def test_too_little_data_is_refused_and_said(seen):
    for kept, blocks, words in (
        (slice(0, 199), np.arange(199) // 10, "too little data: 199 observations in 20 blocks; 200 in 5 are needed"),
        (slice(0, 600), np.arange(600) // 150, "too little data: 600 observations in 4 blocks; 200 in 5 are needed"),
    ):
        found = judged(IDEAL, seen[kept], blocks=blocks)
        assert found.reasons == (words,)
    assert judged(IDEAL, seen[:200], blocks=np.arange(200) // 40).passed


def test_nothing_and_one_block_have_no_bound(seen):
    nothing = judged(IDEAL, seen[:0], blocks=np.zeros(0, int))
    assert (nothing.passed, nothing.gain) == (False, None)
    assert nothing.reasons == ("too little data: no observations",)
    one = judged(IDEAL, seen, blocks=np.zeros(COUNT, int))
    assert one.gain.low == -np.inf
    assert json.loads(json.dumps(one.as_json(), allow_nan=False))["gain"]["low"] is None
    assert json.loads(json.dumps(nothing.as_json(), allow_nan=False))["gain"] is None


def test_arrays_that_do_not_belong_together_are_named(seen):
    for more, words in (
        ({"seen": seen[:, :2]}, "the parent sees 3 values; got observations"),
        ({"seen": seen[:9]}, "9 observations, but blocks"),
        ({"seen": np.full_like(seen, np.nan)}, "an observation is NaN"),
        ({"child": tuple(p[:2] if p.shape[0] == 4 else p for p in IDEAL)}, "the parent has 2 actions, the child 1"),
    ):
        with pytest.raises(EvidenceError, match=words):
            judged(**{"child": IDEAL, "seen": seen, **more})


# The bound


@pytest.mark.slow
def test_the_bound_holds_where_neighbours_are_alike(generator):
    """Blocks whose values differ hardly within, and by a normal number between: the bound of a mean of 0 is above 0 in about 5 %."""
    blocks = np.arange(20 * 30) // 30
    above = alone = 0
    for seed in range(200):
        values = np.repeat(generator.standard_normal(20), 30) + 0.1 * generator.standard_normal(600)
        above += lower_bound(values, blocks, 0.95, seed) > 0.0
        alone += seed < 40 and lower_bound(values, np.arange(600), 0.95, seed) > 0.0
    assert above <= 0.11 * 200  # 5 % expected, of a bootstrap with 20 blocks somewhat more; 3 standard errors
    assert alone >= 0.25 * 40  # as independent values they would fool anyone


def test_the_bound_is_repeatable_and_below_the_mean(seen):
    assert judged(IDEAL, seen, seed=3) == judged(IDEAL, seen, seed=3)
    assert judged(IDEAL, seen, seed=3).gain.low != judged(IDEAL, seen, seed=4).gain.low


def test_blocks_are_stretches_of_time():
    t_ns = np.array([0.0, 1.99, 2.0, 3.99, 4.0, 100.0]) * 1e9
    assert time_blocks(t_ns.astype(np.int64)).tolist() == [0, 0, 1, 1, 2, 50]
    assert time_blocks(t_ns.astype(np.int64), 50.0).tolist() == [0, 0, 0, 0, 0, 2]
