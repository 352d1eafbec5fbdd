"""What the cells of bench_returns.py say: scores by two rules, intervals, who is ahead, as a table and as curves.

Pure but for `write_report`. Rule that must stay true: where DSAC-T is not ahead, or nobody can tell, the table says so in words.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from returns_cells import (
    ABLATIONS,
    BESIDE,
    BUDGETS,
    OURS,
    PACED,
    PEERS,
    QUICKER,
    QUICKER_PAPER,
    REWARD_SCALES,
    SACS,
    SHIPPED,
    Cell,
    CellError,
    cell_in,
)

LAST_SHARE = 0.1  # the paper's score: the best evaluation of the last tenth
# Student's t for a 95 % interval, by degrees of freedom; between two of them the smaller counts, which is the wider interval.
T_95 = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    6: 2.447,
    7: 2.365,
    8: 2.306,
    9: 2.262,
    10: 2.228,
    15: 2.131,
    20: 2.086,
    30: 2.042,
}
NAMES = {
    OURS: "DSAC-T",
    QUICKER: "DSAC-T at SAC's pace",
    QUICKER_PAPER: "DSAC-T at SAC's pace, the paper's loss",
    SHIPPED: "DSAC-T, shipped settings",
    "sac": "SAC (this project's ablation)",
    "sb3-sac": "SAC (sb3)",
    "sb3-td3": "TD3 (sb3)",
    "sb3-ddpg": "DDPG (sb3)",
    "sb3-ppo": "PPO (sb3)",
    "sb3-trpo": "TRPO (sb3-contrib)",
    "dsac-v1": "DSAC v1 (none of the three)",
    "no-expected-value": "without expected value substitution",
    "no-twin": "without twin value distributions",
    "no-bound": "without the variance-based bound",
}
RULES = {"best": "best of the last 10 %", "last": "last evaluation"}
COLOURS = {
    OURS: "#1f5fa8", QUICKER: "#12b5b0", QUICKER_PAPER: "#5b6ee1", SHIPPED: "#6fb1e8",
    "sb3-sac": "#e07b1a", "sb3-td3": "#2b8a3e", "sb3-ddpg": "#7a7f87",
    "sb3-ppo": "#8a3fa0", "sb3-trpo": "#b3262a",
}  # fmt: skip
FOOT = """Learning rates are each algorithm's own published default: DSAC-T and its ablations 1e-4 (temperature 3e-4), SAC 3e-4 here and
in sb3, TD3 and DDPG 1e-3, PPO 3e-4, TRPO 1e-3 (critic). Off-policy algorithms share the settings above, gamma 0.99 and tau
0.005. What they do not share is their own: DSAC-T has GELU, sb3 has ReLU; TD3 and DDPG explore with noise of 0.1 of half the
action range (TD3's paper; sb3 has none by default); in the warm-up DSAC-T acts with its untrained policy, sb3 uniformly at
random. PPO and TRPO are the library's defaults (64-64, tanh, no normalisation of observations). DSAC-T begins new episodes
after each evaluation (its rounds do). Rewards are as the task gives them. On a robot everybody sees the scaled observation;
shipped settings have budget and judgement in common with the rest, nothing else.

The budgets are a hundredth of the paper's. At its settings DSAC-T moves its actor at every second update, at a third of SAC's rate, and
begins with a temperature of e that takes 10,000 updates to melt: such a budget ends where it begins to learn. "At SAC's pace" is DSAC-T
with what SAC has of these: rates of 3e-4, the actor at every update, a first temperature of 1; with the authors' later critic
loss, or, where it says so, the paper's. In the table of returns it is counted on neither side.

Judged is the deterministic policy, of everybody in the same episodes (`edge_dsac.learn.evaluate`, first seed 1000003).
Deviations are between seeds (n - 1). Intervals are 95 % by Student's t, which for three seeds is 2.5 deviations wide to each
side: few of them can be apart. Seconds of learning are without judging; DSAC-T's are with compiling its update, once per run.
From run to run they tell more of the machine's load than of the algorithm."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number, from one value per seed."""

    mean: float
    std: float | None  # None of one seed
    low: float | None
    high: float | None

    def __str__(self) -> str:
        return show(self.mean) if self.std is None else f"{show(self.mean)} ± {show(self.std)}"

    @property
    def interval(self) -> str:
        return "one seed" if self.low is None or self.high is None else f"{show(self.low)} to {show(self.high)}"


@dataclass(frozen=True, slots=True)
class Row:
    """One algorithm in one task, all its seeds."""

    task: str
    algorithm: str
    variant: str
    seeds: list[int]
    best: Figure
    last: Figure
    learning_s_per_1000: float


def show(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def best_score(points: Sequence[dict[str, Any]], budget: int) -> float:
    """The paper's rule: the best of what was judged in the last tenth of the budget."""
    return max(point["mean"] for point in points if point["steps"] >= (1.0 - LAST_SHARE) * budget)


def last_score(points: Sequence[dict[str, Any]]) -> float:
    return float(points[-1]["mean"])


def figure(values: Sequence[float]) -> Figure:
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return Figure(mean, None, None, None)
    std = float(np.std(values, ddof=1))
    half = T_95.get(n - 1, T_95[max(known for known in T_95 if known <= n - 1)]) * std / math.sqrt(n)
    return Figure(mean, std, mean - half, mean + half)


def overlap(a: Figure, b: Figure) -> bool | None:
    """None where an interval is missing: nobody can tell."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return None
    return a.low <= b.high and b.low <= a.high


def rows_of(cells: Sequence[dict[str, Any]]) -> list[Row]:
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for words in cells:
        cell = cell_in(words["plan"])
        groups.setdefault((cell.task, cell.algorithm, cell.variant), []).append(words)
    return [row_of(task, algorithm, variant, of) for (task, algorithm, variant), of in groups.items()]


def row_of(task: str, algorithm: str, variant: str, cells: Sequence[dict[str, Any]]) -> Row:
    best = figure([best_score(words["points"], words["plan"]["budget"]) for words in cells])
    last = figure([last_score(words["points"]) for words in cells])
    cost = float(np.mean([1000.0 * words["learning_seconds"] / words["plan"]["budget"] for words in cells]))
    return Row(task, algorithm, variant, sorted(words["plan"]["cell"]["seed"] for words in cells), best, last, cost)


@dataclass(frozen=True, slots=True)
class Standing:
    """DSAC-T in one task against the best of the others."""

    task: str
    rule: str
    ours: float
    other: str
    others: float
    ahead: bool
    overlap: bool | None
    equal_seeds: bool

    def __str__(self) -> str:
        beside = f"{show(self.ours)} beside {show(self.others)} of {NAMES[self.other]}"
        sure = {None: "one seed: nobody can tell", True: "intervals overlap: not certain", False: "intervals apart"}[self.overlap]
        uneven = "" if self.equal_seeds else "; not the same seeds yet"
        return f"{'ahead' if self.ahead else '**not ahead**'}: {beside}; {sure}{uneven}"


def standing(task: str, rows: Sequence[Row], rule: str) -> Standing | None:
    """None where there is nobody to compare. Settings of our own beside the paper's are shown, and count on neither side."""
    here = {row.algorithm: row for row in rows if row.task == task and row.variant == "1" and row.algorithm not in BESIDE}
    ours = here.pop(OURS, None)
    if ours is None or not here:
        return None
    other = max(here.values(), key=lambda row: getattr(row, rule).mean)
    mine, theirs = getattr(ours, rule), getattr(other, rule)
    return Standing(
        task, rule, mine.mean, other.algorithm, theirs.mean, mine.mean > theirs.mean, overlap(mine, theirs), ours.seeds == other.seeds
    )  # fmt: skip


def score_table(rows: Sequence[Row]) -> list[str]:
    """Best first within a task."""
    lines = [
        f"| task | algorithm | seeds | {RULES['best']}: mean ± std | 95 % | {RULES['last']}: mean ± std | 95 % | learning s / 1000 steps |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task in tasks_in(rows):
        here = sorted((row for row in rows if row.task == task), key=lambda row: -row.best.mean)
        for i, row in enumerate(here):
            name = f"**{NAMES[row.algorithm]}**" if row.algorithm == OURS else NAMES[row.algorithm]
            lines.append(
                f"| {short(task) if i == 0 else ''} | {name} | {len(row.seeds)} | {row.best} | {row.best.interval} "
                f"| {row.last} | {row.last.interval} | {row.learning_s_per_1000:.1f} |"
            )
    return lines


def tasks_in(rows: Sequence[Row]) -> list[str]:
    known = list(BUDGETS)
    return sorted({row.task for row in rows}, key=lambda task: (known.index(task) if task in known else len(known), task))


def short(task: str) -> str:
    return task.rpartition("/")[2]


def standing_table(rows: Sequence[Row]) -> tuple[list[str], list[Standing]]:
    found = [standing(task, rows, rule) for task in tasks_in(rows) for rule in RULES]
    standings = [one for one in found if one is not None]
    lines = ["| task | score | DSAC-T is |", "|---|---|---|"]
    lines += [f"| {short(one.task)} | {RULES[one.rule]} | {one} |" for one in standings]
    for rule, name in RULES.items():
        of = [one for one in standings if one.rule == rule]
        ahead, sure = sum(one.ahead for one in of), sum(one.ahead and one.overlap is False for one in of)
        lines += ["", f"By the {name}: ahead in {ahead} of {len(of)} tasks, in {sure} of them with intervals apart."]
    return lines, standings


def bias_of(words: dict[str, Any]) -> dict[str, float]:
    """Over the checks of one run: mean |bias|, mean bias, and |bias| as a share of mean |realised|."""
    values = [point["value"] for point in words["points"] if point["value"]]
    absolute = float(np.mean([abs(value["bias"]) for value in values]))
    size = float(np.mean([abs(value["realised"]) for value in values]))
    signed = float(np.mean([value["bias"] for value in values]))
    return {"absolute": absolute, "signed": signed, "relative": absolute / size if size else math.inf}


def bias_section(cells: Sequence[dict[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    checked = [words for words in cells if cell_in(words["plan"]).variant == "1" and any(point["value"] for point in words["points"])]
    lines = [
        "| task | algorithm | seeds | \\|estimated - realised\\| mean ± std | 95 % | with its sign | share of \\|realised\\| |",
        "|---|---|---|---|---|---|---|",
    ]
    results: list[dict[str, Any]] = []
    absolutes: dict[str, dict[str, Figure]] = {}
    for task in tasks_in(rows_of(checked)):
        found = absolutes[task] = {}
        for algorithm in (OURS, *PACED, *SACS):
            of = [
                bias_of(words) for words in checked if cell_in(words["plan"]).task == task and cell_in(words["plan"]).algorithm == algorithm
            ]
            if not of:
                continue
            parts = {key: figure([one[key] for one in of]) for key in of[0]}
            found[algorithm] = parts["absolute"]
            results.append({"task": task, "algorithm": algorithm, "n": len(of), **{key: asdict(value) for key, value in parts.items()}})
            row = (len(of), parts["absolute"], parts["absolute"].interval, parts["signed"], parts["relative"])
            lines.append(f"| {short(task)} | {NAMES[algorithm]} | {' | '.join(map(str, row))} |")
    return [*lines, "", *smaller(absolutes, "bias")], results


def smaller(found: dict[str, dict[str, Figure]], what: str) -> list[str]:
    """Whether ours is the smaller one: for each form of ours beside each SAC a line per task, then in how many tasks it was."""
    lines, sums = [], []
    for own, name in itertools.product((OURS, *PACED), SACS):
        pairs = {task: (of[own], of[name]) for task, of in found.items() if own in of and name in of}
        for task, (ours, theirs) in pairs.items():
            sure = {None: "one seed each", True: "intervals overlap: not certain", False: "intervals apart"}[overlap(ours, theirs)]
            word = "smaller" if ours.mean < theirs.mean else "**not smaller**"
            lines.append(
                f"- {short(task)}: the {what} of {NAMES[own]} is {word} than that of {NAMES[name]}: {ours} beside {theirs}; {sure}"
            )
        if pairs:
            won = [overlap(*pair) is False for pair in pairs.values() if pair[0].mean < pair[1].mean]
            sums.append(
                f"- the {what} of {NAMES[own]} is smaller than that of {NAMES[name]} in {len(won)} of {len(pairs)} tasks, "
                f"in {sum(won)} of them with intervals apart"
            )
    return [*lines, *sums]


def scale_section(cells: Sequence[dict[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """The spread of one seed: its best score's largest less smallest over the three scales; seeds with all three count."""
    scaled_tasks = tasks_in([row for row in rows_of(cells) if row.variant != "1"])
    scores = {
        cell_in(words["plan"]): best_score(words["points"], words["plan"]["budget"])
        for words in cells
        if cell_in(words["plan"]).task in scaled_tasks and cell_in(words["plan"]).algorithm in (OURS, *PACED, *SACS)
    }
    lines = [
        f"| task | algorithm | seeds | {' | '.join(f'rewards x {scale}' for scale in REWARD_SCALES)} | spread over the scales |",
        "|---|---|---|---|---|---|---|",
    ]
    results: list[dict[str, Any]] = []
    spreads: dict[str, dict[str, Figure]] = {}
    for task in scaled_tasks:
        found = spreads[task] = {}
        for algorithm in (OURS, *PACED, *SACS):
            seeds = sorted({cell.seed for cell in scores if (cell.task, cell.algorithm) == (task, algorithm)})
            whole = [seed for seed in seeds if all(Cell(task, algorithm, seed, scale) in scores for scale in REWARD_SCALES)]
            if not whole:
                continue
            table = np.array([[scores[Cell(task, algorithm, seed, scale)] for scale in REWARD_SCALES] for seed in whole])
            columns = [figure(column) for column in table.T.tolist()]
            found[algorithm] = spread = figure((table.max(axis=1) - table.min(axis=1)).tolist())
            results.append({
                "task": task, "algorithm": algorithm, "n": len(whole), "spread": asdict(spread),
                "scores": {scale: asdict(column) for scale, column in zip(REWARD_SCALES, columns, strict=True)},
            })  # fmt: skip
            lines.append(f"| {short(task)} | {NAMES[algorithm]} | {len(whole)} | {' | '.join(map(str, columns))} | {spread} |")
    return [*lines, "", *smaller(spreads, "spread")], results


def head(cells: Sequence[dict[str, Any]], failed: Sequence[dict[str, Any]]) -> list[str]:
    settings, budgets = cells[0]["plan"]["settings"], budgets_of(cells)
    machines = sorted({
        f"{words['machine']['cpu']}, {words['machine']['cores']} cores, {words['machine']['system']}, Python {words['machine']['python']}"
        for words in cells
    })  # fmt: skip
    versions = sorted({", ".join(f"{name} {of}" for name, of in words["versions"].items() if of) for words in cells})
    sources = sorted({f"{str(words['source']['commit'])[:10]}{'+changes' if words['source']['changed'] else ''}" for words in cells})
    dates, loads = sorted(words["date"] for words in cells), [words["load_at_start"] for words in cells]
    lines = [
        "# DSAC-T beside its peers", "",
        f"- made by: {'; '.join(f'`{command}`' for command in sorted({words['command'] for words in cells if words['command']}))}",
        f"- date: {dates[0]} to {dates[-1]} UTC; source {', '.join(sources)}",
        f"- machine: {'; '.join(machines)}; one thread per run; load at the runs' start {min(loads):.1f} to {max(loads):.1f}",
        f"- versions: {'; '.join(versions)}",
        f"- budget in environment steps: {', '.join(f'{short(task)} {steps}' for task, steps in budgets.items())}",
        f"- off-policy algorithms: an update per {settings['steps_per_update']:g} environment steps, networks "
        f"{'-'.join(map(str, settings['hidden']))}, batch {settings['batch']}, warm-up {settings['warmup_share']:.0%} of the budget",
        f"- judged: {settings['evaluations']} times over the budget, {settings['episodes']} episodes each",
    ]  # fmt: skip
    if len(machines) > 1:
        lines.append("- **not all on one machine: compare returns, not seconds**")
    if failed:
        lines.append(f"- **failed, not in the table: {', '.join(cell_in(words['plan']).name for words in failed)}**")
    return lines


def budgets_of(cells: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Runs of different settings are not for one table."""
    budgets: dict[str, int] = {}
    for words in cells:
        cell, plan = cell_in(words["plan"]), words["plan"]
        if plan["settings"] != cells[0]["plan"]["settings"] or budgets.setdefault(cell.task, plan["budget"]) != plan["budget"]:
            raise CellError(f"{cell.name} has other settings or another budget than the rest: one folder is for one study's settings")
    return {task: budgets[task] for task in tasks_in(rows_of(cells))}


def report(cells: Sequence[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """(table.md, results.json)."""
    failed = [words for words in cells if "error" in words]
    good = [words for words in cells if "error" not in words]
    if not good:
        raise CellError(f"no finished cell ({len(failed)} failed): nothing to report; run some first, or look with --list")
    lines, rows = head(good, failed), rows_of(good)
    result: dict[str, Any] = {
        "settings": good[0]["plan"]["settings"], "budgets": budgets_of(good), "rows": [asdict(row) for row in rows],
        "machine": good[0]["machine"], "dates": sorted({words["date"] for words in good}), "commands": sorted({w["command"] for w in good}),
        "failed": [{"cell": cell_in(words["plan"]).name, "error": words["error"].splitlines()[-1]} for words in failed],
    }  # fmt: skip
    result["runs"] = [run_of(words) for words in good]
    returns = [row for row in rows if row.variant == "1" and row.algorithm in (OURS, *BESIDE, *PEERS)]
    if returns:
        table, standings = standing_table(returns)
        lines += ["", "## Returns", "", *([*table, ""] if standings else []), *score_table(returns), "", "![curves](curves.png)"]
        result["standings"] = [asdict(one) for one in standings]
    if any(row.variant != "1" for row in rows):
        table, result["reward_scale"] = scale_section(good)
        lines += ["", f"## Rewards of learning times 0.1, 1, 10 ({RULES['best']}, in the task's own rewards)", "", *table]
    if any(point["value"] for words in good for point in words["points"]):
        table, result["value_bias"] = bias_section(good)
        lines += [
            "",
            "## Value bias: the critics' smaller Q beside the soft return that came, over the last quarter of learning",
            "",
            *table,
        ]
    ablated = {row.task for row in rows if row.algorithm in ABLATIONS and row.algorithm != "sac"}
    if ablated:
        chosen = [row for row in rows if row.task in ablated and row.variant == "1" and row.algorithm in (OURS, *ABLATIONS)]
        lines += ["", "## DSAC-T without its refinements", "", *score_table(chosen)]
    return "\n".join([*lines, "", "## How it was made fair, and where it is not", "", FOOT, ""]), result


def run_of(words: dict[str, Any]) -> dict[str, Any]:
    """One run's curve and cost, so that results.json stands without the cells' own files."""
    points = words["points"]
    return {
        "cell": cell_in(words["plan"]).name, "steps": [point["steps"] for point in points],
        "mean": [float(f"{point['mean']:.6g}") for point in points], "std": [float(f"{point['std']:.4g}") for point in points],
        "learning_seconds": round(words["learning_seconds"], 1), "load_at_start": round(words["load_at_start"], 1), "date": words["date"],
    }  # fmt: skip


def draw_curves(cells: Sequence[dict[str, Any]], out: Path) -> None:
    """One panel per task; the mean over seeds, and a band from the lowest to the highest."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [words for words in cells if "error" not in words and cell_in(words["plan"]).algorithm in COLOURS]
    shown = [words for words in shown if cell_in(words["plan"]).variant == "1"]
    tasks = tasks_in(rows_of(shown))
    across = min(4, len(tasks) + 1)
    down = math.ceil((len(tasks) + 1) / across)  # one place is the legend's
    drawing, axes = plt.subplots(down, across, figsize=(4.2 * across, 3.3 * down), layout="constrained", squeeze=False)
    places = list(axes.flat)
    for task, axis in zip(tasks, places, strict=False):
        draw_task(axis, task, [words for words in shown if cell_in(words["plan"]).task == task])
    for axis in places[len(tasks) :]:
        axis.axis("off")
    drawn = {words["plan"]["cell"]["algorithm"] for words in shown}
    marks = [plt.Line2D([], [], color=COLOURS[name], lw=3 if name == OURS else 1.8, label=NAMES[name]) for name in COLOURS if name in drawn]
    places[len(tasks)].legend(
        handles=marks,
        loc="center",
        frameon=False,
        fontsize=11,
        title="mean; band: lowest to highest seed\n(what lies far below is cut off)",
    )
    unfinished = out.with_name(f".{out.name}")
    drawing.savefig(unfinished, dpi=90, format="png")
    plt.close(drawing)
    os.replace(unfinished, out)


def draw_task(axis: Any, task: str, cells: Sequence[dict[str, Any]]) -> None:
    everything = []
    seeds: set[int] = set()
    for name in reversed(COLOURS):  # ours on top
        of = [words for words in cells if words["plan"]["cell"]["algorithm"] == name]
        if not of:
            continue
        seeds |= {words["plan"]["cell"]["seed"] for words in of}
        steps = np.array([point["steps"] for point in of[0]["points"]])
        curves = np.array([np.interp(steps, [p["steps"] for p in words["points"]], [p["mean"] for p in words["points"]]) for words in of])
        axis.fill_between(steps / 1000, curves.min(axis=0), curves.max(axis=0), color=COLOURS[name], alpha=0.13, lw=0)
        axis.plot(steps / 1000, curves.mean(axis=0), color=COLOURS[name], lw=2.6 if name == OURS else 1.5)
        everything.append(curves.mean(axis=0))
    values = np.concatenate(everything)
    # One that falls into the void must not flatten the rest; ours (drawn last) is always seen.
    low, high = min(float(np.percentile(values, 5)), float(everything[-1].min())), float(values.max())
    margin = 0.06 * (high - low or 1.0)
    axis.set_ylim(low - margin, high + margin)
    axis.set_title(f"{short(task)}  ({len(seeds)} seed{'s' * (len(seeds) > 1)})", fontsize=11)
    axis.set_xlabel("thousand environment steps", fontsize=9)
    axis.set_ylabel("return", fontsize=9)
    axis.grid(True, color="#e6e8eb", lw=0.8)
    axis.spines[["top", "right"]].set_visible(False)


def write_report(folder: Path, cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    text, result = report(cells)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(text)
    parts = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in result.items())
    (folder / "results.json").write_text("{\n" + ",\n".join(parts) + "\n}\n")
    if any(cell_in(words["plan"]).algorithm in COLOURS and "error" not in words for words in cells):
        draw_curves(cells, folder / "curves.png")
    return result
