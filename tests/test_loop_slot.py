"""The slot: a swap at a tick boundary, without a jolt; the stager that a bad file cannot hurt."""

import numpy as np
import pytest

from edge_dsac.loop.slot import Slot
from edge_dsac.loop.stager import Stager
from edge_dsac.records import Observation

OBS = Observation(np.zeros(3, np.float32), 0, True)


class Constant:
    def __init__(self, value, bundle_id=1):
        self.value, self.bundle_id, self.asked = np.array(value, float), bundle_id, 0

    def act(self, obs):
        self.asked += 1
        return self.value


def test_an_offer_changes_nothing_before_the_tick_boundary():
    slot = Slot(Constant([0.5]))
    slot.offer(Constant([-0.5], 2))
    assert slot.act(OBS) == pytest.approx([0.5])
    assert slot.bundle_id == 1


def test_a_swap_fades_from_the_old_answer_to_the_new_one():
    slot = Slot(Constant([0.5]), fade_ticks=4)
    slot.offer(Constant([-0.5], 2))
    slot.swap_if_offered()
    assert slot.bundle_id == 2
    assert [float(slot.act(OBS)[0]) for _ in range(6)] == pytest.approx([0.5, 0.25, 0.0, -0.25, -0.5, -0.5])
    assert not slot.fading


def test_the_step_between_two_ticks_is_bounded_by_the_jump_over_the_fade():
    slot = Slot(Constant([1.0]), fade_ticks=20)
    slot.offer(Constant([-1.0], 2))
    slot.swap_if_offered()
    answers = np.array([slot.act(OBS)[0] for _ in range(25)])
    assert np.abs(np.diff(answers)).max() <= 2.0 / 20 + 1e-12


def test_the_old_policy_is_asked_once_more_and_then_let_go():
    old = Constant([0.5])
    slot = Slot(old, fade_ticks=5)
    slot.offer(Constant([0.0], 2))
    slot.swap_if_offered()
    for _ in range(10):
        slot.act(OBS)
    assert old.asked == 1
    assert slot.replaced is None


def test_an_old_policy_that_answers_nan_is_not_faded_from():
    slot = Slot(Constant([np.nan]))
    slot.offer(Constant([0.25], 2))
    slot.swap_if_offered()
    assert slot.act(OBS) == pytest.approx([0.25])


def test_in_an_approach_both_are_asked_and_the_share_of_the_new_one_rises_to_all():
    old, new = Constant([0.5]), Constant([0.0], 2)
    slot = Slot(old, fade_ticks=2)
    slot.take(new, approach_ticks=4)
    answers, blended = [], []
    for k in range(6):
        old.value = np.array([0.5 + 0.1 * k])  # what the old one would do now counts, not what it did at first
        answers.append(float(slot.act(OBS)[0]))
        blended.append(bool(slot.rules))
    assert answers == pytest.approx([0.5, 0.75 * 0.6, 0.5 * 0.7, 0.25 * 0.8, 0.0, 0.0])
    assert blended == [True, True, True, False, False, False]
    assert (old.asked, slot.replaced) == (4, None)


def test_an_approach_can_be_left_at_once():
    old, new = Constant([0.5]), Constant([0.0], 2)
    slot = Slot(old, fade_ticks=2)
    slot.take(new, approach_ticks=4)
    assert [float(slot.act(OBS)[0]) for _ in range(2)] == pytest.approx([0.5, 0.375])
    slot.take(old, fade=False)
    assert [float(slot.act(OBS)[0]) for _ in range(2)] == [0.5, 0.5]
    assert (new.asked, slot.rules) == (2, 0)


def test_of_two_offers_before_a_boundary_the_last_one_wins():
    slot = Slot(Constant([0.0]))
    slot.offer(Constant([0.1], 2))
    slot.offer(Constant([0.2], 3))
    slot.swap_if_offered()
    assert (slot.bundle_id, slot.swaps) == (3, 1)


def test_the_stager_offers_a_changed_file_and_keeps_the_policy_when_it_is_bad(tmp_path):
    path = tmp_path / "policy.npz"
    path.write_text("1")

    def load(file):
        return Constant([0.0], int(file.read_text()))

    slot = Slot(Constant([0.0], 1))
    stager = Stager(path, load, slot)
    stager.look()
    assert slot.offered is None
    new = tmp_path / "new"
    new.write_text("22")
    new.rename(path)
    stager.look()
    slot.swap_if_offered()
    assert slot.bundle_id == 22
    path.write_text("garbage")
    stager.look()
    slot.swap_if_offered()
    assert slot.bundle_id == 22
    assert len(stager.refusals) == 1
    path.unlink()
    stager.look()
    assert slot.offered is None
