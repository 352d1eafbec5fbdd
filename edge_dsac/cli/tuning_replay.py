"""`edge-dsac tune replay`: a session's learning done again from its journal and the flights' logs, and compared bit by bit.

Writes nothing but a temporary folder; a tuner at work is not disturbed. Rule that must stay true: exit 0 says that something was
compared and all of it is the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_dsac.bundle.package import Bundle
from edge_dsac.cli.tuning_place import comparable, opened, parent_of, rows_folder, session_folder, tell
from edge_dsac.steplog import FlightLog, open_log
from edge_dsac.steplog.reading import join
from edge_dsac.watch.progress import PIPED_S, TERMINAL_S

if TYPE_CHECKING:
    from edge_dsac.learn.learner import Learner
    from edge_dsac.learn.replayed import Found
    from edge_dsac.learn.session import Past


def replay(args: argparse.Namespace) -> int:
    from edge_dsac.learn.compiled import prepare
    from edge_dsac.learn.session import read_session

    prepare(1)
    place = args.slots / "tuning"
    folder = session_folder(place, resume=True) if args.session is None else place / f"session-{args.session:03d}"
    past = read_session(folder)
    rounds = sum(event["event"] == "round" for event in past.events)
    if not rounds:
        raise ValueError(f"{folder}: nothing was learned in it, so there is nothing to do again")
    parent = parent_of(opened(args), folder, True)
    learner, doubts = learner_again(past, parent)
    for doubt in doubts:
        print(f"  {doubt}", file=sys.stderr)
    if not args.json:
        tell(f"doing {rounds} rounds of {learner.tuning.recipe} again; session {folder}")
    with tempfile.TemporaryDirectory(prefix="edge_dsac-replay-") as scratch:
        found = list(
            compared(past, parent, learner, args.logs, rows_folder(place, parent.spec), Path(scratch), Progress(rounds, args.json))
        )
    same = bool(found) and all(one.same for one in found)
    if args.json:
        told = [asdict(one) for one in found]
        print(json.dumps({"session": str(folder), "same": same, "rounds": rounds, "compared": told, "doubts": doubts}))
    elif same:
        tell(f"the same to the bit: {len(found)} compared over {rounds} rounds")
    elif not found:
        tell("nothing could be compared: no candidate, no refusal, and no state of a round that the journal names")
    else:
        tell("\n".join(["NOT the same: what follows was not looked at", *(f"  perhaps because {doubt}" for doubt in doubts)]))
    return 0 if same else 1


def learner_again(past: Past, parent: Bundle) -> tuple[Learner, list[str]]:
    """As the session's began, and why it may come to other bits here."""
    from edge_dsac.learn.ahead import AheadError, compiled, machine
    from edge_dsac.learn.carried import read_carried
    from edge_dsac.learn.learner import Learner, Tuning

    carried, tuning = read_carried(parent.files, parent.manifest.name), Tuning(**past.words["tuning"])
    learner, is_compiled = Learner(carried, tuning), past.words["compiled"]
    if is_compiled:
        print("compiling the update (a minute or two the first time on this machine)", file=sys.stderr)
        try:
            learner = Learner(carried, tuning, compiled(learner))
        except AheadError as error:
            raise ValueError(f"{past.folder}: learned with a compiled update, whose bits a plain one does not give; {error}") from None
    here, doubts = machine(learner, is_compiled), []
    for then in (event for event in past.events if event["event"] == "machine"):
        doubts += [
            f"{name} was {then.get(name)}, is {here[name]}: the last bits may differ" for name in here if then.get(name) != here[name]
        ]
    return learner, list(dict.fromkeys(doubts))


def compared(
    past: Past, parent: Bundle, learner: Learner, logs: Iterable[Path], rows: Path, scratch: Path, progress: Progress
) -> Iterable[Found]:
    """Each thing that was compared, told of at once."""
    from edge_dsac.learn.buffer import Buffer
    from edge_dsac.learn.replayed import Replay
    from edge_dsac.learn.rows_before import Unsynced, rows_before
    from edge_dsac.learn.rows_file import Shape

    sizes, (capacity, keep) = parent.actor.sizes, past.words["rows"]
    shape = Shape(sizes[0], sizes[-1], comparable(parent.spec, learner.carried.settings))
    first = next((event for event in past.events if event["event"] == "opened"), None)
    if first is not None:
        rows_before(rows, first, shape, scratch)
    never = float("inf")
    buffer = Buffer(scratch, shape.obs, shape.act, capacity, keep, never, fingerprint=shape.fingerprint, disk=Unsynced())
    try:
        for found in Replay(past, learner, buffer, parent.spec, by_flight(logs)).run():
            progress.show(found, buffer.total)
            if found.what not in ("round", "restart") or not found.same:
                yield found
    finally:
        buffer.close()


def by_flight(paths: Iterable[Path]) -> dict[int, FlightLog]:
    """Segments of one flight that were named one by one are one log again."""
    parts: dict[int, list[FlightLog]] = {}
    for path in paths:
        log = open_log(path)
        parts.setdefault(log.wall_start_ns, []).append(log)
    return {flight: join(of, of[0].source) if len(of) > 1 else of[0] for flight, of in parts.items()}


class Progress:
    """One line rewritten on a terminal, now and then a line when piped; nothing beside --json. Differences are lines that stay."""

    def __init__(self, rounds: int, silent: bool) -> None:
        self.rounds, self.silent, self.done = rounds, silent, 0
        self.terminal = sys.stdout.isatty()
        self.said = time.monotonic()

    def show(self, found: Found, rows: int) -> None:
        self.done += found.what == "round"
        if self.silent:
            return
        if found.what not in ("round", "restart") or not found.same:
            self.say(line_of(found), lasting=True)
        elif time.monotonic() - self.said > (TERMINAL_S if self.terminal else PIPED_S):
            self.say(f"  round {self.done} of {self.rounds}, {rows} rows", lasting=not self.terminal)

    def say(self, text: str, lasting: bool) -> None:
        self.said = time.monotonic()
        sys.stdout.write((f"\r\x1b[K{text}" if self.terminal else text) + ("\n" if lasting else ""))
        sys.stdout.flush()


def line_of(found: Found) -> str:
    words: dict[str, Any] = {"candidate": "candidate", "refused": "a candidate that was refused", "state": "saved state"}
    what = words.get(found.what, "rows")
    return f"  round {found.round}: {what}: {'same to the bit' if found.same else found.why}"
