"""The whole tick against a fake board: arming, coasting, damping, faults, and motors off at every kind of end."""

import gc
import math
import sys
import tracemalloc

import numpy as np
import pytest

from edge_dsac.loop.control import Conduct, ControlLoop
from edge_dsac.loop.flight import Ended, fly
from edge_dsac.loop.limiter import Limiter
from edge_dsac.loop.observer import Observer
from edge_dsac.loop.pacer import Pacer
from edge_dsac.loop.slot import Slot
from edge_dsac.records import BoardMode, Event, Fault, Mode, Rule, SensorFrame
from edge_dsac.spec.robot import load_robot

SPEC = load_robot("balance_bot")
PERIOD_NS = 10_000_000


class FakeBoard:
    """A board on the loop's own clock: one frame per tick, unless told otherwise; obeys while commands come."""

    def __init__(self):
        self.now_ns = 55_555_000_000
        self.board, self.up, self.refused = BoardMode.DISARMED, True, False
        self.silent = self.blind = False
        self.sent, self.seq, self.reopened, self.disarms = [], 0, 0, 0
        self.obeys = True

    def clock(self):
        self.now_ns += 1000
        return self.now_ns

    def sleep(self, seconds):
        self.now_ns += round(seconds * 1e9)

    def receive(self):
        if self.silent or not self.up:
            return None
        self.seq += 1
        joints = (0.0, 0.0)
        accel = (0.0, 0.0, math.nan if self.blind else 9.81)
        applied = self.sent[-1].command if self.sent and self.board == BoardMode.ARMED else joints
        return SensorFrame(
            self.seq, self.now_ns // 1000, self.board, Fault.NONE, 0, joints, joints, applied, (0.0, 0.0, 0.0), accel, 11.1, ()
        )

    def send(self, command):
        self.sent.append(command)

    def is_up(self):
        return self.up

    def is_refused(self):
        return self.refused

    def request_arm(self):
        if self.obeys:
            self.board = BoardMode.ARMED

    def request_disarm(self):
        self.disarms += 1
        if self.up:
            self.board = BoardMode.DISARMED

    def request_estop(self):
        self.board = BoardMode.ESTOP

    def reopen_if_gone(self, now_ns):
        self.reopened += 1

    def frame_age_ns(self, now_ns):
        return 400_000


class FakeLog:
    def __init__(self):
        self.steps, self.room = [], 1 << 40

    def append(self, step):
        self.steps.append(step)

    def free(self):
        return self.room


class Forward:
    bundle_id = 77

    def act(self, obs):
        return np.array([0.25, 0.0])


class Broken:
    bundle_id = 78

    def act(self, obs):
        raise RuntimeError("engine broke")


@pytest.fixture
def rig():
    board, log = FakeBoard(), FakeLog()
    loop = ControlLoop(SPEC, board, Observer(SPEC), Slot(Forward()), Limiter(SPEC), log, clock=board.clock)
    pacer = Pacer(PERIOD_NS, board.clock, board.sleep)
    pacer.start()

    def ticks(count=1):
        for _ in range(count):
            loop.tick(pacer.wait())
        return loop.modes.mode

    return board, log, loop, pacer, ticks


def get_running(loop, ticks):
    loop.arm()
    ticks(5)
    assert loop.modes.mode == Mode.RUNNING


def test_nothing_moves_before_someone_asks(rig):
    board, log, _, _, ticks = rig
    assert ticks(100) == Mode.IDLE
    assert board.sent == []
    assert board.board == BoardMode.DISARMED
    assert {step.mode for step in log.steps} <= {Mode.BOOT, Mode.IDLE}
    assert all(Rule.DAMP in Rule(step.command.rules) for step in log.steps)


def test_arming_leads_through_armed_to_running_and_commands_answer_frames(rig):
    board, log, loop, _, ticks = rig
    get_running(loop, ticks)
    modes = [step.mode for step in log.steps]
    assert Mode.ARMED in modes
    assert modes.index(Mode.ARMED) < modes.index(Mode.RUNNING)
    assert board.sent[-1].answers_seq == board.seq
    assert board.sent[-1].command == pytest.approx([0.2, 0.2])
    assert log.steps[-1].bundle_id == 77


def test_a_board_armed_by_somebody_else_is_not_taken_over(rig):
    board, _, _, _, ticks = rig
    board.board = BoardMode.ARMED
    assert ticks(50) == Mode.IDLE
    assert board.sent == []


