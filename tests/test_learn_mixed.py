"""Batches from logs and simulation: how many rows of each, in the replay and in a whole run; and that a run goes on the same."""

import functools

import numpy as np
import pytest
import torch
from learn_fakes import SMALL, Valley, Valleys, fingerprint, finish, plain_update

from edge_dsac.learn.checkpoint import Checkpoints
from edge_dsac.learn.losses import Batch
from edge_dsac.learn.mixed import Mixed, Real, from_logs
from edge_dsac.learn.replay import Replay
from edge_dsac.learn.trainer import Learning, Trainer

pytestmark = pytest.mark.slow  # torch takes seconds before its first gradient

LOGGED = 7.0  # in the second entry of an observation; Valley's own is within 0 to 1


def rows(count, first=0.0, mark=LOGGED, act=1):
    """Row k earns first + k."""
    obs = np.stack([np.arange(count) / count, np.full(count, mark)], axis=1)
    columns = (obs, np.zeros((count, act)), first + np.arange(count), obs, np.zeros(count), np.full(count, 0.9))
    return Batch(*(np.asarray(column, np.float32) for column in columns))


def mixed(share, real=5, simulated=40):
    replay = Replay(100, 2, 1)
    replay.add(rows(simulated, mark=0.0))
    return Mixed(replay, Real(rows(real, first=1000.0), share))


def count_logged(batch):
    return int((batch.obs[:, 1] == LOGGED).sum())


@pytest.mark.parametrize(("share", "logged"), [(0.0, 0), (0.001, 1), (0.2, 6), (0.25, 8), (0.5, 16), (0.9, 29), (1.0, 32)])
def test_every_batch_holds_the_share_and_not_about_it(share, logged):
    source, generator = mixed(share), torch.Generator().manual_seed(1)
    batches = [source.sample(32, generator) for _ in range(20)]
    assert from_logs(32, share) == logged
    assert {count_logged(batch) for batch in batches} == {logged}
    assert {len(column) for batch in batches for column in batch} == {32}
    assert all(((batch.reward >= 1000.0) == (batch.obs[:, 1] == LOGGED)).all() for batch in batches)  # rows stay whole


def test_all_rows_of_both_are_drawn_and_the_same_again_from_the_same_seed():
    source = mixed(0.5)
    draw = [source.sample(64, torch.Generator().manual_seed(seed)).reward for seed in (*range(12), 0)]
    assert set(torch.cat(draw).tolist()) == {*range(40), *range(1000, 1005)}
    assert torch.equal(draw[0], draw[12])
    assert not torch.equal(draw[0], draw[1])


@pytest.mark.parametrize(("real", "share", "said"), [(5, 1.5, "share of 1.5"), (5, -0.1, "share of -0.1"), (0, 0.5, "no row of the logs")])
def test_what_cannot_be_mixed_is_said(real, share, said):
    with pytest.raises(ValueError, match=said):
        mixed(share, real)


class Worsening(Valleys):
    """Each evaluation is harder than the one before."""

    asked = 0

    def evaluation(self, n):
        self.asked += 1
        return Valley(n, size=float(self.asked))


def trainer_in(folder, share=0.5, seen=None, logged=None, worlds=None):
    learning = Learning(**SMALL)

    def updater(state, batch, *more):
        if seen is not None:
            seen.append(batch)
        return plain_update(learning.rates, state, batch, *more)

    real = Real(logged or rows(30), share)
    return Trainer(learning, worlds or Valleys(), updater, Checkpoints(folder, learning.capacity), {}, real=real)


@pytest.mark.parametrize(("share", "logged"), [(0.5, 8), (0.0, 0)])
def test_every_update_of_a_run_is_made_of_both(tmp_path, share, logged):
    seen = []
    rounds = finish(trainer_in(tmp_path, share, seen, worlds=Worsening()))
    means = [done.score.mean for done in rounds]
    assert means[-1] < max(means)  # to simulation the first was better
    assert len(seen) == 80
    assert [count_logged(batch) for batch in seen] == [logged] * 80
    assert [done.is_best for done in rounds] == [True] * 4  # simulation does not judge what was learnt from a robot
    assert rounds[-1].progress.best_round == 4


def test_a_checkpoint_holds_no_row_of_the_logs(tmp_path):
    trainer = trainer_in(tmp_path)
    finish(trainer)
    saved = trainer.checkpoints.load()
    assert max(float(part["obs"][:, 1].max()) for part in saved.replay) <= 1.0


def test_a_run_that_goes_on_ends_the_same_to_the_last_bit(tmp_path):
    whole = trainer_in(tmp_path / "whole")
    finish(whole)
    cut = trainer_in(tmp_path / "cut")

    class Killed(Exception):
        pass

    def kill(updates, env_steps):
        if updates >= 50:
            raise Killed

    with pytest.raises(Killed):
        cut.run(lambda done: None, kill)
    again = trainer_in(tmp_path / "cut")
    again.resume(again.checkpoints.load())
    assert again.progress.round == 2
    finish(again)
    assert fingerprint(again) == fingerprint(whole)
    other = trainer_in(tmp_path / "other", logged=rows(31))
    finish(other)
    assert fingerprint(other) != fingerprint(whole)
    plain = Trainer(
        Learning(**SMALL), Valleys(), functools.partial(plain_update, Learning().rates), Checkpoints(tmp_path / "plain", 1000), {}
    )
    finish(plain)
    assert fingerprint(plain) != fingerprint(whole)
