"""What a bundle says about itself: frozen dataclasses, and one canonical JSON text for each of them.

The manifest is what is signed and what a bundle's identity is taken from. Knows no zip, no key and no engine. Rule that must stay
true: one manifest has one spelling (sorted keys, every number in full precision, no NaN), and no key is ever ignored.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edge_dsac.bundle.actor import Actor
from edge_dsac.records import Float
from edge_dsac.spec.layout import ActionLayout, ObservationLayout
from edge_dsac.spec.robot import RobotSpec, robot_from_text
from edge_dsac.spec.schema import Reader, SpecError, fact

FORMAT: Literal[1] = 1
Free = dict[str, Any]  # any JSON object; for people and for `diff`, nothing decides by it


class BundleError(ValueError):
    """A bundle that must not drive this robot, and why."""

    refused = True


@dataclass(frozen=True, slots=True)
class RobotFacts:
    model: str = fact("name of the robot")
    spec: str = fact("the robot file it was made for, word for word")
    policy_fingerprint: str = fact("of what the policy was trained against")
    firmware_fingerprint: str = fact("of what the board's header holds")


@dataclass(frozen=True, slots=True)
class ObservationFacts:
    labels: tuple[str, ...] = fact("one per entry of the observation")
    scale: tuple[float, ...] = fact("the normaliser: what the policy multiplies each entry by")
    clip: tuple[float, ...] = fact("largest magnitude of each entry, SI")


@dataclass(frozen=True, slots=True)
class ActionFacts:
    names: tuple[str, ...] = fact("one per entry of the action")
    to_command: tuple[tuple[float, ...], ...] = fact("[actions, joints]: SI command = action @ to_command")


@dataclass(frozen=True, slots=True)
class Layout:
    observations: ObservationFacts = fact("what goes in")
    actions: ActionFacts = fact("what comes out")


@dataclass(frozen=True, slots=True)
class RateFacts:
    control_hz: int = fact("policy ticks per second", low=1)


@dataclass(frozen=True, slots=True)
class ActorFacts:
    sizes: tuple[int, ...] = fact("of the observation and of each layer's outputs", low=1)
    activation: str = fact("the nonlinearity between layers")
    identity: str = fact("first 16 hex digits of the SHA-256 of actor.npz")


@dataclass(frozen=True, slots=True)
class Precision:
    chosen: Literal["int8", "int16", "float16", "float32"] = fact("what the robot should run")
    because: str = fact("why, in one line for people")
    measured: Free = fact("the gate's verdict: errors and rewards of each precision")


@dataclass(frozen=True, slots=True)
class FileFacts:
    sha256: str = fact("64 hex digits")
    bytes: int = fact("size", low=0)


@dataclass(frozen=True, slots=True)
class Manifest:
    format: Literal[1] = fact("of this manifest")
    name: str = fact("of the policy")
    version: int = fact("counts up; a robot takes no older one than it runs", low=0, high=2**53)
    robot: RobotFacts = fact("the robot it was made for")
    layout: Layout = fact("what goes in and what comes out")
    rates: RateFacts = fact("how often")
    actor: ActorFacts = fact("the network")
    precision: Precision = fact("which arithmetic, and why")
    parent: str | None = fact("SHA-256 of the manifest this policy was fine-tuned from, or null")
    training: Free = fact("where it comes from: run, commit, seed, config, evaluation, exam")
    assumed: tuple[str, ...] = fact("what an imported policy did not say and somebody had to assume")
    files: dict[str, FileFacts] = fact("all other files of the bundle")

    @property
    def text(self) -> str:
        return canonical_json(dataclasses.asdict(self))

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def make_manifest(
    spec: RobotSpec, actor: Actor, files: Mapping[str, bytes], *, name: str, version: int, precision: Precision, training: Free,
    parent: str | None = None, assumed: tuple[str, ...] = (),
) -> Manifest:  # fmt: skip
    """`actor.identity` is that of actor.npz among `files`."""
    manifest = Manifest(
        format=FORMAT, name=name, version=version,
        robot=RobotFacts(spec.model, spec.text, spec.policy_fingerprint, spec.firmware_fingerprint),
        layout=layout_of(spec, actor.obs_scale), rates=RateFacts(spec.rates.control_hz),
        actor=ActorFacts(actor.sizes, actor.activation, f"{actor.identity:016x}"), precision=precision, parent=parent,
        training=training, assumed=assumed, files={file: facts_of(data) for file, data in sorted(files.items())},
    )  # fmt: skip
    return read_manifest(manifest.text.encode())  # what cannot be read back is not written


def layout_of(spec: RobotSpec, scale: Float) -> Layout:
    layout, actions = ObservationLayout(spec), ActionLayout(spec)
    return Layout(
        ObservationFacts(layout.labels, floats(scale), floats(layout.clip)),
        ActionFacts(tuple(part.name for part in spec.actions), tuple(floats(row) for row in actions.to_command)),
    )


def floats(values: Float) -> tuple[float, ...]:
    """float32 as float64 and then in full: exact both ways."""
    return tuple(float(value) for value in np.asarray(values, np.float64))


def facts_of(data: bytes) -> FileFacts:
    return FileFacts(hashlib.sha256(data).hexdigest(), len(data))


def canonical_json(value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise BundleError(f"manifest: holds what JSON cannot: {error}") from None


def read_manifest(data: bytes) -> Manifest:
    try:
        table = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"manifest.json: not JSON: {error}") from None
    if canonical_json(table).encode() != data:  # a key given twice, NaN, other spaces: readers could disagree about them
        raise BundleError(
            "manifest.json: not in canonical form (sorted keys, one space of indent, each key once, no NaN); write it with edge_dsac"
        )
    if isinstance(table, dict) and table.get("format") != FORMAT:
        raise BundleError(f"manifest.json: format {table.get('format')!r}, this edge_dsac reads {FORMAT}; update it on the robot")
    try:
        manifest = ManifestReader("", "manifest.json").read(Manifest, table, "")
    except SpecError as error:
        raise BundleError(str(error)) from None
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", manifest.name):
        raise BundleError(f"manifest.json: name: expected letters, digits, '.', '_' and '-', got {manifest.name!r}")
    for where, text, digits in [("parent", manifest.parent or "0" * 64, 64), ("actor.identity", manifest.actor.identity, 16)] + [
        (f"files.{name}.sha256", one.sha256, 64) for name, one in manifest.files.items()
    ]:
        if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", text):
            raise BundleError(f"manifest.json: {where}: expected {digits} hex digits, got {text!r}")
    return manifest


class ManifestReader(Reader):
    """As for a robot file, and JSON's own: null, free objects, objects with free keys."""

    def value(self, hint: Any, raw: Any, where: str, metadata: Mapping[str, Any]) -> Any:
        if raw is None and type(None) in typing.get_args(hint):
            return None
        if typing.get_origin(hint) is not dict:
            return super().value(hint, raw, where, metadata)
        if not isinstance(raw, dict):
            raise self.error(where, "an object", repr(raw))
        _, kind = typing.get_args(hint)
        return raw if kind is Any else {key: self.read(kind, item, f"{where}.{key}") for key, item in raw.items()}


