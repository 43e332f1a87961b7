"""Whole reports of synthetic runs: what they say, and that they need no network."""

import itertools
import json
import re
from html import escape
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from rich.console import Console
from synthetic_runs import build_run

from orchestrator.contract.component import ReportSection
from orchestrator.errors import ConfigError
from orchestrator.report import render_terminal, write_report
from orchestrator.report.evidence import noise_text
from orchestrator.runs import machine
from orchestrator.runs.study import Study
from orchestrator.verdict.outcome import Outcome
from orchestrator.verdict.study import judge_study

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Balanced(HTMLParser):
    """Fails on tags that are not closed in order, and remembers every id."""

    def __init__(self):
        super().__init__()
        self.open, self.ids = [], []

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parse(html):
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    return parser


def terminal(report):
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render_terminal(report))
    return console.export_text()


def registry(**sections):
    info = "'ours' (ours 1.0)"
    made = [(info, ReportSection(name=name, render=render, title=name.title())) for name, render in sections.items()]
    return SimpleNamespace(report_sections=lambda: made)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    source = tmp_path_factory.mktemp("files") / "experiment.yaml"
    source.write_text("# Does DARS <really> beat GRPO?\nname: dars-vs-grpo\n")
    run = build_run(
        tmp_path_factory.mktemp("runs") / "dars-vs-grpo-1",
        gains={"grpo": 0.20, "dars": 0.35},
        seeds=(0, 1, 2, 3),
        steps=100,
        source=str(source),
    )
    return run, write_report([run])


def test_the_report_names_the_winner_first_in_every_form(two):
    run, report = two

    headline = report.verdict.headline
    assert headline.startswith("dars is better than grpo: +0.")
    assert report.verdict.comparisons[0].outcome is Outcome.BETTER
    assert report.verdict.cost == 1_500_000
    html = (run / "report.html").read_text()
    assert html.index(escape(headline)) < html.index("<table")
    assert headline in (run / "report.md").read_text()
    assert json.loads((run / "report.json").read_text())["headline"] == headline
    assert headline[:60] in terminal(report)


def test_the_page_asks_for_nothing_from_outside(two):
    run, _ = two
    html = (run / "report.html").read_text()

    assert "http" not in re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    assert "<script" not in html
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', html)


def test_the_page_is_well_formed_and_its_ids_are_unique(two):
    parser = parse((two[0] / "report.html").read_text())

    assert len(parser.ids) == len(set(parser.ids))
    assert {"verdict-sentence", "verdict-table", "cost-table", "settings-table", "figure-curves-tokens"} <= set(
        parser.ids
    )
    assert {"figure-curves-steps", "figure-pass-at-k", "figure-seeds", "figure-health"} <= set(parser.ids)


def test_what_users_wrote_is_escaped(two):
    html = (two[0] / "report.html").read_text()

    assert "Does DARS &lt;really&gt; beat GRPO?" in html
    assert "<really>" not in html


def test_json_holds_the_numbers_of_the_verdict(two):
    run, report = two
    found = json.loads((run / "report.json").read_text())

    comparison = found["verdict"]["comparisons"][0]
    assert comparison["difference"] == report.verdict.comparisons[0].difference
    assert comparison["interval"] == {
        "low": report.verdict.comparisons[0].interval.low,
        "high": report.verdict.comparisons[0].interval.high,
    }
    assert found["trials"] == {"done": 8}
    assert found["differences"]["objective.clip_high"] == {"grpo": 0.2, "dars": 0.28}


def test_every_form_says_what_lies_behind_the_verdict(two):
    run, report = two
    found = json.loads((run / "report.json").read_text())

    (tasks,) = found["tasks"]
    assert (tasks["arm"], tasks["tasks"]) == ("dars", 128)
    assert tasks["difference"] == pytest.approx(0.13, abs=0.05)  # of counted answers
    assert len(tasks["arm_only"]) > len(tasks["baseline_only"])
    assert found["noise"]["total"] == pytest.approx(found["noise"]["training"] + found["noise"]["evaluation"])
    sentence = noise_text(report)
    assert f"makes about {100 * round(report.noise.share, 2):.3g} % of that variance" in sentence
    assert "128 tasks x 16 answers" in sentence
    html, markdown = (run / "report.html").read_text(), (run / "report.md").read_text()
    assert escape(sentence) in html
    assert sentence in markdown
    assert "dars solves, grpo does not" in html
    assert "- dars solves, grpo does not: eval-" in markdown
    assert sentence[:40] in terminal(report)


