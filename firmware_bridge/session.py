"""The conversation with the other side: greeting, refusal, heartbeat, clock, boots. Pure: no port, no clock of its own.

Packets go in with the instant they came at, bytes to send come out of `poll` and the `make_` functions, what happened comes
out of `take_events`. Role-blind: host and board follow messages.LINK_TABLE. Rule that must stay true: nothing is ever armed
here; ARM is the caller's word, addressed to one boot of one board.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from edge_dsac.records import CommandFrame, Fault, SensorFrame
from edge_dsac.spec.robot import RobotSpec
from firmware_bridge.clock_sync import ClockSync
from firmware_bridge.facts import FactsReader, describe_differences
from firmware_bridge.facts import facts_text as facts_text  # the header's generator asks for it here
from firmware_bridge.framing import Framer, Packet
from firmware_bridge.messages import (
    HEARTBEAT_MS,
    HELLO_RETRY_MS,
    LINK_TABLE,
    PROTOCOL_MAJOR,
    SILENCE_MS,
    TIME_SYNC_MS,
    AckResult,
    LinkEvent,
    LinkState,
    MessageId,
    Role,
)
from firmware_bridge.wire import Wire, make_hello, make_payload, make_spec_text, parse

MS = 1_000_000
REGREET_MS = 50  # an unexpected HELLO is answered, but two sides must not greet each other for ever
MAX_EVENTS = 64  # nobody may have asked for a long time; the oldest are the least useful
# Who says what. A packet that only our own side says is an echo (a two-wire bus) or a second host: no sign of life of the other.
BOTH_SAY = {MessageId.HELLO, MessageId.TIME_SYNC}
BOARD_SAYS = {MessageId.TELEMETRY, MessageId.ACK, MessageId.FAULT, MessageId.SPEC_TEXT}
SAYS = {Role.BOARD: frozenset(BOARD_SAYS | BOTH_SAY), Role.HOST: frozenset(set(MessageId) - BOARD_SAYS)}


@dataclass(frozen=True, slots=True)
class LinkUp:
    model: str


@dataclass(frozen=True, slots=True)
class LinkRefused:
    why: str


@dataclass(frozen=True, slots=True)
class LinkDown:
    because: LinkEvent


@dataclass(frozen=True, slots=True)
class NewBoot:
    """The board restarted: its counters, its clock and its arming start anew."""

    session: int


@dataclass(frozen=True, slots=True)
class Acked:
    message: MessageId
    result: AckResult
    faults: Fault


@dataclass(frozen=True, slots=True)
class FaultRaised:
    faults: Fault
    value: float


class Stamps(NamedTuple):
    """Of one question and answer, as ClockSync takes them."""

    host_send_ns: int
    mcu_receive_us: int
    mcu_send_us: int
    host_receive_ns: int


Event = LinkUp | LinkRefused | LinkDown | NewBoot | Acked | FaultRaised


@dataclass(slots=True)
class Counters:
    telemetry: int = 0
    lost: int = 0  # packets of the other side that never came, by its sequence numbers
    stale: int = 0  # telemetry that came twice or out of order
    echoes: int = 0  # packets that only our own side sends
    boots: int = 0
    refused: int = 0


class Session:
    def __init__(self, spec: RobotSpec, role: Role = Role.HOST, session_id: int = 1) -> None:
        self.spec, self.role, self.session_id = spec, role, session_id
        self.framer, self.wire, self.clock = Framer(spec), Wire(spec), ClockSync()
        self.counters = Counters()
        self.state = LinkState.DOWN
        self.peer_session: int | None = None
        self.refusal = self.refused_because = ""  # with and without the list of what differs
        self.events: list[Event] = []
        self.newest: Packet | None = None  # telemetry that was not taken yet
        self.last_frame: SensorFrame | None = None  # the last one taken, of this boot of the board
        self.last_seq: int | None = None
        self.last_shown = (0, 0)  # seq and t_mcu_us of the last telemetry, or of the HELLO before the first
        self.heard_ns = self.hello_ns = self.sent_ns = self.sync_ns = self.asked_ns = -(1 << 62)
        self.question_ns: int | None = None  # the TIME_SYNC that is not answered yet
        self.stamps: Stamps | None = None  # of an answer whose way back is not known yet
        self.replies: list[bytes] = []
        self.theirs = FactsReader()
        self.expected = SAYS[Role.BOARD if role == Role.HOST else Role.HOST]
        self.handlers = {
            int(MessageId.HELLO): self.on_hello, int(MessageId.TELEMETRY): self.on_telemetry, int(MessageId.ACK): self.on_ack,
            int(MessageId.FAULT): self.on_fault, int(MessageId.TIME_SYNC): self.on_time_sync,
            int(MessageId.SPEC_TEXT): self.on_spec_text, int(MessageId.SPEC_READ): self.on_spec_read,
        }  # fmt: skip

    # What comes in.

    def receive(self, packet: Packet, now_ns: int) -> None:
        if packet.message not in self.expected:
            self.counters.echoes += 1
            return
        self.heard_ns = now_ns
        if packet.message != MessageId.HELLO:
            self.count_lost(packet.seq)
        handler = self.handlers.get(packet.message)
        if handler is not None:
            handler(packet, now_ns)

    def count_lost(self, seq: int) -> None:
        step = 1 if self.last_seq is None else (seq - self.last_seq) & 0xFFFF
        if 0 < step < 0x8000:
            self.counters.lost += step - 1
            self.last_seq = seq

    def on_telemetry(self, packet: Packet, now_ns: int) -> None:
        if self.state != LinkState.UP:
            return
        seq, t_us = self.last_shown
        if not 0 < (packet.seq - seq) & 0xFFFF < 0x8000 or (packet.t_mcu_us - t_us) & 0xFFFFFFFF >= 1 << 31:
            self.counters.stale += 1
            return
        self.last_shown = (packet.seq, packet.t_mcu_us)
        self.counters.telemetry += 1
        self.newest = packet

    def take_frame(self) -> SensorFrame | None:
        """The newest frame that was not taken yet; older ones that waited with it are passed over."""
        packet = self.newest
        if packet is None:
            return None
        self.newest = None
        self.last_frame = frame = self.wire.decode_telemetry(packet)
        if self.stamps is not None:
            self.exchange(self.stamps._replace(mcu_send_us=frame.t_mcu_us, host_receive_ns=self.heard_ns))
        return frame

    def exchange(self, stamps: Stamps) -> None:
        self.stamps = None
        self.clock.exchange(*stamps)

    def on_hello(self, packet: Packet, now_ns: int) -> None:
        if packet.protocol != PROTOCOL_MAJOR:
            why = f"the board speaks protocol {packet.protocol}, this host {PROTOCOL_MAJOR}; flash firmware of this version"
            self.refuse(why, readable=False)
            return
        hello = parse(MessageId.HELLO, packet.payload)
        if hello["role"] == self.role:
            self.counters.echoes += 1
            return
        session = int(hello["session"])
        if session != self.peer_session:
            self.meet(session, packet)
        self.count_lost(packet.seq)
        model = hello["model"].tobytes().rstrip(b"\0").decode("ascii", "replace")
        theirs = hello["firmware_fingerprint"].tobytes().hex()
        if theirs == self.spec.firmware_fingerprint:
            if self.move(LinkEvent.HELLO_MATCHES):
                self.refusal = self.refused_because = ""
                self.last_shown = (packet.seq, packet.t_mcu_us)
                self.push(LinkUp(model))
        else:
            self.refuse(
                f"the board was built for {model} firmware {theirs}, this host has {self.spec.model} {self.spec.firmware_fingerprint}"
                "; flash the board or use its robot file"
            )
        if now_ns - self.hello_ns > REGREET_MS * MS:
            self.replies.append(self.hello(now_ns))

    def meet(self, session: int, hello: Packet) -> None:
        """Another boot of the other side than the last one we knew, or the first."""
        if self.peer_session is not None:
            self.counters.boots += 1
            self.push(NewBoot(session))
        self.peer_session = session
        self.last_seq, self.last_shown = hello.seq, (hello.seq, hello.t_mcu_us)
        self.newest = self.last_frame = self.question_ns = None
        self.stamps = None
        self.wire.reset()
        self.clock.restart()

    def refuse(self, why: str, readable: bool = True) -> None:
        """Once for each reason: another board may be plugged in while the link is refused."""
        self.move(LinkEvent.HELLO_DIFFERS)
        if why == self.refused_because:
            return
        self.counters.refused += 1
        self.refusal = self.refused_because = why
        self.theirs = FactsReader(readable)
        self.newest = None
        self.push(LinkRefused(why))

    def on_ack(self, packet: Packet, now_ns: int) -> None:
        ack = parse(MessageId.ACK, packet.payload)
        if int(ack["message"]) in MessageId._value2member_map_ and int(ack["result"]) in AckResult._value2member_map_:
            self.push(Acked(MessageId(int(ack["message"])), AckResult(int(ack["result"])), Fault(int(ack["faults"]))))

    def on_fault(self, packet: Packet, now_ns: int) -> None:
        fault = parse(MessageId.FAULT, packet.payload)
        self.push(FaultRaised(Fault(int(fault["faults"])), int(fault["milli"]) / 1000))

    def on_time_sync(self, packet: Packet, now_ns: int) -> None:
        host_send, receive, send = (int(stamp) for stamp in parse(MessageId.TIME_SYNC, packet.payload).tolist())
        if self.role == Role.HOST:
            if host_send != self.question_ns:
                return  # the answer to another question than the last: late, doubled, or of another boot
            # A host that looks once per tick sees the answer up to a tick after it came. For the way back a younger message is
            # better: the frame that is taken at the same look.
            full, self.question_ns = self.wire.full_time_us, None
            self.stamps = Stamps(host_send, full(receive), full(send), now_ns)
        else:
            stamp = now_ns // 1000 & 0xFFFFFFFF
            answer = make_payload(MessageId.TIME_SYNC, host_send_ns=host_send, mcu_receive_us=stamp, mcu_send_us=stamp)
            self.replies.append(self.framer.frame(MessageId.TIME_SYNC, answer))

    def on_spec_read(self, packet: Packet, now_ns: int) -> None:
        if self.role == Role.BOARD:
            offset = int(parse(MessageId.SPEC_READ, packet.payload)["offset"])
            self.replies.append(self.framer.frame(MessageId.SPEC_TEXT, make_spec_text(facts_text(self.spec.firmware_facts), offset)))

    def on_spec_text(self, packet: Packet, now_ns: int) -> None:
        if self.state != LinkState.REFUSED or not self.theirs.take(packet.payload):
            return
        if self.theirs.is_complete():
            self.refusal += describe_differences(self.spec, self.theirs.text)
            self.push(LinkRefused(self.refusal))
        else:
            self.replies.append(self.ask_facts(now_ns))

    # What goes out.

    def poll(self, now_ns: int) -> list[bytes]:
        """Whatever is due now; call it at every tick."""
        out, self.replies = self.replies, []
        if self.stamps is not None and now_ns > self.stamps.host_receive_ns:
            self.exchange(self.stamps)  # no frame came with the answer
        if self.state in (LinkState.UP, LinkState.REFUSED) and now_ns - self.heard_ns > SILENCE_MS * MS:
            self.down(LinkEvent.SILENCE)
        if self.state == LinkState.DOWN:
            self.move(LinkEvent.START)
        if self.state == LinkState.UP:
            if self.role == Role.HOST and now_ns - self.sync_ns >= TIME_SYNC_MS * MS:
                self.sync_ns = self.question_ns = now_ns
                out.append(self.framer.frame(MessageId.TIME_SYNC, make_payload(MessageId.TIME_SYNC, host_send_ns=now_ns)))
            elif self.role == Role.HOST and not out and now_ns - self.sent_ns >= HEARTBEAT_MS * MS:
                out.append(self.framer.frame(MessageId.HEARTBEAT))
        elif now_ns - self.hello_ns >= HELLO_RETRY_MS * MS:
            out.append(self.hello(now_ns))
        if self.wants_facts() and now_ns - self.asked_ns >= HELLO_RETRY_MS * MS:
            out.append(self.ask_facts(now_ns))
        if out:
            self.sent_ns = now_ns
        return out

    def wants_facts(self) -> bool:
        """While refused, the host reads what the board was built for, to say what differs."""
        return self.state == LinkState.REFUSED and self.role == Role.HOST and not self.theirs.is_complete()

    def ask_facts(self, now_ns: int) -> bytes:
        self.asked_ns = now_ns
        return self.framer.frame(MessageId.SPEC_READ, self.theirs.make_question())

    def hello(self, now_ns: int) -> bytes:
        self.hello_ns = now_ns
        return self.framer.frame(MessageId.HELLO, make_hello(self.spec, self.role, self.session_id))

    def make_command(self, command: CommandFrame, frame: SensorFrame) -> bytes:
        """To be obeyed until command_timeout after the instant of the frame it answers: the board's own clock, no sync needed."""
        deadline = frame.t_mcu_us + self.spec.rates.command_timeout_ms * 1000
        return self.framer.frame(MessageId.COMMAND, self.wire.make_command(command, deadline))

    def make_arm(self) -> bytes:
        return self.framer.frame(MessageId.ARM, make_payload(MessageId.ARM, session=self.peer_session or 0))

    def make_disarm(self) -> bytes:
        return self.framer.frame(MessageId.DISARM)

    def make_estop(self) -> bytes:
        return self.framer.frame(MessageId.ESTOP)

    # States and events.

    def port_gone(self) -> None:
        self.down(LinkEvent.PORT_GONE)

    def down(self, because: LinkEvent) -> None:
        if self.move(because):
            self.newest, self.refused_because = None, ""
            self.replies.clear()
            self.hello_ns = -(1 << 62)
            self.push(LinkDown(because))

    def move(self, event: LinkEvent) -> bool:
        following = LINK_TABLE.get((self.state, event))
        if following is None or following == self.state:
            return False
        self.state = following
        return True

    def push(self, event: Event) -> None:
        if len(self.events) >= MAX_EVENTS:
            del self.events[0]
        self.events.append(event)

    def take_events(self) -> list[Event]:
        events, self.events = self.events, []
        return events
