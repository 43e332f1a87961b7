"""Questions of one's own: rows of a JSONL, CSV or Parquet file or of a Hugging Face dataset, each a task."""

from orchestrator.api import Component, Speaks, hookimpl

from .config import QuestionsConfig


@hookimpl
def provide_environments() -> list[Component]:
    return [Component(name="questions", config=QuestionsConfig, build=".environment:Questions", speaks=Speaks.MESSAGES)]
