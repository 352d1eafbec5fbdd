"""What learns on the robot: a bundle's critics and actor, the rows of the robot's own log, and so many updates at a time.

A round follows from the state before it, the rows and its number alone, so that a session that was killed, or is replayed from its
log, comes to the same bits. Every batch is so much of the robot's rows and so much of the bundle's simulated anchors. Knows no
clock, no log and no file. Rule that must stay true: a learner begins with the networks of a verified bundle or with a state that
was saved from them; there is no third way, so nothing here can drive a robot with weights that were made up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from edge_dsac.learn.adapt import Adaptation, Edit, Fixed, Full, LastLayer, LowRank
from edge_dsac.learn.buffer import held_out
from edge_dsac.learn.carried import Carried
from edge_dsac.learn.checkpoint import flatten, unflatten
from edge_dsac.learn.losses import Batch, Noise, Objective
from edge_dsac.learn.networks import Params
from edge_dsac.learn.transitions import Rows
from edge_dsac.learn.tuning import Fixtures, Recipe, TuneFigures, TuneState, make_tune_state, tune
from edge_dsac.records import Float

Kind = Literal["critic", "last-layer", "low-rank", "edit", "full"]
PICK, NOISE, START = range(3)  # what is random


class LearnerError(ValueError):
    """Nothing can be learnt so; says what to do."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How to learn in the field. The defaults are what bench/tune.json was made with, where the recipes are compared."""

    recipe: Kind = "full"
    """what of the actor may change; critic: nothing, the critics alone learn, and choose near its action"""
    rank: int = 1
    """of low-rank, for actor and critics"""
    bound: float = 0.5
    """of edit: most that it adds to an action before tanh"""
    batch: int = 256
    """rows per update"""
    real_share: float = 0.5
    """of a batch: the robot's own rows; the rest are the bundle's simulated anchors"""
    round_updates: int = 200
    """updates between two looks at the log; each round is noted and saved"""
    critic_lr: float = 3e-4
    """learning rate of the critics"""
    actor_lr: float = 3e-4
    """learning rate of the actor"""
    actor_every: int = 4
    """updates of the critics per update of the actor"""
    tau: float = 0.005
    """Polyak share of the targets"""
    stay: float = 0.1
    """weight that keeps the child's actions near the parent's: without it they drift on, from calm to shaking, once the gain is made"""
    seed: int = 0
    """everything random follows from it"""

    def __post_init__(self) -> None:
        wrong = [f"{name} = {getattr(self, name)}" for name in ("rank", "batch", "round_updates", "actor_every") if getattr(self, name) < 1]
        wrong += [f"{name} = {getattr(self, name)}" for name in ("bound", "critic_lr", "actor_lr", "tau") if not getattr(self, name) > 0.0]
        if not 0.0 <= self.real_share <= 1.0:
            wrong.append(f"real_share = {self.real_share} (expected a share, 0 to 1)")
        if wrong:
            raise LearnerError(f"settings that cannot be learnt with: {', '.join(wrong)}; expected positive numbers")


class Step(Protocol):
    """`tune` of tuning.py, or a compiled form of it."""

    def __call__(
        self, state: TuneState, fixed: Fixtures, batch: Batch, noise: Noise, bounds: tuple[Tensor, Tensor], with_actor: bool
    ) -> tuple[TuneState, TuneFigures]: ...


def objective_of(settings: dict[str, Any]) -> Objective:
    """`settings`: that a policy carries."""
    words: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in settings["rates"]["objective"].items()
    }
    return Objective(**words)


def recipe_of(tuning: Tuning, settings: dict[str, Any]) -> Recipe:
    """`settings`: the bundle's own, whose objective stays."""
    objective = objective_of(settings)
    kinds: dict[str, tuple[Adaptation, Adaptation]] = {
        "critic": (Fixed(), Full()), "last-layer": (LastLayer(), Full()), "low-rank": (LowRank(tuning.rank), LowRank(tuning.rank)),
        "edit": (Edit(tuning.bound, activation=objective.activation), Full()), "full": (Full(), Full()),
    }  # fmt: skip
    actor, critics = kinds[tuning.recipe]
    return Recipe(
        actor=actor, critics=critics, critic_lr=tuning.critic_lr, actor_lr=tuning.actor_lr, tau=tuning.tau,
        tau_b=settings["rates"]["tau_b"], actor_every=tuning.actor_every, stay=tuning.stay, objective=objective,
    )  # fmt: skip


