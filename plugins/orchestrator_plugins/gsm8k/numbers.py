"""The number in an answer: found, read exactly, compared."""

from __future__ import annotations

import re
from fractions import Fraction

_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"""
    (?P<sign>(?<![\w)])[-+])?               # a sign, unless it subtracts
    (?:\\?[$€£]\s*(?P<inner>-)?)?          # a currency; the sign may follow it: $-5
    (?:
        \\[dt]?frac\{{\s*(?P<up>\d+)\s*\}}\{{\s*(?P<down>\d+)\s*\}}
      | (?P<first>{_UNSIGNED})
        (?:\s*/\s*(?P<over>\d+(?![\d.,]*\d))     # 3/4
         | \s+(?P<part>\d+)/(?P<whole>\d+)   # 2 1/2
        )?
    )
    """,
    re.VERBOSE | re.ASCII,
)
_BOXED = re.compile(r"\\boxed\s*\{")
_PHRASE = re.compile(r"answer\s*(?:is|:|=)", re.IGNORECASE)
_LONGEST = 40  # characters of a number; more is not an answer, and would be slow to read

TOLERANCE = Fraction(1, 10**6)
"""Two numbers agree within a millionth, relative to the larger of 1 and the right one."""


def marked_number(text: str) -> Fraction | None:
    r"""The number an answer marks as its result, or None.

    Looked for in this order, the last of its kind each: after ``####``, inside ``\boxed{}``, after "answer is" (or
    "answer:", "answer ="). A mark without a readable number is no mark: the next kind is tried.
    """
    text = _plain_minus(text)
    found = None
    if "####" in text:
        found = _first(text.rpartition("####")[2].lstrip().partition("\n")[0])
    boxes = [match.end() for match in _BOXED.finditer(text)]
    if found is None and boxes:
        found = _first(_inside_braces(text[boxes[-1] :]))
    phrases = [match.end() for match in _PHRASE.finditer(text)]
    if found is None and phrases:
        found = _first(text[phrases[-1] :].lstrip().partition("\n")[0])
    return found


def last_number(text: str) -> Fraction | None:
    """The last number of a text, or None."""
    found = None
    for match in _NUMBER.finditer(_plain_minus(text)):
        number = _value(match)
        found = found if number is None else number
    return found


def agree(number: Fraction, right: Fraction) -> bool:
    """Whether two numbers are the same answer."""
    return abs(number - right) <= TOLERANCE * max(Fraction(1), abs(right))


def write(number: Fraction) -> str:
    """A number as text, equal for numbers that agree to six decimals: ``18``, ``0.25``, ``0.333333``."""
    rounded = round(number, 6)
    if rounded.denominator == 1:
        return str(rounded.numerator)
    digits = str(abs(rounded.numerator) * (10**6 // rounded.denominator)).rjust(7, "0")
    return f"{'-' if rounded < 0 else ''}{digits[:-6]}.{digits[-6:].rstrip('0')}"


def _first(text: str) -> Fraction | None:
    for match in _NUMBER.finditer(text):
        return _value(match)
    return None


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > _LONGEST:
        return None
    part = match.groupdict()
    try:
        if part["up"]:
            value = Fraction(int(part["up"]), int(part["down"]))
        else:
            value = Fraction(part["first"].replace(",", ""))
            if part["over"]:
                value /= int(part["over"])
            elif part["part"]:
                value += Fraction(int(part["part"]), int(part["whole"]))
    except ZeroDivisionError:
        return None
    return -value if (part["sign"] == "-") != (part["inner"] == "-") else value


def _inside_braces(text: str) -> str:
    """The text up to the brace that closes one opened before it."""
    depth = 1
    for place, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[:place]
    return text


def _plain_minus(text: str) -> str:
    return text.replace("\N{MINUS SIGN}", "-")
