"""What may be asked of a loop that flies, by whoever looks after its policies: take a successor, try a candidate, leave off.

Here in the loop's own process; scout.py has the same from the process next door. Rule that must stay true: each request is one
assignment that the loop finds at its next tick boundary; nothing here waits for it, and it waits for nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from edge_dsac.bundle.slot_folder import Stage
from edge_dsac.bundle.trial_plan import TrialPlan
from edge_dsac.loop.slot import Engine, Slot
from edge_dsac.loop.trial import Seat, Trial


class Ended(NamedTuple):
    """A trial that is over, as it is told to the folder."""

    identity: int
    stage: Stage
    why: str
    details: dict[str, Any]


class Successor(Protocol):
    """An engine, or what the process that drives makes one from."""

    bundle_id: int


class Cockpit(Protocol):
    @property
    def bundle_id(self) -> int:
        """Of what drove when we came."""
        ...

    @property
    def busy(self) -> bool:
        """A successor has yet to take the wheel."""
        ...

    def offer(self, engine: Any) -> None: ...
    def try_out(self, engine: Any, plan: TrialPlan) -> None: ...
    def withdraw(self) -> None:
        """The newest one that was to be tried: it must not drive any more."""
        ...

    def ended(self) -> Ended | None:
        """Each trial once."""
        ...


class NearCockpit:
    def __init__(self, slot: Slot, seat: Seat) -> None:
        self.slot, self.seat = slot, seat
        self.newest: Trial | None = None

    @property
    def bundle_id(self) -> int:
        return self.slot.bundle_id

    @property
    def busy(self) -> bool:
        return self.slot.offered is not None

    def offer(self, engine: Engine) -> None:
        self.slot.offer(engine)

    def try_out(self, engine: Engine, plan: TrialPlan) -> None:
        self.newest = Trial(self.slot.engine, engine, plan)
        self.seat.offered = self.newest

    def withdraw(self) -> None:
        self.seat.withdrawn = self.newest

    def ended(self) -> Ended | None:
        trial, self.seat.ended = self.seat.ended, None
        if trial is None or trial.stage is None:
            return None
        return Ended(trial.new.bundle_id, trial.stage, trial.why, trial.details())
