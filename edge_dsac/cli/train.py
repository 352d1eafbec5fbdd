"""`edge-dsac train`: DSAC-T in simulation, for a robot of this project or any Gymnasium id; from robots' logs too (from_logs.py)."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from edge_dsac.bundle.actor import make_actor_file
from edge_dsac.bundle.baselines import make_baseline
from edge_dsac.cli.from_logs import Home, open_base, open_home, wrong_words
from edge_dsac.learn.act import deployed
from edge_dsac.learn.base import Base
from edge_dsac.learn.checkpoint import CheckpointError, Checkpoints, unflatten
from edge_dsac.learn.compiled import Compile, Precision, default_threads, make_updater, prepare, resolve
from edge_dsac.learn.evaluate import evaluate
from edge_dsac.learn.losses import Objective
from edge_dsac.learn.ranks import Ranks, join
from edge_dsac.learn.run_folder import RunFolder, line_of
from edge_dsac.learn.trainer import EVALUATION_PLACES, EVALUATION_SEED, Learning, Round, Trainer, weights
from edge_dsac.learn.update import State
from edge_dsac.records import Observation
from edge_dsac.spec.robot import RobotSpec, load_robot
from edge_dsac.spec.schema import parse_toml
from edge_dsac.watch.progress import ProgressLine, clock
from edge_dsac.watch.training import draw_training
from sim.env import EpisodeOptions
from sim.film import film_env, film_robot
from sim.tasks import RobotTask, Tasks

T = TypeVar("T")
EXAM_EPISODES, EXAM_SEED, EXAM_S = 20, 3_000_017, 10.0
ALGORITHMS: dict[str, dict[str, Any]] = {
    "dsac-t": {},
    "dsac-v1": {"objective": {"expected_value_substitution": False, "twin_value_distributions": False, "variance_based_bound": False}},
    "sac": {"critic_lr": 3e-4, "actor_lr": 3e-4, "delay": 1, "objective": {"critic_loss": "mse", "target_actor": False}},
}


@dataclass(frozen=True, slots=True)
class Options:
    robot: str | None = None
    """a shipped model name, or the path of a robot file; brings settings of its own where there are some"""
    env: str | None = None
    """instead: any Gymnasium id with continuous actions, e.g. Hopper-v5"""
    algorithm: Literal["dsac-t", "dsac-v1", "sac"] = "dsac-t"
    """dsac-v1 and sac are ablations of the same code"""
    out: Path | None = None
    """the run's folder (default: runs/NAME-SEED)"""
    resume: Literal["no", "auto"] = "no"
    """auto: go on with the run in the folder where there is one; ends bit-identical to a run that was never stopped"""
    compile: Compile = "auto"
    """the update as one compiled function; auto: where the run is long enough to pay for compiling"""
    threads: int = 0
    """for the update; 0: all cores but the collector's"""
    device: str = "cpu"
    """cpu, or cuda"""
    precision: Precision = "float32"
    """of matrix products; bfloat16 where the processor has it: slower with avx512_bf16 alone (bench/train.json), with AMX nobody has run it"""
    workers: bool = False
    """of a Gymnasium id: each environment in a process of its own"""
    film_s: float = 10.0
    """seconds of the best policy as best.gif; 0: none"""
    exam: bool = True
    """at the end: the best policy and the baseline as designed, fully randomised, and hidden; some seconds of simulation"""
    from_logs: tuple[Path, ...] = ()
    """flight logs of one or many robots (folders of `run`): what they lived through is learnt from beside simulation; needs --base"""
    base: Path | None = None
    """go on from these networks: a finished run's folder, or a .policy file that holds its critics; horizon and widths come with it"""
    real_share: float = 0.5
    """of every batch, that comes from the logs; 0: none, as a control"""
    without_human: bool = False
    """leave out what a person drove; it is learnt from otherwise, for the action that was applied is known whoever chose it"""
    allow_unsigned: bool = False
    """take a .policy file as --base that no trusted key has signed"""
    learning: Annotated[Learning, tyro.conf.arg(name="")] = field(default_factory=Learning)
    episode: EpisodeOptions = field(default_factory=EpisodeOptions)