def test_a_missing_frame_is_coasted_over_with_the_last_command(rig):
    board, log, loop, _, ticks = rig
    get_running(loop, ticks)
    answered, sent = board.sent[-1].answers_seq, len(board.sent)
    board.silent = True
    assert ticks(3) == Mode.COASTING
    assert [c.answers_seq for c in board.sent[sent:]] == [answered] * 3
    assert all(c.rules == Rule.COAST for c in board.sent[sent:])
    assert [step.fresh for step in log.steps[-3:]] == [False] * 3
    board.silent = False
    assert ticks(1) == Mode.RUNNING
    assert loop.coasted_total == 3


def test_coasting_is_bounded_and_ends_damped(rig):
    board, _, loop, _, ticks = rig
    get_running(loop, ticks)
    board.silent = True
    assert ticks(SPEC.rates.max_coast_ticks) == Mode.COASTING
    sent = len(board.sent)
    assert ticks(1) == Mode.DAMPED
    assert loop.modes.because == Event.COAST_EXHAUSTED
    ticks(20)
    assert len(board.sent) == sent


def test_a_frame_without_an_imu_reading_counts_as_missing(rig):
    board, _, loop, _, ticks = rig
    get_running(loop, ticks)
    board.blind = True
    assert ticks(2) == Mode.COASTING
    assert ticks(10) == Mode.DAMPED
    assert all(np.isfinite(c.command).all() for c in board.sent)


def test_damped_is_left_only_when_somebody_asks(rig):
    board, _, loop, _, ticks = rig
    get_running(loop, ticks)
    board.board = BoardMode.FALLBACK
    assert ticks(200) == Mode.DAMPED
    assert board.board == BoardMode.FALLBACK
    loop.arm()
    ticks(20)
    assert loop.modes.mode == Mode.RUNNING


def test_with_rearm_the_loop_asks_by_itself_once_the_link_is_steady(rig):
    board, _, loop, _, ticks = rig
    loop.conduct = Conduct(rearm=True, rearm_after_ms=200)
    get_running(loop, ticks)
    board.up = False
    ticks(10)
    assert loop.modes.mode == Mode.DAMPED
    assert board.reopened > 0
    board.up, board.board = True, BoardMode.FALLBACK
    assert ticks(15) == Mode.DAMPED  # 150 ms
    ticks(15)
    assert loop.modes.mode == Mode.RUNNING


def test_a_board_fault_is_never_rearmed_by_itself(rig):
    board, _, loop, _, ticks = rig
    loop.conduct = Conduct(rearm=True)
    get_running(loop, ticks)
    board.board = BoardMode.FAULT
    assert ticks(300) == Mode.FAULT
    assert board.board == BoardMode.FAULT
    assert loop.modes.because == Event.BOARD_FAULT


def test_a_board_that_restarts_while_running_damps(rig):
    board, _, loop, _, ticks = rig
    get_running(loop, ticks)
    board.board = BoardMode.DISARMED
    assert ticks(1) == Mode.DAMPED
    assert loop.modes.because == Event.BOARD_STOPPED_OBEYING


def test_a_refused_board_is_a_fault_before_anything_moves(rig):
    board, _, loop, _, ticks = rig
    board.up, board.refused = False, True
    loop.arm()
    assert ticks(20) == Mode.FAULT
    assert board.sent == []


def test_a_log_that_cannot_take_more_damps_rather_than_loses(rig):
    _, log, loop, _, ticks = rig
    get_running(loop, ticks)
    log.room = 1
    assert ticks(1) == Mode.DAMPED
    assert loop.modes.because == Event.LOG_FULL


def test_the_operator_may_choose_to_lose_old_steps_instead(rig):
    _, log, loop, _, ticks = rig
    loop.conduct = Conduct(overwrite_log=True)
    get_running(loop, ticks)
    log.room = 0
    assert ticks(10) == Mode.RUNNING


