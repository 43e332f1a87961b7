"""Experiments become trials, and bad ones a list of everything that is wrong with them."""

import json
from types import SimpleNamespace

import pytest
import torch
from orchestrator_plugins import optuna, tuning

from orchestrator.api import (
    Column,
    Component,
    Couples,
    Need,
    PluginConfig,
    Problem,
    Recipe,
    Speaks,
    Task,
    Terms,
    Weights,
    hookimpl,
)
from orchestrator.contract.plan import Phase, Plan
from orchestrator.errors import ConfigError
from orchestrator.experiment import planner as plans
from orchestrator.experiment.files import parse_experiment
from orchestrator.plugging.manager import PluginManager
from orchestrator.plugging.registry import Registry
from orchestrator.runs import store


class _Options(PluginConfig):
    count: int = 8
    explode: bool = False
    share: float = 1.0
    shares: tuple[float, ...] = ()


class _World:
    speaks = Speaks.MESSAGES

    def __init__(self, config):
        if config.explode:
            raise ValueError("no such city")
        if config.count < 0:
            raise ConfigError(
                [Problem("environment.count", "fewer than no houses"), Problem("environment", "nobody lives there")]
            )
        self.count = config.count

    def tasks(self, split):
        return iter([Task(id=f"{split}-{index}") for index in range(self.count)])

    def start(self, task, seed):
        raise NotImplementedError


class _Sampler:
    def __init__(self, config):
        self.config = config

    def sample(self, tasks, collect):
        raise NotImplementedError


class _Objective:
    needs = frozenset({Need(Weights.CURRENT, Column.VALUE)})
    couples = Couples.GROUPS

    def terms(self, batch, current):
        return Terms(loss=())


class _Advantage:
    needs = frozenset()

    def estimate(self, batch):
        raise NotImplementedError


class _Plugin:
    """Everything an experiment needs, and some parts that do not fit."""

    def __init__(self):
        self.found, self.looked_over = [], None

    @hookimpl
    def provide_environments(self):
        return [Component(name="town", build=_World, config=_Options)]

    @hookimpl
    def provide_policies(self):
        both = frozenset({Column.LOGPROB, Column.VALUE})
        module = SimpleNamespace(module=torch.nn.Identity())
        return [
            Component(name="talker", build=lambda _: module, speaks=Speaks.MESSAGES, columns=both, config=_Options),
            Component(name="walker", build=lambda _: module, speaks=Speaks.FEATURES, columns=both),
            Component(name="plain", build=lambda _: module, speaks=Speaks.MESSAGES, columns=both - {Column.VALUE}),
        ]

    @hookimpl
    def provide_samplers(self):
        return [Component(name=name, build=_Sampler, config=_Options) for name in ("group", "picky")]

    @hookimpl
    def provide_advantage_estimators(self):
        return [Component(name="mean", build=lambda _: _Advantage())]

    @hookimpl
    def provide_objectives(self):
        return [Component(name="clipped", build=lambda _: _Objective(), config=_Options)]

    @hookimpl
    def provide_recipes(self):
        method = {
            "sampler": {"use": "group", "count": 4},
            "objective": {"use": "clipped"},
            "advantage": {"use": "mean"},
        }
        return [
            Recipe(name="grpo", overlay={**method, "optimizer": {"lr": 0.25}, "schedule": {"epochs": 2}}),
            Recipe(name="rloo", overlay=method),
            Recipe(name="sft", overlay={**method, "sampler": {"use": "picky"}}),
        ]

    @hookimpl
    def check_plan(self, plan):
        self.looked_over = plan
        return self.found


PLUGIN = _Plugin()


@pytest.fixture
def registry():
    manager = PluginManager()
    PLUGIN.found = []
    manager.register(PLUGIN, "town")
    manager.register(tuning, "tuning")
    manager.register(optuna, "optuna")
    return Registry(manager)


BASE = """
name: test
environment: {use: town}
policy: {use: talker}
"""


def make(registry, text, *overrides):
    return plans.make(parse_experiment(BASE + text, overrides), registry)


def problems(registry, text, *overrides, base=BASE):
    with pytest.raises(ConfigError) as caught:
        plans.make(parse_experiment(base + text, overrides), registry)
    found = {}
    for problem in caught.value.problems:
        found[problem.path] = "\n".join(filter(None, (found.get(problem.path), problem.message)))
    return found


