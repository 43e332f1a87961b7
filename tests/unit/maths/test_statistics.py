"""Statistics of a few seeds, against scipy and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.maths import statistics

samples = st.lists(st.floats(-100, 100).map(lambda value: round(value, 3)), min_size=2, max_size=12)


def test_interquartile_mean_of_eight_values_drops_two_at_each_end():
    # 1 2 | 3 4 5 6 | 7 100: mean of the middle four is 4.5, whatever the outlier
    assert statistics.interquartile_mean([100, 1, 2, 3, 4, 5, 6, 7]) == pytest.approx(4.5)


def test_interquartile_mean_of_five_values_counts_cut_values_in_part():
    # a quarter of 5 is 1.25: 0 drops out, 1 and 3 count 0.75, 2 counts 1; (0.75 + 2 + 2.25) / 2.5 = 2
    assert statistics.interquartile_mean([0, 1, 2, 3, 50]) == pytest.approx((0.75 * 1 + 2 + 0.75 * 3) / 2.5)


def test_interquartile_mean_of_three_values_leans_on_the_median():
    # a quarter of 3 is 0.75: weights 0.25, 1, 0.25
    assert statistics.interquartile_mean([0.0, 1.0, 8.0]) == pytest.approx((0.25 * 0 + 1 + 0.25 * 8) / 1.5)


@pytest.mark.parametrize("values", [[4.0], [1.0, 7.0]])
def test_interquartile_mean_of_one_or_two_values_is_their_mean(values):
    assert statistics.interquartile_mean(values) == pytest.approx(np.mean(values))


@given(values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6).map(lambda v: v * 4))
def test_interquartile_mean_is_the_trimmed_mean_where_four_divides_the_count(values):
    assert statistics.interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25), abs=1e-9)


def test_interquartile_mean_works_along_any_axis():
    table = np.arange(24.0).reshape(4, 6)

    assert statistics.interquartile_mean(table, axis=0) == pytest.approx(
        [statistics.interquartile_mean(column) for column in table.T]
    )


def test_interquartile_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        statistics.interquartile_mean([])


def test_cohens_d_by_hand():
    # means 3 and 1, variances 1 and 1, pooled deviation 1
    assert statistics.cohens_d([2, 3, 4], [0, 1, 2]) == pytest.approx(2.0)
    assert statistics.cohens_d([1, 1], [0, 0]) == math.inf
    assert statistics.cohens_d([0, 0], [1, 1]) == -math.inf


@given(a=samples, b=samples)
def test_probability_of_improvement_is_the_mann_whitney_statistic(a, b):
    expected = stats.mannwhitneyu(a, b, method="asymptotic").statistic / (len(a) * len(b))

    probability, interval = statistics.probability_of_improvement(a, b, resamples=50)

    assert probability == pytest.approx(expected)
    if interval is None:
        assert probability in (0, 0.5, 1)
    else:
        assert 0 <= interval.low <= interval.high <= 1


def test_probability_of_improvement_has_no_interval_where_all_pairs_agree():
    assert statistics.probability_of_improvement([2.0], [1.0]) == (1.0, None)
    assert statistics.probability_of_improvement([0.0, 0.5], [1.0, 1.5]) == (0.0, None)


def test_bootstrap_is_the_same_for_the_same_seed_and_differs_for_another():
    values = np.random.default_rng(0).normal(size=40)

    first = statistics.bootstrap_interval([values], statistics.interquartile_mean, resamples=500)

    assert first == statistics.bootstrap_interval([values], statistics.interquartile_mean, resamples=500)
    assert first != statistics.bootstrap_interval([values], statistics.interquartile_mean, resamples=500, seed=1)


@pytest.mark.parametrize(("count", "least"), [(4, 0.83), (8, 0.90), (20, 0.92)])  # unwidened: 0.80, 0.87, 0.92
def test_bootstrap_interval_of_a_mean_covers_it_about_as_often_as_it_says(count, least):
    generator = np.random.default_rng(5)
    hits = 0
    for _ in range(400):
        interval = statistics.bootstrap_interval(
            [generator.normal(size=count)], lambda drawn: drawn.mean(axis=1), resamples=1000
        )
        hits += interval.low <= 0 <= interval.high

    assert least <= hits / 400 <= 0.985


def test_bootstrap_resamples_each_stratum_on_its_own():
    # strata without spread leave nothing to resample; mixing them would
    interval = statistics.bootstrap_interval(
        [[1.0, 1.0, 1.0], [4.0, 4.0]], lambda a, b: b.mean(axis=1) - a.mean(axis=1), resamples=200
    )

    assert interval == (3.0, 3.0)


def test_bootstrap_of_single_values_is_refused():
    with pytest.raises(ValueError, match="two or more"):
        statistics.bootstrap_interval([[1.0], [2.0]], lambda a, b: (a - b).mean(axis=1))


def test_pooled_intervals_share_spread_and_degrees_of_freedom():
    # squares about the means: 2 + 2; df 2; spread sqrt(2); t(0.975, 2) = 4.3027; reach 4.3027 * sqrt(2 / 2)
    first, second = statistics.pooled_intervals([[0.0, 2.0], [10.0, 12.0]])

    assert first == pytest.approx((1 - 4.30265, 1 + 4.30265), abs=1e-4)
    assert second == pytest.approx((11 - 4.30265, 11 + 4.30265), abs=1e-4)


def test_pooled_intervals_know_when_they_know_nothing():
    assert statistics.pooled_intervals([[1.0], []]) == [None, None]
    assert statistics.pooled_intervals([[1.0, 1.0]]) == [None]


def test_a_pooled_variance_weighs_samples_by_their_degrees_of_freedom():
    assert statistics.pooled_variance([[1.0, 3.0], [0.0, 0.0, 3.0], [7.0], []]) == (pytest.approx((2 + 6) / 3), 3)
    assert np.isnan(statistics.pooled_variance([[1.0], []])[0])
