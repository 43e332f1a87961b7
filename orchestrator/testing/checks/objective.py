"""The contract of an objective."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from orchestrator.contract.batch import Batch, Column, Mean, Need, Terms, Weights
from orchestrator.contract.parts import facts_of
from orchestrator.contract.roles import ScalesGradient
from orchestrator.contract.types import (
    Couples,
)
from orchestrator.errors import UndeclaredColumnError
from orchestrator.testing.batches import make_outputs, objective_gradients, pad_batch
from orchestrator.testing.checks.batches import accepted, changed, copied
from orchestrator.testing.checks.metrics import METRIC_NAME
from orchestrator.training.handed import Declared, declared_to, expect_terms
from orchestrator.training.reduction import shape_of

TOLERANCE = 1e-9
"""Largest difference, absolute and relative, between gradients in float64 that must be equal."""


def check_objective(build: Callable[[], Any], **_: Any) -> list[str]:
    """Broken rules of an objective."""
    try:
        batches, refusals = accepted(lambda batch: _asked(build(), batch), build().needs)
    except UndeclaredColumnError as error:
        return [str(error)]
    return list(dict.fromkeys([*refusals, *(p for batch in batches for p in _objective_problems(build, batch))]))


def _asked(objective: Any, batch: Batch) -> Any:
    """What it makes of the columns it declared."""
    current = make_outputs(batch).columns(batch, _current(objective.needs))
    return objective.terms(declared_to("objective", batch, objective.needs), Declared(current, "objective"))


def _objective_problems(build: Callable[[], Any], batch: Batch) -> list[str]:
    objective, outputs = build(), make_outputs(batch)
    before = copied(batch)
    problems, terms = [], _asked(objective, batch)
    try:
        expect_terms(terms, batch, trained=True)
    except ValueError as error:
        problems.append(str(error))
    problems += _metric_problems(terms)
    if not problems:
        problems += _correction_problems(objective, terms, batch)
    if problems:
        return problems
    problems += [f"terms() changes the batch's {name} in place" for name in changed(batch, before)]
    whole = objective_gradients(build(), batch, outputs)
    if not any(bool(whole[name].any()) for name in whole if name.startswith("loss/")):
        problems.append("the loss has no gradient; terms must depend on `current`")
    for name, gradient in whole.items():
        if not torch.isfinite(gradient).all():
            problems.append(f"{name} is not finite")
        elif gradient.dim() and bool(gradient[~batch.mask].any()):
            problems.append(f"{name} is not 0 on masked tokens")
    for label, parts in _splits(batch, objective.couples):
        problems += _differences(f"cut into {label}", objective_gradients(build(), batch, outputs, parts), whole)
    for left, right in ((0, 3), (2, 1)):
        padded, wide = pad_batch(batch, outputs, left=left, right=right)
        width = batch.mask.shape[1]
        found = objective_gradients(build(), padded, wide)
        narrow = {n: g[:, left : left + width] if g.dim() > 1 else g for n, g in found.items()}
        problems += _differences(f"padded by {left} positions before and {right} behind", narrow, whole)
    for shift in (300.0, -300.0):
        extreme = objective_gradients(build(), _shifted(batch, shift), outputs)
        problems += [
            f"{name} is not finite when frozen log-probabilities are {abs(shift):.0f} nats "
            f"{'above' if shift > 0 else 'below'} the current; clamp log-ratios before exp"
            for name, gradient in extreme.items()
            if not torch.isfinite(gradient).all()
        ]
    if isinstance(objective, ScalesGradient):
        norms = {"loss": 1.0} | {n.removeprefix("probe/"): 1.0 for n in whole if n.startswith("probe/")}
        for value in (0.0, 1.0):
            factor = objective.factor(dict.fromkeys(norms, value))
            if not math.isfinite(factor):
                problems.append(f"factor() gives {factor} when every norm is {value}")
    return problems


def _current(needs: frozenset[Need]) -> frozenset[Column]:
    return frozenset({Column.LOGPROB, *(need.column for need in needs if need.weights == Weights.CURRENT)})


def _metric_problems(terms: Any) -> list[str]:
    problems = []
    for name, mean in terms.metrics.items() if isinstance(terms, Terms) else ():
        if not METRIC_NAME.fullmatch(name):
            problems.append(f"metric {name!r} has characters that trackers refuse; use letters, digits, _ - . : /")
        if isinstance(mean, Mean) and not all(math.isfinite(float(part)) for part in mean):
            problems.append(f"metric {name!r} is {mean!r}; expected Mean(total, count) of finite numbers")
    return problems


def _correction_problems(objective: Any, terms: Terms, batch: Batch) -> Iterator[str]:
    """Levels of a correction that an objective declares, and its policy's term cannot be weighed at."""
    possible = {"tokens": ("token", "sequence"), "rows": ("sequence",), "groups": ()}
    declared = facts_of(objective).corrections or ()
    kinds = {shape_of(term, batch) for term in terms.loss if term.name == "policy"}
    if declared and not kinds:
        yield "declares corrections and has no loss term named 'policy', which alone is corrected"
    for kind in sorted(kinds):
        for level in sorted(set(declared) - set(possible[kind])):
            yield f"declares the correction {level!r}, and its policy's term has values of {kind}; they take {possible[kind]}"


def _splits(batch: Batch, couples: Couples) -> Iterator[tuple[str, list[Tensor]]]:
    rows = torch.arange(len(batch.group))
    groups = [rows[batch.group == group] for group in batch.group.unique()]
    yield "single groups", groups
    yield "the last group and the others", [groups[-1], torch.cat(groups[:-1])]
    if couples == Couples.ROWS:
        yield "single rows", list(rows.split(1))
        shuffled = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
        yield "shuffled threes", [part.sort().values for part in shuffled.split(3)]


def _differences(what: str, found: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> list[str]:
    problems = []
    for name in whole:
        other = found.get(name)
        if other is None or not torch.allclose(other, whole[name], atol=TOLERANCE, rtol=TOLERANCE):
            apart = math.inf if other is None else float((other - whole[name]).abs().max())
            problems.append(f"{name} differs by {apart:.1e} when the batch is {what}")
    return problems


def _shifted(batch: Batch, shift: float) -> Batch:
    """Frozen log-probabilities far from the current ones, every other token the other way."""
    sign = torch.where(torch.arange(batch.mask.shape[1]) % 2 == 0, shift, -shift).to(batch.behaviour_logprobs)
    columns = {n: c + sign if n.column == Column.LOGPROB else c for n, c in batch.columns.items()}
    behaviour = torch.where(batch.mask, batch.behaviour_logprobs + sign, 0.0)
    return replace(batch, columns=columns, behaviour_logprobs=behaviour)
