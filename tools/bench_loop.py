"""What a control tick costs: the real loop on a pty against the virtual board, paced, beside an idle machine's own floor.

    python tools/bench_loop.py [--seconds 60] [--json] [--hz 1000] [--busy none same]

For each rate and each busy neighbour it runs, in this order and in one process: an empty loop on the same schedule (the
machine's floor), then the loop on the virtual board. `own` is Python's share: the whole tick less inference and the wire.
A miss of our own: the tick was not over one period after its deadline. A miss of the bus: no fresh frame at the tick; it is
coasted over. The naive loop (read_until, a codec in Python, torch eager) is timed in the same run for the ratio.
The policy is 64-64 with random weights, compiled to C as `edge-dsac compile` does it; --engine numpy runs it as a policy.npz is run.
`yardstick`: a fixed piece of Python, timed at every tick of the empty loop and, for comparison, without any pause: how much slower
this machine is right after a sleep, and how much of the loop's figures is the machine's.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from edge_dsac.bundle.actor import check_actor
from edge_dsac.bundle.codegen import make_c
from edge_dsac.bundle.integer import make_integer
from edge_dsac.bundle.native_engine import NativeNetwork
from edge_dsac.bundle.numpy_engine import NumpyMlp
from edge_dsac.bundle.processor import cpu_name
from edge_dsac.bundle.targets import TARGETS, best_target, compile_actor
from edge_dsac.loop.control import Conduct, ControlLoop
from edge_dsac.loop.flight import phase_target_ns
from edge_dsac.loop.limiter import Limiter
from edge_dsac.loop.observer import Observer
from edge_dsac.loop.pacer import Pacer
from edge_dsac.loop.realtime import ask_for_realtime, release_realtime
from edge_dsac.loop.rehearsal import Rehearsal
from edge_dsac.loop.slot import Engine, Slot
from edge_dsac.records import Mode
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec, load_robot, robot_from_text
from edge_dsac.steplog import Ring
from firmware_bridge.link import SerialLink, open_port
from firmware_bridge.rehearsal import make_rehearsal_link

LOOP_CPU, OTHER_CPU = 0, 1
HIDDEN = 64  # the size that balances the robot
ENGINES = ("native-float32", "numpy")
WARM_S = 1.0
WARM_TICKS = 40_000


class Stopwatch:
    """Times one method of one object where it stands: what it took at each tick, 0 where it was not called."""

    def __init__(self, part: Any, name: str, tick: list[int], size: int) -> None:
        self.part, self.name = part, name
        self.spent_ns = np.zeros(size, np.int64)  # beforehand: it must not grow
        inner, spent, clock = getattr(part, name), self.spent_ns, time.perf_counter_ns

        def call(*values: Any) -> Any:
            begin = clock()
            result = inner(*values)
            spent[tick[0]] = clock() - begin
            return result

        setattr(part, name, call)

    def remove(self) -> None:
        delattr(self.part, self.name)


def spread_us(ns: np.ndarray) -> dict[str, float]:
    if not len(ns):
        return {}
    p10, p50, p99, p999 = (round(float(value), 2) for value in np.percentile(ns, [10, 50, 99, 99.9]) / 1e3)
    return {"p10": p10, "p50": p50, "p99": p99, "p999": p999, "max": round(float(ns.max()) / 1e3, 2)}


def spec_at(hz: int, folder: Path) -> tuple[RobotSpec, Path]:
    """balance_bot with control, sensor and board at one rate, its baud raised to carry it."""
    text = load_robot("balance_bot").text
    for key, value in {
        "control_hz = 100": f"control_hz = {hz}", "sensor_hz = 200": f"sensor_hz = {hz}",
        "board_hz = 1000": f"board_hz = {max(1000, hz)}", "baud = 921600": "baud = 3000000",
    }.items():  # fmt: skip
        if key not in text:
            raise SystemExit(f"bench_loop: expected {key!r} in balance_bot.toml; adapt this benchmark")
        text = text.replace(key, value)
    path = folder / f"balance_{hz}.toml"
    path.write_text(text)
    return robot_from_text(text, str(path), str(folder)), path


def make_policy(spec: RobotSpec, engine: str) -> Engine:
    generator, layout = np.random.default_rng(1), ObservationLayout(spec)
    sizes = [layout.size, HIDDEN, HIDDEN, len(spec.actions)]
    arrays: dict[str, Any] = {
        "obs_scale": layout.scale,
        "activation": np.array("gelu"),
        "policy_fingerprint": np.array(spec.policy_fingerprint),
    }
    for i, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False)):
        arrays[f"w{i}"], arrays[f"b{i}"] = generator.normal(size=(b, a)) * 0.02 / np.sqrt(a), np.zeros(b)
    actor = check_actor(arrays, "random", 1, spec)
    if engine == "numpy":
        return NumpyMlp(actor)
    target = best_target([target.file for target in TARGETS.values()])
    if target is None:
        raise SystemExit("bench_loop: no target of the generated C runs on this machine; --engine numpy")
    integer = make_integer(actor, generator.uniform(-layout.clip, layout.clip, (256, layout.size)).astype(np.float32), layout.clip)
    return NativeNetwork(compile_actor(make_c(actor, integer), target), actor, 1)


class Rig:
    """The loop with every part timed, on a virtual board in its own process."""

    def __init__(self, hz: int, seconds: float, folder: Path, engine: str, rehearse: bool = True) -> None:
        self.spec, toml = spec_at(hz, folder)
        size = int(hz * (seconds + WARM_S) * 1.2) + 20_000
        link_path = folder / f"board{hz}"
        command = ["-m", "edge_dsac.cli.main", "mcu", "--robot", str(toml), "--link", str(link_path), "--seed", "1", "--still"]
        self.board = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, cwd=ROOT, preexec_fn=ordinary)
        os.sched_setaffinity(self.board.pid, {OTHER_CPU})
        give_up = time.monotonic() + 120
        while not link_path.exists():
            if self.board.poll() is not None or time.monotonic() > give_up:
                raise SystemExit("bench_loop: the virtual board did not start")
            time.sleep(0.05)
        link = SerialLink(self.spec, lambda: open_port(str(link_path), self.spec.link.baud))
        observer, policy, limiter = Observer(self.spec), make_policy(self.spec, engine), Limiter(self.spec)
        self.link, self.ring = link, Ring.create(folder / f"ring{hz}", self.spec, 4096)
        self.loop = ControlLoop(self.spec, link, observer, Slot(policy), limiter, self.ring, Conduct(rearm=True, overwrite_log=True))
        self.tick = [0]  # which one is under way
        watched = {
            "receive": (link, "receive"), "observe": (observer, "observe"), "act": (self.loop.slot, "act"), "limit": (limiter, "limit"),
            "send": (link, "send"), "log": (self.ring, "append"),
        }  # fmt: skip
        self.watches = {stage: Stopwatch(part, name, self.tick, size) for stage, (part, name) in watched.items()}
        rehearsal = Rehearsal(self.spec, self.loop, make_rehearsal_link(self.spec)) if rehearse else None
        self.pacer = Pacer(1_000_000_000 // hz, rehearse=rehearsal)
        self.late_ns, self.busy_ns = np.zeros(size, np.int64), np.zeros(size, np.int64)

    def fly(self, seconds: float) -> dict[str, Any]:
        """One measured stretch; returns its row without the floor."""
        self.loop.arm()
        self.tick_for(WARM_S)
        for watch in self.watches.values():
            watch.spent_ns[:] = 0
        coasted, missed, trimmed = self.loop.coasted_total, self.pacer.missed, self.pacer.trimmed_ns
        count, unlinked, drift = self.tick_for(seconds)
        late, busy = self.late_ns[:count], self.busy_ns[:count]
        stages = {name: watch.spent_ns[:count] for name, watch in self.watches.items()}
        outside = stages["act"] + stages["receive"] + stages["send"]
        return {
            "hz": round(1e9 / self.pacer.period_ns),
            "ticks": count,
            "misses_own": int((late + busy > self.pacer.period_ns).sum()) + self.pacer.missed - missed,
            "misses_bus": self.loop.coasted_total - coasted,
            "not_running": unlinked,
            "drift_percent": round(drift, 6),
            "trimmed_us": round((self.pacer.trimmed_ns - trimmed) / 1e3, 1),
            "own_us": spread_us(busy - outside),
            "late_us": spread_us(late),
            "tick_us": spread_us(busy),
            "stages_us": {name: spread_us(ns[ns > 0]) for name, ns in stages.items()},
        }

    def tick_for(self, seconds: float) -> tuple[int, int, float]:
        """(ticks, ticks that were not RUNNING or COASTING, percent by which the grid went wrong against another clock)."""
        target, sensor = phase_target_ns(self.spec, 0), 1_000_000_000 // self.spec.rates.sensor_hz
        clock, loop, pacer = time.perf_counter_ns, self.loop, self.pacer
        pacer.start()
        end, missed = pacer.deadline_ns + int(seconds * 1e9), pacer.missed
        count = still = first = last = trimmed = 0
        while pacer.deadline_ns < end:
            late = pacer.wait()
            self.tick[0] = count
            begin = clock()
            first, last, trimmed = first or begin - late - pacer.trimmed_ns, begin - late, pacer.trimmed_ns
            loop.tick(late)
            loop.between_ticks(pacer, target, sensor)
            self.late_ns[count], self.busy_ns[count] = late, clock() - begin
            still += loop.modes.mode not in (Mode.RUNNING, Mode.COASTING)
            count += 1
        periods = max(count - 1 + pacer.missed - missed, 1)
        return count, still, 100.0 * ((last - trimmed - first) / (periods * pacer.period_ns) - 1.0)

    def close(self) -> None:
        self.loop.stop()
        self.tick_for(0.05)
        self.link.close()
        self.ring.close()
        self.board.terminate()
        self.board.wait(timeout=20)


def floor(hz: int, seconds: float) -> dict[str, Any]:
    """An empty loop on the same schedule: what the machine itself misses."""
    pacer = Pacer(1_000_000_000 // hz)
    late = np.zeros(int(hz * seconds * 1.2) + 1000, np.int64)
    work = np.zeros_like(late)
    pacer.start()
    end, count = pacer.deadline_ns + int(seconds * 1e9), 0
    while pacer.deadline_ns < end:
        late[count] = pacer.wait()
        work[count] = yardstick()
        count += 1
    return {
        "floor_misses": int((late[:count] > pacer.period_ns).sum()) + pacer.missed,
        "floor_late_us": spread_us(late[:count]),
        "yardstick_us": spread_us(work[:count]),
        "yardstick_hot_us": spread_us(np.array([yardstick() for _ in range(3000)])),
    }


def yardstick() -> int:
    """ns that a fixed piece of plain Python takes; some 25 us on a quick machine."""
    begin = time.perf_counter_ns()
    total, parts = 0.0, []
    for i in range(150):
        total += i * 0.5
        parts.append((i, total))
    return time.perf_counter_ns() - begin


def ordinary() -> None:
    """A child must not inherit the loop's real-time priority: it would starve what it is measured beside."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class BusyNeighbour:
    """A process that never sleeps, at ordinary priority, on one core."""

    def __init__(self, where: str) -> None:
        self.process = None
        if where != "none":
            code = "import numpy as np\na = np.ones((200, 200))\nwhile True: a @ a"
            self.process = subprocess.Popen([sys.executable, "-c", code], preexec_fn=ordinary)
            os.sched_setaffinity(self.process.pid, {LOOP_CPU if where == "same" else OTHER_CPU})
            time.sleep(0.5)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()


