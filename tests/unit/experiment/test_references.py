"""``${...}`` follows what a trial has: its recipe, its arm, the command line, and the values a search gives it."""

import json

import pytest
from orchestrator_plugins import baselines, countdown, mlp, tuning

from orchestrator.api import Recipe, hookimpl
from orchestrator.contract.plan import Plan
from orchestrator.errors import ConfigError
from orchestrator.experiment import planner
from orchestrator.experiment.files import parse_experiment
from orchestrator.testing import load_only


class _Recipes:
    @hookimpl
    def provide_recipes(self):
        shared = dict(load_only(baselines).recipe("grpo").overlay)
        optimizer = {"lr": 0.5, "critic_lr": "${optimizer.lr}", "warmup": 7}
        return [Recipe(name="mine", overlay={**shared, "optimizer": optimizer})]


REGISTRY = load_only(baselines, countdown, mlp, tuning, _Recipes())


def settings(text, *overrides):
    return made(text, *overrides).arms


def made(text, *overrides):
    return planner.make(parse_experiment("name: x\nenvironment: {use: countdown}\n" + text, overrides), REGISTRY)


@pytest.fixture(autouse=True)
def _unplayed(monkeypatch):
    """What plays a trial is no matter here: a policy of features would need a world of features."""
    monkeypatch.setattr("orchestrator.experiment.judging.CHECKS", ())


def problems(text, *overrides):
    with pytest.raises(ConfigError) as caught:
        made(text, *overrides)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_a_reference_follows_the_arm_and_the_command_line():
    text = """
schedule: {steps: 10}
optimizer: {warmup: "${schedule.steps}"}
arms: {a: , b: {schedule: {steps: 20}}, c: {optimizer: {warmup: 3}}}
"""
    assert {arm: one.optimizer.warmup for arm, one in settings(text).items()} == {"a": 10, "b": 20, "c": 3}
    assert settings(text, "schedule.steps=5")["b"].optimizer.warmup == 5
    assert settings(text, "arms.b.schedule.steps=6")["b"].optimizer.warmup == 6


def test_a_reference_follows_a_searched_value_in_every_trial():
    text = """
optimizer: {lr: 0.1, critic_lr: "${optimizer.lr}"}
search: {optimizer.lr: {loguniform: [0.001, 1]}}
tune: {samples: 5}
"""
    plan = made(text)

    assert len({trial.settings.optimizer.lr for trial in plan.trials}) == 5
    assert all(trial.settings.optimizer.critic_lr == trial.settings.optimizer.lr for trial in plan.trials)
    again = Plan.from_json(plan.to_json())
    assert again == plan
    [confirmed] = planner.confirmations(again, {"x": {"optimizer.lr": 0.25}})
    assert confirmed.settings.optimizer.critic_lr == 0.25
    assert planner.tuning_trial(again, "x", 9, {"optimizer.lr": 0.5}, 1000).settings.optimizer.critic_lr == 0.5


def test_what_is_searched_itself_no_longer_follows():
    text = """
optimizer: {lr: 0.1, critic_lr: "${optimizer.lr}"}
search: {optimizer.critic_lr: {choice: [1, 2]}}
tune: {searcher: grid}
"""
    assert [trial.settings.optimizer.critic_lr for trial in made(text).trials] == [1.0, 2.0]


def test_a_searched_value_that_what_follows_it_cannot_take_is_found_when_planning():
    text = """
optimizer: {lr: 0.1, betas: ["${optimizer.lr}", 0.9]}
search: {optimizer.lr: {uniform: [0.1, 2]}}
"""
    assert "optimizer.betas.0" in problems(text)["search.optimizer.lr"]


def test_defaults_of_recipes_and_of_the_core_can_be_referred_to():
    found = settings('recipe: mine\nschedule: {epochs: "${optimizer.warmup}", minibatches: "${checkpoints.keep}"}')

    assert found["mine"].optimizer.critic_lr == 0.5
    assert found["mine"].schedule.epochs == 7
    assert found["mine"].schedule.minibatches == 2


def test_a_reference_of_a_recipe_follows_the_file():
    assert settings("recipe: mine\noptimizer: {lr: 0.2}")["mine"].optimizer.critic_lr == 0.2


def test_a_reference_to_a_section_stands_for_what_it_holds_and_can_be_changed():
    text = """
start: {recipe: sft, optimizer: {lr: 0.3, warmup: 4}}
optimizer: "${start.optimizer}"
arms: {a: , b: {optimizer: {warmup: 9}}, c: {start: {optimizer: {lr: 0.7}}}}
"""
    found = {arm: (one.optimizer.lr, one.optimizer.warmup) for arm, one in settings(text).items()}

    assert found == {"a": (0.3, 4), "b": (0.3, 9), "c": (0.7, 4)}


def test_seeds_and_searches_may_refer_too():
    plan = made('seeds: [0, "${schedule.steps}"]\nschedule: {steps: 3}\narms: {a: {seeds: ["${tune.seeds}"]}, b: }')

    assert [trial.id for trial in plan.trials] == ["b-s0", "b-s3", "a-s1"]


def test_an_escaped_reference_stays_text_in_every_trial():
    text = r"""
evaluation: {every: 3, tasks: "${evaluation.every}"}
tracking: {experiment: '\${HOME}'}
search: {optimizer.lr: {choice: [1, 2]}}
tune: {searcher: grid}
"""
    assert {trial.settings.tracking.experiment for trial in made(text).trials} == {"${HOME}"}


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("optimizer: {lr: '${nowhere.at.all}'}", "optimizer.lr", "nowhere"),
        ("optimizer: {lr: '${'}", "optimizer.lr", "cannot be resolved"),
        ("optimizer: {lr: '${optimizer.lr}'}", "optimizer.lr", "cannot be resolved"),
        ("optimizer: {lr: '${oc.nothing:1}'}", "optimizer.lr", "oc.nothing"),
        ("optimizer:\n  lr: ???", "optimizer.lr", "???"),
        ("optimizer:\n  lr: '${optimizer.eps}'\n  eps: ???", "optimizer.lr", "mandatory"),
        ("arms: {a: {optimizer: {lr: '${nowhere}'}}, b: }", "arms.a.optimizer.lr", "nowhere"),
        ("seeds: ['${nowhere}']", "seeds.0", "nowhere"),
        ("rewards: [{use: exact, weight: '${nowhere}'}]", "rewards.0.weight", "nowhere"),
        ("recipe: '${nowhere}'", "recipe", "nowhere"),
    ],
)
def test_a_reference_that_leads_nowhere_is_found_at_the_path_the_user_typed(text, path, says):
    assert says in problems(text)[path]


def test_a_dead_reference_is_no_problem():
    text = "optimizer: {lr: '${nowhere}', eps: '${'}\narms: {a: {optimizer: {lr: 1, eps: 1}}}"

    assert settings(text)["a"].optimizer.lr == 1.0


def test_plans_without_references_of_earlier_versions_are_read():
    data = json.loads(made("").to_json())

    assert "references" not in data
    assert Plan.from_json(json.dumps(data)).references == {}
