"""The gate: errors worked by hand, falls and returns that mean something, and candidates that must not pass."""

import dataclasses
import json
import re

import numpy as np
import pytest

from edge_dsac.bundle.gate import (
    Flight,
    GateError,
    Limits,
    Measured,
    chance_of_falls,
    compare,
    jitter,
    judge,
    measure,
)

TO_COMMAND = np.array([[0.8, 0.8], [-0.2, 0.2]])  # balance_bot: common and differential into two wheels
ROWS, EPISODES, TICKS = 2000, 20, 50


def reference(rows=ROWS):
    return np.random.default_rng(1).uniform(-0.8, 0.8, (rows, 2))


def off_by(size, seed=2):
    wanted = reference()
    return measure(wanted, wanted + np.random.default_rng(seed).uniform(-size, size, wanted.shape), TO_COMMAND)


def flight(shake=0.0, loses=0.0, fallen=(), seed=3):
    """Robots that count up slowly, shaken by `shake` every second tick; `loses` of 100 points of return."""
    actions = np.linspace(-0.5, 0.5, TICKS)[:, None, None] * np.ones((TICKS, EPISODES, 2))
    actions[::2] += shake
    failed = np.zeros(EPISODES, bool)
    failed[list(fallen)] = True
    returns = 100.0 + np.random.default_rng(seed).normal(0.0, 5.0, EPISODES) - loses
    return Flight(actions, np.ones((TICKS, EPISODES), bool), returns, failed)


def flown(**changes):
    return compare(flight(), flight(**changes), seed=0)


GOOD = {"int8": Measured(off_by(0.02), flown()), "int16": Measured(off_by(0.002), flown()), "float16": Measured(off_by(0.0002), flown())}


# ---- measuring


def test_errors_are_what_the_hand_says():
    wanted = np.zeros((200, 2))
    wanted[:, 0] = 0.5
    candidate = wanted.copy()
    candidate[0] = [0.6, -0.3]  # one of 200: off by .1 and .3
    errors = measure(wanted, candidate, TO_COMMAND)
    assert errors.mean == pytest.approx([0.1 / 200, 0.3 / 200])
    assert errors.most == pytest.approx([0.1, 0.3])
    assert errors.p99 == pytest.approx([0.0, 0.0])
    assert errors.si_most == pytest.approx([0.8 * 0.1 + 0.2 * 0.3, 0.8 * 0.1 - 0.2 * 0.3])  # left, right
    assert errors.snr_db[0] == pytest.approx(10 * np.log10(0.25 / (0.01 / 200)))
    assert (errors.observations, errors.not_finite) == (200, 0)


def test_percent_of_range_is_of_all_that_an_action_or_a_command_can_be():
    wanted = np.zeros((100, 2))
    errors = measure(wanted, wanted + [0.2, 0.0], TO_COMMAND)
    assert errors.percent_of_range == pytest.approx([10.0, 0.0])  # of -1..1
    assert errors.si_percent_of_range == pytest.approx([8.0, 8.0])  # 0.16 of -1..1 duty


def test_what_is_no_number_counts_as_off_by_the_whole_range():
    wanted = reference()
    candidate = wanted.copy()
    candidate[7, 1], candidate[9, 0] = np.nan, np.inf
    errors = measure(wanted, candidate, TO_COMMAND)
    assert errors.not_finite == 2
    assert errors.most == [2.0, 2.0]
    assert errors.mean == pytest.approx([2.0 / ROWS] * 2)


@pytest.mark.parametrize("shape", [(ROWS, 3), (ROWS - 1, 2), (ROWS,)])
def test_arrays_of_other_shapes_are_an_error(shape):
    with pytest.raises(GateError, match=r"expected two arrays \[observations, 2\], got \(2000, 2\)"):
        measure(reference(), np.zeros(shape), TO_COMMAND)
    with pytest.raises(GateError, match="not the same episodes"):
        compare(flight(), Flight(np.zeros((TICKS, 3, 2)), np.ones((TICKS, 3), bool), np.zeros(3), np.zeros(3, bool)), 0)


def test_a_float32_actor_that_answers_nan_is_an_error():
    with pytest.raises(GateError, match="the float32 actor itself"):
        measure(np.full((10, 2), np.nan), np.zeros((10, 2)), TO_COMMAND)


def test_jitter_is_the_rms_change_of_robots_that_live():
    actions = np.zeros((5, 2, 1))
    actions[:, 0, 0] = [0.0, 0.3, 0.0, 0.3, 0.0]
    actions[:, 1, 0] = [0.0, 0.1, 99.0, -99.0, 99.0]  # fell after its second tick
    alive = np.ones((5, 2), bool)
    alive[2:, 1] = False
    flown = Flight(actions, alive, np.zeros(2), np.zeros(2, bool))
    assert jitter(flown) == pytest.approx([np.sqrt((4 * 0.09 + 0.01) / 5)])


def test_returns_are_compared_episode_by_episode():
    """Episodes differ by 5, the candidate loses 1 in each: unpaired nothing would be seen."""
    found = flown(loses=1.0)
    assert found.return_difference == pytest.approx(-1.0)
    assert found.interval == pytest.approx((-1.0, -1.0))
    assert found.float_return == pytest.approx(100.0, abs=3.0)


