"""The values that cross boundaries: one frozen record per step of the way from sensor to motor.

Knows units and shapes; knows no port, no clock, no file. All is in SI units and RobotSpec order. A value is a float for one
robot and an array of the batch's shape for many; what has several entries is a tuple of values, so that the simulation
passes through the very records of the robot (loop/lanes.py). Three clocks, three suffixes (`_mcu_us`, `_host_ns`, `_sim_s`);
values of different suffixes are never subtracted from one another.
The records of a tick are NamedTuples: as frozen as a frozen dataclass, and made in a quarter of its time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating[Any]]
Values = tuple[Any, ...]  # one entry per joint, axis, ...: floats, or arrays of the batch's shape


class Mode(IntEnum):
    """What the host's loop is doing. The table of who may leave which mode, and how, is in loop/modes.py."""

    BOOT = 0  # port open, no agreement with the board yet
    IDLE = 1  # link up, motors off, waiting to be told
    ARMED = 2  # the board obeys; the first command is yet to be answered
    RUNNING = 3  # the policy drives
    COASTING = 4  # no fresh frame: the last command is held for a bounded time
    DAMPED = 5  # motors off or on the board's fallback; needs an explicit re-arm
    FAULT = 6  # the board or the host latched a fault; needs a clear
    ESTOP = 7  # nothing leaves this but a restart


class Event(IntEnum):
    """What can move the host's mode. The comment says whose word it is; loop/modes.py has the table."""

    LINK_UP = 0  # link: both sides agree on protocol and robot
    LINK_REFUSED = 1  # link: they do not
    LINK_DOWN = 2  # link: silence, or the port is gone
    BOARD_ARMED = 3  # operator, confirmed by the board: an ARM that we asked for is in force
    FRAME_FRESH = 4  # board: a new frame with every reading in it
    FRAME_MISSING = 5  # board: nothing new, or nothing usable, at this tick
    COAST_EXHAUSTED = 6  # loop: that went on for max_coast_ticks
    BOARD_STOPPED_OBEYING = 7  # board: its watchdog damped it, its fallback drives, or it has restarted
    BOARD_FAULT = 8  # board: a safety rule latched
    LOG_FULL = 9  # recorder: one more step would overwrite one that is not on disk
    LOOP_ERROR = 10  # loop: an exception
    STOP = 11  # operator: finish in good order
    CLEAR = 12  # operator: the fault has been looked at
    EMERGENCY = 13  # operator


class BoardMode(IntEnum):
    """What the motor board itself says it is doing. The board decides; the host only asks."""

    DISARMED = 0  # motors off, waiting for ARM
    ARMED = 1  # obeys fresh commands
    DAMPED = 2  # commands stopped coming: motors off until an explicit re-arm
    FALLBACK = 3  # commands stopped coming: the board balances by itself until an explicit re-arm
    FAULT = 4  # a safety rule latched: motors off until DISARM and ARM
    ESTOP = 5  # emergency stop: motors off until the board is reset


class Fault(IntFlag):
    """Why the board stopped trusting something. Latched on the board until it is disarmed."""

    NONE = 0
    TIMEOUT = 1  # no valid command within command_timeout_ms
    TILT = 2  # body angle beyond safety.tilt_limit_rad
    BAD_NUMBER = 4  # a command was NaN or infinite
    OVERSPEED = 8  # a joint turned faster than its velocity limit
    LOW_BATTERY = 16  # below safety.battery_cutoff_v
    BAD_SENSOR = 32  # the IMU or an encoder stopped giving readings
    LIMITED = 64  # not latched: the last command was clamped
    SLEWED = 128  # not latched: the last command was slowed


class Rule(IntFlag):
    """Why the command differs from what the policy wanted. NONE means that it does not."""

    NONE = 0
    LIMIT = 1  # beyond a joint's command limit
    SLEW = 2  # faster than a joint's command slew
    BAD_NUMBER = 4  # the policy answered NaN or infinity: the last good action is held
    SPEED = 8  # the joint is at its velocity limit: no more command in that direction
    COAST = 16  # no fresh frame: the last command is held
    DAMP = 32  # the mode allows no motion: zero
    BLEND = 64  # a new policy is being faded in
    HUMAN = 128  # a person drives: the action is theirs


@dataclass(frozen=True, slots=True)
class Readings:
    """What a robot's sensors give at one instant, before any board has framed it: SI, RobotSpec order, `[..., n]`.

    A simulated plant answers this; NaN is a sensor without a reading. On a robot the same values exist only as counts.
    """

    position_rad: Float
    gyro_rad_s: Float
    accel_m_s2: Float
    battery_v: Any
    extra: Float


class SensorFrame(NamedTuple):
    """What the board measured at one instant. NaN means that the sensor gave no reading.

    Entries: one per joint for position, velocity and applied; three for gyro and accel; one per extra.
    `applied` is the command the board was really driving, in the joints' command unit.
    """

    seq: int
    t_mcu_us: Any
    board: BoardMode
    faults: Fault
    answered_seq: int  # sequence number of the last command the board accepted
    position_rad: Values
    velocity_rad_s: Values
    applied: Values
    gyro_rad_s: Values
    accel_m_s2: Values
    battery_v: Any
    extra: Values


class Observation(NamedTuple):
    """What a policy sees: `vector[..., n]` float32, raw SI values in the order of the robot file, history stacked.

    The robot file's scales are not applied here: they belong to the policy's first layer. `ok[...]` is False where a
    term could not be computed from this frame (a NaN reading); such a vector must not reach a policy.
    """

    vector: Float
    t_mcu_us: Any
    ok: Any


class CommandFrame(NamedTuple):
    """What will really be sent, one entry per joint in its command unit, and why if it is not what was wanted."""

    answers_seq: int
    command: Values
    applied_action: Values  # the command mapped back to [-1, 1], one entry per action: what replay must store
    rules: Any  # Rule bits


class Step(NamedTuple):
    """One tick, whole: what was measured, seen, wanted, sent, by whom and how late."""

    frame: SensorFrame
    obs: Observation
    action: Float  # wanted, [-1, 1]
    command: CommandFrame
    bundle_id: int
    mode: Mode
    because: Event  # what led to this mode
    t_host_ns: int
    late_ns: int  # start of this tick after its deadline
    busy_ns: int  # this tick's own work, from wake-up to the log
    frame_age_ns: int  # sensor instant to tick start, by the session's clock estimate; -1 before the first sync
    fresh: bool = True  # False: no usable new frame at this tick; `frame` and `obs` are the last ones


class Outcome(NamedTuple):
    """One step of n simulated robots. Where an episode ended, `obs` already belongs to the next one."""

    applied: Float  # [n, act] what was really done
    reward: Float  # [n]
    next_obs: Float  # [n, obs] what the action led to
    terminated: Any  # [n] the task is over: nothing comes after
    truncated: Any  # [n] the episode is over, the task is not
    obs: Float  # [n, obs] what to act on next
    info: dict[str, Any]  # truths for scores, [n] each
