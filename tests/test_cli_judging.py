"""From an actor to a verdict and its picture: a good one keeps int8, a spoilt candidate does not fly."""

import json
import time

import numpy as np
import pytest
from made_up_actor import balancing_actor, random_actor, with_weights_of

from calibration.activations import widened
from edge_dsac.bundle.integer import make_integer
from edge_dsac.bundle.ort_engine import OrtEngine
from edge_dsac.cli.judging import (
    JudgingOptions,
    by_rows,
    calibrated_integer,
    calibrated_onnx,
    candidates,
    judge_actor,
    record_set,
    write_report,
)
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import load_robot
from edge_dsac.watch.compiled import CompiledPicture, draw_compiled, make_report

BOT = load_robot("balance_bot")
QUICK = JudgingOptions(recorded_robots=8, recorded_s=4.0, episodes=16, episode_s=2.0)
ACTOR = balancing_actor(BOT)


@pytest.fixture(scope="module")
def recorded():
    return record_set(ACTOR, BOT, QUICK)


@pytest.mark.slow
def test_what_is_recorded_says_where_it_comes_from(recorded):
    assert recorded.provenance.policy == f"{ACTOR.identity:016x}"
    assert recorded.provenance.seeds == (QUICK.seed,)
    assert len(recorded.held_out) >= 1000


@pytest.mark.slow
def test_a_good_actor_keeps_int8_and_the_report_is_written(recorded, tmp_path):
    judgement = judge_actor(ACTOR, BOT, QUICK, recorded)
    assert judgement.verdict.chosen == "int8", judgement.verdict.because
    png, words = write_report(judgement, BOT, tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG")
    report = json.loads(words.read_text())
    assert report["verdict"]["chosen"] == "int8"
    assert report["actor"] == f"{ACTOR.identity:016x}"
    assert len(report["returns"]["float32"]) == QUICK.episodes
    assert report["evidence"]["held_out_rows"] == len(recorded.held_out)
    assert 0 < report["evidence"]["coverage"]["pitch_rad"][2] < 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compile-report.json", "compile-report.png"]


@pytest.mark.slow
def test_judging_again_says_the_same_to_the_last_digit(recorded):
    """Whatever ran beside what: an engine of onnxruntime that two threads asked at once had answered one with the other's action."""

    def only(*what):  # so that its flight begins at once, while all that was held out would be asked
        return {"int8 onnx": candidates(*what)["int8 onnx"]}

    one, other = (judge_actor(ACTOR, BOT, QUICK, recorded, only).verdict.as_json() for _ in range(2))
    assert one == other


@pytest.mark.slow
def test_no_policy_is_asked_by_two_threads_at_once(recorded):
    class Alone:
        inside = False

        def __call__(self, obs):
            assert not self.inside
            self.inside = True
            time.sleep(0.3 if len(obs) > QUICK.episodes else 0.0)  # all that was held out: its flight would begin meanwhile
            action = ACTOR.act(obs)
            self.inside = False
            return action

    judge_actor(ACTOR, BOT, QUICK, recorded, lambda *_: {name: Alone() for name in ("int8", "int16", "float16", "int8 onnx")})


@pytest.mark.slow
def test_three_bit_weights_fall_back_to_sixteen_bits_and_the_reason_is_said(recorded):
    def planted(actor, spec, calibration):
        return {**candidates(actor, spec, calibration), "int8": with_weights_of(actor, 3).act}

    verdict = judge_actor(ACTOR, BOT, QUICK, recorded, planted).verdict
    assert verdict.chosen == "int16"
    assert "int8 refused: mean error" in verdict.because
    assert "int8" in verdict.refused


@pytest.mark.slow
def test_a_candidate_that_answers_nan_falls_back_and_is_still_drawn(recorded, tmp_path):
    def planted(actor, spec, calibration):
        def sometimes_nan(obs):
            action = actor.act(obs)
            action[::7] = np.nan
            return action

        return {**candidates(actor, spec, calibration), "int8": sometimes_nan}

    judgement = judge_actor(ACTOR, BOT, QUICK, recorded, planted)
    assert judgement.verdict.chosen == "int16"
    assert "int8 refused: answers NaN or infinity on" in judgement.verdict.because
    _, words = write_report(judgement, BOT, tmp_path)
    assert json.loads(words.read_text())["verdict"]["figures"]["measured"]["int8"]["errors"]["not_finite"] > 100


@pytest.mark.slow
def test_what_is_judged_as_int8_is_what_is_to_be_deployed():
    actor, clip = random_actor(BOT), ObservationLayout(BOT).clip
    obs = (np.random.default_rng(1).uniform(-0.3, 0.3, (300, len(clip))) * clip).astype(np.float32)
    policies = candidates(actor, BOT, obs)
    assert np.array_equal(policies["int8"](obs), calibrated_integer(actor, BOT, obs).act(obs))
    assert np.array_equal(policies["int8"](obs), make_integer(actor, widened(obs, clip), clip).act(obs))
    assert not np.array_equal(policies["int8"](obs), make_integer(actor, obs, clip).act(obs))
    assert np.array_equal(policies["int8 onnx"](obs), by_rows(OrtEngine(calibrated_onnx(actor, BOT, obs), BOT, 1))(obs))


@pytest.mark.slow
def test_a_report_without_a_flight_is_drawn_too(tmp_path):
    """What a board can measure without a simulation."""
    from edge_dsac.bundle.gate import Measured, judge, measure
    from edge_dsac.spec.layout import ActionLayout

    wanted = np.random.default_rng(1).uniform(-1, 1, (500, 2))
    verdict = judge({"int8": Measured(measure(wanted, wanted + 0.01, ActionLayout(BOT).to_command))})
    nothing = {"float32": np.zeros((10, 2))}
    seen = {"float32": np.zeros((10, 11))}
    picture = CompiledPicture(BOT, "12" * 8, wanted, {"int8": wanted + 0.01}, seen, nothing, {"float32": np.zeros(3)}, verdict.as_json())
    draw_compiled(picture, tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 20_000
    assert json.loads(make_report(picture, {}))["verdict"]["refused"]["int8"][-1] == "was not flown"


@pytest.mark.slow
def test_who_flies_beside_flies_the_same_episodes_and_is_not_judged(recorded):
    judgement = judge_actor(ACTOR, BOT, QUICK, recorded, lambda *_: {"float16": ACTOR.act}, beside={"teacher": ACTOR.act})
    assert set(judgement.flown) == {"float32", "teacher", "float16"}
    for one in judgement.flown.values():  # side by side, in threads: and yet the very same
        assert np.array_equal(one.obs, judgement.flown["float32"].obs)
        assert np.array_equal(one.returns, judgement.flown["float32"].returns)
    assert "teacher" not in judgement.verdict.figures["measured"]