class Learner:
    def __init__(self, carried: Carried, tuning: Tuning, step: Callable[[Recipe], Step] | None = None) -> None:
        """`step` makes the update for a recipe; None: the plain one."""
        self.carried, self.tuning = carried, tuning
        self.recipe = recipe_of(tuning, carried.settings)
        networks = {name: tensors(layers) for name, layers in carried.networks.items()}
        self.fixed = Fixtures(networks["critics"], networks["actor"], torch.tensor(math.exp(carried.log_alpha), dtype=torch.float32))
        self.actions = networks["actor"][-1].shape[0] // 2
        self.bounds = -torch.ones(self.actions), torch.ones(self.actions)
        self.anchors = Batch(*(torch.from_numpy(np.array(carried.anchors[name], np.float32)) for name in Batch._fields))
        self.state = make_tune_state(
            self.recipe, self.fixed, networks["target_critics"], networks["target_actor"], torch.from_numpy(np.array(carried.m)),
            stream(tuning.seed, 0, START),
        )  # fmt: skip
        self.step: Step = step(self.recipe) if step else self.plain
        self.updates = 0

    def plain(
        self, state: TuneState, fixed: Fixtures, batch: Batch, noise: Noise, bounds: tuple[Tensor, Tensor], with_actor: bool
    ) -> tuple[TuneState, TuneFigures]:
        return tune(state, fixed, batch, noise, bounds, self.recipe, with_actor)

    def round(self, rows: Rows | None, number: int, updates: int | None = None) -> dict[str, float]:
        """`rows`: all there are; held-out blocks are left out here. None is the control: anchors alone."""
        tuning = self.tuning
        real = None if rows is None else training_rows(rows)
        count = round(tuning.batch * tuning.real_share) if real is not None and len(real.reward) else 0
        pick, noise = stream(tuning.seed, number, PICK), stream(tuning.seed, number, NOISE)
        figures = []
        for _ in range(updates or tuning.round_updates):
            parts = [sample(self.anchors, tuning.batch - count, pick)]
            if count and real is not None:
                parts.insert(0, sample(real, count, pick))
            batch = Batch(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
            drawn = Noise(
                torch.randn((tuning.batch, self.actions), generator=noise), torch.randn((tuning.batch, self.actions), generator=noise),
                torch.randn((2, tuning.batch), generator=noise),
            )  # fmt: skip
            with_actor = self.updates % tuning.actor_every == 0
            self.state, said = self.step(self.state, self.fixed, batch, drawn, self.bounds, with_actor)
            self.updates += 1
            figures.append(torch.stack(said))
        means = torch.stack(figures).double().mean(dim=0).tolist()
        found = dict(zip(TuneFigures._fields, means, strict=True))
        bad = [name for name, value in found.items() if not math.isfinite(value)]
        bad += [name for name, values in flatten(self.state).items() if not np.isfinite(values).all()]
        if bad:
            raise LearnerError(f"learning diverged in round {number}: {', '.join(bad[:6])} not finite; lower the learning rates")
        return found

    # ---- what came of it

    def critics(self) -> Params:
        return self.recipe.critics.whole(self.fixed.critics, self.state.critics)

    def actor(self) -> Params:
        return self.recipe.actor.whole(self.fixed.actor, self.state.actor)

    def child(self) -> Carried:
        """As whole networks, for the child's bundle; the anchors and settings are the parent's."""
        state = self.state
        whole = {
            "critics": self.critics(), "actor": self.actor(), "target_critics": state.target_critics, "target_actor": state.target_actor,
        }  # fmt: skip
        return replace(self.carried, networks={name: arrays(params) for name, params in whole.items()}, m=state.m.numpy().copy())

    # ---- saving

    def save(self) -> dict[str, Float]:
        return {**flatten(self.state), "updates": np.int64(self.updates)}  # type: ignore[dict-item]

    def restore(self, saved: dict[str, Float]) -> None:
        """Raises CheckpointError where the state is not of this bundle's shapes and this recipe."""
        held = dict(saved)
        updates = int(held.pop("updates"))
        self.state, self.updates = unflatten(held, self.state, "cpu"), updates  # both or neither


def training_rows(rows: Rows) -> Batch:
    keep = held_out(rows).train
    return Batch(*(torch.from_numpy(np.ascontiguousarray(np.asarray(column)[keep], np.float32)) for column in rows[:6]))


def sample(rows: Batch, count: int, generator: torch.Generator) -> Batch:
    """Uniform, with replacement."""
    picked = torch.randint(len(rows.reward), (count,), generator=generator)
    return Batch(*(column.index_select(0, picked) for column in rows))


def stream(seed: int, number: int, purpose: int) -> torch.Generator:
    """A generator for one purpose of one round: nothing random is ever carried from one round to the next."""
    words = np.random.SeedSequence([seed, number, purpose, 71]).generate_state(2)
    return torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))


def tensors(layers: tuple[Float, ...]) -> Params:
    return tuple(torch.from_numpy(np.array(values, np.float32)) for values in layers)


def arrays(params: Params) -> tuple[Float, ...]:
    return tuple(p.detach().numpy().copy() for p in params)
