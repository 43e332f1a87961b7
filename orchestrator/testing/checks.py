"""The contract of each role as checks a plugin's author runs on a component."""

from __future__ import annotations

import copy
import json
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import islice
from typing import Any
from zlib import crc32

import torch
from pydantic import ValidationError
from torch import Tensor

from orchestrator.batch import Batch, Column, Credit, LossTerm, Mean, Need, Terms, Weights
from orchestrator.component import Component, PluginConfig, Role
from orchestrator.registry import part_problems
from orchestrator.roles import MultiAgentEpisode, Prepares, ScalesGradient
from orchestrator.rollout.assembly import assemble
from orchestrator.rollout.collector import Collector
from orchestrator.testing.batches import make_batch, make_outputs, objective_gradients, pad_batch
from orchestrator.testing.scripted import ScriptedChoices, ScriptedPolicy
from orchestrator.testing.worlds import CorridorEnvironment, EchoEnvironment
from orchestrator.types import (
    Action,
    Context,
    Couples,
    Features,
    Feedback,
    Observation,
    RolloutGroup,
    RolloutRequest,
    Sampling,
    Speaks,
    Split,
    Task,
)

TOLERANCE = 1e-9
"""Largest difference, absolute and relative, between gradients in float64 that must be equal."""

_METRIC_NAME = re.compile(r"[\w\-.:/ ]+")
_STEPS = 12  # actions per play of an environment


def check_component(
    component: Any,
    options: Mapping[str, Any] | None = None,
    *,
    environment: Any = None,
    group: RolloutGroup | None = None,
) -> None:
    """Check that a component keeps the contract of its role.

    Of every component: its options (described, unknown keys refused) and the parts of its role. Of an objective: the
    same gradient, to 1e-9 in float64, for any micro-batches and padding, none on masked tokens, finite at extreme
    log-ratios. Of an estimator: [B, T] finite credit that ignores padding. Of a reward: one finite score per rollout.
    Of a sampler: whole, scored groups of the tasks it was given. Of an environment: plays that repeat with their
    seed, ids that do not, splits that share none. Of a policy: the log-probabilities it recorded are those it
    trains on, and an action does not depend on what else is in the batch.

    :param component: as ``Registry.describe`` gives it; or a built object, from ``Registry.build``, which is what
        components need that name others in their options
    :param options: what the user would write; ignored for built objects
    :param environment: the world a policy or sampler is checked in; None: a tiny one that speaks the same
    :param group: rollouts a reward is checked on, without scores; None: four answers to a task in words
    :raises AssertionError: naming every broken rule at once
    :raises TypeError: when the object fills no role
    """
    problems: list[str] = []
    if isinstance(component, Component):
        name = component.name
        problems += _option_problems(component, options or {})
        config = component.config.model_validate(dict(options or {}))
        build: Callable[[], Any] = lambda: component.build(config)  # noqa: E731
    else:
        name = type(component).__name__
        build = lambda: copy.deepcopy(component)  # noqa: E731
    built = build()
    role = _role_of(built)
    problems += part_problems(Role(role), built)
    if not problems:
        check = _CHECKS[role]
        try:
            problems += check(build, environment=environment, group=group)
        except Exception as error:
            error.add_note(f"while checking {role} {name!r} against the contract")
            raise
    if problems:
        raise AssertionError(f"{role} {name!r} breaks its contract:\n" + "\n".join(f"- {p}" for p in problems))


def _role_of(built: Any) -> str:
    telling = {
        "environment": "tasks",
        "policy": "act",
        "sampler": "sample",
        "reward": "score",
        "advantage": "estimate",
        "objective": "terms",
    }
    for role, method in telling.items():
        if hasattr(built, method):
            return role
    raise TypeError(
        f"{type(built).__name__} fills no role; expected one of the methods {', '.join(telling.values())}. "
        f"See orchestrator.roles"
    )


def _option_problems(component: Component, options: Mapping[str, Any]) -> list[str]:
    problems = []
    model: type[PluginConfig] = component.config
    for name, field in model.model_fields.items():
        if not field.description:
            problems.append(f"option {name!r} has no description")
    try:
        model.model_validate({**options, "no_such_option": 1})
        problems.append(f"{model.__name__} accepts the unknown option 'no_such_option'; derive it from PluginConfig")
    except ValidationError:
        pass
    return problems


