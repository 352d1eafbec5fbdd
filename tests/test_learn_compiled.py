"""The compiled update is the plain one, but for rounding; two of them in one process do not get in each other's way."""

import os
import shutil

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e .[train]")

from edge_dsac.learn.compiled import make_updater
from edge_dsac.learn.losses import Batch, Noise
from edge_dsac.learn.networks import Shape
from edge_dsac.learn.update import Rates, make_state

BOUNDS = (torch.tensor([-1.0, -0.5]), torch.tensor([1.0, 0.5]))
BATCH, STEPS = 32, 4


def draw(generator):
    def normal(*shape):
        return torch.randn(shape, generator=generator)

    done = (torch.rand(BATCH, generator=generator) < 0.1).float()
    batch = Batch(normal(BATCH, 5), normal(BATCH, 2).clamp(-0.5, 0.5), normal(BATCH), normal(BATCH, 5), done, torch.full((BATCH,), 0.99))
    return batch, Noise(normal(BATCH, 2), normal(BATCH, 2), normal(2, BATCH))


def learn(updater, hidden, actors_turn):
    generator = torch.Generator().manual_seed(3)
    state = make_state(Shape(5, 2, hidden, hidden), generator)
    losses = []
    for step in range(STEPS):
        state, figures = updater(state, *draw(generator), BOUNDS, actors_turn(step), torch.tensor(1.0))
        losses.append([float(figures.critic_loss), float(figures.actor_loss), float(figures.log_prob.mean())])
    return state, losses


def leaves(tree):
    return [tree] if isinstance(tree, torch.Tensor) else [leaf for part in tree for leaf in leaves(part)]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="no C++ compiler: apt-get install g++")
def test_compiled_updates_are_the_plain_ones():
    """Twice, with other rates and other sizes: the second, of critics alone, must not be handed what was compiled for the first."""
    kinds = (Rates(), (24, 16), lambda step: step % 2 == 0), (Rates(critic_lr=1e-3, actor_lr=1e-3), (16, 16), lambda step: False)
    for rates, hidden, actors_turn in kinds:
        plain, plain_losses = learn(make_updater(rates, False, "cpu"), hidden, actors_turn)
        compiled, compiled_losses = learn(make_updater(rates, True, "cpu"), hidden, actors_turn)
        assert torch.allclose(torch.tensor(compiled_losses), torch.tensor(plain_losses), rtol=1e-5, atol=1e-6)
        assert plain_losses[1][1] == compiled_losses[1][1] == 0.0  # an update that leaves the actor alone
        for name in ("critics", "actor", "target_critics", "target_actor", "log_alpha", "m"):
            for one, other in zip(leaves(getattr(plain, name)), leaves(getattr(compiled, name)), strict=True):
                assert (one - other).abs().max() <= 1e-5 * one.abs().max(), name  # of the largest of its tensor