def add(verbs: Any) -> None:
    # Nothing begins with a NUL, so every word comes through to tyro, which makes --help and errors from the dataclasses.
    parser = verbs.add_parser("train", add_help=False, prefix_chars="\0", help="learn a policy in simulation")
    parser.add_argument("words", nargs="*")
    parser.set_defaults(run=lambda args: train(parse(args.words)))


def parse(words: Sequence[str]) -> Options:
    """The paper's defaults, under the algorithm's, under the robot's own, under the command line."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--robot", "--env", "--algorithm", "--base"):
        first.add_argument(name, nargs="?")
    first.add_argument("--allow-unsigned", action="store_true")
    known, _ = first.parse_known_args(list(words))
    defaults = Options()
    if known.algorithm in ALGORITHMS:
        table = {"learning": {"rates": ALGORITHMS[known.algorithm]}}
        defaults = overlay(defaults, table, known.algorithm)
    preset = preset_of(known.robot or known.env or "")
    if preset:
        defaults = overlay(defaults, parse_toml(preset.read_text(), str(preset)), str(preset))
    if known.base and known.robot:
        base = open_base(Path(known.base), load_robot(known.robot), known.allow_unsigned)
        defaults = overlay(defaults, {"learning": base.learning}, base.source)
    options: Options = tyro.cli(Options, args=list(words), default=defaults, prog="edge-dsac train", description=DESCRIPTION)
    if (options.robot is None) == (options.env is None):
        raise ValueError("give either --robot MODEL or --env ID; shipped: balance_bot, rover; an id for example Hopper-v5")
    wrong = wrong_words(options.robot, options.base, options.from_logs)
    if wrong:
        raise ValueError(wrong)
    return options


DESCRIPTION = """Learn a policy in simulation with DSAC-T.

  edge-dsac train --robot balance_bot                 settings shipped with the robot; some minutes on two cores
  edge-dsac train --env Hopper-v5 --updates 100000    the paper's settings
  edge-dsac train --robot balance_bot --resume auto   goes on where it was stopped, killed or cut off

Logs of robots go home: go on from the policy that flew, half of every batch from what it lived through.

  edge-dsac train --robot balance_bot --base balance.policy --from-logs runs/flight1 runs/flight2 --out runs/home
  edge-dsac compile runs/home --out next.policy --parent balance.policy       a candidate for the same gate

The newest round is then the result, not the best in simulation: which of the two drives better the robot's trial decides.

Writes runs/NAME-SEED: policy.npz (for `edge-dsac run --policy`), report.png, best.gif, metrics.jsonl, checkpoints."""


def preset_of(name: str) -> Any:
    """The settings shipped for a robot or an id, or None."""
    path = resources.files("edge_dsac.learn") / "presets" / f"{name}.toml"
    return path if name and "/" not in name and path.is_file() else None


def overlay(settings: T, table: dict[str, Any], source: str) -> T:
    """Settings with the table's values in place of their own. An unknown key is an error."""
    fields = {f.name for f in dataclasses.fields(settings)}  # type: ignore[arg-type]
    new: dict[str, Any] = {}
    for key, value in table.items():
        if key not in fields:
            guess = difflib.get_close_matches(key, fields, 1)
            raise ValueError(f"{source}: {key!r} is not a setting; {f'did you mean {guess[0]!r}?' if guess else ', '.join(sorted(fields))}")
        old = getattr(settings, key)
        new[key] = overlay(old, value, source) if isinstance(value, dict) else tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(settings, **new)  # type: ignore[type-var]


@dataclass(frozen=True, slots=True)
class Run:
    """A run as everything after it needs to know it."""

    options: Options
    spec: RobotSpec | None
    tasks: Tasks
    folder: RunFolder
    checkpoints: Checkpoints
    config: dict[str, Any]
    compiled: bool
    ranks: Ranks
    base: Base | None = None
    home: Home | None = None

    @property
    def objective(self) -> Objective:
        return self.options.learning.rates.objective


