"""Policies that fine-tuning can go on from, in float32: of a training run, or without any training.

The made-up ones are for benches and drills of fine-tuning as a process: what they measure or break does not hang on how well the policy
drives. Their twin critics agree and care about actions, so that an actor that follows them passes the gate, and trials happen. Knows no
loop.
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
from edge_dsac.cli.source import Source
from edge_dsac.learn.carried import Carried, carried_files, read_carried
from edge_dsac.learn.child import layers_of
from edge_dsac.learn.learner import arrays
from edge_dsac.learn.losses import Objective
from edge_dsac.learn.networks import Shape, make_params
from edge_dsac.learn.update import Rates
from edge_dsac.records import Float
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec

ANCHORS = 4096  # as many as `edge-dsac compile` takes along
GAMMA, N_STEP = 0.99, 3
GOLDEN_ROWS = 256


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
    actor_file = make_actor_file(layers_of(carried.networks["actor"]), carried.settings["rates"]["objective"]["activation"], spec)
    obs = np.random.default_rng(5).uniform(-layout.clip, layout.clip, (64, layout.size)).astype(np.float32)
    return bundled(spec, "made_up", actor_file, carried_files(carried), obs, {"run": "none", "seed": 0}, key)


def policy_file_of(source: Source, name: str) -> bytes:
    """Unsigned, of a training run: as `compile` does it, without whole numbers and C."""
    actor = actor_from_bytes(source.actor_file, name, source.spec)
    obs = (read_carried(source.carried, name).anchors["obs"][:GOLDEN_ROWS] / actor.obs_scale).astype(np.float32)
    training = {key: source.provenance.get(key) for key in ("run", "seed", "source")}
    return bundled(source.spec, name, source.actor_file, source.carried, obs, training, None)


def bundled(
    spec: RobotSpec, name: str, actor_file: bytes, carried: dict[str, bytes], obs: Float, training: dict[str, Any], key: SecretKey | None
) -> bytes:  # fmt: skip
    actor = actor_from_bytes(actor_file, name, spec)
    files = {"actor.npz": actor_file, "golden.npz": make_golden(actor, None, obs), **carried}
    precision = Precision("float32", "a study's: what is tuned is in float32 too", {})
    return make_bundle(make_manifest(spec, actor, files, name=name, version=1, precision=precision, training=training), files, key)
