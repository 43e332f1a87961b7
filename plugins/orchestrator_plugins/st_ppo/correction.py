"""The divisor of the surrogate's gradient. Numbers only: norms are measured by the trainer, over the whole mini-batch."""

from __future__ import annotations

import math

FLOOR = 1e-8
"""A norm up to this counts as nothing clipped."""


def divisor(mode: str, clipped_norm: float, kept_norm: float, *, scale: float = 1.0) -> float:
    r"""Divisor d of the surrogate's gradient, :math:`g = \nabla J / d`.

    With :math:`c = \alpha \lVert C \rVert`: ``raw`` is c; ``ratio`` is max(1, c / ‖∇J‖); ``max1`` is max(1, c);
    ``one_plus`` is 1 + c. Where nothing is clipped (‖C‖ at most 1e-8) d is 1, and so it is in mode ``ratio`` where
    nothing is kept: a gradient of 0 has nothing to divide.

    :param clipped_norm: ‖C‖, L2 norm of the gradient of what clipping removed
    :param kept_norm: ‖∇J‖, L2 norm of the clipped surrogate's gradient
    :param scale: alpha
    :returns: d above 0; nan where a norm that enters it is not finite, so that the step is skipped, not shrunk
    :raises ValueError: unknown mode
    Source: ST-PPO (arXiv:2511.20718), eqs. 7 and 8, for ``raw``. Deviation: the others are ours, see the README.
    """
    if mode == "none":
        return 1.0
    if not (math.isfinite(clipped_norm) and (mode != "ratio" or math.isfinite(kept_norm))):
        return math.nan
    if clipped_norm <= FLOOR:
        return 1.0
    scaled = scale * clipped_norm
    if mode == "raw":
        return scaled
    if mode == "ratio":
        return max(1.0, scaled / kept_norm) if kept_norm > 0 else 1.0
    if mode == "max1":
        return max(1.0, scaled)
    if mode == "one_plus":
        return 1.0 + scaled
    raise ValueError(f"divisor: no mode {mode!r}; expected none, raw, ratio, max1 or one_plus")
