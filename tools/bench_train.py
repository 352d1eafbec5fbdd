"""What an update of learning costs, beside stable-baselines3's SAC (torch, eager) and sbx's SAC (JAX, compiled).

    python tools/bench_train.py [--threads 1 2] [--rounds 8] [--json] [--out bench/train.json]
    python tools/bench_train.py --end-to-end [--turns 40] [--updates 50]

Observation 17, action 6, three layers of 256, batch 256 (--size robot: 14, 2, critics 128-128, actor 64-64; ours only). Sampling
the replay and drawing the noise are part of an update, here and there. A time is the mean of two updates in a row, because DSAC-T
moves its actor in every second one; `sac` is our own code in SAC's form (delay 1, mse, no target actor): equal work.
Every configuration is a process of its own with pinned threads; they take turns, round by round, so that what else runs on the
machine hits all of them. A ratio is the median over rounds of the ratios of the rounds' medians: above 1, ours is quicker.
`cpu_p50` is processor time, which a busy neighbour disturbs less; `first_s` is the first four updates, compiling included.
--end-to-end: steps/s of whole training on one thread, from the 20th update on, at one and at 20 steps per update. All are held on one
core (ours would else collect on another while it learns) and move in turns of half a second or two; `end_to_end_ratio` is of steps/s,
turn by turn: the median, the tenth and the ninetieth percentile. With --rounds 0 nothing but that.
What is not installed, or what this processor has not, is listed as skipped, with the reason.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from edge_dsac.bundle.processor import cpu_flags
from edge_dsac.learn.run_folder import machine

OURS = ("dsac_t/eager", "dsac_t/compiled", "sac/compiled", "dsac_t_bf16/compiled")
PEERS = {"sb3_sac": "stable_baselines3", "sbx_sac": "sbx"}
SIZES = {"paper": (17, 6, (256, 256, 256), (256, 256, 256)), "robot": (14, 2, (128, 128), (64, 64))}
TASKS = ("Hopper-v5", "HalfCheetah-v5")
ROWS, WARM, BEGIN_AT = 100_000, 4, 20
WARMUP_STEPS = 1000
ENDLESS = 1 << 40


# ---- figures: pure


def spread_ms(rounds: list[list[float]]) -> dict[str, float]:
    """Of the times of all rounds."""
    p10, p50, p90 = np.percentile(np.concatenate([np.asarray(times) for times in rounds]), [10, 50, 90])
    return {"p10": round(float(p10), 3), "p50": round(float(p50), 3), "p90": round(float(p90), 3)}


def ratio(slow: list[list[float]], quick: list[list[float]]) -> float:
    return round(float(np.median([np.median(a) / np.median(b) for a, b in zip(slow, quick, strict=True)])), 3)


def summary(times: dict[str, list[list[float]]], more: dict[str, dict[str, float]], skipped: dict[str, str]) -> dict[str, Any]:
    """`times[name][round]` in ms -> what --json prints."""
    update_ms: dict[str, Any] = {name: {**spread_ms(rounds), **more.get(name, {})} for name, rounds in times.items()}
    update_ms |= {name: {"skipped": reason} for name, reason in skipped.items()}
    ratios = {}
    for name, rounds in times.items():
        what, _, threads = name.rpartition("/")
        for form in ("dsac_t/compiled", "sac/compiled"):
            ours = times.get(f"{form}/{threads}")
            if ours and what != form and not (what.startswith("dsac_t") and form == "sac/compiled"):
                ratios[f"{name} over {form}/{threads}"] = ratio(rounds, ours)
    return {"update_ms": update_ms, "ratio": ratios}


def reason_to_skip(what: str, size: str, flags: frozenset[str], installed: Callable[[str], bool]) -> str:
    """Empty: it can run."""
    if what.startswith("dsac_t_bf16") and not {"avx512_bf16", "amx_bf16"} & flags:
        return "the processor has neither avx512_bf16 nor amx_bf16"
    if what in PEERS and size != "paper":
        return "peers are timed at the paper's size only"
    if what in PEERS and not installed(PEERS[what]):
        return f"{PEERS[what]} is not installed: pip install -e .[bench]"
    return ""


# ---- one configuration: runs in a process of its own


def child_ours(what: str, size: str, threads: int) -> Callable[[], None]:
    """The trainer's own `update`, on a replay of made-up rows."""
    from edge_dsac.cli.train import ALGORITHMS, overlay
    from edge_dsac.learn.compiled import make_updater, prepare
    from edge_dsac.learn.losses import Batch
    from edge_dsac.learn.trainer import Learning, Trainer, stream
    from edge_dsac.learn.update import Rates

    prepare(threads, "bfloat16" if "bf16" in what else "float32")
    obs, act, critic_hidden, actor_hidden = SIZES[size]

    class Worlds:
        """Only sizes: nothing is lived through."""

        name, n, obs_size, low, high = "none", 1, obs, -np.ones(act, np.float32), np.ones(act, np.float32)

        def training(self, n: int) -> Any:
            return self

    rates = overlay(Rates(), ALGORITHMS["sac" if what.startswith("sac") else "dsac-t"], what)
    learning = Learning(critic_hidden=critic_hidden, actor_hidden=actor_hidden, capacity=ROWS, rates=rates)
    worlds: Any = Worlds()
    nowhere: Any = None
    trainer = Trainer(learning, worlds, make_updater(rates, "compiled" in what, "cpu"), nowhere, {})
    rows = made_up_rows(obs, act)
    trainer.replay.add(Batch(*rows, np.zeros(ROWS, np.float32), np.full(ROWS, 0.99, np.float32)))  # type: ignore[arg-type]
    sample, noise, k = stream(0, 0, 1), stream(0, 0, 2), iter(range(1 << 60))
    return lambda: void(trainer.update(next(k), sample, noise))


