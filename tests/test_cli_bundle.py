"""inspect, diff, verify and keys, as a person or a program calls them; and the golden vectors behind verify."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from bundle_fixture import KEY, OTHER_KEY, PRECISION, TRAINING, bundle_bytes, bundle_parts, opened_bundle, write_bundle

import edge_dsac.cli.bundle as verbs
from edge_dsac.bundle.diff import compare
from edge_dsac.bundle.engines import ENGINES, EngineKind, judge
from edge_dsac.bundle.golden import check_golden
from edge_dsac.bundle.keyring import trust
from edge_dsac.bundle.numpy_engine import NumpyMlp
from edge_dsac.cli.main import main
from edge_dsac.spec.robot import robot_from_text


@pytest.fixture(autouse=True)
def keys(tmp_path, monkeypatch):
    """A folder of keys of the test's own, in which KEY is trusted as `lab`."""
    folder = tmp_path / "keys"
    monkeypatch.setenv("EDGE_DSAC_KEYS", str(folder))
    trust(folder, dataclasses.replace(KEY.public, name="lab"))
    return folder


def said(capsys, *words, code=0):
    assert main([str(word) for word in words]) == code
    out = capsys.readouterr()
    return out.out if code != 3 or out.out else out.err


# ---- golden vectors and engines


class Skewed:
    """The numpy engine, off by a little, or by what else is asked for."""

    def __init__(self, bundle, by=0.0, name=0):
        self.engine, self.by = NumpyMlp(bundle.actor), by
        self.bundle_id = self.engine.bundle_id + name

    def act(self, obs):
        return self.engine.act(obs) + self.by


class Replay:
    """Answers what the bundle says it should: whole numbers, one of them a step off."""

    def __init__(self, bundle, off_at=None):
        self.bundle_id, self.golden, self.at, self.off_at = bundle.identity, bundle.golden, -1, off_at

    def act(self, obs):
        self.at += 1
        return (self.golden.whole[self.at] + (self.at == self.off_at)) / np.float32(32768.0)


def test_the_numpy_engine_passes_the_golden_vectors():
    bundle = opened_bundle()
    assert check_golden(NumpyMlp(bundle.actor), bundle) == []
    assert ("numpy", "passed") in [(one.engine, one.result) for one in judge(bundle)]


@pytest.mark.slow
@pytest.mark.parametrize(("accepted", "allowed"), [([], 1e-3), (["float16"], 0.02), (["int8 onnx", "float16"], 0.2)])
def test_tensorrt_is_allowed_no_more_than_the_precision_it_computes_in(accepted, allowed):
    said = dataclasses.replace(PRECISION, measured={"accepted": accepted})
    bundle = opened_bundle(bundle_bytes(precision=said))
    kind = next(kind for kind in ENGINES if kind.name == "tensorrt")
    assert kind.tolerance(bundle) == allowed
    off = dataclasses.replace(kind, why_not=lambda bundle: "", load=lambda bundle: Skewed(bundle, 2.0 * allowed))
    assert judge(bundle, (off,))[0].result == "failed"
    near = dataclasses.replace(off, load=lambda bundle: Skewed(bundle, 0.5 * allowed))
    assert judge(bundle, (near,))[0].result == "passed"


def test_an_engine_that_is_off_fails_by_vector_and_action():
    bundle = opened_bundle()
    assert check_golden(Skewed(bundle, 5e-6), bundle) == []
    failures = check_golden(Skewed(bundle, 5e-5), bundle)
    assert len(failures) == 4
    assert failures[0].startswith("vector 0, action ")
    assert check_golden(Skewed(bundle, 5e-5), bundle, tolerance=1e-4) == []
    assert len(check_golden(Skewed(bundle, np.nan), bundle)) == 4
    assert "calls itself" in check_golden(Skewed(bundle, name=1), bundle)[0]
    assert "expected 2 actions" in check_golden(Skewed(bundle, np.zeros((3, 1))), bundle)[0]


def test_whole_numbers_are_compared_bit_by_bit():
    bundle = opened_bundle()
    assert check_golden(Replay(bundle), bundle, exact=True) == []
    failures = check_golden(Replay(bundle, off_at=2), bundle, exact=True)
    assert len(failures) == 1
    assert failures[0].startswith("vector 2")
    without = dataclasses.replace(bundle, golden=dataclasses.replace(bundle.golden, whole=None))
    assert "no whole-number golden actions" in check_golden(Replay(bundle), without, exact=True)[0]


def broken(_):
    raise RuntimeError("no such device")


KINDS = (
    *ENGINES,
    EngineKind("absent", False, lambda bundle: "needs a GPU", broken),
    EngineKind("broken", False, lambda bundle: "", broken),
    EngineKind("skewed", False, lambda bundle: "", lambda bundle: Skewed(bundle, 0.1)),
)


