"""From flight logs to rows: what one row spans, what ends it, what is dropped and counted, and that training would agree."""

import numpy as np
import pytest
from made_up_flight import filled_ring, made_up_rows

from edge_dsac.learn.collect import Collector, NStep, joined
from edge_dsac.learn.losses import Batch
from edge_dsac.learn.rewards import Reward
from edge_dsac.learn.transitions import Label, Rows, Transitions
from edge_dsac.records import BoardMode, Fault, Mode, Outcome, Rule
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.steplog.layout import FRESH, OBS_OK, LogError, RecordLayout
from edge_dsac.steplog.reading import open_log
from edge_dsac.steplog.ring import RingReader
from sim.env import EpisodeOptions, RobotVectorEnv
from sim.tasks import RobotTask

NONE_DROPPED = {"coasted": 0, "stale": 0, "not_running": 0, "bad_number": 0, "gap": 0}


def flight(spec, count, **changes):
    """Record k: everything in its observation is k / 64, its applied action (k + 1) / 128; nothing ever happens."""
    records = made_up_rows(spec, count, faults=0, rules=0)
    records["obs"] = np.arange(count)[:, None] / 64
    records["applied_action"] = (np.arange(count)[:, None] + 1) / 128
    for name, value in changes.items():
        records[name] = value
    return records


def learnt(spec, records, n_step=1, gamma=0.5, cuts=(), **choices):
    """(rows, drops by reason) of a whole flight, fed in pieces."""
    transitions = Transitions(spec, gamma, n_step, choices.pop("reward_scale", 1.0), **choices)
    pieces = [transitions.feed(piece) for piece in np.split(records, cuts)] + [transitions.finish()]
    return Rows(*(np.concatenate(column) for column in zip(*pieces, strict=True))), transitions.dropped


def drops(**expected):
    return {**NONE_DROPPED, **expected}


# One step


def test_a_row_is_what_was_seen_what_was_applied_and_what_was_seen_next(bot):
    rows, dropped = learnt(bot, flight(bot, 4), flight=77, calibration_id=(1 << 63) + 9)
    scale = ObservationLayout(bot).scale
    assert rows.obs.tolist() == [(np.float32(k / 64) * scale).tolist() for k in range(3)]
    assert rows.next_obs.tolist() == [(np.float32((k + 1) / 64) * scale).tolist() for k in range(3)]
    assert rows.act[:, 0].tolist() == [1 / 128, 2 / 128, 3 / 128]  # `action`, the wish, holds 700 and more
    assert (rows.done.tolist(), rows.discount.tolist()) == ([0.0] * 3, [0.5] * 3)
    assert (rows.index.tolist(), rows.mode.tolist(), rows.label.tolist()) == ([0, 1, 2], [Mode.RUNNING] * 3, [0] * 3)
    assert rows.t_host_ns.tolist() == [5_000_000_000, 5_010_000_000, 5_020_000_000]
    assert rows.bundle_id.tolist() == [(1 << 63) + 5] * 3
    assert (rows.flight.tolist(), rows.calibration_id.tolist()) == ([77] * 3, [(1 << 63) + 9] * 3)
    assert dropped == drops(gap=1)  # nothing comes after the last step


def test_the_columns_of_learning_are_the_trainers(bot):
    assert Rows._fields[:6] == Batch._fields
    rows, _ = learnt(bot, flight(bot, 4), n_step=3)
    assert [column.dtype.name for column in rows] == ["float32"] * 6 + ["uint64", "int64", "uint64", "uint64", "uint8", "uint8", "uint64"]


def test_the_reward_is_that_of_the_log_and_the_first_action_came_after_none(bot):
    records = flight(bot, 4)
    steps, reward = [RecordLayout(bot).step(record) for record in records], Reward(bot)
    rows, _ = learnt(bot, records, reward_scale=0.25)
    still = steps[0]._replace(command=steps[0].command._replace(applied_action=(0.0, 0.0)))
    expected = [reward.of_steps(still, steps[0], steps[1]), *(reward.of_steps(*steps[k : k + 3]) for k in (0, 1))]
    assert rows.reward.tolist() == [np.float32(0.25 * value) for value in expected]
    assert len(set(rows.reward.tolist())) == 3


# Three steps, and what ends them


def test_three_step_rows_worked_by_hand(bot):
    single, _ = learnt(bot, flight(bot, 6))
    rows, _ = learnt(bot, flight(bot, 6), n_step=3)
    r, next_pitch = single.reward.astype(float), ObservationLayout(bot).scale[0] / 64
    expected = [r[0] + r[1] / 2 + r[2] / 4, r[1] + r[2] / 2 + r[3] / 4, r[2] + r[3] / 2 + r[4] / 4, r[3] + r[4] / 2, r[4]]
    assert rows.reward == pytest.approx(expected, rel=1e-6)
    assert rows.discount.tolist() == [0.125, 0.125, 0.125, 0.25, 0.5]  # the flight is over: they close with what they span
    assert rows.next_obs[:, 0] == pytest.approx(np.array([3, 4, 5, 5, 5]) * next_pitch)
    assert rows.done.tolist() == [0.0] * 5


