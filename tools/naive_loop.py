"""The loop one writes first: pyserial's read_until, a codec in pure Python, torch eager. What bench_loop.py compares with.

Both loops get the same telemetry frames through a pty, one per tick, on the same schedule, and answer with a command; only the work
of the tick is timed, not the wait (ours rehearses in it, as it does on a robot). Every step of the naive one is what tutorials
show; nothing is slowed down on purpose.
"""

from __future__ import annotations

import math
import os
import struct
import time
import tty
from typing import Any

import numpy as np

from edge_dsac.loop.pacer import Pacer
from edge_dsac.records import BoardMode
from edge_dsac.spec.robot import RobotSpec, load_robot
from firmware_bridge.framing import Framer
from firmware_bridge.messages import MESSAGES, MessageId, make_dtype

PERIOD_NS = 2_000_000


def cobs_decode(data: bytes) -> bytes:
    out, at = bytearray(), 0
    while at < len(data):
        code = data[at]
        out += data[at + 1 : at + code]
        at += code
        if code < 255 and at < len(data):
            out.append(0)
    return bytes(out)


def cobs_encode(data: bytes) -> bytes:
    out, block = bytearray(), bytearray()
    for byte in data:
        if byte:
            block.append(byte)
        else:
            out.append(len(block) + 1)
            out += block
            block = bytearray()
    out.append(len(block) + 1)
    return bytes(out + block)


def crc32(data: bytes, crc: int = 0) -> int:
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xEDB88320 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


class NaiveLoop:
    def __init__(self, spec: RobotSpec, path: str, hidden: int) -> None:
        import serial
        import torch

        torch.set_num_threads(1)
        self.torch, self.spec = torch, spec
        self.port = serial.Serial(path, spec.link.baud, timeout=1)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(11, hidden),
            torch.nn.GELU(),
            torch.nn.Linear(hidden, hidden),
            torch.nn.GELU(),
            torch.nn.Linear(hidden, 2),
            torch.nn.Tanh(),
        )
        self.pitch, self.integral, self.last = 0.0, 0.0, [0.0, 0.0]

    def tick(self) -> None:
        raw = cobs_decode(self.port.read_until(b"\0")[:-1])
        crc32(raw[:-4])
        values = struct.unpack("<BBHH4i2h6hH", raw[10:-4])
        counts_per_rad = self.spec.joints[0].counts_per_rad
        velocity = [values[6] / counts_per_rad, -values[7] / counts_per_rad]
        gyro = [v / 3754.94 for v in values[10:13]]
        accel = [v / 835.38 for v in values[13:16]]
        self.pitch = 0.98 * (self.pitch + gyro[1] * 0.01) + 0.02 * math.atan2(-accel[0], accel[2])
        speed = 0.04 * (sum(velocity) / 2 + gyro[1])
        self.integral += 0.01 * (0.0 - speed)
        obs = [self.pitch, gyro[1], speed, gyro[2], 0.0, 0.0, self.integral, *self.last, *self.last]
        with self.torch.no_grad():
            action = self.net(self.torch.tensor(obs, dtype=self.torch.float32)).numpy()
        command = np.clip([action[0] * 0.8 - action[1] * 0.2, action[0] * 0.8 + action[1] * 0.2], -1.0, 1.0)
        self.last = [float(action[0]), float(action[1])]
        body = struct.pack("<BBHHI", 1, 3, 0, 0, 0) + struct.pack("<HI2f", 0, 0, *command)
        self.port.write(cobs_encode(body + struct.pack("<I", crc32(body))) + b"\0")


def telemetry(spec: RobotSpec, framer: Framer, tick: int) -> bytes:
    record = np.zeros((), make_dtype(MESSAGES[MessageId.TELEMETRY], len(spec.joints), len(spec.extras)))
    record["board"], record["battery"], record["accel"] = BoardMode.ARMED, 11100, (0, 0, 8195)
    record["gyro"] = (tick % 7, tick % 5, tick % 3)
    return framer.frame(MessageId.TELEMETRY, record.tobytes(), tick * 2000 & 0xFFFFFFFF)


def timed(tick: Any, master: int, spec: RobotSpec, count: int, rehearse: Any = None) -> np.ndarray:
    framer, spent = Framer(spec), np.zeros(count)
    pacer = Pacer(PERIOD_NS, rehearse=rehearse)
    pacer.start()
    for i in range(count):
        os.write(master, telemetry(spec, framer, i))
        pacer.wait()
        begin = time.perf_counter_ns()
        tick()
        spent[i] = time.perf_counter_ns() - begin
        try:
            os.read(master, 4096)
        except BlockingIOError:
            pass
    return spent[count // 10 :] / 1000


def open_pair() -> tuple[int, str]:
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    return master, os.ttyname(slave)


def compare(engine: str, count: int = 3000, hidden: int = 64) -> dict[str, Any]:
    from bench_loop import make_policy, spread_us

    from edge_dsac.loop.control import Conduct, ControlLoop
    from edge_dsac.loop.limiter import Limiter
    from edge_dsac.loop.observer import Observer
    from edge_dsac.loop.rehearsal import Rehearsal
    from edge_dsac.loop.slot import Slot
    from edge_dsac.records import Mode
    from edge_dsac.steplog import Ring
    from firmware_bridge.link import SerialLink, open_port
    from firmware_bridge.messages import LinkState
    from firmware_bridge.rehearsal import make_rehearsal_link

    spec = load_robot("balance_bot")
    master, path = open_pair()
    naive = timed(NaiveLoop(spec, path, hidden).tick, master, spec, count)
    master, path = open_pair()
    link = SerialLink(spec, lambda: open_port(path, spec.link.baud))
    link.session.state = LinkState.UP  # the pty has no board behind it: the greeting is not what is timed
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        ring = Ring.create(Path(folder) / "ring", spec, 4096)
        loop = ControlLoop(spec, link, Observer(spec), Slot(make_policy(spec, engine)), Limiter(spec), ring, Conduct(overwrite_log=True))
        loop.modes.mode = Mode.RUNNING
        ours = timed(lambda: loop.tick(0), master, spec, count, Rehearsal(spec, loop, make_rehearsal_link(spec)))
        still_running = loop.modes.mode == Mode.RUNNING
        ring.path.unlink()
    naive_us, ours_us = spread_us(naive * 1000), spread_us(ours * 1000)
    return {
        "naive_us": naive_us,
        "ours_us": ours_us,
        "ratio": naive_us["p50"] / ours_us["p50"],
        "ours_was_running": still_running,
        "torch": True,
    }
