"""The tuner, whole, on a made-up robot: rows in, learning, a candidate out, what its trial says, and all of it after a kill."""

import dataclasses
import shutil

import numpy as np
import pytest
from tuning_fixture import MadeUpFlights, TuneDesk, flown, made_up_rows_of, policy_of, same_bits, same_state, small_carried

from edge_dsac.bundle.package import read_bundle
from edge_dsac.bundle.slot_folder import NOT_TRIED, Outcome, SlotsError, Stage
from edge_dsac.learn.carried import digest, read_carried
from edge_dsac.learn.course import Course, TunerStop
from edge_dsac.learn.envelope import FALLS, LEAST, habit
from edge_dsac.learn.evidence import Limits
from edge_dsac.learn.gatekeeper import seen_by
from edge_dsac.learn.guiding import Guidance
from edge_dsac.learn.tuner import Tuner
from edge_dsac.learn.windows import Window
from edge_dsac.records import Mode
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.steplog.follow import Chunk

pytestmark = pytest.mark.slow  # torch takes seconds before its first gradient

EASY = Limits(least_observations=20, least_blocks=2)
EAGER = Course(
    first_s=2.0, updates_per_row=1000.0, first_updates=20, candidate_updates=20, window_s=0.5, settle_s=0.1, approach_s=0.0, pairs=6,
    limits=EASY,
)  # fmt: skip
NEVER = dataclasses.replace(EAGER, first_updates=1 << 40)


@pytest.fixture
def desk(bot, tmp_path):
    """A robot that has flown 15 s: three held-out seconds of it."""

    def made(course=EAGER, seconds=15, **tuning):
        desk = TuneDesk(
            tmp_path, bot, MadeUpFlights(), course, **{"actor_lr": 3e-3, "critic_lr": 1e-6, "actor_every": 1, "real_share": 1.0, **tuning}
        )
        if seconds:
            desk.flights.add(flown(bot, seconds * bot.rates.control_hz, desk.tuner.current.identity))
        return desk

    return made


@pytest.fixture
def proposed(desk):
    def made(**more):
        ready = desk(**more)
        for _ in range(8):
            ready.tuner.improve()
            if ready.tuner.attempt is not None:
                return ready
        raise AssertionError(ready.session.of("refused")[:1])

    return made


def window(who, reward, **more):
    plain = Window(who, 0, 50, 40, "", reward, 0.1, 0.1, 0.01, 0.0, (0.0,) * 4)
    return dataclasses.replace(plain, **more)


def windows(gain, count=12):
    """Pairs in which the new one earns so much more, give or take."""
    return [window(who, 0.5 + 0.01 * (k % 3) + gain * (who == "new")) for k in range(count) for who in ("old", "new")]


def begin(desk, stage=Stage.BEGUN, why=""):
    identity = desk.tuner.attempt.identity
    desk.slots.record(Outcome(identity, stage, why, {"windows": 3}))
    return identity


# ---- in


def test_what_was_flown_comes_in_and_is_learned_from(desk):
    ready = desk(NEVER)
    assert ready.tuner.improve() == "learned"
    assert len(ready.buffer) == 15 * ready.spec.rates.control_hz - 1  # of the last step nobody knows what came of it
    assert ready.learner.updates == 5
    assert ready.session.of("round") == [{"event": "round", "round": 1, "rows": len(ready.buffer)}]
    layout = ObservationLayout(ready.spec)
    assert np.allclose(ready.buffer.rows.obs[7], flown(ready.spec, 8)["obs"][7] * layout.scale)
    assert set(ready.buffer.rows.flight.tolist()) == {7}


def test_learning_waits_for_the_first_seconds(desk):
    hz = 0
    ready = desk(NEVER, seconds=0)
    hz = ready.spec.rates.control_hz
    assert ready.tuner.improve() == "waits for rows"
    ready.flights.add(flown(ready.spec, 2 * hz))
    assert ready.tuner.improve() == "waits for rows"  # one row is missing
    ready.flights.add(flown(ready.spec, 1, begin=2 * hz))
    assert ready.tuner.improve() == "learned"


