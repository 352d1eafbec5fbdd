"""The study of fine-tuning: what its cells do differently, and the sums over them."""

import dataclasses
import json
from types import SimpleNamespace

import bench_tune
import numpy as np
import pytest
import tune_cell
from test_learn_guiding import guided_child
from tune_report import interval, recovered, summary, table
from tuning_fixture import SMALL, TuneDesk, flown, made_up_rows_of, small_carried

from edge_dsac.bundle.package import read_bundle
from edge_dsac.learn.evidence import Limits
from edge_dsac.learn.learner import Learner
from sim.randomize import load_ranges

SCORE = {"mean": 500.0, "survival": 1.0, "returns": [500.0]}


def row(recipe="full", policy="base-0", before=400.0, after=700.0, oracle=800.0, hidden="hidden", robot_s=180.0, **more):
    words = {"survival": 1.0, "learnt": after, "falls": 1, "rollbacks": 0, "accepted": 1}
    return {
        "recipe": recipe, "policy": policy, "before": before, "after": after, "oracle": oracle, "hidden": hidden, "robot_s": robot_s,
        **words, **more,
    }  # fmt: skip


def test_recovered_is_a_share_of_what_was_lost():
    assert recovered(row()) == pytest.approx(0.75)
    assert recovered(row(after=300.0)) == pytest.approx(-0.25)
    assert recovered(row(oracle=390.0)) is None  # nothing was lost: there is nothing to recover
    assert recovered(row(oracle=None)) is None


def test_an_interval_is_students_over_policies():
    mean, half = interval([1.0, 2.0, 3.0, 4.0])
    assert mean == 2.5
    assert half == pytest.approx(3.182 * np.std([1, 2, 3, 4], ddof=1) / 2)
    assert interval([1.0]) == (1.0, None)


def test_the_control_is_compared_policy_by_policy():
    rows = [row(policy=f"base-{i}", before=400.0 + i, after=700.0 + 10 * i) for i in range(3)]
    rows += [row("control", policy=f"base-{i}", after=500.0 + 10 * i) for i in range(3)]
    rows.append(row("control", policy="base-0", after=0.0, robot_s=60.0))  # another time: not compared
    full = next(line for line in summary(rows) if line["recipe"] == "full")
    assert full["over_control"] == pytest.approx(200.0)
    assert full["over_control_half"] == pytest.approx(0.0, abs=1e-9)
    assert full["policies"] == 3
    assert full["falls"] == 3
    control = next(line for line in summary(rows) if line["recipe"] == "control" and line["robot_s"] == 180.0)
    assert control["over_control"] is None


def test_the_table_has_a_line_each_and_says_nothing_where_nothing_is_known():
    lines = table(summary([row(), row("edit", oracle=None)])).splitlines()
    assert len(lines) == 3
    assert "0.75" in lines[1]
    assert "0.75" not in lines[2]


def test_sets_are_read_one_or_several(tmp_path):
    whole = "".join(f"{name} = [{low}, {high}]\n" for name, (low, high) in bench_tune.USED.items())
    (tmp_path / "one.toml").write_text(whole)
    (tmp_path / "two.toml").write_text(f"[old]\n{whole}\n[bent]\n{whole}")
    assert bench_tune.sets_of(tmp_path / "one.toml", tmp_path / "out") == {"one": str(tmp_path / "one.toml")}
    several = bench_tune.sets_of(tmp_path / "two.toml", tmp_path / "out")
    assert list(several) == ["old", "bent"]
    assert load_ranges(several["bent"]).mass_scale == (1.0, 1.5)


def test_drawn_robots_are_fixed_and_differ(tmp_path):
    first, again = bench_tune.drawn_sets(tmp_path / "a", 2), bench_tune.drawn_sets(tmp_path / "b", 3)
    ranges = [load_ranges(path) for path in (first["used-1"], first["used-2"], again["used-1"])]
    assert ranges[0] == ranges[2]
    assert ranges[0] != ranges[1]
    for name, (low, high) in bench_tune.USED.items():
        least, most = getattr(ranges[0], name)
        assert least == most
        assert low <= least <= high


def test_the_plan_pairs_every_session_with_its_control(tmp_path):
    study = bench_tune.Study("balance_bot", tmp_path, {"hidden": "hidden", "used-1": "x/used-1.toml"})
    plan = bench_tune.cells_of(study, bench_tune.options(["--policies", "4", "--few", "2"]))
    paths = [study.path(name, cell).name for name, cell in plan]
    assert len(set(paths)) == len(paths)
    for name in ("full", "control"):
        assert [cell.seed for known, cell in plan if known == name and cell.hidden == "hidden"] == [0, 1, 2, 3]
        assert [cell.seed for known, cell in plan if known == name and cell.hidden != "hidden"] == [0, 1]
    assert not any(cell.real for name, cell in plan if name == "control")
    assert all(json.loads(json.dumps(dataclasses.asdict(cell))) for _, cell in plan)
    assert all(tune_cell.cell_from(json.loads(json.dumps(dataclasses.asdict(cell)))) == cell for _, cell in plan)


