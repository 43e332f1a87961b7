"""What the verdict decides, and what it leaves open."""

import numpy as np
import pytest
from scipy import stats

from orchestrator.report.tables import rule
from orchestrator.runs.curves import Curve, common_cost
from orchestrator.verdict.judge import judge
from orchestrator.verdict.outcome import Outcome
from orchestrator.verdict.wording import MINUS, interval_text


def curve(arm, seed, end, *, start=0.2, reach=1000.0):
    """A curve that is half way up at half its cost and level over its last fifth."""
    return Curve(
        arm=arm,
        seed=seed,
        steps=np.array([0.0, 5.0, 8.0, 10.0]),
        costs=np.array([0.0, reach / 2, 0.8 * reach, reach]),
        values=np.array([start, (start + end) / 2, end, end]),
    )


def arms(**ends):
    return [curve(arm, seed, end) for arm, values in ends.items() for seed, end in enumerate(values)]


def only(verdict):
    (found,) = verdict.comparisons
    return found


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
    # b learns the same per token and goes on twice as long: over the last fifth of what a spends, both rise alike
    def rising(arm, seed, slope, reach):
        ends = np.array([0.0, reach])
        return Curve(arm=arm, seed=seed, steps=np.array([0.0, 10.0]), costs=ends, values=0.2 + slope * ends / 1000)

    curves = [rising("a", s, 0.2 + 0.01 * s, 1000.0) for s in range(5)]
    curves += [rising("b", s, 0.2 + 0.01 * s, 2000.0) for s in range(5)]

    found = only(judge(curves, metric="m"))

    assert found.difference == pytest.approx(0.0, abs=1e-12)
    assert found.outcome is Outcome.UNDECIDED


def test_a_seed_counts_by_the_mean_of_the_last_fifth_of_the_common_cost():
    # b goes on to 2000; of the first 1000, the fifth from 800 to 1000 counts: 0.2 + 0.4 * 0.9 = 0.56
    steps = np.array([0.0, 10.0])
    a = Curve(arm="a", seed=0, steps=steps, costs=np.array([0.0, 1000.0]), values=np.array([0.2, 0.6]))
    b = Curve(arm="b", seed=0, steps=steps, costs=np.array([0.0, 2000.0]), values=np.array([0.2, 1.0]))

    verdict = judge([a, b], metric="m")

    assert verdict.window == (800.0, 1000.0)
    assert [arm.values for arm in verdict.arms] == [(pytest.approx(0.56),), (pytest.approx(0.56),)]


def test_a_clear_difference_is_named_with_all_its_numbers():
    verdict = judge(arms(grpo=[0.40, 0.42, 0.41, 0.43], dars=[0.50, 0.52, 0.53, 0.51]), metric="eval/pass_at_1")

    found = only(verdict)
    assert (found.arm, found.baseline, found.outcome) == ("dars", "grpo", Outcome.BETTER)
    assert found.difference == pytest.approx(0.10)
    error = np.sqrt(2 * np.var([0, 1, 2, 3], ddof=1) / 4) / 100
    assert found.interval == pytest.approx((0.10 - verdict.bound * error, 0.10 + verdict.bound * error))
    assert found.p == found.p_adjusted < 0.01
    assert found.improvement_probability == 1.0
    assert found.effect == pytest.approx(0.10 / np.std([0, 1, 2, 3], ddof=1) * 100)


def test_the_headline_says_what_was_compared():
    verdict = judge(arms(grpo=[0.40, 0.42, 0.41, 0.43], dars=[0.50, 0.52, 0.53, 0.51]), metric="eval/pass_at_1")

    assert verdict.headline == (
        f"dars is better than grpo: +0.100 {interval_text(only(verdict).interval)} in pass@1 on held-out tasks, averaged over "
        "the last fifth of the common cost (800 to 1 k generated tokens); 4 seeds, p < 0.001."
    )


