"""The loop and its scout, each at its end of two pipes: what is asked for, what drives, and what is told."""

import os
import select
import threading
import time
from types import SimpleNamespace

import pytest
from test_loop_trial import NEW, OLD, Constant, Rig, plan_of, seed_with

from edge_dsac.bundle.slot_folder import Stage
from edge_dsac.loop.cockpit import NearCockpit
from edge_dsac.loop.messages import Bell, Gone, Message, Pipes
from edge_dsac.loop.scout import FarCockpit, Packed, Scout, plan_from

PLAN = plan_of(window=5, pairs=2, seed=seed_with(True, 2))


class Ends:
    """Both ends in one process; `leave` is what a killed one does."""

    def __init__(self):
        (self.a, b), (c, self.d) = os.pipe(), os.pipe()
        self.b, self.c = b, c
        self.near, self.far = Pipes(self.a, self.d), Pipes(self.c, self.b)

    def leave_far(self):
        os.close(self.b), os.close(self.c)
        self.b = self.c = -1

    def close(self):
        for one in (self.a, self.b, self.c, self.d):
            if one >= 0:
                os.close(one)


@pytest.fixture
def ends():
    both = Ends()
    yield both
    both.close()


def make(data):
    if data == b"bad":
        raise ValueError("the engine numpy does not act as the policy says")
    if data == b"broken":
        raise RuntimeError("no such device")
    return Constant(int(data))


@pytest.fixture
def flight(ends):
    """A loop that runs, its end, and the scout's."""
    rig = Rig().running()
    scout = Scout(ends.near, NearCockpit(rig.slot, rig.seat), make, lambda: None)
    return SimpleNamespace(rig=rig, scout=scout, far=FarCockpit(ends.far, OLD), ends=ends)


def packed(identity):
    return Packed(identity, str(identity).encode())


# ---- the pipes


@pytest.mark.parametrize("size", [0, 1, 70_000, 300_000])
def test_what_is_said_is_heard_whole_and_in_order(ends, size):
    data = os.urandom(size)
    speaker = threading.Thread(target=lambda: [ends.far.say(Message({"number": number, "why": "ü"}, data)) for number in range(3)])
    speaker.start()
    heard = [ends.near.hear(5.0) for _ in range(3)]
    speaker.join()
    assert heard == [Message({"number": number, "why": "ü"}, data) for number in range(3)]
    assert ends.near.hear(0.0) is None


def test_an_end_that_has_left_is_noticed_by_who_listens_and_by_who_speaks(ends):
    ends.far.say(Message({"half": 1}, b"x" * 100))
    assert ends.near.hear(0.0) is not None
    os.write(ends.b, b"\5\0\0\0\0\0\0\0{")  # killed in the middle of a word
    ends.leave_far()
    with pytest.raises(Gone):
        ends.near.hear(1.0)
    with pytest.raises(Gone):
        ends.near.say(Message({}))


def test_a_bell_ends_the_listening_and_is_not_missed_by_who_listens_later(ends):
    bell = Bell()
    for _ in range(100_000):  # more than a pipe holds: who rings never waits
        bell.ring()
    assert ends.near.hear(60.0, bell) is None
    ends.far.say(Message({"number": 1}))
    assert ends.near.hear(60.0, bell) is not None  # both at once: nothing is lost
    while select.select([bell.sound], [], [], 0)[0]:
        bell.hush()
    bell.hush()
    assert ends.near.hear(0.0, bell) is None
    bell.close()


def test_a_plan_comes_through_as_it_was(ends):
    plan = plan_of(window=5, pairs=2, max_action_shift=0.5)
    FarCockpit(ends.far, OLD).try_out(packed(NEW), plan)
    assert plan_from(ends.near.hear(1.0).words["plan"]) == plan


# ---- asked for, and done


def test_a_successor_takes_the_wheel_at_the_next_tick(flight):
    flight.far.offer(packed(7))
    flight.scout.turn(1.0)
    flight.rig.ticks(3)
    assert flight.rig.drove()[-2:] == [7, 7]


def test_a_candidate_is_tried_and_how_it_ended_is_told_once(flight):
    flight.far.try_out(packed(NEW), PLAN)
    flight.scout.turn(1.0)
    flight.rig.ticks(100)
    flight.scout.turn(0.0)
    flight.scout.turn(0.0)
    assert flight.far.hear(1.0)
    ended = flight.far.ended()
    assert (ended.identity, ended.stage, ended.why) == (NEW, Stage.OVER, "all windows flown")
    assert [window["first"] for window in ended.details["windows"]] == flight.scout.cockpit.newest.starts
    assert flight.far.ends == []
    assert flight.rig.drove().count(NEW) == 10


def test_a_withdrawn_candidate_drives_no_tick_more(flight):
    flight.far.try_out(packed(NEW), PLAN)
    flight.scout.turn(1.0)
    flight.rig.ticks(3)
    assert flight.rig.drove()[-1] == NEW
    flight.far.withdraw()
    flight.scout.turn(1.0)
    before = flight.rig.drove().count(NEW)
    flight.rig.ticks(50)
    assert flight.rig.drove().count(NEW) <= before + 1  # the tick boundary that hears of it
    flight.scout.turn(0.0)
    flight.far.hear(1.0)
    assert flight.far.ended().stage == Stage.INTERRUPTED


