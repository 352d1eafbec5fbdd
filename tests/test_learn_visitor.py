"""A candidate that was made elsewhere: the same gate, the same trial, and after a kill the same."""

import pytest
from test_learn_tuner import EASY, begin, windows
from tuning_fixture import MadeUpFlights, flown, liked, policy_of, small_carried, with_one_opinion

from edge_dsac.bundle.slot_folder import SlotsError, Stage
from edge_dsac.bundle.slots import create_slots
from edge_dsac.learn.buffer import Buffer
from edge_dsac.learn.carried import carried_files
from edge_dsac.learn.course import Course, TunerStop
from edge_dsac.learn.session import Session
from edge_dsac.learn.visitor import Visit
from edge_dsac.spec.layout import ObservationLayout

pytestmark = pytest.mark.slow  # torch

COURSE = Course(window_s=0.5, settle_s=0.1, approach_s=0.0, pairs=6, limits=EASY)


class Home:
    """A robot that has flown 40 s under its own policy, and what came from the desktop."""

    def __init__(self, folder, bot, by=0.3, seconds=40):
        self.folder, self.spec = folder, bot
        self.carried = with_one_opinion(small_carried(ObservationLayout(bot).size, len(bot.actions)))
        self.slots = create_slots(folder / "slots", policy_of(bot, self.carried), allow_unsigned=True)
        self.parent = self.slots.current()
        self.data = policy_of(bot, liked(self.carried, by), version=4, parent=self.parent.manifest.sha256)
        self.flights = MadeUpFlights()
        self.flights.add(flown(bot, seconds * bot.rates.control_hz, self.parent.identity))
        self.arrive(resume=False)

    def arrive(self, resume=True):
        self.session = Session(self.folder / "session", {"candidate": "ab" * 32}, resume)
        self.buffer = Buffer(self.folder / "rows", self.parent.actor.sizes[0], self.parent.actor.sizes[-1], 60_000, fingerprint="00" * 16)
        self.tuner = Visit(self.slots, self.session, self.data, self.buffer, self.flights, COURSE)
        return self.tuner

    def killed(self):
        self.buffer.sync()
        self.buffer.close()
        self.session.close()
        return self.arrive()


@pytest.fixture
def home(bot, tmp_path):
    return lambda **more: Home(tmp_path, bot, **more)


def test_what_the_critics_like_is_tried_and_accepted_if_it_is_better(home):
    ready = home()
    assert ready.tuner.improve() == "proposed"
    identity = begin(ready)
    assert ready.slots.candidate()[0].identity == identity == ready.tuner.visitor.identity
    assert ready.tuner.improve() == "on trial"
    ready.tuner.attempt.windows += windows(0.3)
    assert ready.tuner.improve() == "better"
    assert ready.slots.current().identity == identity
    with pytest.raises(TunerStop, match="better: more reward"):
        ready.tuner.improve()
    assert [event["recipe"] for event in ready.session.of("candidate")] == ["made elsewhere"]


def test_what_is_worse_leaves_the_parent_where_it_is(home):
    ready = home()
    ready.tuner.improve()
    begin(ready, Stage.ABORTED, "it shook")
    assert ready.tuner.improve() == "worse"
    assert ready.slots.current().identity == ready.parent.identity
    assert ready.slots.candidate() is None


def test_what_its_own_critics_do_not_like_never_drives(home):
    ready = home(by=-0.3)
    with pytest.raises(TunerStop, match="refused before a trial: no gain by the critics"):
        ready.tuner.improve()
    assert ready.slots.candidate() is None
    with pytest.raises(TunerStop, match="refused before a trial"):
        ready.killed().improve()


def test_the_actor_that_would_drive_must_be_the_one_that_was_judged(home):
    ready = home()
    other = carried_files(liked(ready.carried, 0.6)).items()
    ready.data = policy_of(ready.spec, liked(ready.carried), version=4, parent=ready.parent.manifest.sha256, more=other)
    with pytest.raises(TunerStop, match=r"its actor and the one that its critics know differ by 0\.\d+ of an action"):
        ready.killed().improve()
    assert ready.slots.candidate() is None


def test_it_waits_until_the_robot_has_seen_enough(home):
    ready = home(seconds=3)
    assert ready.tuner.improve() == "waits for rows"
    hz = ready.spec.rates.control_hz
    ready.flights.add(flown(ready.spec, 37 * hz, ready.parent.identity, begin=3 * hz))
    assert ready.tuner.improve() == "proposed"


@pytest.mark.parametrize("settled", [False, True])
def test_a_killed_visit_finds_its_trial_again_and_a_verdict_that_was_not_carried_out(home, settled, monkeypatch):
    ready = home()
    ready.tuner.improve()
    if settled:
        begin(ready)
        ready.tuner.attempt.windows += windows(0.3)
        monkeypatch.setattr(ready.tuner, "settle", lambda *words: "killed here")
        ready.tuner.improve()
        assert ready.slots.current().identity == ready.parent.identity
    again = ready.killed()
    if not settled:
        assert again.attempt.identity == again.visitor.identity
        assert again.improve() == "on trial"
        return
    assert ready.slots.current().identity == again.visitor.identity
    with pytest.raises(TunerStop, match="better: more reward"):
        again.improve()


def test_what_is_no_child_of_what_drives_is_refused(home):
    ready = home()
    ready.data = policy_of(ready.spec, liked(ready.carried), version=4, parent="cd" * 32)
    with pytest.raises(SlotsError, match="was made from"):
        ready.killed().improve()
