"""The report's section on tournaments: tables beside the study's, win rates and seats as figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from orchestrator.api import Study

from .published import TABLES

WIDTH, ROW, LABEL = 640, 26, 150


def render(study: Study) -> str | None:
    """Render every tournament of a run; None when it played none."""
    parts = []
    for trial in sorted(study.confirmations, key=lambda trial: trial.id):
        if trial.summary.get("kind") == "dhumbal_tournament" and trial.status == "done":
            parts.append(_tournament(f"{trial.arm}, seed {trial.seed}", trial.summary))
    return "\n".join(parts) or None


def _tournament(title: str, summary: Mapping[str, Any]) -> str:
    endings = ", ".join(f"{count} by {name}" for name, count in summary["endings"].items())
    about = (
        f"{summary['rounds']} rounds over {summary['deals']} deals, seating {summary['seating']}, pile card "
        f"{summary['pickup'].replace('_', ' ')}; {summary['turns_per_round']:.2f} turns a round; endings: {endings}; "
        f"{summary['reshuffles']} reshuffles."
    )
    return "\n".join(
        [
            f"<h3>{escape(title)}</h3>",
            f"<p>{escape(about)}</p>",
            _results(summary),
            _win_rates(summary),
            _seats(summary),
            _pairs(summary),
        ]
    )


def _results(summary: Mapping[str, Any]) -> str:
    """The study's table, its printed rows beneath ours."""
    published = TABLES[summary["published"]]
    rows = []
    for row in summary["table"]:
        rate = f"{row['win_rate']:.2f} ± {row['half_width']:.2f}"
        rows.append(
            [
                row["player"],
                rate,
                _text(row["coins"], 2),
                _text(row["call_success"], 2),
                str(row["calls"]),
                _text(row["cards"], 2),
                _text(row["cards_asked_again"], 2),
                _text(row["risk"], 3),
                _text(row["milliseconds"], 3),
            ]
        )
        for label, table in published.items():
            theirs = table.get(row["player"])
            if theirs is None:
                continue
            asked_again = summary["published"] == "rules"
            rows.append(
                [
                    f"{row['player']}, {label}",
                    f"{theirs.win_rate} ± {theirs.half_width}",
                    _text(theirs.coins, 2),
                    _text(theirs.call_success, 2),
                    "",
                    "" if asked_again else _text(theirs.cards, 2),
                    _text(theirs.cards, 2) if asked_again else "",
                    _text(theirs.risk, 3),
                    _text(theirs.milliseconds, 1),
                ]
            )
    head = [
        "player",
        "win rate %",
        "coins a round",
        "call success %",
        "calls",
        "cards a round",
        "cards, asked again",
        "risk",
        "ms a decision",
    ]
    return _table(head, rows)


def _pairs(summary: Mapping[str, Any]) -> str:
    if not summary["pairs"]:
        return ""
    rows = []
    for pair in summary["pairs"]:
        wins, coins = pair["wins"], pair["coins"]
        rows.append(
            [
                " vs ".join(pair["players"]),
                _text(wins["d"], 3),
                _probability(wins["p"]),
                _text(coins["d"], 3),
                _probability(coins["p"]),
                _text(pair["calls"]["d"], 3),
                _interval(wins.get("bootstrap"), 100, 1),
                _interval(coins.get("bootstrap"), 1, 2),
            ]
        )
    head = ["pair", "wins d", "wins p", "coins d", "coins p", "calls d", "wins, points of % [95 %]", "coins [95 %]"]
    note = (
        f"<p>d: Cohen's, population variances as released. p: Welch; with Bonferroni below {summary['alpha']:.5f}. "
        f"Rounds of one deal and seats of one round are not independent, so p is approximate; the intervals come from a "
        f"bootstrap over deals, each with all its seatings.</p>"
    )
    return _table(head, rows) + note


def _win_rates(summary: Mapping[str, Any]) -> str:
    """Win rates with their intervals; the study's as open marks."""
    published = TABLES[summary["published"]]
    bars: list[tuple[str, float, float, list[float]]] = []
    for row in summary["table"]:
        marks = [table[row["player"]].win_rate for table in published.values() if row["player"] in table]
        bars.append((row["player"], row["win_rate"], row["half_width"], marks))
    caption = "Win rate in percent with 95 % intervals" + ("; circles: published" if published else "")
    return _bars(bars, caption)


def _seats(summary: Mapping[str, Any]) -> str:
    bars: list[tuple[str, float, float, list[float]]] = [
        (f"seat {seat}", rate, 0.0, []) for seat, rate in enumerate(summary["seat_win_rate"])
    ]
    return _bars(bars, "Rounds won by seat in percent; seat 0 moves first")


def _bars(bars: Sequence[tuple[str, float, float, Sequence[float]]], caption: str) -> str:
    most = max([5.0, *(value + half for _, value, half, _ in bars), *(mark for *_, marks in bars for mark in marks)])
    scale = (WIDTH - LABEL - 60) / most
    height = ROW * len(bars) + 12
    parts = [
        f'<figure><svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img" '
        f'aria-label="{escape(caption)}" font-family="sans-serif" font-size="13">'
    ]
    for place, (label, value, half, marks) in enumerate(bars):
        top, middle = 4 + place * ROW, 4 + place * ROW + (ROW - 8) / 2
        end = LABEL + value * scale
        parts += [
            f'<text x="{LABEL - 8}" y="{middle + 4:.1f}" text-anchor="end" fill="currentColor">{escape(label)}</text>',
            f'<rect x="{LABEL}" y="{top}" width="{value * scale:.1f}" height="{ROW - 8}" fill="#4477aa"/>',
        ]
        if half:
            low, high = LABEL + max(0.0, value - half) * scale, LABEL + (value + half) * scale
            parts.append(
                f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}M{low:.1f} {middle - 4:.1f}v8M{high:.1f} {middle - 4:.1f}v8" '
                f'stroke="currentColor" fill="none"/>'
            )
            end = high
        parts += [
            f'<circle cx="{LABEL + mark * scale:.1f}" cy="{middle:.1f}" r="5" fill="none" stroke="#ee6677" '
            f'stroke-width="2"/>'
            for mark in marks
        ]
        end = max([end, *(LABEL + mark * scale + 5 for mark in marks)])
        parts.append(f'<text x="{end + 6:.1f}" y="{middle + 4:.1f}" fill="currentColor">{value:.1f}</text>')
    parts.append(f"</svg><figcaption>{escape(caption)}</figcaption></figure>")
    return "".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _text(value: float | None, digits: int) -> str:
    return "n.a." if value is None else f"{value:.{digits}f}"


def _probability(value: float | None) -> str:
    return "n.a." if value is None else f"{value:.2g}"


def _interval(found: Mapping[str, float] | None, factor: float, digits: int) -> str:
    if found is None:
        return "n.a."
    mean, low, high = (factor * found[name] for name in ("mean", "low", "high"))
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
