"""The reference builds without a warning, fetches nothing, and has every public name on one page."""

import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from orchestrator import api, testing

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "reference"


@pytest.mark.parametrize("module", [api, testing], ids=lambda module: module.__name__)
def test_every_public_name_has_its_place_in_the_reference(module):
    text = "".join(page.read_text() for page in PAGES.glob("*.md"))
    named = re.findall(rf"^::: {re.escape(module.__name__)}\.(\w+)$", text, re.MULTILINE)

    assert Counter(named) == Counter(module.__all__)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed; pip install 'rl-orchestrator[docs]'")
    built = tmp_path_factory.mktemp("docs")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "-f",
        PAGES / "mkdocs.yml",
        "-d",
        built,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return built


def test_the_reference_says_what_the_fields_of_a_batch_are(site):
    page = (site / "reference/batch.html").read_text()

    assert "[B, T] float32, nats, as recorded by the engine that acted" in page
    assert ":ivar" not in page


def test_formulas_and_sources_of_the_mathematics_are_readable(site):
    page = (site / "reference/maths.html").read_text()

    assert ".. math" not in page
    assert ":math:" not in page
    assert "Source: Schulman et al. 2017" in page


def test_pages_fetch_nothing_from_elsewhere(site):
    fetched = re.compile(r"<(?:script|link|img)[^>]+(?:src|href)=\"(?:https?:)?//[^\"]*|@import|url\([\"']?https?:")

    found = [
        (page.name, hit)
        for page in site.rglob("*")
        if page.suffix in (".html", ".css")
        for hit in fetched.findall(page.read_text())
    ]
    assert found == []
