"""Checkpoints: bit by bit what was saved, or an error that says why; whatever happened to the disk or the process."""

import errno
import json
import os

import numpy as np
import pytest
import torch

from edge_dsac.learn import checkpoint
from edge_dsac.learn.checkpoint import CheckpointError, Checkpoints, Progress, flatten, npz, sha256, unflatten
from edge_dsac.learn.networks import Shape
from edge_dsac.learn.update import make_state

SMALL = Shape(3, 2, (4,), (4,))
PER_ROUND = 10


class Killed(BaseException):
    """The process is gone: nothing of it runs on."""


def rows(first, last):
    k = np.arange(first, last, dtype=np.float32)
    return {"obs": k[:, None], "act": k[:, None], "reward": k, "next_obs": k[:, None], "done": k, "discount": k}


def state_of(round_):
    return {"m": np.full(2, round_, np.float32)}


def save(kept, round_, best=1):
    """Round r adds the rows 10 (r - 1) to 10 r."""
    progress = Progress(round_, 20 * round_, 40 * round_, PER_ROUND * round_, best, 0.5)
    return kept.save(progress, {"seed": 7}, state_of(round_), rows(PER_ROUND * (round_ - 1), PER_ROUND * round_))


def saved_rounds(folder, count, capacity=1000, best=1):
    kept = Checkpoints(folder, capacity)
    for round_ in range(1, count + 1):
        save(kept, round_, best)
    return kept


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def load(folder, capacity=1000, **choices):
    return Checkpoints(folder, capacity).load(**choices)


def reseal(path, change):
    """A checkpoint.json that says something else, and whose own sum is right."""
    words = json.loads(path.read_text())
    words.pop("sha256")
    change(words)
    words["sha256"] = sha256(json.dumps(words).encode())
    path.write_text(json.dumps(words))


# What was saved


def test_every_tensor_comes_back_bit_by_bit(tmp_path):
    state = make_state(SMALL, torch.Generator().manual_seed(1))
    state = state._replace(m=torch.tensor([1e-42, -0.0]), log_alpha=torch.tensor(float(np.float32(1 / 3))))  # a subnormal and a sign
    Checkpoints(tmp_path, 100).save(Progress(1), {}, flatten(state), rows(0, 0))
    arrays = load(tmp_path).state
    like = make_state(SMALL, torch.Generator().manual_seed(2))
    again = flatten(unflatten(arrays, like, "cpu"))
    assert list(again) == list(flatten(state))
    for name, array in flatten(state).items():
        assert (again[name].dtype, again[name].tobytes()) == (array.dtype, array.tobytes()), name
    assert not np.array_equal(flatten(like)["actor.0"], again["actor.0"])


def test_progress_config_and_rows_come_back(tmp_path):
    saved_rounds(tmp_path, 3)
    saved = load(tmp_path)
    assert saved.progress == Progress(3, 60, 120, 30, 1, 0.5)
    assert saved.config == {"seed": 7}
    assert np.concatenate([part["reward"] for part in saved.replay]).tolist() == list(range(30))
    assert saved.damaged == []


def test_the_best_mean_of_a_run_without_one_comes_back(tmp_path):
    Checkpoints(tmp_path, 100).save(Progress(1), {}, state_of(1), rows(0, 0))
    assert load(tmp_path).progress.best_mean == float("-inf")


# Damage


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def says(text):
    return lambda path: path.write_bytes(text)


def another_count(path):
    path.write_text(path.read_text().replace('"updates": 60', '"updates": 61'))


def another_version(path):
    reseal(path, lambda words: words.update(version=99))


