"""One flight: ticks from the first to the last, and motors off at the end whatever ended it.

Knows when to stop; not what a tick does (control.py) nor what comes before and after (the command line).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from edge_dsac.loop.control import ControlLoop
from edge_dsac.loop.pacer import Pacer
from edge_dsac.records import BoardMode, Event, Mode
from edge_dsac.spec.checks import FRAME_OVERHEAD_BYTES, telemetry_bytes
from edge_dsac.spec.robot import RobotSpec

STILL = frozenset({BoardMode.DISARMED, BoardMode.FAULT, BoardMode.ESTOP})
WAIT_FOR_STILL_NS = 500_000_000  # then the board's own watchdog has long acted
WAKE_MARGIN_US = 250  # after a frame should be here: scheduling of whoever carries it to us


class Ended(Enum):
    """Why a flight ended."""

    TIME_UP = "the time asked for is over"
    ASKED = "asked to stop"
    FAULT = "a fault latched"
    NO_LINK = "the board did not answer"
    ERROR = "an exception in the loop"


@dataclass(frozen=True, slots=True)
class Flight:
    ended: Ended
    mode: Mode  # in which it ended, before the motors were switched off
    because: Event
    ticks: int
    missed: int  # deadlines that passed while we were late
    coasted: int
    trimmed_ns: int  # how far the grid was shifted to follow the board
    wall_ns: int
    board_still: bool  # the board itself said that the motors are off


def phase_target_ns(spec: RobotSpec, asked_us: int) -> int:
    """How old a frame should be at the start of a tick: its time on the wire and a margin, within the period."""
    wire_us = (telemetry_bytes(spec) + FRAME_OVERHEAD_BYTES) * 10 * 1_000_000 // spec.link.baud
    widest_us = 700_000 // spec.rates.sensor_hz  # 70 % of the sensor period
    return (asked_us or min(wire_us + WAKE_MARGIN_US, widest_us)) * 1000


def fly(
    loop: ControlLoop, pacer: Pacer, spec: RobotSpec, asked_to_stop: Callable[[], bool], seconds: float | None, link_timeout_s: float = 5.0
) -> Flight:
    """Runs ticks until it is asked to stop, the time is up, a fault latches or no board answers."""
    target_ns = phase_target_ns(spec, loop.conduct.phase_us)
    sensor_period_ns = 1_000_000_000 // spec.rates.sensor_hz
    ended, begun_ns = Ended.ERROR, loop.clock()
    pacer.start()
    try:
        ended = keep_ticking(loop, pacer, target_ns, sensor_period_ns, asked_to_stop, seconds, link_timeout_s)
    except BaseException:
        loop.fail()
        raise
    finally:
        mode, because = loop.modes.mode, loop.modes.because
        wall_ns = loop.clock() - begun_ns
        still = come_to_rest(loop, pacer)
    return Flight(ended, mode, because, loop.ticks, pacer.missed, loop.coasted_total, pacer.trimmed_ns, wall_ns, still)


def keep_ticking(
    loop: ControlLoop, pacer: Pacer, target_ns: int, sensor_period_ns: int, asked_to_stop: Callable[[], bool], seconds: float | None,
    link_timeout_s: float,
) -> Ended:  # fmt: skip
    begun_ns = loop.clock()
    end_ns = begun_ns + int(seconds * 1e9) if seconds is not None else 1 << 62
    link_by_ns = begun_ns + int(link_timeout_s * 1e9)
    ever_up = False
    while not asked_to_stop():
        late_ns = pacer.wait()
        loop.tick(late_ns)
        loop.between_ticks(pacer, target_ns, sensor_period_ns)
        mode = loop.modes.mode
        if mode in (Mode.FAULT, Mode.ESTOP):
            return Ended.FAULT
        ever_up = ever_up or mode != Mode.BOOT
        if not ever_up and pacer.deadline_ns > link_by_ns:
            return Ended.NO_LINK
        if pacer.deadline_ns > end_ns:
            return Ended.TIME_UP
    return Ended.ASKED


def come_to_rest(loop: ControlLoop, pacer: Pacer) -> bool:
    """Asks for motors off until the board says so; a board that is gone does it by its own watchdog."""
    give_up_ns = loop.clock() + WAIT_FOR_STILL_NS
    loop.stop()
    while loop.clock() < give_up_ns:
        late_ns = pacer.wait()
        loop.tick(late_ns)
        if loop.coasted == 0 and loop.frame.board in STILL:
            return True
        if loop.ticks % 10 == 0:
            loop.stop()
    return False


def system_pacer(spec: RobotSpec, rehearse: Callable[[], None] | None = None) -> Pacer:
    return Pacer(1_000_000_000 // spec.rates.control_hz, time.monotonic_ns, time.sleep, rehearse=rehearse)
