"""Learning Dhumbal: encodings, the environment, replay and Q-learning, networks as players."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from orchestrator_plugins.dhumbal.config import DhumbalConfig, QLearningConfig, ReplayConfig, TournamentConfig
from orchestrator_plugins.dhumbal.encodings import LENGTHS, choice, encode, head_size, legal_actions
from orchestrator_plugins.dhumbal.environment import DhumbalEnvironment
from orchestrator_plugins.dhumbal.game import Phase, Round
from orchestrator_plugins.dhumbal.players import Aggressive, decide
from orchestrator_plugins.dhumbal.q_learning import CURRENT, TARGET, QLearning, q_targets
from orchestrator_plugins.dhumbal.replay import Replay
from orchestrator_plugins.dhumbal.rules import card_id, legal_discards
from orchestrator_plugins.dhumbal.tournament import Chronicle, Tournament, play_tournament
from pydantic import ValidationError
from torch.testing import assert_close

from orchestrator.api import (
    Action,
    Batch,
    Column,
    Components,
    Context,
    Need,
    Sampling,
    Split,
    Weights,
    load_registry,
    reduce_terms,
)


@pytest.fixture(scope="module")
def registry():
    return load_registry(["dhumbal", "mlp", "baselines"])


def game_with(hand, *, seats=4, seed=1, phase=Phase.DISCARD):
    from random import Random

    game = Round([10_000] * seats, Random(seed))
    game.hands[0] = [card_id(name) for name in hand.split()]
    game.points[0] = sum(card % 13 + 1 for card in game.hands[0])
    game.phase = phase
    return game


# --- encodings ----------------------------------------------------------------------------------------------


def test_e104_indices_of_the_study():
    game = game_with("10H AS 2S 3S 4C")
    game.pile[-1] = card_id("KC")
    values = encode(game, 0, "e104")

    assert values[22] == 1
    assert values[103] == 1
    assert values.sum() == 6


def test_e128_layout():
    game = game_with("10H AS 2S", seed=4)
    values = encode(game, 0, "e128")

    assert list(values[104:108]) == [1, 0, 0, 0]
    assert values[108:112] == pytest.approx([0.6, 1, 1, 1])
    assert list(values[112:116]) == [1, 1, 1, 1]
    assert values[116:120] == pytest.approx([13 / 65, 0.01, 1 / 52, 0])
    assert list(values[120:123]) == [0, 1, 0]
    assert not values[123:].any()


def test_championship_layout_loses_the_fourth_balance():
    game = game_with("10H AS 2S")
    game.coins, game.number = [10_000, 20_000, 30_000, 40_000], 512
    values = encode(game, 0, "e117_championship")

    assert values[104:110] == pytest.approx([31 / 52, 0.01, 1, 1, 2, 3])
    assert list(values[110:113]) == [0, 1, 0]
    assert values[113:117] == pytest.approx([13 / 65, 0.6, 1 / 52, 0.5])


def test_training_layout_for_five_seats():
    game = game_with("10H AS 2S", seats=5)
    values = encode(game, 0, "e117_train")

    assert list(values[104:109]) == [1, 0, 0, 0, 0]
    assert values[109:114] == pytest.approx([13 / 65, 1 / 50, 1, 1, 1])
    assert list(values[114:117]) == [0, 1, 0]


def test_duel_layout():
    values = encode(game_with("10H AS 2S", seats=2), 0, "e117_duel")

    assert list(values[104:106]) == [1, 0]
    assert values[106:113] == pytest.approx([13 / 65, 0.01, 1 / 52, 0.6, 1, 1, 1])
    assert list(values[113:117]) == [0, 1, 0, 0]


def test_a_layout_refuses_more_seats_than_it_names():
    with pytest.raises(ValueError, match="'e117_duel' names at most 2 seats; the round has 4"):
        encode(game_with("AS"), 0, "e117_duel")


def test_phases_head_gives_each_phase_its_own_outputs():
    game = game_with("5S 6S 7S KD QC")

    assert list(np.flatnonzero(legal_actions(game, "phases"))) == [0, 1, 2, 3, 4, 5]
    assert choice(game, 1, "phases") == legal_discards(game.hands[0])[1]
    game.phase = Phase.CALL
    assert list(np.flatnonzero(legal_actions(game, "phases"))) == [16, 17]
    assert [choice(game, action, "phases") for action in (16, 17)] == [False, True]
    game.phase = Phase.DRAW
    assert list(np.flatnonzero(legal_actions(game, "phases"))) == [18, 19]
    assert [choice(game, action, "phases") for action in (18, 19)] == [False, True]
    with pytest.raises(
        ValueError, match="action 16 means nothing while seat 0 is to draw; expected one of \\[18, 19\\]"
    ):
        choice(game, 16, "phases")


def test_sets_head_names_every_set_of_cards_once():
    game = game_with("5S 6S 7S KD KC")

    assert head_size("sets") == 52 + 13 * 11 + 4 * (11 + 10 + 9) + 4
    legal = np.flatnonzero(legal_actions(game, "sets")).tolist()
    assert sorted(choice(game, action, "sets") for action in legal) == list(legal_discards(game.hands[0]))
    assert choice(game, card_id("KD"), "sets") == (card_id("KD"),)
    with pytest.raises(ValueError, match="action 0 means nothing"):
        choice(game, 0, "sets")
    game.phase = Phase.CALL
    assert [choice(game, action, "sets") for action in (315, 316)] == [False, True]
    game.phase = Phase.DRAW
    assert [choice(game, action, "sets") for action in (317, 318)] == [False, True]


def test_released_defects_of_the_action_head():
    game = game_with("AS 2S 3H", phase=Phase.CALL)

    assert list(np.flatnonzero(legal_actions(game, "flat128"))) == [0, 1]
    assert choice(game, 0, "flat128") is False
    assert choice(game, 0, "flat128", ["call_first"]) is True
    assert legal_actions(game, "flat128", ["modulo"]).all()
    assert choice(game, 127, "flat128", ["modulo"]) is True


# --- the environment ----------------------------------------------------------------------------------------


def play_through(environment, index=0, seed=0, choose=None):
    """Play a task with the lowest legal action, or with ``choose(episode)``."""
    task = next(task for i, task in enumerate(environment.tasks(Split.TRAIN)) if i == index)
    episode = environment.start(task, seed)
    seen, feedback = episode.open(), None
    steps = []
    while feedback is None or not feedback.done:
        assert seen.values.shape == (environment.features,)
        assert seen.legal.shape == (environment.actions,)
        assert seen.legal.any()
        action = int(np.flatnonzero(seen.legal)[0]) if choose is None else choose(episode, seen)
        feedback = episode.step(Action(tokens=(action,), logprobs=(0.0,)))
        steps.append((seen, action, feedback))
        seen = feedback.observation
    episode.close()
    return episode, steps


configs = st.fixed_dictionaries(
    {
        "encoding": st.sampled_from(sorted(LENGTHS)),
        "head": st.sampled_from(["sets", "phases", "flat128"]),
        "reward": st.sampled_from(["shaped", "coins", "released"]),
        "pickup": st.sampled_from(["own_top", "previous_top"]),
        "opponents": st.sampled_from([["aggressive"], ["balanced"], ["opportunistic"]]),
    }
)


@given(configs, st.integers(0, 50), st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_every_observation_offers_a_legal_action_and_rounds_end(config, index, seed, rng):
    environment = DhumbalEnvironment(DhumbalConfig(**config))

    _, steps = play_through(
        environment, index, seed, choose=lambda _, seen: rng.choice(np.flatnonzero(seen.legal).tolist())
    )

    assert len(steps) <= 150
    assert set(steps[-1][2].metrics) == {"correct", "dhumbal/coins", "dhumbal/called", "dhumbal/turns"}


def test_the_learners_seat_rotates_and_splits_share_no_deal():
    environment = DhumbalEnvironment(DhumbalConfig())
    train = [task for task, _ in zip(environment.tasks(Split.TRAIN), range(8), strict=False)]
    held_out = [task for task, _ in zip(environment.tasks(Split.EVAL), range(8), strict=False)]

    assert [task.metadata["seat"] for task in train] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert {task.metadata["deal"] for task in train}.isdisjoint(task.metadata["deal"] for task in held_out)


def test_same_task_and_seed_give_the_same_play_and_siblings_the_same_cards():
    environment = DhumbalEnvironment(DhumbalConfig())
    _, one = play_through(environment, 4, seed=1)
    _, two = play_through(environment, 4, seed=1)
    _, sibling = play_through(environment, 4, seed=2)  # task 4 seats the learner first

    assert [(a, f.reward) for _, a, f in one] == [(a, f.reward) for _, a, f in two]
    assert (one[0][0].values == sibling[0][0].values).all()


def hand_of(features):
    return [card for card in range(52) if features.values[card]]


def points_of(features):
    return sum(card % 13 + 1 for card in hand_of(features))


@pytest.mark.parametrize("reward", ["shaped", "released"])
def test_rewards_on_the_way_are_points_lost(reward):
    environment = DhumbalEnvironment(DhumbalConfig(reward=reward))
    _, steps = play_through(environment, 0, seed=3)

    for seen, action, feedback in steps[:-1]:
        phase = int(seen.values[120:123].argmax())
        if phase == 1:
            place = np.flatnonzero(seen.legal).tolist().index(action)
            assert place == 0
            expected = sum(card % 13 + 1 for card in min(legal_discards(hand_of(seen)), key=lambda c: (len(c), c))) / 13
        elif phase == 2:
            after = (points_of(seen) - points_of(feedback.observation)) / 13
            expected = after if reward == "shaped" else -0.1
        else:
            expected = 0.0
        assert feedback.reward == pytest.approx(expected)


def test_shaping_adds_up_to_the_points_lost_in_the_round():
    environment = DhumbalEnvironment(DhumbalConfig())
    episode, steps = play_through(environment, 0, seed=3)
    coins = steps[-1][2].metrics["dhumbal/coins"]
    lost = points_of(steps[0][0]) - episode._game.points[0]

    assert sum(feedback.reward for *_, feedback in steps) == pytest.approx(coins / 20 + lost / 13)


def test_coins_reward_pays_only_at_the_end():
    environment = DhumbalEnvironment(DhumbalConfig(reward="coins"))
    _, steps = play_through(environment)

    assert all(feedback.reward == 0 for _, _, feedback in steps[:-1])
    assert steps[-1][2].reward == pytest.approx(steps[-1][2].metrics["dhumbal/coins"] / 20)


@pytest.mark.parametrize(("own", "reward"), [("AS 2S", 18 + 31 + 11), ("8S 2S 3S", -(13 + 12 + 31 + 11))])
def test_released_reward_of_a_call(own, reward):
    environment = DhumbalEnvironment(DhumbalConfig(reward="released"))
    episode = environment.start(next(iter(environment.tasks(Split.TRAIN))), 0)
    episode.open()
    game = episode._game
    game.hands[0] = [card_id(name) for name in own.split()]
    game.points[:] = [sum(c % 13 + 1 for c in game.hands[0]), 18 if reward > 0 else 12, 31, 11]
    game.phase = Phase.CALL

    assert episode.step(Action(tokens=(316,), logprobs=(0.0,))).reward == reward


def test_endless_rounds_look_beyond_the_end():
    environment = DhumbalEnvironment(DhumbalConfig(defects=["endless_rounds"]))
    _, steps = play_through(environment)

    assert steps[-1][2].truncated
    assert steps[-1][2].observation.legal.any()


def test_aggressive_play_through_the_environment_wins():
    environment = DhumbalEnvironment(DhumbalConfig())
    player = Aggressive()

    def choose(episode, seen):
        game = episode._game
        wanted = {Phase.CALL: player.call, Phase.DISCARD: player.discard, Phase.DRAW: player.draw}[game.phase](game)
        wanted = tuple(sorted(wanted)) if game.phase == Phase.DISCARD else wanted
        return next(a for a in np.flatnonzero(seen.legal).tolist() if choice(game, a, "sets") == wanted)

    won = [play_through(environment, i, i, choose)[1][-1][2].metrics["correct"] for i in range(60)]

    assert sum(won) >= 54


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opponents": [{"player": "network"}]}, "a network cannot be an opponent in training"),
        ({"encoding": "e117_duel"}, "e117_duel names at most 2 seats, 4 are given"),
        ({"defects": ["modulo"]}, "modulo belongs to the head flat128"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        DhumbalConfig(**options)


# --- replay and Q-learning ------------------------------------------------------------------------------------


def collected(environment, count):
    """A ``collect`` that plays the lowest legal action."""
    from orchestrator.api import Rollout, RolloutGroup, Score, Turn

    def collect(requests):
        groups = []
        for request in requests:
            episode = environment.start(request.task, 0)
            seen, turns, done = episode.open(), [], False
            while not done:
                action = Action(tokens=(int(np.flatnonzero(seen.legal)[0]),), logprobs=(-0.5,))
                feedback = episode.step(action)
                turns.append(Turn(observation=seen, action=action, reward=feedback.reward))
                seen, done = feedback.observation, feedback.done
            rollout = Rollout(task_id=request.task.id, index=0, seed=0, turns=tuple(turns), sampling=request.sampling)
            paid = tuple(turn.reward for turn in turns)
            groups.append(
                RolloutGroup(task=request.task, rollouts=(rollout,), scores=(Score(value=sum(paid), turns=paid),))
            )
        return groups

    tasks = [task for task, _ in zip(environment.tasks(Split.TRAIN), range(count), strict=False)]
    return tasks, collect


def test_replay_remembers_up_to_its_capacity_and_cools_down():
    environment = DhumbalEnvironment(DhumbalConfig())
    tasks, collect = collected(environment, 12)
    sampler = Replay(ReplayConfig(capacity=300, rollouts=3, temperature_start=2.0, temperature_end=1.5, decay=0.8))
    drawn = sampler.sample(tasks, collect)

    assert len(drawn) == 3
    assert all(group.rollouts[0].sampling.temperature == 2.0 for group in drawn)
    assert sampler.report()["dhumbal/replay_decisions"] <= 300
    assert sampler.report()["dhumbal/explore_temperature"] == pytest.approx(1.6)
    sampler.sample(tasks, collect)
    assert sampler.temperature == 1.5


def test_replay_state_survives_a_round_trip():
    environment = DhumbalEnvironment(DhumbalConfig())
    tasks, collect = collected(environment, 6)
    one, two = Replay(ReplayConfig()), Replay(ReplayConfig())
    one.sample(tasks, collect)
    two.load_state_dict(one.state_dict())
    torch.manual_seed(0)
    first = one.sample([], collect)
    torch.manual_seed(0)
    second = two.sample([], collect)

    assert [group.task.id for group in first] == [group.task.id for group in second]
    for a, b in zip(first, second, strict=True):
        assert a.scores == b.scores
        assert a.rollouts[0].sampling == b.rollouts[0].sampling
        for x, y in zip(a.rollouts[0].turns, b.rollouts[0].turns, strict=True):
            assert (x.observation.values == y.observation.values).all()
            assert (x.observation.legal == y.observation.legal).all()
            assert (x.action, x.reward) == (y.action, y.reward)


def test_q_targets_of_three_steps():
    # r = 1, 2, 3; V = 10, 20, 30; gamma = 0.5: 1 + 10 = 11, 2 + 15 = 17, 3 + 0
    mask = torch.tensor([[True, True, True, False]])
    targets = q_targets(
        torch.tensor([[1.0, 2.0, 3.0, 0.0]]), torch.tensor([[10.0, 20.0, 30.0, 40.0]]), mask, mask, gamma=0.5
    )

    assert_close(targets, torch.tensor([[11.0, 17.0, 3.0, 0.0]]))


def test_q_targets_value_the_state_a_play_was_cut_off_at():
    mask = torch.tensor([[True, False]])
    targets = q_targets(
        torch.tensor([[1.0, 0.0]]), torch.tensor([[10.0, 20.0]]), mask, torch.tensor([[True, True]]), gamma=0.5
    )

    assert_close(targets, torch.tensor([[11.0, 0.0]]))


def q_batch(temperature=1.0):
    mask = torch.tensor([[True, True]])
    legal = torch.tensor([[[True, True, False], [True, False, True]]])
    current = torch.tensor([[[1.0, 2.0, 9.0], [4.0, 9.0, 5.0]]], requires_grad=True)
    target = torch.tensor([[[0.0, 0.0, 9.0], [8.0, 9.0, 6.0]]])
    batch = Batch(
        inputs={
            "actions": torch.tensor([[1, 0]]),
            "legal": legal,
            "temperature": torch.tensor([temperature]),
        },
        mask=mask,
        behaviour_logprobs=torch.zeros(1, 2),
        rewards=torch.tensor([3.0]),
        turn_rewards=torch.tensor([[1.0, 2.0]]),
        group=torch.tensor([0]),
        turn=torch.tensor([[0, 1]]),
        demonstration=torch.tensor([False]),
        columns={TARGET: target / temperature},
    )
    return batch, {Column.LOGITS: current / temperature}, current


@pytest.mark.parametrize("temperature", [1.0, 0.25, 8.0])
@pytest.mark.parametrize(("double", "ahead"), [(False, 8.0), (True, 6.0)])
def test_q_learning_by_hand(temperature, double, ahead):
    # first decision: Q = 2, y = 1 + 0.5 ahead (action 1 is illegal next); second: Q = 4, y = 2
    batch, columns, current = q_batch(temperature)
    terms = QLearning(QLearningConfig(gamma=0.5, double=double)).terms(batch, columns)
    loss = reduce_terms(terms, batch)
    first, second = 2 - (1 + 0.5 * ahead), 4 - 2
    loss.backward()

    assert_close(loss.detach(), torch.tensor((first**2 + second**2) / 2))
    assert_close(current.grad, torch.tensor([[[0.0, first, 0.0], [float(second), 0.0, 0.0]]]))


def test_huber_grows_linearly_beyond_its_bound():
    batch, columns, _ = q_batch()
    terms = QLearning(QLearningConfig(gamma=0.5, huber=1.0)).terms(batch, columns)

    assert_close(terms.loss[0].values.detach(), torch.tensor([[3 - 0.5, 2 - 0.5]]))


def test_q_learning_needs_logits_of_the_target_network():
    assert QLearning.needs == {CURRENT, TARGET}
    assert Need(Weights.REFERENCE, Column.LOGITS) in QLearning.needs
    batch, columns, _ = q_batch()
    bare = {name: value for name, value in batch.inputs.items() if name != "legal"}
    from dataclasses import replace

    with pytest.raises(ValueError, match="needs a policy over features; this one's inputs lack legal"):
        QLearning(QLearningConfig()).terms(replace(batch, inputs=bare), columns)


# --- networks as players --------------------------------------------------------------------------------------


def test_an_untrained_network_plays_a_tournament_reproducibly(registry, tmp_path):
    config = TournamentConfig(players=["aggressive", {"player": "network", "name": "ppo"}, "random"], deals=6)
    runs = [
        play_tournament(Tournament(config, 1, registry), Chronicle(tmp_path / str(i)), lambda *_: None) for i in (0, 1)
    ]

    assert runs[0] == runs[1]


def test_a_networks_weights_are_loaded(registry, tmp_path):
    from safetensors.torch import save_file

    environment = DhumbalEnvironment(DhumbalConfig())
    policy = registry.build("policy", "mlp", {"hidden": (8,)})
    policy.prepare(environment, frozenset({Column.VALUE}))
    with torch.no_grad():
        policy.module.actor.bias[316] = 100.0  # call
    save_file(policy.module.state_dict(), tmp_path / "model.safetensors")
    options = {"player": "network", "checkpoint": str(tmp_path), "policy": {"use": "mlp", "hidden": (8,)}}
    tournament = Tournament(TournamentConfig(players=[options, "random"]), 0, registry)
    game = game_with("5S 5H", seats=2, phase=Phase.CALL)
    network = tournament.players[0]

    assert network.call(game) is True
    game.phase = Phase.DISCARD
    assert tuple(network.discard(game)) in legal_discards(game.hands[0])
    decide(game, network.discard(game))
    wrong = options | {"policy": {"use": "mlp", "hidden": (4,)}}
    with pytest.raises(ValueError, match="does not fit the player's policy"):
        Tournament(TournamentConfig(players=[wrong, "random"]), 0, registry)
    with pytest.raises(ValueError, match="needs a registry"):
        Tournament(TournamentConfig(players=[options, "random"]), 0)


def test_the_network_player_and_the_environment_read_the_same_actions(registry):
    environment = DhumbalEnvironment(DhumbalConfig())
    assert (environment.features, environment.actions) == (LENGTHS["e128"], head_size("sets"))
    policy = registry.build("policy", "mlp", {"hidden": (16,), "seed": 0})
    policy.prepare(environment, frozenset())
    spec = {"player": "network", "policy": {"use": "mlp", "hidden": (16,), "seed": 0}}
    player = Tournament(TournamentConfig(players=[spec, "random"]), 0, registry).players[0]

    def choose(episode, seen):
        context = Context(episode="x", agent=None, observations=(seen,), actions=(), seed=0)
        (action,) = policy.act([context], [Sampling(temperature=0)])
        game = episode._game
        asked = {Phase.CALL: player.call, Phase.DISCARD: player.discard, Phase.DRAW: player.draw}[game.phase](game)
        assert choice(game, action.tokens[0], "sets") == asked
        return action.tokens[0]

    play_through(environment, choose=choose)


def test_a_tournament_has_no_episodes(registry):
    environment = registry.build("environment", "dhumbal_tournament", {})

    assert list(environment.tasks(Split.TRAIN)) == []
    with pytest.raises(TypeError, match="set `procedure: dhumbal_tournament`"):
        environment.start(None, 0)
    assert Components(environment=environment).policy is None
