"""Checkpoints: whole, atomic, verified. A run killed at any instant goes on from the newest one that is intact.

A checkpoint is a folder with `state.npz` (every tensor learning remembers) and `checkpoint.json` (counters, and the SHA-256 of
every file it needs). The replay grows by one file per round, which later checkpoints share. Random generators are not
in it: each is made anew from (seed, round, purpose), and every round begins new episodes, so that nothing else has a state.
Rule that must stay true: a file is complete under its name, or has another name. Never pickle.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from edge_dsac.records import Float

AnyState = TypeVar("AnyState")  # a NamedTuple of tensors, tuples of them and further such: State, TuneState
VERSION = 1
KEPT = 2  # the newest, and the one before it in case the newest is found damaged; the best one is kept besides


class CheckpointError(ValueError):
    """A checkpoint that cannot be written or gone on from; says what to do."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is."""

    round: int = 0
    updates: int = 0
    env_steps: int = 0
    replay_total: int = 0
    best_round: int = -1
    best_mean: float = float("-inf")


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint as it was read: verified."""

    path: Path
    progress: Progress
    config: dict[str, Any]
    state: dict[str, Float]
    replay: list[dict[str, Float]]
    damaged: list[str] = field(default_factory=list)  # newer ones that were passed over, and why


class Checkpoints:
    def __init__(self, run: Path, capacity: int) -> None:
        self.folder, self.replay, self.capacity = run / "checkpoints", run / "replay", capacity
        self.parts: list[dict[str, Any]] = []  # {"file", "first", "last", "sha256"} of the replay's files, oldest first

    def save(self, progress: Progress, config: dict[str, Any], state: dict[str, Float], fresh: dict[str, Float]) -> Path:
        """`fresh` are the replay's rows since the last checkpoint."""
        name = f"{progress.round:06d}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.replay.mkdir(exist_ok=True)
            parts = [part for part in self.parts if part["last"] > progress.replay_total - self.capacity]
            count = len(fresh["reward"])
            if count:
                data = npz(fresh)
                write(self.replay / f"{name}.npz", data)
                first = progress.replay_total - count
                parts.append({"file": f"{name}.npz", "first": first, "last": progress.replay_total, "sha256": sha256(data)})
            path = self.write_folder(name, progress, config, npz(state), parts)
            self.parts = parts
            self.prune(progress)
        except OSError as error:
            why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
            raise CheckpointError(
                f"{self.folder / name}: cannot be written: {why}. The checkpoint before it is intact: make room, then --resume auto"
            ) from None
        return path

    def write_folder(self, name: str, progress: Progress, config: dict[str, Any], state: bytes, parts: list[dict[str, Any]]) -> Path:
        unfinished = self.folder / f"{name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            write(unfinished / "state.npz", state)
            words: dict[str, Any] = {
                "version": VERSION, "progress": {key: getattr(progress, key) for key in Progress.__slots__}, "config": config,
                "state_sha256": sha256(state), "replay": parts,
            }  # fmt: skip
            write(unfinished / "checkpoint.json", json.dumps(words | {"sha256": sha256_of(words)}, indent=1).encode())
        except OSError:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)  # of a run that was gone on from an earlier round
        os.replace(unfinished, path)
        sync_folder(self.folder)
        return path

    def prune(self, progress: Progress) -> None:
        rounds = sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdigit())
        keep = {r for r in rounds if r <= progress.round}
        keep = set(sorted(keep)[-KEPT:]) | {progress.best_round}
        for round_ in rounds:
            if round_ not in keep:
                shutil.rmtree(self.folder / f"{round_:06d}", ignore_errors=True)
        needed = set()
        for path in self.folder.glob("*/checkpoint.json"):
            try:
                needed |= {part["file"] for part in read_words(path)["replay"]}
            except ValueError:
                pass  # damaged: nobody will go on from it, and it must not stop the run
        for path in self.replay.iterdir():
            if path.name not in needed:
                path.unlink(missing_ok=True)

    def load(self, round_: int | None = None, with_replay: bool = True) -> Saved:
        """The newest that is intact, or exactly `round_`."""
        found = sorted((path for path in self.folder.glob("*") if path.name.isdigit()), reverse=True) if self.folder.is_dir() else []
        if round_ is not None:
            found = [path for path in found if int(path.name) == round_]
        damaged = []
        for path in found:
            try:
                saved = self.read(path, with_replay)
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                damaged.append(f"{path}: {error}")
                continue
            return Saved(saved.path, saved.progress, saved.config, saved.state, saved.replay, damaged)
        if damaged:
            raise CheckpointError("no checkpoint is intact:\n  " + "\n  ".join(damaged) + "\nstart anew in another folder")
        raise CheckpointError(f"{self.folder}: no checkpoint{'' if round_ is None else f' of round {round_}'}; start without --resume")

    def read(self, path: Path, with_replay: bool) -> Saved:
        words = read_words(path / "checkpoint.json")
        if words["version"] != VERSION:
            raise ValueError(f"version {words['version']}, expected {VERSION}: written by another edge_dsac")
        if set(words["progress"]) != set(Progress.__slots__):
            raise ValueError(
                f"progress has {sorted(words['progress'])}, expected {sorted(Progress.__slots__)}: written by another edge_dsac"
            )
        state = verified(path / "state.npz", words["state_sha256"])
        replay = [verified(self.replay / part["file"], part["sha256"]) for part in words["replay"]] if with_replay else []
        self.parts = words["replay"]
        return Saved(path, Progress(**words["progress"]), words["config"], state, replay)


