"""Options of the countdown environment."""

from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from orchestrator.api import PluginConfig


class Prompt(StrEnum):
    """How a puzzle is put to the policy."""

    PLAIN = "plain"  # "3 5 7 = 36\n"; the whole action is the expression
    INSTRUCT = "instruct"  # a sentence; the expression stands between <answer> and </answer>


class Style(StrEnum):
    """How demonstrations are written."""

    COMPACT = "compact"  # (3+5)*7
    SPACED = "spaced"  # (3 + 5) * 7


class CountdownConfig(PluginConfig):
    """Arithmetic puzzles with guaranteed solutions and many right answers."""

    numbers: tuple[int, int] = Field((3, 3), description="fewest and most numbers of a puzzle, each within 2..6")
    max_number: int = Field(9, ge=1, le=999, description="numbers are drawn from 1 to this")
    operations: tuple[Literal["+", "-", "*", "/"], ...] = Field(
        ("+", "-", "*", "/"), min_length=1, description="operations an expression may use"
    )
    target: tuple[int, int] = Field((1, 99), description="lowest and highest target")
    seed: int = Field(0, description="of the generated puzzles and of nothing else")
    train_tasks: int | None = Field(None, ge=1, description="distinct training puzzles; null: an endless stream")
    eval_tasks: int = Field(512, ge=1, description="most evaluation puzzles, all distinct")
    eval_share: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="share of all puzzles (numbers regardless of order, and target) kept for evaluation",
    )
    path: Path | None = Field(None, description="JSONL of puzzles to use instead of generated ones")
    eval_path: Path | None = Field(
        None, description="JSONL of evaluation puzzles; null: `eval_share` of the puzzles of `path`"
    )
    prompt: Prompt = Field(Prompt.PLAIN, description="plain for character models, instruct for real ones")
    template: str | None = Field(
        None, description="text of the instruct prompt with {numbers}, {operations} and {target}; null: built in"
    )
    expression_style: Style = Field(Style.COMPACT, description="how demonstrations are written")
    wrong_demonstrations: float = Field(
        0.0, ge=0, le=1, description="share of demonstrations that miss the target: those of an expert who errs"
    )
    format_reward: float = Field(
        0.0, ge=0, lt=1, description="reward of an expression that parses but is wrong; 1 is that of a right one"
    )

    @field_validator("numbers")
    @classmethod
    def _numbers_in_bounds(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 2 <= value[0] <= value[1] <= 6:
            raise ValueError("expected [fewest, most] with 2 <= fewest <= most <= 6")
        return value

    @field_validator("target")
    @classmethod
    def _target_in_order(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[0] > value[1]:
            raise ValueError("expected [lowest, highest] with lowest <= highest")
        return value

    @field_validator("operations")
    @classmethod
    def _operations_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("each operation once")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> "CountdownConfig":
        if self.eval_path is not None and self.path is None:
            raise ValueError("eval_path needs path: give the training puzzles too")
        if self.eval_path is not None and self.path is not None and self.eval_path.resolve() == self.path.resolve():
            raise ValueError("eval_path is path: held-out puzzles would be trained on; give another file, or none")
        if self.template is not None:
            if self.prompt is not Prompt.INSTRUCT:
                raise ValueError("template needs prompt: instruct")
            try:
                filled = self.template.format(numbers="\0n", operations="\0o", target="\0t")
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError(
                    f"template: {error!r}; known fields are {{numbers}}, {{operations}}, {{target}}"
                ) from None
            if "\0n" not in filled or "\0t" not in filled:
                raise ValueError("template must mention {numbers} and {target}")
        return self
