"""The report of one or several runs: verdict, figures, tables, in HTML, Markdown, JSON and the terminal."""

from orchestrator.report.content import Report
from orchestrator.report.terminal import render_terminal
from orchestrator.report.write import to_json, write_report

__all__ = ["Report", "render_terminal", "to_json", "write_report"]
