"""A motor board without hardware: the firmware's own C, compiled for this machine, between a plant and a stream of bytes.

`VirtualBoard.tick` is one tick of the board and nothing else: no clock, no port, deterministic under its seed. `serve` puts
it on a pty in real time, or in lock-step with its host. Knows no simulator: the plant is whatever keeps the Protocol.
"""

from __future__ import annotations

import ctypes
import os
import pty
import time
import tty
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edge_dsac.records import BoardMode, Float, Readings
from edge_dsac.spec.robot import RobotSpec
from firmware_bridge.build import build_host_library
from firmware_bridge.faults import KINDS, Fault, FaultError, LossyWay
from firmware_bridge.framing import Deframer
from firmware_bridge.messages import MessageId
from firmware_bridge.wire import Wire

TX_BYTES = 4096
UART_BUFFER_BYTES = 1024  # what the firmware takes per tick
NEAR_OVERFLOW = (1 << 31) - 2000


class Plant(Protocol):
    """What a board is wired to: SI, RobotSpec order, one robot."""

    def reset(self) -> None: ...
    def drive(self, command: Float | None, ticks: int) -> None:
        """Holds `command[joints]` for so many ticks of the board; None is motors off."""
        ...

    def sense(self) -> Readings: ...


class VirtualBoard:
    def __init__(self, spec: RobotSpec, plant: Plant, seed: int = 0, faults: tuple[Fault, ...] = (), library: Path | None = None) -> None:
        self.spec, self.plant, self.faults = spec, plant, faults
        self.generator = np.random.default_rng(seed)
        self.wire = Wire(spec)
        self.core = ctypes.CDLL(str(library or build_host_library(spec)))
        self.core.host_board_size.restype = self.core.host_board_tick.restype = ctypes.c_uint32
        self.memory = ctypes.create_string_buffer(self.core.host_board_size())
        self.tx = ctypes.create_string_buffer(TX_BYTES)
        self.command: Float = np.zeros(len(spec.joints), np.float32)
        self.mode = ctypes.c_uint8()
        self.from_host = LossyWay(faults, "host", self.generator)
        self.from_board = LossyWay(faults, "board", self.generator)
        self.ticks = self.boots = 0
        self.stalled_until_s = 0.0
        self.done: set[int] = set()  # faults that happen once and have happened
        self.count_offset = np.zeros(len(spec.joints), np.int32)
        self.raw: np.ndarray[Any, Any] | None = None
        self.power_on()

    def power_on(self) -> None:
        """A new session of the board; the plant does not notice."""
        self.boots += 1
        self.booted_tick = self.ticks
        session = int(self.generator.integers(1, 1 << 32))
        self.core.host_board_start(self.memory, ctypes.c_uint32(session), ctypes.c_uint32(0))

    @property
    def now_s(self) -> float:
        return self.ticks / self.spec.rates.board_hz

    @property
    def board_mode(self) -> BoardMode:
        return BoardMode(self.mode.value)

    def unplugged(self) -> bool:
        return any(fault.kind == "disconnect" and fault.active(self.now_s) for fault in self.faults)

    def tick(self, received: bytes = b"") -> bytes:
        """One 1/board_hz: bytes from the host in, bytes for the host out."""
        self.happen()
        now_s = self.now_s
        arrived = self.from_host.carry(received, now_s)[-UART_BUFFER_BYTES:]
        sent = b"" if now_s < self.stalled_until_s else self.run_firmware(arrived)
        off = self.board_mode not in (BoardMode.ARMED, BoardMode.FALLBACK)
        self.plant.drive(None if off else self.wire.command_from_board(self.command), 1)
        self.ticks += 1
        return self.from_board.carry(sent, now_s)

    def run_firmware(self, arrived: bytes) -> bytes:
        raw = self.read_sensors()
        now_us = (self.ticks - self.booted_tick) * 1_000_000 // self.spec.rates.board_hz & 0xFFFFFFFF
        length = self.core.host_board_tick(
            self.memory, ctypes.c_uint32(now_us), arrived, ctypes.c_uint32(len(arrived)), ctypes.c_void_p(raw.ctypes.data), self.tx,
            ctypes.c_uint32(TX_BYTES), ctypes.c_void_p(self.command.ctypes.data), ctypes.byref(self.mode),
        )  # fmt: skip
        return self.tx.raw[:length] if length else b""

    def read_sensors(self) -> np.ndarray[Any, Any]:
        now_s = self.now_s
        kinds = {fault.kind for fault in self.faults if fault.active(now_s)}
        if "freeze" in kinds and self.raw is not None:
            return self.raw
        readings = self.plant.sense()
        if "blind" in kinds:
            nothing = np.full(3, np.nan)
            readings = Readings(readings.position_rad, nothing, nothing, readings.battery_v, readings.extra)
        self.raw = self.wire.raw_from_readings(readings)
        self.raw["counts"] += self.count_offset
        return self.raw

    def happen(self) -> None:
        """Faults that happen once."""
        for i, fault in enumerate(self.faults):
            if not KINDS[fault.kind].once or i in self.done or self.now_s < fault.start_s:
                continue
            self.done.add(i)
            if fault.kind == "brownout":
                self.power_on()
                counts = self.wire.raw_from_readings(self.plant.sense())["counts"]
                self.count_offset = -counts
            elif fault.kind == "stall":
                self.stalled_until_s = self.now_s + fault.value / 1000
            elif fault.kind == "wrap":
                counts = self.wire.raw_from_readings(self.plant.sense())["counts"]
                self.count_offset = (NEAR_OVERFLOW - counts.astype(np.int64)).astype(np.int32)


