"""The trainer: counts what it says, ends the same however often it was stopped, refuses what is no number, and learns."""

import functools
import math
import multiprocessing
import os
import random
import signal

import numpy as np
import pytest
import torch
from learn_fakes import Valley, Valleys, fingerprint, finish, plain_update, train_in_a_child, trainer_in

from edge_dsac.learn.checkpoint import Checkpoints
from edge_dsac.learn.trainer import EPISODES, EXPLORE, NOISE, SAMPLE, Diverged, Learning, stream
from edge_dsac.learn.update import Rates

pytestmark = pytest.mark.slow  # torch takes seconds before its first gradient

CHOICES = {
    "plain": {},
    "three steps, a ring that wraps": {"n_step": 3, "capacity": 64},
    "several updates per step": {"steps_per_update": 0.25, "envs": 1},
}


class Stop(Exception):
    pass


def stop_after(limit):
    def on_update(updates, env_steps):
        if updates >= limit:
            raise Stop

    return on_update


def resumed(folder, **choices):
    trainer = trainer_in(folder, **choices)
    trainer.resume(trainer.checkpoints.load())
    return trainer


def numbers(rounds):
    """All that a round tells, but for how fast it was."""
    return [
        repr((one.progress, one.figures, one.score, one.episodes, one.training_return, one.value.figures(), one.is_best)) for one in rounds
    ]


def test_on_one_core_one_thread_does_the_same_in_turn(tmp_path, monkeypatch):
    overlapped = trainer_in(tmp_path / "overlapped")
    told = finish(overlapped)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    threads = []
    monkeypatch.setattr("edge_dsac.learn.trainer.ThreadPoolExecutor", lambda *more, **named: threads.append(more))
    in_turn = trainer_in(tmp_path / "in turn")
    assert numbers(finish(in_turn)) == numbers(told)
    assert fingerprint(in_turn) == fingerprint(overlapped)
    assert threads == []


# Stopped and gone on


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES)
def test_a_run_that_was_stopped_between_rounds_ends_as_one_that_was_not(tmp_path, choices):
    whole = trainer_in(tmp_path / "whole", **choices)
    told = finish(whole)
    assert [one.progress.round for one in told] == [1, 2, 3, 4]
    first, half = trainer_in(tmp_path / "halves", **choices), []

    def two_rounds(one):
        half.append(one)
        if len(half) == 2:
            raise Stop

    with pytest.raises(Stop):
        first.run(two_rounds, lambda updates, env_steps: None)
    second = resumed(tmp_path / "halves", **choices)
    assert numbers(half + finish(second)) == numbers(told)
    assert fingerprint(second) == fingerprint(whole)


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES)
def test_a_run_that_was_stopped_within_a_round_ends_as_one_that_was_not(tmp_path, choices, generator):
    whole = trainer_in(tmp_path / "whole", **choices)
    finish(whole)
    limit = int(generator.integers(21, 80))
    with pytest.raises(Stop):
        finish(trainer_in(tmp_path / "stopped", **choices), stop_after(limit))
    again = resumed(tmp_path / "stopped", **choices)
    assert again.progress.updates == (limit - 1) // 20 * 20
    finish(again)
    assert fingerprint(again) == fingerprint(whole)


def test_a_run_that_was_killed_at_random_instants_ends_as_one_that_was_not(tmp_path):
    seed = int(os.environ.get("EDGE_DSAC_RANDOM", "12345"))
    print(f"seed {seed}")
    chance = random.Random(seed)
    choices = {"n_step": 3, "capacity": 150, "updates": 200}
    whole = trainer_in(tmp_path / "whole", **choices)
    finish(whole)
    folder = tmp_path / "killed"
    folder.mkdir()
    spawn = multiprocessing.get_context("fork")
    torch.set_num_threads(1)
    kills = 0
    for attempt in range(60):
        child = spawn.Process(target=train_in_a_child, args=(folder, choices))
        child.start()
        child.join(chance.uniform(0.05, 0.5) if attempt < 8 else 60)
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        child.join(10)
        if (folder / "fingerprint").exists():
            break
        assert child.exitcode == -signal.SIGKILL, "the child failed by itself"
    assert kills >= 1
    assert (folder / "fingerprint").read_text() == fingerprint(whole)


# Counting


@pytest.mark.parametrize("envs", [1, 8])
@pytest.mark.parametrize("steps_per_update", [4.0, 1.0, 0.5, 20.0])
def test_updates_are_exact_and_environment_steps_follow(tmp_path, steps_per_update, envs):
    trainer = trainer_in(tmp_path, updates=50, round_updates=20, warmup_steps=16, steps_per_update=steps_per_update, envs=envs)
    counted = [0]
    inner = trainer.updater

    def count(*given):
        counted[0] += 1
        return inner(*given)

    trainer.updater = count
    rounds = finish(trainer)
    assert counted[0] == 50
    assert [one.progress.updates for one in rounds] == [20, 40, 50]
    beat = max(1, round(steps_per_update / envs)) * envs
    before_the_last_beat = math.ceil((16 + 50 * steps_per_update) / beat) * beat  # enough for 50 updates, in whole beats
    earliest, latest = before_the_last_beat, before_the_last_beat + 3 * beat  # each round's last beat also runs
    assert earliest <= trainer.progress.env_steps <= latest
    assert trainer.progress.env_steps == trainer.replay.total  # every step is a row


def test_nothing_is_updated_before_the_warm_up(tmp_path):
    trainer = trainer_in(tmp_path, updates=2, round_updates=2, warmup_steps=30)
    seen = []
    finish(trainer, lambda updates, env_steps: seen.append((updates, env_steps)))
    assert seen[0] == (0, 2)
    assert [steps for updates, steps in seen if updates == 0] == list(range(2, 33, 2))  # 2 steps past 30 buy the first update
    assert seen[-2:] == [(1, 34), (2, 36)]


