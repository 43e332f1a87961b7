"""The report as one HTML file that needs no network: style and figures inside, no script, nothing fetched.

The page is ``templates/page.html``, which escapes all that it is given. Markup is only what is made one here: the style
sheet, the figures that we draw, and plugins' sections as :mod:`orchestrator.report.sanitise` leaves them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from orchestrator.errors import Failure
from orchestrator.report import evidence, searches, tables
from orchestrator.report.content import Report
from orchestrator.report.drawing import Drawing
from orchestrator.report.sanitise import sanitised
from orchestrator.runs.study import PALETTE
from orchestrator.verdict.outcome import Outcome

_KINDS = {
    Outcome.BETTER.label: "better",
    Outcome.WORSE.label: "worse",
    Outcome.EQUIVALENT.label: "equivalent",
    Outcome.UNDECIDED.label: "open",
}
_NO_TABLE: tables.Table = ([], [])
_PAGES = Environment(
    loader=PackageLoader("orchestrator.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


@dataclass(frozen=True, slots=True)
class _Cell:
    text: str
    interval: str = ""
    kind: str = ""  # class of the cell: a verdict or an arm
    colour: int | None = None  # of the arm, in the palette


@dataclass(frozen=True, slots=True)
class _Table:
    header: list[_Cell]
    rows: list[list[_Cell]]


def render(report: Report, drawings: Sequence[Drawing]) -> str:
    """Write the whole page."""
    verdict = report.verdict
    colours = {arm: index % len(PALETTE) for index, arm in enumerate(report.study.arms)}
    shown = {
        "arms": tables.arms_table(verdict) if verdict else _NO_TABLE,
        "comparisons": tables.comparisons_table(verdict) if verdict else _NO_TABLE,
        "looks": tables.looks_table(verdict) if verdict else _NO_TABLE,
        "trials": tables.trials_table(report),
        "tasks": evidence.tasks_table(report),
        "costs": tables.spending_table(report),
        "settings": tables.settings_table(report),
        "front": searches.front_table(report.study),
    }
    return _PAGES.get_template("page.html").render(
        report=report,
        style=Markup(files("orchestrator.report").joinpath("style.css").read_text(encoding="utf-8")),
        arms=colours,
        tables={name: _laid_out(table, colours) for name, table in shown.items()},
        reasons=list(tables.reasons(verdict)) if verdict else [],
        rule=tables.rule(verdict) if verdict else "",
        chosen=searches.chosen_words(report.study),
        front_note=searches.front_note(report.study),
        noise=evidence.noise_text(report),
        tasks_note=evidence.tasks_note(report),
        one_sided=list(evidence.only_one_solves(report)),
        figures=[(drawing, Markup(drawing.inline())) for drawing in drawings],
        sections=[(section, Markup(sanitised(section.html or ""))) for section in report.sections],
        failures=[
            (trial.spec.id, trial.error or Failure(type="", message="no error recorded")) for trial in report.failures
        ],
    )


def _laid_out(table: tables.Table, colours: Mapping[str, int]) -> _Table:
    header, rows = table
    return _Table([_with_interval(cell) for cell in header], [[_cell(cell, colours) for cell in row] for row in rows])


def _cell(cell: str, colours: Mapping[str, int]) -> _Cell:
    if cell in _KINDS:
        return _Cell(cell, kind=_KINDS[cell])
    if cell in colours:
        return _Cell(cell, kind="arm", colour=colours[cell])
    return _with_interval(cell)


def _with_interval(cell: str) -> _Cell:
    value, bracket, rest = cell.partition(" [")
    return _Cell(value, interval=f"[{rest}") if bracket and value else _Cell(cell)
