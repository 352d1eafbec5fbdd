"""Reads a TOML table into a frozen dataclass, or says exactly what is wrong with it.

The dataclass is the schema: its fields are the only legal keys, `fact()` gives each its meaning and range, and the unit
is part of the key. Knows nothing about robots. Rule that must stay true: no key is ever ignored.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import sys
import types
import typing
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
LARGEST = sys.float_info.max

UNITS = (
    "_rad_s2", "_rad_s", "_deg_s", "_m_s2", "_m_s", "_rad", "_deg", "_nm", "_us", "_ms", "_ns", "_hz", "_khz", "_mm", "_cm",
    "_m", "_mv", "_v", "_s", "_kg", "_g",
)  # fmt: skip


class SpecError(ValueError):
    """A robot file that cannot be used. The text says where, what was expected, what was found and what to do."""


def fact(meaning: str, *, low: float = -math.inf, high: float = math.inf, default: Any = dataclasses.MISSING) -> Any:
    """A field of a robot file: its meaning, and its range with both ends included."""
    metadata = {"meaning": meaning, "low": low, "high": high}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(metadata=metadata, default=default)


def parse_toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{source}: not valid TOML: {error}") from None


@lru_cache
def shape_of(kind: type) -> tuple[dict[str, Any], dict[str, dataclasses.Field[Any]]]:
    """A dataclass's types and fields by name. Looked up once: it is most of the time that reading a robot file takes."""
    return typing.get_type_hints(kind), {field.name: field for field in dataclasses.fields(kind)}


class Reader:
    """Walks one TOML document; remembers its text so that every complaint can name a line."""

    def __init__(self, text: str, source: str) -> None:
        self.lines = text.splitlines()
        self.source = source

    def read(self, kind: type[T], table: Any, path: str) -> T:
        """One table as one dataclass; `path` is dotted, with [i] for the i-th of an array of tables."""
        if not isinstance(table, Mapping):
            raise self.error(path, "a table", repr(table))
        hints, fields = shape_of(kind)  # type: ignore[arg-type]  # a class is hashable, whatever mypy knows of it
        for key in table:
            if key not in fields:
                raise self.unknown_key(path, key, list(fields))
        values = {}
        for name, field in fields.items():
            where = f"{path}.{name}" if path else name
            if name in table:
                values[name] = self.value(hints[name], table[name], where, field.metadata)
            elif field.default is dataclasses.MISSING:
                meaning = field.metadata.get("meaning", "")
                raise self.error(where, f"a value ({meaning})" if meaning else "a table", "nothing", "add the key")
        return kind(**values)

    def value(self, hint: Any, raw: Any, where: str, metadata: Mapping[str, Any]) -> Any:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            return self.value(next(a for a in arguments if a is not type(None)), raw, where, metadata)
        if origin is typing.Literal:
            return self.choice(arguments, raw, where)
        if origin is tuple:
            if not isinstance(raw, list):
                raise self.error(where, "a list", repr(raw))
            fixed = arguments[-1] is not Ellipsis
            if fixed and len(raw) != len(arguments):
                raise self.error(where, f"{len(arguments)} entries", f"{len(raw)}")
            return tuple(self.value(arguments[0], item, f"{where}[{i}]", metadata) for i, item in enumerate(raw))
        if dataclasses.is_dataclass(hint):
            return self.read(typing.cast(type, hint), raw, where)
        return self.scalar(hint, raw, where, metadata)

    def choice(self, allowed: tuple[Any, ...], raw: Any, where: str) -> Any:
        if any(raw == one and type(raw) is type(one) for one in allowed):  # by type too: True == 1 == 1.0
            return raw
        guess = difflib.get_close_matches(str(raw), [str(a) for a in allowed], 1)
        advice = f"did you mean {guess[0]!r}?" if guess else ""
        raise self.error(where, f"one of {', '.join(repr(a) for a in allowed)}", repr(raw), advice)

    def scalar(self, hint: type, raw: Any, where: str, metadata: Mapping[str, Any]) -> Any:
        whole_for_fraction = hint is float and type(raw) is int
        if type(raw) is not hint and not whole_for_fraction:
            raise self.error(where, f"a value of type {hint.__name__}", f"{raw!r}")
        if hint in (int, float):
            low, high = metadata.get("low", -math.inf), metadata.get("high", math.inf)
            assert isinstance(raw, (int, float))
            if not max(low, -LARGEST) <= raw <= min(high, LARGEST):  # so that neither NaN nor a whole number of 400 digits passes
                meaning = f" ({metadata['meaning']})" if metadata.get("meaning") else ""
                raise self.error(where, f"{low:g} to {high:g}{meaning}", f"{raw:g}" if isinstance(raw, float) else str(raw))
        return float(raw) if whole_for_fraction else raw

    def unknown_key(self, path: str, key: str, known: list[str]) -> SpecError:
        where = f"{path}.{key}" if path else key
        for candidate in known:
            if candidate != key and without_unit(candidate) == without_unit(key) != candidate:
                return self.error(where, f"the key {candidate!r}", f"{key!r}", "wrong unit: convert the value and rename the key")
        guess = difflib.get_close_matches(key, known, 1)
        advice = f"did you mean {guess[0]!r}?" if guess else f"known keys: {', '.join(known)}"
        return self.error(where, "a known key", f"{key!r}", advice)

    def error(self, where: str, expected: str, got: str, advice: str = "") -> SpecError:
        line = self.line_of(where)
        place = f"{self.source}:{line}" if line else self.source
        tail = f"; {advice}" if advice else ""
        return SpecError(f"{place}: {where}: expected {expected}, got {got}{tail}")

    def line_of(self, where: str) -> int:
        """Best effort: the line of the key `where` names, 0 if it has none (a missing key, an inline table)."""
        line, begin = 0, 0
        parts = re.findall(r"([A-Za-z_]\w*)(?:\[(\d+)\])?", where)
        for depth, (name, index) in enumerate(parts):
            tables = self.matching(rf"^\s*\[+\s*(?:[\w.]+\.)?{name}\s*\]+", begin, len(self.lines))
            headers = self.matching(r"^\s*\[+\s*[\w.]+\s*\]+", begin, len(self.lines))
            keys = self.matching(rf"^\s*{name}\s*=", begin, headers[0] if headers else len(self.lines))  # of this table alone
            leaf = depth == len(parts) - 1 and not index
            if tables and not (leaf and keys):
                at = tables[min(int(index or 0), len(tables) - 1)]
            elif keys:
                at = keys[0]
            else:
                return line
            line, begin = at + 1, at + 1
        return line

    def matching(self, pattern: str, begin: int, end: int) -> list[int]:
        return [i for i in range(begin, end) if re.match(pattern, self.lines[i])]


def without_unit(key: str) -> str:
    for unit in UNITS:
        if key.endswith(unit):
            return key[: -len(unit)]
    return key
