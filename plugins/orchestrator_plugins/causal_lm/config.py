"""Options of the policy ``causal_lm`` and what can be wrong with them before a model is loaded."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from orchestrator.api import PathOrName, PluginConfig, Problem

from .places import NO_GGUF, looks_local, missing_attention, missing_gguf, missing_model, missing_on_hub, unfit_start
from .presets import PACKAGED, missing_packages
from .tokenizer import check_words

PRESETS = ("tiny", *PACKAGED)
SIZES = ("hidden", "layers", "heads", "kv_heads", "mlp", "context", "seed", "words")  # of a model that is built here
ORIGIN = ("gguf", "revision", "trust_remote_code")  # how a model at a path is read


class LoraConfig(PluginConfig):
    """Low-rank adapters through peft; the base model's weights stay frozen (Hu et al. 2021, arXiv:2106.09685)."""

    rank: int = Field(16, ge=1, description="inner dimension of the adapters; paper: r, sec. 4.1")
    alpha: float = Field(32.0, gt=0, description="the update is scaled by alpha / rank; paper: alpha, sec. 4.1")
    targets: tuple[str, ...] | Literal["all-linear"] = Field(
        "all-linear", description="names of the linear layers to adapt, as in [q_proj, v_proj]"
    )
    rank_stabilised: bool = Field(False, description="scale by alpha / sqrt(rank) instead (arXiv:2312.03732)")


