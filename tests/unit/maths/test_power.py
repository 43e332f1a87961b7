"""Power before spending: against simulation, against the textbook's limit, and as it must move."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from orchestrator.maths import power, verdict

DESIGNS = [(3, 3), (5, 5), (2, 2), (3,) * 16, (6, *(3,) * 15), (10, 2, 3, 4)]


def simulated(effect, counts, spread, arm, draws=8_000):
    generator = np.random.default_rng(77)
    n, size = np.array(counts), (draws, len(counts))
    sigma = np.exp(spread * generator.normal(size=size) - spread**2)
    means = sigma * generator.normal(size=size) / np.sqrt(n)
    means[:, arm] += effect
    variances = sigma**2 * generator.chisquare(n - 1, size=size) / (n - 1)
    return (verdict.decide(means, variances, counts).named[:, arm - 1] > 0).mean()


@pytest.mark.parametrize("counts", DESIGNS)
@pytest.mark.parametrize("spread", [0.0, 0.3, 0.6])
def test_predicted_power_is_what_simulation_finds(counts, spread):
    arm = len(counts) - 1
    effect = power.smallest_difference(1.0, counts, wanted=0.7, arm=arm, spread=spread)

    assert simulated(effect, counts, spread, arm) == pytest.approx(0.7, abs=0.025)


def test_a_baseline_known_to_scatter_more_lowers_the_power_and_more_of_its_seeds_cure_it():
    relative = (2.0, 1.0, 1.0, 1.0)

    same, noisy = power.power(3.0, 1.0, (3,) * 4), power.power(3.0, 1.0, (3,) * 4, relative=relative)

    assert power.power(3.0, 1.0, (3,) * 4, relative=(1.0,) * 4) == same
    assert noisy < same
    assert noisy < power.power(3.0, 1.0, (6, 3, 3, 3), relative=relative)


@pytest.mark.parametrize("counts", DESIGNS)
def test_the_smallest_difference_is_found_as_often_as_asked(counts):
    found = power.smallest_difference(0.03, counts, wanted=0.8)

    assert power.power(found, 0.03, counts) == pytest.approx(0.8, abs=1e-5)
    assert power.power(-found, 0.03, counts) == pytest.approx(0.8, abs=1e-5)


@pytest.mark.parametrize("counts", [(3, 3), (10, 10), (5,) * 9])
def test_the_chance_of_equivalence_is_what_simulation_finds(counts):
    generator = np.random.default_rng(3)
    n, size = np.array(counts), (8_000, len(counts))
    means = generator.normal(size=size) / np.sqrt(n)
    variances = generator.chisquare(n - 1, size=size) / (n - 1)

    found = verdict.decide(means, variances, counts, margin=2.0).equivalent[:, 0].mean()

    assert power.chance_of_equivalence(2.0, 1.0, counts) == pytest.approx(found, abs=0.025)
    assert power.chance_of_equivalence(0.01, 1.0, counts) == 0.0


def test_many_seeds_have_the_power_of_students_test_at_the_rules_bound():
    n, effect = 60, 0.5
    bound = verdict.bound((n, n))
    exact = 1 - stats.nct.cdf(bound, 2 * (n - 1), effect * np.sqrt(n / 2))

    assert power.power(effect, 1.0, (n, n)) == pytest.approx(exact, abs=0.005)


def test_the_textbook_number_of_seeds_is_near():
    # Cohen's table: 64, 26 and 17 per group for d = 0.5, 0.8 and 1.0, at 5 % two-sided and 80 %
    for effect, count in ((0.5, 64), (0.8, 26), (1.0, 17)):
        assert power.seeds_needed(effect) == pytest.approx(count, abs=2)


def test_more_arms_need_more_seeds_and_a_larger_baseline_fewer():
    assert power.seeds_needed(1.0) < power.seeds_needed(1.0, arms=8) < power.seeds_needed(1.0, arms=15)
    assert power.seeds_needed(1.0, arms=15, baseline=2.0) < power.seeds_needed(1.0, arms=15)


def test_no_effect_is_never_found_and_a_tiny_one_not_within_reason():
    assert power.seeds_needed(0.0) is None
    assert power.seeds_needed(0.01) is None
    assert power.seeds_needed(50.0) == 2
    assert power.power(0.1, 0.0, (3, 3)) == 1.0  # nothing scatters


@settings(deadline=None)
@given(st.floats(0.1, 6), st.floats(1.01, 2), st.sampled_from(DESIGNS), st.sampled_from([0.0, 0.3]))
def test_power_grows_with_the_effect_and_falls_with_noise(effect, factor, counts, spread):
    at = power.power(effect, 1.0, counts, spread=spread)

    assert power.power(effect * factor, 1.0, counts, spread=spread) >= at
    assert power.power(effect, factor, counts, spread=spread) <= at
    assert power.power(effect * factor, factor, counts, spread=spread) == pytest.approx(at)
    assert power.power(effect, 1.0, counts, spread=spread, confidence=0.99) <= at


def test_noise_adds_up_and_more_answers_remove_their_share():
    # 0.15 / (128 * 4) = 2.93e-4 an evaluation; averaged with weights 1/4 1/2 1/4 there is 3/8 left
    left = power.left_by_averaging([0.25, 0.5, 0.25])
    noise = power.Noise(training=4e-4, answer=0.15, tasks=128, samples=4, averaging=left)

    assert left == pytest.approx(0.375)
    assert noise.evaluation == pytest.approx(0.15 / 512 * 0.375)
    assert noise.total == pytest.approx(4e-4 + noise.evaluation)
    assert noise.share == pytest.approx(noise.evaluation / noise.total)
    assert noise.with_evaluation(samples=4).evaluation == pytest.approx(noise.evaluation / 4)
    assert noise.with_evaluation(tasks=2, averaging=0.5).evaluation == pytest.approx(noise.evaluation / 4)
    assert power.Noise(training=0.0, answer=0.0, tasks=1, samples=1).share == 0.0
