"""What tests of models at a path share: a tokenizer whose merges cross the borders of turns, policies, messages."""

from pathlib import Path

from orchestrator_plugins.causal_lm.config import CausalLMConfig
from orchestrator_plugins.causal_lm.policy import CausalLMPolicy
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def merging_tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """Byte-level BPE with merges: ``ab``, ``abc`` and a line break glued to what precedes it."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "b"), ("ab", "c"), ("c", "Ċ"), (".", "Ċ")]
    vocabulary = {token: i for i, token in enumerate([*letters, *("".join(pair) for pair in merges)])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        extra_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = template
    return tokenizer


def policy_at(path: Path, forward: str = "auto", **model) -> CausalLMPolicy:
    return CausalLMPolicy(CausalLMConfig(model={"path": str(path), **model}, forward=forward))


def say(*contents: str):
    return tuple(({"role": "user", "content": content},) for content in contents)
