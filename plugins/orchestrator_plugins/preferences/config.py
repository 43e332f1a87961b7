"""Options of the preference reward and of the pairwise objectives, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from orchestrator.api import NamesCode, PathOrName, PluginConfig, UseReward


class ModelScorer(PluginConfig):
    """A Hugging Face sequence classifier that scores answers, or compares two of them."""

    path: PathOrName = Field(description="folder or hub name that AutoModelForSequenceClassification loads")
    reads: Literal["answer", "pair"] = Field(
        "answer",
        description="answer: one at a time, a score each; pair: two at once, the logit of the first being better",
    )
    template: str | None = Field(
        None,
        description="what the model reads, with {prompt} and {answer} or, of pairs, {prompt}, {first} and {second}; "
        "null: the tokenizer's chat template for answers if it has one, else the parts below each other",
    )
    max_tokens: int = Field(1024, ge=8, description="longest text read; longer ones lose their beginning")
    batch_rows: int = Field(16, ge=1, description="texts read at once")
    device: str = Field("auto", description="where the model lives: auto, cpu, cuda, cuda:1")
    trust_remote_code: bool = Field(False, description="run Python code that comes with the model")


class PreferenceConfig(PluginConfig):
    """Win rate over the siblings, from a reward, a Hugging Face model or a function that compares."""

    reward: UseReward | None = Field(
        None, description="another reward, compared by Bradley-Terry; the default, with `exact`"
    )
    model: ModelScorer | None = Field(None, description="a model that scores or compares")
    function: Annotated[str, NamesCode("function")] | None = Field(
        None,
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="module:function, called with the task and the answers' texts; returns what `gives` says",
    )
    gives: Literal["scores", "logits", "probabilities"] = Field(
        "scores",
        description="what the function returns: K scores, or K rows of K logits or probabilities of row i beating "
        "column j; nan where a comparison is missing",
    )
    scale: float = Field(
        1.0, gt=0, description="a difference of scores is multiplied by it before the logistic function; logits too"
    )

    @model_validator(mode="before")
    @classmethod
    def _exact_by_default(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and not any(data.get(key) for key in ("reward", "model", "function")):
            return {**data, "reward": {"use": "exact"}}
        return data

    @model_validator(mode="after")
    def _one_scorer(self) -> PreferenceConfig:
        given = [key for key in ("reward", "model", "function") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} given; expected one of reward, model and function")
        if self.gives != "scores" and self.function is None:
            raise ValueError(f"gives: {self.gives} says what a function returns, but {given[0]} is given")
        return self


class PairConfig(PluginConfig):
    """Options shared by pairwise objectives."""

    kl_weight: float = Field(
        0.1, gt=0, description="a nat of log-ratio to the reference in units of reward; papers: beta, 0.1 in DPO sec. 6"
    )
    pairs: Literal["best_worst", "all"] = Field(
        "best_worst", description="the best against the worst sibling by score, or every pair of unequal ones"
    )


class DpoConfig(PairConfig):
    """Direct preference optimisation over pairs of siblings, the better score preferred."""


class IpoConfig(PairConfig):
    """Identity preference optimisation: regress the pair's log-ratios on a margin."""

    margin: float = Field(
        0.5,
        gt=0,
        description="wanted difference of rewards; arXiv:2410.06293: 1/tau; with 0.5 and kl_weight as tau it is "
        "arXiv:2310.12036, eq. 17, times tau squared",
    )