def test_a_margin_is_drawn_and_equivalence_shown_in_every_form(tmp_path):
    run = build_run(
        tmp_path / "run",
        gains={"grpo": 0.2, "same": 0.2, "dars": 0.45},
        seeds=(0, 1, 2, 3, 4, 5),
        spread=0.004,
        steps=60,
        report={"margin": 0.08},
    )

    report = write_report([run])

    assert [c.outcome.value for c in report.verdict.comparisons] == ["equivalent", "better"]
    assert "Equivalent to grpo within ±0.080: same." in report.verdict.headline
    html = (run / "report.html").read_text()
    assert '<td class="equivalent">equivalent</td>' in html
    assert "the margin declared before the run" in html
    assert json.loads((run / "report.json").read_text())["verdict"]["comparisons"][0]["outcome"] == "equivalent"
    assert "| same | equivalent |" in (run / "report.md").read_text()
    assert "equivalent" in terminal(report)


def test_what_people_read_as_not_enough_evidence_is_undecided_in_json(tmp_path):
    run = build_run(tmp_path / "run", gains={"grpo": 0.2, "dars": 0.2}, seeds=(0, 1, 2), steps=30)

    write_report([run])

    comparison = json.loads((run / "report.json").read_text())["verdict"]["comparisons"][0]
    assert Outcome(comparison["outcome"]) is Outcome.UNDECIDED
    assert comparison["outcome"] == "undecided"
    assert "| dars | not enough evidence |" in (run / "report.md").read_text()


def test_figures_are_saved_beside_the_text_that_links_them(two):
    run, _ = two
    linked = re.findall(r"\(figures/([\w-]+\.svg)\)", (run / "report.md").read_text())

    assert "curves-tokens.svg" in linked
    for name in linked:
        assert (run / "figures" / name).read_text().rstrip().endswith("</svg>")


def test_the_same_run_gives_the_same_page(two, tmp_path):
    run, _ = two

    write_report([run], out=tmp_path)

    assert (tmp_path / "report.html").read_text() == (run / "report.html").read_text()


def test_an_unfinished_run_is_reported_as_such_and_decides_nothing(tmp_path):
    run = build_run(
        tmp_path / "run",
        gains={"grpo": 0.1, "dars": 0.5},
        steps=60,
        budget=None,
        statuses={"dars-s4": "running", "grpo-s4": "pending"},
    )

    report = write_report([run])

    assert report.verdict.headline.startswith("Preliminary")
    assert report.verdict.comparisons[0].outcome is Outcome.UNDECIDED
    assert "The run is not finished: 8 of 10" in report.warnings[0]
    assert report.counts == {"done": 8, "running": 1, "pending": 1}


def test_a_run_that_has_just_begun_still_gets_a_report(tmp_path):
    statuses = {"grpo-s0": "running", "dars-s0": "pending"}
    run = build_run(tmp_path / "run", gains={"grpo": 0.1, "dars": 0.5}, seeds=(0,), steps=20, statuses=statuses)

    report = write_report([run])

    assert report.verdict is None
    assert "No trial that enters the verdict has finished yet." in (run / "report.html").read_text()
    parse((run / "report.html").read_text())
    assert "No trial that enters the verdict" in terminal(report)


def test_a_run_whose_trials_have_all_failed_says_so(tmp_path):
    failed = build_run(
        tmp_path / "run", gains={"a": 0.1}, seeds=(0, 1), steps=20, statuses=dict.fromkeys(("a-s0", "a-s1"), "failed")
    )
    partly = build_run(
        tmp_path / "two", gains={"a": 0.1}, seeds=(0, 1), steps=20, statuses={"a-s0": "failed", "a-s1": "running"}
    )

    _, why = judge_study(Study.read(failed))
    _, partly_why = judge_study(Study.read(partly))

    assert why == "All 2 trials that enter the verdict failed; orchestrator resume runs them again."
    assert partly_why == "No trial that enters the verdict has finished yet; 1 failed."


def test_failed_trials_are_left_out_aloud(tmp_path):
    run = build_run(
        tmp_path / "run", gains={"grpo": 0.2, "dars": 0.3}, seeds=(0, 1, 2), steps=20, statuses={"dars-s1": "failed"}
    )

    report = write_report([run])

    assert [arm.seeds for arm in report.verdict.arms] == [(0, 1, 2), (0, 2)]
    assert report.verdict.comparisons[0].pairs == 2
    assert report.warnings[0].startswith("Failed and left out of the verdict: dars-s1.")
    html = (run / "report.html").read_text()
    assert "dars-s1: ValueError: group of size 1 has no baseline" in html
    assert "raised by plugin &#39;dars&#39;" in html
    [failure] = json.loads((run / "report.json").read_text())["failures"]
    assert (failure["trial"], failure["error"]["type"]) == ("dars-s1", "ValueError")
    assert failure["error"]["message"] == "group of size 1 has no baseline"
    assert failure["error"]["blamed"] == "'dars' (rl-orchestrator 0.1.0) in sampler 'dars'"