def test_a_loss_is_named_too_and_less_can_be_better():
    curves = arms(a=[0.5, 0.51, 0.52, 0.53], b=[0.4, 0.41, 0.42, 0.43])

    assert only(judge(curves, metric="m")).outcome is Outcome.WORSE
    lower = only(judge(curves, metric="m", mode="min"))
    assert lower.outcome is Outcome.BETTER
    assert lower.improvement_probability == 1.0


def test_the_baseline_can_be_any_arm():
    verdict = judge(arms(a=[0.5, 0.51, 0.52], b=[0.4, 0.41, 0.42]), metric="m", baseline="b")

    assert [(c.arm, c.outcome) for c in verdict.comparisons] == [("a", Outcome.BETTER)]
    with pytest.raises(ValueError, match=r"report\.baseline: no arm 'c'"):
        judge(arms(a=[0.5, 0.6]), metric="m", baseline="c")


def test_noise_is_no_evidence_for_a_difference_nor_for_equality():
    verdict = judge(arms(a=[0.40, 0.50, 0.45], b=[0.44, 0.52, 0.48]), metric="m")

    found = only(verdict)
    assert found.outcome is Outcome.UNDECIDED
    assert verdict.headline.startswith(
        "Not enough evidence that b and a differ, and none that they are equal. Seen: +0.030"
    )
    assert found.seeds_needed == pytest.approx(37, abs=2)  # d = 0.030 / 0.0451 = 0.665; by Student's test 37
    assert f"about {found.seeds_needed} seeds" in found.reason


def test_a_margin_declared_beforehand_makes_arms_equivalent():
    curves = arms(a=[0.40, 0.41, 0.42, 0.41], b=[0.41, 0.42, 0.41, 0.42])

    found, tight = (judge(curves, metric="m", margin=margin) for margin in (0.05, 0.01))

    assert only(found).outcome is Outcome.EQUIVALENT
    assert max(map(abs, only(found).equivalence_interval)) < 0.05
    assert found.headline.startswith("b and a are equivalent within ±0.050: +0.005 [")
    assert "(90 %)" in found.headline
    assert "lies within ±0.050" in only(found).reason
    assert only(tight).outcome is Outcome.UNDECIDED
    assert "reaches beyond ±0.010" in only(tight).reason
    assert only(judge(curves, metric="m")).outcome is Outcome.UNDECIDED


def test_a_difference_that_is_sure_and_too_small_to_matter_is_said_to_be_both():
    curves = arms(a=[0.400, 0.401, 0.402, 0.401], b=[0.411, 0.412, 0.411, 0.412])

    verdict = judge(curves, metric="m", margin=0.05)

    assert (only(verdict).outcome, only(verdict).negligible) == (Outcome.BETTER, True)
    assert verdict.headline.endswith("Both ends lie within the margin of ±0.050.")


def test_several_arms_are_told_apart_by_their_four_answers():
    curves = arms(
        base=[0.40, 0.41, 0.42, 0.41],
        up=[0.60, 0.61, 0.60, 0.61],
        down=[0.20, 0.21, 0.20, 0.21],
        same=[0.41, 0.40, 0.41, 0.42],
        open=[0.44, 0.40, 0.41, 0.45],
    )

    verdict = judge(curves, metric="m", margin=0.03)

    assert [c.outcome for c in verdict.comparisons] == [
        Outcome.BETTER,
        Outcome.WORSE,
        Outcome.EQUIVALENT,
        Outcome.UNDECIDED,
    ]
    up, down = (interval_text(c.interval) for c in verdict.comparisons[:2])
    assert verdict.headline.startswith(
        f"Better than base: up, +0.195 {up}. Worse than base: down, {MINUS}0.205 {down}. Equivalent to base within "
        "±0.030: same. Not enough evidence that these differ from base, and none that they equal it: open. Compared: m, "
    )


def test_one_seed_never_wins_and_the_reason_is_given():
    found = only(judge(arms(a=[0.01], b=[0.99]), metric="m"))

    assert found.outcome is Outcome.UNDECIDED
    assert found.difference == pytest.approx(0.98)
    assert found.p is None
    assert found.interval is None
    assert "one seed of b and a cannot tell" in found.reason


