"""One cell of bench_returns.py: one algorithm learns one task from one seed, and its deployed policy is judged along the way.

    python tools/returns_child.py PLAN_AS_JSON OUT.json      (bench_returns.py starts this, one thread each)

Everybody is judged by the same function in the same episodes (`evaluate`, worlds and seed of this project's trainer), and every soft
critic by the same `check_value`, whose arithmetic is `realise`. Knows no other cell.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime, timezone
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gymnasium as gym
import numpy as np
import torch
from returns_cells import PACED, QUICKER, QUICKER_PAPER, ROBOTS, SHIPPED, CellError, cell_in, evaluation_steps, write_cell

import sim  # noqa: F401  registers the robots' ids
from edge_dsac.cli.train import ALGORITHMS, Options, overlay, preset_of
from edge_dsac.learn.compiled import make_updater, prepare, resolve
from edge_dsac.learn.evaluate import Judged, Score, ValueCheck, check_value, evaluate, value_steps
from edge_dsac.learn.losses import Objective
from edge_dsac.learn.networks import squash
from edge_dsac.learn.run_folder import machine, source_state
from edge_dsac.learn.trainer import EVALUATION_PLACES, EVALUATION_SEED, VALUE_SEED, Learning, Round, Trainer
from edge_dsac.records import Float
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import load_robot
from edge_dsac.spec.schema import parse_toml
from sim.env import EpisodeOptions
from sim.tasks import GymTask, RobotTask, Tasks, WorkerTask

T = TypeVar("T")
REFINEMENTS = {
    "no-expected-value": "expected_value_substitution",
    "no-twin": "twin_value_distributions",
    "no-bound": "variance_based_bound",
}
SACS_PACE = {"critic_lr": 3e-4, "actor_lr": 3e-4, "delay": 1}
OWN: dict[str, dict[str, Any]] = {
    **ALGORITHMS,
    QUICKER: {**SACS_PACE, "objective": {"critic_loss": "huber"}},
    QUICKER_PAPER: SACS_PACE,
    **{name: {"objective": {field: False}} for name, field in REFINEMENTS.items()},
}
SOFT = {*OWN, "sb3-sac"}  # those whose critics estimate a soft return
NOTHING = ValueCheck(np.zeros(0), np.zeros(0), np.zeros(0))
QUICKER_ALPHA = 1.0  # SAC's; the paper begins with e
EXPLORATION_NOISE = 0.1  # of half the action range, for TD3 and DDPG: TD3's paper; stable-baselines3 has none by default
VALUE_SHARE = 0.25  # of the budget, at its end
PR_SET_PDEATHSIG, SIGTERM = 1, 15
VERSIONS = ("torch", "numpy", "mujoco", "gymnasium", "stable-baselines3", "sb3-contrib")


class Curve:
    """The points of one run, and the time that judging took, which is not the algorithm's."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.points: list[dict[str, Any]] = []
        self.seconds = 0.0

    def timed(self, call: Callable[[], T]) -> T:
        begun = time.monotonic()
        try:
            return call()
        finally:
            self.seconds += time.monotonic() - begun

    def wants_value(self, steps: int) -> bool:
        """In the last quarter: before, all critics are still far from anything, and a check costs seconds."""
        return steps >= (1.0 - VALUE_SHARE) * self.budget

    def add(self, steps: int, updates: int, score: Score, value: ValueCheck) -> None:
        figures = value.figures() if len(value.estimated) else None
        self.points.append({
            "steps": steps, "updates": updates, "mean": score.mean, "std": float(np.std(score.returns)), "episodes": len(score.returns),
            "survival": score.survival, "value": figures,
        })  # fmt: skip


class Worlds:
    """Training may have an episode of its own (shipped settings); judged is everybody in the task's."""

    def __init__(self, training: Tasks, judging: Tasks) -> None:
        self.training, self.evaluation, self.endless = training.training, judging.evaluation, judging.endless


class OwnTrainer(Trainer):
    """This project's trainer, and nothing on the disk: a cell is repeated as a whole."""

    def __init__(self, learning: Learning, worlds: Worlds, updater: Any, curve: Curve, with_value: bool) -> None:
        super().__init__(learning, worlds, updater, NoCheckpoints(), {})  # type: ignore[arg-type]
        self.curve, self.with_value = curve, with_value

    def evaluate(self) -> Score:
        return self.curve.timed(super().evaluate)

    def check_value(self) -> ValueCheck:
        steps = self.collector.steps * self.world.n
        return self.curve.timed(super().check_value) if self.with_value and self.curve.wants_value(steps) else NOTHING


class NoCheckpoints:
    def save(self, *_: Any) -> None:
        pass


