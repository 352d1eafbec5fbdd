"""The flight recorder: what was logged comes back bit for bit; what is damaged is counted, named and never believed."""

import csv
import errno
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from made_up_flight import FIRST_NS, TICK_NS, filled_ring, flight_folder, in_a_child, made_up_row, made_up_rows, made_up_step, same

from edge_dsac.cli.main import main
from edge_dsac.records import BoardMode, Event, Fault, Mode, Rule
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.steplog import Ring, RingReader, open_log, recorder, summarise
from edge_dsac.steplog import ring as ring_module
from edge_dsac.steplog.export import export
from edge_dsac.steplog.layout import CLOSED_AT, HEADER_BYTES, LogError, RecordLayout
from edge_dsac.steplog.recorder import Recorder, Segment
from edge_dsac.steplog.ring import RecorderState, started_at


def assert_same_step(got, expected):
    """Field by field, through the nested records."""
    for name in expected._fields:
        a, b = getattr(got, name), getattr(expected, name)
        if hasattr(b, "_fields"):
            assert_same_step(a, b)
        else:
            assert np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True), name


# ---- one step ----


def test_a_step_holds_what_its_row_says(rover):
    """By hand, so that a mistake made twice (in packing and in unpacking) does not cancel out."""
    step = made_up_step(RecordLayout(rover), 3)
    assert np.asarray(step.frame.position_rad) == pytest.approx([3.0, 3.125])
    assert np.asarray(step.frame.velocity_rad_s) == pytest.approx([103.0, 103.125])
    assert np.asarray(step.frame.applied) == pytest.approx([203.0, 203.125])
    assert np.asarray(step.frame.gyro_rad_s) == pytest.approx([303.0, 303.125, 303.25])
    assert np.asarray(step.frame.accel_m_s2) == pytest.approx([403.0, 403.125, 403.25])
    assert np.asarray(step.frame.extra) == pytest.approx([503.0, 503.125, 503.25])
    assert step.frame.battery_v == 1003.0
    assert np.asarray(step.obs.vector)[:2] == pytest.approx([603.0, 603.125])
    assert np.asarray(step.action) == pytest.approx([703.0, 703.125])
    assert np.asarray(step.command.applied_action) == pytest.approx([803.0, 803.125])
    assert np.asarray(step.command.command) == pytest.approx([903.0, 903.125])
    assert (step.frame.seq, step.frame.answered_seq, step.command.answers_seq) == (3, 4, 5)
    assert (step.frame.t_mcu_us, step.t_host_ns, step.late_ns, step.busy_ns, step.frame_age_ns) == (
        7_030_000,
        5_030_000_000,
        1003,
        2003,
        3003,
    )
    assert (step.frame.board, step.mode, step.because) == (BoardMode.ARMED, Mode.RUNNING, Event.FRAME_FRESH)
    assert (step.frame.faults, step.command.rules) == (Fault.TILT | Fault.LIMITED, Rule.SLEW | Rule.BLEND)
    assert (step.bundle_id, step.fresh, step.obs.ok, step.obs.t_mcu_us) == ((1 << 63) + 5, True, True, 7_030_000)


@pytest.mark.parametrize("robot", ["bot", "rover"])
def test_a_step_comes_back_equal_after_the_ring_and_after_the_segment(request, tmp_path, robot):
    spec = request.getfixturevalue(robot)
    layout = RecordLayout(spec)
    odd = {3: {"flags": 0}, 4: {"gyro_rad_s": np.nan, "frame_age_ns": -1}, 5: {"action": np.inf, "mode": Mode.ESTOP}}
    steps = [made_up_step(layout, index, **odd.get(index, {})) for index in range(8)]
    ring = Ring(tmp_path / "ring", spec, 16)
    for step in steps:
        ring.append(step)
    for got, expected in itertools.zip_longest(open_log(tmp_path / "ring").steps(), steps):
        assert_same_step(got, expected)
    recorder = Recorder(tmp_path / "ring", tmp_path)
    recorder.drain()
    recorder.finish()
    assert not (tmp_path / "ring").exists()
    for got, expected in itertools.zip_longest(open_log(tmp_path).steps(), steps):
        assert_same_step(got, expected)


def test_positions_keep_every_count_after_an_hour_of_turning(bot, tmp_path):
    """40 rad/s for an hour is 144 000 rad; one count is 0.38 mrad, and float32 there steps by 16 mrad."""
    filled_ring(tmp_path / "ring", bot, 1, position_rad=144_000.0 + 1 / 2607.594)
    assert open_log(tmp_path / "ring").columns["position_rad"][0, 0] == 144_000.0 + 1 / 2607.594