@pytest.mark.parametrize("fault", [Fault.TILT, Fault.OVERSPEED, Fault.TILT | Fault.OVERSPEED | Fault.LIMITED])
def test_the_robots_own_end_is_the_end_of_the_task(bot, fault):
    records = flight(bot, 6)
    records["mode"][4:], records["board"][4:], records["faults"][4:] = Mode.FAULT, BoardMode.FAULT, fault
    rows, dropped = learnt(bot, records, n_step=3)
    assert rows.done.tolist() == [0.0, 1.0, 1.0, 1.0]
    assert rows.discount.tolist() == [0.125, 0.125, 0.25, 0.5]
    assert rows.next_obs[3, 0] == np.float32(4 / 64) * ObservationLayout(bot).scale[0]  # where it lay
    assert dropped == drops(not_running=2)


ENDS = {
    "operator stop": ({"mode": Mode.IDLE}, drops(not_running=2)),
    "link loss": ({"mode": Mode.DAMPED, "flags": 0}, drops(not_running=2)),
    "coasting": ({"mode": Mode.COASTING, "flags": OBS_OK}, drops(coasted=2)),
    "no new frame": ({"flags": OBS_OK}, drops(stale=2)),
    "low battery": ({"mode": Mode.FAULT, "board": BoardMode.FAULT, "faults": Fault.LOW_BATTERY}, drops(not_running=2)),
    "bad sensor": ({"mode": Mode.FAULT, "board": BoardMode.FAULT, "faults": Fault.BAD_SENSOR}, drops(not_running=2)),
    "tilted after the link was lost": (
        {"mode": Mode.FAULT, "board": BoardMode.FAULT, "faults": Fault.TILT | Fault.TIMEOUT},
        drops(not_running=2),
    ),
    "tilt seen by a frame of which no new one came": (
        {"mode": Mode.FAULT, "board": BoardMode.FAULT, "faults": Fault.TILT, "flags": OBS_OK},
        drops(not_running=2),
    ),
    "a fallback that balances": ({"mode": Mode.DAMPED, "board": BoardMode.FALLBACK, "faults": Fault.TIMEOUT}, drops(not_running=2)),
    "sensor without reading": ({"flags": FRESH}, drops(bad_number=2)),
    "NaN": ({"obs": np.nan}, drops(bad_number=2)),
    "infinity": ({"applied_action": np.inf}, drops(bad_number=3)),  # nor is the step after it, which came after an unknown action
    "a policy that answered NaN": ({"rules": Rule.BAD_NUMBER}, drops(bad_number=2)),
    "a board that says FAULT while we drive": ({"board": BoardMode.FAULT}, drops(not_running=2)),
}


@pytest.mark.parametrize("end", ENDS)
def test_every_other_end_cuts_and_bootstraps_from_the_last_usable_observation(bot, end):
    changes, expected = ENDS[end]
    records = flight(bot, 9)
    for name, value in changes.items():
        records[name][4] = value
    rows, dropped = learnt(bot, records, n_step=3)
    assert rows.done.tolist() == [0.0] * len(rows.done)
    before, after = rows.index < 4, rows.index > 4
    assert rows.index[before].tolist() == [0, 1, 2]
    assert rows.discount[before].tolist() == [0.125, 0.25, 0.5]  # step 3 has no next; 2 and 1 close at what was seen at 3
    assert rows.next_obs[before, 0].tolist() == [np.float32(3 / 64) * ObservationLayout(bot).scale[0]] * 3
    first = 6 if end == "infinity" else 5
    assert rows.index[after].tolist() == list(range(first, 8))
    assert dropped == {**expected, "gap": 1}


def test_after_a_gap_one_step_goes_for_nobody_knows_the_action_before_it(bot):
    records = flight(bot, 9)
    rows, dropped = learnt(bot, np.delete(records, 4), n_step=1)
    assert rows.index.tolist() == [0, 1, 2, 6, 7]
    assert dropped == drops(gap=3)
    late, dropped = learnt(bot, records[3:], n_step=1)  # a reader that came after the flight had begun
    assert late.index.tolist() == [4, 5, 6, 7]
    assert dropped == drops(gap=2)


def test_the_first_step_after_coasting_knows_the_action_that_was_held(bot):
    records = flight(bot, 6)
    records["mode"][2], records["flags"][2] = Mode.COASTING, OBS_OK
    rows, _ = learnt(bot, records)
    steps = [RecordLayout(bot).step(record) for record in records]
    assert rows.index.tolist() == [0, 3, 4]
    assert rows.reward[1] == np.float32(Reward(bot).of_steps(*steps[2:5]))


