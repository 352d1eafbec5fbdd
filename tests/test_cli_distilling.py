"""`compile --size` and `--budget-us`: which size is taken, what is refused, and that a distilled policy file is a whole one."""

import json

import numpy as np
import pytest
from made_up_actor import balancing_actor, random_actor

from calibration.activations import make_set_file
from edge_dsac.bundle.actor import make_actor_file
from edge_dsac.bundle.gate import Comparison
from edge_dsac.bundle.manifest import BundleError, Precision
from edge_dsac.bundle.package import read_bundle
from edge_dsac.cli import budget
from edge_dsac.cli.budget import LADDER, BudgetError, Ladder, sizes_within
from edge_dsac.cli.distilling import Judged, LossError, refuse_loss, widths_of, within_budget
from edge_dsac.cli.judging import JudgingOptions, record_set
from edge_dsac.cli.main import main
from edge_dsac.spec.robot import load_robot

BOT = load_robot("balance_bot")
TEACHER = random_actor(BOT, (64, 64))


def comparison(low, difference=-1.0, only_student=0, only_teacher=0):
    """Of a teacher with a return of 200."""
    return Comparison(32, [0.1], [1.0], 200.0 + difference, difference, (low, 1.0), 200.0, 0.0, 0.0, only_student, only_teacher)


def test_a_student_that_keeps_its_teachers_return_passes():
    refuse_loss(comparison(-9.9), None, 0.95)
    refuse_loss(comparison(2.0, 3.0), None, 0.95)
    refuse_loss(comparison(-2.0, only_student=4), None, 0.95)  # chance of that: 1 in 16