def test_a_log_brings_its_own_robot_file(bot, tmp_path):
    log = open_log(flight_folder(tmp_path / "flight", bot, 2))
    assert log.spec == bot
    assert log.spec.text == bot.text


# ---- the ring ----


def test_the_ring_keeps_the_newest_when_it_wraps(bot, tmp_path):
    filled_ring(tmp_path / "ring", bot, 21, capacity=8)
    log = open_log(tmp_path / "ring")
    assert log.columns["index"].tolist() == list(range(13, 21))
    assert same(log.columns, made_up_rows(bot, 21)[13:])
    assert (log.torn, log.gaps) == (0, 0)


def test_a_reader_takes_each_step_once(bot, tmp_path):
    ring = filled_ring(tmp_path / "ring", bot, 3, capacity=8)
    reader = RingReader(tmp_path / "ring")
    assert reader.take(2)["index"].tolist() == [0, 1]
    assert reader.take()["index"].tolist() == [2]
    assert len(reader.take()) == 0
    ring.append(made_up_step(ring.layout, 3))
    assert reader.take()["index"].tolist() == [3]


def resident_kb(path):
    """Of all mappings of this file in this process."""
    kb, mine = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            mine = line.endswith(str(path))
        elif mine and line.startswith("Rss:"):
            kb += int(line.split()[1])
    return kb


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_pages_that_are_let_go_are_not_ours_any_more_and_lose_nothing(bot, tmp_path):
    ring = filled_ring(tmp_path / "ring", bot, 2000, capacity=2000)
    reader = RingReader(tmp_path / "ring")
    before = resident_kb((tmp_path / "ring").resolve())
    assert len(reader.take(1500)) == 1500
    touched = resident_kb((tmp_path / "ring").resolve()) - before
    assert touched > 200
    reader.let_go()
    assert resident_kb((tmp_path / "ring").resolve()) <= before
    assert reader.take()["index"].tolist() == list(range(1500, 2000))
    ring.append(made_up_step(ring.layout, 2000))
    assert reader.take()["index"].tolist() == [2000]
    assert same(RingReader(tmp_path / "ring").take(3000), made_up_rows(bot, 2001)[1:])


def test_a_reader_that_is_overtaken_counts_what_it_lost(bot, tmp_path):
    ring = filled_ring(tmp_path / "ring", bot, 4, capacity=8)
    reader = RingReader(tmp_path / "ring")
    assert len(reader.take()) == 4
    for index in range(4, 17):
        ring.append(made_up_step(ring.layout, index))
    # 17 written, 8 kept: 9 to 16; of the 13 new ones 4 to 8 are gone.
    assert reader.take()["index"].tolist() == list(range(9, 17))
    assert (reader.lost, reader.torn) == (5, 0)


@pytest.mark.parametrize("at", [0, 8, 60, 100, -5, -1], ids=lambda at: f"byte {at}")
def test_a_record_with_one_flipped_bit_is_counted_and_not_believed(bot, tmp_path, at):
    ring = filled_ring(tmp_path / "ring", bot, 5, capacity=8)
    ring.memory[ring.header.data_at + 2 * ring.layout.bytes + at % ring.layout.bytes] ^= 0x10
    log = open_log(tmp_path / "ring")
    assert log.columns["index"].tolist() == [0, 1, 3, 4]
    assert (log.torn, log.gaps) == (1, 1)


def test_a_whole_record_in_the_wrong_place_is_not_believed(bot, tmp_path):
    """As one that a writer had finished, but not yet announced, when it was killed: good checksum, index of the next lap."""
    ring = filled_ring(tmp_path / "ring", bot, 5, capacity=8)
    size, at = ring.layout.bytes, ring.header.data_at
    ring.memory[at + 2 * size : at + 3 * size] = ring.memory[at + 3 * size : at + 4 * size]
    log = open_log(tmp_path / "ring")
    assert log.columns["index"].tolist() == [0, 1, 3, 4]
    assert log.torn == 1


def test_free_counts_down_to_nothing_until_the_recorder_has_been(bot, tmp_path):
    ring = filled_ring(tmp_path / "ring", bot, 5, capacity=8)
    assert ring.free() == 3
    recorder = Recorder(tmp_path / "ring", tmp_path)
    recorder.drain()
    assert ring.free() == 8


