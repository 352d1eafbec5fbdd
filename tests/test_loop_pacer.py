"""The pacer on a clock that tests own: absolute deadlines, the missed-tick rule, the phase."""

import gc
import os
import sys

import numpy as np
import pytest

from edge_dsac.loop.pacer import LONGEST_REST, PIECE_NS, TICK, Pacer, Usual
from edge_dsac.loop.realtime import SWITCH_S, ask_for_realtime, release_realtime


class FakeTime:
    """Starts at an odd instant; each look at the clock costs 50 ns; sleeping overshoots by `overshoot_ns`."""

    def __init__(self, overshoot_ns=0):
        self.now_ns, self.overshoot_ns, self.slept = 987_654_321_012, overshoot_ns, []

    def clock(self):
        self.now_ns += 50
        return self.now_ns

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now_ns += round(seconds * 1e9) + self.overshoot_ns


def make_pacer(overshoot_ns=0, period_ns=1_000_000):
    fake = FakeTime(overshoot_ns)
    pacer = Pacer(period_ns, fake.clock, fake.sleep)
    pacer.start()
    return fake, pacer


@pytest.mark.slow
def test_deadlines_stay_on_one_grid_whatever_the_work_takes():
    fake, pacer = make_pacer()
    first = pacer.deadline_ns
    for i in range(1000):
        pacer.wait()
        fake.now_ns += (i * 7919) % 900_000  # work of any length below the period
    assert pacer.deadline_ns == first + 1000 * 1_000_000
    assert pacer.missed == 0


def test_the_spin_hides_an_oversleep_shorter_than_itself():
    _, pacer = make_pacer(overshoot_ns=80_000)
    assert max(pacer.wait() for _ in range(100)) <= 100


def test_lateness_is_returned_and_not_hidden():
    _, pacer = make_pacer(overshoot_ns=350_000)
    assert pacer.wait() == pytest.approx(250_000, abs=200)


def rehearsing(takes_ns, period_ns=1_000_000):
    """A pacer whose rehearsals take what `takes_ns` says, one after the other, then the last of it for ever."""
    fake, pacer = make_pacer(period_ns=period_ns)
    begun = []

    def rehearse():
        begun.append(pacer.deadline_ns - fake.now_ns)
        fake.now_ns += takes_ns[min(len(begun), len(takes_ns)) - 1]

    pacer.rehearse = rehearse
    return fake, pacer, begun


def test_the_idle_time_before_a_deadline_is_used_for_two_rehearsals():
    _, pacer, begun = rehearsing([100_000])
    pacer.rehearsal.ns = 110_000.0
    assert max(pacer.wait() for _ in range(50)) <= 100
    assert len(begun) == 100


@pytest.mark.slow
def test_no_rehearsal_begins_without_room_for_twice_its_length():
    fake, pacer, begun = rehearsing([100_000])
    for _ in range(200):
        pacer.wait()
        fake.now_ns += 850_000  # a tick that leaves 150 us
    late = [pacer.wait() for _ in range(1)]
    assert max(late) <= 100
    assert len(begun) <= 2  # one at the first deadline, where there was time


@pytest.mark.slow
def test_one_rehearsal_that_took_a_second_does_not_end_rehearsing():
    _, pacer, begun = rehearsing([1_000_000_000, 100_000])
    for _ in range(1000):
        pacer.wait()
    assert len(begun) > 1000


def test_rehearsing_comes_back_after_a_time_in_which_nothing_fitted():
    _, pacer, begun = rehearsing([350_000] * 20 + [100_000])
    for _ in range(200):
        pacer.wait()
    assert len(begun) < 20  # what is usual has grown until there was no room for one
    for _ in range(1000):
        pacer.wait()
    assert len(begun) > 1000


@pytest.mark.slow
def test_rehearsals_longer_than_the_period_are_given_up_and_tried_again_now_and_then():
    _, pacer, begun = rehearsing([5_000_000])
    for _ in range(2000):
        pacer.wait()
    assert 2 < len(begun) < 100


