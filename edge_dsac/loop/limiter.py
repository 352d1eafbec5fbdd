"""Action -> CommandFrame: what will really be sent, and the name of every rule that made it differ from what was wanted.

Pure bookkeeping over the last command; the board enforces the same limits again by itself and trusts none of this.
Batch shaped like the observer. Rule that must stay true: `applied_action` is the command, mapped back to [-1, 1].
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edge_dsac.records import CommandFrame, Float, Rule, SensorFrame
from edge_dsac.spec.layout import ActionLayout
from edge_dsac.spec.robot import RobotSpec

SAME = 1e-9  # commands nearer than this are the same command: float noise is no intervention


class Limiter:
    def __init__(self, spec: RobotSpec, batch: tuple[int, ...] = ()) -> None:
        layout = ActionLayout(spec)
        self.batch = batch
        self.to_command, self.to_action = layout.to_command, layout.to_action
        self.limit_high = layout.command_limit
        self.limit_low = -self.limit_high
        self.slew = np.array([joint.command_slew_per_s for joint in spec.joints]) / spec.rates.control_hz
        self.velocity_limit = np.array([joint.velocity_limit_rad_s for joint in spec.joints])
        self.slowest_limit = float(self.velocity_limit.min())
        self.last: Float = np.zeros((*batch, len(spec.joints)))
        self.still: Float = np.zeros((*batch, len(spec.joints)))
        self.still_action: Float = np.zeros((*batch, len(spec.actions)))

    def reset(self, where: Any = None) -> None:
        """The motors `where` (a mask of the batch's shape; None: all) are off: the next command starts from zero."""
        self.last = self.still if where is None else np.where(np.asarray(where)[..., None], 0.0, self.last)

    def limit(self, action: Float, frame: SensorFrame) -> CommandFrame:
        wanted = action @ self.to_command
        command = np.maximum(np.minimum(wanted, self.limit_high), self.limit_low)
        if not self.all_finite(command):
            command = np.where(np.isfinite(wanted), command, self.last)
        if self.too_fast(frame.velocity_rad_s):
            command = self.spare_fast_joints(command, frame.velocity_rad_s)
        command = np.maximum(np.minimum(command, self.last + self.slew), self.last - self.slew)
        rules: Any = Rule.NONE
        if self.batch or command.tolist() != wanted.tolist():  # untouched numbers come through as they are, to the last bit
            rules = self.name_rules(wanted, command, frame)
        self.last = command
        return CommandFrame(frame.seq, command, command @ self.to_action, rules)

    def damp(self, frame: SensorFrame) -> CommandFrame:
        """No motion by our hand. The next command starts from what the motors are doing: zero, or the board's fallback."""
        self.last = frame.applied
        return CommandFrame(frame.seq, self.still, self.still_action, Rule.DAMP)

    def hold(self, frame: SensorFrame) -> CommandFrame:
        """No fresh frame: the last command once more, answering the same frame, so that its deadline does not move."""
        return CommandFrame(frame.seq, self.last, self.last @ self.to_action, Rule.COAST)

    def all_finite(self, command: Float) -> bool:
        return bool(np.isfinite(command).all()) if self.batch else math.isfinite(sum(command.tolist()))

    def too_fast(self, velocity_rad_s: Float) -> bool:
        if self.batch:
            return bool(np.abs(velocity_rad_s).max() > self.slowest_limit)
        return any(abs(speed) > self.slowest_limit for speed in velocity_rad_s.tolist())

    def spare_fast_joints(self, command: Float, velocity_rad_s: Float) -> Float:
        faster = (np.abs(velocity_rad_s) > self.velocity_limit) & (command * velocity_rad_s > 0.0)
        return np.where(faster, 0.0, command)

    def name_rules(self, wanted: Float, command: Float, frame: SensorFrame) -> Any:
        """Which rules were at work, per robot of the batch: an int of Rule bits each."""
        bad = ~np.isfinite(wanted)
        clamped = np.maximum(np.minimum(wanted, self.limit_high), self.limit_low)
        spared = self.spare_fast_joints(clamped, frame.velocity_rad_s)
        bits = (
            Rule.BAD_NUMBER * bad.any(axis=-1)
            + Rule.LIMIT * (np.abs(clamped - wanted) > SAME).any(axis=-1)
            + Rule.SPEED * (spared != clamped).any(axis=-1)
            + Rule.SLEW * ((np.abs(command - spared) > SAME) & ~bad).any(axis=-1)
        )
        return bits if self.batch else Rule(int(bits))
