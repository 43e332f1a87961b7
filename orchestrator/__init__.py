"""Reinforcement-learning experiments: train every method alike, then say which is better.

From Python: :func:`run`, :func:`plan`, :func:`resume`, and :func:`load`, which reads a run as a :class:`Study`. Plugin authors
import from :mod:`orchestrator.api`; their test suites also from :mod:`orchestrator.testing`.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = ("ConfigError", "Study", "load", "plan", "resume", "run")  # of orchestrator.python, imported when first used


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = globals()[name] = getattr(importlib.import_module("orchestrator.python"), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
