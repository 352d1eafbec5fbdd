"""The desktop trainer: collect, update, and every so many updates a round: evaluate, save, report.

A round begins from (seed, round) and the last checkpoint alone: new episodes, new random generators. So a run that was
killed and goes on ends bit-identical to one that was not. Within a round, one thread lives in the world with the policy of
the beat's beginning while this one updates on the replay of the beat's beginning: overlapped, and still repeatable. On a
single core one does what the other would, in turn: the same numbers.
Where there are rows of robots' logs too, every batch is made of both (mixed.py).
Knows no simulator, no screen and no file format.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from edge_dsac.learn.act import Diverged, deployed, explorer
from edge_dsac.learn.base import Base, begun_from
from edge_dsac.learn.checkpoint import Checkpoints, Progress, Saved, flatten, unflatten
from edge_dsac.learn.collect import Collector, World
from edge_dsac.learn.evaluate import Judged, Score, ValueCheck, check_value, evaluate, value_steps
from edge_dsac.learn.losses import Batch, Noise
from edge_dsac.learn.mixed import Mixed, Real
from edge_dsac.learn.networks import Shape
from edge_dsac.learn.ranks import ALONE, Ranks
from edge_dsac.learn.replay import Replay
from edge_dsac.learn.update import Figures, Rates, State, make_state
from edge_dsac.records import Float

EVALUATION_SEED, VALUE_SEED = 1_000_003, 2_000_003  # of episodes no learning has seen; the same in every round
EVALUATION_PLACES = 50  # episodes lived through side by side at most


POSITIVE = ("updates", "round_updates", "envs", "steps_per_update", "batch", "n_step", "alpha", "evaluation_episodes")


@dataclass(frozen=True, slots=True)
class Learning:
    """How to learn. The defaults are the paper's, but for the budget."""

    updates: int = 50_000
    """how many updates in all"""
    round_updates: int = 5_000
    """after so many updates: evaluate, save, report"""
    seed: int = 0
    """everything random follows from it"""
    envs: int = 1
    """episodes lived through at a time"""
    steps_per_update: float = 20.0
    """environment steps per update; below 1 is several updates per step"""
    warmup_steps: int = 10_000
    """environment steps of the untrained policy before the first update"""
    batch: int = 256
    """rows per update"""
    capacity: int = 1_000_000
    """rows the replay holds"""
    gamma: float = 0.99
    """discount per step"""
    n_step: int = 1
    """an addition to DSAC-T when above 1: rows span so many steps"""
    reward_scale: float = 1.0
    """applied once, before the replay"""
    alpha: float = math.e
    """first temperature of the entropy"""
    final_pace: float = 1.0
    """an addition to DSAC-T when below 1: learning rates fall linearly to this share at the end"""
    critic_hidden: tuple[int, ...] = (256, 256, 256)
    """widths of the critics' layers"""
    actor_hidden: tuple[int, ...] = (256, 256, 256)
    """widths of the actor's layers"""
    evaluation_episodes: int = 10
    """episodes of the deployed policy after each round"""
    rates: Rates = field(default_factory=Rates)

    def __post_init__(self) -> None:
        wrong = [f"{name} = {getattr(self, name)}" for name in POSITIVE if getattr(self, name) <= 0]
        if not 0.0 < self.gamma < 1.0:
            wrong.append(f"gamma = {self.gamma} (expected between 0 and 1, both excluded)")
        least = max(self.batch, math.ceil(self.steps_per_update) + self.envs * self.n_step)
        if self.capacity < least:
            wrong.append(f"capacity = {self.capacity} (expected at least {least}: a batch, and what is lived through between two updates)")
        if wrong:
            raise ValueError(f"settings that cannot be learnt with: {', '.join(wrong)}; expected positive numbers")


class Worlds(Protocol):
    """Where learning happens; each call makes one of its own."""

    def training(self, n: int) -> World: ...

    def evaluation(self, n: int) -> World: ...

    def endless(self, n: int) -> World:
        """Without a time limit that matters: to see what a state's return really is."""


class Updater(Protocol):
    """`update` of update.py, or a compiled form of it."""

    def __call__(
        self, state: State, batch: Batch, noise: Noise, bounds: tuple[torch.Tensor, torch.Tensor], with_actor: bool, pace: torch.Tensor
    ) -> tuple[State, Figures]: ...