class ModelConfig(PluginConfig):
    """Which model: ``preset`` is one that needs no download, ``path`` loads one that transformers knows."""

    preset: str | None = Field(
        None,
        description="tiny: built here, randomly initialised; smollm2: SmolLM2-135M-Instruct, out of a Python package",
    )
    hidden: int = Field(128, ge=8, description="tiny: width of the residual stream")
    layers: int = Field(3, ge=1, description="tiny: transformer blocks")
    heads: int = Field(4, ge=1, description="tiny: attention heads; their width must be even")
    kv_heads: int | None = Field(None, ge=1, description="tiny: key and value heads; null: as many as heads")
    mlp: int | None = Field(None, ge=8, description="tiny: width of the gated MLP; null: three times hidden")
    context: int = Field(1024, ge=16, description="tiny: most tokens in one rollout")
    seed: int = Field(0, ge=0, description="tiny: of the random initial weights")
    words: tuple[str, ...] = Field((), description="tiny: words that are one token each instead of one per character")

    path: PathOrName | None = Field(None, description="folder with config.json, or a hub name such as Qwen/Qwen3-1.7B")
    gguf: str | None = Field(None, min_length=1, description="path: a GGUF file in it, read as weights of dtype")
    revision: str | None = Field(None, description="path: branch, tag or commit of a hub model")
    trust_remote_code: bool = Field(False, description="path: run Python code that comes with the model")
    attention: str | None = Field(
        None, description="attention implementation (sdpa, eager, flash_attention_2); null: transformers' choice"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass to save memory")
    lora: LoraConfig | None = Field(None, description="train low-rank adapters instead of all weights")
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = Field(
        "float32",
        description="what is computed in; auto: as stored. Trained weights are kept in float32 beside bfloat16, and float16 "
        "is refused",
    )

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, preset: str | None) -> str | None:
        if preset is not None and preset not in PRESETS:
            near = difflib.get_close_matches(preset, PRESETS, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"no preset {preset!r}{hint} Presets: {', '.join(PRESETS)}")
        return preset

    @field_validator("dtype")
    @classmethod
    def _trainable(cls, dtype: str) -> str:
        if dtype == "float16":
            raise ValueError(NO_FLOAT16)
        return dtype

    @field_validator("words")
    @classmethod
    def _spelt_words(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        check_words(words)
        return words

    @model_validator(mode="after")
    def _one_source(self) -> ModelConfig:
        if (self.preset is None) == (self.path is None):
            given = "both preset and path" if self.preset else "neither preset nor path"
            raise ValueError(f"{given} given; expected exactly one, as in {{preset: tiny}} or {{path: folder}}")
        typed = self.model_fields_set
        sized = sorted(typed & {*SIZES}) if self.preset != "tiny" else []
        if sized:
            raise ValueError(
                f"{', '.join(sized)} {_belong(sized)} to preset 'tiny', which is built here; {self.preset or self.path!r} "
                "has sizes, weights and a vocabulary of its own"
            )
        loaded = sorted(typed & {*ORIGIN}) if self.path is None else []
        if loaded:
            raise ValueError(
                f"{', '.join(loaded)} {_belong(loaded)} to a model at a path, not to preset {self.preset!r}"
            )
        if self.preset == "tiny":
            if self.attention is not None:
                raise ValueError("attention belongs to a model that is loaded; preset 'tiny' is built here")
            if self.hidden % (2 * self.heads):
                raise ValueError(f"hidden {self.hidden} must be a multiple of twice the heads ({self.heads})")
            if self.kv_heads and self.heads % self.kv_heads:
                raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        return self

    @property
    def is_merged(self) -> bool:
        """Whether checkpoints hold a whole model, with adapters merged in: there is no base that they could name."""
        return self.preset == "tiny" or self.gguf is not None


def _belong(names: list[str]) -> str:
    return "belongs" if len(names) == 1 else "belong"


class VllmConfig(PluginConfig):
    """Options of the vLLM engine, used with ``engine: vllm`` only."""

    memory: float = Field(0.3, gt=0, le=1, description="share of the device's memory vLLM may take")
    block_size: int | None = Field(None, ge=1, description="tokens per cache block; null: vLLM's choice (32 on CPU)")
    eager: bool = Field(True, description="no graph capture: starts sooner, decodes slower")
    max_rows: int = Field(256, ge=1, description="sequences decoded at once")
    cpu_cache_gib: int = Field(1, ge=1, description="key-value cache on a machine without a GPU, GiB")


class CausalLMConfig(PluginConfig):
    """A transformers causal language model, from a folder or hub, or a tiny one built here."""

    model: ModelConfig = Field(ModelConfig(preset="tiny"), description="which model")
    engine: Literal["transformers", "vllm"] = Field("transformers", description="what generates")
    vllm: VllmConfig = Field(VllmConfig(), description="options of the vLLM engine")
    critic: Literal["head", "separate"] = Field(
        "head", description="where values come from, if somebody needs them: a head on the model, or a model of its own"
    )
    device: str = Field("auto", description="where the model lives: auto, cpu, cuda, cuda:1")
    forward: Literal["auto", "lean", "transformers"] = Field(
        "auto",
        description="how the model is computed: lean is a packed forward pass for Qwen2 and Llama architectures in "
        "float32 or float64; auto: lean where the architecture allows it",
    )
    snapshot: bool = Field(
        True,
        description="act with a copy of the trained weights taken at each refresh; false saves the copy's memory and "
        "is right only while every step is a round",
    )
    batch_rows: int = Field(512, ge=1, description="sequences decoded at once by the transformers engine")


def plan_problems(plan: Any) -> list[Problem]:
    """Look for model folders that do not exist and optional packages that are missing, in every trial once."""
    found: dict[tuple[str, str], Problem] = {}
    hubs: dict[str, str | None] = {}  # what was found out of hubs, asked once each
    for trial in plan.trials:
        policy, start = trial.settings.policy, trial.settings.start
        if policy is None or policy.use != "causal_lm":
            continue
        problems = [*_machine_problems("policy", policy.options, hubs), *_start_problems(policy.options, start)]
        for problem in problems:
            found.setdefault((problem.path, problem.message), problem)
    return list(found.values())


def _start_problems(options: Mapping[str, Any], start: Any) -> Iterator[Problem]:
    path = "start"
    while start is not None:
        adapters = bool((options.get("model") or {}).get("lora"))
        problem = unfit_start(start.checkpoint, adapters=adapters) if start.checkpoint else None
        if problem is not None:
            yield Problem(f"{path}.checkpoint", problem)
        path, start = f"{path}.start", start.start


def _machine_problems(path: str, options: Mapping[str, Any], hubs: dict[str, str | None]) -> Iterator[Problem]:
    model = options.get("model") or {}
    yield from _model_problems(f"{path}.model", model, hubs)
    if model.get("lora") and importlib.util.find_spec("peft") is None:
        yield Problem(f"{path}.model.lora", NO_PEFT)
    if options.get("engine") == "vllm" and importlib.util.find_spec("vllm") is None:
        yield Problem(f"{path}.engine", NO_VLLM)


def _model_problems(path: str, model: Mapping[str, Any], hubs: dict[str, str | None]) -> Iterator[Problem]:
    preset, folder, gguf = model.get("preset"), model.get("path"), model.get("gguf")
    if preset in PACKAGED and (lacking := missing_packages(preset)) is not None:
        yield Problem(f"{path}.preset", lacking)
    if folder and looks_local(folder):
        problem = missing_gguf(folder, gguf) if gguf else missing_model(folder)
        if problem is not None:
            yield Problem(f"{path}.{'gguf' if gguf else 'path'}", problem)
    elif folder:
        if folder not in hubs:
            hubs[folder] = missing_on_hub(folder, model.get("revision"))
        if (missing := hubs[folder]) is not None:
            yield Problem(f"{path}.path", missing)
    if (lacking := missing_attention(model.get("attention"))) is not None:
        yield Problem(f"{path}.attention", lacking)
    if gguf and importlib.util.find_spec("gguf") is None:
        yield Problem(f"{path}.gguf", NO_GGUF)


NO_FLOAT16 = (
    "float16 cannot be trained here: small gradients vanish in it unless losses are scaled, which is not done. Give "
    "bfloat16 (trained weights are kept in float32 beside it) or float32"
)
NO_PEFT = "low-rank adapters need the package peft; install it with: pip install 'rl-orchestrator[lora]'"
NO_VLLM = (
    "engine vllm needs the package vllm; install it with: pip install 'rl-orchestrator[vllm]', or use transformers"
)
