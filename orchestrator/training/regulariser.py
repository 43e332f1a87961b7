"""What many objectives add to their own term: a KL to the reference policy, an entropy bonus, a critic's loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from orchestrator.contract.batch import Batch, Column, LossTerm, Mean, Need, Reduction, Weights
from orchestrator.maths.losses import clipped_value_loss, kl_estimate

REFERENCE_LOGPROB = Need(Weights.REFERENCE, Column.LOGPROB)
OLD_VALUE = Need(Weights.OLD, Column.VALUE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Regulariser:
    """The terms ``kl``, ``entropy`` and ``value`` of an objective, each only where its weight is above 0.

    An objective unites :attr:`needs` with its own, says :attr:`needs_returns` of itself, and adds what :meth:`terms` returns to its own terms and metrics.

    :ivar objective: whose terms these are, for messages
    :ivar reduction: of KL and entropy; the critic's is always ``TOKEN_MEAN``
    :ivar kl_weight: of the estimated KL(current ‖ reference), nats per token
    :ivar kl_estimator: which estimate of it; see ``kl_estimate``
    :ivar entropy_weight: of the bonus, nats per token
    :ivar value_weight: of the critic's half squared error
    :ivar value_clip: how far the critic may move per update, in units of the return; None: freely
    :ivar scaled: whether ``ScalesGradient.factor`` multiplies their gradient, where the objective has one
    """

    objective: str
    reduction: Reduction
    kl_weight: float = 0.0
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    entropy_weight: float = 0.0
    value_weight: float = 0.0
    value_clip: float | None = None
    scaled: bool = True

    @property
    def needs(self) -> frozenset[Need]:
        """The columns these terms are made of."""
        needs = set()
        if self.kl_weight > 0:
            needs |= {Need(Weights.CURRENT, Column.LOGPROB), REFERENCE_LOGPROB}
        if self.entropy_weight > 0:
            needs.add(Need(Weights.CURRENT, Column.ENTROPY))
        if self.needs_returns:
            needs.add(Need(Weights.CURRENT, Column.VALUE))
            if self.value_clip is not None:
                needs.add(OLD_VALUE)
        return frozenset(needs)

    @property
    def needs_returns(self) -> bool:
        """Whether the estimator must set returns, for a critic to learn from."""
        return self.value_weight > 0

    @property
    def adds_nothing(self) -> bool:
        """Whether no weight is above 0: the objective then has no terms but its own."""
        return not (self.kl_weight > 0 or self.entropy_weight > 0 or self.value_weight > 0)

    def terms(self, batch: Batch, current: Mapping[Column, Tensor]) -> tuple[tuple[LossTerm, ...], dict[str, Mean]]:
        """Unreduced terms [B, T] of one micro-batch, and the metrics ``train/kl_reference`` and ``train/entropy``.

        :raises ValueError: when a critic is to be trained and no estimator set returns
        """
        terms: list[LossTerm] = []
        metrics: dict[str, Mean] = {}
        if self.kl_weight > 0:
            reference = batch.columns[REFERENCE_LOGPROB]
            kl = kl_estimate(current[Column.LOGPROB], reference, batch.mask, estimator=self.kl_estimator)
            terms.append(self._term("kl", kl, self.kl_weight))
            metrics["train/kl_reference"] = Mean.over(kl, batch.mask)
        if self.entropy_weight > 0:
            entropy = current[Column.ENTROPY]
            terms.append(self._term("entropy", entropy, -self.entropy_weight))
            metrics["train/entropy"] = Mean.over(entropy, batch.mask)
        if self.needs_returns:
            loss = self._critic(batch, current[Column.VALUE])
            terms.append(self._term("value", loss, self.value_weight, Reduction.TOKEN_MEAN))
        return tuple(terms), metrics

    def _term(self, name: str, values: Tensor, weight: float, reduction: Reduction | None = None) -> LossTerm:
        return LossTerm(
            name=name, values=values, reduction=reduction or self.reduction, coefficient=weight, scaled=self.scaled
        )

    def _critic(self, batch: Batch, values: Tensor) -> Tensor:
        if batch.returns is None:
            raise ValueError(
                f"objective {self.objective} has value_weight > 0 but the advantage estimator sets no returns for a "
                "critic; use one that does, such as gae, or set objective.value_weight to 0"
            )
        old_values = values.detach() if self.value_clip is None else batch.columns[OLD_VALUE]
        return clipped_value_loss(values, old_values, batch.returns, batch.mask, clip=self.value_clip)
