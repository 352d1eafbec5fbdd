"""Planted bad candidates: what their logs are read for, how they are made, the truth's label and the counts; and two of them flown."""

import dataclasses
import json

import numpy as np
import pytest
from bad_candidates import NOT_BAD, WAYS, Family, families, make, poisoned
from bench_gate import arguments, planned, read_all
from flown_trial import LAP, Home, Stay, actor_bytes, falls_of, fly_parent, fly_straight, stay_of, try_out
from gate_report import figures, summary, table, truth_of
from test_tune_robot import robot_in
from tuning_fixture import flown, made_up_rows_of, small_carried

from edge_dsac.bundle.trial_plan import TrialPlan
from edge_dsac.learn.carried import read_carried
from edge_dsac.learn.course import Course
from edge_dsac.learn.transitions import Rows
from edge_dsac.loop.exercise import read_lap
from edge_dsac.records import Fault, Mode
from edge_dsac.spec.layout import ObservationLayout

OLD, NEW = 1, 2
WINDOW = 4


def plan_of(bot, new_first=True, pairs=2):
    clip = tuple(ObservationLayout(bot).clip.tolist())
    low = tuple(-value for value in clip)
    return next(
        plan
        for plan in (TrialPlan(WINDOW, pairs, low, clip, seed=seed, settle_ticks=1) for seed in range(64))
        if plan.order() == ((True, False) if new_first else (False, True)) * pairs
    )


def records_of(bot, drivers):
    """A step per letter: o and n drive, c and k are the same while the loop coasts."""
    records = flown(bot, len(drivers))
    records["bundle_id"] = [NEW if who in "nk" else OLD for who in drivers]
    records["mode"] = [Mode.COASTING if who in "ck" else Mode.RUNNING for who in drivers]
    return records


def late(bot, drivers, **more):
    stay = stay_of([records_of(bot, drivers)], NEW, plan_of(bot, **more))
    return stay.after_window


# ---- ticks after the window


def test_who_keeps_to_its_windows_was_never_too_long(bot):
    plan = plan_of(bot)
    stay = stay_of([records_of(bot, "ooo" + "nnnnoooo" * 2 + "ooooo")], NEW, plan)
    assert stay == Stay(8, 12, 0, 0, 0)
    assert late(bot, "oo" + "oooonnnn" * 2 + "oo", new_first=False) == 0


@pytest.mark.parametrize(
    ("drivers", "ticks"),
    [
        ("oo" + "nnnnn" + "oooo" + "nnnn" + "oooo", 1),  # the fifth tick of a window of four
        ("oo" + "nnnnoooo" * 2 + "nn", 2),  # after the last window
        ("nnnn" + "onno" + "oooo" + "nnnn" + "oooo", 2),  # inside the old one's
        ("nnkknnnn" + "oooo" + "nnnn" + "oooo", 0),  # coasted: this window is flown again
        ("nnkknnnnn" + "oooo" + "nnnn" + "oooo", 1),
        ("nn" + "ooo", 0),  # taken off early
    ],
)
def test_every_tick_in_a_window_that_is_not_its_own_is_counted(bot, drivers, ticks):
    assert late(bot, drivers) == ticks


@pytest.mark.parametrize(
    ("drivers", "ticks"),
    [
        ("oo" + "nnn" + "nnnnoooo" * 2 + "oo", 0),
        ("oo" + "n" + "ooo" + "nnn" + "nnnnoooo" * 2 + "oo", 0),  # it was taken off, and began anew
        ("oo" + "nnnn" + "nnnnoooo" * 2 + "oo", 1),
    ],
)
@pytest.mark.parametrize("length", [3, 6])
def test_an_approach_is_its_own_too_and_no_longer_than_planned(bot, drivers, ticks, length):
    """Shorter or longer than a window."""
    plan, drivers = dataclasses.replace(plan_of(bot), approach_ticks=length), drivers.replace("nnn", "n" * length, 1)
    assert stay_of([records_of(bot, drivers)], NEW, plan).after_window == ticks


def test_a_lost_frame_that_the_plan_allows_belongs_to_the_window(bot):
    plan = dataclasses.replace(plan_of(bot), max_coasted_share=0.5)
    assert stay_of([records_of(bot, "nnkn" + "oooo" + "nnnn" + "oooo")], NEW, plan).after_window == 0
    assert stay_of([records_of(bot, "nnkn" + "n" + "oooo" + "nnnn" + "oooo")], NEW, plan).after_window == 1