def growth(rig: Rig, ticks: int = 100_000) -> dict[str, int]:
    """Bytes that stay allocated after this many unpaced ticks, by tracemalloc."""
    for watch in rig.watches.values():  # no timing arrays in this measurement
        watch.remove()
    rig.loop.tick(0)
    gc.collect()
    tracemalloc.start()
    for _ in range(WARM_TICKS):  # until CPython's own lists of free tuples are full: some 100 kB, once
        rig.loop.tick(0)
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(ticks):
        rig.loop.tick(0)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return {"ticks": ticks, "bytes": grown}


def machine() -> dict[str, Any]:
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def table(row: dict[str, Any]) -> str:
    own, late = row["own_us"], row["late_us"]
    return (
        f"{row['hz']:5d} {row['busy']:>6} {row['ticks']:7d} {row['misses_own']:5d} {row['floor_misses']:6d} {row['misses_bus']:5d}   "
        f"{own['p50']:6.1f} {own['p99']:6.1f} {own['p999']:7.1f}   {late['p50']:6.1f} {late['p99']:6.1f} {late['p999']:7.1f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="measured time of each run (default: %(default)s)")
    parser.add_argument("--hz", type=int, nargs="+", default=[500, 1000, 2000])
    parser.add_argument("--busy", nargs="+", choices=["none", "other", "same"], default=["none", "other", "same"])
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0], help="what runs the policy (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output; progress on standard error")
    parser.add_argument("--no-rehearsal", action="store_true", help="without going through each tick on a double before its deadline")
    parser.add_argument("--skip-naive", action="store_true", help="leave out the naive loop (needs torch)")
    parser.add_argument("--skip-growth", action="store_true", help="leave out the 100000 ticks under tracemalloc")
    args = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    out = sys.stderr if args.json else sys.stdout
    result: dict[str, Any] = {"runs": [], "engine": args.engine, "machine": machine()}
    grants = ask_for_realtime(LOOP_CPU)
    result["realtime"] = {grant.what: grant.granted for grant in grants}
    print("realtime: " + ", ".join(f"{g.what} {'yes' if g.granted else 'NO'}" for g in grants), file=out)
    print("   hz   busy   ticks  own  floor   bus   own p50    p99    p999   late p50    p99    p999  (misses; us)", file=out)
    with tempfile.TemporaryDirectory() as name:
        for hz in args.hz:
            rig = Rig(hz, args.seconds, Path(name), args.engine, rehearse=not args.no_rehearsal)
            for busy in args.busy:
                neighbour = BusyNeighbour(busy)
                try:
                    row = {"busy": busy, **floor(hz, args.seconds), **rig.fly(args.seconds)}
                finally:
                    neighbour.stop()
                result["runs"].append(row)
                print(table(row), file=out, flush=True)
            if hz == args.hz[-1] and not args.skip_growth:
                result["growth"] = growth(rig)
                print(f"growth: {result['growth']['bytes']} bytes in {result['growth']['ticks']} ticks", file=out, flush=True)
            rig.close()
    release_realtime()
    if not args.skip_naive:
        from naive_loop import compare

        result["naive"] = compare(args.engine)
        naive = result["naive"]
        print(f"naive loop {naive['naive_us']['p50']:.1f} us, this loop {naive['ours_us']['p50']:.1f} us: {naive['ratio']:.1f}x", file=out)
    if args.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
