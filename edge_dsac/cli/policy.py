"""From a --policy argument to an engine that may drive: opened, checked for this robot, golden vectors run.

In two steps, for the second is the driving process's own: `check_policy` reads a file and believes nothing, `make_engine` (engines.py)
builds what drives. Used by `run` at the start, and by its scout (scouting.py) for every new version of the file.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from edge_dsac.bundle.actor import load_actor
from edge_dsac.bundle.baselines import make_baseline
from edge_dsac.bundle.engines import ENGINES, EngineKind, make_engine
from edge_dsac.bundle.keyring import key_folder, trusted_keys
from edge_dsac.bundle.manifest import BundleError
from edge_dsac.bundle.package import Bundle, Running, check_for_robot, check_version, read_bundle
from edge_dsac.bundle.parts import Parts, parts_of, parts_of_weights
from edge_dsac.loop.slot import Engine
from edge_dsac.profile.choose import load_choice
from edge_dsac.spec.robot import RobotSpec

BASELINE = "baseline"
AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Checked:
    """A policy that has passed every check but the last, its engine's own answers."""

    parts: Parts
    said: str  # for a status line: which engine, why, and who signed
    bundle: Bundle | None = None  # None: it was no .policy file

    @property
    def running(self) -> Running | None:
        return None if self.bundle is None else self.bundle.running


@dataclass(frozen=True, slots=True)
class Ready:
    engine: Engine
    said: str
    running: Running | None = None


def open_policy(policy: str, spec: RobotSpec, engine: str = AUTO, allow_unsigned: bool = False) -> Ready:
    """`policy`: `baseline`, a .policy file, or a bare weights file."""
    if policy == BASELINE:
        return Ready(make_baseline(spec), "the robot file's own controller")
    checked = check_policy(Path(policy), spec, engine, allow_unsigned)
    return Ready(tried(checked, Path(policy)), checked.said, checked.running)


def tried(checked: Checked, path: Path) -> Engine:
    """The last check, in words of the file it is about."""
    try:
        return make_engine(checked.parts)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None


def check_policy(
    path: Path, spec: RobotSpec, engine: str = AUTO, allow_unsigned: bool = False, running: Running | None = None,
    ancestors: Collection[str] = (),
) -> Checked:  # fmt: skip
    """`running`: what drives now; no older version is taken but its own parent and the `ancestors` (manifests' SHA-256)."""
    if path.suffix != ".policy":
        return Checked(parts_of_weights(load_actor(path, spec), "numpy", spec), "numpy; a bare weights file: NOT SIGNED")
    bundle = read_bundle(path, trusted_keys(key_folder(os.environ)), allow_unsigned=allow_unsigned)
    check_for_robot(bundle, spec)
    if running is not None:
        check_version(bundle, running.version, {*ancestors, *([running.parent] if running.parent else [])})
    kind, why = pick(bundle, path, engine)
    guided = f", {bundle.guide.words}" if bundle.guide else ""
    return Checked(parts_of(bundle, kind.name, kind.needs(bundle)), f"{kind.name} ({why}){guided}, {bundle.signature}", bundle)


def pick(bundle: Bundle, path: Path, asked: str) -> tuple[EngineKind, str]:
    """The one asked for, else the one measured as best on this board, else the first of the table that can run."""
    kinds = {kind.name: kind for kind in ENGINES}
    if asked != AUTO:
        why_not = kinds[asked].why_not(bundle)
        if why_not:
            raise BundleError(f"{path}: --engine {asked}: {why_not}")
        return kinds[asked], "asked for"
    chosen, why = load_choice(path, bundle.identity)
    if chosen in kinds and not kinds[chosen].why_not(bundle):
        return kinds[chosen], why
    return next(kind for kind in ENGINES if not kind.why_not(bundle)), "not measured on this board: edge-dsac profile --choose"
