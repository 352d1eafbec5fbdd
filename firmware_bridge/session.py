"""The conversation with the other side: greeting, refusal, heartbeat, clock, boots. Pure: no port, no clock of its own.

Packets go in with the instant they came at, bytes to send come out of `poll` and the `make_` functions, what happened comes
out of `take_events`. Role-blind: host and board follow messages.LINK_TABLE. Rule that must stay true: nothing is ever armed
here; ARM is the caller's word, addressed to one boot of one board.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_dsac.records import CommandFrame, Fault, SensorFrame
from edge_dsac.spec.robot import RobotSpec, differing
from firmware_bridge.clock_sync import ClockSync
from firmware_bridge.framing import Framer, Packet
from firmware_bridge.messages import (
    HEARTBEAT_MS,
    HELLO_RETRY_MS,
    LINK_TABLE,
    PROTOCOL_MAJOR,
    SILENCE_MS,
    SPEC_CHUNK_BYTES,
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


Event = LinkUp | LinkRefused | LinkDown | NewBoot | Acked | FaultRaised


@dataclass(slots=True)
class Counters:
    telemetry: int = 0
    lost: int = 0  # packets of the other side that never came, by its sequence numbers
    stale: int = 0  # telemetry that came twice or out of order
    boots: int = 0
    refused: int = 0


class Session:
    def __init__(self, spec: RobotSpec, role: Role = Role.HOST, session_id: int = 1) -> None:
        self.spec, self.role, self.session_id = spec, role, session_id
        self.framer, self.wire, self.clock = Framer(spec), Wire(spec), ClockSync()
        self.counters = Counters()
        self.state = LinkState.DOWN
        self.peer_session: int | None = None
        self.refusal = ""
        self.events: list[Event] = []
        self.newest: Packet | None = None  # telemetry that was not taken yet
        self.last_seq: int | None = None
        self.last_telemetry_seq: int | None = None
        self.heard_ns = self.hello_ns = self.sent_ns = self.sync_ns = self.asked_ns = -(1 << 62)
        self.replies: list[bytes] = []
        self.theirs = b""  # the board's own facts, as far as they were read
        self.theirs_total: int | None = None
        self.handlers = {
            int(MessageId.HELLO): self.on_hello, int(MessageId.TELEMETRY): self.on_telemetry, int(MessageId.ACK): self.on_ack,
            int(MessageId.FAULT): self.on_fault, int(MessageId.TIME_SYNC): self.on_time_sync,
            int(MessageId.SPEC_TEXT): self.on_spec_text, int(MessageId.SPEC_READ): self.on_spec_read,
        }  # fmt: skip

    # What comes in.

    def receive(self, packet: Packet, now_ns: int) -> None:
        self.heard_ns = now_ns
        if self.last_seq is not None:
            step = (packet.seq - self.last_seq) & 0xFFFF
            if 0 < step < 0x8000:
                self.counters.lost += step - 1
                self.last_seq = packet.seq
        else:
            self.last_seq = packet.seq
        handler = self.handlers.get(packet.message)
        if handler is not None:
            handler(packet, now_ns)

    def on_telemetry(self, packet: Packet, now_ns: int) -> None:
        if self.state != LinkState.UP:
            return
        if self.last_telemetry_seq is not None and not 0 < (packet.seq - self.last_telemetry_seq) & 0xFFFF < 0x8000:
            self.counters.stale += 1
            return
        self.last_telemetry_seq = packet.seq
        self.counters.telemetry += 1
        self.newest = packet

    def take_frame(self) -> SensorFrame | None:
        """The newest frame that was not taken yet; older ones that waited with it are passed over."""
        packet = self.newest
        if packet is None:
            return None
        self.newest = None
        return self.wire.decode_telemetry(packet)

    def on_hello(self, packet: Packet, now_ns: int) -> None:
        if packet.protocol != PROTOCOL_MAJOR:
            self.refuse(f"the board speaks protocol {packet.protocol}, this host {PROTOCOL_MAJOR}; flash firmware of this version")
            return
        hello = parse(MessageId.HELLO, packet.payload)
        if hello["role"] == self.role:
            return  # our own echo, or a second host on the wire
        session = int(hello["session"])
        if session != self.peer_session:
            self.meet(session)
        self.last_seq = packet.seq
        ours = bytes.fromhex(self.spec.firmware_fingerprint)
        if hello["firmware_fingerprint"].tobytes() == ours:
            self.refusal = ""
            if self.move(LinkEvent.HELLO_MATCHES):
                self.push(LinkUp(hello["model"].tobytes().rstrip(b"\0").decode("ascii", "replace")))
        else:
            model = hello["model"].tobytes().rstrip(b"\0").decode("ascii", "replace")
            theirs = hello["firmware_fingerprint"].tobytes().hex()
            self.refuse(
                f"the board was built for {model} firmware {theirs}, this host has {self.spec.model} {self.spec.firmware_fingerprint}"
                "; flash the board or use its robot file"
            )
        if now_ns - self.hello_ns > REGREET_MS * MS:
            self.replies.append(self.hello(now_ns))

    def meet(self, session: int) -> None:
        """Another boot of the other side than the last one we knew, or the first."""
        if self.peer_session is not None:
            self.counters.boots += 1
            self.push(NewBoot(session))
        self.peer_session = session
        self.last_telemetry_seq, self.newest = None, None
        self.wire.reset()
        self.clock.restart()

    def refuse(self, why: str) -> None:
        if self.move(LinkEvent.HELLO_DIFFERS):
            self.counters.refused += 1
            self.refusal, self.theirs, self.theirs_total = why, b"", None
            self.push(LinkRefused(why))

    def on_ack(self, packet: Packet, now_ns: int) -> None:
        ack = parse(MessageId.ACK, packet.payload)
        if int(ack["message"]) in MessageId._value2member_map_ and int(ack["result"]) in AckResult._value2member_map_:
            self.push(Acked(MessageId(int(ack["message"])), AckResult(int(ack["result"])), Fault(int(ack["faults"]))))

    def on_fault(self, packet: Packet, now_ns: int) -> None:
        fault = parse(MessageId.FAULT, packet.payload)
        self.push(FaultRaised(Fault(int(fault["faults"])), int(fault["milli"]) / 1000))

    def on_time_sync(self, packet: Packet, now_ns: int) -> None:
        host_send, receive, send = (int(v) for v in parse(MessageId.TIME_SYNC, packet.payload))
        if self.role == Role.HOST:
            full = self.wire.full_time_us
            self.clock.exchange(host_send, full(receive), full(send), now_ns)
        else:
            stamp = now_ns // 1000 & 0xFFFFFFFF
            answer = make_payload(MessageId.TIME_SYNC, host_send_ns=host_send, mcu_receive_us=stamp, mcu_send_us=stamp)
            self.replies.append(self.framer.frame(MessageId.TIME_SYNC, answer))

    def on_spec_read(self, packet: Packet, now_ns: int) -> None:
        if self.role == Role.BOARD:
            offset = int(parse(MessageId.SPEC_READ, packet.payload)["offset"])
            self.replies.append(self.framer.frame(MessageId.SPEC_TEXT, make_spec_text(facts_text(self.spec.firmware_facts), offset)))

    def on_spec_text(self, packet: Packet, now_ns: int) -> None:
        text = parse(MessageId.SPEC_TEXT, packet.payload)
        if self.state != LinkState.REFUSED or int(text["offset"]) != len(self.theirs):
            return
        length = min(int(text["length"]), SPEC_CHUNK_BYTES)
        self.theirs += text["data"].tobytes()[:length]
        self.theirs_total = int(text["total"])
        if length and len(self.theirs) < self.theirs_total:
            self.replies.append(self.ask_facts(now_ns))
        elif length and len(self.theirs) == self.theirs_total:
            self.refusal += "".join(f"\n  {key}: board {theirs}, host {ours}" for key, ours, theirs in self.differences())
            self.push(LinkRefused(self.refusal))

    def differences(self) -> list[tuple[str, str, str]]:
        return differing(self.spec.firmware_facts, parse_facts(self.theirs))

    # What goes out.

    def poll(self, now_ns: int) -> list[bytes]:
        """Whatever is due now; call it at every tick."""
        out, self.replies = self.replies, []
        if self.state in (LinkState.UP, LinkState.REFUSED) and now_ns - self.heard_ns > SILENCE_MS * MS:
            self.down(LinkEvent.SILENCE)
        if self.state == LinkState.DOWN:
            self.move(LinkEvent.START)
        if self.state == LinkState.UP:
            if self.role == Role.HOST and now_ns - self.sync_ns >= TIME_SYNC_MS * MS:
                self.sync_ns = now_ns
                out.append(self.framer.frame(MessageId.TIME_SYNC, make_payload(MessageId.TIME_SYNC, host_send_ns=now_ns)))
            elif self.role == Role.HOST and not out and now_ns - self.sent_ns >= HEARTBEAT_MS * MS:
                out.append(self.framer.frame(MessageId.HEARTBEAT))
        elif now_ns - self.hello_ns >= HELLO_RETRY_MS * MS:
            out.append(self.hello(now_ns))
        if self.state == LinkState.REFUSED and self.role == Role.HOST and self.wants_facts() and now_ns - self.asked_ns >= HELLO_RETRY_MS * MS:
            out.append(self.ask_facts(now_ns))
        if out:
            self.sent_ns = now_ns
        return out

    def wants_facts(self) -> bool:
        return self.theirs_total is None or len(self.theirs) < self.theirs_total

    def ask_facts(self, now_ns: int) -> bytes:
        self.asked_ns = now_ns
        return self.framer.frame(MessageId.SPEC_READ, make_payload(MessageId.SPEC_READ, offset=len(self.theirs)))

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
            self.newest = None
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


def facts_text(facts: dict[str, str]) -> bytes:
    """As the board holds it: sorted `key = value` lines."""
    return "\n".join(f"{key} = {facts[key]}" for key in sorted(facts)).encode()


def parse_facts(text: bytes) -> dict[str, str]:
    lines = (line.partition(" = ") for line in text.decode("utf-8", "replace").splitlines())
    return {key: value for key, found, value in lines if found}


def random_session_id(generator: np.random.Generator) -> int:
    return int(generator.integers(1, 1 << 32))
