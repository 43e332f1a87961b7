"""The preset ``tiny``: a Qwen2-style model of about one million parameters, randomly initialised, on no files at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .tokenizer import CharacterTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .config import ModelConfig


def build_tiny(config: ModelConfig, tokenizer: CharacterTokenizer) -> PreTrainedModel:
    """Build the model; equal options give equal weights, whatever state torch's global generator is in."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    architecture = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden,
        intermediate_size=config.mlp or 3 * config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads or config.heads,
        max_position_embeddings=config.context,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad,
        eos_token_id=tokenizer.eos,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return Qwen2ForCausalLM(architecture)
