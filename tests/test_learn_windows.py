"""Windows of a trial, from records made by hand: what counts, what is void and why, whose a fall is, and that chunks change nothing."""

import dataclasses

import numpy as np
import pytest
from test_robot_needs_little import on_a_robot

from edge_dsac.learn.rewards import Reward
from edge_dsac.learn.windows import REFERENCES, Window, Windows, pairs
from edge_dsac.records import Event, Fault, Mode, Rule
from edge_dsac.spec.layout import TERMS, ObservationLayout
from edge_dsac.steplog.layout import FRESH, OBS_OK, LogError, RecordLayout

OLD, NEW, OTHER = (1 << 63) + 5, 7, 9
WINDOW, SETTLE = 10, 3


def stretch(spec, count, bundle=OLD, mode=Mode.RUNNING, **values):
    """Records of one kind. A value is a number or one per record; names of observation terms go into the vector."""
    layout = ObservationLayout(spec)
    rows = np.zeros(count, RecordLayout(spec).dtype)
    rows["bundle_id"], rows["mode"], rows["because"] = bundle, mode, Event.FRAME_FRESH
    rows["flags"] = 0 if mode == Mode.COASTING else FRESH | OBS_OK
    for name, value in values.items():
        if name in layout.newest:
            rows["obs"][:, layout.newest[name].start] = value
        else:
            rows[name] = value
    return rows


def flight(*stretches):
    rows = np.concatenate(stretches)
    rows["index"] = np.arange(len(rows)) + 100
    return rows


def cut(spec, rows, window=WINDOW, settle=SETTLE, **more):
    windows = Windows(spec, OLD, NEW, window, settle, **more)
    return [*windows.feed(rows), *windows.finish()]


def whole(who="old", reward=0.0, references=(0.0,) * 4, **values):
    """A window that counts, for what only reads windows."""
    plain = Window(who, 0, 10, 7, "", reward, 0.0, 0.0, 0.0, 0.0, references)
    return dataclasses.replace(plain, **values)


def test_a_window_is_worth_what_its_counted_ticks_led_to(bot):
    """Ticks 0 to 9 are the old one's; 3 to 9 count, and are worth what ticks 4 to 10 saw. Lean costs .3 for each .5 rad."""
    lean = np.arange(20) / 100
    rows = flight(stretch(bot, 10, OLD), stretch(bot, 10, NEW))
    rows["obs"][:, 0] = lean
    rows["applied_action"] = [[0.5, -0.25]]
    first, second = cut(bot, rows)
    assert (first.who, first.first, first.ticks, first.counted, first.void) == ("old", 100, 10, 7, "")
    assert first.reward == pytest.approx(1.0 - 0.6 * 0.07)  # the mean of .04 to .10
    assert first.parts == pytest.approx({"alive": 1.0, "speed_error": 0.0, "yaw_rate_error": 0.0, "lean": -0.042, "action_rate": 0.0})
    assert first.action_abs == pytest.approx(0.375)
    assert first.action_square == pytest.approx((0.25 + 0.0625) / 2)
    assert first.action_rate == 0.0
    assert (second.who, second.first, second.counted) == ("new", 110, 6)  # nobody saw what its last tick led to
    assert second.reward == pytest.approx(1.0 - 0.6 * 0.165)  # the mean of .14 to .19


def test_the_action_rate_is_of_what_was_applied(bot):
    rows = flight(stretch(bot, 11, OLD))
    rows["applied_action"][:, 0] = np.tile([0.0, 0.2], 6)[:11]  # one of two actions changes by .2 at each tick
    rows["action"] = np.arange(11)[:, None]  # what was wished is nobody's business here
    (window,) = cut(bot, rows)[:1]
    assert window.action_rate == pytest.approx(0.1)
    assert window.parts["action_rate"] == pytest.approx(-0.01)


def test_the_reward_is_the_one_of_single_steps(bot, generator):
    rows = flight(stretch(bot, 11, OLD))
    rows["obs"] = generator.uniform(-0.5, 0.5, rows["obs"].shape)
    rows["applied_action"] = generator.uniform(-1.0, 1.0, rows["applied_action"].shape)
    layout, reward = RecordLayout(bot), Reward(bot)
    steps = [layout.step(row) for row in rows]
    each = [reward.of_steps(steps[i - 1], steps[i], steps[i + 1]) for i in range(3, 10)]
    assert cut(bot, rows)[0].reward == pytest.approx(np.mean(each), abs=1e-9)


