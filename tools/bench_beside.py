"""What a tuner costs the loop when it learns on the loop's own core: the same flight with and without it, in blocks, in turn.

    python tools/bench_beside.py --hz 500 1000 --seconds 600 --json --out bench/beside.json        (10 minutes per condition and rate)

For each rate: a virtual board on a pty, pinned to core 1; `edge-dsac run --slots`, pinned to core 0, real-time where that is permitted; and
`edge-dsac tune start` (recipe full, compiled, critics 128-128, cpu share 1), pinned to core 0 too, which learns from that very flight.
The tuner is held by SIGSTOP in the blocks without it; so a pair of blocks is two neighbouring stretches of one flight. Its start and its
first round are a stretch of their own (`while_starting`). Figures come from the flight's log: `tick` is a tick's own work from wake-up
to the log, `late` its start after its deadline, `missed` deadlines that passed without a tick, `overrun` ticks not over one period after
their deadline, `coasted` ticks without a fresh frame, `stolen` what the hypervisor kept of that core. A ratio is with over without:
`whole` of all ticks of the one and of the other, with the 95 % interval that drawing pairs anew gives, and `median` of the pairs' own.
`more_a_minute` are counts with minus without, mean over pairs and half of the 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench_loop import LOOP_CPU, OTHER_CPU, machine, spec_at, spread_us
from tunable_policy import make_carried, make_policy_file
from tune_report import interval

from edge_dsac.bundle.keyring import board_key, key_folder, trusted_keys
from edge_dsac.bundle.slots import create_slots
from edge_dsac.records import Mode
from edge_dsac.spec.robot import RobotSpec
from edge_dsac.steplog import open_log
from edge_dsac.steplog.layout import FRESH

CRITICS, ACTOR = (128, 128), (64, 64)
SETTLE_S = 0.5  # of a block, not counted: what was waiting for the core when it began
FIRST_ROWS_S, START_S = 17.0, 900.0  # the tuner waits for 15 s of rows; compiling may take minutes, once
COLUMN, PERCENTILE = {"tick_us": "busy_ns", "late_us": "late_ns"}, {"p50": 50.0, "p99": 99.0, "p999": 99.9}
REDRAWN = 400
FIGURES = (("tick_us", "p999"), ("tick_us", "p50"), ("late_us", "p999"), ("late_us", "p99"))


@dataclass(frozen=True, slots=True)
class Block:
    beside: bool  # the tuner learnt in it
    begin_ns: int
    end_ns: int
    rounds: int = 0  # that it did
    stolen_ms: float = 0.0  # of the loop's core, by whoever else has this machine


# ---- figures: pure


def figures(columns: np.ndarray, begin_ns: int, end_ns: int, hz: int) -> dict[str, Any]:
    """Of the ticks that began in that stretch."""
    rows = columns[(columns["t_host_ns"] >= begin_ns) & (columns["t_host_ns"] < end_ns)]
    period_ns = 1_000_000_000 // hz
    moving = np.isin(rows["mode"], [Mode.RUNNING, Mode.COASTING])
    deadlines = rows["t_host_ns"] - rows["late_ns"]
    return {
        "ticks": len(rows),
        "missed": int(np.maximum(np.round(np.diff(deadlines) / period_ns) - 1, 0).sum()),
        "overrun": int((rows["late_ns"] + rows["busy_ns"] > period_ns).sum()),
        "coasted": int((moving & ((rows["flags"] & FRESH) == 0)).sum()),
        "not_running": int((~moving).sum()),
        "tick_us": spread_us(rows["busy_ns"]),
        "late_us": spread_us(rows["late_ns"]),
    }


def joined(columns: np.ndarray, blocks: list[Block], hz: int) -> dict[str, Any]:
    """All blocks of one condition as one: percentiles over all their ticks, counts added."""
    each = [figures(columns, block.begin_ns, block.end_ns, hz) for block in blocks]
    rows = columns[np.any([inside(columns, block) for block in blocks], axis=0)]
    counts = {name: sum(one[name] for one in each) for name in ("ticks", "missed", "overrun", "coasted", "not_running")}
    seconds = sum(block.end_ns - block.begin_ns for block in blocks) * 1e-9
    counts["stolen_ms_per_s"] = round(sum(block.stolen_ms for block in blocks) / seconds, 2)
    return {"seconds": round(seconds, 1), **counts, "tick_us": spread_us(rows["busy_ns"]), "late_us": spread_us(rows["late_ns"])}


def pairs_of(blocks: list[Block]) -> list[tuple[Block, Block]]:
    """(with, without) of neighbours."""
    return [(one, other) if one.beside else (other, one) for one, other in zip(blocks[0::2], blocks[1::2], strict=False)]


def ratios(columns: np.ndarray, blocks: list[Block], hz: int) -> dict[str, Any]:
    """With over without: of all their ticks, and of each pair of neighbours."""
    found = {}
    for what, which in FIGURES:
        times = [tuple(columns[COLUMN[what]][inside(columns, block)] for block in pair) for pair in pairs_of(blocks)]
        percentile = PERCENTILE[which]
        each = [float(np.percentile(a, percentile) / np.percentile(b, percentile)) for a, b in times]
        whole, low, high = redrawn(times, percentile)
        found[f"{what} {which}"] = {
            "whole": round(whole, 3), "low": round(low, 3), "high": round(high, 3), "median": round(float(np.median(each)), 3),
            "pairs": [round(value, 3) for value in each],
        }  # fmt: skip
    return found


def redrawn(times: list[tuple[np.ndarray, ...]], percentile: float) -> tuple[float, float, float]:
    """(ratio, its 95 % interval) of percentiles over all ticks. Pairs are drawn, for a machine has moods that last for seconds."""

    def ratio(chosen: Any) -> float:
        a, b = (np.percentile(np.concatenate([times[k][side] for k in chosen]), percentile) for side in (0, 1))
        return float(a / b)

    generator = np.random.default_rng(0)
    drawn = [ratio(generator.integers(len(times), size=len(times))) for _ in range(REDRAWN)]
    return ratio(range(len(times))), *(float(value) for value in np.percentile(drawn, (2.5, 97.5)))


def more_a_minute(columns: np.ndarray, blocks: list[Block], hz: int) -> dict[str, Any]:
    """Of what may only happen more often: with minus without."""
    differences: dict[str, list[float]] = {"missed": [], "overrun": [], "coasted": []}
    for pair in pairs_of(blocks):
        a, b = (figures(columns, block.begin_ns, block.end_ns, hz) for block in pair)
        a_minute = 60e9 / (pair[0].end_ns - pair[0].begin_ns)
        for name, values in differences.items():
            values.append((a[name] - b[name]) * a_minute)
    return {name: [None if part is None else round(part, 2) for part in interval(values)] for name, values in differences.items()}


def inside(columns: np.ndarray, block: Block) -> np.ndarray:
    return np.asarray((columns["t_host_ns"] >= block.begin_ns) & (columns["t_host_ns"] < block.end_ns))


def order(blocks: int) -> list[bool]:
    """With, without, without, with, ...: what drifts hits both alike."""
    return [k % 4 in (0, 3) for k in range(blocks)]


def result_of(columns: np.ndarray, blocks: list[Block], hz: int) -> dict[str, Any]:
    with_, without = [b for b in blocks if b.beside], [b for b in blocks if not b.beside]
    return {
        "with": {**joined(columns, with_, hz), "rounds": sum(b.rounds for b in with_)},
        "without": {**joined(columns, without, hz), "rounds": sum(b.rounds for b in without)},
        "ratios": ratios(columns, blocks, hz),
        "more_a_minute": more_a_minute(columns, blocks, hz),
    }


# ---- processes


class Flight:
    """Board, loop and tuner, each a process of its own on its core. Ends only what it began."""

    def __init__(self, hz: int, folder: Path, seconds: float, update: str, recipe: str) -> None:
        self.hz, self.folder, self.update, self.recipe = hz, folder, update, recipe
        self.spec, self.robot = spec_at(hz, folder)
        self.port, self.log, self.slots = folder / "board", folder / "flight", folder / "slots"
        make_slots(self.spec, self.slots)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.board = self.start("mcu", ["--robot", str(self.robot), "--link", str(self.port), "--seed", "1", "--still"], OTHER_CPU)
        wait_for(self.port.exists, 120.0, "the board")
        words = ["--robot", str(self.robot), "--port", str(self.port), "--slots", str(self.slots), "--log", str(self.log), "--json"]
        more = ["--cpu", str(LOOP_CPU), "--overwrite-log", "--rearm", "--seconds", str(seconds), "--summary", str(folder / "summary.json")]
        self.loop = self.start("run", [*words, *more], None)
        wait_for((self.log / "ring").exists, 60.0, "the loop")
        self.tuner: subprocess.Popen[bytes] | None = None

    def start(self, verb: str, words: list[str], cpu: int | None) -> subprocess.Popen[bytes]:
        said = (self.folder / f"{verb}.txt").open("ab")
        command = [sys.executable, "-m", "edge_dsac.cli.main", verb, *words]
        process = subprocess.Popen(command, stdout=said, stderr=said, cwd=ROOT)
        said.close()
        if cpu is not None:
            os.sched_setaffinity(process.pid, {cpu})
        self.processes.append(process)
        return process

    def start_tuner(self) -> Block:
        """Until its first round is over: importing, compiling if need be, and reading the flight so far."""
        words = ["start", "--slots", str(self.slots), "--recipe", self.recipe, "--compile", self.update, "--cpu-share", "1"]
        begin_ns = time.monotonic_ns()
        self.tuner = self.start("tune", [*words, "--minutes", "600", "--memory-mb", "1000"], LOOP_CPU)
        wait_for(lambda: self.rounds() > 0 or self.over(), START_S, "the tuner")
        self.check()
        return Block(True, begin_ns, time.monotonic_ns(), self.rounds())

    def block(self, beside: bool, seconds: float) -> Block:
        assert self.tuner is not None
        self.tuner.send_signal(signal.SIGCONT if beside else signal.SIGSTOP)
        time.sleep(SETTLE_S)
        begin_ns, rounds, stolen = time.monotonic_ns(), self.rounds(), stolen_ms(LOOP_CPU)
        time.sleep(seconds)
        self.check()
        return Block(beside, begin_ns, time.monotonic_ns(), self.rounds() - rounds, stolen_ms(LOOP_CPU) - stolen)

    def rounds(self) -> int:
        paths = list((self.slots / "tuning").glob("session-*/journal.jsonl"))
        return paths[0].read_bytes().count(b'"event": "round"') if paths else 0

    def over(self) -> bool:
        return any(process.poll() is not None for process in self.processes)

    def check(self) -> None:
        """A figure of a flight in which somebody has gone would be a figure of something else."""
        if self.over():
            said = "\n".join(f"{path.name}: {path.read_text()[-800:]}" for path in sorted(self.folder.glob("*.txt")))
            raise SystemExit(f"bench_beside: board, loop or tuner has ended by itself\n{said}")

    def memory_mb(self) -> float:
        assert self.tuner is not None
        return int(Path(f"/proc/{self.tuner.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def status(self) -> dict[str, Any]:
        path = self.slots / "tuning" / "status.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return {key: found.get(key) for key in ("updates", "rows", "yielded", "refused", "verdicts", "memory_mb")}

    def end(self) -> None:
        """Tuner, loop, board; so that the log is whole before anybody reads it."""
        for process in (self.tuner, self.loop, self.board):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                try:
                    process.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def stolen_ms(cpu: int) -> float:
    """What the hypervisor has kept of that core since it started; 0 for ever on a machine of one's own."""
    words = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{cpu} ")).split()
    return int(words[8]) * 1000.0 / os.sysconf("SC_CLK_TCK")


