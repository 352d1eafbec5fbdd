"""`edge-dsac import`: exit codes, the table, the template, the weights."""

import json

import pytest

pytest.importorskip("onnx", reason="onnx is not installed: pip install 'edge_dsac[compile]'")
pytest.importorskip("yaml", reason="PyYAML is not installed: pip install 'edge_dsac[compile]'")

from foreign_files import FRAME, MJLAB_ANSWERS, RL_SAR, RL_SAR_BASE, mjlab_metadata, plain, random_layers, two_torques

from edge_dsac.bundle.actor import load_actor
from edge_dsac.cli.main import main


@pytest.fixture
def files(tmp_path):
    (tmp_path / "robot.toml").write_text(two_torques().text)
    (tmp_path / "policy.onnx").write_bytes(plain(random_layers(FRAME)).model(FRAME, mjlab_metadata()))
    (tmp_path / "answers.toml").write_text(MJLAB_ANSWERS)
    return tmp_path


def words(files, *more):
    return ["import", str(files / "policy.onnx"), "--robot", str(files / "robot.toml"), *map(str, more)]


def test_what_is_missing_is_told_with_reasons_and_exit_3_and_nothing_is_written(files, capsys):
    out, template = files / "actor.npz", files / "new.toml"
    assert main(words(files, "--out", out, "--write-answers", template)) == 3
    said = capsys.readouterr().out
    for part in (
        "known",
        "missing",
        "assumed",
        "control_hz",
        "at another rate the policy sees another robot",
        "-> give control_hz",
        f"wrote {template}",
    ):
        assert part in said
    assert not out.exists()
    assert "# control_hz = 100.0" in template.read_text()
    assert main(words(files, "--write-answers", template)) == 1  # somebody's answers are not overwritten


def test_with_answers_the_weights_are_written(files, capsys):
    out = files / "actor.npz"
    assert main(words(files, "--answers", files / "answers.toml", "--out", out)) == 0
    said = capsys.readouterr().out
    assert f"wrote {out}" in said
    assert "differs from the ONNX graph by at most" in said
    assert load_actor(out, two_torques()).sizes == (11, 16, 8, 2)
    assert sorted(path.name for path in files.iterdir()) == ["actor.npz", "answers.toml", "policy.onnx", "robot.toml"]


def test_json_has_the_same(files, capsys):
    assert main(words(files, "--json")) == 3
    missing = json.loads(capsys.readouterr().out)
    assert {entry["what"] for entry in missing["missing"]} >= {"control_hz", "command_unit"}
    assert missing["actor"] is None
    assert main(words(files, "--json", "--answers", files / "answers.toml", "--out", files / "a.npz")) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["missing"] == []
    assert whole["wrote"] == str(files / "a.npz")
    assert whole["known"]["action_scale"]["value"] == [1.5, 1.5]
    assert whole["assumed"]


def test_json_has_no_infinity(files, capsys):
    clips = "-inf;inf,-inf;inf,-inf;inf,-100.000;100.000,-inf;inf"
    (files / "policy.onnx").write_bytes(plain(random_layers(FRAME)).model(FRAME, mjlab_metadata(observation_terms_clip=clips)))
    assert main(words(files, "--json", "--answers", files / "answers.toml")) == 0
    known = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))["known"]
    assert known["observation_clip"]["value"] == [None, None, None, 100.0, None]


def test_two_yaml_files_are_read_in_order(files, capsys):
    (files / "base.yaml").write_text(RL_SAR_BASE)
    (files / "config.yaml").write_text(RL_SAR.replace("[2, 1, 0]", "[0]"))
    (files / "policy.onnx").write_bytes(plain(random_layers(FRAME)).model(FRAME))
    (files / "answers.toml").write_text('command_unit = "torque_nm"')
    given = ("--metadata", files / "base.yaml", "--metadata", files / "config.yaml", "--answers", files / "answers.toml")
    assert main(words(files, *given)) == 0
    assert "nothing was written" in capsys.readouterr().out


def test_a_refusal_is_one_line_and_exit_3(files, capsys):
    (files / "policy.onnx").write_bytes(plain(random_layers(FRAME)).model(FRAME, mjlab_metadata(joint_names="right_wheel,left_wheel")))
    assert main(words(files)) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "edge-dsac import: " in said.err
    assert "in another order" in said.err


def test_an_absent_file_and_a_wrong_answer_are_one_line(files, capsys):
    (files / "answers.toml").write_text("controll_hz = 100")
    assert main(words(files, "--answers", files / "answers.toml")) == 1
    assert "did you mean 'control_hz'" in capsys.readouterr().err
    (files / "policy.onnx").unlink()
    assert main(words(files)) == 3
    assert "cannot be read" in capsys.readouterr().err
