"""The project's robots learnt with their shipped settings, seed by seed, and examined beside their baselines.

    python tools/bench_robots.py balance_bot --seeds 5
    python tools/bench_robots.py rover --seeds 5 --out bench/rover.json

Each seed is one `edge-dsac train --robot ROBOT --seed N`, one after the other, timed as a user would time it; a seed whose run is
finished is not repeated. Then --episodes of each policy, and of the baseline, on the robot as designed (nominal), under full domain
randomisation and on the hidden robot; of a rover's collisions also how many were with something that the radar cannot have shown for a
second, for it was behind or beside the robot. Prints a table; --json prints {"rows": [...], "goals": {...}}.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from edge_dsac.bundle.actor import load_actor
from edge_dsac.bundle.baselines import make_baseline
from edge_dsac.cli.train import baseline_policy, parse
from edge_dsac.learn.evaluate import evaluate
from edge_dsac.learn.run_folder import machine, source_state
from edge_dsac.records import Float, Outcome
from edge_dsac.spec.robot import load_robot
from sim.env import RobotVectorEnv
from sim.obstacle import RADAR_HALF_ANGLE_RAD, RADAR_RANGE_M
from sim.tasks import RobotTask

EXAM_SEED = 4_000_037
SETS = ("nominal", "full", "hidden")
SECONDS = {"balance_bot": 10.0, "rover": 15.0}


class WatchedTask(RobotTask):
    """Tells of each collision whether the obstacle had been out of the radar's sight for a second."""

    def begin(self, seed: int) -> Float:
        self.out_of_sight = np.zeros(self.n, int)  # ticks
        return super().begin(seed)

    def step(self, action: Float) -> Outcome:
        self.out_of_sight = np.where(shown_by_radar(self.env), 0, self.out_of_sight + 1)
        outcome = super().step(action)
        unseen = self.out_of_sight >= self.env.robot.rates.control_hz
        outcome.info["collided_unseen"] = outcome.info["collided"] & unseen
        return outcome


def shown_by_radar(env: RobotVectorEnv) -> np.ndarray:
    truth = env.rollout.plant.truth()
    offset = env.rollout.plant.obstacle.position_m - truth.position_m
    bearing = np.arctan2(offset[:, 1], offset[:, 0]) - truth.heading_rad
    ahead = np.abs(np.arctan2(np.sin(bearing), np.cos(bearing))) <= RADAR_HALF_ANGLE_RAD
    return np.asarray(ahead & (np.hypot(*offset.T) <= RADAR_RANGE_M))


def learn(robot: str, seed: int, folder: Path, words: list[str]) -> float:
    """Trains unless that was done; how long it took."""
    done = folder / "seconds.json"
    if not done.exists():
        begun = time.monotonic()
        command = [sys.executable, "-m", "edge_dsac.cli.main", "train", "--robot", robot, "--seed", str(seed), "--out", str(folder), *words]
        subprocess.run([*command, "--resume", "auto", "--film-s", "0"], check=True, stdout=sys.stderr)
        done.write_text(json.dumps(time.monotonic() - begun))
    return float(json.loads(done.read_text()))


def examine(robot: str, policy_file: Path | None, ranges: str, episodes: int) -> dict[str, float]:
    """A policy, or the baseline, in the same episodes."""
    spec = load_robot(robot)
    options = replace(parse(["--robot", robot]).episode, randomization=ranges, seconds=SECONDS.get(robot, 10.0))
    task = WatchedTask(spec, episodes, options)
    if policy_file is None:
        policy = baseline_policy(make_baseline(spec), task)
    else:
        actor = load_actor(policy_file, spec)
        policy = lambda scaled: actor.act(scaled / actor.obs_scale)  # noqa: E731
    return evaluate(task, policy, EXAM_SEED, episodes).figures()


def row_of(name: str, seconds: float | None, exams: dict[str, dict[str, float]]) -> dict[str, Any]:
    return {"who": name, "seconds": seconds, **exams}


def table(rows: list[dict[str, Any]], with_path: bool) -> str:
    head = f"{'':14} {'seconds':>8}" + "".join(
        f" | {ranges:>8} {'survival':>8}" + (f" {'hit':>5} {'unseen':>6} {'off path':>8}" if with_path else "") for ranges in SETS
    )
    lines = [head]
    for row in rows:
        cells = ""
        for ranges in SETS:
            figures = row[ranges]
            cells += f" | {figures['mean']:8.1f} {figures['survival']:8.2f}"
            if with_path:
                cells += f" {figures['collided']:5.2f} {figures['collided_unseen']:6.2f} {figures['off_path_m']:6.3f} m"
        seconds = f"{row['seconds']:8.0f}" if row["seconds"] is not None else f"{'':8}"
        lines.append(f"{row['who']:14} {seconds}{cells}")
    return "\n".join(lines)


def goals_of(robot: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What was asked for, and what came of it."""
    learnt = [row for row in rows if row["who"].startswith("seed")]
    if robot == "rover":
        free = [1.0 - row["full"]["collided"] for row in learnt]
        spread = float(np.std(free, ddof=1)) if len(free) > 1 else 0.0
        half = 2.776 * spread / np.sqrt(len(free)) if len(free) == 5 else None  # Student's t for five seeds
        return {
            "collision-free episodes, mean over seeds, full randomisation, wanted >= 0.9": float(np.mean(free)),
            "its 95 % interval, half": half,
            "collisions with something the radar had not shown for 1 s": float(np.mean([row["full"]["collided_unseen"] for row in learnt])),
            "mean path error in m, nominal": float(np.mean([row["nominal"]["off_path_m"] for row in learnt])),
        }
    return {
        "seeds with survival 1.0 nominal in under 240 s, wanted all": sum(
            r["nominal"]["survival"] == 1.0 and r["seconds"] < 240 for r in learnt
        ),
        "seeds with survival >= 0.9 under full randomisation, wanted 4 of 5": sum(r["full"]["survival"] >= 0.9 for r in learnt),
        "of": len(learnt),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("robot", help="a shipped model with settings of its own: balance_bot, rover")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=100, help="of each exam, all at once (default: %(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("runs/robots"), help="where the runs lie (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="also write everything to this file")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("train", nargs="*", help="after --: further options of `edge-dsac train`")
    args = parser.parse_args()
    rows = [row_of("baseline", None, {ranges: examine(args.robot, None, ranges, args.episodes) for ranges in SETS})]
    for seed in range(args.seeds):
        folder = args.runs / f"{args.robot}-{seed}"
        seconds = learn(args.robot, seed, folder, args.train)
        exams = {ranges: examine(args.robot, folder / "policy.npz", ranges, args.episodes) for ranges in SETS}
        rows.append(row_of(f"seed {seed}", seconds, exams))
        print(table(rows, args.robot == "rover"), file=sys.stderr)
    result = {
        "command": "python tools/bench_robots.py " + " ".join(sys.argv[1:]), "date": time.strftime("%Y-%m-%d"), "episodes": args.episodes,
        "machine": {**machine(), "load": os.getloadavg()[0]}, "source": source_state(), "goals": goals_of(args.robot, rows), "rows": rows,
    }  # fmt: skip
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result) if args.json else table(rows, args.robot == "rover") + "\n" + json.dumps(result["goals"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