def test_the_limiter_counts_by_ticks_and_a_fade_does_not_count(bot):
    rules = [0] * 3 + [Rule.BLEND, Rule.BLEND | Rule.SLEW, Rule.SLEW, Rule.LIMIT | Rule.SPEED, Rule.SPEED, 0, 0]
    window = cut(bot, flight(stretch(bot, 10, OLD, rules=rules), stretch(bot, 1, NEW)))[0]
    assert window.counted == 5
    assert window.limited_share == pytest.approx(3 / 5)


def test_a_window_of_which_hardly_a_tick_counts_is_void(bot):
    rules = [0] * 3 + [Rule.BLEND] * 4 + [0] * 3
    window = cut(bot, flight(stretch(bot, 10, OLD, rules=rules), stretch(bot, 1, NEW)))[0]
    assert (window.counted, window.void) == (3, "only 3 of its ticks count")


def test_a_longer_run_is_several_windows_and_a_rest(bot):
    found = cut(bot, flight(stretch(bot, 20, OLD), stretch(bot, 24, NEW), stretch(bot, 10, OLD)))
    assert [(w.who, w.first, w.ticks, w.void) for w in found] == [
        ("old", 100, 10, ""), ("old", 110, 10, ""), ("new", 120, 10, ""), ("new", 130, 10, ""),
        ("new", 140, 4, "the old policy took over"), ("old", 144, 10, ""),
    ]  # fmt: skip
    assert found[1].counted == 7  # it settles too, as the loop's plan has it


def test_what_was_before_the_trial_is_left_out(bot):
    rows = flight(stretch(bot, 13, OLD), stretch(bot, 10, OLD, pitch_rad=0.1), stretch(bot, 10, NEW))
    assert [(w.who, w.first, w.void) for w in cut(bot, rows, begin=113)] == [("old", 113, ""), ("new", 123, "")]


ENDINGS = {
    "a person drove": lambda spec: stretch(spec, 2, OLD, rules=Rule.HUMAN),
    "mode DAMPED": lambda spec: stretch(spec, 2, OLD, Mode.DAMPED),
    "another policy took over": lambda spec: stretch(spec, 2, OTHER),
    "the new policy took over": lambda spec: stretch(spec, 2, NEW),
}


@pytest.mark.parametrize("why", ENDINGS)
def test_a_run_that_ends_early_is_void(bot, why):
    found = cut(bot, flight(stretch(bot, 6, OLD), ENDINGS[why](bot), stretch(bot, 10, OLD)))
    assert (found[0].ticks, found[0].void, found[0].fell) == (6, why, "")
    assert found[0].human == 2 * (why == "a person drove")
    assert (found[-1].ticks, found[-1].void) == (10, "")


def test_a_lost_frame_belongs_to_the_window_and_is_not_counted(bot):
    rows = flight(stretch(bot, 6, OLD), stretch(bot, 1, OLD, Mode.COASTING), stretch(bot, 3, OLD), stretch(bot, 11, NEW))
    first, second, _ = cut(bot, rows)
    assert (first.ticks, first.void, first.coasted) == (10, "", 1)
    assert first.counted == second.counted - 2  # that tick, and the one before it, whose worth no frame has shown
    assert second.coasted == 0


def test_a_window_with_too_many_lost_frames_is_void_and_the_next_begins_where_it_ends(bot):
    rows = flight(stretch(bot, 6, OLD), stretch(bot, 3, OLD, Mode.COASTING), stretch(bot, 11, OLD))
    found = cut(bot, rows, max_coasted=0.2)
    assert [(w.first, w.ticks, w.void) for w in found] == [(100, 10, "no fresh frame at 3 of its ticks"), (110, 10, "")]


def test_a_missing_record_and_the_end_of_the_log_make_a_window_void(bot):
    rows = flight(stretch(bot, 20, OLD))
    found = cut(bot, np.delete(rows, 5))
    assert [(w.ticks, w.void) for w in found] == [(5, "records are missing"), (10, ""), (4, "the log ends")]


