"""Options of the environment ``questions``."""

from __future__ import annotations

import re
from enum import StrEnum
from string import Formatter
from typing import Any

from pydantic import Field, field_validator, model_validator

from orchestrator.api import PathOrName, PluginConfig

PROMPT, CHOICES = "prompt", "choices"  # what a template may name beside columns


class Match(StrEnum):
    """How an answer is compared with the right one."""

    EXACT = "exact"
    NUMBER = "number"
    REGEX = "regex"
    CHOICE = "choice"


class SplitConfig(PluginConfig):
    """Which rows are trained on and which are held out, by a column or by the names of a dataset's splits."""

    column: str | None = Field(
        None,
        description="column that says which part a row belongs to; null: the names are those of a dataset's splits",
    )
    train: str = Field("train", description="what stands there for rows to train on")
    eval: str = Field("test", description="what stands there for rows held out; other rows are left out")

    @model_validator(mode="after")
    def _two_parts(self) -> SplitConfig:
        if self.train == self.eval:
            raise ValueError(f"train and eval are both {self.train!r}: held-out rows would be trained on; name two")
        return self


class QuestionsConfig(PluginConfig):
    """Questions of one's own, from a JSONL, CSV or Parquet file or a Hugging Face dataset."""

    path: PathOrName = Field(
        min_length=1,
        description="file (.jsonl, .csv, .tsv, .parquet), or a Hugging Face dataset: a folder, or its name on the hub",
    )
    subset: str | None = Field(None, description="configuration of a dataset on the hub, such as main")
    prompt: str = Field("prompt", description="column of the question: a text, or a list of {role, content}")
    answer: str | None = Field(
        "answer", description="column of the right answer, or of a list of right ones; null: rewards alone judge"
    )
    match: Match = Field(Match.EXACT, description="how an answer is compared with the right one")
    extract: str | None = Field(
        None, description="regular expression whose last match is the answer (its first group, if it has one)"
    )
    ignore_case: bool = Field(False, description="take upper for lower case, with exact and regex")
    choices: str | list[str] | None = Field(
        None, description="with match choice: the column of a list of choices, or the columns of one choice each"
    )
    system: str | None = Field(None, description="system message before the question; null: none")
    template: str | None = Field(
        None,
        description="the question as it is put: {prompt}, {choices} (lettered) and {COLUMN} stand for those, other braces "
        "are doubled; null: the question, with its choices below it",
    )
    demonstration: str | None = Field(None, description="column of a good answer, for a warm-up; null: none")
    check_demonstrations: bool = Field(True, description="refuse a demonstration that is not right by `match`")
    metadata: list[str] | None = Field(None, description="columns that rewards see; null: all others")
    eval_path: PathOrName | None = Field(None, description="file or dataset of the questions held out")
    split: SplitConfig | None = Field(None, description="how rows of `path` are told apart; not with eval_path")
    eval_share: float = Field(
        0.1, gt=0, lt=1, description="share of the questions held out where neither eval_path nor split is given"
    )
    train_tasks: int | None = Field(None, ge=1, description="most training questions; null: all")
    eval_tasks: int | None = Field(None, ge=1, description="most held-out questions; null: all")
    shuffle: bool = Field(True, description="shuffle the training questions once, by `seed`; false: order of the file")
    seed: int = Field(0, description="of the shuffle and of what is held out by eval_share")

    @field_validator("split", mode="before")
    @classmethod
    def _no_bare_split(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(
                "write {column: COLUMN, train: train, eval: test}, or {train: ..., eval: ...} of a dataset"
            )
        return value

    @field_validator("template")
    @classmethod
    def _readable_template(cls, value: str | None) -> str | None:
        if value is not None and PROMPT not in names_in(value):
            raise ValueError("must contain {prompt}")
        return value

    @field_validator("extract")
    @classmethod
    def _readable_expression(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"is no regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> QuestionsConfig:
        if self.eval_path is not None and self.split is not None:
            raise ValueError("eval_path and split both say what is held out; give one")
        if self.eval_path is not None and self.eval_path == self.path:
            raise ValueError("eval_path is path: held-out questions would be trained on; give another file, or split")
        if self.choices is not None and self.match is not Match.CHOICE:
            raise ValueError(f"choices are for match: choice, and match is {self.match}")
        if self.choices is None and CHOICES in names_in(self.template or ""):
            raise ValueError("template shows {choices}, and choices names no column")
        if isinstance(self.choices, list) and len(self.choices) < 2:
            raise ValueError("choices names fewer than two columns; name a column that holds a list, or several")
        if self.answer is None and self.match is not Match.EXACT:
            raise ValueError(f"match: {self.match} compares with the right answer, and answer is null; name its column")
        return self

    def columns(self) -> list[str]:
        """Columns that every row must have."""
        choices = [self.choices] if isinstance(self.choices, str) else self.choices or []
        named = [self.prompt, self.answer, *choices, self.demonstration, *(self.metadata or [])]
        split = [self.split.column] if self.split is not None else []
        shown = [name for name in names_in(self.template or "") if name not in (PROMPT, CHOICES)]
        return list(dict.fromkeys(name for name in (*named, *split, *shown) if name is not None))


def names_in(template: str) -> list[str]:
    """What a template shows.

    :raises ValueError: it cannot be read
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{error}; braces that are no field are doubled") from None
    for _, name, form, conversion in parts:
        if name == "" or form or conversion:
            raise ValueError(f"{{{name or ''}...}} is no field; write {{prompt}} or {{COLUMN}}, double other braces")
    return [name for _, name, _, _ in parts if name is not None]
