"""YAML of unknown origin as plain dicts, lists, numbers and strings; nothing in it can run or grow.

PyYAML's safe constructor alone still lets a few lines of aliases expand to gigabytes in whoever walks the result, takes the last
of two equal keys without a word, and recurses as deep as the brackets go. Rule that must stay true: what is returned has at most
MOST_VALUES values, every alias written out.
"""

from __future__ import annotations

from typing import Any

MOST_BYTES = 1_000_000  # real ones have 2 kB
MOST_VALUES = 100_000
DEEPEST = 40


class YamlError(ValueError):
    """A YAML file that is not read, and why."""

    refused = True


def load_yaml(text: str, source: str) -> dict[str, Any]:
    import yaml

    if len(text.encode()) > MOST_BYTES:
        raise YamlError(f"{source}: expected at most {MOST_BYTES} bytes, got {len(text.encode())}; give the policy's own settings alone")
    try:
        refuse_depth(yaml.parse(text, Loader=yaml.SafeLoader), source)
        # neither parse nor compose resolves a tag: depth and size are known before anything is made
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            count_values(root, {}, 0, source)
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise YamlError(f"{source}: not plain YAML: {' '.join(str(error).split())}") from None
    except (RecursionError, ValueError, TypeError) as error:  # brackets without end; dates that are none; lists as keys
        if isinstance(error, YamlError):
            raise
        raise YamlError(f"{source}: not plain YAML: {type(error).__name__}") from None
    if not isinstance(document, dict):
        raise YamlError(f"{source}: expected a mapping of settings, got {type(document).__name__}")
    return document


def refuse_depth(events: Any, source: str) -> None:
    """On the stream of events, which needs no recursion: thousands of brackets cost PyYAML seconds in its later stages."""
    depth = 0
    for event in events:
        name = type(event).__name__
        depth += name in ("SequenceStartEvent", "MappingStartEvent")
        depth -= name in ("SequenceEndEvent", "MappingEndEvent")
        if depth > DEEPEST:
            raise YamlError(f"{source}: nested deeper than {DEEPEST}")


def count_values(node: Any, counted: dict[int, int], depth: int, source: str) -> int:
    """Values below `node` with every alias written out. An alias is counted without being walked again."""
    if depth > DEEPEST:
        raise YamlError(f"{source}: an alias lies within itself, or aliases make it deeper than {DEEPEST}")
    if id(node) not in counted:
        total = 1
        if isinstance(node.value, list):
            keys: set[str] = set()
            for item in node.value:
                for child in item if isinstance(item, tuple) else (item,):
                    total += count_values(child, counted, depth + 1, source)
                if isinstance(item, tuple):
                    key = str(item[0].value)
                    if key in keys:
                        raise YamlError(f"{source}:{item[0].start_mark.line + 1}: the key {key!r} is there twice; which one holds?")
                    keys.add(key)
        if total > MOST_VALUES:
            raise YamlError(f"{source}: more than {MOST_VALUES} values once its aliases are written out")
        counted[id(node)] = total
    return counted[id(node)]
