"""Small days of dispatch and who plays them, for the tests beside this file."""

from __future__ import annotations

from orchestrator_plugins.ospo.config import DispatchConfig, PairScorerConfig
from orchestrator_plugins.ospo.environment import Dispatch
from orchestrator_plugins.ospo.policy import PairScorer

from orchestrator.api import Context, Rollout, Sampling, Split, Turn

SMALL = {"city": "grid", "vehicles": 8, "minutes": 12, "max_requests": 32}
GREEDY = Sampling(temperature=0)


def small_world(**options) -> Dispatch:
    return Dispatch(DispatchConfig(**SMALL | options))


def first_task(world, split=Split.TRAIN):
    return next(iter(world.tasks(split)))


def contexts_of(asked, minute, episode="e"):
    return [
        Context(episode=episode, agent=agent, observations=(view,), actions=(), seed=1000 * minute + place)
        for place, (agent, view) in enumerate(asked.items())
    ]


def play(world, policy, sampling=GREEDY, task=None, episode="e"):
    """Play one world; returns its rollouts, the metrics of its end, and the episode."""
    running = world.start(task or first_task(world), 0)
    asked = running.open()
    turns, metrics = {}, {}
    for minute in range(world.config.minutes):
        actions = policy.act(contexts_of(asked, minute, episode), [sampling] * len(asked))
        chosen = dict(zip(asked, actions, strict=True))
        feedback = running.step(chosen)
        for agent, action in chosen.items():
            turns.setdefault(agent, []).append(
                Turn(observation=asked[agent], action=action, reward=feedback[agent].reward, step=minute)
            )
        for answer in feedback.values():
            metrics |= answer.metrics
        asked = {a: f.observation for a, f in feedback.items() if not f.done and f.observation is not None}
    assert not asked
    rollouts = [
        Rollout(task_id="t", index=i, seed=0, turns=tuple(made), agent=agent, sampling=sampling)
        for i, (agent, made) in enumerate(turns.items())
    ]
    return rollouts, metrics, running


def scorer(world, wanted=frozenset(), **options) -> PairScorer:
    policy = PairScorer(PairScorerConfig(**{"hidden": (16, 16), "seed": 0} | options))
    policy.prepare(world, wanted)
    return policy
