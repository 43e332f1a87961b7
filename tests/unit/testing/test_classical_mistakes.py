"""The mistakes that authors of plugins make: each is found with its plugin's name and a remedy, and none trains silently.

A case says what the author wrote, what a trial says of it, and what ``check_component`` says of it before; the table of
``docs/writing-a-plugin.md`` is about these.
"""

import re
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch

from orchestrator.api import (
    Action,
    Column,
    Component,
    Couples,
    Credit,
    Feedback,
    LossTerm,
    Mean,
    Need,
    Reduction,
    Role,
    RolloutRequest,
    Score,
    Speaks,
    Terms,
    Weights,
    hookimpl,
)
from orchestrator.experiment import planner
from orchestrator.experiment.files import parse_experiment
from orchestrator.runners import local
from orchestrator.testing import EchoEnvironment, ScriptedPolicy, check_component, load_only

EXPERIMENT = """
name: mistakes
environment: {use: mine}
policy: {use: mine}
sampler: {use: mine}
rewards: [{use: mine}]
advantage: {use: mine}
objective: {use: mine}
schedule: {steps: 2, tasks_per_step: 2}
evaluation: {every: 0, first: false, tasks: 1, samples: 1, k: [1]}
tracking: {enabled: false}
"""
NAN, INF = float("nan"), float("inf")


class World(EchoEnvironment):
    """Two turns; what an author writes stands in ``answer``."""

    def tasks(self, split):
        return [replace(task, demonstration=None) for task in super().tasks(split)]

    def start(self, task, seed):
        return _Play(self, task)

    def answer(self, task, texts, done):
        return Feedback(
            observation=None if done else ({"role": "user", "content": "and again"},), reward=float(done), done=done
        )


class _Play:
    def __init__(self, world, task):
        self.world, self.task, self.texts = world, task, []

    def open(self):
        return self.world.first(self.task) if hasattr(self.world, "first") else self.task.prompt

    def step(self, action):
        self.texts.append(action.text)
        return self.world.answer(self.task, self.texts, len(self.texts) == 2)

    def close(self):
        pass


class Policy(ScriptedPolicy):
    def __init__(self):
        super().__init__(lambda context: "abcd"[context.seed % 4])


class Sampler:
    def sample(self, tasks, collect):
        return collect([RolloutRequest(task=task, count=2) for task in tasks])


class Reward:
    def score(self, group):
        return [Score(value=float(place)) for place, _ in enumerate(group.rollouts)]


class Advantage:
    needs = frozenset()

    def estimate(self, batch):
        return Credit(advantages=torch.where(batch.mask, (batch.rewards - batch.rewards.mean())[:, None], 0.0))


class Objective:
    needs = frozenset({Need(Weights.CURRENT, Column.LOGPROB)})
    couples = Couples.ROWS

    def terms(self, batch, current):
        values = torch.where(batch.mask, -current[Column.LOGPROB] * batch.advantages, 0.0)
        return Terms(loss=(LossTerm(name="policy", values=values, reduction=Reduction.TOKEN_MEAN),))


SOUND = {
    Role.ENVIRONMENT: World,
    Role.POLICY: Policy,
    Role.SAMPLER: Sampler,
    Role.REWARD: Reward,
    Role.ADVANTAGE: Advantage,
    Role.OBJECTIVE: Objective,
}
HOOKS = {
    Role.ENVIRONMENT: "provide_environments",
    Role.POLICY: "provide_policies",
    Role.SAMPLER: "provide_samplers",
    Role.REWARD: "provide_rewards",
    Role.ADVANTAGE: "provide_advantage_estimators",
    Role.OBJECTIVE: "provide_objectives",
}


class Case(NamedTuple):
    role: Role
    wrong: type
    run: str  # what the trial says
    check: str | None = None  # what check_component says; None: the same


def environment(answer=None, first=None):
    members: dict[str, Any] = {}
    if answer is not None:
        members["answer"] = lambda self, task, texts, done: answer(
            task, texts, done, World.answer(self, task, texts, done)
        )
    if first is not None:
        members["first"] = lambda self, task: first(task)
    return type("World", (World,), members)


