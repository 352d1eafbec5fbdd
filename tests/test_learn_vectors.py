"""The learner reproduces the conformance vectors: every intermediate, gradient, loss and parameter of every step."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e .[train]")
ROOT = Path(__file__).resolve().parents[1]
VECTORS = ROOT / "tests" / "vectors" / "dsact.npz"


def check(path, *options):
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "check_vectors.py"), str(path), *options], capture_output=True, text=True, check=False
    )
    return done.returncode, json.loads(done.stdout)


@pytest.mark.slow
def test_every_number_of_every_case_is_reproduced():
    code, result = check(VECTORS)
    assert code == 0
    assert set(result) == {"small", "edges", "small_legacy", "small_f32", "fixed_alpha", "zclip"}
    assert all(row["max_rel_error"] < 1e-12 for row in result.values() if row["dtype"] == "float64")


@pytest.mark.slow
@pytest.mark.parametrize("key", ["small/mid/target1_bound", "edges/grad/q2", "zclip/final/policy_target", "small_legacy/grad/q1"])
def test_a_number_changed_by_a_millionth_is_noticed(key, tmp_path):
    with np.load(VECTORS) as file:
        arrays = {name: file[name] for name in file.files}
    largest = np.unravel_index(np.abs(arrays[key]).argmax(), arrays[key].shape)
    arrays[key] = arrays[key].copy()
    arrays[key][largest] *= 1 + 1e-6
    np.savez(tmp_path / "changed.npz", **arrays)
    (tmp_path / "changed.json").write_text(VECTORS.with_suffix(".json").read_text())
    code, result = check(tmp_path / "changed.npz")
    assert code == 1
    assert result[key.split("/")[0]]["max_rel_error"] > 1e-7