def test_unequal_numbers_of_seeds_are_a_warning_only_where_they_were_not_asked_for(tmp_path):
    own = {"grpo": (0, 1, 2, 3, 4, 5)}
    asked = build_run(tmp_path / "one", gains={"grpo": 0.2, "dars": 0.3}, seeds=(0, 1, 2), steps=20, own_seeds=own)
    lost = build_run(
        tmp_path / "two", gains={"grpo": 0.2, "dars": 0.3}, seeds=(0, 1, 2), steps=20, statuses={"dars-s0": "failed"}
    )

    as_asked, one_lost = write_report([asked]), write_report([lost])

    assert [len(arm.seeds) for arm in as_asked.verdict.arms] == [6, 3]
    assert not any("different numbers" in warning for warning in as_asked.warnings)
    assert as_asked.provenance["seeds"] == "0, 1, 2; grpo 0, 1, 2, 3, 4, 5"
    assert any(warning.endswith("different numbers of seeds: grpo 3, dars 2") for warning in one_lost.warnings)


def test_what_went_wrong_on_the_way_is_counted(tmp_path):
    metrics = {
        "rollout/failed": 2.0,
        "train/skipped_updates": 3.0,
        "train/act_train_logprob_gap": 5e-4,
        "observers/errors": 7.0,
    }
    run = build_run(tmp_path / "run", gains={"a": 0.2}, seeds=(0, 1), steps=10, budget=None, metrics=metrics)

    warnings = " | ".join(write_report([run]).warnings)

    assert "40 training rollouts failed" in warnings  # 2 a step, 10 steps, 2 trials
    assert "a-s0 (3), a-s1 (3)" in warnings
    assert "differ by up to 0.0005 (a-s0; 2 of 2 trials above 0.0001)" in warnings
    assert "a-s0 (7), a-s1 (7)" in warnings


def test_arms_that_reach_different_costs_are_compared_at_the_smallest_aloud(tmp_path):
    run = build_run(tmp_path / "run", gains={"grpo": 0.2, "dars": 0.2}, seeds=(0, 1), steps=50, budget=None)

    report = write_report([run])

    assert report.verdict.cost == 800_000
    assert any("between 800 k and 920 k generated tokens; they are compared at 800 k" in w for w in report.warnings)


def test_tuning_trials_are_drawn_and_do_not_enter_the_verdict(tmp_path):
    run = build_run(
        tmp_path / "run",
        gains={"grpo": 0.2, "dars": 0.3},
        seeds=(0, 1),
        steps=20,
        search={"optimizer.lr": {"loguniform": [1e-5, 1e-3]}},
    )

    report = write_report([run])

    assert [arm.seeds for arm in report.verdict.arms] == [(0, 1), (0, 1)]
    assert 'id="figure-search"' in (run / "report.html").read_text()
    assert [row.name for row in report.spending] == ["grpo", "dars", "grpo, tuning", "dars, tuning"]


def test_searched_choices_may_be_words(tmp_path):
    run = build_run(
        tmp_path / "run", gains={"a": 0.2}, seeds=(0, 1), steps=20, search={"optimizer.lr": {"choice": [1e-5, 1e-3]}}
    )
    journal = run / "journal.jsonl"
    record = json.loads(journal.read_text())
    for index, spec in enumerate(record["specs"]):
        spec["searched"] = {"optimizer.lr": [None, 1e-5, 1e-3][index % 3]}
    journal.write_text(json.dumps(record) + "\n")

    write_report([run])

    assert 'id="figure-search"' in (run / "report.html").read_text()


def test_a_metric_nobody_measured_is_answered_with_the_nearest(tmp_path):
    run = build_run(tmp_path / "run", gains={"a": 0.2}, seeds=(0,), steps=10, report={"metric": "eval/pas_at_1"})

    report = write_report([run])

    assert report.verdict is None
    assert "did you mean 'eval/pass_at_1'?" in report.unjudged