# --- resolution -------------------------------------------------------------------------------------------


def test_trials_are_arms_times_seeds_seeds_first(registry):
    plan = make(registry, "arms: {grpo: {recipe: grpo}, rloo: {recipe: rloo}}\nseeds: [0, 3]")

    assert [(trial.id, trial.arm, trial.seed) for trial in plan.trials] == [
        ("grpo-s0", "grpo", 0),
        ("rloo-s0", "rloo", 0),
        ("grpo-s3", "grpo", 3),
        ("rloo-s3", "rloo", 3),
    ]
    assert all(trial.phase is Phase.CONFIRM for trial in plan.trials)


def test_an_arm_may_have_seeds_of_its_own(registry):
    plan = make(registry, "arms: {grpo: {recipe: grpo, seeds: [0, 1, 2]}, rloo: {recipe: rloo}}\nseeds: [0, 3]")

    assert [(trial.arm, trial.seed) for trial in plan.trials] == [
        ("grpo", 0),
        ("rloo", 0),
        ("rloo", 3),
        ("grpo", 1),
        ("grpo", 2),
    ]
    assert Plan.from_json(plan.to_json()) == plan
    assert (plan.experiment.seeds_of("grpo"), plan.experiment.seeds_of("rloo")) == ((0, 1, 2), (0, 3))
    assert plan.experiment.all_seeds() == (0, 3, 1, 2)
    other = make(registry, "arms: {grpo: {recipe: grpo}}\nseeds: [0]", "arms.grpo.seeds=[5, 6]")
    assert [trial.id for trial in other.trials] == ["grpo-s5", "grpo-s6"]


def test_tuning_and_confirmation_know_the_seeds_of_an_arm(registry):
    text = "arms: {grpo: {recipe: grpo, seeds: [0, 1000]}, rloo: {recipe: rloo}}\nseeds: [0]\n"
    plan = make(registry, text + "search: {optimizer.lr: {loguniform: [1.0e-5, 1.0e-3]}}")

    assert plans.tuning_seeds(plan) == (1001,)
    confirmed = plans.confirmations(plan, {"grpo": {}, "rloo": {}})
    assert [trial.id for trial in confirmed] == ["grpo-s0", "rloo-s0", "grpo-s1000"]


def test_an_experiment_without_arms_is_one_trial(registry):
    plan = make(registry, "recipe: grpo")

    assert [trial.id for trial in plan.trials] == ["grpo-s0"]


def lr(plan, arm):
    return plan.arms[arm].optimizer.lr


def test_precedence_is_recipe_then_file_then_arm_then_command_line(registry):
    arms = "\narms: {a: {recipe: grpo}, b: {recipe: grpo, optimizer: {lr: 0.75}}}"

    by_recipe = make(registry, arms)
    by_file = make(registry, "optimizer: {lr: 0.5}" + arms)
    by_line = make(registry, "optimizer: {lr: 0.5}" + arms, "optimizer.lr=1")
    by_arms_line = make(registry, "optimizer: {lr: 0.5}" + arms, "optimizer.lr=1", "arms.a.optimizer.lr=2")

    assert (lr(by_recipe, "a"), lr(by_recipe, "b")) == (0.25, 0.75)
    assert (lr(by_file, "a"), lr(by_file, "b")) == (0.5, 0.75)
    assert (lr(by_line, "a"), lr(by_line, "b")) == (1, 1)
    assert (lr(by_arms_line, "a"), lr(by_arms_line, "b")) == (2, 1)


def test_an_arm_may_change_options_or_name_another_component(registry):
    plan = make(
        registry,
        "recipe: grpo\narms: {a: , b: {sampler: {count: 2}}, c: {sampler: {use: picky}}, d: {advantage: null}}",
    )

    samplers = [plan.arms[arm].sampler for arm in "abc"]
    assert [(sampler.use, sampler.options) for sampler in samplers] == [
        ("group", {"count": 4}),
        ("group", {"count": 2}),
        ("picky", {}),
    ]
    assert plan.arms["d"].advantage is None


def test_an_arm_may_take_another_recipe(registry):
    plan = make(registry, "recipe: grpo\narms: {a: , b: {recipe: rloo}}")

    assert [plan.arms[arm].schedule.epochs for arm in "ab"] == [2, 1]