def void(_: Any) -> None:
    pass


def made_up_rows(obs: int, act: int) -> tuple[Any, ...]:
    """obs, act, reward, next_obs."""
    draw = np.random.default_rng(0).standard_normal
    return tuple(draw(shape).astype(np.float32) for shape in ((ROWS, obs), (ROWS, act), ROWS, (ROWS, obs)))


def child_peer(what: str, threads: int) -> Callable[[], None]:
    """The peer's own `train` with one gradient step, on a replay of made-up rows."""
    import gymnasium as gym
    from stable_baselines3.common.logger import configure

    obs, act, hidden, _ = SIZES["paper"]

    class Still(gym.Env):  # type: ignore[misc]
        observation_space = gym.spaces.Box(-np.inf, np.inf, (obs,), np.float32)
        action_space = gym.spaces.Box(-1.0, 1.0, (act,), np.float32)

    model = make_peer(what, Still(), threads, hidden, buffer_size=ROWS)
    model.set_logger(configure(None, []))
    rows, buffer = made_up_rows(obs, act), model.replay_buffer
    for column, values in zip((buffer.observations, buffer.actions, buffer.rewards, buffer.next_observations), rows, strict=True):
        column[:] = values.reshape(column.shape)
    buffer.actions[:] = np.tanh(buffer.actions)
    buffer.full = True

    def once() -> None:
        model.train(1, 256)
        if what == "sbx_sac":
            import jax

            jax.block_until_ready((model.policy.qf_state.params, model.policy.actor_state.params))

    return once


def make_peer(what: str, env: Any, threads: int, hidden: tuple[int, ...], **choices: Any) -> Any:
    import torch

    torch.set_num_threads(threads)
    if what == "sb3_sac":
        from stable_baselines3 import SAC
    else:
        from sbx import SAC
    return SAC("MlpPolicy", env, policy_kwargs={"net_arch": list(hidden)}, batch_size=256, device="cpu", seed=0, **choices)


