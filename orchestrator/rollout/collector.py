"""Plays and scores what a sampler asks for: all open episodes act in one call, turn by turn.

An episode or a reward that raises marks its rollouts and the rest goes on. Every generated token is counted,
whatever becomes of the rollout.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.contract.limits import Limits, Unlimited
from orchestrator.contract.roles import Bounded, StepsTogether
from orchestrator.contract.types import (
    Action,
    Rollout,
    RolloutGroup,
    RolloutRequest,
    Sampling,
    Task,
)
from orchestrator.errors import ContextError, Failure, RolloutError, blame, caused_by
from orchestrator.maths.seeding import derive_seed
from orchestrator.rollout.handed import Language, expect_actions, expect_encoded, expect_requests
from orchestrator.rollout.scoring import score_group
from orchestrator.rollout.world import World


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
        limits: Limits | None = None,
    ):
        """Wire a collector.

        :param limits: on calls of the environment and of rewards; None: none
        :param labels: who to blame, by ``environment``, ``policy`` and ``reward/NAME``: plugin and component
        """
        self.cost = Cost()
        self.failures: list[Rollout] = []  # of the present step, kept for the transcript and the error message
        self._environment, self._policy, self._rewards = environment, policy, tuple(rewards)
        self._sampling = sampling or Sampling()
        self._demonstrating = replace(self._sampling, temperature=1.0, top_p=1.0, top_k=0)  # nobody drew these
        self._max_turns, self._concurrent = max_turns, concurrent
        self._together, self._language = isinstance(environment, StepsTogether), Language.of(environment)
        self._seed, self._phase = seed, phase
        self._labels = dict(labels or {})
        self._limits = limits or Unlimited()
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
        with self._limits.apart():
            return self._collect(requests)

    def _collect(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        requests = expect_requests(requests)
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
                    self._fail(rollout)
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
            return replace(group, scores=score_group(self._rewards, group, self._labels, self._watch))
        except Exception as error:
            failure = Failure.of(error)
            for rollout in group.rollouts:
                self._fail(replace(rollout, error=failure))
            return replace(group, rollouts=(), scores=())
        finally:
            self.cost.reward_seconds += time.perf_counter() - started

    def refuse_failures(self, share: float) -> None:
        """End a trial too many of whose rollouts failed in this step.

        :param share: of the step's rollouts that may fail
        :raises RolloutError: more did
        """
        if self.failures and len(self.failures) > share * self.played:
            said = f"step {self._step}: {len(self.failures)} of {self.played} rollouts failed"
            raise rollout_error(f"{said}, more than failures.rollout_share={share} allows", self.failures)

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

    def _watch(self, what: str, key: str) -> AbstractContextManager[None]:
        return self._limits.watched(what, f"{self._phase}/{self._step}/{key}")

    def _fail(self, rollout: Rollout) -> None:
        self.cost.failed_rollouts += 1
        self.failures.append(rollout)

    def _worlds(self, place: int, request: RolloutRequest) -> list[World]:
        first = self._played[request.task.id]
        self._played[request.task.id] += request.count
        base = self._seed if request.seed is None else request.seed
        return [
            World(
                place=place,
                task=request.task,
                index=first + offset,
                seed=derive_seed(base, self._phase, self._step, request.task.id, first + offset),
                sampling=request.sampling or (self._demonstrating if request.demonstrate else self._sampling),
                script=self._script(request) if request.demonstrate else None,
                language=self._language,
            )
            for offset in range(request.count)
        ]

    def _script(self, request: RolloutRequest) -> tuple[Action, ...]:
        texts = request.task.demonstration
        if texts is None:
            raise ValueError(f"task {request.task.id!r} has no demonstration; this environment cannot demonstrate")
        with blame(self._labels.get("policy")):
            encoded = expect_encoded(self._policy.encode(texts), texts)
        return tuple(
            Action(tokens=tuple(tokens), logprobs=(0.0,) * len(tokens), text=text)
            for text, tokens in zip(texts, encoded, strict=True)
        )

    def _play(self, worlds: Sequence[World]) -> None:
        waiting = deque(worlds)
        open_worlds: list[World] = []
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

    def _open(self, worlds: Sequence[World]) -> None:
        started = time.perf_counter()
        if self._together and worlds:
            for world, first in zip(*self._open_together(worlds), strict=True):
                self._in_environment(world, world.show_first, first)
        else:
            for world in worlds:
                self._in_environment(world, world.open, self._environment)
        self.cost.environment_seconds += time.perf_counter() - started

    def _advance(self, worlds: Sequence[World]) -> None:
        """Let everybody who is to act, act; then step every world once."""
        answers = iter(self._act([world for world in worlds if world.script is None]))
        self._refuse_too_long([world for world in worlds if world.scripted is not None])
        started = time.perf_counter()
        moves = []
        for world in [world for world in worlds if world.pending]:
            if world.script is None:
                moves.append((world, {agent: next(answers) for agent in world.pending}))
            elif world.scripted is not None:
                moves.append((world, {None: world.scripted}))
            else:
                self._in_environment(world, world.miss_script)
        if self._together and moves:
            for (world, actions), answer in zip(moves, self._step_together(moves), strict=True):
                self._in_environment(world, world.hear, actions, answer, self._max_turns)
        else:
            for world, actions in moves:
                self._in_environment(world, world.step, actions, self._max_turns)
        self.cost.environment_seconds += time.perf_counter() - started

    def _open_together(self, worlds: Sequence[World]) -> tuple[list[World], Sequence[Any]]:
        """The worlds that could be started, and what each shows first, or why it shows nothing."""
        started = []
        for world in worlds:
            try:
                with blame(self._labels.get("environment")), self._watch("environment", world.key):
                    world.episode = self._environment.start(world.task, world.seed)
                started.append(world)
            except Exception as error:
                world.error = Failure.of(error)
        episodes = [world.episode for world in started]
        return started, self._ask_together("open_together", episodes) if started else ()

    def _step_together(self, moves: Sequence[tuple[World, Mapping[str | None, Action]]]) -> Sequence[Any]:
        episodes = [world.episode for world, _ in moves]
        return self._ask_together("step_together", episodes, [world.answerable(actions) for world, actions in moves])

    def _ask_together(self, method: str, episodes: Sequence[Any], *arguments: Any) -> Sequence[Any]:
        """One answer an episode: what it says, or the exception that fails it."""
        try:
            with blame(self._labels.get("environment")), self._watch("environment", "all"):
                answers = getattr(self._environment, method)(episodes, *arguments)
                if len(answers) != len(episodes):
                    raise ValueError(f"{method} returned {len(answers)} answers for {len(episodes)} episodes")
                return answers
        except Exception as error:
            return [error] * len(episodes)

    def _act(self, worlds: Sequence[World]) -> Sequence[Action]:
        """Ask the policy for everybody who is to act; a world it cannot act in fails, the others are asked again."""
        while True:
            places = [(world, context) for world in worlds for context in world.contexts()]
            if not places:
                return ()
            sampling = [world.sampling for world, _ in places]
            started = time.perf_counter()
            try:
                with blame(self._labels.get("policy")):
                    contexts = [context for _, context in places]
                    actions = expect_actions(self._policy.act(contexts, sampling), contexts, self._language.speaks)
            except ContextError as error:
                if not error.contexts:
                    raise
                for place in error.contexts:
                    world = places[place][0]
                    world.error, world.pending = Failure.of(error), {}
                    self._close(world)
                worlds = [world for world in worlds if world.pending]
                continue
            self.cost.act_seconds += time.perf_counter() - started
            self.cost.generated_tokens += sum(len(action.tokens) for action in actions)
            self.cost.prompt_tokens += sum(action.context_tokens for action in actions)
            return actions

    def _refuse_too_long(self, worlds: Sequence[World]) -> None:
        """Fail demonstrations that a policy of limited context has no room for."""
        if not worlds or not isinstance(self._policy, Bounded):
            return
        with blame(self._labels.get("policy")):
            rooms = self._policy.room([context for world in worlds for context in world.contexts()])
        for world, room in zip(worlds, rooms, strict=True):
            wanted = len(world.scripted.tokens) if world.scripted else 0
            if wanted > room:
                said = (
                    f"turn {world.clock + 1} of the demonstration has {wanted} tokens, and the policy's window has room "
                    f"for {max(room, 0)}; take a model with a longer window, or leave the task out"
                )
                world.error, world.pending = Failure.of(ContextError(said)), {}
                self._close(world)

    def _in_environment(self, world: World, call: Any, *arguments: Any) -> None:
        try:
            with blame(self._labels.get("environment")), self._watch("environment", world.key):
                call(*arguments)
        except Exception as error:
            world.error = Failure.of(error)
            world.pending = {}
        if not world.pending:
            self._close(world)

    def _close(self, world: World) -> None:
        try:
            with blame(self._labels.get("environment")), self._watch("environment", f"{world.key}/close"):
                world.close()
        except Exception as error:
            world.error = world.error or Failure.of(error)


def rollout_error(said: str, failures: Sequence[Rollout]) -> RolloutError:
    """The error of a trial that too many rollouts failed, blamed on who failed the first."""
    errors = [rollout.error for rollout in failures if rollout.error is not None]
    first = errors[0]
    others = {error.blamed for error in errors if error.blamed is not None} - {first.blamed}
    also = f". Others were raised by plugin {', '.join(sorted(others))}" if others else ""
    return caused_by(RolloutError(f"{said}. First error: {first.reason}{also}"), first)


def failed_groups(groups: Sequence[RolloutGroup], failures: Sequence[Rollout]) -> list[RolloutGroup]:
    """Failed rollouts as groups without scores, for those who watch."""
    tasks = {group.task.id: group.task for group in groups}
    return [
        RolloutGroup(task=tasks.get(rollout.task_id, Task(id=rollout.task_id)), rollouts=(rollout,))
        for rollout in failures
    ]
