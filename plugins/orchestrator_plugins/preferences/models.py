"""Hugging Face sequence classifiers as scorers: reward models that read one answer, rankers that read two."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import torch

from orchestrator.api import Message, Rollout, RolloutGroup

from .answers import Comparison, answer_text, same_texts
from .config import ModelScorer
from .matrix import bradley_terry, from_logits, tie

ANSWER = "{prompt}\n{answer}"
PAIR = "{prompt}\n\nA: {first}\n\nB: {second}"


class ModelComparer:
    """Loads its model when it first compares.

    A model with one label gives that label's logit; one with two, the second's above the first's: how good the answer
    is, or how much better the first of two.
    """

    def __init__(self, config: ModelScorer, scale: float):
        self.config, self.scale = config, scale
        self._loaded: tuple[Any, Any] | None = None

    def compare(self, group: RolloutGroup) -> Comparison:
        texts = [answer_text(rollout) for rollout in group.rollouts]
        if self.config.reads == "answer":
            scores = self._logits(
                [self._answer(rollout, text) for rollout, text in zip(group.rollouts, texts, strict=True)]
            )
            return Comparison(tie(bradley_terry(scores, self.scale), same_texts(texts)), scores)
        template = self.config.template or PAIR
        prompt = _prompt(group.rollouts[0]) if group.rollouts else ""
        places = list(permutations(range(len(texts)), 2))
        logits = self._logits([template.format(prompt=prompt, first=texts[i], second=texts[j]) for i, j in places])
        matrix = np.zeros((len(texts), len(texts)))
        for (i, j), logit in zip(places, logits, strict=True):
            matrix[i, j] = logit
        return Comparison(tie(from_logits(matrix, self.scale), same_texts(texts)))

    def _answer(self, rollout: Rollout, text: str) -> str:
        tokenizer, _ = self._load()
        if self.config.template is None and getattr(tokenizer, "chat_template", None):
            return tokenizer.apply_chat_template(_conversation(rollout), tokenize=False)
        return (self.config.template or ANSWER).format(prompt=_prompt(rollout), answer=text)

    @torch.no_grad()
    def _logits(self, texts: Sequence[str]) -> list[float]:
        tokenizer, model = self._load()
        chat = self.config.reads == "answer" and self.config.template is None and bool(tokenizer.chat_template)
        found: list[float] = []
        for start in range(0, len(texts), self.config.batch_rows):
            rows = tokenizer(
                list(texts[start : start + self.config.batch_rows]),
                return_tensors="pt",
                padding=True,
                truncation=True,
                max_length=self.config.max_tokens,
                add_special_tokens=not chat,  # a chat template writes its own
            ).to(model.device)
            logits = model(**rows).logits.float()
            found += (logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]).tolist()
        return found

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            from transformers import AutoModelForSequenceClassification, AutoTokenizer

            config = self.config
            trust = {"trust_remote_code": config.trust_remote_code}
            tokenizer = AutoTokenizer.from_pretrained(config.path, truncation_side="left", **trust)
            model = AutoModelForSequenceClassification.from_pretrained(config.path, **trust).eval()
            if model.config.num_labels > 2:
                raise ValueError(
                    f"preference.model.path: {config.path!r} has {model.config.num_labels} labels; expected a model with "
                    f"one (a score) or two (bad, good)"
                )
            if tokenizer.pad_token is None:
                tokenizer.pad_token = tokenizer.eos_token
            if model.config.pad_token_id is None:
                model.config.pad_token_id = tokenizer.pad_token_id
            device = "cuda" if torch.cuda.is_available() else "cpu"
            self._loaded = tokenizer, model.to(device if config.device == "auto" else config.device)
        return self._loaded


def _conversation(rollout: Rollout) -> list[Message]:
    messages: list[Message] = []
    for turn in rollout.turns:
        messages += turn.observation if isinstance(turn.observation, tuple) else ()
        messages.append({"role": "assistant", "content": turn.action.text or ""})
    return messages


def _prompt(rollout: Rollout) -> str:
    """What the policy read before it first spoke."""
    observation = rollout.turns[0].observation if rollout.turns else ()
    return "\n".join(message["content"] for message in observation) if isinstance(observation, tuple) else ""
