"""How right an answer is: exact match and F1 over words, as SQuAD counts them (Rajpurkar et al. 2016, sec. 6.1)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case without punctuation, articles and superfluous space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, right: Iterable[str]) -> bool:
    """Whether an answer equals one of the right ones, normalised."""
    return normalise(answer) in {normalise(text) for text in right}


def f1(answer: str, right: Iterable[str]) -> float:
    """The best F1 over the right answers of the words shared with one, in [0, 1].

    Without words on either side it is 1 when both have none, else 0.
    """
    return max((_f1(normalise(answer).split(), normalise(text).split()) for text in right), default=0.0)


def _f1(answer: list[str], right: list[str]) -> float:
    if not answer or not right:
        return float(answer == right)
    shared = sum((Counter(answer) & Counter(right)).values())
    return 2 * shared / (len(answer) + len(right))
