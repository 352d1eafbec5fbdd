"""`edge-dsac spec` and `edge-dsac new-robot`, as a user types them."""

import json
import re

import pytest

from edge_dsac.cli.main import EXIT_CODES, main
from edge_dsac.spec.new_robot import make_files
from edge_dsac.spec.robot import load_robot, robot_from_text, shipped_robots
from firmware_bridge.header import generated_files


def run(capsys, *words):
    """(exit code, standard output, standard error)"""
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out, said.err


# ---- new-robot ----


def test_a_new_robot_is_two_files_that_say_its_name(tmp_path, capsys):
    code, out, _ = run(capsys, "new-robot", "crawler", "--folder", tmp_path / "mine")
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["crawler.toml", "crawler.xml"]
    assert out.startswith(
        f"wrote {tmp_path}/mine/crawler.toml and {tmp_path}/mine/crawler.xml\nnext: edge-dsac spec check {tmp_path}/mine/crawler.toml"
    )
    spec = load_robot(str(tmp_path / "mine" / "crawler.toml"))
    assert (spec.model, spec.mjcf) == ("crawler", "crawler.xml")
    for path in (tmp_path / "mine").iterdir():
        assert "NAME" not in path.read_text()


@pytest.mark.slow
def test_a_new_robot_passes_every_check_as_it_is(tmp_path, capsys):
    pytest.importorskip("mujoco", reason="the MuJoCo model cannot be checked without mujoco")
    assert run(capsys, "new-robot", "crawler", "--folder", tmp_path)[0] == 0
    code, out, err = run(capsys, "spec", "check", tmp_path / "crawler.toml")
    assert (code, err) == (0, "")
    assert "robot file good" in out
    assert "rewards good; crawler.xml agrees" in out


@pytest.mark.slow
def test_a_new_robot_whose_model_no_longer_agrees_fails_the_check(tmp_path, capsys):
    pytest.importorskip("mujoco", reason="the MuJoCo model cannot be checked without mujoco")
    assert run(capsys, "new-robot", "crawler", "--folder", tmp_path)[0] == 0
    path = tmp_path / "crawler.toml"
    path.write_text(path.read_text().replace("track_m = 0.20", "track_m = 0.25"))
    code, _, err = run(capsys, "spec", "check", path)
    assert code == 1
    assert re.search(r"crawler\.xml: distance between the wheels: .* says 0\.25, the model has 0\.2", err), err


@pytest.mark.parametrize("present", ["crawler.toml", "crawler.xml"])
def test_a_new_robot_writes_over_nothing(tmp_path, capsys, present):
    (tmp_path / present).write_text("mine")
    code, _, err = run(capsys, "new-robot", "crawler", "--folder", tmp_path)
    assert code == 1
    assert f"{present}: already there; choose another name or folder" in err
    assert [path.name for path in tmp_path.iterdir()] == [present]
    assert (tmp_path / present).read_text() == "mine"


@pytest.mark.parametrize("name", ["my-robot", "2wheels", "", "a b", "x" * 16, "../up"])
def test_a_bad_name_is_named(tmp_path, capsys, name):
    code, _, err = run(capsys, "new-robot", name, "--folder", tmp_path)
    assert code == 1
    assert f"robot name {name!r}: expected letters, digits and _, at most 15" in err
    assert not list(tmp_path.iterdir())


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    code, out, _ = run(capsys, "new-robot", "crawler", "--folder", tmp_path / "mine", "--dry-run")
    assert code == 0
    assert out == f"would write {tmp_path}/mine/crawler.toml, {tmp_path}/mine/crawler.xml\n"
    assert not list(tmp_path.iterdir())


def test_a_dry_run_over_something_says_that_it_would_be_refused(tmp_path, capsys):
    (tmp_path / "crawler.xml").write_text("mine")
    code, _, err = run(capsys, "new-robot", "crawler", "--folder", tmp_path, "--dry-run")
    assert code == 1
    assert "crawler.xml: already there" in err


def test_the_template_explains_the_keys_that_a_newcomer_must_change():
    text = make_files("crawler")["crawler.toml"]
    robot_from_text(text)
    for key in ("track_m", "axes", "sign", "counts_per_rad", "command_timeout_ms", "fallback"):
        (line,) = [line for line in text.splitlines() if line.startswith(f"{key} =")][:1]
        assert "#" in line, key


