"""What may change of a network: each adaptation starts as the base, changes what it says, and keeps within what it promises."""

import numpy as np
import pytest
import torch

from edge_dsac.learn.adapt import Edit, Fixed, Full, LastLayer, LowRank, pairs
from edge_dsac.learn.networks import make_params, mlp

pytestmark = pytest.mark.slow  # torch takes seconds before its first gradient

OBS, ACT = 5, 2
ACTOR, CRITICS = (OBS, 8, 6, 2 * ACT), (OBS + ACT, 8, 6, 2)
ANY = {"fixed": Fixed(), "full": Full(), "last layer": LastLayer(), "low rank": LowRank(1), "rank 3": LowRank(3)}


def made(sizes, leading=(), seed=0):
    return make_params(sizes, torch.Generator().manual_seed(seed), leading, torch.float64)


def started(adaptation, base, seed=1):
    return adaptation.start(base, torch.Generator().manual_seed(seed))


def shaken(own, size, seed=2):
    """Own parameters as if much had been learnt."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(p + size * torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in own)


def seen(count=200, size=OBS, seed=3):
    return 3.0 * torch.randn((count, size), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def changed(base, whole):
    return [not torch.equal(a, b) for a, b in zip(base, whole, strict=True)]


@pytest.mark.parametrize("activation", ["gelu", "relu", "tanh"])
@pytest.mark.parametrize("name", [*ANY, "edit"])
def test_at_the_start_an_actor_is_the_base(name, activation):
    adaptation = Edit(0.5, 4, activation) if name == "edit" else ANY[name]
    base = made(ACTOR)
    whole = adaptation.whole(base, started(adaptation, base))
    torch.testing.assert_close(mlp(whole, seen(), activation), mlp(base, seen(), activation), rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("name", ANY)
def test_at_the_start_twin_critics_are_the_base_bit_for_bit(name):
    base = made(CRITICS, (2,))
    whole = ANY[name].whole(base, started(ANY[name], base))
    assert changed(base, whole) == [False] * 6


def test_what_was_learnt_is_no_part_of_the_base():
    base = made(ACTOR)
    for adaptation in (Full(), LastLayer()):
        own = started(adaptation, base)
        own[0].zero_()
        assert changed(base, made(ACTOR)) == [False] * 6


def test_fixed_has_nothing_to_learn():
    base = made(ACTOR)
    assert Fixed().start(base, torch.Generator()) == ()
    assert Fixed().whole(base, ()) is base


def test_full_may_change_everything_and_the_last_layer_just_itself():
    base = made(CRITICS, (2,))
    assert changed(base, Full().whole(base, shaken(started(Full(), base), 1.0))) == [True] * 6
    assert changed(base, LastLayer().whole(base, shaken(started(LastLayer(), base), 1.0))) == [False] * 4 + [True] * 2


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize(("sizes", "leading"), [(ACTOR, ()), (CRITICS, (2,))], ids=["actor", "critics"])
def test_low_rank_changes_each_weight_by_its_rank_and_each_bias_freely(rank, sizes, leading):
    base, adaptation = made(sizes, leading), LowRank(rank)
    own = shaken(started(adaptation, base), 1.0)
    whole = adaptation.whole(base, own)
    for (old, old_bias), (new, new_bias), shift in zip(pairs(base), pairs(whole), own[2::3], strict=True):
        ranks = torch.linalg.matrix_rank(new - old, atol=1e-9)
        assert ranks.unique().tolist() == [rank]
        torch.testing.assert_close(new_bias - old_bias, shift)


def test_low_rank_can_learn_from_its_start():
    """With both factors at zero no gradient would ever move them."""
    base, adaptation = made(ACTOR), LowRank(1)
    gradient = torch.func.grad(lambda own: mlp(adaptation.whole(base, own), seen(), "gelu").square().mean())(started(adaptation, base))
    assert all(bool((slope != 0.0).any()) for slope in gradient[0::3])


@pytest.mark.parametrize("activation", ["gelu", "relu", "tanh"])
@pytest.mark.parametrize("size", [0.1, 1.0, 100.0])
def test_an_edit_never_moves_a_mean_by_more_than_its_bound_nor_a_deviation_at_all(activation, size):
    base, adaptation = made(ACTOR), Edit(0.4, 4, activation)
    most = 0.0
    for seed in range(5):
        whole = adaptation.whole(base, shaken(started(adaptation, base), size, seed))
        moved = (mlp(whole, seen(), activation) - mlp(base, seen(), activation)).abs()
        assert float(moved[:, :ACT].max()) <= 0.4 + 1e-9
        assert float(moved[:, ACT:].max()) <= 1e-9
        most = max(most, float(moved[:, :ACT].max()))
    assert most > (0.37 if size >= 1.0 else 0.02)  # and what it may use, it can use


@pytest.mark.parametrize("activation", ["gelu", "relu", "tanh"])
def test_an_edit_can_learn_from_its_start(activation):
    base, adaptation = made(ACTOR), Edit(0.4, 4, activation)
    gradient = torch.func.grad(lambda own: mlp(adaptation.whole(base, own), seen(), activation).square().mean())(started(adaptation, base))
    assert float(gradient[-1].abs().min()) > 0.0


@pytest.mark.parametrize("hidden", [(8,), (8, 6), (8, 6, 7)], ids=str)
def test_an_edited_actor_is_a_plain_net_that_is_wider(hidden):
    base, adaptation = made((OBS, *hidden, 2 * ACT)), Edit(0.5, 4)
    whole = adaptation.whole(base, shaken(started(adaptation, base), 1.0))
    widths = [*(size + 4 for size in hidden[:-1]), hidden[-1] + 2 * ACT, 2 * ACT]
    assert [tuple(weight.shape) for weight, _ in pairs(whole)] == list(zip(widths, [OBS, *widths[:-1]], strict=True))
    assert [tuple(bias.shape) for _, bias in pairs(whole)] == [(width,) for width in widths]


@pytest.mark.parametrize("name", ANY)
@pytest.mark.parametrize(("sizes", "leading"), [(ACTOR, ()), (CRITICS, (2,))], ids=["actor", "critics"])
def test_whole_networks_have_the_shapes_and_type_of_the_base(name, sizes, leading):
    base = made(sizes, leading)
    whole = ANY[name].whole(base, shaken(started(ANY[name], base), 1.0))
    assert [(p.shape, p.dtype) for p in whole] == [(p.shape, p.dtype) for p in base]


def test_what_an_adaptation_starts_with_follows_from_the_generator():
    base = made(ACTOR)
    for adaptation in (LowRank(2), Edit(0.5, 4)):
        first, again, other = (started(adaptation, base, seed) for seed in (1, 1, 2))
        assert not any(changed(first, again))
        assert any(changed(first, other))
    assert np.isfinite([float(p.abs().sum()) for p in first]).all()
