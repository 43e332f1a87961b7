"""Names and values that trackers take."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

METRIC_NAME = re.compile(r"[\w\-.:/ ]+")


def metric_problems(metrics: Mapping[str, Any]) -> list[str]:
    """Names no tracker takes and values that are not finite."""
    problems = []
    for name, value in metrics.items():
        if not METRIC_NAME.fullmatch(name):
            problems.append(f"metric {name!r} has characters that trackers refuse; use letters, digits, _ - . : /")
        try:
            finite = math.isfinite(float(value))
        except (TypeError, ValueError):
            finite = False
        if not finite:
            problems.append(f"metric {name!r} is {value!r}; expected a finite number")
    return problems
