"""What policies, estimators and objectives hand over, looked at where they were called; see ``orchestrator.rollout.handed``."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from numbers import Real
from typing import Any, TypeVar

import torch
from torch import Tensor

from orchestrator.contract.batch import Batch, Column, Credit, LossTerm, Mean, Need, Terms, Weights
from orchestrator.contract.metrics import from_plugin, is_core, number
from orchestrator.errors import UndeclaredColumnError
from orchestrator.training.reduction import shape_of

K = TypeVar("K")

# --- what may be read ------------------------------------------------------------------------------------------


class Declared(dict[K, Tensor]):
    """Columns by what was declared; reading another one says so, and what to declare."""

    __slots__ = ("_who",)

    def __init__(self, columns: Mapping[K, Tensor], who: str):
        """:param who: reads them, as in ``objective``"""
        super().__init__(columns)
        self._who = who

    def __missing__(self, key: Any) -> Tensor:
        if isinstance(key, Need) and key.weights == Weights.CURRENT:
            raise UndeclaredColumnError(
                f"the {self._who} reads {_spelt(key)} from batch.columns, where frozen statistics stand; those of the current "
                "weights are in `current`, by column"
            )
        need = Need(Weights.CURRENT, key) if isinstance(key, Column) else key
        shown = _spelt(need) if isinstance(need, Need) else repr(need)
        raise UndeclaredColumnError(
            f"the {self._who} reads {shown}, which it does not declare; add it to `needs`. Declared: "
            + (", ".join(sorted(_spelt(k) if isinstance(k, Need) else str(k) for k in self)) or "none")
        )


def declared_to(who: str, batch: Batch, needs: Collection[Need]) -> Batch:
    """The batch with those frozen columns alone that somebody declared."""
    return replace(batch, columns=Declared({n: c for n, c in batch.columns.items() if n in needs}, who))


def _spelt(need: Need) -> str:
    return f"Need(Weights.{need.weights.name}, Column.{need.column.name})"


# --- policies --------------------------------------------------------------------------------------------------


def expect_columns(columns: Any, wanted: Iterable[Column], mask: Tensor, *, trained: bool) -> Mapping[Column, Tensor]:
    """Check what a policy computed of a micro-batch.

    :param trained: whether the current weights are to be trained through them
    :raises ValueError: a column is missing, of another shape, or without a gradient
    """
    if not isinstance(columns, Mapping):
        raise ValueError(f"columns returned a {type(columns).__name__}; expected a mapping of Column to tensor")
    missing = sorted(set(wanted) - columns.keys())
    if missing:
        raise ValueError(f"the policy did not compute {missing}; the advantage or the objective needs it")
    for column in wanted:
        values = columns[column]
        if not isinstance(values, Tensor) or values.shape[:2] != mask.shape or values.dim() != 2 + (column == "logits"):
            expected = "[B, T, V]" if column == Column.LOGITS else "[B, T]"
            raise ValueError(
                f"columns gave {column} of shape {_shape(values)}; expected {expected} with B, T = {list(mask.shape)}"
            )
    if trained and not any(values.requires_grad for values in columns.values()):
        raise ValueError(
            "columns gave statistics without a gradient, so nothing can be trained; compute them outside of "
            "torch.no_grad() and without detach()"
        )
    return columns


# --- estimators ------------------------------------------------------------------------------------------------


def expect_credit(credit: Any, batch: Batch) -> Credit:
    """Check what an estimator returned; its metrics as plain floats.

    :raises ValueError: a tensor of another shape or type, with a gradient, or not finite where it is trained on; a
        metric that is the core's or no number
    """
    if not isinstance(credit, Credit):
        raise ValueError(f"estimate returned a {type(credit).__name__}; expected Credit(advantages=...)")
    _credit_tensor(credit.advantages, "advantages", batch)
    if credit.returns is not None:
        _credit_tensor(credit.returns, "returns", batch)
    return replace(credit, metrics=from_plugin(credit.metrics, "Credit.metrics"))


def _credit_tensor(values: Any, name: str, batch: Batch) -> None:
    if not isinstance(values, Tensor):
        raise ValueError(f"{name} are a {type(values).__name__}; expected a float32 tensor [B, T]")
    if values.shape != batch.mask.shape:
        raise ValueError(f"{name} have shape {list(values.shape)}; expected [B, T] = {list(batch.mask.shape)}")
    if values.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} are {values.dtype}; expected torch.float32: call .float()")
    if values.device != batch.mask.device:
        raise ValueError(f"{name} are on {values.device}, the batch is on {batch.mask.device}; make them there")
    if values.requires_grad:
        raise ValueError(f"{name} have a gradient; an objective differentiates the policy alone: call .detach()")
    wrong = ~torch.isfinite(values) & batch.mask
    if bool(wrong.any()):
        row, token = wrong.nonzero()[0].tolist()
        group = batch.rewards[batch.group == batch.group[row]].tolist()
        raise ValueError(
            f"{name} are not finite at {int(wrong.sum())} of {int(batch.mask.sum())} trained tokens, first "
            f"{float(values[row, token])} at row {row}, token {token}; the rewards of that row's group are "
            f"{', '.join(f'{reward:.6g}' for reward in group[:16])}{', ...' if len(group) > 16 else ''}. Guard divisions by "
            "a deviation of 0, and use torch.where in place of a product with the mask"
        )


# --- objectives ------------------------------------------------------------------------------------------------


def expect_terms(terms: Any, batch: Batch, *, trained: bool) -> Terms:
    """Check what an objective returned for a micro-batch; cheap, and without waiting for a device.

    :param trained: whether the terms are to have a gradient, where they are not all 0
    :raises ValueError: a term of a shape that its reduction does not take, reduced already, or without a gradient; a
        name or a metric that is the core's
    """
    if not isinstance(terms, Terms):
        raise ValueError(f"terms returned a {type(terms).__name__}; expected Terms(loss=(LossTerm(...), ...))")
    if not isinstance(terms.loss, tuple) or not isinstance(terms.probes, tuple) or not terms.loss:
        raise ValueError(
            "Terms.loss is a tuple of at least one LossTerm, and Terms.probes a tuple: Terms(loss=(term,))"
        )
    for term in (*terms.loss, *terms.probes):
        _expect_term(term, batch)
    for name, taken in (("total", terms.loss), ("loss", terms.probes)):
        if any(term.name == name for term in taken):
            raise ValueError(
                f"a term is named {name!r}, which is the name of the core's sum of them; choose another name"
            )
    detached = trained and not any(term.values.requires_grad for term in terms.loss)
    if detached and any(bool(term.values.count_nonzero()) for term in terms.loss):
        raise ValueError(
            "no loss term has a gradient, so nothing can be trained; compute the terms from `current`, without detach()"
        )
    _expect_means(terms.metrics)
    return terms


def expect_factor(factor: Any, norms: Mapping[str, float]) -> float:
    """Check what ``ScalesGradient.factor`` gave; nan, which skips the step, passes where a norm is not finite.

    :raises ValueError: it is no number, or not finite though the norms are
    """
    factor = number(factor, "factor()", finite=False)
    if not math.isfinite(factor) and all(map(math.isfinite, norms.values())):
        raise ValueError(f"factor() gave {factor} for the norms {dict(norms)}; expected a finite number")
    return factor


def _expect_term(term: Any, batch: Batch) -> None:
    if not isinstance(term, LossTerm) or not isinstance(term.values, Tensor):
        raise ValueError(f"Terms holds {term!r:.80}; expected LossTerm(name=..., values=tensor, reduction=...)")
    if not isinstance(term.name, str) or not term.name:
        raise ValueError(f"a loss term is named {term.name!r}; expected a text, such as 'policy'")
    if term.values.dim() == 0:
        raise ValueError(
            f"loss term {term.name!r} is reduced already; return the values of tokens, rows or groups and name a Reduction: the "
            "core divides"
        )
    if not term.values.is_floating_point():
        raise ValueError(f"loss term {term.name!r} is {term.values.dtype}; expected a float tensor")
    if not isinstance(term.coefficient, Real) or not math.isfinite(term.coefficient):
        raise ValueError(f"loss term {term.name!r} has the coefficient {term.coefficient!r}; expected a finite number")
    shape_of(term, batch)


def _expect_means(metrics: Any) -> None:
    if not isinstance(metrics, Mapping):
        raise ValueError(f"Terms.metrics is a {type(metrics).__name__}; expected a mapping of names to Mean")
    for name, mean in metrics.items():
        if not isinstance(name, str) or is_core(name):
            from_plugin({name: 0.0}, "Terms.metrics")  # words the complaint
        if not isinstance(mean, Mean):
            raise ValueError(f"Terms.metrics: {name!r} is a {type(mean).__name__}; expected Mean(total, count)")
        for part in mean:
            if not (part.numel() == 1 if isinstance(part, Tensor) else isinstance(part, Real)):
                raise ValueError(f"Terms.metrics: {name!r} is {mean!r:.80}; expected Mean of two single numbers")


def _shape(values: Any) -> str:
    return str(list(values.shape)) if isinstance(values, Tensor) else f"none, a {type(values).__name__}"