def test_after_a_breach_not_one_tick_more(bot):
    records, plan = records_of(bot, "oo" + "nnnn" + "oooo"), plan_of(bot)
    records["obs"][3, 0] = 2.0 * plan.high[0]
    assert stay_of([records], NEW, plan).after_breach == 2
    records["bundle_id"][4:6] = OLD
    assert stay_of([records], NEW, plan).after_breach == 0
    records["obs"][2:4, 0], records["faults"][2] = 0.0, Fault.TILT
    assert stay_of([records], NEW, plan).after_breach == 1
    records["faults"][2], records["mode"][2] = Fault.SLEWED, Mode.FAULT
    assert stay_of([records], NEW, plan).after_breach == 1
    records["mode"][2] = Mode.RUNNING
    assert stay_of([records], NEW, plan).after_breach == 0


def test_what_was_accepted_may_drive_on_and_no_other_flight_may_hold_it(bot):
    first, second, plan = records_of(bot, "oo" + "nnnn" + "nnnn"), records_of(bot, "onn"), plan_of(bot)
    assert stay_of([first, second], NEW, plan) == Stay(8, 8, 4, 0, 2)
    assert stay_of([first, second], NEW, plan, accepted=(0, 5)) == Stay(4, 4, 0, 0, 0)
    assert stay_of([records_of(bot, "oooo")], NEW, plan) == Stay(0, 0, 0, 0, 0)


# ---- whose fall


def fall(bot, drivers, hz=10):
    """The last step's frame tells of it."""
    records = records_of(bot, drivers)
    records["faults"][-1], records["mode"][-1] = Fault.TILT, Mode.FAULT
    return falls_of([records], NEW, hz)


def test_a_fall_is_its_who_drove_last_or_had_driven_half_a_second_before(bot):
    assert fall(bot, "oonnno") == [{"who": "new", "since_new_s": 0.1, "of_trial": True}]
    assert fall(bot, "oonnoooo") == [{"who": "old", "since_new_s": 0.4, "of_trial": True}]
    assert fall(bot, "oonnoooooo") == [{"who": "old", "since_new_s": 0.6, "of_trial": False}]
    assert fall(bot, "oooo") == [{"who": "old", "since_new_s": None, "of_trial": False}]


def test_a_fault_that_stays_is_one_fall_and_one_that_is_not_the_policys_is_none(bot):
    records = records_of(bot, "oonnnnnn")
    records["faults"][5:] = Fault.OVERSPEED
    assert len(falls_of([records, records_of(bot, "oo")], NEW, 10)) == 1
    records["faults"][5:] = Fault.LOW_BATTERY
    assert falls_of([records], NEW, 10) == []


# ---- how they are made


def test_two_hundred_are_planted_and_the_kinds_take_turns():
    every = families(["a", "b", "c", "d"], seed=1)
    assert sum(len(family.strengths) for family in every if family.planted) >= 200
    assert {family.kind for family in every[:16]} == set(WAYS) - set(NOT_BAD)
    assert {family.policy for family in every[:4]} == {"a", "b", "c", "d"}
    assert len({family.name(strength) for family in every for strength in family.strengths}) == sum(
        len(family.strengths) for family in every
    )
    picked = planned(arguments(["--planted", "200", "--others", "5"]))
    assert [family.planted for family, _ in picked] == [True] * 200 + [False] * 5


def test_a_wrong_sign_turns_the_means_of_the_named_action_alone(bot):
    parent = small_carried()
    rows = made_up_rows_of(40)
    made = next(iter(make(Family("a", "wrong-sign", "second"), parent, parent, rows, bot)))
    before, after = parent.networks["actor"], made.carried.networks["actor"]
    assert made.strength == -1.5
    assert np.allclose(after[-2][1], -1.5 * before[-2][1])
    assert np.allclose(after[-1][1], -1.5 * before[-1][1])
    assert np.array_equal(after[-2][[0, 2, 3]], before[-2][[0, 2, 3]])
    (same,) = make(Family("a", "no-change", "copy"), parent, parent, rows, bot)
    assert all(np.array_equal(one, other) for one, other in zip(same.carried.networks["actor"], before, strict=True))


