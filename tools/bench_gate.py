"""Bad candidates, planted on purpose: does the offline gate see them, and does the trial end them before they do harm?

    python tools/bench_gate.py                                  200 candidates and some that are not bad; goes on where it stopped
    python tools/bench_gate.py --minutes 20                     starts nothing new after so long
    python tools/bench_gate.py --report --out bench/gate.json   the summary of what is there
    python tools/bench_gate.py --policies runs/a:hidden runs/b:nominal --planted 12

Each policy flies its robot in simulated time under the real loop and firmware. Candidates come from the real learner with one thing wrong
(bad_candidates.py). What the gate says of each is noted; then each goes on trial all the same, judged by the real tuner, and its log is
read Step by Step (flown_trial.py). The truth is the paired difference of returns in the simulator. The first candidate of each way also
drives with no trial at all. Every candidate leaves a file in CELLS when it is whole.

Exit codes: 0 done, 2 wrong options, 3 stopped by --minutes with candidates left.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
from bad_candidates import Family, families, make
from flown_trial import Home, actor_bytes, fly_parent, fly_straight, make_home, try_out
from gate_report import summary, table, truth_of
from returns_cells import write_cell

from edge_dsac.bundle.actor import actor_from_bytes
from edge_dsac.cli.source import source_of
from edge_dsac.learn.checkpoint import npz
from edge_dsac.learn.compiled import prepare
from edge_dsac.learn.course import Course
from edge_dsac.learn.run_folder import machine
from edge_dsac.learn.transitions import Rows
from sim.env import EpisodeOptions
from sim.recording import fly

POLICIES = ("runs/tune/base-0:hidden", "runs/tune/base-1:hidden", "runs/tune/base-2:hidden", "runs/tune/base-0:nominal")  # of bench_tune.py
TRUTH_SEED = 40_000  # far from the trainer's, the exam's and the compiler's
CONTROL_S = 20.0


@dataclass(slots=True)
class Study:
    """Candidates on their way to files."""

    args: argparse.Namespace
    homes: dict[str, Home]
    begun: float
    flown: int = 0
    spent: float = 0.0

    def out_of_time(self) -> bool:
        return time.monotonic() - self.begun > 60.0 * self.args.minutes

    def path(self, name: str) -> Path:
        return Path(self.args.cells / f"{name}.json")

    def missing(self, wanted: Sequence[tuple[Family, float]]) -> list[tuple[Family, float]]:
        return [(family, strength) for family, strength in wanted if not self.path(family.name(strength)).exists()]


def main() -> int:
    args = arguments()
    if any(":" not in policy for policy in args.policies):
        print("bench_gate: --policies: expected RUN:RANGES, for example runs/narrow-0:hidden", file=sys.stderr)
        return 2
    prepare(1)
    args.cells.mkdir(parents=True, exist_ok=True)
    wanted = planned(args)
    code = 0 if args.report else run(args, wanted)
    told = read_all(args.cells, wanted)
    if not told["rows"]:
        print("nothing is flown yet")
        return code
    text = json.dumps(told, indent=1) + "\n"
    if args.out:
        args.out.write_text(text)
    print(text if args.json else table(told["summary"]))
    return code


def planned(args: argparse.Namespace) -> list[tuple[Family, float]]:
    """In the order in which they are flown: of every family its strengths together, for one learner makes them all."""
    every = [
        (family, strength) for family in families([name_of(policy) for policy in args.policies], args.seed) for strength in family.strengths
    ]
    return [one for one in every if one[0].planted][: args.planted] + [one for one in every if not one[0].planted][: args.others]


def name_of(policy: str) -> str:
    run, ranges = policy.rsplit(":", 1)
    return f"{Path(run).name}-{Path(ranges).stem}"


# ---- flying


def run(args: argparse.Namespace, wanted: list[tuple[Family, float]]) -> int:
    study = Study(args, {}, time.monotonic())
    left = study.missing(wanted)
    say(args, f"{len(wanted) - len(left)} of {len(wanted)} are there; in {args.cells}")
    for policy in args.policies:
        study.homes[name_of(policy)] = home_of(policy, args)
    for family in dict.fromkeys(family for family, _ in left):
        if study.out_of_time():
            return 3
        run_family(study, family, [strength for of, strength in left if of == family], len(left))
    judge_truth(study, wanted)
    fly_controls(study)
    return 3 if study.missing(wanted) or study.out_of_time() else 0


def home_of(policy: str, args: argparse.Namespace) -> Home:
    """With rows from the parent's own flight, which lies on the disk once it was flown."""
    path, ranges = policy.rsplit(":", 1)
    name, source = name_of(policy), source_of(Path(path), None)
    kept, said = args.cells / f"{name}.rows.npz", args.cells / f"{name}.parent.json"
    home = make_home(source, name, ranges)
    if not (kept.exists() and said.exists()):
        say(args, f"{name}: flies {args.rows_s:.0f} s by itself")
        with tempfile.TemporaryDirectory() as folder:
            rows, falls = fly_parent(home, Path(folder), args.rows_s, args.seed)
        kept.write_bytes(npz(rows._asdict()))
        write_cell(said, {"falls": falls, "seconds": args.rows_s, "ranges": ranges})
    with np.load(kept) as file:
        return replace(home, rows=Rows(*(file[column] for column in Rows._fields)))


