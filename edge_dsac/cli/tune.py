"""`edge-dsac tune`: fine-tuning beside a running loop, on the robot's own board; and the way back.

This process is the tuner: nice, of one thread, bounded in processor time, memory and duration, and away at once when the loop is late.
It may be killed at any instant; `start --resume` goes on to the same bits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_dsac.bundle.keyring import board_key, key_folder, trusted_keys
from edge_dsac.bundle.package import Bundle
from edge_dsac.bundle.slot_folder import FLIGHT, name_of
from edge_dsac.bundle.slots import Slots
from edge_dsac.cli.signals import StopFlag
from edge_dsac.spec.robot import RobotSpec
from edge_dsac.steplog import Chunk, Follower

if TYPE_CHECKING:
    from edge_dsac.learn.tuner import Tuner

EPILOG = """\
examples:
  edge-dsac slots create policies balance.policy
  edge-dsac run --robot balance_bot --port /dev/ttyUSB0 --slots policies --exercise drive &
  edge-dsac tune start --slots policies --minutes 5      learns, tries candidates in windows, accepts what is shown to be better
  edge-dsac tune status --slots policies                 from any other terminal
  edge-dsac tune report --slots policies                 better, worse or no evidence, with a picture
  edge-dsac tune stop --slots policies                   ends in good order; what drives goes on driving
  edge-dsac tune undo --slots policies                   the parent drives again, byte by byte; needs no tuner and no network

exit codes: 0 done; 1 failed; 2 wrong arguments; 3 refused for safety; 130 interrupted
"""
LOOK_S, STATUS_S = 0.2, 1.0
LATE_SHARE = 0.25  # of a period: a loop whose ticks begin later than this is in need of the processor
MOST_PAUSE_S = 8.0


def add(verbs: Any) -> None:
    tune = verbs.add_parser(
        "tune", help="fine-tune the policy that drives, beside the loop; undo it", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    actions = tune.add_subparsers(dest="action", metavar="ACTION", required=True)
    start = with_slots(actions.add_parser("start", help="learn from the running loop until --minutes, `stop` or Ctrl-C"), begin)
    start.add_argument("--recipe", choices=("last-layer", "low-rank", "edit", "full", "critic"), help="what of the actor may change")
    start.add_argument("--minutes", type=float, default=10.0, help="at most so long (default: %(default)s)")
    start.add_argument("--cpu-share", type=float, default=0.5, help="of one core, at most (default: %(default)s)")
    start.add_argument(
        "--nice", type=int, default=19, help="how far it stands back behind what else wants the processor, 0 to 19 (default: %(default)s)"
    )
    start.add_argument("--memory-mb", type=float, default=400.0, help="ends in good order beyond this (default: %(default)s)")
    start.add_argument("--rows", type=int, default=60_000, help="of the robot's own that are kept, on disk too (default: %(default)s)")
    start.add_argument("--keep", choices=("oldest-out", "coverage"), default="oldest-out", help="what makes room in a full buffer")
    start.add_argument("--window-s", type=float, default=8.0, help="of a trial; whole laps of the loop's --exercise (default: %(default)s)")
    start.add_argument("--pairs", type=int, metavar="N", help="of a trial's windows, at most; a clear difference takes eight (default: 24)")
    start.add_argument(
        "--first-updates", type=int, metavar="N", help="before the first candidate; after few, children are worse (default: 4500)"
    )
    start.add_argument("--updates-per-row", type=float, metavar="X", help="no more updates than this for each row there is (default: 1)")
    start.add_argument(
        "--compile", choices=("auto", "on", "ready", "off"), default="auto",
        help="the update ahead of time, which needs g++ once and a minute or two; ready: only where that has been done (default: %(default)s)",
    )  # fmt: skip
    start.add_argument("--seed", type=int, default=0)
    start.add_argument("--resume", action="store_true", help="go on with the newest session of this folder")
    with_slots(actions.add_parser("status", help="what the tuner does, and what it has found"), status).add_argument(
        "--json", action="store_true"
    )
    with_slots(actions.add_parser("stop", help="end the session in good order"), stop)
    told = with_slots(actions.add_parser("report", help="better, worse or no evidence, with every number; and a picture"), report)
    told.add_argument("--session", type=int, help="which one (default: the newest)")
    told.add_argument("--out", type=Path, metavar="PNG", help="where the picture goes (default: report.png in the session)")
    told.add_argument("--json", action="store_true")
    undo = with_slots(actions.add_parser("undo", help="the parent of the current policy drives again"), take_back)
    undo.add_argument("--all", action="store_true", help="back to the golden policy")


def with_slots(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    parser.add_argument("--slots", type=Path, required=True, metavar="FOLDER", help="the folder that `run --slots` drives from")
    parser.add_argument("--allow-unsigned", action="store_true", help="take policies without a trusted signature")
    parser.set_defaults(run=run)
    return parser


def opened(args: argparse.Namespace) -> Slots:
    return Slots(args.slots, trusted_keys(key_folder(os.environ)), allow_unsigned=args.allow_unsigned)


# ---- start


@dataclass(slots=True)
class Budget:
    """What a session may use, and the loop's word over it."""

    minutes: float
    cpu_share: float
    memory_mb: float
    pause_s: float = 0.0
    yielded: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.cpu_share <= 1.0 or self.minutes <= 0.0 or self.memory_mb <= 0.0:
            raise ValueError("expected --cpu-share above 0 and up to 1, --minutes and --memory-mb above 0")

    def spent(self, seconds: float, memory: float) -> str:
        """Which of it; empty while there is some of each."""
        if seconds >= 60.0 * self.minutes:
            return "the time is up"
        return f"{memory:.0f} MB resident, {self.memory_mb:.0f} may be" if memory > self.memory_mb else ""

    def hear(self, columns: np.ndarray, period_ns: int) -> None:
        """The loop's lateness: each look at which it is late doubles the tuner's absence."""
        if not len(columns):
            return
        late = np.quantile(columns["late_ns"], 0.99) > LATE_SHARE * period_ns
        self.pause_s = min(MOST_PAUSE_S, max(0.5, 2.0 * self.pause_s)) if late else 0.0
        self.yielded += int(late)

    def rest_s(self, worked_s: float) -> float:
        return worked_s * (1.0 / self.cpu_share - 1.0) + self.pause_s


