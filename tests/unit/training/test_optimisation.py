"""The learning rate over a schedule: warm-up, then decay over what the warm-up left."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.contract.settings import Optimizer
from orchestrator.training.optimisation import learning_rate_factor


def factors(decay, warmup, steps, updates_per_step=1):
    settings = Optimizer(decay=decay, warmup=warmup)
    return [
        learning_rate_factor(settings, step * updates_per_step + update, step / steps)
        for step in range(steps)
        for update in range(updates_per_step)
    ]


def test_warm_up_rises_to_the_peak_and_a_constant_rate_stays_there():
    assert factors("constant", 4, 6) == [0.25, 0.5, 0.75, 1, 1, 1]


def test_linear_decay_starts_at_the_peak_when_the_warm_up_ends():
    assert factors("linear", 2, 6) == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25])


def test_cosine_decay_is_half_way_down_in_the_middle_of_what_the_warm_up_left():
    assert factors("cosine", 2, 10)[2:7:4] == pytest.approx([1, 0.5])


@pytest.mark.parametrize(("decay", "middle"), [("linear", 0.5), ("cosine", 0.5)])
def test_without_a_warm_up_decay_spans_the_schedule(decay, middle):
    found = factors(decay, 0, 8)

    assert found[0] == 1
    assert found[4] == pytest.approx(middle)


def test_a_warm_up_that_ends_within_the_first_step_loses_nothing():
    assert factors("linear", 2, 2, updates_per_step=4)[:4] == [0.5, 1, 1, 1]


@given(
    decay=st.sampled_from(["linear", "cosine"]),
    warmup=st.integers(0, 30),
    steps=st.integers(2, 40),
    updates=st.integers(1, 4),
)
def test_after_the_peak_the_rate_never_rises_and_stays_above_0(decay, warmup, steps, updates):
    found = factors(decay, warmup, steps, updates)[warmup:]

    assert all(0 < later <= earlier + 1e-12 <= 1 + 1e-12 for earlier, later in pairwise(found))
