"""A run becomes a policy file, and a policy file an engine: `compile`, `profile`, and what `run` opens."""

import contextlib
import dataclasses
import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from bundle_fixture import KEY, OTHER_KEY, bundle_bytes, bundle_parts, opened_bundle, write_bundle
from made_up_actor import balancing_actor

from calibration.activations import make_set_file
from edge_dsac.bundle.actor import make_actor_file
from edge_dsac.bundle.baselines import CascadedPd
from edge_dsac.bundle.engines import make_engine
from edge_dsac.bundle.keyring import new_key, trust
from edge_dsac.bundle.manifest import BundleError
from edge_dsac.bundle.package import read_bundle
from edge_dsac.bundle.parts import pack, unpack
from edge_dsac.cli.judging import JudgingOptions, record_set
from edge_dsac.cli.main import main
from edge_dsac.cli.policy import check_policy, open_policy
from edge_dsac.profile.choose import Choice, save_choice
from edge_dsac.spec.robot import load_robot

BOT = load_robot("balance_bot")


@pytest.fixture(autouse=True)
def keys(tmp_path, monkeypatch):
    folder = tmp_path / "keys"
    monkeypatch.setenv("EDGE_DSAC_KEYS", str(folder))
    return folder


@pytest.fixture
def trusted(keys):
    return trust(keys, dataclasses.replace(KEY.public, name="lab"))


# ---- what `run` opens


def test_the_baseline_and_a_bare_weights_file_are_opened_and_the_second_is_said_to_be_unsigned(tmp_path):
    assert isinstance(open_policy("baseline", BOT).engine, CascadedPd)
    actor = tmp_path / "actor.npz"
    actor.write_bytes(bundle_parts()[2]["actor.npz"])
    assert "NOT SIGNED" in open_policy(str(actor), BOT).said


def test_a_policy_file_is_opened_with_the_first_engine_that_can_and_says_so(tmp_path, trusted):
    ready = open_policy(str(write_bundle(tmp_path)), BOT)
    assert ready.said.startswith("numpy (not measured on this board")
    assert "signed by lab" in ready.said
    assert ready.running.version == 3


def test_the_measured_choice_is_followed_while_it_counts(tmp_path, trusted):
    path = write_bundle(tmp_path)
    identity = read_bundle(path, [KEY.public]).identity
    save_choice(Choice("numpy", "quickest here", {}), path, identity)
    assert open_policy(str(path), BOT).said.startswith("numpy (quickest here)")
    save_choice(Choice("native-integer", "not in this file", {}), path, identity)
    assert open_policy(str(path), BOT).said.startswith("numpy (not measured")


