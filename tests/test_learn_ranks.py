"""Two learners on half a batch each take the step of one learner on the whole of it: torchrun's own processes, gloo."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from test_layers import ROOT

STEPS, BATCH = 6, 64

# Run by every rank; the whole batch is drawn by each from one seed, and each keeps its own share of the rows.
LEARNER = f"""
import json, sys, torch
from edge_dsac.learn.compiled import make_updater
from edge_dsac.learn.losses import Batch, Noise
from edge_dsac.learn.networks import Shape
from edge_dsac.learn.ranks import join
from edge_dsac.learn.update import Rates, make_state
torch.set_num_threads(1)
ranks = join("cpu")
f, n = torch.float64, {BATCH} // ranks.count
own = slice(ranks.rank * n, (ranks.rank + 1) * n)
generator = torch.Generator().manual_seed(5)
state = make_state(Shape(5, 2, (16, 16), (16, 16)), generator, dtype=f)
bounds = (-torch.ones(2, dtype=f), torch.ones(2, dtype=f))
update = make_updater(Rates(), sys.argv[1] == "compiled", "cpu", ranks)
def draw(*shape):
    return torch.randn(shape, generator=generator, dtype=f)
for k in range({STEPS}):
    b = {BATCH}
    batch = Batch(draw(b, 5), draw(b, 2).clamp(-1, 1), draw(b), draw(b, 5), (draw(b) > 1).to(f), torch.full((b,), 0.99, dtype=f))
    noise = Noise(draw(b, 2), draw(b, 2), draw(2, b))
    mine = Noise(noise.actor[own], noise.target[own], noise.z[:, own])
    state, _ = update(state, Batch(*(column[own] for column in batch)), mine, bounds, k % 2 == 0, torch.tensor(1.0, dtype=f))
flat = torch.cat([p.reshape(-1) for p in (*state.critics, *state.actor, *state.target_actor, state.m, state.log_alpha)])
open(sys.argv[2] + f"/{{ranks.rank}}-of-{{ranks.count}}.json", "w").write(json.dumps(flat.tolist()))
ranks.leave()
"""


def run(count, script, *words, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), *script, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_two_ranks_take_the_step_of_one_rank_with_the_joined_batch(tmp_path):
    script = tmp_path / "learner.py"
    script.write_text(LEARNER)
    for count in (1, 2):
        run(count, [str(script)], "plain", str(tmp_path), cwd=tmp_path)
    one, first, second = (np.array(json.loads((tmp_path / name).read_text())) for name in ("0-of-1.json", "0-of-2.json", "1-of-2.json"))
    assert np.array_equal(first, second)  # to the last bit: they never exchange parameters
    assert np.allclose(one, first, rtol=1e-11, atol=1e-13)
    assert np.abs(one).max() > 0.1


@pytest.mark.slow
def test_a_run_of_two_ranks_is_one_run_and_goes_on(tmp_path):
    words = [
        "train", "--env", "Pendulum-v1", "--updates", "60", "--round-updates", "20", "--warmup-steps", "100", "--steps-per-update", "1",
        "--critic-hidden", "16", "16", "--actor-hidden", "16", "16", "--evaluation-episodes", "1", "--film-s", "0", "--compile", "off",
        "--batch", "32", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    run(2, ["-m", "edge_dsac.cli.main"], *words, cwd=tmp_path)

    def state_of(folder):
        newest = max((folder / "checkpoints").iterdir())
        words = json.loads((newest / "checkpoint.json").read_text())
        return newest.name, words["state_sha256"], words["replay"][-1]["sha256"]

    first, second = state_of(tmp_path / "run"), state_of(tmp_path / "run" / "rank-1")
    assert first[:2] == second[:2]
    assert first[2] != second[2]  # each has lived through episodes of its own
    # A kill between the two ranks' checkpoints leaves rank 0 one round ahead: both go on from the round they share.
    for folder in (tmp_path / "run" / "rank-1" / "checkpoints",):
        for path in max(folder.iterdir()).iterdir():
            path.unlink()
    said = run(2, ["-m", "edge_dsac.cli.main"], *words, "--resume", "auto", cwd=tmp_path)
    assert "goes on from round 2" in said
    assert state_of(tmp_path / "run") == first
    assert state_of(tmp_path / "run" / "rank-1") == second
