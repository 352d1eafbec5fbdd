"""`edge-dsac run`: the control loop on a serial port, with its recorder and its live line beside it.

This process is the loop. The recorder (drains the ring to disk) and the live line (reads the ring) are processes of their
own, so that neither a slow disk nor a slow terminal is ever waited for.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_dsac.bundle.engines import ENGINES
from edge_dsac.cli.fieldwork import Fieldwork, add_field_arguments, fade_ticks
from edge_dsac.cli.policy import AUTO, BASELINE
from edge_dsac.cli.signals import StopFlag
from edge_dsac.loop.control import Conduct, ControlLoop
from edge_dsac.loop.flight import Ended, Flight, fly, system_pacer
from edge_dsac.loop.limiter import Limiter
from edge_dsac.loop.observer import Observer, Reference
from edge_dsac.loop.realtime import Grant, ask_for_realtime, release_realtime
from edge_dsac.loop.rehearsal import Rehearsal
from edge_dsac.loop.slot import Slot
from edge_dsac.records import Mode
from edge_dsac.spec.robot import RobotSpec, load_robot
from edge_dsac.steplog import Ring
from firmware_bridge.link import SerialLink, open_port
from firmware_bridge.rehearsal import make_rehearsal_link

RING_SECONDS = 120  # what the ring holds if the recorder stands still; then the robot is damped rather than steps lost
GOOD_MODES = frozenset({Mode.RUNNING, Mode.COASTING, Mode.ARMED, Mode.IDLE})

EPILOG = """\
examples:
  edge-dsac mcu --robot balance_bot --link /tmp/board &          a virtual board to try it on
  edge-dsac run --robot balance_bot --port /tmp/board            the baseline balances until Ctrl-C
  edge-dsac run --robot balance_bot --port /dev/ttyUSB0 --policy balance.policy --speed 0.3 --seconds 60
  edge-dsac run --robot rover --port /dev/ttyUSB0 --slots policies    the folder's current policy; tries candidates beside it
  edge-dsac run --robot balance_bot --port /tmp/board --dry-run  says what it would do; opens nothing

