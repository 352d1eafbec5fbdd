"""A candidate on trial: who drives when, what ends it at once, and what the folder knows afterwards."""

import json
import math
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from bundle_fixture import KEY, OTHER_KEY
from sim_flight import SimFlight, balancing_actor
from test_bundle_slots import CHILD, FIRST, GRANDCHILD, SIZE, opened, policy
from test_loop_control import PERIOD_NS, SPEC, FakeBoard, FakeLog

from edge_dsac.bundle.manifest import BundleError
from edge_dsac.bundle.numpy_engine import NumpyMlp
from edge_dsac.bundle.package import read_bundle
from edge_dsac.bundle.slot_folder import Stage
from edge_dsac.bundle.slots import Slots, create_slots
from edge_dsac.bundle.trial_plan import Habit, TrialPlan
from edge_dsac.loop.candidates import Candidates
from edge_dsac.loop.cockpit import NearCockpit
from edge_dsac.loop.control import ControlLoop
from edge_dsac.loop.exercise import Exercise, Lap, Leg
from edge_dsac.loop.flight import fly
from edge_dsac.loop.limiter import Limiter
from edge_dsac.loop.observer import Observer
from edge_dsac.loop.pacer import Pacer
from edge_dsac.loop.slot import Slot
from edge_dsac.loop.stager import Stager
from edge_dsac.loop.trial import RESTLESS_FOR, Seat, Trial
from edge_dsac.records import BoardMode, Fault, Mode, Rule

OLD, NEW = 1, 2
WIDE = {"low": (-1000.0,) * SIZE, "high": (1000.0,) * SIZE}


class Constant:
    def __init__(self, bundle_id, value=0.0):
        self.bundle_id, self.value, self.asked = bundle_id, np.array([value, 0.0]), 0

    def act(self, obs):
        self.asked += 1
        return self.value


class Person:
    """An overlay that drives while it is told to."""

    rules = 0

    def over(self, action):
        return action


class Rig:
    """A loop on a fake board, running, with a seat for trials."""

    def __init__(self, exercise=None, fade_ticks=3):
        self.board, self.log = FakeBoard(), FakeLog()
        self.old, self.seat, self.person = Constant(OLD), Seat(exercise), Person()
        self.slot = Slot(self.old, fade_ticks)
        self.slot.overlays = (self.person,)
        self.loop = ControlLoop(SPEC, self.board, Observer(SPEC), self.slot, Limiter(SPEC), self.log, clock=self.board.clock)
        self.loop.aides = (self.seat,) if exercise is None else (self.seat, exercise)
        self.pacer = Pacer(PERIOD_NS, self.board.clock, self.board.sleep)
        self.pacer.start()

    def ticks(self, count=1):
        for _ in range(count):
            self.loop.tick(self.pacer.wait())
            self.loop.between_ticks(self.pacer, 400_000, 5_000_000)
        return self

    def silent(self, count):
        """So many ticks without a frame."""
        self.board.silent = True
        self.ticks(count)
        self.board.silent = False
        return self

    def running(self):
        self.loop.arm()
        self.ticks(6)
        assert self.loop.modes.mode == Mode.RUNNING
        return self

    def offer(self, plan, new=None):
        self.trial = Trial(self.old, new or Constant(NEW), plan)
        self.seat.offered = self.trial
        return self

    def drove(self):
        return [step.bundle_id for step in self.log.steps]


def plan_of(window=5, pairs=3, **more):
    return TrialPlan(window_ticks=window, pairs=pairs, **{"settle_ticks": 1, **WIDE, **more})


def seed_with(first_new, pairs=1):
    return next(seed for seed in range(100) if plan_of(pairs=pairs, seed=seed).order()[0] is first_new)


def test_the_windows_are_flown_as_the_plan_says_and_then_the_old_one_drives():
    plan = plan_of(window=5, pairs=4, seed=3)
    rig = Rig().running().offer(plan).ticks(200)
    trial = rig.trial
    assert trial.stage == Stage.OVER
    drove = rig.drove()
    for new, first in zip(plan.order(), trial.starts, strict=True):
        assert drove[first : first + 5] == [NEW if new else OLD] * 5
        assert all(step.mode == Mode.RUNNING for step in rig.log.steps[first : first + 5])
    assert trial.starts == sorted(trial.starts)
    assert drove.count(NEW) == 4 * 5
    assert set(drove[trial.starts[-1] + 5 :]) == {OLD}
    assert rig.slot.engine is rig.old
    assert rig.seat.trial is None
    assert rig.seat.ended is trial
    assert [window["first"] for window in trial.details()["windows"]] == trial.starts


