"""Statistics over held-out tasks: by hand, against evalconfidence, and in simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.maths import tasks


def results(model, scores):
    """Rows of evalconfidence: [seeds, T] scores of one model, seeds as epochs."""
    item = pytest.importorskip("evalconfidence").ItemResult
    return [
        item(item_id=f"t{task}", model_id=model, score=float(score), epoch=seed)
        for seed, row in enumerate(scores)
        for task, score in enumerate(row)
    ]


def world(generator, seeds=3, count=40, *, gap=0.0, spread=0.05, own=0.1, noise=0.1):
    """Scores of two arms: tasks of unequal difficulty, gains that differ by task, seeds that differ by luck."""
    difficulty = generator.normal(0.5, 0.2, size=count)
    return [
        difficulty
        + shift
        + own * generator.normal(size=count)
        + spread * generator.normal(size=(seeds, 1))
        + noise * generator.normal(size=(seeds, count))
        for shift in (gap, 0.0)
    ]


def test_two_seeds_on_two_tasks_by_hand():
    # d = (0.5, 0.0): difference 0.25, var 0.125, over tasks 0.125 / 2 = 0.0625
    # seeds' means 0.5, 1.0 and 0.5, 0.5: v = 0.125 and 0, over seeds 0.125 / 2 + 0 = 0.0625
    # arm, left of (0.5, 0.5), (1, 1): nothing; baseline, left of (0, 1), (0.5, 0.5): ±0.25, e = 4/16 = 0.25, / (2*2)
    found = tasks.compare_tasks([[0.5, 0.5], [1.0, 1.0]], [[0.0, 1.0], [0.5, 0.5]])

    assert found.by_task == pytest.approx([0.5, 0.0])
    assert found.difference == pytest.approx(0.25)
    assert found.over_tasks**2 == pytest.approx(0.0625)
    assert found.over_seeds**2 == pytest.approx(0.0625)
    assert found.error**2 == pytest.approx(0.0625 + 0.0625 - 0.0625)
    assert found.df == pytest.approx(0.0625**2 / (0.0625**2 + 0.0625**2))


def test_the_error_over_tasks_is_evalconfidences_paired_and_clustered_error():
    ec = pytest.importorskip("evalconfidence")
    ours, theirs = world(np.random.default_rng(0), gap=0.1)

    found = tasks.compare_tasks(ours, theirs)
    paired = ec.compare(results("ours", ours), results("theirs", theirs), paired=True)
    differences = ec.standard_error(results("difference", ours - theirs), cluster="item")

    reach = stats.t.ppf(0.975, df=39) * found.over_tasks
    assert found.difference == pytest.approx(paired.diff)
    assert paired.ci_diff == pytest.approx((found.difference - reach, found.difference + reach))
    assert found.over_tasks == pytest.approx(differences.se_clustered)


def test_the_error_over_seeds_is_welchs():
    ours, theirs = world(np.random.default_rng(1))
    test = stats.ttest_ind(ours.mean(axis=1), theirs.mean(axis=1), equal_var=False)

    found = tasks.compare_tasks(ours, theirs)

    assert found.difference / found.over_seeds == pytest.approx(test.statistic)


def test_the_error_is_right_on_average_for_other_seeds_on_other_tasks():
    generator = np.random.default_rng(2)
    found = [tasks.compare_tasks(*world(generator)) for _ in range(1500)]
    spread = np.std([one.difference for one in found])

    assert np.sqrt(np.mean([one.error**2 for one in found])) == pytest.approx(spread, rel=0.06)
    covered = np.mean([not one.interval().excludes(0.0) for one in found])
    assert covered >= 0.93


@given(st.floats(-1, 1), st.integers(0, 1000))
def test_difficulty_drops_out(shift, seed):
    generator = np.random.default_rng(seed)
    ours, theirs, harder = generator.random((3, 6)), generator.random((2, 6)), shift * np.arange(6)

    before, after = tasks.compare_tasks(ours, theirs), tasks.compare_tasks(ours + harder, theirs + harder)

    assert after.error == pytest.approx(before.error)
    assert after.by_task == pytest.approx(before.by_task)


def test_one_seed_has_no_error_over_seeds():
    found = tasks.compare_tasks([[0.5, 1.0, 0.0]], [[0.0, 0.5, 0.0]])

    assert (found.over_seeds, found.error, found.interval()) == (None, None, None)
    assert found.over_tasks == pytest.approx(np.std([0.5, 0.5, 0.0], ddof=1) / np.sqrt(3))
    with pytest.raises(ValueError, match="arms on 3 and 2 tasks"):
        tasks.compare_tasks([[0.5, 1.0, 0.0]], [[0.0, 0.5]])


def test_tasks_are_sorted_by_who_solves_them():
    found = tasks.solved([4, 0, 3, 4, 2], [4] * 5, [4, 1, 0, 1, 1], [4] * 5)

    assert (found.both, found.neither) == (1, 1)
    assert found.arm_only == (2, 3, 4)  # by 0.75, 0.75 and 0.25
    assert found.baseline_only == ()


def test_chance_counts_the_tasks_that_equal_arms_would_split():
    # One answer each at rate 1/2: one right and the other wrong in half of the cases, a quarter on either side.
    assert tasks.solved([1, 0], [1, 1], [0, 1], [1, 1]).chance == pytest.approx(2 * 0.25)
    assert tasks.solved([4, 0], [4, 4], [4, 0], [4, 4]).chance == pytest.approx(0.0)


def test_the_variance_of_an_answer_is_unbiased():
    generator = np.random.default_rng(3)
    rate = generator.random(400)
    right = generator.binomial(4, rate, size=(200, 400))

    assert tasks.answer_variance(right, 4) == pytest.approx((rate * (1 - rate)).mean(), rel=0.01)
    # by hand: 2 of 4 gives 1/4 * 4/3; 4 of 4 gives 0
    assert tasks.answer_variance([2, 4], [4, 4]) == pytest.approx(0.5 * 0.25 * 4 / 3)
    assert tasks.answer_variance([1, 0, 0, 1], [1, 1, 1, 1]) == pytest.approx(0.25)  # the upper bound