def train(options: Options) -> int:
    run = set_up(options)
    updater = make_updater(options.learning.rates, run.compiled, options.device, run.ranks)
    real = run.home.real if run.home else None
    trainer = Trainer(options.learning, run.tasks, updater, run.checkpoints, run.config, options.device, run.ranks, real)
    if run.base:
        trainer.begin_from(run.base)
    begin_or_go_on(run, trainer)
    progress = ProgressLine(options.learning.updates, sys.stdout)
    begun, interruption = time.monotonic(), Interruption()

    def on_round(done: Round) -> None:
        run.folder.write(done)
        progress.round_over(line_of(done), time.monotonic() - begun)
        draw_training(run.folder.path, run.folder.path / "report.png")

    def on_update(updates: int, env_steps: int) -> None:
        interruption.check()
        if run.ranks.first:
            progress.update(updates, env_steps)

    try:
        trainer.run(on_round, on_update)
    except KeyboardInterrupt:
        print(f"\nstopped; --resume auto goes on from round {trainer.progress.round} in {run.folder.path}")
        return 130
    finally:
        interruption.over()
        trainer.world.close()
        run.folder.close()
        run.ranks.leave()
    if run.ranks.first:
        finish(run, trainer, time.monotonic() - begun)
    return 0


class Interruption:
    """Ctrl-C is heard between two updates. Raised just anywhere it can be lost in a library's callback, and the run would go on; a
    second one is raised where it falls."""

    def __init__(self) -> None:
        self.asked = False
        self.before: Any = None
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGINT, self.note)

    def note(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nstopping after this update; once more ends at once", file=sys.stderr, flush=True)

    def check(self) -> None:
        if self.asked:
            raise KeyboardInterrupt

    def over(self) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)


def set_up(options: Options) -> Run:
    spec = load_robot(options.robot) if options.robot else None
    name = spec.model if spec else str(options.env)
    out = options.out or Path("runs") / f"{name}-{options.learning.seed}"
    ranks = join(options.device)
    compiled = resolve(options.compile, options.learning.updates, options.device)
    threads = options.threads or max(1, default_threads() // ranks.count)
    prepare(threads, options.precision, options.device)
    tasks = Tasks(spec, options.env, options.episode, options.workers)
    base = open_base(options.base, spec, options.allow_unsigned) if options.base and spec else None
    home = open_home(options.from_logs, spec, options.learning, options.real_share, options.without_human) if spec and base else None
    config = resolved(options, compiled, threads, ranks.count, base, home)
    if ranks.first:
        print(f"{name}: {options.learning.updates} updates of {options.algorithm}, seed {options.learning.seed}, in {out}")
        if spec and options.episode.engine == "warp":
            print("  physics by mujoco_warp; its kernels are compiled once on this machine, which takes a minute or two")
        together = f", {ranks.count} learners together" if ranks.count > 1 else ""
        print(
            f"  update {'compiled (the first one takes a while)' if compiled else 'not compiled'}, {threads} thread{'s' * (threads > 1)}{together}"
        )
        if home and base:
            print("\n".join([f"  goes on from {base.source} ({base.identity})", *home.lines(options.learning.batch)]))
    own = out if ranks.first else out / f"rank-{ranks.rank}"  # each rank keeps its own replay
    return Run(options, spec, tasks, RunFolder(out), Checkpoints(own, options.learning.capacity), config, compiled, ranks, base, home)


def resolved(
    options: Options, compiled: bool, threads: int, ranks: int, base: Base | None = None, home: Home | None = None
) -> dict[str, Any]:
    """Everything the numbers depend on, as JSON has it. Two runs with the same one end the same on the same machine."""
    words = asdict(options)
    for name in ("out", "resume", "film_s", "exam", "from_logs", "base", "real_share", "without_human", "allow_unsigned"):
        del words[name]  # of logs and base it is the contents that count, not where they lie
    if base and home:
        words |= {"home": {"base": base.identity, **home.config}}
    words |= {"compile": compiled, "threads": threads, "ranks": ranks}
    return dict(json.loads(json.dumps(words)))


def begin_or_go_on(run: Run, trainer: Trainer) -> None:
    if run.options.resume == "no" or not run.checkpoints.folder.is_dir():
        if run.ranks.first:
            run.folder.begin(run.config)
            save_baseline(run)
        return
    saved = run.checkpoints.load()
    common = run.ranks.least(saved.progress.round)  # a kill may have come between one rank's checkpoint and another's
    if common != saved.progress.round:
        saved = run.checkpoints.load(common)
    for passed_over in saved.damaged:
        print(f"  passed over: {passed_over}")
    changed = differences(saved.config, run.config)
    if changed:
        raise CheckpointError(
            f"{saved.path} was made with another configuration: " + "; ".join(changed) + ". Give the same options, or another --out"
        )
    trainer.resume(saved)
    if run.ranks.first:
        run.folder.go_on(saved.progress.round, saved.progress.updates)
        print(f"  goes on from round {saved.progress.round}, update {saved.progress.updates}")


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(set(before) | set(now))
        return [line for key in keys for line in differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)]
    return [] if before == now else [f"{name} was {before}, is {now}"]