def test_each_window_begins_with_a_fade():
    rig = Rig().running().offer(plan_of(window=10, pairs=1, seed=seed_with(True)), Constant(NEW, 0.3)).ticks(40)
    first = rig.trial.starts[0]
    assert [float(step.action[0]) for step in rig.log.steps[first : first + 5]] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.3])
    assert [bool(Rule.BLEND & Rule(step.command.rules)) for step in rig.log.steps[first : first + 4]] == [True, True, False, False]


def test_before_the_robot_runs_the_old_one_is_in_the_slot():
    rig = Rig().offer(plan_of(seed=seed_with(True))).ticks(50)
    assert set(rig.drove()) == {OLD}
    assert rig.trial.ticks == 0


def test_a_lost_frame_now_and_then_belongs_to_a_window():
    rig = Rig().running().offer(plan_of(window=10, pairs=1, seed=seed_with(True))).ticks(6)
    begun = rig.trial.starts[0]
    rig.silent(1)
    assert (rig.trial.voids, rig.trial.coasted, rig.trial.starts[0]) == (0, 1, begun)
    rig.ticks(40)
    assert (rig.trial.stage, rig.trial.voids, rig.trial.starts[0]) == (Stage.OVER, 0, begun)


def test_a_window_with_too_many_lost_frames_is_flown_again_from_its_start():
    rig = Rig().running().offer(plan_of(window=10, pairs=1, seed=seed_with(True), max_coasted_share=0.2)).ticks(6)
    begun = rig.trial.starts[0]
    rig.silent(1).ticks(1).silent(2)
    rig.ticks(40)
    assert (rig.trial.stage, rig.trial.voids) == (Stage.OVER, 1)
    again = rig.trial.starts[0]
    assert again == begun + 10  # it was flown to its end, so that whoever reads the log cuts where the loop did
    assert all(step.fresh for step in rig.log.steps[again : again + 10])
    assert rig.drove()[again : again + 10] == [NEW] * 10


def test_windows_are_not_repeated_without_end():
    plan = plan_of(window=10, pairs=1, seed=seed_with(True), max_voids=2, max_coasted_share=0.1)
    rig = Rig().running().offer(plan)
    for _ in range(50):
        rig.ticks(4).silent(1)
    assert rig.trial.stage == Stage.INTERRUPTED
    assert "3 windows were not flown through, 2 may be" in rig.trial.why
    assert rig.drove().count(NEW) <= plan.most_new_ticks
    assert set(rig.drove()[-100:]) == {OLD}


def test_while_a_person_drives_the_window_waits_and_the_old_one_is_evaluated():
    rig = Rig().running().offer(plan_of(window=10, pairs=1, seed=seed_with(True))).ticks(6)
    assert rig.slot.engine.bundle_id == NEW
    rig.person.rules = int(Rule.HUMAN)
    rig.ticks(100)
    assert rig.trial.voids == 1
    assert set(rig.drove()[-99:]) == {OLD}
    rig.person.rules = 0
    rig.ticks(40)
    assert rig.trial.stage == Stage.OVER
    first = rig.trial.starts[0]
    assert not any(Rule.HUMAN & Rule(step.command.rules) for step in rig.log.steps[first : first + 10])


def test_a_person_voids_a_window_of_the_old_one_as_well():
    rig = Rig().running().offer(plan_of(window=10, pairs=1, seed=seed_with(False))).ticks(6)
    assert rig.trial.ticks > 0
    rig.person.rules = int(Rule.HUMAN)
    rig.ticks(30)
    assert (rig.trial.window, rig.trial.ticks, rig.trial.voids) == (0, 0, 1)


# ---- what ends it at once


def tripped(rig, ticks=30):
    """(index of the first step after the breach, the trial): the old one drives it, and from then on."""
    rig.ticks(ticks)
    assert rig.trial.stage == Stage.ABORTED, rig.trial.why
    last_new = max(i for i, who in enumerate(rig.drove()) if who == NEW)
    assert set(rig.drove()[last_new + 1 :]) <= {OLD}
    assert rig.slot.engine is rig.old
    assert not rig.slot.fading
    return last_new


def new_first(**more):
    return Rig().running().offer(plan_of(window=20, pairs=1, seed=seed_with(True), **more))


def leaning(board, g=4.0):
    """From now on gravity comes from the front: a pitch that grows as the filter believes it."""
    receive = board.receive

    def tilted():
        frame = receive()
        return frame and frame._replace(accel_m_s2=(-g, 0.0, 9.81))

    board.receive = tilted