def test_no_more_updates_than_the_rows_allow(desk):
    ready = desk(dataclasses.replace(NEVER, updates_per_row=0.01))
    words = [ready.tuner.improve() for _ in range(6)]
    allowed = int(0.01 * len(ready.buffer)) // 5
    assert 1 <= allowed < 6
    assert words == ["learned"] * allowed + ["waits for rows"] * (6 - allowed)
    ready.flights.add(flown(ready.spec, 500, begin=15 * ready.spec.rates.control_hz))
    assert ready.tuner.improve() == "learned"


def test_a_flights_end_and_a_second_flight_are_two_flights(desk):
    ready = desk(NEVER, seconds=0)
    ready.flights.add(flown(ready.spec, 10), over=True).add(flown(ready.spec, 5), flight=8)
    ready.tuner.improve()
    assert ready.buffer.rows.flight.tolist() == [7] * 9 + [8] * 4
    assert ready.buffer.rows.index.tolist() == [*range(9), *range(4)]


def test_what_makes_no_row_is_counted(desk):
    ready = desk(NEVER, seconds=0)
    columns = flown(ready.spec, 20)
    columns["mode"][5:8] = Mode.COASTING
    ready.flights.add(columns, over=True)
    ready.tuner.improve()
    assert ready.tuner.dropped["coasted"] == 4
    assert len(ready.buffer) == 15


# ---- out


