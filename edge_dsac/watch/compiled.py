"""The picture of a compilation: how far each precision is from float32, on recorded observations and in closed loop, and the verdict.

Gets arrays and the gate's verdict as plain words; judges nothing itself. Errors are drawn against the limits they were held to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_dsac.records import Float
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec
from edge_dsac.watch.picture import BLUE, GREEN, GREY, ORANGE, RED

COLOUR = {"int8": ORANGE, "int16": "#8a5cc4", "float16": BLUE, "int8 onnx": GREEN, "float32": "#22262b"}
SHOWN_S = 4.0  # of the closed loop: longer and the two lines are one
POINTS = 4000  # of a scatter
LEAST_ERROR = 1e-6  # where the axis of errors begins: float32's own
SHOWN_TERMS = ("pitch_rad", "speed_m_s", "cross_track_m")  # the first that the robot observes is drawn in closed loop


@dataclass(frozen=True, slots=True)
class CompiledPicture:
    spec: RobotSpec
    actor: str  # identity, 16 hex digits
    wanted: Float  # [observations, actions] of float32
    answers: Mapping[str, Float]  # candidate -> the same
    seen: Mapping[str, Float]  # candidate and float32 -> [ticks, obs] of one robot in closed loop
    acted: Mapping[str, Float]  # -> [ticks, actions] of that robot
    returns: Mapping[str, Float]  # -> [episodes]
    verdict: Mapping[str, Any]  # as the gate gives it


def make_report(picture: CompiledPicture, evidence: Mapping[str, Any]) -> str:
    """Everything the picture says, for a program."""
    words = {
        "robot": picture.spec.model, "actor": picture.actor, "actions": [action.name for action in picture.spec.actions],
        "joints": [f"{joint.name}:{joint.command_unit}" for joint in picture.spec.joints], "verdict": dict(picture.verdict),
        "evidence": dict(evidence), "returns": {name: values.tolist() for name, values in picture.returns.items()},
    }  # fmt: skip
    return json.dumps(words, indent=1, allow_nan=False) + "\n"


def draw_compiled(picture: CompiledPicture, out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    actions = len(picture.spec.actions)
    figure = plt.figure(figsize=(15, 3.3 * actions + 5.6), layout="constrained")
    grid = figure.add_gridspec(actions + 2, 6, height_ratios=[*[1.0] * actions, 1.0, 0.5])
    for i in range(actions):
        distribution(figure.add_subplot(grid[i, 0:2]), picture, i)
        against_value(figure.add_subplot(grid[i, 2:4]), picture, i)
        closed_loop(figure.add_subplot(grid[i, 4:6]), picture, i)
    term_in_closed_loop(figure.add_subplot(grid[actions, 0:3]), picture)
    returns(figure.add_subplot(grid[actions, 3:5]), picture)
    shaking(figure.add_subplot(grid[actions, 5]), picture)
    for axis in figure.axes:
        axis.grid(True, color="#e6e8eb", lw=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    table(figure.add_subplot(grid[actions + 1, :]), picture)
    title = f"{picture.spec.model}, actor {picture.actor}: {picture.verdict['chosen']} is chosen"
    figure.suptitle(f"{title}\n{short(picture.verdict['because'], 170)}", fontsize=12)
    unfinished = out.with_name(f".{out.name}")
    figure.savefig(unfinished, dpi=100, format="png")
    plt.close(figure)
    unfinished.replace(out)


def distribution(axis: Any, picture: CompiledPicture, i: int) -> None:
    """Errors over decades: a mean of 1e-4 and a rare 0.2 are seen side by side."""
    edges = np.geomspace(LEAST_ERROR, 2.0, 70)
    for name, answer in picture.answers.items():
        off = np.clip(np.nan_to_num(np.abs(answer[:, i] - picture.wanted[:, i]), nan=2.0, posinf=2.0), LEAST_ERROR, 2.0)
        share = np.full(len(off), 100.0 / len(off))
        axis.hist(off, edges, weights=share, color=COLOUR[name], alpha=0.28)
        axis.hist(off, edges, weights=share, color=COLOUR[name], histtype="step", lw=1.3, label=name)
    for name in ("float16", "int8"):
        limit = picture.verdict["figures"]["limits"][name]["most"]
        axis.axvline(limit, color=COLOUR[name], ls="--", lw=1.2)
        where = axis.get_xaxis_transform()
        side = "left" if name == "int8" else "right"
        axis.text(limit, 1.01, f"{name} at most", color=COLOUR[name], fontsize=7, va="bottom", ha=side, transform=where)
    axis.set_xscale("log")
    axis.set_xlim(LEAST_ERROR, 2.0)
    axis.set_title(f"{picture.spec.actions[i].name}: |error| of an action", pad=16)  # above the names of the limits
    axis.set(xlabel="|difference from float32|", ylabel="% of observations")
    axis.legend(fontsize=8, loc="upper left", framealpha=0.85)


def against_value(axis: Any, picture: CompiledPicture, i: int) -> None:
    picked = np.linspace(0, len(picture.wanted) - 1, min(POINTS, len(picture.wanted))).astype(int)
    largest = 0.0
    roughest_first = sorted(picture.answers, key=lambda name: -float(np.nanmean(np.abs(picture.answers[name] - picture.wanted))))
    for name in roughest_first:
        off = (picture.answers[name] - picture.wanted)[picked, i]
        axis.plot(picture.wanted[picked, i], off, ".", ms=2.2, color=COLOUR[name], alpha=0.35, rasterized=True, label=name)
        largest = max(largest, float(np.nanmax(np.abs(off), initial=0.0)))
    axis.axhline(0.0, color=GREY, lw=0.8)
    axis.set(xlim=(-1.03, 1.03), ylim=(-1.08 * largest - 1e-9, 1.08 * largest + 1e-9))
    axis.set(title=f"{picture.spec.actions[i].name}: error against the action", xlabel="action of float32", ylabel="difference")
    axis.legend(fontsize=8, markerscale=4, loc="upper left", framealpha=0.85)


def time_s(picture: CompiledPicture) -> tuple[Float, int]:
    rows = min(round(SHOWN_S * picture.spec.rates.control_hz), len(next(iter(picture.acted.values()))))
    return np.arange(rows) / picture.spec.rates.control_hz, rows


def closed_loop(axis: Any, picture: CompiledPicture, i: int) -> None:
    """The same robot, noise and targets under each precision; they drift apart as any two runs of one loop do."""
    t, rows = time_s(picture)
    for name in overlaid(picture):
        axis.plot(t, picture.acted[name][:rows, i], color=COLOUR[name], lw=1.4 if name == "float32" else 1.0, label=name)
    axis.margins(x=0, y=0.16)
    axis.set(title=f"{picture.spec.actions[i].name}: closed loop, one robot", xlabel="seconds", ylabel="action")
    axis.legend(fontsize=8, loc="upper right", ncols=2, framealpha=0.85)


def term_in_closed_loop(axis: Any, picture: CompiledPicture) -> None:
    newest = ObservationLayout(picture.spec).newest
    term = next((name for name in SHOWN_TERMS if name in newest), next(iter(newest)))
    t, rows = time_s(picture)
    for name in overlaid(picture):
        axis.plot(t, picture.seen[name][:rows, newest[term].start], color=COLOUR[name], lw=1.4 if name == "float32" else 1.0, label=name)
    axis.margins(x=0)
    axis.set(title=f"what the robot did: {term}", xlabel="seconds", ylabel=term)
    axis.legend(fontsize=8, loc="upper right", ncols=2, framealpha=0.85)


def overlaid(picture: CompiledPicture) -> list[str]:
    return [name for name in ("float32", "int8") if name in picture.acted]


def returns(axis: Any, picture: CompiledPicture) -> None:
    """Per episode against float32's same one, and the interval of the mean."""
    for at, (name, found) in enumerate(picture.verdict["figures"]["measured"].items()):
        flown = found["comparison"]
        if flown is None or name not in picture.returns:
            continue
        difference = picture.returns[name] - picture.returns["float32"]
        spread = at + np.linspace(-0.22, 0.22, len(difference))
        axis.plot(spread, difference, ".", ms=4, color=COLOUR[name], alpha=0.45)
        low, high = flown["interval"]
        axis.errorbar(at + 0.36, flown["return_difference"], [[flown["return_difference"] - low], [high - flown["return_difference"]]],
                      fmt="o", ms=5, capsize=4, color=COLOUR[name], lw=2)  # fmt: skip
    names = [
        f"{name}\n{picture.returns[name].mean():.1f}" if name in picture.returns else name
        for name in picture.verdict["figures"]["measured"]
    ]
    axis.axhline(0.0, color=GREY, lw=0.8)
    axis.set_xticks(range(len(names)), names)
    axis.set(title=f"return minus float32's ({picture.returns['float32'].mean():.1f}), same episodes", ylabel="difference of a return")


