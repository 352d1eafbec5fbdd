"""`edge-dsac tune`: its budgets, its folders, its words; and a whole session on a flight that has been flown."""

import argparse
import json
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from tuning_fixture import flown, liked, policy_of, small_carried

from edge_dsac.bundle.keyring import board_key
from edge_dsac.bundle.package import read_bundle
from edge_dsac.bundle.parts import pack, parts_of
from edge_dsac.bundle.slots import Slots, create_slots
from edge_dsac.cli.fieldwork import Fieldwork, add_field_arguments
from edge_dsac.cli.main import main
from edge_dsac.cli.tuning import Budget, be_modest, course_of, tuning_of
from edge_dsac.cli.tuning_place import comparable, rows_folder, session_folder
from edge_dsac.learn.buffer import lock
from edge_dsac.learn.child import make_child
from edge_dsac.learn.course import Course
from edge_dsac.learn.learner import Tuning
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.steplog.layout import RecordLayout

PERIOD_NS = 10_000_000


def heard(budget, late_ns):
    budget.hear(np.array([(late_ns,)] * 100, [("late_ns", "<i8")]), PERIOD_NS)
    return budget.pause_s


def test_a_late_loop_is_made_way_for_and_a_punctual_one_is_not():
    budget = Budget(1.0, 0.5, 400.0)
    assert budget.rest_s(0.2) == pytest.approx(0.2)
    assert [heard(budget, late) for late in (100_000, 4_000_000, 4_000_000, 4_000_000)] == [0.0, 0.5, 1.0, 2.0]
    assert budget.rest_s(0.2) == pytest.approx(2.2)
    assert [heard(budget, 9_000_000) for _ in range(4)][-1] == 8.0
    assert heard(budget, 100_000) == 0.0
    assert budget.yielded == 7


@pytest.mark.parametrize("wrong", [(0.0, 0.5, 400.0), (1.0, 0.0, 400.0), (1.0, 1.5, 400.0), (1.0, 0.5, 0.0)])
def test_a_budget_of_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="--cpu-share"):
        Budget(*wrong)


def test_a_budget_says_what_is_spent():
    budget = Budget(1.0, 0.5, 400.0)
    assert [budget.spent(*used) for used in ((59.0, 399.0), (60.0, 1.0))] == ["", "the time is up"]
    assert budget.spent(1.0, 401.0) == "401 MB resident, 400 may be"


