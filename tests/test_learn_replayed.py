"""A session done again from its journal and logs: the same to the bit, or the first thing that differs, by name."""

import dataclasses

import numpy as np
import pytest
from tuning_fixture import SMALL, MadeUpFlights, TuneDesk, flown

from edge_dsac.learn.buffer import Buffer
from edge_dsac.learn.course import Course
from edge_dsac.learn.evidence import Limits
from edge_dsac.learn.learner import Learner
from edge_dsac.learn.replayed import Replay, ReplayError
from edge_dsac.learn.rows_before import Unsynced, rows_before
from edge_dsac.learn.rows_file import RowsError
from edge_dsac.learn.session import read_session
from edge_dsac.steplog import FlightLog

ASKING = Course(first_s=1.0, updates_per_row=1000.0, first_updates=10, candidate_updates=10, limits=Limits(least_observations=1 << 30))


class Desk(TuneDesk):
    """Every second round asks for a candidate, and the gate refuses it: its weights are in the journal."""

    course = ASKING
    capacity = 512


def desk_in(folder, spec, keep="oldest-out"):
    desk = type("Kept", (Desk,), {"keep": keep})(folder, spec, MadeUpFlights())
    desk.logs = {}
    return desk


def fly(desk, flight, count, pieces, over=True):
    """So many records of a flight, which come in so many pieces, a round after each."""
    columns = flown(desk.spec, count)
    columns["obs"] *= np.float32(1.0 + 0.1 * flight)  # so that no two flights are alike
    desk.logs[flight] = FlightLog(desk.spec, columns, 0, 0, flight, f"flight-{flight}")
    for part in np.array_split(columns, pieces):
        desk.flights.add(part, flight=flight)
        desk.tuner.improve()
    if over:
        desk.flights.add(columns[:0], over=True, flight=flight)
        desk.tuner.improve()


def again(desk, folder, logs=None, copy_rows=True):
    """What a replay finds, with a learner and a buffer of its own."""
    past = read_session(desk.session.folder)
    first = next(event for event in past.events if event["event"] == "opened")
    if copy_rows:
        rows_before(desk.session.rows, first, desk.buffer.shape, folder)
    shape = desk.buffer.shape
    buffer = Buffer(folder, shape.obs, shape.act, desk.capacity, desk.keep, np.inf, fingerprint=shape.fingerprint, disk=Unsynced())
    found = list(Replay(past, Learner(desk.carried, desk.tuning), buffer, desk.spec, desk.logs if logs is None else logs).run())
    buffer.close()
    return found


def compared(found):
    return [one.what for one in found if one.what in ("candidate", "refused", "state")]


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["oldest-out", "coverage"])
def test_a_session_of_two_flights_and_a_kill_comes_to_the_same_bits(bot, tmp_path, keep):
    """The buffer overflows, pieces end where they end, and the second flight is fed from its beginning after the kill."""
    desk = desk_in(tmp_path, bot, keep)
    fly(desk, 7, 801, 7)
    fly(desk, 8, 150, 2, over=False)
    desk.killed()
    whole = desk.logs[8].columns
    fly(desk, 8, 300, 1)
    assert (desk.logs[8].columns[:150] == whole).all()
    assert desk.buffer.evicted > 0
    found = again(desk, tmp_path / "again")
    assert [one for one in found if not one.same] == []
    assert compared(found).count("refused") >= 4
    assert compared(found).count("state") == 2
    assert sum(one.what == "round" for one in found) == desk.tuner.number
    assert [one.what for one in found].count("restart") == 2


@pytest.mark.slow
def test_the_last_bit_of_what_was_seen_is_found_at_the_first_candidate(bot, tmp_path):
    desk = desk_in(tmp_path, bot)
    fly(desk, 7, 600, 5)
    log = desk.logs[7]
    columns = log.columns.copy()
    columns["obs"].view(np.uint32)[:, 0] ^= 1
    found = again(desk, tmp_path / "again", {7: dataclasses.replace(log, columns=columns)})
    assert not found[-1].same
    assert found[-1].what in ("refused", "state")
    assert "differ" in found[-1].why
    assert all(one.same and not one.why for one in found[:-1])


@pytest.mark.slow
def test_rows_that_no_log_has_are_named_with_their_flight_and_their_count(bot, tmp_path):
    desk = desk_in(tmp_path, bot)
    fly(desk, 7, 400, 2)
    fly(desk, 8, 300, 1)
    short = dataclasses.replace(desk.logs[8], columns=desk.logs[8].columns[:101])
    cut = again(desk, tmp_path / "cut", {7: desk.logs[7], 8: short})[-1]
    assert (cut.what, cut.same) == ("rows", False)
    assert cut.why.startswith("rows missing: 299 of flight 8 (1970-01-01 00:00:00 UTC) came next, its log flight-8 gives 100")
    gone = again(desk, tmp_path / "gone", {8: desk.logs[8]})[-1]
    assert (gone.what, gone.same) == ("rows", False)
    assert "of flight 7" in gone.why
    assert "its log was not given" in gone.why


def second_session(bot, tmp_path, flights):
    """On rows of an earlier one."""
    desk = desk_in(tmp_path, bot)
    fly(desk, 7, 300, 3)
    desk.let_go()
    for path in desk.session.folder.iterdir():
        if path != desk.session.rows:
            path.unlink()
    desk.open()
    desk.logs = {}
    for flight, count in flights:
        fly(desk, flight, count, 3)
    return desk


@pytest.mark.slow
def test_a_buffer_that_was_there_before_is_found_in_its_folder(bot, tmp_path):
    desk = second_session(bot, tmp_path, [(8, 150)])
    found = again(desk, tmp_path / "again")
    assert compared(found)
    assert all(one.same for one in found)
    without = again(desk, tmp_path / "without", copy_rows=False)[-1]
    assert (without.what, without.same) == ("rows", False)
    assert "names no flight" in without.why


@pytest.mark.slow
def test_rows_of_before_that_have_made_room_are_named(bot, tmp_path):
    desk = second_session(bot, tmp_path, [(8, 500)])
    with pytest.raises(RowsError, match="of the 299 rows that were there when the session began 0 are left"):
        again(desk, tmp_path / "again")


@pytest.mark.slow
def test_another_seed_does_not_pass_for_the_same(bot, tmp_path):
    desk = desk_in(tmp_path, bot)
    fly(desk, 7, 400, 4)
    desk.tuning = dataclasses.replace(SMALL, seed=1)
    assert not again(desk, tmp_path / "again")[-1].same


@pytest.mark.slow
def test_a_journal_without_flights_is_of_an_older_program(bot, tmp_path):
    desk = desk_in(tmp_path, bot)
    past = dataclasses.replace(read_session(desk.session.folder), events=[{"event": "round", "round": 1, "rows": 5}])
    with pytest.raises(ReplayError, match="older edge_dsac"):
        Replay(past, desk.learner, desk.buffer, bot, {})