def shaking(axis: Any, picture: CompiledPicture) -> None:
    limits, measured = picture.verdict["figures"]["limits"], picture.verdict["figures"]["measured"]
    worst = {name: max(found["comparison"]["jitter_ratio"]) for name, found in measured.items() if found["comparison"]}
    axis.bar(
        range(len(worst)),
        [value - 1.0 for value in worst.values()],
        bottom=1.0,
        color=[COLOUR[name] for name in worst],
        alpha=0.75,
        width=0.6,
    )
    for at, value in enumerate(worst.values()):
        label = axis.text(at, max(value, 1.0), f"{value:.3f}", ha="center", va="bottom", fontsize=8)
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.8})
    axis.axhline(limits["jitter"], color=RED, ls="--", lw=1.2)
    axis.axhline(1.0, color=GREY, lw=0.8)
    low, high = min([1.0, *worst.values()]), max([limits["jitter"], *worst.values()])
    axis.set_ylim(low - 0.1 * (high - low), high + 0.15 * (high - low))
    axis.set_xticks(range(len(worst)), [name.replace(" ", "\n") for name in worst], fontsize=8)
    axis.set(title="jitter over float32's")


HEADINGS = ["", "mean error", "99 %", "largest", "99 %, SI", "99 % of range", "SNR, dB", "jitter", "return (interval)", "falls", "verdict"]
WIDTHS = [0.06, 0.06, 0.06, 0.06, 0.06, 0.075, 0.06, 0.05, 0.12, 0.06, 0.335]


