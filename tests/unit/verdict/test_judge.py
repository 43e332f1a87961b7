"""What the verdict decides, and what it leaves open."""

import numpy as np
import pytest

from orchestrator.report.tables import rule
from orchestrator.runs.curves import Curve, common_cost
from orchestrator.verdict.judge import Outcome, compare, judge


def curve(arm, seed, end, *, start=0.2, reach=1000.0):
    return Curve(
        arm=arm,
        seed=seed,
        steps=np.array([0.0, 5.0, 10.0]),
        costs=np.array([0.0, reach / 2, reach]),
        values=np.array([start, (start + end) / 2, end]),
    )


def arms(**ends):
    return [curve(arm, seed, end) for arm, values in ends.items() for seed, end in enumerate(values)]


def by_seed(*values):
    return dict(enumerate(values))


def test_curves_are_read_at_the_largest_cost_all_of_them_reach():
    curves = [curve("a", 0, 0.6, reach=1000.0), curve("b", 0, 0.6, reach=500.0)]

    assert common_cost(curves) == 500.0
    assert curves[0].at(500.0) == pytest.approx(0.4)  # half way from 0.2 to 0.6


def test_the_budget_is_the_common_cost_where_all_reach_it():
    curves = [curve("a", 0, 0.6, reach=1000.0), curve("b", 0, 0.6, reach=1100.0)]

    assert common_cost(curves, budget=800) == 800.0
    assert common_cost(curves, budget=5000) == 1000.0


def test_an_arm_that_spends_nothing_sets_no_limit_and_is_taken_as_it_ended():
    # b goes from 0.2 to 0.6; the start, measured once, and the demonstrations, trained to 0.5, generate nothing
    curves = [curve("b", seed, 0.6, reach=1000.0 + seed) for seed in range(3)]
    for seed in range(3):
        once, twice = np.zeros(1), np.zeros(2)
        curves.append(Curve(arm="start", seed=seed, steps=once, costs=once, values=np.array([0.2])))
        values = np.array([0.2, 0.5])
        curves.append(Curve(arm="demos", seed=seed, steps=np.array([0.0, 9.0]), costs=twice, values=values))

    verdict = judge(curves, metric="m", baseline="start")

    assert (verdict.cost, verdict.costless) == (1000.0, ("start", "demos"))
    assert [(c.arm, c.difference) for c in verdict.comparisons] == [
        ("b", pytest.approx(0.4, abs=1e-3)),
        ("demos", pytest.approx(0.3)),
    ]
    assert "which all of them reached but start, demos, which spent none and is taken as it ended" in rule(verdict)
    assert common_cost(curves, budget=400) == 400.0
    assert (
        judge([one for one in curves if one.arm != "b"], metric="m").costless == ()
    )  # nobody spent: compared before any cost


def test_a_spender_does_not_win_by_spending():
    # b learns the same per token and goes on twice as long: at equal cost there is no difference
    curves = [curve("a", s, 0.40 + 0.01 * s, reach=1000.0) for s in range(5)]
    curves += [curve("b", s, 0.60 + 0.02 * s, reach=2000.0) for s in range(5)]

    verdict = judge(curves, metric="m")

    assert verdict.comparisons[0].difference == pytest.approx(0.0, abs=1e-12)
    assert verdict.comparisons[0].outcome is Outcome.UNDECIDED


def test_a_clear_difference_is_named_with_all_its_numbers():
    verdict = judge(arms(grpo=[0.40, 0.42, 0.41, 0.43], dars=[0.50, 0.52, 0.53, 0.51]), metric="eval/pass_at_1")

    found = verdict.comparisons[0]
    assert (found.arm, found.baseline, found.outcome) == ("dars", "grpo", Outcome.BETTER)
    assert found.difference == pytest.approx(0.10)
    assert found.interval.low > 0
    assert found.improvement_probability == 1.0
    assert found.effect == pytest.approx(0.10 / np.std([0, 1, 2, 3], ddof=1) * 100)
    assert verdict.headline.startswith("dars is better than grpo: +0.100 [")


def test_a_loss_is_named_too_and_less_can_be_better():
    curves = arms(a=[0.5, 0.51, 0.52, 0.53], b=[0.4, 0.41, 0.42, 0.43])

    assert judge(curves, metric="m").comparisons[0].outcome is Outcome.WORSE
    lower = judge(curves, metric="m", mode="min").comparisons[0]
    assert lower.outcome is Outcome.BETTER
    assert lower.improvement_probability == 1.0


def test_the_baseline_can_be_any_arm():
    verdict = judge(arms(a=[0.5, 0.51, 0.52], b=[0.4, 0.41, 0.42]), metric="m", baseline="b")

    assert [(c.arm, c.outcome) for c in verdict.comparisons] == [("a", Outcome.BETTER)]
    with pytest.raises(ValueError, match=r"report\.baseline: no arm 'c'"):
        judge(arms(a=[0.5, 0.6]), metric="m", baseline="c")


def test_noise_is_not_evidence_and_the_verdict_says_how_many_seeds_would_be():
    verdict = judge(arms(a=[0.40, 0.50, 0.45], b=[0.44, 0.52, 0.48]), metric="m")

    found = verdict.comparisons[0]
    assert found.outcome is Outcome.UNDECIDED
    assert "Not enough evidence" in verdict.headline
    assert found.seeds_needed == 37  # d = 0.030 / 0.0451 = 0.665, alpha 0.05, power 0.8
    assert f"about {found.seeds_needed} seeds" in found.reason


