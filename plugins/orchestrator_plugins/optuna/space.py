"""Our spaces as Optuna's distributions, and values both ways."""

from __future__ import annotations

from typing import Any

from orchestrator.api import Dimension, Kind, Space


def distributions(space: Space) -> dict[str, Any]:
    """Optuna's distribution by path."""
    return {dimension.path: _distribution(dimension) for dimension in space.dimensions}


def encoded(space: Space, values: Any) -> dict[str, Any]:
    """A configuration as Optuna knows it."""
    return {d.path: _encode(d, values[d.path]) for d in space.dimensions}


def decoded(space: Space, params: Any) -> dict[str, Any]:
    """A configuration as we know it."""
    return {d.path: _decode(d, params[d.path]) for d in space.dimensions}


def _distribution(dimension: Dimension) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match dimension.kind:
        case Kind.CHOICE:
            return CategoricalDistribution(list(range(len(dimension.values))))  # by place: values may be lists
        case Kind.UNIFORM:
            return FloatDistribution(dimension.low, dimension.high)
        case Kind.LOGUNIFORM:
            return FloatDistribution(dimension.low, dimension.high, log=True)
        case Kind.QUNIFORM:
            return IntDistribution(0, int(dimension.size()) - 1)
        case Kind.INT:
            return IntDistribution(int(dimension.low), int(dimension.high))
        case Kind.LOGINT:
            return IntDistribution(int(dimension.low), int(dimension.high), log=True)


def _encode(dimension: Dimension, value: Any) -> Any:
    if dimension.kind in (Kind.CHOICE, Kind.QUNIFORM):
        return list(dimension.finite_values() or ()).index(value)
    return value


def _decode(dimension: Dimension, value: Any) -> Any:
    if dimension.kind in (Kind.CHOICE, Kind.QUNIFORM):
        return (dimension.finite_values() or ())[value]
    return value