def test_a_tick_whose_outcome_nobody_saw_does_not_count(bot):
    """The frame after the last tick never came: what stands in its record is the one before."""
    rows = flight(stretch(bot, 10, OLD), stretch(bot, 1, OLD, Mode.COASTING, pitch_rad=0.5), stretch(bot, 5, NEW))
    assert (cut(bot, rows)[0].counted, cut(bot, rows)[0].reward) == (6, 1.0)


def test_a_tick_after_a_missing_record_has_no_action_before_it(bot):
    rows = np.delete(flight(stretch(bot, 16, OLD)), 5)
    assert cut(bot, rows, settle=0)[1].counted == 8  # its first has nothing before it, its last nothing after it


def test_a_person_who_takes_over_and_an_emergency_stop_are_interventions(bot):
    person = stretch(bot, 4, OLD, rules=Rule.HUMAN)
    taken = cut(bot, flight(stretch(bot, 12, NEW), person, stretch(bot, 2, OLD, Mode.DAMPED), person, stretch(bot, 5, NEW)))
    assert [(w.who, w.interventions, w.human) for w in taken] == [("new", 0, 0), ("new", 1, 8), ("new", 0, 0)]
    pressed = cut(bot, flight(stretch(bot, 5, NEW), stretch(bot, 5, NEW, Mode.ESTOP)))
    assert [w.interventions for w in pressed] == [1]
    stopped = cut(bot, flight(stretch(bot, 5, NEW), stretch(bot, 5, NEW, Mode.IDLE)))
    assert [w.interventions for w in stopped] == [0]


# Whose a fall is


def falling(spec, before, after=3, fault=Fault.TILT):
    return flight(*before, stretch(spec, after, OLD, Mode.FAULT, faults=fault))


@pytest.mark.parametrize("fault", [Fault.TILT, Fault.OVERSPEED])
def test_a_fall_counts_against_whoever_drove(bot, fault):
    for bundle, who in ((OLD, "old"), (NEW, "new")):
        windows = Windows(bot, OLD, NEW, WINDOW, SETTLE)
        windows.feed(falling(bot, [stretch(bot, 6, bundle)], fault=fault))
        assert windows.falls[who] == 1  # at once, though the window waits for what else follows
        (window,) = windows.finish()
        assert (window.who, window.fell, window.void) == (who, who, "mode FAULT")


def test_a_fault_that_is_no_fall_is_none(bot):
    assert cut(bot, falling(bot, [stretch(bot, 6, NEW)], fault=Fault.LOW_BATTERY))[0].fell == ""


def test_a_fall_while_one_settles_after_the_other_is_the_new_ones(bot):
    for first, second in ((OLD, NEW), (NEW, OLD)):
        assert cut(bot, falling(bot, [stretch(bot, 10, first), stretch(bot, 3, second)]))[-1].fell == "new"
    assert cut(bot, falling(bot, [stretch(bot, 10, NEW), stretch(bot, 4, OLD)]))[-1].fell == "old"
    assert cut(bot, falling(bot, [stretch(bot, 3, OLD)]))[-1].fell == "old"  # nobody drove before it
    assert cut(bot, falling(bot, [stretch(bot, 10, NEW), stretch(bot, 9, OLD, Mode.DAMPED), stretch(bot, 3, OLD)]))[-1].fell == "old"


def test_a_fall_at_the_end_of_a_whole_window_is_not_lost(bot):
    (window,) = cut(bot, falling(bot, [stretch(bot, 10, NEW)]))
    assert (window.void, window.fell) == ("", "new")


def test_a_fall_told_late_is_the_policys_within_a_quarter_second(bot):
    """100 Hz: 25 ticks after the last one for which the policy is answerable, coasting included."""
    for still, fell in ((24, "new"), (25, "")):
        rows = falling(bot, [stretch(bot, 6, NEW), stretch(bot, 4, NEW, Mode.COASTING), stretch(bot, still, NEW, Mode.DAMPED)])
        assert cut(bot, rows)[0].fell == fell


def test_a_fall_told_late_is_counted_from_the_last_tick_of_the_window(bot):
    for still, fell in ((24, "new"), (25, "")):
        assert cut(bot, falling(bot, [stretch(bot, 8, NEW), stretch(bot, still, NEW, Mode.DAMPED)]))[0].fell == fell


def test_a_person_who_could_not_save_it_is_not_to_blame(bot):
    assert cut(bot, falling(bot, [stretch(bot, 6, NEW), stretch(bot, 5, OLD, rules=Rule.HUMAN)]))[0].fell == "new"


