"""One budget for two kinds of data, the recipes, the sweeps."""

from __future__ import annotations

from pathlib import Path

import pytest
from multi_turn_credit import REGISTRY, estimator
from orchestrator_plugins.multi_turn.budget import cost, splits

from orchestrator.testing import check_component

# --- budget -----------------------------------------------------------------------------------------------

SPLITS = [(0, 1000), (20, 800), (40, 600), (60, 400), (80, 200), (100, 0)]


def test_the_published_splits_spend_one_budget():
    assert list(splits(1000, [0, 20, 40, 60, 80, 100])) == SPLITS
    assert {cost(*split) for split in SPLITS} == {1000}
    assert cost(60, 400) == 60 * 10 + 400 == 1000
    assert cost(0, 5000) > 1000  # the reference outside the budget


def test_a_split_that_cannot_be_paid_is_refused():
    with pytest.raises(ValueError, match="101 demonstrations leave -10 of 1000 units"):
        list(splits(1000, [101]))
    with pytest.raises(ValueError, match="expected counts of at least 0"):
        cost(-1, 5)


# --- recipes ----------------------------------------------------------------------------------------------


def _plan(text):
    from orchestrator.experiment import planner as plans
    from orchestrator.experiment.files import parse_experiment

    base = (
        "name: agents\nenvironment: {use: chain_search}\npolicy: {use: causal_lm, model: {preset: tiny, hidden: 16, "
        "layers: 1, heads: 2}}\ntracking: {enabled: false}\n"
    )
    return plans.make(parse_experiment(base + text, ()), REGISTRY)


def test_a_plan_without_siblings_refuses_leave_one_out():
    with pytest.raises(Exception, match="groups of at most 1, and advantage kl_penalised learns nothing from fewer"):
        _plan("recipe: rloo_agent\nsampler: {count: 1}")


def test_the_recipes_are_the_papers_table():
    names = {"ppo": "ppo", "rloo": "rloo", "grpo": "grpo", "rpp": "reinforce_plus_plus"}
    plan = _plan("arms: {" + ", ".join(f"{arm}: {{recipe: {name}_agent}}" for arm, name in names.items()) + "}")
    config = {trial.arm: trial.config for trial in plan.trials}

    assert config["ppo"]["advantage"] == {
        "use": "kl_penalised",
        "weight": 0.01,
        "inner": {"use": "gae", "gamma": 1.0, "lam": 1.0, "whiten": True},
    }
    assert config["rloo"]["advantage"] == {"use": "kl_penalised", "weight": 0.001, "inner": {"use": "rloo"}}
    assert config["rpp"]["advantage"] == {
        "use": "kl_penalised",
        "weight": 0.001,
        "inner": {"use": "reinforce_plus_plus", "gamma": 1.0, "whiten": True},
    }
    assert config["grpo"]["advantage"] == {"use": "group_mean", "standardise": True}
    assert (config["grpo"]["objective"]["kl_weight"], config["grpo"]["objective"]["kl_estimator"]) == (0.001, "k3")
    assert [config[arm]["sampler"]["count"] for arm in ("ppo", "rloo", "grpo", "rpp")] == [1, 4, 4, 1]
    assert (config["ppo"]["objective"]["value_weight"], config["ppo"]["objective"]["value_clip"]) == (1.0, 0.5)
    for arm, settings in config.items():
        objective, optimizer = settings["objective"], settings["optimizer"]
        assert (objective["clip_low"], objective["clip_high"], objective["dual_clip"]) == (0.2, 0.2, 3.0)
        assert (objective["entropy_weight"], objective["reduction"]) == (0.0, "token_mean")
        assert "kl_weight" not in objective or arm == "grpo"  # the others charge it to the reward
        assert "value_weight" not in objective or arm == "ppo"
        assert (settings["schedule"]["epochs"], settings["schedule"]["minibatches"]) == (1, 1)
        assert settings["sampling"]["temperature"] == 0.7
        assert (optimizer["use"], optimizer["weight_decay"], tuple(optimizer["betas"])) == ("adamw", 0.01, (0.9, 0.999))
        assert (optimizer["max_grad_norm"], optimizer["decay"]) == (1.0, "constant")
        assert settings["rewards"] == [{"use": "progress", "placement": "per_turn", "weight": 1.0}]


def test_every_option_has_a_description_and_unknown_ones_are_refused():
    for name in ("turn_gae", "bilevel_gae", "reinforce_plus_plus", "rloo"):
        check_component(REGISTRY.describe("advantage", name))
    for inner in ("gae", "turn_gae", "rloo", "reinforce_plus_plus", "group_mean"):
        check_component(estimator("kl_penalised", inner={"use": inner}))


# --- sweeps -----------------------------------------------------------------------------------------------

SWEEPS = Path(__file__).parents[2] / "sweeps"


def _planned(name):
    from orchestrator.experiment import planner as plans
    from orchestrator.experiment.files import load_experiment

    return {trial.arm: trial.config for trial in plans.make(load_experiment(SWEEPS / name, ()), REGISTRY).trials}


def test_every_split_of_the_budget_sweep_spends_the_same():
    bought = {}
    for arm, config in _planned("multi_turn_budget.yaml").items():
        start, [world, transfer] = config["start"], config["environment"]["worlds"]
        shown = start["schedule"]["steps"] * start["schedule"]["tasks_per_step"]
        assert shown in (0, start["environment"]["worlds"]["0"].get("train_tasks"))  # each demonstration once
        assert start["environment"]["worlds"]["0"]["train_on"] == "demonstrations"
        bought[arm] = (shown, world["train_tasks"] if config["schedule"]["steps"] else 0)
        assert transfer["weight"] == 0

    assert list(bought.values()) == SPLITS
    assert list(bought) == [f"d{demonstrations}-g{games}" for demonstrations, games in SPLITS]
    assert {cost(*split) for split in bought.values()} == {1000}


def test_the_splits_begin_with_one_prior_and_demonstrate_other_games_than_they_train_on():
    from orchestrator.contract.settings import Settings
    from orchestrator.experiment import planner as plans

    keys, worlds = set(), []
    for config in _planned("multi_turn_budget.yaml").values():
        phase = plans.start_settings(Settings.model_validate(config))
        keys.add(plans.start_key(phase))
        worlds.append(phase.environment.options["worlds"][0]["train_on"])
        assert config["environment"]["worlds"][0].get("train_on", "training") == "training"

    assert len(keys) == 1
    assert set(worlds) == {"demonstrations"}


@pytest.mark.parametrize("name", ["algorithms", "algorithms_long", "density"])
def test_the_arms_of_a_comparison_play_as_many_episodes_and_share_their_start(name):
    from orchestrator.contract.settings import Settings
    from orchestrator.experiment import planner as plans

    configs = _planned(f"multi_turn_{name}.yaml").values()

    assert {c["schedule"]["tasks_per_step"] * c["sampler"]["count"] for c in configs} == {64}
    assert len({plans.start_key(Settings.model_validate(config)) for config in configs}) == 1


@pytest.mark.parametrize("name", ["transfer", "turns", "prior"])
def test_the_other_sweeps_are_sound(name):
    assert len(_planned(f"multi_turn_{name}.yaml")) >= 3
