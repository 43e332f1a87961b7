"""Plugins' parts of a report, with nothing in them that runs, loads, redirects or spills into the rest of the page.

A section is built from a run's files, whose names and messages may be a stranger's: whatever the plugin forgot to
escape is left out here.
"""

from __future__ import annotations

from html import escape
from html.parser import HTMLParser

_HTML = "a abbr b blockquote br caption code col colgroup dd details div dl dt em figcaption figure h3 h4 h5 h6 hr i img kbd li"
_HTML += " mark ol p pre s section small span strong sub summary sup table tbody td tfoot th thead tr u ul var wbr"
_SVG = "svg g path rect circle ellipse line polyline polygon text tspan defs clippath use title desc lineargradient"
_SVG += " radialgradient stop symbol marker pattern mask style"
_TAGS = frozenset(f"{_HTML} {_SVG}".split())
_EMPTY = frozenset(["br", "col", "hr", "img", "wbr"])
_SWALLOWED = frozenset(
    ["script", "iframe", "object", "embed", "noscript", "template", "textarea", "select", "math", "form"]
)
_LINKS = frozenset(["href", "xlink:href", "src"])
_REFUSED = frozenset(["srcset", "srcdoc", "action", "formaction", "poster", "data", "background", "ping", "http-equiv"])


def sanitised(html: str) -> str:
    """HTML with the tags and attributes that a section needs, every tag closed that it opens."""
    cleaner = _Cleaner()
    cleaner.feed(html)
    cleaner.close()
    return cleaner.finished()


class _Cleaner(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._open: list[str] = []
        self._inside: list[str] = []  # tags whose content goes too

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SWALLOWED:
            self._inside.append(tag)
        if self._inside or tag not in _TAGS:
            return
        kept = "".join(
            f' {name}="{escape(value or "", quote=True)}"'
            for name, value in attrs
            if _is_harmless(tag, name, value or "")
        )
        self._parts.append(f"<{tag}{kept}>")
        if tag not in _EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        before = len(self._open)
        if tag in _SWALLOWED:
            return
        self.handle_starttag(tag, attrs)
        if len(self._open) > before:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside:
            if tag == self._inside[-1]:
                self._inside.pop()
            return
        if tag in self._open:
            while True:
                last = self._open.pop()
                self._parts.append(f"</{last}>")
                if last == tag:
                    return

    def handle_data(self, data: str) -> None:
        if self._inside:
            return
        is_style = bool(self._open) and self._open[-1] == "style"
        self._parts.append(data.replace("<", "").replace("@", "") if is_style else escape(data, quote=False))

    def finished(self) -> str:
        return "".join([*self._parts, *(f"</{tag}>" for tag in reversed(self._open))])


def _is_harmless(tag: str, name: str, value: str) -> bool:
    if (
        name.startswith("on")
        or name in _REFUSED
        or not name.replace("-", "").replace(":", "").replace("_", "").isalnum()
    ):
        return False
    if name in _LINKS:
        target = "".join(value.split()).lower()
        return target.startswith("#") or (tag == "img" and target.startswith("data:image/"))
    return True
