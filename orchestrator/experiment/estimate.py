"""What a plan will cost, found by asking samplers what they would play, without playing anything."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.contract.component import Role
from orchestrator.contract.roles import Environment
from orchestrator.contract.settings import Settings
from orchestrator.contract.types import Action, Rollout, RolloutGroup, RolloutRequest, Score, Split, Task, Turn
from orchestrator.plugging.locating import code_named
from orchestrator.plugging.registry import Registry

_MOST_ASKED = 1024  # tasks of a step; of more, the share is reckoned
_MOST_ROLLOUTS = 200_000
_MOST_SECONDS = 2.0  # spent on counting tasks: some environments make them one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The size of one trial; rollouts are None where the sampler could not be asked.

    :ivar evaluation_tasks: held-out tasks of an evaluation: as many as asked for, or all there are
    """

    steps: int
    rollouts_per_step: int | None
    evaluations: int
    evaluation_tasks: int
    evaluation_rollouts: int
    tokens_per_action: int  # at most
    budget: int | None = None  # generated tokens at which the trial stops

    @property
    def rollouts(self) -> int | None:
        """Training rollouts of the whole schedule."""
        return None if self.rollouts_per_step is None else self.rollouts_per_step * self.steps


def estimate(settings: Settings, registry: Registry) -> Estimate:
    """Size one trial up.

    A sampler that adapts to scores is answered with every second rollout right, so its figure is a middle course.
    """
    schedule, evaluation = settings.schedule, settings.evaluation
    environment = _askable(settings, registry)
    measured, tasks = evaluations(settings, schedule.steps), _held_out(settings, environment)
    return Estimate(
        steps=schedule.steps,
        rollouts_per_step=_rollouts_per_step(settings, environment, registry) if schedule.steps else 0,
        evaluations=measured,
        evaluation_tasks=tasks,
        evaluation_rollouts=measured * tasks * evaluation.samples,
        tokens_per_action=settings.sampling.max_tokens,
        budget=settings.budget.generated_tokens,
    )


def evaluations(settings: Settings, steps: int) -> int:
    """How often a trial is evaluated that ends after so many steps."""
    evaluation = settings.evaluation
    due = steps // evaluation.every if evaluation.every else 0
    last_is_due = bool(evaluation.every) and steps > 0 and steps % evaluation.every == 0
    first = evaluation.first and steps > 0  # of no steps, the first evaluation is the last
    return due + (not last_is_due) + first


def _askable(settings: Settings, registry: Registry) -> Environment | None:
    """The environment, to be asked for tasks; None where nobody asks, or to build it would import named code."""
    if (settings.procedure != "train" and settings.sampler is None) or names_code(settings, registry):
        return None
    built: Environment = registry.build("environment", settings.environment.use, settings.environment.options)
    return built


def _held_out(settings: Settings, environment: Environment | None) -> int:
    """How many tasks an evaluation has; as many as asked for where the environment cannot be asked, or is slow to say."""
    wanted = settings.evaluation.tasks
    if settings.procedure != "train" or environment is None:
        return wanted
    there, until = 0, time.monotonic() + _MOST_SECONDS
    for _ in itertools.islice(environment.tasks(Split.EVAL), wanted):
        there += 1
        if time.monotonic() > until:
            return wanted
    return there


def _rollouts_per_step(settings: Settings, environment: Environment | None, registry: Registry) -> int | None:
    if settings.sampler is None or environment is None:
        return None
    sampler = registry.build("sampler", settings.sampler.use, settings.sampler.options)
    wanted = settings.schedule.tasks_per_step
    tasks = list(itertools.islice(environment.tasks(Split.TRAIN), min(wanted, _MOST_ASKED)))
    counter = _Counter()
    try:
        sampler.sample(tasks, counter)
    except Exception:  # a sampler that needs real rollouts cannot be asked; the estimate says so
        return None
    return counter.rollouts if wanted <= _MOST_ASKED else round(counter.rollouts * (wanted / _MOST_ASKED))


def names_code(settings: Settings, registry: Registry) -> bool:
    """Whether environment or sampler would import Python code that the experiment names."""
    specs = [(Role.ENVIRONMENT, settings.environment), (Role.SAMPLER, settings.sampler)]
    chosen = [registry.choose(role, spec.use, spec.options, role)[0] for role, spec in specs if spec is not None]
    return any(True for choice in chosen if choice is not None for _ in code_named(choice))


class _Counter:
    """Answers a sampler's requests with empty rollouts and counts them."""

    def __init__(self) -> None:
        self.rollouts = 0

    def __call__(self, requests: Sequence[RolloutRequest]) -> Sequence[RolloutGroup]:
        self.rollouts += sum(request.count for request in requests)
        if self.rollouts > _MOST_ROLLOUTS:
            raise OverflowError("too many rollouts to lay out here")
        return [_group(request.task, request.count) for request in requests]


def _group(task: Task, count: int) -> RolloutGroup:
    action = Action(tokens=(0,), logprobs=(0.0,), text="")
    observation = task.prompt if task.prompt is not None else ()
    turn = Turn(observation=observation, action=action)
    scores = tuple(Score(value=float(index % 2)) for index in range(count))
    rollouts = tuple(
        Rollout(task_id=task.id, index=i, seed=i, turns=(turn,), metrics={"correct": scores[i].value})
        for i in range(count)
    )
    return RolloutGroup(task=task, rollouts=rollouts, scores=scores)
