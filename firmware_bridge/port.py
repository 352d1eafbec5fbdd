"""A serial port: pyserial opens and configures it, then the hot path reads and writes its descriptor without ever blocking.

Says what it got (`PortReport`): a port that could not be made quick is slow silently otherwise. Knows bytes only.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import select
import termios
import time
from dataclasses import dataclass
from pathlib import Path

import serial

from firmware_bridge.errors import BridgeError, PortBusy, PortGone, PortMissing

READ_BYTES = 4096
MOMENT_S = 50e-6
EMPTIES = 2  # so often in a row nothing is believed; then the kernel's worker is waited for, and a port that has gone is noticed
VMIN = 6  # index in termios' control characters


@dataclass(frozen=True, slots=True)
class PortReport:
    """What was got, for people."""

    path: str
    baud: int
    exclusive: bool
    low_latency: str  # "set", "not a UART", or why not
    latency_timer_ms: int | None  # FTDI adapters only; None elsewhere


class Port:
    def __init__(self, path: str, device: serial.Serial, report: PortReport) -> None:
        self.path, self.device, self.report = path, device, report
        self.fd: int = device.fileno()
        self.waiting = bytearray(4)
        self.empties = self.short_writes = 0
        self.torn = False  # the last frame was cut: without a delimiter before it the next one would be lost too
        self.poller = select.poll()
        self.poller.register(self.fd, select.POLLIN)

    def read(self) -> bytes:
        """All that waits, at most 4 KiB; nothing is b''. A port that vanished raises PortGone, after some reads of nothing.

        A real read of nothing is no quick one: Linux lets it wait for the kernel's worker, who may bring something, and who on a busy
        board stands in a queue for milliseconds. So how much waits is asked first.
        """
        try:
            if not self.holds_something() and self.empties < EMPTIES:
                self.empties += 1
                return b""
            self.empties = 0
            data = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return b""
        except (OSError, ValueError) as error:
            raise PortGone(f"{self.path}: vanished while reading: {error}; check cable and power") from None
        if not data:
            raise PortGone(f"{self.path}: hung up; check cable and power")
        return data

    def holds_something(self) -> bool:
        """Where it does not, for the first time, the worker gets a moment of this core: a frame that is not there is mostly due."""
        fcntl.ioctl(self.fd, termios.FIONREAD, self.waiting)
        if not any(self.waiting) and not self.empties:
            time.sleep(MOMENT_S)
            fcntl.ioctl(self.fd, termios.FIONREAD, self.waiting)
        return any(self.waiting)

    def write(self, data: bytes) -> None:
        """What does not fit is dropped and counted: a frame that is late is worth less than the tick that waits for it."""
        if self.torn:
            data = b"\0" + data
        try:
            self.torn = os.write(self.fd, data) != len(data)
            self.short_writes += self.torn
        except BlockingIOError:
            self.short_writes += 1
        except (OSError, ValueError) as error:
            raise PortGone(f"{self.path}: vanished while writing: {error}; check cable and power") from None

    def wait(self, timeout_s: float) -> bool:
        """True once there is something to read."""
        return bool(self.poller.poll(timeout_s * 1000))

    def close(self) -> None:
        try:
            self.device.close()
        except (OSError, termios.error):
            pass  # it is gone already, which is what was wanted


def open_port(path: str, baud: int) -> Port:
    """Exclusive, raw, non-blocking, as quick as the driver allows. Every failure is a named error."""
    if not os.path.exists(path):
        raise PortMissing(f"{path}: no such device; present: {', '.join(list_ports()) or 'none'}")
    try:
        device = serial.Serial(os.path.realpath(path), baud, timeout=0, write_timeout=0, exclusive=True)
    except (serial.SerialException, OSError, ValueError, termios.error) as error:
        raise named(path, baud, error) from None
    make_hangup_visible(device.fileno())
    low_latency = ask_low_latency(device)
    timer_ms = set_latency_timer(path)
    return Port(path, device, PortReport(path, baud, True, low_latency, timer_ms))


def named(path: str, baud: int, error: Exception) -> BridgeError:
    number = getattr(error, "errno", None)
    text = str(error)
    if number in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK) or "exclusively lock" in text:
        return PortBusy(f"{path}: another process holds it; stop that one first (fuser {path} names it)")
    if number == errno.EACCES:
        return BridgeError(f"{path}: permission denied; add the user to the group dialout, or run as root")
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EIO):
        return PortMissing(f"{path}: no such device; present: {', '.join(list_ports()) or 'none'}")
    return BridgeError(f"{path}: cannot be opened at {baud} baud: {text}")


def list_ports() -> list[str]:
    return sorted(path for pattern in ("/dev/ttyUSB*", "/dev/ttyACM*", "/dev/ttyTHS*", "/dev/ttyAMA*") for path in glob.glob(pattern))


def make_hangup_visible(fd: int) -> None:
    """With VMIN = 1 nothing-to-read is EAGAIN and only a hang-up reads as empty; pyserial's VMIN = 0 cannot tell them apart."""
    attributes = termios.tcgetattr(fd)
    attributes[6][VMIN] = 1
    termios.tcsetattr(fd, termios.TCSANOW, attributes)


def ask_low_latency(device: serial.Serial) -> str:
    try:
        device.set_low_latency_mode(True)
    except (OSError, ValueError, NotImplementedError, AttributeError) as error:
        no_uart = isinstance(error, ValueError) or getattr(error, "errno", None) in (errno.ENOTTY, errno.EINVAL)
        return "not a UART" if no_uart else str(error)
    return "set"


def set_latency_timer(path: str) -> int | None:
    """FTDI adapters hold received bytes for 16 ms by default; 1 ms is their least. Set, then read back."""
    timer = Path("/sys/class/tty") / os.path.basename(os.path.realpath(path)) / "device" / "latency_timer"
    if not timer.exists():
        return None
    try:
        timer.write_text("1")
    except OSError:
        pass  # not root: what is read back is reported
    try:
        return int(timer.read_text())
    except (OSError, ValueError):
        return None
