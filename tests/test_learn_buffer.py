"""The rows a robot keeps: nothing lost by a kill, little by a power cut, nothing corrupt ever believed, never more than asked for."""

import errno
import os
import signal
import time
import tracemalloc

import numpy as np
import pytest
from made_up_flight import in_a_child

from edge_dsac.learn.buffer import Buffer, Busy, held_out
from edge_dsac.learn.coverage import cells, surplus
from edge_dsac.learn.rows_file import PAGE, Disk, OtherRobot, RowsError, Shape
from edge_dsac.learn.rows_stock import open_rows
from edge_dsac.learn.transitions import Rows

ROBOT = "c903f133aa55aa55"
SHAPE = Shape(3, 1, ROBOT)
SIZE = SHAPE.dtype.itemsize
FLIGHT = (1 << 63) + 7


def made_up(indices, flight=FLIGHT, obs=3, act=1):
    """Row k tells where it belongs: it saw k, k + 1/8, ...; did k / 2; then saw k + 0.5."""
    k = np.asarray(indices, float)
    full = lambda value, kind: np.full(len(k), value, kind)  # noqa: E731
    return Rows(
        (k[:, None] + np.arange(obs) / 8).astype(np.float32), np.repeat(k[:, None] / 2, act, 1).astype(np.float32), k.astype(np.float32),
        (k[:, None] + 0.5 + np.arange(obs) / 8).astype(np.float32), full(0, np.float32), full(0.97, np.float32), k.astype(np.uint64),
        (k * 10_000_000).astype(np.int64), full((1 << 63) + 5, np.uint64), full(9, np.uint64), full(3, np.uint8), full(4, np.uint8),
        full(flight, np.uint64),
    )  # fmt: skip


def buffer_in(folder, capacity=64, keep="oldest-out", shape=SHAPE, **choices):
    return Buffer(folder, shape.obs, shape.act, capacity, keep, fingerprint=shape.fingerprint, **choices)