def test_the_interval_holds_the_mean_and_narrows_with_confidence():
    wide, narrow = (compare(flight(), flight(seed=8), 0, confidence) for confidence in (0.95, 0.5))
    assert wide.interval[0] < narrow.interval[0] < wide.return_difference < narrow.interval[1] < wide.interval[1]
    assert compare(flight(), flight(seed=8), 0).interval == wide.interval
    deviation = np.std(flight(seed=8).returns - flight().returns) / np.sqrt(EPISODES)
    assert wide.interval[1] - wide.interval[0] == pytest.approx(2 * 1.96 * deviation, rel=0.1)


def test_falls_are_judged_by_the_episodes_in_which_only_one_fell():
    assert chance_of_falls(0, 0) == 1.0
    assert chance_of_falls(4, 0) == pytest.approx(1 / 16)  # four heads of four
    assert chance_of_falls(5, 0) == pytest.approx(1 / 32)
    assert chance_of_falls(5, 5) == pytest.approx(0.623, abs=1e-3)


# ---- judging


def test_good_candidates_leave_int8_chosen():
    verdict = judge(GOOD)
    assert verdict.chosen == "int8"
    assert verdict.because == "int8 keeps every limit"
    assert verdict.refused == {}
    assert verdict.accepted == ["int8", "int16", "float16"]


REFUSED = {
    "mean": (Measured(off_by(0.06), flown()), r"mean error 0\.03\d* of an action \(limit 0\.02\)"),
    "tail": (Measured(dataclasses.replace(off_by(0.02), p99=[0.01, 0.11]), flown()), r"99th percentile 0\.11"),
    "largest": (Measured(dataclasses.replace(off_by(0.02), most=[0.9, 0.01]), flown()), r"largest error 0\.9"),
    "nan": (Measured(dataclasses.replace(off_by(0.02), not_finite=1), flown()), r"NaN or infinity on 1 of 2000 observations"),
    "jitter": (Measured(off_by(0.02), flown(shake=0.05)), r"jitter \d+\.\d+ of float32's \(limit 1\.15\)"),
    "return": (Measured(off_by(0.02), flown(loses=2.0)), r"return falls by 2 of 99\.3"),
    "falls": (Measured(off_by(0.02), flown(fallen=range(5))), "falls in 5 episodes in which float32 does not, the reverse in 0"),
    "not flown": (Measured(off_by(0.02)), "was not flown"),
    "few observations": (Measured(dataclasses.replace(off_by(0.02), observations=999), flown()), "999 observations, 1000 are needed"),
    "few episodes": (Measured(off_by(0.02), dataclasses.replace(flown(), episodes=15)), "flown in 15 episodes, 16 are needed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_int8_falls_back_to_sixteen_bits_and_says_why(name):
    bad, said = REFUSED[name]
    verdict = judge({**GOOD, "int8": bad})
    assert verdict.chosen == "int16"
    assert len(verdict.refused["int8"]) == 1
    assert verdict.because.startswith("int8 refused: ")
    assert re.search(said, verdict.because), verdict.because


def test_within_the_noise_nothing_is_refused():
    for harmless in (flown(loses=0.5), flown(fallen=range(4)), flown(seed=11), flown(shake=0.003)):
        assert judge({**GOOD, "int8": Measured(off_by(0.02), harmless)}).chosen == "int8"


def test_with_whole_numbers_refused_float16_drives_and_with_all_refused_float32_and_every_reason_is_kept():
    bad = Measured(off_by(0.02), flown())
    assert judge({**GOOD, "int8": REFUSED["mean"][0], "int16": bad}).chosen == "float16"
    verdict = judge({"int8": REFUSED["mean"][0], "int16": bad, "float16": bad})
    assert verdict.chosen == "float32"
    assert verdict.because.count("refused") == 3
    assert set(verdict.refused) == {"int8", "int16", "float16"}


def test_what_was_not_measured_is_not_chosen():
    assert judge({}).chosen == "float32"
    verdict = judge({"float16": GOOD["float16"]})
    assert verdict.chosen == "float16"
    assert verdict.refused == {"int8": ["was not measured"], "int16": ["was not measured"]}


def test_another_form_of_int8_is_judged_by_its_limits_and_never_chosen():
    verdict = judge({"int8 onnx": GOOD["int8"], "int8": REFUSED["mean"][0], "float16": GOOD["float16"]})
    assert verdict.chosen == "float16"
    assert verdict.accepted == ["int8 onnx", "float16"]
    assert "int8 onnx" in judge({**GOOD, "int8 onnx": REFUSED["tail"][0]}).refused
    with pytest.raises(GateError, match="'int4' has no limits"):
        judge({"int4": GOOD["int8"]})


def test_other_limits_give_another_verdict():
    assert judge(GOOD, dataclasses.replace(Limits(), least_episodes=21)).chosen == "float32"


def test_a_verdict_is_plain_json_with_its_figures_and_limits():
    nothing = np.full((ROWS, 2), np.nan)
    verdict = judge({**GOOD, "int8": Measured(measure(reference(), nothing, TO_COMMAND), flown())})
    words = json.loads(json.dumps(verdict.as_json(), allow_nan=False))
    assert words["chosen"] == "int16"
    assert words["figures"]["limits"]["int8"]["most"] == 0.2
    assert words["figures"]["measured"]["int8"]["errors"]["not_finite"] == ROWS
