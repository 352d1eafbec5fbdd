"""`edge-dsac compile --parent PARENT.policy`: the policy that a new one was learnt from, and whether it can be.

Reads a verified bundle; writes nothing. Rule that must stay true: a parent is named in a manifest only if the child fits wherever
the parent drives: the same robot, the same observation in, the same actions out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_dsac.bundle.actor import Actor
from edge_dsac.bundle.manifest import BundleError, Layout, layout_of
from edge_dsac.bundle.package import Bundle, check_for_robot, read_bundle
from edge_dsac.bundle.signing import PublicKey
from edge_dsac.spec.robot import RobotSpec

FIRST = 1


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a manifest says of where it stands."""

    parent: str | None  # SHA-256 of the parent's manifest
    version: int


def lineage_of(
    path: Path | None, version: int | None, keys: Iterable[PublicKey], allow_unsigned: bool, spec: RobotSpec, actor: Actor, home: Any
) -> Lineage:
    """`version`: the one asked for, if any. `home`: what the run says of the logs and the base it was learnt from, if it was."""
    if path is None:
        return Lineage(None, FIRST if version is None else version)
    parent = read_bundle(path, keys, allow_unsigned=allow_unsigned)
    check_for_robot(parent, spec)
    check_layout(parent, layout_of(spec, actor.obs_scale), path)
    check_base(parent, home, path)
    older = parent.manifest.version
    if version is not None and version <= older:
        raise BundleError(f"--version {version}: {path} is version {older} already; give a higher one, or none for {older + 1}")
    return Lineage(parent.manifest.sha256, older + 1 if version is None else version)


def check_layout(parent: Bundle, child: Layout, path: Path) -> None:
    theirs = parent.manifest.layout
    pairs: list[tuple[str, Any, Any]] = [
        ("observations", theirs.observations.labels, child.observations.labels),
        ("scale of the observations", theirs.observations.scale, child.observations.scale),
        ("clip of the observations", theirs.observations.clip, child.observations.clip),
        ("actions", (theirs.actions.names, theirs.actions.to_command), (child.actions.names, child.actions.to_command)),
    ]
    for what, parents, ours in pairs:
        if parents != ours:
            raise BundleError(f"{path} cannot be the parent: its {what}: {parents}, this actor's: {ours}; compile without --parent")


def check_base(parent: Bundle, home: Any, path: Path) -> None:
    """A run that went on from a policy file says which; another one would be a false parent."""
    base = home.get("base") if isinstance(home, Mapping) else None
    manifest = base.get("manifest") if isinstance(base, Mapping) else None
    if manifest is not None and manifest != parent.manifest.sha256:
        raise BundleError(
            f"{path} cannot be the parent: the run went on from {base['source']} (manifest {manifest[:16]}), "  # type: ignore[index]
            f"this is {parent.manifest.sha256[:16]}; give that one"
        )
