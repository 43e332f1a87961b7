"""The one place that corrects the gap between acting and training: ``update.correction``.

The policy loss of every objective is multiplied by weights made of the ratio between the trainer's probability under the
weights at the start of the update and the one recorded when acting. They have no gradient, are the same in every optimiser
step of the update, and depend on a token or a row alone, so on no cut into micro-batches. Denominators stay as they are: what
is masked counts in them, as in the papers, so that leaving samples out does not make the others louder. Demonstrations have no
recorded probability and are not corrected; nor are the other terms of a loss (KL, entropy, a critic's).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from orchestrator.contract.batch import Batch, Column, LossTerm, Need, Terms, Weights
from orchestrator.contract.settings import Correction
from orchestrator.errors import ConfigError, Problem
from orchestrator.maths.correction import behaviour_ratio, effective_share, masked_weights, truncated_weights
from orchestrator.training.distributed import Workers
from orchestrator.training.reduction import shape_of

OLD_LOGPROB = Need(Weights.OLD, Column.LOGPROB)


class GapCorrection:
    """Weights the policy terms of one trial's objective."""

    def __init__(self, settings: Correction):
        self._settings = settings

    @property
    def needs(self) -> frozenset[Need]:
        """The columns the weights are made of."""
        return frozenset({OLD_LOGPROB} if self.active else ())

    @property
    def active(self) -> bool:
        """Whether anything is corrected."""
        return self._settings.kind != "none"

    def weigh(self, terms: Terms, batch: Batch, old_logprobs: Tensor) -> Terms:
        """Multiply the terms named ``policy``, and per-token probes, whose gradient is compared with theirs.

        :param old_logprobs: [B, T], of the weights at the start of the update
        :raises ConfigError: the objective has no such term, or one whose values are not of what the level weighs
        """
        if not self.active:
            return terms
        weights = self.weights(batch, old_logprobs)
        if not any(term.name == "policy" for term in terms.loss):
            names = ", ".join(sorted({term.name for term in terms.loss}))
            raise ConfigError([Problem("update.correction", f"corrects the loss term 'policy'; this one has {names}")])
        loss = tuple(self._weighed(term, weights, batch) if term.name == "policy" else term for term in terms.loss)
        probes = tuple(self._weighed(p, weights, batch) if p.values.dim() == 2 else p for p in terms.probes)
        return replace(terms, loss=loss, probes=probes)

    def ratio(self, batch: Batch, old_logprobs: Tensor) -> Tensor:
        """[B, T] or, of sequences, [B]: the trainer's probability over the recorded one."""
        return behaviour_ratio(old_logprobs, batch.behaviour_logprobs, batch.mask, level=self._settings.level)

    def weights(self, batch: Batch, old_logprobs: Tensor) -> Tensor:
        """[B, T] or, of sequences, [B]: what the loss is multiplied by; 1 on demonstrations."""
        settings, ratio = self._settings, self.ratio(batch, old_logprobs)
        if settings.kind == "truncated":
            weights = truncated_weights(ratio, cap=settings.cap)
        else:
            weights = masked_weights(ratio, floor=settings.floor, cap=settings.cap)
        taught = batch.demonstration if weights.dim() == 1 else batch.demonstration[:, None]
        return torch.where(taught, 1.0, weights)

    def beyond(self, ratio: Tensor) -> Tensor:
        """Which ratios the bounds change."""
        low = ratio < self._settings.floor if self._settings.kind == "masked" else torch.zeros_like(ratio).bool()
        return low | (ratio > self._settings.cap)

    @property
    def share_name(self) -> str:
        """The metric of the share beyond the bounds."""
        return f"train/correction/{self._settings.kind}_share"

    def _weighed(self, term: LossTerm, weights: Tensor, batch: Batch) -> LossTerm:
        kind = shape_of(term, batch)
        if kind == "groups" or (kind == "rows" and weights.dim() == 2):
            remedy = "kind: none leaves it alone" if kind == "groups" else "level: sequence can"
            said = f"level {self._settings.level} cannot weigh the loss term {term.name!r}, whose values are of {kind}; {remedy}"
            raise ConfigError([Problem("update.correction", said)])
        if kind == "tokens" and weights.dim() == 1:
            weights = weights[:, None]
        return replace(term, values=torch.where(weights > 0, term.values * weights, 0.0))


class Gap:
    """How far the recorded probabilities lie from the trainer's, over the tokens of one update phase."""

    def __init__(self, correction: GapCorrection, workers: Workers):
        self._correction, self._workers = correction, workers
        self._largest: Tensor | None = None
        self._distance = torch.zeros(2, dtype=torch.float64)  # sum over tokens, their number
        self._sums = torch.zeros(4, dtype=torch.float64)  # weights, their squares, beyond the bounds, how many
        self._ratio = 0.0

    def compare(self, batch: Batch, logprobs: Tensor) -> None:
        """Take in rows whose weights are those that acted, so that both must agree."""
        if bool(batch.demonstration.all()):
            return
        found = _distance(batch, logprobs).max()
        self._largest = found if self._largest is None else torch.maximum(self._largest, found)
        if not self._correction.active:
            self._add_distance(batch, logprobs)

    def weigh(self, batch: Batch, old_logprobs: Tensor) -> None:
        """Take in corrected rows, once an update."""
        if not self._correction.active:
            return
        self._add_distance(batch, old_logprobs)
        ratio = self._correction.ratio(batch, old_logprobs)
        sampled = ~batch.demonstration
        counted = batch.mask & sampled[:, None] if ratio.dim() == 2 else batch.mask.any(1) & sampled
        ratio, weights = ratio[counted].double(), self._correction.weights(batch, old_logprobs)[counted].double()
        if not len(ratio):
            return
        beyond = self._correction.beyond(ratio)
        parts = (weights.sum(), weights.square().sum(), beyond.sum().double(), ratio.new_tensor(len(ratio)))
        self._sums += torch.stack(parts).cpu()
        self._ratio = max(self._ratio, float(ratio.max()))

    def metrics(self) -> dict[str, float]:
        """``train/act_train_logprob_gap`` and ``train/correction/...``; those of nothing are left out."""
        found: dict[str, float] = {}
        if self._largest is not None:
            found["train/act_train_logprob_gap"] = float(self._largest)
        distance, count = self._workers.total(self._distance).tolist()
        if count:
            found["train/correction/gap_mean"] = distance / count
        if self._correction.active:
            total, squares, beyond, count = self._workers.total(self._sums).tolist()
            largest = self._workers.maximum(self._ratio)
            if count:
                found["train/correction/effective_share"] = effective_share(total, squares, count)
                found[self._correction.share_name] = beyond / count
                found["train/correction/largest_ratio"] = largest
        return found

    def _add_distance(self, batch: Batch, logprobs: Tensor) -> None:
        count = (batch.mask & ~batch.demonstration[:, None]).sum()
        self._distance += torch.stack([_distance(batch, logprobs).double().sum(), count.double()]).cpu()


def _distance(batch: Batch, logprobs: Tensor) -> Tensor:
    sampled = batch.mask & ~batch.demonstration[:, None]
    return torch.where(sampled, (logprobs.detach() - batch.behaviour_logprobs).abs(), 0.0)
