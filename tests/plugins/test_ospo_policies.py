"""Dispatch: the scorer, the yardsticks, plans and reports."""

from __future__ import annotations

import itertools
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dispatch_days import GREEDY, SMALL, contexts_of, first_task, play, scorer, small_world
from orchestrator_plugins.ospo.checks import plan_problems
from orchestrator_plugins.ospo.config import PairScorerConfig
from orchestrator_plugins.ospo.policy import PairScorer
from orchestrator_plugins.ospo.report import render
from orchestrator_plugins.ospo.yardsticks import BestPair, Nearest

from orchestrator.api import (
    Column,
    ConfigError,
    Context,
    Phase,
    Sampling,
    Split,
    TrialSpec,
)
from orchestrator.testing import make_plan, make_settings, make_study

# --- policies ---------------------------------------------------------------------------------------------


def test_the_network_has_the_released_number_of_parameters():
    world = small_world()
    policy = PairScorer(PairScorerConfig())
    policy.prepare(world, frozenset())

    assert sum(p.numel() for p in policy.module.parameters()) == 20_353


def test_splitting_the_first_layer_changes_no_score():
    world = small_world(relative=True)
    policy = scorer(world)
    views = list(world.start(first_task(world), 0).open().values())
    snapshot = views[0].snapshot
    whole = np.stack([np.concatenate([snapshot.vehicles[v.row], pair]) for v in views for pair in v.pairs()])

    expected = policy.module.score(torch.from_numpy(whole)).reshape(len(views), -1)
    found = policy.module.all_logits(
        torch.from_numpy(snapshot.vehicles), torch.from_numpy(snapshot.requests), torch.from_numpy(snapshot.minutes)
    )

    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_the_fleet_is_matched_by_its_own_softmax():
    world = small_world()
    policy = scorer(world)
    views = world.start(first_task(world), 0).open()
    snapshot = next(iter(views.values())).snapshot
    logits = policy.module.all_logits(torch.from_numpy(snapshot.vehicles), torch.from_numpy(snapshot.requests), None)
    probabilities = torch.softmax(logits, -1).detach().numpy() + 1e-8

    actions = policy.act(contexts_of(views, 0), [GREEDY] * len(views))

    pairs = [(row, a.tokens[0], a.logprobs[0]) for row, a in enumerate(actions) if a.tokens]
    assert len(pairs) == min(probabilities.shape) == len({slot for _, slot, _ in pairs})
    for row, slot, logprob in pairs:
        assert logprob == pytest.approx(np.log(probabilities[row, slot]), abs=1e-5)
    best = max(
        sum(probabilities[r, c] for c, r in enumerate(rows))
        for rows in itertools.permutations(range(8), probabilities.shape[1])
    )
    assert sum(probabilities[r, s] for r, s, _ in pairs) == pytest.approx(best, abs=1e-6)


def test_worlds_played_together_are_matched_apart():
    world = small_world()
    policy = scorer(world)
    one, two = (world.start(t, 0).open() for t in itertools.islice(world.tasks(Split.TRAIN), 2))
    apart = [policy.act(contexts_of(views, 0), [GREEDY] * 8) for views in (one, two)]

    mixed = [c for pair in zip(contexts_of(one, 0), contexts_of(two, 0), strict=True) for c in pair]
    together = policy.act(mixed, [GREEDY] * 16)

    for found, expected in zip(together, itertools.chain(*zip(*apart, strict=True)), strict=True):
        assert found.tokens == expected.tokens
        assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-5)


def test_recorded_logprobs_are_those_of_the_columns_whatever_was_explored():
    world = small_world()
    policy = scorer(world, epsilon=0.5)

    rollouts, _, _ = play(world, policy, Sampling(temperature=0.8))
    packed = policy.pack(rollouts)

    assert packed.mask.sum() == sum(len(t.action.tokens) for r in rollouts for t in r.turns)
    columns = policy.columns(packed.inputs, frozenset({Column.LOGPROB}))
    torch.testing.assert_close(columns[Column.LOGPROB], packed.behaviour_logprobs, atol=2e-5, rtol=0)
    assert (packed.behaviour_logprobs > -30).all()


