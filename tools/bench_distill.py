"""What a smaller actor costs: each run's actor distilled into several sizes, beside the actor itself.

    python tools/bench_distill.py runs/robots/balance_bot-0 runs/robots/balance_bot-4 [--sizes 32x32 16x16 8x8] [--json] [--out FILE]

Per size: the return kept and the 95 % interval of what was lost (paired: the same episodes for teacher and student, float32), the error
of an action on held-out states of the student's own flights, survival, and the p99 of one call on this machine, in int8, paced at
1 kHz, alone; all sizes of a run take turns in that. Nothing is refused here: what would be is marked.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge_dsac.bundle.actor import Actor, actor_from_bytes
from edge_dsac.cli.budget import measured_us
from edge_dsac.cli.distilling import LossError, record_driven, refuse_loss, widths_of
from edge_dsac.cli.judging import JudgingOptions, compared, fly_judged, record_set
from edge_dsac.cli.source import source_of
from edge_dsac.learn.distill import Distilling, distill
from edge_dsac.learn.run_folder import machine
from edge_dsac.spec.robot import RobotSpec

COLUMNS = ("run", "sizes", "error", "99 %", "return", "lost", "95 % interval", "survival", "p50 us", "p99 us", "took s", "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--sizes", nargs="+", default=["32x32", "16x16", "8x8"], metavar="WxW")
    parser.add_argument("--rounds", type=int, default=Distilling().rounds, help="of distilling (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=100, help="flown by each actor (default: %(default)s)")
    parser.add_argument("--driven", nargs=2, type=float, default=(16, 6.0), metavar=("ROBOTS", "S"), help="of a round (default: 16 6)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output; progress on standard error")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    args = parser.parse_args()
    rows = [row for run in args.runs for row in bench(run, args)]
    words = {
        "command": "python tools/bench_distill.py " + " ".join(sys.argv[1:]), "date": time.strftime("%Y-%m-%d"), "rows": rows,
        "episodes": args.episodes, "rounds": args.rounds, "driven": list(args.driven), "machine": machine(),
    }  # fmt: skip
    text = json.dumps(words, indent=1) + "\n"
    if args.out:
        args.out.write_text(text)
    print(text if args.json else table(rows))
    return 0


def bench(run: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    source = source_of(run, None)
    spec, teacher = source.spec, actor_from_bytes(source.actor_file, str(run), source.spec)
    judging = replace(JudgingOptions(), episodes=args.episodes)
    reference = fly_judged(spec, teacher.act, judging)
    rows, actors = [row_of(run, teacher, reference.returns.mean(), reference.failed.mean())], {"x".join(map(str, teacher.sizes)): teacher}
    for size in args.sizes:
        begun = time.monotonic()
        done = distill(teacher, spec, widths_of(size), simulation(spec, args, judging), Distilling(rounds=args.rounds))
        took = time.monotonic() - begun
        print(f"{run.name} -> {size}: {took:.0f} s, off by {done.error:.4f}", file=sys.stderr, flush=True)
        flown = compared(reference, fly_judged(spec, done.actor.act, judging), judging)
        row = row_of(run, done.actor, flown.return_mean, flown.fall_rate)
        row |= {"error": done.error, "error_p99": done.p99, "took_s": took, "rows": done.rows, "rounds": len(done.rounds)}
        low, high = flown.interval
        row["return_lost"] = {"mean": -flown.return_difference, "low": -high, "high": -low, "kept": flown.return_mean / flown.float_return}
        try:
            refuse_loss(flown, None, judging.limits.confidence)
        except LossError as error:
            row["refused"] = str(error)
        rows.append(row)
        actors["x".join(map(str, done.actor.sizes))] = done.actor
    seen = record_set(teacher, spec, replace(judging, recorded_robots=8, recorded_s=4.0)).calibration
    for row, figures in zip(rows, measured_us(actors, spec, seen, "int8").values(), strict=True):
        row["measured_us"] = figures
    return rows


def simulation(spec: RobotSpec, args: argparse.Namespace, judging: JudgingOptions) -> Any:
    robots, seconds = int(args.driven[0]), args.driven[1]
    return partial(record_driven, spec, seconds, robots, judging.randomization, len(os.sched_getaffinity(0)))


def row_of(run: Path, actor: Actor, mean: float, fall_rate: float) -> dict[str, Any]:
    return {"run": run.name, "sizes": list(actor.sizes), "return": float(mean), "survival": 1.0 - float(fall_rate)}


def table(rows: list[dict[str, Any]]) -> str:
    lines = [COLUMNS, *(cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    us, lost = row["measured_us"], row.get("return_lost")
    first = (row["run"], "-".join(map(str, row["sizes"])))
    timed = (f"{us['p50_us']:.1f}", f"{us['p99_us']:.1f}")
    if lost is None:
        return (*first, "", "", f"{row['return']:.1f}", "", "", f"{row['survival']:.0%}", *timed, "", "teacher")
    return (
        *first, f"{row['error']:.4f}", f"{row['error_p99']:.3f}", f"{row['return']:.1f}", f"{1.0 - lost['kept']:.1%}",
        f"{lost['low']:.2f} to {lost['high']:.2f}", f"{row['survival']:.0%}", *timed, f"{row['took_s']:.0f}",
        "refused by compile" if "refused" in row else "",
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
