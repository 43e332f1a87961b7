"""Architectures of transformers as random tiny models: what acts and what is trained compute the same numbers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from causal_lm_models import merging_tokenizer, policy_at, say
from orchestrator_plugins.causal_lm import policy as policies

from orchestrator.api import Column, Context, Rollout, Sampling, Turn

TOKENIZER = merging_tokenizer()
COMMON: dict[str, Any] = {  # a vocabulary padded beyond the tokenizer's, as real models have
    "vocab_size": len(TOKENIZER) + 7,
    "bos_token_id": None,
    "eos_token_id": TOKENIZER.eos_token_id,
    "pad_token_id": TOKENIZER.pad_token_id,
}
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
MAMBA2 = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
OPT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 256}
CACHED = {
    "Llama": SMALL | {"pad_token_id": None},
    "Llama, tied, several ends": SMALL | {"tie_word_embeddings": True, "eos_token_id": [TOKENIZER.eos_token_id, 3]},
    "Qwen2": SMALL,
    "Qwen3": SMALL | {"head_dim": 8},
    "Gemma2": SMALL | {"head_dim": 8, "sliding_window": 16},
    "Mistral": SMALL | {"sliding_window": 16},
    "Phi3": SMALL,
    "Mixtral": SMALL | {"num_local_experts": 2},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "GPTNeoX": {name: SMALL[name] for name in SMALL if name != "num_key_value_heads"},
    "OPT": OPT | {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "BioGpt": OPT | {"intermediate_size": 48},
    "XGLM": {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48, "pad_token_id": 1},
}
CACHELESS = {
    "Mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    "Rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "context_length": 256},
    "Bamba": SMALL | MAMBA2 | {"attn_layer_indices": [1], "mamba_expand": 2},
    "FalconH1": SMALL | MAMBA2 | {"head_dim": 8, "mamba_d_ssm": 64},
    "Jamba": SMALL | {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "expert_layer_period": 2,
                      "expert_layer_offset": 1, "use_mamba_kernels": False, "mamba_d_state": 8},
    "RecurrentGemma": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
                       "num_key_value_heads": 2, "lru_width": 32, "attention_window_size": 16},
    "Qwen3Next": SMALL | {"head_dim": 8, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16,
                          "shared_expert_intermediate_size": 16, "linear_num_value_heads": 4,
                          "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
                          "layer_types": ["linear_attention", "full_attention"]},
}  # fmt: skip


def folder_of(name: str, options: dict[str, Any], path: Path) -> Path:
    """A random model whose logits are large enough to tell right from wrong."""
    family = name.partition(",")[0]
    kind = next(k for k in (f"{family}ForCausalLM", f"{family}LMHeadModel") if hasattr(transformers, k))
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, f"{family}Config")(**COMMON | options))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    model.save_pretrained(path)
    TOKENIZER.save_pretrained(path)
    return path


def largest_gap(policy) -> float:
    """Log-probability of what it said, when it said it against when it is trained."""
    texts = ["abc abc what", "x", "abcabcabc a longer prompt than the others, so that windows matter"]
    contexts = [
        Context(episode=str(i), agent=None, observations=say(text), actions=(), seed=i) for i, text in enumerate(texts)
    ]
    actions = policy.act(contexts, [Sampling(max_tokens=24)] * len(contexts))
    rollouts = [
        Rollout(task_id="t", index=i, seed=i, turns=(Turn(observation=context.observations[0], action=action),))
        for i, (context, action) in enumerate(zip(contexts, actions, strict=True))
    ]
    packed = policy.pack(rollouts)
    logprobs = policy.columns(packed.inputs, frozenset({Column.LOGPROB}))[Column.LOGPROB]
    logprobs.sum().backward()
    assert packed.mask.sum() > 20
    assert packed.behaviour_logprobs[packed.mask].std() > 0.1
    return float(((logprobs - packed.behaviour_logprobs).abs() * packed.mask).max())


@pytest.mark.parametrize("name", [*CACHED, *CACHELESS])
def test_what_acts_and_what_is_trained_are_one_function(name, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        policy = policy_at(folder_of(name, (CACHED | CACHELESS)[name], tmp_path))

    assert largest_gap(policy) < 1e-4
    assert ("generates without a cache" in caplog.text) == (name in CACHELESS)


@pytest.mark.parametrize("name", ["OPT", "BioGpt", "XGLM"])
def test_dropout_that_is_a_function_is_off_too(name, tmp_path):
    policy = policy_at(folder_of(name, CACHED[name] | {"layerdrop": 0.5}, tmp_path), gradient_checkpointing=True)

    policy.module.train()

    assert largest_gap(policy) < 1e-4


def test_noise_that_cannot_be_turned_off_is_the_reason_that_is_given(tmp_path, monkeypatch):
    forward = transformers.OPTForCausalLM.forward

    def noisy(self, input_ids, **options):
        found = forward(self, input_ids, **options)
        if self.training:
            found.logits = torch.nn.functional.dropout(found.logits, 0.1)
        return found

    monkeypatch.setattr(transformers.OPTForCausalLM, "forward", noisy)
    with pytest.raises(
        ValueError, match=r"OPTForCausalLM computes other logits in training mode .* config\.json .*\(.*dropout: 0\.1"
    ):
        policy_at(folder_of("OPT", CACHED["OPT"], tmp_path), gradient_checkpointing=True)


def test_an_architecture_that_sees_what_follows_is_refused_by_name(tmp_path, monkeypatch):
    path = folder_of("Qwen2", SMALL, tmp_path)
    forward = transformers.Qwen2ForCausalLM.forward

    def peeking(self, input_ids, **options):
        found = forward(self, input_ids, **options)
        found.logits = found.logits + 0.01 * input_ids.float().mean()
        return found

    monkeypatch.setattr(transformers.Qwen2ForCausalLM, "forward", peeking)
    monkeypatch.setattr(policies, "check_head", lambda transformer: None)
    with pytest.raises(
        ValueError, match="Qwen2ForCausalLM computes other logits for a text that stands beside a longer"
    ):
        policy_at(path)