def test_an_observation_outside_its_envelope_gives_the_wheel_back_at_the_next_tick():
    names = list(Observer(SPEC).layout.labels)
    low, high = [-1000.0] * SIZE, [1000.0] * SIZE
    low[0], high[0] = -0.02, 0.02
    assert names[0].startswith("pitch_rad")
    rig = new_first(low=tuple(low), high=tuple(high))
    rig.trial.new.value = np.array([0.3, 0.0])
    rig.ticks(4)
    leaning(rig.board)
    at = tripped(rig)
    assert rig.trial.why.startswith("pitch_rad is 0.0")
    assert "outside -0.02 to 0.02" in rig.trial.why
    beyond = [i for i, step in enumerate(rig.log.steps) if abs(step.obs.vector[0]) > 0.02]
    assert at == beyond[0]  # it acted on the first such observation, and on no second one
    assert np.array_equal(rig.log.steps[at + 1].action, rig.old.value)  # no fade from what is not trusted


def test_the_old_one_may_leave_the_envelope():
    low, high = [-1000.0] * SIZE, [1000.0] * SIZE
    low[0], high[0] = -0.02, 0.02
    rig = Rig().running().offer(plan_of(window=20, pairs=1, seed=seed_with(False), low=tuple(low), high=tuple(high))).ticks(4)
    leaning(rig.board)
    rig.ticks(10)
    assert rig.trial.stage is None


def test_an_answer_that_is_no_number_ends_the_trial():
    rig = new_first()
    rig.trial.new.value = np.array([math.nan, 0.0])
    tripped(rig)
    assert "no number" in rig.trial.why


def test_more_interventions_of_the_limiter_than_agreed_end_the_trial():
    class Shaking(Constant):
        def act(self, obs):
            self.asked += 1
            return np.array([1.0 if self.asked % 2 else -1.0, 0.0])

    rig = Rig().running().offer(plan_of(window=20, pairs=1, seed=seed_with(True), max_limited_share=0.25), Shaking(NEW))
    tripped(rig)
    assert "the limiter stepped in on 6 of a window's 20 ticks" in rig.trial.why


def test_a_larger_difference_from_the_old_one_than_agreed_ends_the_trial_and_only_where_it_is_asked_for():
    rig = Rig().running().offer(plan_of(window=20, pairs=1, seed=seed_with(True), max_action_shift=0.2), Constant(NEW, 0.3))
    tripped(rig)
    assert "0.3 from the old one's, at most 0.2 was agreed" in rig.trial.why
    free = Rig().running().offer(plan_of(window=20, pairs=1, seed=seed_with(True)), Constant(NEW, 0.3)).ticks(60)
    assert free.trial.stage == Stage.OVER


SHADOW = {"shadow_ticks": 10, "max_shadow_shift": 0.3}


def test_in_the_shadow_it_is_asked_and_does_not_drive_and_then_its_windows_begin():
    rig = Rig().running().offer(plan_of(window=5, pairs=2, seed=seed_with(True, 2), **SHADOW), Constant(NEW, 0.29))
    begun = len(rig.drove())
    rig.ticks(80)
    drove, trial = rig.drove(), rig.trial
    assert drove.index(NEW) == begun + 1 + 10  # the tick of the offer, and those in the shadow
    assert trial.stage == Stage.OVER
    assert drove.count(NEW) == 10
    assert trial.details()["shadow_shift"] == [pytest.approx(0.29), 0.0]


@pytest.mark.parametrize("value", [0.31, -0.31, math.nan, math.inf])
def test_what_answers_too_differently_in_the_shadow_never_drives(value):
    rig = Rig().running().offer(plan_of(**SHADOW), Constant(NEW, value)).ticks(60)
    assert rig.trial.stage == Stage.ABORTED
    assert "in the shadow" in rig.trial.why
    assert NEW not in rig.drove()
    assert rig.trial.new_ticks == 0
    json.dumps(rig.trial.details(), allow_nan=False)


def test_the_shadow_waits_while_the_robot_does_not_run_or_a_person_drives():
    rig = Rig().running().offer(plan_of(**SHADOW)).ticks(4)
    asked = rig.trial.new.asked
    rig.person.rules = int(Rule.HUMAN)
    rig.ticks(30)
    assert rig.trial.new.asked == asked == rig.trial.shadowed
    assert NEW not in rig.drove()
    rig.person.rules = 0
    rig.ticks(20)
    assert rig.trial.shadowed == 10
    assert NEW in rig.drove()


@pytest.mark.parametrize("before", [{"shadow_ticks": 7}, {"approach_ticks": 6}], ids=str)
def test_before_the_first_window_the_exercise_goes_on_and_with_it_it_begins_anew(before):
    exercise = Exercise(Lap((Leg(0.03, speed_m_s=0.1), Leg(0.02, speed_m_s=0.2))), 100)
    rig = Rig(exercise).running().offer(plan_of(window=5, **before))
    places = []
    for _ in range(10):
        rig.ticks()
        places.append(exercise.at)
    assert places == [1, 2, 3, 4, 0, 1, 2, 1, 2, 3]


# ---- the approach

