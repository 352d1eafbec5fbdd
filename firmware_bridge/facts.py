"""What the board was built for, in its own words: read in chunks while the link is refused, then compared key by key.

Pure: payloads in, payloads out. Knows the text's form (`key = value` lines), not what the keys mean. Bounded: the other side
says how long its text is, in 16 bits.
"""

from __future__ import annotations

from edge_dsac.spec.robot import RobotSpec, differing
from firmware_bridge.messages import SPEC_CHUNK_BYTES, MessageId
from firmware_bridge.wire import make_payload, parse


class FactsReader:
    """One reading of the other side's facts. It asks for what it does not have; a lost answer is asked for again."""

    def __init__(self, readable: bool = True) -> None:
        self.text = b""
        self.total: int | None = None if readable else 0  # a side of another protocol could not answer

    def is_complete(self) -> bool:
        return self.total is not None and len(self.text) >= self.total

    def make_question(self) -> bytes:
        return make_payload(MessageId.SPEC_READ, offset=len(self.text))

    def take(self, payload: bytes) -> bool:
        """True where this was the chunk that was asked for."""
        chunk = parse(MessageId.SPEC_TEXT, payload)
        length = min(int(chunk["length"]), SPEC_CHUNK_BYTES)
        if self.is_complete() or int(chunk["offset"]) != len(self.text) or length == 0:
            return False
        self.text += chunk["data"].tobytes()[:length]
        self.total = int(chunk["total"])
        return True


def describe_differences(spec: RobotSpec, theirs: bytes) -> str:
    """One line for each fact that is not the same on both sides."""
    found = differing(spec.firmware_facts, parse_facts(theirs))
    return "".join(f"\n  {key}: board {their_value}, host {our_value}" for key, our_value, their_value in found)


def facts_text(facts: dict[str, str]) -> bytes:
    """As the board holds it: sorted `key = value` lines."""
    return "\n".join(f"{key} = {facts[key]}" for key in sorted(facts)).encode()


def parse_facts(text: bytes) -> dict[str, str]:
    lines = (line.partition(" = ") for line in text.decode("utf-8", "replace").splitlines())
    return {key: value for key, found, value in lines if found}
