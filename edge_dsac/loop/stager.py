"""Watches the policy file beside the loop and offers every good new version to the slot; a bad one changes nothing.

Its own thread, asleep nearly always. Rule that must stay true: the running policy is replaced only by one that was loaded
and checked in full.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from edge_dsac.bundle.disk import stamp
from edge_dsac.loop.slot import Engine, Slot

POLL_S = 0.2


class Stager(threading.Thread):
    def __init__(self, path: Path, load: Callable[[Path], Engine], slot: Slot, prepare: Callable[[], None] | None = None) -> None:
        """`prepare`: what the thread does first, for itself (realtime.ask_not_to_be_starved)."""
        super().__init__(name="stager", daemon=True)
        self.path, self.load, self.slot, self.prepare = path, load, slot, prepare
        self.seen = stamp(path)
        self.current = slot.bundle_id  # the slot may hold another one for a while: a candidate in its window
        self.refusals: list[str] = []
        self.leave = threading.Event()

    def run(self) -> None:
        if self.prepare is not None:
            self.prepare()
        while not self.leave.wait(POLL_S):
            self.look()

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
            self.slot.offer(engine)
