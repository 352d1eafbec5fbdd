"""A person takes over and gives back; an exercise asks for laps; exploration stays within its bounds and out of the way."""

import json
import math
import os
import socket
import threading

import numpy as np
import pytest
from test_loop_control import PERIOD_NS, SPEC, FakeBoard, FakeLog

from edge_dsac.cli.main import main
from edge_dsac.cli.takeover import send, send_for, send_lines, word_of_line
from edge_dsac.loop.control import ControlLoop
from edge_dsac.loop.exercise import LAPS, Exercise, Lap, Leg, read_lap
from edge_dsac.loop.exploration import Exploration, draw
from edge_dsac.loop.limiter import Limiter
from edge_dsac.loop.observer import Observer, Reference
from edge_dsac.loop.pacer import Pacer
from edge_dsac.loop.slot import Slot
from edge_dsac.loop.takeover import Listener, Takeover, TakeoverError, read_word
from edge_dsac.loop.trial import Seat
from edge_dsac.records import Mode, Rule
from edge_dsac.spec.schema import SpecError


class Quiet:
    bundle_id = 1
    asked = 0

    def act(self, obs):
        self.asked += 1
        return np.array([0.2, -0.2])


class Rig:
    def __init__(self, exercise=None, exploration=None, seat=None):
        self.board, self.log, self.engine = FakeBoard(), FakeLog(), Quiet()
        self.takeover = Takeover(2, 4, self.board.clock)
        slot = Slot(self.engine)
        slot.overlays = tuple(each for each in (exploration, self.takeover) if each)
        self.loop = ControlLoop(SPEC, self.board, Observer(SPEC), slot, Limiter(SPEC), self.log, clock=self.board.clock)
        self.loop.observer.set_reference(Reference(0.1, 0.0))
        self.loop.aides = tuple(each for each in (seat, exercise, self.takeover, exploration) if each)
        self.pacer = Pacer(PERIOD_NS, self.board.clock, self.board.sleep)
        self.pacer.start()
        self.loop.arm()
        self.ticks(6)
        assert self.loop.modes.mode == Mode.RUNNING

    def ticks(self, count=1):
        for _ in range(count):
            self.loop.tick(self.pacer.wait())
            self.loop.between_ticks(self.pacer, 400_000, 5_000_000)
        return self.log.steps[-1]

    def say(self, **table):
        self.takeover.receive(json.dumps(table).encode())


def rules_of(step):
    return Rule(step.command.rules)


def test_a_persons_action_replaces_the_policys_and_is_labelled():
    rig = Rig()
    assert not rules_of(rig.ticks()) & Rule.HUMAN
    rig.say(action=[-0.3, 0.1])
    step = rig.ticks()
    assert step.action == pytest.approx([-0.3, 0.1])
    assert rules_of(step) & Rule.HUMAN
    assert rig.takeover.taken == 1


def test_a_persons_action_passes_the_limiter():
    rig = Rig()
    rig.say(action=[-1.0, 0.0])
    step = rig.ticks()
    assert rules_of(step) & Rule.SLEW
    assert step.command.applied_action[0] > -1.0
    assert np.isfinite(step.command.command).all()


def test_a_word_counts_for_200_ms_and_the_policy_comes_back_without_a_jolt():
    rig = Rig()
    rig.say(action=[1.0, -0.2])
    asked = rig.engine.asked
    steps = [rig.ticks() for _ in range(40)]
    human = [bool(rules_of(step) & Rule.HUMAN) for step in steps]
    assert human.index(False) in (19, 20)  # of 10 ms
    assert not any(human[human.index(False) :])
    back = steps[human.index(False) :]
    assert [float(step.action[0]) for step in back[:6]] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.2])
    assert all(rules_of(step) & Rule.BLEND for step in back[:4])
    assert not rules_of(back[6])
    assert rig.engine.asked - asked == 40  # evaluated all the while


def test_a_person_who_goes_on_keeps_the_robot():
    rig = Rig()
    for _ in range(20):
        rig.say(action=[0.5, 0.0])
        assert all(rules_of(rig.ticks()) & Rule.HUMAN for _ in range(15))
    assert rig.takeover.taken == 1


