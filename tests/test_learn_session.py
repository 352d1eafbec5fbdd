"""A session on the disk: a cut journal, a garbled state, other settings; and a learner that is killed again and again."""

import errno
import json
import os
import signal
import time

import numpy as np
import pytest
from made_up_flight import in_a_child
from tuning_fixture import MadeUpFlights, TuneDesk, flown

from edge_dsac.learn.buffer import Buffer
from edge_dsac.learn.carried import digest
from edge_dsac.learn.journal import lived_s
from edge_dsac.learn.learner import Learner
from edge_dsac.learn.replayed import Replay
from edge_dsac.learn.rows_before import Unsynced
from edge_dsac.learn.session import Session, SessionError, read_session, read_states
from edge_dsac.steplog import FlightLog

WORDS = {"parent": "ab" * 32, "settings": {"seed": 0, "actor_lr": 3e-4, "recipe": "last-layer"}}


def opened(folder, words=None, resume=True):
    return Session(folder, words or WORDS, resume)


def state(number):
    return {"critics.0": np.full((2, 3), number, np.float32), "updates": np.int64(50 * number)}


def saved(folder, *numbers):
    session = opened(folder)
    for number in numbers:
        session.save(number, state(number))
    return session


# ---- the journal


def test_a_sessions_time_is_that_of_all_its_lives_killed_ones_too():
    begun, ended = {"event": "opened"}, {"event": "ended", "why": "the time is up", "seconds": 300.0}
    assert lived_s([begun], {}) == 0.0
    assert lived_s([begun, ended], {"seconds": 299.0}) == 300.0
    assert lived_s([begun, ended, begun], {"seconds": 350.5}) == 350.5  # killed, or still at work
    assert lived_s([begun, ended, begun, begun, {**ended, "seconds": 400.0}], {}) == 400.0


def test_what_was_noted_is_there_at_the_next_start(tmp_path):
    session = opened(tmp_path / "s")
    session.note("round", round=1, rows=100)
    session.note("candidate", identity="ff", evidence={"gain": 0.5, "low": None})
    session.close()
    again = opened(tmp_path / "s")
    assert again.events == session.events
    assert again.of("round") == [{"event": "round", "round": 1, "rows": 100}]
    again.note("round", round=2, rows=150)
    assert [entry["round"] for entry in opened(tmp_path / "s").of("round")] == [1, 2]


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_last_line_that_was_cut_off_is_left_out_and_written_over(tmp_path, cut):
    session = opened(tmp_path / "s")
    session.note("round", round=1, rows=100)
    whole = (tmp_path / "s" / "journal.jsonl").stat().st_size
    session.note("round", round=2, rows=2**60)
    session.close()
    os.truncate(tmp_path / "s" / "journal.jsonl", whole + cut)
    again = opened(tmp_path / "s")
    assert [entry["round"] for entry in again.of("round")] == [1]
    again.note("round", round=2, rows=7)
    assert [(entry["round"], entry["rows"]) for entry in opened(tmp_path / "s").of("round")] == [(1, 100), (2, 7)]


def test_a_journal_that_finds_no_room_says_so_and_stays_whole(tmp_path, monkeypatch):
    session = opened(tmp_path / "s")
    session.note("round", round=1, rows=100)
    plain = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda descriptor, data: plain(descriptor, data[:9]))
        with pytest.raises(SessionError, match=os.strerror(errno.ENOSPC)):
            session.note("round", round=2, rows=200)
    session.note("round", round=2, rows=300)
    assert session.events == opened(tmp_path / "s").events
    assert [entry["rows"] for entry in session.events] == [100, 300]


# ---- the learner's state


def test_the_newest_state_is_the_one_believed_and_the_one_before_it_is_kept(tmp_path):
    session = opened(tmp_path / "s")
    assert session.load() is None
    for number in (1, 2, 3):
        session.save(number, state(number))
        assert session.load().round == number
        assert session.load().arrays.keys() == state(number).keys()
        assert session.load().arrays["critics.0"].tolist() == state(number)["critics.0"].tolist()
    assert [state.round for state in read_states(tmp_path / "s", session.identity)] == [2, 3]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "gone", "zeros"])
def test_a_garbled_newest_state_falls_back_to_the_one_before(tmp_path, damage):
    session = saved(tmp_path / "s", 1, 2, 3)
    path = tmp_path / "s" / "state-1"
    data = path.read_bytes()
    half = len(data) // 2
    garbled = {
        "cut": data[:half],
        "flipped": data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :],
        "empty": b"",
        "zeros": bytes(len(data)),
    }
    path.unlink() if damage == "gone" else path.write_bytes(garbled[damage])
    assert session.load().round == 2
    assert session.load().arrays["critics.0"].tolist() == state(2)["critics.0"].tolist()
    session.save(3, state(3))
    assert opened(tmp_path / "s").load().round == 3


