"""What a search chose stands in words in every form of the report; of several metrics the front is a table and a figure."""

from __future__ import annotations

import dataclasses
import json

import pytest
from rich.console import Console

from orchestrator.contract.plan import Phase, TrialSpec
from orchestrator.report import searches
from orchestrator.report.terminal import render_terminal
from orchestrator.report.write import write_report
from orchestrator.runs import journal
from orchestrator.runs.journal import Evaluated, Journal
from orchestrator.runs.study import Study
from orchestrator.testing import make_settings, make_study

SPACE = {"optimizer.lr": {"loguniform": [1e-5, 1e-2]}}


def _spec(index=None):
    lr = [1e-2, 1e-3, 1e-4, 1e-5][index if index is not None else 1]
    name, seed, phase = ("arm0-s0", 0, Phase.CONFIRM) if index is None else (f"tune-{index}", 1000, Phase.TUNE)
    return TrialSpec(
        id=name,
        arm="arm0",
        seed=seed,
        phase=phase,
        sample=index,
        searched={"optimizer.lr": lr},
        settings=make_settings(),
    )


def _run(directory, values, statuses, *, confirmed=True, **tune):
    """A run's folder: configurations that reached these values and ended so."""
    specs = [_spec(index) for index in range(len(values))]
    rows = [{"step": 9, "kind": "evaluation", "metrics": {"eval/reward/mean": values[0][0], "cost/seconds": 1.0}}]
    every = [(spec, rows) for spec in specs] + ([(_spec(), rows)] if confirmed else [])
    make_study(directory, every, search=SPACE, tune={"samples": 4, **tune})
    book = Journal(directory)
    book.append([journal.trials_record(specs)])
    for spec, reached, status in zip(specs, values, statuses, strict=True):
        if reached is not None:
            report = Evaluated(trial=spec.id, step=9, cost=100.0, value=reached[0], decision="continue")
            report = dataclasses.replace(report, values=reached) if len(reached) > 1 else report
            book.append([journal.evaluated_record(report)])
        if status != "running":
            book.append([{"kind": "end", "trial": spec.id, "status": status, "step": 9, "error": None}])
    if confirmed:
        book.append([journal.trials_record([_spec()])])
    book.close()
    return directory


def test_what_was_chosen_is_said_with_what_it_reached_and_the_next_best(tmp_path):
    run = _run(tmp_path, [(0.2,), (0.7,), (0.5,), (0.9,)], ["done", "done", "done", "stopped"])

    (said,) = searches.chosen_words(Study.read(run))

    assert said == (
        "arm0: 4 configurations tried (3 to the end, 1 stopped early); confirmed: optimizer.lr = 0.001, which reached "
        "0.700 in eval/reward/mean (the next best 0.500)."
    )


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["done", "running"], "(1 to the end, 1 not finished); nothing is chosen, since the search has not ended."),
        (["failed", "failed"], "(2 failed); nothing is chosen, since none measured eval/reward/mean."),
    ],
)
def test_why_nothing_is_chosen_is_said(tmp_path, statuses, expected):
    run = _run(tmp_path, [(0.2,), (0.7,)], statuses, confirmed=False)

    (said,) = searches.chosen_words(Study.read(run))

    assert said == f"arm0: 2 configurations tried {expected}"


def test_the_front_stands_in_every_form_of_the_report(tmp_path):
    two = {"metric": ["eval/reward/mean", "cost/seconds"], "mode": ["max", "min"]}
    # the third is slower than the second and no better; the fourth failed
    run = _run(tmp_path, [(0.2, 10.0), (0.7, 30.0), (0.6, 40.0), None], ["done", "done", "done", "failed"], **two)

    report = write_report([run])

    assert searches.front_table(report.study) == (
        ["arm", "sample", "eval/reward/mean (max)", "cost/seconds (min)", "optimizer.lr", "chosen"],
        [
            ["arm0", "1", "0.700", "30.00", "0.001", "confirmed"],
            ["arm0", "0", "0.200", "10.00", "0.01", ""],
        ],
    )
    said = (
        "arm0: 4 configurations tried (3 to the end, 1 failed); confirmed: of 2 on the Pareto front the best by "
        "eval/reward/mean, optimizer.lr = 0.001, which reached 0.700 in eval/reward/mean and 30.00 in cost/seconds."
    )
    found = json.loads((run / "report.json").read_text())["search"]
    assert (found[0]["says"], found[0]["chosen"]["sample"]) == (said, 1)
    assert [(row["sample"], row["values"]) for row in found[0]["front"]] == [(0, [0.2, 10.0]), (1, [0.7, 30.0])]
    assert said in (run / "report.md").read_text()
    html = (run / "report.html").read_text()
    assert said in html
    assert 'id="figure-pareto"' in html
    console = Console(width=400, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render_terminal(report))
    assert said in console.export_text()


def test_without_a_search_nothing_is_said(tmp_path):
    study = make_study(tmp_path, [(_spec(), [])])

    assert searches.chosen_words(study) == []
    assert searches.to_json(study) == []
