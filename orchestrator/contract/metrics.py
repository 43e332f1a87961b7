"""Names of metrics that more than one wing reads, those that are the core's own, and which one is compared where nobody says."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

COST = "cost/generated_tokens"
"""What arms are compared at: tokens (actions) generated for training so far."""
SECONDS = "cost/seconds"
"""Wall-clock seconds of a trial, evaluation included."""
COUNTERS = (
    COST,
    "cost/prompt_tokens",
    "cost/trained_tokens",
    "cost/rollouts",
    "cost/failed_rollouts",
    "cost/evaluation_tokens",
    SECONDS,
    "cost/device_seconds",
)
"""Everything that is counted, on every row of metrics."""
SUCCESS = "eval/pass_at_1"
"""Share of held-out rollouts that were right, where something says what is right."""
SCORE = "eval/reward/mean"
"""Mean score of held-out rollouts; every evaluation has it."""
OBSERVERS = "observers/errors"
"""Errors of watching plugins in a trial so far."""
COMPARED = (SUCCESS, SCORE)
"""What is compared where the experiment names no metric: the first of them that was measured."""

LARGEST_METRIC = 1e100
"""Metrics are added up and squared, over rollouts and over seeds: a larger number would leave floating point."""

_AREAS = ("cost", "eval", "loss", "observers", "rollout", "time")  # the core's, whole
_TRAIN = re.compile(  # the core's within an area it shares with objectives and estimators
    r"train/(act_train_logprob_gap|correction/.*|grad_norm|gradient_factor|gradient_norm/.*|idle_updates|lr|micro_batch_tokens|rows|skipped_updates|tokens)"
)
OWN_EVALUATED = (
    SCORE,
    "eval/distinct_correct",
    "eval/entropy",
    "eval/failed_rollouts",
    "eval/rollouts",
    "eval/tokens",
    "eval/tokens_per_rollout/mean",
    "eval/turns/mean",
)
"""The core's metrics of an evaluation whose names follow from no option."""
EVALUATED = re.compile(
    r"eval/(pass_at_.*|majority_at_.*|distinct_correct|entropy|episode/.*|failed_rollouts|reward/.*|rollouts|tokens"
    r"|tokens_per_rollout/.*|turns/mean)"
)
"""Names that are the core's among what components measure on an evaluation."""
_PASSING = re.compile(r"eval/(majority_at_.*|distinct_correct|episode/.*|reward/.+/.*)")


def is_core(name: str) -> bool:
    """Whether a metric of a step is the core's own: no plugin may give one of that name.

    Whole areas are (``cost/``, ``eval/``, ``loss/``, ``observers/``, ``rollout/``, ``time/``), and single names of ``train/``,
    where methods report what they have in common, such as ``train/kl_reference``.
    """
    return name.partition("/")[0] in _AREAS or _TRAIN.fullmatch(name) is not None


def comes_and_goes(name: str, measured: Collection[str]) -> bool:
    """Whether an evaluation that lacks a metric says nothing of later ones: it follows from what happened in the episodes.

    :param measured: what the evaluation did measure
    """
    if name.startswith("eval/pass_at_"):  # of all episodes or none: some said whether they were right
        return "eval/episode/correct" in measured
    return _PASSING.fullmatch(name) is not None


def from_plugin(given: Any, where: str, *, area: str = "") -> dict[str, float]:
    """Metrics that a plugin gave, as plain floats; ones that are not finite pass, and are left out of rows.

    :param where: what gave them, to begin the message with
    :param area: put before the names, as ``eval/``; those that are the core's within it are refused
    :raises ValueError: a name is the core's or no text, or a value no number or beyond :data:`LARGEST_METRIC`
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} is a {type(given).__name__}; expected a mapping of metric names to numbers")
    found = {}
    for name, value in given.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"{where} names a metric {name!r}; expected a text, as in 'mine/score'")
        full = f"{area}{name}"
        if EVALUATED.fullmatch(full) if area else is_core(full):
            raise ValueError(
                f"{where} holds {full!r}, which is one of the core's metrics: a plugin's would stand in its place; give it "
                "a name under an area of the plugin's own, as in 'mine/score'"
            )
        found[full] = number(value, f"{where}: metric {name!r}", largest=LARGEST_METRIC, finite=False)
    return found


def number(value: Any, what: str, *, largest: float = math.inf, finite: bool = True) -> float:
    """A number that a plugin gave, as a plain float.

    :param largest: magnitude that is still taken
    :param finite: refuse nan and infinities too
    :raises ValueError: it is none, or beyond the bounds
    """
    if type(value) is not float:
        if isinstance(value, str | bytes) or value is None:
            raise ValueError(f"{what} is {value!r}; expected a number")
        try:
            value = float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            raise ValueError(f"{what} is a {type(value).__name__} that is no single number; expected a float") from None
    if not math.isfinite(value):
        if finite:
            raise ValueError(f"{what} is {value}; expected a finite number")
    elif not -largest <= value <= largest:
        raise ValueError(f"{what} is {value:g}; expected a magnitude of at most {largest:g}")
    return value


def compared(measured: Collection[str], named: str | None = None) -> str:
    """The metric that is compared: the one named, or the first of ``COMPARED`` that was measured."""
    return named or next((name for name in COMPARED if name in measured), SCORE)
