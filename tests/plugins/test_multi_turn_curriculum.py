"""Mixtures of worlds and curricula over them: which task comes next, what is judged, what a checkpoint keeps."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orchestrator_plugins.multi_turn.config import CurriculumConfig
from orchestrator_plugins.multi_turn.curriculum import Curriculum
from orchestrator_plugins.multi_turn.mixture import Level, Levels, mixed, next_level

from orchestrator.api import (
    Action,
    ConfigError,
    Facts,
    Feedback,
    Reports,
    Role,
    RolloutRequest,
    Sampling,
    Speaks,
    Split,
    StepsTogether,
    Task,
    facts_of,
    load_registry,
)
from orchestrator.contract.parts import make_part
from orchestrator.experiment import planner as plans
from orchestrator.experiment.files import parse_experiment
from orchestrator.rollout.collector import Collector
from orchestrator.runners import local
from orchestrator.runs.ledger import read_rows
from orchestrator.testing import EchoEnvironment, ScriptedPolicy, check_component

REGISTRY = load_registry()
EASY, HARD = ("ab", "cd", "ef"), ("gh", "ij")


def mixture(easy=1.0, hard=1.0, **hard_options):
    return mixed(
        [
            Level(name="easy", world=EchoEnvironment(EASY), weight=easy),
            Level(name="hard", world=EchoEnvironment(HARD), weight=hard, **hard_options),
        ]
    )


def ids(tasks, count):
    return [task.id for task in islice(tasks, count)]


# --- mixtures ---------------------------------------------------------------------------------------------


def test_training_tasks_are_interleaved_by_weight_and_start_over_world_by_world():
    world = mixture(easy=2.0, hard=1.0)

    found = ids(world.tasks(Split.TRAIN), 9)

    assert found == [
        "easy/train-0",
        "hard/train-0",
        "easy/train-1",
        "easy/train-2",
        "hard/train-1",
        "easy/train-0",
        "easy/train-1",
        "hard/train-0",
        "easy/train-2",
    ]


@given(st.lists(st.floats(0.01, 5), min_size=1, max_size=4), st.integers(1, 200))
def test_no_level_is_ever_more_than_one_task_from_its_share(weights, count):
    shares = {str(place): weight for place, weight in enumerate(weights)}
    taken = dict.fromkeys(shares, 0)

    for _ in range(count):
        taken[next_level(shares, taken)] += 1

    for name, weight in shares.items():
        assert abs(taken[name] - count * weight / sum(weights)) <= len(weights)


def test_a_level_of_weight_0_is_only_tested_and_one_not_evaluated_only_trained():
    tested = mixture(hard=0.0)
    trained = mixture(evaluated=False)

    assert {name.partition("/")[0] for name in ids(tested.tasks(Split.TRAIN), 20)} == {"easy"}
    assert ids(tested.tasks(Split.EVAL), 20) == [
        "easy/eval-0",
        "hard/eval-0",
        "easy/eval-1",
        "hard/eval-1",
        "easy/eval-2",
    ]
    assert {name.partition("/")[0] for name in ids(trained.tasks(Split.EVAL), 20)} == {"easy"}


def test_a_task_is_played_in_its_own_world_and_carries_its_level():
    world = mixture()
    task = list(islice(world.tasks(Split.TRAIN), 2))[1]

    episode = world.start(task, seed=0)

    assert (task.id, task.metadata["level"], task.reference) == ("hard/train-0", "hard", "gh")
    assert task.metadata["task"].id == "train-0"
    assert episode.open() == task.prompt
    feedback = episode.step(Action(tokens=(1,), logprobs=(0.0,), text="gh"))
    episode.close()
    assert (feedback.reward, feedback.done) == (1.0, True)


def test_levels_give_any_training_task_by_its_number():
    levels = Levels([Level(name="easy", world=EchoEnvironment(EASY), weight=1.0)])

    assert [levels.task("easy", number).reference for number in (0, 1, 4, 5, 2, 2)] == [
        "ab",
        "cd",
        "cd",
        "ef",
        "ef",
        "ef",
    ]
    with pytest.raises(ValueError, match="no level 'hrad' in this mixture; its levels: easy"):
        levels.task("hrad", 0)


def test_success_is_reported_by_level():
    world = mixture()
    policy = ScriptedPolicy(lambda context: context.observations[0][0]["content"].removeprefix("say ")[:1] + "b")
    collect = Collector(world, policy, (), sampling=Sampling())
    groups = collect([RolloutRequest(task=task, count=2) for task in islice(world.tasks(Split.TRAIN), 4)])

    found = world.evaluate(groups)

    assert found == {"easy/success": 0.5, "easy/reward": 0.5, "hard/success": 0.0, "hard/reward": 0.0}


class _Measuring(EchoEnvironment):
    """Counts and remembers, so that the mixture has something to pass on."""

    def __init__(self, words):
        super().__init__(words)
        self.asked = 0

    def evaluate(self, groups):
        return {"plays": float(len(groups)), "own": float(all("/" not in group.task.id for group in groups))}

    def state_dict(self):
        return {"asked": self.asked}

    def load_state_dict(self, state):
        self.asked = state["asked"]


def test_what_a_world_measures_and_remembers_passes_through():
    inner = _Measuring(EASY)
    world = mixed([Level(name="a", world=inner, weight=1), Level(name="b", world=EchoEnvironment(HARD), weight=1)])
    collect = Collector(world, ScriptedPolicy(("ab",)), (), sampling=Sampling())
    found = world.evaluate(collect([RolloutRequest(task=t, count=1) for t in islice(world.tasks(Split.EVAL), 3)]))
    inner.asked = 3

    assert (found["a/plays"], found["a/own"], found["b/success"]) == (2.0, 1.0, 0.0)
    state = world.state_dict()
    inner.asked = 0
    world.load_state_dict(state)
    assert state == {"a": {"asked": 3}}
    assert inner.asked == 3


class _Together(EchoEnvironment):
    """Opens and steps in one call; a play of the word `cd` breaks, alone."""

    calls = 0

    def open_together(self, episodes):
        self.calls += 1
        return [episode.open() for episode in episodes]

    def step_together(self, episodes, actions):
        self.calls += 1
        pairs = zip(episodes, actions, strict=True)
        return [ValueError("stuck") if action.text == "cd" else episode.step(action) for episode, action in pairs]


def test_worlds_that_step_together_do_so_inside_a_mixture():
    inner = _Together(EASY)
    world = mixed([Level(name="a", world=inner, weight=1), Level(name="b", world=EchoEnvironment(HARD), weight=1)])
    policy = ScriptedPolicy(lambda context: context.observations[0][0]["content"].removeprefix("say "))
    collect = Collector(world, policy, (), sampling=Sampling())

    groups = collect([RolloutRequest(task=task, count=1) for task in islice(world.tasks(Split.TRAIN), 5)])

    assert isinstance(world, StepsTogether)
    assert not isinstance(mixture(), StepsTogether)
    assert inner.calls == 2  # three episodes opened in one call and stepped in one
    won = {group.task.id: group.rollouts[0].metrics["correct"] for group in groups if group.rollouts}
    assert won == {"a/train-0": 1.0, "a/train-2": 1.0, "b/train-0": 1.0, "b/train-1": 1.0}
    assert [rollout.task_id for rollout in collect.failures] == ["a/train-1"]
    assert "stuck" in str(collect.failures[0].error)


class _Numbers:
    speaks = Speaks.FEATURES
    actions = 2

    def __init__(self, features):
        self.features = features

    def tasks(self, split):
        yield Task(id=str(split))

    def start(self, task, seed):
        raise NotImplementedError


def test_worlds_of_a_mixture_must_be_alike():
    with pytest.raises(ValueError, match="must have the same speaks; given a: messages, b: features"):
        mixed([Level(name="a", world=EchoEnvironment(), weight=1), Level(name="b", world=_Numbers(2), weight=1)])
    with pytest.raises(ValueError, match="must have the same features; given a: 2, b: 3"):
        mixed([Level(name="a", world=_Numbers(2), weight=1), Level(name="b", world=_Numbers(3), weight=1)])
    assert mixed([Level(name="a", world=_Numbers(2), weight=1)]).features == 2


def test_a_mixture_keeps_the_contract_of_an_environment():
    check_component(mixture(easy=2.0))
    worlds = [{"use": "chain_search", "level": f"hops-{hops}", "hops": [hops]} for hops in (1, 2)]
    check_component(REGISTRY.build("environment", "mixture", {"worlds": worlds}))


@pytest.mark.parametrize(
    ("worlds", "reason"),
    [
        ([], "at least 1 item"),
        ([{"use": "chain_search"}], "level"),
        ([{"use": "chain_search", "level": "a b"}], "pattern"),
        ([{"use": "chain_search", "level": "a"}] * 2, "level a more than once"),
        ([{"use": "chain_search", "level": "a", "weight": 0}], "every weight is 0"),
        ([{"use": "chain_search", "level": "a", "evaluated": False}], "none is evaluated"),
        ([{"use": "chain_search", "level": "a", "hopps": [1]}], "did you mean 'hops'"),
    ],
)
def test_bad_mixtures_are_refused(worlds, reason):
    with pytest.raises(ConfigError, match=reason):
        REGISTRY.build("environment", "mixture", {"worlds": worlds})


# --- curricula --------------------------------------------------------------------------------------------


def curriculum(*stages, count=2):
    config = CurriculumConfig(stages=list(stages), base={"use": "group", "count": count})
    return Curriculum(config, REGISTRY.build("sampler", "group", {"count": count}))


def run(sampler, world, answers, steps, tasks_per_step=4):
    """Play steps; ``answers`` says by level whether episodes are won. Returns the tasks played, step by step."""
    stream = iter(world.tasks(Split.TRAIN))

    def say(context):
        wanted = context.observations[0][0]["content"].removeprefix("say ")
        return wanted if answers["hard" if wanted in HARD else "easy"] else "?"

    collect = Collector(world, ScriptedPolicy(say), (), sampling=Sampling())
    played = []
    for step in range(1, steps + 1):
        collect.begin(step)
        groups = sampler.sample(list(islice(stream, tasks_per_step)), collect)
        played.append([group.task.id for group in groups])
    return played


def test_one_stage_with_the_mixtures_weights_plays_what_was_drawn():
    world = mixture(easy=2.0)

    played = run(curriculum({"levels": {"easy": 2.0, "hard": 1.0}}), world, {"easy": True, "hard": False}, steps=5)

    assert [name for step in played for name in step] == ids(world.tasks(Split.TRAIN), 20)


def test_a_stage_ends_when_its_window_is_full_of_success():
    sampler = curriculum({"levels": {"easy": 1}, "window": 20}, {"levels": {"hard": 1}})

    played = run(sampler, mixture(), {"easy": True, "hard": False}, steps=5)

    levels = [{name.partition("/")[0] for name in step} for step in played]
    assert levels == [{"easy"}] * 3 + [{"hard"}] * 2  # 8 episodes a step: 20 are known after the third
    assert [len(step) for step in played] == [4] * 5
    assert sampler.report() == {
        "curriculum/stage": 2.0,
        "curriculum/stage_steps": 2.0,
        "curriculum/share/hard": 1.0,
        "curriculum/success/hard": 0.0,
    }


@pytest.mark.parametrize(("share", "window"), [(0.8, 5), (0.07, 100), (0.56, 100)])  # 0.56 * 100 > 56 in floats
def test_a_share_reached_exactly_ends_the_stage(share, window):
    won = round(share * window)
    levels = {"easy": won, "hard": window - won}
    sampler = curriculum({"levels": levels, "window": window, "success": share}, {"levels": {"hard": 1}}, count=1)

    run(sampler, mixture(), {"easy": True, "hard": False}, steps=1, tasks_per_step=window)

    assert sampler.report()["curriculum/share/easy"] == share
    assert sampler.stage == 1


def test_a_stage_that_is_not_mastered_goes_on_unless_its_steps_are_over():
    never = curriculum({"levels": {"easy": 1}, "window": 1}, {"levels": {"hard": 1}})
    limited = curriculum({"levels": {"easy": 1}, "window": 1, "steps": 3}, {"levels": {"hard": 1}})

    for sampler, stages in ((never, 0), (limited, 1)):
        run(sampler, mixture(), {"easy": False, "hard": False}, steps=4)
        assert sampler.stage == stages


def test_the_level_that_is_judged_decides():
    stage = {"levels": {"easy": 1, "hard": 1}, "window": 4, "success": 1.0}
    last = {"levels": {"hard": 1}}

    for judged, stages in ((None, 0), ("hard", 0), ("easy", 1)):
        sampler = curriculum({**stage, "judged": judged}, last)
        run(sampler, mixture(), {"easy": True, "hard": False}, steps=3)
        assert sampler.stage == stages, judged


def test_each_task_is_used_once_before_any_is_used_again():
    sampler = curriculum({"levels": {"easy": 1}, "window": 8}, {"levels": {"easy": 1, "hard": 1}})

    played = [name for step in run(sampler, mixture(), {"easy": True, "hard": True}, steps=4) for name in step]

    assert played[:4] == ["easy/train-0", "easy/train-1", "easy/train-2", "easy/train-0"]
    of_easy = [name for name in played if name.startswith("easy")]
    assert of_easy == [f"easy/train-{place % 3}" for place in range(len(of_easy))]


def test_a_restored_curriculum_goes_on_with_the_very_next_task():
    stages = {"levels": {"easy": 2, "hard": 1}, "window": 30}, {"levels": {"hard": 1}}
    whole, first, second = (curriculum(*stages) for _ in range(3))
    answers = {"easy": True, "hard": True}
    expected = run(whole, mixture(), answers, steps=6)

    before = run(first, mixture(), answers, steps=3)
    second.load_state_dict(first.state_dict())
    after = run(second, mixture(), answers, steps=3)

    assert before + after == expected
    assert second.state_dict() == whole.state_dict()


def test_a_curriculum_keeps_the_contract_of_a_sampler():
    # one task a level: the check asks for groups of the tasks it gave, a curriculum plays the levels' next ones
    world = mixed(
        [Level(name=name, world=EchoEnvironment([word]), weight=1) for name, word in (("a", "b"), ("c", "d"))]
    )

    check_component(curriculum({"levels": {"a": 1, "c": 1}}), environment=world)


def test_a_curriculum_says_what_the_sampler_beneath_says():
    assert facts_of(curriculum({"levels": {"easy": 1}}, count=3)).most_siblings == 3
    shown = REGISTRY.build(
        "sampler", "curriculum", {"stages": [{"levels": {"a": 1}}], "base": {"use": "demonstrations"}}
    )
    assert facts_of(shown) == Facts(demonstrates=True, most_siblings=1)


def test_a_curriculum_leaves_what_the_sampler_beneath_reports_to_the_core():
    class Counting:
        def sample(self, tasks, collect):
            self.tasks = len(tasks)
            return collect([RolloutRequest(task=task, count=1) for task in tasks])

        def report(self):
            return {"counting/tasks": float(self.tasks)}

    sampler = Curriculum(CurriculumConfig(stages=[{"levels": {"easy": 1}}]), Counting())

    run(sampler, mixture(), {"easy": True, "hard": True}, steps=1, tasks_per_step=3)

    reported = [part.component.report() for _, part in make_part(Role.SAMPLER, "c", None, sampler).able(Reports, "c")]
    assert [sorted(numbers)[0].partition("/")[0] for numbers in reported] == ["curriculum", "counting"]
    assert reported[1] == {"counting/tasks": 3.0}
    assert reported[0]["curriculum/success/easy"] == 1.0


def test_demonstrations_do_not_promote():
    base = REGISTRY.build("sampler", "demonstrations", {})
    config = CurriculumConfig(stages=[{"levels": {"easy": 1}, "window": 1}, {"levels": {"hard": 1}}])
    sampler = Curriculum(config, base)

    run(sampler, mixture(), {"easy": True, "hard": True}, steps=2)

    assert sampler.stage == 0


class _Mute(EchoEnvironment):
    def start(self, task, seed):
        return _MuteEpisode()


class _MuteEpisode:
    def open(self):
        return ({"role": "user", "content": "say nothing"},)

    def step(self, action):
        return Feedback(observation=None, reward=0.0, done=True)

    def close(self):
        pass


def test_worlds_without_levels_or_success_are_refused():
    sampler = curriculum({"levels": {"easy": 1}})
    with pytest.raises(ValueError, match="comes from an environment without levels; the sampler curriculum chooses"):
        run(sampler, EchoEnvironment(), {"easy": True}, steps=1)

    mute = mixed([Level(name="easy", world=_Mute(), weight=1)])
    with pytest.raises(ValueError, match="ended without a metric `correct`, by which a curriculum is judged"):
        run(sampler, mute, {"easy": True}, steps=1)


@pytest.mark.parametrize(
    ("stages", "reason"),
    [
        ([], "at least 1 item"),
        ([{"levels": {}}], "at least 1 item"),
        ([{"levels": {"a": 0}}], "expected numbers of at least 0, one above 0"),
        ([{"levels": {"a": -1, "b": 2}}], "expected numbers of at least 0"),
        ([{"levels": {"a": 1, "b": 0}, "judged": "b"}], "'b' is not played in this stage"),
        ([{"levels": {"a": 1}, "success": 1.5}], "less than or equal to 1"),
    ],
)
def test_bad_stages_are_refused(stages, reason):
    with pytest.raises(ConfigError, match=reason):
        REGISTRY.build("sampler", "curriculum", {"stages": stages})


EXPERIMENT = """
name: climbing
environment:
  use: mixture
  worlds:
    - {use: chain_search, level: hops-1, hops: [1], letters: 3, chain: 3, max_turns: 3}
    - {use: chain_search, level: hops-2, hops: [2], letters: 3, chain: 3, max_turns: 3, weight: 0}