def serve_updates(once: Callable[[], None]) -> None:
    """For each number on standard input, so many updates: their times in ms, wall and processor, as one line of JSON."""
    begun = time.perf_counter()
    for _ in range(WARM):
        once()
    print(json.dumps({"first_s": round(time.perf_counter() - begun, 2)}), flush=True)
    for line in sys.stdin:
        for _ in range(WARM):
            once()
        wall, cpu = [], []
        for _ in range(max(1, int(line) // 2)):
            begun, used = time.perf_counter(), time.process_time()
            once()
            once()
            wall.append((time.perf_counter() - begun) * 500.0)
            cpu.append((time.process_time() - used) * 500.0)
        print(json.dumps({"wall": wall, "cpu": cpu}), flush=True)


class Child:
    def __init__(self, name: str, *words: str) -> None:
        threads = name.rpartition("/")[2]
        cores = sorted(os.sched_getaffinity(0))[: int(threads)]
        env = {**os.environ, **{f"{library}_NUM_THREADS": threads for library in ("OMP", "MKL", "OPENBLAS")}}
        env["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false" if threads == "1" else ""
        env["JAX_PLATFORMS"] = "cpu"
        command = [sys.executable, str(Path(__file__).resolve()), "--child", name, *words]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )  # fmt: skip
        self.name = name

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"bench_train: {self.name} ended with {self.process.wait()}; its error is above")
        return json.loads(line)

    def ask(self, updates: int) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{updates}\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def time_updates(names: list[str], size: str, rounds: int, updates: int, out: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """All of one number of threads, taking turns."""
    times: dict[str, list[list[float]]] = {name: [] for name in names}
    cpu: dict[str, list[list[float]]] = {name: [] for name in names}
    more: dict[str, dict[str, float]] = {}
    children = []
    try:
        for name in names:
            print(f"starting {name}", file=out, flush=True)
            children.append(Child(name, "--size", size))
            more[name] = children[-1].answer()
        for number in range(rounds):
            for child in children[number % len(children) :] + children[: number % len(children)]:
                said = child.ask(updates)
                times[child.name].append(said["wall"])
                cpu[child.name].append(said["cpu"])
    finally:
        for child in children:
            child.close()
    for name in names:
        more[name]["cpu_p50"] = spread_ms(cpu[name])["p50"]
    return times, more


# ---- whole training


class Stop(Exception):
    """Nobody asks any more; nothing is to be evaluated."""


class Meter:
    """A training that lives from turn to turn: when the updates of one are done, it says what they took and waits for the next number."""

    def __init__(self) -> None:
        self.goal, self.steps, self.begun = BEGIN_AT, 0, time.perf_counter()  # what comes before it, compiling too, is the first answer

    def at(self, updates: int, steps: int) -> None:
        if updates < self.goal:
            return
        print(json.dumps({"seconds": time.perf_counter() - self.begun, "steps": steps - self.steps}), flush=True)
        line = sys.stdin.readline()
        if not line:
            raise Stop
        self.goal, self.steps, self.begun = updates + int(line), steps, time.perf_counter()


def live_ours(task: str, steps_per_update: int) -> None:
    from edge_dsac.cli.train import ALGORITHMS, overlay
    from edge_dsac.learn.compiled import make_updater, prepare
    from edge_dsac.learn.trainer import Learning, Trainer
    from edge_dsac.learn.update import Rates
    from sim.env import EpisodeOptions
    from sim.tasks import Tasks

    prepare(1)
    rates = overlay(Rates(), ALGORITHMS["dsac-t"], "dsac-t")
    learning = Learning(ENDLESS, ENDLESS, steps_per_update=steps_per_update, warmup_steps=WARMUP_STEPS, rates=rates)
    nowhere: Any = None
    meter = Meter()
    trainer = Trainer(learning, Tasks(None, task, EpisodeOptions(), False), make_updater(rates, True, "cpu"), nowhere, {})
    trainer.run(void, meter.at)


def live_peer(what: str, task: str, steps_per_update: int) -> None:
    from stable_baselines3.common.callbacks import BaseCallback

    class Watch(BaseCallback):  # type: ignore[misc]
        def _on_step(self) -> bool:
            meter.at((self.num_timesteps - WARMUP_STEPS - 1) // steps_per_update, self.num_timesteps)
            return True

    meter = Meter()
    model = make_peer(
        what, task, 1, SIZES["paper"][2], learning_starts=WARMUP_STEPS, train_freq=steps_per_update, gradient_steps=1
    )  # fmt: skip
    model.learn(ENDLESS, callback=Watch())


def end_to_end(updates: int, turns: int, skip: Callable[[str], str], out: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for steps, peers in (("1", tuple(PEERS)), ("20", ("sb3_sac",))):
        for task in TASKS:
            case = f"{task}/{steps} steps per update"
            found |= {f"{case}/{who}": {"skipped": skip(who)} for who in peers if skip(who)}
            found |= live_in_turn(case, task, steps, ["dsac_t", *(who for who in peers if not skip(who))], updates, turns, out)
    return found


def live_in_turn(case: str, task: str, steps: str, who: list[str], updates: int, turns: int, out: Any) -> dict[str, Any]:
    """All of them stand on one core, and one moves at a time."""
    children, found = [], {}
    try:
        for name in who:
            children.append(Child(f"{name}/1", "--task", task, "--steps-per-update", steps))
            found[f"{case}/{name}"] = {"before_s": round(children[-1].answer()["seconds"], 2), "steps_per_s": []}
        for number in range(turns):
            for k in [(number + i) % len(who) for i in range(len(who))]:
                said = children[k].ask(updates)
                found[f"{case}/{who[k]}"]["steps_per_s"].append(said["steps"] / said["seconds"])
    finally:
        for child in children:
            child.close()
    for name, its in found.items():
        print(f"{name}: {np.median(its['steps_per_s']):.1f} steps/s", file=out, flush=True)
    return found


def told(found: dict[str, Any]) -> dict[str, Any]:
    """What --json prints of `end_to_end`: of each, the steps/s of its turns, or why there are none."""
    medians, ratios = {}, {}
    for name, its in found.items():
        if "skipped" in its:
            medians[name] = its
            continue
        speeds = np.array(its["steps_per_s"])
        medians[name] = {"steps_per_s": round(float(np.median(speeds)), 1), "before_s": its["before_s"], "turns": len(speeds)}
        case, _, who = name.rpartition("/")
        if who in PEERS:
            p10, p50, p90 = np.percentile(np.array(found[f"{case}/dsac_t"]["steps_per_s"]) / speeds, [10, 50, 90])
            ratios[f"{case}/dsac_t over {who}"] = {"p10": round(float(p10), 3), "p50": round(float(p50), 3), "p90": round(float(p90), 3)}
    return {"end_to_end": medians, "end_to_end_ratio": ratios}


# ---- the command


def child(args: argparse.Namespace) -> None:
    what, _, threads = args.child.rpartition("/")
    if args.task:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        ours = what == "dsac_t"
        with suppress(Stop):
            live_ours(args.task, args.steps_per_update) if ours else live_peer(what, args.task, args.steps_per_update)
    else:
        serve_updates(child_peer(what, int(threads)) if what in PEERS else child_ours(what, args.size, int(threads)))


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of {', '.join((*OURS, *PEERS))} (default: all)")
    parser.add_argument("--size", choices=list(SIZES), default="paper", help="of the networks (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each configuration (default: %(default)s; 0: none)")
    parser.add_argument("--round-updates", type=int, default=40, help="timed updates of a turn (default: %(default)s)")
    parser.add_argument("--end-to-end", action="store_true", help="whole training as well: some 10 minutes")
    parser.add_argument("--turns", type=int, default=40, help="of --end-to-end (default: %(default)s)")
    parser.add_argument("--updates", type=int, default=50, help="of a turn of --end-to-end (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output; progress on standard error")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--steps-per-update", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
        return 0
    out, flags = sys.stderr if args.json else sys.stdout, cpu_flags()
    times: dict[str, Any] = {}
    more: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for threads in args.threads if args.rounds else ():
        wanted = args.only or [*OURS, *PEERS]
        reasons = {f"{what}/{threads}": reason_to_skip(what, args.size, flags, installed) for what in wanted}
        skipped |= {name: reason for name, reason in reasons.items() if reason}
        names = [name for name, reason in reasons.items() if not reason]
        for whole, part in zip((times, more), time_updates(names, args.size, args.rounds, args.round_updates, out), strict=True):
            whole.update(part)
    result = summary(times, more, skipped)
    if args.end_to_end:
        result |= told(end_to_end(args.updates, args.turns, lambda who: reason_to_skip(who, "paper", flags, installed), out))
    for name, value in [*result["update_ms"].items(), *result["ratio"].items(), *result.get("end_to_end_ratio", {}).items()]:
        print(f"{name:44} {value}", file=out)
    result |= {"command": " ".join(["python", *sys.argv]), "date": date.today().isoformat(), "machine": machine()}
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    if args.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
