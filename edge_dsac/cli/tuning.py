"""`edge-dsac tune start` and `tune try`: the tuner as a process, beside a running loop on the robot's own board.

It is nice, of one thread, bounded in processor time, memory and duration, and away at once when the loop is late.
It may be killed at any instant; `start --resume` goes on to the same bits.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_dsac.bundle.keyring import board_key, key_folder
from edge_dsac.bundle.package import Bundle, read_bundle
from edge_dsac.bundle.slot_folder import FLIGHT, name_of
from edge_dsac.cli.signals import StopFlag
from edge_dsac.cli.tuning_place import clock, comparable, opened, parent_of, rows_folder, session_folder, status_of, tell
from edge_dsac.learn.journal import lived_s
from edge_dsac.steplog import Chunk, Follower

if TYPE_CHECKING:
    from edge_dsac.learn.buffer import Buffer
    from edge_dsac.learn.tuner import Tuner
    from edge_dsac.learn.visitor import Visit

LOOK_S, STATUS_S, TELL_S, TIDY_S = 0.2, 1.0, 15.0, 10.0
LAST = 19  # of the nice
JUDGED, NOT_JUDGED, REFUSED = 0, 1, 3  # of `try`, as cli/main.py has them
M_MMAP_THRESHOLD, LARGE = -3, 1 << 20  # bytes: above every array of an update, below those of a round
LATE_SHARE = 0.25  # of a period: a loop whose ticks begin later than this is in need of the processor
MOST_PAUSE_S = 8.0


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
    keep_no_large_memory()
    budget = Budget(args.minutes, args.cpu_share, args.memory_mb)
    tuner = make_tuner(args, budget)
    how = "compiled" if tuner.session.words["compiled"] else "not compiled"
    tell(f"tuning {name_of(tuner.current)}, {tuner.learner.tuning.recipe}, {how}; session {tuner.session.folder}")
    ended = see_through(tuner, budget)
    tell(f"{ended}; {tuner.updates} updates on {tuner.buffer.total} rows; {name_of(tuner.current)} drives")
    return 0


def try_one(args: argparse.Namespace) -> int:
    be_modest(args.nice)
    keep_no_large_memory()
    budget = Budget(args.minutes, 1.0, args.memory_mb)
    visit = make_visit(args, budget)
    tell(f"{name_of(visit.visitor)} beside {name_of(visit.current)}, which drives; session {visit.session.folder}")
    ended = see_through(visit, budget)
    tell(f"{ended}; {name_of(visit.current)} drives")
    return REFUSED if visit.session.of("refused") else JUDGED if visit.session.of("verdict") else NOT_JUDGED


def see_through(tuner: Tuner | Visit, budget: Budget) -> str:
    """Until there is a reason to end, which is in the journal and in the status then, as well."""
    goes_on = len(tuner.session.of("opened")) > 1
    before_s = lived_s(tuner.session.events, status_of(tuner.session.folder)) if goes_on else 0.0
    begun, ended = time.monotonic(), "an error"
    try:
        ended = keep_tuning(tuner, budget, StopFlag(), before_s)
        return ended
    finally:
        seconds = before_s + time.monotonic() - begun
        tuner.session.note("ended", why=ended, seconds=round(seconds, 1))
        write_status(tuner, budget, "ended", seconds, ended)
        tuner.buffer.close()
        tuner.session.close()


def make_tuner(args: argparse.Namespace, budget: Budget) -> Tuner:
    from edge_dsac.learn.ahead import machine
    from edge_dsac.learn.carried import read_carried
    from edge_dsac.learn.compiled import prepare
    from edge_dsac.learn.course import Course
    from edge_dsac.learn.learner import Learner, Tuning
    from edge_dsac.learn.session import Session
    from edge_dsac.learn.tuner import Tuner

    prepare(1)
    key = board_key(key_folder(os.environ), platform.node())
    slots = opened(args)
    place = args.slots / "tuning"
    folder = session_folder(place, args.resume)
    parent = parent_of(slots, folder, args.resume)
    carried = read_carried(parent.files, parent.manifest.name)
    tuning, course = Tuning(**tuning_of(args)), Course(**course_of(args))
    step = update_of(args.compile, Learner(carried, tuning))
    words = {
        "parent": parent.manifest.sha256, "tuning": asdict(tuning), "compiled": step is not None, "course": asdict(course),
        "rows": [args.rows, args.keep],
    }  # fmt: skip
    buffer, flights = robots_own(args, budget, parent, carried.settings)  # first: where a tuner is at work this ends here
    session = Session(folder, words, args.resume)
    session.note("machine", **machine(Learner(carried, tuning), step is not None))
    return Tuner(slots, session, Learner(carried, tuning, step), buffer, flights, key, course)


def make_visit(args: argparse.Namespace, budget: Budget) -> Visit:
    from edge_dsac.learn.carried import read_carried
    from edge_dsac.learn.compiled import prepare
    from edge_dsac.learn.course import Course
    from edge_dsac.learn.session import Session
    from edge_dsac.learn.visitor import ELSEWHERE, Visit

    prepare(1)
    slots, data, place = opened(args), args.candidate.read_bytes(), args.slots / "tuning"
    folder = session_folder(place, args.resume)
    current, visitor = slots.current(), read_bundle(data, slots.keys, allow_unsigned=args.allow_unsigned)
    if not args.resume:
        slots.check(data)  # before there is a session of it
    course = Course(**course_of(args))
    words = {
        "parent": visitor.manifest.parent, "candidate": visitor.manifest.sha256, "tuning": {"recipe": ELSEWHERE, "round_updates": 0},
        "course": asdict(course), "rows": [args.rows, args.keep],
    }  # fmt: skip
    buffer, flights = robots_own(args, budget, current, read_carried(current.files, current.manifest.name).settings)
    session = Session(folder, words, args.resume)
    return Visit(slots, session, data, buffer, flights, course)


def robots_own(args: argparse.Namespace, budget: Budget, policy: Bundle, settings: dict[str, Any]) -> tuple[Buffer, Heard]:
    """The rows that the robot has lived through, and its flights from now on. `settings`: those that the policy carries."""
    from edge_dsac.learn.buffer import Buffer

    spec, sizes = policy.spec, policy.actor.sizes
    folder = rows_folder(args.slots / "tuning", spec)
    buffer = Buffer(folder, sizes[0], sizes[-1], args.rows, args.keep, fingerprint=comparable(spec, settings))
    return buffer, Heard(Follower(args.slots / FLIGHT, spec), budget, 1_000_000_000 // spec.rates.control_hz)


def tuning_of(args: argparse.Namespace) -> dict[str, Any]:
    """Only what was asked for."""
    if args.rank is not None and args.recipe != "low-rank":
        raise ValueError(f"--rank {args.rank}: only --recipe low-rank has one")
    return {name: value for name in ("recipe", "rank", "seed") if (value := getattr(args, name)) is not None}


def course_of(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of Course that were asked for; the others stay as they are there."""
    asked = {name: getattr(args, name, None) for name in ("window_s", "pairs", "first_updates", "updates_per_row", "most_falls")}
    wrong = [f"--{name.replace('_', '-')} {value:g}" for name, value in asked.items() if value is not None and not value > 0]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: expected more than 0")
    return {name: value for name, value in asked.items() if value is not None}