REFUSED = {
    "no trusted key": (lambda folder: write_bundle(folder, data=bundle_bytes(OTHER_KEY)), {}, "not trusted here"),
    "unsigned": (lambda folder: write_bundle(folder, data=bundle_bytes(None)), {}, "is not signed"),
    "another robot": (
        lambda folder: write_bundle(folder, data=bundle_bytes(parts=bundle_parts(spec=load_robot("rover")))), {}, "was built for rover",
    ),
    "older than what runs": (write_bundle, {"running": opened_bundle(bundle_bytes(version=4)).running}, "is version 3, the robot runs 4"),
    "an engine it does not hold": (write_bundle, {"engine": "native-float32"}, "--engine native-float32: the policy file holds no compiled"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_must_not_drive_is_refused_with_its_reason(tmp_path, trusted, name):
    make, options, reason = REFUSED[name]
    with pytest.raises(BundleError, match=reason):
        check_policy(make(tmp_path), BOT, **options)


def test_unsigned_is_taken_where_it_is_allowed_and_the_status_line_says_so(tmp_path, trusted):
    path = write_bundle(tmp_path, data=bundle_bytes(None))
    assert "NOT SIGNED" in open_policy(str(path), BOT, allow_unsigned=True).said


# ---- compile


def test_without_a_key_nothing_is_made(tmp_path, capsys):
    actor = tmp_path / "actor.npz"
    actor.write_bytes(bundle_parts()[2]["actor.npz"])
    assert main(["compile", str(actor), "--robot", "balance_bot", "--out", str(tmp_path / "x.policy")]) == 3
    assert "edge-dsac keys new NAME" in capsys.readouterr().err
    assert not (tmp_path / "x.policy").exists()


def test_what_is_no_run_and_what_is_there_already_is_said(tmp_path, keys, capsys):
    new_key(keys, "me")
    assert main(["compile", str(tmp_path), "--out", str(tmp_path / "x.policy")]) == 3
    assert "not a training run" in capsys.readouterr().err
    (tmp_path / "y.policy").write_bytes(b"old")
    assert main(["compile", str(tmp_path), "--out", str(tmp_path / "y.policy")]) == 3
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "y.policy").read_bytes() == b"old"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a good actor, what it saw, and a key."""
    folder = tmp_path_factory.mktemp("compiled")
    actor = balancing_actor(BOT)
    (folder / "actor.npz").write_bytes(make_actor_file(list(actor.layers), actor.activation, BOT))
    recorded = record_set(actor, BOT, JudgingOptions(recorded_robots=8, recorded_s=4.0))
    (folder / "seen.npz").write_bytes(make_set_file(recorded))
    new_key(folder / "keys", "me")
    return folder


def words_for(folder, out, *more):
    words = ["compile", folder / "actor.npz", "--robot", "balance_bot", "--out", folder / out, "--observations", folder / "seen.npz"]
    return [str(word) for word in [*words, "--episodes", "8", "--json", *more]]


def compile_again(folder, out, monkeypatch, capsys, *more):
    monkeypatch.setenv("EDGE_DSAC_KEYS", str(folder / "keys"))
    return main(words_for(folder, out, *more)), capsys.readouterr()


NAMED = ("--name", "a", "--episodes", "16")  # in eight, no interval is narrow enough for int8


@pytest.fixture(scope="module")
def whole(made):
    """(the policy file, what compile said)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_DSAC_KEYS", str(made / "keys"))
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            assert main(words_for(made, "a.policy", *NAMED)) == 0
    return made / "a.policy", json.loads(said.getvalue())


@pytest.mark.slow
def test_a_policy_file_is_made_whole_signed_and_the_same_each_time(made, whole, monkeypatch, capsys):
    assert whole[1]["precision"] == "int8"
    assert (made / "a.report.png").read_bytes().startswith(b"\x89PNG")
    assert compile_again(made, "b.policy", monkeypatch, capsys, *NAMED)[0] == 0
    assert (made / "a.policy").read_bytes() == (made / "b.policy").read_bytes()
    assert main(["verify", str(made / "a.policy"), "--robot", "balance_bot", "--json"]) == 0
    engines = {one["engine"]: one["result"] for one in json.loads(capsys.readouterr().out)["engines"]}
    assert {name for name, result in engines.items() if result == "passed"} >= {"native-integer", "native-float32", "onnxruntime", "numpy"}
    ready = open_policy(str(made / "a.policy"), BOT)
    assert ready.said.startswith("native-integer")
    for name in ("native-integer", "native-float32", "onnxruntime", "numpy"):  # as a scout hands them over
        parts = check_policy(made / "a.policy", BOT, name).parts
        assert len(pack(parts)) < 400_000
        assert make_engine(unpack(pack(parts), BOT)).bundle_id == ready.running.identity
    assert main(["inspect", str(made / "a.policy")]) == 0
    assert "int8: mean" in capsys.readouterr().out


@pytest.mark.slow
def test_a_precision_that_is_asked_for_is_taken_if_it_passes(made, monkeypatch, capsys):
    code, said = compile_again(made, "f.policy", monkeypatch, capsys, "--precision", "float32")
    assert (code, json.loads(said.out)["precision"]) == (0, "float32")
    ready = open_policy(str(made / "f.policy"), BOT)
    assert ready.said.startswith("native-float32")
    with pytest.raises(BundleError, match="was compiled for float32: asked for"):
        open_policy(str(made / "f.policy"), BOT, "native-integer")


@pytest.mark.slow
def test_profile_measures_what_passes_and_writes_the_choice_run_follows(made, whole, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_DSAC_KEYS", str(made / "keys"))
    policy = shutil.copy(whole[0], tmp_path / "p.policy")
    words = ["-m", "edge_dsac.cli.main", "profile", str(policy), "--choose", "--json"]
    words += ["--seconds", "0.5", "--idle", "0.1", "--idle-calls", "1"]  # in a process of its own: it asks for real time
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"native-integer", "native-float32", "onnxruntime", "numpy"} <= set(found["engines"])
    assert "tensorrt" in found["skipped"]
    for by in found["engines"].values():
        assert by["alone"]["count"] == by["busy"]["count"] == 500
        assert by["idle"]["count"] == 1
    assert open_policy(str(policy), BOT).said.startswith(f"{found['best']} (p99.9 of")


@pytest.mark.slow
def test_what_the_gate_refuses_is_not_made_even_if_asked_for(made, monkeypatch, capsys):
    actor = balancing_actor(BOT)
    (weight, bias), *rest = actor.layers
    shaky = [(weight + 40.0 * np.eye(*weight.shape, dtype=np.float32), bias), *rest]  # large and small terms in one layer: int8 cannot
    (made / "actor.npz").rename(made / "good.npz")
    try:
        (made / "actor.npz").write_bytes(make_actor_file(shaky, actor.activation, BOT))
        code, said = compile_again(made, "s.policy", monkeypatch, capsys, "--precision", "int8")
        assert code == 3, said.out
        assert "the gate refuses it" in said.err
        assert not (made / "s.policy").exists()
    finally:
        (made / "good.npz").replace(made / "actor.npz")