class Heard:
    """The flights, heard by the budget on their way to the tuner."""

    def __init__(self, follower: Follower, budget: Budget, period_ns: int) -> None:
        self.follower, self.budget, self.period_ns = follower, budget, period_ns

    def look(self) -> list[Chunk]:
        chunks = self.follower.look()
        for chunk in chunks:
            self.budget.hear(chunk.columns[-1000:], self.period_ns)
        return chunks


def begin(args: argparse.Namespace) -> int:
    be_modest(args.nice)
    budget = Budget(args.minutes, args.cpu_share, args.memory_mb)
    tuner = make_tuner(args, budget)
    how = "compiled" if tuner.session.words["compiled"] else "not compiled"
    tell(f"tuning {name_of(tuner.current)}, {tuner.learner.tuning.recipe}, {how}; session {tuner.session.folder}")
    begun, ended = time.monotonic(), "an error"
    try:
        ended = keep_tuning(tuner, budget, StopFlag())
    finally:
        seconds = time.monotonic() - begun
        tuner.session.note("ended", why=ended, seconds=round(seconds, 1))
        write_status(tuner, budget, "ended", seconds, ended)
        tuner.buffer.close()
        tuner.session.close()
    tell(f"{ended}; {tuner.learner.updates} updates on {tuner.buffer.total} rows; {name_of(tuner.current)} drives")
    return 0