# --- objective --------------------------------------------------------------------------------------------


def _check_objective(build: Callable[[], Any], **_: Any) -> list[str]:
    needs = build().needs
    batches, refusals = _accepted(
        lambda batch: build().terms(batch, make_outputs(batch).columns(batch, _current(needs))), needs
    )
    return list(dict.fromkeys([*refusals, *(p for batch in batches for p in _objective_problems(build, batch))]))


def _objective_problems(build: Callable[[], Any], batch: Batch) -> list[str]:
    objective, outputs = build(), make_outputs(batch)
    before = _copied(batch)
    problems = _terms_problems(objective.terms(batch, outputs.columns(batch, _current(objective.needs))))
    if problems:
        return problems
    problems += [f"terms() changes the batch's {name} in place" for name in _changed(batch, before)]
    whole = objective_gradients(build(), batch, outputs)
    if not any(bool(whole[name].any()) for name in whole if name.startswith("loss/")):
        problems.append("the loss has no gradient; terms must depend on `current`")
    for name, gradient in whole.items():
        if not torch.isfinite(gradient).all():
            problems.append(f"{name} is not finite")
        elif gradient.dim() and bool(gradient[~batch.mask].any()):
            problems.append(f"{name} is not 0 on masked tokens")
    for label, parts in _splits(batch, objective.couples):
        problems += _differences(f"cut into {label}", objective_gradients(build(), batch, outputs, parts), whole)
    for left, right in ((0, 3), (2, 1)):
        padded, wide = pad_batch(batch, outputs, left=left, right=right)
        width = batch.mask.shape[1]
        found = objective_gradients(build(), padded, wide)
        narrow = {n: g[:, left : left + width] if g.dim() > 1 else g for n, g in found.items()}
        problems += _differences(f"padded by {left} positions before and {right} behind", narrow, whole)
    for shift in (300.0, -300.0):
        extreme = objective_gradients(build(), _shifted(batch, shift), outputs)
        problems += [
            f"{name} is not finite when frozen log-probabilities are {abs(shift):.0f} nats "
            f"{'above' if shift > 0 else 'below'} the current; clamp log-ratios before exp"
            for name, gradient in extreme.items()
            if not torch.isfinite(gradient).all()
        ]
    if isinstance(objective, ScalesGradient):
        norms = {"loss": 1.0} | {n.removeprefix("probe/"): 1.0 for n in whole if n.startswith("probe/")}
        for value in (0.0, 1.0):
            factor = objective.factor(dict.fromkeys(norms, value))
            if not math.isfinite(factor):
                problems.append(f"factor() gives {factor} when every norm is {value}")
    return problems


def _current(needs: frozenset[Need]) -> frozenset[Column]:
    return frozenset({Column.LOGPROB, *(need.column for need in needs if need.weights == Weights.CURRENT)})


def _terms_problems(terms: Any) -> list[str]:
    if not isinstance(terms, Terms):
        return [f"terms() returned a {type(terms).__name__}; expected Terms(loss=(LossTerm(...), ...))"]
    problems = []
    for term in (*terms.loss, *terms.probes):
        if not isinstance(term, LossTerm) or not isinstance(term.values, Tensor):
            problems.append(f"{term!r} is no LossTerm with a tensor of values")
        elif term.values.dim() == 0:
            problems.append(f"term {term.name!r} is reduced already; return unreduced values and name a Reduction")
    if not terms.loss:
        problems.append("terms() returned no loss term")
    for name, mean in terms.metrics.items():
        if not _METRIC_NAME.fullmatch(name):
            problems.append(f"metric {name!r} has characters that trackers refuse; use letters, digits, _ - . : /")
        if not isinstance(mean, Mean) or not all(math.isfinite(float(part)) for part in mean):
            problems.append(f"metric {name!r} is {mean!r}; expected Mean(total, count) of finite numbers")
    return problems