def test_the_processor_is_not_kept_awake_for_rehearsals_that_do_not_fit():
    """A FIFO thread that spins for whole periods is stopped by the kernel for 50 ms of every second."""
    fake, pacer, begun = rehearsing([100_000])
    pacer.rehearsal.ns = 400_000.0
    before = fake.now_ns
    pacer.wait()
    assert begun == []
    assert sum(fake.slept) * 1e9 == pytest.approx(fake.now_ns - before - 100_000, abs=1000)  # all but the short spin


def test_where_two_rehearsals_take_more_than_half_of_a_period_there_is_one():
    _, pacer, begun = rehearsing([160_000])
    pacer.rehearsal.ns = 180_000.0
    for _ in range(20):
        assert pacer.wait() <= 100
    assert len(begun) == 20


def test_a_rehearsal_that_delayed_a_tick_is_left_out_of_the_next_one_and_tried_again_after_it():
    _, pacer, begun = rehearsing([100_000] * 20 + [700_000, 100_000])
    pacer.rehearsal.ns = 110_000.0
    late = [pacer.wait() for _ in range(15)]
    assert [index for index, ns in enumerate(late) if ns > 100] == [10]
    assert len(begun) == 20 + 1 + 3 * 2  # with the eleventh tick one, with the twelfth none


def test_the_rest_doubles_as_long_as_rehearsals_delay_and_shrinks_when_they_fit():
    fake, pacer, begun = rehearsing([900_000])
    pacer.rehearsal = Usual(100_000.0, 1.0, 1.0)  # believes that they fit, whatever they take
    late = [pacer.wait() > 100 for _ in range(20)]
    assert [index for index, was in enumerate(late) if was] == [0, 2, 6, 14]  # after rests of 1, 3 and 7
    pacer.rest, pacer.rested = 0, LONGEST_REST
    pacer.wait()
    assert pacer.rest == LONGEST_REST
    pacer.rest, pacer.rehearse = 0, lambda: None
    for _ in range(3):
        pacer.wait()
    assert pacer.rested == LONGEST_REST >> 6  # two fitted with each


@pytest.mark.slow
def test_who_is_woken_late_learns_to_sleep_less():
    """As beside a process that drives the loop out of the caches."""
    fake, pacer = make_pacer(overshoot_ns=180_000)
    assert pacer.wait() == pytest.approx(80_000, abs=200)
    for _ in range(100):
        pacer.wait()
    assert pacer.wait() <= 100
    fake.overshoot_ns = 20_000
    for _ in range(40_000):
        pacer.wait()
    assert pacer.waking.ns < 30_000  # and more again, where it is not


@pytest.mark.slow
@pytest.mark.parametrize("rehearsal_ns", [60_000, 90_000, 120_000, 150_000, 180_000, 240_000])
@pytest.mark.parametrize("overshoot_ns", [10_000, 150_000, 600_000])
def test_the_loop_sleeps_for_at_least_half_of_each_period(rehearsal_ns, overshoot_ns):
    """A FIFO thread that hardly ever sleeps is stopped by the kernel for 50 ms of a second; and a tuner on its core would get nothing."""
    fake, pacer, _ = rehearsing([rehearsal_ns])
    fake.overshoot_ns = overshoot_ns
    for _ in range(2000):
        pacer.wait()
        assert pacer.deadline_ns - pacer.period_ns - pacer.wake_ns <= pacer.period_ns // 2


def test_no_more_than_a_quarter_of_a_period_is_kept_awake_for():
    fake, pacer = make_pacer(overshoot_ns=600_000)
    for _ in range(500):
        pacer.wait()
    slept = len(fake.slept)
    before = fake.now_ns
    pacer.wait()
    assert fake.slept[slept:] == [pytest.approx((pacer.deadline_ns - 1_000_000 - before) * 1e-9 - 250e-6, abs=1e-6)]


@pytest.mark.parametrize(("longer", "shorter", "share"), [(1.05, 0.998, 0.038), (1.05, 0.99, 1 / 6)])
def test_what_is_usual_is_exceeded_as_often_as_it_says(longer, shorter, share):
    generator, usual, exceeded = np.random.default_rng(0), Usual(50.0, longer, shorter), 0
    for took in generator.lognormal(4.0, 0.4, 40_000):
        exceeded += took > usual.ns
        usual.learn(took)
    assert exceeded / 40_000 == pytest.approx(share, rel=0.1)