def keep_tuning(tuner: Tuner | Visit, budget: Budget, asked: Callable[[], bool], before_s: float) -> str:
    """Until there is a reason to end, which it says. `before_s`: the session's earlier lives, which this one's budget does not count."""
    from edge_dsac.learn.course import TunerStop

    begun = said = told = tidied = time.monotonic()
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
            tell(f"  {clock(before_s + seconds)}  {word}: {tuner.session.of('verdict')[-1]['why']}")
        worked_s = time.monotonic() - begun - seconds
        if time.monotonic() - said > STATUS_S:
            said = time.monotonic()
            write_status(tuner, budget, word, before_s + said - begun, "")
        if time.monotonic() - told > TELL_S:
            told = time.monotonic()
            tell(f"  {clock(before_s + told - begun)}  {progress_of(tuner, word)}")
        if time.monotonic() - tidied > TIDY_S:
            tidied = time.monotonic()
            give_memory_back()
        time.sleep(budget.rest_s(worked_s) if word == "learned" else LOOK_S)


def progress_of(tuner: Tuner | Visit, word: str) -> str:
    updates = f"{tuner.updates} updates on " if tuner.updates else ""
    trial = f"; {len(tuner.attempt.windows)} windows of {tuner.attempt.identity:016x}" if tuner.attempt is not None else ""
    return f"{word}; {updates}{tuner.buffer.total} rows{trial}"


def be_modest(nice: int) -> None:
    """Below everything else on this board; the loop is above whatever is nice, for it has a priority in real time.

    At 19 it has only what nobody wants (SCHED_IDLE). For the kernel's worker that brings the board's bytes is an ordinary thread: on the
    tuner's core it would first let the tuner end its slice, and the frame would be a tick too late.
    """
    if not 0 <= nice <= LAST:
        raise ValueError(f"--nice {nice}: expected 0 to 19")
    os.nice(nice)
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE if nice == LAST else os.SCHED_BATCH, os.sched_param(0))
    except OSError:
        pass


def keep_no_large_memory() -> None:
    """What a round or a candidate needed once goes back to the system when it is freed; glibc would learn to keep it."""
    try:
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE)
    except AttributeError:
        pass  # another libc


def give_memory_back() -> None:
    """What lies free between what is in use: a robot's 400 MB are for what is needed."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:
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


def memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_status(tuner: Tuner | Visit, budget: Budget, word: str, seconds: float, ended: str) -> None:
    flights = tuner.flights if isinstance(tuner.flights, Heard) else None
    words = {
        "pid": os.getpid(), "session": str(tuner.session.folder), "does": word, "ended": ended, "seconds": round(seconds, 1),
        "updates": tuner.updates, "updates_per_s": round(tuner.updates / max(seconds, 1e-9), 1),
        "rows": tuner.buffer.total, "dropped": tuner.dropped, "on_trial": None if tuner.attempt is None else f"{tuner.attempt.identity:016x}",
        "windows": 0 if tuner.attempt is None else len(tuner.attempt.windows), "current": name_of(tuner.current),
        "verdicts": [{key: entry[key] for key in ("decision", "why")} for entry in tuner.session.of("verdict")],
        "refused": len(tuner.session.of("refused")), "memory_mb": round(memory_mb(), 1), "yielded": budget.yielded,
        "other_flights": [] if flights is None else flights.follower.complaints,
    }  # fmt: skip
    place = tuner.session.folder.parent
    unfinished = place / ".status.unfinished"
    unfinished.write_text(json.dumps(words) + "\n")
    os.replace(unfinished, place / "status.json")
