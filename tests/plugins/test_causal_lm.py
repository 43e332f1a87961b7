"""The policy causal_lm: what it says, what it records about it, and what it recomputes from the record."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from orchestrator_plugins.causal_lm import statistics
from orchestrator_plugins.causal_lm.config import CausalLMConfig
from orchestrator_plugins.causal_lm.policy import CausalLMPolicy
from orchestrator_plugins.causal_lm.tokenizer import CharacterTokenizer

from orchestrator.api import (
    Action,
    Column,
    ConfigError,
    Context,
    ContextError,
    Finish,
    Rollout,
    Sampling,
    Stop,
    Turn,
    load_registry,
)

FORWARDS = ("lean", "transformers")
PER_TOKEN = frozenset(Column) - {Column.LOGITS}


def build(forward: str = "lean", noise: float = 0.1, critic: str | None = None, **options) -> CausalLMPolicy:
    """A small policy with weights far from their initial ones, so that distributions are not flat."""
    model = {"preset": "tiny", "hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "mlp": 48, "context": 256}
    model |= options.pop("model", {})
    config = CausalLMConfig(model=model, forward=forward, critic=critic or "head", **options)
    policy = CausalLMPolicy(config)
    if critic:
        policy.prepare(None, frozenset({Column.VALUE}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.module.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
    policy.refresh()
    return policy


def context(*texts: str, actions: tuple[Action, ...] = (), seed: int = 0) -> Context:
    observations = tuple(({"role": "user", "content": text},) for text in texts)
    return Context(episode="e", agent=None, observations=observations, actions=actions, seed=seed)


def play(policy: CausalLMPolicy, texts: list[str], sampling: list[Sampling]) -> list[Rollout]:
    """Two turns with every first message; the second is of a length of its own."""
    first = [context(text, seed=7 * place) for place, text in enumerate(texts)]
    said = policy.act(first, sampling)
    second = [
        context(text, "and" * (place % 3), actions=(action,), seed=1000 + place)
        for place, (text, action) in enumerate(zip(texts, said, strict=True))
    ]
    answered = policy.act(second, sampling)
    return [
        Rollout(
            task_id="t",
            index=place,
            seed=0,
            sampling=settings,
            turns=tuple(
                Turn(observation=observation, action=action)
                for observation, action in zip(seen.observations, (one, other), strict=True)
            ),
        )
        for place, (seen, one, other, settings) in enumerate(zip(second, said, answered, sampling, strict=True))
    ]


def mixed_rollouts(policy: CausalLMPolicy) -> list[Rollout]:
    texts = ["1 2 3 = 6", "1 2 3 = 6", "1 2 3 = 6", "9", "", "8 8 = 16 please", "9"]
    sampling = [Sampling(temperature=0.6 + 0.2 * i, max_tokens=3 + 2 * i) for i in range(len(texts))]
    return play(policy, texts, sampling)


def plain_statistics(policy: CausalLMPolicy, tokens: list[int], temperature: float) -> dict[Column, torch.Tensor]:
    """Every statistic of one row, by transformers' own forward pass without cache, padding or batch."""
    transformer = policy.module.transformer
    with torch.no_grad():
        output = transformer(input_ids=torch.tensor([tokens]), use_cache=False, output_hidden_states=True)
    logits = output.logits[0, :-1].double() / temperature
    logprobs = torch.log_softmax(logits, -1)
    columns = {
        Column.LOGPROB: logprobs.gather(1, torch.tensor(tokens[1:])[:, None])[:, 0],
        Column.ENTROPY: -(logprobs.exp() * logprobs).sum(-1),
        Column.VOCAB_MEAN_LOGPROB: logprobs.mean(-1),
        Column.LOGITS: logits,
    }
    critic = policy.module.critic
    if critic is not None:
        with torch.no_grad():
            if critic.backbone is None:
                states = output.hidden_states[-1][0, :-1]
            else:
                states = critic.backbone(input_ids=torch.tensor([tokens])).last_hidden_state[0, :-1]
            columns[Column.VALUE] = critic.score(states)[:, 0].double()
    return columns