def check_rows(rows, template):
    """Every row is the step its index says. Vectorised: the reader must keep up with a writer at full speed."""
    index = rows["index"].astype(np.int64)
    assert np.array_equal(rows["t_host_ns"], FIRST_NS + index * TICK_NS)
    assert np.array_equal(rows["late_ns"], 1000 + index)
    for name in ("position_rad", "velocity_rad_s", "command", "obs"):
        assert np.array_equal(
            rows[name], np.broadcast_to((template[name] + (index % 16)[:, None]).astype(rows[name].dtype), rows[name].shape)
        )
    assert (np.diff(index) > 0).all()


def sixteen_steps(layout):
    """Steps to append over and over: the fields that count are put in by the ring or by `endless`."""
    return [made_up_step(layout, index) for index in range(16)]


def endless(ring, count=None):
    """Appends as fast as it can: step n holds n % 16 in every array, and n in its times."""
    steps = sixteen_steps(ring.layout)
    for index in itertools.count() if count is None else range(count):
        ring.append(steps[index % 16]._replace(t_host_ns=FIRST_NS + index * TICK_NS, late_ns=1000 + index))
    ring.close()


@pytest.mark.slow
@pytest.mark.parametrize("capacity", [2, 8, 256])
def test_a_reader_beside_a_writer_never_sees_a_wrong_step(bot, tmp_path, capacity):
    path, total = tmp_path / "ring", 60_000
    template = made_up_row(RecordLayout(bot), 0)
    pid = in_a_child(lambda: endless(Ring(path, bot, capacity), total))
    reader = wait_for_reader(path, pid)
    first, seen, closed = reader.cursor, 0, False
    while not closed:
        closed = reader.closed() or not reader.writer_alive()  # asked first: what is taken afterwards is the last there is
        rows = reader.take()
        check_rows(rows, template)
        seen += len(rows)
    assert os.waitpid(pid, 0)[1] == 0
    assert seen + reader.lost + reader.torn == total - first
    assert seen > capacity
    print(f"{seen} seen, {reader.lost} lost, {reader.torn} torn")


@pytest.mark.slow
def test_a_reader_in_another_thread_never_sees_a_wrong_step(bot, tmp_path):
    """As a test or a notebook has it; the interpreter may change threads between any two lines of append."""
    ring, total = Ring(tmp_path / "ring", bot, 4), 20_000
    reader, template, seen, closed = RingReader(tmp_path / "ring"), made_up_row(RecordLayout(bot), 0), 0, False
    writer = threading.Thread(target=endless, args=(ring, total))
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        writer.start()
        while not closed:
            closed = reader.closed() or not writer.is_alive()
            rows = reader.take()
            check_rows(rows, template)
            seen += len(rows)
    finally:
        sys.setswitchinterval(before)
        writer.join()
    assert seen + reader.lost + reader.torn == total
    assert seen > 4
    assert reader.lost + reader.torn > 0  # it was overtaken, else nothing was shown


def wait_for_reader(path, pid):
    """A writer that died at its start fails the test; nobody waits for it."""
    while not (reader := try_reader(path)):
        assert os.waitpid(pid, os.WNOHANG)[0] == 0
        time.sleep(0.0005)
    return reader


def try_reader(path):
    try:
        return RingReader(path)
    except ValueError:
        return None  # it is just being made


@pytest.mark.slow
def test_after_200_kills_of_the_writer_every_step_is_whole_and_in_order(bot, tmp_path, generator):
    path, template, torn, lengths = tmp_path / "ring", made_up_row(RecordLayout(bot), 0), 0, []
    for _ in range(200):
        path.unlink(missing_ok=True)
        pid = in_a_child(lambda: endless(Ring(path, bot, 32)))
        reader = wait_for_reader(path, pid)
        while not reader.head() and reader.writer_alive():
            time.sleep(0.0005)
        time.sleep(float(generator.uniform(0, 0.006)))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        reader = RingReader(path)
        rows = reader.take()
        check_rows(rows, template)
        lengths.append(reader.head())
        # Only the oldest may be torn: its place is where the writer was when it died.
        assert reader.torn <= 1
        assert rows["index"].tolist() == list(range(reader.head() - len(rows), reader.head()))
        assert len(rows) == min(reader.head(), 32) - reader.torn
        assert not reader.writer_alive()
        torn += reader.torn
    print(f"{torn} of 200 kills tore a step; {min(lengths)} to {max(lengths)} steps written")
    assert min(lengths) < max(lengths)
    assert torn > 0  # else the kills never came at a bad moment and nothing was shown


