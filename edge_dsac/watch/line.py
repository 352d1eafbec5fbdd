"""The live line of a running loop: is it really at its rate, how late, what does the robot do, and if it does not move, why.

    python -m edge_dsac.watch.line RING [SLOTS]

Reads the ring, and in a folder of slots how far a trial is, and nothing else; so it can be started, stopped and killed at
will. On a terminal one line that is rewritten four times a second; piped, a line every few seconds. Ends when the loop does.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from edge_dsac.records import BoardMode, Event, Fault, Mode, Rule
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.steplog.layout import FRESH
from edge_dsac.steplog.ring import RecorderState, RingReader

WINDOW_S = 1.0
TERMINAL_S, PIPED_S = 0.25, 3.0
MOVING = (Mode.RUNNING, Mode.COASTING)


def status_of(reader: RingReader, rows: np.ndarray, total: int, seconds: float) -> dict[str, Any]:
    """What the last second of steps says."""
    last = rows[-1]
    span_s = (int(rows["t_host_ns"][-1]) - int(rows["t_host_ns"][0])) * 1e-9
    late_us = rows["late_ns"] / 1e3
    newest = ObservationLayout(reader.spec).newest
    status: dict[str, Any] = {
        "mode": Mode(int(last["mode"])).name,
        "because": Event(int(last["because"])).name,
        "board": BoardMode(int(last["board"])).name,
        "hz": round((len(rows) - 1) / span_s, 1) if span_s > 0 else 0.0,
        "hz_average": round(total / seconds, 1) if seconds > 0 else 0.0,
        "hz_wanted": reader.spec.rates.control_hz,
        "late_us": {
            "p50": round(float(np.median(late_us)), 1),
            "p99": round(float(np.percentile(late_us, 99)), 1),
            "max": round(float(late_us.max()), 1),
        },
        "not_fresh": int((np.isin(rows["mode"], MOVING) & ((rows["flags"] & FRESH) == 0)).sum()),
        "faults": faults_text(int(last["faults"])),
        "recorder": reader.recorder_state().name,
        "policy": f"{int(last['bundle_id']):016x}",
        "person": bool(int(last["rules"]) & Rule.HUMAN),
        "ticks": int(last["index"]) + 1,
    }
    for name, term in (("tilt_rad", "pitch_rad"), ("speed_m_s", "speed_m_s"), ("off_path_m", "cross_track_m")):
        if term in newest:
            value = float(last["obs"][newest[term].start])
            status[name] = round(value, 3) if math.isfinite(value) else None  # no reading yet; JSON has no NaN
    return status


def faults_text(bits: int) -> str:
    real = Fault(bits & ~int(Fault.LIMITED | Fault.SLEWED))
    return "+".join(str(fault.name) for fault in Fault if fault and fault in real)


def line_of(status: dict[str, Any]) -> str:
    late = status["late_us"]
    parts = [
        f"{status['mode']:<8}",
        f"{status['hz']:7.1f} Hz (avg {status['hz_average']:.1f})",
        f"late {late['p50']:.0f}/{late['p99']:.0f}/{late['max']:.0f} us",
    ]
    if status.get("tilt_rad") is not None:
        parts.append(f"tilt {np.degrees(status['tilt_rad']):+5.1f} deg")
    if status.get("speed_m_s") is not None:
        parts.append(f"speed {status['speed_m_s']:+.2f} m/s")
    if status.get("off_path_m") is not None:
        parts.append(f"off path {status['off_path_m']:+.2f} m")
    if status["mode"] not in ("RUNNING",):
        parts.append(f"because {status['because']}, board {status['board']}")
    if status["faults"]:
        parts.append(f"fault {status['faults']}")
    if status["person"]:
        parts.append("A PERSON DRIVES")
    if status.get("trial"):
        parts.append(f"trial: {status['trial']}")
    if status["recorder"] == RecorderState.DISK_FULL.name:
        parts.append("DISK FULL")
    return "  ".join(parts)


class Watcher:
    """Follows one ring."""

    def __init__(self, path: Path, slots: Path | None = None) -> None:
        self.slots = slots
        self.reader = RingReader(path)
        self.rows = np.zeros(0, self.reader.layout.dtype)
        self.first: tuple[int, int] | None = None  # index and time of the first step seen; it is not step 0 for one who comes late

    def look(self) -> dict[str, Any] | None:
        """The status now; None before the first step."""
        fresh = self.reader.take(1 << 20)
        if len(fresh) and self.first is None:
            self.first = int(fresh["index"][0]), int(fresh["t_host_ns"][0])
        keep = round(WINDOW_S * self.reader.spec.rates.control_hz) + 1
        self.rows = np.concatenate([self.rows, fresh])[-keep:]
        if len(self.rows) < 2 or self.first is None:
            return None
        seconds = (int(self.rows["t_host_ns"][-1]) - self.first[1]) * 1e-9
        status = status_of(self.reader, self.rows, int(self.rows["index"][-1]) - self.first[0], seconds)
        return {**status, "trial": trial_of(self.slots, status["policy"])} if self.slots else status

    def over(self) -> bool:
        return self.reader.closed() or not self.reader.writer_alive()


def trial_of(slots: Path, policy: str) -> str:
    """What the folder's outcome.json says of the newest trial, and who drives now; empty without one."""
    try:
        outcome = json.loads((slots / "outcome.json").read_text())
        candidate, stage, why = str(outcome["candidate"]), str(outcome["stage"]), str(outcome["why"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    if stage == "begun":
        return f"of {candidate[:8]}, {'the candidate' if policy == candidate else 'the current policy'} drives"
    return f"of {candidate[:8]} {stage}: {why}"


def follow(path: Path, out: TextIO, slots: Path | None = None) -> None:
    watcher = Watcher(path, slots)
    terminal = out.isatty()
    while not watcher.over():
        status = watcher.look()
        if status:
            text = line_of(status)
            out.write(f"\r\x1b[K{text}" if terminal else text + "\n")
            out.flush()
        wait_until_over(watcher, TERMINAL_S if terminal else PIPED_S)
    if terminal:
        out.write("\n")


def wait_until_over(watcher: Watcher, seconds: float) -> None:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up and not watcher.over():
        time.sleep(0.05)


def main() -> int:
    if len(sys.argv) not in (2, 3):
        sys.stderr.write("usage: python -m edge_dsac.watch.line RING [SLOTS]\n")
        return 2
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the loop decides when it is over
    follow(Path(sys.argv[1]), sys.stdout, Path(sys.argv[2]) if len(sys.argv) == 3 else None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