def test_what_the_learner_is_told_is_wrong_as_named(bot):
    layout = ObservationLayout(bot)
    rows = made_up_rows_of(50, obs=layout.size)
    pitch, speed = layout.newest["pitch_rad"].start, layout.newest["speed_m_s"].start
    assert np.array_equal(poisoned("pitch-turned", rows, bot).obs[:, pitch], -rows.obs[:, pitch])
    assert np.array_equal(poisoned("pitch-turned", rows, bot).next_obs[:, pitch], -rows.next_obs[:, pitch])
    assert np.array_equal(poisoned("pitch-turned", rows, bot).obs[:, speed], rows.obs[:, speed])
    assert np.array_equal(poisoned("actions-late", rows, bot).act[5:], rows.act[:-5])
    assert np.array_equal(poisoned("negated", rows, bot).reward, -rows.reward)
    assert np.array_equal(poisoned("speed-alone", rows, bot).reward, np.abs(rows.next_obs[:, speed]))
    shuffled = poisoned("rewards-shuffled", rows, bot).reward
    assert sorted(shuffled) == sorted(rows.reward)
    assert not np.array_equal(shuffled, rows.reward)
    assert poisoned("frozen", rows, bot) is rows


@pytest.mark.slow
def test_a_learned_family_is_the_same_again_and_stops_where_no_more_is_needed(bot):
    layout = ObservationLayout(bot)
    parent, stranger = small_carried(layout.size), small_carried(layout.size, seed=3)
    rows = made_up_rows_of(200, obs=layout.size)
    family = Family("a", "stale-critic", "foreign", seed=2)
    once = list(make(family, parent, stranger, rows, bot, upto=50.0))
    again = list(make(family, parent, stranger, rows, bot, upto=50.0))
    assert [made.strength for made in once] == [50.0]
    ones, others = once[0].carried.networks["actor"], again[0].carried.networks["actor"]
    assert all(np.array_equal(one, other) for one, other in zip(ones, others, strict=True))
    assert not np.array_equal(ones[-2], parent.networks["actor"][-2])
    assert np.allclose(once[0].carried.networks["critics"][0], stranger.networks["critics"][0], atol=1e-6)  # they stood still


# ---- the truth, and the counts


def test_bad_is_worse_by_more_than_the_interval():
    parent = np.array([100.0, 110.0, 90.0, 105.0] * 10)
    wobble = np.tile([3.0, -3.0], 20)
    assert truth_of(parent, parent - 2.0 + wobble)["label"] == "bad"
    assert truth_of(parent, parent + 2.0 + wobble)["label"] == "good"
    assert truth_of(parent, parent - 0.5 + wobble)["label"] == "same"
    told = truth_of(parent, parent - 2.0 + wobble)
    assert told["gain"] == pytest.approx(-2.0)
    half = 2.02 * 3.0 * (40 / 39) ** 0.5 / 40**0.5
    assert told["interval"] == pytest.approx([-2.0 - half, -2.0 + half])


def row_of(name="a", **more):
    plain = {
        "name": name, "policy": "p", "kind": "wrong-sign", "planted": True, "gate": {"passed": False, "reasons": []}, "verdict": "worse",
        "drove_s": 1.0, "seconds_to_off": 2.0, "too_long": {"ticks": 9, "span": 9, "after_window": 0, "after_breach": 0, "in_other_flights": 0},
        "falls": [], "flown_s": 10.0, "drives_now": False, "truth": {"label": "bad"}, "straight": None,
    }  # fmt: skip
    return {**plain, **more}


def test_the_counts_are_of_what_happened():
    stayed = {"ticks": 9, "span": 9, "after_window": 0, "after_breach": 3, "in_other_flights": 1}
    rows = [
        row_of("a", too_long=stayed), row_of("b", verdict="better", drives_now=True, gate={"passed": True, "reasons": []}),
        row_of("c", falls=[{"who": "new", "since_new_s": 0.0, "of_trial": True}] * 2, straight={"fell": True, "seconds": 1.0}),
        row_of("d", falls=[{"who": "old", "since_new_s": 1.0, "of_trial": False}], truth=None),
        row_of("e", drives_now=True, planted=False, kind="no-change", truth={"label": "same"}),
    ]  # fmt: skip
    parents = {"p": {"falls": 3, "seconds": 60.0}}
    told = summary(rows, parents)
    assert (told["planted"], told["truth_known"], told["truth"]["bad"]) == (4, 3, 3)
    assert (told["stayed_active"], told["most_ticks_too_long"]) == (1, 4)
    assert (told["falls_by_trials"], told["trials_with_such_a_fall"], told["falls_later"], told["falls_in_all"]) == (2, 1, 1, 3)
    assert told["falls_of_parent_in_the_same_time"] == 2.0  # one in 20 s, for 40 s
    assert (told["accepted"], told["accepted_but_worse"], told["accepted_but_worse_percent"]) == (1, 1, 25.0)
    assert (told["refused_by_gate"], told["with_gate"]["candidates"], told["with_gate"]["accepted_but_worse"]) == (3, 1, 1)
    assert told["not_bad"]["stayed_active"] == 1  # it drives though nobody accepted it
    assert told["straight"] == {"flown": 1, "fell": 1}
    assert figures(rows[:1], parents)["verdicts"] == {"better": 0, "worse": 1, "no evidence": 0}
    assert "no-change" in table(told)