def test_a_child_waits_until_its_parent_has_the_wheel(flight):
    flight.far.offer(packed(7))
    flight.far.try_out(packed(NEW), PLAN)
    flight.scout.turn(1.0)
    child = threading.Thread(target=flight.scout.turn, args=(1.0,))
    child.start()
    time.sleep(0.05)
    assert flight.rig.seat.offered is None
    flight.rig.ticks(1)
    child.join()
    assert flight.rig.seat.offered.old.bundle_id == 7


def test_what_does_not_answer_as_it_should_in_the_loops_own_process_is_not_tried_and_not_taken(flight):
    flight.far.offer(Packed(7, b"bad"))
    flight.far.try_out(Packed(NEW, b"bad"), PLAN)
    for _ in range(2):
        flight.scout.turn(1.0)
        assert flight.far.hear(1.0)
    flight.rig.ticks(50)
    assert set(flight.rig.drove()) == {OLD}
    assert "does not act as the policy says" in flight.far.refusals[0]
    ended = flight.far.ended()
    assert (ended.identity, ended.stage) == (NEW, Stage.ABORTED)


def test_the_thread_sleeps_until_it_is_spoken_to_or_a_trial_has_ended(flight, monkeypatch):
    """Each time it wakes up it may take the interpreter from a tick."""
    turns, turn = [], flight.scout.turn
    monkeypatch.setattr(flight.scout, "turn", lambda seconds: (turn(seconds), turns.append(1)))
    flight.scout.start()
    time.sleep(0.3)
    assert turns == []
    flight.far.try_out(packed(NEW), PLAN)
    give_up = time.monotonic() + 10
    while flight.rig.seat.offered is None and time.monotonic() < give_up:
        time.sleep(0.01)
    flight.rig.ticks(100)
    assert flight.far.hear(10.0)
    assert flight.far.ended().stage == Stage.OVER
    assert len(turns) <= 2
    flight.ends.leave_far()
    flight.scout.join(10)
    flight.scout.close(failed=False)
    assert flight.rig.seat.tell is None


# ---- the end


def test_a_scout_that_is_killed_ends_the_trial_and_not_the_flight(flight):
    flight.far.try_out(packed(NEW), PLAN)
    flight.scout.start()
    give_up = time.monotonic() + 10
    while flight.rig.seat.offered is None and time.monotonic() < give_up:
        time.sleep(0.01)
    flight.rig.ticks(3)
    assert flight.rig.drove()[-1] == NEW
    flight.ends.leave_far()
    flight.scout.join(10)
    flight.rig.ticks(50)
    assert flight.rig.drove()[-48:] == [OLD] * 48
    flight.scout.close(failed=False)
    assert "the scout has gone" in flight.scout.complaints[0]


def test_an_engine_that_breaks_ends_the_trial_under_way_and_not_the_flight(flight):
    flight.far.try_out(packed(NEW), PLAN)
    flight.scout.turn(1.0)
    flight.rig.ticks(3)
    assert flight.rig.drove()[-1] == NEW
    flight.far.offer(Packed(7, b"broken"))
    flight.scout.start()
    flight.scout.join(10)
    flight.rig.ticks(50)
    assert flight.rig.drove()[-48:] == [OLD] * 48
    assert flight.scout.complaints == ["RuntimeError: no such device: no policy was looked after from then on"]


def test_at_the_end_of_a_flight_the_last_word_about_a_trial_is_told_before_the_scout_may_go(flight):
    flight.scout.start()
    flight.far.try_out(packed(NEW), PLAN)
    give_up = time.monotonic() + 10
    while flight.rig.seat.offered is None and time.monotonic() < give_up:
        time.sleep(0.01)
    flight.rig.ticks(3)
    heard = []

    def scout():
        while flight.far.hear(5.0):
            heard.append(flight.far.ended())
        flight.far.pipes.say(Message({"do": "farewell", "words": {"trials": {"it": 1}}}))

    other = threading.Thread(target=scout)
    other.start()
    flight.scout.close(failed=False)
    other.join()
    assert [(ended.stage, ended.why) for ended in heard] == [(Stage.INTERRUPTED, "the flight ended")]
    assert flight.scout.last_words == {"trials": {"it": 1}}


def test_a_scout_that_hangs_holds_the_end_of_a_flight_up_for_a_bounded_time(flight, monkeypatch):
    monkeypatch.setattr("edge_dsac.loop.scout.LAST_WORDS_S", 0.2)
    flight.scout.start()
    os.write(flight.ends.b, b"\5\0\0\0\0\0\0\0{")  # stopped in the middle of a word
    time.sleep(0.1)
    begun = time.monotonic()
    flight.scout.close(failed=False)
    assert time.monotonic() - begun < 2.0
    assert "stopped in the middle of a word" in flight.scout.complaints[0]
    flight.ends.leave_far()
    flight.scout.join(5)