policy: {use: causal_lm, model: {preset: tiny, hidden: 16, layers: 1, heads: 2, mlp: 32}}
recipe: rloo_agent
sampler:
  use: curriculum
  base: {use: group, count: 2}
  stages:
    - {levels: {hops-1: 1}, success: 0.01, window: 4, steps: 2}
    - {levels: {hops-1: 1, hops-2: 3}, judged: hops-2, window: 1000, steps: 3}
    - {levels: {hops-2: 1}}
schedule: {steps: 6, tasks_per_step: 4}
sampling: {max_tokens: 6, max_turns: 3}
optimizer: {lr: 1.0e-2}
evaluation: {every: 3, tasks: 4, samples: 1}
checkpoints: {every: 2, keep: 2}
tracking: {enabled: false, transcripts: 100}
"""


def make(text=EXPERIMENT, *overrides):
    return plans.make(parse_experiment(text, overrides), REGISTRY)


def test_plans_refuse_curricula_over_levels_that_are_not_there():
    with pytest.raises(
        ConfigError, match=r"sampler.stages.2.levels: no level 'hops-2' in environment.worlds; its levels: hops-1, h2"
    ):
        make(EXPERIMENT.replace("level: hops-2", "level: h2"))
    single = EXPERIMENT[: EXPERIMENT.index("environment:")] + "environment: {use: chain_search}\n"
    with pytest.raises(ConfigError, match=r"sampler\.use: curriculum chooses among the levels of environment mixture"):
        make(single + EXPERIMENT[EXPERIMENT.index("policy:") :])


class Killed(BaseException):
    """Stands for a process that dies: nothing catches it."""


CLOCK = ("seconds", "time/")


def rows(directory):
    found = list(read_rows(directory / "trials" / "rloo_agent-s0" / "metrics.jsonl"))
    kept = [{k: v for k, v in row["metrics"].items() if not any(part in k for part in CLOCK)} for row in found]
    return [(row["step"], row["kind"], metrics) for row, metrics in zip(found, kept, strict=True)]


def transcripts(directory):
    return (directory / "trials" / "rloo_agent-s0" / "rollouts.jsonl").read_text().splitlines()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    directory = tmp_path_factory.mktemp("unbroken")
    [result] = local.run(make(), directory, REGISTRY)
    assert result.status == "done", result.error
    return directory


def test_a_curriculum_climbs_through_a_trial(unbroken):
    steps = [metrics for _, kind, metrics in rows(unbroken) if kind == "step"]

    assert steps[0]["curriculum/stage"] == 1
    assert steps[-1]["curriculum/stage"] == 3
    assert [metrics["cost/rollouts"] for metrics in steps] == [8.0 * step for step in range(1, 7)]
    evaluations = [metrics for _, kind, metrics in rows(unbroken) if kind == "evaluation"]
    assert {"eval/hops-1/success", "eval/hops-2/success"} <= evaluations[-1].keys()


@pytest.mark.parametrize("moment", [1, 60, 110])
def test_a_trial_killed_within_a_batch_of_episodes_counts_none_twice(unbroken, tmp_path, monkeypatch, moment):
    """Die in the middle of a turn, some episodes of the step over and some not, and go on from the checkpoint."""
    from orchestrator_plugins.multi_turn.chain_search import ChainSearchEpisode

    answer, turns = ChainSearchEpisode.step, 0

    def die(self, action):
        nonlocal turns
        turns += 1
        if turns == moment:
            raise Killed
        return answer(self, action)

    monkeypatch.setattr(ChainSearchEpisode, "step", die)
    with pytest.raises(Killed):
        local.run(make(), tmp_path, REGISTRY)
    monkeypatch.undo()

    [result] = local.run(make(), tmp_path, REGISTRY)

    assert result.status == "done", result.error
    assert rows(tmp_path) == rows(unbroken)  # costs, rollouts, and the curriculum's stage at every step
    assert transcripts(tmp_path) == transcripts(unbroken)  # every episode once, word for word


NESTED = """
name: nested
environment: {use: chain_search, letters: 3, chain: 3, hops: [1], max_turns: 3, train_tasks: 6}
policy: {use: causal_lm, model: {preset: tiny, hidden: 16, layers: 1, heads: 2, mlp: 32}}
recipe: ppo_agent
start:
  recipe: sft
  environment: {train_on: demonstrations, train_tasks: 4}
  schedule: {steps: 1, tasks_per_step: 4}
  start: {recipe: sft, environment: {train_tasks: 3, expert_error: 0.0}, schedule: {steps: 2, tasks_per_step: 3}}