def test_pack_keeps_decisions_with_their_minutes():
    world = small_world()
    policy = scorer(world)
    rollouts, _, _ = play(world, policy)

    packed = policy.pack(rollouts)

    for row, rollout in enumerate(rollouts):
        made = [turn for turn in rollout.turns if turn.action.tokens]
        assert packed.turn[row][packed.mask[row]].tolist() == [turn.step for turn in made]
        for column, turn in enumerate(made):
            count = int(packed.inputs["legal"][row, column].sum())
            assert count == len(turn.observation.snapshot.requests)
            np.testing.assert_array_equal(packed.inputs["pairs"][row, column, :count], turn.observation.pairs())
            assert packed.inputs["actions"][row, column] == turn.action.tokens[0]


def test_columns_do_not_depend_on_padding_and_have_gradients():
    world = small_world()
    policy = scorer(world, frozenset(Column))
    rollouts, _, _ = play(world, policy)
    busiest = max(rollouts, key=lambda r: sum(len(t.action.tokens) for t in r.turns))
    everything = frozenset(Column)

    together = policy.columns(policy.pack(rollouts).inputs, everything)
    alone = policy.columns(policy.pack([busiest]).inputs, everything)

    row = rollouts.index(busiest)
    for column in everything - {Column.LOGITS}:
        torch.testing.assert_close(together[column][row], alone[column][0], atol=1e-5, rtol=1e-4)
    width = alone[Column.LOGITS].shape[-1]
    torch.testing.assert_close(together[Column.LOGITS][row, :, :width], alone[Column.LOGITS][0], atol=1e-5, rtol=1e-4)
    sum(together[column].sum() for column in everything - {Column.LOGITS}).backward()
    assert all(torch.isfinite(p.grad).all() for p in policy.module.parameters())
    entropy = together[Column.ENTROPY]
    assert (entropy >= -1e-6).all()
    assert (entropy <= np.log(32)).all()


def test_exploration_falls_with_each_training_episode_and_is_saved():
    world = small_world()
    policy = scorer(world, epsilon_decay=0.5)

    rates = []
    for number in range(3):
        play(world, policy, Sampling(), episode=f"e{number}")
        rates.append(policy._rates[f"e{number}"])
    play(world, policy, GREEDY, episode="evaluation")

    assert rates == [0.5, 0.25, 0.125]
    assert "evaluation" not in policy._rates
    other = scorer(world, epsilon_decay=0.5)
    other.load_state_dict(policy.state_dict())
    play(world, other, Sampling(), episode="e3")
    assert other._rates["e3"] == 0.0625


def test_exploration_has_a_floor_and_can_be_off():
    world = small_world()
    floored, off = scorer(world, epsilon=0.001, epsilon_decay=0.5), scorer(world, epsilon=0.0)

    play(world, floored, Sampling())
    play(world, off, Sampling())

    assert floored._rates["e"] == 5e-4
    assert off._rates["e"] == 0


def test_full_exploration_matches_at_random():
    world = small_world()
    policy = scorer(world, epsilon_decay=1.0)
    views = world.start(first_task(world), 0).open()
    chosen = Counter()
    for trial in range(60):
        actions = policy.act(
            [
                Context(episode=f"{trial}", agent=a, observations=(v,), actions=(), seed=97 * trial + i)
                for i, (a, v) in enumerate(views.items())
            ],
            [Sampling()] * 8,
        )
        chosen.update(row for row, action in enumerate(actions) if action.tokens)

    assert all(probability > -30 for probability in [a.logprobs[0] for a in actions if a.tokens])
    assert sum(chosen.values()) == 60 * min(8, len(views["v0000"].snapshot.requests))


def test_nucleus_and_top_k_are_refused():
    world = small_world()
    views = world.start(first_task(world), 0).open()

    with pytest.raises(ValueError, match="no meaning here"):
        scorer(world).act(contexts_of(views, 0), [Sampling(top_k=2)] * 8)


