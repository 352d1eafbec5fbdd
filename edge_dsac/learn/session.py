"""A fine-tuning session as it lies on the disk, so that a kill at any instant costs nothing and any session can be flown again.

    session.json   what was asked for, of which parent; never changed
    journal.jsonl  what was done, in order, before it was done: rounds with the rows they saw, candidates, verdicts
    state-0, -1    the learner after its newest two rounds, each with its own hash
    rows/          the buffer

Knows files; knows no network, no robot and no clock. Rule that must stay true: a round that the journal names and no state has is
done again with the very rows it names; a state is believed only if its hash, its parent and its settings are this session's.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_dsac.bundle.arrays import ArraysError, read_arrays
from edge_dsac.learn.checkpoint import npz, write
from edge_dsac.learn.journal import cut_torn, read_journal
from edge_dsac.records import Float

STATE_LIMIT = 256 << 20
VERSION = 1


class SessionError(ValueError):
    """A session that cannot be gone on with; says what to do."""


@dataclass(frozen=True, slots=True)
class SavedState:
    round: int  # of the newest round that is in it; 0: none yet
    arrays: dict[str, Float]


class Session:
    def __init__(self, folder: Path, words: dict[str, Any], resume: bool) -> None:
        """`words`: everything the learner's bits depend on but rows: parent, settings, version."""
        self.folder = Path(folder)
        self.words: dict[str, Any] = json.loads(json.dumps({"version": VERSION, **words}))  # as they will be read: a tuple is a list
        self.rows = self.folder / "rows"
        path = self.folder / "session.json"
        if path.exists() and not resume:
            raise SessionError(f"{folder} holds a session already; --resume goes on with it, or give another folder")
        if path.exists():
            self.check(json.loads(path.read_text()))
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            write(path, (json.dumps(self.words, indent=1, sort_keys=True) + "\n").encode())
        self.events = read_journal(self.folder / "journal.jsonl")
        self.journal = os.open(self.folder / "journal.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        cut_torn(self.journal, self.folder / "journal.jsonl")
        self.identity = identity_of(self.words)

    def check(self, found: dict[str, Any]) -> None:
        changed = sorted(key for key in {*found, *self.words} if found.get(key) != self.words.get(key))
        if changed:
            told = "; ".join(f"{key}: was {found.get(key)}, is {self.words.get(key)}" for key in changed)
            raise SessionError(f"{self.folder} is a session with other settings ({told}); give another folder, or the same settings")

    def note(self, event: str, **words: Any) -> None:
        """On the disk before anything follows from it."""
        entry = {"event": event, **words}
        line = json.dumps(entry).encode() + b"\n"
        size = os.fstat(self.journal).st_size
        try:
            if os.write(self.journal, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(self.journal)
        except OSError as error:
            os.ftruncate(self.journal, size)  # half a line would hide all that come after it
            raise SessionError(f"{self.folder}: the journal cannot be written: {error}; make room and go on with --resume") from None
        self.events.append(entry)

    def of(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.events if entry["event"] == event]

    # ---- the learner's state

    def save(self, number: int, arrays: dict[str, Float]) -> None:
        """After round `number`. The one before it stays until the next, in case this one is found torn after a power cut."""
        body = npz({**arrays, "round": number})  # type: ignore[dict-item]
        path, unfinished = self.state_path(number), self.folder / "state.unfinished"
        unfinished.write_bytes(hashlib.sha256(self.identity + body).digest() + body)
        os.replace(unfinished, path)

    def load(self) -> SavedState | None:
        """The newest one that is whole and this session's."""
        return max(read_states(self.folder, self.identity), key=lambda state: state.round, default=None)

    def state_path(self, number: int) -> Path:
        return self.folder / f"state-{number % 2}"

    def close(self) -> None:
        os.close(self.journal)


def identity_of(words: dict[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).digest()


def read_states(folder: Path, identity: bytes) -> list[SavedState]:
    """Those that are whole and of the session of this identity."""
    found = []
    for path in (folder / "state-0", folder / "state-1"):
        try:
            data = path.read_bytes()
            if data[:32] != hashlib.sha256(identity + data[32:]).digest():
                continue
            arrays = read_arrays(data[32:], path.name, STATE_LIMIT)
        except (OSError, ArraysError):
            continue
        found.append(SavedState(int(arrays.pop("round")), arrays))
    return found


@dataclass(frozen=True, slots=True)
class Past:
    """A session as it lies there, for whoever only looks: a tuner that is at work on it is not disturbed."""

    folder: Path
    words: dict[str, Any]
    events: list[dict[str, Any]]
    states: list[SavedState]


def read_session(folder: Path) -> Past:
    try:
        words: dict[str, Any] = json.loads((folder / "session.json").read_text())
        events = read_journal(folder / "journal.jsonl")
    except (OSError, ValueError) as error:
        raise SessionError(f"{folder}: no session that can be read: {error}") from None
    return Past(folder, words, events, read_states(folder, identity_of(words)))