def test_records_that_come_twice_are_a_gap_not_a_row(bot):
    records = flight(bot, 4)
    rows, dropped = learnt(bot, np.concatenate([records, records]))
    assert rows.index.tolist() == [0, 1, 2, 1, 2]  # what was stored already the buffer leaves out
    assert dropped == drops(gap=3)


# Labels


def test_labels_tell_what_happened_in_any_step_of_the_row_but_not_at_its_end(bot):
    records = flight(bot, 12)
    records["rules"][3] = Rule.SLEW
    records["rules"][4] = Rule.BLEND
    records["rules"][5] = Rule.HUMAN | Rule.LIMIT
    records["bundle_id"][9:] = 8
    rows, _ = learnt(bot, records, n_step=2)
    clamped, blended, human = Label.CLAMPED, Label.BLENDED, Label.HUMAN
    expected = [0, 0, clamped, clamped | blended, blended | human | clamped, human | clamped, 0, 0, Label.MIXED, 0, 0]
    assert rows.label.tolist() == expected
    assert rows.bundle_id[8:10].tolist() == [(1 << 63) + 5, 8]
    speed, _ = learnt(bot, flight(bot, 3, rules=Rule.SPEED))
    assert speed.label.tolist() == [clamped, clamped]


# Any log, in any chunks


def eventful(spec, generator, count):
    """All that can happen, often."""
    records = flight(spec, count)
    records["obs"] = generator.normal(size=records["obs"].shape)
    records["applied_action"] = generator.uniform(-1, 1, records["applied_action"].shape)
    for name, values, share in (
        ("mode", [Mode.COASTING, Mode.FAULT, Mode.IDLE], 0.04), ("flags", [0, FRESH, OBS_OK], 0.03), ("rules", [1, 2, 8, 64, 128], 0.2),
        ("bundle_id", [4, 5], 0.1), ("obs", [np.nan], 0.02), ("applied_action", [np.inf], 0.02),
    ):  # fmt: skip
        where = generator.random(count) < share
        records[name][where] = generator.choice(values, (int(where.sum()), *[1] * (records[name].ndim - 1)))
    fell = generator.random(count) < 0.05
    records["mode"][fell], records["board"][fell], records["faults"][fell] = Mode.FAULT, BoardMode.FAULT, Fault.TILT
    return records[generator.random(count) > 0.03]


def usable(record):
    numbers = np.isfinite(record["obs"]).all() and np.isfinite(record["applied_action"]).all()
    return bool(record["mode"] == Mode.RUNNING and record["flags"] == FRESH | OBS_OK and numbers)


def one_by_one(spec, records, n_step, gamma):
    """The same rows by the trainer's own NStep, a step at a time."""
    span, reward, scale, rows = NStep(1, gamma, n_step), Reward(spec), ObservationLayout(spec).scale, []
    for i in range(len(records) - 1):
        before, step, after = records[i - 1] if i else None, records[i], records[i + 1]
        known = before is not None and before["index"] + 1 == step["index"] and np.isfinite(before["applied_action"]).all()
        known = known or (before is None and step["index"] == 0)
        fallen = bool(after["faults"] == Fault.TILT and after["flags"] == FRESH | OBS_OK and np.isfinite(after["obs"]).all())
        follows = step["index"] + 1 == after["index"]
        if not (known and usable(step) and follows and (usable(after) or fallen)):
            rows += span.flush()
            continue
        last = np.float64(before["applied_action"]) if before is not None else np.zeros(len(spec.actions))
        worth = np.array([reward(after["obs"], np.float64(step["applied_action"]), last)])
        seen = (after["obs"] * scale)[None]
        outcome = Outcome(step["applied_action"][None], worth, seen, np.array([fallen]), np.array([False]), seen, {})
        rows += span.push((step["obs"] * scale)[None], outcome, worth, outcome.terminated)
        if fallen:
            span.clear()
    return joined(rows + span.flush())[0]


@pytest.mark.slow
@pytest.mark.parametrize("n_step", [1, 3])
def test_any_log_gives_the_rows_that_the_trainers_own_arithmetic_gives(bot, generator, n_step):
    records = eventful(bot, generator, 400)
    rows, dropped = learnt(bot, records, n_step, gamma=0.97)
    expected = one_by_one(bot, records, n_step, 0.97)
    assert len(rows.reward) > 100
    assert rows.done.sum() > 2
    for name, ours, theirs in zip(Batch._fields, rows, expected, strict=False):
        assert ours.tobytes() == theirs.tobytes(), name
    assert len(rows.reward) + sum(dropped.values()) == len(records)
    assert all(np.diff(rows.index.astype(int)) > 0)


