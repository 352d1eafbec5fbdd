"""What is said of a fine-tuning session: from its journal, without a word that is not in it."""

import pytest
from PIL import Image

from edge_dsac.watch.tuned import draw_tuned, lines_of, report_of

SETTINGS = {"parent": "ab" * 32, "tuning": {"recipe": "full", "round_updates": 50}}
EVIDENCE = {"reasons": [], "shift": {"mean": [0.1, 0.3]}, "gain": {"mean": 0.2, "low": 0.1}}


def window(who, reward, void="", fell=""):
    return {
        "who": who,
        "first": 0,
        "ticks": 400,
        "void": void,
        "reward": reward,
        "action_square": 0.25 if who == "old" else 0.16,
        "fell": fell,
    }


def verdict(identity, decision, gain, falls=(0, 0)):
    trial = {
        "pairs": 8, "gain": gain, "interval": [gain - 0.1, None if gain is None else gain + 0.1] if gain is not None else [None, None],
        "rewards": [0.3, 0.7], "falls": list(falls), "interventions": [0, 1], "e_better": 40.0, "e_worse": 0.1,
        "limited_share": [0.1, 0.0], "action_rate": [0.2, 0.1],
    }  # fmt: skip
    windows = [
        window("old", 0.3),
        window("new", 0.7),
        window("new", None, "the log ends"),
        window("new", 0.1, fell="new" if falls[1] else ""),
    ]
    return {
        "event": "verdict",
        "identity": identity,
        "decision": decision,
        "why": "as it was",
        "trial": trial,
        "loop": {},
        "windows": windows,
    }


def candidate(identity):
    return {"event": "candidate", "identity": identity, "updates": 4500, "rows": 5000, "evidence": EVIDENCE}


def rounds(count):
    return [{"event": "round", "round": number + 1, "rows": 100 * (number + 1)} for number in range(count)]


def test_one_accepted_child_makes_a_session_better_whatever_else_was_tried():
    events = [
        *rounds(90), candidate("c1"), verdict("c1", "worse", -0.2), {"event": "refused", "evidence": {"reasons": ["no gain by the critics"]}},
        candidate("c2"), verdict("c2", "better", 0.4), {"event": "ended", "why": "the time is up", "seconds": 300.0},
    ]  # fmt: skip
    report = report_of(SETTINGS, events, 300.0)
    assert (report["verdict"], report["accepted"], report["refused_before_a_trial"]) == ("better", 1, 1)
    assert (report["updates"], report["rows"], report["seconds"], report["ended"]) == (4500, 9000, 300.0, "the time is up")
    assert report["trials"][1]["energy_of_action"] == {"old": 0.25, "new": 0.16}
    assert report["trials"][0]["action_shift"] == 0.3
    assert report["interventions"] == {"old": 0, "new": 2}
    words = "\n".join(lines_of(report))
    for part in ("better: 1 accepted of 2 tried", "4500 updates on 9000 rows", "gain +0.400", "no gain by the critics", "0.250 -> 0.160"):
        assert part in words


def test_a_session_of_a_candidate_that_was_made_elsewhere_learns_nothing_and_says_what_it_was_judged_on():
    settings = {**SETTINGS, "tuning": {"recipe": "made elsewhere", "round_updates": 0}}
    made = {**candidate("c1"), "round": 0, "updates": 0, "rows": 5000}
    report = report_of(settings, [made, verdict("c1", "better", 0.4), {"event": "ended", "why": "better: so", "seconds": 60.0}], 60.0)
    assert (report["verdict"], report["updates"], report["rows"]) == ("better", 0, 5000)
    assert "made elsewhere: 5000 rows in 60 s; better: so" in "\n".join(lines_of(report))


@pytest.mark.parametrize(
    ("decisions", "wanted"), [([], "no evidence"), (["no evidence"], "no evidence"), (["no evidence", "worse"], "worse")]
)
def test_the_word_over_a_session(decisions, wanted):
    events = [verdict(str(i), decision, None, (0, int(decision == "worse"))) for i, decision in enumerate(decisions)]
    report = report_of(SETTINGS, events, 300.0)
    assert report["verdict"] == wanted
    assert report["falls"]["new"] == decisions.count("worse")
    assert report["ended"] == "not ended"
    goes_on = report_of(SETTINGS, [{"event": "ended", "why": "the time is up", "seconds": 9.0}, {"event": "opened"}], 12.0)
    assert (goes_on["ended"], goes_on["seconds"]) == ("not ended", 12.0)
    assert lines_of(report)[0].startswith(wanted)


@pytest.mark.slow
def test_a_picture_of_trials_and_one_of_none(tmp_path):
    events = [
        *rounds(3),
        candidate("c1"),
        verdict("c1", "worse", -0.2, (0, 1)),
        verdict("c2", "better", 0.4),
        verdict("c3", "no evidence", None),
    ]
    interrupted = [*rounds(3), {**verdict("c0", "no evidence", None), "windows": [], "why": "interrupted"}]
    heights = {}
    for name, told in (
        ("some", events),
        ("one more that flew no window", [*interrupted, *events]),
        ("that alone", interrupted),
        ("none", []),
    ):
        out = tmp_path / f"{name}.png"
        draw_tuned(report_of(SETTINGS, told, 300.0), out)
        with Image.open(out) as picture:
            heights[name] = picture.size[1]
        assert out.stat().st_size > 5_000
    assert heights["some"] == heights["one more that flew no window"] > heights["that alone"] == heights["none"]
