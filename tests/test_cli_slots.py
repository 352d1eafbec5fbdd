"""`edge-dsac slots promote`: only what a trial found better, unless a person insists; and under an owner's key for other machines."""

import json

import pytest
from tuning_fixture import policy_of, small_carried

from edge_dsac.bundle.keyring import key_folder, new_key, secret_key, trust, trusted_keys
from edge_dsac.bundle.package import read_bundle, signed_again
from edge_dsac.bundle.slot_folder import Outcome, Stage
from edge_dsac.bundle.slots import create_slots
from edge_dsac.bundle.trial_plan import TrialPlan
from edge_dsac.cli.main import main
from edge_dsac.spec.layout import ObservationLayout


@pytest.fixture
def robot(bot, tmp_path, monkeypatch):
    """A folder in which a child signed by the board drives; on a machine that also holds an owner's key."""
    keys = tmp_path / "keys"
    monkeypatch.setenv("EDGE_DSAC_KEYS", str(keys))
    assert key_folder({"EDGE_DSAC_KEYS": str(keys)}) == keys
    for name in ("board", "owner"):
        new_key(keys, name)
    board, layout = secret_key(keys, "board"), ObservationLayout(bot)

    def signed(seed, version, parent=None):
        plain = read_bundle(policy_of(bot, small_carried(layout.size, 2, seed), version, parent), (), allow_unsigned=True)
        return signed_again(plain, board)

    first = signed(0, 1)
    slots = create_slots(tmp_path / "slots", first, trusted_keys(keys))
    child = signed(1, 2, slots.current().manifest.sha256)
    clip = tuple(layout.clip.tolist())
    slots.propose(child, TrialPlan(window_ticks=50, pairs=6, low=tuple(-x for x in clip), high=clip, seed=1, settle_ticks=10, max_voids=24))
    return slots


def accept(slots, judged):
    slots.record(Outcome(slots.candidate()[0].identity, Stage.OVER, "", {}))
    slots.accept("it was", judged=judged)


@pytest.mark.slow
def test_a_child_that_was_found_better_travels_under_the_owners_key(robot, tmp_path, monkeypatch, capsys):
    accept(robot, judged=True)
    out = tmp_path / "better.policy"
    assert main(["slots", "promote", str(robot.folder), "--key", "owner", "--out", str(out)]) == 0
    assert "is golden" in capsys.readouterr().out
    here = robot.current()
    assert robot.golden().identity == here.identity
    there = tmp_path / "another machine"
    owner = next(key for key in trusted_keys(tmp_path / "keys") if key.name == "owner")
    trust(there, owner)
    monkeypatch.setenv("EDGE_DSAC_KEYS", str(there))
    assert main(["verify", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["signature"]["signer"] == "owner"
    assert main(["verify", str(robot.current_path)]) == 3  # the board's word counts for nothing there
    copy = read_bundle(out, (owner,))
    differing = {name for name in here.files if here.files[name] != copy.files[name]}
    assert differing == {"manifest.json.minisig"}
    assert copy.identity == here.identity


@pytest.mark.slow
def test_what_no_trial_found_better_is_promoted_only_by_force(robot, tmp_path, capsys):
    accept(robot, judged=False)
    out = tmp_path / "out.policy"
    words = ["slots", "promote", str(robot.folder), "--key", "owner", "--out", str(out)]
    assert main(words) == 3
    assert "not found better than its parent" in capsys.readouterr().err
    assert not out.exists()
    assert robot.golden().manifest.version == 1
    assert main([*words, "--force"]) == 0
    assert out.exists()
    assert robot.golden().manifest.version == 2
    assert "by force" in robot.events()[-1]["why"]


@pytest.mark.slow
def test_no_file_is_written_over_and_no_key_is_made_up(robot, tmp_path, capsys):
    accept(robot, judged=True)
    out = tmp_path / "out.policy"
    out.write_text("mine")
    assert main(["slots", "promote", str(robot.folder), "--key", "owner", "--out", str(out)]) == 1
    assert out.read_text() == "mine"
    assert main(["slots", "promote", str(robot.folder), "--key", "stranger"]) != 0
    assert "no secret key named 'stranger'" in capsys.readouterr().err
    assert main(["slots", "promote", str(robot.folder), "--key", "board"]) == 3
    assert "signed by board already" in capsys.readouterr().err
    assert main(["slots", "promote", str(robot.folder), "--out", str(tmp_path / "x")]) == 1
    assert robot.golden().manifest.version == 1  # none of these promoted anything
    assert main(["slots", "promote", str(robot.folder)]) == 0
    assert robot.golden().manifest.version == 2
