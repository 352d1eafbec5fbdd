"""What is to be learnt by whom: the studies of bench_returns.py as cells, their order, and which of them lie finished on the disk.

A cell is (task, algorithm, variant, seed): one run, one process, one file. A study is a set of cells; two studies that need the
same run share it. Knows no learner. Rule that must stay true: a file stands only for the very settings written in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Environment steps. Far below the paper's 30 million: what two shared cores finish in half a day, all studies together.
BUDGETS = {
    "InvertedDoublePendulum-v5": 30_000, "Reacher-v5": 20_000, "EdgeDsac/BalanceBot-v0": 30_000, "EdgeDsac/Rover-v0": 30_000,
    "Pusher-v5": 20_000, "Swimmer-v5": 20_000, "Hopper-v5": 40_000,
}  # fmt: skip
ROBOTS = {"EdgeDsac/BalanceBot-v0": "balance_bot", "EdgeDsac/Rover-v0": "rover"}
OURS = "dsac-t"
SHIPPED = "dsac-t-shipped"
# At SAC's pace: its learning rates and first temperature, the actor at every update; with the authors' later critic loss, and with the
# paper's. A budget of a hundredth of the paper's is over before the paper's own settings have left their beginning.
QUICKER, QUICKER_PAPER = PACED = ("dsac-t-quick", "dsac-t-quick-paper")
BESIDE = (*PACED, SHIPPED)  # shown, and counted on neither side
PEERS = ("sb3-sac", "sb3-td3", "sb3-ddpg", "sb3-ppo", "sb3-trpo")
SACS = ("sac", "sb3-sac")  # this project's ablation of DSAC-T, and stable-baselines3's
ABLATIONS = ("no-expected-value", "no-twin", "no-bound", "dsac-v1", "sac")
REWARD_SCALES = ("0.1", "1", "10")
TWO_TASKS = ("InvertedDoublePendulum-v5", "EdgeDsac/BalanceBot-v0")  # of reward-scale with the paper's settings, and of ablation
BIAS_TASKS = ("InvertedDoublePendulum-v5", "Hopper-v5")
STUDIES = ("returns", "reward-scale", "value-bias", "ablation")


class CellError(ValueError):
    """Cells that cannot be what is asked for; says what to do."""


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    task: str
    algorithm: str
    seed: int
    variant: str = "1"  # what the rewards of learning are multiplied by; scores are always in the task's own

    @property
    def name(self) -> str:
        scale = "" if self.variant == "1" else f".scale{self.variant}"
        return f"{self.task.rpartition('/')[2]}.{self.algorithm}{scale}.s{self.seed}"


@dataclass(frozen=True, slots=True)
class Settings:
    """The same for every cell."""

    steps_per_update: float = 2.0
    """environment steps per update of every off-policy algorithm"""
    hidden: tuple[int, ...] = (128, 128)
    """widths of actor and critics of every off-policy algorithm"""
    batch: int = 256
    """rows per update of every off-policy algorithm"""
    warmup_share: float = 0.05
    """of the budget, before the first update of an off-policy algorithm"""
    evaluations: int = 20
    """over the budget, evenly"""
    episodes: int = 10
    """per evaluation"""


def cells_of(study: str, tasks: Sequence[str], seeds: Sequence[int], shipped: Sequence[str]) -> list[Cell]:
    """`shipped`: the tasks with settings of their own."""
    pairs: list[tuple[str, str, str]] = []
    for task in tasks:
        if study == "returns":
            own = (OURS, QUICKER, SHIPPED) if task in shipped else (OURS, QUICKER)
            pairs += [(task, algorithm, "1") for algorithm in (*own, *PEERS)]
        elif study == "reward-scale":
            scaled = (OURS, *PACED, SACS[0]) if task in TWO_TASKS else (QUICKER, SACS[0])
            pairs += [(task, algorithm, scale) for scale in REWARD_SCALES for algorithm in scaled]
        elif study == "value-bias" and task in BIAS_TASKS:
            pairs += [(task, algorithm, "1") for algorithm in (OURS, QUICKER, *SACS)]
        elif study == "ablation" and task in TWO_TASKS:
            pairs += [(task, algorithm, "1") for algorithm in (OURS, *ABLATIONS)]
    return [Cell(task, algorithm, seed, variant) for seed in seeds for task, algorithm, variant in pairs]


def ordered(studies: Sequence[str], tasks: Sequence[str], seeds: Sequence[int], shipped: Sequence[str] = ()) -> list[Cell]:
    """Seed by seed over everything, each run once: an interrupted study has about as many seeds of one algorithm as of another."""
    cells = [cell for seed in seeds for study in studies for cell in cells_of(study, tasks, [seed], shipped)]
    return list(dict.fromkeys(cells))


def plan_of(cell: Cell, settings: Settings, budget: int) -> dict[str, Any]:
    """All that the cell's numbers depend on, but for the source, the machine and the versions; as JSON has it."""
    return dict(json.loads(json.dumps({"cell": asdict(cell), "budget": budget, "settings": asdict(settings)})))


def evaluation_steps(budget: int, evaluations: int) -> list[int]:
    return [budget * i // evaluations for i in range(1, evaluations + 1)]


def path_of(folder: Path, cell: Cell) -> Path:
    return folder / f"{cell.name}.json"


def write_cell(path: Path, words: dict[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    unfinished.write_text(json.dumps(words) + "\n")
    os.replace(unfinished, path)


def read_cell(folder: Path, cell: Cell, plan: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """None where there is none. With a plan: another one in the file is an error."""
    path = path_of(folder, cell)
    if not path.exists():
        return None
    words: dict[str, Any] = json.loads(path.read_text())
    if plan is not None and words["plan"] != plan:
        changed = [key for key in ("budget", "settings") if words["plan"][key] != plan[key]]
        was, now = ({key: side[key] for key in changed} for side in (words["plan"], plan))
        raise CellError(f"{path} was made with {was}, asked for is {now}: give the same options, another --out, or delete the file")
    return words


@dataclass(frozen=True, slots=True)
class Shelf:
    """What there is of a list of cells."""

    finished: list[Cell]
    failed: list[Cell]
    missing: list[Cell]

    def due(self, retry: bool) -> list[Cell]:
        return [*self.missing, *self.failed] if retry else self.missing


def look_up(folder: Path, cells: Sequence[Cell], plans: dict[Cell, dict[str, Any]]) -> Shelf:
    found = {cell: read_cell(folder, cell, plans[cell]) for cell in cells}
    failed = [cell for cell, words in found.items() if words is not None and "error" in words]
    finished = [cell for cell, words in found.items() if words is not None and "error" not in words]
    return Shelf(finished, failed, [cell for cell, words in found.items() if words is None])


def read_all(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def cell_in(plan: dict[str, Any]) -> Cell:
    return Cell(**plan["cell"])
