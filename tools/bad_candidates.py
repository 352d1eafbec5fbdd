"""Candidates that must not drive, made as they come about: by the real learner, from a robot's own rows, with one thing wrong.

A family is one way of going wrong with one seed; its candidates differ in strength: updates of one learner, or a factor, or a size of
noise. Beside the bad kinds there are two that are not: weights with a little noise, and the parent itself once more. Knows no slot
folder and no flight. Rule that must stay true: a family follows from the parent, its rows and the seed alone, so a stopped study goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_dsac.learn.carried import Carried
from edge_dsac.learn.learner import Learner, Tuning
from edge_dsac.learn.transitions import Rows
from edge_dsac.records import Float
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec

UPDATES = (50.0, 100.0, 200.0, 400.0)
# kind -> way -> strengths. Per policy 51 candidates are planted and 4 are not bad.
WAYS: dict[str, dict[str, tuple[float, ...]]] = {
    "wrong-sign": dict.fromkeys(("first", "second", "both"), (-1.5, -1.0, -0.7, -0.4)),
    "stale-critic": dict.fromkeys(("foreign", "frozen", "delayed"), UPDATES),
    "poisoned-buffer": dict.fromkeys(("rewards-shuffled", "actions-late", "actions-early", "pitch-turned", "gyro-turned"), UPDATES[1:]),
    "reward-bug": dict.fromkeys(("negated", "speed-alone", "spin-alone"), UPDATES),
    "slightly-worse": {"noise": (0.05, 0.15, 0.4)},
    "no-change": {"copy": (0.0,)},
}
NOT_BAD = ("slightly-worse", "no-change")
# Quick and without the anchors, which would hide half of the fault: what is planted here is to be bad.
FAST = Tuning(batch=128, real_share=1.0, critic_lr=1e-3, actor_lr=1e-3, actor_every=2)
CHASING = replace(FAST, critic_lr=1e-9, actor_every=1)  # the actor climbs critics that stand still
TUNINGS: dict[str, Tuning] = {
    "foreign": replace(CHASING, recipe="full"), "frozen": replace(CHASING, actor_lr=3e-3), "delayed": replace(CHASING, critic_lr=3e-6),
    "actions-early": replace(FAST, recipe="full"), "gyro-turned": replace(FAST, recipe="full"),
    "spin-alone": replace(FAST, recipe="low-rank"),
}  # fmt: skip
LATE_TICKS = 5


@dataclass(frozen=True, slots=True, order=True)
class Family:
    policy: str
    kind: str
    way: str
    seed: int = 0

    @property
    def strengths(self) -> tuple[float, ...]:
        return WAYS[self.kind][self.way]

    @property
    def planted(self) -> bool:
        return self.kind not in NOT_BAD

    def name(self, strength: float) -> str:
        return f"{self.policy}.{self.kind}.{self.way}.{strength:g}.{self.seed}"


@dataclass(frozen=True, slots=True)
class Made:
    """A candidate, and the rows that whoever made it believed in."""

    strength: float
    carried: Carried
    rows: Rows


def families(policies: list[str], seed: int) -> list[Family]:
    """Way by way over all policies, the kinds in turn, so that a stopped study is balanced. What is not bad flies longest: last."""
    bad = [list(WAYS[kind]) for kind in WAYS if kind not in NOT_BAD]
    turns = max(len(ways) for ways in bad)
    order = [(kind, list(WAYS[kind])[turn]) for turn in range(turns) for kind in WAYS if kind not in NOT_BAD and turn < len(WAYS[kind])]
    order += [(kind, way) for kind in NOT_BAD for way in WAYS[kind]]
    return [Family(policy, kind, way, seed) for kind, way in order for policy in policies]


def make(family: Family, parent: Carried, stranger: Carried, rows: Rows, spec: RobotSpec, upto: float = np.inf) -> Iterator[Made]:
    """Strength by strength. `stranger`: what another policy carries, for its critics. `upto`: no stronger ones are needed."""
    if family.kind in ("wrong-sign", *NOT_BAD):
        for at, strength in enumerate(family.strengths):
            yield Made(strength, with_actor(parent, changed(family, parent, strength, at)), rows)
        return
    tuning = replace(TUNINGS.get(family.way, FAST), seed=family.seed)
    told = poisoned(family.way, rows, spec)
    learner = Learner(with_critics(parent, stranger) if family.way == "foreign" else parent, tuning)
    for number, strength in enumerate(family.strengths, 1):
        if strength > upto:
            return
        learner.round(told, number, round(strength) - learner.updates)
        yield Made(strength, learner.child(), told)


# ---- weights


def with_actor(parent: Carried, actor: tuple[Float, ...]) -> Carried:
    return replace(parent, networks={**parent.networks, "actor": actor, "target_actor": actor})


def with_critics(parent: Carried, stranger: Carried) -> Carried:
    theirs = {name: stranger.networks[name] for name in ("critics", "target_critics")}
    return replace(parent, networks={**parent.networks, **theirs}, m=stranger.m)


def changed(family: Family, parent: Carried, strength: float, at: int) -> tuple[Float, ...]:
    """The parent's actor: its last layer's means times `strength`, or every weight with noise of that share of its layer's spread."""
    actor = [np.array(values, np.float32) for values in parent.networks["actor"]]
    if family.kind == "wrong-sign":
        count = len(actor[-1]) // 2  # the other half are log-deviations
        which = {"first": slice(0, 1), "second": slice(1, 2), "both": slice(0, count)}[family.way]
        for values in actor[-2:]:
            values[which] *= np.float32(strength)
    drawn = np.random.default_rng([family.seed, at])
    if family.kind == "slightly-worse":
        actor = [values + np.float32(strength * values.std()) * drawn.standard_normal(values.shape, np.float32) for values in actor]
    return tuple(actor)


# ---- rows


def poisoned(way: str, rows: Rows, spec: RobotSpec) -> Rows:
    """What a learner is told that is not so."""
    at, drawn = ObservationLayout(spec).newest, np.random.default_rng(0)
    new = rows.next_obs
    wrong: dict[str, Any] = {
        "rewards-shuffled": lambda: {"reward": drawn.permutation(rows.reward)},
        "actions-late": lambda: {"act": np.roll(rows.act, LATE_TICKS, axis=0)},
        "actions-early": lambda: {"act": np.roll(rows.act, -LATE_TICKS, axis=0)},
        "pitch-turned": lambda: turned(rows, at["pitch_rad"]),
        "gyro-turned": lambda: turned(rows, at["pitch_rate_rad_s"]),
        "negated": lambda: {"reward": -rows.reward},
        "speed-alone": lambda: {"reward": np.abs(new[:, at["speed_m_s"]]).sum(axis=1)},
        "spin-alone": lambda: {"reward": np.abs(new[:, at["yaw_rate_rad_s"]]).sum(axis=1)},
    }
    return rows._replace(**wrong[way]()) if way in wrong else rows


def turned(rows: Rows, where: slice) -> dict[str, Float]:
    """An axis with the wrong sign, as a sensor mounted upside down gives it."""
    seen = {name: np.array(getattr(rows, name)) for name in ("obs", "next_obs")}
    for values in seen.values():
        values[:, where] *= -1.0
    return seen
