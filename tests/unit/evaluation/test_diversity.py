"""Counts, entropy and curves of different right answers."""

from itertools import combinations
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.evaluation.diversity import (
    correct_entropy,
    distinct_at_k,
    distinct_correct,
    distinct_curve,
    effective_correct,
)

ANSWERS = ["a", "a", "b", "c", "x", None]
CORRECT = [1, 1, 1, 1, 0, 1]


def test_only_right_answers_that_have_a_name_count():
    assert distinct_correct(ANSWERS, CORRECT) == 3
    assert distinct_correct(["a", "b"], [0, 0]) == 0


def test_entropy_of_right_answers():
    # Shares 1/2, 1/4, 1/4.
    assert correct_entropy(ANSWERS, CORRECT) == pytest.approx(0.5 * log(2) + 0.5 * log(4))
    assert effective_correct(ANSWERS, CORRECT) == pytest.approx(2**1.5)
    assert correct_entropy(["a", "a"], [1, 1]) == 0.0
    assert effective_correct(["a", "a"], [1, 1]) == 1.0
    assert effective_correct(["a"], [0]) == 0.0


def test_distinct_at_k_of_hand_cases():
    # One attempt: right in 4 of 6 with a name. Two: a pair misses "a" in C(4,2) of 15, "b" and "c" in C(5,2).
    assert distinct_at_k(ANSWERS, CORRECT, 1) == pytest.approx(4 / 6)
    assert distinct_at_k(ANSWERS, CORRECT, 2) == pytest.approx((15 - 6) / 15 + 2 * (15 - 10) / 15)
    assert distinct_curve(ANSWERS, CORRECT, [1, 6]) == {1: pytest.approx(4 / 6), 6: 3.0}


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.booleans()), min_size=1, max_size=8), st.data())
def test_distinct_at_k_is_the_mean_over_all_subsets(attempts, data):
    answers, correct = zip(*attempts, strict=True)
    k = data.draw(st.integers(1, len(answers)))
    subsets = list(combinations(range(len(answers)), k))

    counts = [distinct_correct([answers[i] for i in s], [correct[i] for i in s]) for s in subsets]

    assert distinct_at_k(answers, correct, k) == pytest.approx(sum(counts) / len(subsets))
    assert distinct_at_k(answers, correct, len(answers)) == pytest.approx(distinct_correct(answers, correct))


def test_lists_that_do_not_match_and_bad_k_are_refused():
    with pytest.raises(ValueError, match="1 answers but 2 judgements"):
        distinct_correct(["a"], [1, 0])
    with pytest.raises(ValueError, match="k = 2 with 1 attempts"):
        distinct_at_k(["a"], [1], 2)
