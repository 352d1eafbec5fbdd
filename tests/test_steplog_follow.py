"""Following flights as they happen: from the ring, from the disk where the ring has gone on, each step once and in order."""

import shutil

import numpy as np
import pytest
from made_up_flight import filled_ring, flight_folder, made_up_rows, made_up_step, same

from edge_dsac.bundle.slot_folder import FLIGHT
from edge_dsac.bundle.slots import create_slots
from edge_dsac.steplog.follow import Follower
from edge_dsac.steplog.recorder import Recorder
from edge_dsac.steplog.ring import RingReader


class Flight:
    """A flight under way, with its recorder, as the loop and its helper make it."""

    def __init__(self, folder, spec, capacity=16):
        folder.mkdir(parents=True)
        self.folder, self.ring = folder, filled_ring(folder / "ring", spec, 0, capacity)
        self.recorder = Recorder(folder / "ring", folder)

    def fly(self, count, drain=True):
        for _ in range(count):
            self.ring.append(made_up_step(self.ring.layout, self.ring.head))
        if drain:
            self.recorder.drain()
        return self

    def land(self):
        self.ring.close()
        self.recorder.drain()
        self.recorder.finish()
        return self


@pytest.fixture
def link(tmp_path):
    """The link that says where the newest flight is; a function that changes it."""
    path = tmp_path / "flight"

    def point(folder):
        path.unlink(missing_ok=True)
        path.symlink_to(folder)
        return path

    return point


def steps(chunks):
    return [int(index) for chunk in chunks for index in chunk.columns["index"]]


def overs(chunks):
    return [chunk.over for chunk in chunks]


def test_a_flight_is_followed_as_it_goes_on_and_ends_once(bot, tmp_path, link):
    flight = Flight(tmp_path / "one", bot).fly(3, drain=False)
    follower = Follower(link(flight.folder), bot)
    seen = follower.look()
    assert steps(seen) == [0, 1, 2]
    assert follower.look() == []
    flight.fly(4, drain=False)
    seen += follower.look()
    flight.fly(2).land()
    seen += follower.look()
    assert steps(seen) == list(range(9))
    assert overs(seen).count(True) == 1
    assert seen[-1].over
    assert follower.look() == []
    assert {chunk.flight for chunk in seen} == {flight.ring.header.wall_start_ns}
    assert same(np.concatenate([chunk.columns for chunk in seen]), made_up_rows(bot, 9))
    assert follower.complaints == []


def test_where_there_is_no_flight_yet_there_is_nothing_to_see(bot, tmp_path, link):
    follower = Follower(link(tmp_path / "none"), bot)
    assert follower.look() == []
    (tmp_path / "none").mkdir()
    assert follower.look() == []  # a folder, but no ring in it yet
    (tmp_path / "none" / "ring").write_bytes(b"")
    assert follower.look() == []  # a ring that is being made
    (tmp_path / "none" / "ring").unlink()
    filled_ring(tmp_path / "none" / "ring", bot, 2)
    assert steps(follower.look()) == [0, 1]


def test_who_comes_late_gets_what_the_ring_has_forgotten_from_the_disk(bot, tmp_path, link):
    flight = Flight(tmp_path / "one", bot, capacity=4)
    for _ in range(5):
        flight.fly(3)
    follower = Follower(link(flight.folder), bot)
    assert steps(follower.look()) == list(range(15))
    flight.fly(2, drain=False)
    assert steps(follower.look()) == [15, 16]


def test_a_ring_that_has_lapped_us_loses_no_step(bot, tmp_path, link):
    flight = Flight(tmp_path / "one", bot, capacity=4).fly(2)
    follower = Follower(link(flight.folder), bot)
    seen = follower.look()
    for _ in range(4):
        flight.fly(3)
    flight.fly(2, drain=False)  # the newest are in the ring alone
    seen += follower.look()
    flight.fly(1)
    seen += follower.look()
    assert steps(seen) == list(range(17))
    assert same(np.concatenate([chunk.columns for chunk in seen]), made_up_rows(bot, 17))


def test_a_ring_that_laps_us_while_we_read_loses_no_step(bot, tmp_path, link, monkeypatch):
    """Between the look at the ring's head and the copy, records are overwritten: torn, not lost, and on the disk by then."""
    flight = Flight(tmp_path / "one", bot, capacity=4).fly(1)
    follower = Follower(link(flight.folder), bot)
    seen = follower.look()
    flight.fly(3)
    plain, late = RingReader.raw, [3]

    def overtaken(reader, until):
        if late:
            flight.fly(late.pop())
        return plain(reader, until)

    monkeypatch.setattr(RingReader, "raw", overtaken)
    seen += follower.look()
    seen += follower.look()
    assert steps(seen) == list(range(7))