# ---- spec ----


@pytest.mark.parametrize("name", shipped_robots())
def test_spec_show_json_is_the_robot(name, capsys):
    code, out, _ = run(capsys, "spec", "show", name, "--json")
    assert code == 0
    shown, spec = json.loads(out), load_robot(name)
    assert shown["model"] == name
    assert [joint["name"] for joint in shown["joints"]] == [joint.name for joint in spec.joints]
    assert shown["rates"]["control_hz"] == spec.rates.control_hz
    assert (shown["firmware_fingerprint"], shown["policy_fingerprint"]) == (spec.firmware_fingerprint, spec.policy_fingerprint)
    assert shown["observation_size"] == {"balance_bot": 11, "rover": 31}[name]
    assert "text" not in shown
    assert "folder" not in shown


def test_spec_show_says_where_each_number_sits(capsys):
    code, out, _ = run(capsys, "spec", "show", "balance_bot")
    assert code == 0
    assert "control 100 Hz, sensors 200 Hz, board 1000 Hz, timeout 60 ms, then balance_pd" in out
    assert re.search(r"\[  7: 11\] applied_action +scale 1, clip 1, history 2", out)
    assert re.search(r"differential +-0\.2 left_wheel, \+0\.2 right_wheel", out)
    assert re.search(r"right_wheel +sign -1  2607\.59 counts/rad", out)


@pytest.mark.parametrize("name", shipped_robots())
def test_spec_header_is_the_committed_header(name, capsys, tmp_path):
    (committed,) = [path for path in generated_files() if path.parent.name == name]
    code, out, _ = run(capsys, "spec", "header", name)
    assert code == 0
    assert out == committed.read_text()
    assert run(capsys, "spec", "header", name, "-o", tmp_path / "h") == (0, f"{tmp_path}/h\n", "")
    assert (tmp_path / "h").read_text() == committed.read_text()


@pytest.mark.slow
def test_the_shipped_robots_pass_their_own_check(capsys):
    code, out, err = run(capsys, "spec", "check", *shipped_robots())
    assert (code, err) == (0, "")
    assert out.count("robot file good") == 2


def test_a_broken_robot_is_one_line_and_exit_1(bot, tmp_path, capsys):
    (tmp_path / "mine.toml").write_text(bot.text.replace("track_m = 0.17", "trak_m = 0.17"))
    for action in ("show", "check", "header"):
        code, out, err = run(capsys, "spec", action, tmp_path / "mine.toml")
        assert (code, out) == (1, "")
        assert (
            err == f"edge-dsac spec: {tmp_path}/mine.toml:19: drive.trak_m: expected a known key, got 'trak_m'; did you mean 'track_m'?\n"
        )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('term = "lean"', 'term = "leen"', "balance_bot: reward 'leen' is not known; did you mean 'lean'?"),
        ('term = "lean"', 'term = "moon_phase"', "balance_bot: reward 'moon_phase' is not known; "),
    ],
)
def test_a_reward_that_is_not_there_is_named_by_the_check(bot, tmp_path, capsys, old, new, said):
    assert old in bot.text
    (tmp_path / "mine.toml").write_text(bot.text.replace(old, new))
    code, _, err = run(capsys, "spec", "check", tmp_path / "mine.toml")
    assert code == 1
    assert said in err


# ---- exit codes ----


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["fly"],
        ["spec"],
        ["spec", "show"],
        ["spec", "polish", "rover"],
        ["new-robot"],
        ["log", "export", "x", "--format", "png", "-o", "y"],
    ],
    ids=" ".join,
)
def test_wrong_arguments_are_exit_2(words, capsys):
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    assert "usage: edge-dsac" in capsys.readouterr().err


def test_help_names_every_verb_and_the_exit_codes(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    for verb in ("spec", "new-robot", "mcu", "run", "log", "watch", "demo"):
        assert f" {verb} " in out
    assert EXIT_CODES in out


def test_a_robot_that_is_not_known_is_exit_1(capsys):
    code, _, err = run(capsys, "spec", "show", "balance_bt")
    assert code == 1
    assert err == "edge-dsac spec: robot 'balance_bt' is not known; did you mean 'balance_bot'?\n"
