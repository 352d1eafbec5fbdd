"""The update compiled ahead of time: the plain one's numbers, compiled once, and loaded from nobody else's folder."""

import dataclasses
import os
import shutil

import pytest
import torch
from tuning_fixture import SMALL, made_up_rows_of, small_carried, small_learner

from edge_dsac.learn import ahead
from edge_dsac.learn.ahead import AheadError, compiled, order_of, own
from edge_dsac.learn.checkpoint import flatten
from edge_dsac.learn.learner import Learner

needs_a_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here: nothing can be compiled")
ROWS = made_up_rows_of(200)


# ---- without a compiler


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_folder_in_which_others_may_write_is_refused(tmp_path, mode):
    folder = tmp_path / "updates"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(AheadError, match="chmod 700"):
        compiled(small_learner(), folder)
    assert list(folder.iterdir()) == []


def test_another_users_folder_is_refused(tmp_path, monkeypatch):
    folder = own(tmp_path / "updates")
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr("os.getuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(AheadError, match="others may write"):
        own(folder)


def test_where_nothing_may_be_compiled_only_what_is_ready_is_taken(tmp_path):
    with pytest.raises(AheadError, match="--compile auto does it, once"):
        compiled(small_learner(), tmp_path / "updates", may_compile=False)
    assert list((tmp_path / "updates").iterdir()) == []


def test_the_name_says_what_the_object_depends_on():
    learner = small_learner()
    name = order_of(learner).name
    assert order_of(small_learner(seed=5, round_updates=9)).name == name  # numbers alone
    others = [
        small_learner(actor_lr=0.5), small_learner(recipe="edit"), small_learner(batch=32), small_learner(stay=0.5),
        small_learner(small_carried(hidden=(8, 9))), small_learner(small_carried(gamma=0.5)),
    ]  # fmt: skip
    names = [order_of(other).name for other in others]
    assert len({name, *names}) == 7


def test_a_new_torch_or_processor_has_a_name_of_its_own(monkeypatch):
    order = order_of(small_learner())
    name = order.name
    monkeypatch.setattr(ahead, "cpu_kind", lambda: "another")
    other = order.name
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert len({name, other, order.name}) == 3


def test_where_the_compiler_fails_it_is_said_and_nothing_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(AheadError, match=r"cannot be compiled here.*--compile off"):
        compiled(small_learner(), tmp_path / "updates")


# ---- with one


def one_layer(**words):
    """A second one would only be compiled again."""
    return small_carried(hidden=(8,), **words)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled") / "updates"


@pytest.mark.slow
@needs_a_compiler
def test_compiled_and_plain_come_to_the_same_within_rounding(folder):
    """Three updates, of which the first and the third move the actor. Low rank has the most to it; a compilation takes a minute."""
    tuning = dataclasses.replace(SMALL, recipe="low-rank", round_updates=3)
    plain = Learner(one_layer(), tuning)
    fast = Learner(one_layer(), tuning, compiled(plain, folder))
    told, said = fast.round(ROWS, 1), plain.round(ROWS, 1)
    assert said == pytest.approx(told, rel=1e-5, abs=1e-5)
    begun = flatten(Learner(one_layer(), tuning).state)
    moved = 0
    for (name, ours), theirs in zip(flatten(fast.state).items(), flatten(plain.state).values(), strict=True):
        assert ours.shape == theirs.shape
        assert abs(ours - theirs).max(initial=0.0) <= 1e-5, name
        moved += bool((ours != begun[name]).any())
    assert moved > 20
    assert fast.state.actor_steps == 2
    assert fast.state.critic_steps == 3


@pytest.mark.slow
@needs_a_compiler
def test_what_was_compiled_is_not_compiled_again(folder, monkeypatch, tmp_path):
    tuning = dataclasses.replace(SMALL, recipe="low-rank", round_updates=3)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    learner = Learner(one_layer(), tuning)
    compiled(learner, folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    name = order_of(learner).name
    assert {f"{name}-actor.pt2", f"{name}-critics.pt2"} <= before.keys()
    monkeypatch.setattr(ahead, "make", lambda order, folder: pytest.fail("compiled again"))
    other = Learner(one_layer(seed=4), dataclasses.replace(tuning, seed=3))  # other numbers, the same object
    step = compiled(other, folder)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert not list(tmp_path.iterdir())  # nothing unpacked is left for a kill to leave behind
    assert os.environ["TMPDIR"] == str(tmp_path)
    fast, plain = Learner(one_layer(seed=4), tuning, step), Learner(one_layer(seed=4), tuning)
    assert fast.round(ROWS, 1) == pytest.approx(plain.round(ROWS, 1), rel=1e-5, abs=1e-5)
