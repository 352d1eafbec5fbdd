"""Any bytes on the wire: the C decoder gives packets or counted errors, and no host, however mad, makes the board unsafe."""

import ctypes
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from firmware import compare, reference
from firmware.board_in_c import BenchBoard, bench_bot, deframe, load_core
from firmware.streams import StreamMaker
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_dsac.records import BoardMode
from firmware_bridge.build import CORE, FIRMWARE, SANITIZED_FLAGS, build_host_library
from firmware_bridge.header import make_messages_header, make_robot_header
from firmware_bridge.messages import MessageId

HERE = Path(__file__).parent / "firmware"
SPEC = bench_bot()
SEED = reference.closed_seed(SPEC.firmware_fingerprint)
SIZES = reference.sizes(2, 1)
HEARTBEAT = reference.frame(MessageId.HEARTBEAT, b"", SEED, seq=7)
QUESTION = reference.frame(MessageId.SPEC_READ, b"\x05\x00", SEED, seq=8)
NONE = dict.fromkeys(reference.ERRORS, 0)


@pytest.fixture(scope="module")
def core():
    return load_core(build_host_library(SPEC))


def packet(message, seq, payload=b"", protocol=1):
    return reference.Packet(protocol, message, seq, 0, payload)


def flipped(frame, at):
    return frame[:at] + bytes([frame[at] ^ 0x10]) + frame[at + 1 :]


@pytest.mark.parametrize(("stream", "packets", "errors"), [
    (b"", [], {}),
    (b"\0\0\0", [], {}),
    (HEARTBEAT, [packet(4, 7)], {}),
    (b"\0" + HEARTBEAT + b"\0\0" + QUESTION, [packet(4, 7), packet(10, 8, b"\x05\x00")], {}),
    (HEARTBEAT[:-1], [], {}),
    (HEARTBEAT[:-2] + b"\0" + HEARTBEAT, [packet(4, 7)], {"cobs": 1}),
    (HEARTBEAT[:-1] + HEARTBEAT + HEARTBEAT, [packet(4, 7)], {"crc": 1}),  # two run into one, the next is whole again
    (HEARTBEAT[3:] + HEARTBEAT, [packet(4, 7)], {"length": 1}),
    (flipped(HEARTBEAT, 3), [], {"crc": 1}),
    (b"\x01\0", [], {"length": 1}),
    (b"\x02\0", [], {"cobs": 1}),
    (b"\xff" * 255 + b"\0", [], {"crc": 1}),  # one full block: the longest there is
    (b"\xff" * 254 + b"\0", [], {"cobs": 1}),
    (b"\xff" * 256 + b"\0" + QUESTION, [packet(10, 8, b"\x05\x00")], {"length": 1}),
    (b"\x01" * 5000 + b"\0" + QUESTION, [packet(10, 8, b"\x05\x00")], {"length": 1}),
    (reference.frame(MessageId.HEARTBEAT, b"", SEED ^ 1), [], {"crc": 1}),  # another robot's
    (reference.frame(MessageId.HELLO, bytes(30), SEED ^ 1, seq=3), [packet(1, 3, bytes(30))], {}),  # open: strangers may greet
    (reference.frame(MessageId.HELLO, bytes(5), SEED, seq=3, protocol=9), [packet(1, 3, bytes(5), 9)], {}),
    (reference.frame(MessageId.ARM, bytes(4), SEED, protocol=9), [], {"protocol": 1}),
    (reference.frame(MessageId.ARM, bytes(4), SEED, flags=1), [], {"flags": 1}),
    (reference.frame(13, b"", SEED), [], {"message": 1}),
    (reference.frame(0, b"", SEED), [], {"message": 1}),
    (reference.frame(255, b"", SEED), [], {"message": 1}),
    (reference.frame(MessageId.ARM, bytes(5), SEED), [], {"payload": 1}),
    (reference.frame(MessageId.ARM, bytes(3), SEED), [], {"payload": 1}),
])  # fmt: skip
def test_each_kind_of_bad_frame_is_counted_by_its_name_and_the_next_one_is_read(core, stream, packets, errors):
    assert deframe(core, stream) == (packets, NONE | errors)
    assert reference.decode(stream, SIZES, SEED) == (packets, NONE | errors)