def test_a_damped_robot_is_not_labelled_as_driven_by_a_person():
    rig = Rig()
    rig.say(action=[0.5, 0.0])
    rig.ticks()
    rig.board.silent = True
    assert rules_of(rig.ticks()) & Rule.HUMAN  # their last command is held
    rig.ticks(20)
    assert rig.loop.modes.mode == Mode.DAMPED
    assert rules_of(rig.ticks()) == Rule.DAMP
    rig.board.silent = False
    rig.ticks(100)
    rig.loop.arm()
    while rig.loop.modes.mode != Mode.RUNNING:
        step = rig.ticks()
    assert step.action == pytest.approx([0.2, -0.2])  # nothing is left of what the person wanted a second ago


def test_a_reference_is_tracked_by_the_policy_and_the_operators_comes_back():
    rig = Rig()
    rig.say(speed=0.4, yaw_rate=-0.5)
    rig.ticks(2)
    labels = list(rig.loop.observer.layout.labels)
    column = labels.index("speed_target_m_s")
    step = rig.ticks()
    assert step.obs.vector[column] == pytest.approx(0.4)
    assert step.obs.vector[labels.index("yaw_rate_target_rad_s")] == pytest.approx(-0.5)
    assert not rules_of(step) & Rule.HUMAN
    assert rig.ticks(30).obs.vector[column] == pytest.approx(0.1)


def test_a_reference_goes_over_an_exercise_which_goes_on_beneath():
    exercise = Exercise(Lap((Leg(0.15, 0.25), Leg(0.15, 0.75))), 100)
    rig = Rig(exercise)
    column = list(rig.loop.observer.layout.labels).index("speed_target_m_s")
    rig.say(speed=-0.5)
    rig.ticks()
    seen = []
    for _ in range(60):
        lap = exercise.references[exercise.at - 1].speed_target_m_s
        seen.append((float(rig.ticks().obs.vector[column]), lap))
    assert [asked for asked, _ in seen[:15]] == [-0.5] * 15
    assert all(asked == lap for asked, lap in seen[20:])
    assert all(asked in (-0.5, lap) for asked, lap in seen)  # not for one tick what was asked for when the person came


MALFORMED = [
    b"", b"{", b"[0.1, 0.1]", b"{}", b'{"action": [0.1]}', b'{"action": [0.1, 0.1, 0.1]}', b'{"action": [0.1, 1.1]}', b'{"action": [NaN, 0]}',
    b'{"action": [true, 0]}', b'{"action": "01"}', b'{"action": [0.1, null]}', b'{"action": [0, 0], "speed": 1}', b'{"speed": 6}', b'{"speed": "1"}',
    b'{"yaw_rate": Infinity}', b'{"sped": 1}', b"\xff", b'{"action": [' + b"0," * 300 + b"0]}", b'{"speed": 1' + b"0" * 600 + b"}", b"[" * 500,
]  # fmt: skip


@pytest.mark.parametrize("data", MALFORMED, ids=range(len(MALFORMED)))
def test_what_is_malformed_is_counted_and_changes_nothing(data):
    rig = Rig()
    before = rig.takeover.newest
    rig.takeover.receive(data)
    assert rig.takeover.malformed == 1
    assert rig.takeover.newest is before
    assert not rules_of(rig.ticks()) & Rule.HUMAN


def test_words_at_the_edge_are_taken():
    assert read_word(b'{"action": [1, -1.0]}', 2, 5).action.tolist() == [1.0, -1.0]
    assert read_word(b'{"speed": -5}', 2, 5).reference == Reference(-5.0, 0.0)
    assert read_word(b'{"yaw_rate": 0.5}', 2, 5).reference == Reference(0.0, 0.5)
    assert read_word(b'{"action": [0, 0]}', 2, 5).at_ns == 5


# ---- the socket


@pytest.fixture
def place(tmp_path_factory):
    path = tmp_path_factory.mktemp("s") / "hands"
    assert len(str(path)) < 100  # a longer name is no address
    return path


def test_the_socket_is_for_this_user_alone_and_is_gone_afterwards(place):
    listener = Listener(place, lambda data: None)
    assert place.stat().st_mode & 0o777 == 0o600
    listener.close()
    assert not place.exists()


