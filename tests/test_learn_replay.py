"""The replay: a ring that keeps the newest rows in order, and comes back from its parts row for row."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edge_dsac.learn.losses import Batch
from edge_dsac.learn.replay import Replay


def rows(first, last):
    """Row k holds k everywhere, with another hundred per column."""
    k = np.arange(first, last, dtype=np.float32)
    wide = np.stack([k, k + 0.5], axis=1)
    return Batch(wide, k[:, None] + 100, k, wide + 200, k + 300, k + 400)


def filled(capacity, *counts):
    replay = Replay(capacity, 2, 1)
    for count in counts:
        replay.add(rows(replay.total, replay.total + count))
    return replay


def place_of_each_row(replay):
    return replay.rows.reward[: replay.size].tolist()


def test_rows_lie_in_the_order_they_came():
    replay = filled(5, 2, 1)
    assert place_of_each_row(replay) == [0.0, 1.0, 2.0]
    assert (replay.size, replay.total) == (3, 3)


def test_a_full_ring_writes_over_the_oldest():
    replay = filled(5, 4, 3)  # 5 and 6 go where 0 and 1 were
    assert place_of_each_row(replay) == [5.0, 6.0, 2.0, 3.0, 4.0]
    assert (replay.size, replay.total) == (5, 7)


def test_every_column_is_split_at_the_end_of_the_ring_alike():
    replay = filled(5, 4, 3)
    k = replay.rows.reward
    assert torch.equal(replay.rows.obs, torch.stack([k, k + 0.5], dim=1))
    assert torch.equal(replay.rows.act, k[:, None] + 100)
    assert torch.equal(replay.rows.next_obs, replay.rows.obs + 200)
    assert torch.equal(replay.rows.done, k + 300)
    assert torch.equal(replay.rows.discount, k + 400)


def test_as_many_rows_as_the_ring_holds_replace_all_of_it():
    assert place_of_each_row(filled(4, 2, 4)) == [4.0, 5.0, 2.0, 3.0]


def test_rows_that_end_at_the_rings_end_leave_the_start_alone():
    assert place_of_each_row(filled(4, 2, 2)) == [0.0, 1.0, 2.0, 3.0]


def test_more_rows_than_the_ring_holds_are_refused_and_nothing_is_changed():
    replay = filled(4, 3)
    with pytest.raises(ValueError, match=r"5 rows at once do not fit in 4"):
        replay.add(rows(3, 8))
    assert place_of_each_row(replay) == [0.0, 1.0, 2.0]


def test_only_what_was_filled_is_drawn_and_all_of_it():
    replay = filled(1000, 3)
    drawn = replay.sample(200, torch.Generator().manual_seed(1))
    assert set(drawn.reward.tolist()) == {0.0, 1.0, 2.0}


def test_a_drawn_row_is_whole():
    drawn = filled(5, 4, 3).sample(50, torch.Generator().manual_seed(1))
    assert torch.equal(drawn.act[:, 0], drawn.reward + 100)
    assert torch.equal(drawn.next_obs, drawn.obs + 200)


def test_the_same_generator_draws_the_same_rows():
    replay = filled(50, 40)
    first, again, other = (replay.sample(20, torch.Generator().manual_seed(seed)).reward for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_since_gives_the_rows_after_a_total_oldest_first():
    replay = filled(5, 4, 3)
    assert replay.since(5)["reward"].tolist() == [5.0, 6.0]
    assert replay.since(0)["reward"].tolist() == [2.0, 3.0, 4.0, 5.0, 6.0]  # 0 and 1 are gone
    assert len(replay.since(7)["reward"]) == 0


@pytest.mark.slow
@given(capacity=st.integers(1, 12), rounds=st.lists(st.lists(st.integers(1, 12), max_size=4), max_size=6))
def test_parts_saved_round_by_round_put_every_row_back_where_it_was(capacity, rounds):
    replay, parts, saved_total = filled(capacity), [], 0
    for counts in rounds:
        for count in counts:
            count = min(count, capacity)
            replay.add(rows(replay.total, replay.total + count))
        parts.append((replay.total, replay.since(saved_total)))
        saved_total = replay.total
    needed = [part for last, part in parts if last > replay.total - capacity]  # what checkpoints keep
    again = Replay(capacity, 2, 1)
    again.refill(replay.total, needed)
    assert (again.total, again.size) == (replay.total, replay.size)
    for one, other in zip(replay.rows, again.rows, strict=True):
        assert torch.equal(one[: replay.size], other[: replay.size])