def test_another_metric_is_judged_in_a_report_beside(tmp_path):
    run = build_run(tmp_path / "run", gains={"grpo": 0.2, "dars": 0.4}, seeds=(0, 1, 2), steps=10)
    usual = write_report([run])

    other = write_report([run], metric="eval/pass_at_4")

    assert (usual.verdict.metric, other.verdict.metric) == ("eval/pass_at_1", "eval/pass_at_4")
    assert other.out == run / "report-eval-pass_at_4"
    assert json.loads((run / "report.json").read_text())["verdict"]["metric"] == "eval/pass_at_1"
    assert json.loads((other.out / "report.json").read_text())["verdict"]["metric"] == "eval/pass_at_4"
    with pytest.raises(ConfigError, match=r"--metric: No finished trial measured 'eval/pas_at_4'; did you mean"):
        write_report([run], metric="eval/pas_at_4")


def test_a_baseline_that_is_no_arm_is_refused(tmp_path):
    run = build_run(tmp_path / "run", gains={"grpo": 0.2}, seeds=(0,), steps=10, report={"baseline": "grop"})

    with pytest.raises(ConfigError, match=r"report\.baseline: no arm 'grop'; did you mean 'grpo'\?"):
        write_report([run])


def test_runs_without_cost_are_compared_at_equal_steps(tmp_path):
    run = build_run(tmp_path / "run", gains={"a": 0.2, "b": 0.3}, seeds=(0, 1), steps=20, budget=None)
    for path in run.glob("trials/*/metrics.jsonl"):
        path.write_text(path.read_text().replace("cost/generated_tokens", "cost/other"))

    report = write_report([run])

    assert (report.verdict.cost, report.verdict.cost_name) == (20, "steps")


def test_several_runs_make_one_report_of_their_own(tmp_path):
    first = build_run(tmp_path / "one", gains={"grpo": 0.2, "dars": 0.3}, seeds=(0, 1), steps=20)
    second = build_run(tmp_path / "two", gains={"grpo": 0.2, "dars": 0.3}, seeds=(2, 3), steps=20)

    report = write_report([first, second])

    assert report.out == first / "report-merged"
    assert (first / "report-merged" / "report.html").exists()
    assert not (first / "report.html").exists()
    assert [arm.seeds for arm in report.verdict.arms] == [(0, 1, 2, 3)] * 2


def test_plugins_add_sections_and_one_that_raises_is_named(tmp_path):
    run = build_run(tmp_path / "run", gains={"a": 0.2}, seeds=(0,), steps=10)

    def broken(study):
        raise OSError(f"no city in {study.runs[0].directory.name}")

    def city(study):
        return f"<p>map of {study.runs[0].directory.name}, {len(study.confirmations)} trial</p>"

    report = write_report(
        [run],
        registry=registry(city=city, broken=broken, absent=lambda _: None),
    )

    html = (run / "report.html").read_text()
    assert "<h2>City</h2>\n<p>map of run, 1 trial</p>" in html
    assert "This section could not be made." in html
    assert "OSError: no city in run; raised by plugin &#39;ours&#39; (ours 1.0) in report section" in html
    assert "could not be made: OSError: no city in run; raised by plugin 'ours'" in (run / "report.md").read_text()
    assert [section.title for section in report.sections] == ["City", "Broken"]


def test_the_report_says_what_the_run_ran_on(tmp_path):
    run = build_run(tmp_path / "run", gains={"a": 0.2}, seeds=(0,), steps=10)
    unrecorded = write_report([run]).provenance
    machine.record(run)

    recorded = write_report([run]).provenance

    assert recorded["processor"] == unrecorded["processor (of the report)"]
    assert "numpy" in recorded["packages"]
    assert recorded["commit"] == "0a1b2c3d"
    assert recorded["seeds"] == "0"
    assert recorded["plugins"] == "baselines rl-orchestrator 0.1.0"


def test_a_machine_once_recorded_stays(tmp_path):
    (tmp_path / "machine.json").write_text('{"processor": "a better one"}')

    machine.record(tmp_path)

    assert json.loads((tmp_path / "machine.json").read_text()) == {"processor": "a better one"}


def test_many_arms_have_labels_that_do_not_overlap(tmp_path):
    gains = {f"method-{index}": 0.2 + 0.001 * index for index in range(9)}
    run = build_run(tmp_path / "run", gains=gains, seeds=(0, 1), steps=20)

    report = write_report([run])

    assert len(report.verdict.comparisons) == 8
    svg = (run / "figures" / "curves-tokens.svg").read_text()
    heights = {name: float(y) for y, name in re.findall(r"translate\([\d.]+ ([\d.]+)\)[^>]*>(method-\d)<", svg)} or {
        name: float(y) for y, name in re.findall(r'y="([\d.]+)"[^>]*>(method-\d)<', svg)
    }
    assert len(heights) == 9
    ordered = sorted(heights.values())
    assert min(b - a for a, b in itertools.pairwise(ordered)) > 9  # points, for ten-point text
