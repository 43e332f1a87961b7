"""The policy causal_lm on models from folders: rendering by chat templates, sampled ids, adapters, exports."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from causal_lm_models import merging_tokenizer, policy_at, say
from hypothesis import given
from hypothesis import strategies as st
from orchestrator_plugins.causal_lm.config import CausalLMConfig, ModelConfig, plan_problems
from orchestrator_plugins.causal_lm.loading import load
from orchestrator_plugins.causal_lm.module import plain_weights
from orchestrator_plugins.causal_lm.policy import CausalLMPolicy
from orchestrator_plugins.causal_lm.rendering import PlainRendering, Renderer
from orchestrator_plugins.causal_lm.templates import rendering_of
from orchestrator_plugins.causal_lm.tokenizer import CharacterTokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from orchestrator.api import Action, Column, Context, Finish, Rollout, RolloutRequest, Sampling, Split, Turn
from orchestrator.rollout.collector import Collector
from orchestrator.runs.checkpoint import load_module, load_newest, module_tensors, save_checkpoint
from orchestrator.testing import EchoEnvironment, make_plan, make_settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small Llama with a merging tokenizer, as ``save_pretrained`` writes it."""
    path = tmp_path_factory.mktemp("models") / "llama"
    tokenizer = merging_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_later_observations_add_what_the_template_adds():
    tokenizer = merging_tokenizer()
    renderer = Renderer(rendering_of(tokenizer))
    ids = tuple(tokenizer("yes", add_special_tokens=False).input_ids)
    stopped, cut = Action(tokens=(*ids, tokenizer.eos_token_id), logprobs=()), Action(tokens=ids, logprobs=())

    for action in (stopped, cut):
        rendered = renderer.context(say("abc.", "and?"), [action])

        assert tokenizer.decode(rendered) == (
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nabc.<|im_end|>\n<|im_start|>assistant\n"
            "yes<|im_end|>\n<|im_start|>user\nand?<|im_end|>\n<|im_start|>assistant\n"
        )
    whole = tokenizer.apply_chat_template(
        [*say("abc.")[0], {"role": "assistant", "content": "yes"}, *say("and?")[0]],
        add_generation_prompt=True,
        tokenize=False,
    )
    assert tokenizer.decode(renderer.context(say("abc.", "and?"), [stopped])) == whole


def test_sampled_ids_survive_where_the_tokenizer_would_merge_them():
    tokenizer = merging_tokenizer(template=None)
    renderer = Renderer(rendering_of(tokenizer))
    a, b, c = (tokenizer.convert_tokens_to_ids(letter) for letter in "abc")
    spelt = Action(tokens=(a, b, c), logprobs=(-1.0, -2.0, -3.0), text="abc", finish=Finish.LENGTH)

    rendered = renderer.context(say("x", "c"), [spelt])

    assert tokenizer("abc").input_ids == [tokenizer.convert_tokens_to_ids("abc")]  # read back, it would be one id
    first = tuple(tokenizer("x").input_ids)
    following = (tokenizer.eos_token_id, *tokenizer("\nc\n").input_ids)
    assert rendered == (*first, a, b, c, *following)