def save_baseline(run: Run) -> None:
    """What the policy has to beat, in the evaluation's own episodes."""
    if run.spec is None:
        return
    try:
        engine = make_baseline(run.spec)
    except ValueError:
        return  # a robot of one's own need not have one
    episodes = run.options.learning.evaluation_episodes
    task = run.tasks.evaluation(min(episodes, EVALUATION_PLACES))
    assert isinstance(task, RobotTask)
    score = evaluate(task, baseline_policy(engine, task), EVALUATION_SEED, episodes)
    words = {"name": type(engine).__name__, **score.figures()}
    (run.folder.path / "baseline.json").write_text(json.dumps(words) + "\n")
    print(f"  to beat: {words['name']}, return {score.mean:.1f}, survival {score.survival:.2f}")


def baseline_policy(engine: Any, task: RobotTask) -> Any:
    """Baselines read SI; networks read the scaled observation, which is what a task gives."""
    unscaled = 1.0 / task.scale
    return lambda obs: engine.act(Observation(obs * unscaled, 0, True))


def finish(run: Run, trainer: Trainer, seconds: float) -> None:
    best = trainer.progress.best_round
    state = unflatten(run.checkpoints.load(best, with_replay=False).state, trainer.state, trainer.device)
    path, lines = run.folder.path, [f"done in {clock(seconds)}; best: round {best}, return {trainer.progress.best_mean:.1f}"]
    policy = deployed(state.actor, trainer.bounds, run.objective)
    if run.spec is not None:
        save_policy(run, state)
        lines += exam(run, policy) if run.options.exam else []
        lines.append(f"  policy   {path / 'policy.npz'}   (edge-dsac run --policy)")
    lines.append(f"  report   {path / 'report.png'}")
    if run.home and run.base:
        lines += run.home.told(path, run.base, state, trainer.bounds, run.objective)
    if run.options.film_s > 0 and film(run, policy):
        lines.append(f"  film     {path / 'best.gif'}")
    print("\n".join(lines))


def save_policy(run: Run, state: State) -> None:
    assert run.spec is not None
    (run.folder.path / "policy.npz").write_bytes(make_actor_file(weights(state), run.objective.activation, run.spec))


def exam(run: Run, policy: Any) -> list[str]:
    """The best policy and the baseline in the same episodes: the robot as designed, all that may differ, and the hidden one."""
    assert run.spec is not None
    lines, results = [f"  {'':18} {'return':>8} {'survival':>8} {'collided':>8} {'off path':>8}"], {}
    for ranges in ("nominal", "full", "hidden"):
        options = dataclasses.replace(run.options.episode, randomization=ranges, seconds=max(EXAM_S, run.options.episode.seconds))
        for who in ("policy", "baseline"):
            task = RobotTask(run.spec, EXAM_EPISODES, options)
            acts = policy
            if who == "baseline":
                try:
                    acts = baseline_policy(make_baseline(run.spec), task)
                except ValueError:
                    continue
            score = evaluate(task, acts, EXAM_SEED, EXAM_EPISODES)
            results[f"{who}/{ranges}"] = score.figures()
            on_path = f"{score.ends['collided']:8.2f} {score.means['off_path_m']:6.3f} m" if score.means.get("off_path_m") else ""
            lines.append(f"  {ranges:8} {who:9} {score.mean:8.1f} {score.survival:8.2f} {on_path}".rstrip())
    (run.folder.path / "exam.json").write_text(json.dumps(results, indent=1) + "\n")
    return lines


def film(run: Run, policy: Any) -> bool:
    """A run is not lost because nothing can be drawn here."""
    out = run.folder.path / "best.gif"
    try:
        if run.spec is not None:
            film_robot(RobotTask(run.spec, 1, run.options.episode), policy, run.options.film_s, EXAM_SEED, out)
        else:
            film_env(str(run.options.env), policy, run.options.film_s, EXAM_SEED, out)
    except (OSError, ImportError) as error:
        print(f"  no film: {error}")
        return False
    return True
