"""Where the policy causal_lm looks for models and packages, and what it says of those that are not there."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
import torch
from causal_lm_models import merging_tokenizer, policy_at
from huggingface_hub import constants
from orchestrator_plugins.causal_lm.config import CausalLMConfig, plan_problems
from orchestrator_plugins.causal_lm.policy import CausalLMPolicy
from orchestrator_plugins.causal_lm.tokenizer import CharacterTokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from orchestrator.runs.checkpoint import save_checkpoint
from orchestrator.testing import make_plan, make_settings

LORA = {"rank": 2, "targets": ["q_proj"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path, tokenizer = tmp_path_factory.mktemp("models") / "llama", merging_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def problems_of(model, **sections):
    return plan_problems(make_plan(make_settings(policy={"use": "causal_lm", "model": model}, **sections)))


@pytest.mark.parametrize(
    ("offline", "reason"), [(True, "HF_HUB_OFFLINE is set"), (False, "127.0.0.1:9 cannot be reached")]
)
def test_a_hub_name_that_cannot_be_had_is_refused_at_once_in_one_line(offline, reason, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    begin = time.monotonic()

    (problem,) = problems_of({"path": "nobody/no-such-model"})
    with pytest.raises(OSError) as caught:
        CausalLMPolicy(CausalLMConfig(model={"path": "nobody/no-such-model"}))

    assert time.monotonic() - begin < 5
    assert problem.path == "policy.model.path"
    assert str(caught.value) == f"policy.model.path: {problem.message}"
    assert "no model 'nobody/no-such-model' in the cache" in problem.message
    assert reason in problem.message
    assert "\n" not in problem.message


def test_flash_attention_that_is_not_installed_is_refused_while_planning(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    (problem,) = problems_of({"path": str(folder), "attention": "flash_attention_2"})

    assert problem.path == "policy.model.attention"
    assert "flash_attention_2 needs the package flash-attn" in problem.message
    assert problems_of({"path": str(folder), "attention": "sdpa"}) == []
    with pytest.raises(ImportError, match=r"policy\.model\.attention: flash_attention_2 needs the package flash-attn"):
        policy_at(folder, attention="flash_attention_2")


def test_a_whole_checkpoint_in_a_run_of_adapters_and_back_name_the_way(folder, tmp_path):
    whole = str(save_checkpoint(tmp_path / "whole", 1, policy_at(folder), {}, keep=1))
    adapters = str(save_checkpoint(tmp_path / "adapters", 1, policy_at(folder, lora=LORA), {}, keep=1))
    full, adapted = {"path": str(folder)}, {"path": str(folder), "lora": LORA}

    (first,) = problems_of(adapted, start={"checkpoint": whole})
    (second,) = problems_of(full, start={"checkpoint": adapters})
    (third,) = problems_of({"path": adapters})

    assert (first.path, second.path, third.path) == ("start.checkpoint", "start.checkpoint", "policy.model.path")
    assert f"policy: {{model: {{path: {whole}, lora: ...}}}}, without start.checkpoint" in first.message
    assert "give policy.model the lora options they were trained with, or merge them" in second.message
    assert f"model: {{path: {folder}, lora: ...}}" in third.message
    assert f"start: {{checkpoint: {adapters}}}" in third.message
    assert problems_of(full, start={"checkpoint": whole}) == []
    assert problems_of(adapted, start={"checkpoint": adapters}) == []
    assert problems_of({"path": whole, "lora": LORA}) == []  # the way that is named


def test_the_way_from_adapters_to_a_whole_model_is_one_that_works(folder, tmp_path):
    from peft import AutoPeftModelForCausalLM

    policy = policy_at(folder, lora=LORA)
    with torch.no_grad():
        for name, parameter in policy.module.named_parameters():
            if "lora_" in name:
                parameter.add_(0.3)
    adapters = save_checkpoint(tmp_path / "adapters", 1, policy, {}, keep=1)

    AutoPeftModelForCausalLM.from_pretrained(adapters).merge_and_unload().save_pretrained(tmp_path / "merged")
    merging_tokenizer().save_pretrained(tmp_path / "merged")

    ids = torch.arange(9)[None]
    with torch.no_grad():
        merged = policy_at(tmp_path / "merged").module.lm(input_ids=ids).logits
        torch.testing.assert_close(merged, policy.module.lm(input_ids=ids).logits, atol=1e-5, rtol=1e-5)


def test_characters_that_the_tiny_preset_does_not_know_are_said_once(caplog):
    tokenizer = CharacterTokenizer()

    with caplog.at_level(logging.WARNING):
        ids = tokenizer.encode("ça 你 ça")
        tokenizer.encode("ø")

    (record,) = caplog.records
    assert ids.count(tokenizer.unknown) == 3
    assert "'ç', '你' are read as <unk>" in record.message
    assert "preset: smollm2" in record.message
