"""The benchmark of the update: its figures by hand, and one small run of our own; peers are not needed."""

import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import bench_train


def test_a_ratio_is_the_median_over_rounds_so_that_a_busy_round_does_not_count():
    ours = [[10.0, 10.0, 11.0], [50.0, 50.0], [10.0]]
    theirs = [[20.0, 21.0, 20.0], [80.0, 80.0], [20.0]]
    assert bench_train.ratio(theirs, ours) == 2.0  # 2.0, 1.6, 2.0
    assert bench_train.ratio(ours, theirs) == 0.5


def test_the_json_has_times_ratios_and_what_was_skipped():
    times = {
        "dsac_t/eager/1": [[12.0, 14.0]],
        "dsac_t/compiled/1": [[10.0, 10.0]],
        "sac/compiled/1": [[8.0, 8.0]],
        "sb3_sac/1": [[16.0, 16.0]],
        "sb3_sac/2": [[9.0, 9.0]],
    }
    result = bench_train.summary(times, {"sb3_sac/1": {"first_s": 0.5}}, {"sbx_sac/1": "sbx is not installed"})
    assert set(result) == {"update_ms", "ratio"}
    assert result["update_ms"]["dsac_t/eager/1"] == {"p10": 12.2, "p50": 13.0, "p90": 13.8}
    assert result["update_ms"]["sb3_sac/1"]["first_s"] == 0.5
    assert result["update_ms"]["sbx_sac/1"] == {"skipped": "sbx is not installed"}
    assert result["ratio"] == {
        "dsac_t/eager/1 over dsac_t/compiled/1": 1.3,
        "sac/compiled/1 over dsac_t/compiled/1": 0.8,
        "sb3_sac/1 over dsac_t/compiled/1": 1.6,
        "sb3_sac/1 over sac/compiled/1": 2.0,
    }


def test_whole_training_is_compared_turn_by_turn():
    def turns(*speeds):
        return {"steps_per_s": list(speeds), "before_s": 1.0}

    found = {"Hop/1/dsac_t": turns(90.0, 60.0, 50.0), "Hop/1/sb3_sac": turns(45.0, 20.0, 40.0), "Hop/1/sbx_sac": {"skipped": "not here"}}
    result = bench_train.told(found)
    assert result["end_to_end"]["Hop/1/dsac_t"] == {"steps_per_s": 60.0, "before_s": 1.0, "turns": 3}
    assert result["end_to_end"]["Hop/1/sbx_sac"] == {"skipped": "not here"}
    assert result["end_to_end_ratio"] == {"Hop/1/dsac_t over sb3_sac": {"p10": 1.4, "p50": 2.0, "p90": 2.8}}  # of 2.0, 3.0 and 1.25


def test_a_whole_training_moves_only_when_it_is_asked(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("10\n3\n"))
    meter, lived = bench_train.Meter(), []

    def live():
        for updates in range(100):
            lived.append(updates)
            meter.at(updates, 7 * updates)

    with pytest.raises(bench_train.Stop):
        live()
    assert lived[-1] == bench_train.BEGIN_AT + 13
    assert [json.loads(line)["steps"] for line in capsys.readouterr().out.splitlines()] == [7 * bench_train.BEGIN_AT, 70, 21]


def test_what_cannot_run_says_why():
    flags = frozenset(("fpu", "avx2"))
    assert "avx512_bf16" in bench_train.reason_to_skip("dsac_t_bf16/compiled", "paper", flags, lambda _: True)
    assert bench_train.reason_to_skip("dsac_t_bf16/compiled", "paper", flags | {"avx512_bf16"}, lambda _: True) == ""
    assert "sbx is not installed" in bench_train.reason_to_skip("sbx_sac", "paper", flags, lambda _: False)
    assert bench_train.reason_to_skip("sbx_sac", "paper", flags, lambda _: True) == ""
    assert bench_train.reason_to_skip("dsac_t/eager", "robot", flags, lambda _: False) == ""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed: pip install -e .[train]")
def test_a_small_run_of_ours_writes_its_json(tmp_path):
    path = tmp_path / "train.json"
    words = [
        "--threads",
        "1",
        "--only",
        "dsac_t/eager",
        "dsac_t_bf16/compiled",
        "--size",
        "robot",
        "--rounds",
        "2",
        "--round-updates",
        "4",
        "--json",
        "--out",
    ]
    # bf16 is skipped on most processors; where it is not, it is compiled, which takes a minute.
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/bench_train.py"), *words, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said == json.loads(path.read_text())
    assert set(said) == {"update_ms", "ratio", "command", "date", "machine"}
    assert 0.05 < said["update_ms"]["dsac_t/eager/1"]["p50"] < 1000.0
