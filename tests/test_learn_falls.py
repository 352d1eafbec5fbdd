"""Falls that the rows tell of: whose, and what is left of the robot's habits without them."""

import numpy as np
import pytest

from edge_dsac.learn.falls import falls_under, upright
from edge_dsac.learn.transitions import Rows

HZ = 100
PARENT, CHILD, OTHER = 1, 2, 3


def rows(drivers, falls=(), n_step=3):
    """A tick each; `falls`: ticks at which the robot lies, told by the last rows before."""
    count = len(drivers)
    done = np.zeros(count, np.float32)
    for tick in falls:
        done[tick - n_step + 1 : tick + 1] = 1.0
    index = np.arange(count)
    empty = np.zeros(count)
    t_ns = 5_000_000_000 + index * (1_000_000_000 // HZ)
    return Rows(
        index[:, None].astype(np.float32), empty, empty, empty, done, empty, index, t_ns, np.array(drivers, np.uint64), empty, empty, empty, empty
    )  # fmt: skip


def seen(found):
    return upright(found)[:, 0].astype(int).tolist()


def test_a_robot_that_never_fell_is_seen_whole():
    assert seen(rows([PARENT] * 300)) == list(range(300))


def test_the_second_before_a_fall_is_nobodys_habit():
    assert seen(rows([PARENT] * 700, falls=[350, 600])) == [*range(250), *range(351, 500), *range(601, 700)]


def test_of_a_robot_that_does_nothing_but_fall_all_is_seen():
    assert seen(rows([PARENT] * 90, falls=[40, 89])) == list(range(90))


@pytest.mark.parametrize(
    ("begin", "end", "falls"),
    [(300, 350, 1), (300, 351, 1), (200, 270, 1), (200, 249, 0), (351, 400, 0), (10, 20, 0)],
    ids=["drove", "drove on", "let go", "long ago", "after", "far"],
)
def test_a_fall_counts_against_who_drove_or_had_just_let_go(begin, end, falls):
    drivers = [PARENT] * 500
    drivers[begin:end] = [CHILD] * (end - begin)
    assert falls_under(rows(drivers, falls=[350]), [CHILD]) == falls
    assert falls_under(rows(drivers, falls=[350]), [OTHER]) == 0
    assert falls_under(rows(drivers, falls=[350]), []) == 0


def test_each_fall_counts_once_however_many_rows_tell_of_it():
    drivers = [PARENT, CHILD] * 500
    assert falls_under(rows(drivers, falls=[200, 500, 900]), [CHILD, OTHER]) == 3
    assert falls_under(rows(drivers), [CHILD]) == 0
