"""A candidate on trial, as its tuner follows it: the windows that the log shows, and what they and the loop's word come to.

Knows no learner and changes nothing: what is done about a verdict is tuner.py's. Rule that must stay true: what the loop took off is
never "better", whatever its windows say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from edge_dsac.bundle.slot_folder import Outcome, Stage
from edge_dsac.bundle.trial_plan import TrialPlan
from edge_dsac.learn.sequential import Demands, Verdict, judge
from edge_dsac.learn.windows import Window, Windows
from edge_dsac.spec.robot import RobotSpec
from edge_dsac.steplog.follow import Chunk


class Judged(NamedTuple):
    decision: str  # better, worse, no evidence
    why: str
    verdict: Verdict  # of its windows so far
    outcome: Outcome | None  # the loop's word, if it is about this one


@dataclass(slots=True)
class Attempt:
    identity: int
    reader: Windows | None = None  # made once its trial is seen in a flight
    flight: int = 0
    windows: list[Window] = field(default_factory=list)

    def follow(self, chunk: Chunk, plan: TrialPlan, spec: RobotSpec, old: int) -> None:
        """From the first tick that it drove; one flight is one trial."""
        if self.reader is None:
            drove = np.flatnonzero(chunk.columns["bundle_id"] == np.uint64(self.identity))
            if not len(drove):
                return
            first = int(chunk.columns["index"][drove[0]])
            words = (plan.window_ticks, plan.settle_ticks, first, plan.max_coasted_share, plan.approach_ticks)
            self.reader = Windows(spec, old, self.identity, *words)
            self.flight = chunk.flight
        if chunk.flight == self.flight:
            self.windows += self.reader.feed(chunk.columns)
            if chunk.over:
                self.windows += self.reader.finish()

    def judged(self, outcome: Outcome | None, gone: str | None, demands: Demands) -> Judged | None:
        """None while it flies. `gone`: why the folder has no candidate any more; None while it has."""
        mine = outcome if outcome is not None and outcome.candidate == self.identity else None
        verdict = judge(self.windows, demands)
        if mine is not None and mine.stage in (Stage.ABORTED, Stage.INTERRUPTED):
            decision = "worse" if mine.stage is Stage.ABORTED else "no evidence"
            return Judged(decision, f"{mine.stage.value}: {mine.why}", verdict, mine)
        if gone is not None:
            return Judged("no evidence", gone, verdict, None)
        if verdict.decision != "undecided":
            return Judged(verdict.decision, "; ".join(verdict.reasons), verdict, mine)
        if mine is not None and mine.stage is Stage.OVER:
            return Judged("no evidence", "all windows flown, and no difference to be seen", verdict, mine)
        return None


def window_words(window: Window) -> dict[str, Any]:
    return {
        "who": window.who, "first": window.first, "ticks": window.ticks, "void": window.void, "reward": finite(window.reward),
        "action_square": finite(window.action_square), "fell": window.fell,
    }  # fmt: skip


def finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
