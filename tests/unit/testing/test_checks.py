"""The contract checks let sound components through and name what is wrong with unsound ones."""

import random
from dataclasses import replace

import pytest
import torch
from pydantic import BaseModel, ConfigDict

from orchestrator.api import (
    Column,
    Component,
    Couples,
    Credit,
    Feedback,
    LossTerm,
    Mean,
    Need,
    PluginConfig,
    Reduction,
    Score,
    Speaks,
    Task,
    Terms,
    Weights,
    masked_mean,
)
from orchestrator.testing import (
    CorridorEnvironment,
    EchoEnvironment,
    ScriptedChoices,
    ScriptedPolicy,
    check_component,
)

LOGPROB = Need(Weights.CURRENT, Column.LOGPROB)
OLD = Need(Weights.OLD, Column.LOGPROB)


class Objective:
    """A sound objective; the others below break one rule each."""

    needs = frozenset({LOGPROB})
    couples = Couples.ROWS

    def terms(self, batch, current):
        values = torch.where(batch.mask, -current[Column.LOGPROB] * batch.advantages, 0.0)
        return Terms(loss=(LossTerm(name="policy", values=values, reduction=Reduction.TOKEN_MEAN),))


class DividesByItsRows(Objective):
    def terms(self, batch, current):
        term = super().terms(batch, current).loss[0]
        values = term.values / len(batch.rewards)
        return Terms(loss=(LossTerm(name="policy", values=values, reduction=Reduction.TOKEN_MEAN),))


class LooksAtSiblings(Objective):
    def terms(self, batch, current):
        rewards = torch.where(batch.group[:, None] == batch.group, batch.rewards, 0.0).sum(1)
        values = torch.where(batch.mask, -current[Column.LOGPROB] * rewards[:, None], 0.0)
        return Terms(loss=(LossTerm(name="policy", values=values, reduction=Reduction.TOKEN_MEAN),))


class LooksAtSiblingsOpenly(LooksAtSiblings):
    couples = Couples.GROUPS


class TrainsMaskedTokens(Objective):
    def terms(self, batch, current):
        values = -current[Column.LOGPROB].mean(1)
        return Terms(loss=(LossTerm(name="policy", values=values, reduction=Reduction.SEQUENCE_MEAN),))


class Explodes(Objective):
    needs = frozenset({LOGPROB, OLD})

    def terms(self, batch, current):
        ratio = (current[Column.LOGPROB] - batch.columns[OLD]).exp().float() ** 8
        values = torch.where(batch.mask, -ratio * batch.advantages, 0.0)
        return Terms(loss=(LossTerm(name="policy", values=values, reduction=Reduction.TOKEN_MEAN),))


class ReducesItself(Objective):
    def terms(self, batch, current):
        value = masked_mean(current[Column.LOGPROB], batch.mask)
        return Terms(
            loss=(LossTerm(name="policy", values=value, reduction=Reduction.TOKEN_MEAN),),
            metrics={"mine/pass@1": Mean(1.0, 2.0)},
        )


class WritesIntoTheBatch(Objective):
    def terms(self, batch, current):
        batch.advantages.mul_(0.5)
        return super().terms(batch, current)


class InsistsOnDemonstrations(Objective):
    couples = Couples.GROUPS

    def terms(self, batch, current):
        if not batch.demonstration.any():
            raise ValueError("this objective needs a demonstration in every group")
        return super().terms(batch, current)


