"""A robot to fine-tune on in simulated time: the real loop and firmware, its log in a real ring, tuned by the real tuner.

What `run` and `tune` are to a robot on a desk, in one process and at the machine's pace, so that a study of many sessions is
possible. A robot that fell is put on its wheels again and flies on in a new flight, as a person would do it. Seconds are the robot's.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from sim_flight import SimFlight

from edge_dsac.bundle.engines import numpy_engine
from edge_dsac.bundle.package import Bundle
from edge_dsac.bundle.slots import Slots
from edge_dsac.loop.candidates import Candidates
from edge_dsac.loop.cockpit import NearCockpit
from edge_dsac.loop.exercise import Exercise, read_lap
from edge_dsac.loop.exploration import Exploration, draw
from edge_dsac.loop.slot import Engine
from edge_dsac.loop.stager import Stager
from edge_dsac.loop.trial import Seat
from edge_dsac.records import Fault, Mode
from edge_dsac.spec.robot import RobotSpec
from edge_dsac.steplog import Chunk, Ring, RingReader
from edge_dsac.steplog.ring import RecorderState

RING_S = 20
POLL_S = 0.2  # of the robot's time between two looks of the loop's helper thread


class Driver:
    """What `run` opens: the bundle, and the engine that drives."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.engine = bundle, numpy_engine(bundle)


class TuneRobot:
    def __init__(
        self, slots: Slots, spec: RobotSpec, folder: Path, hidden: str, seed: int, lap: str = "drive", explore: float = 0.0
    ) -> None:
        self.slots, self.spec, self.folder, self.hidden, self.seed, self.lap, self.explore = slots, spec, folder, hidden, seed, lap, explore
        self.flights = self.falls = 0  # whose falls they were, the trials' verdicts say
        self.seconds = 0.0
        self.pending: list[Chunk] = []
        self.take_off()

    def take_off(self) -> None:
        """A new flight: on its wheels, armed, running."""
        self.running = Driver(self.slots.current())
        path = self.folder / f"flight-{self.flights}"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        hz = self.spec.rates.control_hz
        self.ring = Ring.create(path / "ring", self.spec, RING_S * hz)
        self.reader = RingReader(path / "ring", writable=True)  # and recorder: what was taken may be overwritten
        self.flight = SimFlight(self.spec, self.running.engine, self.seed + 1000 * self.flights, self.hidden)
        loop = self.flight.loop
        loop.log = self.ring
        exercise = Exercise(read_lap(self.lap), hz)
        self.seat = Seat(exercise)
        exploration = None
        if self.explore:
            exploration = Exploration(draw(len(self.spec.actions), self.explore, hz, self.seed + self.flights), self.seat)
        loop.aides = tuple(aide for aide in (self.seat, exercise, exploration) if aide is not None)
        loop.slot.overlays = (exploration,) if exploration is not None else ()
        cockpit = NearCockpit(loop.slot, self.seat)
        stager = Stager(self.slots.current_path, self.load_successor, cockpit)
        self.helper = Candidates(self.slots, self.load, lambda: self.running.bundle.running, stager, cockpit, exercise.lap_ticks)
        self.flights += 1
        loop.arm()

    def load(self, path: Path) -> Driver:
        return Driver(self.slots.opened(path))

    def load_successor(self, path: Path) -> Engine:
        self.running = self.load(path)
        return self.running.engine

    def live(self, seconds: float) -> None:
        """So much of the robot's time. Its log waits for `look`."""
        hz = self.spec.rates.control_hz
        ticks, every = round(seconds * hz), round(POLL_S * hz)
        for at in range(0, ticks, every):
            self.flight.ticks(min(every, ticks - at))
            self.helper.look()
            self.gather(over=False)
            if self.flight.loop.modes.mode in (Mode.FAULT, Mode.DAMPED):
                self.land()
                self.take_off()
        self.seconds += seconds

    def land(self) -> None:
        self.falls += bool(self.flight.loop.frame.faults & (Fault.TILT | Fault.OVERSPEED))
        self.seat.land(failed=False)
        self.helper.close()
        self.ring.close()
        self.gather(over=True)
        self.close_ring()

    def close_ring(self) -> None:
        real = (self.folder / f"flight-{self.flights - 1}" / "ring").resolve()
        real.unlink(missing_ok=True)

    def gather(self, over: bool) -> None:
        self.pending.append(Chunk(self.reader.header.wall_start_ns, self.reader.take(1 << 20), over))
        self.reader.set_recorder(self.reader.cursor, RecorderState.RECORDING)

    def look(self) -> list[Chunk]:
        """For the tuner: what has been flown since the last look."""
        chunks, self.pending = self.pending, []
        return [chunk for chunk in chunks if len(chunk.columns) or chunk.over]

    def close(self) -> None:
        self.land()