def table(axis: Any, picture: CompiledPicture) -> None:
    axis.axis("off")
    verdict = picture.verdict
    rows = [row_of(name, found, verdict) for name, found in verdict["figures"]["measured"].items()]
    drawn = axis.table(rows, colLabels=HEADINGS, colWidths=WIDTHS, loc="upper center", cellLoc="center")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(8.5)
    drawn.scale(1.0, 1.9)
    names = list(verdict["figures"]["measured"])
    for (row, column), cell in drawn.get_celld().items():
        cell.set_edgecolor("#d5d8dc")
        if row == 0:
            cell.set_facecolor("#eef0f2")
            cell.set_text_props(fontweight="bold")
        elif column == 0:
            cell.set_text_props(color=COLOUR[names[row - 1]], fontweight="bold")
        elif column == len(HEADINGS) - 1:
            cell.set_facecolor("#fbe9e9" if names[row - 1] in verdict["refused"] else "#e9f6e9")


def row_of(name: str, found: Mapping[str, Any], verdict: Mapping[str, Any]) -> list[str]:
    errors, flown = found["errors"], found["comparison"]
    reasons = verdict["refused"].get(name)
    said = short("; ".join(reasons), 66) if reasons else ("chosen" if name == verdict["chosen"] else "keeps every limit")
    closed = ["-", "-", "-"]
    if flown:
        low, high = flown["interval"]
        closed = [
            f"{max(flown['jitter_ratio']):.3f}", f"{flown['return_difference']:+.2f} ({low:+.2f} to {high:+.2f})",
            f"{flown['fall_rate']:.0%} / {flown['float_fall_rate']:.0%}",
        ]  # fmt: skip
    return [
        name, f"{max(errors['mean']):.2g}", f"{max(errors['p99']):.2g}", f"{max(errors['most']):.2g}", f"{max(errors['si_p99']):.2g}",
        f"{max(errors['si_percent_of_range']):.2g} %", f"{min(errors['snr_db']):.0f}", *closed, said,
    ]  # fmt: skip


def short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
