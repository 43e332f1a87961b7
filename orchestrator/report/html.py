"""The report as one HTML file that needs no network: style and figures inside, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

from orchestrator.errors import Failure
from orchestrator.report import evidence, tables
from orchestrator.report.content import Report
from orchestrator.report.drawing import Drawing
from orchestrator.report.sanitise import sanitised
from orchestrator.report.tables import Table
from orchestrator.runs.study import PALETTE
from orchestrator.verdict.outcome import Outcome

_CLASSES = {
    Outcome.BETTER.label: "better",
    Outcome.WORSE.label: "worse",
    Outcome.EQUIVALENT.label: "equivalent",
    Outcome.UNDECIDED.label: "open",
}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; media-src data:"
_POLICY += "; form-action 'none'; base-uri 'none'"


def render(report: Report, drawings: Sequence[Drawing]) -> str:
    """Write the whole page."""
    style = files("orchestrator.report").joinpath("style.css").read_text(encoding="utf-8")
    parts = [
        _header(report),
        _warnings(report),
        _verdict(report),
        _evidence(report),
        _figures(report, drawings),
        _costs(report),
        _settings(report),
        *_sections(report),
        _failures(report),
        _provenance(report),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(report.title)}: report</title>\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def _header(report: Report) -> str:
    headline = report.verdict.headline if report.verdict else report.unjudged
    question = f'<p class="question">{escape(report.question)}</p>\n' if report.question else ""
    chips = "".join(
        f'<li style="color: var(--arm-{index % len(PALETTE)})">{escape(arm)}</li>'
        for index, arm in enumerate(report.study.arms)
    )
    return (
        f"<header>\n<h1>{escape(report.title)}</h1>\n{question}"
        f'<p class="headline" id="verdict-sentence">{escape(headline)}</p>\n<ul class="arms">{chips}</ul>\n</header>\n'
    )


def _warnings(report: Report) -> str:
    if not report.warnings:
        return ""
    items = "".join(f"<li>{escape(warning)}</li>" for warning in report.warnings)
    return f'<aside class="warnings" id="warnings" aria-label="Warnings"><ul>{items}</ul></aside>\n'


def _verdict(report: Report) -> str:
    verdict = report.verdict
    if verdict is None:
        return ""
    html = '<section id="verdict">\n<h2>Verdict</h2>\n' + _table(tables.arms_table(verdict), "arms-table", report)
    if verdict.comparisons:
        html += _table(tables.comparisons_table(verdict), "verdict-table", report)
        reasons = list(tables.reasons(verdict))
        if reasons:
            html += '<ul class="note">' + "".join(f"<li>{escape(reason)}</li>" for reason in reasons) + "</ul>\n"
    trials = _table(tables.trials_table(report), "trials-table", report)
    return (
        f'{html}<p class="note">{escape(tables.rule(verdict))}</p>\n'
        f"<details><summary>Every trial</summary>\n{trials}</details>\n</section>\n"
    )


def _evidence(report: Report) -> str:
    """Task by task, and where the scatter of seeds comes from."""
    table, noise = evidence.tasks_table(report), evidence.noise_text(report)
    if not table[1] and not noise:
        return ""
    html = '<section id="tasks">\n<h2>Behind the verdict</h2>\n'
    if noise:
        html += f'<p id="noise">{escape(noise)}</p>\n'
    if table[1]:
        html += _table(table, "tasks-table", report) + f'<p class="note">{escape(evidence.tasks_note(report))}</p>\n'
        names = list(evidence.only_one_solves(report))
        if names:
            items = "".join(f"<dt>{escape(title)}</dt><dd>{escape(listed)}</dd>" for title, listed in names)
            html += (
                f'<details><summary>Tasks that one side solves</summary>\n<dl class="facts">{items}</dl></details>\n'
            )
    return html + "</section>\n"


def _figures(report: Report, drawings: Sequence[Drawing]) -> str:
    if not drawings:
        return ""
    html = '<section id="figures">\n<h2>Figures</h2>\n<div class="figures">\n'
    for drawing in drawings:
        wide = ' class="wide"' if drawing.wide else ""
        html += (
            f'<figure id="figure-{escape(drawing.name)}"{wide}>\n<h3>{escape(drawing.title)}</h3>\n{drawing.inline()}\n'
            f"<figcaption>{escape(drawing.caption)}</figcaption>\n</figure>\n"
        )
    return html + "</div>\n</section>\n"


def _costs(report: Report) -> str:
    table = tables.spending_table(report)
    if not table[1]:
        return ""
    return f'<section id="costs">\n<h2>Cost</h2>\n{_table(table, "cost-table", report)}</section>\n'


def _settings(report: Report) -> str:
    header, rows = tables.settings_table(report)
    if len(report.study.arms) < 2:
        return ""
    body = _table((header, rows), "settings-table", report) if rows else "<p>All arms have the same settings.</p>\n"
    return f'<section id="settings" class="settings">\n<h2>What the arms do differently</h2>\n{body}</section>\n'


def _sections(report: Report) -> list[str]:
    html = []
    for section in report.sections:
        body = sanitised(section.html or "")
        if section.error is not None:
            body = f'<p class="error">This section could not be made.</p>\n{_failure("", section.error)}'
        html.append(f'<section class="plugin">\n<h2>{escape(section.title)}</h2>\n{body}\n</section>\n')
    return html


def _failures(report: Report) -> str:
    if not report.failures:
        return ""
    items = "".join(
        _failure(f"{trial.spec.id}: ", trial.error or Failure(type="", message="no error recorded"))
        for trial in report.failures
    )
    return f'<section id="failures">\n<h2>Failed trials</h2>\n{items}</section>\n'


def _failure(whose: str, failure: Failure) -> str:
    said = escape(f"{whose}{failure}")
    if failure.traceback is None:
        return f'<p class="failure">{said}</p>\n'
    return f'<details><summary class="failure">{said}</summary>\n<pre>{escape(failure.traceback)}</pre></details>\n'


def _provenance(report: Report) -> str:
    return f'<section id="provenance">\n<h2>Where this comes from</h2>\n{_facts(report.provenance)}</section>\n'


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts.items())
    return f'<dl class="facts">{rows}</dl>\n'


def _table(table: Table, name: str, report: Report) -> str:
    header, rows = table
    head = "".join(f"<th>{_with_interval(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(_cell(cell, report) for cell in row)}</tr>\n" for row in rows)
    return f'<div class="scroll"><table id="{name}"><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n'


def _cell(cell: str, report: Report) -> str:
    if cell in _CLASSES:
        return f'<td class="{_CLASSES[cell]}">{escape(cell)}</td>'
    if cell in report.study.arms:
        index = report.study.arms.index(cell) % len(PALETTE)
        return f'<td class="arm" style="color: var(--arm-{index})">{escape(cell)}</td>'
    return f"<td>{_with_interval(cell)}</td>"


def _with_interval(cell: str) -> str:
    value, bracket, rest = cell.partition(" [")
    return f'{escape(value)} <span class="interval">[{escape(rest)}</span>' if bracket and value else escape(cell)
