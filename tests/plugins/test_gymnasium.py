"""The environment ``gymnasium``: seeds are tasks, time limits are truncations, other spaces are refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from orchestrator_plugins.gymnasium.config import GymnasiumConfig
from orchestrator_plugins.gymnasium.environment import GymnasiumEnvironment

from orchestrator.api import Action, ConfigError, Environment, Episode, Split, load_registry
from orchestrator.experiment import planner as plan
from orchestrator.experiment.files import load_experiment
from orchestrator.runners.trial import run_spec

gymnasium = pytest.importorskip("gymnasium")


def first_task(environment, split=Split.TRAIN):
    return next(iter(environment.tasks(split)))


def play(environment, task, actions):
    """Play in a circle of actions; returns the features seen and the feedback."""
    episode = environment.start(task, seed=0)
    seen, answers = [episode.open()], []
    for action in itertools.cycle(actions):
        answers.append(episode.step(Action(tokens=(action,), logprobs=(0.0,))))
        seen.append(answers[-1].observation)
        if answers[-1].done:
            break
    episode.close()
    return seen, answers


def test_it_fills_the_role():
    environment = load_registry(["gymnasium"]).build("environment", "gymnasium")

    assert isinstance(environment, Environment)
    assert isinstance(environment.start(first_task(environment), 0), Episode)
    assert (environment.features, environment.actions) == (4, 2)


def test_a_play_is_the_simulators_own():
    environment = GymnasiumEnvironment(GymnasiumConfig())
    task = first_task(environment)
    simulator = gymnasium.make("CartPole-v1")
    expected, _ = simulator.reset(seed=task.metadata["seed"])

    seen, answers = play(environment, task, [1])

    for features in seen:
        np.testing.assert_array_equal(features.values, expected)
        if features is not seen[-1]:
            expected = simulator.step(1)[0]
    assert answers[-1].metrics == {"return": len(answers), "length": len(answers)}
    assert not answers[-1].truncated


def test_a_task_is_reproducible_and_simulators_are_reused():
    environment = GymnasiumEnvironment(GymnasiumConfig())
    task = first_task(environment)

    first, _ = play(environment, task, [0, 1])
    play(environment, first_task(environment, Split.EVAL), [0])
    again, _ = play(environment, task, [0, 1])

    assert len(environment._idle) == 1
    np.testing.assert_array_equal([f.values for f in first], [f.values for f in again])


def test_observations_are_copies():
    environment = GymnasiumEnvironment(GymnasiumConfig(id="MountainCar-v0"))
    episode = environment.start(first_task(environment), 0)
    first = episode.open()
    kept = first.values.copy()

    episode.step(Action(tokens=(2,), logprobs=(0.0,)))

    np.testing.assert_array_equal(first.values, kept)


def test_a_time_limit_is_a_truncation_with_the_state_it_cut():
    environment = GymnasiumEnvironment(GymnasiumConfig(max_steps=5))

    seen, answers = play(environment, first_task(environment), [0, 1])

    assert [a.done for a in answers] == [False] * 4 + [True]
    assert [a.truncated for a in answers] == [False] * 4 + [True]
    assert answers[-1].observation is seen[-1]
    assert answers[-1].metrics["length"] == 5


def test_splits_have_their_own_seeds_and_start_over():
    environment = GymnasiumEnvironment(GymnasiumConfig(seed=4))
    train = [t.metadata["seed"] for t in itertools.islice(environment.tasks(Split.TRAIN), 50)]
    again = [t.metadata["seed"] for t in itertools.islice(environment.tasks(Split.TRAIN), 50)]
    held_out = [t.metadata["seed"] for t in itertools.islice(environment.tasks(Split.EVAL), 50)]

    assert train == again
    assert len(set(train) | set(held_out)) == 100


def test_an_action_mask_of_the_simulator_is_honoured():
    environment = GymnasiumEnvironment(GymnasiumConfig(id="Taxi-v4" if "Taxi-v4" in gymnasium.registry else "Taxi-v3"))

    opened = environment.start(first_task(environment), 0).open()

    assert environment.features == 500
    assert opened.values.sum() == 1
    assert 0 < opened.legal.sum() < 6


def test_a_continuous_action_space_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"environment\.id: Pendulum-v1 .*expected Discrete"):
        GymnasiumEnvironment(GymnasiumConfig(id="Pendulum-v1"))


def test_an_unknown_environment_is_refused_with_the_way_to_list_them():
    with pytest.raises(ConfigError, match=r"environment\.id: .*CartPoole.*"):
        GymnasiumEnvironment(GymnasiumConfig(id="CartPoole-v1"))


def test_arguments_the_simulator_does_not_take_are_refused():
    with pytest.raises(ConfigError, match=r"environment\.kwargs: CartPole-v1 refused them"):
        GymnasiumEnvironment(GymnasiumConfig(kwargs={"gravitas": 3}))


def test_an_action_outside_the_space_is_an_error():
    environment = GymnasiumEnvironment(GymnasiumConfig())
    episode = environment.start(first_task(environment), 0)
    episode.open()

    with pytest.raises(ValueError, match="index from 0 to 1"):
        episode.step(Action(tokens=(2,), logprobs=(0.0,)))


def test_without_the_package_the_plugin_says_what_to_install(monkeypatch):
    import importlib
    import importlib.util
    import sys

    import orchestrator_plugins.gymnasium as plugin

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, plugin.__name__)
    with pytest.raises(ImportError, match=r"pip install 'rl-orchestrator\[gymnasium\]'"):
        importlib.import_module(plugin.__name__)


def test_ppo_learns_to_balance(tmp_path):
    file = Path(__file__).parents[2] / "sweeps" / "cartpole.yaml"
    registry = load_registry(["baselines", "gymnasium", "mlp"])
    short = ["seeds=[0]", "budget.generated_tokens=9000", "evaluation.every=0", "evaluation.first=true"]
    (trial,) = plan.make(load_experiment(file, [*short, "evaluation.tasks=20"]), registry).trials

    result = run_spec(trial, tmp_path, registry=registry)

    rows = [json.loads(line) for line in (tmp_path / "trials" / trial.id / "metrics.jsonl").open()]
    before, after = (row["metrics"]["eval/episode/return"] for row in rows if row["kind"] == "evaluation")
    assert result.status == "done"
    assert before < 60
    assert after > 150
