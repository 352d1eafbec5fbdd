"""A policy of another project, of elu and with a plain layer at its end, all the way: imported, compiled, verified, inspected."""

import json

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed: pip install 'edge_dsac[compile]'")

from foreign_files import plain
from made_up_actor import balancing_gains

from calibration.activations import make_set_file
from edge_dsac.bundle.actor import load_actor
from edge_dsac.bundle.keyring import new_key
from edge_dsac.bundle.package import read_bundle
from edge_dsac.bundle.targets import TARGETS, best_target
from edge_dsac.cli.judging import JudgingOptions, record_set
from edge_dsac.cli.main import main
from edge_dsac.spec.robot import load_robot

BOT = load_robot("balance_bot")
# What it sees, and what it multiplies that by; commands are x, y and yaw, and of its last actions it sees two, the oldest first.
TERMS = {"pitch_rad": 1.0, "pitch_rate_rad_s": 0.25, "speed_m_s": 2.0, "yaw_rate_rad_s": 0.25, "velocity_commands": 2.0,
         "speed_error_integral_m": 1.0, "actions": 1.0}  # fmt: skip
SIZE = 12
ANSWERS = f"""
joint_names = ["left_wheel", "right_wheel"]
control_hz = 100
observation_names = {json.dumps(list(TERMS))}
observation_scales = {list(TERMS.values())}
history = [1, 1, 1, 1, 1, 1, 2]
history_by = "term"
history_first = "oldest"
outputs = "actions"
"""


def foreign_layers():
    """Balances: the cascaded PD's gains, and (elu(x) - elu(-x)) / 2 twice, which is x near 0 and bends towards x / 2 beyond."""
    ours = balancing_gains(BOT)
    assert np.abs(ours[:, 7:]).max() == 0.0  # of the actions, whose order is another
    gains = np.zeros((2, SIZE))
    gains[:, [0, 1, 2, 3, 4, 6, 7]] = ours[:, :7] / [1.0, 0.25, 2.0, 0.25, 2.0, 2.0, 1.0]
    one = np.eye(2)
    both = [np.vstack([gains, -gains]), np.block([[one, -one], [-one, one]]) / 2, np.hstack([one, -one]) / 2]
    return [(weight, np.zeros(len(weight))) for weight in both]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign")
    new_key(folder / "keys", "me")
    (folder / "policy.onnx").write_bytes(plain(foreign_layers(), style="MatMul").model(SIZE))
    (folder / "answers.toml").write_text(ANSWERS)
    return folder


def said(capsys, *words):
    code = main([str(word) for word in words])
    out = capsys.readouterr()
    assert code == 0, out.err
    return out.out


@pytest.mark.slow
def test_an_imported_policy_of_elu_without_tanh_runs_on_every_engine_that_is_here(folder, monkeypatch, capsys):
    monkeypatch.setenv("EDGE_DSAC_KEYS", str(folder / "keys"))
    monkeypatch.chdir(folder)
    said(capsys, "import", "policy.onnx", "--robot", "balance_bot", "--answers", "answers.toml", "--out", "actor.npz")
    actor = load_actor("actor.npz", BOT)
    assert actor.form == ((11, 4, 4, 2), "elu", "clip")
    seen = record_set(actor, BOT, JudgingOptions(recorded_robots=8, recorded_s=4.0))
    (folder / "seen.npz").write_bytes(make_set_file(seen))
    assert (np.abs(actor.act(seen.held_out)) == 1.0).any()  # the clip has something to do
    words = ("--out", "it.policy", "--observations", "seen.npz", "--episodes", "16", "--json")
    made = json.loads(said(capsys, "compile", "actor.npz", "--robot", "balance_bot", *words))
    assert made["precision"] in ("int8", "int16"), made["because"]

    found = json.loads(said(capsys, "verify", "it.policy", "--robot", "balance_bot", "--json"))
    results = {one["engine"]: one["result"] for one in found["engines"]}
    assert "failed" not in results.values()
    here = {"numpy", "onnxruntime"} | ({"native-integer", "native-float32"} if best_target(one.file for one in TARGETS.values()) else set())
    assert {name for name, result in results.items() if result == "passed"} >= here

    bundle = read_bundle(folder / "it.policy", (), allow_unsigned=True)
    for part in ("velocity_commands: x, y, yaw", "actions is the robot file's applied_action", "actions beyond -1 and 1 are clipped"):
        assert any(part in line for line in bundle.manifest.assumed), part
    assert bundle.manifest.assumed == actor.assumed
    text = said(capsys, "inspect", "it.policy")
    assert "11 observations, 4-4 elu, 2 clipped actions (common, differential)" in text
    for line in actor.assumed:
        assert f"ASSUMED     {line}" in text
