"""Reports on designs that add seeds: which arms are decided, at which look, and how much error is spent."""

import itertools
import json
from io import StringIO

import pytest
from looked_runs import begun, planned, play, play_all
from rich.console import Console

from orchestrator.report.terminal import render_terminal
from orchestrator.report.write import write_report
from orchestrator.verdict.wording import DASH


def written(directory):
    report = write_report([directory])
    text = Console(file=StringIO(), width=160)
    text.print(render_terminal(report))
    forms = [directory.joinpath(f"report.{ending}").read_text() for ending in ("html", "md", "json")]
    return report, text.file.getvalue(), *forms


def test_every_form_shows_the_looks(tmp_path):
    play_all(begun(tmp_path, planned(margin=None)))

    report, terminal, html, markdown, data = written(tmp_path)

    assert [(look["decided"], look["open"]) for look in json.loads(data)["verdict"]["looks"]] == [
        ({"good": "better"}, ["equal"]),
        ({}, ["equal"]),
        ({}, ["equal"]),
    ]
    assert "| 1 | 2 | 6 | good better | equal | 2.62 % of 5 % |" in markdown
    assert f"| 3 | 5 | 12 | {DASH} | equal | 5 % of 5 % |" in markdown
    assert 'id="looks-table"' in html
    assert "good better" in terminal
    assert "with looks so far after 2, 3, 5 seeds" in markdown
    assert report.warnings == ()  # arms of unequal seeds are as designed
    reason = next(c.reason for c in report.verdict.comparisons if c.arm == "equal")
    assert "standard errors from base, and" in reason
    assert "it gets more seeds" not in reason


def test_a_report_on_a_run_that_goes_on_says_what_stands(tmp_path):
    sweep = begun(tmp_path, planned(margin=None))
    for spec in itertools.islice(iter(sweep.next, None), 7):
        play(sweep, spec)

    report, terminal, _, markdown, data = written(tmp_path)

    assert not json.loads(data)["final"]
    assert "Decided so far, for good: better than base: good. Still open: equal." in markdown
    assert any("until then what looks decided stands, and nothing else" in warning for warning in report.warnings)
    assert "2.62 % of 5 %" in terminal


@pytest.mark.parametrize("margin", [0.2, None])
def test_a_race_is_reported_with_its_rule(tmp_path, margin):
    play_all(begun(tmp_path, planned(("base", "good", "last"), compare="best", margin=margin)))

    report, terminal, html, markdown, _ = written(tmp_path)

    assert report.verdict.headline.startswith("good is the best of 3 arms")
    assert "in front" in markdown
    assert "the best arm falls behind by chance in at most 5 % of such races" in markdown
    assert ("No report.margin was declared" in markdown) == (margin is None)
    assert "good is the best of 3 arms" in html
    assert "look" in terminal
