"""The verdict on a trial: how often it is wrong when it is asked after every pair and acted on at once, and what forbids acceptance."""

import dataclasses
import json
import math

import numpy as np
import pytest
from test_learn_windows import whole

from edge_dsac.learn.sequential import Demands, decide, e_values, interval, is_hopeless, judge, student_cdf, takes_too_long

TRIALS = 3000
LOOKS = 40  # far more than are flown: the promise holds at any stop
DEMANDS = Demands()


def first_words(gains):
    """Per trial `[trials, pairs]`: what was decided, and after how many pairs, by someone who looks after each."""
    word, at = np.full(len(gains), "undecided", dtype="<U9"), np.zeros(len(gains), int)
    for n in range(1, gains.shape[1] + 1):
        now = decide(gains[:, :n], DEMANDS)
        fresh = (word == "undecided") & (now != "undecided")
        word[fresh], at[fresh] = now[fresh], n
    return word, at


def noise_of(kind, generator):
    shape = (TRIALS, LOOKS)
    if kind == "normal":
        return generator.standard_normal(shape)
    if kind == "heavy tails":
        return generator.standard_t(3, shape) / math.sqrt(3.0)
    if kind == "mostly a bit better, now and then much worse":
        return 1.0 - generator.exponential(size=shape)
    if kind == "mostly a bit worse, now and then much better":
        return generator.exponential(size=shape) - 1.0
    fresh = generator.standard_normal(shape)  # neighbours are correlated by .3
    for i in range(1, shape[1]):
        fresh[:, i] = 0.3 * fresh[:, i - 1] + math.sqrt(1.0 - 0.09) * fresh[:, i]
    return fresh


KINDS = (
    "normal", "heavy tails", "mostly a bit better, now and then much worse", "mostly a bit worse, now and then much better", "correlated",
)  # fmt: skip


# Wrong acceptances. The standard error of 5 % of 3000 trials is .4 %.


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_candidate_that_is_slightly_worse_is_seldom_accepted_however_often_one_looks(kind, generator):
    word, _ = first_words(0.02 * (noise_of(kind, generator) - 0.1))
    assert (word == "better").mean() <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_candidate_that_is_the_same_is_seldom_accepted_or_condemned(kind, generator):
    word, _ = first_words(0.02 * noise_of(kind, generator))
    assert (word == "better").mean() <= 0.06  # 4.5 % where large losses are rare: a standard error is .4 %
    assert (word == "worse").mean() <= 0.06


def test_a_larger_gain_is_found_sooner(generator):
    """In deviations of a pair's difference. Simulated: 1: 18 pairs, 3: 7.7."""
    noise = noise_of("normal", generator)
    for effect, share, most in ((1.0, 0.97, 20.0), (3.0, 1.0, 8.5)):
        word, at = first_words(0.02 * (noise + effect))
        assert (word == "better").mean() >= share
        assert at[word == "better"].mean() <= most
        assert (word == "worse").sum() == 0


def word_of(gains):
    """What comes of one trial, and the pairs it took."""
    for n in range(1, len(gains) + 1):
        word = str(decide(gains[:n], DEMANDS))
        if word != "undecided":
            return word, n
        if is_hopeless(gains[:n], DEMANDS) or takes_too_long(gains[:n], DEMANDS):
            return "no evidence", n
    return "no evidence", len(gains)


@pytest.mark.slow
def test_what_would_take_too_long_makes_room_early_and_a_large_gain_is_waited_for(generator):
    """In deviations of a pair's difference; simulated: no gain 5 pairs, half a deviation 5.4, two 8.9 and 93 % found."""
    for effect, least_found, most_found, most_pairs in ((0.0, 0.0, 0.03, 6.0), (0.5, 0.0, 0.2, 7.0), (2.0, 0.85, 1.0, 10.0)):
        flown = [word_of(effect + generator.standard_normal(24)) for _ in range(200)]
        assert least_found <= np.mean([word == "better" for word, _ in flown]) <= most_found
        assert np.mean([at for _, at in flown]) <= most_pairs


