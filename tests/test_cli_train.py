"""`edge-dsac train` as people use it: its options, what it writes, what it says when something is wrong, and going on."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from test_layers import ROOT

pytest.importorskip("tyro", reason="the extra [train] is not installed")

from edge_dsac.cli.main import main
from edge_dsac.cli.train import Options, differences, overlay, parse

TINY = [
    "--updates", "60", "--round-updates", "20", "--warmup-steps", "64", "--steps-per-update", "1", "--critic-hidden", "16", "16",
    "--actor-hidden", "16", "16", "--evaluation-episodes", "1", "--batch", "32", "--compile", "off", "--threads", "1",
]  # fmt: skip
PENDULUM = ["--env", "InvertedPendulum-v5", *TINY]


@pytest.fixture(autouse=True)
def _denormals_are_numbers_again():
    """Training flushes them for the whole process; other tests of this process need them."""
    yield
    import torch

    torch.set_flush_denormal(False)


@pytest.mark.slow
def test_the_papers_settings_are_the_defaults_of_an_id():
    learning = parse(["--env", "Hopper-v5"]).learning
    assert (learning.gamma, learning.batch, learning.steps_per_update, learning.n_step) == (0.99, 256, 20.0, 1)
    assert learning.critic_hidden == learning.actor_hidden == (256, 256, 256)
    assert (learning.rates.critic_lr, learning.rates.alpha_lr, learning.rates.delay) == (1e-4, 3e-4, 2)
    assert learning.rates.objective.critic_loss == "paper"


@pytest.mark.slow
def test_a_robot_brings_its_own_and_the_command_line_has_the_last_word():
    assert parse(["--robot", "balance_bot"]).learning.n_step == 3
    options = parse(["--robot", "balance_bot", "--n-step", "1", "--rates.critic-lr", "0.002", "--episode.seconds", "7"])
    assert (options.learning.n_step, options.learning.rates.critic_lr, options.episode.seconds) == (1, 0.002, 7.0)
    assert options.learning.critic_hidden == (128, 128)


@pytest.mark.slow
def test_an_ablation_is_the_same_code_with_something_switched_off():
    sac = parse(["--env", "Hopper-v5", "--algorithm", "sac"]).learning.rates
    assert (sac.delay, sac.objective.critic_loss, sac.objective.target_actor) == (1, "mse", False)
    first = parse(["--env", "Hopper-v5", "--algorithm", "dsac-v1"]).learning.rates.objective
    assert not any([first.expected_value_substitution, first.twin_value_distributions, first.variance_based_bound])


@pytest.mark.slow
def test_every_shipped_setting_is_one_that_exists():
    for path in (ROOT / "edge_dsac" / "learn" / "presets").glob("*.toml"):
        assert parse(["--robot", path.stem]).learning.updates > 0


def test_a_setting_that_does_not_exist_is_an_error_with_a_guess():
    with pytest.raises(ValueError, match=r"mine\.toml: 'updats' is not a setting; did you mean 'updates'"):
        overlay(Options(), {"learning": {"updats": 3}}, "mine.toml")


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--updatez", "3"], "updates"), ([], "--robot MODEL"), pytest.param(["--env", "NoSuch-v9"], "NoSuch", marks=pytest.mark.slow)],
)
def test_wrong_words_are_answered(words, said, capsys):
    words = [*words, *(["--env", "Pendulum-v1"] if "--updatez" in words else [])]
    try:
        code = main(["train", *words])
    except SystemExit as over:
        code = over.code
    assert code != 0
    assert said in "".join(capsys.readouterr())


@pytest.mark.slow
def test_bfloat16_is_refused_where_the_processor_has_none(monkeypatch, capsys):
    monkeypatch.setattr("edge_dsac.learn.compiled.multiplies_bfloat16", lambda: False)
    assert main(["train", *PENDULUM, "--precision", "bfloat16"]) == 1
    assert "neither avx512_bf16 nor amx; train in float32" in capsys.readouterr().err


def test_what_differs_between_two_configurations_is_named():
    before, now = {"learning": {"gamma": 0.99, "batch": 256}}, {"learning": {"gamma": 0.98, "batch": 256}}
    assert differences(before, now) == ["learning.gamma was 0.99, is 0.98"]


def train(*words, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "edge_dsac.cli.main", "train", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=300, check=False)


def outcome(folder):
    """What must be the same: the final state, the replay, and the lines of metrics but for what a clock says."""
    newest = max(path for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    words = json.loads((newest / "checkpoint.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["updates_per_s"]
    return words["state_sha256"], words["replay"], words["progress"], lines


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = train(*PENDULUM, "--out", "run", "--film-s", "1", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run", done.stdout


@pytest.mark.slow
def test_a_run_leaves_its_story(whole):
    folder, said = whole
    config = json.loads((folder / "config.json").read_text())
    assert config["config"]["learning"]["updates"] == 60
    assert {"commit", "changed", "version"} <= set(config["source"])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["updates"] for line in lines] == [20, 40, 60]
    assert all({"estimated", "realised", "bias", "sigma", "spread"} <= set(line["value"]) for line in lines)
    assert list((folder / "tensorboard").glob("events*"))
    from PIL import Image

    with Image.open(folder / "report.png") as picture:
        assert picture.size == (1400, 750)
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50  # something is drawn
    if (folder / "best.gif").exists():  # a machine that cannot draw says so
        with Image.open(folder / "best.gif") as film:
            assert film.n_frames > 5
    else:
        assert "no film" in said
    assert re.search(r"done in \d+:\d\d; best: round \d", said)
    assert "\x1b" not in said  # piped: plain lines


@pytest.mark.slow
def test_a_folder_with_a_run_is_not_begun_in_again(whole):
    done = train(*PENDULUM, "--out", str(whole[0]), cwd=whole[0])
    assert done.returncode == 1
    assert "already holds a run; --resume auto" in done.stderr


@pytest.mark.slow
def test_another_configuration_does_not_go_on(whole):
    done = train(*PENDULUM, "--gamma", "0.9", "--out", str(whole[0]), "--resume", "auto", cwd=whole[0])
    assert done.returncode == 1
    assert "learning.gamma was 0.99, is 0.9" in done.stderr


@pytest.mark.slow
def test_a_run_that_is_killed_and_goes_on_ends_the_same_to_the_last_bit(whole, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "edge_dsac.cli.main", "train", *PENDULUM, "--out", "run", "--film-s", "0", "--resume", "auto"]
    seed = int.from_bytes(os.urandom(2), "big")
    print("seed", seed)
    generator = np.random.default_rng(seed)
    first = tmp_path / "run" / "checkpoints" / "000001" / "checkpoint.json"
    killed = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL)
    give_up = time.monotonic() + 120
    while not first.exists() and time.monotonic() < give_up and killed.poll() is None:
        time.sleep(0.02)
    time.sleep(generator.uniform(0.0, 0.5))
    killed.send_signal(signal.SIGKILL)
    killed.wait(timeout=20)
    done = train(*PENDULUM, "--out", "run", "--film-s", "0", "--resume", "auto", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "goes on from round" in done.stdout
    assert outcome(tmp_path / "run") == outcome(whole[0])


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "edge_dsac.cli.main", "train", *PENDULUM, "--updates", "100000", "--out", "run", "--film-s", "0"]
    running = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    give_up = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "000001").exists() and time.monotonic() < give_up and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    said, wrong = running.communicate(timeout=60)
    assert running.returncode == 130, (said, wrong)
    assert "stopping after this update" in wrong
    assert "--resume auto goes on from round" in said


@pytest.mark.slow
def test_a_robots_policy_is_one_the_loop_can_load(tmp_path):
    from edge_dsac.bundle.actor import load_actor
    from edge_dsac.spec.robot import load_robot

    done = train("--robot", "balance_bot", *TINY, "--envs", "4", "--episode.seconds", "1", "--out", "run", "--film-s", "0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    actor = load_actor(tmp_path / "run" / "policy.npz", load_robot("balance_bot"))
    assert [layer[0].shape for layer in actor.layers] == [(16, actor.obs_scale.size), (16, 16), (2, 16)]
    exam = json.loads((tmp_path / "run" / "exam.json").read_text())
    assert set(exam) == {f"{who}/{ranges}" for who in ("policy", "baseline") for ranges in ("nominal", "full", "hidden")}
    assert "to beat: CascadedPd" in done.stdout