APPROACH = {"approach_ticks": 9, "settle_ticks": 3}


def approaching(unusual=lambda loop: False, value=0.3, **more):
    rig = Rig().running().offer(plan_of(**{"window": 5, "pairs": 1, "seed": seed_with(False), **APPROACH, **more}), Constant(NEW, value))
    rig.trial.unusual = unusual
    return rig


def test_in_the_approach_its_share_rises_to_all_and_then_the_windows_begin():
    rig = approaching()
    begun = len(rig.drove()) + 2  # behind the tick of the offer, and the one that finds the robot running
    rig.ticks(40)
    drove, steps = rig.drove(), rig.log.steps
    assert drove[begun : begun + 10] == [NEW] * 9 + [OLD]
    assert [float(step.action[0]) for step in steps[begun : begun + 9]] == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.3, 0.3])
    assert all(Rule.BLEND & Rule(step.command.rules) for step in steps[begun : begun + 5])  # nobody is the author
    assert (rig.trial.stage, rig.trial.retreats) == (Stage.OVER, 0)
    assert rig.trial.starts[0] == begun + 9
    assert drove.count(NEW) == 9 + 5


def test_from_what_is_unusual_the_old_one_takes_over_at_once_and_it_begins_anew():
    strange = []
    rig = approaching(lambda loop: bool(strange))
    begun = len(rig.drove()) + 2
    rig.ticks(5)
    strange.append(True)
    rig.ticks(4)  # the fourth tick of the approach is the first that shows it
    strange.clear()
    rig.ticks(40)
    drove = rig.drove()
    assert drove[begun : begun + 5] == [NEW] * 4 + [OLD]
    first_old = begun + 4
    assert np.array_equal(rig.log.steps[first_old].action, rig.old.value)  # without a fade
    rest = drove[first_old:].index(NEW)
    assert rest >= 3 + 3  # while it was unusual, and then for as long as a robot takes to settle
    assert drove[first_old + rest : first_old + rest + 9] == [NEW] * 9
    assert (rig.trial.stage, rig.trial.retreats) == (Stage.OVER, 1)
    assert rig.trial.details()["retreats"] == 1


def test_not_again_and_again():
    rig = approaching(lambda loop: rig.trial.approached == 5, max_retreats=1)
    tripped(rig, 60)
    assert rig.trial.why == "the robot did what it usually does not at 56% of the approach, for the 2. time"
    assert rig.drove().count(NEW) == 2 * 6 <= rig.trial.plan.most_new_ticks


def test_a_robot_that_never_comes_to_rest_ends_the_trial_and_the_candidate_is_not_to_blame():
    """As where the habit was drawn from rows that are not this robot's: it would wait for ever."""
    rig = approaching(lambda loop: True)
    rig.ticks(400)
    assert (rig.trial.stage, rig.trial.retreats) == (Stage.INTERRUPTED, 0)
    assert rig.trial.why == "the robot does what it usually does not under the old policy, too"
    assert NEW not in rig.drove()
    patient = approaching(lambda loop: 1 <= patient.trial.restless < RESTLESS_FOR * (3 + 9) - 5)
    patient.ticks(400)
    assert patient.trial.stage == Stage.OVER


def test_an_approach_may_be_much_shorter_than_a_rest():
    rig = approaching(lambda loop: rig.trial.approached == 1 and not rig.trial.retreats, approach_ticks=3, settle_ticks=100, window=120)
    rig.ticks(800)
    assert (rig.trial.stage, rig.trial.retreats) == (Stage.OVER, 1)


def test_a_person_interrupts_an_approach_and_that_is_no_retreat():
    rig = approaching().ticks(5)
    rig.person.rules = int(Rule.HUMAN)
    rig.ticks(20)
    assert set(rig.drove()[-19:]) == {OLD}
    assert (rig.trial.approached, rig.trial.voids, rig.trial.retreats) == (0, 1, 0)
    rig.person.rules = 0
    rig.ticks(40)
    assert rig.trial.stage == Stage.OVER


@pytest.mark.parametrize(("wait", "stage"), [(1, Stage.ABORTED), (6, None)])
def test_a_fall_soon_after_a_retreat_is_its_doing_and_a_late_one_is_not(wait, stage):
    rig = approaching(lambda loop: rig.trial.approached == 4 or rig.trial.retreats > 0, settle_ticks=4)
    while not rig.trial.retreats:
        rig.ticks()
    rig.ticks(wait)
    rig.board.board = BoardMode.FAULT
    rig.ticks(2)
    assert rig.trial.stage == stage


def test_the_last_tick_of_an_approach_is_not_asked():
    """Who cuts the log into windows knows by the number of ticks alone that all went well: so it never ends in a retreat there."""
    rig = approaching(lambda loop: rig.trial.approached == APPROACH["approach_ticks"] - 1)
    rig.ticks(40)
    assert (rig.trial.stage, rig.trial.retreats) == (Stage.OVER, 0)


