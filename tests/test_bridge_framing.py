"""Bytes <-> packets in Python: whole, byte by byte, in garbage, bent. Expected frames come from reference.py, written apart."""

import zlib
from dataclasses import asdict

import pytest
from firmware import reference
from firmware.board_in_c import bench_bot
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.framing import Deframer, Framer, Packet, payload_sizes
from firmware_bridge.messages import MessageId

SPEC = bench_bot()
SEED = reference.closed_seed(SPEC.firmware_fingerprint)
NONE = dict.fromkeys(reference.ERRORS, 0)
SIZES = reference.sizes(joints=2, extras=1)

HEARTBEAT = reference.frame(MessageId.HEARTBEAT, b"", SEED, seq=7)
ARM = reference.frame(MessageId.ARM, b"\x11\x22\x33\x44", SEED, seq=8, t_mcu_us=5)
STRANGER = reference.frame(MessageId.HELLO, bytes(30), SEED ^ 1, seq=9)
HEARD, ARMED = Packet(1, 4, 7, 0, b""), Packet(1, 5, 8, 5, b"\x11\x22\x33\x44")


def feed(*chunks):
    deframer = Deframer(SPEC)
    packets = [packet for chunk in chunks for packet in deframer.feed(chunk)]
    return packets, asdict(deframer.errors)


def bent(frame, at):
    return frame[:at] + bytes([frame[at] ^ 0x10]) + frame[at + 1 :]


CASES = [
    (b"", [], {}),
    (b"\0\0\0", [], {}),
    (HEARTBEAT, [HEARD], {}),
    (ARM + HEARTBEAT, [ARMED, HEARD], {}),
    (b"\0\0" + ARM + b"\0" + HEARTBEAT, [ARMED, HEARD], {}),
    (HEARTBEAT[:-1] + ARM, [], {"crc": 1}),  # the delimiter was lost: two frames in one
    (HEARTBEAT[5:] + ARM, [ARMED], {"length": 1}),  # began to listen in the middle of a frame
    (HEARTBEAT[:-3] + b"\0" + ARM, [ARMED], {"cobs": 1}),
    (bent(ARM, 3) + HEARTBEAT, [HEARD], {"crc": 1}),
    (b"\x01\0", [], {"length": 1}),
    (b"\x05abc\0", [], {"cobs": 1}),
    (b"\xff" * 255 + b"\0", [], {"crc": 1}),  # the longest there may be
    (b"\xff" * 256 + b"\0" + ARM, [ARMED], {"length": 1}),
    (b"\x01" * 9000 + b"\0" + ARM, [ARMED], {"length": 1}),
    (reference.frame(MessageId.ARM, bytes(4), SEED ^ 1), [], {"crc": 1}),  # another robot's ARM
    (STRANGER, [Packet(1, 1, 9, 0, bytes(30))], {}),  # another robot's HELLO
    (reference.frame(MessageId.HELLO, b"??", SEED, protocol=9), [Packet(9, 1, 0, 0, b"??")], {}),
    (reference.frame(MessageId.ARM, bytes(4), SEED, protocol=9), [], {"protocol": 1}),
    (reference.frame(MessageId.ARM, bytes(4), SEED, flags=0x8000), [], {"flags": 1}),
    (reference.frame(13, b"", SEED), [], {"message": 1}),
    (reference.frame(MessageId.ARM, bytes(3), SEED), [], {"payload": 1}),
    (reference.frame(MessageId.HEARTBEAT, b"x", SEED), [], {"payload": 1}),
]


@pytest.mark.parametrize(("stream", "packets", "errors"), CASES)
class TestOneStream:
    def test_whole(self, stream, packets, errors):
        assert feed(stream) == (packets, NONE | errors)

    def test_byte_by_byte(self, stream, packets, errors):
        assert feed(*(stream[i : i + 1] for i in range(len(stream)))) == (packets, NONE | errors)

    def test_after_garbage_that_ended(self, stream, packets, errors):
        found, counted = feed(b"\x07garbage!\0" + stream)
        assert (found, sum(counted.values())) == (packets, 1 + sum(errors.values()))

    def test_before_garbage_that_has_not_ended(self, stream, packets, errors):
        assert feed(stream + b"garbage") == (packets, NONE | errors)


