"""Plays and scores what a sampler asks for: all open episodes act in one call, turn by turn.

An episode or a reward that raises marks its rollouts and the rest goes on. Every generated token is counted,
whatever becomes of the rollout.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.contract.roles import StepsTogether
from orchestrator.contract.types import (
    Action,
    Context,
    Observation,
    Rollout,
    RolloutGroup,
    RolloutRequest,
    Sampling,
    Stop,
    Task,
    Turn,
)
from orchestrator.errors import ContextError, blame
from orchestrator.maths.seeding import derive_seed
from orchestrator.rollout.scoring import score_group


@dataclass(slots=True)
class Cost:
    """What a collector has spent; kept in checkpoints."""

    generated_tokens: int = 0
    prompt_tokens: int = 0
    rollouts: int = 0
    failed_rollouts: int = 0
    act_seconds: float = 0.0
    environment_seconds: float = 0.0
    reward_seconds: float = 0.0


@dataclass(slots=True)
class Failure:
    """One rollout that could not be used, kept for the transcript and the error message."""

    rollout: Rollout
    plugin: str


class Collector:
    """Implements ``Collect`` for one trial.

    Seeds follow from the trial's seed, the phase, the step, the task and the rollout's place, so equal requests
    give equal rollouts however they are batched; a second request for a task in the same step continues its places.
    """

    def __init__(
        self,
        environment: Any,
        policy: Any,
        rewards: Sequence[tuple[str, float, Any]] = (),
        *,
        sampling: Sampling | None = None,
        max_turns: int = 32,
        concurrent: int = 1024,
        seed: int = 0,
        phase: str = "train",
        labels: Mapping[str, str] | None = None,
    ):
        """Wire a collector.

        :param labels: plugin (with distribution and version) by ``environment``, ``policy``, ``reward``: who to blame
        """
        self.cost = Cost()
        self.failures: list[Failure] = []  # of the present step
        self._environment, self._policy, self._rewards = environment, policy, tuple(rewards)
        self._sampling = sampling or Sampling()
        self._max_turns, self._concurrent = max_turns, concurrent
        self._together = isinstance(environment, StepsTogether)
        self._seed, self._phase = seed, phase
        self._labels = dict(labels or {})
        self.played = 0  # rollouts of the present step, failed ones included
        self._step: object = 0
        self._version = 0
        self._played: Counter[str] = Counter()

    def begin(self, step: object, version: int = 0) -> None:
        """Start a step: seeds follow it, failures are counted anew."""
        self._step, self._version = step, version
        self._played.clear()
        self.failures, self.played = [], 0

    def __call__(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        """Play and score; one group per request, without the rollouts that failed (a group may be empty)."""
        worlds = [world for place, request in enumerate(requests) for world in self._worlds(place, request)]
        self._play(worlds)
        rollouts: list[list[Rollout]] = [[] for _ in requests]
        for world in worlds:
            for rollout in world.rollouts(self._version):
                self.cost.rollouts += 1
                self.played += 1
                if rollout.error is None:
                    rollouts[world.place].append(rollout)
                else:
                    self._fail(rollout, world.blamed)
        return [
            self.score(RolloutGroup(task=request.task, rollouts=tuple(plays)))
            for request, plays in zip(requests, rollouts, strict=True)
        ]

    def score(self, group: RolloutGroup) -> RolloutGroup:
        """Score a group; when a reward raises, its rollouts are marked and the group comes back empty."""
        if not group.rollouts:
            return replace(group, scores=())
        started = time.perf_counter()
        try:
            with blame(self._labels.get("reward", "(core)"), where="reward"):
                return replace(group, scores=score_group(self._rewards, group))
        except Exception as error:
            for rollout in group.rollouts:
                self._fail(replace(rollout, error=_describe(error)), "reward")
            return replace(group, rollouts=(), scores=())
        finally:
            self.cost.reward_seconds += time.perf_counter() - started

    def settle(self, groups: Iterable[RolloutGroup]) -> list[RolloutGroup]:
        """Drop empty groups and score again those a sampler merged or left unscored."""
        settled = []
        for group in groups:
            stale = len(group.scores) != len(group.rollouts) or any(
                score.against is not None and len(score.against) != len(group.rollouts) for score in group.scores
            )
            group = self.score(group) if stale else group
            if group.rollouts:
                settled.append(group)
        return settled

    def _fail(self, rollout: Rollout, role: str) -> None:
        self.cost.failed_rollouts += 1
        self.failures.append(Failure(rollout=rollout, plugin=self._labels.get(role, role)))

    def _worlds(self, place: int, request: RolloutRequest) -> list[_World]:
        first = self._played[request.task.id]
        self._played[request.task.id] += request.count
        base = self._seed if request.seed is None else request.seed
        return [
            _World(
                place=place,
                task=request.task,
                index=first + offset,
                seed=derive_seed(base, self._phase, self._step, request.task.id, first + offset),
                sampling=request.sampling or self._sampling,
                script=self._script(request) if request.demonstrate else None,
            )
            for offset in range(request.count)
        ]

    def _script(self, request: RolloutRequest) -> tuple[Action, ...]:
        texts = request.task.demonstration
        if texts is None:
            raise ValueError(f"task {request.task.id!r} has no demonstration; this environment cannot demonstrate")
        with blame(self._labels.get("policy", "policy"), where="Policy.encode"):
            encoded = self._policy.encode(texts)
        return tuple(
            Action(tokens=tuple(tokens), logprobs=(0.0,) * len(tokens), text=text)
            for text, tokens in zip(texts, encoded, strict=True)
        )

    def _play(self, worlds: Sequence[_World]) -> None:
        waiting = deque(worlds)
        open_worlds: list[_World] = []
        try:
            while waiting or open_worlds:
                free = min(len(waiting), self._concurrent - len(open_worlds))
                entering = [waiting.popleft() for _ in range(free)]
                open_worlds += entering
                self._open(entering)
                self._advance([world for world in open_worlds if world.pending])
                open_worlds = [world for world in open_worlds if world.pending]
        finally:
            for world in open_worlds:
                world.close()

    def _open(self, worlds: Sequence[_World]) -> None:
        started = time.perf_counter()
        if self._together and worlds:
            for world, first in zip(*self._open_together(worlds), strict=True):
                self._in_environment(world, world.show_first, first)
        else:
            for world in worlds:
                self._in_environment(world, world.open, self._environment)
        self.cost.environment_seconds += time.perf_counter() - started

    def _advance(self, worlds: Sequence[_World]) -> None:
        """Let everybody who is to act, act; then step every world once."""
        answers = iter(self._act([world for world in worlds if world.script is None]))
        started = time.perf_counter()
        moves = []
        for world in [world for world in worlds if world.pending]:
            if world.script is None:
                moves.append((world, {agent: next(answers) for agent in world.pending}))
            elif world.clock < len(world.script):
                moves.append((world, {None: world.script[world.clock]}))
            else:
                self._in_environment(world, world.miss_script)
        if self._together and moves:
            for (world, actions), answer in zip(moves, self._step_together(moves), strict=True):
                self._in_environment(world, world.hear, actions, answer, self._max_turns)
        else:
            for world, actions in moves:
                self._in_environment(world, world.step, actions, self._max_turns)
        self.cost.environment_seconds += time.perf_counter() - started

    def _open_together(self, worlds: Sequence[_World]) -> tuple[list[_World], Sequence[Any]]:
        """The worlds that could be started, and what each shows first, or why it shows nothing."""
        started = []
        for world in worlds:
            try:
                with blame(self._labels.get("environment", "environment"), where="episode"):
                    world.episode = self._environment.start(world.task, world.seed)
                started.append(world)
            except Exception as error:
                world.error = _describe(error)
        episodes = [world.episode for world in started]
        return started, self._ask_together("open_together", episodes) if started else ()

    def _step_together(self, moves: Sequence[tuple[_World, Mapping[str | None, Action]]]) -> Sequence[Any]:
        episodes = [world.episode for world, _ in moves]
        return self._ask_together("step_together", episodes, [world.answerable(actions) for world, actions in moves])

    def _ask_together(self, method: str, episodes: Sequence[Any], *arguments: Any) -> Sequence[Any]:
        """One answer an episode: what it says, or the exception that fails it."""
        try:
            with blame(self._labels.get("environment", "environment"), where="episode"):
                answers = getattr(self._environment, method)(episodes, *arguments)
                if len(answers) != len(episodes):
                    raise ValueError(f"{method} returned {len(answers)} answers for {len(episodes)} episodes")
                return answers
        except Exception as error:
            return [error] * len(episodes)

    def _act(self, worlds: Sequence[_World]) -> Sequence[Action]:
        """Ask the policy for everybody who is to act; a world it cannot act in fails, the others are asked again."""
        while True:
            places = [(world, context) for world in worlds for context in world.contexts()]
            if not places:
                return ()
            sampling = [world.sampling for world, _ in places]
            started = time.perf_counter()
            try:
                with blame(self._labels.get("policy", "policy"), where="Policy.act"):
                    actions = self._policy.act([context for _, context in places], sampling)
                    if len(actions) != len(places):
                        raise ValueError(f"act returned {len(actions)} actions for {len(places)} contexts")
            except ContextError as error:
                if not error.contexts:
                    raise
                for place in error.contexts:
                    world = places[place][0]
                    world.error, world.blamed, world.pending = _describe(error), "policy", {}
                    self._close(world)
                worlds = [world for world in worlds if world.pending]
                continue
            self.cost.act_seconds += time.perf_counter() - started
            self.cost.generated_tokens += sum(len(action.tokens) for action in actions)
            self.cost.prompt_tokens += sum(action.context_tokens for action in actions)
            return actions

    def _in_environment(self, world: _World, call: Any, *arguments: Any) -> None:
        try:
            with blame(self._labels.get("environment", "environment"), where="episode"):
                call(*arguments)
        except Exception as error:
            world.error = _describe(error)
            world.pending = {}
        if not world.pending:
            self._close(world)

    def _close(self, world: _World) -> None:
        try:
            with blame(self._labels.get("environment", "environment"), where="episode"):
                world.close()
        except Exception as error:
            world.error = world.error or _describe(error)


@dataclass(slots=True)
class _Seat:
    """One agent's place in a world."""

    observations: list[Observation] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)


