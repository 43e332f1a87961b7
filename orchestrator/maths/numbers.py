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
        (?P<power>[eE][-+]?\d+(?!\w|\.\d)|\s*(?:\\times|\\cdot|[\u00d7\u00b7*x])\s*10\s*\^\s*\{{?[-+]?\d+\}}?)?   # 1e3, 1.5 x 10^3
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
_LARGEST_POWER = 30  # of ten
_OPERATOR = re.compile(r"\s*(?:[-+*/\u00d7\u00b7\u00f7^x]|\\times|\\cdot|\\div)\s*\(*\s*")
_EQUALS = re.compile(r"[\s%)]*=\s*")
_THIN = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")  # spaces that do not break a line, between thousands
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d/]| *\d)")  # 1 080
_LATEX = (("{,}", ","), ("\\,", ""), ("\\!", ""), ("\\ ", " "), ("~", " "))
_MINUS = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-"))

TOLERANCE = Fraction(1, 10**6)
"""Two numbers agree within a millionth, relative to the larger of 1 and the right one."""


def marked_number(text: str) -> Fraction | None:
    r"""The number an answer marks as its result, or None.

    Looked for in this order, the last of its kind each: after ``####``, inside ``\boxed{}``, after "answer is" (or
    "answer:", "answer ="). Of a calculation, as in ``5 + 13 = 18``, its result counts. A mark without a readable number,
    or with a calculation that nobody carried out, is no mark: the next kind is tried.
    """
    text = _plain(text)
    found = None
    if "####" in text:
        found = _result(text.rpartition("####")[2].lstrip().partition("\n")[0])
    boxes = [match.end() for match in _BOXED.finditer(text)]
    if found is None and boxes:
        found = _result(_inside_braces(text[boxes[-1] :]))
    phrases = [match.end() for match in _PHRASE.finditer(text)]
    if found is None and phrases:
        found = _result(text[phrases[-1] :].lstrip().partition("\n")[0])
    return found


def last_number(text: str) -> Fraction | None:
    """The last number of a text, or None."""
    found = numbers_in(text)
    return found[-1] if found else None


def numbers_in(text: str) -> list[Fraction]:
    """Every number of a text, in order; what is too long to be an answer is left out."""
    found = (_value(match) for match in _NUMBER.finditer(_plain(text)))
    return [number for number in found if number is not None]


def same_number(number: Fraction, right: Fraction) -> bool:
    """Whether two numbers are the same answer."""
    return abs(number - right) <= TOLERANCE * max(Fraction(1), abs(right))


def write_number(number: Fraction) -> str:
    """A number as text, equal for numbers that agree to six decimals: ``18``, ``0.25``, ``0.333333``."""
    rounded = round(number, 6)
    if rounded.denominator == 1:
        return str(rounded.numerator)
    digits = str(abs(rounded.numerator) * (10**6 // rounded.denominator)).rjust(7, "0")
    return f"{'-' if rounded < 0 else ''}{digits[:-6]}.{digits[-6:].rstrip('0')}"


def _result(text: str) -> Fraction | None:
    """The first number of a text, or what the calculation that begins with it comes to."""
    match = _NUMBER.search(_SPACED.sub(lambda found: found[0].replace(" ", ""), text))
    calculated = False
    while match is not None:
        operator = _OPERATOR.match(match.string, match.end())
        operand = operator and _NUMBER.match(match.string, operator.end())
        if operand:
            match, calculated = operand, True
            continue
        if not calculated:
            return _value(match)
        equals = _EQUALS.match(match.string, match.end())
        match, calculated = (_NUMBER.match(match.string, equals.end()) if equals else None), False
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
            if part["power"]:
                power = int(re.findall(r"[-+]?\d+", part["power"])[-1])
                if abs(power) > _LARGEST_POWER:
                    return None
                value *= Fraction(10) ** power
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


def _plain(text: str) -> str:
    """A text with one kind of minus, and without what only sets thousands apart."""
    text = _THIN.sub("", text.translate(_MINUS))
    for written, plain in _LATEX:
        text = text.replace(written, plain)
    return text
