"""Searchers, schedulers and metrics that could not do are refused while planning, each at the path the user typed."""

from __future__ import annotations

from typing import Annotated

import pytest
from orchestrator_plugins import optuna, ray_tune, tuning

from orchestrator.api import Component, NamesCode, PluginConfig, Problem, Speaks, hookimpl
from orchestrator.contract.search import Goal
from orchestrator.contract.settings import ReportSettings, Tune
from orchestrator.errors import ConfigError
from orchestrator.experiment import planner
from orchestrator.experiment.files import parse_experiment
from orchestrator.experiment.tuning import goals
from orchestrator.testing import EchoEnvironment, load_only

BASE = """
name: test
environment: {use: echo}
procedure: {procedure}
evaluation: {every: 2, samples: 4, k: [1, 4]}
schedule: {steps: 10}
search: {optimizer.lr: {loguniform: [1.0e-4, 1.0]}}
"""


class Modest(PluginConfig):
    most: int = 1


class Named(PluginConfig):
    code: Annotated[str, NamesCode("module")] = "dice_searcher"


class Picky:
    adaptive = True

    def __init__(self, config):
        self.config = config

    def propose(self, search, known):
        return None

    def check_search(self, search):
        if search.samples == 13:
            raise RuntimeError("unlucky")
        if len(search.space.dimensions) > self.config.most:
            return [Problem("search", f"more than {self.config.most} at once; search less")]
        return []


class Endless:
    adaptive = False

    def propose(self, search, known):
        return search.space.draw(0, 0)


class Exact:
    def score(self, group):
        raise NotImplementedError


class Stranger:
    @hookimpl
    def provide_environments(self):
        return [Component(name="echo", build=lambda _: EchoEnvironment(), speaks=Speaks.MESSAGES)]

    @hookimpl
    def provide_rewards(self):
        return [Component(name="exact", build=lambda _: Exact())]

    @hookimpl
    def provide_searchers(self):
        return [
            Component(name="picky", config=Modest, build=Picky),
            Component(name="broken", build=lambda _: 1 / 0),
            Component(name="named", config=Named, build=lambda _: 1 / 0),
        ]

    @hookimpl
    def run_trial(self, trial, components):
        return None


@pytest.fixture(scope="module")
def registry():
    return load_only(tuning, optuna, ray_tune, Stranger())


def problems(registry, text, procedure="train"):
    try:
        planner.make(parse_experiment(BASE.replace("{procedure}", procedure) + text, []), registry)
    except ConfigError as error:
        own = [one for one in error.problems if one.path.partition(".")[0] in ("tune", "search")]
        return {one.path: one.message for one in own}
    return {}


@pytest.mark.parametrize(
    ("tune", "path", "expected"),
    [
        ("searcher: optunna", "tune.searcher", "no searcher 'optunna'; did you mean 'optuna'?"),
        ("scheduler: {use: asah}", "tune.scheduler", "no scheduler 'asah'; did you mean 'asha'?"),
        ("scheduler: {use: asha, factr: 2}", "tune.scheduler.factr", "did you mean 'factor'?"),
        ("scheduler: {use: asha, factor: 0.5}", "tune.scheduler.factor", "greater than 1"),
        ("scheduler: {use: asha, grace: .inf}", "tune.scheduler.grace", "finite"),
        ("searcher: {use: random, seed: 3}", "tune.searcher.seed", "It takes no options"),
        ("searcher: grid", "search.optimizer.lr", "list a choice"),
        ("searcher: broken", "tune.searcher", "division by zero"),
        ("searcher: {use: picky, most: 0}", "search", "more than 0 at once"),
        ("searcher: {use: picky}, samples: 13", "tune.searcher", "unlucky"),
        ("searcher: {use: optuna, sampler: TPESampelr}", "tune.searcher.sampler", "did you mean 'TPESampler'?"),
        ("searcher: {use: optuna, n_startup_trails: 3}", "tune.searcher", "did you mean 'n_startup_trials'?"),
        ("searcher: {use: optuna, sampler: BruteForceSampler}", "tune.searcher", "cannot do with this search"),
        ("scheduler: {use: optuna_pruner, pruner: Median}", "tune.scheduler.pruner", "did you mean 'MedianPruner'?"),
        ("searcher: {use: ray}", "tune.searcher.searcher", "missing"),
        ("searcher: {use: ray, searcher: 'ray.tune.search.ax:AxSearch'}", "tune.searcher.searcher", "needs ax"),
        ("searcher: {use: ray, searcher: 'nowhere:X'}", "tune.searcher.searcher", "no Python module 'nowhere'"),
        ("metric: loss/policy", "tune.metric", "is not measured by evaluations"),
        ("metric: eval/pass_at_8", "tune.metric", "add 8 to evaluation.k"),
        ("metric: eval/pass@4", "tune.metric", "write eval/pass_at_4"),
        ("metric: cost/generated_token", "tune.metric", "did you mean 'cost/generated_tokens'?"),
        ("metric: eval/reward/maen", "tune.metric", "no 'eval/reward/maen'; did you mean 'eval/reward/mean'"),
        ("metric: eval/majority_at_1", "tune.metric", "name eval/pass_at_1"),
        ("metric: [eval/a, eval/b], mode: [max]", "tune", "1 directions for 2 metrics"),
        ("metric: [eval/a, eval/a]", "tune", "eval/a twice"),
        ("metric: [eval/a, eval/b], scheduler: asha", "tune.scheduler", "stops trials by one number"),
        ("metric: [eval/a, eval/b], searcher: {use: ray, searcher: 'dice_searcher:Dice'}", "tune.metric", "one metric"),
    ],
)
def test_what_could_not_do_is_refused_where_it_stands(registry, tune, path, expected):
    found = problems(registry, f"tune: {{{tune}}}")

    assert set(found) == {path}
    assert expected in found[path]


