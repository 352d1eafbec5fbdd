"""`edge-dsac train --from-logs` as people use it: what it needs, what it refuses, what it writes, and that it goes on the same.

Then `compile --parent`: a candidate that says what it came from.
"""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
from bundle_fixture import KEY, bundle_bytes, bundle_parts
from made_up_flight import flight_folder
from test_layers import ROOT

pytest.importorskip("tyro", reason="the extra [train] is not installed")
import torch

from edge_dsac.bundle.actor import actor_from_bytes
from edge_dsac.bundle.keyring import new_key, trust, trusted_keys
from edge_dsac.bundle.manifest import BundleError
from edge_dsac.bundle.package import read_bundle
from edge_dsac.cli.main import main
from edge_dsac.cli.parent import Lineage, lineage_of
from edge_dsac.cli.train import parse
from edge_dsac.learn.carried import NETWORKS
from edge_dsac.learn.checkpoint import flatten, npz
from edge_dsac.learn.networks import Shape
from edge_dsac.learn.trainer import Learning
from edge_dsac.learn.update import make_state
from edge_dsac.records import Mode
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import load_robot

BOT = load_robot("balance_bot")
TINY = [
    "--robot", "balance_bot", "--updates", "60", "--round-updates", "20", "--warmup-steps", "64", "--steps-per-update", "1", "--envs", "4",
    "--evaluation-episodes", "1", "--batch", "30", "--compile", "off", "--threads", "1", "--film-s", "0", "--no-exam",
    "--episode.seconds", "1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _denormals_are_numbers_again():
    yield
    torch.set_flush_denormal(False)


def critic_file(n_step=2, widths=(12, 10)):
    """Of networks that learnt nothing yet."""
    state = flatten(make_state(Shape(ObservationLayout(BOT).size, 2, widths, widths), torch.Generator().manual_seed(4)))
    settings = {"rates": asdict(Learning().rates), "gamma": 0.97, "n_step": n_step, "reward_scale": 0.5}
    networks = {name: values for name, values in state.items() if name.split(".")[0] in NETWORKS}
    return npz({**networks, "m": np.full(2, 1.5, np.float32), "settings": np.array(json.dumps(settings))})


def made_base(folder, version=3, **choices):
    spec, actor, files = bundle_parts()
    parts = (spec, actor, {**files, "critic.npz": critic_file(**choices)})
    path = folder / "base.policy"
    path.write_bytes(bundle_bytes(parts=parts, version=version))
    return path


def flown(folder, spec=BOT, count=120, seed=0, **changes):
    """12 s in ten records a second from 14 s on; the block from 20 s to 22 s is held out."""
    draw = np.random.default_rng(seed)
    obs, act = draw.normal(size=(count, ObservationLayout(spec).size)) * 0.1, draw.uniform(-1, 1, (count, len(spec.actions)))
    times = [14_000_000_000 + k * 100_000_000 for k in range(count)]
    quiet = {"faults": 0, "rules": 0, "t_host_ns": times, "obs": list(obs), "applied_action": list(act)}
    return flight_folder(folder, spec, count, **{**quiet, **changes})


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a base, two flights, and a key that is trusted."""
    monkeypatch.setenv("EDGE_DSAC_KEYS", str(tmp_path / "keys"))
    monkeypatch.chdir(tmp_path)
    trust(tmp_path / "keys", replace(KEY.public, name="lab"))
    made_base(tmp_path)
    flown(tmp_path / "one")
    flown(tmp_path / "two", seed=1, count=130)
    return tmp_path


def said_by(capsys, *words):
    code = main(["train", *TINY, *words])
    return code, capsys.readouterr().err


# Words


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--robot", "balance_bot", "--from-logs", "one"], "--base RUN or --base NAME.policy says which"),
        (["--robot", "balance_bot", "--base", "base.policy"], "name the logs too"),
        (["--env", "Hopper-v5", "--from-logs", "one", "--base", "base.policy"], "for a robot of this project: --robot"),
    ],
)
def test_what_is_missing_beside_a_word_is_said(here, words, said):
    with pytest.raises(ValueError, match=said):
        parse(words)


@pytest.mark.slow
def test_the_base_brings_its_horizon_and_widths_over_the_robots_own_settings(here):
    words = ["--robot", "balance_bot", "--base", "base.policy", "--from-logs", "one", "two"]
    options = parse(words)
    learning = options.learning
    assert (learning.gamma, learning.n_step, learning.reward_scale) == (0.97, 2, 0.5)
    assert learning.critic_hidden == learning.actor_hidden == (12, 10)
    assert learning.rates.critic_lr == 1e-3  # the robot's own
    assert ([path.name for path in options.from_logs], options.real_share) == (["one", "two"], 0.5)
    assert parse([*words, "--n-step", "1"]).learning.n_step == 1


def test_help_shows_how_logs_go_home(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    said = capsys.readouterr().out
    assert all(word in said for word in ("--from-logs", "--base", "--real-share", "--without-human", "compile runs/home"))


# What is refused, before anything is made


@pytest.mark.slow
def test_another_robots_log_is_refused_by_name(here, capsys):
    flown(here / "rover", spec=load_robot("rover"))
    code, said = said_by(capsys, "--base", "base.policy", "--from-logs", "one", "rover", "--out", "run")
    assert code == 3
    assert "rover: flown by rover policy" in said
    assert '  model: log "rover", robot "balance_bot"' in said
    assert not (here / "run").exists()


@pytest.mark.slow
def test_a_base_for_another_robot_is_refused(here, capsys):
    code = main(["train", "--robot", "rover", "--base", "base.policy", "--from-logs", "one", "--out", "run"])
    assert code == 3
    assert "was built for balance_bot" in capsys.readouterr().err


@pytest.mark.slow
def test_a_base_that_nobody_trusts_is_refused(here, capsys):
    (here / "keys" / "trusted" / "lab.pub").unlink()
    words = ["--base", "base.policy", "--from-logs", "one", "--out", "run"]
    code, said = said_by(capsys, *words)
    assert (code, "not trusted here" in said) == (3, True)
    with pytest.raises(BundleError, match="not trusted here"):  # not even for its settings
        parse(["--robot", "balance_bot", *words])
    assert parse(["--robot", "balance_bot", *words, "--allow-unsigned"]).learning.n_step == 2


@pytest.mark.slow
def test_a_base_without_critics_is_said(here, capsys):
    (here / "bare.policy").write_bytes(bundle_bytes())
    code, said = said_by(capsys, "--base", "bare.policy", "--from-logs", "one")
    assert (code, "bare.policy: holds no critics" in said) == (1, True)
    (here / "policy.npz").write_bytes(bundle_parts()[2]["actor.npz"])
    code, said = said_by(capsys, "--base", "policy.npz", "--from-logs", "one")
    assert (code, "policy.npz: holds no critics" in said) == (1, True)


@pytest.mark.slow
def test_logs_with_nothing_in_them_are_said_with_the_reason(here, capsys):
    flown(here / "idle", mode=Mode.IDLE)
    code, said = said_by(capsys, "--base", "base.policy", "--from-logs", "one", "idle", "--out", "run")
    assert (code, "idle: none of its 120 steps can be learnt from (dropped: not_running 120)" in said) == (1, True)
    (here / "nothing").mkdir()
    code, said = said_by(capsys, "--base", "base.policy", "--from-logs", "nothing", "--out", "run")
    assert (code, "holds no flight log" in said) == (1, True)
    code, said = said_by(capsys, "--base", "base.policy", "--from-logs", "one", "--real-share", "1.2", "--out", "run")
    assert (code, "a share of 1.2" in said) == (1, True)
    assert not (here / "run").exists()


# Runs


def go(folder, *words, **choices):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "EDGE_DSAC_KEYS": str(folder / "keys")}
    command = [sys.executable, "-m", "edge_dsac.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=300, check=False, **choices)


HOME = ["train", *TINY, "--base", "base.policy", "--from-logs"]


@pytest.fixture(scope="module")
def came_home(tmp_path_factory):
    """(folder, what was said) of a run from two flights, out of base.policy."""
    folder = tmp_path_factory.mktemp("home")
    trust(folder / "keys", replace(KEY.public, name="lab"))
    new_key(folder / "keys", "me")
    made_base(folder)
    flown(folder / "one")
    flown(folder / "two", seed=1, count=130)
    done = go(folder, *HOME, "one", "two", "--real-share", "0.4", "--out", "run")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def outcome(folder):
    newest = max(path for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    words = json.loads((newest / "checkpoint.json").read_text())
    return words["state_sha256"], words["replay"], words["progress"], words["config"]


@pytest.mark.slow
def test_a_run_says_what_its_logs_gave(came_home):
    folder, said = came_home
    assert "goes on from base.policy (" in said
    assert "12 of the 30 rows of every batch are from" in said
    assert "one: 11.9 s, 120 steps" in said
    home = json.loads((folder / "run" / "home.json").read_text())
    logs = {log["log"]: log for log in home["logs"]}
    assert set(logs) == {"one", "two"}
    assert all(log["robot"] == "balance_bot" and log["held_out"] > 5 for log in logs.values())
    assert home["rows"] == sum(log["train"] for log in logs.values()) > 150
    assert home["held_out"]["rows"] == sum(log["held_out"] for log in logs.values())
    assert home["held_out"]["shift"] > 0.0
    assert "observations held out" in said
    config = json.loads((folder / "run" / "config.json").read_text())["config"]
    assert sorted(config["home"]["logs"]) == sorted(log["sha256"][:16] for log in logs.values())
    assert (config["home"]["real_share"], config["home"]["without_human"]) == (0.4, False)
    assert config["home"]["base"] == home["base"]["critics"][:16]
    assert home["base"]["manifest"] == read_bundle(folder / "base.policy", [KEY.public]).manifest.sha256
    assert outcome(folder / "run")[2]["best_round"] == 3  # the newest, whatever simulation says


@pytest.mark.slow
def test_a_run_killed_and_gone_on_with_ends_the_same_whatever_its_logs_are_called(came_home):
    folder, _ = came_home
    again = folder / "again"
    again.mkdir()
    for name, now in (("one", "b"), ("two", "a"), ("base.policy", "base.policy"), ("keys", "keys")):
        (again / now).symlink_to(folder / name)
    words = [*HOME, "a", "b", "--real-share", "0.4", "--out", "run", "--resume", "auto"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "EDGE_DSAC_KEYS": str(folder / "keys")}
    killed = subprocess.Popen([sys.executable, "-m", "edge_dsac.cli.main", *words], env=environment, cwd=again, stdout=subprocess.DEVNULL)
    give_up = time.monotonic() + 120
    while not (again / "run/checkpoints/000001/checkpoint.json").exists() and time.monotonic() < give_up and killed.poll() is None:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait(timeout=20)
    assert not (again / "run" / "home.json").exists()
    done = go(again, *words)
    assert done.returncode == 0, done.stderr
    assert "goes on from round" in done.stdout
    assert outcome(again / "run") == outcome(folder / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["one", "--real-share", "0.4"], "home.logs was ["),
        (["one", "two", "--real-share", "0.5"], "home.real_share was 0.4, is 0.5"),
        (["one", "two", "--real-share", "0.4", "--base", "other/base.policy"], "home.base was"),
    ],
)
def test_a_run_does_not_go_on_with_other_logs_share_or_base(came_home, words, said):
    folder, _ = came_home
    if "other/base.policy" in words:
        (folder / "other").mkdir()
        state = critic_file()
        with np.load(io.BytesIO(state)) as file:
            moved = {name: file[name] for name in file.files} | {"log_alpha": np.float32(0.3)}
        spec, actor, files = bundle_parts()
        (folder / "other" / "base.policy").write_bytes(bundle_bytes(parts=(spec, actor, {**files, "critic.npz": npz(moved)})))
    done = go(folder, *HOME, *words, "--out", "run", "--resume", "auto")
    assert done.returncode == 1
    assert "was made with another configuration" in done.stderr
    assert said in done.stderr


@pytest.mark.slow
def test_what_came_home_is_a_base_and_a_child_of_its_own(came_home, tmp_path):
    folder, _ = came_home
    done = go(folder, *HOME, "one", "--base", "run", "--updates", "20", "--out", "next")
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "next" / "home.json").read_text())["base"]["manifest"] is None
    words = ["compile", "run", "--out", "child.policy", "--key", "me", "--episodes", "2", "--precision", "float32", "--json"]
    done = go(folder, *words, "--parent", "base.policy")
    assert done.returncode == 0, done.stderr
    child, parent = read_bundle(folder / "child.policy", trusted_keys(folder / "keys")), read_bundle(folder / "base.policy", [KEY.public])
    assert (child.manifest.parent, child.manifest.version) == (parent.manifest.sha256, 4)
    assert json.loads(done.stdout)["parent"] == parent.manifest.sha256
    home = child.manifest.training["home"]
    assert {(log["log"], log["robot"], log["steps"]) for log in home["logs"]} == {("one", "balance_bot", 120), ("two", "balance_bot", 130)}
    assert home["base"]["manifest"] == parent.manifest.sha256
    with np.load(io.BytesIO(child.files["critic.npz"])) as ours, np.load(io.BytesIO(parent.files["critic.npz"])) as theirs:
        assert set(ours.files) == set(theirs.files)  # so that the child can go on too
        assert (ours["critics.0"] != theirs["critics.0"]).any()


# Parents


def lineage(path, version=None, spec=BOT, actor=None, home=None, keys=(KEY.public,)):
    actor = actor or actor_from_bytes(bundle_parts()[2]["actor.npz"], "actor.npz", BOT)
    return lineage_of(path, version, keys, False, spec, actor, home)


@pytest.mark.slow
def test_a_child_names_its_parent_and_is_one_younger(tmp_path):
    parent = read_bundle(made_base(tmp_path), [KEY.public]).manifest.sha256
    assert lineage(tmp_path / "base.policy") == Lineage(parent, 4)
    assert lineage(tmp_path / "base.policy", 9) == Lineage(parent, 9)
    assert (lineage(None), lineage(None, 5)) == (Lineage(None, 1), Lineage(None, 5))
    with pytest.raises(BundleError, match="--version 3: .*is version 3 already; give a higher one, or none for 4"):
        lineage(tmp_path / "base.policy", 3)


@pytest.mark.slow
def test_a_false_parent_is_refused(tmp_path):
    path = made_base(tmp_path)
    with pytest.raises(BundleError, match="not trusted here"):
        lineage(path, keys=())
    with pytest.raises(BundleError, match="was built for balance_bot"):
        lineage(path, spec=load_robot("rover"))
    actor = actor_from_bytes(bundle_parts()[2]["actor.npz"], "actor.npz", BOT)
    with pytest.raises(BundleError, match="cannot be the parent: its scale of the observations"):
        lineage(path, actor=replace(actor, obs_scale=actor.obs_scale * 2))
    own = read_bundle(path, [KEY.public]).manifest.sha256
    assert lineage(path, home={"base": {"source": "base.policy", "manifest": own}}).parent == own
    assert lineage(path, home={"base": {"source": "runs/x", "manifest": None}}).parent == own
    with pytest.raises(BundleError, match=r"the run went on from other\.policy \(manifest aaaaaaaaaaaaaaaa\)"):
        lineage(path, home={"base": {"source": "other.policy", "manifest": "a" * 64}})
