"""Every sampler with every estimator (and none) and every objective: refused at plan time with a reason, or it trains.

Each combination meets two very small worlds, one in words and one in numbers. A plugin is tested by being installed.
"""

import itertools
import json
import math
from functools import cache

import pytest

from orchestrator.api import Component, ConfigError, Credit, Score, Speaks, hookimpl
from orchestrator.experiment import planner as plans
from orchestrator.experiment.files import parse_experiment
from orchestrator.plugging.manager import PluginManager
from orchestrator.plugging.registry import Registry
from orchestrator.runners.trial import run_spec
from orchestrator.runs.ledger import read_rows
from orchestrator.testing import CorridorEnvironment

WORLDS = {
    "countdown": {
        "environment": {"use": "countdown", "numbers": [2, 2], "max_number": 4, "operations": ["+"]},
        "policy": {
            "use": "causal_lm",
            "model": {"preset": "tiny", "hidden": 16, "layers": 1, "heads": 2, "mlp": 16},
        },
    },
    "corridor": {"environment": {"use": "corridor"}, "policy": {"use": "mlp", "hidden": [8]}},
}
SMALL = {  # samplers at their defaults ask for more rollouts than a contract needs
    "best_of": {"count": 3, "keep": 2},
    "dars": {"pre_rollouts": 2, "max_rollouts": 4, "success_at": 1.0},
    "group": {"count": 2},
    "replay": {"rollouts": 4},
    "with_demonstration": {"base": {"use": "group", "count": 2}},
}
PAIRWISE = {"apo", "dpo", "ipo", "p3o", "sppo"}
IN_TURN = 1.0, 0.5  # what siblings score, so that no method is without a signal


class _Uneven:
    def score(self, group):
        return [Score(value=IN_TURN[place % 2]) for place, _ in enumerate(group.rollouts)]


class _Untold:
    """An estimator that does not say whether it sets returns."""

    needs = frozenset()

    def estimate(self, batch):
        return Credit(advantages=batch.turn_rewards)


class _Plugin:
    @hookimpl
    def provide_advantage_estimators(self):
        return [Component(name="untold", build=lambda _: _Untold())]

    @hookimpl
    def provide_environments(self):
        return [Component(name="corridor", build=lambda _: CorridorEnvironment(), speaks=Speaks.FEATURES)]

    @hookimpl
    def provide_rewards(self):
        return [Component(name="uneven", build=lambda _: _Uneven())]


def _registry():
    manager = PluginManager()
    manager.discover()
    manager.register(_Plugin(), "composition")
    return Registry(manager)


REGISTRY = _registry()
SAMPLERS, OBJECTIVES = REGISTRY.names("sampler"), REGISTRY.names("objective")
ADVANTAGES = ("none", *(name for name in REGISTRY.names("advantage") if name != "untold"))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("advantage", ADVANTAGES)
@pytest.mark.parametrize(
    ("world", "sampler"),
    [
        pytest.param(world, sampler, marks=pytest.mark.xdist_group(f"{world}+{sampler}"))  # which are judged at once
        for world, sampler in itertools.product(WORLDS, SAMPLERS)
    ],
)
def test_a_combination_trains_or_is_refused_before_it_starts(world, sampler, advantage, objective, tmp_path):
    specs, refused = judged(world, sampler)
    arm = f"{sampler}+{advantage}+{objective}"
    if arm in refused:
        assert all(len(problem.message) > 20 for problem in refused[arm])
        return

    result = run_spec(specs[arm], tmp_path, registry=REGISTRY)

    assert result.status == "done", result.error
    rows = read_rows(tmp_path / "trials" / specs[arm].id / "metrics.jsonl")
    steps = [row["metrics"] for row in rows if row["kind"] == "step"]
    assert len(steps) == 2
    for metrics in steps:
        assert metrics["train/tokens"] >= metrics["train/rows"] >= 1
        assert metrics["train/skipped_updates"] == 0
        assert math.isfinite(metrics["loss/total"])
        assert math.isfinite(metrics["train/grad_norm"])


