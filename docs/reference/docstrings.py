"""A griffe extension: our docstrings in the words that the reader of docstrings and Markdown understand."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_FIELD = re.compile(r":(\w+)( [^:\n]+)?: ")
_FORMULA = re.compile(r"\.\. math:: (.*(?:\n[ ]+.*)*)")
_ROLE = re.compile(r":(?:math|class|meth|attr|func|mod):`([^`]+)`")


class OurDocstrings(Extension):
    """Show formulas and references as code, and put the prose that follows the fields in front of them."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = _FORMULA.sub(lambda found: f"`{' '.join(found[1].split())}`", obj.docstring.value)
            obj.docstring.value = fields_last(_ROLE.sub(r"`\1`", text))


def fields_last(text: str) -> str:
    """Order a docstring's lines: prose, then fields with what is indented below each.

    The reader counts what follows the fields (``Source: ...``, ``Called in: ...``) as part of the last one.
    """
    prose, fields, inside = [], [], False
    for line in text.splitlines():
        inside = bool(_FIELD.match(line)) or (inside and line.startswith(" "))
        (fields if inside else prose).append(line)
    return "\n".join(["\n".join(prose).rstrip(), "", *fields]).strip()