def test_a_frame_is_the_very_bytes_worked_by_hand():
    framer = Framer(SPEC)
    framer.seq = 3
    # protocol 1, ESTOP, seq 3, flags 0, clock; no payload
    body = bytes.fromhex("01 07 03 00 00 00 78 56 34 12")
    crc = zlib.crc32(body, SEED).to_bytes(4, "little")
    assert 0 not in crc  # else the blocks below would be others
    assert framer.frame(MessageId.ESTOP, b"", 0x12345678) == b"\x04\x01\x07\x03" + b"\x01\x01" + b"\x09\x78\x56\x34\x12" + crc + b"\0"


def test_a_sender_counts_its_packets_and_starts_again_after_65535():
    framer = Framer(SPEC)
    framer.seq = 65534
    packets, _ = feed(*(framer.frame(MessageId.HEARTBEAT) for _ in range(4)))
    assert [packet.seq for packet in packets] == [65534, 65535, 0, 1]


def test_the_sizes_are_those_of_the_robot(bot, rover):
    assert payload_sizes(SPEC) == SIZES
    assert payload_sizes(bot) == reference.sizes(2, 0)
    assert payload_sizes(rover) == reference.sizes(2, 3)


def test_forgetting_drops_only_the_unfinished_frame():
    deframer = Deframer(SPEC)
    assert deframer.feed(HEARTBEAT + ARM[:6]) == [HEARD]
    deframer.forget()
    assert deframer.feed(ARM) == [ARMED]
    assert deframer.errors.total == 0


def test_a_sender_that_never_ends_a_frame_costs_no_memory():
    deframer = Deframer(SPEC)
    for _ in range(100):
        deframer.feed(b"\x01" * 4096)
    assert len(deframer.rest) <= 256
    assert deframer.feed(b"\0" + ARM) == [ARMED]
    assert asdict(deframer.errors) == NONE | {"length": 1}


# Frames as they should be, as they may become, and anything at all.
frames = st.sampled_from([HEARTBEAT, ARM, STRANGER])
streams = st.lists(
    st.one_of(frames, frames.map(lambda frame: frame[:-1]), st.binary(max_size=40), st.builds(bent, frames, st.integers(0, 14)),
              st.integers(250, 260).map(lambda n: b"\x01" * n)),
    max_size=8,
).map(b"".join)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(streams, st.lists(st.integers(0, 600), max_size=12))
def test_how_a_stream_is_cut_changes_nothing(stream, cuts):
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    chunks = [stream[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    assert feed(*chunks) == feed(stream) == reference.decode(stream, SIZES, SEED)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=600), max_size=6))
def test_any_bytes_give_packets_or_counted_errors(chunks):
    packets, errors = feed(*chunks)
    parts = [part for part in b"".join(chunks).split(b"\0")[:-1] if part]
    assert len(packets) + sum(errors.values()) == len(parts)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SIZES)), st.binary(min_size=133, max_size=133), st.integers(0, 65535), st.integers(0, (1 << 32) - 1))
def test_any_payload_comes_back(message, noise, seq, t_mcu_us):
    payload = noise[: SIZES[message]]
    framer = Framer(SPEC)
    framer.seq = seq
    frame = framer.frame(message, payload, t_mcu_us)
    assert frame == reference.frame(message, payload, SEED, seq, t_mcu_us)
    assert frame.index(0) == len(frame) - 1
    assert feed(frame) == ([Packet(1, message, seq, t_mcu_us, payload)], NONE)


@pytest.mark.slow
@pytest.mark.parametrize("message", [MessageId.ARM, MessageId.TELEMETRY, MessageId.HELLO])
def test_no_single_flipped_bit_yields_a_wrong_packet(message):
    """Every bit of the frame, its delimiter included. The frame after it is lost only where the two have run into one."""
    payload = bytes(range(SIZES[message]))
    frame = reference.frame(message, payload, SEED, seq=300)
    for at in range(len(frame)):
        for bit in range(8):
            flipped = frame[:at] + bytes([frame[at] ^ 1 << bit]) + frame[at + 1 :]
            packets, errors = feed(flipped + HEARTBEAT)
            assert packets == ([HEARD] if at < len(frame) - 1 else []), (at, bit)
            assert sum(errors.values()) >= 1, (at, bit)
