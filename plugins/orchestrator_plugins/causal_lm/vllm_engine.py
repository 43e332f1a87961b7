"""The engine that generates with vLLM in this process; the only file that names it.

vLLM holds weights of its own. They are replaced at each refresh, under the names transformers uses, and the prefix
cache is emptied, since it holds keys and values of the old ones. Adapters are merged on the way.

Log-probabilities come from vLLM as the sampler saw them: divided by the temperature and truncated. Where something
was truncated the untruncated ones are computed by the policy itself, with the same weights.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any

import torch

from orchestrator.api import Column

from .config import NO_VLLM, VllmConfig
from .generation import Generated, Request
from .module import plain_weights
from .sampling import measured_temperature

SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process: weights are handed over as tensors
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


class VllmEngine:
    """Generates with vLLM from the weights of the last refresh."""

    def __init__(self, policy: Any, config: VllmConfig):
        """Start vLLM on a copy of the policy's model.

        :param policy: the causal_lm policy that owns this engine
        :raises ImportError: when vLLM is not installed
        """
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(config.cpu_cache_gib))
        try:
            from vllm import LLM
        except ImportError as error:
            raise ImportError(f"policy.engine: {NO_VLLM}") from error
        self._policy = policy
        transformer = policy.module.transformer
        on_cpu = policy.device.type == "cpu"
        block = config.block_size or (32 if on_cpu else None)  # on a CPU vLLM takes multiples of 32 only
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():  # vLLM seeds torch's global generator
            transformer.save_pretrained(folder, state_dict=dict(plain_weights(transformer)))
            self._llm = LLM(
                model=folder,
                skip_tokenizer_init=True,
                dtype=str(policy.module.compute or transformer.dtype).removeprefix("torch."),
                max_model_len=policy.context,
                gpu_memory_utilization=config.memory,
                max_num_seqs=config.max_rows,
                enforce_eager=config.eager,
                enable_prefix_caching=True,
                logprobs_mode="processed_logprobs",
                distributed_executor_backend="uni",
                disable_log_stats=True,
                seed=0,
                **({"block_size": block} if block else {}),
            )
        self._versions = self._present()

    def refresh(self) -> None:
        """Hand the module's present weights over."""
        weights = [(name, tensor.detach()) for name, tensor in plain_weights(self._policy.module.transformer)]
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM kept its prefix cache after new weights arrived; requests are still running")
        self._versions = self._present()

    def generate(self, requests: Sequence[Request]) -> list[Generated]:
        """Continue every prompt; vLLM batches."""
        from vllm import SamplingParams

        stops = sorted(self._policy.renderer.rendering.stops)
        settings = [
            SamplingParams(
                temperature=request.sampling.temperature,
                top_p=request.sampling.top_p,
                top_k=request.sampling.top_k or -1,
                max_tokens=request.limit,
                seed=request.seed & 0x7FFFFFFFFFFFFFFF,
                stop_token_ids=stops,
                logprobs=0,
                detokenize=False,
            )
            for request in requests
        ]
        prompts = [{"prompt_token_ids": list(request.prompt)} for request in requests]
        outputs = [output.outputs[0] for output in self._llm.generate(prompts, settings, use_tqdm=False)]
        tokens = [tuple(output.token_ids) for output in outputs]
        drawn = [
            tuple(found[token].logprob for token, found in zip(output.token_ids, output.logprobs, strict=True))
            for output in outputs
        ]
        cut = [place for place, request in enumerate(requests) if _truncates(request)]
        whole = dict(zip(cut, self._untruncated([requests[p] for p in cut], [tokens[p] for p in cut]), strict=True))
        return [
            Generated(
                tokens=tokens[place],
                logprobs=whole.get(place, drawn[place]),
                sampled=None
                if place not in whole
                else (0.0,) * len(drawn[place])
                if _greedy(request)
                else drawn[place],
            )
            for place, request in enumerate(requests)
        ]

    def _untruncated(self, requests: Sequence[Request], tokens: Sequence[tuple[int, ...]]) -> list[tuple[float, ...]]:
        if not requests:
            return []
        if self._present() != self._versions:
            raise RuntimeError(
                "vLLM acts with older weights than the module holds, so the log-probabilities before truncation "
                "cannot be computed; sample without top_p, top_k and temperature 0 inside a round, or set "
                "schedule.steps_per_round: 1"
            )
        rows = [(*request.prompt, *said) for request, said in zip(requests, tokens, strict=True)]
        width = max(map(len, rows))
        place = torch.arange(width)
        lengths = torch.tensor([[len(row)] for row in rows])
        prompts = torch.tensor([[len(request.prompt)] for request in requests])
        inputs = {
            "tokens": torch.tensor([[*row, *([0] * (width - len(row)))] for row in rows]),
            "attention_mask": place < lengths,
            "asked": (place >= prompts) & (place < lengths),
            "temperature": torch.tensor([measured_temperature(request.sampling) for request in requests]),
        }
        with torch.no_grad():
            logprobs = self._policy.columns(inputs, frozenset({Column.LOGPROB}))[Column.LOGPROB].tolist()
        return [
            tuple(row[len(request.prompt) : len(request.prompt) + len(said)])
            for row, request, said in zip(logprobs, requests, tokens, strict=True)
        ]

    def _present(self) -> tuple[tuple[int, int], ...]:
        """What changes whenever a weight does: its storage, or how often it was written to."""
        return tuple((p.data_ptr(), p._version) for p in self._policy.module.transformer.parameters())


def _greedy(request: Request) -> bool:
    return request.sampling.temperature == 0


def _truncates(request: Request) -> bool:
    return _greedy(request) or request.sampling.top_p < 1 or request.sampling.top_k > 0
