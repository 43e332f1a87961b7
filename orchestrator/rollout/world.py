"""One play of a task while it lasts: who sits where, what each has seen and done, how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.contract.metrics import number
from orchestrator.contract.types import (
    Action,
    Context,
    Feedback,
    Observation,
    Rollout,
    Sampling,
    Speaks,
    Stop,
    Task,
    Turn,
)
from orchestrator.errors import Failure
from orchestrator.maths.seeding import derive_seed
from orchestrator.rollout.handed import LARGEST_REWARD, Language, expect_feedback, expect_metrics, sent_back


@dataclass(slots=True)
class Seat:
    """One agent's place in a world."""

    observations: list[Observation] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)


@dataclass(slots=True)
class World:
    """One play; a single agent is the agent None."""

    place: int  # of its request
    task: Task
    index: int
    seed: int
    sampling: Sampling
    script: tuple[Action, ...] | None
    language: Language = Language(None)  # noqa: RUF009  frozen
    episode: Any = None
    several: bool = False
    clock: int = 0
    seats: dict[str | None, Seat] = field(default_factory=dict)
    pending: dict[str | None, Observation] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    stop: Stop = Stop.DONE
    error: Failure | None = None
    cut_at: dict[str | None, Observation] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What tells this play from all others of its step."""
        return f"{self.task.id}/{self.index}"

    def open(self, environment: Any) -> None:
        self.episode = environment.start(self.task, self.seed)
        self.show_first(self.episode.open())

    def show_first(self, first: Any) -> None:
        if isinstance(first, Exception):
            raise first
        self.several = isinstance(first, Mapping)
        if self.several and self.script is not None:
            raise ValueError("a world of several agents cannot be played from a demonstration")
        for agent, observation in first.items() if self.several else [(None, first)]:
            self._show(agent, observation)

    def contexts(self) -> list[Context]:
        name = f"{self.task.id}/{self.index}"
        # A counter keeps seeds cheap: hashing anew for every action of a long episode would show in the profile.
        mixed = (self.seed + self.clock * 0x9E3779B97F4A7C15) & 0x7FFFFFFFFFFFFFFF
        return [
            Context(
                episode=name,
                agent=agent,
                observations=(seat := self.seats[agent]).observations,
                actions=seat.actions,
                seed=mixed if agent is None else derive_seed(mixed, agent),
            )
            for agent in self.pending
        ]

    @property
    def scripted(self) -> Action | None:
        """What the demonstration does next; None: there is none, or it has ended."""
        return self.script[self.clock] if self.script is not None and self.clock < len(self.script) else None

    def miss_script(self) -> None:
        raise ValueError(f"the demonstration of task {self.task.id!r} ended before its episode did")

    def step(self, actions: Mapping[str | None, Action], max_turns: int) -> None:
        self.hear(actions, self.episode.step(self.answerable(actions)), max_turns)

    def answerable(self, actions: Mapping[str | None, Action]) -> Any:
        """The actions as the episode's ``step`` takes them."""
        return actions if self.several else actions[None]

    def hear(self, actions: Mapping[str | None, Action], answer: Any, max_turns: int) -> None:
        """Take in what the episode answered to the actions of this step."""
        if isinstance(answer, Exception):
            raise answer
        feedback = self._expected(answer)
        shown, self.pending = self.pending, {}
        for agent, action in actions.items():
            earned = feedback.get(agent)
            seat = self.seats[agent]
            seat.actions.append(action)
            reward = earned[1] if earned is not None else 0.0
            seat.turns.append(Turn(observation=shown[agent], action=action, reward=reward, step=self.clock))
        self.clock += 1
        for agent, (said, paid) in feedback.items():
            self.metrics.update(expect_metrics(said.metrics))
            if agent not in actions and paid:
                raise ValueError(f"agent {agent!r} did not act in this step but is paid {paid}")
            if said.done and said.truncated:
                self.stop = Stop.TURNS
                if said.observation is not None:
                    self._look(agent, said.observation)
                    self.cut_at[agent] = said.observation
            elif not said.done and said.observation is not None:
                self._show(agent, said.observation)
        if self.pending and self.clock >= max_turns:
            self.stop, self.cut_at, self.pending = Stop.TURNS, self.cut_at | self.pending, {}

    def _expected(self, answer: Any) -> dict[str | None, tuple[Feedback, float]]:
        """What each agent is answered, with its reward as a plain float."""
        if self.several and not isinstance(answer, Mapping):
            raise ValueError(
                f"step() returned a {type(answer).__name__}; the episode opened with agents by name: expected a mapping of "
                "agents to Feedback"
            )
        found: dict[str | None, tuple[Feedback, float]] = {}
        for agent, said in answer.items() if self.several else [(None, answer)]:
            expect_feedback(said, several=self.several)
            paid = said.reward
            if type(paid) is not float or not -LARGEST_REWARD <= paid <= LARGEST_REWARD:
                paid = number(paid, f"the reward of step {self.clock}", largest=LARGEST_REWARD)
            found[agent] = said, paid
        return found

    def close(self) -> None:
        episode, self.episode = self.episode, None
        if episode is not None:
            episode.close()

    def rollouts(self, version: int) -> list[Rollout]:
        seats = self.seats or {None: Seat()}
        return [
            Rollout(
                task_id=self.task.id,
                index=self.index * len(seats) + offset if self.several else self.index,
                seed=self.seed,
                turns=tuple(seat.turns),
                stop=Stop.ERROR if self.error else self.stop,
                weights_version=version,
                error=self.error,
                metrics=dict(self.metrics),
                sampling=self.sampling,
                agent=agent,
                demonstration=self.script is not None,
                cut_at=self.cut_at.get(agent),
            )
            for offset, (agent, seat) in enumerate(seats.items())
            if seat.turns or self.error
        ]

    def _look(self, agent: str | None, observation: Observation) -> None:
        """Refuse an observation the policy could not read, or has read already."""
        seat = self.seats.get(agent)
        problems = [self.language.problem(observation)]
        if self.language.speaks == Speaks.MESSAGES and seat is not None:
            problems.append(sent_back(seat.observations[0], [action.text for action in seat.actions], observation))
        found = [problem for problem in problems if problem]
        if found:
            raise ValueError("; ".join(found))

    def _show(self, agent: str | None, observation: Observation) -> None:
        self._look(agent, observation)
        self.seats.setdefault(agent, Seat()).observations.append(observation)
        self.pending[agent] = observation