def test_what_is_clearly_worse_is_off_after_three_pairs_and_a_gain_hardly_ever(generator):
    """In deviations of a pair's difference: it need not drive for the eight pairs that prove it."""
    noise = generator.standard_normal((4000, DEMANDS.least_pairs))
    for effect, least, most in ((-10.0, 0.99, 1.0), (-3.0, 0.7, 0.95), (0.0, 0.0, 0.05), (0.7, 0.0, 0.005)):
        assert least <= np.mean([is_hopeless(gains, DEMANDS) for gains in noise + effect]) <= most
    assert not any(is_hopeless(gains[:2], DEMANDS) for gains in noise - 10.0)


def test_nothing_is_foretold_from_too_few_pairs(generator):
    gains = 0.02 * generator.standard_normal(DEMANDS.foretell_from)
    gains -= gains.mean()  # nothing at all
    assert takes_too_long(gains, DEMANDS)
    assert not takes_too_long(gains[:-1], DEMANDS)
    assert not takes_too_long(gains, dataclasses.replace(DEMANDS, foretell_from=6))


def test_students_distribution_agrees_with_its_tables():
    """One-sided 5 % and 1 % points, from any table; degree 1 is Cauchy's."""
    for degrees, five, one in (
        (1, 6.3138, 31.8205),
        (2, 2.9200, 6.9646),
        (3, 2.3534, 4.5407),
        (4, 2.1318, 3.7469),
        (9, 1.8331, 2.8214),
        (30, 1.6973, 2.4573),
    ):
        assert student_cdf(np.array([0.0, five, one, -five]), degrees) == pytest.approx([0.5, 0.95, 0.99, 0.05], abs=2e-5)


def test_the_e_value_is_the_ratio_that_an_integration_gives(generator):
    """Over the effect's half-normal prior and the spread's right-Haar prior, by brute force."""
    from edge_dsac.learn import sequential

    gains = np.array([0.3, -0.1, 0.5, 0.2, 0.4])
    n, mean = len(gains), gains.mean()
    scatter = sequential.SPREAD * ((gains - mean) ** 2).sum()
    effect, log_sigma = np.linspace(0.0, 4.0, 801), np.linspace(-5.0, 4.0, 901)
    sigma = np.exp(log_sigma)[:, None]

    def likelihood(mu):
        return np.exp(-n * np.log(sigma) - (scatter + n * (mean - mu) ** 2) / (2.0 * sigma**2))

    prior = 2.0 * np.exp(-(effect**2) / (2.0 * sequential.EFFECT)) / np.sqrt(2.0 * np.pi * sequential.EFFECT)
    weights = np.full(len(effect), effect[1])
    weights[0] = weights[-1] = effect[1] / 2.0
    by_hand = [(likelihood(sign * effect * sigma) * prior * weights).sum() / likelihood(0.0).sum() for sign in (1.0, -1.0)]
    assert [float(value) for value in e_values(gains)] == pytest.approx(by_hand, rel=2e-3)


def test_units_do_not_matter_and_the_sides_are_symmetric(generator):
    gains = generator.standard_normal(12) + 0.5
    better, worse = e_values(gains)
    assert e_values(1e-3 * gains)[0] == pytest.approx(better, rel=1e-3)
    assert e_values(-gains) == (pytest.approx(worse), pytest.approx(better))


def test_no_pair_is_no_evidence_and_no_difference_is_none():
    assert e_values(np.zeros(0)) == (1.0, 1.0)
    assert max(e_values(np.zeros(40))) < 1.0
    assert decide(np.zeros(40), DEMANDS) == "undecided"
    assert decide(np.full(2, 0.5), dataclasses.replace(DEMANDS, alpha=0.9)) == "undecided"  # fewer than least_pairs


