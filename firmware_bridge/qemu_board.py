"""The firmware as a Cortex-M4 image in qemu: its UART on a pty for the host, a second one wired to a plant in this process.

The plant channel carries `0xA5, payload, CRC-32` both ways: raw_sensors in, {command[joints] f32, mode u8, now_us u32} out.
Same Protocol for the plant as virtual_mcu.py. Real time only: the emulated processor has a clock of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import threading
import time
import tty
import zlib
from types import TracebackType

import numpy as np

from edge_dsac.records import BoardMode
from edge_dsac.spec.robot import RobotSpec
from firmware_bridge.build import build_qemu_image
from firmware_bridge.errors import BridgeError
from firmware_bridge.messages import OPEN_SEED
from firmware_bridge.virtual_mcu import Plant
from firmware_bridge.wire import Wire

MARK = 0xA5
START_S = 10.0
QEMU = "qemu-system-arm"


def qemu_present() -> bool:
    return shutil.which(QEMU) is not None


class QemuBoard:
    """A context: `with QemuBoard(spec, plant) as board: ... board.path ...`; on leaving, qemu is ended."""

    def __init__(self, spec: RobotSpec, plant: Plant) -> None:
        if not qemu_present():
            raise BridgeError(f"{QEMU} is missing: apt-get install qemu-system-arm")
        self.plant, self.wire = plant, Wire(spec)
        self.ticks_per_answer = spec.rates.board_hz // spec.rates.sensor_hz  # qemu takes one byte at a time: a UART of some 10 kB/s
        self.motors = struct.Struct(f"<{len(spec.joints)}fBI")
        self.image = build_qemu_image(spec)
        self.mode = BoardMode.DISARMED
        self.ticks = self.bad_frames = 0
        self.leave = threading.Event()

    def __enter__(self) -> QemuBoard:
        command = [QEMU, "-M", "mps2-an386", "-kernel", str(self.image), "-display", "none", "-monitor", "none", "-serial", "pty", "-serial", "pty"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.path, plant_path = self.find_ptys()
        self.plant_fd = os.open(plant_path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self.plant_fd)
        self.thread = threading.Thread(target=self.play_plant, name="plant", daemon=True)
        self.thread.start()
        return self

    def find_ptys(self) -> tuple[str, str]:
        """qemu says which ptys it made, in the order they were asked for."""
        found: list[str] = []
        give_up = time.monotonic() + START_S
        said = []
        assert self.process.stdout is not None
        while len(found) < 2 and time.monotonic() < give_up:
            line = self.process.stdout.readline()
            if not line:
                break
            said.append(line)
            found += re.findall(r"redirected to (/dev/\S+)", line)
        if len(found) < 2:
            self.process.kill()
            raise BridgeError(f"{QEMU} did not offer two serial ports; it said: {''.join(said).strip() or 'nothing'}")
        return found[0], found[1]

    def play_plant(self) -> None:
        """One tick of the plant for each motor frame that comes, and the sensors back."""
        waiting = b""
        size = 1 + self.motors.size + 4
        while not self.leave.is_set():
            try:
                waiting += os.read(self.plant_fd, 4096)
            except BlockingIOError:
                time.sleep(0.0002)
            except OSError:
                return
            while len(waiting) >= size:
                if waiting[0] != MARK:
                    waiting = waiting[1:]
                    continue
                payload, crc = waiting[1 : size - 4], waiting[size - 4 : size]
                if zlib.crc32(payload, OPEN_SEED) != int.from_bytes(crc, "little"):
                    self.bad_frames += 1
                    waiting = waiting[1:]
                    continue
                waiting = waiting[size:]
                self.one_tick(payload)

    def one_tick(self, payload: bytes) -> None:
        *command, mode, _ = self.motors.unpack(payload)
        self.mode = BoardMode(mode)
        driving = self.mode in (BoardMode.ARMED, BoardMode.FALLBACK)
        self.plant.drive(self.wire.command_from_board(np.array(command)) if driving else None, 1)
        self.ticks += 1
        if self.ticks % self.ticks_per_answer:
            return
        raw = self.wire.raw_from_readings(self.plant.sense()).tobytes()
        frame = bytes([MARK]) + raw + zlib.crc32(raw, OPEN_SEED).to_bytes(4, "little")
        try:
            os.write(self.plant_fd, frame)
        except OSError:
            self.bad_frames += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.leave.set()
        self.thread.join(timeout=2)
        self.process.kill()
        self.process.wait()
        os.close(self.plant_fd)
