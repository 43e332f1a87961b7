"""The report in a terminal: the sentence, the warnings, the two tables that matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.panel import Panel
from rich.table import Table as RichTable
from rich.text import Text

from orchestrator.report import evidence, searches, tables
from orchestrator.runs.layout import ReportFolder
from orchestrator.verdict.outcome import Outcome

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orchestrator.report.content import Report
    from orchestrator.report.tables import Table

_STYLES = {
    Outcome.BETTER.label: "bold green",
    Outcome.WORSE.label: "bold red",
    Outcome.EQUIVALENT.label: "bold cyan",
    Outcome.UNDECIDED.label: "dim",
}


def render_terminal(report: Report) -> RenderableType:
    """Lay the report out for a rich console."""
    verdict = report.verdict
    headline = verdict.headline if verdict else report.unjudged
    parts: list[RenderableType] = [Panel(Text(headline, style="bold"), title=Text(report.title), title_align="left")]
    parts += [Text(f"! {warning}", style="yellow") for warning in report.warnings]
    if verdict is not None:
        parts.append(_table(tables.arms_table(verdict), f"{verdict.metric} at equal cost"))
        if verdict.comparisons:
            header, rows = tables.comparisons_table(verdict)
            kept = [index for index, name in enumerate(header) if not name.startswith(("paired", "p alone"))]
            short = [header[index] for index in kept], [[row[index] for index in kept] for row in rows]
            parts.append(_table(short, f"against {verdict.baseline}"))
            parts += [Text(reason, style="dim") for reason in tables.reasons(verdict)]
        if verdict.looks:
            parts.append(_table(tables.looks_table(verdict), "looks"))
    chosen, front = searches.chosen_words(report.study), searches.front_table(report.study)
    if chosen:
        parts.append(Text("what the search chose", style="bold"))
        parts += [Text(f"  {said}") for said in chosen]
    if front[1]:
        parts.append(_table(front, "Pareto front"))
    if noise := evidence.noise_text(report):
        parts.append(Text(noise, style="dim"))
    if report.out is not None:
        parts.append(Text(f"Report: {ReportFolder(report.out).html}"))
    return Group(*parts)


def _table(table: Table, title: str) -> RichTable:
    header, rows = table
    rich = RichTable(
        title=Text(title, style="bold"), title_justify="left", box=None, pad_edge=False, header_style="dim"
    )
    for name in header:
        rich.add_column(Text(name), overflow="fold")
    for row in rows:
        rich.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return rich
