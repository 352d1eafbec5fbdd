"""The virtual board: the same bytes under the same seed, and each of its twelve faults does what its name says."""

import os

import numpy as np
import pytest
from firmware.board_in_c import bench_bot

from edge_dsac.cli.main import EXIT_FAILED, main
from edge_dsac.cli.mcu import come_before_others
from edge_dsac.loop.limiter import Limiter
from edge_dsac.loop.realtime import HELPER_PRIORITY
from edge_dsac.records import BoardMode, Fault, Readings
from firmware_bridge.build import build_host_library
from firmware_bridge.faults import FOREVER_S, KINDS, FaultError, LossyWay, describe_faults, parse_fault
from firmware_bridge.framing import Deframer, Framer
from firmware_bridge.link import SerialLink
from firmware_bridge.messages import LinkEvent, MessageId
from firmware_bridge.port import open_port
from firmware_bridge.session import Acked, FaultRaised, LinkDown, LinkUp, NewBoot
from firmware_bridge.virtual_mcu import LockstepBoard, Pty, Served, VirtualBoard, one_tick, serve

SPEC = bench_bot()
MS = 1_000_000


@pytest.fixture(scope="module")
def library():
    return build_host_library(SPEC)


class Bench:
    """Upright on a stand. The wheels turn at a speed the test sets, or by what the board drives; the sensors rattle."""

    def __init__(self, speed_rad_s=0.0):
        self.speed_rad_s, self.ticks, self.position_rad, self.driven = speed_rad_s, 0, np.zeros(2), None

    def reset(self):
        self.ticks, self.position_rad = 0, np.zeros(2)

    def drive(self, command, ticks):
        self.driven = None if command is None else np.array(command)
        self.position_rad = self.position_rad + self.speed_rad_s * ticks / SPEC.rates.board_hz
        self.ticks += ticks

    def sense(self):
        rattle = self.ticks % 7 / 100
        return Readings(self.position_rad, np.full(3, rattle), np.array([rattle, 0.0, 9.81]), 12.0, np.array([1.5]))


class Flight:
    """A host's link on a board in lock-step: the board's time is the only time."""

    def __init__(self, library, *faults, seed=1, speed_rad_s=0.0):
        self.plant = Bench(speed_rad_s)
        self.board = VirtualBoard(SPEC, self.plant, seed, tuple(parse_fault(text) for text in faults), library)
        self.port = LockstepBoard(self.board)
        self.link = SerialLink(SPEC, lambda: self.port, clock=lambda: self.board.ticks * MS, session_id=9)
        self.limiter, self.frames, self.at_tick = Limiter(SPEC), [], []

    def run(self, seconds):
        end = self.board.ticks + round(seconds * SPEC.rates.board_hz)
        while self.board.ticks < end:
            frame = self.link.receive()
            if frame is not None:
                self.frames.append(frame)
                self.at_tick.append(self.board.ticks)
        return self

    def drive(self, seconds, command):
        """Armed and obeyed, 100 times a second."""
        self.link.request_arm()
        end = self.board.ticks + round(seconds * SPEC.rates.board_hz)
        while self.board.ticks < end:
            frame = self.link.receive()
            if frame is not None:
                self.frames.append(frame)
                self.at_tick.append(self.board.ticks)
            if self.link.session.last_frame is not None:
                self.link.send(self.limiter.limit(np.array([command]), self.link.session.last_frame))
        return self

    @property
    def counters(self):
        return self.link.session.counters

    @property
    def errors(self):
        return self.link.deframer.errors

    def column(self, name):
        return np.array([np.asarray(getattr(frame, name)) for frame in self.frames])


@pytest.fixture
def fly(library):
    return lambda *faults, **options: Flight(library, *faults, **options)


# The board without faults.