@pytest.mark.slow
def test_the_interval_holds_at_all_stops_at_once(generator):
    gains = 0.02 * generator.standard_normal((500, 40)) + 0.1
    missed = 0
    for trial in gains:
        ends = [interval(trial[:n], 0.05) for n in range(2, 41)]
        missed += any(not low <= 0.1 <= high for low, high in ends)
    assert missed <= 0.05 * 500
    low, high = interval(gains[0], 0.05)
    assert high - low < 0.06  # three deviations after 40 pairs: it says something


@pytest.mark.parametrize("effect", [-0.4, -4.0])
@pytest.mark.parametrize("count", [8, 36, 40, 200])
def test_many_pairs_that_are_all_much_worse_are_not_better(effect, count, generator):
    """Their evidence is beyond what a double's rounding can be multiplied with."""
    better, worse = e_values(effect + 0.02 * generator.standard_normal((50, count)))
    assert (better <= 1.0).all()
    assert (worse >= 20.0).all()
    assert (decide(effect + 0.02 * generator.standard_normal((50, count)), DEMANDS) == "worse").all()


@pytest.mark.slow
def test_where_the_reward_has_decided_the_interval_has_left_zero(generator):
    """A report that calls a gain better and shows an interval with zero in it is not believed."""
    decided = {"better": 0, "worse": 0}
    for effect in (0.5, 1.0, 3.0, 20.0, -0.5, -1.0, -3.0, -20.0):
        for n in range(3, 41):
            verdict = judge(flown(0.02 * (effect + generator.standard_normal(n))))
            if verdict.decision in decided:
                decided[verdict.decision] += 1
                low, high = verdict.interval
                assert low > 0.0 if verdict.decision == "better" else high < 0.0
    assert min(decided.values()) > 50


def test_the_interval_is_endless_while_there_are_too_few_pairs():
    assert interval(np.array([0.4]), 0.05) == (-math.inf, math.inf)
    assert interval(np.zeros(0), 0.05) == (-math.inf, math.inf)


def test_the_interval_leaves_zero_when_the_evidence_does():
    """Two-sided, so its evidence is the mean of the two sides."""
    gains = np.array([0.41, 0.38, 0.44, 0.40, 0.43, 0.39, 0.42, 0.41])
    for n in range(3, 9):
        low, _ = interval(gains[:n], 0.05)
        assert (low > 0.0) == (sum(e_values(gains[:n])) / 2.0 >= 20.0)
    assert low > 0.0


# The verdict


def flown(gains, old=0.42, **of_new):
    """Windows of pairs, the old one first. `of_new`: what else the new one's windows hold."""
    found = []
    for i, gain in enumerate(gains):
        found += [
            whole("old", old + 0.01 * (-1) ** i, action_rate=0.1),
            whole("new", old + 0.01 * (-1) ** i + gain, **{"action_rate": 0.1, **of_new}),
        ]
    return found


CLEAR = (0.41, 0.38, 0.44, 0.40, 0.43, 0.39, 0.42, 0.41)  # what was measured on the hidden robot, .42 to .83
SMALL = (0.1, -0.06, 0.12, 0.09, -0.05)
NOTHING = (0.01, -0.012, 0.004, -0.008, 0.011, -0.006, 0.002, -0.01)


def test_a_clear_gain_is_accepted_and_the_numbers_say_why():
    verdict = judge(flown(CLEAR))
    assert verdict.decision == "better"
    assert verdict.reasons == ("more reward in 8 pairs: +0.41 per tick",)
    assert (verdict.pairs, verdict.falls, verdict.interventions) == (8, (0, 0), (0, 0))
    assert verdict.rewards == pytest.approx((0.42, 0.83))
    assert verdict.gain == pytest.approx(0.41)
    assert verdict.e_better >= 20.0 > 1.0 > verdict.e_worse
    assert 0.0 < verdict.interval[0] < 0.41 < verdict.interval[1]


def test_before_that_it_is_undecided():
    assert judge([]).decision == "undecided"
    assert judge(flown(CLEAR[:2])).decision == "undecided"
    assert judge(flown(CLEAR[:5])).decision == "undecided"