def test_one_seed_against_many_never_wins_and_does_not_weaken_the_others():
    pair = arms(a=[0.40, 0.41, 0.42], b=[0.47, 0.48, 0.46])

    alone, beside = judge(pair, metric="m"), judge([*pair, curve("c", 0, 0.99)], metric="m")

    assert beside.comparisons[1].reason.startswith("one seed of c cannot")
    assert beside.comparisons[0].p_adjusted == alone.comparisons[0].p_adjusted
    assert beside.bound == alone.bound


def test_two_seeds_may_decide_only_when_they_are_far_apart():
    assert only(judge(arms(a=[0.40, 0.45], b=[0.50, 0.55]), metric="m")).outcome is Outcome.UNDECIDED
    assert only(judge(arms(a=[0.100, 0.101], b=[0.900, 0.901]), metric="m")).outcome is Outcome.BETTER


def test_seeds_without_any_spread_never_decide():
    found = only(judge(arms(a=[0.1] * 6, b=[0.9] * 6), metric="m", margin=0.9))

    assert found.outcome is Outcome.UNDECIDED
    assert (found.interval, found.p_adjusted, found.equivalence_interval) == (None, None, None)
    assert "no spread" in found.reason


def test_more_arms_need_stronger_evidence():
    base, one = [0.40, 0.44, 0.42], [0.48, 0.51, 0.495]
    others = {f"c{index}": [0.38 + 0.001 * index, 0.42, 0.46] for index in range(9)}

    alone = judge(arms(a=base, b=one), metric="m")
    among_ten = judge(arms(a=base, b=one, **others), metric="m")

    assert alone.comparisons[0].outcome is Outcome.BETTER
    assert among_ten.bound > alone.bound
    assert among_ten.comparisons[0].p_adjusted > among_ten.comparisons[0].p


def test_unequal_seeds_do_not_make_a_lucky_pair_of_seeds_sure():
    # two seeds that happen to agree, against ten: Welch's test would take the ten for the degrees of freedom
    base = list(0.40 + 0.02 * np.array([-1.6, -1.0, -0.7, -0.4, -0.1, 0.1, 0.4, 0.7, 1.0, 1.6]))

    found = only(judge(arms(a=base, b=[0.4251, 0.4249]), metric="m"))

    assert stats.ttest_ind([0.4251, 0.4249], base, equal_var=False).pvalue < 0.01
    assert found.outcome is Outcome.UNDECIDED


def test_pairs_are_the_seeds_both_arms_finished():
    curves = [curve("b", seed, end) for seed, end in {0: 0.5, 1: 0.6, 2: 0.7}.items()]
    curves += [curve("a", seed, end) for seed, end in {1: 0.5, 2: 0.55, 3: 0.1}.items()]

    found = only(judge(curves, metric="m", baseline="a"))

    assert found.pairs == 2
    assert found.paired_difference == pytest.approx((0.1 + 0.15) / 2)


def test_arms_without_a_finished_seed_are_kept_in_the_table():
    verdict = judge(arms(a=[0.5, 0.6]), metric="m", arms=["a", "b"])

    assert only(verdict).reason == "b finished no seed"
    assert verdict.arms[1].mean is None


def test_nothing_is_decided_while_trials_are_to_come():
    verdict = judge(arms(a=[0.1, 0.11, 0.12], b=[0.9, 0.91, 0.92]), metric="m", margin=2.0, final=False)

    assert only(verdict).outcome is Outcome.UNDECIDED
    assert verdict.headline.startswith("Preliminary")


def test_the_answers_of_old_reports_are_read():
    assert Outcome("not enough evidence") is Outcome.UNDECIDED
    assert [Outcome(one.value) for one in Outcome] == list(Outcome)
    assert (Outcome.UNDECIDED.value, Outcome.UNDECIDED.label) == ("undecided", "not enough evidence")
    with pytest.raises(ValueError, match="perhaps"):
        Outcome("perhaps")


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
        named += only(judge(arms(a=a, b=b), metric="m", resamples=100)).outcome is not Outcome.UNDECIDED

    assert named / 400 <= 0.07
