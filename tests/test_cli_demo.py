"""`edge-dsac demo`: what it tells of a tuner, the way back bit by bit, and the whole story with tiny sizes."""

import io
import json
import platform
import re
from types import SimpleNamespace

import numpy as np
import pytest
from tuning_fixture import policy_of, small_carried

from edge_dsac.bundle.keyring import board_key, trusted_keys
from edge_dsac.bundle.package import read_bundle
from edge_dsac.bundle.slots import Slots, create_slots
from edge_dsac.bundle.trial_plan import TrialPlan
from edge_dsac.cli.demo import Telling, whole_story
from edge_dsac.cli.main import main
from edge_dsac.cli.short_demo import Drive
from edge_dsac.cli.story import Story, StoryError
from edge_dsac.cli.tuned_story import Field, Flights, Told, ending_of, sha256, undo
from edge_dsac.learn.child import make_child
from edge_dsac.records import Fault
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.steplog import open_log

STATUS = {
    "seconds": 31.0, "rows": 3100, "updates": 1200, "updates_per_s": 60.0, "refused": 0, "on_trial": None, "windows": 0, "verdicts": [], "ended": "",
}  # fmt: skip


class Landed:
    """Flights of a loop that does what the folder says."""

    def __init__(self, slots):
        self.slots = slots

    def driving(self):
        return read_bundle(self.slots / "current.policy", (), allow_unsigned=True).identity


def told(*looks):
    story = Story.__new__(Story)
    story.to, story.shown_at, story.unfinished_line = io.StringIO(), float("-inf"), False
    one = Told(story, Field(first_updates=4500, window_s=4.0))
    for status, flights in looks:
        one.tell({**STATUS, **status} if status is not None else {}, flights, "the robot fell")
    return story.to.getvalue().splitlines()


def test_the_tuners_beginning_learning_and_trial_are_told():
    assert told((None, 1)) == ["     the tuner starts; the robot drives, and its log fills"]
    assert told(({}, 1)) == ["     0:31  3100 rows, 1200/4500 updates (60/s)"]
    assert told(({"on_trial": "abcdef0123456789", "windows": 5}, 1)) == [
        "     0:31  candidate abcdef01 after 1200 updates on 3100 rows: old and new drive in turn",
        "     0:31  3100 rows, 1200/4500 updates (60/s); on trial, 5 windows of 4 s begun",
    ]


def test_each_verdict_refusal_and_fall_is_told_once():
    worse, better = {"decision": "worse", "why": "it fell"}, {"decision": "better", "why": "more reward"}
    lines = told(
        ({"refused": 1}, 1), ({"refused": 1, "verdicts": [worse]}, 2), ({"refused": 1, "verdicts": [worse]}, 2),
        ({"refused": 1, "verdicts": [worse, better]}, 2),
    )  # fmt: skip
    assert [line for line in lines if "rows" not in line] == [
        "     0:31  a candidate was refused before its trial; the next one is on its way",
        "     the robot fell",
        "     0:31  worse: it fell",
        "     0:31  better: more reward",
    ]


def test_a_loop_that_ended_takes_off_again_but_not_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_dsac.cli.tuned_story.MOST_FLIGHTS", 2)
    story = Story(tmp_path, 1, io.StringIO(), ("sh", "-c", "echo tilt"))
    flights = Flights(story, ["run"], tmp_path / "flights")
    first = flights.log
    flights.child.process.wait()
    flights.keep()
    assert flights.log != first
    assert len(story.children) == 1
    assert flights.ended.startswith("the flight ended (no fault)")  # nothing was logged
    flights.child.process.wait()
    with pytest.raises(StoryError, match="2 flights ended.* the loop said: tilt"):
        flights.keep()


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (Fault.TILT | Fault.TIMEOUT, "the flight ended (TIMEOUT+TILT); the robot is put on its wheels and flies on"),
        (Fault.LOW_BATTERY | Fault.LIMITED, "the flight ended (LOW_BATTERY); the robot flies on"),
        (Fault.NONE, "the flight ended (no fault); the robot flies on"),
    ],
)
def test_how_a_flight_ended_is_read_from_its_last_steps(tmp_path, monkeypatch, faults, said):
    steps = {"faults": np.array([Fault.TILT] + [Fault.NONE] * 100 + [faults], np.uint16)}
    monkeypatch.setattr("edge_dsac.cli.tuned_story.open_log", lambda path: SimpleNamespace(columns=steps))
    assert ending_of(tmp_path) == said


