"""The journal of a fine-tuning session, for whoever only reads it: a line of JSON per event (learn/session.py writes them).

Needs no torch and no numpy: a robot's reports are made of it, also while a tuner is at work.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def read_journal(path: Path) -> list[dict[str, Any]]:
    """A last line that was cut off is left out."""
    if not path.exists():
        return []
    events = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            events.append(json.loads(line))
        except ValueError:
            break
    return events


def cut_torn(journal: int, path: Path) -> None:
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        os.ftruncate(journal, whole)


def lived_s(events: Sequence[Mapping[str, Any]], status: Mapping[str, Any]) -> float:
    """How long a session has been at work, in all its lives: the newest end says it, and of one that was killed its last `status`."""
    ends = [float(event["seconds"]) for event in events if event["event"] == "ended"]
    return max([*ends[-1:], float(status.get("seconds", 0.0))], default=0.0)