def test_every_engine_is_judged_and_one_that_is_not_here_says_why():
    found = {one.engine: one for one in judge(opened_bundle(), KINDS)}
    assert {name: one.result for name, one in found.items() if name in ("numpy", "absent", "broken", "skewed")} == {
        "numpy": "passed", "absent": "skipped", "broken": "failed", "skewed": "failed",
    }  # fmt: skip
    assert found["absent"].why == "needs a GPU"
    assert found["broken"].why == "RuntimeError: no such device"
    assert found["skewed"].why.startswith("4 failures on 4 golden vectors, the first: vector 0")


# ---- verify


def test_verify_says_good_for_a_good_bundle(tmp_path, capsys):
    text = said(capsys, "verify", write_bundle(tmp_path), "--robot", "balance_bot")
    assert "signature   signed by lab" in text
    assert "robot       fits balance_bot" in text
    assert "passed      numpy: 4 golden vectors" in text
    assert text.splitlines()[-1].startswith("good        balance_bot-0 version 3 (")


def test_verify_as_json(tmp_path, capsys):
    found = json.loads(said(capsys, "verify", write_bundle(tmp_path), "--json"))
    assert found["ok"] is True
    assert found["signature"]["signer"] == "lab"
    assert {one["engine"]: one["result"] for one in found["engines"]}["numpy"] == "passed"
    assert found["robot"] == {"model": "balance_bot", "compared_with": None}


@pytest.mark.slow
def test_verify_refuses_with_exit_code_3(tmp_path, capsys):
    assert "is not signed" in said(capsys, "verify", write_bundle(tmp_path, "u.policy", bundle_bytes(key=None)), code=3)
    assert "not trusted here" in said(capsys, "verify", write_bundle(tmp_path, "o.policy", bundle_bytes(key=OTHER_KEY)), code=3)
    assert "rover has" in said(capsys, "verify", write_bundle(tmp_path), "--robot", "rover", code=3)
    assert "u.policy: is not signed" in said(capsys, "verify", tmp_path / "u.policy", code=3)


def test_an_unsigned_bundle_that_is_allowed_says_so_in_every_status_line(tmp_path, capsys):
    text = said(capsys, "verify", write_bundle(tmp_path, data=bundle_bytes(key=None)), "--allow-unsigned")
    assert "signature   NOT SIGNED" in text
    assert text.splitlines()[-1].endswith("NOT SIGNED")


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_an_engine_that_acts_otherwise_is_refused(tmp_path, capsys, monkeypatch, form):
    monkeypatch.setattr(verbs, "judge", lambda bundle: judge(bundle, KINDS))
    text = said(capsys, "verify", write_bundle(tmp_path), *form, code=3)
    if form:
        assert json.loads(text)["ok"] is False
    else:
        assert "skipped     absent: needs a GPU" in text
        assert text.splitlines()[-1].startswith("REFUSED     balance_bot-0 version 3")


# ---- inspect


def test_inspect_shows_what_one_wants_to_know_first(tmp_path, capsys):
    text = said(capsys, "inspect", write_bundle(tmp_path))
    for line in (
        "balance_bot-0 version 3 for balance_bot",
        "signed by lab (",
        "balance_bot at 100 Hz, policy ",
        "11 observations, 4-4 gelu, 2 actions (common, differential)",
        "int8: as good as float32 within noise, and twice as fast",
        "int8: max_error 0.01",
        "seed 0",
        "policy/nominal: mean 812.2, std 59.5, survival 1",
        "4 vectors, float32 and whole numbers",
        "actor.npz 2.6 kB",
    ):
        assert line in text


def test_inspect_shows_an_unsigned_bundle_and_what_was_assumed(tmp_path, capsys):
    data = bundle_bytes(key=None, assumed=("the order of the joints",), parent="ab" * 32)
    text = said(capsys, "inspect", write_bundle(tmp_path, data=data))
    assert "NOT SIGNED" in text
    assert "ASSUMED     the order of the joints" in text
    assert "child of abababababababab" in text


@pytest.mark.slow
def test_a_bundle_cannot_write_to_the_terminal(tmp_path, capsys):
    precision = dataclasses.replace(opened_bundle().manifest.precision, because="\x1b]0;owned\x07\x1b[2J")
    path = write_bundle(tmp_path, data=bundle_bytes(precision=precision, assumed=("\x1b[31m",)))
    for words in (["inspect", path], ["diff", path, write_bundle(tmp_path, "b.policy")]):
        assert "\x1b" not in said(capsys, *words)


def test_inspect_as_json_holds_the_whole_manifest(tmp_path, capsys):
    found = json.loads(said(capsys, "inspect", write_bundle(tmp_path), "--json"))
    assert found["manifest"] == json.loads(opened_bundle().manifest.text)
    assert found["identity"] == f"{opened_bundle().identity:016x}"
    assert found["signature"]["trusted"] is True


