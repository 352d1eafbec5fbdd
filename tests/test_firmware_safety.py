"""What the board does by itself, rule by rule, with the numbers of tests/firmware/bench_bot.toml worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from firmware.board_in_c import SESSION, BenchBoard, bench_bot

from edge_dsac.records import BoardMode, Fault
from firmware_bridge.messages import AckResult, MessageId


def tip(board, rate_rad_s, milliseconds, axis, *command):
    """Turns the body with a gyro and an accelerometer that agree, under a healthy host when there is a command."""
    turned = 0.0
    for millisecond in range(milliseconds):
        turned += rate_rad_s * 0.001
        board.lean(**{"pitch_rad" if axis == 1 else "roll_rad": turned})
        board.gyro_rad_s[axis] = rate_rad_s
        board.tick(*([board.command_frame(*command)] if command and millisecond % 10 == 0 else []))
    board.gyro_rad_s[axis] = 0.0


def roll_wheels(board, left_rad_s, right_rad_s, milliseconds):
    """1000 counts per rad, the right wheel mounted mirrored: one count per ms and rad/s."""
    for _ in range(milliseconds):
        board.counts += [left_rad_s, -right_rad_s]
        board.tick()


def told(board, message):
    return [packet for packet in board.sent if packet.message == message]


# Arming.


def test_a_level_greeted_board_is_armed_and_holds_zero_until_the_first_command():
    board = BenchBoard().armed()
    assert board.mode == BoardMode.ARMED
    board.run(5)
    np.testing.assert_array_equal(board.command, 0.0)


def test_arm_for_another_boot_of_the_board_is_refused():
    board = BenchBoard().greet()
    assert board.answer(board.arm_frame(session=SESSION - 1)) == AckResult.WRONG_SESSION
    assert board.mode == BoardMode.DISARMED


@pytest.mark.parametrize(("pitch_rad", "roll_rad", "expected"), [
    (0.34, 0.0, AckResult.OK), (0.36, 0.0, AckResult.TILTED), (-0.36, 0.0, AckResult.TILTED), (0.0, 0.36, AckResult.TILTED),
    (0.0, -0.34, AckResult.OK), (3.0, 0.0, AckResult.TILTED),
])  # fmt: skip
def test_a_board_that_leans_more_than_0_35_rad_either_way_is_not_armed(pitch_rad, roll_rad, expected):
    board = BenchBoard()
    board.lean(pitch_rad, roll_rad)
    assert board.greet().arm() == expected
    assert (board.mode == BoardMode.ARMED) == (expected == AckResult.OK)


def test_a_board_below_the_battery_cutoff_is_not_armed():
    board = BenchBoard()
    board.battery_v = 8.999
    assert board.greet().arm() == AckResult.LOW_BATTERY
    board.battery_v = 9.0
    assert board.arm() == AckResult.OK


def test_a_board_whose_imu_gives_nothing_or_never_changes_is_not_armed():
    board = BenchBoard()
    board.blind = True
    assert board.greet().arm() == AckResult.BAD_SENSOR
    board.blind, board.rattles = False, False
    board.run(103)
    assert board.arm() == AckResult.BAD_SENSOR
    board.rattles = True
    board.tick()
    assert board.arm() == AckResult.OK


def test_a_copy_of_an_old_arm_does_not_undo_the_disarm_after_it():
    board = BenchBoard().greet()
    arm = board.arm_frame()
    assert board.answer(arm) == AckResult.OK
    assert board.answer(board.frame(MessageId.DISARM)) == AckResult.OK
    board.tick(arm)
    board.run(5)
    assert board.mode == BoardMode.DISARMED
    assert board.rx_errors == 1


def test_asking_to_be_armed_again_and_again_does_not_feed_the_watchdog():
    board = BenchBoard().armed()
    for _ in range(60):
        assert board.arm() == AckResult.OK
    board.tick(board.arm_frame())
    assert board.mode == BoardMode.FALLBACK


# Commands.


def test_a_command_is_driven_as_it_is_and_told_in_telemetry():
    board = BenchBoard().armed()
    board.run(9)
    seq = board.seq + 1
    board.tick(board.command_frame(0.5, -0.25))
    np.testing.assert_array_equal(board.command, np.float32([0.5, -0.25]))
    board.run(5)
    assert board.telemetry["answered"] == seq
    assert board.telemetry["applied"] == [18204, -9102]  # 0.5 / 0.9 * 32767 = 18203.9, -0.25 / 0.9 * 32767 = -9101.9
    assert board.faults == Fault.NONE


def test_a_command_beyond_the_limit_is_clamped_and_said_so():
    board = BenchBoard().armed()
    board.obey_for(30, 1.5, -7.0)
    np.testing.assert_array_equal(board.command, np.float32([0.9, -0.9]))
    assert board.faults == Fault.LIMITED
    assert board.mode == BoardMode.ARMED


def test_a_command_moves_by_at_most_its_slew_and_a_quarter_since_the_last_one():
    board = BenchBoard().armed()
    board.run(9)
    board.tick(board.command_frame(0.9, -0.9))  # 10 ms after arming: 50 /s * 0.010 s * 1.25 = 0.625
    np.testing.assert_allclose(board.command, [0.625, -0.625], atol=1e-6)
    board.run(5)
    assert board.faults == Fault.SLEWED
    board.run(4)
    board.tick(board.command_frame(0.9, -0.9))
    np.testing.assert_allclose(board.command, [0.9, -0.9], atol=1e-6)
    board.run(5)
    assert board.faults == Fault.NONE


def test_of_two_commands_in_one_tick_the_newer_is_driven_with_the_whole_allowance():
    board = BenchBoard().armed()
    board.run(9)
    board.tick(board.command_frame(0.1, 0.1), board.command_frame(0.5, 0.6))
    np.testing.assert_allclose(board.command, [0.5, 0.6], atol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_command_that_is_no_number_cuts_the_motors_at_once(bad):
    board = BenchBoard().armed()
    board.obey_for(20, 0.4, 0.4)
    board.tick(board.command_frame(0.4, bad))
    assert board.mode == BoardMode.FAULT
    np.testing.assert_array_equal(board.command, 0.0)
    board.run(5)
    assert board.faults == Fault.BAD_NUMBER


def test_a_command_after_its_deadline_is_not_obeyed_and_is_counted():
    board = BenchBoard().armed()
    board.obey_for(20, 0.2, 0.2)
    board.tick(board.command_frame(0.3, 0.3, deadline_us=-1))
    np.testing.assert_allclose(board.command, 0.2, atol=1e-6)
    board.run(5)
    assert board.rx_errors == 1
    board.tick(board.command_frame(0.3, 0.3, deadline_us=0))
    np.testing.assert_allclose(board.command, 0.3, atol=1e-6)


def test_late_commands_do_not_feed_the_watchdog():
    board = BenchBoard().armed()
    for _ in range(61):
        board.tick(board.command_frame(0.3, 0.3, deadline_us=-1))
    assert board.mode == BoardMode.FALLBACK


def test_a_command_is_not_obeyed_beyond_its_own_deadline_even_before_the_timeout():
    board = BenchBoard().armed()
    board.tick(board.command_frame(0.05, 0.05, deadline_us=15_000))
    board.run(15)
    assert board.mode == BoardMode.ARMED
    board.tick()
    assert board.mode == BoardMode.FALLBACK


@pytest.mark.parametrize("back", [0, 1, 2, 1000])
def test_a_command_that_is_repeated_or_older_than_the_last_is_not_obeyed_and_is_counted(back):
    board = BenchBoard().armed()
    board.obey_for(20, 0.2, 0.2)
    board.tick(board.command_frame(0.4, 0.4, seq=(board.seq - back) & 0xFFFF))
    board.run(5)
    np.testing.assert_allclose(board.command, 0.2, atol=1e-6)
    assert board.rx_errors == 1


def test_a_command_from_before_the_arming_is_not_obeyed():
    board = BenchBoard().greet()
    early = board.command_frame(0.05, 0.05)
    assert board.arm() == AckResult.OK
    board.tick(early)
    np.testing.assert_array_equal(board.command, 0.0)


def test_commands_go_on_when_their_count_wraps():
    board = BenchBoard()
    board.seq = 65_520
    board.armed()
    for step in range(60):
        board.run(9)
        board.tick(board.command_frame(0.001 * step, 0.0))
    assert board.mode == BoardMode.ARMED
    assert board.seq < 100
    np.testing.assert_allclose(board.command[0], 0.059, atol=1e-6)


# Silence.


def test_without_a_command_for_60_ms_the_board_balances_by_itself():
    board = BenchBoard().armed()
    board.run(60)
    assert board.mode == BoardMode.ARMED
    board.tick()
    assert board.mode == BoardMode.FALLBACK
    board.run(5)
    assert board.faults == Fault.TIMEOUT
    assert np.abs(board.command).max() > 0.01


def test_without_a_fallback_the_board_turns_the_motors_off():
    spec = bench_bot()
    board = BenchBoard(replace(spec, safety=replace(spec.safety, fallback="damp"))).armed()
    board.obey_for(20, 0.3, 0.3)  # the last command 10 ms before its end
    board.run(51)
    np.testing.assert_allclose(board.command, 0.3, atol=1e-6)
    board.run(1)
    assert board.mode == BoardMode.DAMPED
    np.testing.assert_array_equal(board.command, 0.0)


def test_commands_that_come_back_do_not_leave_the_fallback_but_an_arm_does():
    board = BenchBoard().armed()
    board.run(61)
    board.obey_for(50, 0.3, 0.3)
    assert board.mode == BoardMode.FALLBACK
    assert board.arm() == AckResult.OK
    board.obey_for(30, 0.3, 0.3)
    assert board.mode == BoardMode.ARMED
    np.testing.assert_allclose(board.command, 0.3, atol=1e-6)
    assert board.faults == Fault.NONE


def test_heartbeats_are_not_commands():
    board = BenchBoard().armed()
    for _ in range(61):
        board.tick(board.frame(MessageId.HEARTBEAT))
    assert board.mode == BoardMode.FALLBACK


# Faults.


@pytest.mark.slow
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("way", [1, -1])
def test_a_body_beyond_0_8_rad_either_way_cuts_the_motors(axis, way):
    board = BenchBoard().armed()
    tip(board, way * 1.0, 780, axis, 0.2, 0.2)
    assert board.mode == BoardMode.ARMED
    np.testing.assert_allclose(board.command, 0.2, atol=1e-6)
    board.lean()
    board = BenchBoard().armed()
    tip(board, way * 1.0, 820, axis, 0.2, 0.2)
    assert board.mode == BoardMode.FAULT
    np.testing.assert_array_equal(board.command, 0.0)
    board.run(5)
    assert board.faults == Fault.TILT


def test_tilt_cuts_the_motors_in_the_fallback_too():
    board = BenchBoard().armed()
    board.run(61)
    assert board.mode == BoardMode.FALLBACK
    tip(board, 1.0, 820, 1)
    assert board.mode == BoardMode.FAULT
    np.testing.assert_array_equal(board.command, 0.0)


def test_a_joint_faster_than_60_rad_s_latches_overspeed():
    board = BenchBoard().armed()
    board.obey_for(20, 0.2, 0.2)
    board.counts += [299, 299]  # in one sensor period of 5 ms: 59.8 rad/s
    board.obey_for(5, 0.2, 0.2)
    assert board.mode == BoardMode.ARMED
    board.counts += [0, 301]
    board.obey_for(5, 0.2, 0.2)
    assert board.mode == BoardMode.FAULT
    fault = told(board, MessageId.FAULT)[-1].payload
    assert int.from_bytes(fault[1:3], "little") == Fault.OVERSPEED
    assert int.from_bytes(fault[3:], "little", signed=True) == pytest.approx(-60_200, abs=1)  # mounted mirrored: backwards


def test_a_counter_that_overflows_is_neither_speed_nor_fault():
    board = BenchBoard()
    board.counts[:] = (1 << 31) - 100
    board.armed()
    board.obey_for(6, 0.2, 0.2)
    board.counts += [250, -250]
    board.obey_for(5, 0.2, 0.2)
    assert board.telemetry["velocity_cps"] == [50_000, -50_000]
    assert board.telemetry["counts"] == [-(1 << 31) + 150, (1 << 31) - 350]
    assert board.mode == BoardMode.ARMED


def test_a_counter_that_jumps_half_its_range_is_a_fault_and_not_undefined():
    board = BenchBoard().armed()
    board.counts[0] += (1 << 31) - 1
    board.run(5)
    assert board.mode == BoardMode.FAULT
    assert board.telemetry["velocity_cps"][0] == 2_000_000_000
    assert int.from_bytes(told(board, MessageId.FAULT)[-1].payload[3:], "little", signed=True) == 2_000_000_000


def test_a_battery_below_9_v_for_200_ms_cuts_the_motors_and_a_shorter_dip_does_not():
    board = BenchBoard().armed()
    board.battery_v = 8.9
    board.obey_for(199, 0.2, 0.2)
    board.battery_v = 9.0
    board.obey_for(1, 0.2, 0.2)
    board.battery_v = 8.9
    board.obey_for(199, 0.2, 0.2)
    assert board.mode == BoardMode.ARMED
    board.obey_for(1, 0.2, 0.2)
    assert board.mode == BoardMode.FAULT
    fault = told(board, MessageId.FAULT)[-1].payload
    assert int.from_bytes(fault[3:], "little", signed=True) == pytest.approx(8900, abs=1)  # volts


def test_an_imu_without_readings_for_20_ms_cuts_the_motors():
    board = BenchBoard().armed()
    board.blind = True
    board.obey_for(19, 0.2, 0.2)
    board.blind = False
    board.obey_for(1, 0.2, 0.2)
    board.blind = True
    board.obey_for(19, 0.2, 0.2)
    assert board.mode == BoardMode.ARMED
    board.obey_for(1, 0.2, 0.2)
    assert board.mode == BoardMode.FAULT
    board.run(5)
    assert board.faults == Fault.BAD_SENSOR


def test_an_imu_that_repeats_itself_for_100_ms_cuts_the_motors():
    board = BenchBoard().armed()
    board.rattles = False
    board.obey_for(98, 0.2, 0.2)
    assert board.mode == BoardMode.ARMED
    board.obey_for(4, 0.2, 0.2)
    assert board.mode == BoardMode.FAULT


def test_a_fault_stays_when_its_cause_is_gone_until_a_disarm_and_an_arm():
    board = BenchBoard().armed()
    board.tick(board.command_frame(float("nan"), 0.0))
    board.obey_for(30, 0.2, 0.2)
    assert board.mode == BoardMode.FAULT
    assert board.arm() == AckResult.FAULT_LATCHED
    assert board.answer(board.frame(MessageId.DISARM)) == AckResult.OK
    assert board.mode == BoardMode.DISARMED
    assert board.arm() == AckResult.OK
    board.run(5)
    assert board.faults == Fault.NONE


def test_a_disarmed_robot_may_lie_on_its_side_without_a_fault():
    board = BenchBoard()
    board.lean(1.5)
    board.greet().run(10)
    assert board.mode == BoardMode.DISARMED
    assert board.faults == Fault.NONE


def test_an_emergency_stop_ends_only_with_a_restart():
    board = BenchBoard().armed()
    board.obey_for(20, 0.2, 0.2)
    assert board.answer(board.frame(MessageId.ESTOP)) == AckResult.OK
    np.testing.assert_array_equal(board.command, 0.0)
    assert board.answer(board.frame(MessageId.DISARM)) == AckResult.OK
    assert board.mode == BoardMode.ESTOP
    assert board.arm() == AckResult.ESTOPPED
    board.obey_for(20, 0.2, 0.2)
    np.testing.assert_array_equal(board.command, 0.0)
    board.power_on(12_345)
    assert board.armed().mode == BoardMode.ARMED


# The board's own estimate and its fallback.


def test_the_first_reading_sets_the_lean_and_the_gyro_moves_it_by_the_filter():
    board = BenchBoard()
    board.lean(0.3)
    board.tick()
    assert board.pitch_rad == pytest.approx(0.3, abs=2e-4)
    board = BenchBoard()
    board.tick()
    board.gyro_rad_s[1] = 2.0
    board.tick()
    assert board.pitch_rad == pytest.approx(0.5 / 0.501 * 0.002, rel=1e-4)  # keep = filter / (filter + tick)
    board.run(1)
    assert board.pitch_rad == pytest.approx(0.5 / 0.501 * (0.5 / 0.501 * 0.002 + 0.002), rel=1e-4)


def in_fallback(pitch_rad=0.0, yaw_rate_rad_s=0.0):
    board = BenchBoard()
    board.lean(pitch_rad)
    board.armed().run(60)
    board.gyro_rad_s[2] = yaw_rate_rad_s
    board.tick()
    assert board.mode == BoardMode.FALLBACK
    return board


def test_the_fallback_starts_within_its_slew_and_drives_towards_the_lean():
    board = in_fallback(pitch_rad=0.1)
    np.testing.assert_allclose(board.command, [0.05, -0.05], atol=1e-6)  # 50 /s * 1 ms, without the host's margin
    board.run(9)
    # share = 4 * (0.1 - 0.02) = 0.32 of the limit 0.9; forwards is + on the left and - on the mirrored right
    np.testing.assert_allclose(board.command, [0.288, -0.288], atol=2e-3)


def test_the_fallback_at_rest_leans_on_the_balance_angle():
    board = in_fallback()
    board.run(9)
    np.testing.assert_allclose(board.command, [-0.072, 0.072], atol=1e-3)  # 4 * (0 - 0.02) * 0.9


def test_the_fallback_opposes_a_turn():
    board = in_fallback(yaw_rate_rad_s=0.5)
    board.run(9)
    # differential = 0.15 * (0 - 0.5) = -0.075: left -0.08 + 0.075, right -0.08 - 0.075, then the limit and the mirrored right
    np.testing.assert_allclose(board.command, [-0.0045, 0.1395], atol=1e-3)


def test_the_fallback_brakes_by_first_driving_under_a_lean_backwards():
    board = in_fallback()
    roll_wheels(board, 10, 10, 10)
    # v = 0.05 * 10 = 0.5 m/s: lean 0.02 - 0.12 * 0.5 = -0.04 less 0.1 * 0.004 of integral; 4 * 0.0404 * 0.9
    np.testing.assert_allclose(board.command, [0.1454, -0.1454], atol=2e-3)


def test_the_fallback_never_asks_for_more_lean_than_its_limit():
    board = in_fallback(pitch_rad=-0.1)
    roll_wheels(board, 50, 50, 20)
    # lean 0.02 - 0.12 * 2.5 = -0.28, limited to -0.25: 4 * (-0.1 + 0.25) * 0.9
    np.testing.assert_allclose(board.command, [0.54, -0.54], atol=2e-3)


def test_the_fallback_counts_the_body_rate_into_the_speed_and_against_the_fall():
    board = in_fallback()
    board.run(8)
    board.gyro_rad_s[1] = 0.4
    board.run(4)
    # v = 0.05 * (0 + 0.4) = 0.02: lean 0.02 - 0.0024; share 4 * (pitch - 0.0176) + 0.25 * 0.4
    share = 4 * (board.pitch_rad - 0.0176) + 0.1
    np.testing.assert_allclose(board.command, [0.9 * share, -0.9 * share], atol=1e-3)


def test_arctan2_is_within_2e_5_rad_everywhere():
    board = BenchBoard()
    angles = np.linspace(-np.pi, np.pi, 4001)
    for radius in (1e-3, 9.81, 4e4):
        y, x = np.float32(radius * np.sin(angles)), np.float32(radius * np.cos(angles))
        ours = np.array([board.core.host_arctan2(float(a), float(b)) for a, b in zip(y, x, strict=True)])
        wrong = np.angle(np.exp(1j * (ours - np.arctan2(y.astype(float), x.astype(float)))))
        assert 1e-6 < np.abs(wrong).max() < 2e-5
    assert board.core.host_arctan2(0.0, 0.0) == 0.0
