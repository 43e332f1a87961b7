"""Search spaces in our own words: judged, sampled deterministically, counted."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.experiment.search import flatten, problems, space

SEARCH = {
    "optimizer.lr": {"loguniform": [1e-5, 1e-3]},
    "objective.clip_low": {"quniform": [0.1, 0.3, 0.1]},
    "sampler.count": {"int": [2, 4]},
    "schedule.epochs": {"logint": [1, 100]},
    "update.reduction": {"choice": ["token_mean", "constant"]},
}


def test_sampling_repeats_with_its_seed_and_grows_without_changing_what_was_tried():
    made = space(SEARCH)

    assert made.sample(5, seed=1) == made.sample(8, seed=1)[:5]
    assert made.sample(5, seed=1) != made.sample(5, seed=2)


@given(st.integers(0, 10_000))
def test_every_sample_is_within_bounds_and_of_its_type(seed):
    (values,) = space(SEARCH).sample(1, seed)

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
    values = [one["optimizer.lr"] for one in space(SEARCH).sample(400, seed=0)]
    lower = sum(value < 1e-4 for value in values)

    assert 160 < lower < 240  # binomial(400, 1/2): four standard deviations are 40


def test_grid_is_every_combination():
    made = space({"a": {"choice": [1, 2]}, "b": {"int": [0, 1]}})

    assert made.grid() == ({"a": 1, "b": 0}, {"a": 1, "b": 1}, {"a": 2, "b": 0}, {"a": 2, "b": 1})


def test_grid_over_a_continuous_dimension_is_refused():
    with pytest.raises(ValueError, match=r"optimizer\.lr"):
        space(SEARCH).grid()
    assert "list a choice" in str(problems({"a": {"uniform": [0, 1]}}, searcher="grid")[0])


def test_a_grid_that_never_ends_is_refused():
    found = problems({"a": {"int": [1, 1000]}, "b": {"int": [1, 1000]}}, searcher="grid")

    assert "1000000 points" in str(found[0])


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
