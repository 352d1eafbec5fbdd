"""What a run goes on from: networks of an earlier one, all of them, for this robot; the optimisers begin anew."""

import io
import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from bundle_fixture import KEY, bundle_bytes, bundle_parts
from learn_fakes import SMALL, finish, trainer_in

from edge_dsac.bundle.manifest import BundleError
from edge_dsac.bundle.package import read_bundle
from edge_dsac.learn.base import BaseError, base_of_bundle, base_of_run, begun_from, layers, read_base
from edge_dsac.learn.carried import critic_file
from edge_dsac.learn.checkpoint import CheckpointError, flatten
from edge_dsac.learn.networks import Shape
from edge_dsac.learn.opinions import compared
from edge_dsac.learn.trainer import Learning
from edge_dsac.learn.update import make_state

pytestmark = pytest.mark.slow  # torch takes seconds before its first gradient


@pytest.fixture(scope="module")
def critics(tmp_path_factory):
    """critic.npz of a short run in the valley: 2 observations, 1 action, layers of 16 and 16."""
    folder = tmp_path_factory.mktemp("run")
    trainer = trainer_in(folder)
    trainer.config = {"learning": asdict(Learning(**SMALL))}
    finish(trainer)
    return critic_file(trainer.checkpoints.load())


def changed(data, **arrays):
    """None takes an array away."""
    with np.load(io.BytesIO(data)) as file:
        whole = {**dict(file), **arrays}
    out = io.BytesIO()
    np.savez(out, **{name: values for name, values in whole.items() if values is not None})
    return out.getvalue()


def fresh(hidden=(16, 16)):
    return make_state(Shape(2, 1, hidden, hidden), torch.Generator().manual_seed(9))


def test_every_network_is_the_bases_and_every_optimiser_is_new(critics):
    base = read_base(critics, "here", None)
    state = flatten(begun_from(fresh(), base, "cpu"))
    with np.load(io.BytesIO(critics)) as file:
        expected = {name: file[name] for name in file.files if name != "settings"}
    assert len(expected) == 3 * 2 * 4 + 2  # three layers of each of the four networks, log_alpha and m
    for name, values in expected.items():
        assert state[name].tobytes() == values.tobytes(), name
    rest = [name for name in state if name not in expected]
    assert {name.split(".")[0] for name in rest} == {"critic_moments", "actor_moments", "alpha_moments", "critic_steps", "actor_steps"}
    assert not any(state[name].any() for name in rest)
    assert [p.tobytes() for p in map(np.asarray, layers(base, "actor"))] == [expected[f"actor.{i}"].tobytes() for i in range(6)]


def test_horizon_widths_and_objective_come_with_it(critics):
    table = read_base(critics, "here", None).learning
    assert (table["gamma"], table["n_step"], table["critic_hidden"], table["actor_hidden"]) == (0.9, 1, [16, 16], [16, 16])
    assert table["rates"]["objective"]["critic_loss"] == "paper"


@pytest.mark.parametrize("hidden", [(16,), (16, 16, 16), (8, 8)])
def test_networks_of_another_shape_are_never_filled_up_with_new_ones(critics, hidden):
    with pytest.raises((BaseError, CheckpointError), match=r"missing|made with other networks"):
        begun_from(fresh(hidden), read_base(critics, "here", None), "cpu")


def test_a_layer_that_is_not_there_is_never_a_new_one(critics):
    with pytest.raises(BaseError, match=r"actor\.3 is missing"):
        begun_from(fresh(), read_base(changed(critics, **{"actor.3": None}), "here", None), "cpu")


BROKEN = {
    "no m": ({"m": None}, "missing or unknown: m"),
    "no critics": ({f"critics.{i}": None for i in range(6)}, "missing or unknown: critics"),
    "a network nobody knows": ({"dynamics.0": np.zeros(3)}, "missing or unknown: dynamics"),
    "NaN": ({"actor.1": np.full(16, np.nan)}, "actor.1 holds NaN"),
    "no settings": ({"settings": None}, "says not how it was learnt"),
    "settings without a horizon": ({"settings": np.array(json.dumps({"rates": {}, "n_step": 1, "reward_scale": 1.0}))}, "unknown: gamma"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_not_whole_is_said(critics, what):
    arrays, said = BROKEN[what]
    with pytest.raises(BaseError, match=said):
        read_base(changed(critics, **arrays), "here", None)


def test_of_a_policy_file_its_manifest_is_remembered_and_its_robot_is_checked(critics, bot, rover):
    spec, actor, files = bundle_parts()
    bundle = read_bundle(bundle_bytes(parts=(spec, actor, {**files, "critic.npz": critics})), [KEY.public])
    assert base_of_bundle(bundle, bot, "x.policy").manifest == bundle.manifest.sha256
    with pytest.raises(BundleError, match="was built for balance_bot") as refused:
        base_of_bundle(bundle, rover, "x.policy")
    assert refused.value.refused


def test_a_policy_file_without_critics_and_a_folder_without_a_run_are_no_base(bot, tmp_path):
    with pytest.raises(BaseError, match=r"holds no critics \(critic.npz\)"):
        base_of_bundle(read_bundle(bundle_bytes(), [KEY.public]), bot, "x.policy")
    with pytest.raises(BaseError, match="not a training run"):
        base_of_run(tmp_path, bot)
    (tmp_path / "config.json").write_text(json.dumps({"config": {"learning": {"capacity": 10}}}))
    with pytest.raises(BaseError, match="not a finished run"):
        base_of_run(tmp_path, bot)


def test_opinions_are_of_both_critics_on_both_actors(critics):
    base, bounds = read_base(critics, "here", None), (-torch.ones(1), torch.ones(1))
    objective = Learning().rates.objective
    old = layers(base, "actor"), layers(base, "critics")
    lifted = (*old[1][:-1], old[1][-1] + torch.tensor([2.0, 0.0]))  # mean Q of both twins is 2 higher
    obs = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    found = compared(old, (old[0], lifted), obs, bounds, objective)
    assert (found["rows"], found["shift"]) == (50, 0.0)
    assert found["old_critics"]["old_actor"] == found["old_critics"]["new_actor"]
    assert found["new_critics"]["old_actor"] == pytest.approx(found["old_critics"]["old_actor"] + 2.0, abs=1e-5)
    sure = (*old[1][:-1], old[1][-1] + torch.tensor([[1000.0, 0.0], [0.0, 0.0]]))  # one twin alone: the smaller counts
    assert compared(old, (old[0], sure), obs, bounds, objective)["new_critics"]["old_actor"] < 500.0
    other = (*old[0][:-1], old[0][-1] + torch.tensor([5.0, 0.0]))
    moved = compared(old, (other, old[1]), obs, bounds, objective)
    assert moved["shift"] > 0.1
    assert moved["old_critics"]["new_actor"] == moved["new_critics"]["new_actor"] != moved["old_critics"]["old_actor"]