def test_a_healthy_board_tells_its_sensors_200_times_a_second(fly):
    flight = fly(speed_rad_s=2.0).run(0.5)
    assert flight.link.is_up()
    assert len(flight.frames) == pytest.approx(100, abs=2)
    assert np.unique(np.diff(flight.column("t_mcu_us"))).tolist() == [5000]
    assert np.diff(flight.column("position_rad"), axis=0) == pytest.approx(0.01, abs=0.0011)  # 2 rad/s for 5 ms, in whole counts
    assert (flight.counters.lost, flight.counters.stale, flight.errors.total, flight.board.boots) == (0, 0, 0, 1)
    assert flight.frames[-1].extra[0] == 1.5


def test_what_is_commanded_is_what_drives_the_plant_in_joint_sign(fly):
    flight = fly().run(0.1).drive(0.3, 0.5)
    assert Acked(MessageId.ARM, 0, Fault.NONE) in flight.link.events()
    assert flight.board.board_mode == BoardMode.ARMED
    assert flight.plant.driven == pytest.approx([0.45, 0.45], abs=1e-6)  # half of the limit 0.9; the right one is mounted mirrored
    assert np.asarray(flight.frames[-1].applied) == pytest.approx([0.45, 0.45], abs=1e-4)


def test_a_motor_that_is_off_is_told_so(fly):
    flight = fly().run(0.1)
    assert flight.plant.driven is None


def test_waiting_lets_one_tick_pass_and_a_command_one_control_period(fly):
    flight = fly()
    assert flight.board.ticks == 0
    flight.port.wait(0.0)
    assert flight.board.ticks == 1
    flight.port.write(Framer(SPEC).frame(MessageId.COMMAND, bytes(14)))
    assert flight.board.ticks == 11
    flight.port.write(Framer(SPEC).frame(MessageId.HEARTBEAT))
    flight.port.write(b"garbage\0")
    assert flight.board.ticks == 13


# Determinism.

ROUGH = ("drop=0.05", "delay:board=3", "duplicate=0.05", "reorder=0.05", "bitflip=0.05", "byteloss=0.05", "stall=20@0.5", "brownout@0.8")


class Recorded:
    """A port that keeps what passes."""

    def __init__(self, port):
        self.port, self.heard, self.said = port, b"", b""
        self.wait, self.close = port.wait, port.close

    def read(self):
        data = self.port.read()
        self.heard += data
        return data

    def write(self, data):
        self.said += data
        self.port.write(data)


def bytes_of(library, seed):
    flight = Flight(library, *ROUGH, seed=seed, speed_rad_s=1.0)
    flight.link.port = Recorded(flight.port)
    flight.run(0.3).drive(0.9, 0.3)
    assert flight.board.boots == 2
    return flight.link.port.heard, flight.link.port.said


@pytest.mark.slow
def test_one_seed_gives_the_same_bytes_twice_and_another_seed_others(library):
    first, again, other = bytes_of(library, 5), bytes_of(library, 5), bytes_of(library, 6)
    assert len(first[0]) > 5000
    assert first == again
    assert first[0] != other[0]


# Each fault. Frames from the board: about 200 a second, and what the greeting and the clock need.


def test_drop_loses_that_share_of_the_frames(fly):
    flight = fly("drop:board=0.4@0.1").run(0.6)
    lost = flight.counters.lost
    assert 0.25 < lost / (lost + len(flight.frames)) < 0.55
    assert flight.errors.total == 0
    assert lost <= flight.board.from_board.touched <= lost + 5  # the last ones are not missed yet


@pytest.mark.slow
def test_drop_of_all_is_silence_until_it_ends(fly):
    flight = fly("drop:board=1@0.1+0.6").run(0.9)
    assert [type(event) for event in flight.link.events()] == [LinkUp, LinkDown, LinkUp]
    gap = np.diff(flight.column("t_mcu_us")).max() / 1e6
    assert 0.6 <= gap < 0.75


def test_drop_of_what_the_host_says_leaves_what_the_board_says(fly):
    flight = fly("drop:host=1").run(0.5)
    assert flight.link.is_up()  # the board's greeting arrives; ours does not
    assert flight.frames == []