@pytest.mark.parametrize("forward", FORWARDS)
def test_recorded_logprobs_are_those_of_a_plain_forward_pass(forward):
    policy = build(forward)

    for rollout in mixed_rollouts(policy):
        tokens = []
        for turn, observation in zip(rollout.turns, range(2), strict=True):
            seen = [t.observation for t in rollout.turns[: observation + 1]]
            prompt = policy.renderer.context(seen, [t.action for t in rollout.turns[:observation]])
            tokens = [*prompt, *turn.action.tokens]
            expected = plain_statistics(policy, tokens, rollout.sampling.temperature)[Column.LOGPROB]
            recorded = torch.tensor(turn.action.logprobs, dtype=torch.float64)
            torch.testing.assert_close(recorded, expected[len(prompt) - 1 :], atol=2e-5, rtol=0)


@pytest.mark.parametrize("forward", FORWARDS)
def test_training_and_acting_agree_with_padding_turns_and_temperatures(forward):
    policy = build(forward)
    rollouts = mixed_rollouts(policy)

    packed = policy.pack(rollouts)
    logprobs = policy.columns(packed.inputs, frozenset({Column.LOGPROB}))[Column.LOGPROB]

    assert len({int(row.sum()) for row in packed.mask}) > 3  # rows of different length
    assert packed.mask.any()
    assert (logprobs - packed.behaviour_logprobs).abs().max() < 1e-4
    assert (logprobs[~packed.mask] == 0).all()


@pytest.mark.parametrize("forward", FORWARDS)
@pytest.mark.parametrize("critic", ["head", "separate"])
def test_columns_equal_a_plain_forward_pass(forward, critic):
    policy = build(forward, critic=critic, model={"dtype": "float64"})
    packed = policy.pack(mixed_rollouts(policy))

    columns = policy.columns(packed.inputs, frozenset(Column))

    for row, mask in enumerate(packed.mask):
        length = int(packed.inputs["attention_mask"][row].sum())
        temperature = packed.inputs["temperature"][row].item()
        expected = plain_statistics(policy, packed.inputs["tokens"][row, :length].tolist(), temperature)
        places = mask.nonzero()[:, 0]
        for column, values in columns.items():
            torch.testing.assert_close(values[row, places], expected[column][places - 1], atol=1e-5, rtol=1e-5)
            assert (values[row, ~mask] == 0).all()


def test_unless_told_otherwise_every_token_but_the_first_is_asked_about():
    policy = build()
    tokens = torch.tensor([[4, 20, 30, 5, 40, 41, 1], [4, 21, 5, 42, 1, 0, 0]])
    present = torch.tensor([[1] * 7, [1] * 5 + [0] * 2])

    columns = policy.columns({"tokens": tokens, "attention_mask": present}, frozenset({Column.LOGPROB, Column.LOGITS}))

    for row, length in enumerate((7, 5)):
        expected = plain_statistics(policy, tokens[row, :length].tolist(), 1.0)
        for column in columns:
            found = columns[column][row].double()
            torch.testing.assert_close(found[1:length], expected[column], atol=2e-5, rtol=1e-5)
            assert (found[length:] == 0).all()
            assert (found[0] == 0).all()


def test_only_what_is_wanted_is_computed():
    policy = build()
    packed = policy.pack(mixed_rollouts(policy))

    columns = policy.columns(packed.inputs, frozenset({Column.ENTROPY}))

    assert set(columns) == {Column.ENTROPY}
    with pytest.raises(RuntimeError, match="no critic"):
        policy.columns(packed.inputs, frozenset({Column.VALUE}))