def test_one_seed_never_wins_and_the_reason_is_given():
    found = compare("b", "a", by_seed(0.99), by_seed(0.01))

    assert found.outcome is Outcome.UNDECIDED
    assert found.difference == pytest.approx(0.98)
    assert found.p is None
    assert found.interval is None
    assert "one seed of b and a cannot tell" in found.reason


def test_one_seed_against_many_never_wins():
    found = compare("b", "a", by_seed(0.99), by_seed(0.01, 0.02, 0.03))

    assert found.outcome is Outcome.UNDECIDED
    assert found.reason.startswith("one seed of b cannot")


def test_two_seeds_may_decide_only_when_they_are_far_apart():
    assert compare("b", "a", by_seed(0.50, 0.55), by_seed(0.40, 0.45)).outcome is Outcome.UNDECIDED
    assert compare("b", "a", by_seed(0.900, 0.901), by_seed(0.100, 0.101)).outcome is Outcome.BETTER


def test_seeds_without_any_spread_decide_only_when_they_are_many():
    three = compare("b", "a", by_seed(*[0.9] * 3), by_seed(*[0.1] * 3))
    four = compare("b", "a", by_seed(*[0.9] * 4), by_seed(*[0.1] * 4))

    assert three.outcome is Outcome.UNDECIDED
    assert "no spread" in three.reason
    assert four.outcome is Outcome.BETTER


def test_more_arms_need_stronger_evidence():
    a, b = by_seed(0.40, 0.44, 0.42), by_seed(0.47, 0.50, 0.485)

    alone = compare("b", "a", b, a)
    among_ten = compare("b", "a", b, a, comparisons=10)

    assert alone.outcome is Outcome.BETTER
    assert among_ten.outcome is Outcome.UNDECIDED
    assert among_ten.p_adjusted == pytest.approx(10 * alone.p)
    assert among_ten.interval.low < alone.interval.low


def test_a_difference_that_one_seed_carries_is_not_named():
    # the means differ by the one run that failed to learn, the middle halves do not
    treatment = by_seed(*np.linspace(0.50, 0.52, 30))
    control = by_seed(*np.linspace(0.50, 0.52, 24), *[0.1] * 6)

    found = compare("b", "a", treatment, control)

    assert found.p < 0.05
    assert found.outcome is Outcome.UNDECIDED
    assert "does not clear zero: a few seeds may carry it" in found.reason


def test_pairs_are_the_seeds_both_arms_finished():
    found = compare("b", "a", {0: 0.5, 1: 0.6, 2: 0.7}, {1: 0.5, 2: 0.55, 3: 0.1})

    assert found.pairs == 2
    assert found.paired_difference == pytest.approx((0.1 + 0.15) / 2)


def test_arms_without_a_finished_seed_are_kept_in_the_table():
    verdict = judge(arms(a=[0.5, 0.6]), metric="m", arms=["a", "b"])

    assert verdict.comparisons[0].reason == "b finished no seed"
    assert verdict.arms[1].iqm is None


def test_nothing_is_decided_while_trials_are_to_come():
    verdict = judge(arms(a=[0.1, 0.11, 0.12], b=[0.9, 0.91, 0.92]), metric="m", final=False)

    assert verdict.comparisons[0].outcome is Outcome.UNDECIDED
    assert verdict.headline.startswith("Preliminary")


def test_improvement_is_each_seed_over_its_own_start():
    curves = [curve("a", 0, 0.5, start=0.2), curve("a", 1, 0.6, start=0.3), curve("b", 0, 0.5, start=0.2)]

    a, b = judge(curves, metric="m").arms

    assert a.improvement == pytest.approx(0.3)
    assert a.start == pytest.approx(0.25)
    assert b.improvement == pytest.approx(0.3)


def test_improvement_of_two_seeds_borrows_the_spread_of_the_other_arm():
    curves = arms(a=[0.40, 0.42], b=[0.41, 0.43])  # gains 0.20 0.22 and 0.21 0.23, pooled sd 0.01414, df 2

    a, _ = judge(curves, metric="m").arms

    reach = 4.302653 * 0.0141421 / np.sqrt(2)
    assert a.improvement_interval == pytest.approx((0.21 - reach, 0.21 + reach), abs=1e-6)
    assert a.improvement_interval.low > 0


def test_a_single_arm_is_reported_without_a_comparison():
    verdict = judge(arms(a=[0.5, 0.6]), metric="eval/pass_at_1")

    assert verdict.comparisons == ()
    assert verdict.headline.startswith("One arm, nothing to compare. a reached 0.550 in pass@1")


def test_an_arm_compared_with_itself_is_rarely_named():
    generator = np.random.default_rng(11)
    named = 0
    for _ in range(400):
        a, b = generator.normal(0.4, 0.02, size=(2, 3))
        found = compare("b", "a", by_seed(*a), by_seed(*b), resamples=300)
        named += found.outcome is not Outcome.UNDECIDED

    assert named / 400 <= 0.05
