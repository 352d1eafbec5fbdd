"""Rehearsals warm the caches and touch nothing: the very same flight with and without them."""

import numpy as np
import pytest
from test_loop_control import SPEC, FakeBoard, FakeLog, Forward

from edge_dsac.loop.control import ControlLoop
from edge_dsac.loop.limiter import Limiter
from edge_dsac.loop.observer import Observer, Reference
from edge_dsac.loop.rehearsal import Rehearsal
from edge_dsac.loop.slot import Slot
from edge_dsac.records import BoardMode, Mode
from edge_dsac.spec.robot import load_robot
from firmware_bridge.messages import LinkState
from firmware_bridge.rehearsal import make_rehearsal_link


class Leaning:
    """A policy whose answer depends on all it sees, and which counts how often it was asked."""

    bundle_id = 3

    def __init__(self):
        self.asked = 0

    def act(self, obs):
        self.asked += 1
        return np.tanh(np.array([obs.vector.sum(), obs.vector[::2].sum()]))


def fly(rehearsals):
    board, log, engine = FakeBoard(), FakeLog(), Leaning()
    loop = ControlLoop(SPEC, board, Observer(SPEC), Slot(engine), Limiter(SPEC), log, clock=lambda: board.now_ns)
    loop.observer.set_reference(Reference(speed_target_m_s=0.3))
    rehearsal = Rehearsal(SPEC, loop, make_rehearsal_link(SPEC))
    loop.arm()
    for tick in range(60):
        board.now_ns += 10_000_000
        board.silent = tick in (20, 21)
        for _ in range(rehearsals):
            rehearsal()
        loop.tick(0)
    return log.steps, board.sent, engine.asked


def test_a_flight_is_the_same_to_the_last_bit_with_and_without_rehearsals():
    plain, plain_sent, asked = fly(0)
    rehearsed, rehearsed_sent, asked_more = fly(3)
    assert asked_more >= asked + 3 * 60  # they did take place
    assert plain_sent == rehearsed_sent
    for one, other in zip(plain, rehearsed, strict=True):
        assert one.frame == other.frame
        assert one.command == other.command
        assert one.mode == other.mode
        assert np.array_equal(one.obs.vector, other.obs.vector)


@pytest.mark.parametrize("spec", [SPEC, load_robot("rover")], ids=lambda spec: spec.model)
def test_a_rehearsal_link_gives_a_fresh_healthy_frame_each_time(spec):
    link = make_rehearsal_link(spec)
    while link.receive() is None:  # greeting
        pass
    frames = [link.receive() for _ in range(5)]
    assert [frame.seq for frame in frames] == list(range(frames[0].seq, frames[0].seq + 5))
    assert all(frame.board == BoardMode.ARMED for frame in frames)
    assert Observer(spec).observe(frames[0]).ok


def test_the_double_runs_the_whole_way_every_time_even_after_a_long_pause():
    board, engine = FakeBoard(), Forward()
    loop = ControlLoop(SPEC, board, Observer(SPEC), Slot(engine), Limiter(SPEC), FakeLog(), clock=board.clock)
    now_ns = [5_000_000_000]
    link = make_rehearsal_link(SPEC)
    link.clock = lambda: now_ns[0]
    rehearsal = Rehearsal(SPEC, loop, link)
    for pause_ns in (1_000_000, 5_000_000_000, 1_000_000, 1_000_000):
        now_ns[0] += pause_ns
        rehearsal()
        rehearsal()
    assert link.state == LinkState.UP
    assert rehearsal.double.modes.mode == Mode.RUNNING
    assert rehearsal.double.coasted == 0


def test_a_new_policy_is_rehearsed_before_it_drives():
    loop = ControlLoop(SPEC, FakeBoard(), Observer(SPEC), Slot(Forward()), Limiter(SPEC), FakeLog())
    rehearsal = Rehearsal(SPEC, loop, make_rehearsal_link(SPEC))
    fresh = Leaning()
    loop.slot.offer(fresh)
    loop.slot.swap_if_offered()
    rehearsal()
    assert fresh.asked == 1