def another_progress(path):
    reseal(path, lambda words: words["progress"].update(unheard_of=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("checkpoints/000003/state.npz", cut),
        ("checkpoints/000003/state.npz", flip),
        ("checkpoints/000003/state.npz", os.unlink),
        ("checkpoints/000003/state.npz", says(b"")),
        ("replay/000003.npz", cut),
        ("replay/000003.npz", flip),
        ("replay/000003.npz", os.unlink),
        ("checkpoints/000003/checkpoint.json", cut),
        ("checkpoints/000003/checkpoint.json", os.unlink),
        ("checkpoints/000003/checkpoint.json", says(b"")),
        ("checkpoints/000003/checkpoint.json", says(b"\xff\xfe\x00")),
        ("checkpoints/000003/checkpoint.json", says(b"[]")),
        ("checkpoints/000003/checkpoint.json", says(b"null")),
        ("checkpoints/000003/checkpoint.json", says(b"{}")),
        ("checkpoints/000003/checkpoint.json", another_count),
        ("checkpoints/000003/checkpoint.json", another_version),
        ("checkpoints/000003/checkpoint.json", another_progress),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_and_the_one_before_it_goes_on(tmp_path, file, damage):
    saved_rounds(tmp_path, 3)
    damage(tmp_path / file)
    kept = Checkpoints(tmp_path, 1000)
    saved = kept.load()
    assert saved.progress.round == 2
    assert saved.state["m"].tolist() == [2.0, 2.0]
    (why,) = saved.damaged
    assert "000003: " in why
    assert len(why.split("000003: ")[1]) > 5
    save(kept, 3)  # and the run goes on
    assert load(tmp_path).progress.round == 3


@pytest.mark.slow
def test_a_damaged_best_checkpoint_does_not_stop_the_run(tmp_path):
    kept = saved_rounds(tmp_path, 4)
    (tmp_path / "checkpoints/000001/checkpoint.json").write_text("garbage")
    save(kept, 5)
    assert load(tmp_path).progress.round == 5


def test_nothing_intact_is_a_named_error_that_tells_why_of_each(tmp_path):
    saved_rounds(tmp_path, 2)
    for round_ in ("000001", "000002"):
        cut(tmp_path / "checkpoints" / round_ / "state.npz")
    with pytest.raises(CheckpointError, match=r"(?s)no checkpoint is intact.*000002: state.npz is damaged.*000001: state.npz is damaged"):
        load(tmp_path)


def test_an_empty_folder_is_a_named_error(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint; start without --resume"):
        load(tmp_path)
    saved_rounds(tmp_path, 1)
    with pytest.raises(CheckpointError, match="no checkpoint of round 9"):
        load(tmp_path, round_=9)


def test_other_networks_are_refused_with_both_shapes(tmp_path):
    state = flatten(make_state(SMALL, torch.Generator().manual_seed(1)))
    other = make_state(Shape(3, 2, (4,), (5,)), torch.Generator())
    with pytest.raises(CheckpointError, match=r"actor.0 has the shape \(4, 3\), expected \(5, 3\): made with other networks"):
        unflatten(state, other, "cpu")
    deeper = make_state(Shape(3, 2, (4,), (4, 4)), torch.Generator())
    with pytest.raises(CheckpointError, match="made with other networks"):
        unflatten(state, deeper, "cpu")
    shallower = make_state(Shape(3, 2, (4,), ()), torch.Generator())
    with pytest.raises(CheckpointError, match="made with other networks"):
        unflatten(state, shallower, "cpu")


def test_a_pickle_in_an_npz_is_refused(tmp_path):
    saved_rounds(tmp_path, 1)
    folder = tmp_path / "checkpoints/000001"
    data = npz({"m": np.array([{"a": "program"}], object)})
    (folder / "state.npz").write_bytes(data)
    reseal(folder / "checkpoint.json", lambda words: words.update(state_sha256=sha256(data)))
    with pytest.raises(CheckpointError, match="allow_pickle=False"):
        load(tmp_path)


# The disk, and the end of the process


def no_room(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["fsync", "replace", "mkdir"])
def test_a_full_disk_is_a_named_error_and_the_last_checkpoint_stays(tmp_path, monkeypatch, call):
    kept = saved_rounds(tmp_path, 2)
    with monkeypatch.context() as full:
        full.setattr(checkpoint.os, call, no_room)
        with pytest.raises(CheckpointError, match=r"000003: cannot be written: the disk is full\. The checkpoint before it is intact"):
            save(kept, 3)
    assert load(tmp_path).progress.round == 2
    save(kept, 3)  # room was made
    saved = load(tmp_path)
    assert saved.progress.round == 3
    assert np.concatenate([part["reward"] for part in saved.replay]).tolist() == list(range(30))


def stopping(real, left, why):
    """`real`, that works as often as `left[0]` says."""

    def called(*given, **named):
        left[0] -= 1
        if left[0] < 0:
            raise why
        return real(*given, **named)

    return called


@pytest.mark.slow
@pytest.mark.parametrize("why", [Killed(), OSError(errno.EIO, "Input/output error")], ids=["killed", "broken disk"])
@pytest.mark.parametrize("again", [False, True], ids=["a new round", "a round that was there"])
def test_an_end_at_any_call_of_a_save_leaves_a_folder_that_goes_on(tmp_path, monkeypatch, why, again):
    """Stops the k-th call that changes the disk, for every k; what was loaded then saves the rounds anew."""
    calls = ["fsync", "replace", "mkdir", "unlink", "rmdir"]
    for k in range(200):
        folder = tmp_path / str(k)
        saved_rounds(folder, 5, capacity=15, best=2)
        kept = Checkpoints(folder, 15)
        round_ = kept.load(4 if again else 5).progress.round + 1
        left = [k]

        ended = False
        with monkeypatch.context() as ending:
            for call in calls:
                ending.setattr(os, call, stopping(getattr(os, call), left, why))
            try:
                save(kept, round_, best=2)
            except (Killed, CheckpointError):
                ended = True
        if not ended and left[0] >= 0:
            break
        after = Checkpoints(folder, 15)
        saved = after.load()
        assert saved.progress.round in (round_ - 1, round_), k
        assert saved.state["m"].tolist() == [saved.progress.round] * 2
        last = PER_ROUND * saved.progress.round
        assert np.concatenate([part["reward"] for part in saved.replay])[-15:].tolist() == list(range(last - 15, last))
        save(after, saved.progress.round + 1, best=2)
        assert load(folder, 15).progress.round == saved.progress.round + 1
        assert not [name for name in names(folder / "replay") if "unfinished" in name]
    assert 5 < k < 199  # there were such calls, and one save was whole


# What is kept


@pytest.mark.slow
def test_the_newest_two_and_the_best_are_kept_and_the_replay_that_they_need(tmp_path):
    saved_rounds(tmp_path, 6, capacity=15, best=2)
    assert names(tmp_path / "checkpoints") == ["000002", "000005", "000006"]
    # 15 rows are two parts of ten: 6 needs 5 and 6, 5 needs 4 and 5, 2 needs 1 and 2
    assert names(tmp_path / "replay") == [f"00000{k}.npz" for k in (1, 2, 4, 5, 6)]
    for round_ in (2, 5, 6):
        saved = load(tmp_path, 15, round_=round_)
        assert saved.progress.round == round_
        last = PER_ROUND * round_
        assert np.concatenate([part["reward"] for part in saved.replay]).tolist() == list(range(last - 20, last))


@pytest.mark.slow
def test_going_on_from_an_earlier_round_lets_go_of_the_later_ones(tmp_path):
    saved_rounds(tmp_path, 6, best=2)
    kept = Checkpoints(tmp_path, 1000)
    assert kept.load(2).progress.round == 2
    save(kept, 3, best=2)
    assert names(tmp_path / "checkpoints") == ["000002", "000003"]
    assert load(tmp_path).progress.round == 3


def test_a_checkpoint_is_read_without_its_replay_when_only_the_policy_is_wanted(tmp_path):
    saved_rounds(tmp_path, 2)
    os.unlink(tmp_path / "replay/000001.npz")
    saved = load(tmp_path, with_replay=False)
    assert (saved.progress.round, saved.replay) == (2, [])
