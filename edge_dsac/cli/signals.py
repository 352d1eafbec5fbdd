"""The wish to end in good order, however it is uttered: Ctrl-C, SIGTERM, a terminal that closed."""

from __future__ import annotations

import signal
from typing import Any


class StopFlag:
    """Set by SIGINT, SIGTERM and SIGHUP; a second signal changes nothing, so that what has to be done at the end is always done."""

    def __init__(self) -> None:
        self.signal = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self.set)

    def set(self, number: int, _: Any) -> None:
        self.signal = number

    def __call__(self) -> bool:
        return self.signal != 0