def fly_controls(study: Study) -> None:
    """How often does each parent fall with no candidate anywhere? On from the flight that gave the rows."""
    args = study.args
    for name, home in study.homes.items():
        said = args.cells / f"{name}.parent.json"
        words = json.loads(said.read_text())
        while words["seconds"] < args.rows_s + args.control_s and not study.out_of_time():
            with tempfile.TemporaryDirectory() as folder:
                _, falls = fly_parent(home, Path(folder), CONTROL_S, args.seed + 1 + round(words["seconds"]))
            words |= {"falls": words["falls"] + falls, "seconds": words["seconds"] + CONTROL_S}
            write_cell(said, words)


def run_family(study: Study, family: Family, strengths: list[float], total: int) -> None:
    args, home = study.args, study.homes[family.policy]
    stranger = next(
        (other.carried for name, other in study.homes.items() if other.bundle != home.bundle and name != home.name), home.carried
    )
    upto = max(strengths) if family.strengths[0] > 0.0 else np.inf
    for made in make(family, home.carried, stranger, home.rows, home.spec, upto):
        if made.strength not in strengths:
            continue
        if study.out_of_time():
            return
        begun, name = time.monotonic(), family.name(made.strength)
        seed = zlib.crc32(name.encode()) & 0xFFFF
        with tempfile.TemporaryDirectory() as folder:
            row = try_out(home, made.carried, made.rows, Path(folder), seed, Course(pairs=args.pairs))
        data = actor_bytes(made.carried, home.spec)
        first = made.strength == family.strengths[0 if family.kind == "wrong-sign" else -1]
        straight = fly_straight(home, data, seed, CONTROL_S) if first and family.planted else None
        (args.cells / f"{name}.actor.npz").write_bytes(data)
        words = {"policy": family.policy, "kind": family.kind, "way": family.way, "strength": made.strength, "planted": family.planted}
        write_cell(study.path(name), {"name": name, **words, **row, "straight": straight})
        study.flown, study.spent = study.flown + 1, study.spent + time.monotonic() - begun
        tell_progress(study, name, row, total)


def tell_progress(study: Study, name: str, row: dict[str, Any], total: int) -> None:
    left = study.spent / study.flown * (total - study.flown)
    falls = f", {len(row['falls'])} falls" if row["falls"] else ""
    say(
        study.args, f"{study.flown}/{total} {name}: gate {'passed' if row['gate']['passed'] else 'refused'}, {row['verdict']} after "
        f"{row['pairs']} pairs, drove {row['drove_s']:.1f} s{falls}; left about {left / 60.0:.0f} min",
    )  # fmt: skip


