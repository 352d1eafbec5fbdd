"""Drains a ring to segment files on disk, in a process of its own; at most half a second is ever at risk.

    python -m edge_dsac.steplog.recorder RING FOLDER

A full disk is waited out: what is not on disk yet stays in the ring, and the loop damps the robot before it would be lost.
Ends when the loop has closed the ring or is dead, and everything is on disk; then the ring is removed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edge_dsac.steplog.layout import HEADER_BYTES, PAGE, FileHeader
from edge_dsac.steplog.ring import RecorderState, RingReader

SYNC_S = 0.5
POLL_S = 0.1
SEGMENT_BYTES = 64_000_000


class Segment:
    """One file under way. A write is whole and on the disk, or undone."""

    def __init__(self, folder: Path, header: FileHeader, text: bytes, first_index: int) -> None:
        self.path = folder / f"steps-{first_index:012d}.edsl"
        first = replace(header, capacity=0, first_index=first_index)
        start = first.pack().ljust(HEADER_BYTES, b"\0") + text.ljust(first.data_at - HEADER_BYTES, b"\0")
        self.descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self.size = 0
        try:
            self.append(start)
        except OSError:
            os.close(self.descriptor)
            self.path.unlink(missing_ok=True)
            raise

    def append(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self.descriptor, left) :]
            self.sync()
        except OSError:
            os.ftruncate(self.descriptor, self.size)
            os.lseek(self.descriptor, self.size, os.SEEK_SET)
            raise
        self.size += len(data)

    def sync(self) -> None:
        os.fdatasync(self.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)


class Recorder:
    def __init__(self, ring: Path, folder: Path, make_segment: Callable[..., Segment] = Segment) -> None:
        self.reader, self.folder, self.make_segment = RingReader(ring, writable=True), folder, make_segment
        self.reader.cursor = self.reader.recorded()
        spec_at = HEADER_BYTES
        self.text = bytes(self.reader.memory[spec_at : spec_at + self.reader.header.spec_bytes])
        self.segment: Segment | None = None
        self.waiting = b""  # read from the ring, not on disk yet
        self.waiting_from = self.reader.cursor
        self.complaints: list[str] = []

    def drain(self) -> None:
        """Whatever is there goes to the disk; on a full disk nothing moves and nothing is lost."""
        if not self.waiting:
            self.waiting_from = self.reader.cursor
            self.waiting = self.reader.take(1 << 20).tobytes()
        if not self.waiting:
            return
        try:
            if self.segment is None or self.segment.size > SEGMENT_BYTES:
                fresh = self.make_segment(self.folder, self.reader.header, self.text, self.waiting_from)
                if self.segment is not None:
                    self.segment.close()
                self.segment = fresh
            self.segment.append(self.waiting)
        except OSError as error:
            self.reader.set_recorder(None, RecorderState.DISK_FULL)
            self.complain(f"recorder: {self.folder}: {error}; the steps wait in the ring until there is room")
            return
        self.waiting = b""
        self.reader.set_recorder(self.reader.cursor, RecorderState.RECORDING)

    def complain(self, text: str) -> None:
        if not self.complaints or self.complaints[-1] != text:
            self.complaints.append(text)
            sys.stderr.write(text + "\n")

    def done(self) -> bool:
        over = self.reader.closed() or not self.reader.writer_alive()
        return over and not self.waiting and self.reader.cursor >= self.reader.head()

    def finish(self) -> None:
        if self.segment is not None:
            self.segment.close()
        self.reader.set_recorder(None, RecorderState.ABSENT)
        ring = self.reader.path
        real = ring.resolve()
        ring.unlink(missing_ok=True)
        real.unlink(missing_ok=True)


def main() -> int:
    if len(sys.argv) != 3:
        sys.stderr.write("usage: python -m edge_dsac.steplog.recorder RING FOLDER\n")
        return 2
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the loop decides when it is over
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    recorder = Recorder(Path(sys.argv[1]), Path(sys.argv[2]))
    synced = 0.0
    while not recorder.done():
        now = time.monotonic()
        if now - synced >= SYNC_S or recorder.reader.closed():
            recorder.drain()
            synced = now
        time.sleep(POLL_S)
    recorder.finish()
    return 0


assert HEADER_BYTES % PAGE == 0

if __name__ == "__main__":
    sys.exit(main())
