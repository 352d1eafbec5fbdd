"""The conversation, without a port: two sessions of either role, or one and a hand that writes the other's packets."""

import struct

import pytest
from firmware import reference
from firmware.board_in_c import BENCH_BOT, bench_bot

from edge_dsac.loop.limiter import Limiter
from edge_dsac.records import Fault
from edge_dsac.spec.robot import robot_from_text
from firmware_bridge.framing import Deframer, Packet
from firmware_bridge.messages import LINK_TABLE, AckResult, LinkEvent, LinkState, MessageId, Role
from firmware_bridge.session import MAX_EVENTS, Acked, FaultRaised, LinkDown, LinkRefused, LinkUp, NewBoot, Session
from firmware_bridge.wire import make_hello, make_payload

MS = 1_000_000
START_NS = 7_777_777_777_777  # clocks do not start at zero
SPEC = bench_bot()
DOWN, GREETING, UP, REFUSED = LinkState
START, MATCHES, DIFFERS, SILENCE, PORT_GONE = LinkEvent


def another_bench(**changes):
    text = BENCH_BOT.read_text()
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    return robot_from_text(text, "another.toml", str(BENCH_BOT.parent))


OTHER = another_bench(tilt=("tilt_limit_rad = 0.8", "tilt_limit_rad = 0.7"), baud=("baud = 921600", "baud = 460800"))


class Desk:
    """One session, a clock that only the test moves, and the other side's pen."""

    def __init__(self, role=Role.HOST, spec=SPEC):
        self.session = Session(spec, role, session_id=0x0A0A)
        self.now_ns, self.seq, self.t_us = START_NS, 100, 5_000_000
        self.reader = Deframer(spec)
        self.sent = []

    def wait(self, milliseconds):
        self.now_ns += round(milliseconds * MS)
        return self.poll()

    def poll(self):
        packets = [packet for data in self.session.poll(self.now_ns) for packet in self.reader.feed(data)]
        assert self.reader.errors.total == 0
        self.sent += [(self.now_ns, packet) for packet in packets]
        return [MessageId(packet.message) for packet in packets]

    def run(self, milliseconds, heard_every=50):
        """The other side is alive: it says something every so often that changes nothing."""
        for millisecond in range(milliseconds):
            if millisecond % heard_every == 0:
                self.hear(MessageId.FAULT if self.session.role == Role.HOST else MessageId.HEARTBEAT)
            self.wait(1)
        self.session.take_events()

    def times_of(self, message):
        return [round((at - START_NS) / MS) for at, packet in self.sent if packet.message == message]

    def hear(self, message, payload=None, seq=None, t_us=None, protocol=1):
        if seq is None:
            self.seq = seq = (self.seq + 1) & 0xFFFF
        if payload is None:
            payload = bytes(self.reader.sizes[message])
        self.session.receive(Packet(protocol, message, seq, self.t_us if t_us is None else t_us, payload), self.now_ns)

    def hello(self, spec=SPEC, session=0xBEEF, role=None, **more):
        other = Role.BOARD if self.session.role == Role.HOST else Role.HOST
        self.hear(MessageId.HELLO, make_hello(spec, other if role is None else role, session), **more)

    def telemetry(self, seq=None, t_us=None):
        self.t_us = self.t_us + 5000 if t_us is None else t_us
        self.hear(MessageId.TELEMETRY, seq=seq)
        return self.session.take_frame()

    def greeted(self):
        self.poll()
        self.hello()
        self.poll()
        assert self.session.state == UP
        self.session.take_events()
        return self


# The link's states.

EXPECTED = {
    (DOWN, START): GREETING, (DOWN, MATCHES): UP, (DOWN, DIFFERS): REFUSED, (DOWN, SILENCE): DOWN, (DOWN, PORT_GONE): DOWN,
    (GREETING, START): GREETING, (GREETING, MATCHES): UP, (GREETING, DIFFERS): REFUSED, (GREETING, SILENCE): GREETING, (GREETING, PORT_GONE): DOWN,
    (UP, START): UP, (UP, MATCHES): UP, (UP, DIFFERS): REFUSED, (UP, SILENCE): DOWN, (UP, PORT_GONE): DOWN,
    (REFUSED, START): REFUSED, (REFUSED, MATCHES): UP, (REFUSED, DIFFERS): REFUSED, (REFUSED, SILENCE): DOWN, (REFUSED, PORT_GONE): DOWN,
}  # fmt: skip


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("state", "event"), [(state, event) for state in LinkState for event in LinkEvent])
def test_every_state_meets_every_event(role, state, event):
    session = Session(SPEC, role)
    session.state = state
    moved = session.move(event)
    assert session.state == EXPECTED[state, event]
    assert moved == (EXPECTED[state, event] != state)
    assert ((state, event) in LINK_TABLE) == moved  # what is not listed changes nothing; nothing is listed that changes nothing


