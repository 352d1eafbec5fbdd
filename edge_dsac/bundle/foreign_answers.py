"""What the files beside a foreign policy leave out, given by a person: read, checked, joined with what the files say; and its template.

Rule that must stay true: an answer fills a gap or gives more digits; it never overrules a file.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edge_dsac.bundle.foreign_file import ForeignError
from edge_dsac.bundle.foreign_parts import Part, Parts
from edge_dsac.spec.robot import RobotSpec
from edge_dsac.spec.schema import Reader, fact, parse_toml


@dataclass(frozen=True, slots=True)
class Missing:
    what: str
    why: str
    how: str


@dataclass(frozen=True, slots=True)
class Answers:
    joint_names: tuple[str, ...] | None = fact("the policy's joints, in its order", default=None)
    control_hz: float | None = fact("policy steps per second in training", low=0.1, high=4000, default=None)
    observation_names: tuple[str, ...] | None = fact(
        "the terms the policy sees, in its order: their names or the robot file's", default=None
    )
    observation_scales: tuple[float, ...] | None = fact(
        "what each observation was multiplied by: one per term, or per number", default=None
    )
    history: tuple[int, ...] | None = fact("how many steps of each term are stacked", low=1, high=64, default=None)
    history_by: Literal["term", "time"] | None = fact("what is stacked first: a term's steps, or whole observations", default=None)
    history_first: Literal["oldest", "newest"] | None = fact("which step of a history comes first", default=None)
    default_position: tuple[float, ...] | None = fact("joint positions in rad that observations call zero", default=None)
    outputs: Literal["joints", "actions"] | None = fact("what an output steers: a joint, or one of the robot file's actions", default=None)
    action_scale: tuple[float, ...] | None = fact("command of a joint for an output of 1: one number, or one per joint", default=None)
    command_unit: Literal["duty", "torque_nm"] | None = fact("what output times action_scale is", default=None)


# part -> (why it matters, example made for this robot)
WHY = {
    "joint_names": "the same numbers in another order drive other motors",
    "control_hz": "at another rate the policy sees another robot: delays, velocities and histories all change",
    "observation_names": "the network has no names inside; each input must be what it was in training",
    "observation_scales": "an angular velocity fed as 1.0 instead of 0.25 looks four times as fast",
    "history": "how many steps are stacked decides what each input is",
    "history_by": "term by term or step by step: the same numbers in another order",
    "history_first": "oldest or newest first: reversed, the robot seems to move backwards",
    "default_position": "positions are seen relative to these",
    "action_scale": "the network's outputs have no unit; too large a scale is full motor command",
    "command_unit": "the same number is a torque to one trainer and a duty to another",
}


def load_answers(path: Path) -> Parts:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ForeignError(f"{path}: cannot be read: {error}") from None
    return answers_from_text(text, str(path))


def answers_from_text(text: str, source: str) -> Parts:
    answers = Reader(text, source).read(Answers, parse_toml(text, source), "")
    given: dict[str, Any] = {field.name: getattr(answers, field.name) for field in fields(answers)}
    parts = {name: Part(value, source) for name, value in given.items() if value is not None}
    if "observation_scales" in parts:
        parts["observation_scales"] = Part(tuple((value,) for value in parts["observation_scales"].value), source)
    if "history" in parts:
        lengths, first = parts["history"].value, parts.pop("history_first", None)
        if max(lengths) > 1 and first is None:
            raise ForeignError(f"{source}: history: give history_first too, 'oldest' or 'newest'")
        newest = first is not None and first.value == "newest"
        ages = tuple(tuple(range(length)) if newest else tuple(range(length - 1, -1, -1)) for length in lengths)
        parts["history"] = Part(ages, source)
        if max(lengths) == 1:
            parts.setdefault("history_by", Part("term", source))
    elif "history_first" in parts:
        raise ForeignError(f"{source}: history_first: give history too, one number per term")
    return parts


def joined(stated: Parts, more: Parts) -> Parts:
    """A part on both sides must agree within what the first was rounded to; then the one with more digits holds."""
    result = dict(stated)
    for name, part in more.items():
        if name in stated:
            old = stated[name]
            if not agree(old, part):
                raise ForeignError(f"{part.source}: {name} = {part.value}, but {old.source} says {old.value}; which one holds?")
            part = min(old, part, key=lambda one: one.tolerance)
        result[name] = part
    return result


def agree(one: Part, other: Part) -> bool:
    try:
        ours, theirs = np.asarray(one.value, np.float64), np.asarray(other.value, np.float64)
    except (TypeError, ValueError):  # names; rows of unequal length
        return bool(one.value == other.value)
    if ours.shape != theirs.shape and 1 not in (ours.size, theirs.size):
        return False
    return bool(np.abs(ours - theirs).max(initial=0.0) <= max(one.tolerance, other.tolerance))


def make_template(missing: list[Missing], spec: RobotSpec) -> str:
    """A TOML file with one commented line for each missing part, values shown as this robot file has them, to be checked by a person."""
    examples = {
        "joint_names": [joint.name for joint in spec.joints],
        "control_hz": float(spec.rates.control_hz),
        "observation_names": [entry.term for entry in spec.observations],
        "observation_scales": [entry.scale for entry in spec.observations],
        "history": [entry.history for entry in spec.observations],
        "history_by": "term",
        "history_first": "oldest",
        "default_position": [joint.home_rad for joint in spec.joints],
        "action_scale": [joint.command_limit for joint in spec.joints],
        "command_unit": spec.joints[0].command_unit,
    }
    meanings = {field.name: field.metadata["meaning"] for field in fields(Answers)}
    lines = [
        "# What the policy's files leave out. Each value must be what the policy was TRAINED with; look it up, then remove the '# '.",
        f"# The values shown are those of the robot file of {spec.model}: they are examples, not answers.",
    ]
    for entry in missing:
        lines += ["", f"# {meanings[entry.what]}", f"# Why: {entry.why}.", f"# {entry.what} = {toml_value(examples[entry.what])}"]
        if entry.what == "action_scale":
            lines += ["# Or, if its outputs are the robot file's own actions in [-1, 1]:", '# outputs = "actions"']
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    return f'"{value}"' if isinstance(value, str) else str(value)
