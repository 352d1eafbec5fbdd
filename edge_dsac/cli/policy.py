"""From a --policy argument to an engine that may drive: opened, checked for this robot, golden vectors run.

Used by `run` at the start and by its stager for every new version of the file. Rule that must stay true: what is returned has
answered the golden vectors as the policy says, in this process, on this machine.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from edge_dsac.bundle.actor import load_actor
from edge_dsac.bundle.baselines import make_baseline
from edge_dsac.bundle.engines import ENGINES, EngineKind
from edge_dsac.bundle.golden import check_golden
from edge_dsac.bundle.keyring import key_folder, trusted_keys
from edge_dsac.bundle.manifest import BundleError
from edge_dsac.bundle.numpy_engine import NumpyMlp
from edge_dsac.bundle.package import Bundle, check_for_robot, check_version, read_bundle
from edge_dsac.loop.slot import Engine
from edge_dsac.profile.choose import load_choice
from edge_dsac.spec.robot import RobotSpec

BASELINE = "baseline"
AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Ready:
    engine: Engine
    said: str  # for a status line: which engine, why, and who signed
    bundle: Bundle | None = None  # None: it was no .policy file

    @property
    def version(self) -> int | None:
        return None if self.bundle is None else self.bundle.manifest.version

    @property
    def parent(self) -> frozenset[str]:
        """The manifest that this one was tuned from may always take its place again."""
        return frozenset() if self.bundle is None or self.bundle.manifest.parent is None else frozenset({self.bundle.manifest.parent})


def open_policy(
    policy: str, spec: RobotSpec, engine: str = AUTO, allow_unsigned: bool = False, running: Ready | None = None,
    ancestors: Collection[str] = (),
) -> Ready:  # fmt: skip
    """`policy`: `baseline`, a .policy file, or a bare weights file.

    `running`: what drives now; no older version is taken but its own parent and the `ancestors` (manifests' SHA-256).
    """
    if policy == BASELINE:
        return Ready(make_baseline(spec), "the robot file's own controller")
    path = Path(policy)
    if path.suffix != ".policy":
        return Ready(NumpyMlp(load_actor(path, spec)), "numpy; a bare weights file: NOT SIGNED")
    bundle = read_bundle(path, trusted_keys(key_folder(os.environ)), allow_unsigned=allow_unsigned)
    check_for_robot(bundle, spec)
    if running is not None:
        check_version(bundle, running.version, running.parent.union(ancestors))
    kind, why = pick(bundle, path, engine)
    made = kind.load(bundle)
    failures = check_golden(made, bundle, kind.exact, kind.tolerance(bundle))
    if failures:
        raise BundleError(f"{path}: the engine {kind.name} does not act as the policy says: {failures[0]} ({len(failures)} in all)")
    guided = f", {bundle.guide.words}" if bundle.guide else ""
    return Ready(made, f"{kind.name} ({why}){guided}, {bundle.signature}", bundle)


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
