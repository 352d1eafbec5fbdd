"""The firmware as a Cortex-M4 image in qemu: its UART on a pty for the host, a second one wired to a plant in this process.

The plant channel carries `0xA5, payload, CRC-32` both ways: raw_sensors in, {command[joints] f32, driving u8, now_us u32} out.
Same Protocol for the plant as virtual_mcu.py. Real time only: the emulated processor has a clock of its own, and it is the
plant's clock too: what the processor does not live through, the plant does not either.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import struct
import subprocess
import threading
import time
import tty
import zlib
from types import TracebackType

import numpy as np

from edge_dsac.spec.robot import RobotSpec
from firmware_bridge.build import build_qemu_image
from firmware_bridge.errors import BridgeError
from firmware_bridge.messages import CRC_BYTES, OPEN_SEED
from firmware_bridge.virtual_mcu import Plant
from firmware_bridge.wire import Wire

MARK = 0xA5
START_S = 10.0
BOOT_SEED_ADDRESS = 0x20000000  # section .kept of mps2.ld: the emulated processor has no source of randomness
QEMU = "qemu-system-arm"


def qemu_present() -> bool:
    return shutil.which(QEMU) is not None


class QemuBoard:
    """A context: `with QemuBoard(spec, plant) as board: ... board.path ...`; on leaving, qemu is ended."""

    def __init__(self, spec: RobotSpec, plant: Plant, boot_seed: int | None = None) -> None:
        if not qemu_present():
            raise BridgeError(f"{QEMU} is missing: apt-get install qemu-system-arm")
        self.plant, self.wire = plant, Wire(spec)
        self.ticks_per_answer = spec.rates.board_hz // spec.rates.sensor_hz  # qemu takes one byte at a time: a UART of some 10 kB/s
        self.motors = struct.Struct(f"<{len(spec.joints)}fBI")
        self.image = build_qemu_image(spec)
        self.boot_seed = boot_seed if boot_seed is not None else int.from_bytes(os.urandom(4), "little")
        self.ticks = self.skipped_bytes = 0
        self.failure: Exception | None = None
        self.leave = threading.Event()

    def __enter__(self) -> QemuBoard:
        serial = "-display none -monitor none -serial pty -serial pty"
        seed = f"loader,addr={BOOT_SEED_ADDRESS},data={self.boot_seed},data-len=4"
        command = [QEMU, "-M", "mps2-an386", "-kernel", str(self.image), *serial.split(), "-device", seed]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            self.path, plant_path = self.find_ptys()
            self.plant_fd = os.open(plant_path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except BaseException:
            self.end_process()
            raise
        tty.setraw(self.plant_fd)
        self.thread = threading.Thread(target=self.play_plant, name="plant", daemon=True)
        self.thread.start()
        return self

    def find_ptys(self) -> tuple[str, str]:
        """qemu says which ptys it made, in the order they were asked for."""
        assert self.process.stdout is not None
        said, give_up = b"", time.monotonic() + START_S
        while time.monotonic() < give_up:
            if not select.select([self.process.stdout], [], [], 0.2)[0]:
                continue
            more = os.read(self.process.stdout.fileno(), 4096)
            said += more
            found = re.findall(rb"redirected to (/dev/\S+)", said)
            if len(found) == 2:
                return found[0].decode(), found[1].decode()
            if not more:
                break
        text = said.decode(errors="replace").strip()
        raise BridgeError(f"{QEMU} did not offer two serial ports within {START_S:g} s; it said: {text or 'nothing'}")

    def play_plant(self) -> None:
        """One tick of the plant for each motor frame that comes, and the sensors back once a sensor period."""
        waiting = b""
        size = 1 + self.motors.size + CRC_BYTES
        try:
            while not self.leave.is_set():
                if not select.select([self.plant_fd], [], [], 0.1)[0]:
                    continue
                waiting += os.read(self.plant_fd, 4096)
                while len(waiting) >= size:
                    payload, crc = waiting[1 : size - CRC_BYTES], waiting[size - CRC_BYTES : size]
                    if waiting[0] == MARK and zlib.crc32(payload, OPEN_SEED) == int.from_bytes(crc, "little"):
                        waiting = waiting[size:]
                        self.one_tick(payload)
                    else:
                        self.skipped_bytes += 1
                        waiting = waiting[1:]
        except Exception as error:  # raised again where the context ends: a thread's own end is silent
            self.failure = error

    def one_tick(self, payload: bytes) -> None:
        *command, driving, _ = self.motors.unpack(payload)
        self.plant.drive(self.wire.command_from_board(np.array(command)) if driving else None, 1)
        self.ticks += 1
        if self.ticks % self.ticks_per_answer:
            return
        raw = self.wire.raw_from_readings(self.plant.sense()).tobytes()
        frame = bytes([MARK]) + raw + zlib.crc32(raw, OPEN_SEED).to_bytes(CRC_BYTES, "little")
        with contextlib.suppress(BlockingIOError):  # qemu stands still: it will find the readings that are there
            os.write(self.plant_fd, frame)

    def end_process(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.leave.set()
        self.thread.join(timeout=5)
        self.end_process()
        os.close(self.plant_fd)
        if self.failure is not None and error is None:
            raise BridgeError(f"the plant of the emulated board ended after {self.ticks} ticks: {self.failure}") from self.failure