def test_unusual_is_what_does_not_go_together():
    """Each of two entries alone goes as far; they go up and down together."""
    spread = np.array([[1.0, 0.9], [0.9, 1.0]])
    whitening = np.linalg.cholesky(np.linalg.inv(spread))
    trial = Trial(Constant(OLD), Constant(NEW), plan_of(habit=Habit((1, 3), (0.5, 0.0), tuple(whitening.ravel().tolist()), 9.0)))

    def loop(a, b):
        return SimpleNamespace(obs=SimpleNamespace(vector=np.array([7.0, a, 7.0, b])))

    assert not trial.unusual(loop(0.5, 0.0))
    assert not trial.unusual(loop(0.5 + 2.5, 2.5))
    assert trial.unusual(loop(0.5 + 2.5, -2.5))
    assert trial.unusual(loop(0.5 + 4.5, 4.5))
    assert trial.unusual(loop(math.nan, 0.0))
    assert not Trial(Constant(OLD), Constant(NEW), plan_of()).unusual(loop(math.nan, 0.0))  # nothing was said about it


def test_a_board_fault_that_stops_nothing_ends_the_trial_too():
    rig = new_first().ticks(4)
    receive = rig.board.receive
    rig.board.receive = lambda: receive()._replace(faults=Fault.LOW_BATTERY | Fault.LIMITED)
    tripped(rig)
    assert rig.trial.why == "board fault LOW_BATTERY"


def test_a_latched_fault_in_its_window_is_the_candidates():
    rig = new_first().ticks(4)
    rig.board.board = BoardMode.FAULT
    rig.ticks(2)
    assert rig.trial.stage == Stage.ABORTED
    assert "FAULT (BOARD_FAULT) while it drove" in rig.trial.why


def timed_out(rig, faults=Fault.TIMEOUT, stalled_ns=0, busy_ns=0, ticks_until_told=0):
    """The board has heard nothing for too long and says so: after a pause between ticks, within the candidate's own work, or neither."""
    act = rig.trial.new.act
    rig.trial.new.act = lambda obs: (rig.board.sleep(busy_ns * 1e-9), act(obs))[1]
    rig.ticks(1)
    rig.trial.new.act = act
    rig.board.sleep(stalled_ns * 1e-9)
    rig.ticks(ticks_until_told)
    receive = rig.board.receive
    rig.board.receive = lambda: receive()._replace(faults=faults, board=BoardMode.DISARMED)
    return rig.ticks(1).trial


PATIENCE_NS = SPEC.rates.command_timeout_ms * 1_000_000


@pytest.mark.parametrize("ticks", [0, 1, 4])
def test_a_computer_that_left_the_loop_waiting_is_no_evidence_against_the_candidate(ticks):
    rig = new_first().ticks(4)
    receive = rig.board.receive
    trial = timed_out(rig, stalled_ns=PATIENCE_NS + 2 * PERIOD_NS, ticks_until_told=ticks)
    rig.ticks(20)
    assert rig.loop.modes.mode == Mode.DAMPED
    assert (trial.stage, trial.stalls, trial.voids) == (None, 1, 1)
    assert set(rig.drove()[-20:]) == {OLD}
    rig.board.receive = receive
    rig.loop.arm()
    rig.ticks(100)
    assert trial.stage == Stage.OVER  # its window was flown again
    assert trial.details()["stalls"] == 1


def test_what_happens_after_such_a_pause_is_the_candidates_again():
    rig = new_first().ticks(4)
    receive = rig.board.receive
    trial = timed_out(rig, stalled_ns=PATIENCE_NS + 2 * PERIOD_NS)
    rig.board.receive = receive
    rig.loop.arm()
    for _ in range(50):
        if rig.slot.engine is not trial.new:
            rig.ticks(1)
    assert rig.slot.engine is trial.new
    rig.board.board = BoardMode.FAULT
    rig.ticks(2)
    assert trial.stage == Stage.ABORTED