def test_delay_makes_every_frame_that_much_later_and_loses_none(fly):
    flights = [fly(*faults).run(0.3) for faults in ((), ("delay:board=20",))]
    ages = [np.median(np.array(one.at_tick) - one.column("t_mcu_us") / 1000) for one in flights]
    assert ages[1] - ages[0] == pytest.approx(20.0, abs=1.01)
    assert (flights[1].counters.lost, flights[1].counters.stale) == (0, 0)


def test_duplicate_brings_every_frame_twice_and_one_is_used(fly):
    flight = fly("duplicate:board=1").run(0.5)
    assert flight.counters.stale == flight.counters.telemetry == len(flight.frames)
    assert np.unique(np.diff(flight.column("t_mcu_us"))).tolist() == [5000]


def test_reorder_brings_a_frame_after_its_successor(fly):
    flight = fly("reorder:board=0.3@0.1").run(0.7)
    assert flight.counters.stale > 10
    assert (np.diff(flight.column("t_mcu_us")) > 0).all()
    assert (np.diff(flight.column("t_mcu_us")) == 10_000).sum() >= 10  # where the late one was passed over


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bitflip", "byteloss"])
def test_damaged_frames_are_counted_and_never_used(fly, kind):
    flight = fly(f"{kind}:board=0.3@0.1", speed_rad_s=1.0).run(0.7)
    hurt = flight.board.from_board.touched
    assert 0.2 < hurt / 120 < 0.45
    assert 0.8 * hurt < flight.errors.total < 1.2 * hurt  # a lost delimiter makes one of two, a new zero two of one
    assert hurt - 1 <= flight.counters.lost < 1.1 * hurt  # no hurt frame was used, hardly a whole one was lost with it
    ticks = flight.column("t_mcu_us") / 1e6
    assert np.abs(flight.column("position_rad") - ticks[:, None]).max() < 0.01  # 1 rad/s from tick 0: nothing wrong got through
    assert np.unique(flight.column("battery_v")).tolist() == [12.0]


def test_damage_on_the_way_to_the_board_is_counted_there_and_costs_those_commands_only(fly):
    flight = fly("bitflip:host=0.2@0.1").run(0.1)
    flight.link.port = Recorded(flight.port)
    flight.drive(0.6, 0.2)
    hurt = flight.board.from_host.touched
    assert hurt >= 8
    told = [packet.payload[1] for packet in Deframer(SPEC).feed(flight.link.port.heard) if packet.message == MessageId.TELEMETRY]
    assert hurt - 2 <= told[-1] <= hurt + 2
    assert told == sorted(told)
    assert flight.errors.total == 0
    assert flight.board.board_mode == BoardMode.ARMED


def test_stall_is_a_board_that_stands_still_and_goes_on(fly):
    flight = fly("stall=50@0.2").run(0.5)
    gaps = np.diff(flight.column("t_mcu_us"))
    assert sorted(np.unique(gaps).tolist())[0] == 5000
    assert 50_000 <= gaps.max() <= 55_000
    assert (gaps > 5000).sum() == 1
    assert (flight.counters.lost, flight.board.boots) == (0, 1)


@pytest.mark.slow
def test_disconnect_takes_the_port_away_for_its_duration_and_brings_another(library, tmp_path):
    cable = Pty(tmp_path / "board")
    cable.plug()
    board, served = VirtualBoard(SPEC, Bench(), 1, (parse_fault("disconnect@0.1+0.3"),), library), Served()
    link = SerialLink(SPEC, lambda: open_port(str(cable.link), SPEC.link.baud), clock=lambda: board.ticks * MS, session_id=9)
    absent = 0
    while board.ticks < 600:
        one_tick(board, cable, served, None)
        link.receive()
        link.reopen_if_gone(board.ticks * MS)
        absent += not cable.link.exists()
    assert absent == 300
    assert (served.reconnects, link.reconnects) == (1, 1)
    assert link.is_up()
    assert link.events() == [LinkUp("bench_bot"), LinkDown(LinkEvent.PORT_GONE), LinkUp("bench_bot")]
    assert board.boots == 1
    link.close()
    cable.unplug()


