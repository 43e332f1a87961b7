"""The report in a real browser: rendered, complete, and without a word to the network."""

import json
import os
import re
import shutil
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from synthetic_runs import build_hostile_run, build_run

from orchestrator.report import write_report

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1280,1600",
    "--virtual-time-budget=5000",
]
MEASURE = """
<script>
addEventListener("load", () => {
  const box = (element) => { const r = element.getBoundingClientRect(); return [r.width, r.height]; };
  const found = {
    figures: Object.fromEntries([...document.querySelectorAll("figure")].map((f) => [f.id, box(f.querySelector("svg"))])),
    tables: Object.fromEntries([...document.querySelectorAll("main table")].map((t) => [t.id, [
      [...t.querySelectorAll("thead th")].map((c) => c.innerText.trim()),
      [...t.querySelectorAll("tbody tr")].map((r) => [...r.cells].map((c) => c.innerText.trim())),
    ]])),
    headline: document.getElementById("verdict-sentence").innerText,
    overflow: document.documentElement.scrollWidth - innerWidth,
    fetched: performance.getEntriesByType("resource").map((entry) => entry.name),
  };
  const out = document.createElement("pre");
  out.id = "measured";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
});
</script>
"""

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        reason = "no chromium on this machine (apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; in CI it must be there")
        pytest.skip(reason)
    return BROWSER


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    run = build_run(
        folder / "run",
        gains={"grpo": 0.20, "dars": 0.38},
        spread=0.01,
        seeds=(0, 1, 2, 3),
        search={"optimizer.lr": {"loguniform": [1e-5, 1e-3]}},
    )
    write_report([run])
    return run / "report.html"


def open_page(browser, page, folder, *flags):
    command = [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture(scope="module")
def measured(browser, page, tmp_path_factory):
    """What the browser made of the page, told by a script added to a copy of it."""
    folder = tmp_path_factory.mktemp("browser")
    copy = folder / "measured.html"
    html = re.sub(r"<meta http-equiv=[^>]*>", "", page.read_text())  # the page's own policy forbids every script
    copy.write_text(html.replace("</body>", f"{MEASURE}</body>"))
    dom = open_page(browser, copy, folder, "--dump-dom")
    text = re.search(r'<pre id="measured">(.*?)</pre>', dom, re.S)[1]
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&nbsp;", " "), ("&amp;", "&")):
        text = text.replace(entity, character)
    return json.loads(text)


def test_the_verdict_stands_on_the_page(measured):
    header, rows = measured["tables"]["verdict-table"]

    assert measured["headline"].startswith("dars is better than grpo: +0.")
    assert header[0] == "arm"
    assert {"p", "Cohen's d"} <= set(header)
    assert [row[:2] for row in rows] == [["dars", "better"]]
    assert re.fullmatch(r"\+0\.\d{3}\s+\[0\.\d{3}, 0\.\d{3}\]", rows[0][2])  # difference with its interval above zero


def test_every_figure_has_a_size(measured):
    sizes = measured["figures"]

    assert set(sizes) == {
        "figure-curves-tokens",
        "figure-curves-steps",
        "figure-differences",
        "figure-seeds",
        "figure-pass-at-k",
        "figure-tasks",
        "figure-search",
        "figure-health",
    }
    assert all(width > 300 and height > 100 for width, height in sizes.values())


def test_the_page_fits_its_window(measured):
    assert measured["overflow"] <= 0


def test_nothing_is_fetched(browser, page, measured, tmp_path):
    log = tmp_path / "net.json"

    open_page(browser, page, tmp_path, "--dump-dom", f"--log-net-log={log}", "--net-log-capture-mode=Everything")

    assert [name for name in measured["fetched"] if not name.startswith("data:")] == []
    asked = set(re.findall(r'"url":"((?:https?|wss?|ftp):[^"]*)"', log.read_text()))
    assert {
        url for url in asked if "google" not in url and "gstatic" not in url
    } == set()  # the browser's own calls home


@pytest.fixture
def stranger():
    """Where a stranger would like to hear of the reader: address, and what was asked for there."""
    asked = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *said):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_hostile_names_run_nothing_and_ask_for_nothing(browser, stranger, tmp_path):
    address, asked = stranger
    run = "document.title='ran';fetch('ADDRESS/run')"
    evil = f"\"'></title></style></svg><script>{run}</script><img src=x onerror={run}><img src=ADDRESS/image>"
    evil += f"<svg onload={run}><image href=ADDRESS/svg /></svg><link rel=stylesheet href=ADDRESS/css>"
    evil += "<style>@import url(ADDRESS/import);body{background:url(ADDRESS/url)}</style><base href=ADDRESS>"
    evil += "<iframe src=ADDRESS/frame></iframe><meta http-equiv=refresh content='0;url=ADDRESS/away'>"
    folder, registry = build_hostile_run(tmp_path / "run", evil.replace("ADDRESS", address))
    write_report([folder], registry=registry)
    bare = folder / "bare.html"  # what the policy would stop is not there in the first place
    bare.write_text(re.sub(r"<meta http-equiv=[^>]*>", "", (folder / "report.html").read_text()))

    for page in (folder / "report.html", bare):
        dom = open_page(browser, page, tmp_path, "--dump-dom")

        assert asked == []
        assert "<title>ran" not in dom
        assert 'id="provenance"' in dom
        assert "&lt;/title&gt;&lt;/style&gt;" in dom


def test_the_page_takes_a_picture_that_is_not_blank(browser, page, tmp_path):
    from matplotlib.image import imread

    picture = tmp_path / "page.png"

    open_page(browser, page, tmp_path, f"--screenshot={picture}")

    pixels = imread(picture)[..., :3]
    assert pixels.shape[:2] == (1600, 1280)
    assert 0.02 < (pixels.std(axis=2) + (pixels.mean(axis=2) < 0.9) > 0.05).mean() < 0.6  # ink and colour on paper