REFUSED = {
    "the interval reaches too low": (comparison(-10.5), None, "may lose 5.2% of the teacher's return of 200"),
    "more falls": (comparison(-2.0, only_student=5), None, "falls in 5 episodes in which the teacher does not, the reverse in 0"),
    "more than is accepted": (comparison(-50.0), 0.2, r"25.0% .* 20.0% is accepted"),
    "no number": (comparison(float("nan")), None, "is refused"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_student_that_loses_too_much_is_refused(name):
    beside, accepted, reason = REFUSED[name]
    with pytest.raises(LossError, match=reason):
        refuse_loss(beside, accepted, 0.95)


def test_an_accepted_loss_is_one_of_falls_too():
    refuse_loss(comparison(-50.0, only_student=12), 0.3, 0.95)


def test_a_size_is_widths_of_hidden_layers():
    assert widths_of("32x16x8") == (32, 16, 8)
    for text in ("32by32", "x32", "0x8", "4096", ""):
        with pytest.raises(BundleError, match="--size"):
            widths_of(text)


# ---- sizes within a budget


def made_up_times(teacher_us, per_unit):
    """As many microseconds as the first hidden layer has units, times `per_unit`; the teacher's are given."""

    def time(actors, spec, calibration, precision):
        return {name: {"p99_us": teacher_us if name == "teacher" else actor.sizes[1] * per_unit} for name, actor in actors.items()}

    return time


def test_the_sizes_that_fit_are_smaller_than_the_teacher_and_the_largest_comes_first():
    ladder = sizes_within(TEACHER, BOT, 3.3, lambda text: None, made_up_times(9.0, 0.1))
    assert ladder.fitting == ((32, 32), (24, 24), (16, 16), (8, 8))
    assert not ladder.teacher_fits
    everything = sizes_within(TEACHER, BOT, 100.0, lambda text: None, made_up_times(9.0, 0.1))
    assert everything.fitting == LADDER[5:]  # 48x48 and smaller: not the teacher's own 64x64
    assert everything.teacher_fits


def test_a_budget_that_nothing_keeps_is_an_error_with_the_best_figure():
    with pytest.raises(BudgetError, match="--budget-us 0.5: no size down to 8x8 .* p99 of 0.8 us"):
        sizes_within(TEACHER, BOT, 0.5, lambda text: None, made_up_times(9.0, 0.1))


def test_less_work_takes_no_longer_whatever_was_measured():
    """48x48 was hit by something else; the teacher, which is larger, was within the budget."""

    def time(actors, spec, calibration, precision):
        return {name: {"p99_us": {"teacher": 9.0, "48x48": 90.0}.get(name, 4.0)} for name in actors}

    assert sizes_within(TEACHER, BOT, 10.0, lambda text: None, time).fitting == LADDER[5:]


def test_a_burst_of_something_else_costs_its_turns_and_not_the_figure(monkeypatch):
    turn = iter(range(100))

    def timed(engine, seen, calls, period_s):
        slow = calls == 200 and next(turn) in (2, 3, 9)  # 3 of 12 turns
        return [200_000 if slow and i % 10 == 0 else 5_000 for i in range(calls)]

    monkeypatch.setattr(budget, "timed", timed)
    monkeypatch.setattr(budget, "ask_for_realtime", list)
    figures = budget.p99s_us({"one": None}, np.zeros((4, 3), np.float32))["one"]
    assert figures["p99_us"] == 5.0
    assert figures["max_us"] == 200.0
    assert figures["count"] == 12 * 200


class MadeUpDistillery:
    """Whose students take so many microseconds once the gate has chosen their form."""

    teacher, spec = TEACHER, BOT

    def __init__(self, took):
        self.took, self.made, self.said = took, [], []

    def say(self, text):
        self.said.append(text)

    def student(self, widths):
        self.made.append(widths)
        return widths

    def judged(self, widths):
        words = {"measured_us": {"student": {"p99_us": self.took[widths]}}}
        return Judged(None, b"", None, Precision("int16", "", {}), words)


def fitting(*sizes):
    return lambda teacher, spec, budget_us, say: Ladder(90.0, False, 4.0, sizes)


def test_a_student_whose_form_is_slower_than_the_budget_gives_way_to_a_smaller_one():
    distillery = MadeUpDistillery({(32, 32): 11.0, (16, 16): 8.0, (8, 8): 4.0})
    found = within_budget(distillery, 10.0, fitting((32, 32), (16, 16), (8, 8)))
    assert distillery.made == [(32, 32), (16, 16)]
    assert found.words["budget_us"] == 10.0
    assert "32x32 as int16 takes 11.0 us (p99) of 10" in distillery.said[0]
    with pytest.raises(BudgetError, match="the best had a p99 of 3.5 us"):
        within_budget(MadeUpDistillery({(8, 8): 3.5}), 3.0, fitting((8, 8)))


def test_an_actor_within_the_budget_is_left_as_it_is():
    distillery = MadeUpDistillery({})
    assert within_budget(distillery, 10.0, lambda *_: Ladder(9.0, True, 4.0, ((8, 8),))) is None
    assert distillery.made == []


# ---- the command


WRONG = {
    "no rounds": (["--size", "8x8", "--distil-rounds", "0"], "--distil-rounds 0"),
    "a loss of nothing distilled": (["--accept-loss", "0.1"], "needs --size or --budget-us"),
    "a loss beyond everything": (["--size", "8x8", "--accept-loss", "5"], "expected a share of the return"),
    "a budget of nothing": (["--budget-us", "0"], "expected microseconds above 0"),
    "no size": (["--size", "big"], "expected the widths"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wishes_that_cannot_be_meant_are_refused(tmp_path, capsys, name):
    words, reason = WRONG[name]
    assert main(["compile", str(tmp_path), "--out", str(tmp_path / "x.policy"), *words]) == 3
    assert reason in capsys.readouterr().err


@pytest.mark.slow
def test_a_distilled_policy_file_is_whole_and_says_what_was_lost(tmp_path, capsys):
    teacher = balancing_actor(BOT)
    (tmp_path / "actor.npz").write_bytes(make_actor_file(list(teacher.layers), teacher.activation, BOT))
    (tmp_path / "seen.npz").write_bytes(make_set_file(record_set(teacher, BOT, JudgingOptions(recorded_robots=8, recorded_s=4.0))))
    out = tmp_path / "small.policy"
    words = ["compile", tmp_path / "actor.npz", "--robot", "balance_bot", "--out", out, "--observations", tmp_path / "seen.npz"]
    words += ["--unsigned", "--json", "--episodes", "16", "--size", "16x16", "--distil-rounds", "2"]
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    assert code == 0, said.err
    told = json.loads(said.out)["distilled"]
    bundle = read_bundle(out, (), allow_unsigned=True)
    assert bundle.manifest.actor.sizes == (11, 16, 16, 2)
    assert bundle.manifest.training["distilled"] == told
    assert json.loads(out.with_suffix(".report.json").read_text())["evidence"]["distilled"] == told
    assert len(told["rounds"]) == 2
    assert told["return_lost"]["low"] <= told["return_lost"]["mean"] <= told["return_lost"]["high"] <= 0.05 * told["return"]["teacher"]
    assert told["survival"]["student"] >= told["survival"]["teacher"] - 0.125  # one or two of 16 robots: the made-up one is no athlete
    assert 0.0 < told["error"]["mean"] < 0.05
    assert 0.1 < told["measured_us"]["student"]["p50_us"] < 1000.0
    obs = (np.random.default_rng(1).uniform(-0.05, 0.05, (200, 11)) * np.array(bundle.manifest.layout.observations.clip)).astype(np.float32)
    assert np.abs(bundle.actor.act(obs) - teacher.act(obs)).mean() < 0.2
