"""A smaller actor that does what a larger one does, learnt on the states it gets itself into (DAgger).

Round 0 is driven by the teacher; from then on the student drives, at first in turns with the teacher, and the teacher says what
it would have done. All rounds' rows are kept: a student that only saw its teacher's states has never seen its own small errors
add up. Knows the simulation as a function of a policy and a seed. Rule that must stay true: the teacher labels, whoever drives.

The loss is Huber's of the difference of *actions*, after tanh: it is what motors get, and two means of 4 and 9 are one action.
Its slope though is taken through tanh's secant between the two answers, not through its tangent at the student's: a student
that is saturated on the wrong side has a tangent of nothing and would stay there. Where both are saturated on the same side the
secant is nothing too, so that saturated actions do not dominate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edge_dsac.bundle.actor import Actor, actor_from_bytes, make_actor_file
from edge_dsac.learn.networks import ACTIVATIONS, Params, make_params, mlp
from edge_dsac.learn.update import adam, no_moments
from edge_dsac.records import Float
from edge_dsac.spec.robot import RobotSpec

BLOCK = 100  # rows that are held out together: a neighbour in time is nearly the same row
LEAST_RATE = 0.05  # where a round's learning rate ends, as a share of where it began
NARROW = 1e-4  # a secant over less than this is a tangent


class DistillError(ValueError):
    """A teacher that cannot be distilled, or a simulation that gave nothing to learn from."""

    refused = True


class Simulation(Protocol):
    def __call__(self, policy: Callable[[Float], Float], seed: int) -> Float:
        """New robots under `policy`, everything from the seed: the observations `[rows, n]` it acted on, SI, in the order of time."""


@dataclass(frozen=True, slots=True)
class Distilling:
    rounds: int = 6
    """of driving, the teacher's own included; fewer if two in succession teach nothing new"""
    steps: int = 1000
    """of Adam in a round, at most; the last round has three times as many: only what it ends with is kept"""
    batch: int = 512
    """rows of a step"""
    rate: float = 4e-3
    """learning rate a round begins with; it falls as a cosine"""
    huber: float = 0.1
    """of an action: beyond it a row pulls no harder"""
    teacher_share: float = 0.5
    """of the ticks of round 1 that the teacher drives; half of it in round 2, and so on"""
    held_out: float = 0.1
    """share of the rows that is never trained on"""
    check_every: int = 200
    """steps between two looks at what was held out"""
    patience: int = 4
    """such looks without a smaller error, and the round is over"""
    seed: int = 30_000
    """of everything; each round drives with the next one. Far from those of judging"""


@dataclass(frozen=True, slots=True)
class Round:
    number: int
    rows: int  # of this round
    fresh: float  # mean |error| of an action on these rows before anything was learnt from them; the student drove (but for round 0)
    error: float  # the same of all that was held out so far, after learning
    steps: int


@dataclass(frozen=True, slots=True)
class Distilled:
    actor: Actor
    file: bytes  # the actor's, as make_actor_file writes it
    rounds: tuple[Round, ...]
    rows: int  # trained on
    error: float  # mean |error| of an action on rows held out
    p99: float


def distill(
    teacher: Actor, spec: RobotSpec, widths: tuple[int, ...], simulate: Simulation, options: Distilling = Distilling(),
    progress: Callable[[Round], None] = lambda done: None,
) -> Distilled:  # fmt: skip
    """`widths` of the hidden layers. The same arguments give the same bytes on the same machine."""
    with one_thread():
        return distill_here(teacher, spec, widths, simulate, options, progress)


@contextmanager
def one_thread() -> Iterator[None]:
    """Layers so small are slower on several (2 threads: 10 ms a step, 1: 2 ms, on a shared machine), and sums then depend on how many."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def distill_here(
    teacher: Actor, spec: RobotSpec, widths: tuple[int, ...], simulate: Simulation, options: Distilling, progress: Callable[[Round], None]
) -> Distilled:
    if teacher.squash != "tanh" or teacher.activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise DistillError(f"a teacher of {known} ending in tanh can be distilled, this one is {teacher.activation}, {teacher.squash}")
    generator = torch.Generator().manual_seed(options.seed)
    student = make_params((teacher.sizes[0], *widths, teacher.sizes[-1]), generator)
    data, rounds = Rows(teacher, options), []
    for number in range(options.rounds):
        seen = simulate(driver(teacher, student, number, options), options.seed + number)
        fresh = data.add(seen, number, student)
        student, error, steps = learn(student, data, teacher.activation, options, generator, last=number == options.rounds - 1)
        rounds.append(Round(number, len(seen), fresh, error, steps))
        progress(rounds[-1])
        if nothing_new(rounds) and number < options.rounds - 1:
            student, error, steps = learn(student, data, teacher.activation, options, generator, last=True)
            rounds[-1] = replace(rounds[-1], error=error, steps=rounds[-1].steps + steps)
            break
    layers = [(student[2 * i].numpy(), student[2 * i + 1].numpy()) for i in range(len(student) // 2)]
    file = make_actor_file(layers, teacher.activation, spec, assumed=teacher.assumed)
    actor = actor_from_bytes(file, "distilled", spec)
    off = (answer(student, data.held_obs, teacher.activation) - torch.tanh(data.held_means)).abs().numpy()
    return Distilled(actor, file, tuple(rounds), len(data.obs), float(off.mean()), float(np.percentile(off, 99)))


def nothing_new(rounds: list[Round], least: int = 4) -> bool:
    """Of the student's last two drives neither met states that it answers better than it answered the best drive before."""
    fresh = [done.fresh for done in rounds[1:]]
    return len(rounds) >= least and min(fresh[-2:]) > 0.98 * min(fresh[:-2], default=math.inf)


