"""A whole flight in simulated time: the real loop and the real firmware on a simulated robot, in one process and at the machine's pace.

What a busy machine does to a flight on a pty (lost frames, damped robots) cannot happen here, so a fall is the policy's.
"""

import io

import numpy as np

from edge_dsac.bundle.actor import check_actor, make_actor_file
from edge_dsac.bundle.baselines import CascadedPd
from edge_dsac.loop.control import ControlLoop
from edge_dsac.loop.flight import phase_target_ns
from edge_dsac.loop.limiter import Limiter
from edge_dsac.loop.observer import Observer
from edge_dsac.loop.pacer import Pacer, Usual
from edge_dsac.loop.slot import Slot
from edge_dsac.records import BoardMode, Mode, Observation
from edge_dsac.spec.layout import ObservationLayout
from firmware_bridge.link import SerialLink
from firmware_bridge.virtual_mcu import VirtualBoard


class SimTime:
    def __init__(self):
        self.now_ns = 1_000_000_000

    def clock(self):
        self.now_ns += 100
        return self.now_ns

    def sleep(self, seconds):
        self.now_ns += round(seconds * 1e9)


class SimPort:
    """The board lives until the time that the host's clock shows; what is written reaches it at its next tick."""

    short_writes = 0

    def __init__(self, board, time):
        self.board, self.time, self.begun_ns, self.waiting = board, time, time.now_ns, b""
        self.period_ns = 1_000_000_000 // board.spec.rates.board_hz
        self.ticks = 0

    def write(self, data):
        self.waiting += data

    def read(self):
        out = b""
        while self.ticks * self.period_ns <= self.time.now_ns - self.begun_ns:
            out += self.board.tick(self.waiting)
            self.waiting = b""
            self.ticks += 1
        return out

    def wait(self, timeout_s):
        self.time.sleep(timeout_s)
        return True

    def close(self):
        pass


class Steps:
    def __init__(self):
        self.steps = []

    def append(self, step):
        self.steps.append(step)

    def free(self):
        return 1 << 40


class SimFlight:
    def __init__(self, spec, engine, seed=0, hidden="nominal"):
        from sim.plant import SinglePlant
        from sim.randomize import load_ranges

        self.time, self.log, self.spec = SimTime(), Steps(), spec
        self.board = VirtualBoard(spec, SinglePlant(spec, seed, load_ranges(hidden)), seed)
        link = SerialLink(spec, lambda: SimPort(self.board, self.time), clock=self.time.clock, session_id=7)
        slot = Slot(engine, fade_ticks=spec.rates.control_hz // 5)
        self.loop = ControlLoop(spec, link, Observer(spec), slot, Limiter(spec), self.log, clock=self.time.clock)
        self.pacer = Pacer(1_000_000_000 // spec.rates.control_hz, self.time.clock, self.time.sleep, waking=Usual(0.0, 1.0, 1.0))
        self.target_ns = phase_target_ns(spec, 0)
        self.pacer.start()

    def running(self, seconds=1.0):
        self.loop.arm()
        self.ticks(round(seconds * self.spec.rates.control_hz))
        assert self.loop.modes.mode == Mode.RUNNING
        return self

    def ticks(self, count):
        for _ in range(count):
            self.loop.tick(self.pacer.wait())
            self.loop.between_ticks(self.pacer, self.target_ns, 1_000_000_000 // self.spec.rates.sensor_hz)
        return self

    @property
    def up(self):
        return self.loop.modes.mode in (Mode.RUNNING, Mode.COASTING) and self.board.board_mode == BoardMode.ARMED

    def seen(self, skip=100):
        """Observations of the steps in which a policy drove."""
        return np.array([step.obs.vector for step in self.log.steps if step.mode == Mode.RUNNING][skip:])

    def envelope(self, margin=0.5, least=0.02):
        seen = self.seen()
        low, high = seen.min(0), seen.max(0)
        room = margin * np.maximum(high - low, least)
        return tuple((low - room).astype(float).tolist()), tuple((high + room).astype(float).tolist())


def balancing_actor(spec, gain=1.0, identity=1):
    """Weights that balance without having been learned: the robot file's cascaded PD without its limits, as an actor of two layers.

    Its tanh is as good as linear where the robot stands. `gain=-1` turns the last layer's sign round.
    """
    layout, pd = ObservationLayout(spec), CascadedPd(spec)
    step = 1e-3  # the PD's slope at rest, entry by entry
    slope = np.array([pd.act(Observation(row * step, 0, True)) for row in np.eye(layout.size, dtype=np.float32)]).T / step
    scale = np.array(layout.scale, float)
    small = 0.1
    first = np.zeros((4, layout.size))
    first[0:2], first[2:4] = small * slope / scale, -small * slope / scale  # relu(x) - relu(-x) = x
    last = np.hstack([np.eye(2), -np.eye(2)]) / small * gain
    data = make_actor_file([(first, np.zeros(4)), (last, np.zeros(2))], "relu", spec)
    with np.load(io.BytesIO(data)) as file:
        return data, check_actor(dict(file), "actor.npz", identity, spec)
