"""Numbers as people read them."""

import pytest

from orchestrator.maths.statistics import Interval
from orchestrator.verdict.wording import MINUS, difference_text, interval_text, margin_text, p_equals, percent


def test_a_difference_far_smaller_than_its_interval_is_a_round_zero():
    assert difference_text(5.5e-5, Interval(-0.025, 0.026)) == f"+0.000 [{MINUS}0.025, 0.026]"
    assert difference_text(-0.025, Interval(-0.05, 0.0)) == f"{MINUS}0.025 [{MINUS}0.050, 0.000]"
    assert (
        difference_text(2e-5, Interval(1e-5, 3e-5))
        == "+2.00e\N{MINUS SIGN}05 [1.00e\N{MINUS SIGN}05, 3.00e\N{MINUS SIGN}05]"
    )
    assert difference_text(None, None) == "\N{EN DASH} [no interval]"


@pytest.mark.parametrize(("p", "text"), [(0.0123, "p = 0.012"), (2e-5, "p < 0.001"), (1.0, "p = 1.000")])
def test_p_values_stand_in_sentences(p, text):
    assert p_equals(p) == text


def test_margins_and_shares():
    assert (margin_text(0.05), percent(0.95), percent(0.994)) == ("±0.050", "95 %", "99.4 %")
    assert interval_text(Interval(0.1, 0.2)) == "[0.100, 0.200]"
