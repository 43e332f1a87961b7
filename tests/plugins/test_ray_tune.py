"""Searchers of Ray Tune by import path: read and judged while planning, imported by a run, told again what happened."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray")

from orchestrator_plugins import ray_tune

from orchestrator.api import Goal, Known, Search
from orchestrator.errors import ConfigError
from orchestrator.experiment.search import space
from orchestrator.testing import check_component, load_only

REGISTRY = load_only(ray_tune)
HYPEROPT = "ray.tune.search.hyperopt:HyperOptSearch"
BAYES = "ray.tune.search.bayesopt:BayesOptSearch"


def build(searcher, **options):
    return REGISTRY.build("searcher", "ray", {"searcher": searcher, "options": options})


def test_a_strangers_searcher_proposes_the_same_after_a_killed_driver():
    check_component(REGISTRY.describe("searcher", "ray"), {"searcher": "dice_searcher:Dice", "options": {"width": 0.7}})


@pytest.mark.slow
def test_a_searcher_that_pip_brings_proposes_the_same_after_a_killed_driver():
    pytest.importorskip("hyperopt")

    check_component(REGISTRY.describe("searcher", "ray"), {"searcher": HYPEROPT, "options": {"n_initial_points": 2}})


def test_another_that_pip_brings_proposes_the_same_after_a_killed_driver():
    pytest.importorskip("bayes_opt")

    check_component(REGISTRY.describe("searcher", "ray"), {"searcher": BAYES, "options": {"random_search_steps": 2}})


@pytest.mark.parametrize(
    ("searcher", "options", "path", "expected"),
    [
        ("nowhere_at_all.module:Dice", {}, "searcher.searcher", "no package 'nowhere_at_all' is installed"),
        ("ray.tune.search.hyperot:HyperOptSearch", {}, "searcher.searcher", "no module 'ray.tune.search.hyperot'"),
        ("dice_searcher:Dize", {}, "searcher.searcher", "did you mean 'Dice'?"),
        ("dice_searcher:Closed", {"sides": 6, "sedd": 1}, "searcher.options.sedd", "did you mean 'seed'?"),
        ("dice_searcher:Closed", {}, "searcher.options", "needs sides"),
        ("dice_searcher:Dice", {"metric": "x"}, "searcher.options.metric", "tune.metric"),
    ],
)
def test_what_cannot_be_there_is_refused_from_the_source_alone(searcher, options, path, expected):
    with pytest.raises(ConfigError) as caught:
        build(searcher, **options)

    (problem,) = caught.value.problems
    assert problem.path == path
    assert expected in problem.message


def test_a_package_that_rays_searcher_needs_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not (Path(entry) / "ax").exists()])

    with pytest.raises(ConfigError, match="AxSearch needs ax, which is not installed"):
        build("ray.tune.search.ax:AxSearch")


@pytest.mark.parametrize("searcher", ["dice searcher", "dice_searcher.Dice", "dice_searcher:"])
def test_a_path_that_is_none_is_refused(searcher):
    with pytest.raises(ConfigError, match=r"searcher\.searcher"):
        build(searcher)


def test_planning_imports_neither_the_file_nor_ray():
    code = (
        "import sys; from orchestrator.plugging.manager import PluginManager; from orchestrator_plugins import ray_tune\n"
        "from orchestrator.plugging.registry import Registry\n"
        "manager = PluginManager()\n"
        "manager.register(ray_tune)\n"
        "one = Registry(manager).build('searcher', 'ray', {'searcher': 'dice_searcher:Dice'})\n"
        "from orchestrator.api import Search, Space\n"
        "assert one.check_search(Search(space=Space(dimensions=()))) == []\n"
        "print([name for name in ('dice_searcher', 'ray') if name in sys.modules])"
    )
    paths = [str(Path(__file__).parent), *sys.path]

    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "[]"


def test_where_it_is_imported_from_is_logged(caplog):
    caplog.set_level("INFO")
    build("dice_searcher:Dice").propose(Search(space=space({"a": {"uniform": [0, 1]}})), Known())

    assert (
        f"importing dice_searcher:Dice, named by tune.searcher, from {Path(__file__).with_name('dice_searcher.py')}"
        in (caplog.text)
    )


def test_what_is_no_searcher_is_refused_when_it_is_imported(tmp_path, monkeypatch):
    (tmp_path / "no_searcher_here.py").write_text("class Loose:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ConfigError, match=r"no subclass of ray\.tune\.search\.Searcher"):
        build("no_searcher_here:Loose").propose(Search(space=space({"a": {"uniform": [0, 1]}})), Known())


def test_the_worlds_generators_are_left_as_they_were():
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()

    build("dice_searcher:Dice").propose(Search(space=space({"a": {"uniform": [0, 1]}})), Known())

    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_proposals_depend_on_seed_and_arm():
    def first(**search):
        about = Search(space=space({"a": {"uniform": [0, 1]}, "b": {"choice": [[1], [2]]}}), **search)
        return build("dice_searcher:Dice").propose(about, Known())

    assert first(seed=1) == first(seed=1)
    assert len({first(**search)["a"] for search in ({"seed": 1}, {"seed": 2}, {"arm": "b"})}) == 3


def test_searches_it_cannot_do_with_are_refused():
    two = Search(space=space({"a": {"uniform": [0, 1]}}), goals=(Goal("eval/x", "max"), Goal("eval/y", "min")))

    assert [one.path for one in build("dice_searcher:Dice").check_search(two)] == ["tune.metric"]


def test_a_searcher_of_real_numbers_alone_is_refused_elsewhere():
    pytest.importorskip("bayes_opt")
    mixed = Search(space=space({"a": {"uniform": [0, 1]}, "b": {"int": [1, 2]}}))

    assert [one.path for one in build(BAYES).check_search(mixed)] == ["search.b"]