def test_what_is_trained_are_the_sampled_ids(folder):
    policy = policy_at(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    a, b, c = (tokenizer.convert_tokens_to_ids(letter) for letter in "abc")
    turns = tuple(
        Turn(observation=o, action=Action(tokens=(a, b, c), logprobs=(-1.0, -1.0, -1.0), text="abc"))
        for o in say("1", "2")
    )

    packed = policy.pack([Rollout(task_id="t", index=0, seed=0, turns=turns)])

    assert packed.inputs["tokens"][packed.mask].tolist() == [a, b, c, a, b, c]


@pytest.mark.parametrize("forward", ["lean", "transformers"])
def test_a_model_from_a_folder_acts_and_trains_consistently(folder, forward):
    policy = policy_at(folder, forward)
    sampling = [Sampling(max_tokens=9, temperature=0.8)] * 4
    contexts = [
        Context(episode=str(i), agent=None, observations=say("abc" * (i % 3)), actions=(), seed=i) for i in range(4)
    ]

    actions = policy.act(contexts, sampling)
    rollouts = [
        Rollout(
            task_id="t",
            index=i,
            seed=0,
            sampling=sampling[0],
            turns=(Turn(observation=say("abc" * (i % 3))[0], action=a),),
        )
        for i, a in enumerate(actions)
    ]
    packed = policy.pack(rollouts)
    logprobs = policy.columns(packed.inputs, frozenset({Column.LOGPROB}))[Column.LOGPROB]

    assert (logprobs - packed.behaviour_logprobs).abs().max() < 1e-4
    plain = AutoModelForCausalLM.from_pretrained(folder)
    for row, mask in enumerate(packed.mask):
        length = int(packed.inputs["attention_mask"][row].sum())
        tokens = packed.inputs["tokens"][row, :length]
        with torch.no_grad():
            expected = torch.log_softmax(plain(input_ids=tokens[None]).logits[0, :-1] / 0.8, -1)
        expected = expected.gather(1, tokens[1:, None])[:, 0]
        places = mask.nonzero()[:, 0]
        torch.testing.assert_close(logprobs[row, places], expected[places - 1], atol=1e-5, rtol=1e-5)


def test_other_architectures_go_through_transformers(tmp_path):
    tokenizer = merging_tokenizer(template=None)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=24, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    policy = policy_at(tmp_path)
    contexts = [Context(episode="e", agent=None, observations=say("a" * n), actions=(), seed=n) for n in (1, 5)]

    actions = policy.act(contexts, [Sampling(max_tokens=7)] * 2)
    turns = [(Turn(observation=c.observations[0], action=a),) for c, a in zip(contexts, actions, strict=True)]
    packed = policy.pack([Rollout(task_id="t", index=i, seed=0, turns=t) for i, t in enumerate(turns)])
    logprobs = policy.columns(packed.inputs, frozenset({Column.LOGPROB}))[Column.LOGPROB]

    assert (logprobs - packed.behaviour_logprobs).abs().max() < 1e-4  # also: dropout is off
    with pytest.raises(ValueError, match=r"policy\.forward: lean is impossible here: the architecture is GPT2LMHead"):
        policy_at(tmp_path, "lean")


def test_adapters_start_as_the_base_model_and_alone_are_trained(folder):
    base = policy_at(folder, "transformers")
    adapted = policy_at(folder, lora={"rank": 2, "alpha": 4, "targets": ["q_proj", "v_proj"]})
    context = [Context(episode="e", agent=None, observations=say("abc"), actions=(), seed=3)]
    sampling = [Sampling(max_tokens=8)]

    (expected,), (action,) = base.act(context, sampling), adapted.act(context, sampling)
    trained = {name for name, p in adapted.module.named_parameters() if p.requires_grad}

    assert action.tokens == expected.tokens
    torch.testing.assert_close(torch.tensor(action.logprobs), torch.tensor(expected.logprobs), atol=1e-5, rtol=0)
    assert len(trained) == 2 * 2 * 2  # two matrices in each of two layers' two projections
    assert all("lora_" in name for name in trained)
    rollout = Rollout(task_id="t", index=0, seed=0, turns=(Turn(observation=say("abc")[0], action=action),))
    packed = adapted.pack([rollout])
    adapted.columns(packed.inputs, frozenset({Column.LOGPROB}))[Column.LOGPROB].sum().backward()
    moved = [p for name, p in adapted.module.named_parameters() if name in trained and p.grad.abs().max() > 0]
    assert moved
    with torch.no_grad():
        for parameter in moved:
            parameter.add_(0.01 * parameter.grad)
    adapted.refresh()
    packed = adapted.pack([rollout])
    logprobs = adapted.columns(packed.inputs, frozenset({Column.LOGPROB}))[Column.LOGPROB]
    assert logprobs.sum() > sum(action.logprobs)  # one step uphill
    assert adapted.act(context, sampling) != [action]


def test_checkpoints_of_adapters_hold_adapters_alone_and_load_in_transformers(folder, tmp_path):
    policy = policy_at(folder, lora={"rank": 2, "targets": ["q_proj"]})
    with torch.no_grad():
        for parameter in policy.module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)

    path = save_checkpoint(tmp_path, 1, policy, {}, keep=1)
    again = policy_at(folder, lora={"rank": 2, "targets": ["q_proj"]})
    load_newest(tmp_path, again)

    state = policy.module.state_dict()
    assert set(state) == {name for name in state if "lora_" in name}
    assert all(torch.equal(value, again.module.state_dict()[name]) for name, value in state.items())
    ids = torch.arange(9)[None]
    with torch.no_grad():
        loaded = AutoModelForCausalLM.from_pretrained(path)(input_ids=ids).logits
        torch.testing.assert_close(loaded, policy.module.lm(input_ids=ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["preset", "adapted preset"])
def test_transformers_loads_the_trained_model_from_a_checkpoint(tmp_path, kind):
    """Of an adapted preset the file of that name is the merged model; the adapters lie beside it."""
    model = {"preset": "tiny", "hidden": 32, "layers": 1} | ({"lora": {"rank": 2}} if kind == "adapted preset" else {})
    policy, again = (CausalLMPolicy(CausalLMConfig(model=model)) for _ in range(2))
    with torch.no_grad():
        for parameter in policy.module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)

    path = save_checkpoint(tmp_path, 1, policy, {}, keep=1)
    load_newest(tmp_path, again)

    ids = torch.arange(9)[None]
    with torch.no_grad():
        expected = policy.module.lm(input_ids=ids).logits
        loaded = AutoModelForCausalLM.from_pretrained(path)(input_ids=ids).logits
        torch.testing.assert_close(loaded, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(again.module.lm(input_ids=ids).logits, expected, atol=0, rtol=0)


@pytest.mark.parametrize("tied", [False, True])
def test_checkpoints_of_adapters_leave_the_vocabulary_to_the_base(tmp_path, tied):
    tokenizer = merging_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=tied, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    policy = policy_at(tmp_path / "base", lora={"rank": 2, "targets": ["q_proj"]})

    path = save_checkpoint(tmp_path, 1, policy, {}, keep=1)

    again = policy_at(tmp_path / "base", lora={"rank": 2, "targets": ["q_proj"]})
    weights = module_tensors(policy.module)
    load_module(again.module, weights | {"base_model.model.lm_head.weight": torch.zeros(3)}, path)  # as it once was

    vocabulary = len(tokenizer) * 64 * 4  # bytes
    files = [file for file in path.iterdir() if file.suffix == ".safetensors"]
    assert {"model.safetensors", "adapter_model.safetensors"} <= {file.name for file in files}
    assert sum(file.stat().st_size for file in files) < vocabulary


@pytest.mark.parametrize("kind", ["preset", "path", "adapted preset"])
def test_transformers_loads_what_is_exported(folder, tmp_path, kind):
    model = {"path": str(folder)} if kind == "path" else {"preset": "tiny", "hidden": 32, "layers": 1}
    if kind == "adapted preset":
        model["lora"] = {"rank": 2}
    policy = CausalLMPolicy(CausalLMConfig(model=model))
    with torch.no_grad():
        for parameter in policy.module.parameters():
            parameter.add_(0.05)

    policy.export(tmp_path)

    ids = torch.arange(9)[None]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        expected = policy.module.lm(input_ids=ids).logits
        torch.testing.assert_close(loaded(input_ids=ids).logits, expected, atol=1e-5, rtol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    messages = say("2 + 2\n= ?")[0]
    rendered = tuple(tokenizer.apply_chat_template(list(messages), add_generation_prompt=True).input_ids)
    assert rendered == policy.renderer.context([messages], [])


def test_transformers_loads_a_checkpoint_of_a_whole_model_with_a_critic(tmp_path):
    policy = CausalLMPolicy(CausalLMConfig(model={"preset": "tiny", "hidden": 32, "layers": 1}))
    policy.prepare(None, frozenset({Column.VALUE}))

    path = save_checkpoint(tmp_path, 1, policy, {}, keep=1)

    loaded = AutoModelForCausalLM.from_pretrained(path).state_dict()
    own = policy.module.transformer.state_dict()
    assert loaded.keys() == own.keys()
    assert all(torch.equal(loaded[name], own[name]) for name in own)
    assert load_newest(tmp_path, policy)[0] == 1


def test_characters_of_text_never_become_special_ids():
    tokenizer = CharacterTokenizer()

    ids = tokenizer.encode("<eos>é\n~")

    assert tokenizer.eos not in ids
    assert ids[5] == tokenizer.unknown
    assert tokenizer.decode((*ids, tokenizer.eos)) == "<eos>\n~"
    assert len(tokenizer) == 7 + 1 + 95
    with pytest.raises(ValueError, match="message role 'robot': expected one of system, user, assistant, tool"):
        PlainRendering(tokenizer).first((("robot", "hi"),))


def test_listed_words_are_one_token_with_and_without_the_space_before_them():
    tokenizer = CharacterTokenizer(("take", "living room", "room"))
    plain = len(CharacterTokenizer())

    ids = tokenizer.encode("take a room in the living room")

    assert len(tokenizer) == plain + 6
    assert [tokenizer.vocabulary[i] for i in ids] == [
        "take", " ", "a", " room", " ", "i", "n", " ", "t", "h", "e", " living room",
    ]  # fmt: skip
    assert tokenizer.decode(ids) == "take a room in the living room"


@given(st.text(alphabet="taketh room\n", max_size=40))
def test_text_survives_the_vocabulary_of_words(text):
    tokenizer = CharacterTokenizer(("take", "the", "room", "other room"))

    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_tokenizer_with_words_is_the_same_in_transformers(tmp_path):
    tokenizer = CharacterTokenizer(("take", "living room", "room"))
    tokenizer.save(tmp_path)

    stored = AutoTokenizer.from_pretrained(tmp_path)

    text = "take the lamp from the living room\ntaken roomy <eos>"
    assert len(stored) == len(tokenizer)
    assert tuple(stored(text.replace("<eos>", "eos")).input_ids) == tokenizer.encode(text.replace("<eos>", "eos"))
    assert stored.decode(tokenizer.encode("take a living room")) == "take a living room"


def test_words_that_cannot_be_told_apart_are_refused_all_at_once():
    with pytest.raises(ValueError, match=r"words: ' go', 'a', 'take', 'über' cannot be words of the vocabulary"):
        ModelConfig(preset="tiny", words=("take", " go", "a", "take", "über", "put"))
    with pytest.raises(ValueError, match="words belongs to preset 'tiny'"):
        ModelConfig(path="somewhere", words=("take",))


def test_a_tiny_model_grows_by_its_words():
    loaded = load(
        ModelConfig(preset="tiny", hidden=16, heads=2, layers=1, words=("take", "drop", "lamp")), torch.device("cpu")
    )

    assert loaded.lm.config.vocab_size == len(CharacterTokenizer()) + 6
    assert loaded.renderer.action("take lamp") == (len(CharacterTokenizer()), len(CharacterTokenizer()) + 5, 1)


def test_a_demonstration_longer_than_the_window_fails_alone_and_the_rest_trains(folder):
    policy = policy_at(folder)  # a window of 256 tokens
    world = EchoEnvironment(["d" * 3, "d" * 400, "d" * 90])
    tasks = list(world.tasks(Split.TRAIN))
    collect = Collector(world, policy)

    groups = collect([RolloutRequest(task=task, count=1, demonstrate=True) for task in tasks])
    packed = policy.pack([rollout for group in groups for rollout in group.rollouts])

    assert [len(group.rollouts) for group in groups] == [1, 0, 1]
    assert "demonstration has 401 tokens" in str(collect.failures[0].error)
    assert torch.isfinite(policy.columns(packed.inputs, frozenset({Column.LOGPROB}))[Column.LOGPROB]).all()


def test_a_template_that_forgets_earlier_turns_is_refused():
    tokenizer = merging_tokenizer("{{ messages[-1]['content'] }}")

    with pytest.raises(ValueError, match="leaves out the assistant's earlier messages"):
        rendering_of(tokenizer)


def test_a_missing_folder_is_reported_before_launch_and_at_load(tmp_path):
    missing = str(tmp_path / "nothing")
    policy = {"use": "causal_lm", "model": {"path": missing}}
    plan = make_plan(*[make_settings(policy=policy)] * 3)

    problems = plan_problems(plan)

    assert [problem.path for problem in problems] == ["policy.model.path"]
    assert "does not exist" in problems[0].message
    with pytest.raises(FileNotFoundError, match=r"policy\.model\.path.*does not exist.*save_pretrained"):
        policy_at(Path(missing))


def test_missing_packages_are_reported_before_launch(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    policies = [
        {"use": "causal_lm", "model": {"preset": "tiny", "lora": {"rank": 2}}},
        {"use": "causal_lm", "model": {"preset": "tiny"}, "engine": "vllm"},
        {"use": "mlp", "engine": "vllm"},
    ]

    problems = plan_problems(make_plan(*[make_settings(policy=policy) for policy in policies]))

    assert [str(problem).split(";")[0] for problem in problems] == [
        "policy.model.lora: low-rank adapters need the package peft",
        "policy.engine: engine vllm needs the package vllm",
    ]


def test_gradient_checkpointing_changes_no_number(folder):
    policies = [policy_at(folder, "transformers"), policy_at(folder, "transformers", gradient_checkpointing=True)]
    context = [Context(episode="e", agent=None, observations=say("abc"), actions=(), seed=3)]
    gradients = []
    for policy in policies:
        policy.module.train()
        (action,) = policy.act(context, [Sampling(max_tokens=8)])
        rollout = Rollout(task_id="t", index=0, seed=0, turns=(Turn(observation=say("abc")[0], action=action),))
        packed = policy.pack([rollout])
        policy.columns(packed.inputs, frozenset({Column.LOGPROB}))[Column.LOGPROB].sum().backward()
        gradients.append([p.grad for p in policy.module.parameters()])

    torch.testing.assert_close(gradients[0], gradients[1])


def test_vllm_without_the_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)

    with pytest.raises(
        ImportError, match=r"policy\.engine: engine vllm needs the package vllm.*rl-orchestrator\[vllm\]"
    ):
        CausalLMPolicy(CausalLMConfig(engine="vllm"))


def test_weights_for_another_engine_have_adapters_merged_in(folder):
    policy = policy_at(folder, lora={"rank": 2, "targets": ["q_proj", "down_proj"]})
    with torch.no_grad():
        for parameter in policy.module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)

    weights = dict(plain_weights(policy.module.transformer))

    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert weights.keys() == dict(plain.named_parameters()).keys()
    plain.load_state_dict(weights, strict=False)
    ids = torch.arange(9)[None]
    with torch.no_grad():
        expected = policy.module.lm(input_ids=ids).logits
        torch.testing.assert_close(plain(input_ids=ids).logits, expected, atol=1e-5, rtol=1e-5)