def read_words(path: Path) -> dict[str, Any]:
    """What a checkpoint.json says, if it says what was written."""
    words = json.loads(path.read_bytes())
    if not isinstance(words, dict) or words.pop("sha256", None) != sha256_of(words):
        raise ValueError(f"{path.name} is damaged (its SHA-256 is not the one written down)")
    return words


def sha256_of(words: dict[str, Any]) -> str:
    return sha256(json.dumps(words).encode())


def verified(path: Path, expected: str) -> dict[str, Float]:
    data = path.read_bytes()
    if sha256(data) != expected:
        raise ValueError(f"{path.name} is damaged or cut short ({len(data)} bytes; its SHA-256 is not the one written down)")
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def npz(arrays: dict[str, Float]) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write(path: Path, data: bytes) -> None:
    """Whole or not at all, and on the disk when it returns."""
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        with open(unfinished, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flatten(state: Any) -> dict[str, Float]:
    """Every tensor under its own name: `critics.0`, `actor_moments.second.3`, `log_alpha`."""
    return {name: leaf.cpu().numpy() for name, leaf in walk("", state)}


def walk(name: str, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        yield name, value
        return
    names = value._fields if hasattr(value, "_fields") else range(len(value))
    for part, child in zip(names, value, strict=True):
        yield from walk(f"{name}.{part}" if name else str(part), child)


def unflatten(arrays: dict[str, Float], like: AnyState, device: str) -> AnyState:
    """The state whose tensors these are; `like` says what shapes are expected."""
    expected = dict(walk("", like))
    surplus = sorted(arrays.keys() - expected.keys())
    if surplus:
        raise CheckpointError(f"checkpoint: {surplus[0]} has the shape {arrays[surplus[0]].shape}, expected none: made with other networks")
    for name, tensor in expected.items():
        shape = arrays[name].shape if name in arrays else None
        if shape != tuple(tensor.shape):
            raise CheckpointError(f"checkpoint: {name} has the shape {shape}, expected {tuple(tensor.shape)}: made with other networks")

    def rebuild(name: str, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return torch.from_numpy(arrays[name].copy()).to(device)
        names = value._fields if hasattr(value, "_fields") else range(len(value))
        children = [rebuild(f"{name}.{part}" if name else str(part), child) for part, child in zip(names, value, strict=True)]
        return type(value)(*children) if hasattr(value, "_fields") else tuple(children)

    state = rebuild("", like)
    assert isinstance(state, type(like))
    return state