def options_of(plan: dict[str, Any]) -> Options:
    """This project's algorithm for this cell: the paper's defaults under the study's settings, or what is shipped with the robot."""
    cell, settings, budget = cell_in(plan), plan["settings"], plan["budget"]
    if cell.algorithm == SHIPPED:
        preset = preset_of(ROBOTS.get(cell.task, cell.task))
        if preset is None:
            raise CellError(f"{cell.task}: no settings are shipped for it")
        options = overlay(Options(), parse_toml(preset.read_text(), str(preset)), str(preset))
        learning = options.learning
    else:
        options = overlay(Options(), {"learning": {"rates": OWN[cell.algorithm]}}, cell.algorithm)
        hidden = tuple(settings["hidden"])
        learning = replace(
            options.learning, steps_per_update=settings["steps_per_update"], warmup_steps=round(budget * settings["warmup_share"]),
            batch=settings["batch"], critic_hidden=hidden, actor_hidden=hidden, capacity=budget,
            alpha=QUICKER_ALPHA if cell.algorithm in PACED else options.learning.alpha,
        )  # fmt: skip
    learning = replace(
        learning, seed=cell.seed, reward_scale=float(cell.variant), evaluation_episodes=settings["episodes"],
        updates=int((budget - learning.warmup_steps) / learning.steps_per_update),
    )  # fmt: skip
    return replace(options, learning=learning)


def goals_of(learning: Learning, at_steps: list[int]) -> list[int]:
    """Updates done when so many environment steps have been lived through; 0 is the untrained policy."""
    goals = [max(0, int((steps - learning.warmup_steps) / learning.steps_per_update)) for steps in at_steps]
    trained = [goal for goal in goals if goal]
    if len(set(trained)) != len(trained) or not trained:
        raise CellError(f"a budget of {at_steps[-1]} steps is too small: {len(at_steps)} evaluations need at least an update each")
    return goals


def learn_own(plan: dict[str, Any]) -> tuple[Curve, dict[str, Any]]:
    cell, options = cell_in(plan), options_of(plan)
    learning = options.learning
    goals = goals_of(learning, evaluation_steps(plan["budget"], plan["settings"]["evaluations"]))
    compiled = resolve("auto", learning.updates, "cpu")
    curve = Curve(plan["budget"])
    worlds = Worlds(tasks_of(cell.task, options.episode), tasks_of(cell.task))
    trainer = OwnTrainer(learning, worlds, make_updater(learning.rates, compiled, "cpu"), curve, cell.algorithm in SOFT)
    untrained = goals.count(0)
    if untrained:
        score = trainer.evaluate()
        for steps in evaluation_steps(plan["budget"], plan["settings"]["evaluations"])[:untrained]:
            curve.add(steps, 0, score, NOTHING)
    lengths = iter(np.diff([0, *goals[untrained:]]).tolist())

    def next_round() -> None:
        trainer.learning = replace(learning, round_updates=next(lengths, 1))

    def on_round(done: Round) -> None:
        curve.add(done.progress.env_steps, done.progress.updates, done.score, done.value)
        next_round()

    next_round()
    try:
        trainer.run(on_round, lambda updates, steps: None)
    finally:
        trainer.world.close()
    return curve, {"learning": asdict(learning), "episode": asdict(options.episode), "compiled": compiled}


def tasks_of(task: str, options: EpisodeOptions = EpisodeOptions()) -> Tasks:
    robot = ROBOTS.get(task)
    return Tasks(robot, None if robot else task, options, workers=False)