def filled(folder, indices, **choices):
    """A buffer that was written in lumps of five and closed."""
    buffer = buffer_in(folder, **choices)
    for lump in np.array_split(np.asarray(indices), max(len(indices) // 5, 1)):
        buffer.extend(made_up(lump))
    buffer.close()


def kept(folder):
    """Indices in a buffer's files; every row must be what was put in, and the writer's view the same."""
    told = open_rows(folder)
    expected = made_up(told.rows.index.astype(int), told.rows.flight)
    for name, column, wanted in zip(Rows._fields, told.rows, expected, strict=True):
        assert column.tolist() == wanted.tolist(), name
    return told.rows.index.astype(int).tolist()


def files(folder):
    return sorted(folder.glob("*.rows"))


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


# What goes in comes out


def test_rows_come_back_bit_for_bit_when_it_is_opened_again(tmp_path):
    filled(tmp_path, range(40))
    assert kept(tmp_path) == list(range(40))
    buffer = buffer_in(tmp_path)
    assert [column.tolist() for column in buffer.rows] == [column.tolist() for column in made_up(range(40))]
    assert (buffer.total, len(buffer), buffer.last(FLIGHT), buffer.last(3)) == (40, 40, 39, -1)
    assert [column.dtype for column in buffer.rows] == [column.dtype for column in made_up([])]


@pytest.mark.slow
def test_the_last_file_is_written_on_after_opening(tmp_path):
    for k in range(20):
        filled(tmp_path, [k])
    assert kept(tmp_path) == list(range(20))
    assert len(files(tmp_path)) == 3  # of eight rows


def test_the_same_log_again_adds_nothing(tmp_path):
    buffer = buffer_in(tmp_path)
    assert buffer.extend(made_up(range(10))) == 10
    assert buffer.extend(made_up(range(5, 12))) == 2
    assert buffer.extend(made_up([12, 13, 12, 13, 14])) == 3
    assert buffer.extend(made_up(range(10), flight=3)) == 10  # another flight
    assert (buffer.known, buffer.total, buffer.last(FLIGHT), buffer.last(3)) == (7, 25, 14, 9)
    buffer.close()
    again = buffer_in(tmp_path)
    assert again.extend(made_up(range(15))) == 0
    assert again.extend(made_up(range(10), flight=3)) == 0
    assert kept(tmp_path) == [*range(15), *range(10)]


@pytest.mark.slow
def test_what_was_stored_is_known_long_after_its_rows_have_gone(tmp_path):
    filled(tmp_path, range(10))
    buffer = buffer_in(tmp_path)
    buffer.extend(made_up(range(200), flight=3))
    buffer.close()
    again = buffer_in(tmp_path)
    assert set(again.rows.flight.tolist()) == {3}
    assert again.last(FLIGHT) == 9
    assert again.extend(made_up(range(10))) == 0


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["oldest-out", "coverage"])
def test_it_stays_within_its_capacity_in_memory_and_on_disk(tmp_path, keep, generator):
    buffer, at = buffer_in(tmp_path, keep=keep), 0
    while at < 500:
        count = int(generator.integers(1, 30))
        buffer.extend(made_up(range(at, at + count)))
        at += count
        assert len(buffer) <= 64
        assert len(buffer) >= min(at, 56 - 7)  # an eighth goes at once
        assert buffer.rows.index[-1] == at - 1
        assert sum(path.stat().st_size - PAGE for path in files(tmp_path)) == len(buffer) * SIZE
        assert kept(tmp_path) == buffer.rows.index.tolist()
        assert (buffer.total, buffer.evicted) == (at, at - len(buffer))
    if keep == "oldest-out":
        assert buffer.rows.index.tolist() == list(range(at - len(buffer), at))
    buffer.close()
    assert len(files(tmp_path)) <= 9
    assert buffer_in(tmp_path, keep=keep).total == at


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["oldest-out", "coverage"])
def test_what_was_kept_does_not_hang_on_how_the_rows_came(tmp_path, keep, generator):
    """A session is replayed in other pieces than it came in."""
    rows = made_up(range(400))._replace(obs=(0.7 * generator.normal(size=(400, 3))).astype(np.float32))
    told = []
    for number, cuts in enumerate(([], range(1, 400, 3), [100, 233, 350])):
        buffer = buffer_in(tmp_path / str(number), 100, keep)
        for begin, end in zip([0, *cuts], [*cuts, 400], strict=True):
            buffer.extend(Rows(*(column[begin:end] for column in rows)))
        told.append(buffer.told())
        buffer.close()
    assert told[0] == told[1] == told[2]
    assert told[0]["rows"] == 400


@pytest.mark.slow
def test_more_rows_at_once_than_it_holds(tmp_path):
    buffer = buffer_in(tmp_path)
    assert buffer.extend(made_up(range(1000))) == 1000
    assert buffer.rows.index.tolist() == list(range(1000 - len(buffer), 1000))


def test_a_smaller_capacity_than_before_lets_the_oldest_go(tmp_path):
    filled(tmp_path, range(64))
    buffer = buffer_in(tmp_path, capacity=20)
    assert buffer.rows.index.tolist() == list(range(48, 64))
    assert buffer.evicted == 48
    buffer.extend(made_up(range(64, 70)))
    assert len(buffer) <= 20
    assert kept(tmp_path) == buffer.rows.index.tolist()


# Who may


def test_one_writer(tmp_path):
    first = buffer_in(tmp_path)
    with pytest.raises(Busy, match=f"process {os.getpid()} writes this buffer"):
        buffer_in(tmp_path)
    first.close()
    buffer_in(tmp_path).close()


@pytest.mark.parametrize("other", [Shape(3, 1, "aaaa"), Shape(4, 1, ROBOT), Shape(3, 2, ROBOT)])
def test_another_robots_buffer_is_refused_by_name(tmp_path, other):
    filled(tmp_path, range(10))
    with pytest.raises(OtherRobot, match=rf"{ROBOT} \(3 observations, 1 actions\), this one is {other.fingerprint}"):
        buffer_in(tmp_path, shape=other)
    buffer_in(tmp_path).close()  # the lock went with the refusal


