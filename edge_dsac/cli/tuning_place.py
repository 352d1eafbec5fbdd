"""Where fine-tuning lies in a folder of slots, and what a session of it began with. For `start`, for `replay` and for the reports.

    FOLDER/tuning/session-001/   what was asked for, the journal, the newest states (learn/session.py)
    FOLDER/tuning/rows-6f.../    the robot's own rows, of all sessions with one calibration (learn/buffer.py)
    FOLDER/tuning/status.json    what the tuner does now

Knows no tuner. Rule that must stay true: nothing here needs torch, so that status, stop and undo work where there is none.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from edge_dsac.bundle.keyring import key_folder, trusted_keys
from edge_dsac.bundle.package import Bundle
from edge_dsac.bundle.slots import Slots
from edge_dsac.spec.robot import RobotSpec


def opened(args: argparse.Namespace) -> Slots:
    return Slots(args.slots, trusted_keys(key_folder(os.environ)), allow_unsigned=args.allow_unsigned)


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


def rows_folder(place: Path, spec: RobotSpec) -> Path:
    """Apart for each calibration: after an encoder was turned round, what was learned from before it is another robot's."""
    return place / f"rows-{spec.calibration_id:016x}"


def status_of(session: Path) -> dict[str, Any]:
    """The newest words of that session's tuner, if the newest tuner's session is that one."""
    try:
        words: dict[str, Any] = json.loads((session.parent / "status.json").read_text())
    except (OSError, ValueError):
        return {}
    return words if Path(words["session"]).name == session.name else {}


def comparable(spec: RobotSpec, settings: dict[str, Any]) -> str:
    """Rows of one buffer mean the same: the policy's layouts, the calibration, the rewards, the horizon."""
    words = [
        spec.policy_fingerprint,
        f"{spec.calibration_id:016x}",
        repr(spec.rewards),
        *(str(settings[name]) for name in ("gamma", "n_step", "reward_scale")),
    ]
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:32]


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def tell(text: str) -> None:
    print(text, file=sys.stdout, flush=True)