def test_a_recorder_drains_what_a_dead_writer_left(bot, tmp_path):
    def fly_and_die():
        filled_ring(tmp_path / "ring", bot, 5)
        os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(in_a_child(fly_and_die), 0)
    recorder = Recorder(tmp_path / "ring", tmp_path)
    assert not recorder.done()  # dead, but not on disk yet
    recorder.drain()
    assert recorder.done()
    recorder.finish()
    assert same(open_log(tmp_path).columns, made_up_rows(bot, 5))


def test_a_living_writer_is_not_done_with_until_it_closes(bot, tmp_path):
    ring = filled_ring(tmp_path / "ring", bot, 5)
    recorder = Recorder(tmp_path / "ring", tmp_path)
    recorder.drain()
    assert not recorder.done()
    ring.append(made_up_step(ring.layout, 5))
    ring.close()
    assert not recorder.done()
    recorder.drain()
    assert recorder.done()


def test_another_process_with_the_writers_number_is_not_the_writer(bot, tmp_path, monkeypatch):
    filled_ring(tmp_path / "ring", bot, 1)
    assert RingReader(tmp_path / "ring").writer_alive()
    really = started_at(os.getpid())
    monkeypatch.setattr(ring_module, "started_at", lambda pid: really + 1)
    assert not RingReader(tmp_path / "ring").writer_alive()


def test_a_process_that_is_gone_or_a_zombie_has_no_start():
    assert started_at(os.getpid()) > 0
    pid = in_a_child(lambda: None)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # over, not yet buried
    assert started_at(pid) == 0
    os.waitpid(pid, 0)
    assert started_at(pid) == 0


def test_a_folder_with_a_flight_in_it_is_refused_for_another(bot, tmp_path):
    """Segments are named by their first step: the second flight would be written over the first."""
    flight_folder(tmp_path / "drained", bot, 3)
    (tmp_path / "waiting").mkdir()
    filled_ring(tmp_path / "waiting" / "ring", bot, 3)
    for folder in (tmp_path / "drained", tmp_path / "waiting"):
        with pytest.raises(LogError, match=f"{folder.name}: already holds a flight log; give another folder"):
            Ring.create(folder / "ring", bot, 8)
        assert same(open_log(folder).columns, made_up_rows(bot, 3))


def test_a_ring_in_shared_memory_is_found_by_its_link_and_gone_after_the_recorder(bot, tmp_path):
    if not os.path.isdir("/dev/shm"):
        pytest.skip("this machine has no /dev/shm")
    ring = Ring.create(tmp_path / "ring", bot, 8)
    real = (tmp_path / "ring").resolve()
    assert str(real).startswith("/dev/shm/")
    ring.append(made_up_step(ring.layout, 0))
    ring.close()
    recorder = Recorder(tmp_path / "ring", tmp_path)
    recorder.drain()
    recorder.finish()
    assert not real.exists()
    assert not (tmp_path / "ring").is_symlink()
    assert len(open_log(tmp_path).columns) == 1


# ---- damage on disk ----


@pytest.fixture(scope="session")
def segment_of_five(bot, tmp_path_factory):
    folder = flight_folder(tmp_path_factory.mktemp("segment") / "flight", bot, 5)
    (path,) = folder.glob("*.edsl")
    return path.read_bytes(), RecordLayout(bot)


def data_at(data):
    return open_header(data).data_at


def open_header(data):
    from edge_dsac.steplog.layout import unpack_header

    return unpack_header(data, "here")


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(share=st.floats(0, 1))
@example(share=1.0)
@example(share=0.0)
def test_a_segment_cut_anywhere_gives_every_step_before_the_cut(segment_of_five, tmp_path, bot, share):
    data, layout = segment_of_five
    start = data_at(data)
    cut = start + round(share * (len(data) - start))
    path = tmp_path / "steps-000000000000.edsl"
    path.write_bytes(data[:cut])
    log = open_log(path)
    whole = (cut - start) // layout.bytes
    assert same(log.columns, made_up_rows(bot, 5)[:whole])
    assert (log.torn, log.dropped_bytes) == (0, (cut - start) % layout.bytes)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(share=st.floats(0, 1, exclude_max=True))
@example(share=0.0)
@example(share=0.4999)  # the last byte of the first page
@example(share=0.9999)  # the robot file is whole, its page is not
def test_a_segment_cut_within_its_header_says_so(segment_of_five, tmp_path, share):
    data, _ = segment_of_five
    cut = int(share * data_at(data))
    path = tmp_path / "steps-000000000000.edsl"
    path.write_bytes(data[:cut])
    with pytest.raises(LogError, match=r"steps-000000000000\.edsl.*cut off within its header"):
        open_log(path)