def test_another_robots_rows_do_not_pass_where_the_header_is_lost(tmp_path):
    filled(tmp_path, range(10))
    for path in files(tmp_path):
        os.truncate(path, path.stat().st_size)
        with open(path, "r+b") as file:
            file.write(b"\0" * PAGE)
    assert len(buffer_in(tmp_path, shape=Shape(3, 1, "aaaa"))) == 0


def test_what_makes_no_sense_is_said_at_once(tmp_path):
    with pytest.raises(RowsError, match="at least 8 rows"):
        buffer_in(tmp_path, capacity=7)
    with pytest.raises(RowsError, match="oldest-out or coverage"):
        buffer_in(tmp_path, keep="newest")
    with pytest.raises(RowsError, match="policy_fingerprint"):
        buffer_in(tmp_path, shape=Shape(3, 1, ""))
    with pytest.raises(RowsError, match="another robot's"):
        buffer_in(tmp_path).extend(made_up(range(3), obs=4))
    with pytest.raises(RowsError, match="holds no rows"):
        open_rows(tmp_path)


def test_a_report_reads_while_the_writer_writes_and_changes_nothing(tmp_path):
    buffer = buffer_in(tmp_path)
    buffer.extend(made_up(range(20)))
    before = {path: path.read_bytes() for path in files(tmp_path)}
    told = open_rows(tmp_path)
    assert (told.stock.total, told.stock.flights, told.files, told.shape) == (20, {FLIGHT: 19}, 3, SHAPE)
    assert {path: path.read_bytes() for path in files(tmp_path)} == before


# Damage


@pytest.mark.slow
def test_a_tail_cut_at_any_byte_costs_its_own_row_and_no_other(tmp_path):
    filled(tmp_path, range(12))
    path = files(tmp_path)[-1]
    whole = path.read_bytes()
    assert len(whole) == PAGE + 4 * SIZE
    for cut in range(1, SIZE + 1):
        path.write_bytes(whole[:-cut])
        buffer = buffer_in(tmp_path)
        assert buffer.rows.index.tolist() == list(range(11))
        assert (buffer.total, buffer.stock.torn, buffer.stock.damaged) == (11, int(cut < SIZE), 0)
        assert buffer.extend(made_up(range(12))) == 1  # and the log brings it back
        buffer.close()
        assert path.read_bytes() == whole