def act(change):
    def act(self, contexts, sampling):
        return change(ScriptedPolicy.act(self, contexts, sampling))

    return type("Policy", (Policy,), {"act": act})


def columns(change):
    def columns(self, inputs, wanted):
        return change(dict(ScriptedPolicy.columns(self, inputs, wanted)))

    return type("Policy", (Policy,), {"columns": columns})


def packing(**changed):
    def pack(self, rollouts):
        packed = ScriptedPolicy.pack(self, rollouts)
        return replace(packed, **{name: change(getattr(packed, name)) for name, change in changed.items()})

    return type("Policy", (Policy,), {"pack": pack})


def sample(change):
    def sample(self, tasks, collect):
        return change(Sampler.sample(self, tasks, collect), tasks, collect)

    return type("Sampler", (Sampler,), {"sample": sample})


def score(*scores):
    return type("Reward", (Reward,), {"score": lambda self, group: [scores[0]] * len(group.rollouts)})


def credit(change):
    def estimate(self, batch):
        return change(Advantage.estimate(self, batch), batch)

    return type("Advantage", (Advantage,), {"estimate": estimate})


def terms(change):
    def terms(self, batch, current):
        return change(Objective.terms(self, batch, current), batch, current)

    return type("Objective", (Objective,), {"terms": terms})


def term(**changed):
    return terms(
        lambda t, b, c: Terms(loss=(replace(t.loss[0], **{n: f(t.loss[0].values) for n, f in changed.items()}),))
    )


def stateful(state):
    members = {"state_dict": lambda self: state, "load_state_dict": lambda self, state: None}
    return type("Sampler", (Sampler,), members)


def reporting(name, value=1.0):
    return type("Sampler", (Sampler,), {"report": lambda self: {name: value}})


def evaluating(name):
    return type("Sampler", (Sampler,), {"evaluate": lambda self, groups: {name: 1.0}})


def whole_conversation(task, texts, done, sound):
    said = [{"role": "assistant", "content": text} for text in texts]
    return replace(sound, observation=None if done else (*task.prompt, *said, {"role": "user", "content": "and again"}))


def history_of_the_environment(task, texts, done, sound):
    return replace(sound, observation=None if done else (*task.prompt, {"role": "user", "content": "and again"}))


def own_answer(task, texts, done, sound):
    said = {"role": "assistant", "content": f" {texts[-1]}\n"}
    return replace(sound, observation=None if done else (said, {"role": "user", "content": "and again"}))


def reads(need):
    return type(
        "Objective", (Objective,), {"terms": lambda self, b, c: (b.columns[need], Objective.terms(self, b, c))[1]}
    )


class Rows(Objective):
    def terms(self, batch, current):
        found = super().terms(batch, current).loss[0]
        return Terms(loss=(replace(found, values=found.values.sum(1)[:, None, None]),))


