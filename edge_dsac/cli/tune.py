"""`edge-dsac tune`: fine-tuning beside a running loop, on the robot's own board; what it does, what came of it, and the way back."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_dsac.bundle.slot_folder import name_of
from edge_dsac.cli.tuning import begin, try_one
from edge_dsac.cli.tuning_place import clock, opened, session_folder, status_of, tell
from edge_dsac.cli.tuning_replay import replay
from edge_dsac.learn.journal import lived_s, read_journal

EPILOG = """\
examples:
  edge-dsac slots create policies balance.policy
  edge-dsac run --robot balance_bot --port /dev/ttyUSB0 --slots policies --exercise drive &
  edge-dsac tune start --slots policies --minutes 5      learns, tries candidates in windows, accepts what is shown to be better
  edge-dsac tune status --slots policies                 from any other terminal
  edge-dsac tune report --slots policies                 better, worse or no evidence, with a picture
  edge-dsac tune replay --slots policies runs/*          the same learning again from the logs: the same to the bit, or what differs
  edge-dsac tune stop --slots policies                   ends in good order; what drives goes on driving
  edge-dsac tune undo --slots policies                   the parent drives again, byte by byte; needs no tuner and no network
  edge-dsac tune try next.policy --slots policies        what a desktop made of this robot's logs, before the same gate and on trial

exit codes: 0 done (try: judged, the last line says how); 1 failed (try: not judged in time); 2 wrong arguments; 3 refused for safety
(try: by the gate); 130 interrupted
"""


def add(verbs: Any) -> None:
    tune = verbs.add_parser(
        "tune", help="fine-tune the policy that drives, beside the loop; undo it", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    actions = tune.add_subparsers(dest="action", metavar="ACTION", required=True)
    start = with_slots(actions.add_parser("start", help="learn from the running loop until --minutes, `stop` or Ctrl-C"), begin)
    start.add_argument(
        "--recipe", choices=("last-layer", "low-rank", "edit", "full", "critic"), help="what of the actor may change (default: full)"
    )
    start.add_argument(
        "--rank", type=int, choices=range(1, 5), help="of what low-rank adds to each layer, of actor and critics (default: 1)"
    )
    start.add_argument("--cpu-share", type=float, default=0.5, help="of one core, at most (default: %(default)s)")
    start.add_argument("--first-updates", type=int, metavar="N", help="before the first candidate (default: 2500)")
    start.add_argument("--most-falls", type=int, metavar="N", help="that candidates may cause; then the session ends (default: 2)")
    start.add_argument("--updates-per-row", type=float, metavar="X", help="no more updates than this for each row there is (default: 1)")
    start.add_argument(
        "--compile", choices=("auto", "on", "ready", "off"), default="auto",
        help="the update ahead of time, which needs g++ once and a minute or two; ready: only where that has been done (default: %(default)s)",
    )  # fmt: skip
    start.add_argument("--seed", type=int, default=0)
    with_bounds(start)
    guest = with_slots(
        actions.add_parser("try", help="a policy that was made elsewhere: the same gate, the same trial beside the one that drives"),
        try_one,
    )
    guest.add_argument(
        "candidate", type=Path, metavar="NAME.policy", help="made from the policy that drives (compile --parent), and signed"
    )
    with_bounds(guest)
    with_slots(actions.add_parser("status", help="what the tuner does, and what it has found"), status).add_argument(
        "--json", action="store_true"
    )
    with_slots(actions.add_parser("stop", help="end the session in good order"), stop)
    told = with_slots(actions.add_parser("report", help="better, worse or no evidence, with every number; and a picture"), report)
    told.add_argument("--session", type=int, help="which one (default: the newest)")
    told.add_argument("--out", type=Path, metavar="PNG", help="where the picture goes (default: report.png in the session)")
    told.add_argument("--json", action="store_true")
    again = with_slots(actions.add_parser("replay", help="do a session's learning again from the flights' logs, bit by bit"), replay)
    again.add_argument("logs", type=Path, nargs="+", metavar="LOG", help="the flights that it learned from, as `edge-dsac log` takes them")
    again.add_argument("--session", type=int, help="which one (default: the newest)")
    again.add_argument("--json", action="store_true")
    undo = with_slots(actions.add_parser("undo", help="the parent of the current policy drives again"), take_back)
    undo.add_argument("--all", action="store_true", help="back to the golden policy")


def with_slots(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    parser.add_argument("--slots", type=Path, required=True, metavar="FOLDER", help="the folder that `run --slots` drives from")
    parser.add_argument("--allow-unsigned", action="store_true", help="take policies without a trusted signature")
    parser.set_defaults(run=run)
    return parser


def with_bounds(parser: argparse.ArgumentParser) -> None:
    """Of whatever works beside the loop and tries candidates."""
    parser.add_argument("--minutes", type=float, default=10.0, help="at most so long (default: %(default)s)")
    parser.add_argument(
        "--nice",
        type=int,
        default=19,
        help="how far it stands back behind what else wants the processor, 0 to 19; at 19 it has only what nobody wants (default: %(default)s)",
    )
    parser.add_argument("--memory-mb", type=float, default=400.0, help="ends in good order beyond this (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=60_000, help="of the robot's own that are kept, on disk too (default: %(default)s)")
    parser.add_argument("--keep", choices=("oldest-out", "coverage"), default="oldest-out", help="what makes room in a full buffer")
    parser.add_argument(
        "--window-s", type=float, default=8.0, help="of a trial; whole laps of the loop's --exercise (default: %(default)s)"
    )
    parser.add_argument(
        "--pairs", type=int, metavar="N", help="of a trial's windows, at most; a clear difference takes eight (default: 24)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the newest session of this folder")


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
    for complaint in words.get("other_flights", []):
        tell(f"  {complaint}")
    return 0


def report(args: argparse.Namespace) -> int:
    from edge_dsac.watch.tuned import draw_tuned, lines_of, report_of

    place = args.slots / "tuning"
    folder = session_folder(place, resume=True) if args.session is None else place / f"session-{args.session:03d}"
    try:
        settings = json.loads((folder / "session.json").read_text())
        events = read_journal(folder / "journal.jsonl")
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: no session that can be read: {error}") from None
    found = report_of(settings, events, lived_s(events, status_of(folder)))
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
