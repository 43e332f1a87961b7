"""The JSON Schema accepts what the planner accepts, and knows the installed plugins' options."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from orchestrator.api import load_registry
from orchestrator.experiment.schema import experiment_schema

jsonschema = pytest.importorskip("jsonschema")

SWEEPS = sorted((Path(__file__).parents[3] / "sweeps").rglob("*.yaml"))
SCHEMA = experiment_schema(load_registry())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def paths(data):
    return sorted(error.json_path for error in VALIDATOR.iter_errors(data))


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_every_sweep_fits(path):
    data = OmegaConf.to_container(OmegaConf.load(path), resolve=True)

    assert [error.message for error in VALIDATOR.iter_errors(data)] == []


def test_unknown_keys_are_found_at_every_level():
    data = {
        "name": "x",
        "sead": 1,
        "environment": {"use": "countdown", "nmbers": [3, 3]},
        "schedule": {"stepz": 1},
        "arms": {"a": {"recipe": "gropo"}, "b": {"search": {}}, "c": None},
    }

    assert paths(data) == ["$", "$.arms.a.recipe", "$.arms.b", "$.environment", "$.schedule"]


def test_an_arm_may_have_seeds_of_its_own():
    assert paths({"name": "x", "environment": {"use": "countdown"}, "arms": {"a": {"seeds": [0, 1]}}}) == []
    assert paths({"name": "x", "environment": {"use": "countdown"}, "arms": {"a": {"seeds": 2}}}) == ["$.arms.a.seeds"]


def test_seeds_are_a_list_or_added_until_decided():
    base = {"name": "x", "environment": {"use": "countdown"}}

    assert paths({**base, "seeds": {"first": 3, "at_most": 20, "until": "decided", "looks": [3, 20]}}) == []
    assert paths({**base, "seeds": [0, 1], "report": {"compare": "best"}}) == []
    assert paths({**base, "seeds": {"frist": 3, "at_most": 20}}) == ["$.seeds"]
    assert paths({**base, "seeds": {"first": 3}}) == ["$.seeds"]
    assert paths({**base, "arms": {"a": {"seeds": {"at_most": 9}}}}) == ["$.arms.a.seeds"]


def test_options_follow_from_the_component_named():
    assert paths({"name": "x", "sampler": {"use": "group", "count": 2}}) == []
    assert paths({"name": "x", "sampler": {"use": "group", "count": "many"}}) != []
    assert paths({"name": "x", "sampler": {"count": 2}}) == []  # of the recipe's sampler
    assert paths({"name": "x", "rewards": [{"use": "exact", "weight": 2}]}) == []


def test_search_words_and_schedulers_are_known():
    good = {
        "name": "x",
        "search": {"optimizer.lr": {"loguniform": [1e-5, 1e-3]}},
        "tune": {"scheduler": {"use": "asha"}},
    }
    bad = {"name": "x", "search": {"optimizer.lr": {"loguniform": [1]}}, "tune": {"scheduler": {"use": "pbt"}}}

    assert paths(good) == []
    assert paths(bad) == ["$.search['optimizer.lr'].loguniform", "$.tune.scheduler"]


def test_searchers_and_schedulers_have_their_options_and_may_be_bare_names():
    def tune(**keys):
        return paths({"name": "x", "tune": keys})

    assert tune(searcher="grid", scheduler="median") == []
    assert tune(searcher={"use": "random"}, scheduler={"use": "asha", "factor": 3}) == []
    assert tune(searcher={"use": "optuna", "sampler": "GPSampler", "n_startup_trials": 3}) == []  # Optuna's own
    assert tune(searcher={"use": "ray", "searcher": "a:B", "options": {"x": 1}}) == []
    assert tune(metric=["eval/a", "eval/b"], mode=["max", "min"]) == []
    assert tune(searcher="gird") == ["$.tune.searcher"]
    assert tune(scheduler={"use": "asha", "factr": 3}) == ["$.tune.scheduler"]
    assert tune(searcher={"use": "random", "seed": 3}) == ["$.tune.searcher"]
    assert tune(mode="maximum") == ["$.tune.mode"]


def test_a_nested_component_has_its_own_options_and_what_its_place_asks():
    def mixture(**level):
        return {"name": "x", "environment": {"use": "mixture", "worlds": [{"use": "countdown", **level}]}}

    assert paths(mixture(level="easy", weight=0, numbers=[2, 3])) == []
    assert paths(mixture(level="easy", nmbers=[2, 3])) == ["$.environment.worlds[0]"]
    assert paths(mixture(numbers=[2, 3])) == ["$.environment.worlds[0]"]  # no level
    assert set(paths(mixture(level="easy", weight="much"))) == {"$.environment.worlds[0].weight"}
