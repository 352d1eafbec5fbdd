"""The limiter: hand-worked numbers, one rule at a time, then batches."""

import numpy as np
import pytest

from edge_dsac.loop.limiter import Limiter
from edge_dsac.records import BoardMode, Fault, Rule, SensorFrame
from edge_dsac.spec.robot import load_robot

SPEC = load_robot("balance_bot")  # mix .8/.8 and -.2/.2, limit 1, slew 50 per s at 100 Hz: 0.5 per tick


def frame(velocity=(0.0, 0.0), applied=(0.0, 0.0), batch=()):
    def split(values):
        """One robot in floats, a batch `[n, 2]` in columns."""
        return tuple(np.broadcast_to(values, (*batch, 2)).T) if batch else tuple(float(value) for value in values)

    none = split((0.0, 0.0))
    return SensorFrame(
        7, 0, BoardMode.ARMED, Fault.NONE, 0, none, split(velocity), split(applied), none + none[:1], none + none[:1], 11.1, ()
    )


def test_an_action_within_all_limits_is_sent_as_it_is():
    answer = Limiter(SPEC).limit(np.array([0.5, 0.25]), frame())
    assert answer.command == pytest.approx([0.5 * 0.8 - 0.25 * 0.2, 0.5 * 0.8 + 0.25 * 0.2])
    assert answer.applied_action == pytest.approx([0.5, 0.25])
    assert answer.rules == Rule.NONE
    assert answer.answers_seq == 7


def test_a_fast_change_is_slewed_and_the_rule_is_named():
    answer = Limiter(SPEC).limit(np.array([1.0, 0.0]), frame())
    assert answer.command == pytest.approx([0.5, 0.5])
    assert answer.applied_action == pytest.approx([0.625, 0.0])  # replay must see what was sent
    assert answer.rules == Rule.SLEW


def test_a_command_beyond_the_limit_is_clamped_and_the_rule_is_named():
    limiter = Limiter(SPEC)
    limiter.last = (0.9, 0.9)
    answer = limiter.limit(np.array([2.0, 0.0]), frame())
    assert answer.command == pytest.approx([1.0, 1.0])
    assert answer.rules == Rule.LIMIT


def test_a_nan_holds_the_last_command():
    limiter = Limiter(SPEC)
    limiter.last = (0.3, -0.2)
    answer = limiter.limit(np.array([np.nan, 0.0]), frame())
    assert answer.command == pytest.approx([0.3, -0.2])
    assert Rule.BAD_NUMBER in Rule(answer.rules)
    assert Rule.SLEW not in Rule(answer.rules)


def test_an_infinite_action_never_reaches_the_wire():
    answer = Limiter(SPEC).limit(np.array([np.inf, 0.0]), frame())
    assert np.isfinite(answer.command).all()
    assert Rule.BAD_NUMBER in Rule(answer.rules)


def test_a_joint_at_its_speed_limit_gets_no_more_command_in_that_direction():
    limiter = Limiter(SPEC)
    limiter.last = np.array([0.4, 0.4])
    answer = limiter.limit(np.array([0.5, 0.0]), frame(velocity=(41.0, -41.0)))
    assert answer.command == pytest.approx([0.0, 0.4])  # the right wheel turns backwards: braking stays allowed
    assert answer.rules == Rule.SPEED


def test_damping_starts_the_next_command_from_what_the_board_was_driving():
    limiter = Limiter(SPEC)
    assert limiter.damp(frame(applied=(0.7, 0.7))).command == pytest.approx([0.0, 0.0])
    assert limiter.limit(np.array([1.0, 0.0]), frame()).command == pytest.approx([0.8, 0.8])  # within 0.5 of 0.7


def test_holding_repeats_the_last_command_and_says_so():
    limiter = Limiter(SPEC)
    sent = limiter.limit(np.array([0.5, 0.1]), frame())
    held = limiter.hold(frame())
    assert held.command == pytest.approx(sent.command)
    assert held.rules == Rule.COAST


def test_a_batch_gives_each_robot_what_it_would_get_alone():
    generator = np.random.default_rng(5)
    actions = generator.uniform(-1.5, 1.5, (20, 8, 2))
    speeds = generator.uniform(-45, 45, (20, 8, 2))
    together, alone = Limiter(SPEC, (8,)), [Limiter(SPEC) for _ in range(8)]
    for action, speed in zip(actions, speeds, strict=True):
        many = together.limit(action, frame(speed, batch=(8,)))
        for i in range(8):
            one = alone[i].limit(action[i], frame(speed[i]))
            assert np.stack(many.command, -1)[i] == pytest.approx(one.command, abs=1e-12)
            assert np.stack(many.applied_action, -1)[i] == pytest.approx(one.applied_action, abs=1e-12)
            assert many.rules[i] == one.rules


def test_a_reset_robot_of_a_batch_starts_from_zero_and_the_others_do_not():
    limiter = Limiter(SPEC, (2,))
    limiter.last = (np.full(2, 0.9), np.full(2, 0.9))
    limiter.reset(np.array([True, False]))
    command = limiter.limit(np.full((2, 2), 1.0) * [1.0, 0.0], frame(batch=(2,))).command
    assert np.stack(command, -1) == pytest.approx(np.array([[0.5, 0.5], [0.8, 0.8]]))