def test_a_new_segment_cut_within_its_header_does_not_hide_the_flight(bot, tmp_path, monkeypatch):
    """A power cut just after a segment was begun: the file is there, and short or empty."""
    folder = flight_folder(tmp_path / "flight", bot, 5)
    (whole,) = folder.glob("*.edsl")
    for left in (0, 7, 100, 5000):
        (folder / "steps-000000000005.edsl").write_bytes(whole.read_bytes()[:left])
        log = open_log(folder)
        assert same(log.columns, made_up_rows(bot, 5))
        assert log.dropped_bytes == left


def test_a_tail_of_zeros_is_no_steps(segment_of_five, tmp_path, bot):
    """What some file systems leave after a power cut."""
    data, layout = segment_of_five
    (tmp_path / "steps-000000000000.edsl").write_bytes(data + bytes(2 * layout.bytes + 10))
    log = open_log(tmp_path)
    assert same(log.columns, made_up_rows(bot, 5))
    assert (log.torn, log.dropped_bytes) == (2, 10)


@pytest.mark.parametrize(
    ("at", "value", "named"),
    [
        (0, b"PNG", "expected a flight log"),
        (8, b"\x02", "log version 2, this program reads 1"),
        (12, b"\x01", "records of"),
        (HEADER_BYTES + 2, b"\xff", "the robot file inside.*not text"),
        (HEADER_BYTES, b"[[[", "the robot file inside.*not valid TOML"),
    ],
    ids=["magic", "version", "record size", "text", "toml"],
)
@pytest.mark.parametrize("kind", ["segment", "ring"])
def test_a_damaged_header_is_named(segment_of_five, tmp_path, bot, kind, at, value, named):
    path = tmp_path / "some.edsl"
    if kind == "segment":
        path.write_bytes(segment_of_five[0])
    else:
        filled_ring(path, bot, 2)
    data = bytearray(path.read_bytes())
    data[at : at + len(value)] = value
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=f"some.edsl.*{named}"):
        open_log(path)


def test_what_is_no_log_is_named(tmp_path, bot, segment_of_five):
    with pytest.raises(LogError, match="holds no flight log"):
        open_log(tmp_path)
    with pytest.raises(LogError, match="does not exist; give the folder"):
        open_log(tmp_path / "missing")
    (tmp_path / "segment").write_bytes(segment_of_five[0])
    with pytest.raises(LogError, match="is a segment, not a ring"):
        RingReader(tmp_path / "segment")
    with pytest.raises(LogError, match="cannot be read"):
        RingReader(tmp_path / "missing")


def test_a_cut_copy_of_a_ring_gives_what_is_whole_in_it(tmp_path, bot):
    ring = filled_ring(tmp_path / "ring", bot, 8, capacity=8)
    data = (tmp_path / "ring").read_bytes()
    (tmp_path / "ring").write_bytes(data[: -ring.layout.bytes - 1])
    log = open_log(tmp_path / "ring")
    assert same(log.columns, made_up_rows(bot, 6))
    assert log.torn == 2
    for cut in (0, 100, HEADER_BYTES + 1000):
        (tmp_path / "ring").write_bytes(data[:cut])
        with pytest.raises(LogError, match="ring.*cut off within its header"):
            open_log(tmp_path / "ring")


def test_parts_of_two_robots_are_not_joined(tmp_path, bot, rover):
    flight_folder(tmp_path, bot, 2)
    filled_ring(tmp_path / "ring", rover, 2)
    with pytest.raises(LogError, match="different robots"):
        open_log(tmp_path)


def test_parts_of_two_flights_are_not_joined(tmp_path, bot):
    flight_folder(tmp_path, bot, 2)
    filled_ring(tmp_path / "ring", bot, 4)
    with pytest.raises(LogError, match="different flights"):
        open_log(tmp_path)


# ---- the recorder ----


def test_a_half_drained_ring_and_its_segments_are_one_flight(bot, tmp_path):
    ring = filled_ring(tmp_path / "ring", bot, 3)
    Recorder(tmp_path / "ring", tmp_path).drain()
    for index in range(3, 7):
        ring.append(made_up_step(ring.layout, index))
    assert same(open_log(tmp_path).columns, made_up_rows(bot, 7))


