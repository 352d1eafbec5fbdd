"""Worlds made up for learning: one whose data say where they come from, and one that is learnt in seconds."""

import functools
import os

import numpy as np

from edge_dsac.learn.checkpoint import Checkpoints, flatten, sha256
from edge_dsac.learn.trainer import Learning, Trainer
from edge_dsac.learn.update import Rates, update
from edge_dsac.records import Outcome


class Scripted:
    """Environment i at its step k sees [i, k, episode] and earns `reward(i, k)`; it ends where `ends[i]` says.

    `ends[i]` are (length, terminated) of its episodes in turn; after the last one it never ends. k counts anew in each episode.
    """

    name, obs_size = "scripted", 3
    low, high = np.array([-1.0]), np.array([1.0])

    def __init__(self, ends, reward=lambda i, k: float(k), info=None):
        self.n, self.ends, self.reward, self.info = len(ends), ends, reward, info
        self.closed = False

    def begin(self, seed):
        self.k, self.episode = np.zeros(self.n, int), np.zeros(self.n, int)
        return self.see()

    def see(self):
        return np.stack([np.arange(self.n), self.k, self.episode], axis=1).astype(np.float32)

    def step(self, action):
        reward = np.array([self.reward(i, int(k)) for i, k in enumerate(self.k)])
        self.k += 1
        next_obs = self.see()
        over, dead = np.zeros(self.n, bool), np.zeros(self.n, bool)
        for i, episodes in enumerate(self.ends):
            if self.episode[i] < len(episodes):
                length, terminated = episodes[self.episode[i]]
                over[i] = self.k[i] == length
                dead[i] = over[i] and terminated
        self.k[over], self.episode[over] = 0, self.episode[over] + 1
        applied = np.clip(action, -0.5, 0.5)  # as a limiter would
        info = {} if self.info is None else self.info(next_obs)
        return Outcome(applied, reward, next_obs, dead, over & ~dead, self.see(), info)

    def close(self):
        self.closed = True


class Valley:
    """x moves by a tenth of the action; the reward is -x^2 - (act - 0.5)^2 / 10. Left alone for `length` steps, then cut; beyond 2 it dies."""

    name, obs_size = "valley", 2
    low, high = np.array([-1.0]), np.array([1.0])

    def __init__(self, n, length=15, size=1.0):
        self.n, self.length, self.size = n, length, size

    def begin(self, seed):
        self.generator = np.random.default_rng(seed)
        self.x, self.k = np.zeros(self.n), np.zeros(self.n, int)
        self.fresh(np.ones(self.n, bool))
        return self.see()

    def fresh(self, where):
        self.x[where] = self.generator.uniform(-1.0, 1.0, int(where.sum()))
        self.k[where] = 0

    def see(self):
        return np.stack([self.x, self.k / self.length], axis=1).astype(np.float32)

    def step(self, action):
        act = np.asarray(action, float)[:, 0]
        reward = self.size * (-(self.x**2) - (act - 0.5) ** 2 / 10.0)
        self.x = self.x + 0.1 * act
        self.k += 1
        next_obs = self.see()
        dead = np.abs(self.x) > 2.0
        over = dead | (self.k >= self.length)
        if over.any():
            self.fresh(over)
        return Outcome(np.asarray(action, np.float32), reward, next_obs, dead, over & ~dead, self.see(), {"x": next_obs[:, 0]})

    def close(self):
        pass


class Valleys:
    """The Worlds of a trainer; `size` scales the rewards of training."""

    def __init__(self, size=1.0):
        self.size = size

    def training(self, n):
        return Valley(n, 7, self.size)

    def evaluation(self, n):
        return Valley(n)

    def endless(self, n):
        return Valley(n, 100)


SMALL = {
    "updates": 80, "round_updates": 20, "envs": 2, "steps_per_update": 2.0, "warmup_steps": 30, "batch": 16, "capacity": 100_000,
    "gamma": 0.9, "critic_hidden": (16, 16), "actor_hidden": (16, 16), "evaluation_episodes": 4,
}  # fmt: skip


def trainer_in(folder, worlds=None, updater=None, **choices):
    """A trainer of 4 rounds of 20 updates, well under a second; `choices` change what it is told."""
    learning = Learning(**{**SMALL, **choices})
    updater = updater or functools.partial(plain_update, learning.rates)
    return Trainer(learning, worlds or Valleys(), updater, Checkpoints(folder, learning.capacity), {"seed": learning.seed})


def plain_update(rates: Rates, state, batch, noise, bounds, with_actor, pace):
    return update(state, batch, noise, bounds, rates, with_actor, pace)


def finish(trainer, on_update=lambda updates, env_steps: None):
    """The rounds that it ran."""
    rounds = []
    trainer.run(rounds.append, on_update)
    return rounds


def fingerprint(trainer):
    """SHA-256 of all that a trainer remembers."""
    state = flatten(trainer.state)
    rows = trainer.replay.since(0)
    words = [array.tobytes() for array in [*state.values(), *rows.values()]]
    return sha256(b"".join(words) + repr(trainer.progress).encode())


def train_in_a_child(folder, choices):
    """Main of a child process: goes on from what is there, to the end, and writes the fingerprint. May be killed at any instant."""
    trainer = trainer_in(folder, **choices)
    if any((folder / "checkpoints").glob("*/checkpoint.json")):
        trainer.resume(trainer.checkpoints.load())
    print(f"from {trainer.progress.round}", flush=True)
    finish(trainer)
    (folder / "unfinished").write_text(fingerprint(trainer))
    os.replace(folder / "unfinished", folder / "fingerprint")