@pytest.mark.slow
def test_c_python_and_reference_agree_on_random_streams():
    found = compare.compare(SPEC, 250, seed := int(np.random.default_rng().integers(1 << 32)))
    print("seed", seed)
    assert min(found.values()) > 0, found  # the corpus reaches every verdict


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=300)))
def test_c_and_reference_agree_on_any_bytes(core, chunks):
    stream = b"\0".join(chunks) + b"\0"
    assert deframe(core, stream) == reference.decode(stream, SIZES, SEED)


@pytest.mark.parametrize("fill", [0x00, 0x01, 0xFF])
def test_c_writes_every_length_as_the_reference_does(core, fill):
    out = ctypes.create_string_buffer(256)
    for length in range(241):
        payload = bytes([fill]) * length
        for message in (MessageId.SPEC_TEXT, MessageId.TELEMETRY):  # one open, one closed
            expected = reference.frame(message, payload, SEED, 0x0102, 0x03040506)
            written = core.host_enframe(out, message, 0x0102, 0x03040506, payload, length)
            assert out.raw[:written] == expected
    assert core.host_enframe(out, MessageId.SPEC_TEXT, 0, 0, bytes(241), 241) == 0  # more than a packet holds


def test_the_crc_is_zlib_s_with_any_seed(core):
    generator = np.random.default_rng(5)
    for length in (0, 1, 2, 9, 254):
        data, seed = generator.bytes(length), int(generator.integers(1 << 32))
        assert core.host_crc32(seed, data, length) == zlib.crc32(data, seed)


# What may follow what, whatever comes in; a mode may always stay.
ALLOWED = {
    BoardMode.DISARMED: {BoardMode.ARMED, BoardMode.ESTOP},
    BoardMode.ARMED: {BoardMode.DISARMED, BoardMode.FALLBACK, BoardMode.FAULT, BoardMode.ESTOP},
    BoardMode.FALLBACK: {BoardMode.ARMED, BoardMode.DISARMED, BoardMode.FAULT, BoardMode.ESTOP},
    BoardMode.FAULT: {BoardMode.DISARMED, BoardMode.ESTOP},
    BoardMode.ESTOP: set(),
}


class MadHost:
    """Everything a host can say, at random, over a link that damages some of it, to a robot that is shaken."""

    def __init__(self, generator, board):
        self.generator, self.board = generator, board
        self.cable = StreamMaker(2, 1, SPEC.firmware_fingerprint, generator)

    def number(self):
        return float(self.generator.choice([0.0, 0.3, -0.9, 5.0, 1e30, np.nan, np.inf], p=[0.25, 0.25, 0.2, 0.2, 0.05, 0.025, 0.025]))

    def frame(self):
        board, draw = self.board, self.generator.random()
        if draw < 0.6:
            return board.command_frame(self.number(), self.number(), deadline_us=int(self.generator.integers(-5000, 60_000)))
        if draw < 0.9:
            return board.frame(MessageId.DISARM) + board.arm_frame()
        if draw < 0.95:
            return board.hello()
        return self.cable.stream() if draw < 0.9999 else board.frame(MessageId.ESTOP)

    def shake(self):
        board, generator = self.board, self.generator
        board.blind = bool(generator.random() < 0.05)
        board.lean(generator.normal(0, 0.15))
        board.gyro_rad_s = generator.normal(0, 1.0, 3)
        board.counts += generator.integers(-40, 41, 2)
        board.battery_v = 8.0 if generator.random() < 0.01 else 12.0


