"""`edge-dsac demo`: the whole story without hardware, in one command and under five minutes, with the pictures of it.

Train, compile and sign, fly, change the robot, tune it beside its running loop, take the tuning back. Every step is a command that a
user would type, and is printed as one. Rule that must stay true: it shows what came out, better or not.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_dsac.cli.short_demo import Drive, draw, fly_with_a_pulled_cable, said_of, short_demo
from edge_dsac.cli.story import KEYS, Story
from edge_dsac.cli.tuned_story import HIDDEN, REPORT_S, Field, read_json, tell_of_the_change, tune, undo, who_drove
from edge_dsac.spec.robot import load_robot
from edge_dsac.watch.progress import clock

WHOLE = "balance_bot"  # ships with settings that make it balance in about a minute; other robots take longer than a demo may
TRAIN_LIMIT_S, COMPILE_LIMIT_S = 900.0, 300.0
# The shipped settings, a little shorter. Not much: critics that have not settled yet lead fine-tuning astray for longer than a demo takes.
QUICK = ("--evaluation-episodes", "10")
EPILOG = f"""\
{WHOLE}: the whole story in six steps. Any other robot, or --short: the virtual board, the loop under the robot's own
baseline, one unplugged cable, and the pictures of it.

examples:
  edge-dsac demo                         the whole story
  edge-dsac demo --seed 3                another policy, another robot
  edge-dsac demo --robot rover           the short one
"""


@dataclass(frozen=True, slots=True)
class Telling:
    """The whole story's sizes: small enough for five minutes on two cores, large enough to come to something."""

    updates: int = 12_000
    """of the training"""
    episodes: int = 16
    """flown by each precision in the compiler's gate; it wants so many at least"""
    drive: Drive = field(default_factory=lambda: Drive(WHOLE, 12.0))
    tuning: Field = field(default_factory=Field)
    seed: int = 0


def add(verbs: Any) -> None:
    parser = verbs.add_parser(
        "demo", help="the whole story without hardware: train, compile, fly, change the robot, tune, undo; with pictures", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--robot", default=WHOLE, help="a shipped model name, or the path of a robot file (default: %(default)s)")
    parser.add_argument("--short", action="store_true", help="board, loop and cable only, also for balance_bot")
    parser.add_argument("--seconds", type=float, help="how long the loop with the cable runs (default: 12, short demo 25)")
    parser.add_argument("--seed", type=int, default=0, help="of training, robot and tuner (default: %(default)s)")
    parser.add_argument(
        "--tune-minutes",
        type=float,
        default=Field().minutes,
        help="most that the tuner may take; it ends when it is sure (default: %(default)s)",
    )
    parser.add_argument(
        "--speed", type=float, default=Drive(WHOLE, 0.0).speed_m_s, metavar="M_S", help="forward speed asked for (default: %(default)s)"
    )
    parser.add_argument(
        "--yaw-rate",
        type=float,
        default=Drive(WHOLE, 0.0).yaw_rate_rad_s,
        metavar="RAD_S",
        help="yaw rate asked for, so that it drives a circle (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for log and pictures (default: %(default)s)")
    parser.set_defaults(run=demo)


def demo(args: argparse.Namespace) -> int:
    spec = load_robot(args.robot)
    out = args.out / time.strftime("%Y%m%d-%H%M%S")
    short = args.short or args.robot != WHOLE
    drive = Drive(args.robot, args.seconds or (25.0 if short else 12.0), args.speed, args.yaw_rate)
    with Story(out, 2 if short else 6) as story:
        if short:
            return short_demo(story, drive, spec)
        return whole_story(story, Telling(drive=drive, tuning=Field(minutes=args.tune_minutes, seed=args.seed), seed=args.seed))


def whole_story(story: Story, telling: Telling) -> int:
    spec, out = load_robot(telling.drive.robot), story.out
    story.tell(f"everything is kept in {out}; keys of its own too: $ export {KEYS}={out / 'keys'}")
    policy = make_policy(story, telling)
    story.heading(f"the policy drives a virtual {spec.model}: firmware in C, physics in MuJoCo, a pty between; a cable is pulled")
    drive = Drive(telling.drive.robot, telling.drive.seconds, telling.drive.speed_m_s, telling.drive.yaw_rate_rad_s, policy)
    said_of(story, fly_with_a_pulled_cable(story, drive, spec))
    story.heading(f"the robot changes: {HIDDEN}. Nobody tells the policy; the tuner learns beside the loop")
    slots, flights = tell_of_the_change(story, drive.robot, policy, spec, telling.tuning)
    pictures: dict[str, Path] = {}
    tune(story, slots, flights, telling.tuning, meanwhile=lambda: pictures.update(draw(out, spec)))  # of step 3; drawing takes seconds
    story.heading("what came of it, judged on paired windows of the old and the new policy on the robot itself")
    story.do(["tune", "report", "--slots", str(slots), "--out", str(out / "tuned.png")], REPORT_S)
    story.heading("and back: the parent drives again, while the robot stands on its wheels")
    same = undo(story, slots, flights, policy)
    flights.child.end()
    for line in who_drove(flights):
        story.tell(f"     {line}")
    verdict = read_json(next((slots / "tuning").glob("session-*")) / "report.json").get("verdict", "no evidence")
    how = "the child was taken back, the parent drives" if verdict == "better" else "the parent has stayed"
    story.tell(f"\n{verdict}; {how}; the whole in {clock(time.monotonic() - story.begun)}.")
    for name, path in {**pictures, "tuned": out / "tuned.png"}.items():
        story.tell(f"  {name:<8} {path}")
    return 0 if same else 1


def make_policy(story: Story, telling: Telling) -> Path:
    """Trained, judged, compiled and signed."""
    run, policy = story.out / "run", story.out / "balance.policy"
    story.heading("a policy learns to balance, in simulation, on robots that are built with care: all nearly alike")
    words = ["train", "--robot", telling.drive.robot, "--episode.randomization", "narrow", "--seed", str(telling.seed), "--out", str(run)]
    words += ["--updates", str(telling.updates), "--round-updates", str(max(1, telling.updates // 4)), *QUICK, "--no-exam", "--film-s", "0"]
    story.do(words, TRAIN_LIMIT_S)
    story.heading("one signed file: judged in four precisions, compiled for every board, its answers checked on every engine here")
    story.do(["keys", "new", "demo"], 60.0)
    story.do(["compile", str(run), "--out", str(policy), "--episodes", str(telling.episodes)], COMPILE_LIMIT_S)
    return policy
