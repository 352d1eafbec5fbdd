"""Means and intervals of the rows of tools/bench_tune.py. Pure: rows in, words out.

A policy is the unit: sessions of one policy on one robot are one number, and intervals are Student's over policies. The comparison with
the control is paired: the same policy on the same robot at the same time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np

# Student's t, two-sided 95 %, for 1, 2, ... degrees of freedom
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093)
CONTROL = "control"


def interval(values: list[float]) -> tuple[float, float | None]:
    """Mean, and half of its 95 % interval; None of a single one."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    t = T95[len(values) - 2] if len(values) - 2 < len(T95) else 1.96
    return mean, float(t * np.std(values, ddof=1) / math.sqrt(len(values)))


def recovered(row: dict[str, Any]) -> float | None:
    """Share of what was lost at transfer; None where nothing was."""
    if row["oracle"] is None or row["oracle"] <= row["before"]:
        return None
    return float((row["after"] - row["before"]) / (row["oracle"] - row["before"]))


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per robot, recipe and time."""
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["hidden"], row["recipe"], row["robot_s"]].append(row)
    controls = {(row["hidden"], row["policy"], row["robot_s"]): row for row in rows if row["recipe"] == CONTROL}
    return [told(group, controls) for group in groups.values()]


def told(group: list[dict[str, Any]], controls: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    shares = [share for share in map(recovered, group) if share is not None]
    pairs = [row["after"] - controls[key]["after"] for row in group if (key := (row["hidden"], row["policy"], row["robot_s"])) in controls]
    paired = interval(pairs) if pairs and group[0]["recipe"] != CONTROL else (None, None)
    mean, half = interval(shares) if shares else (None, None)
    return {
        "hidden": group[0]["hidden"], "recipe": group[0]["recipe"], "robot_s": group[0]["robot_s"], "policies": len(group),
        "before": average(group, "before"), "after": average(group, "after"), "oracle": group[0]["oracle"], "recovered": mean,
        "recovered_half": half, "over_control": paired[0], "over_control_half": paired[1], "survival": average(group, "survival"),
        "least_survival": min(row["survival"] for row in group), "learnt": average(group, "learnt"), "falls": total(group, "falls"),
        "rollbacks": total(group, "rollbacks"), "accepted": total(group, "accepted"),
    }  # fmt: skip


def average(group: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in group]))


def total(group: list[dict[str, Any]], name: str) -> int:
    return int(sum(row[name] for row in group))


def table(lines: list[dict[str, Any]]) -> str:
    head = f"{'robot':10} {'recipe':11} {'at s':>5} {'n':>3} {'before':>7} {'after':>7} {'oracle':>7}"
    out = [head + f" {'recovered':>16} {'over control':>16} {'survival':>9} {'falls':>6} {'taken':>6} {'back':>5}"]
    for line in lines:
        oracle = f"{line['oracle']:7.0f}" if line["oracle"] is not None else f"{'':7}"
        returns = f"{line['before']:7.0f} {line['after']:7.0f} {oracle}"
        share = with_half(line["recovered"], line["recovered_half"], 2)
        over = with_half(line["over_control"], line["over_control_half"], 0)
        out.append(
            f"{line['hidden']:10} {line['recipe']:11} {line['robot_s']:5.0f} {line['policies']:3} {returns} {share:>16} {over:>16} "
            f"{line['survival']:9.2f} {line['falls']:6} {line['accepted']:6} {line['rollbacks']:5}"
        )
    return "\n".join(out)


def with_half(mean: float | None, half: float | None, digits: int) -> str:
    if mean is None:
        return ""
    return f"{mean:.{digits}f}" + (f" +- {half:.{digits}f}" if half is not None else "")