@pytest.mark.parametrize(
    "how",
    [
        {},  # nobody was late: commands got lost on their way
        {"busy_ns": PATIENCE_NS + 2 * PERIOD_NS},  # its own work took so long
        {"stalled_ns": PATIENCE_NS // 4},  # shorter than any silence that the board minds
        {"stalled_ns": PATIENCE_NS + 2 * PERIOD_NS, "ticks_until_told": 8},  # long ago
        {"stalled_ns": PATIENCE_NS + 2 * PERIOD_NS, "faults": Fault.TIMEOUT | Fault.TILT},  # it fell as well
    ],
)
def test_any_other_silence_in_its_window_is_the_candidates(how):
    trial = timed_out(new_first().ticks(4), **how)
    assert (trial.stage, trial.stalls) == (Stage.ABORTED, 0)


def test_a_fall_right_after_its_window_is_the_candidates_too_and_a_later_one_is_not():
    for waited, stage in ((2, Stage.ABORTED), (9, None)):
        rig = Rig().running().offer(plan_of(window=20, pairs=1, seed=seed_with(True), settle_ticks=5))
        while rig.trial.window == 0:
            rig.ticks(1)
        rig.ticks(waited)
        rig.board.board = BoardMode.FAULT
        rig.ticks(1)
        assert rig.trial.stage == stage
        assert rig.trial.why == ("FAULT (BOARD_FAULT) right after it drove" if stage else "")


def test_coasting_that_ends_damped_ends_the_trial():
    rig = new_first().ticks(4)
    rig.board.silent = True
    rig.ticks(SPEC.rates.max_coast_ticks + 2)
    assert rig.loop.modes.mode == Mode.DAMPED
    assert rig.trial.stage == Stage.ABORTED
    assert "COAST_EXHAUSTED" in rig.trial.why


def test_a_withdrawn_candidate_gives_the_wheel_back():
    rig = new_first().ticks(5)
    assert rig.slot.engine.bundle_id == NEW
    rig.seat.withdrawn = rig.trial
    rig.ticks(1)
    assert rig.slot.engine is rig.old
    assert rig.trial.stage == Stage.INTERRUPTED
    assert rig.trial.new_ticks <= 5


def test_a_new_current_policy_ends_the_trial_and_drives():
    rig = new_first().ticks(5)
    third = Constant(3)
    rig.slot.offer(third)
    rig.ticks(5)
    assert rig.trial.stage == Stage.INTERRUPTED
    assert rig.slot.engine is third
    assert NEW not in rig.drove()[-4:]


def test_an_exception_of_the_candidate_ends_the_flight_and_the_seat_knows_whose_it_was():
    class Broken(Constant):
        def act(self, obs):
            raise RuntimeError("engine broke")

    rig = Rig()
    rig.loop.arm()
    rig.offer(plan_of(seed=seed_with(True)), Broken(NEW))
    with pytest.raises(RuntimeError, match="engine broke"):
        fly(rig.loop, rig.pacer, SPEC, lambda: False, seconds=2.0)
    assert rig.board.board == BoardMode.DISARMED
    rig.seat.land(failed=True)
    assert rig.trial.stage == Stage.ABORTED
    assert "exception" in rig.trial.why


# ---- laps


def test_each_window_is_flown_on_whole_laps_from_their_start():
    lap = Lap((Leg(0.02), Leg(0.03, 0.5, 0.25)))
    exercise = Exercise(lap, 100)
    rig = Rig(exercise).running().offer(plan_of(window=10, pairs=3, max_coasted_share=0.0)).ticks(9)
    rig.silent(1).ticks(100)
    assert rig.trial.stage == Stage.OVER
    assert rig.trial.voids == 1
    column = list(Observer(SPEC).layout.labels).index("speed_target_m_s")
    for first in rig.trial.starts:
        asked = [float(step.obs.vector[column]) for step in rig.log.steps[first : first + 10]]
        assert asked == [0.0, 0.0, 0.5, 0.5, 0.5] * 2


@pytest.mark.parametrize("first_new", [True, False])
@pytest.mark.parametrize("before", range(5))
def test_a_trial_that_is_offered_in_the_middle_of_a_lap_begins_a_new_one(first_new, before):
    exercise = Exercise(Lap((Leg(0.02), Leg(0.03, 0.5, 0.25))), 100)
    rig = Rig(exercise).running().ticks(before).offer(plan_of(window=5, pairs=1, seed=seed_with(first_new))).ticks(40)
    column = list(Observer(SPEC).layout.labels).index("speed_target_m_s")
    for first in rig.trial.starts:
        asked = [float(step.obs.vector[column]) for step in rig.log.steps[first : first + 5]]
        assert asked == [0.0, 0.0, 0.5, 0.5, 0.5]


@pytest.mark.slow
def test_a_trial_allocates_nothing_that_stays():
    rig = Rig().running().offer(plan_of(window=50, pairs=200, max_action_shift=1.0))
    rig.log.append = lambda step: None
    rig.board.send = lambda command: None
    rig.ticks(200)
    tracemalloc.start()
    try:
        rig.ticks(50)
        before = tracemalloc.get_traced_memory()[0]
        rig.ticks(500)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert rig.trial.stage is None
    assert grown < 4096


# ---- the folder and the loop


class Field:
    """A folder of slots, a loop and the thread between them, by hand."""

    def __init__(self, tmp_path, lap_ticks=None):
        self.slots = create_slots(tmp_path / "slots", FIRST, [KEY.public])
        self.start(lap_ticks)

    def start(self, lap_ticks=None):
        self.rig = Rig()
        self.running = self.load(self.slots.current_path)
        self.rig.old = self.rig.slot.engine = self.running.engine
        cockpit = NearCockpit(self.rig.slot, self.rig.seat)
        stager = Stager(self.slots.current_path, self.load_current, cockpit)
        self.candidates = Candidates(self.slots, self.load, lambda: self.running.bundle.running, stager, cockpit, lap_ticks)
        self.rig.running()
        return self

    def load(self, path):
        bundle = read_bundle(path, [KEY.public])
        return SimpleNamespace(engine=Constant(bundle.identity), bundle=bundle)

    def load_current(self, path):
        self.running = self.load(path)
        return self.running.engine

    def look(self, ticks=1):
        self.candidates.look()
        self.rig.ticks(ticks)
        return self

    def last(self):
        return [event["event"] for event in self.slots.events()]


PLAN = plan_of(window=5, pairs=2, seed=seed_with(True, 2))
NAME = opened(CHILD).identity


@pytest.mark.slow
def test_a_candidate_is_tried_once_and_waits_for_its_verdict_under_the_old_one(tmp_path):
    field = Field(tmp_path)
    field.slots.propose(CHILD, PLAN)
    field.look(100)
    field.look(100)
    assert field.rig.drove().count(NAME) == 10
    assert field.slots.outcome().stage == Stage.OVER
    assert len(field.slots.outcome().details["windows"]) == 4
    assert field.slots.candidate() is not None
    field.start()  # another flight
    field.look(100)
    assert NAME not in field.rig.drove()
    field.slots.accept()
    field.look(3)
    assert field.rig.drove()[-1] == NAME
    field.slots.undo()
    field.look(3)
    assert field.rig.drove()[-1] == opened(FIRST).identity


@pytest.mark.slow
def test_the_folder_says_that_the_trial_has_begun_before_the_candidate_drives(tmp_path):
    field = Field(tmp_path)
    field.slots.propose(CHILD, PLAN)
    field.candidates.look()
    assert field.slots.outcome().stage == Stage.BEGUN
    assert NAME not in field.rig.drove()
    field.start()  # as after a power cut: nobody wrote how it ended
    field.look(100)
    assert NAME not in field.rig.drove()
    assert field.slots.outcome().stage == Stage.INTERRUPTED
    assert "did not end in order" in field.slots.outcome().why


@pytest.mark.slow
def test_an_aborted_candidate_is_gone_from_the_folder_with_the_reason(tmp_path):
    field = Field(tmp_path)
    field.slots.propose(CHILD, PLAN)
    field.look(4)
    field.rig.board.board = BoardMode.FAULT
    field.rig.ticks(1)
    field.rig.seat.land(failed=False)
    field.candidates.close()
    assert field.slots.candidate() is None
    assert field.slots.outcome().stage == Stage.ABORTED
    assert field.last()[-2:] == ["trial aborted", "dropped"]
    assert "FAULT" in field.slots.events()[-1]["why"]
    assert field.slots.current().identity == opened(FIRST).identity
    assert list(field.candidates.tried) == [f"{NAME:016x}"]


@pytest.mark.slow
def test_a_flight_that_ends_in_the_middle_leaves_the_candidate_and_says_so(tmp_path):
    field = Field(tmp_path)
    field.slots.propose(CHILD, PLAN)
    field.look(4)
    field.rig.seat.land(failed=False)
    field.candidates.close()
    assert field.slots.outcome().stage == Stage.INTERRUPTED
    assert field.slots.outcome().why == "the flight ended"
    assert field.slots.candidate() is not None


@pytest.mark.slow
def test_a_dropped_or_replaced_candidate_stops_driving_and_the_next_one_is_tried(tmp_path):
    field = Field(tmp_path)
    field.slots.propose(CHILD, PLAN)
    field.look(4)
    field.slots.propose(policy(5, 4, FIRST), PLAN)
    field.look(3)
    assert field.rig.drove()[-2:] == [opened(FIRST).identity] * 2
    field.look(100)
    assert field.rig.drove().count(opened(policy(5, 4, FIRST)).identity) == 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda slots: slots.candidate_path.write_bytes(policy(4, 4, FIRST, OTHER_KEY)), "not trusted here"),
        (lambda slots: slots.candidate_path.write_bytes(policy(5, 4, FIRST)), "is not the one that trial.json names"),
        (lambda slots: slots.candidate_path.write_bytes(b"half"), "candidate.policy"),
    ],
    ids=["a stranger's", "another", "damaged"],
)
def test_a_candidate_that_fails_a_check_is_dropped_untried(tmp_path, damage, reason):
    field = Field(tmp_path)
    field.slots.propose(CHILD, PLAN)
    damage(field.slots)
    field.look(50)
    assert set(field.rig.drove()) == {opened(FIRST).identity}
    assert not field.slots.candidate_path.exists()
    assert "not tried: " in field.slots.events()[-1]["why"]
    assert reason in field.slots.events()[-1]["why"]
    assert field.candidates.complaints


