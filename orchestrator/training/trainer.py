"""One update phase: frozen columns, credit, then mini-batches of micro-batches into optimiser steps."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from orchestrator.contract.batch import Batch, Column, Need, Terms, Weights
from orchestrator.contract.limits import Limits, Unlimited
from orchestrator.contract.parts import facts_of
from orchestrator.contract.roles import ScalesGradient
from orchestrator.contract.settings import Settings
from orchestrator.contract.types import Couples
from orchestrator.errors import NonFiniteError, accuse, blame
from orchestrator.maths.seeding import derive_seed
from orchestrator.training.correction import OLD_LOGPROB, Gap, GapCorrection
from orchestrator.training.diagnosis import Finding, look_into
from orchestrator.training.distributed import Workers
from orchestrator.training.gradients import Sums
from orchestrator.training.handed import (
    Declared,
    declared_to,
    expect_columns,
    expect_credit,
    expect_factor,
    expect_terms,
)
from orchestrator.training.idling import Idling
from orchestrator.training.memory import Held, Room
from orchestrator.training.optimisation import learning_rate_factor, make_optimizer, set_learning_rate
from orchestrator.training.reduction import Denominators, counting_needed, override_reduction
from orchestrator.training.slicing import group_rows, microbatches, minibatches, take_rows
from orchestrator.training.tally import Tally
from orchestrator.training.weights import WeightStore

logger = logging.getLogger(__name__)


class Trainer:
    """Owns the optimiser; everything that divides is in :mod:`orchestrator.training.reduction`."""

    def __init__(
        self,
        policy: Any,
        advantage: Any,
        objective: Any,
        settings: Settings,
        weights: WeightStore,
        *,
        seed: int,
        labels: Mapping[str, str] | None = None,
        keep_bad_batch: Path | None = None,
        workers: Workers | None = None,
        limits: Limits | None = None,
    ):
        """Wire a trainer.

        :param labels: who to blame, by role
        :param keep_bad_batch: file the batch goes to when the trial fails for non-finite numbers
        :param limits: on calls of the estimator and the objective; None: none
        """
        self._policy, self._advantage, self._objective = policy, advantage, objective
        self._credit_needs: frozenset[Need] = frozenset() if advantage is None else advantage.needs
        self._settings, self._weights, self._seed = settings, weights, seed
        self._labels = dict(labels or {})
        self._keep_bad_batch = keep_bad_batch
        self._workers = workers or Workers()
        self._limits, self._at = limits or Unlimited(), 0  # the step, which tells its calls apart
        self._named = [(n, p) for n, p in policy.module.named_parameters() if p.requires_grad]
        self._parameters = [p for _, p in self._named]
        self.updates = 0  # optimiser steps taken
        self.skipped = 0  # updates skipped for non-finite numbers, in all
        self._skipped_in_a_row = 0
        self._bad: Batch | None = None  # of the last update that was skipped
        self._correction = GapCorrection(settings.update.correction)
        self._room = Room(settings, policy, self._parameters, self._workers)
        self._idling = Idling(objective, policy.module, self._named, self._workers)
        self.fresh_optimizer()

    def fresh_optimizer(self) -> None:
        """Forget the optimiser's state."""
        with blame(self._labels.get("policy")):
            self._optimizer = make_optimizer(self._named, self._settings.optimizer)

    def update(self, batch: Batch, step: int, *, fresh: bool = True) -> dict[str, float]:
        """Train on one batch of whole groups.

        :param step: 1-based; seeds the shuffling and places the learning rate
        :param fresh: whether the current weights are those that acted, so that recorded and recomputed
            log-probabilities must agree
        :returns: metrics of the phase; ratios over all its optimiser steps
        :raises NonFiniteError: too many updates in a row were skipped
        """
        self._at, schedule = step, self._settings.schedule
        groups = len(group_rows(batch.group))
        count = int(-self._workers.maximum(-min(schedule.minibatches, groups)))
        single = count == 1 and schedule.epochs == 1
        if Need(Weights.OLD, Column.LOGITS) in self._objective.needs and not single:
            self._weights.keep(Weights.OLD)
        try:
            return self._update(batch, step, count, single=single, fresh=fresh)
        finally:
            self._weights.forget(Weights.OLD)  # the next update's old weights are others

    def _update(self, batch: Batch, step: int, count: int, *, single: bool, fresh: bool) -> dict[str, float]:
        schedule, before = self._settings.schedule, self._needed_before(single)
        if self._credit_needs or not self._idling.declared:
            batch = self._credited(self._frozen(batch, before))
        else:  # the credit shows whether there is anything to learn
            batch = self._credited(batch)
            batch = batch if self._idling.can_leave_out(batch) else self._frozen(batch, before)
        tally = Tally(self._workers)
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "minibatches", step) >> 1)
        gap = Gap(self._correction, self._workers)
        idle = 0
        for epoch in range(schedule.epochs):
            for place, rows in enumerate(minibatches(batch, count, generator)):
                mini = take_rows(batch, rows) if count > 1 else batch
                progress = (step - 1) / max(schedule.steps, 1)
                if self._idling.can_leave_out(mini):
                    tally.add_idle(self._idling.leave_out())
                    self._step(mini, tally, progress)
                    idle += 1
                    continue
                self._optimise(mini, tally, progress, gap if epoch == 0 else None, fresh=fresh and place == 0)
        metrics = {**self._credit_metrics, **tally.metrics(), **gap.metrics()}
        if self._room.is_automatic:
            metrics["train/micro_batch_tokens"] = float(self._room.tokens(self._trained_columns) or 0)
        if self._idling.declared:
            metrics["train/idle_updates"] = float(idle)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Optimiser moments by parameter name, and counters."""
        moments: dict[str, dict[str, Any]] = {}
        for name, parameter in self._named:
            held = self._optimizer.state.get(parameter, {})
            moments[name] = {key: value for key, value in held.items() if isinstance(value, Tensor | int | float)}
        return {
            "updates": self.updates,
            "skipped": self.skipped,
            "in_a_row": self._skipped_in_a_row,
            "moments": moments,
            "idling": self._idling.state_dict(),
            "room": self._room.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.updates, self.skipped = state["updates"], state["skipped"]
        self._skipped_in_a_row = state["in_a_row"]
        self._idling.load_state_dict(state.get("idling"))
        self._room.load_state_dict(state.get("room"))
        names = {id(parameter): name for name, parameter in self._named}
        ordered = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        moments = {place: state["moments"].get(names[id(parameter)]) for place, parameter in enumerate(ordered)}
        # The optimiser's own loading knows which of its tensors belong on the device: a fused step count does.
        groups = self._optimizer.state_dict()["param_groups"]
        held = {place: values for place, values in moments.items() if values}
        self._optimizer.load_state_dict({"state": held, "param_groups": groups})

    # --- frozen statistics and credit ---------------------------------------------------------------------

    def _needed_before(self, single: bool) -> frozenset[Need]:
        """What must be frozen before the update.

        With one optimiser step the old weights are the current ones, so the objective's old columns come from the
        forward pass that trains.
        """
        later = {n for n in self._objective.needs if n.weights == Weights.OLD} if single else set()
        before = (self._objective.needs - later) | self._credit_needs
        if not single:
            before |= self._correction.needs
        return frozenset(n for n in before if n.weights != Weights.CURRENT and n.column != Column.LOGITS)

    def _frozen(self, batch: Batch, needs: frozenset[Need]) -> Batch:
        columns = dict(batch.columns)
        for weights in sorted({need.weights for need in needs}):
            wanted = frozenset(need.column for need in needs if need.weights == weights)
            with torch.no_grad(), self._weights.loaded(weights):
                for rows in self._micro_rows(batch, Couples.ROWS):
                    micro = take_rows(batch, rows)
                    for column, values in self._columns(micro, wanted).items():
                        need = Need(weights, column)
                        if need not in columns:
                            columns[need] = torch.zeros(batch.mask.shape, dtype=values.dtype, device=values.device)
                        columns[need][rows, : values.shape[1]] = values
        return replace(batch, columns=columns)

    def _credited(self, batch: Batch) -> Batch:
        if self._advantage is None:  # the score itself, on every token
            self._credit_metrics: dict[str, float] = {}
            return replace(batch, advantages=torch.where(batch.mask, batch.rewards[:, None], 0.0))
        self._refuse_overflow(batch)
        with blame(self._labels.get("advantage")), torch.no_grad():
            with self._limits.watched("advantage", f"advantage/{self._at}"):
                credit = self._advantage.estimate(declared_to("estimator", batch, self._credit_needs))
            credit = expect_credit(credit, batch)
        self._credit_metrics = dict(credit.metrics)
        return replace(batch, advantages=credit.advantages, returns=credit.returns)

    # --- one optimiser step -------------------------------------------------------------------------------

    def _optimise(self, mini: Batch, tally: Tally, progress: float, gap: Gap | None, *, fresh: bool) -> None:
        parts = self._micro_rows(mini, self._objective.couples)
        micros = [take_rows(mini, rows) for rows in parts]
        denominators, sums = None, Sums(self._parameters, isinstance(self._objective, ScalesGradient))
        with self._idling.watching() as seen:
            for micro in micros:
                terms, current, micro = self._checked_terms(micro)
                seen.update(term.name for term in terms.loss)
                if denominators is None:
                    denominators = self._denominators(mini, micros, terms)
                sums.add(terms, micro, denominators)
                tally.add(terms, micro, denominators)
                if gap is not None:
                    gap.weigh(micro, _old_logprobs(micro, current))
                    if fresh:
                        gap.compare(micro, current[Column.LOGPROB])
            norms = sums.finish(self._workers)
        if isinstance(self._objective, ScalesGradient):
            with blame(self._labels.get("objective")):
                factor = expect_factor(self._objective.factor(norms), norms)
            sums.scale(factor)
            tally.note("train/gradient_factor", factor)
        for name, norm in norms.items():
            tally.note(f"train/gradient_norm/{name}", norm)
        self._step(mini, tally, progress)

    def _step(self, mini: Batch, tally: Tally, progress: float) -> None:
        limit = self._settings.optimizer.max_grad_norm
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, limit or math.inf))
        tally.note("train/grad_norm", norm)
        if not (math.isfinite(norm) and tally.last_loss_is_finite()):
            self._skip(mini, norm)
        else:
            factor = learning_rate_factor(self._settings.optimizer, self.updates, progress)
            tally.note("train/lr", set_learning_rate(self._optimizer, factor))
            self._optimizer.step()
            self.updates += 1
            self._skipped_in_a_row = 0
        self._optimizer.zero_grad(set_to_none=True)
        tally.step_done()

    def _skip(self, mini: Batch, norm: float) -> None:
        self.skipped += 1
        self._skipped_in_a_row += 1
        self._bad = mini
        limit = self._settings.update.non_finite_limit
        if self._skipped_in_a_row == 1:
            logger.warning("update skipped: the loss or the gradient (norm %s) is not finite", norm)
        if self._skipped_in_a_row >= limit:
            raise self._overflow(f"{limit} updates in a row had a loss or gradient that is not finite")

    def refuse_to_have_learnt_nothing(self) -> None:
        """Fail a trial that skipped every one of its updates.

        :raises NonFiniteError: blamed on the plugin at fault, where there is one
        """
        if self.skipped and not self.updates:
            said = f"nothing was learnt: all {self.skipped} updates were skipped, their loss or gradient not finite"
            raise self._overflow(said)

    def _refuse_overflow(self, batch: Batch) -> None:
        """Blame no estimator for frozen columns that are not finite."""
        for need in sorted(self._credit_needs & batch.columns.keys()):
            if bool((~batch.columns[need].isfinite() & batch.mask).any()):
                said = f"the policy's {need.column} (of the {need.weights} weights) is not finite"
                self._bad = batch
                raise self._overflow(
                    "the advantages cannot be estimated", Finding(said, None if self.updates else "policy")
                )

    def _overflow(self, said: str, finding: Finding | None = None) -> NonFiniteError:
        """The error that ends the trial, blamed on the plugin at fault; the batch is kept.

        :param finding: None: the pass is made again to find what is not finite
        """
        saved, why, whom = "", "", None
        if self._bad is not None:
            finding = finding or self._look_into(self._bad)
            why, whom = f": {finding.said}", self._labels.get(finding.role or "")
            if self._keep_bad_batch is not None:
                save_batch(self._bad, self._keep_bad_batch)
                saved = f" The last batch is in {self._keep_bad_batch}."
        blameless = finding is None or finding.role is None
        remedy = " Try a smaller optimizer.lr, or look at the batch's rewards and advantages." if blameless else ""
        return accuse(NonFiniteError(f"{said}{why}.{saved}{remedy}"), whom)

    def _look_into(self, mini: Batch) -> Finding:
        """Make the pass again and find what is not finite."""
        micros = [take_rows(mini, rows) for rows in self._micro_rows(mini, self._objective.couples)]
        denominators = self._denominators(mini, micros, self._terms(micros[0])[0])
        passes = ((*self._terms(micro), denominators) for micro in micros)
        return look_into(passes, self._policy.module, trained=self.updates > 0)

    def _checked_terms(self, micro: Batch) -> tuple[Terms, Mapping[Column, Tensor], Batch]:
        """The terms of a training pass; the first full one shows what it holds."""
        tokens = micro.mask.numel()
        if not self._room.worth_checking(tokens):
            return self._terms(micro)
        with Held(self._parameters) as held:
            found = self._terms(micro)
        self._room.check(held.bytes, tokens)
        return found

    @property
    def _trained_columns(self) -> frozenset[Column]:
        """What a training pass computes."""
        return frozenset({Column.LOGPROB, *(n.column for n in self._objective.needs if n.weights == Weights.CURRENT)})

    def _terms(self, micro: Batch) -> tuple[Terms, Mapping[Column, Tensor], Batch]:
        wanted = self._trained_columns
        late = frozenset(n for n in self._objective.needs if n.weights != Weights.CURRENT and n not in micro.columns)
        now = {n for n in late if n.weights == Weights.OLD and Weights.OLD not in self._weights}
        current = self._columns(micro, wanted | {n.column for n in now})
        columns = {**micro.columns, **{n: current[n.column].detach() for n in now}}
        for need in late - now:
            with torch.no_grad(), self._weights.loaded(need.weights):
                columns[need] = self._columns(micro, frozenset({need.column}))[need.column]
        micro = replace(micro, columns=columns)
        trained = torch.is_grad_enabled() and bool(self._parameters)
        terms = self._asked(micro, current, trained=trained)
        return self._correction.weigh(terms, micro, _old_logprobs(micro, current)), current, micro

    def _asked(self, micro: Batch, current: Mapping[Column, Tensor], *, trained: bool) -> Terms:
        """What the objective makes of the columns it declared, of no others."""
        needs = self._objective.needs
        own = {Column.LOGPROB, *(need.column for need in needs if need.weights == Weights.CURRENT)}
        shown = Declared({column: values for column, values in current.items() if column in own}, "objective")
        with blame(self._labels.get("objective")):
            with self._limits.watched("objective", f"objective/{self._at}"):
                terms = self._objective.terms(declared_to("objective", micro, needs), shown)
            expect_terms(terms, micro, trained=trained)
        return override_reduction(terms, self._settings.update.reduction)

    def _denominators(self, mini: Batch, micros: Sequence[Batch], terms: Terms) -> Denominators:
        denominators = Denominators.from_batch(mini)
        if counting_needed(terms):
            if len(micros) == 1:
                denominators = denominators.count(terms, micros[0])
            else:
                ahead = facts_of(self._objective).counts_ahead
                with torch.no_grad():
                    for micro in micros:
                        counted = self._blank_terms(micro) if ahead else self._terms(micro)[0]
                        denominators = denominators.count(counted, micro)
        return denominators.summed(self._workers.total)

    def _blank_terms(self, micro: Batch) -> Terms:
        """Terms whose masks alone mean something, for an objective that reads those off the batch."""
        blank = torch.zeros(micro.mask.shape, device=micro.mask.device)
        missing = {need: blank for need in self._objective.needs if need not in micro.columns}
        micro = replace(micro, columns={**micro.columns, **missing})
        current = dict.fromkeys((Column.LOGPROB, *(need.column for need in self._objective.needs)), blank)
        return self._asked(micro, current, trained=False)

    def _columns(self, micro: Batch, wanted: frozenset[Column]) -> Mapping[Column, Tensor]:
        trained = torch.is_grad_enabled() and bool(self._parameters)
        with blame(self._labels.get("policy")):
            return expect_columns(self._policy.columns(micro.inputs, wanted), wanted, micro.mask, trained=trained)

    def _micro_rows(self, batch: Batch, couples: Couples) -> list[Tensor]:
        with blame(self._labels.get("policy")):
            tokens = self._room.tokens(self._trained_columns)
        return microbatches(batch, couples, max_rows=self._settings.update.micro_batch_rows, max_tokens=tokens)


def save_batch(batch: Batch, path: Path) -> None:
    """Write a batch's tensors for a post-mortem, as safetensors."""
    tensors = {f"inputs.{name}": tensor for name, tensor in batch.inputs.items()}
    tensors |= {f"columns.{n.weights}.{n.column}": tensor for n, tensor in batch.columns.items()}
    own = {field.name: getattr(batch, field.name) for field in fields(batch)}
    tensors |= {name: value for name, value in own.items() if isinstance(value, Tensor)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path)


def _old_logprobs(micro: Batch, current: Mapping[Column, Tensor]) -> Tensor:
    """Of the weights at the start of the update: frozen before it, or, of a single optimiser step, the current ones."""
    frozen = micro.columns.get(OLD_LOGPROB)
    return current[Column.LOGPROB].detach() if frozen is None else frozen