def talk(host, board, milliseconds):
    """Two sessions on one clock, byte for byte through their frames."""
    for _ in range(milliseconds):
        for one, other in ((host, board), (board, host)):
            for data in one.session.poll(one.now_ns):
                for packet in other.reader.feed(data):
                    other.session.receive(packet, other.now_ns)
        host.now_ns += MS
        board.now_ns += MS


@pytest.mark.parametrize("late", ["host", "board", "neither"])
def test_both_sides_greet_whoever_came_first(late):
    host, board = Desk(Role.HOST), Desk(Role.BOARD)
    if late == "host":
        for _ in range(30):
            board.wait(10)
    if late == "board":
        for _ in range(30):
            host.wait(10)
    talk(host, board, 110)
    assert (host.session.state, board.session.state) == (UP, UP)
    assert host.session.peer_session == board.session.peer_session == 0x0A0A
    assert host.session.take_events() == [LinkUp("bench_bot")]
    talk(host, board, 3000)
    assert (host.session.state, board.session.state) == (UP, UP)  # heartbeats and clock answers keep it
    assert (host.session.take_events(), host.session.counters.lost, board.session.counters.lost) == ([], 0, 0)
    assert host.session.clock.host_ns_of(1) is not None


def test_two_sides_of_different_robots_refuse_each_other():
    host, board = Desk(Role.HOST), Desk(Role.BOARD, OTHER)
    talk(host, board, 400)
    assert (host.session.state, board.session.state) == (REFUSED, REFUSED)
    assert host.session.refusal.splitlines()[1:] == [
        "  link.baud: board 460800, host 921600",
        "  safety.tilt_limit_rad: board 0.7, host 0.8",
    ]


def test_a_greeting_is_repeated_every_100_ms_until_it_is_answered():
    desk = Desk()
    for _ in range(351):
        desk.wait(1)
    assert desk.times_of(MessageId.HELLO) == [1, 101, 201, 301]
    desk.hello()
    desk.run(400)
    assert desk.times_of(MessageId.HELLO) == [1, 101, 201, 301]


def test_an_unexpected_greeting_is_answered_but_not_more_than_every_50_ms():
    desk = Desk().greeted()
    for _ in range(120):
        desk.hello()
        desk.wait(1)
    assert desk.times_of(MessageId.HELLO) == [0, 52, 103]  # later than 50 ms after the last one, at the next poll


def test_another_robot_is_refused_and_what_differs_is_said_key_by_key():
    desk = Desk()
    desk.poll()
    desk.hello(OTHER)
    (refused,) = desk.session.take_events()
    assert desk.session.state == REFUSED
    assert OTHER.firmware_fingerprint in refused.why
    assert SPEC.firmware_fingerprint in refused.why
    assert "flash the board" in refused.why
    text = "\n".join(f"{key} = {value}" for key, value in sorted(OTHER.firmware_facts.items())).encode()
    assert MessageId.SPEC_READ in desk.poll()
    while desk.sent[-1][1].message == MessageId.SPEC_READ:
        (offset,) = struct.unpack("<H", desk.sent.pop()[1].payload)
        chunk = text[offset : offset + 128]
        desk.hear(MessageId.SPEC_TEXT, struct.pack("<HHB", offset, len(text), len(chunk)) + chunk.ljust(128, b"\0"))
        desk.wait(1)
    (refused,) = desk.session.take_events()
    assert refused == LinkRefused(desk.session.refusal)
    assert refused.why.splitlines()[1:] == ["  link.baud: board 460800, host 921600", "  safety.tilt_limit_rad: board 0.7, host 0.8"]
    assert desk.session.counters.refused == 1


