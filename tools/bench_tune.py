"""Does fine-tuning in the field work? Sessions on robots that are not as designed, beside the control that could refute it.

    python tools/bench_tune.py                        the whole study; goes on where it stopped
    python tools/bench_tune.py --minutes 60 --jobs 2  starts nothing new after an hour
    python tools/bench_tune.py --list                 what is there and what is missing
    python tools/bench_tune.py --hidden my.toml --recipes full control --policies 3
    python tools/bench_tune.py --known bench/tune.json --first 10 --policies 3 --out bench/tune.json      three more policies
    python tools/bench_tune.py --report --out bench/tune.json
    python tools/bench_tune.py --robot rover --runs runs/tune-rover --policies 3 --drawn 0 --recipes full control

Base policies are trained with `narrow` randomisation (a robot built with care), one per seed; the oracle of a hidden set is the mean of
policies trained on that very robot. A session flies the real loop and firmware on the hidden body in simulated time with the real
tuner, its gate and its trials (tools/tune_cell.py). Recovered is (after - before) / (oracle - before). `control` learns as often as
`full` from simulated anchors alone, for 180 s; `no-gate` is `full` with every candidate driving at once. --hidden FILE holds one set
of ranges (as in sim/randomization) or several as tables. Each session is a process of one thread and leaves one file under --runs.

Exit codes: 0 all there, 1 some failed, 2 wrong options, 3 stopped by --minutes with sessions left, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tomllib

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
from tune_cell import Cell, score
from tune_report import summary, table

from edge_dsac.bundle.actor import load_actor
from edge_dsac.learn.run_folder import machine, source_state
from edge_dsac.spec.robot import load_robot

Rows = list[dict[str, Any]]
CHILD = ROOT / "tools" / "tune_cell.py"
RECIPES: dict[str, dict[str, Any]] = {
    "full": {}, "control": {"real": False, "marks": (60.0, 180.0)}, "last-layer": {"recipe": "last-layer"},
    "low-rank": {"recipe": "low-rank"}, "edit": {"recipe": "edit"}, "critic": {"recipe": "critic"}, "no-gate": {"gate": False},
}  # fmt: skip
EVERYWHERE = ("full", "control")  # flown on the drawn robots too
LAPS = {"balance_bot": "brisk", "rover": "drive"}  # what each robot is asked for while it is tuned
ORACLE_SEEDS = (100, 101)
LOOK_S = 0.5
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}

# A robot that was used: between the design and the worst of sim/randomization, drawn evenly. Chosen before anything was flown on it.
USED = {
    "mass_scale": (1.0, 1.5), "com_up_m": (0.0, 0.012), "com_forward_m": (-0.002, 0.002), "motor_constant_scale": (0.7, 1.0),
    "friction_scale": (1.0, 2.5), "damping_scale": (1.0, 2.5), "wheel_radius_scale": (0.95, 1.0), "ground_friction_scale": (0.8, 1.0),
    "delay_s": (0.012, 0.025), "dead_band": (0.04, 0.09), "battery_scale": (0.9, 1.0), "battery_ohm": (0.1, 0.25),
    "gyro_noise_rad_s": (0.003, 0.01), "accel_noise_m_s2": (0.05, 0.2), "gyro_bias_rad_s": (-0.02, 0.02),
    "accel_bias_m_s2": (-0.15, 0.15), "radar_noise_m": (0.02, 0.02), "radar_dropout": (0.02, 0.02),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Study:
    """Where things lie, and on which bodies is flown."""

    robot: str
    runs: Path
    hidden: dict[str, str]  # name -> shipped set or file
    known: Rows = field(default_factory=list)  # of an earlier report

    def base(self, seed: int) -> Path:
        return self.runs / f"base-{seed}"

    def oracle(self, name: str, seed: int) -> Path:
        return self.runs / f"oracle-{name}-{seed}"

    def path(self, name: str, cell: Cell) -> Path:
        return self.runs / "cells" / f"{Path(cell.base).name}.{Path(cell.hidden).stem}.{name}.json"

    def name_of(self, hidden: str) -> str:
        return next(name for name, path in self.hidden.items() if path == hidden)

    def rows(self, name: str, cell: Cell) -> Rows:
        """Of one session: from its own file, else as an earlier report tells; none while it was not flown."""
        if self.path(name, cell).exists():
            told = {"recipe": name, "hidden": self.name_of(cell.hidden)}
            return [{**row, **told} for row in json.loads(self.path(name, cell).read_text())["rows"] if row["robot_s"] in cell.marks]
        which = (name, Path(cell.base).name, self.name_of(cell.hidden))
        rows = [row for row in self.known if session_of(row) == which and row["robot_s"] in cell.marks]
        return rows if len(rows) == len(cell.marks) else []


def session_of(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["recipe"], row["policy"], row["hidden"]


def drawn_sets(folder: Path, count: int) -> dict[str, str]:
    """So many robots, each drawn from USED by its own number."""
    found = {}
    for number in range(1, count + 1):
        generator = np.random.default_rng([2026, number])
        values = {name: round(float(generator.uniform(*ends)), 5) for name, ends in USED.items()}
        found[f"used-{number}"] = str(write_set(folder / f"used-{number}.toml", {name: [value, value] for name, value in values.items()}))
    return found


def sets_of(file: Path, folder: Path) -> dict[str, str]:
    """One set of ranges, or several as tables."""
    words = tomllib.loads(file.read_text())
    several = {name: ranges for name, ranges in words.items() if isinstance(ranges, dict)}
    if not several:
        return {file.stem: str(file)}
    return {name: str(write_set(folder / f"{name}.toml", ranges)) for name, ranges in several.items()}


def write_set(path: Path, ranges: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name} = {list(ends)}\n" for name, ends in ranges.items()))
    return path


# ---- what is needed


def cells_of(study: Study, args: argparse.Namespace) -> list[tuple[str, Cell]]:
    """In order of what is worth knowing first: the recipe and its control on all policies, other robots, other recipes."""
    first, *others = study.hidden
    always = {"marks": tuple(args.marks), "lap": LAPS[study.robot]}

    def cells(names: list[str], policies: int, hidden: list[str]) -> list[tuple[str, Cell]]:
        return [
            (name, Cell(**{"base": str(study.base(seed)), "hidden": study.hidden[where], "seed": seed, **always, **RECIPES[name]}))
            for seed in range(args.first, args.first + policies)
            for where in hidden
            for name in names
        ]

    everywhere = [name for name in EVERYWHERE if name in args.recipes]
    rest = [name for name in args.recipes if name not in EVERYWHERE]
    few = min(args.policies, args.few)
    return cells(everywhere, args.policies, [first]) + cells(rest, few, [first]) + cells(everywhere, few, others)


def train(robot: str, path: Path, seed: int, ranges: str) -> bool:
    """As a user would. True if there is a whole run now."""
    if not (path / "seconds.json").exists():
        tell(f"training {path.name} on {Path(ranges).stem}")
        begun = time.monotonic()
        words = ["train", "--robot", robot, "--seed", str(seed), "--out", str(path), "--episode.randomization", ranges]
        words += ["--resume", "auto", "--film-s", "0", "--threads", "1"]
        command = [sys.executable, "-m", "edge_dsac.cli.main", *words]
        if subprocess.run(command, stdout=subprocess.DEVNULL, env={**os.environ, **ONE_THREAD}).returncode:
            return False
        (path / "seconds.json").write_text(json.dumps(time.monotonic() - begun))
    return True


def oracle_score(study: Study, name: str) -> float | None:
    """Mean return of the policies trained on that robot, here or for an earlier report; None while there are none."""
    shelf = study.runs / "oracles.json"
    known = json.loads(shelf.read_text()) if shelf.exists() else {}
    for seed in ORACLE_SEEDS:
        path = study.oracle(name, seed)
        if path.name not in known and (path / "seconds.json").exists():
            spec = load_robot(study.robot)
            known[path.name] = score(load_actor(path / "policy.npz", spec), spec, study.hidden[name])["mean"]
            shelf.write_text(json.dumps(known, indent=1) + "\n")
    found = [known[study.oracle(name, seed).name] for seed in ORACLE_SEEDS if study.oracle(name, seed).name in known]
    told = [row["oracle"] for row in study.known if row["hidden"] == name and row["oracle"] is not None]
    return float(np.mean(found)) if len(found) == len(ORACLE_SEEDS) else told[0] if told else None


# ---- doing it


def fly(study: Study, cells: list[tuple[str, Cell]], args: argparse.Namespace) -> tuple[int, int]:
    """(failed, left)"""
    begun, failed = time.monotonic(), 0
    queue = [(name, cell) for name, cell in cells if not study.rows(name, cell)]
    running: list[tuple[subprocess.Popen[bytes], str, Cell, float]] = []
    done, total = 0, len(queue)
    try:
        while queue or running:
            late = args.minutes is not None and time.monotonic() - begun > 60 * args.minutes
            while queue and len(running) < args.jobs and not late:
                name, cell = queue.pop(0)
                if not all((train(study.robot, Path(cell.base), cell.seed, "narrow"), trained_oracles(study, cell))):
                    failed += 1
                    continue
                words = [sys.executable, str(CHILD), json.dumps(asdict(cell)), str(study.path(name, cell))]
                running.append((subprocess.Popen(words, env={**os.environ, **ONE_THREAD}), name, cell, time.monotonic()))
            if late and not running:
                break
            time.sleep(LOOK_S)
            for entry in [entry for entry in running if entry[0].poll() is not None]:
                running.remove(entry)
                process, name, cell, since = entry
                done, failed = done + 1, failed + bool(process.returncode)
                took, pace = time.monotonic() - since, (time.monotonic() - begun) / done
                said = "failed" if process.returncode else word_of(study, name, cell)
                tell(f"{done} of {total}  {study.path(name, cell).stem}: {said}, {took:.0f} s; {pace * (total - done) / 60:.0f} min to go")
    except KeyboardInterrupt:
        for process, *_ in running:
            process.terminate()
        raise
    return failed, len(queue)


def trained_oracles(study: Study, cell: Cell) -> bool:
    name = study.name_of(cell.hidden)
    return oracle_score(study, name) is not None or all(
        train(study.robot, study.oracle(name, seed), seed, cell.hidden) for seed in ORACLE_SEEDS
    )


def word_of(study: Study, name: str, cell: Cell) -> str:
    rows = study.rows(name, cell)
    return f"{rows[0]['before']:.0f} -> " + " / ".join(f"{row['after']:.0f}" for row in rows)


def gathered(study: Study, cells: list[tuple[str, Cell]]) -> Rows:
    """Everything an earlier report has, what was flown here in its place or behind it, with the oracle."""
    flown = [{**row, "oracle": oracle_score(study, row["hidden"])} for name, cell in cells for row in study.rows(name, cell)]
    here = {session_of(row) for row in flown}
    return [row for row in study.known if session_of(row) not in here] + flown


def told_before(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Where, when and by what the rows of an earlier report were flown."""
    return [*report.get("earlier", ()), {name: report[name] for name in ("command", "date", "machine", "source")}] if report else []


