"""Scripted policies and made-up batches are what they say."""

import orchestrator_plugins.baselines
import pytest
import torch
from torch.testing import assert_close

import orchestrator.testing
from orchestrator.contract.batch import Column, Need, Weights
from orchestrator.contract.types import Finish, RolloutRequest, Sampling, Split
from orchestrator.errors import PluginContractError
from orchestrator.rollout.assembly import assemble
from orchestrator.rollout.collector import Collector
from orchestrator.testing import (
    CorridorEnvironment,
    EchoEnvironment,
    ScriptedChoices,
    ScriptedPolicy,
    load_only,
    make_batch,
    make_outputs,
)

ALL = frozenset(Column)


def _collected(world, policy, count=3, **options):
    collect = Collector(world, policy, (), **options)
    return collect([RolloutRequest(task=next(iter(world.tasks(Split.TRAIN))), count=count)])


def test_a_script_is_played_in_turn_and_over_again():
    groups = _collected(EchoEnvironment(("ab",)), ScriptedPolicy(("ab", "no")))

    rollouts = groups[0].rollouts
    assert [rollout.turns[0].action.text for rollout in rollouts] == ["ab", "no", "ab"]
    assert [score.value for score in groups[0].scores] == [1, 0, 1]
    assert [rollout.metrics["correct"] for rollout in rollouts] == [1, 0, 1]


def test_a_long_text_is_cut_at_the_token_limit():
    groups = _collected(EchoEnvironment(), ScriptedPolicy(("abcdef",)), count=1, sampling=Sampling(max_tokens=3))

    action = groups[0].rollouts[0].turns[0].action
    assert (action.text, action.finish, len(action.tokens)) == ("abc", Finish.LENGTH, 3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_statistics_of_a_scripted_policy_agree_with_what_it_recorded(temperature):
    policy = ScriptedPolicy(("ab", "x"))
    groups = _collected(EchoEnvironment(), policy, sampling=Sampling(temperature=temperature))

    batch = assemble(policy, groups)
    columns = policy.columns(batch.inputs, ALL)

    recomputed = torch.where(batch.mask, columns[Column.LOGPROB], 0.0)
    assert_close(recomputed, batch.behaviour_logprobs, atol=1e-5, rtol=0)
    assert_close(columns[Column.LOGITS].log_softmax(-1).mean(-1), columns[Column.VOCAB_MEAN_LOGPROB])
    assert (columns[Column.ENTROPY] > 0).all()


def test_a_play_that_was_cut_off_has_a_state_to_value():
    policy, world = ScriptedChoices((1, 0)), CorridorEnvironment()
    policy.prepare(world, ALL)

    batch = assemble(policy, _collected(world, policy, count=1, max_turns=3))

    assert batch.mask.tolist() == [[True, True, True, False]]
    assert batch.bootstrap.tolist() == [[False, False, False, True]]
    assert batch.turn_rewards.sum().item() == pytest.approx(-0.3)
    assert batch.inputs["features"][0, 3].tolist() == pytest.approx([0.1, 0.2])


def test_an_illegal_scripted_choice_is_refused():
    policy, world = ScriptedChoices((0,)), CorridorEnvironment()
    policy.prepare(world, ALL)

    with pytest.raises(ValueError, match=r"takes action 0, legal are \[1\]"):
        _collected(world, policy)


def test_made_up_batches_are_whole_and_consistent():
    needs = {Need(Weights.OLD, Column.LOGPROB), Need(Weights.REFERENCE, Column.LOGITS)}
    batch = make_batch(sizes=(2, 3), needs=needs, dtype=torch.float64, demonstrations=True)

    assert set(batch.columns) == needs
    assert batch.group.tolist() == [0, 0, 1, 1, 1]
    assert batch.demonstration.tolist() == [False, True, False, False, True]
    assert_close(batch.turn_rewards.sum(1), batch.rewards)
    assert ((batch.turn >= 0) == batch.mask).all()
    assert batch.max_tokens == batch.mask.sum(1).max()
    chances = batch.against[2:, :3]
    assert_close(chances + chances.T, torch.ones(3, 3, dtype=torch.float64))
    assert batch.against[:2, 2].isnan().all()


def test_given_rewards_and_lengths_are_kept():
    batch = make_batch(sizes=(2, 1), rewards=(1.0, 0.0, 3.0), lengths=(1, 4, 2))

    assert batch.rewards.tolist() == [1, 0, 3]
    assert batch.mask.sum(1).tolist() == [1, 4, 2]
    with pytest.raises(ValueError, match="2 rewards for 3 rows"):
        make_batch(sizes=(2, 1), rewards=(1.0, 0.0))


def test_outputs_are_differentiable_statistics_of_the_batch():
    batch = make_batch(dtype=torch.float64)
    outputs = make_outputs(batch)

    columns = outputs.columns(batch, {Column.LOGPROB, Column.VALUE})
    columns[Column.LOGPROB].sum().backward()

    assert columns[Column.VALUE] is outputs.values
    assert_close(outputs.logits.grad.sum(-1), torch.zeros(batch.mask.shape, dtype=torch.float64), atol=1e-12, rtol=0)


def test_load_only_knows_nothing_else():
    by_module, by_name = load_only(orchestrator_plugins.baselines), load_only("baselines")

    assert by_module.names("objective") == by_name.names("objective") == ("clipped", "cross_entropy", "reinforce")
    assert by_module.names("policy") == ()
    with pytest.raises(PluginContractError, match="no plugin 'no_such_plugin'"):
        load_only("no_such_plugin")


def test_the_public_names_are_sorted_and_exist():
    names = orchestrator.testing.__all__

    assert names == sorted(names)
    assert all(hasattr(orchestrator.testing, name) for name in names)