def test_the_schedulers_reports_must_come_during_training(registry):
    scheduled = "tune: {scheduler: asha}\n"

    assert problems(registry, scheduled) == {}
    for blind in ("evaluation: {every: 0}", "evaluation: {every: 10}"):
        text = BASE.replace("evaluation: {every: 2, samples: 4, k: [1, 4]}", blind)
        with pytest.raises(ConfigError, match=r"tune\.scheduler: .*set it below schedule\.steps"):
            planner.make(parse_experiment(text.replace("{procedure}", "train") + scheduled, []), registry)


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("metric: eval/pass_at_8", "evaluation.k gives eval/pass_at_1, eval/pass_at_4, not eval/pass_at_8"),
        ("metric: eval/pass@1", "write eval/pass_at_1"),
        ("metric: cost/tokens", "no counter 'cost/tokens'"),
        ("metric: eval/tokens_per_rollout/men", "did you mean 'eval/tokens_per_rollout/mean'"),
        ("metric: eval/reward/exakt", "did you mean 'eval/reward/exact'? Rewards measured apart: exact"),
    ],
)
def test_what_the_verdict_compares_is_judged_by_the_same_rule(registry, report, expected):
    base = BASE.partition("search:")[0].replace("{procedure}", "train") + "rewards: [{use: exact}]\n"

    with pytest.raises(ConfigError) as refused:
        planner.make(parse_experiment(base + f"report: {{{report}}}", []), registry)

    (said,) = [one.message for one in refused.value.problems if one.path == "report.metric"]
    assert expected in said


def test_only_a_search_compares_evaluations_alone(registry):
    report = "report: {metric: rollout/reward/mean}\n"
    base = BASE.replace("{procedure}", "train")

    with pytest.raises(ConfigError, match=r"report\.metric: 'rollout/reward/mean' is not measured by evaluations"):
        planner.make(parse_experiment(base + report, []), registry)
    for text in (base + report + "tune: {metric: eval/reward/mean}", base.partition("search:")[0] + report):
        with pytest.raises(ConfigError) as refused:  # it has no policy
            planner.make(parse_experiment(text, []), registry)
        assert "report.metric" not in {one.path for one in refused.value.problems}


def test_an_arm_that_cannot_measure_what_is_compared_is_named(registry):
    base = BASE.partition("search:")[0].replace("{procedure}", "train")
    arms = "arms: {told: {rewards: [{use: exact}]}, bare: {}}\nreport: {metric: eval/reward/exact}"

    with pytest.raises(ConfigError, match=r"report\.metric: arm bare: evaluations measure no 'eval/reward/exact'"):
        planner.make(parse_experiment(base + arms, []), registry)


def test_another_procedures_metrics_and_reports_are_its_own(registry):
    assert problems(registry, "tune: {metric: dhumbal/wins, scheduler: median}", procedure="tournament") == {}


def test_without_a_search_a_wrong_name_is_a_wrong_name(registry):
    text = BASE.partition("search:")[0].replace("{procedure}", "tournament")

    with pytest.raises(ConfigError, match="no searcher 'gird'; did you mean 'grid'"):
        planner.make(parse_experiment(text + "tune: {searcher: gird}", []), registry)
    assert planner.make(parse_experiment(text, []), load_only(Stranger())).trials  # who searches nothing needs nobody


def test_a_searcher_that_looks_at_no_result_and_never_ends_is_refused(monkeypatch):
    monkeypatch.setattr("orchestrator.experiment.tuning._MOST", 20)

    class Forever:
        @hookimpl
        def provide_searchers(self):
            return [Component(name="endless", build=lambda _: Endless())]

    with pytest.raises(ConfigError, match="there was no end of it"):
        planner.make(
            parse_experiment(BASE.replace("{procedure}", "tournament") + "tune: {searcher: endless}", []),
            load_only(Stranger(), Forever()),
        )


def test_what_is_compared_is_what_the_search_says_or_else_the_report():
    assert goals(Tune(), ReportSettings(metric="eval/x", mode="min")) == (Goal("eval/x", "min"),)
    assert goals(Tune(metric="eval/y"), ReportSettings(metric="eval/x", mode="min")) == (Goal("eval/y", "max"),)
    assert goals(Tune(metric=("a", "b"), mode="min"), ReportSettings()) == (Goal("a", "min"), Goal("b", "min"))
    assert goals(Tune(metric=("a", "b"), mode=("max", "min")), ReportSettings()) == (Goal("a", "max"), Goal("b", "min"))


def test_a_plan_keeps_the_digest_of_the_searcher_it_names_and_imports_nothing(registry):
    text = BASE.replace("{procedure}", "tournament") + "tune: {searcher: {use: ray, searcher: 'dice_searcher:Dice'}}"

    plan = planner.make(parse_experiment(text, []), registry)

    assert list(plan.code) == ["dice_searcher"]
    assert plan.experiment.search


def test_a_plan_searches_with_a_searcher_that_it_does_not_build(registry):
    text = BASE.replace("{procedure}", "tournament") + "tune: {searcher: named}"

    plan = planner.make(parse_experiment(text, []), registry)

    assert (list(plan.code), plan.trials) == (["dice_searcher"], ())
    assert plan.experiment.search  # a run imports the code, and finds that it cannot be built
    with pytest.raises(ConfigError, match="division by zero"):
        planner.make(parse_experiment(text, []), registry, imports=True)