@pytest.mark.slow
def test_what_the_board_will_tune_in_a_flight_is_trusted_from_its_start(bot, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_DSAC_KEYS", str(tmp_path / "keys"))
    carried = small_carried(ObservationLayout(bot).size, len(bot.actions))
    slots = create_slots(tmp_path / "slots", policy_of(bot, carried), allow_unsigned=True)
    parser = argparse.ArgumentParser()
    add_field_arguments(parser)
    more = {"policy": None, "engine": "auto", "allow_unsigned": True}
    field = Fieldwork(argparse.Namespace(**vars(parser.parse_args(["--slots", str(tmp_path / "slots")])), **more), bot)
    child = make_child(slots.current(), carried, slots.current().golden.obs, {}, board_key(tmp_path / "keys", platform.node()))
    assert read_bundle(child, field.slots.keys).signer  # the board's key is first asked for by the tuner, later than this
    pieces, current = [], slots.current()
    engine = field.make(lambda: pieces.append(1), pack(parts_of(current, "numpy", ())))
    assert engine.bundle_id == current.identity
    assert len(pieces) == 2 + current.golden.count  # its work is in short pieces, and between them it is out of the loop's way


def test_only_what_is_asked_for_changes_the_course():
    asked = {"window_s": 8.0, "pairs": None, "first_updates": None, "updates_per_row": None, "most_falls": None}
    assert Course(**course_of(argparse.Namespace(**asked))) == Course(window_s=8.0)
    asked = {"window_s": 2.0, "pairs": 9, "first_updates": 700, "updates_per_row": 0.5, "most_falls": 4}
    assert Course(**course_of(argparse.Namespace(**asked))) == Course(**asked)
    with pytest.raises(ValueError, match="--pairs 0, --updates-per-row -1: expected more than 0"):
        course_of(argparse.Namespace(**{**asked, "pairs": 0, "updates_per_row": -1.0}))


def test_only_what_is_asked_for_changes_the_learning():
    asked = {"recipe": None, "rank": None, "seed": 3}
    assert Tuning(**tuning_of(argparse.Namespace(**asked))) == Tuning(seed=3)
    asked = {"recipe": "low-rank", "rank": 4, "seed": 0}
    assert Tuning(**tuning_of(argparse.Namespace(**asked))) == Tuning(recipe="low-rank", rank=4)
    for recipe in (None, "full"):
        with pytest.raises(ValueError, match="--rank 2: only --recipe low-rank has one"):
            tuning_of(argparse.Namespace(recipe=recipe, rank=2, seed=0))


def test_what_help_calls_a_default_is_the_courses(capsys):
    with pytest.raises(SystemExit):
        main(["tune", "start", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    course = Course()
    for option, value in (
        ("--pairs", course.pairs),
        ("--first-updates", course.first_updates),
        ("--updates-per-row", course.updates_per_row),
        ("--most-falls", course.most_falls),
    ):
        assert f"(default: {value:g})" in words.split(f"{option} ", 2)[2].split(" --")[0], option
    assert f"what of the actor may change (default: {Tuning().recipe})" in words
    assert f"of actor and critics (default: {Tuning().rank})" in words


@pytest.mark.parametrize("wrong", [-5, 20])
def test_a_tuner_never_stands_before_others(wrong):
    with pytest.raises(ValueError, match="expected 0 to 19"):
        be_modest(wrong)


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="Linux has it")
@pytest.mark.parametrize(("nice", "policy"), [(19, "SCHED_IDLE"), (0, "SCHED_BATCH")])
def test_by_default_a_tuner_has_only_what_nobody_wants(nice, policy):
    words = f"import os; from edge_dsac.cli.tuning import be_modest; be_modest({nice}); print(os.sched_getscheduler(0) == os.{policy})"
    assert subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout == "True\n"


def test_memory_that_was_needed_once_goes_back():
    """2000 arrays of 40 kB, of which every hundredth stays: glibc keeps what lies between them until it is asked."""
    words = """
import numpy as np
from edge_dsac.cli.tuning import give_memory_back, keep_no_large_memory, memory_mb
keep_no_large_memory()
kept = [np.ones(10_000, np.float32) for _ in range(2000)]
kept = kept[::100]
before = memory_mb()
give_memory_back()
print(before - memory_mb() > 40.0)
"""
    assert subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout == "True\n"


def test_sessions_are_numbered_and_the_newest_goes_on(tmp_path):
    with pytest.raises(ValueError, match="no session to go on with"):
        session_folder(tmp_path, resume=True)
    assert session_folder(tmp_path, resume=False).name == "session-001"
    for number in (1, 2, 11):
        (tmp_path / f"session-{number:03d}").mkdir()
    assert session_folder(tmp_path, resume=True).name == "session-011"
    assert session_folder(tmp_path, resume=False).name == "session-012"


def test_rows_of_another_reward_or_horizon_are_not_comparable(bot, rover):
    settings = {"gamma": 0.99, "n_step": 3, "reward_scale": 1.0}
    names = {comparable(bot, settings), comparable(rover, settings), comparable(bot, {**settings, "gamma": 0.9})}
    assert len(names) == 3
    assert len(next(iter(names))) <= 64


def test_where_nothing_was_tuned_the_status_says_what_to_do(tmp_path, capsys):
    assert main(["tune", "status", "--slots", str(tmp_path)]) == 1
    assert "edge-dsac tune start" in capsys.readouterr().err


@pytest.mark.slow
def test_a_session_learns_from_a_flight_that_was_flown(bot, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("EDGE_DSAC_KEYS", str(tmp_path / "keys"))
    # This process has more tests to run: nice, and with all its numbers.
    monkeypatch.setattr("edge_dsac.cli.tuning.be_modest", lambda nice: None)
    monkeypatch.setattr("edge_dsac.learn.compiled.prepare", lambda threads: None)
    monkeypatch.setattr("edge_dsac.cli.tuning.StopFlag", lambda: lambda: False)
    carried = small_carried(ObservationLayout(bot).size, len(bot.actions))
    slots = create_slots(tmp_path / "slots", policy_of(bot, carried), allow_unsigned=True)
    flight = write_flight(bot, tmp_path / "flight", flown(bot, 20 * bot.rates.control_hz, slots.current().identity))
    slots.point_to(flight)
    words = ["--slots", str(tmp_path / "slots"), "--allow-unsigned"]
    assert main(["tune", "start", *words, "--minutes", "0.1", "--compile", "off", "--cpu-share", "1", "--memory-mb", "8000"]) == 0
    assert "the time is up" in capsys.readouterr().out
    assert main(["tune", "status", *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert not told["alive"]
    assert told["rows"] >= 19 * bot.rates.control_hz
    assert 0 < told["updates"] <= told["rows"]
    assert main(["tune", "stop", *words]) == 0
    capsys.readouterr()
    assert main(["tune", "replay", *words, "--json", str(flight)]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["same"]
    assert {one["what"] for one in again["compared"]} == {"state"}
    assert again["doubts"] == []
    other = flown(bot, 20 * bot.rates.control_hz, slots.current().identity)
    other["applied_action"] *= 0.5
    assert main(["tune", "replay", *words, str(write_flight(bot, tmp_path / "other", other))]) == 1
    assert "the saved state differs in" in capsys.readouterr().out
    assert main(["tune", "undo", *words]) == 3  # nothing was accepted, so there is nothing to undo
    assert main(["tune", "start", *words, "--resume", "--minutes", "0.02", "--compile", "off", "--seed", "5"]) == 1
    assert "other settings" in capsys.readouterr().err
    assert Slots(tmp_path / "slots", allow_unsigned=True).current().manifest.version == 3
    # One more life, ended by a kill in the middle of a line: its time counts too, and the report is made all the same.
    assert (
        main(["tune", "start", *words, "--resume", "--minutes", "0.02", "--compile", "off", "--cpu-share", "1", "--memory-mb", "8000"]) == 0
    )
    session = tmp_path / "slots" / "tuning" / "session-001"
    journal = (session / "journal.jsonl").read_bytes()
    (session / "journal.jsonl").write_bytes(journal[: journal.rindex(b"{") + 9])
    capsys.readouterr()
    assert main(["tune", "report", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["seconds"] >= told["seconds"] + 1.2 > 7
    assert found["ended"] == "not ended"


@pytest.mark.slow
def test_a_policy_that_was_made_elsewhere_is_refused_or_waits_for_its_trial(bot, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("EDGE_DSAC_KEYS", str(tmp_path / "keys"))
    monkeypatch.setattr("edge_dsac.cli.tuning.be_modest", lambda nice: None)
    monkeypatch.setattr("edge_dsac.learn.compiled.prepare", lambda threads: None)
    monkeypatch.setattr("edge_dsac.cli.tuning.StopFlag", lambda: lambda: False)
    carried = small_carried(ObservationLayout(bot).size, len(bot.actions))
    slots = create_slots(tmp_path / "slots", policy_of(bot, carried), allow_unsigned=True)
    parent = slots.current()
    slots.point_to(write_flight(bot, tmp_path / "flight", flown(bot, 40 * bot.rates.control_hz, parent.identity)))
    words = ["--slots", str(tmp_path / "slots"), "--allow-unsigned", "--memory-mb", "8000", "--minutes", "0.03"]

    def tried(by, parent, *more):
        (tmp_path / "next.policy").write_bytes(policy_of(bot, liked(carried, by), version=4, parent=parent))
        code = main(["tune", "try", str(tmp_path / "next.policy"), *words, *more])
        said = capsys.readouterr()
        return code, said.out + said.err

    code, said = tried(0.3, "cd" * 32)
    assert (code, "was made from cdcd" in said) == (3, True)
    assert not (tmp_path / "slots" / "tuning").exists()
    with lock(rows_folder(tmp_path / "slots" / "tuning", bot)):  # as a tuner that is at work
        code, said = tried(0.3, parent.manifest.sha256)
    assert (code, "stop that tuner first" in said) == (1, True)
    assert not list((tmp_path / "slots" / "tuning").glob("session-*"))
    code, said = tried(-0.3, parent.manifest.sha256)
    assert (code, "refused before a trial: no gain by the critics" in said) == (3, True)
    assert slots.candidate() is None
    code, said = tried(0.3, parent.manifest.sha256)  # and no loop runs that would try it
    assert (code, "the time is up; made_up version 3" in said) == (1, True)
    assert slots.candidate() is not None
    code, said = tried(0.3, parent.manifest.sha256, "--resume")
    assert (code, "the time is up" in said) == (1, True)
    assert main(["tune", "report", *words[:3], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == "made elsewhere"
    assert main(["tune", "replay", *words[:3], str(tmp_path / "flight")]) == 1
    assert "nothing was learned in it" in capsys.readouterr().err


def write_flight(bot, folder, columns):
    """A segment as the recorder leaves it."""
    from edge_dsac.steplog.layout import HEADER_BYTES, FileHeader

    text, layout = bot.text.encode(), RecordLayout(bot)
    header = FileHeader(layout.bytes, 0, len(text), 1, 1_700_000_000_000_000_000, 0, 0, 0)
    body = bytearray()
    for row in columns:
        raw = bytearray(row.tobytes())
        raw[-4:] = crc(raw[:-4])
        body += raw
    folder.mkdir()
    start = header.pack().ljust(HEADER_BYTES, b"\0") + text.ljust(header.data_at - HEADER_BYTES, b"\0")
    (folder / "steps-000000000000.edsl").write_bytes(start + body)
    return folder


def crc(raw):
    import zlib

    return zlib.crc32(raw).to_bytes(4, "little")
