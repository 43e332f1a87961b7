"""The report as Markdown, for a repository or a pull request. What users and plugins named is text in it, never markup."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from orchestrator.errors import Failure
from orchestrator.report import evidence, searches, tables
from orchestrator.report.content import Report
from orchestrator.report.drawing import Drawing
from orchestrator.report.tables import Table
from orchestrator.runs.layout import ReportFolder

_BESIDE = ReportFolder(Path())
_MARKUP = re.compile(
    r"[\\`*]|<(?=\S)|&(?=[#\w])|](?=[(\[:])|(?<=:)/(?=/)|(?<=www)\.|^(?:[#>]|[+-](?=\s))", re.IGNORECASE
)


def render(report: Report, drawings: Sequence[Drawing] = ()) -> str:
    """Write the whole text; figures are linked as ``figures/<name>.svg``."""
    verdict = report.verdict
    lines = [f"# {_text(report.title)}", ""]
    if report.question:
        lines += [f"*{_text(report.question)}*", ""]
    lines += [f"**{_text(verdict.headline if verdict else report.unjudged)}**", ""]
    if report.warnings:
        lines += [f"- ⚠ {_text(warning)}" for warning in report.warnings] + [""]
    if verdict is not None:
        lines += ["## Verdict", "", *_table(tables.arms_table(verdict)), ""]
        if verdict.comparisons:
            lines += [f"Against {_text(verdict.baseline)}:", "", *_table(tables.comparisons_table(verdict)), ""]
            lines += [f"- {_text(reason)}" for reason in tables.reasons(verdict)] + [""]
        if verdict.looks:
            lines += ["Looks:", "", *_table(tables.looks_table(verdict)), ""]
        lines += [_text(tables.rule(verdict)), ""]
        lines += ["## Trials", "", *_table(tables.trials_table(report)), ""]
    chosen, front = searches.chosen_words(report.study), searches.front_table(report.study)
    if chosen:
        lines += ["## What the search chose", "", *(f"- {said}" for said in chosen), ""]
    if front[1]:
        lines += [*_table(front), "", searches.front_note(report.study), ""]
    tasks, noise = evidence.tasks_table(report), evidence.noise_text(report)
    if tasks[1] or noise:
        lines += ["## Behind the verdict", "", _text(noise), ""]
    if tasks[1]:
        lines += [*_table(tasks), "", _text(evidence.tasks_note(report)), ""]
        lines += [f"- {_text(title)}: {_text(listed)}" for title, listed in evidence.only_one_solves(report)] + [""]
    if drawings:
        lines += ["## Figures", ""]
        for drawing in drawings:
            shown = re.sub(r"(?<!\\)[\[\]]", r"\\\g<0>", _text(drawing.title))
            lines += [f"![{shown}]({_BESIDE.figure(drawing.name).as_posix()})", "", _text(drawing.caption), ""]
    spending = tables.spending_table(report)
    if spending[1]:
        lines += ["## Cost", "", *_table(spending), ""]
    settings = tables.settings_table(report)
    if settings[1]:
        lines += ["## What the arms do differently", "", *_table(settings), ""]
    for section in report.sections:
        said = f"could not be made: {_text(section.error)}" if section.error else f"see {_BESIDE.html.name}."
        lines += [f"## {_text(section.title)}", "", said, ""]
    if report.failures:
        lines += ["## Failed trials", ""]
        lines += [f"- {_code(trial.id)}: {_text(trial.error or 'no error recorded')}" for trial in report.failures] + [
            ""
        ]
    lines += ["## Where this comes from", ""]
    lines += [f"- {_text(key)}: {_text(value)}" for key, value in report.provenance.items()]
    return "\n".join(_without_double_blanks(lines)) + "\n"


def _table(table: Table) -> list[str]:
    header, rows = table
    lines = [_row(header), "|" + "---|" * len(header)]
    return lines + [_row(row) for row in rows]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_text(cell).replace("|", "&#124;") for cell in cells) + " |"


def _text(said: Failure | str) -> str:
    """Words on one line, of which no renderer makes markup, HTML or a link."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(str(said).split()))


def _code(name: str) -> str:
    """A name as code, within more backticks than follow each other in it."""
    fence = "`" * (max(map(len, re.findall("`+", name)), default=0) + 1)
    pad = " " if "`" in name else ""
    return f"{fence}{pad}{' '.join(name.split())}{pad}{fence}"


def _without_double_blanks(lines: Sequence[str]) -> list[str]:
    return [line for index, line in enumerate(lines) if line or (index and lines[index - 1])]
