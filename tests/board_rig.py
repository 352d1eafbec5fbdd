"""A board without a plant for tests: one call is one tick, sensors and commands are set by hand."""

import ctypes

import numpy as np

from edge_dsac.records import BoardMode, Fault, Readings
from firmware_bridge.framing import Deframer, Framer
from firmware_bridge.messages import MESSAGES, AckResult, MessageId, Role, make_dtype
from firmware_bridge.wire import Wire, make_hello, make_payload, parse

SESSION = 0xABCD


class BoardRig:
    """Healthy, upright, at rest, unless a test says otherwise."""

    def __init__(self, spec, library):
        self.spec, self.wire, self.framer, self.deframer = spec, Wire(spec), Framer(spec), Deframer(spec)
        self.core = ctypes.CDLL(str(library))
        self.core.host_pitch.restype = ctypes.c_float
        self.memory = ctypes.create_string_buffer(self.core.host_board_size())
        self.core.host_board_start(self.memory, SESSION, 0)
        self.tx, self.command, self.mode_byte = ctypes.create_string_buffer(4096), np.zeros(len(spec.joints), np.float32), ctypes.c_uint8()
        self.now_us, self.ticks, self.packets, self.pitch = 5_000_000, 0, [], 0.0
        self.readings = {"position_rad": np.zeros(len(spec.joints)), "gyro_rad_s": np.zeros(3), "battery_v": spec.battery.nominal_v}
        self.rattle = True
        self.telemetry_dtype = make_dtype(MESSAGES[MessageId.TELEMETRY], len(spec.joints), len(spec.extras))

    def sensors(self):
        accel = np.array([-9.81 * np.sin(self.pitch), 0.0, 9.81 * np.cos(self.pitch)])
        if self.rattle:
            accel = accel + 0.01 * (self.ticks % 3)
        values = {"accel_m_s2": accel, "extra": np.full(len(self.spec.extras), np.nan), **self.readings}
        return self.wire.raw_from_readings(Readings(**values))

    def tick(self, data=b"", count=1):
        for _ in range(count):
            raw = self.sensors()
            length = self.core.host_board_tick(
                self.memory, ctypes.c_uint32(self.now_us & 0xFFFFFFFF), data, len(data), ctypes.c_void_p(raw.ctypes.data), self.tx, 4096,
                ctypes.c_void_p(self.command.ctypes.data), ctypes.byref(self.mode_byte),
            )  # fmt: skip
            self.packets += self.deframer.feed(self.tx.raw[:length])
            self.now_us += 1_000_000 // self.spec.rates.board_hz
            self.ticks += 1
            data = b""
        return self

    def send(self, message, payload=b"", **values):
        self.tick(self.framer.frame(message, payload or (make_payload(message, **values) if values else b"")))
        return self

    def greet(self):
        self.send(MessageId.HELLO, make_hello(self.spec, Role.HOST, 1))
        return self

    def arm(self):
        self.packets.clear()
        self.send(MessageId.ARM, session=SESSION)
        acks = [parse(MessageId.ACK, p.payload) for p in self.packets if p.message == MessageId.ACK]
        return AckResult(int(acks[-1]["result"]))

    def ready(self):
        assert self.greet().tick(count=50).arm() == AckResult.OK
        return self

    def drive(self, *command, deadline_us=None, seq=None):
        """One COMMAND, in board sign."""
        deadline = self.now_us + 60_000 if deadline_us is None else deadline_us
        payload = self.wire.command.pack(0, deadline & 0xFFFFFFFF, *command)
        if seq is not None:
            self.framer.seq = seq
        self.send(MessageId.COMMAND, payload)
        return self

    @property
    def mode(self):
        return BoardMode(self.mode_byte.value)

    def telemetry(self):
        self.tick(count=self.spec.rates.board_hz // self.spec.rates.sensor_hz)
        return np.frombuffer([p for p in self.packets if p.message == MessageId.TELEMETRY][-1].payload, self.telemetry_dtype)[0]

    @property
    def faults(self):
        return Fault(int(self.telemetry()["faults"]))