@pytest.mark.slow
def test_what_is_sent_arrives(place):
    came = threading.Event()
    takeover = Takeover(2, 4)

    def receive(data):
        takeover.receive(data)
        came.set()

    listener = Listener(place, receive)
    listener.start()
    assert send_for(place, b'{"action": [0.1, 0.2]}', 0.0) == 1
    assert came.wait(5)
    listener.close()
    assert takeover.newest.action.tolist() == [0.1, 0.2]
    assert takeover.words == 1


def test_a_socket_that_a_killed_run_left_is_taken_over_and_a_living_one_is_not(place):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
        left.bind(str(place))
    first = Listener(place, lambda data: None)
    with pytest.raises(TakeoverError, match="somebody listens there already"):
        Listener(place, lambda data: None)
    first.close()
    place.write_text("a letter")
    with pytest.raises(TakeoverError, match="is no socket"):
        Listener(place, lambda data: None)
    assert place.read_text() == "a letter"


def test_a_sender_without_a_listener_says_so(place, capsys):
    assert main(["takeover", "--to", str(place), "--robot", "balance_bot", "--action", "0.1", "0.1", "--seconds", "0"]) == 1
    assert "nobody takes over there" in capsys.readouterr().err


def test_a_sender_whose_loop_ends_says_how_much_it_heard(place):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(place))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            assert send(out, place, b"{}", 7) == 8
            place.unlink()
            with pytest.raises(TakeoverError, match="the loop has gone after 8 words"):
                send(out, place, b"{}", 8)


def test_a_sender_says_what_the_loop_would_ignore(place, capsys):
    assert main(["takeover", "--to", str(place), "--robot", "balance_bot", "--action", "0.1", "--seconds", "0"]) == 1
    assert "expected an action of 2 numbers" in capsys.readouterr().err
    assert json.loads(word_of_line(" 0.1, 0.5 ", 2)) == {"action": [0.1, 0.5]}
    assert word_of_line("  ", 2) is None
    for line in ("0.1 x", "0.1", '{"speed": 99}'):
        with pytest.raises(TakeoverError, match="expected"):
            word_of_line(line, 2)


def test_lines_are_sent_until_the_pipe_ends(place):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(place))
        out, into = os.pipe()
        os.write(into, b'0.1 0.1\n{"speed": 0.3}\n')
        os.close(into)
        sent = send_lines(place, 2, out)
        os.close(out)
        assert sent >= 1
        assert json.loads(listener.recv(512)) == {"speed": 0.3}  # the newest counts


# ---- exercises


def test_a_lap_says_the_same_for_the_same_tick():
    rig_loop = Rig().loop
    exercise = Exercise(Lap((Leg(0.02), Leg(0.03, 0.5, -0.25))), 100)
    seen = []
    for _ in range(12):
        exercise.between_ticks(rig_loop)
        seen.append(rig_loop.observer.reference.speed_target_m_s)
    assert seen == [0.0, 0.0, 0.5, 0.5, 0.5] * 2 + [0.0, 0.0]
    exercise.restart()
    exercise.between_ticks(rig_loop)
    assert rig_loop.observer.reference == Reference(0.0, 0.0)


def test_the_shipped_lap_ends_where_it_began():
    lap = read_lap("drive")
    assert sum(leg.seconds for leg in lap.legs) == pytest.approx(8.0)
    assert sum(leg.seconds * leg.speed_m_s for leg in lap.legs) == pytest.approx(0.0)
    assert sum(leg.seconds * leg.yaw_rate_rad_s for leg in lap.legs) == pytest.approx(0.0)
    assert Exercise(lap, 100).lap_ticks == 800
    assert {leg.speed_m_s for leg in read_lap("stand").legs} == {0.0}


@pytest.mark.parametrize("hz", [30, 50, 100, 500, 1000])
@pytest.mark.parametrize("name", [name for name in LAPS if name != "stand"])
def test_a_lap_is_as_long_as_its_legs_at_any_rate(name, hz):
    """A window of a trial is whole laps: a tick lost to rounding and no candidate would ever be tried."""
    lap = read_lap(name)
    exercise, seconds = Exercise(lap, hz), sum(leg.seconds for leg in lap.legs)
    assert exercise.lap_ticks == round(seconds * hz)
    for leg in lap.legs:
        ticks = exercise.references.count(Reference(leg.speed_m_s, leg.yaw_rate_rad_s))
        assert abs(ticks - leg.seconds * hz) <= 1


