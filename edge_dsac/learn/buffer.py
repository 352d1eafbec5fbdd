"""What the robot has lived through: rows in memory for the learner, the same rows on disk for the next power-up. Bounded.

Knows rows and when they are safe; knows no policy and no log. A row is handed to the kernel before `extend` returns, so that a
kill loses nothing; it is on the disk before rows of more than `fsync_s` have gathered, so that a power cut loses less than a
second. Rules that must stay true: one writer; a flight's step is stored once, however often its log is fed; which rows are kept follows
from the sequence of rows alone, not from how it was cut (a replay cuts it otherwise); nothing the disk does is an exception once it is
open: on a full disk learning goes on from memory, and rows are written when there is room.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from edge_dsac.learn.coverage import cells, surplus
from edge_dsac.learn.row_segments import Part, Segments
from edge_dsac.learn.row_window import RowWindow
from edge_dsac.learn.rows_file import Disk, RowsError, Shape, as_rows
from edge_dsac.learn.rows_stock import Stock
from edge_dsac.learn.transitions import Rows

PARTS = 8  # files in a full buffer: an eighth goes at once
RETRY_S = 5.0  # a disk that refused is asked again after this
BLOCK_S, EVERY, MARGIN_S = 1.0, 5, 0.25


class Busy(RowsError):
    """Another process writes this buffer."""


class Buffer:
    """The writer's end. `rows` are views into memory that the next `extend` may move: take what you need before it."""

    def __init__(
        self, folder: str | Path, obs_size: int, act_size: int, capacity: int, keep: Literal["oldest-out", "coverage"] = "oldest-out",
        fsync_s: float = 0.5, *, fingerprint: str, clock: Callable[[], float] = time.monotonic, disk: Disk | None = None,
    ) -> None:  # fmt: skip
        """`fingerprint`: of what makes rows comparable, the robot's policy_fingerprint at least. `clock`: seconds."""
        if capacity < PARTS or keep not in ("oldest-out", "coverage"):
            raise RowsError(f"{folder}: capacity {capacity}, keep {keep!r}; expected at least {PARTS} rows, oldest-out or coverage")
        self.folder, self.capacity, self.keep, self.fsync_s, self.clock = Path(folder), capacity, keep, fsync_s, clock
        self.shape = Shape(obs_size, act_size, fingerprint)
        self.part_rows = capacity // PARTS
        self.segments = Segments(self.folder, self.shape, self.part_rows, disk or Disk())
        self.window = RowWindow(self.shape.dtype, capacity, self.part_rows)
        self.stock = Stock()  # with the rows that are in memory only
        self.stored: dict[int, int] = {}  # flight -> highest index in a file
        self.unwritten = 0  # rows at the window's end that are in no file yet
        self.known = 0  # rows that were offered again
        self.evicted = 0  # rows that made room
        self.never_written = 0  # rows among them that the disk never took
        self.disk_failures = 0
        self.complaints: list[str] = []
        self.synced_s, self.retry_s = clock(), -np.inf
        self.lock = lock(self.folder)
        try:
            self.load()
        except OSError as error:
            self.lock.close()
            raise RowsError(f"{self.folder}: cannot be read: {error}; mend the disk, or give another folder") from None
        except BaseException:
            self.lock.close()
            raise

    def load(self) -> None:
        for header, got in self.segments.load(self.capacity):
            self.stock.count(header, got)
            room = got.records[-self.capacity :]  # one file alone may hold more than a capacity that became smaller
            self.segments.too_old += len(got.records) - len(room)
            if len(room):
                self.segments.parts[-1].rows = len(room)
                self.window.push(room)
        self.evicted = self.segments.too_old
        self.stored = dict(self.stock.flights)

    @property
    def rows(self) -> Rows:
        """All rows kept, oldest first."""
        return as_rows(self.window.records)

    @property
    def total(self) -> int:
        """Rows ever added."""
        return self.stock.total

    def __len__(self) -> int:
        return len(self.window.records)

    def last(self, flight: int) -> int:
        """The highest index of this flight ever stored; -1: none."""
        return self.stock.flights.get(int(flight), -1)

    def told(self) -> dict[str, Any]:
        """What it holds and how that lies in files, which decides what makes room next: for a session's journal."""
        digest = hashlib.sha256(self.window.records.tobytes()).hexdigest()[:32]
        return {
            "rows": self.total, "kept": len(self), "digest": digest,
            "parts": [[part.first, part.slots, part.rows] for part in self.segments.parts if part.slots],
        }  # fmt: skip

    # Adding

    def extend(self, rows: Rows) -> int:
        """How many were new. Those at or below `last(flight)` are left out: the log was fed before."""
        picked, at = self.unknown(rows), 0
        while at < len(picked):
            self.make_room(len(picked) - at)
            count = min(self.part_rows, self.capacity - len(self))
            piece = self.shape.pack(rows, picked[at : at + count], self.total)
            at += len(piece)
            self.window.push(piece)
            self.stock.total, self.unwritten = self.stock.total + len(piece), self.unwritten + len(piece)
            self.stock.remember_rows(piece)
            self.write_if_possible()
        self.sync_if_due(self.clock())
        return len(picked)

    def unknown(self, rows: Rows) -> np.ndarray:
        """Positions of the rows not stored yet."""
        widths = np.shape(rows.obs)[1:], np.shape(rows.act)[1:]
        if widths != ((self.shape.obs,), (self.shape.act,)):
            raise RowsError(
                f"{self.folder}: rows of {widths} numbers, the buffer holds {self.shape.obs} and {self.shape.act}; "
                "they are another robot's: give a folder of its own"
            )
        index, flights = np.asarray(rows.index).astype(np.int64), np.asarray(rows.flight)
        new = np.zeros(len(index), bool)
        for flight in np.unique(flights).tolist():
            at = np.flatnonzero(flights == flight)
            highest = np.maximum.accumulate(np.concatenate([[self.last(flight)], index[at]]))[:-1]
            new[at] = index[at] > highest
        self.known += int((~new).sum())
        return np.flatnonzero(new)

    def make_room(self, wanted: int) -> None:
        """Only where not one row more fits. Where files make room, `wanted` decides nothing."""
        while len(self) == self.capacity:
            if self.keep == "coverage" and self.thin_out():
                continue
            if self.segments.parts:
                gone = self.segments.drop_oldest()
            else:  # the disk has taken nothing for as long as the memory reaches
                gone = min(wanted, self.part_rows, self.unwritten)
                self.unwritten -= gone
                self.never_written += gone
            self.window.drop_oldest(gone)
            self.evicted += gone

    def thin_out(self) -> bool:
        """The older half becomes one file with an eighth of the capacity less; False: it cannot be done now."""
        group: list[Part] = []
        for part in self.segments.parts[:-1]:  # the last one takes rows
            group.append(part)
            if sum(one.rows for one in group) >= self.capacity // 2:
                break
        count = sum(part.rows for part in group)
        if count <= self.part_rows or self.clock() < self.retry_s:
            return False
        go = surplus(cells(self.window.records["obs"]), count, self.part_rows)
        kept = self.window.records[:count][~go]
        try:
            self.segments.merge(group, kept)
        except OSError as error:
            self.complain(error)
            return False
        self.window.replace_oldest(count, kept)
        self.evicted += count - len(kept)
        return True

    # Writing

    def write_if_possible(self) -> None:
        if not self.unwritten or self.clock() < self.retry_s:
            return
        try:
            while self.unwritten:
                if self.segments.full():
                    self.sync()
                waiting = self.window.records[len(self) - self.unwritten :]
                taken = self.segments.append(waiting, self.stored)
                self.unwritten -= taken
                for flight in np.unique(waiting["flight"][:taken]).tolist():
                    self.stored[flight] = int(waiting["index"][:taken][waiting["flight"][:taken] == flight].max())
        except OSError as error:
            self.complain(error)

    def sync_if_due(self, now: float) -> None:
        """Cheap; call it between two calls of `extend` too, so that the last rows reach the disk and a full one is asked again."""
        self.write_if_possible()
        if self.segments.unsynced and (now - self.synced_s >= self.fsync_s or self.unsynced_span_s() >= self.fsync_s):
            try:
                self.sync()
            except OSError as error:
                self.complain(error)

    def unsynced_span_s(self) -> float:
        """Of the robot's time: a learner that was long away brings much at once."""
        end = len(self) - self.unwritten
        t_ns = self.window.records["t_host_ns"][end - self.segments.unsynced : end]
        return abs(int(t_ns[-1]) - int(t_ns[0])) * 1e-9

    def sync(self) -> None:
        try:
            self.segments.sync()
        except OSError:
            self.unwritten += self.segments.take_back_unsynced()
            raise
        self.synced_s = self.clock()

    def complain(self, error: OSError) -> None:
        self.disk_failures += 1
        self.retry_s = self.clock() + RETRY_S
        text = f"{self.folder}: {error.strerror or error}; learning goes on from memory, rows are written when there is room"
        if text not in self.complaints:
            self.complaints.append(text)

    def close(self) -> None:
        self.retry_s = -np.inf
        self.sync_if_due(np.inf)
        self.segments.close()
        self.lock.close()


def lock(folder: Path) -> IO[Any]:
    """Held while the process lives, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / "lock", "a+", encoding="ascii")  # noqa: SIM115
    except OSError as error:
        raise RowsError(f"{folder}: cannot be written: {error}; give another folder, or make room") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "?"
        file.close()
        raise Busy(f"{folder}: process {holder} writes this buffer; stop that tuner first, or give another folder") from None
    try:
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
    except OSError:
        pass  # a full disk; the number is only for people
    return file


class Split(NamedTuple):
    """Two masks over rows; a row near a block's edge is in neither, for its n steps reach across."""

    train: np.ndarray
    held: np.ndarray


def held_out(rows: Rows) -> Split:
    """Every fifth second is for the gate and never trained on. By each row's own time, so that it stays what it is."""
    t_s = np.asarray(rows.t_host_ns) * 1e-9
    within_s = t_s % (BLOCK_S * EVERY)
    held = (within_s >= MARGIN_S) & (within_s < BLOCK_S - MARGIN_S)
    train = (within_s >= BLOCK_S + MARGIN_S) & (within_s < BLOCK_S * EVERY - MARGIN_S)
    return Split(train, held)
