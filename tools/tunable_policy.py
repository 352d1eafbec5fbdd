"""A policy that fine-tuning can go on from, without any training: weights made up, critics that are sure, anchors, signature.

For benches and drills of fine-tuning as a process: what they measure or break does not hang on how well the policy drives. Knows no
loop and no file. The twin critics agree and care about actions, so that an actor that follows them passes the gate, and trials happen.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from edge_dsac.bundle.actor import actor_from_bytes, make_actor_file
from edge_dsac.bundle.golden import make_golden
from edge_dsac.bundle.manifest import Precision, make_manifest
from edge_dsac.bundle.package import make_bundle
from edge_dsac.bundle.signing import SecretKey
from edge_dsac.learn.carried import Carried, carried_files
from edge_dsac.learn.child import layers_of
from edge_dsac.learn.learner import arrays
from edge_dsac.learn.losses import Objective
from edge_dsac.learn.networks import Shape, make_params
from edge_dsac.learn.update import Rates
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec

ANCHORS = 4096  # as many as `edge-dsac compile` takes along
GAMMA, N_STEP = 0.99, 3


def make_carried(spec: RobotSpec, critic_hidden: tuple[int, ...], actor_hidden: tuple[int, ...], seed: int = 0) -> Carried:
    size, actions = ObservationLayout(spec).size, len(spec.actions)
    shape, generator = Shape(size, actions, critic_hidden, actor_hidden), torch.Generator().manual_seed(seed)
    critics, actor = list(make_params(shape.critic, generator, (2,))), make_params(shape.actor, generator)
    critics = [torch.stack([values[0], values[0]]) for values in critics]
    critics[-2][:, 0] *= 20.0  # of the mean: its slope in the action is what the actor climbs
    networks = {name: arrays(tuple(params)) for name, params in (("critics", critics), ("actor", actor))}
    networks |= {"target_critics": networks["critics"], "target_actor": networks["actor"]}
    settings = {"rates": dataclasses.asdict(Rates(objective=Objective(log_std_range=(-5.0, 0.5)))), "gamma": GAMMA, "n_step": N_STEP}
    columns = made_up_columns(np.random.default_rng(seed), ANCHORS, size, actions)
    return Carried(networks, -6.0, np.array([1.0, 1.0], np.float32), {**settings, "reward_scale": 1.0}, columns)


def made_up_columns(drawn: np.random.Generator, count: int, obs: int, act: int) -> dict[str, Any]:
    """Anchors, or rows of a robot: as wide as real ones, and of no meaning."""
    columns = {
        "obs": 0.5 * drawn.normal(size=(count, obs)), "act": drawn.uniform(-1, 1, (count, act)), "reward": drawn.normal(size=count),
        "next_obs": 0.5 * drawn.normal(size=(count, obs)), "done": np.zeros(count), "discount": np.full(count, GAMMA**N_STEP),
    }  # fmt: skip
    return {name: values.astype(np.float32) for name, values in columns.items()}


def make_policy_file(spec: RobotSpec, carried: Carried, key: SecretKey) -> bytes:
    """A bundle that drives with the carried actor."""
    layout = ObservationLayout(spec)
    activation = carried.settings["rates"]["objective"]["activation"]
    data = make_actor_file(layers_of(carried.networks["actor"]), activation, spec)
    actor = actor_from_bytes(data, "actor.npz", spec)
    obs = np.random.default_rng(5).uniform(-layout.clip, layout.clip, (64, layout.size)).astype(np.float32)
    files = {"actor.npz": data, "golden.npz": make_golden(actor, None, obs), **carried_files(carried)}
    manifest = make_manifest(
        spec, actor, files, name="made_up", version=1, precision=Precision("float32", "made up for a bench", {}),
        training={"run": "none", "seed": 0},
    )  # fmt: skip
    return make_bundle(manifest, files, key)
