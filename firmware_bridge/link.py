"""SerialLink: port, framing, session and wire put together behind the few calls the control loop makes.

Nothing here blocks and nothing raises for bad bytes or a vanished port: the state shows it, the counters count it. Arming is
always the caller's explicit word.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol

from edge_dsac.records import CommandFrame, SensorFrame
from edge_dsac.spec.robot import RobotSpec
from firmware_bridge.errors import BridgeError, PortGone
from firmware_bridge.framing import Deframer
from firmware_bridge.messages import LinkState, Role
from firmware_bridge.port import open_port
from firmware_bridge.session import Event, Session

REOPEN_NS = 200_000_000
__all__ = ["BytePort", "SerialLink", "open_port"]


class BytePort(Protocol):
    """What carries the bytes: a serial port, or a board in this process."""

    def read(self) -> bytes: ...
    def write(self, data: bytes) -> None: ...
    def wait(self, timeout_s: float) -> bool: ...
    def close(self) -> None: ...


class SerialLink:
    def __init__(
        self, spec: RobotSpec, opener: Callable[[], BytePort], clock: Callable[[], int] = time.monotonic_ns, first: BytePort | None = None,
        session_id: int | None = None,
    ) -> None:  # fmt: skip
        """`first` is a port that is open already; without it the opener is called now, and its errors are the caller's."""
        self.opener, self.clock = opener, clock
        self.port: BytePort | None = first or opener()
        self.deframer = Deframer(spec)
        self.session = Session(spec, Role.HOST, session_id if session_id is not None else int.from_bytes(os.urandom(4), "little") or 1)
        self.reconnects = self.reopen_tries = 0
        self.tried_ns = 0
        self.last_error = ""

    def receive(self) -> SensorFrame | None:
        """The newest frame since the last call, or None. Answers what the session has to answer."""
        port = self.port
        if port is None:
            return None
        try:
            data = port.read()
            now_ns = self.clock()
            session = self.session
            if data:
                for packet in self.deframer.feed(data):
                    session.receive(packet, now_ns)
            for frame in session.poll(now_ns):
                port.write(frame)
        except PortGone as error:
            self.lose(error)
            return None
        return session.take_frame()

    def send(self, command: CommandFrame) -> None:
        """Answers the last frame of this boot; before there is one, nothing says how long a command would be good for."""
        frame = self.session.last_frame
        if frame is not None:
            self.session.sent_ns = self.clock()
            self.write(self.session.make_command(command, frame))

    def write(self, data: bytes) -> None:
        if self.port is None:
            return
        try:
            self.port.write(data)
        except PortGone as error:
            self.lose(error)

    def lose(self, error: BridgeError) -> None:
        self.last_error = str(error)
        if self.port is not None:
            self.port.close()
        self.port = None
        self.tried_ns = self.clock()
        self.session.port_gone()
        self.deframer.forget()

    def reopen_if_gone(self, now_ns: int) -> None:
        """At most every 200 ms; opening takes about a millisecond, so only while nothing moves."""
        if self.port is not None or now_ns - self.tried_ns < REOPEN_NS:
            return
        self.tried_ns = now_ns
        self.reopen_tries += 1
        try:
            self.port = self.opener()
        except BridgeError as error:
            self.last_error = str(error)
            return
        self.reconnects += 1

    def request_arm(self) -> None:
        self.write(self.session.make_arm())

    def request_disarm(self) -> None:
        self.write(self.session.make_disarm())

    def request_estop(self) -> None:
        self.write(self.session.make_estop())

    @property
    def state(self) -> LinkState:
        return self.session.state

    def is_up(self) -> bool:
        return self.session.state == LinkState.UP

    def is_refused(self) -> bool:
        return self.session.state == LinkState.REFUSED

    def events(self) -> list[Event]:
        return self.session.take_events()

    def frame_age_ns(self, now_ns: int) -> int:
        """From the instant the last frame was measured to now; -1 before the clocks were compared."""
        frame = self.session.last_frame
        if frame is None:
            return -1
        measured_ns = self.session.clock.host_ns_of(frame.t_mcu_us)
        return -1 if measured_ns is None else now_ns - measured_ns

    def wait(self, timeout_s: float) -> bool:
        return self.port.wait(timeout_s) if self.port is not None else False

    def counters(self) -> dict[str, Any]:
        clock = self.session.clock
        return {
            **asdict(self.session.counters), "frame_errors": asdict(self.deframer.errors), "reconnects": self.reconnects,
            "drift_ppm": round(clock.drift_ppm, 2), "clock_uncertainty_us": clock.uncertainty_ns // 1000, "clock_jumps": clock.jumps,
            "short_writes": getattr(self.port, "short_writes", 0), "last_error": self.last_error, "refusal": self.session.refusal,
        }  # fmt: skip

    def close(self) -> None:
        if self.port is not None:
            self.port.close()
            self.port = None
