"""The sampler ``curriculum``: which level comes next, from how well the present ones go.

The loop draws a fixed number of tasks a step from the environment ``mixture``. How many there are is what this sampler
takes from them; which ones it plays instead, it asks of the handle they carry (``metadata["levels"]``), which gives any
level's n-th training task. Its state is plain numbers: the stage, the outcomes it is judged by, and how far each
level's tasks have been used up. So a resumed trial goes on with the very next task of each level; what was drawn or
played after the checkpoint is forgotten together with everything else of those steps, and no episode counts twice.

With one stage whose weights are the mixture's, it plays exactly the tasks that were drawn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.api import Collect, RolloutGroup, RolloutRequest, Sampler, Stateful, Stop, Task

from .config import CurriculumConfig
from .mixture import Levels, next_level


class Curriculum:
    """Stages of mixtures in order; a stage ends when enough of its latest episodes are won, or after so many steps.

    Every episode that another sampler plays for it counts once, trained on or not; demonstrations and failed rollouts
    count nothing.
    """

    def __init__(self, config: CurriculumConfig, base: Sampler):
        self.config, self.base, self.inner = config, base, {"base": base}
        self.stage = 0  # index of the present one
        self._steps = 0  # of the present stage
        self._drawn: dict[str, int] = {}  # training tasks used up, by level
        self._shares: dict[str, int] = {}  # tasks of the present stage, by level
        self._outcomes: deque[float] = deque(maxlen=config.stages[0].window)
        self._report: dict[str, float] = {}

    def sample(self, tasks: Sequence[Task], collect: Collect) -> Sequence[RolloutGroup]:
        """Play as many tasks as were drawn, of the present stage's levels, and judge the stage by them.

        :raises ValueError: when the tasks come from no mixture, a level is unknown, or an episode does not say whether
            it was won
        """
        stage = self.config.stages[self.stage]
        chosen = [self._next(_levels(task), stage.levels) for task in tasks]
        seen: dict[str, list[float]] = {}

        def watched(requests: Sequence[RolloutRequest]) -> Sequence[RolloutGroup]:
            groups = collect(requests)
            for group in groups:
                seen.setdefault(group.task.metadata["level"], []).extend(_outcomes(group))
            return groups

        groups = self.base.sample(chosen, watched)
        self._report = self._describe(chosen, seen)
        self._judge(seen)
        return groups

    def report(self) -> Mapping[str, float]:
        """Numbers of the last call; see the README."""
        return self._report

    def state_dict(self) -> dict[str, Any]:
        """The stage, how long it lasts, what it is judged by and which tasks are used up."""
        return {
            "stage": self.stage,
            "steps": self._steps,
            "drawn": dict(self._drawn),
            "shares": dict(self._shares),
            "outcomes": list(self._outcomes),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.stage, self._steps = state["stage"], state["steps"]
        self._drawn, self._shares = dict(state["drawn"]), dict(state["shares"])
        self._outcomes = deque(state["outcomes"], maxlen=self.config.stages[self.stage].window)
        if "base" in state and isinstance(self.base, Stateful):  # as checkpoints of version 0.1 hold it
            self.base.load_state_dict(state["base"])

    def _next(self, levels: Levels, weights: Mapping[str, float]) -> Task:
        name = next_level(weights, self._shares)
        number = self._drawn.get(name, 0)
        task = levels.task(name, number)
        self._drawn[name] = number + 1
        self._shares[name] = self._shares.get(name, 0) + 1
        return task

    def _judge(self, seen: Mapping[str, Sequence[float]]) -> None:
        stage = self.config.stages[self.stage]
        self._steps += 1
        for name in seen if stage.judged is None else (stage.judged,):
            self._outcomes.extend(seen.get(name, ()))
        full = len(self._outcomes) == stage.window
        passed = full and sum(self._outcomes) / stage.window >= stage.success  # a product would round above the share
        if not passed and (stage.steps is None or self._steps < stage.steps):
            return
        if self.stage + 1 < len(self.config.stages):
            self.stage += 1
            self._steps, self._shares = 0, {}
            self._outcomes = deque(maxlen=self.config.stages[self.stage].window)

    def _describe(self, chosen: Sequence[Task], seen: Mapping[str, Sequence[float]]) -> dict[str, float]:
        found = {"curriculum/stage": float(self.stage + 1), "curriculum/stage_steps": float(self._steps + 1)}
        played = [task.metadata["level"] for task in chosen]
        for name in dict.fromkeys(played):
            found[f"curriculum/share/{name}"] = played.count(name) / len(played)
            if seen.get(name):
                found[f"curriculum/success/{name}"] = sum(seen[name]) / len(seen[name])
        return found


def _levels(task: Task) -> Levels:
    levels = task.metadata.get("levels")
    if not isinstance(levels, Levels):
        raise ValueError(
            f"task {task.id!r} comes from an environment without levels; the sampler curriculum chooses among those of "
            f"environment: {{use: mixture, worlds: [{{use: ..., level: ...}}, ...]}}"
        )
    return levels


def _outcomes(group: RolloutGroup) -> list[float]:
    """1 for each episode that was won, 0 for each that was not or was cut off before it said so."""
    played = [rollout for rollout in group.rollouts if not rollout.demonstration]
    for rollout in played:
        if "correct" not in rollout.metrics and rollout.stop is Stop.DONE:
            raise ValueError(
                f"the episode of task {rollout.task_id!r} ended without a metric `correct`, by which a curriculum is "
                f"judged; give metrics={{'correct': 0.0 or 1.0}} with the feedback"
            )
    return [float(rollout.metrics.get("correct", 0.0) > 0) for rollout in played]


def curriculum(config: CurriculumConfig) -> Curriculum:
    """Build the sampler around the one its options name."""
    return Curriculum(config, config.base.build())