@pytest.mark.parametrize("junk", [b"\0" * 3 * SIZE, b"\xff" * (SIZE + 5), bytes(range(200))])
def test_a_garbled_tail_is_cut_off_and_counted(tmp_path, junk):
    filled(tmp_path, range(12))
    path = files(tmp_path)[-1]
    with open(path, "ab") as file:
        file.write(junk)
    buffer = buffer_in(tmp_path)
    assert buffer.rows.index.tolist() == list(range(12))
    assert buffer.stock.torn == -(-len(junk) // SIZE)
    buffer.extend(made_up(range(12, 14)))
    buffer.close()
    assert kept(tmp_path) == list(range(14))
    assert path.stat().st_size == PAGE + 6 * SIZE


@pytest.mark.slow
def test_a_flipped_bit_anywhere_costs_one_row_at_most(tmp_path, generator):
    filled(tmp_path, range(20))
    for path in files(tmp_path):
        whole = path.read_bytes()
        for at in generator.integers(PAGE, len(whole), 25):
            hurt = bytearray(whole)
            hurt[at] ^= 1 << int(generator.integers(8))
            path.write_bytes(hurt)
            slot = (at - PAGE) // SIZE
            told = open_rows(tmp_path)
            assert kept(tmp_path) == [k for k in range(20) if k != int(path.stem) + slot]
            last = slot == (len(whole) - PAGE) // SIZE - 1
            assert (told.stock.damaged, told.stock.torn) == ((0, 1) if last else (1, 0))
        path.write_bytes(whole)


def test_a_lost_header_loses_no_row(tmp_path):
    filled(tmp_path, range(20))
    for path in files(tmp_path)[1:]:
        with open(path, "r+b") as file:
            file.write(b"\xff" * 100)
    assert kept(tmp_path) == list(range(20))
    buffer = buffer_in(tmp_path)
    assert (buffer.total, buffer.last(FLIGHT)) == (20, 19)
    buffer.extend(made_up(range(25)))
    buffer.close()
    assert kept(tmp_path) == list(range(25))


def test_a_file_that_stands_twice_is_read_once(tmp_path):
    filled(tmp_path, range(20))
    (tmp_path / "0000000000000009.rows").write_bytes(files(tmp_path)[1].read_bytes())
    assert kept(tmp_path) == list(range(20))
    assert len(buffer_in(tmp_path)) == 20


def test_files_that_ended_before_their_first_row_are_tidied_up(tmp_path):
    filled(tmp_path, range(8))
    (tmp_path / "0000000000000008.rows").write_bytes(b"")
    (tmp_path / "0000000000000000.rows.part").write_bytes(b"half a merged file")
    buffer = buffer_in(tmp_path)
    buffer.extend(made_up(range(20)))
    buffer.close()
    assert kept(tmp_path) == list(range(20))
    assert not list(tmp_path.glob("*.part"))


# Power


class PowerCut(Disk):
    """Knows what has reached the platter: all else may be lost, or garbled, when the power goes."""

    def __init__(self):
        self.path_of, self.synced = {}, {}  # descriptor -> path; path -> bytes that are safe

    def create(self, path):
        descriptor = super().create(path)
        self.path_of[descriptor], self.synced[path] = path, 0
        return descriptor

    def reopen(self, path, size):
        descriptor = super().reopen(path, size)
        self.path_of[descriptor], self.synced[path] = path, size
        return descriptor

    def sync(self, descriptor):
        self.synced[self.path_of[descriptor]] = os.fstat(descriptor).st_size

    def sync_folder(self, folder):
        pass

    def rename(self, old, new):
        super().rename(old, new)
        self.synced[new] = self.synced.pop(old)

    def cut(self, tail):
        for path, size in self.synced.items():
            if path.exists() and path.stat().st_size > size:
                length = path.stat().st_size - size
                with open(path, "r+b") as file:
                    file.truncate(size)
                    file.seek(size)
                    file.write(tail[:length])


@pytest.mark.slow
@pytest.mark.parametrize("tail", [b"", b"\0" * 100_000, b"\xa5" * 100_000])
def test_a_power_cut_loses_less_than_a_second(tmp_path, tail, generator):
    worst = 0
    for cut in range(12):
        folder, disk, clock = tmp_path / str(cut), PowerCut(), Clock()
        buffer, at = buffer_in(folder, capacity=4000, disk=disk, clock=clock), 0
        for _ in range(int(generator.integers(3, 40))):
            step = int(generator.choice([1, 5, 20, 300], p=[0.3, 0.4, 0.25, 0.05]))  # now and then it was away for three seconds
            buffer.extend(made_up(range(at, at + step)))
            at, clock.now_s = at + step, clock.now_s + step / 100
            buffer.sync_if_due(clock.now_s)
        disk.cut(tail)
        buffer.lock.close()
        left = kept(folder)
        assert left == list(range(len(left)))
        worst = max(worst, at - len(left))
    assert 0 < worst <= 100  # rows of 10 ms


def test_rows_that_come_in_no_time_are_safe_after_half_a_second_of_theirs(tmp_path):
    disk = PowerCut()
    buffer = buffer_in(tmp_path, capacity=4000, disk=disk, clock=Clock())  # it stands still
    for at in range(0, 330, 10):
        buffer.extend(made_up(range(at, at + 10)))
    disk.cut(b"")
    assert 250 < len(kept(tmp_path)) < 330


def test_rows_are_safe_after_half_a_second_of_the_learners_time(tmp_path):
    disk, clock = PowerCut(), Clock()
    buffer = buffer_in(tmp_path, capacity=4000, disk=disk, clock=clock)
    for at in range(23):
        buffer.extend(made_up([at])._replace(t_host_ns=np.zeros(1, np.int64)))  # of one instant
        clock.now_s += 0.125
    disk.cut(b"")
    assert open_rows(tmp_path).rows.index.tolist() == list(range(21))  # synced at 20; 21 and 22 had a quarter of a second
    buffer.sync_if_due(clock.now_s)


# Kills


class Mortal(PowerCut):
    """Dies at its n-th operation: before it, or after half of it if it is a write. With `power`, what was not synced goes too."""

    def __init__(self, dies_at, power):
        super().__init__()
        self.left, self.power = dies_at, power

    def lives(self):
        self.left -= 1
        if self.left < 0:
            if self.power:
                self.cut(b"\xa5" * 100_000)
            os.kill(os.getpid(), signal.SIGKILL)

    def write(self, descriptor, data, at):
        if self.left == 0:
            super().write(descriptor, bytes(data)[: len(data) // 2], at)
        self.lives()
        super().write(descriptor, data, at)


for name in ("create", "reopen", "sync", "close", "rename", "unlink", "sync_folder"):

    def dying(self, *arguments, name=name):
        self.lives()
        return getattr(PowerCut, name)(self, *arguments)

    setattr(Mortal, name, dying)


def live(folder, keep, disk, told):
    """Feeds a log of 45 steps in threes, as a tuner does that begins again; says on `told` how far it is."""
    buffer = buffer_in(folder, capacity=24, keep=keep, disk=disk)
    for at in range(buffer.total // 3 * 3, 45, 3):
        buffer.extend(made_up(range(at, at + 3)))
        os.write(told, buffer.total.to_bytes(4, "little"))
    buffer.close()


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["oldest-out", "coverage"])
@pytest.mark.parametrize("power", [False, True])
def test_killed_at_any_file_operation_it_is_a_valid_buffer_and_the_log_fills_it_again(tmp_path, keep, power):
    for dies_at in range(1000):
        folder, (hear, told) = tmp_path / str(dies_at), os.pipe()
        status = os.waitpid(in_a_child(lambda: live(folder, keep, Mortal(dies_at, power), told)), 0)[1]  # noqa: B023
        os.close(told)
        reported = int.from_bytes(os.read(hear, 1 << 16)[-4:], "little")
        os.close(hear)
        if status == 0:
            break
        assert status == signal.SIGKILL
        buffer = buffer_in(folder, capacity=24, keep=keep, disk=PowerCut())
        before = buffer.total
        left = buffer.rows.index.astype(int).tolist()
        assert left == sorted(set(left))
        assert len(left) <= 24
        assert (buffer.total >= reported) or power
        assert buffer.last(FLIGHT) == buffer.total - 1  # neither a step that would be left out nor one that would come twice
        if keep == "oldest-out":
            assert left == list(range(buffer.total - len(left), buffer.total))
            assert len(left) >= min(buffer.total, 24 - 6)
        else:
            assert len(left) >= min(buffer.total, 24 - 6)
            assert left[-6:] == list(range(max(buffer.total - 6, 0), buffer.total))
        assert buffer.extend(made_up(range(45))) == 45 - before
        assert buffer.total == 45
        buffer.close()
        again = kept(folder)
        assert again == sorted(set(again))
        assert sum(path.stat().st_size - PAGE for path in files(folder)) == len(again) * SIZE  # nothing half done is left
        assert sorted(folder.iterdir()) == [*files(folder), folder / "lock"]
        assert len(again) >= 18
    assert dies_at > 50


def as_fast_as_it_can(folder, keep, told):
    buffer = buffer_in(folder, capacity=4000, keep=keep)
    at = buffer.total
    while True:
        buffer.extend(made_up(range(at, at + 7)))
        at += 7
        os.write(told, buffer.total.to_bytes(4, "little"))


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["oldest-out", "coverage"])
def test_killed_at_random_instants_no_reported_row_is_lost_none_corrupted_none_twice(tmp_path, keep, generator):
    for _ in range(20):
        hear, told = os.pipe()
        child = in_a_child(lambda: as_fast_as_it_can(tmp_path, keep, told))  # noqa: B023
        first = os.read(hear, 4)  # it is under way
        time.sleep(float(generator.uniform(0, 0.1)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(told)
        reported = int.from_bytes((first + os.read(hear, 1 << 20))[-4:], "little")
        os.close(hear)
        index = kept(tmp_path)
        stock = open_rows(tmp_path).stock
        assert stock.total >= reported > 0
        assert stock.damaged == 0
        assert len(set(index)) == len(index)
        assert index == sorted(index)
        if keep == "oldest-out":
            assert index == list(range(stock.total - len(index), stock.total))
        assert len(index) >= min(stock.total, 3500 - 6)  # an eighth goes to make room for seven
    assert stock.total > 4000


# A disk that does not take it


class Refusing(Disk):
    """Full, or ill, as long as `error` is set; a write gets half through."""

    error = 0

    def write(self, descriptor, data, at):
        if self.error == errno.ENOSPC:
            super().write(descriptor, bytes(data)[: len(data) // 2], at)
            raise OSError(self.error, os.strerror(self.error))
        super().write(descriptor, data, at)

    def sync(self, descriptor):
        if self.error == errno.EIO:
            raise OSError(self.error, os.strerror(self.error))
        super().sync(descriptor)


@pytest.mark.parametrize("keep", ["oldest-out", "coverage"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_on_a_disk_that_refuses_learning_goes_on_and_rows_are_written_later(tmp_path, error, keep):
    disk, clock = Refusing(), Clock()
    buffer = buffer_in(tmp_path, disk=disk, clock=clock, keep=keep)
    buffer.extend(made_up(range(10)))
    disk.error = error
    for at in range(10, 40):
        buffer.extend(made_up([at]))
        clock.now_s += 1.0
    assert buffer.rows.index.tolist() == list(range(40))
    assert buffer.complaints == [f"{tmp_path}: {os.strerror(error)}; learning goes on from memory, rows are written when there is room"]
    assert 5 <= buffer.disk_failures <= 8  # asked again every five seconds, not at every row
    disk.error, clock.now_s = 0, clock.now_s + 10.0
    buffer.sync_if_due(clock.now_s)
    assert buffer.unwritten == 0
    assert kept(tmp_path) == list(range(40))
    buffer.close()
    assert buffer_in(tmp_path).total == 40


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["oldest-out", "coverage"])
def test_a_disk_that_is_full_for_ever_leaves_the_memory_bounded_and_the_newest_rows_in_it(tmp_path, keep):
    disk, clock = Refusing(), Clock()
    buffer = buffer_in(tmp_path, disk=disk, clock=clock, keep=keep)
    buffer.extend(made_up(range(20)))
    disk.error = errno.ENOSPC
    for at in range(20, 300):
        buffer.extend(made_up([at]))
        clock.now_s += 1.0
    assert buffer.rows.index.tolist() == list(range(236, 300))
    assert buffer.never_written == 236 - 20 and buffer.total == 300  # noqa: PT018
    disk.error = 0
    buffer.close()
    assert kept(tmp_path)[-8:] == list(range(292, 300))
    assert buffer_in(tmp_path).total == 300


# Coverage


def test_the_most_crowded_cells_go_first_and_in_them_the_oldest():
    cell = np.array([5, 5, 7, 5, 9, 7, 5, 5, 9, 5])  # 5: six times, 7 and 9: twice; the last three are not candidates
    assert np.flatnonzero(surplus(cell, 7, 3)).tolist() == [0, 1, 3]
    assert np.flatnonzero(surplus(cell, 7, 4)).tolist() == [0, 1, 3, 6]
    assert np.flatnonzero(surplus(cell, 7, 5)).tolist() == [0, 1, 2, 3, 6]


def test_surplus_is_what_taking_one_at_a_time_gives(generator):
    for _ in range(60):
        size = int(generator.integers(1, 60))
        candidates = int(generator.integers(1, size + 1))
        count = int(generator.integers(0, candidates + 1))
        cell = generator.integers(0, int(generator.integers(1, 12)), size)
        went = surplus(cell, candidates, count)
        assert int(went.sum()) == count
        left, crowds = np.flatnonzero(~went), []
        counts = np.bincount(cell)
        for _step in range(count):  # greedily: always from a most crowded cell that has a candidate left
            may = np.bincount(cell[:candidates], minlength=len(counts)) - (np.bincount(cell, minlength=len(counts)) - counts) > 0
            most = np.where(may, counts, -1).argmax()
            crowds.append(counts[most])
            counts[most] -= 1
        assert sorted(np.bincount(cell[np.r_[left, candidates:size]], minlength=len(counts))) == sorted(counts)
        for of in np.unique(cell):
            mine = np.flatnonzero(cell[:candidates] == of)
            assert went[mine].tolist() == sorted(went[mine], reverse=True)


def test_cells_are_what_they_were_when_the_first_robot_flew():
    obs = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, -2.0, 0.5], [9.0, 9.0, 9.0]], np.float32)
    assert cells(obs).tolist() == [1562, 2093, 504, 2620]
    assert (cells(np.tile(obs, (1, 5))) < 3125).all()


@pytest.mark.slow
def test_what_was_seen_once_outlives_what_is_seen_all_the_time(tmp_path, generator):
    for keep, share in (("oldest-out", 0), ("coverage", 6)):
        buffer, at = buffer_in(tmp_path / keep, keep=keep), 0
        for lump in range(60):
            rows = made_up(range(at, at + 10))
            rows.obs[:] = generator.normal(0, 0.02, rows.obs.shape)
            if lump in (1, 3, 5):
                rows.obs[:2] = generator.choice([-1.0, 1.0], 3) * (1 + lump)
            buffer.extend(rows)
            at += 10
        assert int((np.abs(buffer.rows.obs).max(axis=1) > 1).sum()) == share
        buffer.close()


# Held out


def test_every_fifth_second_is_for_the_gate_and_its_edges_for_nobody():
    t_s = np.array([0.0, 0.24, 0.25, 1.0, 1.74, 1.76, 2.0, 2.24, 2.26, 10.0, 19.74, 19.76, 20.0, 20.3, 40.5])
    rows = made_up(range(len(t_s)))._replace(t_host_ns=(t_s * 1e9).astype(np.int64))
    split = held_out(rows)
    assert t_s[split.held].tolist() == [0.25, 20.3, 40.5]
    assert t_s[split.train].tolist() == [1.74, 1.76, 2.0, 2.24, 2.26, 19.74]
    later = held_out(Rows(*(column[5:] for column in rows)))  # the oldest have gone: nobody changes sides
    assert (later.held.tolist(), later.train.tolist()) == (split.held[5:].tolist(), split.train[5:].tolist())


# A small board


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["oldest-out", "coverage"])
def test_a_hundred_thousand_rows_of_thirty_observations_take_less_than_sixty_megabytes(tmp_path, keep):
    big = Shape(30, 2, ROBOT)
    tracemalloc.start()
    try:
        buffer = buffer_in(tmp_path, capacity=100_000, keep=keep, shape=big)
        for at in range(0, 130_000, 1000):
            buffer.extend(made_up(range(at, at + 1000), obs=30, act=2))
        buffer.close()
        peak = tracemalloc.get_traced_memory()[1]
        del buffer
        tracemalloc.reset_peak()
        again = buffer_in(tmp_path, capacity=100_000, keep=keep, shape=big)
        assert len(again) > 87_000
        assert max(peak, tracemalloc.get_traced_memory()[1]) < 60e6
    finally:
        tracemalloc.stop()
