"""A student that does as its teacher does, on states it gets itself into; the loss worked by hand; and what travels with it."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from made_up_actor import balancing_actor, random_actor

from edge_dsac.learn.carried import distilled_critic_file
from edge_dsac.learn.checkpoint import Progress, Saved, flatten
from edge_dsac.learn.distill import BLOCK, DistillError, Distilling, Round, Rows, distill, driver, loss_of, nothing_new, scaled
from edge_dsac.learn.networks import Shape, make_params, mlp
from edge_dsac.learn.update import make_state
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import load_robot

BOT = load_robot("balance_bot")
LAYOUT = ObservationLayout(BOT)
TEACHER = random_actor(BOT, (24,), "tanh")
QUICK = Distilling(rounds=3, steps=150, check_every=50, batch=128)
SIZE = LAYOUT.size


class Drift:
    """Ten robots whose first two observations are pushed by their actions; keeps who drove, and what it returned."""

    def __init__(self, ticks=40):
        self.ticks, self.policies, self.seen = ticks, [], []

    def __call__(self, policy, seed):
        draws, obs = np.random.default_rng(seed), np.zeros((10, SIZE))
        obs[:], rows = draws.uniform(-0.3, 0.3, obs.shape) * LAYOUT.clip, []
        for _ in range(self.ticks):
            rows.append(obs.astype(np.float32))
            obs = 0.9 * obs + draws.normal(size=obs.shape) * 0.05 * LAYOUT.clip
            obs[:, :2] += 0.1 * np.asarray(policy(rows[-1])) * LAYOUT.clip[:2]
        self.policies.append(policy)
        self.seen.append(np.stack(rows, axis=1).reshape(-1, SIZE))
        return self.seen[-1]


def student_params(seed=1, widths=(8,)):
    return make_params((SIZE, *widths, 2), torch.Generator().manual_seed(seed))


@pytest.mark.slow
def test_a_student_comes_near_its_teacher_and_is_made_for_the_same_robot():
    done = distill(TEACHER, BOT, (16, 12), Drift(), dataclasses.replace(QUICK, steps=600))
    assert done.actor.sizes == (SIZE, 16, 12, 2)
    assert (done.actor.activation, done.actor.policy_fingerprint) == ("tanh", TEACHER.policy_fingerprint)
    assert np.array_equal(done.actor.obs_scale, TEACHER.obs_scale)
    elsewhere = Drift()(done.actor.act, 999)
    off = np.abs(done.actor.act(elsewhere) - TEACHER.act(elsewhere)).mean()
    assert off < 0.25 * np.abs(TEACHER.act(elsewhere)).mean()
    assert 0.3 * done.error < off < 3.0 * done.error  # what is said of it holds where nobody looked
    assert done.rows == 3 * 300  # of 400 each, one block of a hundred is held out


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_one_others():
    few = dataclasses.replace(QUICK, rounds=2, steps=10, check_every=5, batch=32)
    first, again = (distill(TEACHER, BOT, (8,), Drift(30), few) for _ in range(2))
    assert first.file == again.file
    assert first.rounds == again.rounds
    assert distill(TEACHER, BOT, (8,), Drift(30), dataclasses.replace(few, seed=2)).file != first.file


def test_the_teacher_drives_first_then_the_student_more_and_more():
    options = Distilling(teacher_share=0.5)
    obs = (np.random.default_rng(0).uniform(-0.3, 0.3, (4000, SIZE)) * LAYOUT.clip).astype(np.float32)
    wanted = TEACHER.act(obs)
    shares = []
    for number in range(4):
        given = np.asarray(driver(TEACHER, student_params(), number, options)(obs))
        shares.append(float((given == wanted).all(axis=1).mean()))
    assert shares[0] == 1.0
    assert shares[1:] == pytest.approx([0.5, 0.25, 0.125], abs=0.03)


@pytest.mark.slow
def test_states_of_every_drive_are_kept_and_labelled_by_the_teacher():
    flights = Drift(30)
    data = Rows(TEACHER, QUICK)
    student = student_params()
    for number in range(3):
        data.add(flights(driver(TEACHER, student, number, QUICK), QUICK.seed + number), number, student)
    assert len(data.obs) + len(data.held_obs) == 900
    for number, seen in enumerate(flights.seen):
        rows = {row.tobytes() for row in np.asarray(scaled(seen, TEACHER))}
        kept = [row.tobytes() in rows for row in data.obs.numpy()]
        assert sum(kept) == 200, number  # a block of three is held out of each
    both = torch.cat((data.obs, data.held_obs)).numpy()
    labels = torch.cat((data.means, data.held_means)).numpy()
    assert np.allclose(np.tanh(labels), TEACHER.act(both / TEACHER.obs_scale), atol=1e-5)
    assert not {row.tobytes() for row in data.obs.numpy()} & {row.tobytes() for row in data.held_obs.numpy()}


@pytest.mark.slow
def test_the_student_itself_drives_what_it_learns_from():
    flights = Drift(30)
    distill(TEACHER, BOT, (8,), flights, dataclasses.replace(QUICK, steps=20, check_every=10))
    assert len(flights.policies) == 3
    obs = flights.seen[0]
    given = [np.asarray(policy(obs)) for policy in flights.policies]
    assert np.array_equal(given[0], TEACHER.act(obs))
    own = (given[1] != TEACHER.act(obs)).any(axis=1).mean()
    assert 0.3 < own < 0.7
    assert (given[2] != TEACHER.act(obs)).any(axis=1).mean() > own


def test_the_loss_is_of_actions_and_saturated_on_the_same_side_it_is_nothing():
    wanted = torch.tensor([[0.0, 9.0, -4.0]])
    given = torch.tensor([[0.02, 4.0, 4.0]], requires_grad=True)
    loss = loss_of(wanted, given, huber=0.1)
    loss.backward()
    off = [np.tanh(0.02), np.tanh(9.0) - np.tanh(4.0), np.tanh(4.0) + np.tanh(4.0)]
    by_hand = [0.5 * off[0] ** 2, 0.5 * off[1] ** 2, 0.1 * (off[2] - 0.05)]
    assert float(loss.detach()) == pytest.approx(sum(by_hand) / 3, rel=1e-4)
    slope = given.grad[0].tolist()
    assert slope[0] == pytest.approx(0.02 / 3, rel=0.01)
    assert abs(slope[1]) < 1e-6
    # Wrong side: the tangent 1 - tanh(4)^2 is 1.3e-3, the secant a quarter; 0.1 is as hard as Huber pulls.
    assert slope[2] == pytest.approx(0.1 * off[2] / 8.0 / 3, rel=1e-3)


REFUSED = {
    "an activation that is not learnt here": (dataclasses.replace(TEACHER, activation="elu"), Drift(), "this one is elu, tanh"),
    "an end that is not tanh": (dataclasses.replace(TEACHER, squash="clip"), Drift(), "this one is tanh, clip"),
    "too little to learn from": (TEACHER, Drift(BLOCK // 10), r"expected at least 200 finite observations of 11, got \(100, 11\)"),
    "no numbers": (TEACHER, lambda policy, seed: np.full((500, SIZE), np.nan), "finite"),
    "another robot's": (TEACHER, lambda policy, seed: np.zeros((500, 3)), r"got \(500, 3\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_distilled_is_refused(name):
    teacher, simulate, reason = REFUSED[name]
    with pytest.raises(DistillError, match=reason):
        distill(teacher, BOT, (8,), simulate, QUICK)


def test_distilling_ends_when_two_drives_met_nothing_new():
    def rounds(*fresh):
        return [Round(i, 100, value, 0.0, 10) for i, value in enumerate(fresh)]

    assert not nothing_new(rounds(9.0, 0.5, 0.5))  # two drives of its own prove nothing
    assert not nothing_new(rounds(9.0, 0.5, 0.5, 0.4))
    assert nothing_new(rounds(0.0, 0.5, 0.5, 0.495))
    assert not nothing_new(rounds(9.0, 0.5, 0.4, 0.6, 0.39))
    assert nothing_new(rounds(9.0, 0.5, 0.4, 0.6, 0.4))


@pytest.mark.slow
def test_an_early_end_still_gives_the_long_last_round():
    told = []
    done = distill(
        TEACHER, BOT, (8,), Drift(30), Distilling(rounds=8, steps=10, check_every=5, rate=1e-9, patience=100, batch=16), told.append
    )
    assert len(done.rounds) < 8  # it learns nothing, so it meets nothing new
    assert [one.number for one in told] == list(range(len(told)))
    assert done.rounds[-1].steps == 10 + 30


def test_torchs_threads_are_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(DistillError):
            distill(TEACHER, BOT, (8,), Drift(5), QUICK)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# ---- critic.npz


def saved_run():
    shape = Shape(SIZE, 2, (8,), (24,))
    state = flatten(make_state(shape, torch.Generator().manual_seed(0)))
    rates = {"objective": {"activation": "gelu", "log_std_range": [-20.0, 0.5]}}
    config = {"learning": {"rates": rates, "gamma": 0.99, "n_step": 1, "reward_scale": 1.0}}
    replay = [{"obs": np.random.default_rng(5).normal(size=(50, SIZE)).astype(np.float32)}]
    return Saved(None, Progress(), config, state, replay)


def test_the_critics_stay_the_teachers_and_the_actor_is_the_student_with_constant_deviations():
    saved, student = saved_run(), balancing_actor(BOT)
    with np.load(io.BytesIO(distilled_critic_file(saved, student)), allow_pickle=False) as file:
        arrays = dict(file)
    for name in ("critics.0", "target_critics.2", "m", "log_alpha"):
        assert np.array_equal(arrays[name], saved.state[name])
    for owner in ("actor", "target_actor"):
        assert sum(name.startswith(f"{owner}.") for name in arrays) == 2 * len(student.layers)
        params = [torch.from_numpy(arrays[f"{owner}.{i}"]) for i in range(2 * len(student.layers))]
        obs = torch.from_numpy(saved.replay[0]["obs"])
        mean, log_std = mlp(tuple(params), obs, student.activation).chunk(2, dim=-1)
        assert np.allclose(np.tanh(mean.numpy()), student.act(obs.numpy() / student.obs_scale), atol=1e-5)
        teachers = mlp(tuple(torch.from_numpy(saved.state[f"actor.{i}"]) for i in range(4)), obs, "gelu").chunk(2, dim=-1)[1]
        assert np.ptp(log_std.numpy(), axis=0).max() == 0.0
        assert np.allclose(log_std[0].numpy(), teachers.clamp(-20.0, 0.5).mean(dim=0).numpy(), atol=1e-4)
