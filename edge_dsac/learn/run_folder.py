"""A run's folder: what was asked, what came of it, line by line, and where everything lies.

config.json         the resolved configuration, the source's state, the machine
metrics.jsonl       one line per round; value.npz and baseline.json are the report's other sources
checkpoints/        the newest two and the best
tensorboard/        the same figures for TensorBoard
policy.npz, report.png, best.gif
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_dsac import __version__
from edge_dsac.bundle.processor import cpu_name
from edge_dsac.learn.evaluate import ValueCheck
from edge_dsac.learn.trainer import Round


class RunError(ValueError):
    """A folder that cannot be begun in, or gone on with."""


class RunFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.board: Any = None

    def begin(self, config: dict[str, Any]) -> None:
        if self.metrics.exists() or (self.path / "checkpoints").exists():
            raise RunError(f"{self.path} already holds a run; --resume auto goes on with it, or give another --out")
        self.path.mkdir(parents=True, exist_ok=True)
        words = {"config": config, "source": source_state(), "machine": machine()}
        (self.path / "config.json").write_text(json.dumps(words, indent=1) + "\n")
        self.open_board(0)

    def go_on(self, round_: int, updates: int) -> None:
        """Lines of rounds that will be lived through again are dropped."""
        lines = self.metrics.read_text().splitlines() if self.metrics.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["round"] <= round_]
        unfinished = self.metrics.with_suffix(".unfinished")
        unfinished.write_text("".join(line + "\n" for line in kept))
        os.replace(unfinished, self.metrics)
        self.open_board(updates + 1)

    def open_board(self, purge_step: int) -> None:
        """TensorBoard is a convenience: without it the run is the same."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self.board = SummaryWriter(str(self.path / "tensorboard"), purge_step=purge_step)

    def write(self, done: Round) -> None:
        line = line_of(done)
        with open(self.metrics, "a") as file:
            file.write(json.dumps(line) + "\n")
        save_value(done.value, self.path / "value.npz")
        if self.board:
            for name, value in flat("", line):
                self.board.add_scalar(name, value, done.progress.updates)
            self.board.flush()

    def close(self) -> None:
        if self.board:
            self.board.close()


def line_of(done: Round) -> dict[str, Any]:
    progress = done.progress
    return clean({
        "round": progress.round, "updates": progress.updates, "env_steps": progress.env_steps, "episodes": done.episodes,
        "training_return": done.training_return, "evaluation": done.score.figures(), "value": done.value.figures(), **done.figures,
        "updates_per_s": done.updates_per_s, "best": done.is_best,
    })  # fmt: skip


def clean(value: Any) -> Any:
    """JSON has no NaN: null."""
    if isinstance(value, dict):
        return {name: clean(child) for name, child in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def flat(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        for key, child in value.items():
            yield from flat(f"{name}/{key}" if name else key, child)
    elif value is not None:
        yield name, float(value)


def save_value(value: ValueCheck, path: Path) -> None:
    unfinished = path.with_suffix(".unfinished.npz")
    np.savez(unfinished, estimated=value.estimated, sigma=value.sigma, realised=value.realised)
    os.replace(unfinished, path)


def source_state() -> dict[str, Any]:
    """Which source this was: its commit, and whether anything was changed since."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        try:
            return subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return ""

    commit = git("rev-parse", "HEAD")
    return {"version": __version__, "commit": commit or None, "changed": bool(git("status", "--porcelain")) if commit else None}


def machine() -> dict[str, Any]:
    """The last bits of what is learnt depend on it, and so in the end which policy comes out."""
    return {
        "python": sys.version.split()[0], "torch": torch.__version__, "numpy": np.__version__, "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads(), "cpu": cpu_name(),
    }  # fmt: skip