def test_a_second_recorder_goes_on_where_the_first_was_killed(bot, tmp_path):
    ring = filled_ring(tmp_path / "ring", bot, 3)
    Recorder(tmp_path / "ring", tmp_path).drain()  # and no more of it
    for index in range(3, 7):
        ring.append(made_up_step(ring.layout, index))
    ring.close()
    second = Recorder(tmp_path / "ring", tmp_path)
    second.drain()
    second.finish()
    assert sorted(path.name for path in tmp_path.glob("*.edsl")) == ["steps-000000000000.edsl", "steps-000000000003.edsl"]
    assert same(open_log(tmp_path).columns, made_up_rows(bot, 7))


def test_a_long_flight_is_several_segments_and_one_log(bot, tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "SEGMENT_BYTES", 10_000)
    ring = Ring(tmp_path / "ring", bot, 64)
    drains = Recorder(tmp_path / "ring", tmp_path)
    for index in range(60):
        ring.append(made_up_step(ring.layout, index))
        if index % 20 == 19:
            drains.drain()
    ring.close()
    drains.finish()
    # Each drain brings 20 records and the segment is full (> 10 kB) after it, so that there are three.
    assert len(list(tmp_path.glob("*.edsl"))) == 3
    assert same(open_log(tmp_path).columns, made_up_rows(bot, 60))


class Disk:
    """A make_segment whose disk is full while `full` says so."""

    def __init__(self):
        self.full, self.sync_fails, self.begun = False, False, 0

    def __call__(self, *arguments):
        self.refuse()
        self.begun += 1
        disk = self

        class OnThisDisk(Segment):
            def append(self, data):
                disk.refuse()
                super().append(data)

            def sync(self):
                if disk.sync_fails:
                    raise OSError(errno.ENOSPC, "No space left on device")
                super().sync()

        return OnThisDisk(*arguments)

    def refuse(self):
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("full_from_the_start", [True, False])
def test_a_full_disk_is_waited_out_and_nothing_is_lost(bot, tmp_path, capsys, full_from_the_start):
    disk = Disk()
    ring = Ring(tmp_path / "ring", bot, 16)
    recorder = Recorder(tmp_path / "ring", tmp_path, disk)
    for index in range(12):
        ring.append(made_up_step(ring.layout, index))
        disk.full = (0 if full_from_the_start else 3) <= index < 9
        recorder.drain()
        assert recorder.reader.recorder_state() == (RecorderState.DISK_FULL if disk.full else RecorderState.RECORDING)
        if index == 8:
            # Steps 0 to 8 or 3 to 8 are only in memory and ring: the loop must see the room shrink.
            assert ring.free() == (7 if full_from_the_start else 10)
    disk.full = True
    ring.append(made_up_step(ring.layout, 12))
    ring.close()
    recorder.drain()
    assert not recorder.done()  # all is read, but not on disk
    disk.full = False
    recorder.drain()
    assert recorder.done()
    recorder.finish()
    assert same(open_log(tmp_path).columns, made_up_rows(bot, 13))
    said = capsys.readouterr().err
    assert said.count("No space left on device") == 1  # once, not ten times a second
    assert str(tmp_path) in said


def test_a_sync_that_fails_does_not_write_its_steps_twice(bot, tmp_path):
    disk = Disk()
    ring = filled_ring(tmp_path / "ring", bot, 3)
    recorder = Recorder(tmp_path / "ring", tmp_path, disk)
    disk.sync_fails = True
    recorder.drain()
    assert recorder.reader.recorder_state() == RecorderState.DISK_FULL
    assert ring.free() == 61
    disk.sync_fails = False
    recorder.drain()
    recorder.finish()
    (path,) = tmp_path.glob("*.edsl")
    assert same(open_log(path).columns, made_up_rows(bot, 3))