def test_a_candidate_is_a_child_of_the_current_policy(proposed):
    ready = proposed(recipe="last-layer")
    bundle, plan = ready.slots.candidate()
    parent = ready.slots.current()
    assert bundle.manifest.parent == parent.manifest.sha256
    assert bundle.manifest.version == parent.manifest.version + 1
    assert bundle.manifest.name == parent.manifest.name
    assert ready.tuner.attempt.identity == bundle.identity
    (noted,) = ready.session.of("candidate")
    assert noted["identity"] == f"{bundle.identity:016x}"
    assert noted["weights"] == digest(ready.learner.child()) == digest(read_carried(bundle.files, "child"))
    assert bundle.manifest.training["tuned"]["evidence"]["passed"] is True
    assert bundle.manifest.training["from"]["run"] == "nowhere"
    for (weight, bias), ours in zip(
        bundle.actor.layers[:-1], zip(*[iter(ready.carried.networks["actor"])] * 2, strict=False), strict=False
    ):
        assert same_bits((weight, bias), ours)  # the last layer alone may differ
    hz = ready.spec.rates.control_hz
    assert (plan.window_ticks, plan.settle_ticks, plan.pairs) == (hz // 2, hz // 10, 6)


def test_the_envelope_holds_what_was_seen_and_keeps_out_what_is_far_off(proposed):
    ready = proposed()
    _, plan = ready.slots.candidate()
    seen = flown(ready.spec, 15 * ready.spec.rates.control_hz)["obs"]
    low, high = np.array(plan.low), np.array(plan.high)
    assert (low <= seen.min(axis=0)).all()
    assert (high >= seen.max(axis=0)).all()
    layout = ObservationLayout(ready.spec)
    closed = [i for i, label in enumerate(layout.labels) if not label.startswith(("applied_action", "speed_target", "yaw_rate_target"))]
    anchors = ready.carried.anchors["obs"] / layout.scale
    widest = np.maximum(seen.max(axis=0), anchors.max(axis=0)) - np.minimum(seen.min(axis=0), anchors.min(axis=0))
    assert closed
    room = ready.tuner.course.envelope
    assert ready.tuner.course.envelope_lean < room
    lean = layout.labels.index("pitch_rad")
    own = np.quantile(seen[:, lean], [FALLS, 1.0 - FALLS])
    assert high[lean] - low[lean] <= (1.0 + 2.0 * ready.tuner.course.envelope_lean) * max(np.ptp(own), LEAST / layout.scale[lean]) + 1e-3
    assert plan.habit == habit(layout, ready.buffer.rows.obs)
    assert (high - low <= (1.1 + 2.0 * room) * widest + 0.08 * room / layout.scale)[closed].all()
    opened = [i for i in range(layout.size) if i not in closed]
    assert (high[opened] == layout.clip[opened]).all()
    assert (low[opened] == -layout.clip[opened]).all()


def test_the_next_candidate_waits_for_its_updates(proposed):
    ready = proposed()
    assert ready.session.of("round")[-1]["round"] == 4  # 20 updates, 5 a round
    for _ in range(8):
        assert ready.tuner.improve() == "learned"  # one is on trial: learning goes on, nothing else is proposed
    assert len(ready.session.of("candidate")) == 1


def test_what_the_gate_refuses_is_noted_and_never_reaches_the_folder(desk):
    ready = desk(dataclasses.replace(EAGER, limits=Limits(least_observations=1 << 30)))
    for _ in range(5):
        ready.tuner.improve()
    (noted,) = ready.session.of("refused")
    assert "too little data" in " ".join(noted["evidence"]["reasons"])
    assert ready.slots.candidate() is None
    assert ready.tuner.attempt is None
    assert not ready.session.of("candidate")


def test_an_actor_that_may_not_change_with_critics_that_have_no_choice_is_refused_by_the_gate(desk):
    ready = desk(course=dataclasses.replace(EAGER, guidance=Guidance(reach=0.0, least=0.0)), recipe="critic")
    for _ in range(5):
        ready.tuner.improve()
    assert len(ready.session.of("refused")) == 1
    assert ready.slots.candidate() is None


# ---- what the trial says


def test_better_in_its_windows_makes_the_candidate_the_current_policy(proposed):
    ready = proposed()
    identity = begin(ready)
    ready.tuner.attempt.windows = windows(+0.1)
    assert ready.tuner.improve() == "better"
    assert ready.slots.current().identity == identity == ready.tuner.current.identity
    assert ready.slots.candidate() is None
    (verdict,) = ready.session.of("verdict")
    assert (verdict["decision"], verdict["identity"], len(verdict["windows"])) == ("better", f"{identity:016x}", 24)
    assert ready.tuner.improve() == "learned"  # and learning goes on, on the new one


def test_after_an_acceptance_the_next_candidate_is_its_child(proposed):
    ready = proposed()
    accepted = begin(ready)
    ready.tuner.attempt.windows = windows(+0.1)
    ready.tuner.improve()
    for _ in range(60):
        ready.tuner.improve()
        if ready.tuner.attempt:
            break
    else:
        raise AssertionError(ready.session.of("refused")[-1])
    bundle, _ = ready.slots.candidate()
    assert bundle.manifest.parent == ready.slots.current().manifest.sha256
    assert ready.slots.current().identity == accepted


def test_worse_in_its_windows_drops_it_and_the_parent_drives_on(proposed):
    ready = proposed()
    parent = ready.slots.current_path.read_bytes()
    begin(ready)
    ready.tuner.attempt.windows = windows(-0.1)
    assert ready.tuner.improve() == "worse"
    assert ready.slots.candidate() is None
    assert ready.slots.current_path.read_bytes() == parent
    assert ready.tuner.attempt is None


@pytest.mark.parametrize(
    ("stage", "decision"), [(Stage.ABORTED, "worse"), (Stage.INTERRUPTED, "no evidence"), (Stage.OVER, "no evidence")], ids=str
)
def test_what_the_loop_ends_is_dropped_with_its_reason(proposed, stage, decision):
    ready = proposed()
    begin(ready, stage, "it leaned too far")
    if stage is not Stage.OVER:
        ready.tuner.attempt.windows = windows(+0.1)  # whatever it earned until then
    assert ready.tuner.improve() == decision
    assert ready.slots.candidate() is None
    (verdict,) = ready.session.of("verdict")
    assert stage is Stage.OVER or "it leaned too far" in verdict["why"]
    assert verdict["loop"] == {"windows": 3}


def test_a_candidate_that_somebody_took_away_is_given_up(proposed):
    ready = proposed()
    ready.slots.drop("a person's word")
    assert ready.tuner.improve() == "no evidence"
    assert ready.session.of("verdict")[0]["why"] == "a person's word"


def test_one_that_the_loop_takes_off_while_the_tuner_looks_is_worse_all_the_same(proposed, monkeypatch):
    ready = proposed()
    identity, plain = begin(ready), ready.slots.candidate

    def taken_off():
        ready.slots.record(Outcome(identity, Stage.ABORTED, "it leaned too far", {}))
        ready.slots.drop("aborted: it leaned too far", identity)
        return plain()

    monkeypatch.setattr(ready.slots, "candidate", taken_off)
    assert ready.tuner.improve() == "worse"


def test_falls_are_no_part_of_the_habit_of_a_trial(proposed):
    ready = proposed()
    rows = ready.buffer.rows
    fallen = type(rows)(*(np.array(column[-1:]) for column in rows))
    lying = fallen._replace(
        obs=fallen.obs + 3.0, done=np.ones(1, np.float32), t_host_ns=fallen.t_host_ns + 5_000_000_000, index=fallen.index + 500
    )
    before = ready.tuner.plan()
    ready.buffer.extend(lying)
    assert ready.tuner.plan() == before


def test_where_the_loop_would_not_try_a_candidate_the_session_ends_with_its_reason(proposed):
    """The next one would fare no better: a window that is no whole lap, a key that is not trusted."""
    ready = proposed()
    ready.slots.drop(NOT_TRIED + "a window of 400 ticks is not a whole number of laps")
    with pytest.raises(TunerStop, match="nothing to learn for: a window of 400 ticks"):
        ready.tuner.improve()
    assert ready.session.of("verdict")[0]["decision"] == "no evidence"


def test_while_it_flies_without_a_verdict_nothing_is_decided(proposed):
    ready = proposed()
    begin(ready)
    ready.tuner.attempt.windows = windows(+0.1, count=2)
    assert ready.tuner.improve() == "learned"
    assert ready.slots.candidate() is not None
    assert not ready.session.of("verdict")


def test_a_word_about_another_candidate_is_not_believed(proposed):
    ready = proposed()
    ready.slots.disk.put(
        ready.slots.folder / "outcome.json", b'{"candidate": "00000000000000ff", "stage": "aborted", "why": "", "details": {}}'
    )
    assert ready.tuner.improve() == "learned"
    assert ready.slots.candidate() is not None


def test_a_verdict_that_comes_too_late_drops_the_candidate_and_the_tuner_goes_on(proposed, monkeypatch):
    """Between the look at the outcome and the acceptance the loop's guard takes it off."""
    ready = proposed()
    identity = begin(ready)
    ready.tuner.attempt.windows = windows(+0.1)
    plain = ready.slots.accept

    def late(*words, **more):
        ready.slots.record(Outcome(identity, Stage.ABORTED, "it fell", {}))
        return plain(*words, **more)

    monkeypatch.setattr(ready.slots, "accept", late)
    ready.tuner.improve()
    assert ready.slots.current().identity != identity
    assert ready.slots.candidate() is None
    assert ready.tuner.improve() == "learned"


def test_windows_begin_behind_the_approach(proposed):
    ready = proposed(course=dataclasses.replace(EAGER, approach_s=0.3))
    begin(ready)
    old, new, hz = ready.tuner.current.identity, ready.tuner.attempt.identity, ready.spec.rates.control_hz
    at = 10_000
    for who, seconds in ((new, 0.2), (old, 0.4), (new, 0.3), (old, 0.5), (new, 0.5), (old, 0.1)):  # the first approach was broken off
        ticks = round(seconds * hz)
        ready.flights.add(flown(ready.spec, ticks, who, at, 0.1))
        at += ticks
        ready.tuner.improve()
    found = ready.tuner.attempt.windows
    begun = [10_000 + round(seconds * hz) for seconds in (0.9, 1.4)]
    assert [(window.who, window.first, window.void) for window in found[:2]] == [("old", begun[0], ""), ("new", begun[1], "")]


def test_windows_come_out_of_the_log_by_the_name_in_every_step(proposed):
    """The old one drives and leans, the new one drives upright, in turn; nobody hands the windows over."""
    ready = proposed()
    begin(ready)
    old, new, ticks = ready.tuner.current.identity, ready.tuner.attempt.identity, ready.spec.rates.control_hz // 2
    at, word = 10_000, ""
    for k in range(24):
        who = new if k % 4 in (0, 3) else old  # new first, then old first, and so on
        lean = (0.0 if who == new else 0.3) + 0.01 * (k % 5)
        ready.flights.add(flown(ready.spec, ticks, who, at, lean))
        at += ticks
        word = ready.tuner.improve()
        if word != "learned":
            break
    assert word == "better", ready.session.of("verdict")
    assert ready.slots.current().identity == new
    flew = ready.session.of("verdict")[0]["windows"]
    assert [one["who"] for one in flew[:4]] == ["new", "old", "old", "new"]
    assert {one["ticks"] for one in flew} == {ticks}


def test_a_candidate_that_is_not_the_plans_is_not_read(proposed):
    ready = proposed()
    ready.tuner.read_windows(ready.tuner.attempt, Chunk(7, flown(ready.spec, 200, 99, 5000), False))
    assert ready.tuner.attempt.reader is None


@pytest.mark.parametrize(("seconds_after", "ends"), [(0.5, True), (3.0, False)])
def test_a_tuner_whose_candidates_make_the_robot_fall_tries_no_other(proposed, seconds_after, ends):
    """One fall each, and `most_falls` is two; a fall long after a candidate is somebody else's."""
    ready = proposed()
    fallen, of = type(ready.buffer.rows)(*(np.array(column[-1:]) for column in ready.buffer.rows)), int(1e9 * seconds_after)
    for number in (1, 2):
        identity = begin(ready)
        later = fallen.t_host_ns + number * 10_000_000_000
        drove = fallen._replace(bundle_id=np.array([identity], np.uint64), t_host_ns=later, index=fallen.index + 2 * number)
        fell = fallen._replace(done=np.ones(1, np.float32), t_host_ns=later + of, index=fallen.index + 2 * number + 1)
        ready.buffer.extend(drove)
        ready.buffer.extend(fell)
        ready.tuner.attempt.windows = windows(-0.1)
        assert ready.tuner.improve() == "worse"
        if number == 1 or not ends:
            propose_another(ready)
    if ends:
        with pytest.raises(TunerStop, match="made the robot fall 2 times"):
            propose_another(ready)
        assert ready.slots.candidate() is None


def propose_another(ready):
    for _ in range(60):
        if ready.tuner.attempt is None:
            ready.tuner.improve()
    assert ready.tuner.attempt is not None


# ---- others' hands


def test_another_hand_on_the_folder_stops_the_tuner(proposed):
    ready = proposed()
    parent = ready.slots.current()
    other = policy_of(ready.spec, small_carried(ObservationLayout(ready.spec).size, 2, seed=9), 9, parent.manifest.sha256)
    _, plan = ready.slots.candidate()
    ready.slots.propose(other, plan)
    ready.slots.accept("a person's word", untried=True)
    with pytest.raises(TunerStop, match="another policy drives now"):
        ready.tuner.improve()
    assert read_bundle(ready.slots.current_path.read_bytes(), (), allow_unsigned=True).manifest.version == 9


def test_an_undo_stops_the_tuner(proposed):
    ready = proposed()
    begin(ready)
    ready.tuner.attempt.windows = windows(+0.1)
    ready.tuner.improve()
    ready.slots.undo()
    with pytest.raises(TunerStop, match="start a new session"):
        ready.tuner.improve()


def test_only_a_trial_that_has_begun_can_be_judged(proposed):
    """Slots.accept(judged): a sequential test may stop a trial early, but not before it began, nor one that was cut short."""
    ready = proposed()
    with pytest.raises(SlotsError, match="has not begun"):
        ready.slots.accept("too early", judged=True)
    for stage in (Stage.ABORTED, Stage.INTERRUPTED):
        begin(ready, stage)
        with pytest.raises(SlotsError, match=f"is {stage.value}"):
            ready.slots.accept("too late", judged=True)
    begin(ready, Stage.BEGUN)
    with pytest.raises(SlotsError, match="is begun"):
        ready.slots.accept("all windows flown?")
    assert ready.slots.accept("enough windows", judged=True).identity == ready.tuner.attempt.identity


# ---- after a kill


def test_a_round_that_the_journal_names_and_no_state_has_is_done_again(desk):
    ready = desk(NEVER)
    for _ in range(3):
        ready.tuner.improve()
    whole = ready.learner
    (ready.session.state_path(3)).unlink()  # killed before it was saved
    ready.killed()
    assert ready.tuner.number == 3
    assert [entry["round"] for entry in ready.session.of("round")] == [1, 2, 3]  # that one again, and not noted anew
    assert same_state(ready.learner, whole)
    assert ready.session.load().round == 3


def test_a_session_that_is_whole_goes_on_where_it_was(desk):
    ready = desk(NEVER)
    for _ in range(3):
        ready.tuner.improve()
    whole = ready.learner
    ready.killed()
    assert same_state(ready.learner, whole)
    assert ready.tuner.improve() == "learned"
    assert [entry["round"] for entry in ready.session.of("round")] == [1, 2, 3, 4]


def test_the_first_round_too_is_done_again(desk):
    ready = desk(NEVER)
    ready.tuner.improve()
    whole = ready.learner
    ready.session.state_path(1).unlink()
    ready.killed()
    assert same_state(ready.learner, whole)


@pytest.mark.parametrize("lost", ["two states", "rows"])
def test_where_more_is_missing_than_one_round_the_tuner_says_so(desk, lost):
    ready = desk(NEVER)
    for _ in range(3):
        ready.tuner.improve()
    ready.session.state_path(3).unlink()
    if lost == "two states":
        ready.session.state_path(2).unlink()
    else:
        ready.buffer.extend(ready.tuner.transitions.feed(flown(ready.spec, 5, begin=15 * ready.spec.rates.control_hz)))
    with pytest.raises(TunerStop, match="start a new session"):
        ready.killed()


def test_a_candidate_on_trial_is_found_again(proposed):
    ready = proposed()
    identity = ready.tuner.attempt.identity
    ready.killed()
    assert ready.tuner.attempt.identity == identity
    assert ready.tuner.asked_at == 20
    begin(ready)
    ready.tuner.attempt.windows = windows(+0.1)
    assert ready.tuner.improve() == "better"
    assert ready.slots.current().identity == identity


def test_somebody_elses_candidate_is_not_taken_for_ours(desk):
    ready = desk(NEVER)
    ready.tuner.improve()
    parent = ready.slots.current()
    other = policy_of(ready.spec, small_carried(ObservationLayout(ready.spec).size, 2, seed=9), 9, parent.manifest.sha256)
    ready.slots.propose(other, ready.tuner.plan())
    assert ready.killed().tuner.attempt is None


class Killed(BaseException):
    pass


def dies(*words, **more):
    raise Killed


@pytest.mark.parametrize("instant", ["before", "after"])
def test_killed_while_it_proposes_it_knows_its_candidate_or_has_none(desk, monkeypatch, instant):
    ready = desk()
    plain = ready.slots.propose

    def dying(data, plan):
        if instant == "after":
            plain(data, plan)
        raise Killed

    with monkeypatch.context() as context:
        context.setattr(ready.slots, "propose", dying)
        for _ in range(3):
            ready.tuner.improve()
        with pytest.raises(Killed):
            ready.tuner.improve()
    ready.killed()
    flying = ready.slots.candidate()
    assert (flying is not None) == (instant == "after")
    assert (ready.tuner.attempt.identity if ready.tuner.attempt else None) == (flying[0].identity if flying else None)


@pytest.mark.parametrize(("gain", "word"), [(+0.1, "better"), (-0.1, "worse")])
def test_killed_after_the_verdict_was_noted_it_does_what_was_decided(proposed, monkeypatch, gain, word):
    """A verdict is given once: the trial that it ended is not judged anew, on windows that are gone."""
    ready = proposed()
    identity = begin(ready)
    ready.tuner.attempt.windows = windows(gain)
    with monkeypatch.context() as dying:
        dying.setattr(ready.slots, "accept", dies)
        dying.setattr(ready.slots, "drop", dies)
        with pytest.raises(Killed):
            ready.tuner.improve()
    assert ready.slots.candidate() is not None
    ready.killed()
    assert ready.slots.candidate() is None
    assert (ready.slots.current().identity == identity) == (word == "better")
    assert ready.tuner.attempt is None
    assert ready.tuner.current.identity == ready.slots.current().identity
    assert len(ready.session.of("verdict")) == 1


def test_killed_between_a_round_and_its_candidate_the_candidate_has_the_same_weights(desk, proposed, monkeypatch, tmp_path):
    unharmed = proposed()
    wanted = unharmed.session.of("candidate")[0]["weights"]
    unharmed.let_go()
    shutil.rmtree(tmp_path / "slots")
    shutil.rmtree(tmp_path / "session")
    ready = desk()
    with monkeypatch.context() as context:
        context.setattr(Tuner, "propose", dies)
        while not ready.tuner.course.first_updates <= ready.learner.updates + ready.learner.tuning.round_updates:
            ready.tuner.improve()
        with pytest.raises(Killed):
            ready.tuner.improve()
    assert not ready.session.of("candidate")
    ready.killed()
    assert ready.session.of("candidate")[0]["weights"] == wanted
    assert ready.tuner.attempt is not None


def test_a_session_goes_on_after_its_child_was_accepted_and_on_nobody_elses_policy(proposed):
    ready = proposed()
    begin(ready)
    ready.tuner.attempt.windows = windows(+0.1)
    assert ready.tuner.improve() == "better"
    child = ready.slots.current().identity
    assert ready.killed().tuner.current.identity == child
    ready.slots.undo()  # the parent is of the session
    assert ready.killed().tuner.current.manifest.version == 3
    stranger = policy_of(ready.spec, small_carried(ObservationLayout(ready.spec).size, 2, seed=9), 9, ready.slots.current().manifest.sha256)
    ready.slots.propose(stranger, ready.tuner.plan())
    ready.slots.accept(untried=True)
    with pytest.raises(TunerStop, match="not of this session"):
        ready.killed()


def test_a_child_is_judged_where_the_policy_that_drives_has_been(bot):
    rows = made_up_rows_of(4000, hz=100.0)
    limits = Limits(least_observations=200, least_blocks=5)
    own = np.zeros(4000, bool)
    own[1000:] = True
    rows = rows._replace(bundle_id=np.where(own, np.uint64(9), np.uint64(7)))
    seen = seen_by(rows, 9, limits)
    assert (seen.bundle_id == 9).all()
    assert len(seen.reward) == 3000
    assert len(seen_by(rows, 8, limits).reward) == 4000  # has not driven yet: all there is
    few = rows._replace(bundle_id=np.where(np.arange(4000) >= 3900, np.uint64(9), np.uint64(7)))
    assert len(seen_by(few, 9, limits).reward) == 4000  # nor long enough
