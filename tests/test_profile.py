"""Times in a histogram, and an engine chosen by them."""

import json

import numpy as np
import pytest

from edge_dsac.profile.choose import Choice, choice_path, choose, load_choice, save_choice
from edge_dsac.profile.histogram import Histogram, bucket_of, upper_edge_ns
from edge_dsac.profile.measure import CONDITIONS, Plan, measure
from edge_dsac.records import Observation


def of(times):
    histogram = Histogram()
    histogram.add(times)
    return histogram


def test_every_bucket_ends_where_the_next_begins():
    for bucket in (0, 1, 31, 32, 63, 64, 65, 95, 96, 500, 1000):
        edge = upper_edge_ns(bucket)
        assert bucket_of(np.array([edge, edge + 1])).tolist() == [bucket, bucket + 1]


def test_a_quantile_is_at_most_3_percent_above_the_true_one(generator):
    times = np.exp(generator.normal(9.0, 2.0, 20_000)).astype(np.int64)
    histogram = of(times)
    for share in (0.01, 0.5, 0.9, 0.99, 0.999, 1.0):
        true = int(np.quantile(times, share, method="inverted_cdf"))
        assert true <= histogram.quantile_ns(share) <= true * 1.032 + 1


def test_it_agrees_with_the_well_known_histogram(generator):
    hdrh = pytest.importorskip("hdrh.histogram", reason="hdrhistogram is not installed")
    oracle = hdrh.HdrHistogram(1, 10**10, 3)
    times = np.exp(generator.normal(9.0, 2.0, 5000)).astype(np.int64) + 1
    for time_ns in times.tolist():
        oracle.record_value(time_ns)
    for share in (0.5, 0.99, 0.999):
        assert of(times).quantile_ns(share) == pytest.approx(oracle.get_value_at_percentile(100 * share), rel=0.035)


def test_the_longest_time_is_kept_as_it_is_and_nothing_is_lost():
    histogram = of([5, 10**13, -3])
    assert histogram.count == 3
    assert histogram.quantile_ns(1.0) == 10**13
    assert of([]).figures() == {"p50_us": 0.0, "p99_us": 0.0, "p999_us": 0.0, "max_us": 0.0, "count": 0}


def found(**worst_us):
    return {name: {condition: of([int(1000 * us)] * 1000) for condition in CONDITIONS} for name, us in worst_us.items()}


def test_the_quickest_at_its_worst_is_chosen():
    times = found(numpy=20, native=2, onnxruntime=10)
    times["native"]["busy"] = of([50_000] * 1000)  # quick alone, slow when it matters
    choice = choose(times, ("native", "onnxruntime", "numpy"))
    assert choice.engine == "onnxruntime"
    assert "numpy 20" in choice.because
    assert "native 50" in choice.because


def test_where_two_are_alike_the_order_decides():
    assert choose(found(a=10.0, b=10.5, c=30), ("b", "a", "c")).engine == "b"
    assert choose(found(a=10.0, b=12.0, c=30), ("b", "a", "c")).engine == "a"


def test_a_choice_counts_only_for_its_policy_and_its_machine(tmp_path):
    policy = tmp_path / "x.policy"
    assert load_choice(policy, 7)[0] is None
    save_choice(Choice("native", "quick", {}), policy, 7)
    assert load_choice(policy, 7) == ("native", "quick")
    engine, why = load_choice(policy, 8)
    assert engine is None
    assert "another policy" in why
    words = json.loads(choice_path(policy).read_text())
    choice_path(policy).write_text(json.dumps({**words, "machine": "another board"}))
    assert load_choice(policy, 7)[0] is None
    choice_path(policy).write_text("{")
    assert "measure again" in load_choice(policy, 7)[1]


class Sleepless:
    """Counts, and remembers what it was shown."""

    def __init__(self):
        self.seen = []

    def act(self, obs: Observation):
        self.seen.append(float(obs.vector[0]))
        return np.zeros(1, np.float32)


@pytest.mark.slow
def test_every_engine_is_called_as_often_in_every_condition():
    engines = {"a": Sleepless(), "b": Sleepless()}
    result = measure(engines, np.arange(3.0)[:, None], Plan(period_s=0.001, seconds=0.5, idle_s=0.01, idle_calls=2))
    for name in engines:
        assert result[name]["alone"].count == result[name]["busy"].count == 500
        assert result[name]["idle"].count == 2
    assert set(engines["a"].seen) == {0.0, 1.0, 2.0}