OLD_LOGPROB = Need(Weights.OLD, Column.LOGPROB)
E, P, S, R, A, O = Role.ENVIRONMENT, Role.POLICY, Role.SAMPLER, Role.REWARD, Role.ADVANTAGE, Role.OBJECTIVE  # noqa: E741
CASES = {
    # environments
    "text as observation": Case(E, environment(first=lambda t: "say ab"), r"an observation is the text 'say ab'; expected a tuple of messages: \(\{'role'"),
    "list as observation": Case(E, environment(first=lambda t: [*t.prompt]), r"is the list \[.*give tuple\(...\) of the new messages"),
    "message without role": Case(E, environment(first=lambda t: ({"content": "x"},)), "a message with 'role' and 'content'"),
    "a conversation sent back": Case(E, environment(whole_conversation), "sends the conversation back: it holds the policy's own answer; return the new messages alone"),
    "what was shown sent again": Case(E, environment(history_of_the_environment), "sends the conversation back: it begins with the messages that the episode showed first"),
    "the answer sent back": Case(E, environment(own_answer), "holds the policy's own answer"),
    "not done and nothing shown": Case(E, environment(lambda t, x, d, f: replace(f, observation=None, done=False)), "shows nothing, and the play is not done: .*give the next observation, or done=True"),
    "done is a number": Case(E, environment(lambda t, x, d, f: replace(f, done=int(d))), "Feedback.done is the int 0; expected True or False"),
    "a Gymnasium tuple": Case(E, environment(lambda t, x, d, f: (f.observation, 1.0, d, {})), r"step\(\) returned the tuple .*expected Feedback\(observation="),
    "reward not finite": Case(E, environment(lambda t, x, d, f: replace(f, reward=NAN)), "the reward of step 0 is nan; expected a finite number"),
    "reward beyond float32": Case(E, environment(lambda t, x, d, f: replace(f, reward=1e30)), r"the reward of step 0 is 1e\+30; expected a magnitude of at most 1e\+16"),
    "reward as text": Case(E, environment(lambda t, x, d, f: replace(f, reward="1")), "the reward of step 0 is '1'; expected a number"),
    "metric beyond sums": Case(E, environment(lambda t, x, d, f: replace(f, metrics={"score": 1e308})), r"Feedback.metrics: 'score' is 1e\+308; expected a magnitude"),
    "metric is a text": Case(E, environment(lambda t, x, d, f: replace(f, metrics={"level": "hard"})), "Feedback.metrics: 'level' is 'hard'; expected a number"),
    # policies
    "an action too few": Case(P, act(lambda a: a[:-1]), "act returned 3 actions for 4 contexts"),
    "a log-probability too few": Case(P, act(lambda a: [replace(x, logprobs=x.logprobs[:-1]) for x in a]), "2 tokens and 1 log-probabilities"),
    "probabilities for their logs": Case(P, act(lambda a: [replace(x, logprobs=(0.5,) * len(x.tokens)) for x in a]), r"log-probabilities .*\[0.5, 0.5\]; expected finite natural logarithms, at most 0"),
    "log-probabilities not finite": Case(P, act(lambda a: [replace(x, logprobs=(-INF,) * len(x.tokens)) for x in a]), "expected finite natural logarithms"),
    "texts for actions": Case(P, act(lambda a: [x.text for x in a]), r"act gave .*expected Action\(tokens=..., logprobs=...\)"),
    "an action without text": Case(P, act(lambda a: [replace(x, text=None) for x in a]), "an action's text is None; .*give the text"),
    "a row too few": Case(P, packing(mask=lambda m: m[:-1]), "pack gave 3 rows for 4 rollouts"),
    "mask of numbers": Case(P, packing(mask=lambda m: m.float()), "pack gave mask of shape .*torch.float32; expected .* and bool"),
    "columns without gradient": Case(P, columns(lambda c: {n: v.detach() for n, v in c.items()}), "columns gave statistics without a gradient.*outside of torch.no_grad"),
    "columns of another shape": Case(P, columns(lambda c: {n: v[:, 1:] for n, v in c.items()}), "columns gave \\w+ of shape .*expected \\[B, T\\]"),
    "a column missing": Case(P, columns(lambda c: {}), "did not compute .*logprob"),
    # samplers
    "nothing returned": Case(S, sample(lambda g, t, c: None), r"sample\(\) returned None; expected a list of RolloutGroup"),
    "rollouts for groups": Case(S, sample(lambda g, t, c: [r for x in g for r in x.rollouts]), r"returned the Rollout .*expected RolloutGroup"),
    "siblings of two tasks": Case(S, sample(lambda g, t, c: [replace(g[0], rollouts=g[1].rollouts)]), "with a rollout of task 'train-[13]'; siblings play one task"),
    "tasks for requests": Case(S, sample(lambda g, t, c: c(t)), r"collect was given the Task .*expected RolloutRequest\(task="),
    "scores spoilt": Case(S, sample(lambda g, t, c: [replace(x, scores=(Score(value=NAN),) * 2) for x in g]), r"with the score .*nan.*expected Score\(value=...\) of a finite number"),
    "state no checkpoint holds": Case(S, stateful({"seen": {1, 2}}), "state at /seen is a set; checkpoints hold JSON values and tensors"),
    "a report named as the core's": Case(S, reporting("train/tokens"), r"report\(\) holds 'train/tokens', which is one of the core's metrics.*'mine/score'"),
    "a report that is no number": Case(S, reporting("mine/level", "hard"), r"report\(\): metric 'mine/level' is 'hard'; expected a number"),
    "an evaluation named as the core's": Case(S, evaluating("pass_at_1"), r"evaluate\(\) holds 'eval/pass_at_1', which is one of the core's"),
    # rewards
    "a float for a score": Case(R, score(1.0), r"reward '\w+', rollout 0 of task .*: the score is the float 1.0; expected Score\(value=1.0\)"),
    "a score not finite": Case(R, score(Score(value=NAN)), "rollout 0 of task .*: the value is nan; expected a finite number"),
    "a score beyond float32": Case(R, score(Score(value=1e30)), r"the value is 1e\+30; expected a magnitude of at most 1e\+16"),
    "a score of None": Case(R, score(Score(value=None)), "the value is None; expected a number"),
    "one score for all": Case(R, type("Reward", (Reward,), {"score": lambda self, group: [Score(value=1.0)]}), "gave 1 scores for 2 rollouts", "gave 1 scores for 4"),
    "nothing scored": Case(R, type("Reward", (Reward,), {"score": lambda self, group: None}), "reward '\\w+' returned None; score\\(group\\) returns one Score"),
    "turns that do not add up": Case(R, score(Score(value=1.0, turns=(1.0, 1.0))), "turns sum to 2, the value is 1", "2 values for 1 turns"),
    # estimators
    "advantages not finite": Case(A, credit(lambda c, b: replace(c, advantages=c.advantages / 0.0)), r"advantages are not finite at \d+ of \d+ trained tokens, first .*at row \d+, token \d+; the rewards of that row's group are 0, 1", "advantages are not finite at"),
    "one advantage a row": Case(A, credit(lambda c, b: replace(c, advantages=b.rewards)), r"advantages have shape \[4\]; expected \[B, T\] = \[4, ", "advantages have shape"),
    "advantages of whole numbers": Case(A, credit(lambda c, b: replace(c, advantages=c.advantages.long())), r"advantages are torch.int64; expected torch.float32: call .float\(\)"),
    "advantages with a gradient": Case(A, credit(lambda c, b: replace(c, advantages=c.advantages.clone().requires_grad_())), r"advantages have a gradient.*call .detach\(\)"),
    "returns not finite": Case(A, credit(lambda c, b: replace(c, returns=torch.full_like(c.advantages, INF))), "returns are not finite at"),
    "a tensor for Credit": Case(A, credit(lambda c, b: c.advantages), r"estimate returned a Tensor; expected Credit\(advantages=...\)"),
    "a metric named as the core's": Case(A, credit(lambda c, b: replace(c, metrics={"rollout/reward/mean": 99.0})), "Credit.metrics holds 'rollout/reward/mean', which is one of the core's metrics"),
    "a frozen column not declared": Case(A, credit(lambda c, b: (b.columns[OLD_LOGPROB], c)[1]), r"the estimator reads Need\(Weights.OLD, Column.LOGPROB\), which it does not declare; add it to `needs`"),
    # objectives
    "a column not declared": Case(O, reads(OLD_LOGPROB), r"the objective reads Need\(Weights.OLD, Column.LOGPROB\), which it does not declare; add it to `needs`"),
    "a current column not declared": Case(O, terms(lambda t, b, c: (c[Column.ENTROPY], t)[1]), r"the objective reads Need\(Weights.CURRENT, Column.ENTROPY\), which it does not declare"),
    "current among the frozen": Case(O, reads(Need(Weights.CURRENT, Column.LOGPROB)), "those of the current weights are in `current`"),
    "a mean for values": Case(O, term(values=lambda v: v.mean()), "loss term 'policy' is reduced already; .*the core divides"),
    "values of no shape": Case(O, Rows, r"loss term 'policy' with reduction token_mean has values of shape \[4, 1, 1\]; expected \[B=4", "has values of shape"),
    "a loss without gradient": Case(O, term(values=lambda v: v.detach() + 1.0), "no loss term has a gradient.*without detach"),
    "a tensor for Terms": Case(O, terms(lambda t, b, c: t.loss[0].values.sum()), r"terms returned a Tensor; expected Terms\(loss="),
    "no terms": Case(O, terms(lambda t, b, c: Terms(loss=())), "at least one LossTerm"),
    "values not finite": Case(O, term(values=lambda v: v * NAN), "nothing was learnt: all 2 updates were skipped.*loss term 'policy' is nan, while the columns and advantages it is made of are finite", "loss is not finite"),
    "a slope not finite": Case(O, term(values=lambda v: (v - v).sqrt()), "the gradient of the loss in logprob is not finite, while the loss is; mask with torch.where", "is not finite"),
    "a loss named as the core's": Case(O, terms(lambda t, b, c: replace(t, metrics={"loss/policy": Mean(1.0, 1)})), "Terms.metrics holds 'loss/policy', which is one of the core's metrics"),
    "a term named total": Case(O, term(name=lambda v: "total"), "a term is named 'total'"),
    "a float for a Mean": Case(O, terms(lambda t, b, c: replace(t, metrics={"mine/x": 1.0})), r"Terms.metrics: 'mine/x' is a float; expected Mean\(total, count\)"),
}  # fmt: skip


