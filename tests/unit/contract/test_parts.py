"""Components are a tree: state, reports, measures and facts are found on every node, in strangers' wrappers too."""

from __future__ import annotations

import pytest
from orchestrator_plugins import baselines

from orchestrator.api import (
    Component,
    Evaluates,
    Facts,
    PluginConfig,
    Reports,
    RolloutRequest,
    Score,
    Speaks,
    Stateful,
    UseReward,
    UseSampler,
    facts_of,
    hookimpl,
)
from orchestrator.contract.parts import make_part
from orchestrator.contract.plan import Components
from orchestrator.experiment import planner
from orchestrator.experiment.files import parse_experiment
from orchestrator.runners.trial import run_spec
from orchestrator.runs.layout import RunFolder
from orchestrator.runs.ledger import read_rows
from orchestrator.testing import EchoEnvironment, ScriptedPolicy, check_component, load_only


class Counting:
    """A sampler with state and numbers of its own."""

    facts = Facts(most_siblings=2)

    def __init__(self, _):
        self.seen = 0

    def sample(self, tasks, collect):
        self.seen += len(tasks)
        return collect([RolloutRequest(task=task, count=2) for task in tasks])

    def report(self):
        return {"counting/seen": float(self.seen)}

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


class Over(PluginConfig):
    base: UseSampler


class Silent:
    """A stranger's wrapper that forwards nothing and names nothing."""

    def __init__(self, config):
        self.base = config.base.build()

    def sample(self, tasks, collect):
        return self.base.sample(tasks, collect)


class Naming(Silent):
    """A stranger's wrapper with state and numbers of its own, which names what it wraps."""

    def __init__(self, config):
        super().__init__(config)
        self.inner, self.calls = {"beneath": self.base}, 0

    def sample(self, tasks, collect):
        self.calls += 1
        return super().sample(tasks, collect)

    def report(self):
        return {"naming/calls": float(self.calls)}

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


class Forwarding(Silent):
    """A wrapper written before wrappers named what they wrap: it forwards by hand."""

    asked = 0

    def report(self):
        self.asked += 1
        return {"forwarding/asked": float(self.asked)} | self.base.report()

    def state_dict(self):
        return {"base": self.base.state_dict()}

    def load_state_dict(self, state):
        self.base.load_state_dict(state["base"])


class Measuring:
    def __init__(self, _):
        pass

    def score(self, group):
        return [Score(value=1.0) for _ in group.rollouts]

    def evaluate(self, groups):
        return {"measured/groups": float(len(groups))}


class OverReward(PluginConfig):
    inner: UseReward


class Doubling:
    def __init__(self, config):
        self.hidden = config.inner.build()

    def score(self, group):
        return [Score(value=2 * score.value) for score in self.hidden.score(group)]


class Stranger:
    @hookimpl
    def provide_environments(self):
        return [Component(name="echo", build=lambda _: EchoEnvironment(), speaks=Speaks.MESSAGES)]

    @hookimpl
    def provide_policies(self):
        return [Component(name="scripted", build=lambda _: ScriptedPolicy(), speaks=Speaks.MESSAGES)]

    @hookimpl
    def provide_samplers(self):
        wrappers = {"silent": Silent, "naming": Naming, "forwarding": Forwarding}
        return [
            Component(name="counting", build=Counting),
            *(Component(name=name, config=Over, build=build) for name, build in wrappers.items()),
        ]

    @hookimpl
    def provide_rewards(self):
        return [
            Component(name="measuring", build=Measuring),
            Component(name="doubling", config=OverReward, build=Doubling),
        ]


TEXT = """
name: tree
environment: {use: echo}
policy: {use: scripted}
recipe: grpo
schedule: {steps: 4, tasks_per_step: 3}
evaluation: {every: 0, tasks: 2, samples: 2}
checkpoints: {every: 1}
tracking: {enabled: false, transcripts: 0}
rewards: [{use: doubling, inner: {use: measuring}}]
"""
NESTED = {
    "silent": "{use: silent, base: {use: counting}}",
    "naming": "{use: naming, base: {use: counting}}",
    "forwarding": "{use: forwarding, base: {use: counting}}",
    "twice": "{use: silent, base: {use: naming, base: {use: silent, base: {use: counting}}}}",
}


def registry():
    return load_only(baselines, Stranger())


def run(directory, sampler, *overrides):
    found = registry()
    plan = planner.make(parse_experiment(f"{TEXT}sampler: {sampler}\n", overrides), found)
    result = run_spec(plan.trials[0], directory, registry=found)
    assert result.status == "done", result.error
    return [row for row in read_rows(RunFolder(directory).trial(plan.trials[0].id).metrics) if row["kind"] == "step"]