def drive_mad(ticks, seed):
    generator = np.random.default_rng(seed)
    board = BenchBoard().greet()
    host, before, seen, last = MadHost(generator, board), board.mode, set(), board.command.copy()
    for _ in range(ticks):
        host.shake()
        board.tick(*([host.frame()] if generator.random() < 0.3 else []))
        mode = board.mode
        # A DISARM and an ARM may come in one tick, so two steps may have happened since the last look.
        reachable = ALLOWED[before] | {before} | {after for step in ALLOWED[before] for after in ALLOWED[step]}
        assert mode in reachable, (before, mode)
        assert np.all(np.abs(board.command) <= np.float32(0.9))
        if mode in (BoardMode.ARMED, BoardMode.FALLBACK):
            assert np.all(np.abs(board.command - last) <= 50 * 0.061 * 1.25)
        else:
            assert not board.command.any(), mode
        if mode == BoardMode.ESTOP:
            board.power_on(board.now_us)
            board.greet()
        before, last = board.mode, board.command.copy()
        seen.add(mode)
    return seen


@pytest.mark.slow
def test_no_host_drives_the_board_past_its_limits_or_its_table_of_modes():
    seed = int(np.random.default_rng().integers(1 << 32))
    print("seed", seed)
    seen = drive_mad(1200, seed)
    assert {BoardMode.DISARMED, BoardMode.ARMED, BoardMode.FAULT} <= seen


@pytest.mark.slow
def test_no_host_drives_the_board_past_its_limits_for_minutes():
    assert drive_mad(60_000, 11) == set(ALLOWED)


@pytest.mark.slow
@pytest.mark.parametrize("robot", ["rover", str(HERE / "bench_bot.toml")])
def test_20_000_streams_through_the_build_that_traps_undefined_behaviour(robot):
    done = subprocess.run(
        [sys.executable, str(HERE / "compare.py"), "--streams", "20000", "--seed", "3", "--sanitize", "--robot", robot],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_the_trapping_build_does_trap(tmp_path):
    """The same flags on a line that is undefined: without this the test above could pass for want of a sanitizer."""
    source, program = tmp_path / "bad.c", tmp_path / "bad"
    source.write_text("int main(int n, char **v) { (void)v; float far = 1e20f * (float)n; return (int)far == n + 2147483647; }\n")
    flags = [flag for flag in SANITIZED_FLAGS if flag.startswith(("-f", "-O")) and flag not in ("-fPIC", "-fvisibility=hidden")]
    subprocess.run([sys.executable, "-m", "ziglang", "cc", *flags, str(source), "-o", str(program)], check=True)
    assert subprocess.run([str(program)], check=False).returncode < 0


@pytest.mark.slow
def test_streams_through_a_whole_board_under_gcc_s_address_sanitizer(tmp_path):
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("gcc is not installed: it brings the address sanitizer, which zig has not")
    (tmp_path / "robot_spec.h").write_text(make_robot_header(SPEC))
    (tmp_path / "messages.h").write_text(make_messages_header())
    sources = [str(FIRMWARE / name) for name in (*CORE, "hal_host.c")] + [str(HERE / "fuzz.c")]
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    program = tmp_path / "fuzz"
    built = subprocess.run(
        [gcc, *flags, f"-I{tmp_path}", f"-I{FIRMWARE}", *sources, "-o", str(program)], capture_output=True, text=True, check=False
    )
    if "cannot find -lasan" in built.stderr:
        pytest.skip("gcc is installed without its address sanitizer library")
    assert built.returncode == 0, built.stderr
    maker = StreamMaker(2, 1, SPEC.firmware_fingerprint, np.random.default_rng(4))
    streams = [maker.stream() for _ in range(10_000)]
    corpus = b"".join(struct.pack("<I", len(stream)) + stream for stream in streams)
    done = subprocess.run([str(program)], input=corpus, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
    found = [reference.decode(stream, SIZES, SEED) for stream in streams]
    packet_bytes = sum(12 + len(packet.payload) for packets, _ in found for packet in packets)
    errors = [sum(counted[name] for _, counted in found) for name in reference.ERRORS]
    assert done.stdout.split() == [str(number).encode() for number in (len(streams), packet_bytes, *errors, 1)]