def test_a_clear_loss_is_worse():
    verdict = judge(flown([-gain for gain in CLEAR]))
    assert (verdict.decision, verdict.reasons) == ("worse", ("less reward in 8 pairs: -0.41 per tick",))


def test_nothing_to_gain_ends_as_soon_as_anything_is_foretold():
    words = [judge(flown(NOTHING)[: 2 * n]).decision for n in range(3, 8)]
    assert words == ["undecided"] * 2 + ["no evidence"] * 3


def test_a_small_gain_that_would_take_too_long_is_no_evidence_and_says_so():
    verdict = judge(flown(SMALL))
    assert verdict.decision == "no evidence"
    assert verdict.reasons == ("after 5 pairs +0.04 per tick: more than 16 would be needed to show a gain",)
    assert judge(flown(SMALL), dataclasses.replace(DEMANDS, most_pairs=100)).decision == "undecided"


def test_three_bad_pairs_leave_nothing_to_hope_for():
    verdict = judge(flown([-gain for gain in CLEAR[:3]]))
    assert (verdict.decision, verdict.reasons) == ("no evidence", ("after 3 pairs -0.41 per tick: no gain to hope for",))


def test_one_fall_of_the_new_one_is_worse_at_once_whatever_it_earned():
    fallen = whole("new", void="mode FAULT", fell="new", reward=math.nan)
    for before in ((), CLEAR):
        verdict = judge([*flown(before), fallen])
        assert (verdict.decision, verdict.falls) == ("worse", (0, 1))
        assert verdict.reasons == ("the new policy fell 1 times, the old one 0",)


def test_a_fall_of_the_old_one_forbids_nothing():
    verdict = judge([*flown(CLEAR), whole("old", void="mode FAULT", fell="old", reward=math.nan)])
    assert (verdict.decision, verdict.falls, verdict.void) == ("better", (1, 0), 1)


@pytest.mark.parametrize(
    ("held", "named"),
    [
        ({"limited_share": 0.06}, "share of ticks on which the limiter stepped in 0.06, the old one's 0 (at most 1.5 times that and 0.05)"),
        ({"action_rate": 0.18}, "change of the action per tick 0.18, the old one's 0.1 (at most 1.5 times that and 0.02)"),
        ({"interventions": 1}, "a person stepped in 8 times while the new one drove, 0 while the old one did"),
        ({"limited_share": math.nan}, "share of ticks on which the limiter stepped in nan"),
    ],
)
def test_a_gain_that_the_limiter_the_motors_or_a_person_pay_for_is_not_accepted(held, named):
    verdict = judge(flown(CLEAR, **held))
    assert verdict.decision == "undecided"
    assert verdict.reasons[0].startswith(f"not accepted: {named}")
    at_the_end = judge(flown(CLEAR, **held), dataclasses.replace(DEMANDS, most_pairs=8))
    assert (at_the_end.decision, at_the_end.reasons) == ("no evidence", verdict.reasons)


def test_what_is_just_within_the_limits_is_accepted():
    assert judge(flown(CLEAR, limited_share=0.05, action_rate=0.169)).decision == "better"


def test_pairs_that_were_asked_for_something_else_do_not_count():
    driven = [whole("old", 0.4), whole("new", 0.9, references=(0.5,) * 4)]
    verdict = judge([*driven * 8])
    assert (verdict.pairs, verdict.unlike, verdict.decision) == (0, 8, "undecided")
    assert judge([*driven * 8], dataclasses.replace(DEMANDS, tolerance=0.6)).pairs == 8


def test_a_verdict_is_json_without_infinities():
    table = json.loads(json.dumps(judge([]).as_json(), allow_nan=False))
    assert (table["decision"], table["gain"], table["interval"]) == ("undecided", None, [None, None])
    assert json.loads(json.dumps(judge(flown(CLEAR)).as_json(), allow_nan=False))["rewards"] == pytest.approx([0.42, 0.83])
