"""Plans kept on the board that built them, so that a start takes milliseconds and not a build.

One file per plan: a line of JSON (what it was built from, its SHA-256) and the plan. Knows no TensorRT; building is handed in.
Rules that must stay true: a plan is used only if every part of its key fits and its hash is right; a file is whole or absent; the
folder stays within its bound. The hash guards against damage, not malice: a plan is machine code, so a file that others may write is
not opened at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_dsac.bundle.device import Device
from edge_dsac.bundle.tensorrt import BuiltPlan, PlanConfig, build, flavour_of

FORMAT = "edge-dsac plan 1"
LIMIT_BYTES = 256 << 20  # some hundred plans of a 256-wide actor; a board's disk is small
OTHERS_MAY_WRITE = 0o022


@dataclass(frozen=True, slots=True)
class PlanKey:
    """All that a plan depends on: none of it may differ where the plan is used."""

    onnx_sha256: str
    flavour: str
    version: str
    sm: int
    board: str
    config: dict[str, Any]

    @property
    def name(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class NoPlan:
    reason: str


def make_key(trt: Any, onnx_bytes: bytes, config: PlanConfig, device: Device) -> PlanKey:
    digest = hashlib.sha256(onnx_bytes).hexdigest()
    return PlanKey(digest, flavour_of(trt), trt.__version__, device.sm, device.board, json.loads(json.dumps(config.key())))


class PlanCache:
    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, key: PlanKey) -> Path:
        return self.folder / f"{key.name}.plan"

    def read(self, key: PlanKey) -> bytes | NoPlan:
        path = self.path(key)
        try:
            with path.open("rb") as file:
                if owned_by_others(os.fstat(file.fileno())):
                    return NoPlan(f"{path} could be written by others, and a plan is machine code")
                data = file.read()
        except FileNotFoundError:
            return NoPlan("none was built yet for this policy, board and TensorRT")
        except OSError as error:
            return NoPlan(f"{path} cannot be read: {error}")
        head, _, plan = data.partition(b"\n")
        try:
            header = json.loads(head)
        except ValueError:
            return NoPlan(f"{path} is damaged: it has no header")
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            return NoPlan(f"{path} is not a file of this cache")
        if header.get("key") != asdict(key):
            return NoPlan(f"{path} was built for something else: {difference(header.get('key'), asdict(key))}")
        if header.get("sha256") != hashlib.sha256(plan).hexdigest():
            return NoPlan(f"{path} is damaged: its hash does not fit")
        os.utime(path)  # the bound drops what was not used for longest
        return plan

    def write(self, key: PlanKey, plan: bytes, weights_memory: int | None) -> None:
        header = {"format": FORMAT, "key": asdict(key), "sha256": hashlib.sha256(plan).hexdigest(), "weights_memory": weights_memory}
        number, half = tempfile.mkstemp(dir=self.folder, suffix=".half")
        try:
            with os.fdopen(number, "wb") as file:
                file.write(json.dumps(header).encode() + b"\n" + plan)
                file.flush()
                os.fsync(file.fileno())
            os.replace(half, self.path(key))
        except BaseException:
            Path(half).unlink(missing_ok=True)
            raise
        self.drop_oldest(keep=self.path(key))

    def drop(self, key: PlanKey) -> None:
        self.path(key).unlink(missing_ok=True)

    def drop_oldest(self, keep: Path) -> None:
        plans = sorted((path for path in self.folder.glob("*.plan") if path != keep), key=lambda path: path.stat().st_mtime_ns)
        excess = sum(path.stat().st_size for path in [*plans, keep]) - self.limit_bytes
        for path in plans:
            if excess <= 0:
                break
            excess -= path.stat().st_size
            path.unlink(missing_ok=True)


def owned_by_others(status: os.stat_result) -> bool:
    return status.st_uid not in (os.geteuid(), 0) or bool(status.st_mode & OTHERS_MAY_WRITE)


def difference(found: Any, wanted: dict[str, Any]) -> str:
    found = found if isinstance(found, dict) else {}
    return ", ".join(f"{name} {found.get(name)!r} and not {value!r}" for name, value in wanted.items() if found.get(name) != value)


def load_or_build(
    cache: PlanCache,
    trt: Any,
    onnx_bytes: bytes,
    config: PlanConfig,
    device: Device,
    say: Callable[[str], None],
    build_plan: Callable[[Any, bytes, PlanConfig], BuiltPlan] = build,
) -> bytes:
    """The plan for this very board; `say` is told why one has to be built, which takes seconds to minutes."""
    key = make_key(trt, onnx_bytes, config, device)
    found = cache.read(key)
    if isinstance(found, bytes):
        return found
    say(f"building the {config.precision.value} plan: {found.reason}")
    built = build_plan(trt, onnx_bytes, config)
    cache.write(key, built.plan, built.weights_memory)
    return built.plan