def test_the_next_flight_is_whoever_the_link_points_to(bot, tmp_path, link):
    first, second = Flight(tmp_path / "one", bot).fly(3).land(), Flight(tmp_path / "two", bot).fly(2)
    follower = Follower(link(first.folder), bot)
    seen = follower.look() + follower.look()
    assert (steps(seen), overs(seen)) == ([0, 1, 2], [False, True])
    assert follower.look() == []
    link(second.folder)
    seen = follower.look()
    assert (steps(seen), overs(seen)) == ([0, 1], [False])
    assert seen[0].flight != first.ring.header.wall_start_ns
    link(first.folder)  # and back again: it was read, and is not read twice
    assert overs(follower.look()) == [True]
    assert follower.look() == []


def test_a_flight_that_another_takes_the_place_of_is_read_to_its_last_step_first(bot, tmp_path, link):
    first = Flight(tmp_path / "one", bot).fly(3)
    follower = Follower(link(first.folder), bot)
    follower.look()
    first.fly(4)
    link(Flight(tmp_path / "two", bot).fly(1).folder)
    seen = follower.look()
    assert (steps(seen), seen[-1].over) == ([3, 4, 5, 6], True)
    assert steps(follower.look()) == [0]


def test_more_than_one_look_can_hold_is_read_in_several(bot, tmp_path, link, monkeypatch):
    monkeypatch.setattr("edge_dsac.steplog.follow.MOST", 3)
    flight = Flight(tmp_path / "one", bot).fly(1)
    follower = Follower(link(flight.folder), bot)
    seen = follower.look()
    flight.fly(8)
    seen += follower.look() + follower.look()
    flight.land()
    while more := follower.look():
        seen += more
    assert steps(seen) == list(range(9))
    assert overs(seen).count(True) == 1


def test_a_flight_whose_ring_is_gone_is_read_from_its_segments(bot, tmp_path, link):
    follower = Follower(link(flight_folder(tmp_path / "one", bot, 5)), bot)
    seen = follower.look() + follower.look()
    assert (steps(seen), overs(seen)) == ([0, 1, 2, 3, 4], [False, True])


def test_a_ring_that_vanishes_with_its_folder_ends_the_flight_with_a_complaint(bot, tmp_path, link):
    flight = Flight(tmp_path / "one", bot, capacity=4).fly(2)
    follower = Follower(link(flight.folder), bot)
    follower.look()
    flight.fly(3).fly(3)
    flight.ring.close()
    shutil.rmtree(flight.folder)  # somebody tidied up
    seen = follower.look()
    assert overs(seen)[-1:] == [True]
    assert any("one" in complaint for complaint in follower.complaints)


def test_another_robots_flight_is_refused_and_said_once(bot, rover, tmp_path, link):
    foreign = Flight(tmp_path / "rover", rover).fly(3)
    follower = Follower(link(foreign.folder), bot)
    for _ in range(3):
        assert follower.look() == []
    (complaint,) = follower.complaints
    assert "rover" in complaint
    assert "another robot" in complaint
    link(Flight(tmp_path / "ours", bot).fly(2).folder)
    assert steps(follower.look()) == [0, 1]


def test_a_robot_that_died_ends_its_flight(bot, tmp_path, link, monkeypatch):
    flight = Flight(tmp_path / "one", bot).fly(2)
    follower = Follower(link(flight.folder), bot)
    follower.look()
    monkeypatch.setattr(RingReader, "writer_alive", lambda reader: False)
    assert overs(follower.look()) == [True]


@pytest.mark.slow
def test_the_link_is_changed_in_one_step_and_names_the_real_folder(bot, tmp_path, monkeypatch):
    """Slots.point_to: whoever looks always finds one of the two flights."""
    from tuning_fixture import policy_of, small_carried

    from edge_dsac.spec.layout import ObservationLayout

    size = ObservationLayout(bot).size
    slots = create_slots(tmp_path / "slots", policy_of(bot, small_carried(size, len(bot.actions))), allow_unsigned=True)
    pointer = slots.folder / FLIGHT
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    monkeypatch.chdir("/")
    slots.point_to(tmp_path / "a")
    assert pointer.resolve() == (tmp_path / "a").resolve()
    renamed = []
    plain = slots.disk.rename

    def spied(source, target):
        renamed.append((pointer.resolve().name, target.name))
        plain(source, target)

    monkeypatch.setattr(slots.disk, "rename", spied)
    slots.point_to(tmp_path / "b")
    assert renamed == [("a", FLIGHT)]
    assert pointer.resolve() == (tmp_path / "b").resolve()
    (slots.folder / f".{FLIGHT}.unfinished").symlink_to(tmp_path / "a")  # a crash left it
    monkeypatch.chdir(tmp_path.parent)
    slots.point_to((tmp_path / "a").relative_to(tmp_path.parent))
    monkeypatch.chdir("/")
    assert pointer.resolve() == (tmp_path / "a").resolve()