def test_a_robot_without_a_quick_policy_flies_the_short_demo(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("edge_dsac.cli.demo.short_demo", lambda story, drive, spec: told.append((drive, story.steps)) or 0)
    monkeypatch.setattr("edge_dsac.cli.demo.whole_story", lambda story, telling: told.append((telling, story.steps)) or 0)
    for words in (["--robot", "rover"], ["--short"], ["--seed", "3", "--tune-minutes", "1"]):
        assert main(["demo", "--out", str(tmp_path), *words]) == 0
    assert told[:2] == [(Drive("rover", 25.0), 2), (Drive("balance_bot", 25.0), 2)]
    assert told[2] == (Telling(drive=Drive("balance_bot", 12.0), tuning=Field(minutes=1.0, seed=3), seed=3), 6)


def tuned_folder(bot, folder, monkeypatch):
    """A slot folder whose current policy is an accepted child; and the parent's file."""
    monkeypatch.setenv("EDGE_DSAC_KEYS", str(folder / "keys"))
    carried = small_carried(ObservationLayout(bot).size, len(bot.actions))
    parent = folder / "parent.policy"
    parent.write_bytes(policy_of(bot, carried))
    slots = create_slots(folder / "policies", parent.read_bytes(), allow_unsigned=True)
    child = make_child(slots.current(), carried, slots.current().golden.obs, {}, board_key(folder / "keys", platform.node()))
    size = ObservationLayout(bot).size
    slots.propose(child, TrialPlan(10, 1, (-1.0,) * size, (1.0,) * size, settle_ticks=1))
    slots.accept(untried=True)
    return parent, slots.folder


@pytest.mark.slow
def test_the_parent_drives_again_byte_by_byte(bot, tmp_path, monkeypatch):
    parent, slots = tuned_folder(bot, tmp_path, monkeypatch)
    assert sha256(slots / "current.policy") != sha256(parent)
    story = Story(tmp_path, 1, io.StringIO())
    undone = []
    monkeypatch.setattr(story, "do", lambda words, limit_s: undone.append(main([*words, "--allow-unsigned"])))
    assert undo(story, slots, Landed(slots), parent)
    assert undone == [0]
    assert (slots / "current.policy").read_bytes() == parent.read_bytes()
    assert "the parent, byte by byte" in story.to.getvalue()


@pytest.mark.slow
def test_where_nothing_was_accepted_it_says_so(bot, tmp_path):
    carried = small_carried(ObservationLayout(bot).size, len(bot.actions))
    parent = tmp_path / "parent.policy"
    parent.write_bytes(policy_of(bot, carried))
    slots = create_slots(tmp_path / "policies", parent.read_bytes(), allow_unsigned=True).folder
    story = Story(tmp_path, 1, io.StringIO())
    assert undo(story, slots, Landed(slots), parent)
    assert "nothing was accepted" in story.to.getvalue()


@pytest.mark.slow
def test_a_folder_with_another_policy_is_not_called_undone(bot, tmp_path, monkeypatch):
    parent, slots = tuned_folder(bot, tmp_path, monkeypatch)
    story = Story(tmp_path, 1, io.StringIO())
    monkeypatch.setattr(story, "do", lambda words, limit_s: None)  # an undo that does nothing
    assert not undo(story, slots, Landed(slots), parent)
    assert "NOT the parent" in story.to.getvalue()


@pytest.mark.slow
def test_the_whole_story_with_tiny_sizes(bot, tmp_path):
    """A policy of 8 updates only falls, so nothing is accepted: every command, file and wait is there all the same.

    The cable is pulled 3.6 s after the board has started: by then the slowest machine has its loop."""
    telling = Telling(updates=8, episodes=1, drive=Drive("balance_bot", 8.0), tuning=Field(minutes=0.05, first_updates=200))
    out, said = tmp_path / "out", tmp_path / "said"
    with said.open("w+") as to, Story(out, 6, to) as story:
        assert whole_story(story, telling) == 0
    text = said.read_text()
    assert re.findall(r"^(\d)/6", text, re.M) == ["1", "2", "3", "4", "5", "6"]
    for verb in ("train", "keys new", "compile", "mcu", "run", "slots create", "tune start", "tune report"):
        assert f"$ edge-dsac {verb}" in text
    assert "no evidence" in text
    for name in ("run.png", "tuned.png", "balance.policy", "balance.report.png", "summary.json", "keys/secret/demo.key"):
        assert (out / name).stat().st_size > 0, name
    keys = trusted_keys(out / "keys")
    assert Slots(out / "policies", keys).current().signer  # signed by the demo's own key, which this machine trusts nowhere else
    assert (out / "policies" / "current.policy").read_bytes() == (out / "balance.policy").read_bytes()
    flown = open_log(out / "log").columns
    assert set(np.unique(flown["bundle_id"])) <= {read_bundle(out / "balance.policy", keys).identity}
    assert json.loads((out / "policies" / "tuning" / "session-001" / "report.json").read_text())["verdict"] == "no evidence"
    assert all(child.code is not None for child in story.children)
