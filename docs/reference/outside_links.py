"""An mkdocs hook: links to sources work in the repository; the pages, which hold no sources, keep their words alone."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?:orchestrator|plugins|benchmarks/data|examples|sweeps)/[^)]*\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    return _OUTSIDE.sub(r"\1", markdown)