@pytest.mark.parametrize("sound", [Objective, LooksAtSiblingsOpenly, InsistsOnDemonstrations])
def test_sound_objectives_pass(sound):
    check_component(sound())


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (DividesByItsRows, "loss/logits differs by .* when the batch is cut into single groups"),
        (LooksAtSiblings, "differs by .* when the batch is cut into single rows"),
        (TrainsMaskedTokens, "loss/logits is not 0 on masked tokens"),
        (Explodes, "clamp log-ratios before exp"),
        (ReducesItself, "'policy' is reduced already"),
        (ReducesItself, "'mine/pass@1' has characters that trackers refuse"),
        (WritesIntoTheBatch, "changes the batch's advantages in place"),
    ],
)
def test_broken_objectives_are_named_with_the_rule(broken, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_component(broken())


class Estimator:
    needs = frozenset()

    def estimate(self, batch):
        return Credit(advantages=torch.where(batch.mask, batch.rewards[:, None], 0.0))


class DividesByLength(Estimator):
    def estimate(self, batch):
        return Credit(advantages=super().estimate(batch).advantages / batch.mask.shape[1])


class DividesByDeviation(Estimator):
    def estimate(self, batch):
        return Credit(advantages=super().estimate(batch).advantages / batch.rewards.std(correction=0))


class ByRow(Estimator):
    def estimate(self, batch):
        return Credit(advantages=batch.rewards)


def test_a_sound_estimator_passes():
    check_component(Estimator())


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (DividesByLength, "advantages depend on padding"),
        (DividesByDeviation, "not finite when all rewards are 0"),
        (ByRow, r"advantages have shape \[11\]; expected \[B, T\]"),
    ],
)
def test_broken_estimators_are_named_with_the_rule(broken, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_component(broken())


class FixedReward:
    def __init__(self, *scores):
        self._scores = scores

    def score(self, group):
        return self._scores[: len(group.rollouts)]


@pytest.mark.parametrize(
    ("scores", "complaint"),
    [
        ([Score(value=1.0)] * 3, "3 scores for 4 rollouts"),
        ([Score(value=float("nan"))] * 4, "rollout 0 of task 'train-0': the value is nan"),
        ([Score(value=1.0, turns=(0.5,))] * 4, "turns sum to 0.5, the value is 1; they must agree"),
        ([Score(value=1.0, against=(0.5, 1, 1, 1))] * 4, "score 1 beats itself with chance 1"),
    ],
)
def test_broken_rewards_are_named_with_the_rule(scores, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_component(FixedReward(*scores))


class DropsScores:
    def sample(self, tasks, collect):
        from dataclasses import replace

        from orchestrator.api import RolloutRequest

        groups = collect([RolloutRequest(task=task, count=2) for task in tasks])
        return [replace(group, scores=group.scores[:1]) for group in groups]


class ReturnsNothing:
    def sample(self, tasks, collect):
        return []


@pytest.mark.parametrize(
    ("broken", "complaint"), [(DropsScores, "1 scores for 2 rollouts"), (ReturnsNothing, "no rollout to train on")]
)
def test_broken_samplers_are_named_with_the_rule(broken, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_component(broken())


class Forgetful(EchoEnvironment):
    """Pays at random, whatever the seed."""

    def start(self, task, seed):
        episode = super().start(task, seed)
        step = episode.step
        episode.step = lambda action: Feedback(observation=None, reward=random.random(), done=step(action).done)
        return episode


class SharesTasks(EchoEnvironment):
    def tasks(self, split):
        yield Task(id="the only one", prompt=({"role": "user", "content": "say a"},), reference="a")


class NeverEnds(EchoEnvironment):
    def start(self, task, seed):
        episode = super().start(task, seed)
        episode.step = lambda action: Feedback(observation=task.prompt, reward=0.0, done=False)
        return episode


class Together(EchoEnvironment):
    def open_together(self, episodes):
        return [episode.open() for episode in episodes]

    def step_together(self, episodes, actions):
        return [episode.step(action) for episode, action in zip(episodes, actions, strict=True)]


class TogetherOtherwise(Together):
    """Pays more when asked for many at once."""

    def step_together(self, episodes, actions):
        return [replace(answer, reward=answer.reward + 1) for answer in super().step_together(episodes, actions)]


class WithoutSizes(CorridorEnvironment):
    features = None


def test_the_tiny_worlds_and_scripted_policies_pass():
    check_component(EchoEnvironment())
    check_component(Together())
    check_component(CorridorEnvironment())
    check_component(ScriptedPolicy(("ab", "x")))
    check_component(ScriptedChoices((1,)))


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (Forgetful, "two plays .* with one seed and the same actions differ"),
        (SharesTasks, "TRAIN and EVAL share task ids"),
        (NeverEnds, "has 1 actions, but its episode had not ended after 1"),
        (TogetherOtherwise, "plays otherwise through open_together and step_together"),
        (WithoutSizes, "needs the attribute 'features'"),
    ],
)
def test_broken_environments_are_named_with_the_rule(broken, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_component(broken())


class Boastful(ScriptedPolicy):
    """Records other log-probabilities than it trains on."""

    def act(self, contexts, sampling):
        from dataclasses import replace

        actions = super().act(contexts, sampling)
        return [replace(action, logprobs=tuple(p / 2 for p in action.logprobs)) for action in actions]


class Detached(ScriptedPolicy):
    def columns(self, inputs, wanted):
        return {
            column: values.detach() * self.module.head.bias.sum() ** 0
            for column, values in super().columns(inputs, wanted).items()
        }


def test_broken_policies_are_named_with_the_rule():
    with pytest.raises(AssertionError, match="recorded and recomputed log-probabilities differ"):
        check_component(Boastful())
    with pytest.raises(AssertionError, match="no gradient in the module's parameters"):
        check_component(Detached())


def test_options_are_checked_too():
    class Undescribed(PluginConfig):
        clip: float = 0.2

    class Lenient(BaseModel):
        model_config = ConfigDict(frozen=True)

    with pytest.raises(AssertionError, match="option 'clip' has no description"):
        check_component(Component(name="mine", build=lambda config: Objective(), config=Undescribed))
    with pytest.raises(AssertionError, match="accepts the unknown option"):
        check_component(Component(name="mine", build=lambda config: Objective(), config=Lenient))


def test_an_object_without_a_role_is_refused():
    with pytest.raises(TypeError, match="object fills no role"):
        check_component(object())


def test_speaks_must_be_one_of_the_two():
    world = EchoEnvironment()
    world.speaks = "messages"

    with pytest.raises(AssertionError, match="speaks"):
        check_component(world)
    assert EchoEnvironment.speaks is Speaks.MESSAGES
