"""Acting is the same network as learning, by fewer calls."""

import numpy as np
import pytest
import torch

from edge_dsac.learn.act import Diverged, deployed, explorer
from edge_dsac.learn.losses import Objective
from edge_dsac.learn.networks import ACTIVATIONS, action_distribution, make_params, mode_action, squash

BOUNDS = torch.tensor([-1.0, -0.5, 0.0]), torch.tensor([1.0, 2.0, 0.1])
OBS = np.random.default_rng(3).normal(size=(4, 7))


def actor_of(activation):
    objective = Objective(activation=activation, log_std_range=(-1.0, 0.1))  # of which some are beyond
    params = make_params((7, 32, 16, 6), torch.Generator().manual_seed(5))
    return tuple(4.0 * p for p in params), objective


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_explores_is_what_the_losses_see(activation):
    actor, objective = actor_of(activation)
    mean, std = action_distribution(actor, torch.tensor(OBS, dtype=torch.float32), activation, objective.log_std_range)
    assert std.min() == pytest.approx(np.exp(-1.0))
    assert std.max() == pytest.approx(np.exp(0.1))
    policy = explorer(actor, BOUNDS, objective, torch.Generator().manual_seed(9))
    noise = torch.Generator().manual_seed(9)
    for _ in range(2):
        expected, _ = squash(mean, std, torch.randn((4, 3), generator=noise), *BOUNDS)
        assert policy(OBS) == pytest.approx(expected.numpy(), abs=2e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_deployed_has_no_noise(activation):
    actor, objective = actor_of(activation)
    mean, _ = action_distribution(actor, torch.tensor(OBS, dtype=torch.float32), activation, objective.log_std_range)
    policy = deployed(actor, BOUNDS, objective)
    assert policy(OBS) == pytest.approx(mode_action(mean, *BOUNDS).numpy(), abs=2e-6)
    assert np.array_equal(policy(OBS), policy(OBS))


def test_an_action_that_is_no_number_is_the_learnings_fault():
    actor, objective = actor_of("gelu")
    actor[0][0, 0] = float("nan")
    with pytest.raises(Diverged, match="the policy's action is not finite"):
        explorer(actor, BOUNDS, objective, torch.Generator())(OBS)