@pytest.mark.parametrize("sampler", NESTED.values(), ids=NESTED)
def test_what_a_wrapped_component_remembers_survives_a_resumption(tmp_path, sampler):
    whole = run(tmp_path / "whole", sampler)

    run(tmp_path / "cut", sampler, "schedule.steps=2")
    resumed = run(tmp_path / "cut", sampler)

    seen = [row["metrics"]["counting/seen"] for row in resumed]
    assert seen == [row["metrics"]["counting/seen"] for row in whole] == [3.0, 6.0, 9.0, 12.0]


def test_a_wrappers_own_state_and_numbers_stand_beside_those_of_what_it_wraps(tmp_path):
    run(tmp_path, NESTED["twice"], "schedule.steps=2")

    last = run(tmp_path, NESTED["twice"])[-1]["metrics"]

    assert (last["naming/calls"], last["counting/seen"]) == (4.0, 12.0)


def test_a_wrapper_that_forwards_by_hand_is_asked_once(tmp_path):
    asked = [row["metrics"]["forwarding/asked"] for row in run(tmp_path, NESTED["forwarding"])]

    assert asked == [1.0, 2.0, 3.0, 4.0]


def test_a_reward_inside_a_reward_evaluates(tmp_path):
    run(tmp_path, "{use: counting}")

    rows = read_rows(RunFolder(tmp_path).trial("grpo-s0").metrics)
    assert [row["metrics"]["eval/measured/groups"] for row in rows if row["kind"] == "evaluation"] == [2.0, 2.0]


def test_parts_carry_role_name_plugin_and_place():
    part = registry().part("sampler", "silent", {"base": {"use": "naming", "base": {"use": "counting"}}})

    found = {path: (str(inner.role), inner.name, inner.whom) for path, inner in part.walk("sampler")}

    whom = "'Stranger' (unpackaged 0) in sampler"
    assert found == {
        "sampler": ("sampler", "silent", f"{whom} 'silent'"),
        "sampler/base": ("sampler", "naming", f"{whom} 'naming'"),
        "sampler/base/beneath": ("sampler", "counting", f"{whom} 'counting'"),
    }
    assert [path for path, _ in part.able(Stateful, "sampler")] == ["sampler/base", "sampler/base/beneath"]
    assert [path for path, _ in part.able(Reports, "sampler")] == ["sampler/base", "sampler/base/beneath"]
    assert not list(part.able(Evaluates, "sampler"))


def test_facts_of_wrapped_components_speak_where_the_wrapper_says_nothing():
    part = registry().part("sampler", "silent", {"base": {"use": "counting"}})

    assert facts_of(part) == Facts(most_siblings=2)


def test_facts_may_stand_as_single_attributes():
    class Loose:
        least_siblings, counts_ahead = 3, True

        def terms(self, batch, current):
            raise NotImplementedError

    assert facts_of(Loose()) == Facts(least_siblings=3, counts_ahead=True)


def test_components_made_by_hand_are_a_tree_too():
    sampler = Naming.__new__(Naming)
    sampler.inner, sampler.calls = {"beneath": Counting(None)}, 0

    tree = Components(sampler=sampler, rewards=(("half", 1.0, Measuring(None)),)).tree

    assert set(tree) == {"sampler", "reward.0"}
    assert [path for path, _ in tree["sampler"].walk("sampler")] == ["sampler", "sampler/beneath"]
    assert tree["sampler"].whom is None


def test_two_components_of_equal_options_are_two_parts():
    class Pair(PluginConfig):
        first: UseSampler
        second: UseSampler

    class Both(Silent):
        def __init__(self, config):
            self.base, self.other = config.first.build(), config.second.build()

    class Twin:
        @hookimpl
        def provide_samplers(self):
            return [Component(name="both", config=Pair, build=Both)]

    part = load_only(Stranger(), Twin()).part(
        "sampler", "both", {"first": {"use": "counting"}, "second": {"use": "counting"}}
    )

    assert [path for path, _ in part.able(Stateful, "s")] == ["s/first", "s/second"]
    assert part.inner[0].component is not part.inner[1].component


def test_the_contract_check_names_a_wrapper_that_loses_the_state_beneath():
    class Forgetful(Silent):
        def state_dict(self):
            return {"calls": 0}

        def load_state_dict(self, state):
            pass

    forgetful = Forgetful.__new__(Forgetful)
    forgetful.base = Counting(None)
    forgetful.base.seen = 5

    with pytest.raises(AssertionError, match=r"self\.base is a Counting with a state of its own.*name it in `inner`"):
        check_component(forgetful)
    forgetful.inner = {"base": forgetful.base}
    check_component(forgetful)
    forgetful.inner = {"base": "counting"}
    with pytest.raises(AssertionError, match=r"inner\['base'\] is a str, which fills no role"):
        check_component(forgetful)


def test_a_part_without_a_registry_blames_nobody():
    assert make_part("sampler", "x", None, Counting(None)).whom is None
