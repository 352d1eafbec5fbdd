"""Finds the gains of the baselines by random search in simulation, then narrows down; prints the lines for the robot file.

    python tools/tune_pd.py balance_bot [--rounds 6] [--seed 1]

Each candidate drives as many randomised robots as there are, half of them nominal; the score is survival first, then the error of
speed and yaw rate, then how much the duty shakes. Latency is part of the randomisation, so the gains hold up to 20 ms of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge_dsac.bundle.baselines import CascadedPd, PurePursuit, make_baseline
from edge_dsac.loop.observer import Reference
from edge_dsac.spec.robot import RobotSpec, load_robot
from sim.randomize import load_ranges
from sim.rollout import Rollout

SEARCH = {
    "balance_bot": {
        "pitch_kp": (1.5, 12.0), "pitch_kd": (0.05, 1.2), "speed_kp": (0.02, 0.6), "speed_ki": (0.0, 0.5), "lean_limit_rad": (0.1, 0.35),
        "yaw_kp": (0.02, 0.4), "yaw_ff": (0.0, 0.3),
    },
    "rover": {"speed_kp": (0.1, 2.0), "speed_ff": (0.3, 1.2), "yaw_kp": (0.0, 0.5), "yaw_ff": (0.0, 0.5)},
}  # fmt: skip
TABLE = {"balance_bot": "balance_pd", "rover": "pure_pursuit"}


def score(spec: RobotSpec, seed: int, robots: int, seconds: float, ranges: str) -> tuple[float, dict[str, float]]:
    rollout = Rollout(spec, robots, seed, load_ranges(ranges), threads=2)
    generator = np.random.default_rng(seed)
    speed, yaw = generator.uniform(-0.5, 0.5, robots), generator.uniform(-1.5, 1.5, robots)
    if spec.model == "rover":
        speed, yaw = np.full(robots, spec.pure_pursuit.cruise_m_s if spec.pure_pursuit else 0.0), np.zeros(robots)
    rollout.observer.set_reference(Reference(speed, yaw))
    engine = make_baseline(spec)
    assert isinstance(engine, (CascadedPd, PurePursuit))
    alive, shake, error = np.ones(robots, bool), np.zeros(robots), np.zeros(robots)
    ticks, last = int(seconds * spec.rates.control_hz), np.zeros((robots, len(spec.actions)))
    for tick in range(ticks):
        action = engine.act(rollout.obs)
        rollout.step(action)
        truth = rollout.plant.truth()
        alive &= np.abs(truth.pitch_rad) < spec.safety.tilt_limit_rad
        shake += np.abs(action - last).mean(axis=1)
        last = action
        if tick > ticks // 3:
            error += np.abs(truth.speed_m_s - speed) + (0.2 * np.abs(truth.yaw_rate_rad_s - yaw) if spec.model != "rover" else 0.0)
            if spec.model == "rover":
                error += 3.0 * np.abs(rollout.observer.on_path.cross_m)
    error /= ticks - ticks // 3
    shake /= ticks
    value = alive.mean() * 10 - error[alive].mean() if alive.any() else 0.0
    return float(value - 1.0 * shake[alive].mean() if alive.any() else value), {
        "survival": float(alive.mean()), "error": float(error[alive].mean()) if alive.any() else float("inf"), "shake": float(shake.mean()),
    }  # fmt: skip


def with_gains(spec: RobotSpec, gains: dict[str, float]) -> RobotSpec:
    table = TABLE[spec.model]
    return dataclasses.replace(spec, **{table: dataclasses.replace(getattr(spec, table), **gains)})


def search(spec: RobotSpec, rounds: int, candidates: int, seed: int) -> dict[str, float]:
    generator = np.random.default_rng(seed)
    box: dict[str, Any] = dict(SEARCH[spec.model])
    current = {name: getattr(getattr(spec, TABLE[spec.model]), name) for name in box}
    best, best_value = current, score(with_gains(spec, current), seed, 48, 8.0, "full")[0]
    for round_index in range(rounds):
        width = 0.5**round_index
        for _ in range(candidates):
            gains = {}
            for name, (low, high) in box.items():
                span = (high - low) * width
                center = best[name] if round_index else (low + high) / 2
                gains[name] = float(np.clip(center + generator.uniform(-0.5, 0.5) * span, low, high))
            value, _ = score(with_gains(spec, gains), seed, 48, 8.0, "full")
            if value > best_value:
                best, best_value = gains, value
        _, detail = score(with_gains(spec, best), seed + 1, 48, 8.0, "full")
        print(f"round {round_index + 1}: value {best_value:.3f}, on other robots {detail}", flush=True)
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("robot", choices=sorted(SEARCH))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", action="store_true", help="only score the gains that are in the robot file, 60 s")
    args = parser.parse_args()
    spec = load_robot(args.robot)
    if not args.check:
        best = search(spec, args.rounds, args.candidates, args.seed)
        print(f"[{TABLE[args.robot]}]")
        for name, value in best.items():
            print(f"{name} = {value:.3g}")
        spec = with_gains(spec, {name: float(f"{value:.3g}") for name, value in best.items()})
    for ranges in ("nominal", "full", "hidden"):
        print(f"60 s, {ranges}: {score(spec, args.seed + 100, 40, 60.0, ranges)[1]}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
