"""The picture of a training run: is it learning, does the critic know its own worth, and does anything run away.

Reads a run's folder and nothing else; can be drawn while the run goes on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edge_dsac.watch.picture import BLUE, GREEN, GREY, ORANGE, RED, legend_above

BINS = 12


def draw_training(run: Path, out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    if not lines:
        raise ValueError(f"{run}: no round has ended yet; there is nothing to draw")
    figure, axes = plt.subplots(2, 3, figsize=(14, 7.5), layout="constrained")
    at = np.array([line["updates"] for line in lines])
    learning_curve(axes[0, 0], at, lines, baseline_of(run))
    bias(axes[0, 1], at, lines)
    with np.load(run / "value.npz", allow_pickle=False) as value:
        scatter(axes[0, 2], value)
        calibration(axes[1, 2], value)
    one(axes[1, 0], at, lines, {"alpha": BLUE}, "temperature alpha", log=True)
    losses(axes[1, 1], at, lines)
    for axis in axes.flat:
        axis.grid(True, color="#e6e8eb", lw=0.8)
        axis.spines[["top", "right"]].set_visible(False)
        legend_above(axis)
    last = lines[-1]
    best = max(line["evaluation"]["mean"] for line in lines)
    figure.suptitle(f"{title_of(run)}: {last['updates']} updates, {last['env_steps']} steps, best return {best:.1f}", fontsize=12)
    unfinished = out.with_name(f".{out.name}")
    figure.savefig(unfinished, dpi=100, format="png")
    plt.close(figure)
    unfinished.replace(out)  # who looks while the run goes on sees whole pictures


def title_of(run: Path) -> str:
    config = json.loads((run / "config.json").read_text())["config"]
    return str(config.get("robot") or config.get("env"))


def baseline_of(run: Path) -> dict[str, Any] | None:
    path = run / "baseline.json"
    return json.loads(path.read_text()) if path.exists() else None


def learning_curve(axis: Any, at: Any, lines: list[dict[str, Any]], baseline: dict[str, Any] | None) -> None:
    mean, std = (np.array([line["evaluation"][key] for line in lines]) for key in ("mean", "std"))
    axis.fill_between(at, mean - std, mean + std, color=BLUE, alpha=0.18, lw=0)
    axis.plot(at, mean, color=BLUE, label="deployed policy, mean and deviation")
    best = int(mean.argmax())
    axis.plot(at[best], mean[best], "o", color=BLUE, ms=6)
    if baseline:
        axis.axhline(baseline["mean"], color=GREY, ls="--", label=f"{baseline['name']} {baseline['mean']:.0f}")
    if "survival" in lines[0]["evaluation"] and min(line["evaluation"]["survival"] for line in lines) < 1.0:
        beside = axis.twinx()
        beside.plot(at, [line["evaluation"]["survival"] for line in lines], color=GREEN, lw=1, ls=":")
        beside.set_ylim(0, 1.05)
        beside.set_ylabel("survival (dotted)", color=GREEN, fontsize=8)
        beside.spines[["top"]].set_visible(False)
    axis.set(title="return of an evaluation episode", xlabel="updates")


def bias(axis: Any, at: Any, lines: list[dict[str, Any]]) -> None:
    axis.plot(at, series(lines, "estimated"), color=ORANGE, label="estimated Q")
    axis.plot(at, series(lines, "realised"), color=BLUE, label="realised discounted return")
    axis.set(title="does the critic believe what happens?", xlabel="updates")


def series(lines: list[dict[str, Any]], name: str) -> Any:
    """Of the value checks; a gap where one had nothing to say."""
    return np.array([line["value"][name] for line in lines], float)


def scatter(axis: Any, value: Any) -> None:
    if not len(value["estimated"]):
        axis.set(title="no start with enough behind it")
        return
    estimated, realised = value["estimated"], value["realised"]
    low, high = float(min(estimated.min(), realised.min())), float(max(estimated.max(), realised.max()))
    axis.plot(estimated, realised, ".", ms=2, color=BLUE, alpha=0.3, rasterized=True)
    axis.plot([low, high], [low, high], color=GREY, lw=1)
    axis.set(title="each start, in the last round", xlabel="estimated", ylabel="realised")


def calibration(axis: Any, value: Any) -> None:
    """Starts in order of their predicted sigma: in each twelfth, what was predicted and how far off the mean was."""
    if not len(value["estimated"]):
        return
    error = value["realised"] - value["estimated"]
    order = np.argsort(value["sigma"])
    groups = [group for group in np.array_split(order, BINS) if len(group)]
    predicted = [float(value["sigma"][group].mean()) for group in groups]
    about_mean = [float(error[group].std()) for group in groups]
    about_zero = [float(np.sqrt(np.mean(error[group] ** 2))) for group in groups]
    top = max([*predicted, *about_zero])
    axis.plot([0, top], [0, top], color=GREY, lw=1)
    axis.plot(predicted, about_mean, "o-", ms=4, color=BLUE, label="spread of the realised returns")
    axis.plot(predicted, about_zero, ".:", color=RED, label="with the bias in it")
    axis.set(title="is sigma the spread?", xlabel="predicted sigma", ylabel="realised spread")


def one(axis: Any, at: Any, lines: list[dict[str, Any]], names: dict[str, str], title: str, log: bool) -> None:
    for name, colour in names.items():
        axis.plot(at, [line[name] for line in lines], color=colour, label=name)
    if log:
        axis.set_yscale("log")
    axis.set(title=title, xlabel="updates")


def losses(axis: Any, at: Any, lines: list[dict[str, Any]]) -> None:
    one(axis, at, lines, {"critic_loss": ORANGE}, "losses", log=False)
    beside = axis.twinx()
    beside.plot(at, [line["actor_loss"] for line in lines], color=GREEN, label="actor_loss")
    beside.spines[["top"]].set_visible(False)
    beside.set_ylabel("actor_loss", color=GREEN, fontsize=8)