Ctrl-C and SIGTERM stop in good order: motors off, log closed. Replacing the --policy file (by rename) swaps the policy
without a stop; a file that does not pass its checks changes nothing.
exit codes: 0 flown and stopped as asked; 1 a fault, no board, damped at the end, or an error; 2 wrong arguments; 3 refused for safety
"""


def add(verbs: Any) -> None:
    parser = verbs.add_parser(
        "run",
        help="the control loop: sensors in, policy, motor commands out",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--robot", required=True, help="a shipped model name, or the path of a robot file")
    parser.add_argument("--port", required=True, help="serial device of the board")
    parser.add_argument(
        "--policy",
        help="`baseline` (the robot file's own controller), a .policy file, or a weights file (default: baseline)",
    )
    parser.add_argument(
        "--engine",
        default=AUTO,
        choices=(AUTO, *(kind.name for kind in ENGINES)),
        help="what runs a .policy file; auto: what `edge-dsac profile --choose` found best here (default: %(default)s)",
    )
    parser.add_argument("--allow-unsigned", action="store_true", help="take a .policy file without a trusted signature")
    add_field_arguments(parser)
    parser.add_argument("--seconds", type=float, help="stop after this long (default: until Ctrl-C)")
    parser.add_argument("--speed", type=float, default=0.0, metavar="M_S", help="forward speed asked for, m/s (default: %(default)s)")
    parser.add_argument(
        "--yaw-rate", type=float, default=0.0, metavar="RAD_S", help="yaw rate asked for, rad/s, left positive (default: %(default)s)"
    )
    parser.add_argument(
        "--rearm",
        action="store_true",
        help="after a lost link or a board restart, ask for the motors again once the link is steady; never after a fault",
    )
    parser.add_argument("--log", type=Path, metavar="FOLDER", help="where the flight log goes (default: runs/<time>-<model>)")
    parser.add_argument("--overwrite-log", action="store_true", help="rather lose old steps than damp the robot when the disk is full")
    parser.add_argument("--no-rt", action="store_true", help="do not ask for SCHED_FIFO and locked memory")
    parser.add_argument("--cpu", type=int, help="pin the loop to this core")
    parser.add_argument("--quiet", action="store_true", help="no live line")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object, and nothing else, on standard output")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="also write the summary there, as JSON")
    parser.add_argument("--dry-run", action="store_true", help="check everything, say what would be done, open nothing")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    spec = load_robot(args.robot)
    field = Fieldwork(args, spec)
    policy = field.policy
    folder = args.log or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{spec.model}"
    say = quiet if args.json else tell
    say(f"{spec.model}: {field.path or BASELINE} at {spec.rates.control_hz} Hz on {args.port}, log in {folder}")
    say(f"  engine: {policy.said}")
    for line in field.said():
        say(f"  {line}")
    if args.dry_run:
        say(f"dry run: firmware {spec.firmware_fingerprint}, policy {spec.policy_fingerprint}; nothing was opened")
        return 0
    asked_to_stop = StopFlag()
    field.open()
    port = open_port(args.port, spec.link.baud)
    folder.mkdir(parents=True, exist_ok=True)
    ring = Ring.create(folder / "ring", spec, RING_SECONDS * spec.rates.control_hz)
    field.logged_in(folder)
    helpers = start_helpers(folder, not (args.quiet or args.json), args.slots)
    link = SerialLink(spec, lambda: open_port(args.port, spec.link.baud), first=port)
    slot = Slot(policy.engine, fade_ticks(spec))
    loop = ControlLoop(
        spec, link, make_observer(spec, args), slot, Limiter(spec), ring, Conduct(args.rearm, overwrite_log=args.overwrite_log)
    )
    pacer = system_pacer(spec, Rehearsal(spec, loop, make_rehearsal_link(spec)))
    field.join(loop, pacer)
    grants = [] if args.no_rt else ask_for_realtime(args.cpu)
    for grant in grants:
        say(f"  {grant.what}: {'granted' if grant.granted else 'NOT granted'} ({grant.why})")
    flight: Flight | None = None
    try:
        loop.arm()
        flight = fly(loop, pacer, spec, asked_to_stop, args.seconds)
    finally:
        release_realtime()
        field.leave(failed=flight is None)
        link.close()
        ring.close()
        finish_helpers(helpers)
    report(flight, loop, link, grants, folder, field, args)
    if link.is_refused():
        return 3
    return 0 if flight.ended in (Ended.TIME_UP, Ended.ASKED) and flight.mode in GOOD_MODES else 1


def make_observer(spec: RobotSpec, args: argparse.Namespace) -> Observer:
    observer = Observer(spec)
    observer.set_reference(Reference(args.speed, args.yaw_rate))
    return observer


def start_helpers(folder: Path, live: bool, slots: Path | None) -> list[subprocess.Popen[bytes]]:
    """In a session of their own: a Ctrl-C on the terminal is for the loop; they end when it has closed the ring."""
    commands = [[sys.executable, "-m", "edge_dsac.steplog.recorder", str(folder / "ring"), str(folder)]]
    if live:
        commands.append([sys.executable, "-m", "edge_dsac.watch.line", str(folder / "ring"), *([str(slots)] if slots else [])])
    return [subprocess.Popen(command, start_new_session=True, stdout=sys.stderr) for command in commands]


def finish_helpers(helpers: list[subprocess.Popen[bytes]]) -> None:
    for helper in helpers:
        try:
            helper.wait(timeout=10)
        except subprocess.TimeoutExpired:
            helper.kill()


def report(
    flight: Flight,
    loop: ControlLoop,
    link: SerialLink,
    grants: list[Grant],
    folder: Path,
    field: Fieldwork,
    args: argparse.Namespace,
) -> None:
    from edge_dsac.steplog import open_log, summarise

    summary: dict[str, Any] = {
        "ended": flight.ended.name,
        "mode": flight.mode.name,
        "because": flight.because.name,
        "board_still": flight.board_still,
        "ticks": flight.ticks,
        "missed": flight.missed,
        "coasted": flight.coasted,
        "trimmed_us": round(flight.trimmed_ns / 1000, 1),
        "engine": field.policy.said,
        "swaps": loop.slot.swaps,
        **field.words(),
        "link": link.counters(),
        "realtime": [asdict(grant) for grant in grants],
        "log": str(folder),
        "flight": summarise(open_log(folder)),
    }
    if args.summary:
        args.summary.write_text(json.dumps(summary))
    if args.json:
        print(json.dumps(summary))
        return
    refusal = link.counters()["refusal"]
    if refusal:
        tell(f"refused to arm: {refusal}")
    why = ", ".join([flight.because.name, *(fault["fault"] for fault in summary["flight"].get("faults", [])[-1:])])
    motors = "off, the board says so" if flight.board_still else "left to the board: it did not answer"
    tell(f"{flight.ended.value} in {flight.mode.name} ({why}); motors {motors}")
    tell(f"  {flight.ticks} ticks, {flight.missed} missed, {flight.coasted} coasted; log: {folder} (edge-dsac log info {folder})")


def tell(text: str) -> None:
    print(text, flush=True)


def quiet(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
