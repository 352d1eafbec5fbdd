"""A port with an obedient board's telemetry in it and nobody at its end: what the control loop rehearses on.

Made from a robot file; moves nothing and reaches nobody. Knows what a healthy frame looks like, not what is done with it.
"""

from __future__ import annotations

import numpy as np

from edge_dsac.records import BoardMode, Readings
from edge_dsac.spec.robot import RobotSpec
from firmware_bridge.framing import Framer
from firmware_bridge.link import SerialLink
from firmware_bridge.messages import MESSAGES, MessageId, Role, make_dtype
from firmware_bridge.wire import Wire, make_hello

MESSAGE_AT = 2  # in a frame on the wire: behind COBS's first code and the protocol number, neither of which is zero
GRAVITY_M_S2 = 9.81


class RehearsalPort:
    """Greets when it is greeted; otherwise every read gives one new frame of a robot at rest that is armed."""

    def __init__(self, spec: RobotSpec) -> None:
        self.framer = Framer(spec)
        self.hello = make_hello(spec, Role.BOARD, 1)
        self.payload = make_frame_at_rest(spec)
        self.period_us = 1_000_000 // spec.rates.sensor_hz
        self.greeted, self.t_mcu_us = False, 0

    def read(self) -> bytes:
        if not self.greeted:
            self.greeted = True
            return self.framer.frame(MessageId.HELLO, self.hello)
        self.t_mcu_us = (self.t_mcu_us + self.period_us) & 0xFFFFFFFF
        return self.framer.frame(MessageId.TELEMETRY, self.payload, self.t_mcu_us)

    def write(self, data: bytes) -> None:
        if data[MESSAGE_AT] == MessageId.HELLO:
            self.greeted = False

    def wait(self, timeout_s: float) -> bool:
        return True

    def close(self) -> None:
        pass


def make_frame_at_rest(spec: RobotSpec) -> bytes:
    joints, extras = len(spec.joints), len(spec.extras)
    level = np.array([0.0, 0.0, GRAVITY_M_S2])
    raw = Wire(spec).raw_from_readings(Readings(np.zeros(joints), np.zeros(3), level, spec.battery.nominal_v, np.full(extras, np.nan)))
    record = np.zeros((), make_dtype(MESSAGES[MessageId.TELEMETRY], joints, extras))
    record["board"] = BoardMode.ARMED
    for name in raw.dtype.names or ():
        record[name] = raw[name]
    return record.tobytes()


def make_rehearsal_link(spec: RobotSpec) -> SerialLink:
    return SerialLink(spec, lambda: RehearsalPort(spec), session_id=1)