def test_disconnect_is_refused_where_time_would_never_bring_the_port_back(library, tmp_path):
    cable, board = Pty(tmp_path / "board"), VirtualBoard(SPEC, Bench(), 1, (parse_fault("disconnect@0.2+0.3"),), library)
    with pytest.raises(FaultError, match="disconnect: not in lock-step"):
        serve(board, cable, lambda: True, None, lockstep=True)
    assert not cable.link.is_symlink()


def test_a_served_board_leaves_no_link_behind_and_says_what_it_came_to(library, tmp_path):
    """Real time, made of a clock that only sleeping moves: 50 ms are 50 ticks, none of them late."""
    cable, board, now = Pty(tmp_path / "board"), VirtualBoard(SPEC, Bench(), 1, (), library), {"ns": 5}
    seen = []

    def sleep(seconds):
        now["ns"] += round(seconds * 1e9)
        seen.append(cable.link.exists())

    served = serve(board, cable, lambda: False, 0.05, clock=lambda: now["ns"], sleep=sleep)
    assert (served.ticks, served.late_ticks, served.skipped_ticks) == (50, 0, 0)
    assert now["ns"] == pytest.approx(49 * MS, abs=100)
    assert all(seen)
    assert not cable.link.is_symlink()


def test_a_machine_that_stood_still_does_not_replay_the_past(library, tmp_path):
    cable, board, now = Pty(tmp_path / "board"), VirtualBoard(SPEC, Bench(), 1, (), library), {"ns": 0}

    def sleep(seconds):
        stood_still_ns = 3_000 * MS if board.ticks == 10 else 0
        now["ns"] += round(seconds * 1e9) + stood_still_ns

    served = serve(board, cable, lambda: False, 0.05, clock=lambda: now["ns"], sleep=sleep)
    assert (served.ticks, served.late_ticks) == (50, 1)
    assert served.skipped_ticks == pytest.approx(3000, abs=1)


@pytest.mark.slow
def test_brownout_is_a_new_boot_with_its_counters_at_zero(fly):
    flight = fly("brownout@0.4", speed_rad_s=5.0).run(0.8)
    assert flight.board.boots == 2
    assert [type(event) for event in flight.link.events()] == [LinkUp, NewBoot]
    stamps, positions = flight.column("t_mcu_us"), flight.column("position_rad")
    (boot,) = np.flatnonzero(np.diff(stamps) < 0) + 1
    assert positions[boot - 1] == pytest.approx(2.0, abs=0.03)
    assert positions[boot] == pytest.approx(5.0 * stamps[boot] / 1e6, abs=0.02)  # it counts from where it woke up
    assert stamps[boot] < 200_000


def test_brownout_disarms(fly):
    flight = fly("brownout@0.5").run(0.1).drive(0.3, 0.2)
    assert flight.board.board_mode == BoardMode.ARMED
    flight.run(0.3)
    assert flight.board.board_mode == BoardMode.DISARMED
    assert flight.plant.driven is None


def test_freeze_repeats_the_last_reading_for_its_duration(fly):
    flight = fly("freeze@0.2+0.3", speed_rad_s=1.0).run(0.7)
    seconds, positions = flight.column("t_mcu_us") / 1e6, flight.column("position_rad")
    frozen = (seconds > 0.21) & (seconds < 0.49)
    assert frozen.sum() > 50
    for name in ("position_rad", "gyro_rad_s", "accel_m_s2"):
        assert len(np.unique(flight.column(name)[frozen], axis=0)) == 1
    assert positions[-1] == pytest.approx(0.7, abs=0.02)  # the wheels went on