def test_a_lost_chunk_of_facts_is_asked_for_again_and_a_wrong_one_is_not_taken():
    desk = Desk()
    desk.hello(OTHER)
    desk.poll()
    for _ in range(250):
        desk.wait(1)
    asked = [packet for _, packet in desk.sent if packet.message == MessageId.SPEC_READ]
    assert [packet.payload for packet in asked] == [b"\0\0"] * 3
    desk.hear(MessageId.SPEC_TEXT, struct.pack("<HHB", 128, 300, 128) + b"x" * 128)
    desk.hear(MessageId.SPEC_TEXT, struct.pack("<HHB", 0, 300, 0) + b"x" * 128)
    assert desk.session.theirs.text == b""


def test_another_protocol_is_refused_without_reading_what_it_cannot_read():
    desk = Desk()
    desk.poll()
    desk.hear(MessageId.HELLO, b"??", protocol=9)
    (refused,) = desk.session.take_events()
    assert "protocol 9" in refused.why
    assert "this host 1" in refused.why
    for _ in range(300):
        assert MessageId.SPEC_READ not in desk.wait(1)
    assert desk.session.state == REFUSED


def test_a_refusal_is_told_once_for_each_reason():
    desk = Desk()
    for _ in range(5):
        desk.hello(OTHER)
    third = another_bench(tilt=("tilt_limit_rad = 0.8", "tilt_limit_rad = 0.6"))
    for _ in range(5):
        desk.hello(third, session=3)
    assert [type(event) for event in desk.session.take_events()] == [LinkRefused, NewBoot, LinkRefused]
    assert desk.session.counters.refused == 2


def test_what_a_refused_board_tells_is_not_a_frame_and_a_flashed_one_is_welcome():
    desk = Desk()
    desk.hello(OTHER)
    assert desk.telemetry() is None
    desk.hello(SPEC, session=0xF1A5)
    assert desk.session.state == UP
    assert desk.session.refusal == ""
    assert desk.telemetry() is not None
    assert [type(event) for event in desk.session.take_events()] == [LinkRefused, NewBoot, LinkUp]


def test_nothing_is_taken_before_the_greeting():
    desk = Desk()
    desk.poll()
    assert desk.telemetry() is None
    assert desk.session.counters.telemetry == 0


# Boots and silence.


def test_a_new_boot_is_noticed_and_its_counters_and_clock_start_anew():
    desk = Desk().greeted()
    assert desk.telemetry().t_mcu_us == 5_005_000
    assert desk.session.last_frame is not None
    desk.seq, desk.t_us = 0, 1000
    desk.hello(session=0xB002)
    assert desk.session.take_events() == [NewBoot(0xB002)]
    assert desk.session.state == UP
    assert desk.session.last_frame is None  # nothing is answered that the other boot said
    assert desk.telemetry().t_mcu_us == 6000
    assert (desk.session.counters.boots, desk.session.counters.lost, desk.session.counters.stale) == (1, 0, 0)
    assert desk.reader.feed(desk.session.make_arm())[0].payload == struct.pack("<I", 0xB002)


def test_half_a_second_of_silence_ends_the_link_which_then_greets_again():
    desk = Desk().greeted()
    desk.wait(500)
    assert desk.session.state == UP
    assert desk.wait(1) == [MessageId.HELLO]
    assert desk.session.state == GREETING
    assert desk.session.take_events() == [LinkDown(SILENCE)]
    desk.hello()
    assert desk.session.state == UP
    assert desk.session.take_events() == [LinkUp("bench_bot")]  # the same boot: nothing else is new


def test_a_frame_that_waited_is_not_handed_out_after_the_link_ended():
    desk = Desk().greeted()
    desk.hear(MessageId.TELEMETRY, t_us=6_000_000)
    desk.session.port_gone()
    assert desk.session.take_frame() is None
    assert desk.session.take_events() == [LinkDown(PORT_GONE)]
    desk.session.port_gone()
    assert desk.session.take_events() == []  # it is down already


# Telemetry.


def test_of_two_frames_that_waited_the_newer_is_taken():
    desk = Desk().greeted()
    desk.hear(MessageId.TELEMETRY, seq=102, t_us=5_005_000)
    desk.hear(MessageId.TELEMETRY, seq=103, t_us=5_010_000)
    assert desk.session.take_frame().seq == 103
    assert desk.session.take_frame() is None
    assert desk.session.counters.telemetry == 2


