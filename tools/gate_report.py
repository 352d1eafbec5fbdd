"""What the flown candidates come to: which were bad in truth, and what the gate, the trial and neither of them did about it.

Knows rows as bench_gate.py leaves them on the disk; flies nothing. Rule that must stay true: a candidate whose truth is not known is
counted as nothing, and how many those are is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edge_dsac.records import Float

Row = dict[str, Any]
T_95 = 2.02  # Student's, two-sided, 39 degrees: 40 episodes


def truth_of(parent: Float, candidate: Float) -> Row:
    """Returns of the same episodes. Bad: worse, and the interval of the difference excludes zero."""
    gains = np.asarray(candidate, float) - np.asarray(parent, float)
    mean, half = float(gains.mean()), T_95 * float(gains.std(ddof=1)) / math.sqrt(len(gains))
    label = "bad" if mean + half < 0.0 else "good" if mean - half > 0.0 else "same"
    return {
        "label": label, "parent": float(np.mean(parent)), "candidate": float(np.mean(candidate)), "gain": mean,
        "interval": [mean - half, mean + half],
    }  # fmt: skip


def ticks_too_long(row: Row) -> int:
    stay = row["too_long"]
    return int(stay["after_window"] + stay["after_breach"] + stay["in_other_flights"])


def is_bad(row: Row) -> bool:
    return bool(row.get("truth") and row["truth"]["label"] == "bad")


def accepted(row: Row) -> bool:
    return bool(row["verdict"] == "better")


def of_trial(row: Row) -> int:
    return sum(fall["of_trial"] for fall in row["falls"])


def figures(rows: Sequence[Row], parents: dict[str, Row]) -> Row:
    """Of some rows. Falls of the parent: its own rate without a trial, policy by policy, over as many seconds as these were flown."""
    share = 100.0 / len(rows) if rows else math.nan
    labels = [row["truth"]["label"] for row in rows if row.get("truth")]
    worse = count(rows, lambda row: accepted(row) and is_bad(row))
    straight = [row["straight"] for row in rows if row.get("straight")]
    off = [row["seconds_to_off"] for row in rows if not accepted(row)]
    drove = [row["drove_s"] for row in rows]
    return {
        "candidates": len(rows), "truth_known": len(labels), "truth": {label: labels.count(label) for label in ("bad", "same", "good")},
        "stayed_active": count(rows, lambda row: ticks_too_long(row) > 0 or (row["drives_now"] and not accepted(row))),
        "most_ticks_too_long": max((ticks_too_long(row) for row in rows), default=0),
        "falls_by_trials": sum(of_trial(row) for row in rows), "trials_with_such_a_fall": count(rows, lambda row: of_trial(row) > 0),
        "falls_later": sum(0.5 < (fall["since_new_s"] or 0.0) <= 2.0 and not fall["of_trial"] for row in rows for fall in row["falls"]),
        "falls_in_all": sum(len(row["falls"]) for row in rows),
        "falls_of_parent_in_the_same_time": round(sum(rate(parents[row["policy"]]) * row["flown_s"] for row in rows), 2),
        "flown_s": round(sum(row["flown_s"] for row in rows), 1),
        "accepted": count(rows, accepted), "accepted_but_worse": worse, "accepted_but_worse_percent": round(share * worse, 2),
        "accepted_of_unknown_truth": count(rows, lambda row: accepted(row) and not row.get("truth")),
        "verdicts": {word: count(rows, lambda row, word=word: row["verdict"] == word) for word in ("better", "worse", "no evidence")},
        "refused_by_gate": count(rows, lambda row: not row["gate"]["passed"]),
        "bad_refused_by_gate": count(rows, lambda row: is_bad(row) and not row["gate"]["passed"]),
        "seconds_to_off": spread(off), "seconds_driven": spread(drove),
        "straight": {"flown": len(straight), "fell": count(straight, lambda one: one["fell"])},
    }  # fmt: skip


def summary(rows: Sequence[Row], parents: dict[str, Row]) -> Row:
    planted = [row for row in rows if row["planted"]]
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    return {
        "planted": len(planted), **{key: value for key, value in figures(planted, parents).items() if key != "candidates"},
        "with_gate": figures([row for row in planted if row["gate"]["passed"]], parents),
        "not_bad": figures([row for row in rows if not row["planted"]], parents),
        "by_kind": {kind: figures([row for row in rows if row["kind"] == kind], parents) for kind in kinds},
        "parents": parents,
    }  # fmt: skip


def count(rows: Sequence[Row], of: Callable[[Row], Any]) -> int:
    return sum(bool(of(row)) for row in rows)


def rate(parent: Row) -> float:
    return float(parent["falls"] / parent["seconds"])


def spread(values: Sequence[float]) -> Row | None:
    return {"median": float(np.median(values)), "most": float(np.max(values))} if values else None


def table(told: Row) -> str:
    """For a terminal: a line per kind."""
    lines = [f"{'':16} {'flown':>6} {'bad':>5} {'gate':>5} {'better':>7} {'worse':>6} {'too long':>9} {'falls':>6} {'straight':>9}"]
    for name, of in (*told["by_kind"].items(), ("planted", told)):
        straight = f"{of['straight']['fell']}/{of['straight']['flown']}"
        lines.append(
            f"{name:16} {of.get('candidates', told['planted']):6} {of['truth']['bad']:5} {of['refused_by_gate']:5} {of['accepted']:7} "
            f"{of['accepted_but_worse']:6} {of['stayed_active']:9} {of['falls_by_trials']:6} {straight:>9}"
        )
    lines.append(f"falls of the parent by itself in the same {told['flown_s']:.0f} s: {told['falls_of_parent_in_the_same_time']}")
    return "\n".join(lines)