def text_of(ranges: str) -> str:
    return Path(ranges).read_text() if Path(ranges).exists() else ranges


def options(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", default="balance_bot", choices=LAPS, help="each has --runs of its own (default: %(default)s)")
    parser.add_argument("--policies", type=int, default=10, help="base policies, a seed each (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="of the first of them (default: %(default)s)")
    parser.add_argument("--few", type=int, default=3, help="of them, for the other recipes and the other robots (default: %(default)s)")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES, help="default: all")
    parser.add_argument("--hidden", type=Path, metavar="FILE", help="hidden parameter sets; default: the shipped one and --drawn others")
    parser.add_argument("--drawn", type=int, default=3, help="robots drawn at random beside the shipped one (default: %(default)s)")
    parser.add_argument("--marks", nargs="+", type=float, default=[60.0, 180.0, 300.0], metavar="S", help="of the robot's time")
    parser.add_argument("--runs", type=Path, default=Path("runs/tune"), help="policies and sessions (default: %(default)s)")
    parser.add_argument(
        "--known", type=Path, metavar="REPORT", help="an earlier report of this study: its sessions are there, flown elsewhere"
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="start nothing new after so long")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--report", action="store_true", help="fly nothing; tell what is there")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    return parser.parse_args(words)


def main() -> int:
    args = options()
    sets = args.runs / "hidden"
    hidden = sets_of(args.hidden, sets) if args.hidden else {"hidden": "hidden", **drawn_sets(sets, args.drawn)}
    earlier = json.loads(args.known.read_text()) if args.known else {}
    study = Study(args.robot, args.runs, hidden, earlier.get("rows", []))
    cells = cells_of(study, args)
    if args.list:
        for name, cell in cells:
            print(f"{'there' if study.rows(name, cell) else '     '} {study.path(name, cell).stem}")
        return 0
    (args.runs / "cells").mkdir(parents=True, exist_ok=True)
    failed, left = (0, 0) if args.report else fly(study, cells, args)
    rows = gathered(study, cells)
    words = {
        "command": "python tools/bench_tune.py " + shlex.join(sys.argv[1:]), "date": time.strftime("%Y-%m-%d"), "machine": machine(),
        "source": source_state(), "earlier": told_before(earlier),
        "sets": {name: text_of(path) for name, path in study.hidden.items()}, "asked": len(cells),
        "missing": sum(not study.rows(name, cell) for name, cell in cells), "summary": summary(rows), "rows": rows,
    }  # fmt: skip
    if args.out:
        args.out.write_text(json.dumps(words, indent=1) + "\n")
    print(json.dumps(words) if args.json else table(words["summary"]))
    return 1 if failed else 3 if left else 0


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
