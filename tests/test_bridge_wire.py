"""Counts <-> SI. The bench robot's numbers are round and its IMU is turned by a quarter, so a lost sign or axis shows."""

import struct

import numpy as np
import pytest
from firmware.board_in_c import bench_bot

from edge_dsac.records import BoardMode, CommandFrame, Fault, Readings, Rule
from firmware_bridge.framing import Packet
from firmware_bridge.messages import MessageId, Role
from firmware_bridge.wire import Wire, make_hello, make_payload, make_raw_dtype, make_spec_text, parse

NONE = -32768


def telemetry(counts=(0, 0), velocity=(0, 0), applied=(0, 0), gyro=(0, 0, 0), accel=(0, 0, 0), battery=12_000, extras=(0,),
              head=(1, 0, 0, 0), t_mcu_us=0, seq=0):  # fmt: skip
    """A TELEMETRY of the bench robot, typed by hand from the field table."""
    payload = struct.pack("<BBHH2i2i2h6hH", *head, *counts, *velocity, *applied, *gyro, *accel, battery) + struct.pack("<h", *extras)
    return Packet(1, MessageId.TELEMETRY, seq, t_mcu_us, payload)


@pytest.fixture
def wire():
    return Wire(bench_bot())


def test_every_field_of_telemetry_has_its_unit_sign_and_axis(wire):
    frame = wire.decode_telemetry(telemetry(
        head=(1, 3, 64 | 1, 777), counts=(1500, -2500), velocity=(200, 400), applied=(32767, -16384), gyro=(-200, 100, 300),
        accel=(-2000, 1000, 9000), battery=40_000, extras=(1234,), t_mcu_us=987_654_321, seq=4242,
    ))  # fmt: skip
    assert (frame.seq, frame.t_mcu_us, frame.answered_seq) == (4242, 987_654_321, 777)
    assert frame.board is BoardMode.ARMED
    assert frame.faults == Fault.LIMITED | Fault.TIMEOUT
    # 1000 counts per rad; the right wheel is mounted mirrored.
    assert np.asarray(frame.position_rad) == pytest.approx([1.5, 2.5])
    assert np.asarray(frame.velocity_rad_s) == pytest.approx([0.2, -0.4])
    # Full scale is the command limit 0.9; half of it, turned over: 0.9 * 16384 / 32767.
    assert np.asarray(frame.applied) == pytest.approx([0.9, 0.4500137], abs=1e-7)
    # Body x is the sensor's +y, body y its -x, body z its +z; 1000 counts per unit.
    assert np.asarray(frame.gyro_rad_s) == pytest.approx([0.1, 0.2, 0.3])
    assert np.asarray(frame.accel_m_s2) == pytest.approx([1.0, 2.0, 9.0])
    assert frame.battery_v == pytest.approx(40.0)  # the one unsigned field: 40000 does not fit in an i16
    assert np.asarray(frame.extra) == pytest.approx([1.234])


def test_a_board_mode_that_is_not_known_reads_as_a_fault(wire):
    assert wire.decode_telemetry(telemetry(head=(77, 0, 0, 0))).board is BoardMode.FAULT


@pytest.mark.parametrize("field", ["gyro", "accel"])
@pytest.mark.parametrize(("sensor_axis", "body_axis"), [(0, 1), (1, 0), (2, 2)])
def test_no_reading_is_nan_on_its_own_axis_only(wire, field, sensor_axis, body_axis):
    raw = [5, 5, 5]
    raw[sensor_axis] = NONE
    frame = wire.decode_telemetry(telemetry(**{field: raw}))
    read = np.asarray({"gyro": frame.gyro_rad_s, "accel": frame.accel_m_s2}[field])
    assert np.flatnonzero(np.isnan(read)).tolist() == [body_axis]
    others = np.concatenate([frame.accel_m_s2 if field == "gyro" else frame.gyro_rad_s, frame.extra, frame.applied])
    assert np.isfinite(others).all()
    assert frame.battery_v == 12.0


def test_no_reading_of_an_extra_is_nan(wire):
    frame = wire.decode_telemetry(telemetry(extras=(NONE,)))
    assert np.isnan(np.asarray(frame.extra)).tolist() == [True]
    assert np.isfinite(np.asarray(frame.gyro_rad_s)).all()