# ---- truth


def judge_truth(study: Study, wanted: list[tuple[Family, float]]) -> None:
    """What was accepted first: if the time is up before all are judged, those are known."""
    args = study.args
    rows = [
        json.loads(study.path(family.name(strength)).read_text())
        for family, strength in wanted
        if study.path(family.name(strength)).exists()
    ]
    rows = sorted(rows, key=lambda row: row["verdict"] != "better")
    due = [row for row in rows if not (args.cells / f"{row['name']}.truth.json").exists()]
    parents: dict[str, Any] = {}
    for number, row in enumerate(due, 1):
        if study.out_of_time():
            return
        home = study.homes[row["policy"]]
        if home.name not in parents:
            parents[home.name] = returns_of(home, actor_bytes(home.carried, home.spec), args)
        truth = truth_of(parents[home.name], returns_of(home, (args.cells / f"{row['name']}.actor.npz").read_bytes(), args))
        write_cell(args.cells / f"{row['name']}.truth.json", truth)
        say(args, f"truth {number}/{len(due)} {row['name']}: {truth['label']}, {truth['gain']:+.1f} of {truth['parent']:.1f}")


def returns_of(home: Home, data: bytes, args: argparse.Namespace) -> Any:
    """sim.recording.fly, not learn.evaluate: there a robot that falls draws from the others' random numbers, and pairs would be none."""
    actor = actor_from_bytes(data, "the candidate", home.spec)
    return fly(home.spec, actor.act, args.episodes, TRUTH_SEED, EpisodeOptions(randomization=home.ranges, seconds=args.episode_s)).returns


# ---- telling


def read_all(cells: Path, wanted: list[tuple[Family, float]]) -> dict[str, Any]:
    rows, parents = [], {}
    for family, strength in wanted:
        path = cells / f"{family.name(strength)}.json"
        if not path.exists():
            continue
        row = json.loads(path.read_text())
        truth = path.with_name(f"{row['name']}.truth.json")
        rows.append({**row, "truth": json.loads(truth.read_text()) if truth.exists() else None})
        parents[family.policy] = json.loads((cells / f"{family.policy}.parent.json").read_text())
    command = shlex.join(["python", "tools/bench_gate.py", *sys.argv[1:]])
    return {
        "command": command, "date": time.strftime("%Y-%m-%d %H:%M"), "machine": machine(),
        "missing": len(wanted) - len(rows), "summary": summary(rows, parents) if rows else {}, "rows": rows,
    }  # fmt: skip


def say(args: argparse.Namespace, line: str) -> None:
    print(line, file=sys.stderr if args.json else sys.stdout, flush=True)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--policies", nargs="+", default=list(POLICIES), metavar="RUN:RANGES", help="training runs, and which robot each flies"
    )
    parser.add_argument("--planted", type=int, default=200, help="bad candidates, at most (default: %(default)s)")
    parser.add_argument("--others", type=int, default=16, help="candidates that are not bad, at most (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=Course().pairs, help="of windows, at most (default: the tuner's, %(default)s)")
    parser.add_argument("--rows-s", type=float, default=60.0, help="flown by each policy for rows to learn from (default: %(default)s)")
    parser.add_argument(
        "--control-s",
        type=float,
        default=120.0,
        help="flown on by each without a trial, last of all, for its own falls (default: %(default)s)",
    )
    parser.add_argument("--episodes", type=int, default=40, help="of the truth (default: %(default)s)")
    parser.add_argument("--episode-s", type=float, default=5.0, help="length of each (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing new after so many minutes")
    parser.add_argument(
        "--cells", type=Path, default=ROOT / "bench" / "gate-cells", help="one file per candidate (default: bench/gate-cells)"
    )
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    parser.add_argument("--report", action="store_true", help="from what is there; flies nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output; progress on standard error")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
