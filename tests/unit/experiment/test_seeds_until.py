"""Seeds added until arms are decided: what the file may say, and the trials that follow."""

import pytest

from orchestrator.api import load_registry
from orchestrator.contract.plan import Phase, Plan
from orchestrator.contract.seeds import SeedsUntil
from orchestrator.errors import ConfigError
from orchestrator.experiment import planner as plans
from orchestrator.experiment.files import parse_experiment

BASE = """
name: test
environment: {use: countdown}
policy: {use: causal_lm, model: {preset: tiny}}
arms: {a: {recipe: grpo}, b: {recipe: grpo}, c: {recipe: grpo}}
"""


@pytest.fixture(scope="module")
def registry():
    return load_registry()


def make(registry, text, *overrides, base=BASE):
    return plans.make(parse_experiment(base + text, overrides), registry)


def problems(registry, text, base=BASE):
    with pytest.raises(ConfigError) as caught:
        make(registry, text, base=base)
    return {problem.path: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("seeds", "course"),
    [
        ({"first": 3, "at_most": 20}, (3, 5, 8, 12, 20)),
        ({"at_most": 10}, (3, 5, 10)),
        ({"first": 2, "at_most": 3}, (2, 3)),
        ({"first": 2, "at_most": 100}, (2, 3, 5, 8, 13, 21, 34, 54, 100)),
        ({"first": 4, "at_most": 9, "looks": [4, 5, 9]}, (4, 5, 9)),
    ],
)
def test_looks_come_after_ever_more_seeds(seeds, course):
    assert SeedsUntil(**seeds).course == course


def test_the_plan_holds_the_trials_of_the_first_look_and_the_design(registry):
    plan = make(registry, "seeds: {first: 3, at_most: 20, until: decided}")

    assert [trial.id for trial in plan.trials] == [f"{arm}-s{seed}" for seed in range(3) for arm in "abc"]
    assert plan.experiment.sequential == SeedsUntil(first=3, at_most=20)
    assert Plan.from_json(plan.to_json()) == plan
    later = plans.confirmations(plan, {"b": {}}, range(3, 5))
    assert [(trial.id, trial.seed, trial.phase) for trial in later] == [
        ("b-s3", 3, Phase.CONFIRM),
        ("b-s4", 4, Phase.CONFIRM),
    ]
    assert later[0].settings == plan.arms["b"]
    assert plan.experiment.seeds_of("a") == tuple(range(20))


def test_the_command_line_may_change_a_part_of_the_design_or_list_seeds(registry):
    text = "seeds: {first: 3, at_most: 20}"

    assert make(registry, text, "seeds.at_most=7").experiment.seeds == SeedsUntil(first=3, at_most=7)
    assert make(registry, text, "seeds=[4]").experiment.seeds == (4,)
    assert make(registry, "seeds: [4]", "seeds={at_most: 7}").experiment.seeds == SeedsUntil(at_most=7)


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("seeds: {first: 3}", "seeds.at_most", "missing; it has no default"),
        ("seeds: {frist: 3, at_most: 9}", "seeds.frist", "did you mean 'first'"),
        ("seeds: {first: 1, at_most: 9}", "seeds.first", "greater than or equal to 2"),
        ("seeds: {first: 9, at_most: 9}", "seeds", "expected more than first, 9"),
        ("seeds: {at_most: 9, until: bored}", "seeds.until", "'decided'"),
        ("seeds: {at_most: 9, looks: [3, 8]}", "seeds", "from first, 3, to at_most, 9"),
        ("seeds: {at_most: 9, looks: [3, 5, 5, 9]}", "seeds", "expected rising numbers"),
        ("seeds: {at_most: 9}\nmost_trials: 20", "seeds.at_most", "27 trials"),
        ("seeds: 3", "seeds", "expected a list, as in [3]; got 3"),
        ("report: {compare: best, baseline: a}", "report.baseline", "has no baseline"),
        ("report: {compare: worst}", "report.compare", "'best'"),
    ],
)
def test_designs_that_cannot_be_are_refused(registry, text, path, message):
    found = problems(registry, text)

    assert list(found) == [path]
    assert message in found[path]


def test_an_arm_has_no_seeds_of_its_own_where_they_are_added(registry):
    text = "seeds: {at_most: 9}\n"
    base = "name: test\nenvironment: {use: countdown}\npolicy: {use: causal_lm, model: {preset: tiny}}\narms: {a: {recipe: grpo, seeds: [0, 1]}, b: {recipe: grpo}}\n"

    assert "look by look" in problems(registry, text, base)["arms.a.seeds"]


@pytest.mark.parametrize(
    ("text", "path"), [("seeds: {at_most: 9}", "seeds"), ("report: {compare: best}", "report.compare")]
)
def test_one_arm_is_never_decided(registry, text, path):
    base = "name: test\nenvironment: {use: countdown}\npolicy: {use: causal_lm, model: {preset: tiny}}\narms: {a: {recipe: grpo}}\n"

    assert list(problems(registry, text, base)) == [path]


def test_tuning_seeds_are_none_that_an_arm_may_get(registry):
    plan = make(
        registry, "seeds: {first: 3, at_most: 1002}\nsearch: {optimizer.lr: {uniform: [1, 2]}}\ntune: {samples: 1}"
    )

    assert plans.tuning_seeds(plan) == (1002,)
