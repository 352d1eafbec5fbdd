"""One name for what each trainer calls differently: a part, its value and where it was found. And careful numbers.

Rule that must stay true: a part that the files do not state is absent; no framework's default is filled in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_dsac.bundle.foreign_file import ForeignError

ROUNDED = 5.1e-4  # three decimals


@dataclass(frozen=True, slots=True)
class Part:
    value: Any
    source: str
    tolerance: float = 1e-6  # how far the true value may be from the written one


Parts = dict[str, Part]


@dataclass(frozen=True, slots=True)
class Stated:
    """What files say, and what was taken for granted in reading them."""

    parts: Parts
    assumed: tuple[str, ...] = ()


def listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def number(value: Any, where: str) -> float:
    try:
        result = float(value) if not isinstance(value, (bool, list, dict)) else math.nan
    except (TypeError, ValueError, OverflowError):
        result = math.nan
    if not math.isfinite(result):
        raise ForeignError(f"{where}: expected a number, got {value!r}")
    return result


def period(settings: Mapping[str, Any], key: str, source: str) -> float:
    value = number(settings[key], f"{source}: {key}")
    if not 1e-6 < value < 1e6:
        raise ForeignError(f"{source}: {key}: expected more than zero, got {value:g}")
    return value


def step(value: Any, where: str) -> int:
    steps = number(value, where)
    if not 0 <= steps < 64 or steps != int(steps):
        raise ForeignError(f"{where}: expected whole steps back, 0 to 63, got {value!r}")
    return int(steps)


def oldest_first(length: float) -> tuple[int, ...]:
    """Ages in the order they are stacked; a length of 0 means no history, which is 1."""
    if not 0 <= length <= 64 or length != int(length):
        raise ForeignError(f"a history of {length:g} steps; expected 0 to 64")
    return tuple(range(max(1, int(length)) - 1, -1, -1))


def narrowest(bounds: Any, source: str) -> float:
    try:
        values = [abs(float(bound)) for bound in listed(bounds)]
    except (TypeError, ValueError):
        values = [math.nan]
    if any(math.isnan(value) for value in values):
        raise ForeignError(f"{source}: a clip: expected numbers, got {bounds!r}")
    return min(values)


def unused_mapping(settings: Mapping[str, Any], key: str) -> list[str]:
    """Joints are compared by name and the robot file has its own motors: a permutation of somebody else's is of no use here."""
    mapping = settings.get(key)
    if not mapping or listed(mapping) == list(range(len(listed(mapping)))):
        return []
    return [f"{key} is the order of that project's motor driver and is not used: policy and robot file list joints in the same order"]


def not_read(settings: Mapping[str, Any], read: set[str], source: str) -> list[str]:
    unknown = sorted(set(settings) - read)
    return [f"{source}: not read: {', '.join(unknown)}"] if unknown else []
