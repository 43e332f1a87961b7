"""Each option is judged once when planning and once in the worker, however many arms, seeds and searches share it."""

from __future__ import annotations

import io
import json
from collections import Counter

import pytest
from orchestrator_plugins import baselines, tuning
from pydantic import model_validator
from rich.console import Console

from orchestrator.api import Component, PluginConfig, Speaks, UseReward, hookimpl
from orchestrator.cli.preview import show_plan
from orchestrator.contract.plan import TrialSpec
from orchestrator.experiment import planner
from orchestrator.experiment.files import parse_experiment
from orchestrator.runners.trial import run_spec
from orchestrator.testing import EchoEnvironment, ScriptedPolicy, load_only

JUDGED: Counter[str] = Counter()


def counted(name):
    class Options(PluginConfig):
        size: int = 1

        @model_validator(mode="after")
        def _count(self):
            JUDGED[name, self.size] += 1
            return self

    return Options


class Outer(counted("outer")):
    inner: UseReward


class Half:
    def __init__(self, config):
        self.inner = config.inner.build()

    def score(self, group):
        return self.inner.score(group)


class Stranger:
    """Components whose options are counted when they are judged, one of them nested in another."""

    @hookimpl
    def provide_environments(self):
        world = counted("environment")
        return [Component(name="echo", config=world, build=lambda _: EchoEnvironment(), speaks=Speaks.MESSAGES)]

    @hookimpl
    def provide_policies(self):
        return [
            Component(
                name="scripted", config=counted("policy"), build=lambda _: ScriptedPolicy(), speaks=Speaks.MESSAGES
            )
        ]

    @hookimpl
    def provide_rewards(self):
        exact = load_only("baselines").describe("reward", "exact")
        return [
            Component(name="outer", config=Outer, build=Half),
            Component(name="inner", config=counted("inner"), build=lambda _: exact.build(exact.config())),
        ]


TEXT = """
name: once
environment: {use: echo}
policy: {use: scripted}
recipe: grpo
rewards: [{use: outer, inner: {use: inner}}]
schedule: {steps: 1, tasks_per_step: 2}
evaluation: {tasks: 2, samples: 2, first: false}
start: {recipe: sft, schedule: {steps: 1}}
"""


@pytest.fixture
def registry():
    JUDGED.clear()
    return load_only(baselines, tuning, Stranger())


@pytest.mark.parametrize(
    "more",
    [
        "",
        "seeds: [0, 1, 2]\narms: {a: , b: {optimizer: {lr: 1.0}}, c: {recipe: rloo}}",
        "arms: {a: , b: {optimizer: {lr: 1.0}}}\nsearch: {optimizer.lr: {uniform: [0.1, 1]}}\ntune: {samples: 5}",
    ],
)
def test_planning_and_showing_a_plan_judge_every_option_once(registry, more):
    plan = planner.make(parse_experiment(TEXT + more), registry)
    show_plan(plan, registry, Console(file=io.StringIO()))

    assert set(JUDGED.values()) == {1}
    assert {name for name, _ in JUDGED} == {"environment", "policy", "outer", "inner"}


def test_options_that_differ_are_judged_once_each(registry):
    planner.make(parse_experiment(TEXT + "arms: {a: {environment: {size: 2}}, b: {environment: {size: 3}}}"), registry)

    assert {size: count for (name, size), count in JUDGED.items() if name == "environment"} == {2: 1, 3: 1}


def test_a_worker_judges_every_option_once(registry, tmp_path):
    (spec,) = planner.make(parse_experiment(TEXT), registry).trials
    sent = json.dumps(spec.to_json())
    JUDGED.clear()

    result = run_spec(TrialSpec.from_json(json.loads(sent)), tmp_path, registry=load_only(baselines, Stranger()))

    assert result.status == "done", result.error
    assert set(JUDGED.values()) == {1}
