"""Batches of real episodes of several turns: right to the token, shown by playing each again from its row."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest
import torch
from orchestrator_plugins.causal_lm.config import CausalLMConfig
from orchestrator_plugins.causal_lm.policy import CausalLMPolicy
from orchestrator_plugins.causal_lm.tokenizer import CharacterTokenizer
from orchestrator_plugins.multi_turn.mini_world.words import WORDS

from orchestrator.api import (
    Action,
    Column,
    Finish,
    RolloutRequest,
    Sampling,
    Split,
    Weights,
    load_registry,
)
from orchestrator.rollout.assembly import assemble
from orchestrator.rollout.collector import Collector

REGISTRY = load_registry()
WORLDS = {
    "mini_world": ({"cut_action": "goes_on", "max_turns": 6}, WORDS),
    "chain_search": ({"letters": 3, "chain": 3, "hops": [1, 2], "expert_error": 0.5}, ("aa", "ab", "bc", "?ca")),
}
SMALL = {"preset": "tiny", "hidden": 32, "layers": 2, "heads": 2, "mlp": 48, "context": 512}


def policy_of(words, cls=CausalLMPolicy):
    torch.manual_seed(0)
    policy = cls(CausalLMConfig(model={**SMALL, "words": tuple(words)}))
    policy.prepare(None, frozenset({Column.VALUE}))
    policy.refresh()
    return policy


def play(policy, world, *, count=3, tasks=3, max_tokens=4, max_turns=32):
    """Sampled plays and demonstrations of a few tasks, scored by progress."""
    rewards = [("progress", 1.0, REGISTRY.build("reward", "progress", {}))]
    collect = Collector(
        world, policy, rewards, sampling=Sampling(temperature=1.5, max_tokens=max_tokens), max_turns=max_turns
    )
    chosen = list(islice(world.tasks(Split.TRAIN), tasks))
    requests = [RolloutRequest(task=task, count=count) for task in chosen]
    requests += [RolloutRequest(task=task, count=1, demonstrate=True) for task in chosen]
    groups = collect(requests)
    assert not collect.failures, collect.failures[0].error
    return groups


def replay(batch, row, world, task, tokenizer, *, cut_after=None):
    """Play a row of a batch again: what the policy read, said and was paid must be what lies in the row.

    :returns: finishes of the row's turns
    """
    tokens, mask = batch.inputs["tokens"][row].tolist(), batch.mask[row].tolist()
    turns, rewards = batch.turn[row].tolist(), batch.turn_rewards[row].double()
    episode = world.start(task, seed=0)
    observation, at, turn, before = episode.open(), 0, 0, []
    finishes, metrics, paid = [], {}, []
    while True:
        roles = tokenizer.role
        [message] = observation
        read = [*before, roles[message["role"]], *tokenizer.encode(message["content"]), roles["assistant"]]
        until = at + len(read)
        assert tokens[at:until] == read
        assert mask[at:until] == [False] * len(read)
        assert turns[at:until] == [-1] * len(read)
        assert not rewards[at:until].any()
        at = until
        while until < len(tokens) and turns[until] == turn:
            until += 1
        said = tokens[at:until]
        assert said
        assert mask[at:until] == [True] * len(said)
        finishes.append(Finish.STOP if said[-1] == tokenizer.eos else Finish.LENGTH)
        before = [] if finishes[-1] is Finish.STOP else [tokenizer.eos]
        text = tokenizer.decode(said)
        feedback = episode.step(Action(tokens=tuple(said), logprobs=(), text=text, finish=finishes[-1]))
        metrics = dict(feedback.metrics)
        assert not rewards[at : until - 1].any()
        paid.append(feedback.reward)
        assert float(rewards[until - 1]) == pytest.approx(feedback.reward / metrics["max_score"], abs=1e-6)
        at, turn = until, turn + 1
        if feedback.done or turn == cut_after:
            break
        observation = feedback.observation
    assert not any(mask[at:])
    assert set(turns[at:]) <= {-1}
    assert not rewards[at:].any()
    expected = 1.0 if metrics["correct"] else sum(paid) / metrics["max_score"]
    assert float(batch.rewards[row]) == pytest.approx(expected, abs=1e-6)
    return finishes


@pytest.mark.parametrize("name", WORLDS)
def test_every_row_of_a_batch_plays_the_same_episode_again(name):
    options, words = WORLDS[name]
    world = REGISTRY.build("environment", name, options)
    policy, tokenizer = policy_of(words), CharacterTokenizer(tuple(words))
    groups = play(policy, world)

    batch = assemble(policy, groups)

    rollouts = [rollout for group in groups for rollout in group.rollouts]
    tasks = {group.task.id: group.task for group in groups}
    finishes = []
    for row, rollout in enumerate(rollouts):
        finishes += replay(batch, row, world, tasks[rollout.task_id], tokenizer)
        assert batch.turn[row].max() == len(rollout.turns) - 1 >= 1
        assert bool(batch.demonstration[row]) == rollout.demonstration
    assert set(finishes) == set(Finish)  # ended by the policy and cut by the limit, both met
    sampled = ~batch.demonstration
    assert batch.turn_rewards[batch.demonstration].sum() > 0
    recomputed = policy.columns(batch.inputs, frozenset({Column.LOGPROB}))[Column.LOGPROB].detach()
    gap = torch.where(batch.mask & sampled[:, None], recomputed - batch.behaviour_logprobs, 0.0)
    assert float(gap.abs().max()) < 1e-4  # the tokens are asked about where they were sampled


def test_a_play_cut_by_the_sampler_ends_where_it_was_cut_and_its_value_follows():
    world = REGISTRY.build("environment", "mini_world", {"cut_action": "goes_on", "max_turns": 8})
    policy, tokenizer = policy_of(WORDS), CharacterTokenizer(WORDS)
    groups = [group for group in play(policy, world, max_turns=3) if not group.rollouts[0].demonstration]

    batch = assemble(policy, groups)

    for row, rollout in enumerate(rollout for group in groups for rollout in group.rollouts):
        task = next(group.task for group in groups if group.task.id == rollout.task_id)
        replay_ends = replay(replace(batch, bootstrap=None), row, world, task, tokenizer, cut_after=3)
        assert len(replay_ends) == 3
        [place] = batch.bootstrap[row].nonzero().flatten().tolist()
        assert place > int(batch.mask[row].nonzero().max())
        assert not batch.mask[row, place]


def test_a_play_that_outgrows_the_window_fails_and_no_row_is_cut_short():
    """A row cut in the middle of a turn would lose that turn's reward; such rows are never made."""
    world = REGISTRY.build("environment", "mini_world", {"cut_action": "goes_on", "max_turns": 8})
    torch.manual_seed(0)
    policy = CausalLMPolicy(CausalLMConfig(model={**SMALL, "context": 64, "words": WORDS}))
    tokenizer, tasks = CharacterTokenizer(WORDS), list(islice(world.tasks(Split.TRAIN), 3))
    rewards = [("progress", 1.0, REGISTRY.build("reward", "progress", {}))]
    collect = Collector(world, policy, rewards, sampling=Sampling(max_tokens=4))

    groups = collect([RolloutRequest(task=task, count=2) for task in tasks])
    groups += collect([RolloutRequest(task=task, count=1, demonstrate=True) for task in tasks])

    said = [str(rollout.error) for rollout in collect.failures]
    assert ["leave no room to act" in one for one in said] == [True] * 6 + [False] * 2  # every sampled play
    assert all("the policy's window has room for" in one for one in said[6:])  # two of three demonstrations
    kept = [group for group in groups if group.rollouts]
    batch = assemble(policy, kept)
    for row, group in enumerate(kept):
        replay(batch, row, world, group.task, tokenizer)
    assert batch.rewards.tolist() == [1.0]