def _splits(batch: Batch, couples: Couples) -> Iterator[tuple[str, list[Tensor]]]:
    rows = torch.arange(len(batch.group))
    groups = [rows[batch.group == group] for group in batch.group.unique()]
    yield "single groups", groups
    yield "the last group and the others", [groups[-1], torch.cat(groups[:-1])]
    if couples == Couples.ROWS:
        yield "single rows", list(rows.split(1))
        shuffled = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
        yield "shuffled threes", [part.sort().values for part in shuffled.split(3)]


def _differences(what: str, found: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> list[str]:
    problems = []
    for name in whole:
        other = found.get(name)
        if other is None or not torch.allclose(other, whole[name], atol=TOLERANCE, rtol=TOLERANCE):
            apart = math.inf if other is None else float((other - whole[name]).abs().max())
            problems.append(f"{name} differs by {apart:.1e} when the batch is {what}")
    return problems


def _shifted(batch: Batch, shift: float) -> Batch:
    """Frozen log-probabilities far from the current ones, every other token the other way."""
    sign = torch.where(torch.arange(batch.mask.shape[1]) % 2 == 0, shift, -shift).to(batch.behaviour_logprobs)
    columns = {n: c + sign if n.column == Column.LOGPROB else c for n, c in batch.columns.items()}
    behaviour = torch.where(batch.mask, batch.behaviour_logprobs + sign, 0.0)
    return replace(batch, columns=columns, behaviour_logprobs=behaviour)


# --- advantage --------------------------------------------------------------------------------------------


def _check_advantage(build: Callable[[], Any], **_: Any) -> list[str]:
    batches, refusals = _accepted(lambda batch: build().estimate(batch), build().needs)
    return list(dict.fromkeys([*refusals, *(p for batch in batches for p in _advantage_problems(build, batch))]))


def _advantage_problems(build: Callable[[], Any], batch: Batch) -> list[str]:
    batch = replace(batch, advantages=None, returns=None)
    before = _copied(batch)
    credit = build().estimate(batch)
    if not isinstance(credit, Credit):
        return [f"estimate() returned a {type(credit).__name__}; expected Credit(advantages=...)"]
    problems = [f"estimate() changes the batch's {name} in place" for name in _changed(batch, before)]
    for name in ("advantages", "returns"):
        tensor = getattr(credit, name)
        if tensor is None and name == "returns":
            continue
        if not isinstance(tensor, Tensor) or tensor.shape != batch.mask.shape:
            shape = list(getattr(tensor, "shape", ()))
            problems.append(f"{name} have shape {shape}; expected [B, T] = {list(batch.mask.shape)}")
        elif not torch.isfinite(tensor).all():
            problems.append(f"{name} are not finite")
    problems += _metric_problems(credit.metrics)
    if problems:
        return problems
    padded, _ = pad_batch(batch, make_outputs(batch), left=2, right=3)
    wide = build().estimate(padded).advantages[:, 2:-3]
    if not torch.allclose(wide[batch.mask], credit.advantages[batch.mask], atol=TOLERANCE, rtol=TOLERANCE):
        problems.append("advantages depend on padding")
    alike = replace(batch, rewards=torch.zeros_like(batch.rewards), turn_rewards=torch.zeros_like(batch.turn_rewards))
    if not torch.isfinite(build().estimate(alike).advantages).all():
        problems.append("advantages are not finite when all rewards are 0")
    alone = make_batch(sizes=(1,), lengths=(1,), needs=build().needs, dtype=torch.float64)
    if not bool(batch.demonstration.any()) and not torch.isfinite(build().estimate(alone).advantages).all():
        problems.append("advantages of a single row of one token are not finite")
    return problems


# --- reward -----------------------------------------------------------------------------------------------


def _check_reward(build: Callable[[], Any], *, group: RolloutGroup | None, **_: Any) -> list[str]:
    if group is None:
        world = EchoEnvironment()
        collect = Collector(world, ScriptedPolicy(("ab", "a", " ab ", "c d")), (), sampling=Sampling())
        group = collect([RolloutRequest(task=next(iter(world.tasks(Split.TRAIN))), count=4)])[0]
    group = replace(group, scores=())
    scores = list(build().score(group))
    if len(scores) != len(group.rollouts):
        return [f"score() gave {len(scores)} scores for {len(group.rollouts)} rollouts; expected one each"]
    problems = []
    for place, (score, rollout) in enumerate(zip(scores, group.rollouts, strict=True)):
        where = f"score {place}"
        if not math.isfinite(score.value):
            problems.append(f"{where} has the value {score.value}")
        if not all(math.isfinite(part) for part in score.parts.values()):
            problems.append(f"{where} has parts that are not finite: {dict(score.parts)}")
        if score.turns is not None:
            if len(score.turns) != len(rollout.turns):
                problems.append(f"{where} has {len(score.turns)} turn values for {len(rollout.turns)} turns")
            elif not math.isclose(sum(score.turns), score.value, rel_tol=1e-6, abs_tol=1e-6):
                problems.append(f"{where} has turn values that sum to {sum(score.turns)}, not to {score.value}")
        if score.against is not None:
            if len(score.against) != len(scores) or not all(0 <= chance <= 1 for chance in score.against):
                problems.append(f"{where} has against={score.against}; expected a chance for each of {len(scores)}")
            elif not math.isclose(score.against[place], 0.5, abs_tol=1e-6):
                problems.append(f"{where} beats itself with chance {score.against[place]}; expected 0.5")
    alone = replace(group, rollouts=group.rollouts[:1])
    if len(list(build().score(alone))) != 1:
        problems.append("score() of a group of one did not give one score")
    return problems


# --- sampler ----------------------------------------------------------------------------------------------


def _check_sampler(build: Callable[[], Any], *, environment: Any, **_: Any) -> list[str]:
    if environment is not None:
        return _sampler_problems(build(), environment)
    try:
        return _sampler_problems(build(), EchoEnvironment())
    except (TypeError, ValueError) as error:  # a sampler may be for worlds of features only
        if "features" not in str(error):
            raise
        return _sampler_problems(build(), CorridorEnvironment())


def _sampler_problems(sampler: Any, world: Any) -> list[str]:
    tasks = list(islice(world.tasks(Split.TRAIN), 4))
    collect = Collector(world, _player(world, tasks), (), sampling=Sampling(), max_turns=_STEPS)
    problems: list[str] = []
    trained = 0
    for step in (1, 2):
        collect.begin(step)
        for group in sampler.sample(tasks, collect):
            where = f"the group of task {group.task.id!r}"
            trained += len(group.rollouts)
            if group.task.id not in {task.id for task in tasks}:
                problems.append(f"{where} is of no task it was given")
            if len(group.scores) not in (0, len(group.rollouts)):
                problems.append(f"{where} has {len(group.scores)} scores for {len(group.rollouts)} rollouts")
            if any(rollout.task_id != group.task.id for rollout in group.rollouts):
                problems.append(f"{where} holds rollouts of another task")
            if any(rollout.error for rollout in group.rollouts):
                problems.append(f"{where} holds failed rollouts")
    if not trained:
        problems.append("it returned no rollout to train on in two steps")
    return list(dict.fromkeys(problems))


def _player(world: Any, tasks: Sequence[Task]) -> Any:
    """A policy that is now right, now wrong; in worlds of features it takes a legal action by its seed."""
    if world.speaks == Speaks.MESSAGES:
        texts = [*(task.reference or "a" for task in tasks), "a", "b"]
        return ScriptedPolicy(lambda context: texts[context.seed % len(texts)])

    def choose(context: Context) -> int:
        legal = [place for place, allowed in enumerate(context.observations[-1].legal) if allowed]
        return legal[context.seed % len(legal)]

    policy = ScriptedChoices(choose)
    policy.prepare(world, frozenset())
    return policy


# --- environment ------------------------------------------------------------------------------------------


def _check_environment(build: Callable[[], Any], **_: Any) -> list[str]:
    environment, problems = build(), []
    by_split = {split: list(islice(environment.tasks(split), 4)) for split in Split}
    for split, tasks in by_split.items():
        if not tasks:
            problems.append(f"tasks({split.name}) gives none")
        if tasks != list(islice(environment.tasks(split), 4)):
            problems.append(f"tasks({split.name}) gives other tasks when called again")
        if [task.id for task in tasks] != [task.id for task in islice(build().tasks(split), 4)]:
            problems.append(f"tasks({split.name}) differ between two environments with the same options")
        if len({task.id for task in tasks}) < len(tasks):
            problems.append(f"tasks({split.name}) repeats an id")
    if {task.id for task in by_split[Split.TRAIN]} & {task.id for task in by_split[Split.EVAL]}:
        problems.append("TRAIN and EVAL share task ids")
    if environment.speaks == Speaks.FEATURES:
        problems += [
            f"an environment of features needs the attribute {name!r}, a positive number"
            for name in ("features", "actions")
            if not (isinstance(getattr(environment, name, None), int) and getattr(environment, name) > 0)
        ]
    if problems:
        return problems
    for task in by_split[Split.TRAIN][:2]:
        first, again = _Play(environment, task, seed=7), _Play(environment, task, seed=7)
        problems += first.problems
        if first.log != again.log:
            problems.append(f"two plays of task {task.id!r} with one seed and the same actions differ")
        if task.demonstration is not None and not first.several:
            told = _Play(environment, task, seed=7, texts=task.demonstration)
            problems += told.problems
            if not told.done or told.steps != len(task.demonstration):
                problems.append(
                    f"the demonstration of task {task.id!r} has {len(task.demonstration)} actions, but its episode "
                    f"{'ended' if told.done else 'had not ended'} after {told.steps}"
                )
    return list(dict.fromkeys(problems))


class _Play:
    """One play with random legal actions, or with given texts; keeps a log that can be compared."""

    def __init__(self, environment: Any, task: Task, *, seed: int, texts: Sequence[str] | None = None):
        self.problems: list[str] = []
        self.log: list[str] = []
        self.steps, self.done = 0, False
        self._environment, self._random, self._texts = environment, random.Random(seed), texts
        episode = environment.start(task, seed)
        try:
            opened = episode.open()
            self.several = isinstance(opened, Mapping)
            self._run(episode, dict(opened) if self.several else {None: opened})
        finally:
            episode.close()

    def _run(self, episode: Any, pending: dict[str | None, Observation]) -> None:
        limit = _STEPS if self._texts is None else len(self._texts)
        if self.several and not isinstance(episode, MultiAgentEpisode):
            self.problems.append("open() names agents but the episode is no MultiAgentEpisode")
            return
        while pending and self.steps < limit:
            for observation in pending.values():
                self._look(observation)
            actions = {agent: self._choose(observation) for agent, observation in pending.items()}
            answers = episode.step(actions) if self.several else {None: episode.step(actions[None])}
            self.steps += 1
            for agent, answer in answers.items():
                self._read(agent, answer)
            pending = {a: f.observation for a, f in answers.items() if not f.done and f.observation is not None}
        self.done = not pending

    def _choose(self, observation: Observation) -> Action:
        if isinstance(observation, Features):
            legal = [place for place, allowed in enumerate(observation.legal) if allowed]
            return Action(tokens=(self._random.choice(legal) if legal else 0,), logprobs=(0.0,))
        text = self._random.choice(("a", "1 + 1", "look", "")) if self._texts is None else self._texts[self.steps]
        return Action(tokens=(*text.encode(), 256), logprobs=(0.0,) * (len(text.encode()) + 1), text=text)

    def _look(self, observation: Observation) -> None:
        self.log.append(_told(observation))
        if self._environment.speaks == Speaks.MESSAGES:
            if not (isinstance(observation, tuple) and all(set(m) >= {"role", "content"} for m in observation)):
                self.problems.append(f"it speaks messages but shows {_told(observation)[:80]}")
            return
        if not isinstance(observation, Features):
            self.problems.append(f"it speaks features but shows a {type(observation).__name__}")
            return
        sizes = (self._environment.features,), (self._environment.actions,)
        if (observation.values.shape, observation.legal.shape) != sizes:
            self.problems.append(
                f"features of shape {observation.values.shape} and legal {observation.legal.shape}; expected {sizes}"
            )
        if str(observation.values.dtype) != "float32" or observation.legal.dtype != bool:
            self.problems.append(
                f"features are {observation.values.dtype} and legal {observation.legal.dtype}; "
                f"expected float32 and bool"
            )
        if not observation.legal.any():
            self.problems.append("an observation leaves no legal action")

    def _read(self, agent: str | None, answer: Any) -> None:
        if not isinstance(answer, Feedback):
            self.problems.append(f"step() gave a {type(answer).__name__}; expected Feedback")
            return
        self.log.append(f"{agent} {answer.reward} {answer.done} {sorted(answer.metrics.items())}")
        if not math.isfinite(answer.reward):
            self.problems.append(f"step() pays {answer.reward}")
        if not answer.done and answer.observation is None and not self.several:
            self.problems.append("step() shows nothing though the play is not done")
        self.problems += _metric_problems(answer.metrics)


def _told(observation: Observation) -> str:
    if isinstance(observation, Features):
        return f"features {crc32(observation.values.tobytes())} {crc32(observation.legal.tobytes())}"
    return json.dumps(observation, default=str)


# --- policy -----------------------------------------------------------------------------------------------


def _check_policy(build: Callable[[], Any], *, environment: Any, **_: Any) -> list[str]:
    policy = build()
    world = environment or (EchoEnvironment() if policy.speaks == Speaks.MESSAGES else CorridorEnvironment())
    if isinstance(policy, Prepares):
        policy.prepare(world, frozenset({Column.LOGPROB, Column.ENTROPY}))
    if not isinstance(policy.module, torch.nn.Module) or not any(p.requires_grad for p in policy.module.parameters()):
        return ["module is no torch module with a parameter to train; a fixed rule gives an empty one, of no numbers"]
    policy.refresh()
    collect = Collector(world, policy, (), sampling=Sampling(max_tokens=12), max_turns=4)
    collect.begin(1)
    tasks = list(islice(world.tasks(Split.TRAIN), 2))
    groups = [group for group in collect([RolloutRequest(task=t, count=2) for t in tasks]) if group.rollouts]
    if collect.failures or not groups:
        return [f"playing failed: {failure.rollout.error}" for failure in collect.failures] or ["no rollout"]
    problems = _action_problems(groups)
    if problems:
        return problems
    if not any(rollout.agent for group in groups for rollout in group.rollouts):
        problems += _batching_problems(policy, groups)
    if policy.speaks == Speaks.MESSAGES and not all(policy.encode(["ab", "c"])):
        problems.append("encode() gives no tokens for a text")
    if not sum(p.numel() for p in policy.module.parameters() if p.requires_grad):
        return problems  # a fixed rule: it acts and is never trained
    return problems + _packing_problems(policy, groups)


def _action_problems(groups: Sequence[RolloutGroup]) -> list[str]:
    problems = []
    actions = [turn.action for group in groups for rollout in group.rollouts for turn in rollout.turns]
    several = any(rollout.agent for group in groups for rollout in group.rollouts)
    for action in actions:
        if len(action.tokens) != len(action.logprobs):
            problems.append(f"an action has {len(action.tokens)} tokens and {len(action.logprobs)} log-probabilities")
        elif not action.tokens and not several:  # of several agents, some may have nothing to decide
            problems.append("an action has no tokens")
        elif not all(math.isfinite(p) and p <= 1e-5 for p in action.logprobs):
            problems.append(f"an action has log-probabilities {action.logprobs}; expected finite ones, at most 0")
    return list(dict.fromkeys(problems))


def _batching_problems(policy: Any, groups: Sequence[RolloutGroup]) -> list[str]:
    contexts = [
        Context(episode=str(place), agent=None, observations=(r.turns[0].observation,), actions=(), seed=100 + place)
        for place, r in enumerate(rollout for group in groups for rollout in group.rollouts)
    ]
    if isinstance(policy, ScriptedPolicy):
        return []  # plays in the order of calls, as its author wants
    sampling = Sampling(max_tokens=12)
    together = policy.act(contexts, [sampling] * len(contexts))
    alone = [policy.act([context], [sampling])[0] for context in contexts]
    if [action.tokens for action in together] != [action.tokens for action in alone]:
        return ["equal contexts with equal seeds act differently when batched with others"]
    return []


def _packing_problems(policy: Any, groups: Sequence[RolloutGroup]) -> list[str]:
    batch = assemble(policy, groups)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    problems = []
    for row, rollout in enumerate(rollouts):
        recorded = [p for turn in rollout.turns for p in turn.action.logprobs]
        kept = batch.behaviour_logprobs[row][batch.mask[row]].tolist()
        if len(kept) != len(recorded):
            problems.append(f"pack() trains {len(kept)} tokens of a rollout with {len(recorded)}")
        elif any(not math.isclose(a, b, abs_tol=1e-5) for a, b in zip(kept, recorded, strict=True)):
            problems.append("pack() changes the recorded log-probabilities, or their order")
    if bool(batch.behaviour_logprobs[~batch.mask].any()):
        problems.append("behaviour_logprobs are not 0 where masked out")
    if bool((batch.turn[~batch.mask] != -1).any()) or bool((batch.turn[batch.mask] < 0).any()):
        problems.append("turn is not -1 exactly outside the policy's tokens")
    if problems:
        return list(dict.fromkeys(problems))
    columns = policy.columns(batch.inputs, frozenset({Column.LOGPROB, Column.ENTROPY}))
    for column in (Column.LOGPROB, Column.ENTROPY):
        if column not in columns or columns[column].shape != batch.mask.shape:
            return [f"columns() gives no [B, T] {column}"]
    gap = float((columns[Column.LOGPROB].detach() - batch.behaviour_logprobs)[batch.mask].abs().max())
    if not gap < 1e-4:
        problems.append(f"recorded and recomputed log-probabilities differ by {gap:.1e}; expected less than 1e-4")
    columns[Column.LOGPROB][batch.mask].sum().backward()
    gradients = [p.grad for p in policy.module.parameters() if p.grad is not None]
    if not any(bool(gradient.any()) for gradient in gradients):
        problems.append("the log-probabilities have no gradient in the module's parameters")
    if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
        problems.append("the gradient of the log-probabilities is not finite")
    policy.module.zero_grad(set_to_none=True)
    return problems


# --- shared -----------------------------------------------------------------------------------------------


def _accepted(attempt: Callable[[Batch], Any], needs: frozenset[Need]) -> tuple[list[Batch], list[str]]:
    """Batches to check on, with and without demonstrations: a method may insist on them, or refuse them."""
    batches, refusals = [], []
    for demonstrations in (False, True):
        batch = make_batch(needs=needs, dtype=torch.float64, demonstrations=demonstrations)
        try:
            attempt(batch)
            batches.append(batch)
        except ValueError as error:
            if "demonstration" not in str(error):
                raise
            refusals.append(f"it refuses batches {'with' if demonstrations else 'without'} demonstrations: {error}")
    return batches, [] if batches else refusals


def _metric_problems(metrics: Mapping[str, Any]) -> list[str]:
    problems = []
    for name, value in metrics.items():
        if not _METRIC_NAME.fullmatch(name):
            problems.append(f"metric {name!r} has characters that trackers refuse; use letters, digits, _ - . : /")
        try:
            finite = math.isfinite(float(value))
        except (TypeError, ValueError):
            finite = False
        if not finite:
            problems.append(f"metric {name!r} is {value!r}; expected a finite number")
    return problems


def _tensors(batch: Batch) -> Iterator[tuple[str, Tensor]]:
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            yield field.name, value
        elif isinstance(value, Mapping):
            for key, tensor in value.items():
                label = ".".join(key) if isinstance(key, Need) else key
                yield f"{field.name}.{label}", tensor


def _copied(batch: Batch) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in _tensors(batch)}


def _changed(batch: Batch, before: Mapping[str, Tensor]) -> list[str]:
    return [name for name, now in _tensors(batch) if not torch.equal(now.nan_to_num(), before[name].nan_to_num())]


_CHECKS: Mapping[str, Callable[..., list[str]]] = {
    "environment": _check_environment,
    "policy": _check_policy,
    "sampler": _check_sampler,
    "reward": _check_reward,
    "advantage": _check_advantage,
    "objective": _check_objective,
}
