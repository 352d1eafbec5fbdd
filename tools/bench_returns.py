"""Returns of DSAC-T beside its peers: same task, same seeds, same budget, same machine, same judgement.

    python tools/bench_returns.py                       the whole returns study; goes on where it stopped
    python tools/bench_returns.py --minutes 60          starts nothing new after an hour
    python tools/bench_returns.py --study returns reward-scale value-bias ablation --seeds 0 1 2
    python tools/bench_returns.py --list                what is there, what is missing, how long it may take
    python tools/bench_returns.py --report              bench/returns/table.md, results.json, curves.png from what is there
    python tools/bench_returns.py --retry               runs what failed once more, after what is missing

Studies: returns (this project's DSAC-T, and as shipped for a robot; stable-baselines3's SAC, TD3, DDPG, PPO; sb3-contrib's TRPO),
reward-scale (rewards of learning times 0.1, 1, 10: DSAC-T at SAC's pace beside SAC; with the paper's settings on two tasks), value-bias
(what the critics say against what comes), ablation (DSAC-T without each of its refinements). A run that two studies need is made once.
Every cell is a process of its own with one thread and leaves one file in OUT/cells when it is whole; seed 0 of everything comes first, so
that a stopped study is balanced. Ctrl-C ends the runs under way (they start anew next time) and leaves the finished ones. The peers need
`pip install -e .[bench]`.

Exit codes: 0 all asked-for cells are finished (or the report is written), 1 some failed, 2 wrong options or other settings on the disk,
3 stopped by --minutes with cells left, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import returns_cells
from returns_cells import BUDGETS, ROBOTS, STUDIES, Cell, CellError, Settings, Shelf, path_of, read_all

CHILD = ROOT / "tools" / "returns_child.py"
LOOK_S = 0.5
LINE_S = 20.0  # between progress lines where nobody looks at a terminal
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
ERROR_CHARACTERS = 2_000


@dataclass(slots=True)
class Running:
    """A cell under way."""

    cell: Cell
    process: subprocess.Popen[bytes]
    said: Any  # the file with what it wrote
    begun: float


@dataclass(slots=True)
class Study:
    """Cells on their way to files."""

    folder: Path
    plans: dict[Cell, dict[str, Any]]
    queue: list[Cell]
    command: str
    running: list[Running] = field(default_factory=list)
    finished: int = 0
    failed: list[Cell] = field(default_factory=list)

    def start(self, cell: Cell) -> None:
        said = tempfile.TemporaryFile()  # noqa: SIM115  closed in `collect`
        words = [sys.executable, str(CHILD), json.dumps(self.plans[cell]), str(path_of(self.folder, cell))]
        # A session of its own: Ctrl-C on the terminal is for the parent, which ends its children itself.
        process = subprocess.Popen(
            words, stdout=said, stderr=said, env={**os.environ, **ONE_THREAD, "BENCH_COMMAND": self.command}, start_new_session=True
        )
        self.running.append(Running(cell, process, said, time.monotonic()))

    def collect(self, say: Callable[[str], None]) -> None:
        for one in [one for one in self.running if one.process.poll() is not None]:
            self.running.remove(one)
            path, code = path_of(self.folder, one.cell), one.process.returncode
            seconds = time.monotonic() - one.begun
            if code == 0 and path.exists():
                self.finished += 1
                last = json.loads(path.read_text())["points"][-1]
                say(f"{one.cell.name}: {last['mean']:.1f} at {last['steps']} steps, {clock(seconds)}")
            else:
                error = tail(one.said) or f"exit code {code}, nothing said"
                returns_cells.write_cell(path, {"plan": self.plans[one.cell], "error": error, "exit_code": code, "seconds": seconds})
                self.failed.append(one.cell)
                say(f"{one.cell.name}: FAILED: {error.splitlines()[-1]}")
            one.said.close()

    def stop(self) -> None:
        for one in self.running:
            one.process.terminate()
        for one in self.running:
            one.process.wait()


def tail(said: Any) -> str:
    said.seek(0)
    return str(said.read().decode(errors="replace").strip()[-ERROR_CHARACTERS:])


def work(study: Study, jobs: int, minutes: float, rates: dict[str, float]) -> None:
    """Until everything is done, or the time is up and what was begun is over."""
    begun, said = time.monotonic(), -LINE_S
    total = len(study.queue)
    terminal = sys.stdout.isatty()

    def say(line: str) -> None:
        print(f"\r{line:<110}" if terminal else line, flush=True)

    while study.running or study.queue:
        up = time.monotonic() - begun > 60.0 * minutes
        if up and not study.running:
            return
        while study.queue and len(study.running) < jobs and not up:
            study.start(study.queue.pop(0))
        time.sleep(LOOK_S)
        before = study.finished
        study.collect(say)
        if study.finished != before:
            rates.update(rates_of(read_all(study.folder)))
        if terminal or time.monotonic() - said > LINE_S:
            said = time.monotonic()
            line = progress_line(study, total, said, jobs, rates)
            print(f"\r{line:<110}" if terminal else line, end="" if terminal else "\n", flush=True)


def progress_line(study: Study, total: int, now: float, jobs: int, rates: dict[str, float]) -> str:
    done = study.finished + len(study.failed)
    names = ", ".join(one.cell.name for one in study.running)
    lived = sum(now - one.begun for one in study.running)
    left = seconds_left([*study.queue, *(one.cell for one in study.running)], study.plans, rates)
    eta = "not known yet" if left is None else clock(max(0.0, left - lived) / jobs)
    return f"{done}/{total} cells, {len(study.failed)} failed, left about {eta}; now {names}"


def rates_of(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Seconds per environment step of each algorithm, from the cells there are."""
    spent: dict[str, tuple[float, float]] = {}
    for words in found:
        if "error" not in words:
            name = words["plan"]["cell"]["algorithm"]
            seconds, steps = spent.get(name, (0.0, 0.0))
            spent[name] = (seconds + words["seconds"], steps + words["plan"]["budget"])
    return {name: seconds / steps for name, (seconds, steps) in spent.items()}