@pytest.mark.slow
@pytest.mark.parametrize("n_step", [1, 2, 5])
def test_the_same_log_in_other_chunks_gives_the_same_bits(bot, generator, n_step):
    records = eventful(bot, generator, 120)
    whole = learnt(bot, records, n_step)
    for pieces in (1, 2, 7, 20):
        cuts = np.sort(generator.integers(0, len(records), pieces))
        cut = learnt(bot, records, n_step, cuts=cuts)
        assert [column.tobytes() for column in cut[0]] == [column.tobytes() for column in whole[0]], cuts
        assert cut[1] == whole[1]
    one_at_a_time = learnt(bot, records, n_step, cuts=np.arange(1, len(records)))
    assert [column.tobytes() for column in one_at_a_time[0]] == [column.tobytes() for column in whole[0]]


def test_a_row_comes_out_as_soon_as_it_is_whole(bot):
    transitions = Transitions(bot, 0.5, 3, 1.0)
    records = flight(bot, 6)
    out = [transitions.feed(records[k : k + 1]).index.tolist() for k in range(6)]
    assert out == [[], [], [], [0], [1], [2]]
    assert transitions.finish().index.tolist() == [3, 4]
    assert transitions.feed(records[:0]).index.tolist() == []
    stopped = flight(bot, 6)
    stopped["mode"][3] = Mode.COASTING
    assert Transitions(bot, 0.5, 3, 1.0).feed(stopped).index.tolist() == [0, 1]  # a cut closes what was open


def test_another_robots_log_is_refused(bot, rover):
    with pytest.raises(LogError, match="give the robot file that is inside the log"):
        Transitions(bot, 0.5, 1, 1.0).feed(flight(rover, 3))


# The simulation, through ring and disk


class Noting(RobotVectorEnv):
    """One robot; keeps what a flight recorder would have seen."""

    def step(self, actions):
        before = self.rollout.obs.vector[0].copy()
        answer = super().step(actions)
        self.noted = getattr(self, "noted", [])
        self.noted.append((before, self.last_action[0].copy(), answer[0][0], bool(answer[2][0]), bool(answer[3][0])))
        return answer


def as_flights(noted):
    """One list of changes per episode; the last record shows what came of the last action."""
    flights, steps = [], []
    for before, applied, after, terminated, truncated in noted:
        steps.append({"obs": before, "applied_action": applied})
        if terminated or truncated or after is noted[-1][2]:
            fallen = {"mode": Mode.FAULT, "board": BoardMode.FAULT, "faults": int(Fault.TILT)}
            flights.append([*steps, {"obs": after, "applied_action": applied * 0, **(fallen if terminated else {})}])
            steps = []
    return flights


def recorded(folder, spec, steps):
    quiet = {"mode": Mode.RUNNING, "board": BoardMode.ARMED, "faults": 0, "rules": 0}
    changes = {name: [step.get(name, quiet.get(name)) for step in steps] for name in ("obs", "applied_action", *quiet)}
    filled_ring(folder, spec, len(steps), capacity=len(steps), **changes).close()
    return RingReader(folder).take(), open_log(folder)


@pytest.mark.slow
@pytest.mark.parametrize("n_step", [1, 3])
def test_a_simulated_flight_gives_the_rows_that_training_collects(bot, tmp_path, n_step):
    options = EpisodeOptions(seconds=0.6)
    task = RobotTask(bot, 1, options)
    task.env = Noting(bot, 1, options, seed=0)
    collector = Collector(task, 0.97, n_step, 0.5)
    collector.begin(5)
    draw = np.random.default_rng(3)
    batches = collector.collect(lambda obs: draw.uniform(-1, 1, (1, 2)), 250) + collector.finish()
    expected = Batch(*(np.concatenate(column) for column in zip(*batches, strict=True)))
    assert collector.tally.terminated > 0
    assert len(collector.tally.returns) > collector.tally.terminated  # and one that ran out of time
    parts = []
    for number, steps in enumerate(as_flights(task.env.noted)):
        taken, log = recorded(tmp_path / f"ring{number}", bot, steps)
        rows, _ = learnt(bot, taken, n_step, gamma=0.97, reward_scale=0.5)
        again, _ = learnt(log.spec, log.columns, n_step, gamma=0.97, reward_scale=0.5, flight=log.wall_start_ns)
        assert again.reward.tobytes() == rows.reward.tobytes()
        assert again.flight.tolist() == [log.wall_start_ns] * len(again.flight)
        parts.append(rows)
    rows = Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    for name in ("obs", "act", "next_obs", "done", "discount"):
        assert getattr(rows, name).tobytes() == getattr(expected, name).tobytes(), name
    assert rows.reward == pytest.approx(expected.reward, abs=1e-6)  # the log holds applied actions in float32