def check_manifest(manifest: Manifest, actor: Actor) -> None:
    """What is said twice is said alike: the manifest's own words against the robot file in it and the weights beside it."""
    spec = spec_of(manifest)
    said, found = manifest.layout, layout_of(spec, actor.obs_scale)
    pairs: list[tuple[str, Any, Any]] = [
        ("robot.model", manifest.robot.model, spec.model),
        ("robot.policy_fingerprint", manifest.robot.policy_fingerprint, spec.policy_fingerprint),
        ("robot.firmware_fingerprint", manifest.robot.firmware_fingerprint, spec.firmware_fingerprint),
        ("rates.control_hz", manifest.rates.control_hz, spec.rates.control_hz),
        ("layout.observations.labels", said.observations.labels, found.observations.labels),
        ("layout.observations.scale", said.observations.scale, found.observations.scale),
        ("layout.observations.clip", said.observations.clip, found.observations.clip),
        ("layout.actions.names", said.actions.names, found.actions.names),
        ("layout.actions.to_command", said.actions.to_command, found.actions.to_command),
        ("actor.sizes", manifest.actor.sizes, actor.sizes),
        ("actor.activation", manifest.actor.activation, actor.activation),
        ("actor.identity", manifest.actor.identity, f"{actor.identity:016x}"),
    ]
    for where, words, truth in pairs:
        if words != truth:
            raise BundleError(f"manifest.json: {where} says {words}, the robot file and the weights inside say {truth}; compile it again")


def spec_of(manifest: Manifest) -> RobotSpec:
    """The robot file inside."""
    try:
        return robot_from_text(manifest.robot.spec, "the robot file in the bundle")
    except SpecError as error:
        raise BundleError(str(error)) from None