def test_a_latched_fall_is_one_fall(bot):
    rows = flight(
        stretch(bot, 3, OLD, Mode.FAULT, faults=Fault.TILT), stretch(bot, 6, NEW, faults=Fault.TILT), stretch(bot, 3, OLD, Mode.IDLE)
    )
    assert cut(bot, rows)[0].fell == ""


# Chunks


def eventful(spec, generator):
    """Everything that can happen, in any order."""
    kinds = [
        lambda n: stretch(spec, n, OLD), lambda n: stretch(spec, n, NEW), lambda n: stretch(spec, n, OLD), lambda n: stretch(spec, n, NEW),
        lambda n: stretch(spec, n % 5 + 1, NEW, Mode.COASTING), lambda n: stretch(spec, n, OLD, rules=Rule.HUMAN),
        lambda n: stretch(spec, n, NEW, Mode.FAULT, faults=Fault.TILT), lambda n: stretch(spec, n, NEW, Mode.ESTOP),
        lambda n: stretch(spec, n, OTHER), lambda n: stretch(spec, n, NEW, rules=Rule.BLEND),
    ]  # fmt: skip
    rows = flight(*(kinds[generator.integers(len(kinds))](int(generator.integers(1, 30))) for _ in range(25)))
    rows["obs"] = generator.uniform(-0.5, 0.5, rows["obs"].shape)
    rows["applied_action"] = generator.uniform(-1.0, 1.0, rows["applied_action"].shape)
    return rows[generator.random(len(rows)) > 0.005]


def test_an_approach_is_no_window_and_what_is_before_its_end_is_none_either(bot):
    """It began anew after three ticks, and again after a person; then nine in a row, and two windows."""
    parts = [(3, NEW), (20, OLD), (5, NEW), (4, "person"), (12, OLD), (9, NEW), (10, OLD), (10, NEW), (1, OLD)]
    rows = flight(*(stretch(bot, n, OLD, rules=int(Rule.HUMAN)) if who == "person" else stretch(bot, n, who) for n, who in parts))
    found = cut(bot, rows, approach_ticks=9)
    assert [(window.who, window.first, window.void) for window in found[:2]] == [("old", 100 + 53, ""), ("new", 100 + 63, "")]
    assert len(pairs(found).pairs) == 1
    every_tick = Windows(bot, OLD, NEW, WINDOW, SETTLE, approach_ticks=9)
    assert repr([*(window for row in rows for window in every_tick.feed(row[None])), *every_tick.finish()]) == repr(found)


def test_a_window_of_the_new_one_may_follow_its_approach(bot):
    found = cut(bot, flight(stretch(bot, 9 + 10, NEW), stretch(bot, 11, OLD)), approach_ticks=9)
    assert [(window.who, window.first) for window in found if not window.void] == [("new", 109), ("old", 119)]


@pytest.mark.parametrize("rest", [0, 2])  # ticks in which the old one tries to catch it
def test_a_fall_in_the_approach_is_the_new_ones(bot, rest):
    rows = falling(bot, [stretch(bot, 10, OLD), stretch(bot, 4, NEW), *[stretch(bot, rest, OLD)] * bool(rest)])
    found = cut(bot, rows, approach_ticks=9)
    assert [(window.who, window.void, window.fell) for window in found] == [("new", "its approach", "new")]


@pytest.mark.slow
def test_any_chunking_gives_the_same_windows(bot, generator):
    for _ in range(2):
        rows = eventful(bot, generator)
        expected = [repr(window) for window in cut(bot, rows)]  # NaN equals NaN in words
        assert len(expected) > 5
        for most in (1, 7, 40):
            windows, found, at = Windows(bot, OLD, NEW, WINDOW, SETTLE), [], 0
            while at < len(rows):
                size = int(generator.integers(1, most + 1))
                found += windows.feed(rows[at : at + size])
                assert len(windows.records) <= WINDOW + 2 + size  # what is kept does not grow with the flight
                at += size
            assert [repr(window) for window in [*found, *windows.finish()]] == expected