def test_telemetry_that_comes_twice_or_late_is_dropped_and_counted():
    desk = Desk().greeted()
    assert desk.telemetry(seq=110, t_us=5_010_000).seq == 110
    assert desk.telemetry(seq=110, t_us=5_010_000) is None
    assert desk.telemetry(seq=109, t_us=5_005_000) is None
    assert desk.telemetry(seq=111, t_us=5_015_000).seq == 111
    assert (desk.session.counters.stale, desk.session.counters.telemetry) == (2, 2)


def test_telemetry_with_an_older_clock_is_dropped_whatever_its_number():
    desk = Desk().greeted()
    desk.telemetry(seq=110, t_us=5_010_000)
    assert desk.telemetry(seq=111, t_us=5_009_999) is None
    assert desk.session.counters.stale == 1


def test_lost_packets_are_counted_by_their_numbers_over_the_wrap_too():
    desk = Desk()
    desk.seq = 65530
    desk.greeted()  # HELLO is 65531
    for seq in (65532, 65535, 2, 1, 3):  # lost: 65533, 65534; then 0 and 1, of which 1 came late; 3 is in order
        desk.telemetry(seq=seq)
    assert desk.session.counters.lost == 4
    assert desk.session.counters.stale == 1


# What is due when.


def test_the_host_asks_for_the_clock_every_100_ms_and_that_is_heartbeat_enough():
    desk = Desk().greeted()
    desk.run(1000)
    assert desk.times_of(MessageId.TIME_SYNC) == list(range(0, 1001, 100))
    assert desk.times_of(MessageId.HEARTBEAT) == []


def test_the_board_asks_for_nothing():
    desk = Desk(Role.BOARD).greeted()
    desk.sent.clear()
    desk.run(1000)
    assert desk.sent == []


def test_the_host_is_never_silent_for_longer_than_100_ms():
    desk = Desk().greeted()
    desk.run(2000)
    at = sorted({at for at, _ in desk.sent})
    assert max(b - a for a, b in zip(at, at[1:], strict=False)) <= 100 * MS


def test_the_board_answers_the_clock_question_with_its_own_stamps():
    desk = Desk(Role.BOARD).greeted()
    desk.hear(MessageId.TIME_SYNC, struct.pack("<QII", 987_654_321, 0, 0))
    desk.poll()
    stamp = desk.now_ns // 1000 & 0xFFFFFFFF
    assert struct.unpack("<QII", desk.sent[-1][1].payload) == (987_654_321, stamp, stamp)


def test_only_the_answer_to_the_last_clock_question_counts_and_only_once():
    desk = Desk().greeted()
    asked = desk.now_ns
    desk.wait(1)
    stale = make_payload(MessageId.TIME_SYNC, host_send_ns=asked - 1, mcu_receive_us=1, mcu_send_us=1)
    answer = make_payload(MessageId.TIME_SYNC, host_send_ns=asked, mcu_receive_us=5_000_000, mcu_send_us=5_000_100)
    desk.hear(MessageId.TIME_SYNC, stale)
    assert desk.session.clock.exchanges == 0
    for _ in range(3):
        desk.hear(MessageId.TIME_SYNC, answer)
    desk.wait(1)  # no frame came with it: its own stamps are taken at the next look
    desk.wait(1)
    assert desk.session.clock.exchanges == 1
    # Round trip 1 ms of which the board took 0.1: the midpoints 5.00005 s and asked + 0.5 ms are one instant.
    assert desk.session.clock.host_ns_of(5_000_050) == asked + 500_000
    assert desk.session.clock.uncertainty_ns == 450_000


def test_the_way_back_is_measured_by_the_frame_that_is_taken_with_the_answer():
    """A loop at 100 Hz sees the answer up to 10 ms late; the frame beside it left the board just now."""
    desk = Desk().greeted()
    asked = desk.now_ns
    answer = make_payload(MessageId.TIME_SYNC, host_send_ns=asked, mcu_receive_us=5_000_000, mcu_send_us=5_000_100)
    desk.now_ns += 10 * MS
    desk.hear(MessageId.TIME_SYNC, answer)
    desk.hear(MessageId.TELEMETRY, t_us=5_009_600)
    desk.session.poll(desk.now_ns)
    assert desk.session.take_frame() is not None
    # Out: asked is 5.0 s or later. Back: 5.0096 s is asked + 10 ms or earlier. So the offset is known to 0.4 ms, not to 10.
    assert desk.session.clock.exchanges == 1
    assert desk.session.clock.uncertainty_ns == 200_000
    assert desk.session.clock.host_ns_of(5_000_000) == asked + 200_000