def test_settings_of_a_trial_are_rebuilt_from_its_json(registry):
    plan = make(registry, "recipe: grpo\nevaluation: {samples: 4, k: [1, 4]}")

    settings = plan.trials[0].settings

    assert settings.evaluation.k == (1, 4)
    assert settings.sampler.options == {"count": 4}
    assert json.loads(json.dumps(plan.trials[0].config)) == plan.trials[0].config


def test_a_plan_survives_json_and_disk(registry, tmp_path):
    plan = make(
        registry, "recipe: grpo\nsearch: {optimizer.lr: {uniform: [0, 1]}}", "search.optimizer.lr.uniform=[0.1, 1]"
    )

    store.save_plan(plan, tmp_path / "run")

    assert Plan.from_json(plan.to_json()) == plan
    assert store.load_plan(tmp_path / "run") == plan


@pytest.mark.parametrize("text", ["{}", "[]", '{"trials": [{}]}', "no json"])
def test_a_damaged_plan_is_refused(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)

    with pytest.raises(ConfigError, match="cannot be read"):
        store.load_plan(tmp_path)


def test_a_folder_without_a_plan_is_no_run(tmp_path):
    with pytest.raises(ConfigError, match="is no run"):
        store.load_plan(tmp_path)


# --- start phases -----------------------------------------------------------------------------------------


def test_the_start_phase_has_the_trials_world_and_its_own_method(registry):
    plan = make(
        registry,
        "recipe: grpo\nstart: {recipe: sft, schedule: {steps: 7}}\n"
        "schedule: {steps: 50}\noptimizer: {lr: 3}\nsampling: {max_tokens: 9, temperature: 0.5}",
    )

    phase = plans.start_settings(plan.trials[0].settings)

    assert phase.environment.use == "town"
    assert phase.sampler.use == "picky"
    assert (phase.schedule.steps, phase.optimizer.lr) == (7, 1e-4)
    assert (phase.sampling.max_tokens, phase.sampling.temperature) == (9, 1.0)


def test_trials_that_agree_on_the_start_share_it(registry):
    plan = make(
        registry,
        "start: {recipe: sft}\nseeds: [0, 1]\narms:\n"
        "  a: {recipe: grpo}\n  b: {recipe: rloo, optimizer: {lr: 9}}\n  c: {recipe: rloo, start: {schedule: {steps: 3}}}\n"
        "  d: {recipe: rloo, policy: {count: 3}}",
    )

    keys = {trial.id: plans.start_key(trial.settings) for trial in plan.trials}

    assert keys["a-s0"] == keys["a-s1"] == keys["b-s0"]
    assert len({keys["a-s0"], keys["c-s0"], keys["d-s0"]}) == 3


def test_a_start_phase_may_have_a_world_and_a_start_of_its_own(registry):
    plan = make(
        registry,
        "start: {recipe: sft, environment: {count: 5}, schedule: {steps: 7},\n"
        "        start: {recipe: sft, environment: {explode: false}, schedule: {steps: 9}}}\n"
        "arms:\n  a: {recipe: grpo}\n  b: {recipe: grpo, start: {environment: {count: 6}}}\n"
        "  c: {recipe: grpo, start: {start: {schedule: {steps: 3}}}}",
    )
    settings = {trial.arm: trial.settings for trial in plan.trials}

    phase = plans.start_settings(settings["a"])
    first = plans.start_settings(phase)

    assert settings["a"].environment.options == {}
    assert (phase.environment.options, phase.schedule.steps) == ({"count": 5}, 7)
    assert (first.environment.options, first.schedule.steps) == ({"count": 5, "explode": False}, 9)
    assert first.sampler.use == "picky"
    assert plans.start_settings(first) is None
    assert len({plans.start_key(one) for one in settings.values()}) == 3


def test_without_a_start_there_is_no_phase_and_no_key(registry):
    settings = make(registry, "recipe: grpo").trials[0].settings

    assert plans.start_settings(settings) is None
    with pytest.raises(ValueError, match="no start phase"):
        plans.start_key(settings)


# --- search -----------------------------------------------------------------------------------------------

SEARCHED = "arms: {a: {recipe: grpo}, b: {recipe: rloo}}\nseeds: [0, 1000]\nsearch: {optimizer.lr: {uniform: [1, 2]}}\n"