def test_inspect_refuses_what_is_damaged(tmp_path, capsys):
    path = write_bundle(tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    assert "edge-dsac inspect: " in said(capsys, "inspect", path, code=3)


# ---- diff


def test_a_bundle_does_not_differ_from_itself(tmp_path, capsys):
    path = write_bundle(tmp_path)
    found = json.loads(said(capsys, "diff", path, path, "--json"))
    assert found["same"] is True
    assert found["golden_shift"]["actions"]["common"] == {"mean_percent": 0.0, "max_percent": 0.0}
    assert "robot: same" in said(capsys, "diff", path, path)


@pytest.mark.slow
def test_diff_shows_training_by_key_and_evaluation(tmp_path, capsys):
    training = {
        **TRAINING,
        "seed": 1,
        "config": {"updates": 14000, "rates": {"actor_lr": 0.0005}},
        "evaluation": {"mean": 700.0, "survival": 0.9},
    }
    a, b = write_bundle(tmp_path, "a.policy"), write_bundle(tmp_path, "b.policy", bundle_bytes(key=OTHER_KEY, version=4, training=training))
    found = json.loads(said(capsys, "diff", a, b, "--json"))["sections"]
    assert found["training"] == [["config.rates.actor_lr", "0.001", "0.0005"], ["seed", "0", "1"]]
    assert found["evaluation"] == [["evaluation.mean", "812.25", "700.0"], ["evaluation.survival", "1.0", "0.9"]]
    assert found["policy"] == [["version", "3", "4"]]
    assert found["signer"][0][0] == "signature"
    assert found["network"] == found["robot"] == found["files"] == []
    text = said(capsys, "diff", a, b)
    assert "  seed: 0 -> 1" in text
    assert "NOT TRUSTED" in text


def test_people_are_told_the_choice_and_how_much_evidence_is_behind_it(tmp_path, capsys):
    figures = {"int8": {"max_error": 0.0123456789, "mean": [0.1, 0.2]}, "float32": {"max_error": 0.0}}
    precision = dataclasses.replace(PRECISION, chosen="int16", measured=figures)
    a, b = (
        write_bundle(tmp_path, "a.policy"),
        write_bundle(tmp_path, "b.policy", bundle_bytes(parts=bundle_parts(seed=4), precision=precision)),
    )
    text = said(capsys, "diff", a, b)
    assert '  chosen: "int8" -> "int16"' in text
    assert "max_error" not in text
    assert "  and 2 figures or hashes behind it: --all" in text
    assert "  actor.npz.sha256: " in text  # of the same size: nothing else would say that it is another one
    assert text.index("actions on A's") < text.index("signer")
    everything = said(capsys, "diff", a, b, "--all")
    assert "measured.int8.max_error: 0.01 -> 0.01235" in everything
    assert "measured.int8.mean: absent -> [0.1, 0.2]" in everything
    assert "--all" not in everything


def test_a_file_of_another_size_is_not_named_twice(tmp_path, capsys):
    a, b = write_bundle(tmp_path, "a.policy"), write_bundle(tmp_path, "b.policy", bundle_bytes(parts=bundle_parts(widths=(5, 5))))
    text = said(capsys, "diff", a, b)
    assert "  actor.npz.bytes: " in text
    assert "actor.npz.sha256" not in text


@pytest.mark.slow
def test_diff_shows_the_robots_facts_that_differ(bot, tmp_path, capsys):
    changed = robot_from_text(
        bot.text.replace("scale = 0.5\nclip = 10.0", "scale = 0.25\nclip = 8.0").replace("mix = [0.8, 0.8]", "mix = [0.7, 0.7]")
    )
    a, b = write_bundle(tmp_path, "a.policy"), write_bundle(tmp_path, "b.policy", bundle_bytes(parts=bundle_parts(spec=changed)))
    found = json.loads(said(capsys, "diff", a, b, "--json"))["sections"]
    assert found["observations"] == [["pitch_rate_rad_s.clip", "10.0", "8.0"], ["pitch_rate_rad_s.scale", "0.5", "0.25"]]
    assert found["actions"] == [["common.to_command", "[0.8, 0.8]", "[0.7, 0.7]"]]
    robot = {key for key, *_ in found["robot"]}
    assert {"policy_fingerprint", "spec.observations[1].scale", "spec.actions[0].mix"} <= robot
    assert "firmware_fingerprint" not in robot


def test_the_shift_of_actions_is_in_percent_of_their_range():
    """A bias of the last layer, moved by what shifts tanh(0) = 0 to 0.1, is 5 % of -1..1 where the rest is zero."""
    a = opened_bundle()
    still = tuple((np.zeros_like(weight), np.zeros_like(bias)) for weight, bias in a.actor.layers)
    moved = (*still[:-1], (still[-1][0], np.array([np.arctanh(0.1), 0.0], np.float32)))
    one, two = (dataclasses.replace(a, actor=dataclasses.replace(a.actor, layers=layers)) for layers in (still, moved))
    shift = compare(one, two).golden_shift
    assert shift["vectors"] == 4
    assert shift["actions"]["common"]["max_percent"] == pytest.approx(5.0, abs=1e-5)
    assert shift["actions"]["differential"]["max_percent"] == 0.0


def test_every_part_of_a_manifest_is_in_the_comparison():
    """Whatever is changed in a manifest shows in some section."""
    a = opened_bundle()
    manifest = a.manifest
    for change in (
        {"name": "x"}, {"version": 9}, {"parent": "ab" * 32}, {"assumed": ("x",)}, {"training": {}}, {"files": {}},
        {"rates": dataclasses.replace(manifest.rates, control_hz=50)}, {"actor": dataclasses.replace(manifest.actor, activation="relu")},
        {"precision": dataclasses.replace(manifest.precision, because="")}, {"robot": dataclasses.replace(manifest.robot, model="x")},
        {"layout": dataclasses.replace(manifest.layout, observations=dataclasses.replace(manifest.layout.observations, clip=(2.0,) * 11))},
    ):  # fmt: skip
        b = dataclasses.replace(a, manifest=dataclasses.replace(manifest, **change))
        assert not compare(a, b).same, change


def test_bundles_of_different_robots_are_compared_but_not_their_actions(rover, tmp_path, capsys):
    a, b = write_bundle(tmp_path, "a.policy"), write_bundle(tmp_path, "b.policy", bundle_bytes(parts=bundle_parts(spec=rover)))
    text = said(capsys, "diff", a, b)
    assert "  model: balance_bot -> rover" in text
    assert "not compared, the two do not see or steer the same things" in text


# ---- keys


@pytest.mark.slow
def test_keys_are_made_listed_trusted_and_removed(tmp_path, capsys, keys):
    assert "not encrypted" in said(capsys, "keys", "new", "mine")
    found = json.loads(said(capsys, "keys", "list", "--json"))
    assert [(row["name"], row["can_sign"]) for row in found["trusted"]] == [("lab", False), ("mine", True)]
    assert found["folder"] == str(keys)
    public = tmp_path / "friend.pub"
    public.write_text(OTHER_KEY.public.file)
    assert said(capsys, "keys", "trust", public) == f"trusted: friend ({OTHER_KEY.public.hex_id})\n"
    assert "good" in said(capsys, "verify", write_bundle(tmp_path, data=bundle_bytes(key=OTHER_KEY)))
    assert "no longer trusted: friend" in said(capsys, "keys", "remove", "friend")
    assert "its secret key is still there" in said(capsys, "keys", "remove", "mine")
    assert "is not trusted here" in said(capsys, "keys", "list")
    assert said(capsys, "keys", "remove", "mine", code=3).startswith("edge-dsac keys: no key named 'mine'")


def test_a_key_can_be_trusted_under_a_name_of_ones_own(tmp_path, capsys):
    public = tmp_path / "id.pub"
    public.write_text(OTHER_KEY.public.file)
    assert "trusted: field-team" in said(capsys, "keys", "trust", public, "--name", "field-team")


@pytest.mark.slow
def test_a_new_key_is_encrypted_by_the_passphrase_of_the_environment(capsys, keys, monkeypatch):
    monkeypatch.setenv("EDGE_DSAC_PASSPHRASE", "correct horse")
    text = said(capsys, "keys", "new", "mine", "--passphrase")
    assert "(encrypted;" in text
    assert "correct horse" not in text
    from edge_dsac.bundle.keyring import secret_key, secret_text
    from edge_dsac.bundle.signing import is_encrypted

    assert is_encrypted(secret_text(keys, "mine"))
    assert secret_key(keys, "mine", os.environ["EDGE_DSAC_PASSPHRASE"]).public.hex_id in text


def test_two_passphrases_that_differ_make_no_key(capsys, keys, monkeypatch):
    monkeypatch.delenv("EDGE_DSAC_PASSPHRASE", raising=False)
    answers = iter(["one", "two"])
    monkeypatch.setattr("getpass.getpass", lambda _: next(answers))
    assert "the two passphrases differ" in said(capsys, "keys", "new", "mine", "--passphrase", code=3)
    assert not (keys / "secret").exists()


@pytest.mark.slow
def test_who_reads_only_the_beginning_hears_no_complaint(tmp_path):
    path = write_bundle(tmp_path)
    read_end, write_end = os.pipe()
    os.close(read_end)
    words = [sys.executable, "-m", "edge_dsac.cli.main", "inspect", str(path)]
    done = subprocess.run(words, stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (1, "")