def test_the_scorer_plays_dispatch_only():
    with pytest.raises(ConfigError, match="plays the environment dispatch, not SimpleNamespace"):
        PairScorer(PairScorerConfig()).prepare(SimpleNamespace(features=2, actions=2), frozenset())


def test_a_critic_is_made_when_values_are_wanted():
    world = small_world()

    with_critic, without = scorer(world, frozenset({Column.VALUE})), scorer(world)

    assert any(name.startswith("critic.") for name, _ in with_critic.module.named_parameters())
    with pytest.raises(RuntimeError, match="without a critic"):
        without.columns(without.pack(play(world, without)[0]).inputs, frozenset({Column.VALUE}))


def test_yardsticks_beat_an_untrained_network_by_far():
    world = small_world(vehicles=30, minutes=30, max_requests=128)
    tasks = list(itertools.islice(world.tasks(Split.EVAL), 3))

    reward, pickup = (
        {
            name: np.mean([play(world, policy, task=task)[1][metric] for task in tasks])
            for name, policy in (("nearest", Nearest()), ("best", BestPair()), ("untrained", scorer(world)))
        }
        for metric in ("discounted_reward", "pickup_minutes")
    )

    assert reward["best"] > reward["nearest"] > 2 * reward["untrained"]
    assert pickup["nearest"] < pickup["untrained"] / 2


def test_a_yardstick_refuses_to_be_trained():
    with pytest.raises(ValueError, match=r"set schedule\.steps to 0"):
        Nearest().pack([])


# --- plans and reports ------------------------------------------------------------------------------------


def planned(policy, environment=None, temperature=0.0, max_turns=32, steps=0):
    settings = make_settings(
        policy=policy,
        environment=environment or {"use": "dispatch"},
        evaluation={"temperature": temperature},
        sampling={"max_turns": max_turns},
        schedule={"steps": steps},
    )
    return make_plan(settings).trials[0]


def test_plans_that_would_measure_exploration_or_cut_the_day_are_refused():
    sound = planned({"use": "pair_scorer"})
    exploring = planned({"use": "pair_scorer"}, temperature=1.0)
    short = planned({"use": "nearest"}, {"use": "dispatch", "minutes": 60})
    trained = planned({"use": "best_pair"}, steps=5)
    elsewhere = planned({"use": "mlp"}, {"use": "gymnasium"}, temperature=1.0, max_turns=5)

    assert plan_problems([sound, elsewhere]) == []
    assert [p.path for p in plan_problems([exploring, exploring])] == ["evaluation.temperature"]
    assert [p.path for p in plan_problems([trained])] == ["schedule.steps"]
    assert "set it to 60" in plan_problems([short])[0].message


def fleet(*values):
    rows = zip((0, 10), values, strict=False)
    return [
        {"step": step, "kind": "evaluation", "metrics": {"eval/episode/fleet_reward": value}} for step, value in rows
    ]


def test_the_report_draws_the_city_and_lists_the_fleets_that_enter_the_verdict(tmp_path):
    world = {"use": "dispatch", **SMALL}
    chosen = make_settings(environment=world)
    study = make_study(
        tmp_path,
        [
            (TrialSpec(id="ospo-s0", arm="ospo", seed=0, settings=chosen), fleet(1.5, 321.25)),
            (
                TrialSpec(id="tune-0", arm="ospo", seed=1000, phase=Phase.TUNE, sample=0, settings=chosen),
                fleet(7.0, 99.0),
            ),
        ],
        environment=world,
    )
    with (tmp_path / "trials" / "ospo-s0" / "metrics.jsonl").open("a") as file:
        file.write('{"st')

    section = render(study)

    assert "<svg" in section
    assert "grid: 64 zones; 8 vehicles" in section
    assert "321.250" in section
    assert "1.500" not in section
    assert "tune-0" not in section


def test_the_report_stays_out_of_other_runs(tmp_path):
    assert render(make_study(tmp_path, [], environment={"use": "countdown"})) is None
