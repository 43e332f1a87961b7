"""Writes a report to disk: ``report.html``, ``report.md``, ``report.json`` and the figures as SVG files."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.report import figures, html, markdown, searches
from orchestrator.report.content import Report, gather
from orchestrator.runs.atomic import write_text
from orchestrator.runs.layout import ReportFolder, RunFolder

if TYPE_CHECKING:
    from orchestrator.maths.power import Noise
    from orchestrator.plugging.registry import Registry


def write_report(
    directories: Sequence[Path],
    out: Path | None = None,
    registry: Registry | None = None,
    metric: str | None = None,
) -> Report:
    """Read runs, judge them and write what there is to say.

    :param directories: run directories; several are laid side by side
    :param out: directory to write to; None: the run's own, or ``report-merged`` in the first of several, or
        ``report-<metric>`` in either
    :param registry: whose plugins contribute sections; None: no sections
    :param metric: to judge by; None: the experiment's ``report.metric``
    :returns: the report, with ``out`` set
    :raises ConfigError: a directory is no run, ``report.baseline`` names no arm, or nothing can be judged by ``metric``
    """
    directories = [Path(directory) for directory in directories]
    report = gather(directories, registry, metric)
    beside = RunFolder(directories[0]).report_beside(merged=len(directories) > 1, metric=metric)
    folder = beside if out is None else ReportFolder(Path(out))
    report = dataclasses.replace(report, out=folder.path)
    drawings = figures.draw(report.study, report.verdict, report.tasks)
    for drawing in drawings:
        write_text(folder.figure(drawing.name), drawing.standalone())
    write_text(folder.html, html.render(report, drawings))
    write_text(folder.markdown, markdown.render(report, drawings))
    write_text(folder.json, json.dumps(to_json(report), indent=1, ensure_ascii=False, allow_nan=False))
    return report


def to_json(report: Report) -> dict[str, Any]:
    """The report for machines; numbers that are not finite become null."""
    return _plain(
        {
            "title": report.title,
            "question": report.question,
            "headline": report.verdict.headline if report.verdict else report.unjudged,
            "final": report.verdict.final if report.verdict else False,
            "verdict": dataclasses.asdict(report.verdict) if report.verdict else None,
            "tasks": [dataclasses.asdict(found) for found in report.tasks],
            "noise": _noise(report.noise),
            "trials": report.counts,
            "failures": [{"trial": t.spec.id, "error": t.error and t.error.to_json()} for t in report.failures],
            "warnings": report.warnings,
            "search": searches.to_json(report.study),
            "spending": [dataclasses.asdict(row) for row in report.spending],
            "differences": report.differences,
            "provenance": report.provenance,
            "directories": [str(directory) for directory in report.directories],
        }
    )


def _noise(noise: Noise | None) -> dict[str, Any] | None:
    """Where the scatter of seeds comes from, as variances and the share that evaluation makes."""
    if noise is None:
        return None
    return dataclasses.asdict(noise) | {"evaluation": noise.evaluation, "total": noise.total, "share": noise.share}


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
