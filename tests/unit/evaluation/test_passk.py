"""pass@k and majority@k against hand cases, exact references and simulation."""

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.evaluation.passk import majority_at_k, pass_at_k


@pytest.mark.parametrize(
    ("samples", "correct", "k", "expected"),
    [
        (4, 1, 1, 1 / 4),
        (4, 1, 2, 1 / 2),  # 3 of the 6 pairs hold the right one
        (4, 2, 2, 5 / 6),  # all pairs but the one of the two wrong ones
        (5, 3, 3, 1.0),  # only two are wrong
        (5, 0, 5, 0.0),
        (8, 8, 1, 1.0),
        (16, 2, 4, 1 - (14 * 13 * 12 * 11) / (16 * 15 * 14 * 13)),
    ],
)
def test_pass_at_k_of_hand_cases(samples, correct, k, expected):
    assert pass_at_k(samples, correct, k) == pytest.approx(expected, abs=1e-15)


@given(st.data())
def test_pass_at_k_is_the_combinatorial_formula_rounded_once(data):
    samples = data.draw(st.integers(1, 2000))
    correct = data.draw(st.integers(0, samples))
    k = data.draw(st.integers(1, samples))

    exact = 1 - Fraction(comb(samples - correct, k), comb(samples, k))

    assert pass_at_k(samples, correct, k) == float(exact)


@given(st.data())
def test_pass_at_k_grows_with_k_and_with_right_attempts(data):
    samples = data.draw(st.integers(2, 200))
    correct = data.draw(st.integers(0, samples - 1))
    k = data.draw(st.integers(1, samples - 1))

    value = pass_at_k(samples, correct, k)

    assert pass_at_k(samples, correct, k + 1) >= value
    assert pass_at_k(samples, correct + 1, k) >= value


def test_pass_at_1_is_the_share_of_right_attempts():
    assert pass_at_k(7, 3, 1) == 3 / 7


def test_pass_at_k_of_arrays_broadcasts():
    values = pass_at_k(np.array([[4], [8]]), np.array([0, 1, 4]), 2)

    assert values.dtype == np.float64
    np.testing.assert_allclose(values, [[0, 1 / 2, 1], [0, 1 / 4, 1 - 6 / 28]], atol=1e-15)


def test_pass_at_k_is_unbiased_in_simulation():
    random = np.random.default_rng(0)
    rate, samples, k, tasks = 0.3, 10, 4, 40_000

    estimates = pass_at_k(np.full(tasks, samples), random.binomial(samples, rate, tasks), k)

    truth = 1 - (1 - rate) ** k
    standard_error = estimates.std() / np.sqrt(tasks)
    assert abs(estimates.mean() - truth) < 4 * standard_error
    plug_in = 1 - (1 - random.binomial(samples, rate, tasks) / samples) ** k
    assert plug_in.mean() < truth - 4 * standard_error  # the naive estimate is biased; ours is told apart from it


@pytest.mark.parametrize(("samples", "correct", "k"), [(4, 5, 1), (4, -1, 1), (4, 1, 5), (4, 1, 0), (0, 0, 1)])
def test_counts_out_of_range_are_refused(samples, correct, k):
    with pytest.raises(ValueError, match="expected"):
        pass_at_k(samples, correct, k)


def brute_majority(answers, correct, k):
    """Mean over every subset, with ties broken evenly, in exact arithmetic."""
    right = {}
    for answer, is_right in zip(answers, correct, strict=True):
        right.setdefault(answer, []).append(int(is_right))
    total = Fraction(0)
    for subset in combinations(range(len(answers)), k):
        votes = [answers[i] for i in subset if answers[i] is not None]
        if votes:
            most = max(votes.count(v) for v in votes)
            winners = {v for v in votes if votes.count(v) == most}
            total += sum(Fraction(sum(right[w]), len(right[w])) for w in winners) / len(winners)
    return float(total / comb(len(answers), k))


def test_majority_of_hand_cases():
    assert majority_at_k(["a", "a", "b"], [1, 1, 0], 3) == 1.0
    assert majority_at_k(["a", "a", "b"], [1, 1, 0], 1) == pytest.approx(2 / 3)
    # Pairs: aa is right; ab, ab are ties, half right each.
    assert majority_at_k(["a", "a", "b"], [1, 1, 0], 2) == pytest.approx(2 / 3)
    # Two right answers that differ split the vote, so the wrong one wins.
    assert majority_at_k(["a", "c", "b", "b"], [1, 1, 0, 0], 4) == 0.0
    assert majority_at_k(["a", "b", "c"], [1, 0, 0], 3) == pytest.approx(1 / 3)


def test_attempts_without_an_answer_abstain():
    assert majority_at_k([None, None, "a"], [0, 0, 1], 3) == 1.0
    assert majority_at_k([None, None, "a"], [0, 0, 1], 1) == pytest.approx(1 / 3)
    assert majority_at_k([None, None], [0, 0], 2) == 0.0


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d", None]), st.booleans()), min_size=1, max_size=9),
    st.data(),
)
def test_majority_equals_the_mean_over_all_subsets(attempts, data):
    answers, correct = zip(*attempts, strict=True)
    k = data.draw(st.integers(1, len(answers)))

    assert majority_at_k(answers, correct, k) == pytest.approx(brute_majority(answers, correct, k), abs=1e-14)


def test_majority_of_many_attempts_stays_exact():
    answers = [i % 40 if i < 160 else "right" for i in range(256)]
    correct = [answer == "right" for answer in answers]

    value = majority_at_k(answers, correct, 64)

    random = np.random.default_rng(0)
    wins = []
    for _ in range(400):
        drawn = random.choice(256, 64, replace=False)
        votes = np.bincount([answers[i] if i < 160 else 40 for i in drawn], minlength=41)
        wins.append(votes[40] == votes.max())
    assert value > 0.999999
    assert np.mean(wins) == 1.0


def test_majority_refuses_lists_that_do_not_match():
    with pytest.raises(ValueError, match="2 answers but 1 judgements"):
        majority_at_k(["a", "b"], [1], 1)
    with pytest.raises(ValueError, match="k = 3 with 2 attempts"):
        majority_at_k(["a", "b"], [1, 0], 3)
