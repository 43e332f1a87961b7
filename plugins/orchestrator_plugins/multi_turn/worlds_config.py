"""Options of the environments."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from orchestrator.api import PluginConfig


class WorldConfig(PluginConfig):
    """Options every generated world has."""

    train_on: Literal["training", "demonstrations"] = Field(
        "training", description="which tasks the TRAIN split draws from; the two ranges share none"
    )
    evaluate_on: Literal["validation", "test"] = Field(
        "validation", description="which tasks the EVAL split draws from; the two ranges share none"
    )
    train_tasks: int | None = Field(None, ge=1, description="training tasks, after which they repeat; null: endless")
    eval_tasks: int = Field(512, ge=1, description="evaluation tasks")
    seed: int = Field(0, description="of the generated tasks and demonstrations and of nothing else")


class ChainSearchConfig(WorldConfig):
    """Follow hidden links with a search tool, then answer; five turns at most."""

    letters: int = Field(12, ge=3, le=26, description="entities are pairs of the first so many letters")
    chain: int = Field(5, ge=2, le=8, description="entities of a chain, e0 included")
    hops: tuple[int, ...] = Field((1, 2, 3), min_length=1, description="hops a task may ask for, equally likely")
    max_turns: int = Field(5, ge=2, description="turns of an episode; who has not answered by then has lost")
    expert_error: float = Field(
        0.25, ge=0, le=1, description="chance that a turn of a demonstration names a wrong entity"
    )
    cut_action: Literal["goes_on", "ends"] = Field(
        "goes_on", description="what an action cut by the token limit is: a malformed turn, or the end of the episode"
    )

    @field_validator("hops")
    @classmethod
    def _hops_once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value) or min(value) < 1:
            raise ValueError("expected numbers of at least 1, each once")
        return value

    @model_validator(mode="after")
    def _hops_fit(self) -> ChainSearchConfig:
        most = max(self.hops)
        if most >= self.chain:
            raise ValueError(f"hops {most} needs a chain of {most + 1} entities; chain is {self.chain}")
        if most >= self.max_turns:
            raise ValueError(f"hops {most} takes {most + 1} turns, the answer included; max_turns is {self.max_turns}")
        return self


TEMPLATE = (
    "Answer the question. Reason between <think> and </think> whenever you have learned something new. Then either "
    "search for passages with <search>a query</search>, or answer with <answer>your answer</answer>, a few words at "
    "most. You may search {searches} times.\nQuestion: {question}"
)


class SearchQAConfig(PluginConfig):
    """Questions answered by searching one's own passages with BM25, in think, search and answer turns."""

    passages: Path | None = Field(
        None, description='JSONL of passages, {"id", "title" (optional), "text"}; null: a small invented country'
    )
    questions: Path | None = Field(
        None,
        description='JSONL of questions, {"question", "answers", "passages" (optional: ids of those that answer it)}',
    )
    eval_questions: Path | None = Field(
        None, description="JSONL of evaluation questions; null: a fifth of `questions`, half validation and half test"
    )
    train_on: Literal["training", "demonstrations"] = Field(
        "training", description="which questions the TRAIN split draws from; the two ranges share none"
    )
    evaluate_on: Literal["validation", "test"] = Field(
        "validation", description="which questions the EVAL split draws from; the two ranges share none"
    )
    train_tasks: int | None = Field(None, ge=1, description="most training questions; null: all")
    eval_tasks: int | None = Field(None, ge=1, description="most evaluation questions; null: all")
    max_searches: int = Field(4, ge=1, description="searches of an episode")
    max_turns: int | None = Field(
        None, ge=2, description="turns of an episode, after which it is lost; null: two more than searches"
    )
    top_k: int = Field(3, ge=1, description="passages a search shows at most")
    passage_characters: int = Field(2000, ge=40, description="characters of passages a search shows at most")
    reward: Literal["exact", "f1"] = Field(
        "exact", description="what an answer pays: 1 for an exact match and 0 otherwise, or its F1"
    )
    think: Literal["required", "optional"] = Field(
        "required", description="whether a turn without <think>...</think> is malformed"
    )
    template: str = Field(TEMPLATE, description="what the policy is told; {question} and {searches} are filled in")
    cut_action: Literal["goes_on", "ends"] = Field(
        "ends", description="what an action cut by the token limit is: a malformed turn, or the end of the episode"
    )

    @property
    def turns(self) -> int:
        """The limit on turns."""
        return self.max_searches + 2 if self.max_turns is None else self.max_turns

    @field_validator("template")
    @classmethod
    def _mentions_the_question(cls, value: str) -> str:
        if "{question}" not in value:
            raise ValueError("template must hold {question}")
        return value

    @model_validator(mode="after")
    def _files_fit(self) -> SearchQAConfig:
        if (self.passages is None) != (self.questions is None):
            raise ValueError("passages and questions belong together; give both, or neither for the built-in corpus")
        if self.eval_questions is not None and self.questions is None:
            raise ValueError("eval_questions needs passages and questions too")
        if self.eval_questions and self.questions and self.eval_questions.resolve() == self.questions.resolve():
            raise ValueError(
                "eval_questions is questions: held-out ones would be trained on; give another file, or none"
            )
        if self.turns <= self.max_searches:
            raise ValueError(f"max_turns {self.turns} leaves no turn to answer after {self.max_searches} searches")
        return self
