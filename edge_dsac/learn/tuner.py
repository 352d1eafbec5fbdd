"""Fine-tuning, whole. Start reading at `improve`: log in, learning, a candidate out, and what its trial says (gatekeeper.py).

A process of its own may call it as seldom as it likes, and may be killed at any instant: the robot flies on with what it has.
"""

from __future__ import annotations

from typing import Any

from edge_dsac.bundle.guide import Guide
from edge_dsac.bundle.package import read_bundle
from edge_dsac.bundle.signing import SecretKey
from edge_dsac.bundle.slots import Slots
from edge_dsac.learn.buffer import Buffer
from edge_dsac.learn.carried import Carried, digest
from edge_dsac.learn.child import make_child
from edge_dsac.learn.course import Course, TunerStop
from edge_dsac.learn.falls import falls_under
from edge_dsac.learn.gatekeeper import Flights, Gatekeeper
from edge_dsac.learn.going_on import resume
from edge_dsac.learn.guiding import make_guide
from edge_dsac.learn.learner import Learner
from edge_dsac.learn.sequential import Demands
from edge_dsac.learn.session import Session
from edge_dsac.learn.transitions import Rows


class Tuner(Gatekeeper):
    def __init__(
        self, slots: Slots, session: Session, learner: Learner, buffer: Buffer, flights: Flights, key: SecretKey | None,
        course: Course = Course(), demands: Demands = Demands(),
    ) -> None:  # fmt: skip
        super().__init__(slots, session, learner.carried, learner.recipe.objective, buffer, flights, course, demands)
        self.learner, self.key = learner, key
        self.asked_at = 0  # updates when the last candidate was made
        self.figures: dict[str, float] = {}
        resume(self)

    def improve(self) -> str:
        """One turn of fine-tuning; says in a word what it did."""
        verdict = self.look()
        if verdict is not None:
            return verdict
        if self.may_learn():
            self.learn()
            return "learned"
        return "waits for rows"

    @property
    def updates(self) -> int:
        return self.learner.updates

    # ---- learning

    def may_learn(self) -> bool:
        enough = len(self.buffer) >= self.course.first_s * self.spec.rates.control_hz
        due = self.learner.updates + self.learner.tuning.round_updates <= self.course.updates_per_row * self.buffer.total
        return enough and due

    def learn(self) -> None:
        """A round: named in the journal with the rows it sees, then done, then saved."""
        self.number += 1
        self.session.note("round", round=self.number, rows=self.buffer.total)
        self.redo()
        self.propose_if_due()

    def redo(self) -> None:
        self.figures = self.learner.round(self.buffer.rows, self.number)
        self.session.save(self.number, self.learner.save())

    # ---- out: a candidate

    def propose_if_due(self) -> None:
        due = self.asked_at + self.course.candidate_updates if self.asked_at else self.course.first_updates
        if self.attempt is None and self.learner.updates >= due:
            self.check_falls()
            self.propose()

    def propose(self) -> None:
        """Learner -> child bundle -> the gate -> the slot folder."""
        self.asked_at = self.learner.updates
        carried = self.learner.child()
        held = self.held()
        guide = self.guide(carried, held)
        evidence = self.weigh(carried, held, guide)
        told = {"round": self.number, "updates": self.learner.updates, "rows": self.buffer.total, "weights": digest(carried)}
        if not evidence.passed:
            self.session.note("refused", **told, evidence=evidence.as_json())
            return
        words = {**told, "recipe": self.learner.tuning.recipe, "evidence": evidence.as_json()}
        self.put_up(carried, held, words if guide is None else {**words, "guide": guide.words}, guide)

    def put_up(self, carried: Carried, held: Rows, words: dict[str, Any], guide: Guide | None = None) -> None:
        """On trial, whatever the gate says of it: that is `propose`'s question. A bench plants candidates here."""
        data = make_child(self.current, carried, held.obs / self.layout.scale, words, self.key, guide)
        self.try_out(data, read_bundle(data, (), allow_unsigned=True).identity, words)

    def guide(self, carried: Carried, held: Rows) -> Guide | None:
        """Where the critics alone learn they drive too, by choosing near the actor's own action; else the child would be its parent."""
        if self.learner.recipe.moves_actor or not len(held.obs):
            return None
        return make_guide(carried, self.learner.recipe.objective, held.obs, self.course.guidance)

    # ---- reasons to end

    def check_falls(self) -> None:
        better = {entry["identity"] for entry in self.session.of("verdict") if entry["decision"] == "better"}
        tried = {int(entry["identity"], 16) for entry in self.session.of("candidate") if entry["identity"] not in better}
        falls = falls_under(self.buffer.rows, tried)
        if falls >= self.course.most_falls:
            raise TunerStop(
                f"candidates made the robot fall {falls} times: no other is tried; see why (tune report), then start a new session"
            )
