"""The board's side of the conversation: greeting, refusing, answering, telling. The host's side is written by hand here."""

import struct

import pytest
from firmware.board_in_c import HOST_SESSION, SESSION, TICK_US, WRAP_SOON_US, BenchBoard

from edge_dsac.records import BoardMode, Fault
from firmware_bridge.messages import AckResult, MessageId
from firmware_bridge.session import facts_text

STRANGER = "00112233aabbccdd"


def of_kind(packets, message):
    return [packet for packet in packets if packet.message == message]


def test_the_board_greets_every_100_ms_until_it_is_greeted():
    board = BenchBoard()
    assert len(of_kind(board.run(301), MessageId.HELLO)) == 4
    board.tick(board.hello())
    assert of_kind(board.run(400), MessageId.HELLO) == []


def test_its_greeting_says_who_it_is():
    board = BenchBoard()
    (packet,) = of_kind(board.tick(), MessageId.HELLO)
    role, minor, session = struct.unpack_from("<BBI", packet.payload)
    assert (role, minor, session) == (1, 0, SESSION)
    assert packet.payload[6:14].hex() == board.spec.firmware_fingerprint
    assert packet.payload[14:].rstrip(b"\0") == b"bench_bot"


def test_a_greeting_is_answered_but_two_sides_do_not_greet_each_other_for_ever():
    board = BenchBoard()
    board.run(3)
    assert len(of_kind(board.tick(board.hello()), MessageId.HELLO)) == 1
    echoes = [packet for _ in range(40) for packet in of_kind(board.tick(board.hello()), MessageId.HELLO)]
    assert len(echoes) == 0
    board.run(20)
    assert len(of_kind(board.tick(board.hello()), MessageId.HELLO)) == 1


def test_an_echo_of_itself_is_not_a_host():
    board = BenchBoard()
    board.tick()
    own = board.tx.raw[: board.tx.raw.index(b"\0") + 1]
    assert own[3:5] != b""
    board.tick(own)
    assert of_kind(board.run(20), MessageId.TELEMETRY) == []


def test_a_greeted_board_tells_its_sensors_every_5_ms_in_its_own_order_and_signs():
    board = BenchBoard()
    board.greet()
    board.counts[:] = [11, -22]
    board.gyro_rad_s[:], board.accel_m_s2[:], board.extra = [0.1, 0.2, 0.3], [1.0, 2.0, 9.0], [-32768]
    board.rattles = False
    assert len(of_kind(board.run(20), MessageId.TELEMETRY)) == 4
    assert board.telemetry["counts"] == [11, -22]
    assert board.telemetry["gyro"] == [-200, 100, 300]  # the sensor's own axes: its x is body -y, its y is body x
    assert board.telemetry["accel"] == [-2000, 1000, 9000]
    assert board.telemetry["battery"] == 12_000
    assert board.telemetry["extras"] == [-32768]
    assert board.telemetry["board"] == BoardMode.DISARMED


def test_packets_are_counted_and_stamped_with_the_board_s_clock():
    board = BenchBoard().greet()
    packets = board.run(200)
    assert [packet.seq for packet in packets] == list(range(packets[0].seq, packets[0].seq + len(packets)))
    stamps = [packet.t_mcu_us for packet in packets]
    assert {(b - a) & 0xFFFFFFFF for a, b in zip(stamps, stamps[1:], strict=False)} == {5000}
    assert stamps[0] > WRAP_SOON_US
    assert stamps[-1] < 200_000  # over the wrap


@pytest.mark.parametrize(("fingerprint", "protocol", "expected"), [
    (STRANGER, 1, AckResult.WRONG_FINGERPRINT), (None, 2, AckResult.WRONG_PROTOCOL),
])  # fmt: skip
def test_a_stranger_is_answered_and_not_armed_until_a_host_of_its_own_greets(fingerprint, protocol, expected):
    board = BenchBoard()
    board.run(3)
    assert len(of_kind(board.tick(board.hello(fingerprint, protocol)), MessageId.HELLO)) == 1
    assert board.arm() == expected
    assert of_kind(board.run(10), MessageId.TELEMETRY) == []
    board.tick(board.hello())
    assert board.arm() == AckResult.OK


def test_before_any_greeting_nothing_is_armed():
    board = BenchBoard()
    assert board.arm() == AckResult.NOT_GREETED
    assert board.mode == BoardMode.DISARMED


