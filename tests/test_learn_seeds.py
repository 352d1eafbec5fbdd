"""Several seeds in one update: a leading axis over state, batch and noise gives what as many separate runs give."""

import pytest
import torch

from edge_dsac.learn.losses import Batch, Noise, Objective
from edge_dsac.learn.networks import Shape
from edge_dsac.learn.update import Rates, make_state, update

SHAPE = Shape(5, 2, (16, 16), (16, 16))
BOUNDS = (torch.tensor([-1.0, -0.5], dtype=torch.float64), torch.tensor([1.0, 0.5], dtype=torch.float64))
SEEDS, STEPS, BATCH = 4, 6, 32


def draw(generator):
    """One batch and the noise of one update, as a trainer would hand them over."""

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    done = (torch.rand(BATCH, generator=generator, dtype=torch.float64) < 0.1).double()
    batch = Batch(
        normal(BATCH, 5), normal(BATCH, 2).clamp(-0.5, 0.5), normal(BATCH), normal(BATCH, 5), done, torch.full((BATCH,), 0.99).double()
    )
    return batch, Noise(normal(BATCH, 2), normal(BATCH, 2), normal(2, BATCH))


def stack(trees):
    """NamedTuples of tensors, however nested, with a new leading axis."""
    first = trees[0]
    if isinstance(first, torch.Tensor):
        return torch.stack(trees)
    parts = [stack(list(part)) for part in zip(*trees, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)


def leaves(tree):
    return [tree] if isinstance(tree, torch.Tensor) else [leaf for part in tree for leaf in leaves(part)]


@pytest.mark.slow
@pytest.mark.parametrize("objective", [Objective(), Objective(critic_loss="huber")], ids=["paper", "huber"])
def test_four_seeds_in_one_update_learn_what_four_runs_learn(objective):
    rates = Rates(objective=objective)
    generators = [torch.Generator().manual_seed(seed) for seed in range(SEEDS)]
    alone = [make_state(SHAPE, generator, dtype=torch.float64) for generator in generators]
    together = stack(alone)
    for step in range(STEPS):
        drawn = [draw(generator) for generator in generators]
        with_actor = step % rates.delay == 0
        alone = [update(state, *given, BOUNDS, rates, with_actor)[0] for state, given in zip(alone, drawn, strict=True)]
        batch, noise = (stack([given[i] for given in drawn]) for i in (0, 1))
        together, figures = torch.vmap(lambda s, b, n, actor=with_actor: update(s, b, n, BOUNDS, rates, actor))(together, batch, noise)
        assert figures.critic_loss.shape == (SEEDS,)
    for one, other in zip(leaves(stack(alone)), leaves(together), strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(together.actor[0][0], together.actor[0][1])  # they are four, not one