def seconds_left(cells: Sequence[Cell], plans: dict[Cell, dict[str, Any]], rates: dict[str, float]) -> float | None:
    """On one core; None while nothing has finished. What has never run is taken for as slow as the slowest."""
    if not rates:
        return None
    slowest = max(rates.values())
    return sum(rates.get(cell.algorithm, slowest) * plans[cell]["budget"] for cell in cells)


def clock(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    standard = Settings()
    parser.add_argument("--study", nargs="+", choices=STUDIES, default=["returns"], help="which cells (default: returns)")
    parser.add_argument("--tasks", nargs="+", default=list(BUDGETS), metavar="ID", help=f"default: {' '.join(BUDGETS)}")
    parser.add_argument("--algorithms", nargs="+", metavar="NAME", help="only these of the study's")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--steps", type=int, help="environment steps for every task; default: each task's own, 20 to 40 thousand")
    parser.add_argument(
        "--steps-per-update", type=float, default=standard.steps_per_update,
        help="environment steps per update of every off-policy algorithm, a whole number or one over it (default: %(default)s: an update "
        "costs this machine some 10 ms; the literature has 1)",
    )  # fmt: skip
    parser.add_argument(
        "--hidden", nargs="+", type=int, default=list(standard.hidden),
        help="widths of all off-policy networks (default: 128 128; the paper has 256 256 256)",
    )  # fmt: skip
    parser.add_argument("--batch", type=int, default=standard.batch, help="rows per update, all off-policy (default: %(default)s)")
    parser.add_argument("--evaluations", type=int, default=standard.evaluations, help="over the budget, evenly (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=standard.episodes, help="of each evaluation (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="cells at once (default: cores, here %(default)s)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing new after so many minutes")
    parser.add_argument("--retry", action="store_true", help="run failed cells once more")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "returns", help="default: bench/returns")
    parser.add_argument("--list", action="store_true", help="what is there and what is missing; runs nothing")
    parser.add_argument("--report", action="store_true", help="table.md, results.json and curves.png from what is there; runs nothing")
    parser.add_argument("--json", action="store_true", help="with --report or --list: one JSON object on standard output")
    return parser.parse_args(words)


def settings_of(args: argparse.Namespace) -> Settings:
    per = args.steps_per_update
    if per <= 0 or (per % 1.0 and (1.0 / per) % 1.0):
        raise CellError(f"--steps-per-update {per}: expected 1, 2, 3 ... or 1/2, 1/4 ...: the peers count in whole steps and updates")
    return Settings(per, tuple(args.hidden), args.batch, evaluations=args.evaluations, episodes=args.episodes)


def shipped_tasks(tasks: Sequence[str]) -> list[str]:
    from edge_dsac.cli.train import preset_of

    return [task for task in tasks if task in ROBOTS and preset_of(ROBOTS[task])]


def plans_of(args: argparse.Namespace) -> dict[Cell, dict[str, Any]]:
    unknown = [task for task in args.tasks if task not in BUDGETS]
    if unknown and not args.steps:
        raise CellError(f"{unknown[0]}: has no budget here; give --steps, or one of {', '.join(BUDGETS)}")
    cells = returns_cells.ordered(args.study, args.tasks, args.seeds, shipped_tasks(args.tasks))
    if args.algorithms:
        known = {cell.algorithm for cell in cells}
        wrong = [name for name in args.algorithms if name not in known]
        if wrong:
            raise CellError(f"--algorithms {wrong[0]}: not in this study; there are {', '.join(sorted(known))}")
        cells = [cell for cell in cells if cell.algorithm in args.algorithms]
    settings = settings_of(args)
    return {cell: returns_cells.plan_of(cell, settings, args.steps or BUDGETS[cell.task]) for cell in cells}


def print_list(plans: dict[Cell, dict[str, Any]], shelf: Shelf, folder: Path, args: argparse.Namespace) -> None:
    left = seconds_left(shelf.missing, plans, rates_of(read_all(folder)))
    if args.json:
        states = {name: [cell.name for cell in getattr(shelf, name)] for name in Shelf.__slots__}
        print(json.dumps({**states, "seconds_left_on_one_core": left}))
        return
    for state in Shelf.__slots__:
        for cell in getattr(shelf, state):
            print(f"{state:9} {cell.name:50} {plans[cell]['budget']:7d} steps")
    print(f"{len(shelf.finished)} finished, {len(shelf.failed)} failed, {len(shelf.missing)} missing of {len(plans)} in {folder}")
    if left is not None:
        print(f"what is missing takes about {clock(left / args.jobs)} with {args.jobs} at once, going by what has finished")


def print_report(args: argparse.Namespace, folder: Path) -> int:
    """Of every cell in the folder, whatever study it was made for."""
    from returns_report import write_report

    result = write_report(args.out, read_all(folder))
    if args.json:
        print(json.dumps(result))
    else:
        print((args.out / "table.md").read_text())
        print(f"written: {', '.join(str(args.out / name) for name in ('table.md', 'results.json', 'curves.png'))}")
    return 0


def run(args: argparse.Namespace) -> int:
    folder = args.out / "cells"
    if args.report:
        return print_report(args, folder)
    plans = plans_of(args)
    shelf = returns_cells.look_up(folder, list(plans), plans)
    if args.list:
        print_list(plans, shelf, folder, args)
        return 0
    return run_cells(args, plans, shelf, folder)


def run_cells(args: argparse.Namespace, plans: dict[Cell, dict[str, Any]], shelf: Shelf, folder: Path) -> int:
    due = shelf.due(args.retry)
    print(f"{len(due)} cells to run, {len(shelf.finished)} finished, {len(shelf.failed)} failed before; {args.jobs} at once, in {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    study = Study(folder, plans, due, command_line())
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CellError(f"{folder}: another bench_returns.py is at work in it; give another --out, or wait") from None
        for wish in (signal.SIGINT, signal.SIGTERM):  # set here: a shell's background job would ignore the first
            signal.signal(wish, stop)
        try:
            work(study, args.jobs, args.minutes, rates_of(read_all(folder)))
        except KeyboardInterrupt:
            print(f"\nstopped; {study.finished} cells were finished, {len(study.running)} under way are lost; the same command goes on")
            return 130
        finally:
            study.stop()
    if study.queue:
        print(f"time is up: {len(study.queue)} cells are left; the same command goes on")
        return 3
    left_failed = study.failed or (shelf.failed and not args.retry)
    if left_failed:
        print("some cells failed; their files say why, --retry runs them again")
    return 1 if left_failed else 0


def stop(*_: Any) -> None:
    raise KeyboardInterrupt


def command_line() -> str:
    return shlex.join(["python", "tools/bench_returns.py", *sys.argv[1:]])


def main() -> int:
    args = arguments()
    try:
        return run(args)
    except CellError as error:
        print(f"bench_returns: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
