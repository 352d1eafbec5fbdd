"""The figures of two benches: what a block of a flight came to, pairs and their ratios, and what an update costs."""

import bench_beside
import bench_learner
import numpy as np
import pytest
from bench_beside import Block, figures, joined, order, ratios

from edge_dsac.records import Mode
from edge_dsac.steplog.layout import FRESH, RecordLayout

HZ, PERIOD_NS = 500, 2_000_000
S = 1_000_000_000


def flight(bot, ticks, busy_us=100, late_us=10):
    """Tick k has its deadline at k periods."""
    rows = np.zeros(ticks, RecordLayout(bot).dtype)
    rows["late_ns"], rows["busy_ns"] = late_us * 1000, busy_us * 1000
    rows["t_host_ns"] = np.arange(ticks) * PERIOD_NS + rows["late_ns"]
    rows["mode"], rows["flags"] = Mode.RUNNING, FRESH
    return rows


def test_a_block_counts_the_ticks_that_began_in_it(bot):
    found = figures(flight(bot, 1000), S, 2 * S, HZ)  # deadlines at 0 to 1.998 s
    assert found["ticks"] == 500
    assert {found[name] for name in ("missed", "overrun", "coasted", "not_running")} == {0}
    assert (found["tick_us"]["p50"], found["late_us"]["p999"]) == (100.0, 10.0)


def test_deadlines_without_a_tick_late_ends_and_missing_frames_are_counted_apart(bot):
    rows = flight(bot, 1000)
    rows["late_ns"][100], rows["t_host_ns"][100] = 1_500_000, rows["t_host_ns"][100] + 1_490_000  # late, and over in time: no miss
    rows["late_ns"][200], rows["busy_ns"][200] = 1_500_000, 600_000  # not over in time
    rows["t_host_ns"][200] += 1_490_000
    rows["flags"][300:303], rows["mode"][301:303] = 0, Mode.COASTING
    rows["mode"][400] = Mode.DAMPED
    rows = np.delete(rows, [500, 501, 777])  # three deadlines at which nothing was done
    found = figures(rows, 0, 2 * S, HZ)
    assert (found["missed"], found["overrun"], found["coasted"], found["not_running"], found["ticks"]) == (3, 1, 3, 1, 997)
    assert found["late_us"]["max"] == 1500.0


def test_ratios_are_of_neighbours_and_the_median_is_of_the_pairs(bot):
    rows = flight(bot, 3000)
    rows["busy_ns"][500:1000] = 100_000  # with: 200, 150, 400 us; without: 100, 100, 200 us
    for begin, us in ((0, 200), (500, 100), (1000, 100), (1500, 150), (2000, 400), (2500, 200)):
        rows["busy_ns"][begin : begin + 500] = us * 1000
    beside = order(6)
    assert beside == [True, False, False, True, True, False]
    blocks = [Block(learnt, k * S, (k + 1) * S, 3 * learnt) for k, learnt in enumerate(beside)]
    found = ratios(rows, blocks, HZ)["tick_us p999"]
    assert (found["median"], found["pairs"]) == (2.0, [2.0, 1.5, 2.0])
    assert found["whole"] == 2.0  # 400 over 200
    assert (found["low"], found["high"]) == (1.5, 2.0)  # of the middle pair alone, and of the others
    both = bench_beside.result_of(rows, blocks, HZ)
    assert (both["with"]["ticks"], both["without"]["ticks"], both["with"]["rounds"], both["without"]["rounds"]) == (1500, 1500, 9, 0)
    assert both["with"]["tick_us"]["max"] == 400.0
    assert both["without"]["tick_us"]["max"] == 200.0
    assert both["with"]["seconds"] == 3.0


def test_what_happened_more_often_with_the_tuner_is_counted_by_the_minute(bot):
    rows = np.delete(flight(bot, 2000), [10, 20, 30, 1510, 700])  # of the second seconds: three with, one with, one without
    blocks = [Block(True, 0, S), Block(False, S, 2 * S), Block(False, 2 * S, 3 * S), Block(True, 3 * S, 4 * S)]
    found = bench_beside.more_a_minute(rows, blocks, HZ)
    assert found["missed"][0] == (3 - 1 + 1 - 0) / 2 * 60
    assert found["missed"][1] == pytest.approx(12.706 * np.std([2 * 60, 60], ddof=1) / np.sqrt(2), abs=0.1)
    assert found["overrun"] == [0.0, 0.0]
    assert bench_beside.more_a_minute(rows, blocks[:2], HZ)["missed"] == [120.0, None]


def test_what_was_missed_between_two_blocks_is_nobodys(bot):
    rows = np.delete(flight(bot, 1500), np.arange(600, 900))  # within the second second
    blocks = [Block(True, 0, S), Block(True, 2 * S, 3 * S)]
    found = joined(rows, blocks, HZ)
    assert (found["ticks"], found["missed"]) == (1000, 0)


def test_half_of_the_blocks_are_with_the_tuner_and_neither_is_always_first():
    assert sum(order(40)) == 20
    assert [one for one, other in zip(order(8)[::2], order(8)[1::2], strict=True)] == [True, False, True, False]
    assert all(one != other for one, other in zip(order(8)[::2], order(8)[1::2], strict=True))


def rounds(walls, cpus, mb=300.0):
    return [{"wall_s": wall, "cpu_s": cpu, "resident_mb": mb + k} for k, (wall, cpu) in enumerate(zip(walls, cpus, strict=True))]


def test_updates_a_second_are_of_the_median_round_and_memory_of_the_largest():
    found = bench_learner.figures(rounds([0.5, 0.4, 9.0], [0.25, 0.2, 0.5]), updates=200, first_s=3.21)
    assert found == {"updates_per_s": 400.0, "updates_per_cpu_s": 800.0, "slowest_round_s": 9.0, "resident_mb": 302.0, "first_s": 3.2}


def test_the_ratio_is_of_each_round_with_its_neighbour():
    compiled, plain = rounds([1.0, 2.0, 1.0], [1.0] * 3), rounds([2.0, 8.0, 3.0], [1.5] * 3)
    assert bench_learner.ratio(compiled, plain, "wall_s") == 3.0
    assert bench_learner.ratio(compiled, plain, "cpu_s") == 1.5


@pytest.mark.slow
def test_made_up_rows_fill_a_buffer_and_are_learnt_from(bot):
    rows = bench_learner.made_up_rows(bot, 2000)
    assert rows.obs.shape == (2000, len(rows.obs[0]))
    assert rows.t_host_ns[-1] - rows.t_host_ns[0] == 1999 * S // bot.rates.control_hz
    assert np.isfinite(rows.reward).all()