def test_a_leg_shorter_than_a_tick_is_a_tick():
    assert Exercise(Lap((Leg(0.01), Leg(0.01, 0.2), Leg(0.02))), 50).lap_ticks == 3


def test_a_lap_from_a_file(tmp_path):
    path = tmp_path / "lap.toml"
    path.write_text("[[legs]]\nseconds = 1.0\n[[legs]]\nseconds = 2.0\nspeed_m_s = 0.2\n")
    assert read_lap(str(path)) == Lap((Leg(1.0), Leg(2.0, 0.2)))
    for text, said in (
        ("legs = []", "at least one"),
        ("[[legs]]\nseconds = 0.0", "seconds"),
        ("[[legs]]\nseconds = 1.0\nspeed = 1.0", "speed"),
        ("[[legs]]\nseconds = 1.0\nspeed_m_s = nan", "speed_m_s"),
        ("[[", "TOML"),
    ):
        path.write_text(text)
        with pytest.raises(SpecError, match=said):
            read_lap(str(path))
    with pytest.raises(SpecError, match="neither one of drive, brisk, dash, stand nor a file"):
        read_lap("jog")


# ---- exploration


@pytest.mark.slow
def test_the_noise_is_slow_bounded_seeded_and_of_the_size_asked_for():
    noise = draw(2, 0.1, 100, seed=4, ticks=20_000)
    assert np.array_equal(noise, draw(2, 0.1, 100, seed=4, ticks=20_000))
    assert not np.array_equal(noise, draw(2, 0.1, 100, seed=5, ticks=20_000))
    assert 0.29 < np.abs(noise).max() <= 0.3 + 1e-12
    assert 0.085 < noise.std() < 0.115
    neighbours = np.corrcoef(noise[1:, 0], noise[:-1, 0])[0, 1]
    assert neighbours == pytest.approx(math.exp(-1 / 20), abs=0.01)  # 0.2 s at 100 Hz


def test_exploration_is_added_to_the_policys_action():
    rig = Rig(exploration=Exploration(draw(2, 0.05, 100, 1, 1000)))
    actions = np.array([rig.ticks().action for _ in range(200)])
    assert 0.0 < np.abs(actions - [0.2, -0.2]).max() <= 0.15
    assert len(np.unique(actions[:, 0])) > 100


def test_an_explored_action_stays_an_action():
    exploration = Exploration(np.full((4, 2), 0.3))
    exploration.may = True
    assert exploration.over(np.array([0.9, -0.1])) == pytest.approx([1.0, 0.2])


def test_there_is_no_exploration_while_a_candidate_is_on_trial_or_a_person_drives():
    seat = Seat()
    exploration = Exploration(draw(2, 0.05, 100, 1, 1000), seat)
    rig = Rig(exploration=exploration)
    rig.ticks(3)
    assert exploration.may
    rig.say(action=[0.5, 0.5])
    assert [rig.ticks().action.tolist() for _ in range(3)] == [[0.5, 0.5]] * 3
    assert not exploration.may
    rig.ticks(40)
    assert exploration.may
    seat.trial = object()
    rig.ticks()
    assert not exploration.may
    assert rig.ticks().action == pytest.approx([0.2, -0.2])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--explore", "0.5"], "at most 0.3"),
        (["--explore", "-0.1"], "more than 0"),
        (["--explore", "nan"], "more than 0"),
        (["--exercise", "jog"], "neither one of"),
        (["--slots", "a", "--policy", "b"], "exclude each other"),
        (["--slots", "/nowhere"], "is not a folder of slots"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_wrong_choices_are_refused_before_anything_is_opened(words, said, capsys):
    assert main(["run", "--robot", "balance_bot", "--port", "/dev/nothing", "--dry-run", *words]) in (1, 3)
    assert said in capsys.readouterr().err


def test_a_dry_run_says_what_goes_along_and_makes_no_socket(place, capsys):
    words = ["--takeover", str(place), "--exercise", "drive", "--explore", "0.05"]
    assert main(["run", "--robot", "balance_bot", "--port", "/dev/nothing", "--dry-run", *words]) == 0
    out = capsys.readouterr().out
    assert "edge-dsac takeover --to" in out
    assert "laps of 800 ticks" in out
    assert "noise of 0.05" in out
    assert not place.exists()
