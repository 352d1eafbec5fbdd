"""The returns benchmark: which cells in which order, what is left to do, the two scores, the interval, and the words of the table."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOL = ROOT / "tools" / "bench_returns.py"
sys.path.insert(0, str(ROOT / "tools"))

from returns_cells import (
    BUDGETS,
    Cell,
    CellError,
    Settings,
    evaluation_steps,
    look_up,
    ordered,
    path_of,
    plan_of,
    read_cell,
    write_cell,
)
from returns_report import Figure, best_score, bias_of, draw_curves, figure, last_score, overlap, report, rows_of, standing

from edge_dsac.records import Outcome

ENV = "InvertedDoublePendulum-v5"


def made_up(task=ENV, algorithm="dsac-t", seed=0, variant="1", means=(0.0, 1.0, 2.0), bias=None, settings=None):
    """A finished cell of 1000 steps, judged evenly."""
    steps = evaluation_steps(1000, len(means))
    value = None if bias is None else {"bias": bias, "realised": 10.0}
    points = [{"steps": at, "mean": mean, "std": 0.0, "episodes": 10, "value": value} for at, mean in zip(steps, means, strict=True)]
    return {
        "plan": plan_of(Cell(task, algorithm, seed, variant), settings or Settings(), 1000), "points": points, "learning_seconds": 5.0,
        "machine": {"cpu": "an abacus", "cores": 2, "system": "wood", "python": "3"}, "versions": {"torch": "9"}, "load_at_start": 0.5,
        "source": {"commit": "abc", "changed": False}, "date": "2026-11-21 10:00", "command": "python tools/bench_returns.py",
    }  # fmt: skip


def scored(task, **finals):
    """Cells whose every evaluation is the same: `dsac_t=(1, 2)` are two seeds."""
    return [made_up(task, name.replace("_", "-"), seed, means=(x, x)) for name, of in finals.items() for seed, x in enumerate(of)]


def test_every_seed_of_everything_comes_before_the_next_seed():
    cells = ordered(["returns", "ablation"], list(BUDGETS), [0, 1, 2])
    seeds = [cell.seed for cell in cells]
    assert seeds == sorted(seeds)
    assert seeds.count(0) == seeds.count(1) == seeds.count(2)


def test_the_returns_study_has_every_peer_in_every_task_and_shipped_settings_where_there_are_some():
    cells = ordered(["returns"], list(BUDGETS), [7], shipped=["EdgeDsac/BalanceBot-v0"])
    assert len(cells) == 7 * 7 + 1
    assert Cell("EdgeDsac/BalanceBot-v0", "dsac-t-shipped", 7) in cells
    hopper = [cell.algorithm for cell in cells if cell.task == "Hopper-v5"]
    assert hopper == ["dsac-t", "dsac-t-quick", "sb3-sac", "sb3-td3", "sb3-ddpg", "sb3-ppo", "sb3-trpo"]


def test_a_run_that_two_studies_need_is_made_once():
    alone = {study: ordered([study], [ENV], [0]) for study in ("returns", "reward-scale", "value-bias", "ablation")}
    assert {study: len(cells) for study, cells in alone.items()} == {"returns": 7, "reward-scale": 12, "value-bias": 4, "ablation": 6}
    together = ordered(list(alone), [ENV], [0])
    assert len(together) == len(set(together)) == 7 + 10 + 0 + 4  # both forms of dsac-t and sb3-sac are in the first; sac in the second


def test_reward_scales_with_the_papers_settings_are_tried_on_two_tasks_only():
    cells = ordered(["reward-scale"], list(BUDGETS), [0])
    for algorithm in ("dsac-t", "dsac-t-quick-paper"):
        assert {cell.task for cell in cells if cell.algorithm == algorithm} == {ENV, "EdgeDsac/BalanceBot-v0"}
    for algorithm in ("dsac-t-quick", "sac"):
        assert sorted((cell.task, cell.variant) for cell in cells if cell.algorithm == algorithm) == sorted(
            (task, scale) for task in BUDGETS for scale in ("0.1", "1", "10")
        )


def test_names_of_files_are_all_different():
    cells = ordered(["returns", "reward-scale", "value-bias", "ablation"], list(BUDGETS), [0, 1, 2], ["EdgeDsac/Rover-v0"])
    assert len({cell.name for cell in cells}) == len(cells)
    assert Cell("EdgeDsac/Rover-v0", "sac", 1, "0.1").name == "Rover-v0.sac.scale0.1.s1"


def test_finished_cells_are_skipped_and_failed_ones_wait_for_retry(tmp_path):
    finished, failed, missing = cells = [Cell(ENV, "dsac-t", seed) for seed in range(3)]
    plans = {cell: plan_of(cell, Settings(), 1000) for cell in cells}
    write_cell(path_of(tmp_path, finished), {"plan": plans[finished], "points": []})
    write_cell(path_of(tmp_path, failed), {"plan": plans[failed], "error": "no such thing"})
    (tmp_path / f"{missing.name}.json.77.unfinished").write_text('{"plan"')  # one that was killed while it wrote
    shelf = look_up(tmp_path, cells, plans)
    assert (shelf.finished, shelf.failed, shelf.missing) == ([finished], [failed], [missing])
    assert shelf.due(retry=False) == [missing]
    assert shelf.due(retry=True) == [missing, failed]


def test_a_file_made_with_other_settings_is_refused(tmp_path):
    cell = Cell(ENV, "dsac-t", 0)
    write_cell(path_of(tmp_path, cell), {"plan": plan_of(cell, Settings(), 1000), "points": []})
    assert read_cell(tmp_path, cell, plan_of(cell, Settings(), 1000))
    with pytest.raises(CellError, match=r"'budget': 1000.*'budget': 2000"):
        read_cell(tmp_path, cell, plan_of(cell, Settings(), 2000))
    with pytest.raises(CellError, match="hidden"):
        read_cell(tmp_path, cell, plan_of(cell, Settings(hidden=(64,)), 1000))


def test_the_two_scores():
    points = made_up(means=[9, 0, 0, 0, 0, 0, 0, 0, 3, 4, 7, 0, 0, 0, 0, 0, 0, 5, 6, 2])["points"]
    assert [point["steps"] for point in points[-3:]] == [900, 950, 1000]
    assert best_score(points, 1000) == 6  # of 5, 6 and 2: neither the 9 of the start nor the 7 of the middle
    assert last_score(points) == 2


def test_the_interval_of_three_seeds_by_hand():
    # Deviation of 1, 2, 3 is 1; t of 2 degrees of freedom 4.303; 4.303 / sqrt(3) = 2.4844
    found = figure([1.0, 2.0, 3.0])
    assert (found.mean, found.std) == (2.0, 1.0)
    assert found.low == pytest.approx(2.0 - 2.4844, abs=1e-4)
    assert found.high == pytest.approx(2.0 + 2.4844, abs=1e-4)


def test_an_interval_between_two_lines_of_the_table_is_the_wider_one():
    # 13 values, 12 degrees of freedom: t of 10 is taken. Deviation of six -1, six 1 and a 0 is 1.
    found = figure([-1.0] * 6 + [1.0] * 6 + [0.0])
    assert found.high == pytest.approx(2.228 / 13**0.5)


def test_one_seed_has_no_interval_and_nobody_can_tell():
    assert figure([5.0]) == Figure(5.0, None, None, None)
    assert overlap(figure([5.0]), figure([1.0, 2.0])) is None


def test_intervals_overlap_or_do_not():
    assert overlap(Figure(0, 1, -1, 1), Figure(2, 1, 1, 3))
    assert not overlap(Figure(0, 1, -1, 0.9), Figure(2, 1, 1, 3))
    assert not overlap(Figure(2, 1, 1, 3), Figure(0, 1, -1, 0.9))


def test_the_best_peer_is_who_counts():
    one = standing(ENV, rows_of(scored(ENV, dsac_t=(10.0, 10.1), sb3_ppo=(1.0, 1.1), sb3_sac=(5.0, 5.1))), "best")
    assert (one.ahead, one.other, one.overlap) == (True, "sb3-sac", False)


def test_shipped_settings_count_on_neither_side():
    rows = rows_of(scored(ENV, dsac_t=(2.0, 2.1), dsac_t_shipped=(99.0, 98.0), sb3_sac=(5.0, 5.1)))
    one = standing(ENV, rows, "best")
    assert (one.ahead, one.other) == (False, "sb3-sac")


def test_the_table_says_where_dsac_t_is_not_ahead():
    text, result = report(
        [*scored(ENV, dsac_t=(1.0, 2.0), sb3_td3=(30.0, 31.0)), *scored("Reacher-v5", dsac_t=(-4.0, -4.5), sb3_sac=(-5.0, -4.4))]
    )
    assert "| InvertedDoublePendulum-v5 | best of the last 10 % | **not ahead**: 1.5 beside 30.5 of TD3 (sb3); intervals apart |" in text
    assert "| Reacher-v5 | last evaluation | ahead: -4.25 beside -4.7 of SAC (sb3); intervals overlap: not certain |" in text
    assert "By the last evaluation: ahead in 1 of 2 tasks, in 0 of them with intervals apart." in text
    assert "| InvertedDoublePendulum-v5 | TD3 (sb3) | 2 | 30.5 ± 0.707 |" in text  # the best one is the first row
    assert "2026-11-21 10:00" in text
    assert "an abacus" in text
    assert [one["ahead"] for one in result["standings"]] == [False, False, True, True]
    json.dumps(result, allow_nan=False)


def test_unequal_seeds_are_said():
    text, _ = report(scored(ENV, dsac_t=(1.0, 2.0, 3.0), sb3_td3=(30.0, 31.0)))
    assert "not the same seeds yet" in text


def test_failed_cells_are_named_and_do_not_count():
    broken = {"plan": plan_of(Cell(ENV, "sb3-ddpg", 0), Settings(), 1000), "error": "a\nb"}
    text, result = report([*scored(ENV, dsac_t=(1.0,), sb3_td3=(3.0,)), broken])
    assert "failed, not in the table: InvertedDoublePendulum-v5.sb3-ddpg.s0" in text
    assert result["failed"] == [{"cell": "InvertedDoublePendulum-v5.sb3-ddpg.s0", "error": "b"}]
    assert "DDPG (sb3) |" not in text


def test_cells_of_different_settings_are_not_put_in_one_table():
    with pytest.raises(CellError, match="other settings"):
        report([made_up(), made_up(seed=1, settings=Settings(batch=64))])
    with pytest.raises(CellError, match="no finished cell"):
        report([])


def test_the_spread_over_reward_scales_is_of_each_seed():
    cells = []
    for seed, ours in enumerate([(1.0, 2.0, 4.0), (5.0, 5.0, 6.0)]):  # spreads 3 and 1
        cells += [made_up(algorithm="dsac-t", seed=seed, variant=s, means=(x, x)) for s, x in zip(("0.1", "1", "10"), ours, strict=True)]
        cells += [
            made_up(algorithm="sac", seed=seed, variant=s, means=(x, x)) for s, x in zip(("0.1", "1", "10"), (0, 100, 0), strict=True)
        ]
    cells.append(made_up(algorithm="sac", seed=2, variant="10"))  # without the other two: does not count
    text, result = report(cells)
    assert [(row["algorithm"], row["n"], row["spread"]["mean"]) for row in result["reward_scale"]] == [
        ("dsac-t", 2, 2.0),
        ("sac", 2, 100.0),
    ]
    assert "the spread of DSAC-T is smaller than that of SAC (this project's ablation): 2 ± 1.41 beside 100 ± 0; intervals apart" in text
    assert "the spread of DSAC-T is smaller than that of SAC (this project's ablation) in 1 of 1 tasks, in 1 of them" in text


def test_where_there_is_nobody_to_be_ahead_of_nothing_is_said_of_it():
    text, _ = report(scored(ENV, dsac_t=(1.0, 2.0)))
    assert "| **DSAC-T** | 2 | 1.5" in text
    assert "ahead" not in text


def test_bias_is_the_mean_of_its_size_and_a_sac_that_is_better_is_named():
    words = made_up(means=(0.0, 0.0), bias=3.0)
    words["points"][0]["value"] = {"bias": -1.0, "realised": -10.0}
    assert bias_of(words) == {"absolute": 2.0, "signed": 1.0, "relative": 0.2}
    text, _ = report([words, made_up(algorithm="sb3-sac", bias=0.5)])
    assert "the bias of DSAC-T is **not smaller** than that of SAC (sb3): 2 beside 0.5; one seed each" in text
    assert "the bias of DSAC-T is smaller than that of SAC (sb3) in 0 of 1 tasks, in 0 of them" in text


class Halving:
    """Rewards of 1 for ever: at gamma 0.5 every state is worth 2."""

    name, n, obs_size = "halving", 3, 1
    low, high = np.array([-1.0]), np.array([1.0])

    def begin(self, seed):
        return np.zeros((3, 1))

    def step(self, action):
        nobody = np.zeros(3, bool)
        return Outcome(action, np.ones(3), np.zeros((3, 1)), nobody, nobody, np.zeros((3, 1)), {})

    def close(self):
        pass


@pytest.mark.parametrize(
    ("says", "alpha", "bias", "steps"),
    [(2.0, 0.0, 0.0, 60), (3.5, 0.0, 1.5, 60), (2.0, 0.2, -0.1, 60), (2.1, 0.2, 0.0, 5)],  # the last: right beyond the cut as well
)
def test_anothers_critics_are_checked_by_our_own_arithmetic(says, alpha, bias, steps):
    # With a log-probability of -0.5 in every step and alpha 0.2, each later step is worth 0.1 more: 0.5 * 0.1 / (1 - 0.5) = 0.1.
    pytest.importorskip("torch", reason="torch is not installed: pip install -e .[train]")
    from edge_dsac.learn.evaluate import Judged, check_value

    def look(judged, obs, generator):
        return np.zeros((3, 1)), np.full(3, -0.5), np.full(3, says), np.zeros(3)

    judged = Judged((), (), alpha, (), None, 0.5, 1.0)
    late = check_value(Halving(), judged, 1, steps, look)
    assert late.estimated[-1] - late.realised[-1] == pytest.approx(bias, abs=1e-9)  # the first start


@pytest.mark.slow
def test_curves_are_drawn_from_runs_of_different_length(tmp_path):
    cells = [*scored(ENV, dsac_t=(1.0, 2.0), sb3_sac=(3.0,)), made_up(means=tuple(range(20)), seed=2)]
    draw_curves(cells, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


TINY = (
    "--tasks",
    ENV,
    "--seeds",
    "0",
    "--steps",
    "200",
    "--evaluations",
    "4",
    "--episodes",
    "2",
    "--hidden",
    "16",
    "--batch",
    "16",
    "--jobs",
    "1",
)


def bench(out, *words):
    done = subprocess.run(
        [sys.executable, str(TOOL), "--out", str(out), *TINY, *words], capture_output=True, text=True, check=False, timeout=300
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_two_tiny_cells_run_are_resumed_and_reported(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed: pip install -e .[train]")
    peers = importlib.util.find_spec("stable_baselines3") is not None and importlib.util.find_spec("sb3_contrib") is not None
    algorithms = ["dsac-t", "sb3-sac"] if peers else ["dsac-t"]
    code, out, err = bench(tmp_path, "--algorithms", *algorithms)
    assert code == 0, out + err
    words = {name: json.loads((tmp_path / "cells" / f"{ENV}.{name}.s0.json").read_text()) for name in algorithms}
    for found in words.values():
        assert [round(point["steps"], -1) for point in found["points"]] == [50, 100, 150, 200]
        assert all(point["episodes"] == 2 for point in found["points"])
        assert [point["value"] is not None for point in found["points"]] == [False, False, True, True]
        assert found["points"][-1]["updates"] == pytest.approx(95, abs=2)  # 200 steps, 10 of them warm-up, 2 per update
    code, out, _ = bench(tmp_path, "--algorithms", *algorithms)
    assert code == 0
    assert f"0 cells to run, {len(algorithms)} finished" in out
    code, out, _ = bench(tmp_path, "--report", "--json")
    assert code == 0
    assert {row["algorithm"] for row in json.loads(out)["rows"]} == set(algorithms)
    assert (tmp_path / "table.md").exists()
    if not peers:
        pytest.skip("the peer's half was not run: stable-baselines3 is not installed: pip install -e .[bench]")


@pytest.mark.slow
def test_a_cell_that_fails_is_recorded_with_its_error(tmp_path):
    code, out, _ = bench(tmp_path, "--algorithms", "dsac-t", "--evaluations", "200")  # more evaluations than updates
    assert code == 1
    assert "FAILED" in out
    assert "too small" in json.loads((tmp_path / "cells" / f"{ENV}.dsac-t.s0.json").read_text())["error"]


@pytest.mark.slow
def test_stopping_leaves_no_child_and_no_file(tmp_path):
    command = [sys.executable, str(TOOL), "--out", str(tmp_path), *TINY, "--steps", "100000", "--algorithms", "dsac-t"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    give_up = time.monotonic() + 60
    while not children.read_text().split():
        assert time.monotonic() < give_up
        time.sleep(0.1)
    (child,) = children.read_text().split()
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "0 cells were finished, 1 under way are lost" in out
    assert not Path(f"/proc/{child}").exists()
    assert list((tmp_path / "cells").glob("*.json")) == []
