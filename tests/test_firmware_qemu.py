"""The Cortex-M image in qemu, spoken to over a real pyserial port; and the board's fallback on the simulated robot.

qemu runs in real time on a machine that may be busy, so these tests wait for what must happen and give it time; how quickly a
rule acts is held by test_firmware_safety.py, on the same C.
"""

import time
from dataclasses import replace

import numpy as np
import pytest

from edge_dsac.records import BoardMode, CommandFrame, Fault, Readings
from edge_dsac.spec.robot import load_robot
from firmware_bridge.link import SerialLink, open_port
from firmware_bridge.messages import AckResult, MessageId
from firmware_bridge.qemu_board import QemuBoard, qemu_present
from firmware_bridge.session import Acked, LinkRefused, LinkUp

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not qemu_present(), reason="qemu-system-arm is not installed: apt-get install qemu-system-arm"),
]
SPEC = load_robot("balance_bot")
PATIENCE_S = 20.0


class Bench:
    """Level, with noise; the wheels turn by 0.01 rad per tick and unit of command."""

    def __init__(self):
        self.generator = np.random.default_rng(3)
        self.position_rad, self.driven, self.blind = np.zeros(2), None, False

    def reset(self):
        pass

    def drive(self, command, ticks):
        self.driven = command
        if command is not None:
            self.position_rad = self.position_rad + 0.01 * command * ticks

    def sense(self):
        noise = self.generator.normal(0.0, 0.02, 6)
        gyro = np.full(3, np.nan) if self.blind else noise[:3]
        return Readings(self.position_rad, gyro, noise[3:] + [0.0, 0.0, 9.81], 11.1, np.zeros(0))


class Host:
    def __init__(self, path, spec=SPEC):
        self.link = SerialLink(spec, lambda: open_port(path, spec.link.baud))
        self.frames, self.events = [], []

    def frames_until(self, enough, command=None):
        """Runs the host's end until `enough()`; answers each frame with the command, if there is one. Yields the fresh frames."""
        give_up = time.monotonic() + PATIENCE_S
        while not enough():
            if time.monotonic() > give_up:
                raise AssertionError(f"not within {PATIENCE_S:g} s; newest {self.frames[-1:]}, events {self.events}")
            self.link.wait(0.05)
            frame = self.link.receive()
            self.events += self.link.events()
            if frame is not None:
                self.frames.append(frame)
                if command is not None and frame.board == BoardMode.ARMED:
                    self.link.send(CommandFrame(frame.seq, np.array(command), np.array(command), 0))
                yield frame

    def until(self, happened, command=None):
        """The first fresh frame of which it is true."""
        return next(frame for frame in self.frames_until(lambda: False, command) if happened(frame))

    def event(self, kind, matches=lambda event: True):
        """The first such event, waited for if need be."""
        found = lambda: [event for event in self.events if isinstance(event, kind) and matches(event)]  # noqa: E731
        for _ in self.frames_until(found):
            pass
        return found()[0]

    def arm(self):
        self.events.clear()
        self.link.request_arm()
        return self.event(Acked, lambda event: event.message == MessageId.ARM).result

    def obeyed(self, *command):
        """Until the board drives this command. A stall of this machine may end in the fallback meanwhile: then it arms again."""
        for _ in range(5):
            assert self.arm() == AckResult.OK
            frame = self.until(lambda f: f.board == BoardMode.FALLBACK or np.allclose(f.applied, command, atol=1e-4), command)
            if frame.board == BoardMode.ARMED:
                return frame
        raise AssertionError("armed five times and never obeyed")


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def board(bench):
    with QemuBoard(SPEC, bench, boot_seed=41) as board:
        yield board


def test_the_image_greets_tells_obeys_and_balances_by_itself_in_silence(board, bench):
    host = Host(board.path)
    assert host.event(LinkUp).model == "balance_bot"
    assert host.link.session.peer_session == 42  # the seed and the number of the boot

    frame = host.until(lambda _: len(host.frames) > 30)
    assert frame.board == BoardMode.DISARMED
    assert frame.battery_v == pytest.approx(11.1, abs=1e-3)
    assert frame.accel_m_s2[2] == pytest.approx(9.81, abs=0.3)
    assert bench.driven is None
    # 200 frames a second by the board's own clock, which goes on while a busy machine runs something else: until it is left alone.
    host.until(lambda _: np.all(np.abs(np.diff([frame.t_mcu_us for frame in host.frames[-4:]]) - 5000) < 250))

    frame = host.obeyed(0.2, -0.1)
    frame = host.until(lambda f: f.board != BoardMode.ARMED or f.velocity_rad_s[0] > 1.0, (0.2, -0.1))
    np.testing.assert_allclose(bench.driven, [0.2, -0.1], atol=1e-6)  # joint signs, over both conversions
    assert frame.velocity_rad_s[0] > 0 > frame.velocity_rad_s[1]

    frame = host.until(lambda f: f.board != BoardMode.ARMED)  # nothing more is sent
    assert frame.board == BoardMode.FALLBACK
    assert frame.faults & Fault.TIMEOUT
    host.until(lambda f: bench.driven is not None and np.abs(bench.driven).max() > 1e-3)

    host.obeyed(0.1, 0.1)
    host.link.request_disarm()
    host.until(lambda f: f.board == BoardMode.DISARMED)
    host.until(lambda f: bench.driven is None)
    assert host.link.counters()["frame_errors"] == dict.fromkeys(("length", "cobs", "crc", "protocol", "flags", "message", "payload"), 0)
    host.link.close()


def test_a_dead_imu_cuts_the_emulated_motors(board, bench):
    host = Host(board.path)
    host.until(lambda _: len(host.frames) > 10)
    host.obeyed(0.1, 0.1)
    bench.blind = True
    frame = host.until(lambda f: f.board == BoardMode.FAULT, (0.1, 0.1))
    assert frame.faults & Fault.BAD_SENSOR
    assert np.isnan(frame.gyro_rad_s).all()
    host.until(lambda f: bench.driven is None)
    assert host.arm() == AckResult.FAULT_LATCHED
    host.link.close()


def test_a_host_of_another_robot_reads_from_the_image_what_differs(board):
    other = replace(SPEC, battery=replace(SPEC.battery, cutoff_v=8.0))
    host = Host(board.path, other)
    refusal = host.event(LinkRefused, lambda event: "cutoff_v" in event.why)
    assert "battery.cutoff_v: board 9.0, host 8.0" in refusal.why
    assert host.frames == []
    host.link.close()


def test_a_plant_that_fails_is_an_error_where_the_board_is_used():
    class Broken(Bench):
        def sense(self):
            raise ValueError("the model has no such body")

    def use_board():
        with QemuBoard(SPEC, Broken()) as board:
            give_up = time.monotonic() + PATIENCE_S
            while board.failure is None and time.monotonic() < give_up:
                time.sleep(0.01)

    with pytest.raises(OSError, match="the plant of the emulated board ended after .* no such body"):
        use_board()
