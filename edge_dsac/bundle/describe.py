"""A bundle in words: what a person wants to know at one glance, and the same as one JSON object.

Knows no file and no terminal; returns values and lines. Rule that must stay true: what came from a foreign file is printed in plain
characters only, so that a bundle cannot write to the terminal of who looks at it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edge_dsac.bundle.package import Bundle

SHOWN_ELSEWHERE = ("evaluation", "exam")
LONGEST = 160


def describe(bundle: Bundle) -> dict[str, Any]:
    """The manifest, and what is known of the file around it."""
    return {
        "identity": f"{bundle.identity:016x}",
        "manifest_sha256": bundle.manifest.sha256,
        "signature": signature_facts(bundle),
        "size_bytes": sum(len(data) for data in bundle.files.values()),
        "golden": {"vectors": bundle.golden.count, "whole_numbers": bundle.golden.whole is not None},
        "guide": {
            "words": bundle.guide.words,
            "offsets": bundle.guide.offsets.tolist(),
            "beta": bundle.guide.beta,
        }
        if bundle.guide
        else None,
        "manifest": json.loads(bundle.manifest.text),
    }


def signature_facts(bundle: Bundle) -> dict[str, Any]:
    return {
        "trusted": bundle.signer is not None,
        "signer": bundle.signer,
        "key_id": bundle.key_id or None,
        "comment": bundle.trusted_comment or None,
        "words": bundle.signature,
    }


def summary_lines(bundle: Bundle) -> list[str]:
    manifest = bundle.manifest
    robot, layout, sizes = manifest.robot, manifest.layout, manifest.actor.sizes
    hidden = "-".join(map(str, sizes[1:-1])) or "no hidden layer"
    actions = f"{sizes[-1]} clipped actions" if bundle.actor.squash == "clip" else f"{sizes[-1]} actions"
    lines = [
        f"{manifest.name} version {manifest.version} for {robot.model}, {kilobytes(sum(map(len, bundle.files.values())))}",
        row("identity", f"{bundle.identity:016x}, child of {manifest.parent[:16]}" if manifest.parent else f"{bundle.identity:016x}"),
        row("signature", bundle.signature + (f', "{bundle.trusted_comment}"' if bundle.trusted_comment else "")),
        row(
            "robot",
            f"{robot.model} at {manifest.rates.control_hz} Hz, policy {robot.policy_fingerprint}, firmware {robot.firmware_fingerprint}",
        ),
        row(
            "policy",
            f"{sizes[0]} observations, {hidden} {manifest.actor.activation}, {actions} ({', '.join(layout.actions.names)})",
        ),
        row("precision", f"{manifest.precision.chosen}: {manifest.precision.because}"),
    ]
    if bundle.guide:
        lines.append(row("guide", bundle.guide.words))
    lines += error_lines(manifest.precision.measured)
    lines += table("training", {key: value for key, value in manifest.training.items() if key not in SHOWN_ELSEWHERE})
    lines += table("evaluation", manifest.training.get("evaluation") or {})
    lines += table("exam", manifest.training.get("exam") or {})
    lines += [row("ASSUMED", text) for text in manifest.assumed]
    whole = "float32 and whole numbers" if bundle.golden.whole is not None else "float32 alone"
    lines.append(row("golden", f"{bundle.golden.count} vectors, {whole}"))
    lines.append(row("files", ", ".join(f"{name} {kilobytes(len(data))}" for name, data in sorted(bundle.files.items()))))
    return [plain(line) for line in lines]


def error_lines(verdict: Any) -> list[str]:
    """One line per precision the gate measured; whatever else stands there is shown as it is."""
    try:
        measured: Mapping[str, Any] = verdict["figures"]["measured"]
        lines = [error_line(name, found, name in verdict["accepted"]) for name, found in measured.items()]
    except (KeyError, TypeError, IndexError, ValueError):
        return table("errors", verdict)
    return [row("" if i else "errors", line) for i, line in enumerate(lines)]


def error_line(name: str, found: Mapping[str, Any], accepted: bool) -> str:
    errors, flown = found["errors"], found["comparison"]
    line = f"{name}: mean {max(errors['mean']):.2g}, 99 % {max(errors['p99']):.2g}, largest {max(errors['most']):.2g} of an action"
    if flown:
        low, high = flown["interval"]
        line += f"; jitter {max(flown['jitter_ratio']):.2f}, return {flown['return_difference']:+.3g} ({low:+.3g} to {high:+.3g})"
    return f"{line}; {'accepted' if accepted else 'refused' if flown else 'not flown'}"


def table(head: str, facts: Any) -> list[str]:
    """Scalars on one line; each object in it on a line of its own."""
    if not isinstance(facts, Mapping):
        return [row(head, scalar(facts))] if facts else []
    single = ", ".join(f"{key} {scalar(value)}" for key, value in facts.items() if not isinstance(value, Mapping))
    lines = [row(head, single)] if single else []
    for key, value in facts.items():
        if isinstance(value, Mapping):
            words = ", ".join(f"{name} {scalar(item)}" for name, item in value.items())
            lines.append(row("" if lines else head, f"{key}: {words}"))
    return lines


def row(head: str, text: str) -> str:
    return f"  {head:<11} {text}"


def scalar(value: Any) -> str:
    """Short, for people: `--json` has every digit."""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def kilobytes(count: int) -> str:
    return f"{count} B" if count < 1000 else f"{count / 1000:.1f} kB"


def plain(line: str) -> str:
    return "".join(c if c.isprintable() else " " if c == "\t" else "?" for c in line)