@pytest.mark.parametrize("values", [
    {"gyro": (0x0001, 0x0180, 0)},  # bytes 01 00 80 01: the pair 00 80 lies across two fields
    {"accel": (0x0000, 0x0080, 0)},
    {"gyro": (0, 0, 0x0000), "accel": (0x7F80, 0, 0)},
    {"applied": (0, 0x0180)},
    {"counts": (32768, 0x00800000)},  # in a 32-bit field it means nothing
    {"battery": 0x8000},  # 32.768 V: the battery has no such sign
    {"applied": (NONE, NONE)},  # nor has the command
])  # fmt: skip
def test_the_bytes_of_no_reading_anywhere_else_mean_nothing(wire, values):
    frame = wire.decode_telemetry(telemetry(**values))
    for read in (frame.position_rad, frame.applied, frame.gyro_rad_s, frame.accel_m_s2, frame.extra, [frame.battery_v]):
        assert np.isfinite(np.asarray(read)).all()
    assert frame.battery_v == pytest.approx(values.get("battery", 12_000) / 1000)


def test_an_encoder_may_overflow_forwards_and_backwards(wire):
    """2^31 - 10 counts, 20 further is -2^31 + 10; the position goes on by 0.02 rad, and back, and a whole lot of turns."""
    top, bottom = (1 << 31) - 10, -(1 << 31) + 10
    first = np.asarray(wire.decode_telemetry(telemetry(counts=(top, bottom))).position_rad)
    assert first == pytest.approx([2147483.638, 2147483.638])
    over = np.asarray(wire.decode_telemetry(telemetry(counts=(bottom, top))).position_rad)
    assert over - first == pytest.approx([0.02, 0.02], abs=1e-6)
    back = np.asarray(wire.decode_telemetry(telemetry(counts=(top, bottom))).position_rad)
    assert back - first == pytest.approx([0.0, 0.0], abs=1e-6)


def test_an_encoder_that_overflows_again_and_again_keeps_counting(wire):
    step, counts = 1_500_000_000, 0
    for turn in range(8):
        wrapped = (counts + (1 << 31)) % (1 << 32) - (1 << 31)
        frame = wire.decode_telemetry(telemetry(counts=(wrapped, 0)))
        assert frame.position_rad[0] == pytest.approx(turn * 1_500_000.0, rel=1e-12)
        counts += step


def test_the_board_s_clock_may_overflow_every_71_minutes(wire):
    stamps = [4_294_967_000, 704, 2_000_000_000, 4_294_967_295, 0]
    seen = [wire.decode_telemetry(telemetry(t_mcu_us=stamp)).t_mcu_us for stamp in stamps]
    assert seen == [4_294_967_000, 4_294_968_000, 6_294_967_296, 8_589_934_591, 8_589_934_592]


def test_a_stamp_is_read_on_the_scale_of_the_frames_whichever_side_of_the_overflow_it_is(wire):
    assert wire.full_time_us(123) == 123  # nothing to compare with yet
    wire.decode_telemetry(telemetry(t_mcu_us=4_294_967_000))
    assert wire.full_time_us(704) == 4_294_968_000
    wire.decode_telemetry(telemetry(t_mcu_us=704))
    assert wire.full_time_us(4_294_967_000) == 4_294_967_000
    assert wire.full_time_us(705) == 4_294_968_001
    assert wire.decode_telemetry(telemetry(t_mcu_us=706)).t_mcu_us == 4_294_968_002  # asking did not move it


def test_a_reset_forgets_the_counters_and_the_clock(wire):
    wire.decode_telemetry(telemetry(counts=(2_000_000_000, 0), t_mcu_us=4_294_967_000))
    wire.reset()
    frame = wire.decode_telemetry(telemetry(counts=(-2_000_000_000, 0), t_mcu_us=5))
    assert frame.position_rad[0] == pytest.approx(-2_000_000.0)
    assert frame.t_mcu_us == 5


def test_a_command_leaves_in_board_sign_with_its_deadline_cut_to_32_bits(wire):
    command = CommandFrame(65535, np.array([0.25, 0.5]), np.array([0.25, 0.5]), Rule.NONE)
    payload = wire.make_command(command, (1 << 32) + 60_000)
    assert payload == bytes.fromhex("ffff60ea00000000803e000000bf")  # 0.25 and -0.5 as float32
    assert np.asarray(wire.command_from_board(np.array([0.25, -0.5], np.float32))) == pytest.approx([0.25, 0.5])


def telemetry_of(spec, raw):
    """What a board would send of these raw sensors."""
    joints = len(spec.joints)
    words = struct.pack(f"<{joints}i{joints}h", *[0] * (2 * joints))
    extras = raw["extras"].tobytes() if spec.extras else b""
    rest = raw["gyro"].tobytes() + raw["accel"].tobytes() + raw["battery"].tobytes() + extras
    return Packet(1, MessageId.TELEMETRY, 0, 0, struct.pack("<BBHH", 0, 0, 0, 0) + raw["counts"].tobytes() + words + rest)