@pytest.mark.slow
def test_a_window_that_is_no_whole_number_of_laps_is_refused(tmp_path):
    field = Field(tmp_path, lap_ticks=4)
    field.slots.propose(CHILD, PLAN)
    field.look(50)
    assert "not a whole number of the exercise's laps of 4" in field.slots.events()[-1]["why"]


@pytest.mark.slow
def test_a_child_of_a_new_current_policy_waits_until_its_parent_drives(tmp_path):
    field = Field(tmp_path)
    field.slots.propose(CHILD, PLAN)
    field.look(100).look(1)
    field.slots.accept()
    field.slots.propose(GRANDCHILD, PLAN)
    field.look(3)  # takes the parent up
    assert field.rig.drove()[-1] == NAME
    field.look(100)
    assert field.rig.drove().count(opened(GRANDCHILD).identity) == 10


@pytest.mark.slow
def test_a_candidate_that_a_person_accepts_in_its_own_window_goes_on_driving(tmp_path):
    field = Field(tmp_path)
    field.slots.propose(CHILD, PLAN)
    field.look(4)
    assert field.rig.drove()[-1] == NAME
    field.slots.accept("I have seen enough", untried=True)
    field.look(5).look(5)
    assert set(field.rig.drove()[-5:]) == {NAME}
    assert field.candidates.tried[f"{NAME:016x}"]["verdict"].startswith("interrupted")


