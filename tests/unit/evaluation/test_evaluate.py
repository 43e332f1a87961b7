"""An evaluation counts every attempt, failed ones and those of several agents, and measures something or says why not."""

import pytest

from orchestrator.contract.settings import Evaluation
from orchestrator.contract.types import Action, Feedback, Speaks, Task
from orchestrator.errors import RolloutError
from orchestrator.evaluation.evaluate import evaluate
from orchestrator.rollout.collector import Collector

START = ({"role": "user", "content": "go"},)


class Presser:
    def act(self, contexts, sampling):
        return [Action(tokens=(1,), logprobs=(-0.5,), text="press") for _ in contexts]


class Buttons:
    """Agents press a button once each; plays with a number in ``breaks`` raise, ``right`` of the others are right."""

    speaks = Speaks.MESSAGES

    def __init__(self, agents=1, breaks=(), right=()):
        self.agents, self.breaks, self.right, self.plays = agents, breaks, right, 0

    def start(self, task, seed):
        self.plays += 1
        return _Press(self, self.plays - 1)


class _Press:
    def __init__(self, world, play):
        self.world, self.play = world, play

    def open(self):
        return START if self.world.agents == 1 else {str(n): START for n in range(self.world.agents)}

    def step(self, action):
        if self.play in self.world.breaks:
            raise ConnectionError("no power")
        correct = {"correct": float(self.play in self.world.right)}
        feedback = Feedback(observation=None, reward=1.0, done=True, metrics=correct)
        return feedback if self.world.agents == 1 else dict.fromkeys(action, feedback)

    def close(self):
        """Nothing to give back."""


def _evaluate(world, samples, k):
    return evaluate(Collector(world, Presser()), [Task(id="t")], Evaluation(samples=samples, k=k), 1)


def test_a_failed_rollout_is_a_wrong_attempt():
    result = _evaluate(Buttons(breaks={0, 1}, right={2}), 4, (1, 2))

    assert result.tasks == {"t": (4, 1)}
    assert result.metrics["eval/pass_at_1"] == 0.25
    assert result.metrics["eval/pass_at_2"] == 0.5  # one of four is right: 3 of the 6 pairs hold it


def test_every_agent_of_a_shared_world_makes_an_attempt():
    result = _evaluate(Buttons(agents=3, breaks={1}, right={0}), 2, (1,))

    assert result.tasks == {"t": (6, 3)}
    assert result.metrics["eval/pass_at_1"] == 0.5


def test_an_evaluation_of_which_every_rollout_failed_is_an_error_that_says_why():
    with pytest.raises(RolloutError, match=r"all 2 rollouts failed\. First error: ConnectionError: no power"):
        _evaluate(Buttons(breaks={0, 1}), 2, (1,))