def test_every_arm_is_tuned_on_the_same_configurations_and_seeds_of_their_own(registry):
    plan = make(registry, SEARCHED + "tune: {samples: 2, seeds: 2}")

    assert [trial.id for trial in plan.trials] == [
        f"tune-{arm}-{index:03d}-s{seed}" for index in (0, 1) for seed in (1001, 1002) for arm in "ab"
    ]
    assert all(trial.phase is Phase.TUNE for trial in plan.trials)
    assert plan.trials[0].searched == plan.trials[1].searched == plan.trials[2].searched
    assert plan.trials[0].settings.optimizer.lr == plan.trials[0].searched["optimizer.lr"]
    assert plans.tuning_seeds(plan) == (1001, 1002)


def test_with_optuna_tuning_trials_come_as_results_do(registry):
    plan = make(registry, SEARCHED + "tune: {searcher: optuna}")

    trial = plans.tuning_trial(plan, "b", 3, {"optimizer.lr": 1.5}, seed=1001)

    assert plan.trials == ()
    assert (trial.id, trial.sample, trial.settings.optimizer.lr) == ("tune-b-003-s1001", 3, 1.5)


def test_grid_search_tries_every_combination(registry):
    plan = make(
        registry,
        "recipe: grpo\nsearch: {sampler.count: {choice: [1, 2]}, schedule.epochs: {int: [1, 2]}}\ntune: {searcher: grid}",
    )

    assert [trial.searched for trial in plan.trials] == [
        {"sampler.count": count, "schedule.epochs": epochs} for count in (1, 2) for epochs in (1, 2)
    ]


def test_the_best_of_each_arm_is_confirmed_on_the_experiments_seeds(registry):
    plan = make(registry, SEARCHED)

    trials = plans.confirmations(plan, {"a": {"optimizer.lr": 1.25}})

    assert [(trial.id, trial.phase, trial.settings.optimizer.lr) for trial in trials] == [
        ("a-s0", Phase.CONFIRM, 1.25),
        ("a-s1000", Phase.CONFIRM, 1.25),
    ]


# --- problems ---------------------------------------------------------------------------------------------

GOOD = "recipe: grpo\n"

