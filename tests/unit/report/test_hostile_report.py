"""A report of a stranger's run: nothing in its page runs, loads or redirects, whatever names and messages say."""

import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from synthetic_runs import build_run

from orchestrator.contract.component import PluginInfo, ReportSection
from orchestrator.report import write_report
from orchestrator.report.drawing import Drawing
from orchestrator.report.sanitise import sanitised
from orchestrator.runs.layout import RunFolder

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(1)><meta http-equiv=refresh content='0;url=http://x'>"


class _Page(HTMLParser):
    """Tags and attributes as a browser would see them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]


def harmless(html):
    page = _Page(html)
    links = [value for _, name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert not page.tags & {"script", "iframe", "object", "embed", "base", "form"}
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert all(link.startswith(("#", "data:")) for link in links), links
    assert [value for tag, name, value in page.attributes if (tag, name) == ("meta", "http-equiv")] in (
        [],
        ["Content-Security-Policy"],
    )
    return page


def test_hostile_names_and_messages_are_text(tmp_path):
    run = build_run(tmp_path / "run", gains={"a": 0.2, "b": 0.3}, steps=20, metrics={f"loss/{EVIL}": 1.0})
    plan = RunFolder(run).plan
    data = json.loads(plan.read_text())
    data["source"] = f"/tmp/{EVIL}"
    data["commit"] = EVIL
    data["fingerprint"] = {EVIL: EVIL}
    for trial in data["trials"]:
        trial["config"]["sampler"] = {"use": EVIL, EVIL: EVIL}
        trial["arm"] = f"{trial['arm']}{EVIL}"
    data["arms"] = {f"{arm}{EVIL}": config for arm, config in data["arms"].items()}
    data["experiment"]["report"]["baseline"] = None
    plan.write_text(json.dumps(data))
    result = next(run.glob("trials/*/result.json"))
    failed = json.loads(result.read_text()) | {
        "status": "failed",
        "error": {"type": EVIL, "message": EVIL, "blamed": EVIL, "traceback": EVIL},
    }
    result.write_text(json.dumps(failed))
    section = ReportSection(name="town", title=EVIL, render=lambda study: f"<p>{EVIL}</p><table><tr><td>fine")
    info = PluginInfo(name=EVIL, module="m", distribution="d", version="1")
    registry = SimpleNamespace(report_sections=lambda: [(info, section)])

    write_report([run], registry=registry)
    html = (run / "report.html").read_text()

    harmless(html)
    assert "&lt;script&gt;alert(1)" in html
    assert "form-action 'none'; base-uri 'none'" in html


def test_a_figures_title_is_an_attribute_as_it_is_a_heading():
    drawing = Drawing(name="x", title='"><script>', caption="", svg="<svg></svg>")

    assert drawing.inline() == '<svg role="img" aria-label="&quot;&gt;&lt;script&gt;"></svg>'


@pytest.mark.parametrize(
    ("html", "kept"),
    [
        ("<p>a &lt; b</p>", "<p>a &lt; b</p>"),
        ("<p onclick=x class='c'>t", '<p class="c">t</p>'),
        ("<script>alert(1)</script>after", "after"),
        ("<a href='javascript:x'>t</a><a href='#here'>u</a>", '<a>t</a><a href="#here">u</a>'),
        ("<a href=' java\nscript:x'>t</a>", "<a>t</a>"),
        ("<img src='http://x/y.png'><img src='data:image/png;base64,AA'>", '<img><img src="data:image/png;base64,AA">'),
        ("</section></main><h1>x</h1>", "x"),
        ("<table><tr><td>open", "<table><tr><td>open</td></tr></table>"),
        ("<meta http-equiv=refresh content='0;url=x'>t", "t"),
        ("<iframe srcdoc='<script>x</script>'>in</iframe>t", "t"),
        (
            "<svg viewBox='0 0 1 1'><use href='http://x#a'/><path d='M0 0'/></svg>",
            '<svg viewbox="0 0 1 1"><use></use><path d="M0 0"></path></svg>',
        ),
        ("<style>*{x:1}@import url(http://x)</style>", "<style>*{x:1}import url(http://x)</style>"),
        ("<!-- c --><b>x</b>", "<b>x</b>"),
    ],
)
def test_a_section_keeps_what_it_needs(html, kept):
    assert sanitised(html) == kept


def test_what_a_section_shows_is_left_as_it_was():
    section = '<h3>Map</h3><table class="prose"><tr><td>1 &amp; 2</td></tr></table><figure><svg width="9"><text x="1">a</text></svg></figure>'

    assert re.sub(r"\s+", " ", sanitised(section)) == section
