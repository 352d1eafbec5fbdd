"""Goes the way of one value on a double of the loop, in the idle time before a deadline, so that no cache is cold when it counts.

A processor that has slept for a millisecond has forgotten the loop: the same tick then takes two to three times as long. The
double has its own link, observer, limiter and log; only the active policy and the reference are the loop's. Rule that must
stay true: nothing of a rehearsal reaches the board, the log or the filters of the loop.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from edge_dsac.loop.control import Conduct, ControlLoop, Link
from edge_dsac.loop.limiter import Limiter
from edge_dsac.loop.observer import Observer
from edge_dsac.loop.slot import Slot
from edge_dsac.records import Mode
from edge_dsac.spec.robot import RobotSpec
from edge_dsac.steplog import Ring

SCRATCH_STEPS = 16


class Rehearsal:
    def __init__(self, spec: RobotSpec, loop: ControlLoop, link: Link) -> None:
        """`link` answers every `receive` with a healthy frame and swallows what is sent."""
        self.loop = loop
        with tempfile.TemporaryDirectory() as folder:
            log = Ring.create(Path(folder) / "ring", spec, SCRATCH_STEPS)
            log.path.unlink()  # the memory stays as long as this object
        slot = Slot(loop.slot.engine)
        self.double = ControlLoop(spec, link, Observer(spec), slot, Limiter(spec), log, Conduct(overwrite_log=True))
        for _ in range(3):  # greeting, first frame
            self()

    def __call__(self) -> None:
        double, loop = self.double, self.loop
        double.slot.engine = loop.slot.engine
        double.observer.reference = loop.observer.reference
        double.modes.mode = Mode.RUNNING
        double.tick(0)
