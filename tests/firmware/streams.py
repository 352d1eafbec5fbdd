"""Byte streams as a cable, a broken host or bad luck may make them. Deterministic under the generator's seed."""

from __future__ import annotations

import numpy as np
from firmware import reference


class StreamMaker:
    def __init__(self, joints: int, extras: int, fingerprint: str, generator: np.random.Generator) -> None:
        self.sizes = reference.sizes(joints, extras)
        self.seed = reference.closed_seed(fingerprint)
        self.generator = generator
        self.damages = (
            self.leave, self.leave, self.truncate, self.flip_bit, self.lose_byte, self.add_garbage, self.zero_byte, self.lose_delimiter, self.twice,
        )  # fmt: skip

    def below(self, limit: int) -> int:
        return int(self.generator.integers(limit))

    def bytes(self, length: int) -> bytes:
        """Half of the time poor in values, so that zeros, runs and full COBS blocks are common."""
        values = (256, 2, 1)[self.below(3)]
        data = self.generator.integers(values, size=length, dtype=np.uint16)
        return bytes((data + (255 if values == 1 and self.below(2) else 0)).astype(np.uint8))

    def stream(self) -> bytes:
        return b"".join(self.damages[self.below(len(self.damages))](self.make_frame()) for _ in range(1 + self.below(4)))

    def make_frame(self) -> bytes:
        kind = self.below(12)
        message = 1 + self.below(12)
        payload = self.bytes(self.sizes[message])
        if kind == 0:
            return self.bytes(self.below(600)) + b"\0"
        if kind == 1:  # well made, of the wrong length: up to the longest packet and past it
            payload = self.bytes(self.below(260))
        if kind == 2:
            return reference.frame(message, payload, self.seed, self.below(65536), protocol=self.below(4))
        if kind == 3:
            return reference.frame(message, payload, self.seed, flags=self.below(3))
        if kind == 4:
            return reference.frame(self.below(256), payload, self.seed)
        if kind == 5:
            return reference.frame(message, payload, self.below(1 << 32))
        return reference.frame(message, payload, self.seed, self.below(65536), self.below(1 << 32))

    def leave(self, frame: bytes) -> bytes:
        return frame

    def truncate(self, frame: bytes) -> bytes:
        return frame[: self.below(len(frame) + 1)]

    def flip_bit(self, frame: bytes) -> bytes:
        at = self.below(len(frame))
        return frame[:at] + bytes([frame[at] ^ (1 << self.below(8))]) + frame[at + 1 :]

    def lose_byte(self, frame: bytes) -> bytes:
        at = self.below(len(frame))
        return frame[:at] + frame[at + 1 :]

    def add_garbage(self, frame: bytes) -> bytes:
        at = self.below(len(frame))
        return frame[:at] + self.bytes(1 + self.below(6)) + frame[at:]

    def zero_byte(self, frame: bytes) -> bytes:
        at = self.below(len(frame))
        return frame[:at] + b"\0" + frame[at + 1 :]

    def lose_delimiter(self, frame: bytes) -> bytes:
        return frame[:-1]

    def twice(self, frame: bytes) -> bytes:
        return frame + frame