BAD = {  # kind: (text, with `> ` before settings of the command line; path; part of the message)
    "unknown key at the top": (GOOD + "sead: 1", "sead", "did you mean 'seeds'"),
    "unknown key in a section": (GOOD + "schedule: {stepz: 1}", "schedule.stepz", "did you mean 'steps'"),
    "unknown key in an arm": (GOOD + "arms: {a: {objektive: {}}}", "arms.a.objektive", "did you mean 'objective'"),
    "unknown option": (GOOD + "sampler: {cuont: 3}", "sampler.cuont", "did you mean 'count'"),
    "unknown option in an arm": (GOOD + "arms: {a: {sampler: {cuont: 3}}}", "arms.a.sampler.cuont", "'count'"),
    "wrong type": (GOOD + "schedule: {steps: many}", "schedule.steps", "valid integer"),
    "wrong type of an option": (GOOD + "sampler: {count: many}", "sampler.count", "valid integer"),
    "not finite": (GOOD + "optimizer: {lr: .nan}", "optimizer.lr", "finite"),
    "option that is not finite": (GOOD + "objective: {share: .inf}", "objective.share", "finite number; got inf"),
    "list that is not finite": (GOOD + "objective: {shares: [1, .nan]}", "objective.shares.1", "finite number; got nan"),
    "out of bounds": (GOOD + "schedule: {tasks_per_step: 0}", "schedule.tasks_per_step", "greater than or equal to 1"),
    "unknown component": (GOOD + "sampler: {use: gruop}", "sampler.use", "did you mean 'group'"),
    "unknown reward": (GOOD + "rewards: [{use: exact}]", "rewards.0.use", "no reward 'exact'"),
    "component without a name": ("objective: {count: 1}\nsampler: {use: group}", "objective.use", "name the component"),
    "component as a bare word": (GOOD + "sampler: group", "sampler", "{use: group}"),
    "unknown recipe": ("recipe: gropo", "recipe", "did you mean 'grpo'"),
    "unknown recipe in an arm": ("arms: {a: {recipe: gropo}}", "arms.a.recipe", "did you mean 'grpo'"),
    "unknown recipe of the start": (GOOD + "start: {recipe: sfd}", "start.recipe", "did you mean 'sft'"),
    "missing roles": ("sampler: {use: group}", "objective", "recipe that brings one"),
    "different languages": (GOOD + "> policy.use=walker", "policy.use", "policies for messages: plain, talker"),
    "needs that are not met": (GOOD + "> policy.use=plain", "recipe 'grpo': objective", "needs value"),
    "constructor that raises": (GOOD + "> environment.explode=true", "environment", "no such city"),
    "no tasks": (GOOD + "> environment.count=0", "environment", "has no train tasks"),
    "k above samples": (GOOD + "evaluation: {samples: 4, k: [1, 8]}", "evaluation.k.1", "evaluation.samples=4"),
    "impossible budget": (GOOD + "budget: {generated_tokens: 3}", "budget.generated_tokens", "less than one step"),
    "too many mini-batches": (GOOD + "schedule: {minibatches: 64}", "schedule.minibatches", "at most 32"),
    "greedy rollouts": (GOOD + "sampling: {temperature: 0}", "sampling.temperature", "greedy"),
    "seed twice": (GOOD + "seeds: [1, 1]", "seeds", "more than once"),
    "negative seed": (GOOD + "seeds: [-1]", "seeds.0", "greater than or equal to 0"),
    "no seeds": (GOOD + "seeds: []", "seeds", "at least 1 item"),
    "unsafe arm name": (GOOD + "arms: {../x: }", "arms.../x", "names files"),
    "arms that differ in case": (GOOD + "arms: {a: , A: }", "arms.A", "only in case"),
    "search in an arm": (GOOD + "arms: {a: {search: {}}}", "arms.a.search", "shared by all arms"),
    "a number of seeds": (GOOD + "arms: {a: {seeds: 3}}", "arms.a.seeds", "3 given; expected a list"),
    "an arm without seeds": (GOOD + "arms: {a: {seeds: []}}", "arms.a.seeds", "[] given; expected a list"),
    "a negative seed": (GOOD + "arms: {a: {seeds: [-1]}}", "arms.a.seeds", "[-1] given; expected a list"),
    "an arm's seed twice": (GOOD + "arms: {a: {seeds: [1, 1]}}", "arms.a.seeds", "1 more than once"),
    "evaluation in an arm": (GOOD + "arms: {a: {evaluation: {k: [1]}}}", "arms.a.evaluation", "shared by all arms"),
    "arms as a list": (GOOD + "arms: [a, b]", "arms", "valid dictionary"),
    "arm that is a word": (GOOD + "arms: {a: grpo}", "arms.a", "valid dictionary"),
    "baseline that is no arm": (GOOD + "arms: {grpo: }\nreport: {baseline: gpro}", "report.baseline", "'grpo'"),
    "empty start": (GOOD + "start: {schedule: {steps: 1}}", "start", "neither"),
    "start with recipe and checkpoint": (GOOD + "start: {recipe: sft, checkpoint: x}", "start", "both"),
    "start from nowhere": (GOOD + "start: {checkpoint: /nowhere}", "start.checkpoint", "model.safetensors"),
    "bad world of the start": (GOOD + "start: {recipe: sft, environment: {cuont: 1}}", "start.environment.cuont", "'count'"),
    "start of the start from nothing": (GOOD + "start: {recipe: sft, start: {seed: 1}}", "start.start", "neither"),
    "unknown recipe before the start": (
        GOOD + "start: {recipe: sft, start: {recipe: sfd}}",
        "start.start.recipe",
        "did you mean 'sft'",
    ),
    "bad option before the start": (
        GOOD + "start: {recipe: sft, start: {recipe: sft, sampler: {cuont: 1}}}",
        "start.start.sampler.cuont",
        "'count'",
    ),
    "bad option of the start": (GOOD + "start: {recipe: sft, sampler: {cuont: 1}}", "start.sampler.cuont", "'count'"),
    "scheduler without a search": (GOOD + "tune: {scheduler: asha}", "tune.scheduler", "no `search`"),
    "unknown scheduler": (GOOD + "tune: {scheduler: pbt}", "tune.scheduler", "no scheduler 'pbt'"),
    "unknown distribution": (GOOD + "search: {optimizer.lr: {unifrom: [1, 2]}}", "search.optimizer.lr", "'uniform'"),
    "searched key that is not there": (GOOD + "search: {optimizer.lrr: {uniform: [1, 2]}}", "search.optimizer.lrr", "'lr'"),
    "searched option that is not there": (GOOD + "search: {sampler.cuont: {int: [1, 2]}}", "search.sampler.cuont", "'count'"),
    "searched value out of bounds": (GOOD + "search: {optimizer.lr: {uniform: [0, 1]}}", "search.optimizer.lr", "greater than 0"),
    "searched environment": (GOOD + "search: {environment.count: {int: [1, 2]}}", "search.environment.count", "cannot be searched"),
    "unsafe name": (GOOD + "> name=a/b", "name", "match pattern"),
    "several workers": (GOOD + "resources: {workers: 2}", "resources.workers", "not run yet"),
    "procedure nobody plays": (GOOD + "procedure: tournament", "procedure", "no installed plugin runs"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_experiments_are_refused_at_the_path_the_user_typed(registry, kind):
    text, path, expected = BAD[kind]
    lines = text.splitlines()

    found = problems(
        registry,
        "\n".join(line for line in lines if not line.startswith("> ")),
        *(line.removeprefix("> ") for line in lines if line.startswith("> ")),
    )

    assert path in found
    assert expected in found[path]


def test_all_problems_come_at_once(registry):
    found = problems(
        registry,
        "sead: 1\nschedule: {steps: x}\nevaluation: {samples: 1, k: [2]}\nseeds: [1, 1]\n"
        "arms: {a: {recipe: gropo}, b: {recipe: grpo, sampler: {cuont: 1}}}\nsearch: {optimizer.lr: {uniform: [2, 1]}}",
    )

    assert set(found) == {
        "sead",
        "schedule.steps",
        "evaluation.k.0",
        "seeds",
        "arms.a.recipe",
        "arms.b.sampler.cuont",
        "search.optimizer.lr",
    }


def test_a_searched_option_must_be_there_in_every_arm(registry):
    arms = "arms: {a: {recipe: grpo}, b: {recipe: rloo}, c: {recipe: rloo, advantage: null}}\n"

    found = problems(registry, arms + "search: {advantage.x: {int: [1, 2]}, optimizer.lr: {uniform: [0, 1]}}")

    assert found["search.optimizer.lr"] == "Input should be greater than 0; got 0.0"  # said once for all arms
    assert found["search.advantage.x"].startswith("in a, b: unknown key. It takes no options.")
    assert "in c: advantage.use: missing" in found["search.advantage.x"]


def test_missing_keys_say_what_to_write(registry):
    found = problems(registry, "recipe: grpo", base="")

    assert "names the run's directory" in found["name"]
    assert "environment: {use: countdown}" in found["environment"]
    assert "policy: {use: ...}" in found["policy"]


def test_a_bad_setting_of_the_command_line_is_reported_at_its_key(registry):
    found = problems(registry, GOOD + "arms: {a: {sampler: {count: 1}}}", "sampler.cuont=3")

    assert "did you mean 'count'" in found["sampler.cuont"]


def test_constructor_errors_name_the_plugin(registry):
    found = problems(registry, GOOD, "environment.explode=true")

    assert "raised by plugin 'town' (unpackaged 0) in environment 'town'" in found["environment"]


def test_problems_that_a_constructor_finds_lie_at_the_options_it_names(registry):
    found = problems(registry, GOOD, "environment.count=-1")

    assert found == {"environment.count": "fewer than no houses", "environment": "nobody lives there"}


def test_plugins_look_the_plan_over_together_with_everything_else(registry):
    PLUGIN.found = [Problem("policy.model.path", "no such folder")]

    found = problems(registry, GOOD + "sead: 1")

    assert set(found) == {"sead", "policy.model.path"}


def test_plugins_look_over_the_arms_where_a_search_proposes_the_trials_later(registry):
    pytest.importorskip("optuna")

    plan = make(
        registry,
        "arms: {a: {recipe: grpo}, b: {recipe: sft}}\n"
        "search: {optimizer.lr: {uniform: [0.1, 1]}}\ntune: {searcher: optuna}",
    )

    assert plan.trials == ()
    assert [trial.arm for trial in PLUGIN.looked_over.trials] == ["a", "b"]
    assert [trial.settings.sampler.use for trial in PLUGIN.looked_over.trials] == ["group", "picky"]


def test_another_procedure_needs_no_policy(registry):
    class Player:
        @hookimpl
        def run_trial(self, trial, components):
            return None

    registry.manager.register(Player(), "player")

    plan = plans.make(parse_experiment("name: x\nenvironment: {use: town}\nprocedure: tournament"), registry)

    assert plan.trials[0].settings.procedure == "tournament"