def driver(teacher: Actor, student: Params, number: int, options: Distilling) -> Callable[[Float], Float]:
    """Who drives is drawn for each robot and tick anew: the two then share one flight, and every state is a mixture's."""
    if number == 0:
        return teacher.act
    share, draws = options.teacher_share * 0.5 ** (number - 1), np.random.default_rng([options.seed, number])

    def act(obs: Float) -> Float:
        own = answer(student, scaled(obs, teacher), teacher.activation).numpy()
        return np.where(draws.random(len(obs))[:, None] < share, teacher.act(obs), own)

    return act


def scaled(obs: Float, teacher: Actor) -> Tensor:
    return torch.from_numpy(np.asarray(obs, np.float32) * teacher.obs_scale)


def answer(student: Params, obs: Tensor, activation: str) -> Tensor:
    with torch.no_grad():
        return torch.tanh(mlp(student, obs, activation))


class Rows:
    """All that was seen, as the networks see it, with the teacher's means; a part of each round is held out."""

    def __init__(self, teacher: Actor, options: Distilling) -> None:
        self.teacher, self.options = teacher, options
        nothing, no_means = torch.zeros(0, teacher.sizes[0]), torch.zeros(0, teacher.sizes[-1])
        self.obs, self.means, self.held_obs, self.held_means = nothing, no_means, nothing, no_means

    def add(self, seen: Float, number: int, student: Params) -> float:
        """-> what the student's actions were off by on these rows, in the mean."""
        if seen.ndim != 2 or seen.shape[1] != self.teacher.sizes[0] or len(seen) < 2 * BLOCK or not np.isfinite(seen).all():
            raise DistillError(
                f"round {number} of distilling: expected at least {2 * BLOCK} finite observations of {self.teacher.sizes[0]}, "
                f"got {seen.shape}; simulate longer"
            )
        obs = scaled(seen, self.teacher)
        means = torch.from_numpy(self.teacher.before_tanh(seen)[-1].astype(np.float32))
        blocks = np.arange(len(seen)) // BLOCK
        count = int(blocks[-1]) + 1
        order = np.random.default_rng([self.options.seed, number, 1]).permutation(count)
        held = torch.from_numpy(np.isin(blocks, order[: max(1, round(self.options.held_out * count))]))
        self.obs, self.means = torch.cat((self.obs, obs[~held])), torch.cat((self.means, means[~held]))
        self.held_obs, self.held_means = torch.cat((self.held_obs, obs[held])), torch.cat((self.held_means, means[held]))
        return error_of(student, obs, means, self.teacher.activation)


def error_of(student: Params, obs: Tensor, means: Tensor, activation: str) -> float:
    return float((answer(student, obs, activation) - torch.tanh(means)).abs().mean())


def loss_of(wanted: Tensor, given: Tensor, huber: float) -> Tensor:
    """Of means `[batch, actions]` before tanh. Huber's of tanh(given) - tanh(wanted), its slope through the secant."""
    difference = given - wanted
    at = given.detach()
    span = at - wanted
    secant = torch.where(span.abs() < NARROW, 1.0 - torch.tanh(at) ** 2, (torch.tanh(at) - torch.tanh(wanted)) / span)
    off = secant * difference
    return functional.huber_loss(off, torch.zeros_like(off), delta=huber)


def learn(
    student: Params, data: Rows, activation: str, options: Distilling, generator: torch.Generator, last: bool
) -> tuple[Params, float, int]:
    """-> the student that was best on what is held out, its error there, and the steps taken. It goes on from the last round's."""
    best = student
    least = error_of(best, data.held_obs, data.held_means, activation)
    params, moments = best, no_moments(best)
    most, idle = options.steps * (3 if last else 1), 0
    for step in range(1, most + 1):
        picked = torch.randint(len(data.obs), (options.batch,), generator=generator)
        free = tuple(p.detach().requires_grad_() for p in params)
        loss = loss_of(data.means[picked], mlp(free, data.obs[picked], activation), options.huber)
        gradient = torch.autograd.grad(loss, free)
        with torch.no_grad():
            rate = options.rate * falling(step / most)
            params, moments = adam(params, gradient, moments, rate, torch.tensor(float(step)))
        if step % options.check_every == 0 or step == most:
            error = error_of(params, data.held_obs, data.held_means, activation)
            idle = 0 if error < least else idle + 1
            if error < least:
                least, best = error, params
            if idle == options.patience:
                break
    return best, least, step


def falling(progress: float) -> float:
    """1 at the beginning, LEAST_RATE at the end."""
    return LEAST_RATE + (1.0 - LEAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * progress))