# Who says what.


@pytest.mark.parametrize("role", Role)
def test_what_only_our_own_side_says_is_an_echo_and_no_sign_of_life(role):
    mine = {MessageId.COMMAND, MessageId.HEARTBEAT, MessageId.ARM, MessageId.DISARM, MessageId.ESTOP, MessageId.SPEC_READ}
    if role == Role.BOARD:
        mine = {MessageId.TELEMETRY, MessageId.ACK, MessageId.FAULT, MessageId.SPEC_TEXT}
    desk = Desk(role).greeted()
    desk.now_ns += 400 * MS
    for message in mine:
        desk.hear(message)
    assert desk.session.counters.echoes == len(mine)
    desk.wait(101)
    assert desk.session.state == GREETING  # 501 ms after the last word of the other side


def test_an_echo_of_our_own_greeting_is_no_board():
    desk = Desk()
    desk.poll()
    desk.hello(role=Role.HOST)
    assert desk.session.state == GREETING
    assert desk.session.counters.echoes == 1


def test_a_cable_that_only_echoes_never_brings_the_link_up():
    desk = Desk()
    for _ in range(1500):
        desk.now_ns += MS
        for data in desk.session.poll(desk.now_ns):
            for packet in desk.reader.feed(data):
                desk.session.receive(packet, desk.now_ns)
    assert desk.session.state == GREETING
    assert desk.session.peer_session is None


def test_answers_and_faults_become_events():
    desk = Desk().greeted()
    desk.hear(MessageId.ACK, make_payload(MessageId.ACK, message=MessageId.ARM, result=AckResult.TILTED, faults=Fault.TILT))
    desk.hear(MessageId.FAULT, make_payload(MessageId.FAULT, board=4, faults=Fault.OVERSPEED, milli=-61_500))
    assert desk.session.take_events() == [Acked(MessageId.ARM, AckResult.TILTED, Fault.TILT), FaultRaised(Fault.OVERSPEED, -61.5)]
    desk.hear(MessageId.ACK, make_payload(MessageId.ACK, message=99))
    desk.hear(MessageId.ACK, make_payload(MessageId.ACK, message=MessageId.ARM, result=99))
    assert desk.session.take_events() == []


def test_events_that_nobody_takes_are_bounded_and_the_newest_stay():
    desk = Desk().greeted()
    for number in range(MAX_EVENTS + 10):
        desk.hear(MessageId.FAULT, make_payload(MessageId.FAULT, milli=number * 1000))
    values = [event.value for event in desk.session.take_events()]
    assert values == [float(number) for number in range(10, MAX_EVENTS + 10)]
    assert desk.session.take_events() == []


# What the caller may ask for.


def test_a_command_is_good_for_the_timeout_after_the_frame_it_answers():
    desk = Desk().greeted()
    frame = desk.telemetry(t_us=5_040_000)
    (packet,) = desk.reader.feed(desk.session.make_command(Limiter(SPEC).damp(frame), frame))
    assert struct.unpack_from("<HI", packet.payload) == (frame.seq, 5_100_000)


def test_arming_is_addressed_and_stopping_is_not():
    desk = Desk().greeted()
    session = desk.session
    sent = [desk.reader.feed(data)[0] for data in (session.make_arm(), session.make_disarm(), session.make_estop())]
    assert [(packet.message, packet.payload) for packet in sent] == [
        (MessageId.ARM, struct.pack("<I", 0xBEEF)), (MessageId.DISARM, b""), (MessageId.ESTOP, b""),
    ]  # fmt: skip


def test_nothing_is_ever_armed_by_itself():
    desk = Desk().greeted()
    desk.run(1000)
    desk.hello(session=2)
    desk.run(1000)
    assert {packet.message for _, packet in desk.sent} == {MessageId.HELLO, MessageId.TIME_SYNC}


def test_every_packet_is_read_by_the_other_side_s_codec():
    desk = Desk()
    data = b"".join(desk.session.poll(desk.now_ns)) + desk.session.make_arm()
    packets, errors = reference.decode(data, reference.sizes(2, 1), reference.closed_seed(SPEC.firmware_fingerprint))
    assert [packet.message for packet in packets] == [1, 5]
    assert not any(errors.values())
