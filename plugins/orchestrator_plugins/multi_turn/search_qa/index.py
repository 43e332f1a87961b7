"""A search index over passages: BM25 through the library ``bm25s``."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from .files import Passage

NO_BM25 = "search_qa needs the package bm25s; install it with: pip install 'rl-orchestrator[search]'"

_WORD = re.compile(r"\w+")


class Index:
    """BM25 in Lucene's form, with k1 1.5 and b 0.75, over titles and texts."""

    def __init__(self, passages: Sequence[Passage]):
        """Index passages.

        :raises ModuleNotFoundError: when ``bm25s`` is not installed
        :raises ValueError: when no passage has a word
        """
        try:
            from bm25s import BM25
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(NO_BM25, name="bm25s") from error
        logging.getLogger("bm25s").setLevel(logging.INFO)  # it asks for its debugging notes to be shown
        self._passages = list(passages)
        words = [_words(f"{p.title} {p.text}") for p in self._passages]
        if not any(words):
            raise ValueError(f"none of the {len(words)} passages has a word to search for; expected texts")
        self._scores = BM25(method="lucene", k1=1.5, b=0.75)
        self._scores.index(words, show_progress=False)

    def search(self, query: str, most: int) -> list[Passage]:
        """The passages that share words with the query, best first; the file's order breaks ties."""
        words = _words(query)
        if not words:
            return []
        scores = self._scores.get_scores(words)
        best = (-scores).argsort(kind="stable")[:most]
        return [self._passages[place] for place in best if scores[place] > 0]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