class PeerEnv(gym.Wrapper[Any, Any, Any, Any]):
    """What a peer learns in: the Gymnasium id, a robot's observation scaled as our own networks see it, rewards times `reward_scale`."""

    def __init__(self, task: str, reward_scale: float) -> None:
        super().__init__(gym.make(task))
        self.reward_scale, self.scale = reward_scale, 1.0
        if task in ROBOTS:
            scale = np.asarray(ObservationLayout(load_robot(ROBOTS[task])).scale)
            box = self.env.observation_space
            self.observation_space = gym.spaces.Box(
                (box.low * scale).astype(np.float32), (box.high * scale).astype(np.float32), dtype=np.float32
            )
            self.scale = scale

    def seen(self, obs: Any) -> Float:
        return np.asarray(obs * self.scale, np.float32)

    def reset(self, **choices: Any) -> tuple[Float, dict[str, Any]]:
        obs, info = self.env.reset(**choices)
        return self.seen(obs), info

    def step(self, action: Any) -> tuple[Float, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self.seen(obs), float(reward) * self.reward_scale, terminated, truncated, info


def make_peer(plan: dict[str, Any], env: PeerEnv) -> Any:
    """The library's own defaults, but for what every off-policy algorithm has in common here."""
    import sb3_contrib
    import stable_baselines3 as sb3
    from stable_baselines3.common.noise import NormalActionNoise

    cell, settings, budget = cell_in(plan), plan["settings"], plan["budget"]
    kind = cell.algorithm.removeprefix("sb3-")
    common: dict[str, Any] = {"policy": "MlpPolicy", "env": env, "seed": cell.seed, "device": "cpu"}
    if kind in ("ppo", "trpo"):
        return (sb3.PPO if kind == "ppo" else sb3_contrib.TRPO)(**common)
    common |= {
        "train_freq": max(1, round(settings["steps_per_update"])), "gradient_steps": max(1, round(1.0 / settings["steps_per_update"])),
        "learning_starts": round(budget * settings["warmup_share"]), "batch_size": settings["batch"], "buffer_size": budget,
        "policy_kwargs": {"net_arch": list(settings["hidden"])},
    }  # fmt: skip
    if kind == "sac":
        return sb3.SAC(**common)
    size = env.action_space.shape
    noise = NormalActionNoise(np.zeros(size), np.full(size, EXPLORATION_NOISE))
    return {"td3": sb3.TD3, "ddpg": sb3.DDPG}[kind](**common, action_noise=noise)


def learn_peer(plan: dict[str, Any]) -> tuple[Curve, dict[str, Any]]:
    cell, settings, budget = cell_in(plan), plan["settings"], plan["budget"]
    model = make_peer(plan, PeerEnv(cell.task, float(cell.variant)))
    tasks, curve = tasks_of(cell.task), Curve(budget)
    due = evaluation_steps(budget, settings["evaluations"])

    def after_step(_: Any, __: Any) -> bool:
        steps = model.num_timesteps
        if steps >= due[len(curve.points)]:
            score = curve.timed(lambda: judge_peer(tasks, model, settings["episodes"]))
            wanted = cell.algorithm in SOFT and curve.wants_value(steps)
            value = curve.timed(lambda: check_peer(tasks, model, float(cell.variant))) if wanted else NOTHING
            curve.add(steps, int(model._n_updates), score, value)
        return len(curve.points) < len(due)

    model.learn(total_timesteps=budget, callback=after_step)
    figures = ("learning_rate", "gamma", "tau", "batch_size", "n_steps", "gradient_steps", "learning_starts", "buffer_size", "policy_delay")
    told = {name: getattr(model, name) for name in figures if hasattr(model, name)}
    return curve, {**told, "train_freq": str(getattr(model, "train_freq", None)), "policy": str(model.policy)}


def judge_peer(tasks: Tasks, model: Any, episodes: int) -> Score:
    world = tasks.evaluation(min(episodes, EVALUATION_PLACES))
    try:
        return evaluate(world, lambda obs: model.predict(np.asarray(obs, np.float32), deterministic=True)[0], EVALUATION_SEED, episodes)
    finally:
        world.close()


def check_peer(tasks: Tasks, model: Any, reward_scale: float) -> ValueCheck:
    """stable-baselines3's SAC through our own check: only who is asked is another. Its entropy is that of the action in [-1, 1]."""
    world: RobotTask | GymTask | WorkerTask = tasks.endless(4)
    alpha = float(model.log_ent_coef.detach().exp())
    bounds = (torch.as_tensor(world.low), torch.as_tensor(world.high))
    judged = Judged((), (), alpha, bounds, Objective(), model.gamma, reward_scale)

    def look(_: Judged, obs: Float, generator: torch.Generator) -> tuple[Float, Float, Float, Float]:
        with torch.no_grad():
            seen = torch.from_numpy(np.asarray(obs, np.float32))
            mean, log_std, _ = model.actor.get_action_dist_params(seen)
            eps = torch.randn(mean.shape, generator=generator)
            act, log_prob = squash(mean, log_std.exp(), eps, torch.tensor(-1.0), torch.tensor(1.0))
            q = torch.cat(model.critic(seen, act), dim=1).min(dim=1).values
        wanted = model.policy.unscale_action(act.numpy())
        return wanted, np.asarray(log_prob, float), np.asarray(q, float), np.zeros(len(q))

    try:
        return check_value(world, judged, VALUE_SEED, value_steps(model.gamma), look)
    finally:
        world.close()


def learn(plan: dict[str, Any]) -> dict[str, Any]:
    if cell_in(plan).algorithm.startswith("sb3-"):
        import_module("sb3_contrib")  # seconds that are not learning's
    begun, cpu = time.monotonic(), cpu_seconds()
    load = os.getloadavg()[0]
    prepare(threads=1)
    curve, details = (learn_peer if cell_in(plan).algorithm.startswith("sb3-") else learn_own)(plan)
    seconds = time.monotonic() - begun
    return {
        "plan": plan, "points": curve.points, "seconds": seconds, "judging_seconds": curve.seconds,
        "learning_seconds": seconds - curve.seconds, "cpu_seconds": cpu_seconds() - cpu, "load_at_start": load, "details": details,
        **circumstances(),
    }  # fmt: skip


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def circumstances() -> dict[str, Any]:
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M"), "versions": {name: version_of(name) for name in VERSIONS},
        "source": source_state(), "machine": machine(),
    }  # fmt: skip


def version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def main() -> int:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGTERM)  # a study that was killed leaves nobody behind
    words = learn(json.loads(sys.argv[1])) | {"command": os.environ.get("BENCH_COMMAND", "")}
    write_cell(Path(sys.argv[2]), words)
    return 0


if __name__ == "__main__":
    sys.exit(main())