def test_a_kill_between_writing_and_renaming_leaves_the_state_before(tmp_path, monkeypatch):
    session = saved(tmp_path / "s", 1, 2)

    def killed(source, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            session.save(3, state(3))
    assert opened(tmp_path / "s").load().round == 2


@pytest.mark.parametrize("other", [{"parent": "cd" * 32}, {"settings": {**WORDS["settings"], "seed": 1}}], ids=["parent", "settings"])
def test_a_state_of_another_session_is_not_believed(tmp_path, other):
    saved(tmp_path / "theirs", 5)
    ours = opened(tmp_path / "ours", {**WORDS, **other})
    (tmp_path / "ours" / "state-1").write_bytes((tmp_path / "theirs" / "state-1").read_bytes())
    assert ours.load() is None
    twin = opened(tmp_path / "twin")  # the same words: the same learner
    (tmp_path / "twin" / "state-1").write_bytes((tmp_path / "theirs" / "state-1").read_bytes())
    assert twin.load().round == 5


# ---- whose session


def test_changed_settings_are_refused_by_name(tmp_path):
    opened(tmp_path / "s").close()
    with pytest.raises(SessionError, match=r"settings: was .*'seed': 0.*is .*'seed': 1") as refused:
        opened(tmp_path / "s", {**WORDS, "settings": {**WORDS["settings"], "seed": 1}})
    assert "parent" not in str(refused.value)
    with pytest.raises(SessionError, match=r"parent: was abab"):
        opened(tmp_path / "s", {**WORDS, "parent": "cd"})
    with pytest.raises(SessionError, match=r"extra: was None, is 3"):
        opened(tmp_path / "s", {**WORDS, "extra": 3})


def test_a_session_of_another_version_is_refused(tmp_path):
    opened(tmp_path / "s").close()
    path = tmp_path / "s" / "session.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 0}))
    with pytest.raises(SessionError, match="version: was 0, is 1"):
        opened(tmp_path / "s")


def test_a_session_that_is_there_is_gone_on_with_only_if_asked(tmp_path):
    opened(tmp_path / "s", resume=False).close()
    with pytest.raises(SessionError, match="--resume"):
        opened(tmp_path / "s", resume=False)


def test_the_same_settings_are_the_same_after_the_way_through_the_file(tmp_path):
    words = {"hidden": (8, 8), "lr": 0.1 + 0.2, "nothing": None}
    first = Session(tmp_path / "s", words, resume=False)
    assert Session(tmp_path / "s", words, resume=True).identity == first.identity


# ---- killed


ROUNDS = 40


class Scheduled(MadeUpFlights):
    """A robot that has flown 300 steps before the first round and 20 more with each; whoever asks anew gets it all again."""

    def __init__(self, spec):
        super().__init__()
        self.spec, self.given, self.desk = spec, 0, None

    def look(self):
        until = 300 + 20 * (self.desk.tuner.number if self.desk else 0)
        if until > self.given:
            self.add(flown(self.spec, until)[self.given :])
        self.given = until
        return super().look()


def live(folder, spec):
    """A session up to its last round, from wherever it stands."""
    flights = Scheduled(spec)
    flights.desk = desk = TuneDesk(folder, spec, flights, round_updates=4)
    while desk.tuner.number < ROUNDS:
        desk.tuner.improve()
    return desk


@pytest.mark.slow
def test_after_eight_kills_the_learner_has_the_bits_of_one_that_was_never_killed(bot, tmp_path, generator):
    begun = time.monotonic()
    whole = live(tmp_path / "whole", bot)
    took = time.monotonic() - begun
    folder = tmp_path / "killed"
    folder.mkdir()
    stood = []
    for _ in range(8):
        pid = in_a_child(lambda: live(folder, bot))
        time.sleep(float(generator.uniform(0.02, 0.1 * took)))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        path = folder / "session" / "journal.jsonl"
        stood.append((os.WIFSIGNALED(status), path.read_bytes().count(b'"event": "round"') if path.exists() else 0))
    print(stood)
    assert any(killed and 0 < rounds < ROUNDS for killed, rounds in stood)  # some kill came in the middle
    again = live(folder, bot)
    assert digest(again.learner.child()) == digest(whole.learner.child())
    assert again.learner.updates == whole.learner.updates == 4 * ROUNDS
    assert {entry["round"]: entry["rows"] for entry in again.session.of("round")} == {
        entry["round"]: entry["rows"] for entry in whole.session.of("round")
    }
    assert digest(whole.learner.child()) != digest(TuneDesk(tmp_path / "new", bot).learner.child())
    found = list(replay_of(again, tmp_path / "replay", FlightLog(bot, flown(bot, 300 + 20 * ROUNDS), 0, 0, 7, "flight-7")).run())
    assert [one for one in found if not one.same] == []
    assert [one.what for one in found].count("state") == 2


def replay_of(desk, folder, log):
    shape = desk.buffer.shape
    buffer = Buffer(folder, shape.obs, shape.act, desk.capacity, fingerprint=shape.fingerprint, disk=Unsynced())
    return Replay(read_session(desk.session.folder), Learner(desk.carried, desk.tuning), buffer, desk.spec, {log.wall_start_ns: log})