def test_freeze_of_a_driving_robot_is_noticed_by_the_board(fly):
    flight = fly("freeze@0.3").run(0.1).drive(0.4, 0.2)
    assert flight.board.board_mode == BoardMode.FAULT
    assert [event.faults for event in flight.link.events() if isinstance(event, FaultRaised)] == [Fault.BAD_SENSOR]


def test_blind_is_an_imu_without_readings_and_wheels_that_still_count(fly):
    flight = fly("blind@0.2+0.3", speed_rad_s=1.0).run(0.7)
    seconds = flight.column("t_mcu_us") / 1e6
    dark = (seconds > 0.21) & (seconds < 0.49)
    bright = (seconds < 0.19) | (seconds > 0.51)
    for name in ("gyro_rad_s", "accel_m_s2"):
        assert np.isnan(flight.column(name)[dark]).all()
        assert np.isfinite(flight.column(name)[bright]).all()
    assert flight.column("position_rad")[dark] == pytest.approx(np.repeat(seconds[dark][:, None], 2, 1), abs=0.01)


def test_wrap_puts_the_counters_before_their_overflow_and_nobody_notices_it(fly):
    """2000 counts are 2 rad of this wheel: at 4 rad/s the left one overflows after half a second."""
    flight = fly("wrap@0", speed_rad_s=4.0)
    raw = []
    for _ in range(700):
        flight.run(0.001)
        raw.append(int(flight.board.raw["counts"][0]))
    assert max(raw) > (1 << 31) - 20
    assert min(raw) < -(1 << 31) + 20_000
    assert np.diff(flight.column("position_rad"), axis=0) == pytest.approx(0.02, abs=0.0011)
    assert flight.column("velocity_rad_s")[3:] == pytest.approx(4.0, abs=0.21)


def test_every_fault_there_is_was_tried():
    tried = {"drop", "delay", "duplicate", "reorder", "bitflip", "byteloss", "stall", "disconnect", "brownout", "freeze", "blind", "wrap"}
    assert tried == set(KINDS)


# One way of the link, by hand.


def test_a_way_without_faults_for_its_side_is_the_identity(generator):
    way = LossyWay((parse_fault("drop:board=1"), parse_fault("stall@1")), "host", generator)
    assert way.carry(b"half a fra", 0.0) == b"half a fra"


def test_a_frame_arrives_whole_once_its_delay_has_passed(generator):
    way = LossyWay((parse_fault("delay=5"),), "host", generator)
    assert way.carry(b"ab", 0.000) == b""
    assert way.carry(b"c\0de\0", 0.001) == b""
    assert way.carry(b"", 0.0059) == b""
    assert way.carry(b"", 0.0061) == b"abc\0de\0"
    assert way.touched == 2


def test_frames_in_a_row_that_are_all_reordered_change_places_by_pairs(generator):
    way = LossyWay((parse_fault("reorder=1"),), "host", generator)
    assert way.carry(b"1\0", 0.0) + way.carry(b"2\0", 0.0) + way.carry(b"3\0", 0.0) + way.carry(b"4\0", 0.0) == b"2\x001\x004\x003\0"


def test_damage_is_one_bit_or_one_byte(generator):
    frame = b"abcdefgh\0"
    for _ in range(200):
        flipped = LossyWay((parse_fault("bitflip=1"),), "host", generator).damage(frame, "bitflip")
        assert sum(bin(a ^ b).count("1") for a, b in zip(frame, flipped, strict=True)) == 1
        shorter = LossyWay((), "host", generator).damage(frame, "byteloss")
        assert any(frame[:at] + frame[at + 1 :] == shorter for at in range(len(frame)))


# What is written on the command line.


