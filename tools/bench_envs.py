"""How many steps a second the environments give: the robots by engine and by how many, Gymnasium's ids in one process or in several.

    python tools/bench_envs.py [--seconds 2] [--robot balance_bot] [--engines mujoco warp] [--envs 1 16 64 256] [--ids ...] [--json]

A step is one control period of one robot (observer, limiter, physics, sensors, reward), or one step of one Gymnasium environment;
episodes begin anew within the measured time. Actions are drawn beforehand. The engine warp is left out where mujoco_warp is not
installed; its kernels are compiled before the clock starts. Physics has one thread, as in training.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sim.env import EpisodeOptions
from sim.tasks import GymTask, RobotTask, WorkerTask

IDS, WORKERS = ("Hopper-v5", "Humanoid-v5"), (1, 4, 8)
ACTIONS = 64
WARM_STEPS = 3


def steps_per_s(task: Any, seconds: float) -> float:
    """Of all environments together."""
    generator = np.random.default_rng(0)
    actions = generator.uniform(task.low, task.high, (ACTIONS, task.n, len(task.low)))
    task.begin(0)
    for i in range(WARM_STEPS):
        task.step(actions[i])
    begun, steps = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        task.step(actions[steps % ACTIONS])
        steps += 1
    return steps * task.n / (time.perf_counter() - begun)


def measure(make: Any, seconds: float, **what: Any) -> dict[str, Any]:
    task = make()
    try:
        rate = steps_per_s(task, seconds)
    finally:
        task.close()
    print(f"{' '.join(str(value) for value in what.values()):40} {rate:10.0f} steps/s", file=sys.stderr)
    return {**what, "steps_per_s": round(rate, 1)}


def rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    for engine in args.engines:
        if engine == "warp" and importlib.util.find_spec("mujoco_warp") is None:
            print("warp: mujoco_warp is not installed; left out", file=sys.stderr)
            continue
        options = EpisodeOptions(engine=engine)
        for n in args.envs:
            make = lambda n=n, options=options: RobotTask(args.robot, n, options)  # noqa: E731
            found.append(measure(make, args.seconds, task=args.robot, kind=engine, envs=n))
    for env_id in args.ids:
        for n in WORKERS:
            for kind, form in (("one process", GymTask), ("workers", WorkerTask)):
                make = lambda env_id=env_id, n=n, form=form: form(env_id, n)  # noqa: E731
                found.append(measure(make, args.seconds, task=env_id, kind=kind, envs=n))
    return found


def device() -> str:
    if importlib.util.find_spec("warp") is None:
        return "none"
    import warp

    warp.config.log_level = warp.LOG_ERROR
    return str(warp.get_device())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each number")
    parser.add_argument("--robot", default="balance_bot")
    parser.add_argument("--engines", nargs="*", default=["mujoco", "warp"], choices=["mujoco", "warp"])
    parser.add_argument("--envs", nargs="*", type=int, default=[1, 16, 64, 256])
    parser.add_argument("--ids", nargs="*", default=list(IDS))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    load_before = os.getloadavg()[0]
    found = rows(args)
    result = {
        "command": " ".join(["python tools/bench_envs.py", *sys.argv[1:]]),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "warp_device": device() if "warp" in args.engines else "-",
        "load_before": round(load_before, 2),
        "note": "compare neighbouring rows only" + ("; the machine was loaded by others" if load_before > 0.5 else ""),
        "date": time.strftime("%Y-%m-%d"),
        "rows": found,
    }
    if args.json:
        print(json.dumps(result, indent=1))
        return
    for row in found:
        print(f"{row['task']:14} {row['kind']:12} {row['envs']:5} {row['steps_per_s']:12.0f}")


if __name__ == "__main__":
    main()
