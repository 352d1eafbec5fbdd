"""A ring of Steps in shared memory: written by the loop in a few microseconds, read by anyone, whole after SIGKILL.

The writer makes no system call and waits for nobody. Readers copy, then check index and CRC, so that a record that is being
overwritten is noticed and not believed. Two words are the recorder's: how far it has come, and how it is.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
import zlib
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path

import numpy as np

from edge_dsac.records import Step
from edge_dsac.spec.robot import RobotSpec
from edge_dsac.steplog.layout import (
    CLOSED_AT,
    FRESH,
    HEAD_AT,
    HEADER_BYTES,
    OBS_OK,
    RECORDER_STATE_AT,
    FileHeader,
    LogError,
    RecordLayout,
    check_length,
    check_record_size,
    spec_of,
    unpack_header,
)

CRC = struct.Struct("<I")


class RecorderState(IntEnum):
    ABSENT = 0
    RECORDING = 1
    DISK_FULL = 2


class Ring:
    """The loop's end."""

    def __init__(self, path: Path, spec: RobotSpec, capacity: int) -> None:
        self.path, self.capacity = path, capacity
        self.layout = RecordLayout(spec)
        text = spec.text.encode()
        pid = os.getpid()
        self.header = FileHeader(self.layout.bytes, capacity, len(text), pid, time.time_ns(), time.monotonic_ns(), 0, started_at(pid))
        size = self.header.data_at + capacity * self.layout.bytes
        self.memory = allocate(path, size)
        self.memory[HEADER_BYTES : HEADER_BYTES + len(text)] = text
        self.data_at = self.header.data_at
        self.view = memoryview(self.memory)
        self.words = np.frombuffer(self.memory, "<u8", 2, HEAD_AT)  # head and the recorder's cursor: one aligned store each
        self.head = 0
        self.memory[: len(self.header.pack())] = self.header.pack()  # last: from now on readers believe it

    @classmethod
    def create(cls, path: Path, spec: RobotSpec, capacity: int) -> Ring:
        """In shared memory where there is some, with a link at `path`: the kernel writes pages of a file back while we write them."""
        path = Path(path)
        if path.exists() or any(path.parent.glob("steps-*.edsl")):
            raise LogError(f"{path.parent}: already holds a flight log; give another folder, or move it away")
        if os.path.isdir("/dev/shm") and not str(path.absolute()).startswith("/dev/shm"):
            real = Path(f"/dev/shm/edge-dsac-{os.getpid()}-{time.monotonic_ns():x}.ring")
            path.unlink(missing_ok=True)
            ring = cls(real, spec, capacity)
            path.symlink_to(real)
            return ring
        return cls(path, spec, capacity)

    def append(self, step: Step) -> None:
        layout, frame, command, memory = self.layout, step.frame, step.command, self.memory
        at = self.data_at + self.head % self.capacity * layout.bytes
        layout.record.pack_into(
            memory, at, self.head, step.t_host_ns, frame.t_mcu_us, step.late_ns, step.busy_ns, step.frame_age_ns, step.bundle_id,
            frame.seq, frame.answered_seq, command.answers_seq, frame.faults, command.rules, step.mode, step.because, frame.board,
            FRESH * step.fresh | OBS_OK * bool(step.obs.ok), frame.battery_v, *frame.position_rad,
            *frame.velocity_rad_s, *frame.applied, *frame.gyro_rad_s, *frame.accel_m_s2, *frame.extra,
            *step.obs.vector.tolist(), *step.action.tolist(), *command.applied_action, *command.command,
        )  # fmt: skip
        end = at + layout.bytes - 4
        CRC.pack_into(memory, end, zlib.crc32(self.view[at:end]))
        self.head += 1
        self.words[0] = self.head

    def free(self) -> int:
        """How many steps fit before one is overwritten that is not on disk yet."""
        return self.capacity - self.head + int(self.words[1])

    def close(self) -> None:
        """Says that no more will come. The memory stays: the recorder still drains it."""
        self.memory[CLOSED_AT : CLOSED_AT + 4] = b"\1\0\0\0"


def started_at(pid: int) -> int:
    """When this process started, in kernel ticks since boot; 0 where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    after_name = text.rpartition(")")[2].split()
    return 0 if after_name[0] in "ZX" else int(after_name[19])


def allocate(path: Path, size: int) -> mmap.mmap:
    """Every page is there before the first write: a full disk is an error now, not a SIGBUS in the middle of a flight."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, size)
        return mmap.mmap(descriptor, size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise LogError(f"{path}: no room for a ring of {size / 1e6:.1f} MB: {error}; free some space or log elsewhere") from None
    finally:
        os.close(descriptor)


class RingReader:
    """Anyone else's end. Starts at the oldest step that is still there."""

    def __init__(self, path: Path, writable: bool = False) -> None:
        self.path = Path(path)
        try:
            with open(self.path, "r+b" if writable else "rb") as file:
                head = file.read(HEADER_BYTES)
                self.header = unpack_header(head, str(path))
                self.memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
        except OSError as error:
            raise LogError(f"{path}: cannot be read: {error}") from None
        if not self.header.capacity:
            raise LogError(f"{path}: is a segment, not a ring; open it with open_log")
        check_length(len(self.memory), self.header.data_at, str(path))
        text = self.memory[HEADER_BYTES : HEADER_BYTES + self.header.spec_bytes]
        self.spec = spec_of(text, str(path))
        self.layout = RecordLayout(self.spec)
        check_record_size(self.header, self.layout, str(path))
        self.words = np.frombuffer(self.memory, "<u8", 2, HEAD_AT)
        self.cursor = max(0, self.head() - self.header.capacity)
        self.lost = self.torn = 0

    def head(self) -> int:
        return int(self.words[0])

    def closed(self) -> bool:
        return self.memory[CLOSED_AT] == 1

    def recorded(self) -> int:
        return int(self.words[1])

    def recorder_state(self) -> RecorderState:
        return RecorderState(self.memory[RECORDER_STATE_AT])

    def set_recorder(self, recorded: int | None, state: RecorderState) -> None:
        """For the recorder alone."""
        self.memory[RECORDER_STATE_AT] = int(state)
        if recorded is not None:
            self.words[1] = recorded

    def writer_alive(self) -> bool:
        return self.header.writer_start == started_at(self.header.writer_pid)

    def take(self, most: int = 4096) -> np.ndarray:
        """Whole records from the cursor on, as one structured array; the cursor moves past them."""
        head = self.head()
        oldest = head - self.header.capacity
        if self.cursor < oldest:
            self.lost += oldest - self.cursor
            self.cursor = oldest
        kept = [record for record in self.raw(min(head, self.cursor + most)) if record]
        return np.frombuffer(b"".join(kept), self.layout.dtype) if kept else np.zeros(0, self.layout.dtype)

    def let_go(self) -> None:
        """Of the pages that were looked at: they are the loop's, and count as ours too as long as they are mapped here."""
        self.memory.madvise(mmap.MADV_DONTNEED)  # of a shared mapping nothing is lost by it

    def raw(self, until: int) -> Iterator[bytes]:
        size = self.header.record_bytes
        while self.cursor < until:
            at = self.header.data_at + self.cursor % self.header.capacity * size
            record = self.memory[at : at + size]
            if int.from_bytes(record[:8], "little") == self.cursor and self.layout.good(record):
                yield record
            else:
                self.torn += 1  # overwritten under our hands, or the writer was killed in the middle of it
            self.cursor += 1