@dataclass(frozen=True, slots=True)
class Round:
    """What a round brought."""

    progress: Progress
    figures: dict[str, float]  # means of the updates' own figures
    score: Score
    value: ValueCheck
    episodes: int
    training_return: float
    updates_per_s: float
    is_best: bool


class InTurn(Executor):
    """In the place of the collector's thread where there is one core for both: there two would only stand in each other's way."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(call(*args, **named))
        return done


EXPLORE, SAMPLE, NOISE, EPISODES, PARAMETERS = range(5)  # what is random


def stream(seed: int, round_: int, purpose: int, rank: int = 0) -> torch.Generator:
    """A generator for one purpose of one round: nothing random is ever carried from one round to the next."""
    words = np.random.SeedSequence([seed, round_, purpose, rank]).generate_state(2)
    return torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))


class Trainer:
    def __init__(
        self,
        learning: Learning,
        worlds: Worlds,
        updater: Updater,
        checkpoints: Checkpoints,
        config: dict[str, Any],
        device: str = "cpu",
        ranks: Ranks = ALONE,
        real: Real | None = None,
    ) -> None:
        self.learning, self.worlds, self.updater, self.checkpoints, self.config = learning, worlds, updater, checkpoints, config
        self.ranks = ranks
        self.world = worlds.training(learning.envs)
        self.device = device
        self.bounds = tuple(torch.from_numpy(np.asarray(limit, np.float32)).to(device) for limit in (self.world.low, self.world.high))
        self.shape = Shape(self.world.obs_size, len(self.world.low), learning.critic_hidden, learning.actor_hidden)
        self.replay = Replay(learning.capacity, self.shape.obs, self.shape.act, device)
        self.real = real
        self.source: Replay | Mixed = self.replay if real is None else Mixed(self.replay, real)
        self.collector = Collector(self.world, learning.gamma, learning.n_step, learning.reward_scale)
        self.state = to_device(make_state(self.shape, stream(learning.seed, 0, PARAMETERS), learning.alpha), device)
        self.progress = Progress()
        self.saved_total = 0
        self.threads = torch.get_num_threads()

    def begin_from(self, base: Base) -> None:
        """Not from new networks. Before the first round; what `resume` brings takes their place."""
        self.state = begun_from(self.state, base, self.device)

    def resume(self, saved: Saved) -> None:
        self.state = unflatten(saved.state, self.state, self.device)
        self.replay.refill(saved.progress.replay_total, saved.replay)
        self.progress = saved.progress
        self.saved_total = saved.progress.replay_total
        self.collector.steps = saved.progress.env_steps // self.world.n

    def run(self, on_round: Callable[[Round], None], on_update: Callable[[int, int], None]) -> None:
        """`on_update(updates, env_steps)` is called often; it must be quick."""
        if len(os.sched_getaffinity(0)) == 1:
            self.train(InTurn(), on_round, on_update)
            return
        with ThreadPoolExecutor(1, "collector", initializer=torch.set_num_threads, initargs=(1,)) as living:
            living.submit(int).result()
            torch.set_num_threads(self.threads)  # the collector's one is its own
            self.train(living, on_round, on_update)

    def train(self, living: Executor, on_round: Callable[[Round], None], on_update: Callable[[int, int], None]) -> None:
        while self.progress.updates < self.learning.updates:
            done = self.train_round(living, on_update)
            if done:
                on_round(done)

    def train_round(self, living: Executor, on_update: Callable[[int, int], None]) -> Round | None:
        """None on all ranks but the first, which speaks for them."""
        learning, number, rank = self.learning, self.progress.round, self.ranks.rank
        explore, sample, noise = (stream(learning.seed, number, purpose, rank) for purpose in (EXPLORE, SAMPLE, NOISE))
        seed = int(np.random.SeedSequence([learning.seed, number, EPISODES, rank]).generate_state(1)[0])
        self.collector.begin(seed)
        updates, env_steps = self.progress.updates, self.progress.env_steps
        goal = min(updates + learning.round_updates, learning.updates)
        beat_steps = max(1, round(learning.steps_per_update / self.world.n))
        policy_noise = learning.rates.objective
        sums: list[torch.Tensor] = []
        begun = time.monotonic()
        while updates < goal:
            policy = explorer(self.state.actor, self.bounds, policy_noise, explore)
            lived = living.submit(self.collector.collect, policy, beat_steps)
            due = int((env_steps - learning.warmup_steps) / learning.steps_per_update)
            due = due if self.replay.size else updates  # with n_step > 1 the first rows come later than the first steps
            for k in range(updates, min(due, goal)):
                sums.append(self.update(k, sample, noise))
            updates = max(updates, min(due, goal))
            for rows in lived.result():
                self.replay.add(rows)
            env_steps += beat_steps * self.world.n
            on_update(updates, env_steps)
        for rows in self.collector.finish():
            self.replay.add(rows)
        return self.close_round(updates, env_steps, sums, time.monotonic() - begun)

    def update(self, k: int, sample: torch.Generator, noise: torch.Generator) -> torch.Tensor:
        learning = self.learning
        batch = self.source.sample(learning.batch, sample)
        drawn = Noise(
            torch.randn((learning.batch, self.shape.act), generator=noise), torch.randn((learning.batch, self.shape.act), generator=noise),
            torch.randn((2, learning.batch), generator=noise),
        )  # fmt: skip
        pace = torch.tensor(1.0 - (1.0 - learning.final_pace) * k / learning.updates, device=self.device)
        with_actor = k % learning.rates.delay == 0
        self.state, figures = self.updater(self.state, batch, to_device(drawn, self.device), self.bounds, with_actor, pace)
        return torch.stack(figures)

    def close_round(self, updates: int, env_steps: int, sums: list[torch.Tensor], seconds: float) -> Round | None:
        learning, state = self.learning, self.state
        figures = dict(zip(Figures._fields, torch.stack(sums).double().mean(dim=0).tolist(), strict=True))
        kept = flatten(state)
        bad = [name for name, value in figures.items() if not math.isfinite(value)]
        bad += [name for name, values in kept.items() if not np.isfinite(values).all()]  # the last update's figures are of before it
        if bad:
            raise Diverged(
                f"learning diverged: {', '.join(bad[:8])} is not finite in the round that ended at update {updates}. The last checkpoint "
                f"is intact (round {self.progress.round}); lower the learning rates, or look at the rewards' size (report.png)"
            )
        score, value = (self.evaluate(), self.check_value()) if self.ranks.first else (None, None)
        mean = self.ranks.from_first(score.mean if score else 0.0)
        # Simulation's score is not the robot's: what was learnt from logs may cost a little of it. The newest stands, the gate judges.
        is_best = mean > self.progress.best_mean or self.real is not None
        number = self.progress.round + 1
        best = (number, mean) if is_best else (self.progress.best_round, self.progress.best_mean)
        self.progress = Progress(number, updates, env_steps, self.replay.total, *best)
        self.checkpoints.save(self.progress, self.config, kept, self.replay.since(self.saved_total))
        self.saved_total = self.replay.total
        if not score or not value:
            return None
        tally = self.collector.tally
        training = float(np.mean(tally.returns)) if tally.returns else math.nan
        figures["actor_loss"] *= learning.rates.delay  # it is zero in the updates that leave the actor alone
        figures["log_prob"] *= learning.rates.delay
        return Round(self.progress, figures, score, value, len(tally.returns), training, len(sums) / seconds, is_best)

    def evaluate(self) -> Score:
        episodes = self.learning.evaluation_episodes
        world = self.worlds.evaluation(min(episodes, EVALUATION_PLACES))
        policy = deployed(self.state.actor, self.bounds, self.learning.rates.objective)
        try:
            return evaluate(world, policy, EVALUATION_SEED, episodes)
        finally:
            world.close()

    def check_value(self) -> ValueCheck:
        learning, state = self.learning, self.state
        world = self.worlds.endless(4)
        judged = Judged(
            state.actor, state.critics, float(state.log_alpha.exp()), self.bounds, learning.rates.objective, learning.gamma,
            learning.reward_scale,
        )  # fmt: skip
        try:
            return check_value(world, judged, VALUE_SEED, value_steps(learning.gamma))
        finally:
            world.close()


def to_device(tree: Any, device: str) -> Any:
    """Nested tuples of tensors, on a device."""
    if isinstance(tree, torch.Tensor):
        return tree.to(device)
    parts = [to_device(part, device) for part in tree]
    return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)


def weights(state: State) -> list[tuple[Float, Float]]:
    """The actor's layers, (weight[out, in], bias[out]) each."""
    numbers = [p.cpu().numpy() for p in state.actor]
    return list(zip(numbers[::2], numbers[1::2], strict=True))
