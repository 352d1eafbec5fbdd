"""The guide of a policy: its choice by hand, its engine against its float64 reference, and what is no guide."""

import dataclasses
import io

import numpy as np
import pytest
from guide_fixture import drawn_actor, drawn_guide, wanting

from edge_dsac.bundle.arrays import read_arrays
from edge_dsac.bundle.guide import MOST, GuidedActor, make_guide_file, read_guide
from edge_dsac.bundle.guided_engine import GuidedMlp
from edge_dsac.bundle.manifest import BundleError
from edge_dsac.bundle.numpy_engine import NumpyMlp
from edge_dsac.records import Observation

SEEN = np.zeros((1, 5))


def observed(rows):
    return [Observation(row, 0, True) for row in np.asarray(rows, np.float32)]


# ---- the choice, by hand


@pytest.mark.parametrize(
    ("slopes", "own", "chosen"),
    [
        (((1, 0), (1, 0)), (0.2, -0.4), (0.3, -0.4)),  # both want more of the first action, and do not care about the second
        (((0, -1), (0, -1)), (0.2, -0.4), (0.2, -0.5)),
        (((1, 1), (1, 1)), (0.2, -0.4), (0.3, -0.3)),  # a diagonal
        (((2, 0), (-2, 0)), (0.0, -0.4), (0.0, -0.4)),  # they disagree: whichever way, one of them expects less
        (((0, 0), (0, 0)), (0.2, -0.4), (0.2, -0.4)),  # a tie goes to the actor's own
    ],
)
def test_the_lower_of_the_twins_decides(slopes, own, chosen):
    assert wanting(slopes).choose(SEEN, np.array([own]))[0] == pytest.approx(chosen, abs=1e-7)


def test_sigma_counts_as_much_as_beta_says():
    """One critic wants more, and is less sure of it the more there is: softplus(10 a) is nearly 10 a."""
    guide = wanting(((1, 0), (1, 0)))
    last = guide.layers[1][0].copy()
    last[:, 1, 0] = 10.0
    unsure = dataclasses.replace(guide, layers=(guide.layers[0], (last, guide.layers[1][1])))
    own = np.array([[0.5, 0.0]])
    assert unsure.choose(SEEN, own)[0, 0] == pytest.approx(0.6)
    assert dataclasses.replace(unsure, beta=0.5).choose(SEEN, own)[0, 0] == pytest.approx(0.4)


def test_no_action_leaves_its_range_nor_goes_beyond_the_reach(generator):
    guide, own = drawn_guide(step=0.25), generator.uniform(-1, 1, (500, 2))
    chosen = guide.choose(generator.normal(size=(500, 5)), own)
    assert np.abs(chosen).max() <= 1.0
    assert np.abs(chosen - own).max() <= guide.reach + 1e-7
    assert len({tuple(row) for row in np.round(chosen - own, 3).tolist()}) > 5  # and it does choose


# ---- the engine


FORMS = [
    {}, {"activation": "relu"}, {"activation": "tanh"}, {"layer_norm": True}, {"activation": "relu", "layer_norm": True}, {"beta": 0.5},
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("critics", [1, 2])
def test_the_engine_chooses_what_the_reference_chooses(generator, form, critics):
    actor, guide = drawn_actor(), drawn_guide(critics=critics, **form)
    rows = generator.normal(size=(300, 5)).astype(np.float32)
    clear = guide.clear(rows * actor.obs_scale, actor.act(rows))
    assert clear.mean() > 0.9
    expected = GuidedActor(actor, guide).act(rows)
    engine = GuidedMlp(actor, guide)
    found = np.array([engine.act(obs) for obs in observed(rows)])
    assert np.abs(found - expected)[clear].max() < 1e-5
    assert np.abs(expected - actor.act(rows)).max() > 0.05  # another policy than the actor alone
    assert engine.bundle_id == actor.identity


def test_the_same_observation_gives_the_same_bits_whatever_came_before(generator):
    engine, rows = GuidedMlp(drawn_actor(), drawn_guide()), observed(generator.normal(size=(50, 5)))
    first = [engine.act(obs).tobytes() for obs in rows]
    kept = engine.act(rows[0])
    assert [engine.act(obs).tobytes() for obs in reversed(rows)] == first[::-1]
    assert kept.tobytes() == first[0]  # what was given out is not changed by later ticks


def test_a_guide_that_sees_no_difference_is_the_actor_to_the_bit(generator):
    actor = drawn_actor()
    engine, plain = GuidedMlp(actor, wanting(((0, 0), (0, 0)))), NumpyMlp(actor)
    for obs in observed(generator.normal(size=(20, 5))):
        assert engine.act(obs).tobytes() == plain.act(obs).tobytes()


def test_a_bad_observation_gives_no_made_up_action():
    engine = GuidedMlp(drawn_actor(), drawn_guide())
    assert np.isnan(engine.act(Observation(np.full(5, np.nan, np.float32), 0, False))).any()


# ---- the file


def arrays_of(guide, **changes):
    arrays = read_arrays(make_guide_file(guide), "guide.npz", 1 << 20)
    return {name: value for name, value in (arrays | changes).items() if value is not None}


def test_a_guide_comes_back_from_its_file_bit_for_bit():
    guide = drawn_guide(beta=0.25, layer_norm=True)
    again = read_guide(arrays_of(guide), drawn_actor())
    assert (again.activation, again.layer_norm, again.beta) == ("gelu", True, 0.25)
    assert make_guide_file(again) == make_guide_file(guide)
    assert np.load(io.BytesIO(make_guide_file(guide)), allow_pickle=False)


GUIDE = drawn_guide()
WRONG = [
    ({"surprise": np.zeros(1, np.float32)}, "unknown \\['surprise'\\]"),
    ({"beta": None}, "missing \\['beta'\\]"),
    ({"b1": None}, "missing \\['b1'\\]"),
    ({"w0": np.full_like(GUIDE.layers[0][0], np.nan)}, "w0: expected finite float32"),
    ({"offsets": np.asarray(GUIDE.offsets, np.float64)}, "offsets: expected finite float32"),
    ({"w0": GUIDE.layers[0][0][:, :, :-1]}, "layer 0: expected"),
    ({"w1": GUIDE.layers[1][0][:1]}, "layer 1: expected"),
    ({"w2": GUIDE.layers[2][0][:, :1], "b2": GUIDE.layers[2][1][:, :1]}, "end in 1 numbers"),
    ({"activation": np.array("swish")}, "activation swish"),
    ({"offsets": GUIDE.offsets[:, :1]}, "offsets: expected"),
    ({"offsets": np.zeros((MOST + 1, 2), np.float32)}, "offsets: expected"),
    ({"offsets": GUIDE.offsets[1:]}, "the first of them zero"),
    ({"offsets": GUIDE.offsets * 20}, "within"),
    ({"beta": np.array(-1.0, np.float32)}, "a beta of 0 to 10"),
    ({"layer_norm": np.array(1.0, np.float32)}, "layer_norm"),
    (dict.fromkeys(("w1", "b1", "w2", "b2")), "no hidden layer"),
]


@pytest.mark.parametrize(("changes", "named"), WRONG, ids=[named[:24] for _, named in WRONG])
def test_what_is_no_guide_is_refused_by_name(changes, named):
    with pytest.raises(BundleError, match=named):
        read_guide(arrays_of(GUIDE, **changes), drawn_actor())
