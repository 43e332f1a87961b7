"""What a plan must not ask of ``search_qa``: files that cannot be used, a package that is not there."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from orchestrator.api import Problem

from ..worlds_config import SearchQAConfig
from .files import read_corpus
from .index import NO_BM25


def search_problems(plan: Any) -> list[Problem]:
    """Look at every ``search_qa`` of the plan, inside mixtures too; each different one is read once."""
    found: dict[str, list[Problem]] = {}
    for trial in plan.trials:
        for path, options in _uses(trial.config["environment"]):
            found.setdefault(json.dumps([path, options], sort_keys=True, default=str), _problems(path, options))
    return [problem for problems in found.values() for problem in problems]


def _uses(environment: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    worlds = {f"environment.worlds.{place}": world for place, world in enumerate(environment.get("worlds") or ())}
    for path, world in {"environment": environment, **worlds}.items():
        if world.get("use") == "search_qa":
            yield path, {key: value for key, value in world.items() if key in SearchQAConfig.model_fields}


def _problems(path: str, options: Mapping[str, Any]) -> list[Problem]:
    problems = []
    if importlib.util.find_spec("bm25s") is None:
        problems.append(Problem(f"{path}.use", NO_BM25))
    try:
        config = SearchQAConfig.model_validate(dict(options))
    except ValidationError:
        return problems  # said by the check of options
    try:
        read_corpus(config.passages, config.questions, config.eval_questions)
    except ValueError as error:
        problems.append(Problem(f"{path}.questions" if config.questions else f"{path}.use", str(error)))
    return problems