@pytest.fixture
def tiny_disk(tmp_path):
    """256 kB of tmpfs."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a tiny disk cannot be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mount") is None, reason="no mount command")
def test_on_a_really_full_disk_a_write_is_whole_or_undone(bot, tmp_path, tiny_disk, capsys):
    ballast = tiny_disk / "ballast"
    ring = filled_ring(tmp_path / "ring", bot, 10, capacity=2048)
    recorder = Recorder(tmp_path / "ring", tiny_disk)
    recorder.drain()
    (path,) = tiny_disk.glob("*.edsl")
    before = path.stat().st_size
    ballast.write_bytes(bytes(256 * 1024 - before - 32768))  # leaves 32 kB, less a page
    for index in range(10, 500):  # 490 records of about 250 bytes: 120 kB
        ring.append(made_up_step(ring.layout, index))
    recorder.drain()
    assert recorder.reader.recorder_state() == RecorderState.DISK_FULL
    assert path.stat().st_size == before
    assert same(open_log(path).columns, made_up_rows(bot, 10))
    ballast.unlink()
    ring.close()
    recorder.drain()
    recorder.finish()
    assert same(open_log(path).columns, made_up_rows(bot, 500))
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("mount") is None, reason="no mount command")
def test_a_ring_that_does_not_fit_is_a_named_error_and_leaves_nothing(bot, tiny_disk):
    with pytest.raises(LogError, match=r"ring: no room for a ring of 2\.\d MB: .*No space left.*free some space"):
        Ring(tiny_disk / "ring", bot, 12_000)
    assert not (tiny_disk / "ring").exists()


@pytest.mark.slow
def test_the_recorder_process_ends_by_itself_when_the_ring_is_closed(bot, tmp_path):
    ring = Ring.create(tmp_path / "ring", bot, 64)
    process = subprocess.Popen([sys.executable, "-m", "edge_dsac.steplog.recorder", str(tmp_path / "ring"), str(tmp_path)])
    for index in range(20):
        ring.append(made_up_step(ring.layout, index))
    while not list(tmp_path.glob("*.edsl")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)  # the loop decides when it is over
    time.sleep(0.3)
    for index in range(20, 40):
        ring.append(made_up_step(ring.layout, index))
    ring.close()
    assert process.wait(timeout=20) == 0
    assert same(open_log(tmp_path).columns, made_up_rows(bot, 40))
    assert not (tmp_path / "ring").is_symlink()


# ---- summary and export ----


def test_summary_figures_by_hand(bot, tmp_path):
    # 100 ticks at 100 Hz with one of 30 ms (two missed): 99 gaps, 98 * 10 + 30 = 1010 ms.
    times = [FIRST_NS + index * TICK_NS + (20_000_000 if index >= 50 else 0) for index in range(100)]
    modes = [Mode.ARMED] * 10 + [Mode.RUNNING] * 80 + [Mode.DAMPED] * 10
    flags = [3] * 100
    flags[40] = 0  # one tick without a fresh frame while moving; step 5 below is not moving
    flags[5] = 0
    faults = [Fault.LIMITED] * 90 + [Fault.TILT | Fault.TIMEOUT] * 10
    late = [1000 * (index + 1) for index in range(100)]  # 1 to 100 us
    changes = {"t_host_ns": times, "mode": modes, "flags": flags, "faults": faults, "late_ns": late, "rules": [Rule.SLEW] * 7 + [0] * 93}
    summary = summarise(open_log(flight_folder(tmp_path / "flight", bot, 100, **changes)))
    assert (summary["robot"], summary["ticks"], summary["seconds"], summary["hz"]) == ("balance_bot", 100, 1.01, 98.02)
    assert (summary["missed"], summary["not_fresh"], summary["gaps"], summary["torn"]) == (2, 1, 0, 0)
    assert summary["late_us"] == {"p50": 50.5, "p99": 99.0, "p999": 99.9, "max": 100.0}
    assert [(s["mode"], s["at_s"], s["for_s"]) for s in summary["modes"]] == [
        ("ARMED", 0.0, 0.09),
        ("RUNNING", 0.1, 0.81),
        ("DAMPED", 0.92, 0.09),
    ]
    assert summary["faults"] == [{"fault": "TIMEOUT+TILT", "at_s": 0.92}]
    assert summary["rules"] == {"SLEW": 7}
    assert summary["bundles"] == ["8000000000000005"]


def test_a_log_without_a_step_has_a_summary(bot, tmp_path):
    Ring(tmp_path / "ring", bot, 4)
    assert summarise(open_log(tmp_path / "ring")) == {"robot": "balance_bot", "ticks": 0, "torn": 0, "dropped_bytes": 0}


def test_log_info_json_is_the_summary(bot, tmp_path, capsys):
    folder = flight_folder(tmp_path / "flight", bot, 5)
    assert main(["log", "info", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == summarise(open_log(folder))
    assert main(["log", "info", str(folder)]) == 0
    assert "balance_bot: 5 ticks in 0.04 s: 100.0 Hz of 100" in capsys.readouterr().out


def test_log_info_of_nothing_says_why_and_exits_1(tmp_path, capsys):
    assert main(["log", "info", str(tmp_path)]) == 1
    assert "holds no flight log" in capsys.readouterr().err


def test_csv_holds_every_number_by_name(rover, tmp_path):
    folder = flight_folder(tmp_path / "flight", rover, 5, accel_m_s2=np.nan)
    assert main(["log", "export", str(folder), "--format", "csv", "-o", str(tmp_path / "flight.csv")]) == 0
    with open(tmp_path / "flight.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    third = rows[3]
    assert float(third["position_rad.right_wheel"]) == 3.125
    assert float(third["extra.radar_speed_m_s"]) == 503.25
    assert float(third["action.differential"]) == 703.125
    assert float(third["obs.path_speed_m_s"]) == 603.0
    assert math.isnan(float(third["accel_m_s2.z"]))
    assert (third["t_host_ns"], third["bundle_id"], third["fresh"]) == ("5030000000", str((1 << 63) + 5), "True")
    assert len(third) == sum(1 if not shape else shape[0] for shape in columns_of(rover))


def columns_of(spec):
    """Shapes of all that is exported: every field but crc, flags as two columns."""
    dtype = RecordLayout(spec).dtype
    return [dtype[name].shape for name in dtype.names if name not in ("crc", "flags")] + [(), ()]


def test_npz_holds_every_column_and_the_robot_file(rover, tmp_path):
    log = open_log(flight_folder(tmp_path / "flight", rover, 5, flags=[3, 1, 2, 0, 3]))
    export(log, "npz", tmp_path / "flight.npz")
    with np.load(tmp_path / "flight.npz") as file:
        assert str(file["robot_file"]) == rover.text
        assert file["position_rad.right_wheel"].tolist() == [0.125, 1.125, 2.125, 3.125, 4.125]
        assert file["fresh"].tolist() == [True, True, False, False, True]
        assert file["obs_ok"].tolist() == [True, False, True, False, True]
        for i, label in enumerate(ObservationLayout(rover).labels):
            assert np.array_equal(file[f"obs.{label}"], log.columns["obs"][:, i])


def test_mcap_read_back_holds_the_same_numbers(rover, tmp_path):
    pytest.importorskip("mcap", reason="the package mcap is not installed")
    from mcap.reader import make_reader

    folder = flight_folder(tmp_path / "flight", rover, 5, gyro_rad_s=np.nan, action=[np.inf] * 5)
    log = open_log(folder)
    export(log, "mcap", tmp_path / "flight.mcap")
    got = {}
    with open(tmp_path / "flight.mcap", "rb") as file:
        reader = make_reader(file)
        for _, channel, message in reader.iter_messages():
            text = message.data.decode()
            got.setdefault(channel.topic, []).append((message.log_time, json.loads(text, parse_constant=not_json)))
        (attachment,) = reader.iter_attachments()
    assert attachment.data.decode() == rover.text
    assert set(got) == {"/frame", "/observation", "/action", "/timing", "/mode"}
    assert all(
        [at - log.wall_start_ns for at, _ in messages] == [0, 10_000_000, 20_000_000, 30_000_000, 40_000_000] for messages in got.values()
    )
    frame, action = got["/frame"][3][1], got["/action"][3][1]
    assert frame == {
        "position_rad": [3.0, 3.125], "velocity_rad_s": [103.0, 103.125], "applied": [203.0, 203.125], "gyro_rad_s": [None] * 3,
        "accel_m_s2": [403.0, 403.125, 403.25], "battery_v": 1003.0, "extra": [503.0, 503.125, 503.25],
    }  # fmt: skip
    assert action == {
        "action": [None, None],
        "applied_action": [803.0, 803.125],
        "command": [903.0, 903.125],
        "rules": Rule.SLEW | Rule.BLEND,
    }
    assert got["/timing"][3][1] == {"late_ns": 1003, "busy_ns": 2003, "frame_age_ns": 3003}
    assert got["/mode"][3][1] == {"mode": "RUNNING", "board": "ARMED", "because": "FRAME_FRESH"}
    assert got["/observation"][3][1]["path_speed_m_s"] == 603.0


def not_json(word):
    raise AssertionError(f"{word} is not JSON")


@pytest.mark.parametrize("kind", ["csv", "npz", "mcap"])
def test_a_log_without_a_step_can_be_exported(bot, tmp_path, kind):
    Ring(tmp_path / "ring", bot, 4)
    export(open_log(tmp_path / "ring"), kind, tmp_path / f"nothing.{kind}")
    assert [path.name for path in tmp_path.iterdir() if path.name != "ring"] == [f"nothing.{kind}"]


def test_closed_is_a_word_of_its_own(bot, tmp_path):
    ring = filled_ring(tmp_path / "ring", bot, 1)
    assert not RingReader(tmp_path / "ring").closed()
    ring.close()
    assert RingReader(tmp_path / "ring").closed()
    assert ring.memory[CLOSED_AT] == 1
    assert Path(tmp_path / "ring").exists()  # the recorder takes it away, not the loop
