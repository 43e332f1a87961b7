"""Search spaces in our own words: judged, sampled deterministically, counted."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.experiment.search import flatten, problems, repeated, space

SEARCH = {
    "optimizer.lr": {"loguniform": [1e-5, 1e-3]},
    "objective.clip_low": {"quniform": [0.1, 0.3, 0.1]},
    "sampler.count": {"int": [2, 4]},
    "schedule.epochs": {"logint": [1, 100]},
    "update.reduction": {"choice": ["token_mean", "constant"]},
}


def test_draws_repeat_with_their_seed_and_number():
    made = space(SEARCH)

    assert [made.draw(index, seed=1) for index in (0, 4)] == [made.draw(index, seed=1) for index in (0, 4)]
    assert made.draw(0, seed=1) != made.draw(0, seed=2)
    assert made.draw(0, seed=1) != made.draw(1, seed=1)


@given(st.integers(0, 10_000))
def test_every_sample_is_within_bounds_and_of_its_type(seed):
    values = space(SEARCH).draw(0, seed)

    assert 1e-5 <= values["optimizer.lr"] <= 1e-3
    assert values["objective.clip_low"] in (0.1, 0.2, 0.3)
    assert values["sampler.count"] in (2, 3, 4)
    assert type(values["sampler.count"]) is int
    assert type(values["schedule.epochs"]) is int
    assert 1 <= values["schedule.epochs"] <= 100
    assert values["update.reduction"] in ("token_mean", "constant")


def test_quantiles_of_the_distributions():
    dimensions = {dimension.path: dimension for dimension in space(SEARCH | {"x": {"uniform": [1, 3]}}).dimensions}

    # half way between the logarithms of 1e-5 and 1e-3 lies 1e-4
    assert dimensions["optimizer.lr"].quantile(0.5) == pytest.approx(1e-4)
    assert dimensions["x"].quantile(0.25) == 1.5
    assert [dimensions["sampler.count"].quantile(q) for q in (0, 0.34, 0.99)] == [2, 3, 4]
    # of the edges log(0.5) and log(100.5), the middle is log(7.09)
    assert dimensions["schedule.epochs"].quantile(0.5) == 7


def test_log_samples_spread_evenly_over_the_decades():
    values = [one["optimizer.lr"] for one in (space(SEARCH).draw(index, seed=0) for index in range(400))]
    lower = sum(value < 1e-4 for value in values)

    assert 160 < lower < 240  # binomial(400, 1/2): four standard deviations are 40


def test_points_are_every_combination_the_last_dimension_changing_fastest():
    made = space({"a": {"choice": [1, 2]}, "b": {"int": [0, 1]}})

    assert made.size() == 4
    assert [made.point(index) for index in range(4)] == [
        {"a": 1, "b": 0},
        {"a": 1, "b": 1},
        {"a": 2, "b": 0},
        {"a": 2, "b": 1},
    ]
    with pytest.raises(IndexError, match="no combination 4 among 4"):
        made.point(4)


def test_a_continuous_space_has_no_points():
    assert space(SEARCH).size() == math.inf
    with pytest.raises(ValueError, match=r"optimizer\.lr"):
        space(SEARCH).point(0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"a": 1.5, "b": 1}, None),
        ([1.5, 1], "expected a mapping"),
        ({"a": 1.5}, "values for a; expected one for each of a, b"),
        ({"a": 2.5, "b": 1}, "2.5 for a, which is uniform [1.0, 2.0]"),
        ({"a": 1, "b": 1}, "1 for a, which is uniform"),  # a whole number is no real one
        ({"a": math.nan, "b": 1}, "nan for a"),
        ({"a": 1.5, "b": 1.0}, "1.0 for b, which is int [1, 3]"),
    ],
)
def test_what_is_not_of_a_space_is_told_with_what_is(values, expected):
    found = space({"a": {"uniform": [1, 2]}, "b": {"int": [1, 3]}}).misfit(values)

    assert found is None if expected is None else expected in found


def test_nested_sections_are_flattened_to_dotted_paths():
    nested = {"optimizer": {"lr": {"uniform": [0, 1]}, "eps": {"uniform": [1, 2]}}, "a.b": {"choice": [1]}}

    assert list(flatten(nested)) == ["optimizer.lr", "optimizer.eps", "a.b"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"logunifrom": [1, 2]}, "did you mean 'loguniform'"),
        ({"uniform": [2, 1]}, "low < high"),
        ({"uniform": 3}, "takes a list"),
        ({"uniform": [1]}, "[low, high]"),
        ({"uniform": [0, math.inf]}, "finite"),
        ({"uniform": [False, True]}, "finite numbers"),
        ({"loguniform": [0, 1]}, "low > 0"),
        ({"int": [1, 2.5]}, "whole numbers"),
        ({"quniform": [0, 1, 2]}, "step"),
        ({"choice": []}, "at least one value"),
        ({"uniform": [0, 1], "int": [0, 1]}, "one word"),
        (3, "one word"),
    ],
)
def test_words_with_bad_arguments_are_reported_at_their_path(spec, expected):
    (problem,) = problems({"optimizer.lr": spec})

    assert problem.path == "search.optimizer.lr"
    assert expected in problem.message


def test_an_option_named_twice_is_refused_nested_or_dotted():
    spec = {"choice": [0.1, 0.2]}

    found = [str(one) for one in repeated({"optimizer": {"lr": spec}, "optimizer.lr": spec, "update.epochs": spec})]

    assert found == ["search.optimizer.lr: named twice; write it once"]


@pytest.mark.parametrize("order", [1, -1])
def test_a_section_and_an_option_in_it_are_not_both_searched(order):
    pairs = [
        ("optimizer", {"choice": [{"lr": 0.1}]}),
        ("optimizer.lr", {"choice": [0.1]}),
        ("optimizers", {"choice": [1]}),
    ]

    found = [str(one) for one in problems(dict(pairs[::order]))]

    assert found == ["search.optimizer.lr: lies in optimizer, which is searched too; search one of the two"]