schedule: {steps: 0}
sampling: {max_tokens: 6, max_turns: 3}
optimizer: {lr: 1.0e-2}
evaluation: {tasks: 2, samples: 1}
tracking: {enabled: false, transcripts: 100}
arms:
  none: {start: {schedule: {steps: 0}}}
  four: {}
"""


def test_a_start_phase_begins_with_one_of_its_own_which_arms_share(tmp_path):
    import json

    from safetensors.torch import load_file

    results = local.run(make(NESTED), tmp_path, REGISTRY)

    assert [result.status for result in results] == ["done", "done"], results[0].error
    phases = [path for path in (tmp_path / "start").iterdir() if path.is_dir()]
    assert len(phases) == 3  # the prior, and what each arm made of it
    shown = {}
    for phase in phases:
        lines = (phase / "rollouts.jsonl").read_text().splitlines() if (phase / "rollouts.jsonl").exists() else []
        shown[len(lines)] = [json.loads(line)["task"] for line in lines]
    assert sorted(shown) == [0, 4, 6]
    demonstrated = {name for names in shown.values() for name in names}
    assert all("demonstrations" in name for name in demonstrated)
    assert (len(set(shown[4])), len(set(shown[6]))) == (4, 3)

    def weights(folder):
        return load_file(max((folder / "checkpoints").glob("step-*")) / "model.safetensors")

    prior = next(weights(phase) for phase in phases if len(list((phase / "checkpoints").glob("step-000002*"))))
    untouched, taught = (weights(tmp_path / "trials" / f"{arm}-s0") for arm in ("none", "four"))
    name = next(name for name in prior if name.endswith("embed_tokens.weight"))
    assert (untouched[name] == prior[name]).all()
    assert not (taught[name] == prior[name]).all()
