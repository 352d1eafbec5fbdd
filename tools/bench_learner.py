"""What the tuner's update costs on one core: compiled and plain in turn, a process each, and what they hold in memory.

    python tools/bench_learner.py --rounds 20 --json --out bench/learner.json

Batch 256, half of it the robot's rows, critics 128-128, actor 64-64, as `edge-dsac tune` runs it: sampling, noise, and the checks at a
round's end are part of a round. The two take turns, round by round, so that what else runs on the machine hits both. The ratio is
the median over rounds of plain over compiled. `resident_mb` is each process's, with a full buffer of 60,000 rows; `first_s`: until it
was ready.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench_loop import machine
from tunable_policy import GAMMA, N_STEP, made_up_columns, make_carried

from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec, load_robot

CRITICS, ACTOR = (128, 128), (64, 64)
ROWS = 60_000  # as `tune start` keeps by default
FORMS = ("on", "off")


def made_up_rows(spec: RobotSpec, count: int) -> Any:
    from edge_dsac.learn.transitions import Rows

    columns = made_up_columns(np.random.default_rng(1), count, ObservationLayout(spec).size, len(spec.actions))
    index, zeros = np.arange(count, dtype=np.uint64), np.zeros(count, np.uint64)
    t_ns = np.arange(count, dtype=np.int64) * (1_000_000_000 // spec.rates.control_hz)
    small = np.zeros(count, np.uint8)
    return Rows(**columns, index=index, t_host_ns=t_ns, bundle_id=zeros, calibration_id=zeros, mode=small, label=small, flight=zeros)


def child(form: str, recipe: str, updates: int) -> int:
    """Answers every line with the seconds that a round took."""
    begun = time.monotonic()
    from edge_dsac.cli.tuning import memory_mb, update_of
    from edge_dsac.learn.buffer import Buffer
    from edge_dsac.learn.compiled import prepare
    from edge_dsac.learn.learner import Learner, Tuning

    prepare(1)
    said, sys.stdout = sys.stdout, sys.stderr  # `update_of` tells people what it does
    spec = load_robot("balance_bot")
    carried, tuning = make_carried(spec, CRITICS, ACTOR), Tuning(recipe=recipe, round_updates=updates)  # type: ignore[arg-type]
    learner = Learner(carried, tuning, update_of(form, Learner(carried, tuning)))
    with tempfile.TemporaryDirectory() as name:
        buffer = Buffer(name, ObservationLayout(spec).size, len(spec.actions), ROWS, fingerprint=f"{GAMMA} {N_STEP}")
        buffer.extend(made_up_rows(spec, ROWS))
        learner.round(buffer.rows, 1)
        print(json.dumps({"first_s": time.monotonic() - begun}), file=said, flush=True)
        for number, _ in enumerate(sys.stdin, start=2):
            wall, cpu = time.monotonic(), time.process_time()
            learner.round(buffer.rows, number)
            words = {"wall_s": time.monotonic() - wall, "cpu_s": time.process_time() - cpu, "resident_mb": memory_mb()}
            print(json.dumps(words), file=said, flush=True)
    return 0


class Form:
    """One of the two, in a process of its own on one core."""

    def __init__(self, form: str, recipe: str, updates: int, cpu: int) -> None:
        self.form, self.updates = form, updates
        command = [sys.executable, str(Path(__file__).resolve()), "--child", form, "--recipe", recipe, "--updates", str(updates)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        os.sched_setaffinity(self.process.pid, {cpu})
        self.first_s = float(self.answer()["first_s"])
        self.rounds: list[dict[str, float]] = []

    def answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"bench_learner: --compile {self.form}: ended by itself; what it said is above")
        found: dict[str, float] = json.loads(line)
        return found

    def round(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.rounds.append(self.answer())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def figures(rounds: list[dict[str, float]], updates: int, first_s: float) -> dict[str, float]:
    wall = np.array([one["wall_s"] for one in rounds])
    return {
        "updates_per_s": round(updates / float(np.median(wall)), 1),
        "updates_per_cpu_s": round(updates / float(np.median([one["cpu_s"] for one in rounds])), 1),
        "slowest_round_s": round(float(wall.max()), 4), "resident_mb": round(max(one["resident_mb"] for one in rounds), 1),
        "first_s": round(first_s, 1),
    }  # fmt: skip


def ratio(compiled: list[dict[str, float]], plain: list[dict[str, float]], what: str) -> float:
    """How many times as quick the compiled one is; each round beside its neighbour."""
    return round(float(np.median([b[what] / a[what] for a, b in zip(compiled, plain, strict=True)])), 3)


def measure(recipe: str, rounds: int, updates: int, cpu: int) -> dict[str, Any]:
    forms = {form: Form(form, recipe, updates, cpu) for form in FORMS}
    for k in range(rounds):
        for form in FORMS if k % 2 else FORMS[::-1]:
            forms[form].round()
    for one in forms.values():
        one.close()
    compiled, plain = forms["on"], forms["off"]
    return {
        "recipe": recipe, "rounds": rounds, "updates_a_round": updates, "compiled": figures(compiled.rounds, updates, compiled.first_s),
        "plain": figures(plain.rounds, updates, plain.first_s), "times_as_quick": ratio(compiled.rounds, plain.rounds, "wall_s"),
        "times_as_quick_cpu": ratio(compiled.rounds, plain.rounds, "cpu_s"),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="of each form (default: %(default)s)")
    parser.add_argument("--updates", type=int, default=200, help="in a round, as the tuner does (default: %(default)s)")
    parser.add_argument("--recipe", nargs="+", default=["last-layer", "full"])
    parser.add_argument("--cpu", type=int, default=0, help="core (default: %(default)s)")
    parser.add_argument("--child", choices=FORMS, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output; progress on standard error")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the same object, there")
    args = parser.parse_args()
    if args.child:
        return child(args.child, args.recipe[0], args.updates)
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    rows = []
    for recipe in args.recipe:
        rows.append(measure(recipe, args.rounds, args.updates, args.cpu))
        print(json.dumps(rows[-1]), file=sys.stderr if args.json else sys.stdout, flush=True)
    words = {"runs": rows, "command": " ".join(["python", *sys.argv]), "date": date.today().isoformat(), "machine": machine()}
    if args.out:
        args.out.write_text(json.dumps(words, indent=1) + "\n")
    if args.json:
        print(json.dumps(words))
    return 0


if __name__ == "__main__":
    sys.exit(main())