class Speller(CausalLMPolicy):
    """Says what it was told to, letter by letter, where its tokenizer has a word for it; all else is the real policy's."""

    lines: tuple[str, ...] = ()
    stops = True

    def act(self, contexts, sampling):
        tokenizer = CharacterTokenizer(self._config.model.words)
        letters = CharacterTokenizer()
        actions = []
        for context in contexts:
            text = self.lines[len(context.actions)]
            ids = (*letters.encode(text), *([tokenizer.eos] if self.stops else []))
            finish = Finish.STOP if self.stops else Finish.LENGTH
            actions.append(Action(tokens=ids, logprobs=(-0.5,) * len(ids), text=text, finish=finish))
        return actions


@pytest.mark.parametrize("stops", [True, False])
def test_sampled_ids_are_trained_where_reading_the_text_again_would_merge_them(stops):
    world = REGISTRY.build("environment", "chain_search", {"letters": 3, "chain": 3, "hops": [1]})
    task = next(iter(world.tasks(Split.TRAIN)))
    chain = task.metadata["chain"]
    first, answer = f"{chain[0]}?{chain[0]}", f"{chain[1]}!{chain[1]}"
    shown = f"{chain[0]}>{chain[1]}" if stops else "none"
    border = first[-3:] + shown[0]  # ends one turn and begins the next observation
    words = (chain[0], chain[1], border)
    policy, tokenizer = policy_of(words, Speller), CharacterTokenizer(words)
    policy.lines, policy.stops = (first, answer, answer, answer, answer), stops

    groups = Collector(world, policy, (), sampling=Sampling(max_tokens=8))([RolloutRequest(task=task, count=1)])
    batch = assemble(policy, groups)

    said = [token for turn in groups[0].rollouts[0].turns for token in turn.action.tokens]
    row = batch.inputs["tokens"][0]
    assert row[batch.mask[0]].tolist() == said
    assert len(groups[0].rollouts[0].turns) >= 2
    assert (replay(batch, 0, world, task, tokenizer)[0] is Finish.STOP) == stops
    # read back as text, the row would have other ids: words within turns, and one across the border of two
    text = tokenizer.decode(row.tolist())
    assert border in text
    reread = tokenizer.encode(text)
    assert tokenizer.encode(border)[0] in reread
    assert set(said) - {tokenizer.eos} <= set(CharacterTokenizer().encode("abc?!"))
    assert [token for token in row.tolist() if token >= 7] != list(reread)


