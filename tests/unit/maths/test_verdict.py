"""The rule of the verdict: worked by hand, as it must not change, and against its limits in scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from orchestrator.maths import verdict

# The published bounds of the rule (95 %): seeds to bounds for 1, 3, 8 and 15 arms against the baseline.
BOUNDS = {
    2: (4.68, 4.18, 3.98, 3.99),
    3: (2.96, 3.19, 3.36, 3.57),
    5: (2.37, 2.75, 3.03, 3.22),
    10: (2.13, 2.50, 2.80, 2.99),
    20: (2.02, 2.40, 2.70, 2.88),
}
samples = arrays(np.float64, (4, 3), elements=st.floats(-1, 1, width=32)).filter(
    lambda found: np.ptp(found, axis=1).min() > 1e-3
)


def decide(groups, **options):
    means, variances, counts = verdict.moments(groups)
    return verdict.decide(means, variances, counts, **options)


# --- what a seed counts by -------------------------------------------------------------------------------------------


def test_a_curve_is_averaged_over_the_stretch_and_nothing_else():
    # From 80 to 100: 1.0 at 80 (half way from 0 to 2), 2.0 at 90, 1.0 at 100; two trapezoids of mean 1.5.
    assert verdict.window_mean([0, 70, 90, 100, 200], [9.0, 0.0, 2.0, 1.0, 9.0], 80, 100) == pytest.approx(1.5)


def test_a_curve_is_linear_between_measurements_and_held_beyond_them():
    assert verdict.window_mean([0, 100], [0.0, 1.0], 80, 100) == pytest.approx(0.9)
    assert verdict.window_mean([0, 50], [0.0, 1.0], 80, 100) == 1.0
    assert verdict.window_mean([0.0, 0.0], [0.2, 0.5], 80, 100) == 0.5  # an arm that spends nothing, as it ended


def test_an_empty_stretch_is_a_place():
    assert verdict.window_mean([0, 100], [0.0, 1.0], 50, 50) == pytest.approx(0.5)


@given(
    st.lists(st.floats(0, 100), min_size=2, max_size=8, unique=True),
    st.floats(0, 99),
    st.integers(0, 2**31),
)
def test_the_average_is_the_integral_of_the_interpolated_curve(costs, low, seed):
    costs, values = np.sort(costs), np.random.default_rng(seed).normal(size=len(costs))
    places = low + (100 - low) * (np.arange(20_000) + 0.5) / 20_000

    found = verdict.window_mean(costs, values, low, 100)

    assert found == pytest.approx(np.interp(places, costs, values).mean(), abs=2e-3)


def test_weights_add_up_to_one_and_make_the_average():
    costs, values = np.arange(0, 101, 10.0), np.random.default_rng(0).normal(size=11)

    weights = verdict.window_weights(costs, 80, 100)

    assert weights[-3:] == pytest.approx([0.25, 0.5, 0.25])
    assert weights.sum() == pytest.approx(1)
    assert weights @ values == pytest.approx(verdict.window_mean(costs, values, 80, 100))


# --- variances and distances -----------------------------------------------------------------------------------------


def test_variances_are_drawn_towards_the_common_one():
    # V = (1*2 + 3*6) / 4 = 5; s = (4*5 + 1*2) / 5 and (4*5 + 3*6) / 7
    assert verdict.shrunken([2.0, 6.0], [2, 4]) == pytest.approx([22 / 5, 38 / 7])


def test_two_arms_of_two_seeds_by_hand():
    # Means 1 and 6, variances 2 and 2, so that shrinking changes nothing: T = 5 / sqrt(2/2 + 2/2).
    found = decide([[0.0, 2.0], [5.0, 7.0]])

    assert found.difference == pytest.approx([5.0])
    assert found.error == pytest.approx([np.sqrt(2)])
    assert found.distance == pytest.approx([5 / np.sqrt(2)])
    assert found.named.tolist() == [0]  # 3.54 is nearer than 4.68
    assert found.low == pytest.approx(5 - 4.7 * np.sqrt(2), abs=0.1)


def test_three_arms_of_unequal_seeds_by_hand():
    # v = 4, 2, 0.5; V = (2*4 + 1*2 + 1*0.5) / 4 = 2.625
    # s = (10.5 + 8) / 6, (10.5 + 2) / 5, (10.5 + 0.5) / 5 = 3.08333, 2.5, 2.2
    found = decide([[0.0, 2.0, 4.0], [5.0, 7.0], [1.5, 2.5]])

    assert found.error == pytest.approx([np.sqrt(3.0833333 / 3 + 2.5 / 2), np.sqrt(3.0833333 / 3 + 2.2 / 2)])
    assert found.distance == pytest.approx([4 / np.sqrt(2.2777778), 0])


def test_the_common_variance_alone_makes_dunnetts_distance_and_no_prior_makes_welchs():
    generator = np.random.default_rng(3)
    groups = [generator.normal(0.4, 0.1 * (1 + place), size=4 + place) for place in range(3)]
    means, variances, counts = verdict.moments(groups)

    pooled = verdict.distances(means, variances, counts, prior=np.inf)[2]
    alone = verdict.distances(means, variances, counts, prior=0.0)[2]

    assert pooled == pytest.approx(stats.dunnett(*groups[1:], control=groups[0]).statistic)
    assert alone == pytest.approx([stats.ttest_ind(one, groups[0], equal_var=False).statistic for one in groups[1:]])


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", BOUNDS)
def test_bounds_are_those_published(seeds):
    """Both sides are simulations of 40,000 draws, each with a standard error of 0.4 to 0.8 %."""
    found = [verdict.bound((seeds,) * (arms + 1)) for arms in (1, 3, 8, 15)]

    assert found == pytest.approx(BOUNDS[seeds], rel=0.02)


def test_with_one_common_spread_bounds_and_p_values_are_dunnetts():
    generator = np.random.default_rng(8)
    groups = [generator.normal(0.1 * (place == 2), 0.05, size=4) for place in range(5)]
    exact = stats.dunnett(*groups[1:], control=groups[0], random_state=np.random.default_rng(0))
    means, variances, counts = verdict.moments(groups)
    distance = verdict.distances(means, variances, counts, prior=np.inf)[2]

    tops = verdict.chance(counts, prior=np.inf, spread=0.0)

    found = [(tops >= abs(one)).mean() for one in distance]
    assert found == pytest.approx(exact.pvalue, abs=0.008)


def test_without_a_prior_p_is_welchs_where_arms_scatter_alike():
    generator = np.random.default_rng(4)
    groups = [generator.normal(0.0, 1.0, size=12), generator.normal(0.8, 1.0, size=12)]
    means, variances, counts = verdict.moments(groups)

    found = verdict.decide(means, variances, counts, prior=0.0, spread=0.0)

    assert found.p == pytest.approx(stats.ttest_ind(groups[1], groups[0], equal_var=False).pvalue, abs=0.004)
    assert found.p == found.p_adjusted


@pytest.mark.parametrize("counts", [(3, 3), (4, 2, 3, 3), (10, 2, 2, 2)])
def test_bounds_grow_with_confidence_and_fall_with_arms_left(counts):
    bounds = [verdict.bound(counts, confidence) for confidence in (0.5, 0.8, 0.9, 0.95, 0.99)]
    left = [verdict.bound(counts, left=sorted(counts[1:])[:size]) for size in range(1, len(counts))]

    assert bounds == sorted(bounds)
    assert left == sorted(left)


def test_bounds_do_not_depend_on_the_order_of_arms():
    assert verdict.bound((4, 2, 3, 5)) == verdict.bound((4, 5, 2, 3))
    assert verdict.bound((4, 2, 3, 5), left=[5, 2]) == verdict.bound((4, 2, 3, 5), left=[2, 5])


def test_a_design_with_one_seed_has_no_bound():
    with pytest.raises(ValueError, match="at least two each"):
        verdict.bound((3, 1))
    with pytest.raises(ValueError, match="2 arms of 3 seeds left of 1"):
        verdict.bound((3, 3, 4), left=[3, 3])


# --- decisions -------------------------------------------------------------------------------------------------------


def test_p_and_bound_agree_everywhere():
    counts = (3, 3, 3)
    edge = verdict.bound(counts)
    ratio = np.array([[edge * (1 - 1e-9), 0.0], [edge * (1 + 1e-9), 0.0]])

    p = verdict.adjusted_p(ratio, counts)

    assert p[0, 0] >= 0.05 > p[1, 0]


def test_arms_left_are_judged_among_themselves():
    counts, both = (5, 5, 5), verdict.bound((5, 5, 5))
    alone = verdict.bound(counts, left=[5])
    between = (both + alone) / 2  # too near for the furthest of two, far enough for the last one

    far, near = verdict.adjusted_p([9.0, between], counts), verdict.adjusted_p([0.1, between], counts)

    assert far[1] < 0.05 <= near[1]


def test_the_interval_of_an_arm_named_in_a_later_step_is_cut_at_zero():
    counts, error = (5, 5, 5), np.sqrt(2 / 5)
    between = (verdict.bound(counts) + verdict.bound(counts, left=[5])) / 2

    found = verdict.decide([0.0, 9.0, between * error], [1.0, 1.0, 1.0], counts)

    assert found.named.tolist() == [1, 1]
    assert found.low[0] > 0
    assert found.low[1] == 0.0
    below = verdict.decide([0.0, 9.0, -between * error], [1.0, 1.0, 1.0], counts)
    assert (below.named.tolist(), below.high[1]) == ([1, -1], 0.0)


def test_equivalence_is_two_one_sided_tests_under_the_same_correction():
    counts, error = (5, 5, 5), np.sqrt(2 / 5)
    reach = verdict.bound(counts, 0.90) * error

    inside = verdict.decide([0.0, 0.1, 0.2], [1.0] * 3, counts, margin=reach + 0.15)
    without = verdict.decide([0.0, 0.1, 0.2], [1.0] * 3, counts)

    assert inside.equivalent.tolist() == [True, False]
    assert without.equivalent.tolist() == [False, False]


def test_an_arm_that_is_named_is_not_equivalent():
    found = verdict.decide([0.0, 1.0], [1e-4, 1e-4], (5, 5), margin=10.0)

    assert (found.named.tolist(), found.equivalent.tolist()) == ([1], [False])


def test_without_any_spread_nothing_is_decided():
    found = decide([[0.1] * 3, [0.9] * 3], margin=1.0)

    assert (found.named.tolist(), found.equivalent.tolist(), found.p_adjusted.tolist()) == ([0], [False], [1.0])
    assert np.isnan([found.low, found.high, found.distance]).all()


def test_experiments_side_by_side_are_judged_as_each_alone():
    generator = np.random.default_rng(1)
    means, variances, counts = generator.normal(size=(20, 5)), generator.gamma(2, size=(20, 5)) / 4, (6, 2, 3, 3, 2)

    together = verdict.decide(means, variances, counts, margin=2.0)

    for row in range(20):
        alone = verdict.decide(means[row], variances[row], counts, margin=2.0)
        for name in ("distance", "p", "p_adjusted", "low", "high", "named", "equivalent"):
            assert np.array_equal(getattr(alone, name), getattr(together, name)[row])


@settings(deadline=None)
@given(samples, st.floats(-5, 5))
def test_a_shift_of_everything_changes_nothing(values, shift):
    before, after = decide(values), decide(values + shift)

    assert after.distance == pytest.approx(before.distance, rel=1e-6, abs=1e-6)
    assert after.difference == pytest.approx(before.difference, abs=1e-9)


@settings(deadline=None)
@given(samples, st.floats(0.01, 100))
def test_units_change_nothing(values, scale):
    before, after = decide(values), decide(scale * values)

    assert after.distance == pytest.approx(before.distance, rel=1e-9, abs=1e-9)
    assert after.high - after.low == pytest.approx(scale * (before.high - before.low), rel=1e-9)


@settings(deadline=None)
@given(samples, st.permutations([1, 2, 3]))
def test_the_order_of_arms_changes_nothing(values, order):
    before, after = decide(values), decide(values[[0, *order]])

    places = np.array(order) - 1
    assert after.distance == pytest.approx(before.distance[places], rel=1e-9, abs=1e-12)
    assert after.p_adjusted == pytest.approx(before.p_adjusted[places], abs=1e-4)


@settings(deadline=None)
@given(samples)
def test_signs_turn_with_the_metric_and_more_confidence_names_less(values):
    up, down = decide(values), decide(-values)

    assert (up.named == -down.named).all()
    assert up.p_adjusted == pytest.approx(down.p_adjusted)
    assert (np.abs(decide(values, confidence=0.99).named) <= np.abs(up.named)).all()
    assert (up.p_adjusted >= up.p).all()


@pytest.mark.parametrize(("counts", "spread"), [((3, 3), 0.5), ((10, 2, 2, 2), 0.5), ((3,) * 9, 0.5), ((5, 5), 0.0)])
def test_equal_arms_of_the_rules_own_world_are_named_in_five_percent_or_less(counts, spread):
    generator = np.random.default_rng(12)
    n, size = np.array(counts), (20_000, len(counts))
    sigma = np.exp(spread * generator.normal(size=size))
    means = sigma * generator.normal(size=size) / np.sqrt(n)
    variances = sigma**2 * generator.chisquare(n - 1, size=size) / (n - 1)

    named = (verdict.decide(means, variances, counts).named != 0).any(axis=-1).mean()

    assert named <= 0.0546  # three standard errors of a share of 20,000
    if spread == verdict.SPREAD:
        assert named >= 0.0454