def test_the_report_reads_what_is_there_and_says_what_is_missing(tmp_path):
    family = Family("p", "wrong-sign", "first")
    wanted = [(family, -1.0), (family, -0.7)]
    assert read_all(tmp_path, wanted)["missing"] == 2
    name = family.name(-1.0)
    (tmp_path / f"{name}.json").write_text(json.dumps({key: value for key, value in row_of(name).items() if key != "truth"}))
    (tmp_path / f"{name}.truth.json").write_text(json.dumps({"label": "same"}))
    (tmp_path / "p.parent.json").write_text(json.dumps({"falls": 0, "seconds": 60.0}))
    told = read_all(tmp_path, wanted)
    assert told["missing"] == 1
    assert told["summary"]["truth"] == {"bad": 0, "same": 1, "good": 0}
    assert told["command"].startswith("python tools/bench_gate.py")


# ---- two of them, flown


@pytest.fixture(scope="module")
def home(bot, tmp_path_factory):
    """Weights that balance, with critics that know nothing: the gate is not what is tried here."""
    slots = robot_in(tmp_path_factory.mktemp("policy"), bot).slots
    current = slots.current()
    nothing = Rows(*(np.zeros(0) for _ in Rows._fields))
    made = Home("p", "nominal", bot, slots.current_path.read_bytes(), read_carried(current.files, "p"), nothing)
    rows, falls = fly_parent(made, tmp_path_factory.mktemp("rows"), 30.0, seed=5)
    assert falls == 0
    assert len(rows.reward) > 29 * bot.rates.control_hz
    return dataclasses.replace(made, rows=rows)


@pytest.mark.slow
def test_a_planted_wrong_sign_is_taken_off_at_once_and_alone_it_falls(home, tmp_path):
    *_, made = make(Family("p", "wrong-sign", "first"), home.carried, home.carried, home.rows, home.spec)
    row = try_out(home, made.carried, made.rows, tmp_path, seed=3, course=Course(pairs=2))
    assert (row["verdict"], row["drives_now"]) == ("worse", False)
    assert len(row["falls"]) <= 1  # a policy that balances as narrowly as this one is sometimes lost when it is given back
    assert all(fall["of_trial"] for fall in row["falls"])
    assert row["why"].startswith("aborted: ")
    assert 0.0 < row["drove_s"] < Course().approach_s  # never all the way
    assert row["too_long"]["after_window"] == row["too_long"]["after_breach"] == row["too_long"]["in_other_flights"] == 0
    assert not row["gate"]["passed"]
    assert fly_straight(home, actor_bytes(made.carried, home.spec), 3, 10.0)["fell"]
    assert not fly_straight(home, actor_bytes(home.carried, home.spec), 3, 1.0)["fell"]


@pytest.mark.slow
def test_a_copy_of_the_parent_flies_its_windows_and_is_not_accepted(home, tmp_path):
    (made,) = make(Family("p", "no-change", "copy"), home.carried, home.carried, home.rows, home.spec)
    tries = [try_out(home, made.carried, made.rows, tmp_path / str(seed), seed, Course(pairs=1)) for seed in (3, 4, 5)]
    assert not any(row["drives_now"] or row["falls"] for row in tries)
    # What is usual is where the robot is in all but one of a thousand ticks: now and then a copy is taken off for what its parent does.
    row = next(row for row in tries if row["verdict"] == "no evidence")
    lap_s = sum(leg.seconds for leg in read_lap(LAP).legs)
    assert lap_s == Course().window_s
    assert row["drove_s"] == Course().approach_s + lap_s
    assert (row["pairs"], row["falls"], row["drives_now"]) == (1, [], False)
