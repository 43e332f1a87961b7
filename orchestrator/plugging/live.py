"""Functions that a caller gives from Python: named by what they are, and found by that name in the same process."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.errors import ConfigError, Problem

if TYPE_CHECKING:
    from orchestrator.contract.plan import Plan

_functions: dict[str, Callable[..., Any]] = {}


def name_function(function: Callable[..., Any]) -> str:
    """Keep a function of this process under a name that tells it from one with another text."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):  # typed into an interpreter, or an object
        code = getattr(function, "__code__", None)
        text = repr((code.co_code, code.co_names)) if code is not None else name
    key = f"{name}@{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
    _functions[key] = function
    return key


def live_function(key: str) -> Callable[..., Any]:
    """The function that was kept under a name.

    :raises ConfigError: none was, in this process
    """
    if key not in _functions:
        name, _, digest = key.partition("@")
        changed = any(known.startswith(f"{name}@") for known in _functions)
        reason = f"was given from Python with another text ({digest})" if changed else "was given from Python"
        raise ConfigError(
            [
                Problem(
                    "reward.live",
                    f"the function {name} {reason}, and is not in this process; give it again: "
                    f"orchestrator.resume(run, rewards=[{name}]). A function of a file needs nobody to give it: "
                    "{use: function, path: FILE.py:FUNCTION}",
                )
            ]
        )
    return _functions[key]


def given_functions(plan: Plan) -> Iterator[tuple[str, str]]:
    """Rewards that are functions of the process that made a plan: where each stands, and the name it was kept under."""
    for settings in plan.arms.values():
        for index, reward in enumerate(settings.rewards):
            for path, options in _nested(reward.options, f"rewards.{index}"):
                if isinstance(options.get("live"), str):
                    yield path, options["live"]


def _nested(options: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield path, options
    for key, value in options.items():
        items = [(f"{path}.{key}", value)]
        if isinstance(value, list | tuple):
            items = [(f"{path}.{key}.{index}", one) for index, one in enumerate(value)]
        for where, one in items:
            if isinstance(one, Mapping):
                yield from _nested(one, where)
