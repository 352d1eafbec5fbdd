"""What windows and the loop's word come to."""

import pytest

from edge_dsac.bundle.slot_folder import Outcome, Stage
from edge_dsac.learn.attempt import Attempt
from edge_dsac.learn.sequential import Demands
from edge_dsac.learn.windows import Window

MINE, OTHER = 7, 8


def flown(gain, pairs=10):
    """Pairs of windows of 10 ticks; a little apart from pair to pair, as real ones are."""
    windows = []
    for i in range(pairs):
        for who, reward in (("old", 0.5), ("new", 0.5 + gain)):
            windows.append(Window(who, 10 * len(windows), 10, 8, "", reward + 0.003 * (i % 3), 0.1, 0.01, 0.0, 0.0, (0.0,) * 4))
    return windows


def attempt(gain=0.0, pairs=10):
    return Attempt(MINE, windows=flown(gain, pairs))


def outcome(stage, candidate=MINE):
    return Outcome(candidate, stage, "a reason", {"windows": []})


def test_clear_windows_need_no_word_of_the_loop():
    for gain, decision in ((0.2, "better"), (-0.2, "worse")):
        assert attempt(gain).judged(outcome(Stage.BEGUN), None, Demands()).decision == decision


@pytest.mark.parametrize(("stage", "decision"), [(Stage.ABORTED, "worse"), (Stage.INTERRUPTED, "no evidence")])
def test_what_the_loop_took_off_is_never_better(stage, decision):
    judged = attempt(0.2).judged(outcome(stage), None, Demands())
    assert (judged.decision, judged.why) == (decision, f"{stage.value}: a reason")
    assert judged.outcome is not None


def test_the_loops_word_on_another_candidate_says_nothing_of_this_one():
    assert attempt(0.2).judged(outcome(Stage.ABORTED, OTHER), None, Demands()).decision == "better"
    assert attempt(0.2).judged(outcome(Stage.ABORTED, OTHER), None, Demands()).outcome is None
    assert attempt(pairs=0).judged(outcome(Stage.OVER, OTHER), None, Demands()) is None


def test_while_it_flies_there_is_no_verdict_and_at_the_end_there_is():
    flying = attempt(0.2, pairs=1)
    assert flying.judged(None, None, Demands()) is None
    assert flying.judged(outcome(Stage.BEGUN), None, Demands()) is None
    over = flying.judged(outcome(Stage.OVER), None, Demands())
    assert (over.decision, over.why) == ("no evidence", "all windows flown, and no difference to be seen")


def test_one_that_somebody_took_away_leaves_no_evidence():
    judged = attempt(0.2, pairs=1).judged(None, "a person's word", Demands())
    assert (judged.decision, judged.why) == ("no evidence", "a person's word")