def test_another_thread_works_while_the_loop_sleeps_and_waits_while_it_is_due():
    fake, pacer = make_pacer()
    pacer.wake_ns = fake.now_ns + PIECE_NS + 1000
    pacer.out_of_the_way()
    assert fake.slept == []
    fake.now_ns = pacer.wake_ns - PIECE_NS
    pacer.out_of_the_way()
    assert fake.now_ns == pytest.approx(pacer.deadline_ns + TICK * pacer.period_ns, abs=100)
    fake.now_ns = pacer.deadline_ns + 10_000_000  # a loop that is long overdue
    pacer.out_of_the_way()
    assert fake.slept[-1] == PIECE_NS * 1e-9


def test_missed_deadlines_are_dropped_and_counted_and_never_made_up():
    fake, pacer = make_pacer()
    pacer.wait()
    fake.now_ns += 3_400_000
    assert pacer.wait() == pytest.approx(2_400_000, abs=1000)
    assert pacer.missed == 2
    before = len(fake.slept)
    assert pacer.wait() <= 100  # the next one is a full wait away, on the old grid
    assert len(fake.slept) == before + 1


def test_the_grid_moves_to_the_frames_at_once_while_the_motors_are_off():
    _, pacer = make_pacer()
    before = pacer.deadline_ns
    pacer.follow(age_ns=900_000, target_ns=300_000, every_ns=5_000_000, at_once=True)
    assert pacer.deadline_ns == before - 600_000


def test_the_grid_moves_by_a_thousandth_of_a_period_while_running():
    _, pacer = make_pacer()
    before = pacer.deadline_ns
    pacer.follow(age_ns=900_000, target_ns=300_000, every_ns=5_000_000, at_once=False)
    assert pacer.deadline_ns == before - 1_000
    pacer.follow(age_ns=4_900_000, target_ns=300_000, every_ns=5_000_000, at_once=False)  # 0.4 ms early, seen modulo the frames
    assert pacer.deadline_ns == before


@pytest.mark.slow
@pytest.mark.parametrize("delay_ns", [100_000, 700_000, 1_600_000])
def test_frames_that_take_longer_than_was_hoped_are_waited_for(delay_ns):
    """Frames each 5 ms that arrive `delay_ns` later, wanted 0.5 ms old: a tick must not read the one before last for ever."""
    _, pacer = make_pacer(period_ns=10_000_000)
    every, phase, ages = 5_000_000, 1_234_567, []
    for _ in range(6000):
        start = pacer.deadline_ns
        pacer.wait()
        ages.append((start - delay_ns - phase) % every + delay_ns)
        pacer.follow(ages[-1], 500_000, every, at_once=False)
    settled = ages[-1000:]
    assert sum(age > every for age in settled) < 50  # nearly always the newest frame
    assert max(500_000, delay_ns) - 50_000 <= sorted(settled)[500] <= max(500_000, delay_ns) + 200_000


def test_following_settles_on_the_target_and_stays():
    _, pacer = make_pacer()
    frame_ns = pacer.deadline_ns + 123_456  # frames every 5 ms from here; ticks every 1 ms
    for _ in range(3000):
        age = (pacer.deadline_ns - frame_ns) % 1_000_000
        pacer.follow(age, 300_000, 1_000_000, at_once=False)
        pacer.deadline_ns += pacer.period_ns
    assert (pacer.deadline_ns - frame_ns) % 1_000_000 == pytest.approx(300_000, abs=100)


@pytest.mark.slow
def test_the_real_time_setup_says_of_everything_whether_it_was_granted():
    grants = ask_for_realtime()
    interval = sys.getswitchinterval()
    release_realtime()
    assert interval == pytest.approx(SWITCH_S)
    assert {"SCHED_FIFO", "mlockall", "timer slack", "garbage collector"} <= {grant.what for grant in grants}
    assert all(grant.why for grant in grants)
    # What works after the last tick, or in a test's process after its test, is an ordinary process again.
    assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER
    assert gc.isenabled()
    assert sys.getswitchinterval() == 0.005
