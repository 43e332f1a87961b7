"""The size of a trial: what an environment and a sampler really have."""

import time

import pytest

from orchestrator.api import Component, Speaks, Split, hookimpl
from orchestrator.experiment import estimate as estimates
from orchestrator.experiment.estimate import estimate
from orchestrator.testing import EchoEnvironment, load_only, make_settings


class Slow(EchoEnvironment):
    def tasks(self, split):
        for task in super().tasks(split):
            time.sleep(0.05 if split is Split.EVAL else 0.0)
            yield task


class Worlds:
    @hookimpl
    def provide_environments(self):
        words = [f"w{place}" for place in range(12)]
        return [
            Component(name="twelve", build=lambda _: EchoEnvironment(words), speaks=Speaks.MESSAGES),
            Component(name="slow", build=lambda _: Slow(words), speaks=Speaks.MESSAGES),
        ]


def sized(environment, tasks):
    settings = make_settings(
        environment={"use": environment}, evaluation={"every": 5, "tasks": tasks, "samples": 3}, schedule={"steps": 10}
    )
    return estimate(settings, load_only(Worlds()))


@pytest.mark.parametrize(("asked", "there"), [(8, 8), (12, 12), (128, 12)])
def test_an_evaluation_has_the_tasks_that_are_there(asked, there):
    found = sized("twelve", asked)

    assert found.evaluation_tasks == there
    assert found.evaluation_rollouts == 3 * there * 3  # at steps 0, 5 and 10


def test_an_environment_that_makes_tasks_slowly_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(estimates, "_MOST_SECONDS", 0.1)

    assert sized("slow", 128).evaluation_tasks == 128
