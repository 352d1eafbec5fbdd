"""Logs that came home: what is taken, what is refused, what is told of it, and that order and cuts change nothing."""

import numpy as np
import pytest
from made_up_flight import filled_ring, flight_folder

from edge_dsac.learn.buffer import held_out
from edge_dsac.learn.home import AnotherRobot, HomeError, Horizon, batch_of, lines_of, read_flights
from edge_dsac.learn.rewards import Reward
from edge_dsac.learn.transitions import Transitions
from edge_dsac.records import Mode, Rule
from edge_dsac.steplog import open_log
from edge_dsac.steplog.recorder import Recorder

HORIZON = Horizon(0.9, 3, 0.25)
QUIET = {"faults": 0, "rules": 0}
EVERY_NS = 100_000_000  # ten records a second: a block of 20 s is 200 of them


def flown(folder, spec, count=60, first_s=18.0, **changes):
    """`count` records, a tenth of a second apart; each a flight of its own. The second from 20 s on is held out."""
    times = [round(first_s * 1e9) + k * EVERY_NS for k in range(count)]
    obs = np.random.default_rng(count).normal(size=(count, 1)) * 0.1
    return flight_folder(folder, spec, count, **{**QUIET, "t_host_ns": times, "obs": list(obs), "applied_action": list(obs / 2), **changes})


def read(*paths, spec, without_human=False):
    return read_flights(paths, spec, HORIZON, without_human)


def test_what_is_held_out_is_not_learnt_from_and_both_are_counted(bot, tmp_path):
    (flight,) = read(flown(tmp_path / "a", bot), spec=bot)
    transitions = Transitions(bot, 0.9, 3, 0.25, flight=open_log(tmp_path / "a").wall_start_ns)
    rows = transitions.feed(open_log(tmp_path / "a").columns)
    whole = set(rows.index.tolist()) | set(transitions.finish().index.tolist())
    train, held = set(flight.train.index.tolist()), set(flight.held.index.tolist())
    assert not train & held
    assert (len(train), len(held)) == (flight.told["train"], flight.told["held_out"])
    assert train | held < whole  # rows at a block's edge are in neither
    assert held == {index for index in whole if 20.25 <= 18.0 + index / 10 < 20.75}
    assert held_out(flight.train).train.all()
    assert flight.told["rows"] == len(whole) == 59
    assert flight.told["dropped"]["gap"] == 1


@pytest.mark.slow
def test_the_rows_do_not_hang_on_the_order_of_the_names(bot, tmp_path):
    a, b, c = (flown(tmp_path / name, bot, count) for name, count in (("a", 60), ("b", 70), ("c", 65)))
    there, back = read(a, b, c, spec=bot), read(c, b, a, spec=bot)
    assert [flight.sha256 for flight in there] == [flight.sha256 for flight in back]
    columns = [[column.tobytes() for column in batch_of(flight.train for flight in flights)] for flights in (there, back)]
    assert columns[0] == columns[1]
    assert len({flight.sha256 for flight in there}) == 3
    assert len(batch_of(flight.train for flight in there).reward) == sum(flight.told["train"] for flight in there)


def test_a_flight_is_the_same_in_its_ring_and_on_disk(bot, tmp_path):
    times = [2_000_000_000 + k * 10_000_000 for k in range(40)]  # not in a held-out second
    ring = filled_ring(tmp_path / "ring", bot, 40, capacity=40, **{**QUIET, "t_host_ns": times})
    before = read(tmp_path / "ring", spec=bot)[0].sha256
    ring.close()
    recorder = Recorder(tmp_path / "ring", tmp_path)
    recorder.drain()
    recorder.finish()
    assert read(tmp_path, spec=bot)[0].sha256 == before


def test_the_same_flight_twice_is_an_error(bot, tmp_path):
    folder = flown(tmp_path / "a", bot)
    with pytest.raises(HomeError, match=r"is the flight of .*a again"):
        read(folder, next(folder.glob("*.edsl")), spec=bot)


def test_another_robots_log_is_refused_key_by_key(rover, bot, tmp_path):
    with pytest.raises(AnotherRobot, match="flown by rover policy") as refused:
        read(flown(tmp_path / "good", bot), flight_folder(tmp_path / "a", rover, 3), spec=bot)
    assert refused.value.refused
    assert '  model: log "rover", robot "balance_bot"' in str(refused.value)
    assert "rates.control_hz" in str(refused.value)


def test_a_log_without_steps_is_named(bot, tmp_path):
    filled_ring(tmp_path / "ring", bot, 0).close()
    with pytest.raises(HomeError, match="ring: holds no whole step .*leave it out"):
        read(flown(tmp_path / "a", bot), tmp_path / "ring", spec=bot)


def test_a_log_without_a_usable_step_says_why(bot, tmp_path):
    with pytest.raises(HomeError, match=r"none of its 60 steps can be learnt from \(dropped: not_running 60\)"):
        read(flown(tmp_path / "a", bot, mode=Mode.IDLE), spec=bot)


def test_a_flight_that_is_held_out_as_a_whole_is_too_short(bot, tmp_path):
    with pytest.raises(HomeError, match="no row to learn from: 5 are in blocks held out"):
        read(flown(tmp_path / "a", bot, count=10, first_s=20.3), spec=bot)


def test_what_a_person_drove_is_learnt_from_unless_told_otherwise(bot, tmp_path):
    folder = flown(tmp_path / "a", bot, rules=[Rule.HUMAN if 45 <= k < 50 else 0 for k in range(60)])
    (with_them,), (without,) = read(folder, spec=bot), read(folder, spec=bot, without_human=True)
    assert with_them.told["labels"]["human"] == 7  # rows of three steps that touch one of the five
    assert set(with_them.train.index.tolist()) - set(without.train.index.tolist()) == set(range(43, 50))
    assert (without.told["labels"]["human"], without.told["dropped"]["human"]) == (0, 7)
    with pytest.raises(HomeError, match="human 59"):
        read(flown(tmp_path / "b", bot, rules=Rule.HUMAN), spec=bot, without_human=True)


def test_what_each_policy_earned_per_tick_is_told_unscaled(bot, tmp_path):
    folder = flown(tmp_path / "a", bot, bundle_id=[5 if k < 20 else 6 for k in range(60)])
    (flight,) = read(folder, spec=bot)
    steps, reward = list(open_log(folder).steps()), Reward(bot)
    still = steps[0]._replace(command=steps[0].command._replace(applied_action=(0.0, 0.0)))
    worth = [float(reward.of_steps(*three)) for three in zip([still, *steps], steps, steps[1:], strict=False)]
    expected = {"0000000000000005": np.mean(worth[:20]), "0000000000000006": np.mean(worth[20:])}
    assert flight.told["reward_per_tick"] == pytest.approx(expected, abs=1e-4)
    assert expected["0000000000000005"] != pytest.approx(expected["0000000000000006"], abs=1e-4)
    assert "6.0 s" not in lines_of(flight)[0]  # 59 tenths of a second from the first step to the last
    assert "5.9 s, 60 steps" in lines_of(flight)[0]
