"""The scout's end by itself: what it finds in the folder, what it says through the pipe, and what it leaves in the folder."""

import dataclasses
import os
import subprocess
import sys

import pytest
from bundle_fixture import KEY
from test_bundle_slots import CHILD, FIRST, OTHER_CHILD, PLAN, opened, policy
from test_loop_scout import Ends

from edge_dsac.bundle.engines import make_engine
from edge_dsac.bundle.keyring import trust
from edge_dsac.bundle.parts import unpack
from edge_dsac.bundle.slot_folder import Stage
from edge_dsac.bundle.slots import create_slots
from edge_dsac.cli.scouting import Orders, Scouting, read_orders, send_out
from edge_dsac.loop.messages import Message, Pipes


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_DSAC_KEYS", str(tmp_path / "keys"))
    trust(tmp_path / "keys", dataclasses.replace(KEY.public, name="me"))
    ends = Ends()
    yield create_slots(tmp_path / "slots", FIRST, [KEY.public]), ends
    ends.close()


def orders_for(slots, data=FIRST, **more):
    """`data`: what the loop drives."""
    running = opened(data).running
    words = {"engine": "auto", "allow_unsigned": False, "lap_ticks": None, "bundle_id": running.identity, "running": running, **more}
    return Orders(robot="balance_bot", policy=str(slots.current_path), slots=str(slots.folder), **words)


def look(scouting, times=1):
    for _ in range(times):
        scouting.candidates.look()
    return scouting


def heard(ends):
    found = []
    while (message := ends.near.hear(0.0)) is not None:
        found.append(message)
    return found


def test_orders_come_through_as_they_were(place):
    for orders in (orders_for(place[0]), orders_for(place[0], running=None, lap_ticks=800)):
        assert read_orders(orders.text) == orders


def test_what_drives_already_is_not_offered_again(place):
    slots, ends = place
    look(Scouting(orders_for(slots), ends.far), 3)
    assert heard(ends) == []


def test_what_was_replaced_between_the_loops_look_and_ours_is_offered_once(place, bot):
    slots, ends = place
    orders = orders_for(slots)
    slots.current_path.write_bytes(CHILD)
    look(Scouting(orders, ends.far), 3)
    (message,) = heard(ends)
    assert message.words["do"] == "offer"
    assert make_engine(unpack(message.data, bot)).bundle_id == opened(CHILD).identity


def test_an_older_one_that_nobody_was_tuned_from_is_not_offered_and_told_at_the_end(place):
    slots, ends = place
    orders = orders_for(slots)
    slots.current_path.write_bytes(policy(9, 2))
    scouting = look(Scouting(orders, ends.far), 3)
    assert heard(ends) == []
    assert "is version 2, the robot runs 3" in scouting.last_words()["refused_policies"][0]


def test_a_candidate_is_handed_over_after_the_folder_says_that_its_trial_has_begun(place):
    slots, ends = place
    slots.propose(CHILD, PLAN)
    stages = []
    scouting = Scouting(orders_for(slots), ends.far)
    say = scouting.cockpit.pipes.say
    scouting.cockpit.pipes.say = lambda message: (stages.append(slots.outcome().stage), say(message))
    look(scouting, 2)
    assert [message.words["do"] for message in heard(ends)] == ["try"]
    assert stages == [Stage.BEGUN]


def test_a_candidate_that_never_got_there_was_interrupted(place):
    slots, ends = place
    slots.propose(CHILD, PLAN)
    scouting = look(Scouting(orders_for(slots), ends.far))
    ends.near.say(Message({"said": "over"}))
    assert not scouting.cockpit.hear(1.0)
    scouting.last_words()
    assert slots.outcome().stage is Stage.INTERRUPTED
    assert slots.candidate() is not None


def test_how_a_trial_ended_is_in_the_folder_and_among_the_last_words(place):
    slots, ends = place
    slots.propose(CHILD, PLAN)
    scouting = look(Scouting(orders_for(slots), ends.far))
    name = f"{opened(CHILD).identity:016x}"
    ends.near.say(Message({"said": "ended", "identity": name, "stage": "aborted", "why": "it shook", "details": {"retreats": 2}}))
    assert scouting.cockpit.hear(1.0)
    look(scouting)
    assert slots.candidate() is None
    assert (slots.outcome().stage, slots.outcome().why) == (Stage.ABORTED, "it shook")
    assert scouting.last_words()["trials"] == {name: {"verdict": "aborted: it shook", "retreats": 2}}


def test_one_that_replaces_another_is_handed_over_once_the_loop_has_left_the_first(place):
    slots, ends = place
    slots.propose(CHILD, PLAN)
    scouting = look(Scouting(orders_for(slots), ends.far))
    heard(ends)
    slots.propose(OTHER_CHILD, PLAN)
    look(scouting)
    assert [message.words["do"] for message in heard(ends)] == ["withdraw"]
    name = f"{opened(CHILD).identity:016x}"
    ends.near.say(Message({"said": "ended", "identity": name, "stage": "interrupted", "why": "replaced", "details": {}}))
    scouting.cockpit.hear(1.0)
    look(scouting)
    (message,) = heard(ends)
    assert (message.words["do"], message.words["identity"]) == ("try", f"{opened(OTHER_CHILD).identity:016x}")


def test_the_process_that_is_sent_out_says_farewell_and_leaves(place):
    slots, _ = place
    process, pipes = send_out(orders_for(slots))
    try:
        pipes.say(Message({"said": "over"}))
        assert pipes.hear(60.0).words == {"do": "farewell", "words": {"refused_policies": [], "trials": {}}}
        assert process.wait(20) == 0
        assert os.read(pipes.incoming, 1) == b""
    finally:
        process.kill()
        process.communicate()


LOUD = """
import sys
from edge_dsac.cli import scouting
quiet = scouting.Scouting.last_words
scouting.Scouting.last_words = lambda self: (print("a library greets", flush=True), quiet(self))[1]
sys.exit(scouting.main())
"""


def test_what_somebody_prints_does_not_get_into_the_pipe(place):
    command = [sys.executable, "-c", LOUD, orders_for(place[0]).text]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    try:
        pipes = Pipes(process.stdout.fileno(), process.stdin.fileno())
        pipes.say(Message({"said": "over"}))
        assert pipes.hear(60.0).words["do"] == "farewell"
        assert process.wait(20) == 0
        assert b"a library greets" in process.stderr.read()
    finally:
        process.kill()
        process.communicate()
