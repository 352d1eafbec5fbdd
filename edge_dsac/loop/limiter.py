"""Action -> CommandFrame: what will really be sent, and the name of every rule that made it differ from what was wanted.

Pure bookkeeping over the last command; the board enforces the same limits again by itself and trusts none of this.
One robot or a batch, like the observer. Rule that must stay true: `applied_action` is the command, mapped back to [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_dsac.loop.lanes import columns_of, make_lanes, mix
from edge_dsac.records import CommandFrame, Float, Rule, SensorFrame, Values
from edge_dsac.spec.layout import ActionLayout
from edge_dsac.spec.robot import RobotSpec

SAME = 1e-9  # commands nearer than this are the same command: float noise is no intervention
BAD_NUMBER, LIMIT, SLEW, SPEED = int(Rule.BAD_NUMBER), int(Rule.LIMIT), int(Rule.SLEW), int(Rule.SPEED)


@dataclass(frozen=True, slots=True)
class JointLimits:
    command: float
    slew: float  # per control tick
    velocity_rad_s: float


class Limiter:
    def __init__(self, spec: RobotSpec, batch: tuple[int, ...] = ()) -> None:
        layout = ActionLayout(spec)
        self.lanes = make_lanes(batch)
        self.to_command, self.to_action = columns_of(layout.to_command), columns_of(layout.to_action)
        self.joints = [
            JointLimits(joint.command_limit, joint.command_slew_per_s / spec.rates.control_hz, joint.velocity_limit_rad_s)
            for joint in spec.joints
        ]
        self.bounds = [(joint.command, joint.slew, joint.velocity_rad_s) for joint in self.joints]
        self.still: Values = (self.lanes.full(0.0),) * len(spec.joints)
        self.still_action: Values = (self.lanes.full(0.0),) * len(spec.actions)
        self.last = self.still

    def reset(self, where: Any = None) -> None:
        """The motors `where` (a mask of the batch's shape; None: all) are off: the next command starts from zero."""
        self.last = self.still if where is None else tuple(self.lanes.choose(where, 0.0, last) for last in self.last)

    def limit(self, action: Float, frame: SensorFrame) -> CommandFrame:
        actions = self.lanes.split(action)
        wanted = mix(actions, self.to_command)
        if not self.lanes.batch and self.is_free(wanted, frame.velocity_rad_s):
            self.last = wanted  # untouched numbers come through as they are, to the last bit
            return CommandFrame(frame.seq, wanted, actions, 0)
        rules: Any = 0
        sent = []
        for joint, value, last, velocity in zip(self.joints, wanted, self.last, frame.velocity_rad_s, strict=True):
            command, bits = self.limit_joint(joint, value, last, velocity)
            sent.append(command)
            rules = rules | bits
        self.last = tuple(sent)
        return CommandFrame(frame.seq, self.last, mix(self.last, self.to_action), rules)

    def is_free(self, wanted: Values, velocity_rad_s: Values) -> bool:
        """No rule has anything to say, of one robot: nearly every tick. A NaN anywhere is not free."""
        for (limit, slew, fastest), value, last, velocity in zip(self.bounds, wanted, self.last, velocity_rad_s, strict=True):
            if not (-limit <= value <= limit and -slew <= value - last <= slew and -fastest <= velocity <= fastest):
                return False
        return True

    def limit_joint(self, joint: JointLimits, wanted: Any, last: Any, velocity_rad_s: Any) -> tuple[Any, Any]:
        """(what is sent, bits of Rule) of one joint, in the order in which the rules apply."""
        lanes = self.lanes
        finite = lanes.is_finite(wanted)
        clamped = lanes.clamp(wanted, -joint.command, joint.command)
        too_fast = (abs(velocity_rad_s) > joint.velocity_rad_s) & (clamped * velocity_rad_s > 0.0)  # and would get faster
        spared = lanes.choose(too_fast, 0.0, clamped)
        safe = lanes.choose(finite, spared, last)
        sent = lanes.clamp(safe, last - joint.slew, last + joint.slew)
        rules = (
            BAD_NUMBER * (1 - finite)
            | LIMIT * (finite & (abs(clamped - wanted) > SAME))
            | SPEED * (finite & too_fast)
            | SLEW * (abs(sent - safe) > SAME)
        )
        return sent, rules

    def damp(self, frame: SensorFrame) -> CommandFrame:
        """No motion by our hand. The next command starts from what the motors are doing: zero, or the board's fallback."""
        self.last = frame.applied
        return CommandFrame(frame.seq, self.still, self.still_action, Rule.DAMP)

    def hold(self, frame: SensorFrame) -> CommandFrame:
        """No fresh frame: the last command once more, answering the same frame, so that its deadline does not move."""
        return CommandFrame(frame.seq, self.last, mix(self.last, self.to_action), Rule.COAST)
