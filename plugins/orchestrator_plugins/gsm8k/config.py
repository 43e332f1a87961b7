"""Options of the GSM8K environment."""

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from orchestrator.api import PluginConfig

TEMPLATE = "{question}\nReason step by step, then write the final number after ####."


class Gsm8kConfig(PluginConfig):
    """Word problems with one number as the answer, from the released JSONL files."""

    path: Path | None = Field(None, description="JSONL of training problems; null: a few built-in problems")
    eval_path: Path | None = Field(
        None, description="JSONL of evaluation problems; null: `eval_share` of the problems of `path`"
    )
    eval_share: float = Field(0.1, gt=0, lt=1, description="share of `path` kept for evaluation without `eval_path`")
    train_tasks: int | None = Field(None, ge=1, description="most training problems; null: all")
    eval_tasks: int | None = Field(None, ge=1, description="most evaluation problems; null: all")
    shuffle: bool = Field(True, description="shuffle the training problems once, by `seed`; false: order of the file")
    seed: int = Field(0, description="of the shuffle")
    template: str = Field(TEMPLATE, description="what the policy is told; {question} stands for the problem")
    system: str | None = Field(None, description="system message before the problem; null: none")
    last_number: bool = Field(
        True, description="where an answer marks no number, take its last one; false: such an answer is wrong"
    )
    keep_calculations: bool = Field(False, description="keep the <<1+2=3>> notes of demonstrations")

    @field_validator("template")
    @classmethod
    def _mentions_the_question(cls, value: str) -> str:
        if "{question}" not in value:
            raise ValueError("template must hold {question}")
        return value

    @model_validator(mode="after")
    def _files_fit(self) -> "Gsm8kConfig":
        if self.eval_path is not None and self.path is None:
            raise ValueError("eval_path needs path: give the training problems too")
        if self.eval_path is not None and self.path is not None and self.eval_path.resolve() == self.path.resolve():
            raise ValueError("eval_path is path: held-out problems would be trained on; give another file, or none")
        return self
