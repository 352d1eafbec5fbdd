"""What of a training run travels to the robot in a policy file, for learning to go on there: networks, m_i, and anchors.

Anchors are transitions of the simulation, drawn evenly from the replay, so that fine-tuning can mix them half and half with the
robot's own. Optimisers' moments stay at home: the field's rates are others. Knows no bundle. Rule that must stay true: whatever
the losses need to go on from here is in these two files.
"""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from edge_dsac.learn.checkpoint import Saved
from edge_dsac.records import Float

NETWORKS = ("critics", "actor", "target_critics", "target_actor", "log_alpha", "m")
LEARNING = ("gamma", "n_step", "reward_scale")  # of the run's settings, what anchors and values depend on
ANCHORS = 4096


def critic_file(saved: Saved) -> bytes:
    """Networks, targets, temperature and the running means of sigma; `settings` is JSON: the objective, rates and horizon."""
    arrays = {name: values for name, values in saved.state.items() if name.split(".")[0] in NETWORKS}
    learning = saved.config["learning"]
    settings = {"rates": learning["rates"], **{name: learning[name] for name in LEARNING}}
    return npz(arrays | {"settings": np.array(json.dumps(settings, sort_keys=True))})


def anchor_file(saved: Saved, seed: int = 0, most: int = ANCHORS) -> bytes:
    """The replay's own columns: obs as the network sees it (scaled), applied action, n-step reward, next obs, done, discount."""
    columns = {name: np.concatenate([part[name] for part in saved.replay]) for name in saved.replay[0]} if saved.replay else {}
    count = min((len(values) for values in columns.values()), default=0)
    picked = np.sort(np.random.default_rng(seed).permutation(count)[:most])
    return npz({name: values[picked] for name, values in columns.items()})


def npz(arrays: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def actor_layers(saved: Saved) -> list[tuple[Float, Float]]:
    """The actor's as they were learnt, log-deviations included."""
    count = sum(name.startswith("actor.") for name in saved.state) // 2
    return [(saved.state[f"actor.{2 * i}"], saved.state[f"actor.{2 * i + 1}"]) for i in range(count)]