@pytest.mark.slow
def test_the_live_line_says_how_far_the_trial_is(tmp_path):
    from edge_dsac.watch.line import trial_of

    field = Field(tmp_path)
    assert trial_of(field.slots.folder, "") == ""
    field.slots.propose(CHILD, PLAN)
    field.candidates.look()
    name = f"{NAME:016x}"
    assert trial_of(field.slots.folder, name) == f"of {name[:8]}, the candidate drives"
    assert trial_of(field.slots.folder, "0" * 16) == f"of {name[:8]}, the current policy drives"
    field.look(100).look()
    assert trial_of(field.slots.folder, name) == f"of {name[:8]} over: all windows flown"
    assert json.loads((field.slots.folder / "outcome.json").read_text())["stage"] == "over"


def test_a_slots_reader_of_an_unknown_outcome_says_what_to_do(tmp_path):
    (tmp_path / "outcome.json").write_text('{"candidate": "zz"}')
    with pytest.raises(BundleError, match="drop the candidate"):
        Slots(tmp_path).outcome()


# ---- on the real firmware and a simulated robot that can fall


def trial_in_sim(gain, window, seed=0):
    """The cascaded PD as an actor on trial against itself with its last layer scaled by `gain`."""
    flight = SimFlight(SPEC, NumpyMlp(balancing_actor(SPEC)[1]), seed).running().ticks(200)
    low, high = flight.envelope(margin=2.0, least=0.05)
    plan = TrialPlan(window, 1, low, high, seed=seed_with(True), settle_ticks=20)
    seat, new = Seat(), NumpyMlp(balancing_actor(SPEC, gain, NEW)[1])
    trial = seat.offered = Trial(flight.loop.slot.engine, new, plan)
    flight.loop.aides = (seat,)
    return flight.ticks(2 * window + 100), trial


@pytest.mark.slow
def test_a_candidate_as_good_as_the_old_one_flies_its_windows():
    flight, trial = trial_in_sim(1.05, 60)
    assert trial.stage == Stage.OVER
    assert flight.up
    assert [step.bundle_id for step in flight.log.steps].count(NEW) == 60
    assert trial.voids == 0


@pytest.mark.slow
def test_a_candidate_that_steers_the_wrong_way_is_taken_off_before_the_robot_falls():
    flight, trial = trial_in_sim(-1.0, 200)
    assert trial.stage == Stage.ABORTED
    assert "outside" in trial.why
    assert 5 < trial.new_ticks < 150
    assert flight.up
    assert np.abs(flight.seen()[:, 0]).max() < 0.2  # the board lets go at 0.8
    assert flight.log.steps[-1].bundle_id == 1


@pytest.mark.slow
def test_without_the_guard_that_candidate_would_have_been_a_fall():
    flight = SimFlight(SPEC, NumpyMlp(balancing_actor(SPEC)[1])).running()
    flight.loop.slot.offer(NumpyMlp(balancing_actor(SPEC, -1.0, NEW)[1]))
    flight.ticks(300)
    assert not flight.up