def test_a_tokenizer_that_merges_across_turns_trains_the_sampled_ids(tmp_path):
    """Byte-pair encoding of a real model folder, whose chat template puts nothing but line breaks between turns."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "b"), ("b", "Ċ"), ("a", "Ċ"), ("c", "Ċ")]
    vocabulary = {token: i for i, token in enumerate([*letters, *("".join(pair) for pair in merges)])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
        )
    ).save_pretrained(tmp_path)  # fmt: skip
    tokenizer.save_pretrained(tmp_path)
    world = REGISTRY.build("environment", "chain_search", {"letters": 3, "chain": 3, "hops": [1]})
    policy = CausalLMPolicy(CausalLMConfig(model={"path": str(tmp_path)}))
    spelt = tuple(tokenizer.convert_tokens_to_ids(list("ab?ab")))  # without eos: cut by the limit
    said = Action(tokens=spelt, logprobs=(-1.0,) * 5, text="ab?ab", finish=Finish.LENGTH)
    policy.act = lambda contexts, sampling: [said for _ in contexts]

    groups = Collector(world, policy, (), sampling=Sampling(max_tokens=5))(
        [RolloutRequest(task=next(iter(world.tasks(Split.TRAIN))), count=1)]
    )
    batch = assemble(policy, groups)

    turns = len(groups[0].rollouts[0].turns)
    row = batch.inputs["tokens"][0]
    assert turns >= 2
    assert row[batch.mask[0]].tolist() == [*spelt] * turns
    assert batch.turn[0][batch.mask[0]].tolist() == [turn for turn in range(turns) for _ in spelt]
    crossing = tokenizer("ab?ab\nnone").input_ids
    assert tokenizer.convert_tokens_to_ids("bĊ") not in row.tolist()
    assert crossing[:5] != list(spelt)  # reading the text again would train other ids


def test_the_agents_recipes_update_on_a_batch_of_several_turns():
    """The statistics the recipes' estimators need are there, on the policy's tokens alone."""
    options, words = WORLDS["mini_world"]
    world = REGISTRY.build("environment", "mini_world", options)
    policy = policy_of(words)
    batch = assemble(policy, play(policy, world, tasks=2))
    estimator = REGISTRY.build("advantage", "kl_penalised", {"weight": 0.1, "inner": {"use": "turn_gae"}})
    columns = policy.columns(batch.inputs, frozenset({need.column for need in estimator.needs}))
    frozen = {need: columns[need.column].detach() for need in estimator.needs}
    moved = {need: value - (0.5 if need.weights is Weights.REFERENCE else 0.0) for need, value in frozen.items()}

    credit = estimator.estimate(replace(batch, columns=moved))

    assert credit.metrics["multi_turn/kl_reference"] == pytest.approx(0.5, abs=1e-5)
    assert not credit.advantages[~batch.mask].any()
    assert not credit.returns[~batch.mask].any()
