"""Between the loop and its scout, two processes of ours joined by pipes: a line of JSON and some bytes, both lengths first.

Knows pipes; knows nothing of what is said. Rule that must stay true: what is said is data, never a pickle.
"""

from __future__ import annotations

import json
import os
import select
import struct
from typing import Any, NamedTuple

LENGTHS = struct.Struct("<II")


class Message(NamedTuple):
    words: dict[str, Any]
    data: bytes = b""


class Gone(Exception):
    """The other end has left."""


class Bell:
    """Wakes a thread that listens, from another one of its process. Who rings never waits."""

    def __init__(self) -> None:
        self.sound, self.rope = os.pipe()
        os.set_blocking(self.sound, False)
        os.set_blocking(self.rope, False)

    def ring(self) -> None:
        try:
            os.write(self.rope, b"!")
        except BlockingIOError:
            pass  # it is ringing

    def hush(self) -> None:
        try:
            os.read(self.sound, 1 << 16)
        except BlockingIOError:
            pass

    def close(self) -> None:
        os.close(self.sound)
        os.close(self.rope)


class Pipes:
    def __init__(self, incoming: int, outgoing: int) -> None:
        """File descriptors; they stay their owner's."""
        self.incoming, self.outgoing = incoming, outgoing

    def say(self, message: Message) -> None:
        head = json.dumps(message.words).encode()
        whole = memoryview(LENGTHS.pack(len(head), len(message.data)) + head + message.data)
        while whole:
            try:
                whole = whole[os.write(self.outgoing, whole) :]
            except BrokenPipeError:
                raise Gone from None

    def hear(self, seconds: float | None, bell: Bell | None = None) -> Message | None:
        """None if nothing was begun to be said in this time, or before the bell rang."""
        listened = [self.incoming] if bell is None else [self.incoming, bell.sound]
        if self.incoming not in select.select(listened, [], [], seconds)[0]:
            return None
        head, data = LENGTHS.unpack(self.exactly(LENGTHS.size))
        return Message(json.loads(self.exactly(head)), self.exactly(data))

    def exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = os.read(self.incoming, min(size, 1 << 16))
            if not part:
                raise Gone
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