@pytest.mark.parametrize("model", ["bot", "rover", "bench"])
def test_what_is_sensed_comes_back_within_half_a_count(model, request, generator):
    spec = bench_bot() if model == "bench" else request.getfixturevalue(model)
    extra_lsb = np.array([extra.lsb_per_unit for extra in spec.extras])
    joint_lsb = np.array([joint.counts_per_rad for joint in spec.joints])
    for _ in range(50):
        sensed = Readings(
            generator.uniform(-500, 500, len(spec.joints)), generator.uniform(-8, 8, 3), generator.uniform(-30, 30, 3),
            float(generator.uniform(0, 30)), generator.uniform(-30, 30, len(spec.extras)),
        )  # fmt: skip
        frame = Wire(spec).decode_telemetry(telemetry_of(spec, Wire(spec).raw_from_readings(sensed)))
        half = 0.5 + 1e-6
        assert (np.abs(np.asarray(frame.position_rad) - sensed.position_rad) * joint_lsb <= half).all()
        assert (np.abs(np.asarray(frame.gyro_rad_s) - sensed.gyro_rad_s) * spec.imu.gyro_lsb_per_rad_s <= half).all()
        assert (np.abs(np.asarray(frame.accel_m_s2) - sensed.accel_m_s2) * spec.imu.accel_lsb_per_m_s2 <= half).all()
        assert abs(frame.battery_v - sensed.battery_v) * spec.battery.lsb_per_v <= half
        assert (np.abs(np.asarray(frame.extra) - sensed.extra) * extra_lsb <= half).all()


def readings(position=(0.0, 0.0), gyro=(0.0, 0.0, 0.0), accel=(0.0, 0.0, 9.81), battery_v=12.0, extra=(0.0,)):
    return Readings(np.array(position), np.array(gyro), np.array(accel), battery_v, np.array(extra))


def test_raw_sensors_are_what_the_bench_s_sensors_would_count(wire):
    raw = wire.raw_from_readings(readings((1.5, 2.5), (0.1, 0.2, 0.3), (1.0, 2.0, 9.0), 11.1, (1.234,)))
    assert raw["counts"].tolist() == [1500, -2500]
    assert raw["gyro"].tolist() == [-200, 100, 300]
    assert raw["accel"].tolist() == [-2000, 1000, 9000]
    assert int(raw["battery"]) == 11_100
    assert raw["extras"].tolist() == [1234]


def test_a_sensor_saturates_and_never_says_no_reading_by_being_too_large(wire):
    raw = wire.raw_from_readings(readings(gyro=(100.0, 100.0, -100.0), battery_v=1000.0, extra=(-1e9,)))
    assert raw["gyro"].tolist() == [-32767, 32767, -32767]
    assert int(raw["battery"]) == 65535
    assert raw["extras"].tolist() == [-32767]


def test_a_sensor_without_a_reading_says_so(wire):
    nan = float("nan")
    raw = wire.raw_from_readings(readings(gyro=(nan, 0.0, 0.0), accel=(0.0, 0.0, nan), extra=(nan,)))
    assert raw["gyro"].tolist() == [0, NONE, 0]
    assert raw["accel"].tolist() == [0, 0, NONE]
    assert raw["extras"].tolist() == [NONE]


def test_an_encoder_keeps_the_low_32_bits(wire):
    """3e6 rad are 3e9 counts: 3e9 - 2^32 = -1294967296."""
    assert wire.raw_from_readings(readings((3e6, 0.0)))["counts"].tolist() == [-1_294_967_296, 0]


def test_raw_sensors_are_packed_as_the_firmware_s_struct(bot, rover):
    assert make_raw_dtype(bot).itemsize == 2 * 4 + 3 * 2 + 3 * 2 + 2
    assert make_raw_dtype(rover).itemsize == 2 * 4 + 3 * 2 + 3 * 2 + 2 + 3 * 2


def test_a_greeting_says_who_when_and_of_which_robot():
    spec = bench_bot()
    payload = make_hello(spec, Role.BOARD, 0xA1B2C3D4)
    assert payload == b"\x01\x00\xd4\xc3\xb2\xa1" + bytes.fromhex(spec.firmware_fingerprint) + b"bench_bot".ljust(16, b"\0")


def test_a_payload_is_read_by_name():
    payload = make_payload(MessageId.ACK, message=5, result=7, acked_seq=300, faults=16)
    assert payload == bytes.fromhex("05 07 2c01 1000")
    ack = parse(MessageId.ACK, payload)
    assert (int(ack["message"]), int(ack["result"]), int(ack["acked_seq"]), int(ack["faults"])) == (5, 7, 300, 16)


@pytest.mark.parametrize(("offset", "length"), [(0, 128), (128, 128), (256, 44), (300, 0), (60000, 0)])
def test_facts_are_told_in_chunks_of_128_bytes(offset, length):
    text = bytes(range(100)) * 3
    payload = make_spec_text(text, offset)
    assert struct.unpack_from("<HHB", payload) == (offset, 300, length)
    assert payload[5:] == text[offset : offset + 128].ljust(128, b"\0")
