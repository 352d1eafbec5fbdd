"""A candidate that was made elsewhere, of this robot's logs or not, before the same gate: nothing is learnt here, all else is as for a
child of the board's own. Start reading at `improve`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from edge_dsac.bundle.package import read_bundle
from edge_dsac.bundle.slots import Slots
from edge_dsac.learn.buffer import Buffer
from edge_dsac.learn.carried import digest, read_carried
from edge_dsac.learn.course import Course, TunerStop
from edge_dsac.learn.evidence import actions_of
from edge_dsac.learn.gatekeeper import Flights, Gatekeeper, enough
from edge_dsac.learn.going_on import find_candidate
from edge_dsac.learn.learner import objective_of, tensors
from edge_dsac.learn.sequential import Demands
from edge_dsac.learn.session import Session
from edge_dsac.learn.transitions import Rows

ELSEWHERE = "made elsewhere"  # in the place of a recipe
SAME_ACTION = 1e-3  # of a range of 2: float32 and its sums in another order


class Visit(Gatekeeper):
    """Of one candidate, `data`: as its file says."""

    updates = 0

    def __init__(
        self, slots: Slots, session: Session, data: bytes, buffer: Buffer, flights: Flights, course: Course = Course(),
        demands: Demands = Demands(),
    ) -> None:  # fmt: skip
        current, self.data = slots.current(), data
        self.visitor = read_bundle(data, slots.keys, allow_unsigned=slots.allow_unsigned)
        self.theirs = read_carried(self.visitor.files, self.visitor.manifest.name)
        carried = read_carried(current.files, current.manifest.name)
        super().__init__(slots, session, carried, objective_of(self.theirs.settings), buffer, flights, course, demands)
        find_candidate(self)

    def improve(self) -> str:
        """One turn; says in a word what it did."""
        verdict = self.look()
        if verdict is not None:
            return verdict
        self.check_open()
        if self.attempt is not None:
            return "on trial"
        held = self.held()
        if not enough(held, self.course.limits):
            return "waits for rows"
        self.propose(held)
        return "proposed"

    def check_open(self) -> None:
        """It is judged once."""
        for event in self.session.of("verdict"):
            raise TunerStop(f"{event['decision']}: {event['why']}")
        for event in self.session.of("refused"):
            raise TunerStop(f"refused before a trial: {'; '.join(event['evidence']['reasons'])}")

    def propose(self, held: Rows) -> None:
        """The gate; then the slot folder."""
        evidence = self.weigh(self.theirs, held, self.visitor.guide)
        apart = self.apart(held)
        if not apart <= SAME_ACTION:
            why = f"its actor and the one that its critics know differ by {apart:.3g} of an action: compile it again"
            evidence = replace(evidence, passed=False, reasons=(*evidence.reasons, why))
        told = {"round": 0, "updates": 0, "rows": self.buffer.total, "weights": digest(self.theirs), "evidence": evidence.as_json()}
        if not evidence.passed:
            self.session.note("refused", **told)
            self.check_open()
        self.try_out(self.data, self.visitor.identity, {**told, "recipe": ELSEWHERE})

    def apart(self, held: Rows) -> float:
        """How far the actor that would drive is from the one that the evidence is about: two files hold it."""
        known = actions_of(tensors(self.theirs.networks["actor"]), self.objective, torch.as_tensor(held.obs))
        return float(np.abs(self.visitor.actor.act(held.obs / self.layout.scale) - known).max())