@pytest.mark.parametrize(("text", "kind", "value", "side", "start_s", "duration_s"), [
    ("drop", "drop", 0.01, "both", 0.0, FOREVER_S),
    ("drop=0.02", "drop", 0.02, "both", 0.0, FOREVER_S),
    ("bitflip:board=0.001@5+10", "bitflip", 0.001, "board", 5.0, 10.0),
    ("disconnect@10+1.5", "disconnect", 0.0, "both", 10.0, 1.5),
    ("brownout@8", "brownout", 0.0, "both", 8.0, FOREVER_S),
    ("delay:host=2e1", "delay", 20.0, "host", 0.0, FOREVER_S),
    ("delay=2e+1@3", "delay", 20.0, "both", 3.0, FOREVER_S),
    (" stall=80@0.5 ", "stall", 80.0, "both", 0.5, FOREVER_S),
    ("wrap@0", "wrap", 0.0, "both", 0.0, FOREVER_S),
])  # fmt: skip
def test_a_fault_is_read(text, kind, value, side, start_s, duration_s):
    fault = parse_fault(text)
    assert (fault.kind, fault.value, fault.side, fault.start_s, fault.duration_s) == (kind, value, side, start_s, duration_s)


@pytest.mark.parametrize(("text", "says"), [
    ("dorp=0.1", "'dorp' is not known; did you mean 'drop'?"),
    ("earthquake", "'earthquake' is not known; known: drop, delay"),
    ("drop:hots=0.1", "side 'hots' is not known; did you mean 'host'?"),
    ("drop=1.5", "expected a share from 0 to 1, got 1.5"),
    ("drop=-0.1", "expected a share from 0 to 1, got -0.1"),
    ("drop=1e", "'1e' is not a number"),
    ("brownout", "it happens once; say when, as in brownout@5"),
    ("drop=", "expected KIND"),
    ("", "expected KIND"),
    ("drop@", "expected KIND"),
    ("drop 0.1", "expected KIND"),
    ("delay=-5", "expected 0 ms or more, got -5"),
    ("stall=-5@1", "expected 0 ms or more, got -5"),
    ("drop@1.2.3", "'1.2.3' is not a time in seconds"),
    ("drop@1+2..5", "'2..5' is not a time in seconds"),
    ("disconnect=1.5@10", "disconnect takes no value; times are written @START+DURATION"),
    ("brownout@8+1", "it happens once and has no duration; write brownout@8"),
    ("wrap:board@0", "a side is for what happens to frames"),
    ("disconnect:host@1", "a side is for what happens to frames"),
])  # fmt: skip
def test_a_fault_that_cannot_be_understood_is_refused_by_name(text, says):
    with pytest.raises(FaultError) as caught:
        parse_fault(text)
    assert says in str(caught.value)
    assert repr(text) in str(caught.value)


def test_a_fault_is_active_from_its_start_for_its_duration():
    fault = parse_fault("blind@5+10")
    assert [fault.active(now_s) for now_s in (4.999, 5.0, 14.999, 15.0)] == [False, True, True, False]


def test_every_kind_is_explained():
    text = describe_faults()
    for name, kind in KINDS.items():
        assert name in text
        assert kind.meaning in text


def test_the_command_line_explains_the_faults(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["mcu", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in KINDS)
    assert "KIND[:SIDE][=VALUE][@START[+DURATION]]" in shown


def test_the_command_line_refuses_a_fault_by_name_before_it_starts_anything(capsys, tmp_path):
    code = main(["mcu", "--robot", "balance_bot", "--still", "--link", str(tmp_path / "board"), "--fault", "drop=0.1", "--fault", "dorp"])
    assert code == EXIT_FAILED
    assert capsys.readouterr().err == "edge-dsac mcu: fault 'dorp': 'dorp' is not known; did you mean 'drop'?\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("answer", [None, PermissionError("not permitted")])
def test_a_board_asks_to_come_before_ordinary_processes_and_does_without(monkeypatch, answer):
    asked = []

    def ask(process, policy, param):
        asked.append((process, policy, param.sched_priority))
        if answer is not None:
            raise answer

    monkeypatch.setattr("os.sched_setscheduler", ask)
    come_before_others()
    assert asked == [(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, 20)]
    assert HELPER_PRIORITY > 20  # a thread of the loop's process that waits for physics keeps the loop waiting