def make_slots(spec: RobotSpec, folder: Path) -> None:
    key = board_key(key_folder(os.environ), os.uname().nodename)
    create_slots(folder, make_policy_file(spec, make_carried(spec, CRITICS, ACTOR), key), trusted_keys(key_folder(os.environ)))


def wait_for(there: Any, seconds: float, what: str) -> None:
    give_up = time.monotonic() + seconds
    while not there():
        if time.monotonic() > give_up:
            raise SystemExit(f"bench_beside: {what} is not there after {seconds:g} s")
        time.sleep(0.05)


def fly(hz: int, blocks: int, block_s: float, update: str, recipe: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        os.environ["EDGE_DSAC_KEYS"] = str(Path(name) / "keys")
        flight = Flight(hz, Path(name), 2 * FIRST_ROWS_S + START_S + blocks * (block_s + 2 * SETTLE_S) + 60.0, update, recipe)
        stack.callback(flight.end)
        time.sleep(FIRST_ROWS_S)
        flight.check()
        starting = flight.start_tuner()
        flown = [flight.block(beside, block_s) for beside in order(blocks)]
        flight.block(True, 0.1)  # a stopped process answers nobody
        memory = flight.memory_mb()
        flight.end()
        status = flight.status()
        columns = open_log(flight.log).columns
        summary = json.loads((flight.folder / "summary.json").read_text())
        return {
            "hz": hz, "block_s": block_s, "blocks": blocks, **result_of(columns, flown, hz),
            "while_starting": figures(columns, starting.begin_ns, starting.end_ns, hz),
            "tuner": {**status, "resident_mb": round(memory, 1)}, "ended": summary["ended"], "mode": summary["mode"],
            "realtime": {grant["what"]: grant["granted"] for grant in summary["realtime"]},
        }  # fmt: skip


def table(row: dict[str, Any]) -> str:
    lines = [f"{row['hz']} Hz, blocks of {row['block_s']:g} s; tuner {row['tuner']}"]
    for name in ("with", "without"):
        one = row[name]
        lines.append(
            f"  {name:>8} {one['seconds']:7.1f} s {one['ticks']:8d} ticks  missed {one['missed']} overrun {one['overrun']} coasted "
            f"{one['coasted']}  stolen {one['stolen_ms_per_s']} ms/s  rounds {one['rounds']}\n"
            f"           tick {one['tick_us']}\n           late {one['late_us']}"
        )
    for name, each in row["ratios"].items():
        lines.append(f"  {name}: {each['whole']} times ({each['low']} to {each['high']}), median of pairs {each['median']}")
    return "\n".join([*lines, *(f"  {name}: {more} more a minute (+- {half})" for name, (more, half) in row["more_a_minute"].items())])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hz", type=int, nargs="+", default=[500, 1000])
    parser.add_argument("--seconds", type=float, help="of each condition; overrides --blocks")
    parser.add_argument("--blocks", type=int, default=8, help="even; half of them with the tuner (default: %(default)s)")
    parser.add_argument("--block-s", type=float, default=5.0, help="default: %(default)s")
    parser.add_argument("--compile", choices=("auto", "on", "off"), default="on", help="the tuner's update (default: %(default)s)")
    parser.add_argument("--recipe", default="full", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output; progress on standard error")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the same object, there")
    args = parser.parse_args()
    blocks = 2 * round(args.seconds / args.block_s) if args.seconds else args.blocks
    if blocks < 2 or blocks % 2:
        parser.error(f"--blocks {blocks}: expected an even number, at least 2")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that board, loop and tuner are ended too
    rows = []
    for hz in args.hz:
        rows.append(fly(hz, blocks, args.block_s, args.compile, args.recipe))
        print(table(rows[-1]), file=sys.stderr if args.json else sys.stdout, flush=True)
    words = {"runs": rows, "command": " ".join(["python", *sys.argv]), "date": date.today().isoformat(), "machine": machine()}
    if args.out:
        args.out.write_text(json.dumps(words, indent=1) + "\n")
    if args.json:
        print(json.dumps(words))
    return 0


if __name__ == "__main__":
    sys.exit(main())
