"""What changes on the robot if bundle B takes the place of bundle A: facts by key, and the actions both give in the same situations.

Pure: two bundles in, one comparison out. Knows no terminal. Rule that must stay true: every part of a manifest is in exactly one
section, so that no difference can be missed.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import numpy as np

from edge_dsac.bundle.describe import plain, scalar
from edge_dsac.bundle.package import Bundle
from edge_dsac.spec.robot import differing, flatten

RANGE = 2.0  # of an action, -1 to 1
EVIDENCE = re.compile(r"^(measured|agreement|distilled\.(rounds|measured_us))\b")  # dozens of figures behind a choice that is shown
Row = tuple[str, str, str]  # key, in A, in B


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    a: str
    b: str
    sections: dict[str, list[Row]]  # only what differs; a section without a difference is an empty list
    golden_shift: dict[str, Any]

    @property
    def same(self) -> bool:
        return not any(self.sections.values())


def compare(a: Bundle, b: Bundle) -> Comparison:
    ours, theirs = sections_of(a), sections_of(b)
    sections = {name: differing(ours[name], theirs[name]) for name in ours}
    return Comparison(title(a), title(b), sections, golden_shift(a, b))


def title(bundle: Bundle) -> str:
    return f"{bundle.manifest.name} version {bundle.manifest.version} ({bundle.identity:016x})"


def sections_of(bundle: Bundle) -> dict[str, dict[str, str]]:
    manifest = json.loads(bundle.manifest.text)
    training = manifest["training"]
    seen, moved = manifest["layout"]["observations"], manifest["layout"]["actions"]
    at = {label: i for i, label in enumerate(seen["labels"])}
    robot = manifest["robot"]
    return {
        "signer": {"signature": bundle.signature, "trusted_comment": bundle.trusted_comment},
        "policy": flatten({key: manifest[key] for key in ("name", "version", "parent", "format", "assumed")}),
        "robot": {
            **{key: robot[key] for key in ("model", "policy_fingerprint", "firmware_fingerprint")},
            **{f"spec.{key}": value for key, value in flatten_spec(bundle).items()},
        },
        "rates": flatten(manifest["rates"]),
        "observations": {"order": json.dumps(seen["labels"])}
        | flatten({label: {"scale": seen["scale"][i], "clip": seen["clip"][i]} for label, i in at.items()}),
        "actions": {"order": json.dumps(moved["names"])}
        | flatten({f"{name}.to_command": row for name, row in zip(moved["names"], moved["to_command"], strict=True)}),
        "network": flatten(manifest["actor"]),
        "precision": flatten(manifest["precision"]),
        "evaluation": flatten({key: training[key] for key in ("evaluation", "exam") if key in training}),
        "training": flatten({key: value for key, value in training.items() if key not in ("evaluation", "exam")}),
        "files": flatten(manifest["files"]),
    }


def flatten_spec(bundle: Bundle) -> dict[str, str]:
    """Every fact of the robot file, also those that no fingerprint holds; not its comments."""
    spec = bundle.spec
    fields = [field.name for field in dataclasses.fields(spec) if field.name not in ("text", "folder")]
    return flatten({name: getattr(spec, name) for name in fields})


def golden_shift(a: Bundle, b: Bundle) -> dict[str, Any]:
    """How far apart the two act on A's golden observations, in % of an action's range."""
    labels = a.manifest.layout.observations.labels
    names = a.manifest.layout.actions.names
    if labels != b.manifest.layout.observations.labels or names != b.manifest.layout.actions.names:
        return {"why_not": "the two do not see or steer the same things"}
    percent = np.abs(a.reference.act(a.golden.obs) - b.reference.act(a.golden.obs)) * (100.0 / RANGE)
    return {
        "vectors": a.golden.count,
        "actions": {
            name: {"mean_percent": float(column.mean()), "max_percent": float(column.max())}
            for name, column in zip(names, percent.T, strict=True)
        },
    }


def comparison_lines(comparison: Comparison, with_evidence: bool = False) -> list[str]:
    """For people: first what the robot will do otherwise, then why; numbers short."""
    lines = [f"A {comparison.a}", f"B {comparison.b}", *shift_lines(comparison.golden_shift)]
    for name, rows in comparison.sections.items():
        sizes = {key for key, *_ in rows if key.endswith(".bytes")}  # of another size is of another hash
        told = [row for row in rows if not EVIDENCE.match(row[0]) and row[0].replace(".sha256", ".bytes") not in sizes - {row[0]}]
        shown = rows if with_evidence else told
        lines.append(f"{name}:" if rows else f"{name}: same")
        lines += [f"  {key}: {short(ours)} -> {short(theirs)}" for key, ours, theirs in shown]
        if len(shown) < len(rows):
            lines.append(f"  {'and ' if shown else ''}{len(rows) - len(shown)} figures or hashes behind it: --all")
    return [plain(line) for line in lines]


def short(value: str) -> str:
    """A fact as `flatten` writes it; `--json` has every digit."""
    try:
        found = json.loads(value)
    except ValueError:
        return scalar(value)
    if isinstance(found, list):
        return scalar(f"[{', '.join(short(json.dumps(one)) for one in found)}]")
    return scalar(found if isinstance(found, float) else value)


def shift_lines(shift: dict[str, Any]) -> list[str]:
    if "why_not" in shift:
        return [f"actions on A's golden observations: not compared, {shift['why_not']}"]
    lines = [f"actions on A's {shift['vectors']} golden observations, B against A, in % of range:"]
    for name, column in shift["actions"].items():
        lines.append(f"  {name}: mean {column['mean_percent']:.3g} %, largest {column['max_percent']:.3g} %")
    return lines
