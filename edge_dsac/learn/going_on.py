"""Going on after a kill: to where the journal says that we were, bit by bit, or not at all.

Rule that must stay true: what drives is the session's parent, or a child that this session accepted; else another policy's learner would
propose children of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_dsac.learn.attempt import Attempt
from edge_dsac.learn.course import TunerStop

if TYPE_CHECKING:
    from edge_dsac.learn.gatekeeper import Gatekeeper
    from edge_dsac.learn.tuner import Tuner


def resume(tuner: Tuner) -> None:
    """To where the journal says that we were, bit by bit: the newest state, the round that was under way, the candidate that flies."""
    saved = tuner.session.load()
    if saved is not None:
        tuner.learner.restore(saved.arrays)
        tuner.number = saved.round
    rounds = tuner.session.of("round")
    if rounds and rounds[-1]["round"] > tuner.number:
        if rounds[-1]["round"] != tuner.number + 1 or rounds[-1]["rows"] != tuner.buffer.total:
            raise TunerStop("rows or states are missing that the journal names (a power cut?): start a new session; rows are kept")
        tuner.number += 1
        tuner.redo()
    tuner.asked_at = max((entry["updates"] for entry in tuner.session.events if entry["event"] in ("candidate", "refused")), default=0)
    find_candidate(tuner)
    check_line(tuner)
    if tuner.number:
        tuner.propose_if_due()  # killed between a round and what it led to


def find_candidate(gate: Gatekeeper) -> None:
    """One of ours that is still in the folder: on trial, or with a verdict that was not carried out."""
    flying = gate.slots.candidate()
    if flying is None:
        return
    identity, name = flying[0].identity, f"{flying[0].identity:016x}"
    verdicts = [entry for entry in gate.session.of("verdict") if entry["identity"] == name]
    if verdicts:
        gate.settle(identity, verdicts[-1]["decision"], verdicts[-1]["why"])
    elif any(entry["identity"] == name for entry in gate.session.of("candidate")):
        gate.attempt = Attempt(identity)


def check_line(tuner: Tuner) -> None:
    """What drives is the session's parent, or a child that the session accepted: the learner's networks are of this line."""
    accepted = {entry["identity"] for entry in tuner.session.of("verdict") if entry["decision"] == "better"}
    parent = tuner.session.words["parent"]
    if tuner.current.manifest.sha256 != parent and f"{tuner.current.identity:016x}" not in accepted:
        raise TunerStop(
            f"{tuner.current.manifest.name} version {tuner.current.manifest.version} is not of this session; start a new one on it"
        )
