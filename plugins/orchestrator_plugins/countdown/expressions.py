"""Arithmetic expressions as text: parsed strictly, computed exactly, compared up to order and brackets.

Nothing here evaluates text as code. The grammar, with blanks allowed between tokens::

    sum     := product (("+" | "-") product)*
    product := atom (("*" | "/") atom)*
    atom    := number | "(" sum ")"
    number  := "0" or decimal digits without a leading zero

There is no unary minus.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

MAX_CHARACTERS = 1000
MAX_DEPTH = 50  # of brackets; keeps hostile input off the interpreter's recursion limit
MAX_NUMBERS = 50  # likewise, for chains
MAX_DIGITS = 9

_DIGITS = "0123456789"
_INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}


class ExpressionError(ValueError):
    """The text is not an expression, or its value does not exist."""


@dataclass(frozen=True, slots=True)
class Operation:
    """Two expressions joined by ``+``, ``-``, ``*`` or ``/``."""

    operator: str
    left: Expression
    right: Expression


Expression: TypeAlias = int | Operation


def parse(text: str) -> Expression:
    """Parse a whole text as one expression; blanks around it are fine, anything else is not.

    :raises ExpressionError: saying what stood where
    """
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError(f"{len(text)} characters; at most {MAX_CHARACTERS}")
    return _Parser(text).whole()


def value(expression: Expression) -> Fraction:
    """Compute an expression exactly.

    :raises ExpressionError: on division by zero
    """
    if isinstance(expression, int):
        return Fraction(expression)
    left, right = value(expression.left), value(expression.right)
    match expression.operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
    if right == 0:
        raise ExpressionError(f"division by zero in {write(expression)}")
    return left / right


def numbers_of(expression: Expression) -> list[int]:
    """The numbers of an expression, from left to right."""
    if isinstance(expression, int):
        return [expression]
    return numbers_of(expression.left) + numbers_of(expression.right)


def operators_of(expression: Expression) -> set[str]:
    """The operators of an expression."""
    if isinstance(expression, int):
        return set()
    return {expression.operator} | operators_of(expression.left) | operators_of(expression.right)


def write(expression: Expression, blank: str = "") -> str:
    """Write an expression with as few brackets as its meaning allows.

    :param blank: what stands on both sides of an operator
    """
    if isinstance(expression, int):
        return str(expression)
    left, right = write(expression.left, blank), write(expression.right, blank)
    if _rank(expression.left) < _rank(expression):
        left = f"({left})"
    if _rank(expression.right) < _rank(expression) or (
        expression.operator in "-/" and _rank(expression.right) == _rank(expression)
    ):
        right = f"({right})"
    return f"{left}{blank}{expression.operator}{blank}{right}"


def canonical(expression: Expression) -> str:
    """Write an expression so that two texts agree exactly when order and brackets alone tell them apart.

    Sums and products are flattened, subtraction as adding the opposite and division as multiplying by the
    inverse, and their terms are sorted: ``(3+5)*7``, ``7*(5+3)`` agree; ``a-(b-c)``, ``a+c-b`` agree; ``6*1``
    and ``6/1`` do not.
    """
    if isinstance(expression, int):
        return str(expression)
    signs = "+-" if expression.operator in "+-" else "*/"
    terms = sorted(sign + canonical(term) for sign, term in _flat(expression, signs[0], signs))
    return f"({''.join(terms)})"


def _flat(expression: Expression, sign: str, signs: str) -> list[tuple[str, Expression]]:
    """Terms of a sum (signs ``+-``) or factors of a product (signs ``*/``), with their signs."""
    if isinstance(expression, int) or expression.operator not in signs:
        return [(sign, expression)]
    second = sign if expression.operator == signs[0] else _INVERSE[sign]
    return _flat(expression.left, sign, signs) + _flat(expression.right, second, signs)


def _rank(expression: Expression) -> int:
    """How tightly the outermost operator binds."""
    if isinstance(expression, int):
        return 3
    return 1 if expression.operator in "+-" else 2


class _Parser:
    """Recursive descent over one text."""

    def __init__(self, text: str):
        self.text = text
        self.at = 0
        self.depth = 0
        self.count = 0

    def whole(self) -> Expression:
        expression = self.chain("+-")
        if self.peek():
            raise self.error("an operator or the end")
        return expression

    def chain(self, operators: str) -> Expression:
        """A left-associative chain of sums, or of products inside sums."""
        operand = self.atom if operators == "*/" else lambda: self.chain("*/")
        expression = operand()
        while self.peek() and self.peek() in operators:
            operator = self.take()
            expression = Operation(operator, expression, operand())
        return expression

    def atom(self) -> Expression:
        character = self.peek()
        if character and character in _DIGITS:
            return self.number()
        if character != "(":
            raise self.error("a number or '('")
        self.take()
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ExpressionError(f"brackets nested deeper than {MAX_DEPTH}")
        expression = self.chain("+-")
        if self.peek() != ")":
            raise self.error("an operator or ')'")
        self.take()
        self.depth -= 1
        return expression

    def number(self) -> int:
        start = self.at
        while self.at < len(self.text) and self.text[self.at] in _DIGITS:
            self.at += 1
        digits = self.text[start : self.at]
        if len(digits) > MAX_DIGITS:
            raise ExpressionError(f"a number of {len(digits)} digits at {start + 1}; at most {MAX_DIGITS}")
        if len(digits) > 1 and digits[0] == "0":
            raise ExpressionError(f"leading zero in {digits!r} at {start + 1}")
        self.count += 1
        if self.count > MAX_NUMBERS:
            raise ExpressionError(f"more than {MAX_NUMBERS} numbers")
        return int(digits)

    def peek(self) -> str:
        """The next character that is not blank; empty at the end."""
        while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
            self.at += 1
        return self.text[self.at] if self.at < len(self.text) else ""

    def take(self) -> str:
        character = self.peek()
        self.at += 1
        return character

    def error(self, expected: str) -> ExpressionError:
        found = repr(self.peek()) if self.peek() else "the end"
        return ExpressionError(f"expected {expected} at {self.at + 1}, found {found}")
