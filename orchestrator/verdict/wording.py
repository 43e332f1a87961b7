"""Numbers as people read them, the same in every form of the report."""

from __future__ import annotations

import math
import re

from orchestrator.maths.statistics import Interval

MINUS, DASH = "\u2212", "\u2013"


def number(value: float | None) -> str:
    """A metric's value for people: about four significant digits, a dash where unknown."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        digits = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1
        return f"{value:.{digits}f}".replace("-", MINUS)
    return f"{value:.2e}".replace("-", MINUS)


def signed(value: float | None) -> str:
    """A difference for people, with its sign."""
    text = number(value)
    return f"+{text}" if value is not None and value > 0 else text


def beside(value: float | None, interval: Interval | None) -> str:
    """A difference as it stands beside its interval: one far smaller than that is a round zero."""
    small = value is not None and interval is not None and abs(value) < 5e-4 <= max(map(abs, interval))
    return "+0.000" if small else signed(value)


def difference_text(value: float | None, interval: Interval | None) -> str:
    """A difference and its interval for people."""
    return f"{beside(value, interval)} {interval_text(interval)}"


def interval_text(interval: Interval | None) -> str:
    """An interval for people; says so where there is none."""
    return "[no interval]" if interval is None else f"[{number(interval.low)}, {number(interval.high)}]"


def margin_text(margin: float | None) -> str:
    """A margin of equivalence for people: ±0.050."""
    return f"±{number(margin)}"


def percent(share: float) -> str:
    """A share for people: 95 %."""
    return f"{100 * share:.3g} %"


def p_text(p: float | None) -> str:
    """A p-value for people."""
    if p is None:
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_equals(p: float | None) -> str:
    """A p-value in a sentence: p = 0.012, p < 0.001."""
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def count_text(count: float) -> str:
    """A large count for people: 1.25 M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.4g}"


def seconds_text(seconds: float | None) -> str:
    """A duration for people: 42 s, 3 min 20 s, 2 h 5 min."""
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def metric_label(metric: str) -> str:
    """A metric's name for people: pass@1 for eval/pass_at_1."""
    found = re.fullmatch(r"eval/(pass|majority)_at_(\d+)", metric)
    return f"{found[1]}@{found[2]} on held-out tasks" if found else metric
