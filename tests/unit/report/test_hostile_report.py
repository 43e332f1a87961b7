"""A report of a stranger's run: nothing in its page runs, loads or redirects, whatever names and messages say."""

import re
from html.parser import HTMLParser

import pytest
from jinja2 import UndefinedError
from markdown_it import MarkdownIt
from markupsafe import Markup
from synthetic_runs import build_hostile_run

from orchestrator.report import write_report
from orchestrator.report.drawing import Drawing
from orchestrator.report.html import _PAGES
from orchestrator.report.markdown import _text
from orchestrator.report.sanitise import sanitised

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(1)><meta http-equiv=refresh content='0;url=http://x'>"
EVIL += "[x](http://x) ![x](http://x/y.png) www.x.org `|` \n\n```\n# <b>"


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


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    run, registry = build_hostile_run(tmp_path_factory.mktemp("hostile") / "run", EVIL)
    write_report([run], registry=registry)
    return run


def test_hostile_names_and_messages_are_text(hostile):
    html = (hostile / "report.html").read_text()

    harmless(html)
    assert "&lt;script&gt;alert(1)" in html
    assert "form-action 'none'; base-uri 'none'" in html


def test_the_page_escapes_by_itself_what_its_template_is_given():
    page = _PAGES.from_string("{{ name }}{{ made }}").render(name="<b title='x'>", made=Markup("<i>"))

    assert page == "&lt;b title=&#39;x&#39;&gt;<i>"
    with pytest.raises(UndefinedError):
        _PAGES.from_string("{{ misspelt }}").render()


def test_hostile_names_are_text_in_markdown_too(hostile):
    text = (hostile / "report.md").read_text()
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    flat = [one for token in tokens for one in (token, *(token.children or []))]

    assert not [token.content for token in flat if token.type in ("html_block", "html_inline", "link_open", "fence")]
    images = [token.attrs["src"] for token in flat if token.type == "image"]
    assert images
    assert all(re.fullmatch(r"figures/[\w-]+\.svg", image) for image in images)
    assert not re.search(r"(https?|ftp)://|www\.", text)  # of which renderers make links unasked
    assert "<script>alert(1)</script>" in "".join(token.content for token in flat if token.type == "text")


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("grpo_no_kl [0.1, 0.2]", "grpo_no_kl [0.1, 0.2]"),
        ("+0.187 < 0.2 & a&b", r"+0.187 < 0.2 & a\&b"),
        ("[x](http://y)", r"[x\](http:\//y)"),
        (r"[x\](y)", r"[x\\\](y)"),
        ("[x]: y", r"[x\]: y"),
        ("<http://y>", r"\<http:\//y>"),
        ("WWW.y.org", r"WWW\.y.org"),
        ("```\n# x", r"\`\`\` # x"),
        ("# x", r"\# x"),
        ("&lt;b>", r"\&lt;b>"),
    ],
)
def test_a_name_in_markdown_is_no_markup(name, written):
    assert _text(name) == written


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
