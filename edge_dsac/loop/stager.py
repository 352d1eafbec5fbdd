"""Watches the policy file beside the loop and offers every good new version to whoever drives; a bad one changes nothing.

Looks when it is asked to; scouting.py asks, in a process of its own. Rule that must stay true: the running policy is replaced only by one
that was loaded and checked in full.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from edge_dsac.bundle.disk import stamp
from edge_dsac.loop.cockpit import Successor

POLL_S = 0.2


class Taker(Protocol):
    """A slot, or a cockpit."""

    @property
    def bundle_id(self) -> int: ...
    def offer(self, engine: Any) -> None: ...


class Stager:
    def __init__(self, path: Path, load: Callable[[Path], Successor], taker: Taker) -> None:
        self.path, self.load, self.taker = path, load, taker
        self.seen = stamp(path)
        self.current = taker.bundle_id  # what drives may be another one for a while: a candidate in its window
        self.refusals: list[str] = []

    def look(self) -> None:
        """A file is replaced by rename, so whatever is under the name is whole."""
        now = stamp(self.path)
        if now == self.seen or now is None:
            return
        self.seen = now
        try:
            engine = self.load(self.path)
        except (ValueError, OSError) as error:
            self.refusals.append(str(error))
            return
        if engine.bundle_id != self.current:
            self.current = engine.bundle_id
            self.taker.offer(engine)