class LockstepBoard:
    """The board as a port in this process: time passes only by what the host writes.

    A COMMAND lets one control period pass, any other frame one tick; waiting lets one tick pass.
    """

    def __init__(self, board: VirtualBoard) -> None:
        self.board = board
        self.listener = Deframer(board.spec)
        self.period_ticks = board.spec.rates.board_hz // board.spec.rates.control_hz
        self.out = b""
        self.short_writes = 0

    def write(self, data: bytes) -> None:
        for packet in self.listener.feed(data):
            self.advance(self.period_ticks if packet.message == MessageId.COMMAND else 1, data)
            data = b""
        if data:
            self.advance(1, data)

    def advance(self, ticks: int, data: bytes = b"") -> None:
        for _ in range(ticks):
            self.out += self.board.tick(data)
            data = b""

    def read(self) -> bytes:
        if not self.out:
            self.advance(1)
        out, self.out = self.out, b""
        return out

    def wait(self, timeout_s: float) -> bool:
        if not self.out:
            self.advance(1)
        return bool(self.out)

    def close(self) -> None:
        pass


@dataclass(slots=True)
class Served:
    """What a session of `serve` came to."""

    ticks: int = 0
    late_ticks: int = 0  # run back to back to catch up
    skipped_ticks: int = 0  # given up: the machine was too slow
    lost_bytes: int = 0  # written for a host that did not read
    reconnects: int = 0
    trajectory: list[Float] = field(default_factory=list)


class Pty:
    """A pty that is the board's end of the cable; `link` is a path that always points to the other end."""

    def __init__(self, link: Path | None) -> None:
        self.link = link
        self.master = self.slave = -1
        self.path = ""

    def plug(self) -> None:
        self.master, self.slave = pty.openpty()
        tty.setraw(self.slave)
        os.set_blocking(self.master, False)
        self.path = os.ttyname(self.slave)
        if self.link:
            fresh = self.link.with_name(self.link.name + ".new")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(self.path)
            os.replace(fresh, self.link)

    def unplug(self) -> None:
        for descriptor in (self.slave, self.master):
            if descriptor >= 0:
                os.close(descriptor)
        self.master = self.slave = -1
        if self.link:
            self.link.unlink(missing_ok=True)

    def read(self) -> bytes:
        try:
            return os.read(self.master, 4096) if self.master >= 0 else b""
        except OSError:
            return b""

    def write(self, data: bytes) -> int:
        """How many bytes nobody took."""
        try:
            return len(data) - os.write(self.master, data) if self.master >= 0 else 0
        except OSError:
            return len(data)


CATCH_UP_TICKS = 100  # beyond this a machine that stood still does not replay the past
TRAJECTORY_HZ = 25


def serve(
    board: VirtualBoard, cable: Pty, asked_to_stop: Callable[[], bool], seconds: float | None, pose: Callable[[], Float] | None = None,
    lockstep: bool = False, clock: Callable[[], int] = time.monotonic_ns, sleep: Callable[[float], None] = time.sleep,
) -> Served:  # fmt: skip
    """The board on a pty until it is asked to stop. `pose` is kept 25 times a second for a picture of the robot."""
    if lockstep and any(fault.kind == "disconnect" for fault in board.faults):
        raise FaultError("fault disconnect: not in lock-step, where no time passes while nobody can write; leave out --lockstep")
    served = Served()
    cable.plug()
    run = serve_lockstep if lockstep else serve_realtime
    try:
        run(board, cable, asked_to_stop, seconds, pose, served, clock, sleep)
    finally:
        cable.unplug()
    return served


def one_tick(board: VirtualBoard, cable: Pty, served: Served, pose: Callable[[], Float] | None) -> None:
    unplugged = board.unplugged()
    if unplugged and cable.master >= 0:
        cable.unplug()
    elif not unplugged and cable.master < 0:
        cable.plug()
        served.reconnects += 1
    sent = board.tick(cable.read())
    if sent:
        served.lost_bytes += cable.write(sent)
    served.ticks += 1
    if pose is not None and board.ticks % max(1, board.spec.rates.board_hz // TRAJECTORY_HZ) == 0:
        served.trajectory.append(pose())


def serve_realtime(
    board: VirtualBoard, cable: Pty, asked_to_stop: Callable[[], bool], seconds: float | None, pose: Callable[[], Float] | None,
    served: Served, clock: Callable[[], int], sleep: Callable[[float], None],
) -> None:  # fmt: skip
    period_ns = 1_000_000_000 // board.spec.rates.board_hz
    due_ns = clock()
    last_tick = int(seconds * board.spec.rates.board_hz) if seconds is not None else 1 << 62
    while not asked_to_stop() and board.ticks < last_tick:
        ahead_ns = due_ns - clock()
        if ahead_ns > 0:
            sleep(ahead_ns * 1e-9)
            continue
        behind = -ahead_ns // period_ns
        if behind > CATCH_UP_TICKS:
            served.skipped_ticks += behind
            due_ns += behind * period_ns
        served.late_ticks += behind > 0
        one_tick(board, cable, served, pose)
        due_ns += period_ns


def serve_lockstep(
    board: VirtualBoard, cable: Pty, asked_to_stop: Callable[[], bool], seconds: float | None, pose: Callable[[], Float] | None,
    served: Served, clock: Callable[[], int], sleep: Callable[[float], None],
) -> None:  # fmt: skip
    port = LockstepBoard(board)
    last_tick = int(seconds * board.spec.rates.board_hz) if seconds is not None else 1 << 62
    while not asked_to_stop() and board.ticks < last_tick:
        data = cable.read()
        if not data:
            sleep(0.0002)
            continue
        port.write(data)
        served.ticks = board.ticks
        if port.out:
            served.lost_bytes += cable.write(port.read())
        if pose is not None:
            served.trajectory.append(pose())