def test_a_stranger_that_greets_a_driving_robot_ends_as_silence_does_and_not_in_a_fall():
    board = BenchBoard().armed()
    board.obey_for(20, 0.2, 0.2)
    board.tick(board.hello(STRANGER))
    board.obey_for(50, 0.4, 0.4)
    assert board.mode == BoardMode.ARMED
    assert board.command[0] == pytest.approx(0.2)  # the stranger's link obeys nobody
    board.obey_for(12, 0.4, 0.4)
    assert board.mode == BoardMode.FALLBACK


@pytest.mark.slow
def test_half_a_second_of_silence_ends_the_link_and_a_heartbeat_keeps_it():
    board = BenchBoard().greet()
    for _ in range(20):
        board.tick(board.frame(MessageId.HEARTBEAT))
        assert of_kind(board.run(99), MessageId.HELLO) == []
    assert of_kind(board.run(400), MessageId.HELLO) == []
    assert len(of_kind(board.run(10), MessageId.HELLO)) == 1
    assert of_kind(board.run(20), MessageId.TELEMETRY) == []


def test_a_host_that_restarted_counts_from_anew_and_is_heard():
    board = BenchBoard()
    board.seq = 5000
    board.armed()
    board.run(61)
    board.seq = 0
    board.tick(board.hello(session=HOST_SESSION + 1))
    assert board.arm() == AckResult.OK
    board.obey_for(20, 0.3, 0.3)
    assert board.command[0] == pytest.approx(0.3)


def test_the_clock_question_comes_back_with_the_board_s_stamps():
    board = BenchBoard().greet()
    asked_us = board.now_us
    (answer,) = of_kind(board.tick(board.frame(MessageId.TIME_SYNC, struct.pack("<QII", 123_456_789_012, 0, 0))), MessageId.TIME_SYNC)
    assert struct.unpack("<QII", answer.payload) == (123_456_789_012, asked_us, asked_us)


def test_the_board_reads_out_what_it_was_built_from_even_to_a_stranger():
    board = BenchBoard()
    board.run(2)
    text, total = b"", 1
    while len(text) < total:
        (answer,) = of_kind(board.tick(board.frame(MessageId.SPEC_READ, struct.pack("<H", len(text)))), MessageId.SPEC_TEXT)
        offset, total, length = struct.unpack_from("<HHB", answer.payload)
        assert offset == len(text)
        text += answer.payload[5 : 5 + length]
    assert text == facts_text(board.spec.firmware_facts)
    (beyond,) = of_kind(board.tick(board.frame(MessageId.SPEC_READ, struct.pack("<H", 65535))), MessageId.SPEC_TEXT)
    assert struct.unpack_from("<HHB", beyond.payload) == (65535, total, 0)


def test_a_fault_is_told_once_and_again_after_it_was_cleared():
    board = BenchBoard().armed()
    for _ in range(2):
        board.tick(board.command_frame(float("nan"), 0.0))
        board.run(100)
        (fault,) = of_kind(board.sent, MessageId.FAULT)
        mode, faults, milli = struct.unpack("<BHi", fault.payload)
        assert (mode, faults, milli) == (BoardMode.FAULT, Fault.BAD_NUMBER, 0)  # joint 0
        assert board.answer(board.frame(MessageId.DISARM)) == AckResult.OK
        assert board.arm() == AckResult.OK
        board.sent.clear()


def test_what_cannot_be_used_is_counted_in_telemetry():
    board = BenchBoard().greet()
    good = board.frame(MessageId.HEARTBEAT)
    board.tick(b"\x05garbage\0", good[:-2] + b"\x01\0", b"\0\0\0")
    board.run(5)
    assert board.rx_errors == 2


def test_a_host_that_babbles_does_not_keep_the_board_from_its_tick():
    board = BenchBoard().armed()
    for _ in range(61):
        board.tick(bytes(range(1, 256)) * 16)
    assert board.mode == BoardMode.FALLBACK
    assert board.now_us == (WRAP_SOON_US + board.ticks * TICK_US) & 0xFFFFFFFF


def test_bytes_one_by_one_over_many_ticks_are_the_same_packet():
    board = BenchBoard().greet()
    frame = board.arm_frame()
    for byte in frame[:-1]:
        assert of_kind(board.tick(bytes([byte])), MessageId.ACK) == []
    assert board.answer(frame[-1:]) == AckResult.OK