def provided(role: Role, wrong: type):
    """A plugin of six components called ``mine``, one of them wrong, all options aside."""

    def hook(part):
        build = wrong if part is role else SOUND[part]
        speaks = Speaks.MESSAGES if part in (Role.ENVIRONMENT, Role.POLICY) else None
        return hookimpl(lambda self: [Component(name="mine", build=lambda _: build(), speaks=speaks)])

    members = {}
    for part, name in HOOKS.items():
        members[name] = hook(part)
        members[name].__name__ = name
    return type("Mistaken", (), members)()


def play(role: Role, wrong: type, directory, *overrides: str):
    registry = load_only(provided(role, wrong))
    [result] = local.run(planner.make(parse_experiment(EXPERIMENT, overrides), registry), directory, registry)
    return result


def test_without_a_mistake_the_trial_is_done_and_the_checks_pass(tmp_path):
    result = play(Role.REWARD, Reward, tmp_path)

    assert result.status == "done", result.error
    assert result.metrics["train/skipped_updates"] == 0
    for sound in SOUND.values():
        check_component(sound())


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_ends_the_trial_with_the_plugin_and_a_remedy(name, tmp_path):
    case = CASES[name]

    result = play(case.role, case.wrong, tmp_path)

    assert result.status == "failed"
    assert re.search(case.run, result.error.message, re.DOTALL), result.error.message
    assert result.error.blamed == f"'Mistaken' (unpackaged 0) in {case.role} 'mine'"


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_found_by_the_check_before(name):
    case = CASES[name]

    with pytest.raises(Exception) as found:
        check_component(case.wrong())

    said = "\n".join([str(found.value), *getattr(found.value, "__notes__", ())])
    assert re.search(case.check or case.run, said, re.DOTALL), said


def test_an_action_not_legal_is_the_policys_fault():
    from orchestrator.rollout.collector import Collector
    from orchestrator.testing import CorridorEnvironment, ScriptedChoices

    class Illegal(ScriptedChoices):
        def act(self, contexts, sampling):
            return [Action(tokens=(0,), logprobs=(-0.1,)) for _ in contexts]

    world, policy = CorridorEnvironment(), Illegal()
    policy.prepare(world, frozenset())
    tasks = list(world.tasks("train"))

    with pytest.raises(ValueError, match=r"act chose action 0, legal are \[1\]"):
        Collector(world, policy)([RolloutRequest(task=tasks[0], count=1)])