@pytest.mark.parametrize(
    ("world", "sampler", "objective", "reason"),
    [
        ("countdown", "replay", "clipped", "sampler.use: replay works with features only, but environment countdown"),
        ("countdown", "group", "q_learning", "objective.use: q_learning works with features only"),
        ("countdown", "demonstrations", "dpo", "sampler: demonstrations gives groups of at most 1, and objective dpo"),
        ("corridor", "replay", "p3o", "sampler: replay gives groups of at most 1, and objective p3o learns nothing"),
        ("corridor", "demonstrations", "cross_entropy", "sampler.use: demonstrations plays each task's demonstration"),
        ("corridor", "with_demonstration", "grao", "sampler.use: with_demonstration plays each task's demonstration"),
    ],
)
def test_a_refusal_says_why(world, sampler, objective, reason):
    _, refused = judged(world, sampler)

    for advantage in ADVANTAGES:
        arm = f"{sampler}+{advantage}+{objective}"
        assert any(f"{p.path}: {p.message}".startswith(f"arms.{arm}.{reason}") for p in refused[arm])


@pytest.mark.parametrize(
    ("advantage", "weight", "refused"),
    [
        (None, 1.0, "without an estimator there are no returns"),
        ({"use": "group_mean"}, 1.0, "estimator group_mean sets no returns"),
        ({"use": "kl_penalised", "inner": {"use": "group_mean"}}, 1.0, "estimator kl_penalised sets no returns"),
        ({"use": "kl_penalised", "inner": {"use": "gae"}}, 1.0, None),
        ({"use": "gae"}, 1.0, None),
        ({"use": "group_mean"}, 0.0, None),
        ({"use": "untold"}, 1.0, None),  # a stranger's that does not say
    ],
)
def test_a_critic_without_returns_is_refused_before_it_starts(advantage, weight, refused):
    arm = {"sampler": {"use": "group", "count": 2}, "objective": {"use": "clipped", "value_weight": weight}}
    arm |= {"advantage": advantage} if advantage else {}

    if refused is None:
        assert make("corridor", {"only": arm}).trials
    else:
        with pytest.raises(ConfigError, match=f"objective: clipped trains a critic, and {refused}"):
            make("corridor", {"only": arm})


def test_nothing_else_of_ours_is_refused():
    ours = {"replay", "q_learning", "demonstrations", "with_demonstration", "curriculum", *PAIRWISE}
    for world, sampler in itertools.product(WORLDS, SAMPLERS):
        for arm in judged(world, sampler)[1]:
            assert ours.intersection(arm.split("+")), arm
    assert all(arm.endswith("+q_learning") for arm in judged("countdown", "group")[1])
    assert not judged("corridor", "group")[1]


def test_a_component_nested_in_another_is_judged_by_the_world_too():
    nested = {"use": "with_demonstration", "base": {"use": "replay"}}

    with pytest.raises(ConfigError, match=r"sampler\.base\.use: replay works with features only"):
        make("countdown", {"only": {"sampler": nested, "objective": {"use": "grao"}, "advantage": {"use": "grao"}}})


def test_a_demonstration_is_a_sibling():
    one = {"use": "group", "count": 1}
    shown = {"use": "with_demonstration", "base": one}

    assert make("countdown", {"only": {"sampler": shown, "objective": {"use": "dpo"}}}).trials
    with pytest.raises(ConfigError, match="groups of at most 1"):
        make("countdown", {"only": {"sampler": one, "objective": {"use": "dpo"}}})


@cache
def judged(world, sampler):
    """The trials of all combinations with a sampler by arm, and the problems of those that are refused."""
    arms = {
        f"{sampler}+{advantage}+{objective}": {
            "sampler": {"use": sampler, **SMALL.get(sampler, {})},
            "objective": {"use": objective},
        }
        | ({} if advantage == "none" else {"advantage": {"use": advantage}})
        for advantage, objective in itertools.product(ADVANTAGES, OBJECTIVES)
    }
    refused = {}
    try:
        found = make(world, arms)
    except ConfigError as error:
        for problem in error.problems:
            name = max((arm for arm in arms if problem.path.startswith(f"arms.{arm}.")), key=len)
            refused.setdefault(name, []).append(problem)
        sound = {arm: options for arm, options in arms.items() if arm not in refused}
        found = make(world, sound) if sound else None
    return {trial.arm: trial for trial in found.trials} if found else {}, refused


def make(world, arms):
    experiment = {
        "name": "composition",
        **WORLDS[world],
        "rewards": [{"use": "uneven"}],
        "schedule": {"steps": 2, "tasks_per_step": 2, "refresh_reference": "round"},
        "sampling": {"max_tokens": 3, "max_turns": 4},
        "evaluation": {"every": 0, "first": False, "tasks": 1, "samples": 1},
        "checkpoints": {"every": 0},
        "tracking": {"enabled": False},
        "arms": arms,
    }
    return plans.make(parse_experiment(json.dumps(experiment), ()), REGISTRY)
