"""Components by role and name: declared soundly, judged before they are built, built with blame."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pydantic.dataclasses
import pytest
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.api import (
    Component,
    Couples,
    PluginConfig,
    Recipe,
    UseReward,
    hookimpl,
)
from orchestrator.contract.component import NoOptions
from orchestrator.errors import ConfigError, PluginContractError
from orchestrator.plugging.manager import PluginManager
from orchestrator.plugging.registry import Registry


class Inner(PluginConfig):
    depth: int = 1


class Options(PluginConfig):
    clip: float = Field(0.2, ge=0, lt=1)
    inner: Inner = Inner()


class Combined(PluginConfig):
    parts: tuple[UseReward, ...] = ()


class Reward:
    def __init__(self, config=None):
        self.config = config

    def score(self, group):
        return []


class Both(Reward):
    def __init__(self, config):
        self.parts = [(part.weight, part.build()) for part in config.parts]


def _fails(config):
    raise FileNotFoundError("no such table")


class Plugin:
    def __init__(self, rewards=(), recipes=(), objectives=()):
        self.rewards, self.recipes, self.objectives = rewards, recipes, objectives

    @hookimpl
    def provide_rewards(self):
        return self.rewards

    @hookimpl
    def provide_recipes(self):
        return self.recipes

    @hookimpl
    def provide_objectives(self):
        return self.objectives


def registry(*plugins):
    manager = PluginManager()
    for index, plugin in enumerate(plugins):
        manager.register(plugin, f"p{index}")
    return Registry(manager)


REWARDS = [
    Component(name="exact", build=Reward, config=Options, summary="right or wrong"),
    Component(name="both", build=Both, config=Combined),
    Component(name="fails", build=_fails),
]


@pytest.fixture
def rewards():
    return registry(Plugin(REWARDS, [Recipe(name="grpo", overlay={"sampler": {"use": "group"}})]))


def refused(*plugins):
    with pytest.raises(PluginContractError) as caught:
        registry(*plugins)
    return str(caught.value)


def test_components_are_listed_described_and_built(rewards):
    assert rewards.names("reward") == ("both", "exact", "fails")
    assert rewards.names("recipe") == ("grpo",)
    assert rewards.describe("reward", "exact").summary == "right or wrong"
    assert rewards.plugin_of("reward", "exact").name == "p0"
    assert rewards.build("reward", "exact", {"clip": 0.5}).config.clip == 0.5


def test_nested_components_are_built_with_their_own_options(rewards):
    built = rewards.build("reward", "both", {"parts": [{"use": "exact", "weight": 2, "clip": 0.5}]})

    ((weight, part),) = built.parts
    assert (weight, part.config.clip) == (2, 0.5)


def test_all_bad_options_are_reported_at_the_users_path(rewards):
    found = rewards.problems("reward", "exact", {"clpi": 1, "clip": 2, "inner": {"dept": 1}}, "rewards.0")

    assert {problem.path: problem.message for problem in found} == {
        "rewards.0.clpi": "unknown key; did you mean 'clip'? Expected one of: clip, inner.",
        "rewards.0.clip": "Input should be less than 1; got 2",
        "rewards.0.inner.dept": "unknown key; did you mean 'depth'? Expected one of: depth.",
    }


def test_bad_options_of_nested_components_are_reported_too(rewards):
    found = rewards.problems("reward", "both", {"parts": [{"use": "exact", "clip": 2}, {"use": "exct"}]}, "rewards.0")

    assert [problem.path for problem in found] == ["rewards.0.parts.0.clip", "rewards.0.parts.1.use"]
    assert "did you mean 'exact'" in found[1].message


def test_unknown_names_suggest_what_is_installed(rewards):
    with pytest.raises(ConfigError, match=r"no reward 'exat'; did you mean 'exact'\? Installed: both, exact, fails"):
        rewards.build("reward", "exat")
    with pytest.raises(ConfigError, match="no role 'rewards'; did you mean 'reward'"):
        rewards.names("rewards")


def test_errors_of_constructors_name_the_plugin(rewards):
    with pytest.raises(FileNotFoundError) as caught:
        rewards.build("reward", "fails")

    assert caught.value.__notes__ == ["raised by plugin 'p0' (unpackaged 0) in reward 'fails'"]


@pytest.mark.parametrize("late_first", [False, True])
def test_where_a_name_is_taken_twice_the_newcomer_is_at_fault(late_first):
    added = [("b_stranger", "stranger"), ("z_ours", "rl-orchestrator"), ("a_stranger", "stranger")]
    manager = PluginManager()
    for name, distribution in reversed(added) if late_first else added:
        manager.register(Plugin(REWARDS[:1], [Recipe(name="grpo", overlay={})]), name)
        manager._infos[name] = replace(manager.plugins[name], distribution=distribution)

    with pytest.raises(PluginContractError) as caught:
        Registry(manager)

    taken = "the name is taken by plugin 'z_ours' (rl-orchestrator 0); choose another name"
    assert str(caught.value).splitlines() == [
        f"plugin {name!r} (stranger 0): {what}: {taken}"
        for what in ("reward 'exact'", "recipe 'grpo'")
        for name in ("a_stranger", "b_stranger")
    ]


class Loose(BaseModel):
    model_config = ConfigDict(frozen=True)


class Mutable(BaseModel):
    model_config = ConfigDict(extra="forbid")


class HidesALooseOne(PluginConfig):
    inner: Loose = Loose()


class Tolerant(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class HoldsATolerantOne:
    one: Tolerant


class HidesATolerantOne(PluginConfig):
    inner: dict[str, HoldsATolerantOne] | None = None


@pydantic.dataclasses.dataclass(frozen=True)
class Validating:
    share: float = 0.5


class HidesAValidatingOne(PluginConfig):
    inner: tuple[Validating, ...] = ()


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Loose, "options model Loose accepts unknown keys; derive it from PluginConfig"),
        (Mutable, "options model Mutable is not frozen; derive it from PluginConfig"),
        (HidesALooseOne, "options model Loose accepts unknown keys"),
        (Tolerant, "options model Tolerant reads true as 1 and '3' as 3; derive it from PluginConfig"),
        (HidesATolerantOne, "options model Tolerant reads true as 1"),
        (HidesAValidatingOne, "options model Validating reads true as 1"),
        (dict, "expected a subclass of PluginConfig"),
    ],
)
def test_options_models_must_be_frozen_and_strict_and_refuse_unknown_keys(model, expected):
    message = refused(Plugin([Component(name="x", build=Reward, config=model)]))

    assert message.startswith("plugin 'p0' (unpackaged 0): reward 'x': ")
    assert expected in message


@pytest.mark.parametrize(
    ("plugin", "expected"),
    [
        (Plugin(["exact"]), "hook 'provide_rewards' gave a str; expected Component("),
        (Plugin([Component(name="a b", build=Reward)]), "'a b' is no good name"),
        (Plugin([Component(name="a", build=None)]), "expected a function from options to the reward"),
        (Plugin(recipes=[{"name": "grpo"}]), "hook 'provide_recipes' gave a dict; expected Recipe("),
        (Plugin(recipes=[Recipe(name="a", overlay={"polcy": {}})]), "overlay sets 'polcy'; did you mean 'policy'"),
        (Plugin(recipes=[Recipe(name="a", overlay={"environment": {}})]), "overlay sets 'environment'"),
    ],
)
def test_what_is_no_component_or_recipe_is_refused(plugin, expected):
    message = refused(plugin)

    assert "plugin 'p0' (unpackaged 0)" in message
    assert expected.replace("; did you mean 'policy'", "") in message


@pytest.mark.parametrize(
    ("built", "expected"),
    [
        (SimpleNamespace(needs=frozenset()), "without couples, terms"),
        (SimpleNamespace(needs={"value"}, couples=Couples.ROWS, terms=1), "not a frozenset of Need"),
        (SimpleNamespace(needs=frozenset(), couples="rows?", terms=1), "not a Couples"),
    ],
)
def test_what_a_component_builds_must_fill_its_role(built, expected):
    found = registry(Plugin(objectives=[Component(name="odd", build=lambda _: built)]))

    with pytest.raises(PluginContractError, match=f"objective 'odd' built a SimpleNamespace .*{expected}"):
        found.build("objective", "odd")


def test_components_without_options_take_none():
    found = registry(Plugin([Component(name="plain", build=Reward, config=NoOptions)]))

    (problem,) = found.problems("reward", "plain", {"x": 1}, "rewards.0")

    assert str(problem) == "rewards.0.x: unknown key. It takes no options."
