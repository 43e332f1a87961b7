"""The report as Markdown, for a repository or a pull request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.errors import Failure
from orchestrator.report import evidence, tables
from orchestrator.report.content import Report
from orchestrator.report.drawing import Drawing
from orchestrator.report.tables import Table
from orchestrator.runs.layout import ReportFolder

_BESIDE = ReportFolder(Path())


def render(report: Report, drawings: Sequence[Drawing] = ()) -> str:
    """Write the whole text; figures are linked as ``figures/<name>.svg``."""
    verdict = report.verdict
    lines = [f"# {report.title}", ""]
    if report.question:
        lines += [f"*{report.question}*", ""]
    lines += [f"**{verdict.headline if verdict else report.unjudged}**", ""]
    if report.warnings:
        lines += [f"- ⚠ {warning}" for warning in report.warnings] + [""]
    if verdict is not None:
        lines += ["## Verdict", "", *_table(tables.arms_table(verdict)), ""]
        if verdict.comparisons:
            lines += [f"Against {verdict.baseline}:", "", *_table(tables.comparisons_table(verdict)), ""]
            lines += [f"- {reason}" for reason in tables.reasons(verdict)] + [""]
        lines += [tables.rule(verdict), ""]
        lines += ["## Trials", "", *_table(tables.trials_table(report)), ""]
    tasks, noise = evidence.tasks_table(report), evidence.noise_text(report)
    if tasks[1] or noise:
        lines += ["## Behind the verdict", "", noise, ""]
    if tasks[1]:
        lines += [*_table(tasks), "", evidence.tasks_note(report), ""]
        lines += [f"- {title}: {listed}" for title, listed in evidence.only_one_solves(report)] + [""]
    if drawings:
        lines += ["## Figures", ""]
        for drawing in drawings:
            lines += [f"![{drawing.title}]({_BESIDE.figure(drawing.name).as_posix()})", "", drawing.caption, ""]
    spending = tables.spending_table(report)
    if spending[1]:
        lines += ["## Cost", "", *_table(spending), ""]
    settings = tables.settings_table(report)
    if settings[1]:
        lines += ["## What the arms do differently", "", *_table(settings), ""]
    for section in report.sections:
        said = f"could not be made: {_line(section.error)}" if section.error else f"see {_BESIDE.html.name}."
        lines += [f"## {section.title}", "", said, ""]
    if report.failures:
        lines += ["## Failed trials", ""]
        lines += [f"- `{trial.id}`: {_line(trial.error or 'no error recorded')}" for trial in report.failures] + [""]
    lines += ["## Where this comes from", ""]
    lines += [f"- {key}: {value}" for key, value in report.provenance.items()]
    return "\n".join(_without_double_blanks(lines)) + "\n"


def _table(table: Table) -> list[str]:
    header, rows = table
    lines = [_row(header), "|" + "---|" * len(header)]
    return lines + [_row(row) for row in rows]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _line(said: Failure | str) -> str:
    return " ".join(str(said).split())


def _without_double_blanks(lines: Sequence[str]) -> list[str]:
    return [line for index, line in enumerate(lines) if line or (index and lines[index - 1])]