def test_taking_over_from_the_boards_fallback_starts_from_its_command(rig):
    board, _, loop, _, ticks = rig
    loop.arm()
    board.obeys = False
    ticks(3)
    fallback = SensorFrame(
        9,
        0,
        BoardMode.FALLBACK,
        Fault.NONE,
        0,
        (0.0, 0.0),
        (0.0, 0.0),
        (-0.6, -0.6),
        (0.0, 0.0, 0.0),
        (0.0, 0.0, 9.81),
        11.1,
        (),
    )
    loop.limiter.damp(fallback)
    command = loop.limiter.limit(np.array([1.0, 0.0]), fallback._replace(board=BoardMode.ARMED))
    assert command.command == pytest.approx([-0.1, -0.1])  # slew 0.5 per tick from -0.6


def test_a_swap_is_named_in_the_steps_it_fades_over(rig):
    _, log, loop, pacer, ticks = rig
    get_running(loop, ticks)
    other = Forward()
    other.bundle_id = 99
    loop.slot.offer(other)
    loop.between_ticks(pacer, 400_000, 5_000_000)
    ticks(30)
    blended = [step for step in log.steps if Rule.BLEND in Rule(step.command.rules)]
    assert 18 <= len(blended) <= 20
    assert {step.bundle_id for step in blended} == {99}


def make_flight(board, log, engine=None):
    loop = ControlLoop(SPEC, board, Observer(SPEC), Slot(engine or Forward()), Limiter(SPEC), log, clock=board.clock)
    loop.arm()
    return loop, Pacer(PERIOD_NS, board.clock, board.sleep)


def test_a_flight_ends_when_its_time_is_up_with_the_motors_off():
    board, log = FakeBoard(), FakeLog()
    loop, pacer = make_flight(board, log)
    flight = fly(loop, pacer, SPEC, lambda: False, seconds=2.0)
    assert flight.ended == Ended.TIME_UP
    assert flight.board_still
    assert board.board == BoardMode.DISARMED
    assert 195 <= flight.ticks <= 205
    assert log.steps[-1].mode == Mode.IDLE


def test_a_flight_ends_when_asked_with_the_motors_off():
    board, log = FakeBoard(), FakeLog()
    loop, pacer = make_flight(board, log)
    flight = fly(loop, pacer, SPEC, lambda: loop.ticks >= 50, seconds=None)
    assert flight.ended == Ended.ASKED
    assert flight.board_still


def test_an_exception_in_the_loop_ends_with_the_motors_off_and_is_not_swallowed():
    board, log = FakeBoard(), FakeLog()
    loop, pacer = make_flight(board, log, Broken())
    with pytest.raises(RuntimeError, match="engine broke"):
        fly(loop, pacer, SPEC, lambda: False, seconds=2.0)
    assert board.board == BoardMode.DISARMED
    assert log.steps[-1].mode == Mode.FAULT


def test_a_board_that_never_answers_ends_the_flight_by_name():
    board, log = FakeBoard(), FakeLog()
    board.up = False
    loop, pacer = make_flight(board, log)
    flight = fly(loop, pacer, SPEC, lambda: False, seconds=None, link_timeout_s=1.0)
    assert flight.ended == Ended.NO_LINK
    assert not flight.board_still
    assert board.sent == []


def test_a_fault_ends_the_flight_and_says_which():
    board, log = FakeBoard(), FakeLog()
    loop, pacer = make_flight(board, log)

    def trip():
        if loop.ticks == 50:
            board.board = BoardMode.FAULT
        return False

    flight = fly(loop, pacer, SPEC, trip, seconds=None)
    assert flight.ended == Ended.FAULT
    assert flight.because == Event.BOARD_FAULT


@pytest.mark.slow
def test_a_hundred_thousand_ticks_allocate_nothing_that_stays(rig):
    board, log, loop, pacer, ticks = rig
    log.append = lambda step: None
    board.send = lambda command: None
    get_running(loop, ticks)
    ticks(2000)
    gc.collect()
    gc.disable()
    blocks = sys.getallocatedblocks()
    ticks(90_000)
    grown_blocks = sys.getallocatedblocks() - blocks
    tracemalloc.start()
    try:
        ticks(100)
        before = tracemalloc.get_traced_memory()[0]
        ticks(10_000)
        grown_bytes = tracemalloc.get_traced_memory()[0] - before
        cycles = gc.collect()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert grown_blocks < 100, f"{grown_blocks} objects in 90000 ticks"
    assert grown_bytes < 4096, f"{grown_bytes} bytes in 10000 ticks"
    assert cycles < 50, "the tick must make no reference cycles: the collector is off while it runs"