def make_tuner(args: argparse.Namespace, budget: Budget) -> Tuner:
    from edge_dsac.learn.buffer import Buffer
    from edge_dsac.learn.carried import read_carried
    from edge_dsac.learn.compiled import prepare
    from edge_dsac.learn.learner import Learner, Tuning
    from edge_dsac.learn.session import Session
    from edge_dsac.learn.tuner import Course, Tuner

    prepare(1)
    key = board_key(key_folder(os.environ), platform.node())
    slots = opened(args)
    place = args.slots / "tuning"
    folder = session_folder(place, args.resume)
    parent = parent_of(slots, folder, args.resume)
    carried, spec, sizes = read_carried(parent.files, parent.manifest.name), parent.spec, parent.actor.sizes
    tuning, course = Tuning(seed=args.seed, **({"recipe": args.recipe} if args.recipe else {})), Course(**course_of(args))
    step = update_of(args.compile, Learner(carried, tuning))
    words = {
        "parent": parent.manifest.sha256, "tuning": asdict(tuning), "compiled": step is not None, "course": asdict(course),
        "rows": [args.rows, args.keep],
    }  # fmt: skip
    session = Session(folder, words, args.resume)
    fingerprint = comparable(spec, carried.settings)
    buffer = Buffer(place / "rows", sizes[0], sizes[-1], args.rows, args.keep, fingerprint=fingerprint)
    flights = Heard(Follower(args.slots / FLIGHT, spec), budget, 1_000_000_000 // spec.rates.control_hz)
    return Tuner(slots, session, Learner(carried, tuning, step), buffer, flights, key, course)


def course_of(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of Course that were asked for; the others stay as they are there."""
    asked = {name: getattr(args, name) for name in ("window_s", "pairs", "first_updates", "updates_per_row")}
    wrong = [f"--{name.replace('_', '-')} {value:g}" for name, value in asked.items() if value is not None and not value > 0]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: expected more than 0")
    return {name: value for name, value in asked.items() if value is not None}


def keep_tuning(tuner: Tuner, budget: Budget, asked: Callable[[], bool]) -> str:
    """Until there is a reason to end, which it says."""
    from edge_dsac.learn.tuner import TunerStop

    begun = said = time.monotonic()
    while True:
        seconds = time.monotonic() - begun
        reason = "asked to stop" if asked() else budget.spent(seconds, memory_mb())
        if reason:
            return reason
        try:
            word = tuner.improve()
        except TunerStop as stopped:
            return str(stopped)
        tuner.buffer.sync_if_due(time.monotonic())
        if word in ("better", "worse", "no evidence"):
            tell(f"  {clock(seconds)}  {word}: {tuner.session.of('verdict')[-1]['why']}")
        worked_s = time.monotonic() - begun - seconds
        if time.monotonic() - said > STATUS_S:
            said = time.monotonic()
            write_status(tuner, budget, word, said - begun, "")
        time.sleep(budget.rest_s(worked_s) if word == "learned" else LOOK_S)


def be_modest(nice: int) -> None:
    """Below everything else on this board; the loop is above whatever is nice, for it has a priority in real time."""
    if not 0 <= nice <= 19:
        raise ValueError(f"--nice {nice}: expected 0 to 19")
    os.nice(nice)
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError:
        pass


def update_of(wish: str, learner: Any) -> Any:
    from edge_dsac.learn.ahead import AheadError, compiled

    if wish == "off":
        return None
    if wish != "ready":
        tell("compiling the update (a minute or two the first time on this board)")
    try:
        return compiled(learner, may_compile=wish != "ready")
    except AheadError as error:
        if wish == "on":
            raise
        tell(f"  {error}")
        return None


def session_folder(place: Path, resume: bool) -> Path:
    numbers = sorted(int(path.name.removeprefix("session-")) for path in place.glob("session-*"))
    if resume and not numbers:
        raise ValueError(f"{place}: no session to go on with; start one without --resume")
    return place / f"session-{numbers[-1] if resume else (numbers[-1] + 1 if numbers else 1):03d}"


def parent_of(slots: Slots, session: Path, resume: bool) -> Bundle:
    """Whose networks the session's learner began with: the policy that drives, or, of a session that goes on, what drove at its start."""
    current = slots.current()
    if not resume:
        return current
    sha256 = json.loads((session / "session.json").read_text())["parent"]
    parent = current if current.manifest.sha256 == sha256 else slots.ancestor(sha256)
    if parent is None:
        raise ValueError(f"{session}: its parent {sha256[:16]} is not in the folder's history any more; start a new session")
    return parent


def comparable(spec: RobotSpec, settings: dict[str, Any]) -> str:
    """Rows of one buffer mean the same: the policy's layouts, the rewards, the horizon."""
    words = [spec.policy_fingerprint, repr(spec.rewards), *(str(settings[name]) for name in ("gamma", "n_step", "reward_scale"))]
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:32]


def memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_status(tuner: Tuner, budget: Budget, word: str, seconds: float, ended: str) -> None:
    words = {
        "pid": os.getpid(), "session": str(tuner.session.folder), "does": word, "ended": ended, "seconds": round(seconds, 1),
        "updates": tuner.learner.updates, "updates_per_s": round(tuner.learner.updates / max(seconds, 1e-9), 1),
        "rows": tuner.buffer.total, "dropped": tuner.dropped, "on_trial": None if tuner.attempt is None else f"{tuner.attempt.identity:016x}",
        "windows": 0 if tuner.attempt is None else len(tuner.attempt.windows), "current": name_of(tuner.current),
        "verdicts": [{key: entry[key] for key in ("decision", "why")} for entry in tuner.session.of("verdict")],
        "refused": len(tuner.session.of("refused")), "memory_mb": round(memory_mb(), 1), "yielded": budget.yielded,
    }  # fmt: skip
    place = tuner.session.folder.parent
    unfinished = place / ".status.unfinished"
    unfinished.write_text(json.dumps(words) + "\n")
    os.replace(unfinished, place / "status.json")


# ---- the other actions


def read_status(folder: Path) -> dict[str, Any]:
    try:
        words: dict[str, Any] = json.loads((folder / "tuning" / "status.json").read_text())
    except (OSError, ValueError):
        raise ValueError(f"{folder}: nothing has been tuned here yet; edge-dsac tune start --slots {folder}") from None
    return {**words, "alive": not words["ended"] and is_tuner(words["pid"])}


def is_tuner(pid: int) -> bool:
    try:
        return b"tune" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def status(args: argparse.Namespace) -> int:
    words = read_status(args.slots)
    if args.json:
        print(json.dumps(words))
        return 0
    how = words["does"] if words["alive"] else f"ended: {words['ended'] or 'killed; start --resume goes on'}"
    trial = f"; on trial {words['on_trial']}, {words['windows']} windows" if words["on_trial"] else ""
    tell(f"{words['current']} drives; {how}; {words['updates']} updates on {words['rows']} rows in {clock(words['seconds'])}{trial}")
    for verdict in words["verdicts"]:
        tell(f"  {verdict['decision']}: {verdict['why']}")
    tell(f"  {words['refused']} refused before a trial, {words['memory_mb']} MB, made way for the loop {words['yielded']} times")
    return 0


def report(args: argparse.Namespace) -> int:
    from edge_dsac.watch.tuned import draw_tuned, lines_of, report_of

    place = args.slots / "tuning"
    folder = session_folder(place, resume=True) if args.session is None else place / f"session-{args.session:03d}"
    try:
        settings = json.loads((folder / "session.json").read_text())
        events = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: no session that can be read: {error}") from None
    found = report_of(settings, events)
    (folder / "report.json").write_text(json.dumps(found, indent=1) + "\n")
    picture = args.out or folder / "report.png"
    try:
        draw_tuned(found, picture)
    except ModuleNotFoundError as error:  # a robot has no matplotlib; the words it has
        picture = None
        print(f"no picture: {error}", file=sys.stderr)
    if args.json:
        print(json.dumps(found))
    else:
        tell("\n".join([*lines_of(found), f"  {folder / 'report.json'}" + (f", {picture}" if picture else "")]))
    return 0


def stop(args: argparse.Namespace) -> int:
    words = read_status(args.slots)
    if not words["alive"]:
        tell("no tuner is at work here")
        return 0
    os.kill(words["pid"], signal.SIGTERM)
    tell(f"asked process {words['pid']} to stop")
    return 0


def take_back(args: argparse.Namespace) -> int:
    slots = opened(args)
    bundle = slots.restore_golden() if args.all else slots.undo()
    tell(f"{name_of(bundle)} drives again; a running loop takes it up at the next tick boundary")
    return 0


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def tell(text: str) -> None:
    print(text, file=sys.stdout, flush=True)
