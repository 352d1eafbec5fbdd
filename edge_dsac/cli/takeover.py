"""`edge-dsac takeover`: sends a person's actions or references to a running loop, so that a take-over can be tried, or scripted."""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import time
from pathlib import Path
from typing import Any

from edge_dsac.loop.takeover import TakeoverError, read_word
from edge_dsac.spec.robot import load_robot

SEND_HZ = 20.0  # a word counts for 200 ms: three may be lost

EPILOG = """\
examples:
  edge-dsac run --robot balance_bot --port /tmp/board --takeover /tmp/hands &
  edge-dsac takeover --to /tmp/hands --robot balance_bot --action 0.1 0.1 --seconds 1     the action is the person's
  edge-dsac takeover --to /tmp/hands --robot balance_bot --speed 0.3 --seconds 3          the policy drives, and is asked for this
  some-joystick | edge-dsac takeover --to /tmp/hands --robot balance_bot --stdin

With --stdin each line is a word: the numbers of an action, or JSON as {"speed": 0.3, "yaw_rate": 0.1}; a word is repeated until the next
one, and an empty line lets go. The policy has the robot back 200 ms after the last word.
exit codes: 0 sent; 1 nobody listens there; 2 wrong arguments
"""


def add(verbs: Any) -> None:
    parser = verbs.add_parser(
        "takeover", help="drive a running robot by hand: actions, or what the policy is asked for", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--to", type=Path, required=True, metavar="SOCKET", help="as given to run --takeover")
    parser.add_argument("--robot", required=True, help="a shipped model name, or the path of a robot file")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--action", type=float, nargs="+", metavar="A", help="one number in [-1, 1] per action of the robot")
    what.add_argument("--speed", type=float, metavar="M_S", help="ask the policy for this speed")
    what.add_argument("--stdin", action="store_true", help="a word per line")
    parser.add_argument("--yaw-rate", type=float, default=0.0, metavar="RAD_S", help="with --speed (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="for how long; with --stdin until it ends (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    actions = len(load_robot(args.robot).actions)
    if args.stdin:
        sent = send_lines(args.to, actions)
    else:
        table = {"action": args.action} if args.action is not None else {"speed": args.speed, "yaw_rate": args.yaw_rate}
        sent = send_for(args.to, checked(json.dumps(table), actions), args.seconds)
    print(f"{sent} words sent to {args.to}")
    return 0


def checked(text: str, actions: int) -> bytes:
    """What the loop would ignore is said here."""
    data = text.encode()
    if read_word(data, actions, 0) is None:
        raise TakeoverError(f"{text}: expected an action of {actions} numbers in [-1, 1], or speed (m/s) and yaw_rate (rad/s)")
    return data


def word_of_line(line: str, actions: int) -> bytes | None:
    """None: let go."""
    text = line.strip()
    if not text:
        return None
    if text.startswith("{"):
        return checked(text, actions)
    try:
        numbers = [float(number) for number in text.replace(",", " ").split()]
    except ValueError as error:
        raise TakeoverError(f"{text}: expected numbers or JSON: {error}") from None
    return checked(json.dumps({"action": numbers}), actions)


def send_for(path: Path, data: bytes, seconds: float) -> int:
    sent, give_up = 0, time.monotonic() + seconds
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        while sent == 0 or time.monotonic() < give_up:
            sent = send(out, path, data, sent)
            time.sleep(1.0 / SEND_HZ)
    return sent


def send_lines(path: Path, actions: int, source: int = 0) -> int:
    """`source`: a descriptor. Read as it comes: of several lines that wait the last one counts, as a person means it."""
    sent, word, rest = 0, None, b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        while True:
            if select.select([source], [], [], 1.0 / SEND_HZ)[0]:
                data = os.read(source, 65536)
                *lines, rest = (rest + data).split(b"\n")
                if not data:
                    return sent
                for line in lines:
                    word = word_of_line(line.decode("ascii", "replace"), actions)
            if word is not None:
                sent = send(out, path, word, sent)


def send(out: socket.socket, path: Path, data: bytes, before: int) -> int:
    """Returns how many words that makes with those `before`."""
    try:
        out.sendto(data, str(path))
    except OSError as error:
        if before:
            raise TakeoverError(
                f"{path}: the loop has gone after {before} words ({error}); how its flight ended is in its last line"
            ) from None
        raise TakeoverError(f"{path}: nobody takes over there: {error}; is `run --takeover {path}` running?") from None
    return before + 1
