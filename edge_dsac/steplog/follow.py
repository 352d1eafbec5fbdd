"""Follows flights as they happen: all of a flight's steps from its first on, then the next flight's, from whoever points to it.

Reads what is on disk once and the ring from there on; a ring that has lapped us is made good from the disk. Knows no learner. Rule
that must stay true: of one flight the steps come in the order of their index, each of them once.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from edge_dsac.spec.robot import RobotSpec
from edge_dsac.steplog.layout import LogError, RecordLayout
from edge_dsac.steplog.reading import open_log
from edge_dsac.steplog.ring import RingReader

MOST = 8192  # records per look


class Chunk(NamedTuple):
    """Some more of a flight."""

    flight: int  # wall_start_ns: names it
    columns: np.ndarray  # records, in order
    over: bool  # the flight has ended, and these were its last


class Follower:
    def __init__(self, pointer: Path, spec: RobotSpec) -> None:
        """`pointer`: a run's folder, or a link to the newest one that somebody changes (bundle/slots: `flight`)."""
        self.pointer, self.spec, self.dtype = pointer, spec, RecordLayout(spec).dtype
        self.folder: Path | None = None
        self.reader: RingReader | None = None
        self.flight, self.next_index = 0, 0
        self.behind = False  # the ring has gone on without us: what is missing must come from the disk
        self.done: set[Path] = set()
        self.complaints: list[str] = []

    def look(self) -> list[Chunk]:
        """What has come since the last look; at a flight's end its last steps, then nothing until the next flight."""
        folder = self.pointer.resolve()
        if self.folder is None:
            if folder in self.done or not folder.is_dir():
                return []
            return self.begin(folder)
        chunks = [Chunk(self.flight, self.take(), False)]
        if self.ended() or folder != self.folder:
            chunks.append(self.finish())
        return [chunk for chunk in chunks if len(chunk.columns) or chunk.over]

    def begin(self, folder: Path) -> list[Chunk]:
        try:
            ring = folder / "ring"
            reader = RingReader(ring) if ring.exists() else None  # first: the recorder may take it away once its steps are in segments
            log = open_log(folder)
        except (LogError, OSError):
            return []  # its first step is yet to come
        why = self.another_robot(log.spec)
        if why:
            self.done.add(folder)
            self.complain(f"{folder}: is a flight of {log.spec.model} with {why}; not learned from")
            return []
        self.folder, self.flight, self.next_index = folder, log.wall_start_ns, 0
        self.reader, self.behind = reader, False
        if self.reader is not None:
            self.reader.cursor = max(self.reader.cursor, int(log.columns["index"][-1]) + 1 if len(log.columns) else 0)
        return [Chunk(self.flight, self.fresh(log.columns), False)]

    def another_robot(self, flown: RobotSpec) -> str:
        """Empty if its steps mean the same as this robot's."""
        if flown.policy_fingerprint != self.spec.policy_fingerprint:
            return "another robot file"
        if flown.calibration_id != self.spec.calibration_id:
            return f"another calibration ({flown.calibration_id:016x}, here {self.spec.calibration_id:016x})"
        return ""

    def take(self) -> np.ndarray:
        if self.reader is None:
            return np.zeros(0, self.dtype)
        missed, columns = self.reader.lost + self.reader.torn, self.reader.take(MOST)
        self.reader.let_go()
        self.behind = self.behind or self.reader.lost + self.reader.torn != missed  # torn: overwritten while it was copied
        return self.fresh(self.from_disk() if self.behind else columns)

    def from_disk(self) -> np.ndarray:
        """All of the flight; nothing where it cannot be read now: the next look, or the flight's end, tries again."""
        assert self.folder is not None
        try:
            columns = open_log(self.folder).columns
        except (LogError, OSError) as error:
            self.complain(str(error))
            return np.zeros(0, self.dtype)
        self.behind = False
        return columns

    def complain(self, text: str) -> None:
        if text not in self.complaints:
            self.complaints.append(text)

    def fresh(self, columns: np.ndarray) -> np.ndarray:
        columns = columns[columns["index"] >= self.next_index]
        if len(columns):
            self.next_index = int(columns["index"][-1]) + 1
        return columns

    def ended(self) -> bool:
        reader = self.reader
        return reader is None or ((reader.closed() or not reader.writer_alive()) and reader.cursor >= reader.head())

    def finish(self) -> Chunk:
        assert self.folder is not None
        rest = self.fresh(self.from_disk())
        self.done.add(self.folder)
        self.folder = self.reader = None
        return Chunk(self.flight, rest, True)