@dataclass(slots=True)
class _World:
    """One play; a single agent is the agent None."""

    place: int  # of its request
    task: Task
    index: int
    seed: int
    sampling: Sampling
    script: tuple[Action, ...] | None
    episode: Any = None
    several: bool = False
    clock: int = 0
    seats: dict[str | None, _Seat] = field(default_factory=dict)
    pending: dict[str | None, Observation] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    stop: Stop = Stop.DONE
    error: str | None = None
    blamed: str = "environment"  # the role that raised the error
    cut_at: dict[str | None, Observation] = field(default_factory=dict)

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
        feedback = answer if self.several else {None: answer}
        shown, self.pending = self.pending, {}
        for agent, action in actions.items():
            answer = feedback.get(agent)
            seat = self.seats[agent]
            seat.actions.append(action)
            paid = answer.reward if answer is not None else 0.0
            seat.turns.append(Turn(observation=shown[agent], action=action, reward=float(paid), step=self.clock))
        self.clock += 1
        for agent, answer in feedback.items():
            self.metrics.update(answer.metrics)
            if not math.isfinite(answer.reward):
                raise ValueError(f"the reward of step {self.clock - 1} is {answer.reward}; expected a finite number")
            if agent not in actions and answer.reward:
                raise ValueError(f"agent {agent!r} did not act in this step but is paid {answer.reward}")
            if answer.done and answer.truncated:
                self.stop = Stop.TURNS
                if answer.observation is not None:
                    self.cut_at[agent] = answer.observation
            elif not answer.done and answer.observation is not None:
                self._show(agent, answer.observation)
        if self.pending and self.clock >= max_turns:
            self.stop, self.cut_at, self.pending = Stop.TURNS, self.cut_at | self.pending, {}

    def close(self) -> None:
        episode, self.episode = self.episode, None
        if episode is not None:
            episode.close()

    def rollouts(self, version: int) -> list[Rollout]:
        seats = self.seats or {None: _Seat()}
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

    def _show(self, agent: str | None, observation: Observation) -> None:
        self.seats.setdefault(agent, _Seat()).observations.append(observation)
        self.pending[agent] = observation


def _describe(error: BaseException) -> str:
    notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
    return f"{type(error).__name__}: {error}{notes}"