def test_without_a_warm_up_the_first_update_waits_for_the_first_row(tmp_path):
    trainer = trainer_in(tmp_path, updates=4, round_updates=4, warmup_steps=0, envs=1, steps_per_update=1.0, n_step=5)
    finish(trainer)
    assert trainer.progress.updates == 4


def test_the_learning_rates_pace_falls_to_its_final_share(tmp_path):
    paces = []

    def watch(state, batch, noise, bounds, with_actor, pace):
        paces.append(float(pace))
        return plain_update(Rates(), state, batch, noise, bounds, with_actor, pace)

    finish(trainer_in(tmp_path, updater=watch, updates=20, round_updates=10, final_pace=0.2))
    assert paces[0] == 1.0
    assert paces[10] == pytest.approx(0.6)  # half way
    assert paces[-1] == pytest.approx(0.2 + 0.8 / 20)
    assert np.diff(paces) == pytest.approx([-0.04] * 19)


def test_the_actor_moves_every_other_update_through_all_rounds(tmp_path):
    actors = []

    def watch(state, batch, noise, bounds, with_actor, pace):
        actors.append(with_actor)
        return plain_update(Rates(), state, batch, noise, bounds, with_actor, pace)

    finish(trainer_in(tmp_path, updater=watch, updates=10, round_updates=5))
    assert actors == [True, False] * 5


def test_a_long_horizon_does_not_end_the_run_in_its_value_check(tmp_path):
    class Undying(Valley):
        """A death would close every return behind it, however long the horizon."""

        def step(self, action):
            outcome = super().step(action)
            return outcome._replace(terminated=outcome.terminated & False)

    class Endless(Valleys):
        def endless(self, n):
            return Undying(n, 10**9)

    (one,) = finish(trainer_in(tmp_path, Endless(), updates=2, round_updates=2, gamma=0.998))
    assert len(one.value.realised) > 0


# The best


def test_the_best_checkpoint_is_that_of_the_best_evaluation_and_is_kept(tmp_path):
    trainer = trainer_in(tmp_path)
    means = iter([-5.0, -2.0, -3.0, -2.0])
    real = trainer.evaluate

    def told():
        score, mean = real(), next(means)
        return type(score)([mean], [1], 1.0)

    trainer.evaluate = told
    rounds = finish(trainer)
    assert [one.is_best for one in rounds] == [True, True, False, False]  # as good is not better
    assert (trainer.progress.best_round, trainer.progress.best_mean) == (2, -2.0)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["000002", "000003", "000004"]


# What is no number


class Spoilt(Valleys):
    """Rewards that float32 holds, and whose squares it does not."""

    def training(self, n):
        return Valley(n, 7, 1e38)


def test_rewards_too_large_to_learn_from_end_the_run_and_leave_the_checkpoint(tmp_path):
    with pytest.raises(Stop):
        finish(trainer_in(tmp_path), stop_after(21))
    trainer = trainer_in(tmp_path, Spoilt())
    trainer.resume(trainer.checkpoints.load())
    with pytest.raises(Diverged, match=r"learning diverged: .*The last checkpoint is intact"):
        finish(trainer)
    assert Checkpoints(tmp_path, 100).load().progress.round == 1


def test_a_last_update_that_breaks_the_state_is_not_saved(tmp_path):
    """Its own figures are still numbers: they are those of the parameters before it."""

    def breaks(state, batch, noise, bounds, with_actor, pace):
        state, figures = plain_update(Rates(), state, batch, noise, bounds, with_actor, pace)
        if float(state.critic_steps) == 5:
            state = state._replace(critics=(state.critics[0] * math.nan, *state.critics[1:]))
        return state, figures

    trainer = trainer_in(tmp_path, updater=breaks, updates=5, round_updates=5)
    with pytest.raises(Diverged, match=r"critics\.0"):
        finish(trainer)
    assert not (tmp_path / "checkpoints").exists()


# Learning


def test_nothing_random_is_drawn_twice():
    """Another round, purpose, rank or seed is another stream; the same one is the same."""
    drawn = {
        (seed, round_, purpose, rank): tuple(torch.randint(1 << 30, (4,), generator=stream(seed, round_, purpose, rank)).tolist())
        for seed in (0, 1)
        for round_ in (0, 1, 2)
        for purpose in (EXPLORE, SAMPLE, NOISE, EPISODES)
        for rank in (0, 1)
    }
    assert len(set(drawn.values())) == len(drawn)
    again = torch.randint(1 << 30, (4,), generator=stream(1, 2, NOISE, 1))
    assert tuple(again.tolist()) == drawn[1, 2, NOISE, 1]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"gamma": 1.0}, "gamma = 1.0"), ({"round_updates": 0}, "round_updates = 0"), ({"capacity": 10}, "capacity = 10"),
        ({"capacity": 300, "envs": 64, "steps_per_update": 128.0, "n_step": 3}, "capacity = 300 .expected at least 320"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_learnt_with_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Learning(**wrong)


def test_it_learns(tmp_path):
    rates = Rates(critic_lr=3e-3, actor_lr=3e-3, alpha_lr=3e-3, tau=0.02)
    trainer = trainer_in(
        tmp_path,
        updater=functools.partial(plain_update, rates),
        updates=1200,
        round_updates=600,
        batch=64,
        alpha=0.05,
        rates=rates,
        warmup_steps=200,
    )
    untrained = trainer.evaluate().mean
    finish(trainer)
    trained = trainer.evaluate().mean
    print(f"{untrained:.2f} -> {trained:.2f}")
    assert trained > 0.85 * untrained  # returns are negative: of four seeds the least gain was a fifth
