"""Things that go wrong on a robot, as data: what, when, how often, in which direction. Applied by virtual_mcu.py.

A fault is written `KIND[:SIDE][=VALUE][@START[+DURATION]]`, times in seconds of the board. Knows no board and no port.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

Side = Literal["both", "host", "board"]


@dataclass(frozen=True, slots=True)
class Kind:
    meaning: str
    default: float
    on_link: bool  # acts on frames under way; the others act on the board or its sensors
    once: bool = False  # happens at START, has no duration of its own


KINDS: dict[str, Kind] = {
    "drop": Kind("share of frames that never arrive", 0.01, True),
    "delay": Kind("every frame arrives this many ms later", 5.0, True),
    "duplicate": Kind("share of frames that arrive twice", 0.01, True),
    "reorder": Kind("share of frames that arrive after their successor", 0.01, True),
    "bitflip": Kind("share of frames with one bit turned over", 0.01, True),
    "byteloss": Kind("share of frames that lose one byte", 0.01, True),
    "stall": Kind("the board stands still for this many ms, then goes on", 50.0, False, True),
    "disconnect": Kind("the port is gone for the duration, then another one is there", 0.0, False),
    "brownout": Kind("the board restarts: new session, counters at zero", 0.0, False, True),
    "freeze": Kind("every sensor repeats its last reading", 0.0, False),
    "blind": Kind("the IMU gives no readings", 0.0, False),
    "wrap": Kind("the encoder counters stand just before their overflow", 0.0, False, True),
}
SIDES = {"both": "frames both ways", "host": "frames from the host", "board": "frames from the board"}
SHARES = ("drop", "duplicate", "reorder", "bitflip", "byteloss")
FOREVER_S = 1e9


class FaultError(ValueError):
    """A fault that cannot be understood."""


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    value: float
    side: Side = "both"
    start_s: float = 0.0
    duration_s: float = FOREVER_S

    def active(self, now_s: float) -> bool:
        return self.start_s <= now_s < self.start_s + self.duration_s


PATTERN = re.compile(
    r"^(?P<kind>[a-z]+)(?::(?P<side>[a-z]+))?(?:=(?P<value>[\d.eE+-]+?))?(?:@(?P<start>[\d.]+)(?:\+(?P<duration>[\d.]+))?)?$"
)


def parse_fault(text: str) -> Fault:
    """`drop=0.02`, `bitflip:board=0.001@5+10`, `disconnect@10+1.5`, `brownout@8`."""
    match = PATTERN.match(text.strip())
    if not match:
        raise FaultError(f"fault {text!r}: expected KIND[:SIDE][=VALUE][@START[+DURATION]], as in bitflip:board=0.01@5+10")
    kind, side = match["kind"], match["side"] or "both"
    if kind not in KINDS:
        raise FaultError(f"fault {text!r}: {kind!r} is not known; {guess(kind, list(KINDS))}")
    if side not in SIDES:
        raise FaultError(f"fault {text!r}: side {side!r} is not known; {guess(side, list(SIDES))}")
    if match["side"] and not KINDS[kind].on_link:
        raise FaultError(f"fault {text!r}: a side is for what happens to frames; {kind} happens to the board")
    if KINDS[kind].once and match["start"] is None:
        raise FaultError(f"fault {text!r}: it happens once; say when, as in {kind}@5")
    if KINDS[kind].once and match["duration"]:
        raise FaultError(f"fault {text!r}: it happens once and has no duration; write {kind}@{match['start']}")
    value = read_value(text, kind, match["value"])
    duration_s = read_seconds(text, match["duration"]) if match["duration"] else FOREVER_S
    return Fault(kind, value, side, read_seconds(text, match["start"] or "0"), duration_s)  # type: ignore[arg-type]


def read_value(text: str, kind: str, written: str | None) -> float:
    if not written:
        return KINDS[kind].default
    if not KINDS[kind].default:
        raise FaultError(f"fault {text!r}: {kind} takes no value; times are written @START+DURATION")
    try:
        value = float(written)
    except ValueError:
        raise FaultError(f"fault {text!r}: {written!r} is not a number") from None
    if kind in SHARES and not 0.0 <= value <= 1.0:
        raise FaultError(f"fault {text!r}: expected a share from 0 to 1, got {value:g}")
    if value < 0.0:
        raise FaultError(f"fault {text!r}: expected 0 ms or more, got {value:g}")
    return value


def read_seconds(text: str, written: str) -> float:
    try:
        return float(written)
    except ValueError:
        raise FaultError(f"fault {text!r}: {written!r} is not a time in seconds") from None


def guess(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def describe_faults() -> str:
    """For --help."""
    return "\n".join(f"  {name:<11} {kind.meaning}" for name, kind in KINDS.items())


class LossyWay:
    """One direction of the link: frames go in with the time, what arrives comes out. All chance is the generator's."""

    def __init__(self, faults: tuple[Fault, ...], side: Side, generator: np.random.Generator) -> None:
        self.faults = [fault for fault in faults if KINDS[fault.kind].on_link and fault.side in ("both", side)]
        self.generator = generator
        self.rest = b""
        self.waiting: list[tuple[float, bytes]] = []
        self.held = b""
        self.touched = 0  # frames that a fault acted on

    def carry(self, data: bytes, now_s: float) -> bytes:
        """Bytes that arrive now. Without faults for this side it is the identity."""
        if not self.faults:
            return data
        frames = (self.rest + data).split(b"\0")
        self.rest = frames.pop()
        for frame in frames:
            self.send(frame + b"\0", now_s)
        due = [frame for at_s, frame in self.waiting if at_s <= now_s]
        self.waiting = [(at_s, frame) for at_s, frame in self.waiting if at_s > now_s]
        return b"".join(due)

    def send(self, frame: bytes, now_s: float) -> None:
        arrives_s, copies, late = now_s, 1, False
        for fault in self.faults:
            if not fault.active(now_s):
                continue
            if fault.kind == "delay":
                arrives_s += fault.value / 1000
                self.touched += 1
            elif self.generator.random() < fault.value:
                self.touched += 1
                if fault.kind == "drop":
                    copies = 0
                elif fault.kind == "duplicate":
                    copies = 2
                elif fault.kind == "reorder":
                    late = True
                else:
                    frame = self.damage(frame, fault.kind)
        if late and not self.held:
            self.held = frame
            return
        self.waiting += [(arrives_s, frame)] * copies
        if self.held:
            self.waiting.append((arrives_s, self.held))
            self.held = b""

    def damage(self, frame: bytes, kind: str) -> bytes:
        place = int(self.generator.integers(len(frame)))
        if kind == "byteloss":
            return frame[:place] + frame[place + 1 :]
        turned = frame[place] ^ (1 << int(self.generator.integers(8)))
        return frame[:place] + bytes([turned]) + frame[place + 1 :]