def test_a_study_goes_on_from_an_earlier_report(tmp_path):
    """Its sessions are there and its oracle counts; more policies come behind; a session flown anew takes the old one's place."""
    known = [row(policy=f"base-{seed}", robot_s=mark, after=600.0) for seed in (0, 1) for mark in (60.0, 180.0)]
    study = bench_tune.Study("balance_bot", tmp_path, {"hidden": "hidden"}, known)
    words = ["--recipes", "full", "--marks", "60", "180", "--few", "0"]

    def plan(*more):
        return bench_tune.cells_of(study, bench_tune.options([*words, *more]))

    there = [bool(study.rows(name, cell)) for name, cell in plan("--policies", "4")]
    assert there == [True, True, False, False]
    (late,) = plan("--first", "7", "--policies", "1")
    assert bench_tune.oracle_score(study, "hidden") == 800.0
    for name, cell in (late, plan("--policies", "1")[0]):
        study.path(name, cell).parent.mkdir(exist_ok=True)
        mine = [row(policy=f"base-{cell.seed}", robot_s=mark, after=650.0) for mark in cell.marks]
        study.path(name, cell).write_text(json.dumps({"rows": mine}))
    found = bench_tune.gathered(study, [late, *plan("--policies", "1")])
    assert {(one["policy"], one["after"]) for one in found} == {("base-0", 650.0), ("base-1", 600.0), ("base-7", 650.0)}
    assert len(found) == 6
    assert bench_tune.told_before({}) == []
    assert {one["oracle"] for one in found} == {800.0}


def test_an_earlier_report_of_fewer_marks_is_not_the_whole_session(tmp_path):
    study = bench_tune.Study("balance_bot", tmp_path, {"hidden": "hidden"}, [row(robot_s=60.0)])
    ((name, cell),) = bench_tune.cells_of(study, bench_tune.options(["--recipes", "full", "--policies", "1", "--few", "0"]))
    assert study.rows(name, cell) == []


@pytest.mark.slow
def test_the_control_learns_as_often_and_sees_no_row():
    made_up_rows = made_up_rows_of(300)
    with_rows, without = Learner(small_carried(), SMALL), tune_cell.WithoutRobot(small_carried(), SMALL)
    alone = Learner(small_carried(), SMALL)
    with_rows.round(made_up_rows, 1)
    without.round(made_up_rows, 1)
    alone.round(None, 1)
    same = lambda a, b: all((x == y).all() for x, y in zip(a.actor(), b.actor(), strict=True))  # noqa: E731
    assert without.updates == with_rows.updates
    assert same(without, alone)
    assert not same(without, with_rows)


@pytest.mark.slow
def test_without_the_gate_what_was_learnt_drives_at_once(bot, tmp_path):
    desk = TuneDesk(tmp_path, bot)
    parent = desk.slots.current().manifest.sha256
    course = dataclasses.replace(desk.course, first_updates=5, limits=Limits(shift_mean=1e-6, shift_p99=1e-6))  # nothing would pass
    tuner = tune_cell.WithoutGate(desk.slots, desk.session, desk.learner, desk.buffer, desk.flights, None, course)
    desk.flights.add(flown(bot, 1200))
    assert tuner.improve() == "learned"
    assert desk.slots.current().manifest.parent == parent
    assert desk.slots.candidate() is None
    assert tuner.improve() == "learned"  # goes on with the child as what drives
    desk.let_go()


@pytest.mark.slow
def test_what_drives_is_scored_with_its_guide(bot, tmp_path, monkeypatch):
    """A child whose critics alone have learned has its parent's actor: scored without the guide, it would never gain anything."""
    desk = TuneDesk(tmp_path, bot)
    parent, carried = desk.slots.current(), desk.carried
    _, data = guided_child(parent, carried, flown(bot, 400)["obs"])
    child = read_bundle(data, (), allow_unsigned=True)
    monkeypatch.setattr(desk.tuner.slots, "current", lambda: child)
    scored = []
    monkeypatch.setattr(tune_cell, "score", lambda policy, spec, hidden: scored.append(policy) or dict(SCORE))
    cell, robot, scores = tune_cell.Cell("base-0", "hidden", "critic"), SimpleNamespace(falls=0), {}
    row = tune_cell.row_of(cell, desk.tuner, robot, dict(SCORE), scores, 60.0)
    drives, learnt = scored
    tune_cell.row_of(cell, desk.tuner, robot, dict(SCORE), scores, 180.0)
    assert len(scored) == 3  # what drives is known by then
    seen = flown(bot, 50)["obs"]
    assert np.array_equal(drives.act(seen), child.reference.act(seen))
    assert not np.array_equal(drives.act(seen), child.actor.act(seen))
    assert np.allclose(learnt.act(seen), child.actor.act(seen))
    assert row["after"] == SCORE["mean"]
    desk.let_go()