def test_tick_by_tick_one_knows_who_drove_before(bot):
    """Of a run that is still open: its first tick has an action before it, and whose place it took decides whose a fall is."""
    rows = falling(bot, [stretch(bot, 10, NEW), stretch(bot, 3, OLD)])
    windows = Windows(bot, OLD, NEW, WINDOW, 0)
    found = [window for row in rows for window in windows.feed(row[None])]
    assert [(w.who, w.counted, w.fell) for w in [*found, *windows.finish()]] == [("new", 9, ""), ("old", 3, "old")]
    windows = Windows(bot, OLD, NEW, WINDOW, SETTLE)
    found = [window for row in rows for window in windows.feed(row[None])]
    assert [(w.who, w.fell) for w in [*found, *windows.finish()]] == [("new", ""), ("old", "new")]


def test_a_whole_window_comes_out_with_the_next_drivers_first_tick(bot):
    rows = flight(stretch(bot, 10, OLD), stretch(bot, 10, NEW))
    windows = Windows(bot, OLD, NEW, WINDOW, SETTLE)
    assert windows.feed(rows[:10]) == []
    assert len(windows.feed(rows[10:11])) == 1


# Pairs


def test_neighbours_become_pairs_and_each_window_is_used_once(bot):
    order = [whole(who, reward) for who, reward in (("new", 0.5), ("old", 0.2), ("old", 0.3), ("new", 0.7), ("old", 0.1))]
    paired = pairs(order)
    assert [(pair.old.reward, pair.new.reward) for pair in paired.pairs] == [(0.2, 0.5), (0.3, 0.7)]
    assert [pair.gain for pair in paired.pairs] == pytest.approx([0.3, 0.4])
    assert (paired.void, paired.unlike, paired.alone) == (0, 0, 1)


def test_a_void_window_is_passed_over(bot):
    paired = pairs([whole("old"), whole("new", void="no fresh frame"), whole("new"), whole("new")])
    assert (len(paired.pairs), paired.void, paired.alone) == (1, 1, 1)


def test_pairs_that_were_asked_for_something_else_are_dropped(bot):
    """A lap forth and back has the mean of standing still, but not its magnitude."""
    standing, driving = stretch(bot, 10, OLD), stretch(bot, 10, NEW, speed_target_m_s=[0.3, -0.3] * 5)
    paired = pairs(cut(bot, flight(standing, driving, stretch(bot, 1, OLD))))
    assert (paired.pairs, paired.unlike) == ((), 1)
    nearly = stretch(bot, 10, NEW, speed_target_m_s=0.09, yaw_rate_target_rad_s=-0.09)
    assert len(pairs(cut(bot, flight(standing, nearly, stretch(bot, 1, OLD)))).pairs) == 1


def test_what_was_asked_for_is_in_the_window(bot):
    window = cut(bot, flight(stretch(bot, 10, OLD, speed_target_m_s=0.5, yaw_rate_target_rad_s=-1.0), stretch(bot, 1, NEW)))[0]
    assert window.references == pytest.approx((0.5, -1.0, 0.5, 1.0))


def test_a_robot_that_nobody_asks_for_anything_is_always_alike(bot):
    """Without rewards and observations of a target."""
    terms = tuple(entry for entry in bot.observations if "target" not in entry.term)
    free = dataclasses.replace(bot, observations=terms, rewards=tuple(entry for entry in bot.rewards if entry.term == "alive"))
    found = cut(free, flight(stretch(free, 10, OLD), stretch(free, 10, NEW), stretch(free, 1, OLD)))
    assert found[0].references == ()
    assert len(pairs(found).pairs) == 1


def test_every_target_that_a_robot_can_see_is_compared():
    assert set(REFERENCES) == {name for name, term in TERMS.items() if "asked for" in term.meaning}


# What cannot be read


def test_records_of_another_robot_are_refused(bot, rover):
    with pytest.raises(LogError, match="balance_bot: a record of .* bytes was expected"):
        Windows(bot, OLD, NEW, WINDOW, SETTLE).feed(stretch(rover, 3))


def test_a_window_that_only_settles_and_a_trial_of_one_are_refused(bot):
    with pytest.raises(LogError, match="10 ticks to settle leave nothing of a window of 10"):
        Windows(bot, OLD, NEW, 10, 10)
    with pytest.raises(LogError, match="a trial needs two"):
        Windows(bot, OLD, OLD, 10, 3)


@pytest.mark.slow
def test_a_report_on_a_robot_needs_no_torch():
    done = on_a_robot("import edge_dsac.learn.windows, edge_dsac.learn.sequential")
    assert done.returncode == 0, done.stderr
