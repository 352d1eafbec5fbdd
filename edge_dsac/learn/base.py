"""What a run goes on from: the networks of an earlier run, or those that a policy file carries for it.

Both are read as critic.npz (carried.py), so that a robot's own policy file and the run it came from are the same beginning.
The optimisers begin anew. Knows no log. Rule that must stay true: a network that is not there is an error, never a random one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_dsac.bundle.actor import load_actor
from edge_dsac.bundle.arrays import read_arrays
from edge_dsac.bundle.container import LIMITS
from edge_dsac.bundle.package import Bundle, check_for_robot
from edge_dsac.learn.carried import LEARNING, NETWORKS, critic_file
from edge_dsac.learn.checkpoint import Checkpoints, flatten, sha256, unflatten
from edge_dsac.learn.networks import Params
from edge_dsac.learn.update import State
from edge_dsac.records import Float
from edge_dsac.spec.robot import RobotSpec

CRITIC = "critic.npz"


class BaseError(ValueError):
    """Nothing that learning can go on from, and why."""


@dataclass(frozen=True, slots=True)
class Base:
    networks: dict[str, Float]  # under the names of a checkpoint: `critics.0`, `m`
    settings: dict[str, Any]  # what the values in them depend on: objective and rates, gamma, n_step, reward_scale
    source: str
    sha256: str  # of critic.npz
    manifest: str | None  # SHA-256 of the policy file's manifest; None: of a run

    @property
    def identity(self) -> str:
        return self.sha256[:16]

    def hidden(self, owner: str) -> list[int]:
        """Widths of the hidden layers of `actor` or `critics`."""
        count = sum(name.startswith(f"{owner}.") for name in self.networks) // 2
        return [int(self.networks[f"{owner}.{2 * i}"].shape[-2]) for i in range(count - 1)]

    @property
    def learning(self) -> dict[str, Any]:
        """As a table over the settings of a run: another horizon or another network would make the critics' values meaningless."""
        widths = {"critic_hidden": self.hidden("critics"), "actor_hidden": self.hidden("actor")}
        return {**{name: self.settings[name] for name in LEARNING}, **widths, "rates": {"objective": self.settings["rates"]["objective"]}}


def base_of_run(path: Path, spec: RobotSpec) -> Base:
    """Its best checkpoint, which is what `compile` makes a policy of."""
    try:
        config = json.loads((path / "config.json").read_text())["config"]
        if not (path / "policy.npz").exists():
            raise BaseError(f"{path}: not a finished run of a robot (no policy.npz); finish it with --resume auto, or give another --base")
        load_actor(path / "policy.npz", spec)  # of another robot: said by name
        checkpoints = Checkpoints(path, config["learning"]["capacity"])
        best = checkpoints.load(with_replay=False).progress.best_round
        return read_base(critic_file(checkpoints.load(best, with_replay=False)), str(path), None)
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise BaseError(f"{path}: not a training run: {error!r}; give a run's folder or a .policy file") from None


def base_of_bundle(bundle: Bundle, spec: RobotSpec, source: str) -> Base:
    """`bundle` is verified; it is checked here that it is this robot's."""
    check_for_robot(bundle, spec)
    if CRITIC not in bundle.files:
        raise BaseError(
            f"{source}: holds no critics ({CRITIC}): it was compiled from a lone actor file; give the run's folder, or a policy of a run"
        )
    return read_base(bundle.files[CRITIC], source, bundle.manifest.sha256)


def read_base(data: bytes, source: str, manifest: str | None) -> Base:
    arrays = read_arrays(data, f"{source}: {CRITIC}", LIMITS[CRITIC])
    try:
        settings = json.loads(str(arrays.pop("settings")))
        absent = [name for name in (*LEARNING, "rates") if name not in settings]
    except (KeyError, TypeError, ValueError) as error:
        raise BaseError(f"{source}: {CRITIC} says not how it was learnt: {error!r}; compile the policy again") from None
    owners = {name.split(".")[0] for name in arrays}
    if absent or owners != set(NETWORKS):
        wrong = sorted({*absent, *(owners ^ set(NETWORKS))})
        raise BaseError(f"{source}: {CRITIC}: expected {', '.join(NETWORKS)} and their settings; missing or unknown: {', '.join(wrong)}")
    broken = [name for name, values in arrays.items() if not np.isfinite(values).all()]
    if broken:
        raise BaseError(f"{source}: {CRITIC}: {broken[0]} holds NaN or infinity; the run that made it diverged")
    return Base({name: np.asarray(values, np.float32) for name, values in arrays.items()}, settings, source, sha256(data), manifest)


def begun_from(state: State, base: Base, device: str) -> State:
    """The base's networks under fresh optimisers. `state` is a new run's and says what shapes are expected."""
    fresh = flatten(state)
    absent = sorted(name for name in fresh if name.split(".")[0] in NETWORKS and name not in base.networks)
    if absent:
        raise BaseError(f"{base.source}: {absent[0]} is missing; leave the networks' widths to the base, or compile it again")
    return unflatten({**fresh, **base.networks}, state, device)


def layers(base: Base, owner: str) -> Params:
    count = sum(name.startswith(f"{owner}.") for name in base.networks)
    return tuple(torch.from_numpy(base.networks[f"{owner}.{i}"].copy()) for i in range(count))