@pytest.mark.parametrize("critic", ["head", "separate"])
def test_gradients_of_the_lean_pass_are_those_of_transformers(critic):
    gradients = []
    for forward in FORWARDS:
        policy = build(forward, critic=critic, model={"dtype": "float64"})
        rollouts = gradients[0][1] if gradients else mixed_rollouts(policy)
        packed = policy.pack(rollouts)
        columns = policy.columns(packed.inputs, PER_TOKEN)
        generator = torch.Generator().manual_seed(1)
        weights = {column: torch.randn(packed.mask.shape, generator=generator) for column in sorted(PER_TOKEN)}
        sum((weights[column] * columns[column]).sum() for column in sorted(PER_TOKEN)).backward()
        gradients.append(({name: p.grad for name, p in policy.module.named_parameters()}, rollouts))

    (lean, _), (plain, _) = gradients
    assert lean.keys() == plain.keys()
    for name in lean:
        torch.testing.assert_close(lean[name], plain[name], atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.parametrize("forward", FORWARDS)
def test_padding_order_and_company_of_rows_change_nothing(forward):
    policy = build(forward, model={"dtype": "float64"})
    packed = policy.pack(mixed_rollouts(policy))
    wanted = frozenset({Column.LOGPROB, Column.ENTROPY})

    def gradient(inputs, weights):
        policy.module.zero_grad()
        columns = policy.columns(inputs, wanted)
        sum((weights * values).sum() for values in columns.values()).backward()
        return columns, [p.grad.clone() for p in policy.module.parameters()]

    weights = torch.randn(packed.mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    whole, whole_gradient = gradient(packed.inputs, weights)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    wider = {
        name: torch.nn.functional.pad(t[order], (0, 9)) if t.dim() == 2 else t[order]
        for name, t in packed.inputs.items()
    }
    moved, moved_gradient = gradient(wider, torch.nn.functional.pad(weights[order], (0, 9)))
    pieces = [gradient({name: t[[row]] for name, t in packed.inputs.items()}, weights[[row]]) for row in range(7)]

    for column in wanted:
        torch.testing.assert_close(moved[column][:, :-9], whole[column][order], atol=1e-9, rtol=0)
        torch.testing.assert_close(torch.cat([p[0][column] for p in pieces]), whole[column], atol=1e-9, rtol=0)
    for place, expected in enumerate(whole_gradient):
        torch.testing.assert_close(moved_gradient[place], expected, atol=1e-8, rtol=1e-8)
        torch.testing.assert_close(sum(p[1][place] for p in pieces), expected, atol=1e-8, rtol=1e-8)


def test_untrained_tokens_after_the_last_trained_one_change_nothing():
    policy = build()
    packed = policy.pack(mixed_rollouts(policy))
    changed = dict(packed.inputs)
    behind = ~packed.mask & (packed.mask.long().flip(1).cumsum(1).flip(1) == 0)
    changed["tokens"] = torch.where(behind, 33, packed.inputs["tokens"])

    wanted = frozenset({Column.LOGPROB})
    torch.testing.assert_close(policy.columns(changed, wanted), policy.columns(packed.inputs, wanted), rtol=0, atol=0)


def test_logits_taken_in_chunks_give_the_same_numbers_and_gradients(monkeypatch):
    results = []
    for chunk in (1 << 23, 5 * 103):
        monkeypatch.setattr(statistics, "CHUNK", chunk)
        policy = build(model={"dtype": "float64"})
        packed = policy.pack(mixed_rollouts(policy))
        columns = policy.columns(packed.inputs, frozenset({Column.LOGPROB, Column.ENTROPY}))
        (columns[Column.LOGPROB].sum() + columns[Column.ENTROPY].square().sum()).backward()
        results.append((columns, [p.grad for p in policy.module.parameters()]))

    torch.testing.assert_close(results[0], results[1], atol=1e-9, rtol=1e-9)


def test_values_see_only_what_comes_before_the_token():
    policy = build(critic="separate")
    packed = policy.pack(mixed_rollouts(policy))
    row, places = 0, packed.mask[0].nonzero()[:, 0]
    changed = {name: t.clone() for name, t in packed.inputs.items()}
    changed["tokens"][row, places[2]] = 50

    before, after = (
        policy.columns(inputs, frozenset({Column.VALUE}))[Column.VALUE][row] for inputs in (packed.inputs, changed)
    )

    torch.testing.assert_close(before[places[:3]], after[places[:3]], rtol=0, atol=1e-6)
    assert (before[places[3:]] - after[places[3:]]).abs().min() > 1e-6


def test_a_new_critic_says_zero_and_its_parameters_are_named_critic():
    for kind in ("head", "separate"):
        policy = CausalLMPolicy(CausalLMConfig(critic=kind))
        assert policy.module.critic is None
        policy.prepare(None, frozenset({Column.VALUE}))
        packed = policy.pack(play(policy, ["a", "b"], [Sampling(max_tokens=4)] * 2))

        values = policy.columns(packed.inputs, frozenset({Column.VALUE}))[Column.VALUE]

        assert (values == 0).all()
        names = [name for name, _ in policy.module.named_parameters()]
        assert "critic.score.weight" in names
        assert ("critic.backbone.embed_tokens.weight" in names) == (kind == "separate")


@pytest.mark.parametrize("forward", FORWARDS)
def test_actions_depend_on_their_own_context_and_seed_alone(forward):
    policy = build(forward)
    texts = ["1 2", "1 2", "a much longer question than the others", "", "7 7 7"]
    contexts = [context(text, seed=place // 2) for place, text in enumerate(texts)]
    sampling = [
        Sampling(max_tokens=12),
        Sampling(max_tokens=20),
        Sampling(max_tokens=9, top_p=0.9),
        Sampling(),
        Sampling(),
    ]

    together = policy.act(contexts, sampling)
    backwards = policy.act(contexts[::-1], sampling[::-1])[::-1]
    alone = [policy.act([one], [settings])[0] for one, settings in zip(contexts, sampling, strict=True)]

    for others in (backwards, alone):
        for one, other in zip(together, others, strict=True):
            assert one.tokens == other.tokens
            torch.testing.assert_close(torch.tensor(one.logprobs), torch.tensor(other.logprobs), atol=1e-5, rtol=0)
    assert together[0].tokens == together[1].tokens[: len(together[0].tokens)]  # same prompt, same seed
    assert len({policy.act([replace(contexts[0], seed=seed)], sampling[:1])[0].tokens for seed in range(8)}) > 6


def test_few_rows_at_once_give_the_same_actions():
    contexts = [context("1 2" * (place % 4), seed=place) for place in range(11)]
    sampling = [Sampling(max_tokens=8)] * 11

    expected = build().act(contexts, sampling)
    found = build(batch_rows=3).act(contexts, sampling)

    assert [action.tokens for action in found] == [action.tokens for action in expected]


def test_the_cache_outgrows_its_first_size():
    policy = build(model={"context": 512})
    sampling = Sampling(max_tokens=200)

    (action,) = policy.act([context("x")], [replace(sampling, top_k=5)])

    tokens = [*policy.renderer.context([({"role": "user", "content": "x"},)], []), *action.tokens]
    assert len(action.tokens) > 100
    expected = plain_statistics(policy, tokens, 1.0)[Column.LOGPROB][-len(action.tokens) :]
    torch.testing.assert_close(torch.tensor(action.logprobs).double(), expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("forward", FORWARDS)
def test_greedy_decoding_with_a_cache_equals_decoding_without(forward):
    policy = build(forward)
    prompt = list(policy.renderer.context([({"role": "user", "content": "5 4 3"},)], []))

    (action,) = policy.act([context("5 4 3")], [Sampling(temperature=0, max_tokens=10)])

    tokens = prompt
    for token in action.tokens:
        with torch.no_grad():
            logits = policy.module.transformer(input_ids=torch.tensor([tokens])).logits[0, -1]
        assert token == logits.argmax().item()
        tokens = [*tokens, token]
    assert action.sampled_logprobs == (0.0,) * len(action.tokens)


def favour(policy: CausalLMPolicy, token: int) -> None:
    """Make one token nearly certain whatever came before."""
    with torch.no_grad():
        embedding = policy.module.transformer.get_input_embeddings().weight
        norm = policy.module.transformer.model.norm.weight
        norm.zero_()
        norm[0] = 1.0
        embedding[:, 0] = 0
        for layer in policy.module.transformer.model.layers:
            layer.self_attn.o_proj.weight[0] = 0
            layer.mlp.down_proj.weight[0] = 0
        embedding[:, 0] = 1.0
        embedding[token, 0] = 60.0
    policy.refresh()


@pytest.mark.parametrize("forward", FORWARDS)
def test_an_action_ends_with_its_terminator(forward):
    policy = build(forward, noise=0.02)
    favour(policy, 1)

    (action,) = policy.act([context("5")], [Sampling(max_tokens=10)])

    assert action.tokens == (1,)
    assert action.finish == Finish.STOP
    assert action.text == ""
    assert action.sampled_logprobs is None
    assert action.context_tokens == len("5") + 2


def test_an_action_without_terminator_is_cut_at_its_limit():
    policy = build(noise=0.02)
    letter = policy.renderer.action("k")[0]
    favour(policy, letter)

    short, long = policy.act([context("5"), context("5")], [Sampling(max_tokens=3), Sampling(max_tokens=6)])

    assert short.tokens == (letter,) * 3
    assert (short.finish, short.text, long.text) == (Finish.LENGTH, "kkk", "kkkkkk")


@pytest.mark.parametrize("forward", FORWARDS)
@pytest.mark.parametrize("snapshot", [True, False])
def test_new_weights_act_from_the_next_refresh_on(forward, snapshot):
    policy = build(forward, noise=0.02, snapshot=snapshot)
    asked = [context("5")], [Sampling(max_tokens=3)]
    old = policy.act(*asked)[0]
    copied = snapshot or forward == "lean"

    trained = {name: p.detach().clone() for name, p in policy.module.named_parameters()}
    with torch.no_grad():
        for parameter in policy.module.parameters():
            parameter.mul_(1.7)
    stale = policy.act(*asked)[0]
    changed = {name: p.detach().clone() for name, p in policy.module.named_parameters()}
    policy.refresh()
    new = policy.act(*asked)[0]

    assert (stale == old) == copied
    assert new != old
    for name, value in changed.items():
        torch.testing.assert_close(value, 1.7 * trained[name])  # acting leaves the trained weights alone


def test_a_full_window_names_the_conversations_that_fill_it():
    policy = build(model={"context": 32})

    with pytest.raises(ContextError, match=r"1 of 2 conversations.*40 tokens.*holds 32") as caught:
        policy.act([context("5"), context("x" * 38)], [Sampling()] * 2)
    (cut,) = policy.act([context("x" * 27)], [Sampling(max_tokens=50, top_k=40)])

    assert caught.value.contexts == (1,)
    assert len(cut.tokens) <= 3


def test_packed_rows_say_where_each_number_belongs():
    policy = build()
    encode = CharacterTokenizer().encode
    turns = (
        Turn(
            observation=({"role": "user", "content": "ab"},),
            action=Action(tokens=(20, 1), logprobs=(-1.0, -2.0)),
            step=3,
        ),
        Turn(observation=({"role": "user", "content": "c"},), action=Action(tokens=(21,), logprobs=(-3.0,)), step=7),
    )
    one = Rollout(task_id="t", index=0, seed=0, turns=turns, sampling=Sampling(temperature=0.5))
    other = Rollout(
        task_id="t", index=1, seed=0, turns=(replace(turns[0], step=None),), sampling=Sampling(temperature=0)
    )

    packed = policy.pack([one, other])

    user, assistant = 4, 5
    a, b, c = (encode(letter)[0] for letter in "abc")
    assert packed.inputs["tokens"].tolist() == [
        [user, a, b, assistant, 20, 1, user, c, assistant, 21],
        [user, a, b, assistant, 20, 1, 0, 0, 0, 0],
    ]
    assert packed.mask.long().tolist() == [[0, 0, 0, 0, 1, 1, 0, 0, 0, 1], [0, 0, 0, 0, 1, 1, 0, 0, 0, 0]]
    assert packed.behaviour_logprobs.tolist() == [[0, 0, 0, 0, -1, -2, 0, 0, 0, -3], [0, 0, 0, 0, -1, -2, 0, 0, 0, 0]]
    assert packed.turn.tolist() == [[-1, -1, -1, -1, 3, 3, -1, -1, -1, 7], [-1, -1, -1, -1, 0, 0, -1, -1, -1, -1]]
    assert packed.inputs["temperature"].tolist() == [0.5, 1.0]
    assert packed.inputs["attention_mask"].long().sum(1).tolist() == [10, 6]


@pytest.mark.parametrize("critic", ["head", "separate"])
def test_a_play_that_was_cut_off_is_valued_after_what_came_next(critic):
    policy = build(critic=critic, model={"dtype": "float64"})
    whole = play(policy, ["1 2 and 3 and 4", "3"], [Sampling(max_tokens=4)] * 2)
    cut = replace(whole[0], turns=whole[0].turns[:1], stop=Stop.TURNS, cut_at=whole[0].turns[1].observation)
    packed, longer = policy.pack([cut, whole[1]]), policy.pack(whole)

    values = policy.columns(packed.inputs, frozenset({Column.VALUE}))[Column.VALUE]

    (place,) = packed.bootstrap[0].nonzero()[:, 0].tolist()
    first = longer.mask[0].nonzero()[len(cut.turns[0].action.tokens), 0].item()  # of the second turn
    assert place == first
    assert not packed.mask[0, place]
    assert not packed.bootstrap[1].any()
    expected = policy.columns(longer.inputs, frozenset({Column.VALUE}))[Column.VALUE]
    torch.testing.assert_close(values[0, place], expected[0, first])
    assert longer.bootstrap is None
    assert build().pack([cut]).bootstrap is None  # nobody values anything
    assert build(critic="head", model={"context": place}).pack([cut]).bootstrap is not None
    assert build(critic="head", model={"context": place - 1}).pack([cut]).bootstrap is None


def test_a_rollout_whose_record_does_not_fit_is_named():
    policy = build()
    turn = Turn(observation=({"role": "user", "content": "a"},), action=Action(tokens=(20, 1), logprobs=(-1.0,)))

    with pytest.raises(ValueError, match="rollout 4 of task 'sum', turn 0: 2 tokens but 1 log-prob"):
        policy.pack([Rollout(task_id="sum", index=4, seed=0, turns=(turn,))])


def test_inputs_padded_on_the_left_are_refused():
    policy = build()

    with pytest.raises(ValueError, match="padded on the right"):
        policy.columns(
            {"tokens": torch.ones(1, 3, dtype=torch.long), "attention_mask": torch.tensor([[0, 1, 1]])},
            frozenset({Column.LOGPROB}),
        )


def test_demonstrations_are_encoded_with_their_terminator():
    policy = build()

    assert policy.encode(["1+2"]) == [(*CharacterTokenizer().encode("1+2"), 1)]


def test_a_model_learns_demonstrations_by_gradient_descent():
    policy = build(noise=0.0)
    tokens = policy.encode(["4"])[0]
    action = Action(tokens=tokens, logprobs=(0.0,) * len(tokens))
    turn = Turn(observation=({"role": "user", "content": "2+2"},), action=action)
    packed = policy.pack([Rollout(task_id="t", index=0, seed=0, turns=(turn,), demonstration=True)])
    optimizer = torch.optim.AdamW(policy.module.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        (-policy.columns(packed.inputs, frozenset({Column.LOGPROB}))[Column.LOGPROB].sum()).backward()
        optimizer.step()
    policy.refresh()

    (learnt,) = policy.act([context("2+2")], [Sampling(temperature=0)])

    assert learnt.text == "4"
    assert math.exp(sum(learnt.logprobs)) > 0.9


def test_equal_options_build_equal_weights_whatever_the_global_generator_says():
    torch.manual_seed(1)
    one = CausalLMPolicy(CausalLMConfig()).module.state_dict()
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    other = CausalLMPolicy(CausalLMConfig()).module.state_dict()

    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[name], other[name]) for name in one)
    third = CausalLMPolicy(CausalLMConfig(model={"preset": "tiny", "seed": 5})).module.state_dict()
    assert not torch.equal(one["model.embed_tokens.weight"], third["model.embed_tokens.weight"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": {"preset": "tini"}}, "policy.model.preset: no preset 'tini'; did you mean 'tiny'"),
        ({"model": {}}, "neither preset nor path"),
        ({"model": {"preset": "tiny", "path": "x"}}, "both preset and path"),
        ({"model": {"path": "x", "hidden": 64}}, "hidden belongs to preset 'tiny'"),
        ({"model": {"preset": "tiny", "revision": "main"}}, "revision belongs to a model at a path"),
        ({"model": {"preset": "tiny", "hidden": 100, "heads": 8}}, "hidden 100 must be a multiple of twice the heads"),
        ({"model": {"preset": "tiny", "heads": 4, "kv_heads": 3}}, "heads 4 must be a multiple of kv_heads 3"),
        ({"modle": {}}, "policy.modle: unknown key; did you mean 'model'"),
        ({"engine": "vlm"}, "policy.engine"),
    ],
)
def test_wrong_options_are_refused_with_their_path(options, message):
    registry = load_registry(["causal_lm"])

    with pytest.raises(ConfigError) as caught:
        registry.build("policy", "causal_lm", options)

    assert message in str(caught.value)
