"""Secrets: passwords in addresses, and options whose type is ``SecretStr``. Files keep a reference to them, or ``***``.

``${oc.env:TOKEN}`` is kept as written, and every process that needs the value looks the variable up again. A literal
secret goes into a variable of the process that read it, where the processes it starts find it, and ``***`` is written:
whoever takes the run up again gives that variable.
"""

from __future__ import annotations

import os
import re

from orchestrator.errors import ConfigError, Problem

HIDDEN = "***"
_PASSWORD = re.compile(r"([A-Za-z][\w+.-]*://[^/?#\s:@]*:)([^/?#\s]+)(@)")
_VARIABLE = re.compile(r"\$\{oc\.env:([A-Za-z_]\w*)(?:,([^{}]*))?\}")


def has_password(text: str) -> bool:
    """Whether a text is an address with a password in it, hidden or not."""
    return _PASSWORD.match(text) is not None


def is_hidden(text: str) -> bool:
    """Whether a text is what files say in place of a secret."""
    found = _PASSWORD.match(text)
    return text == HIDDEN or _VARIABLE.search(text) is not None or (found is not None and found[2] == HIDDEN)


def variable_of(where: str) -> str:
    """The environment variable of a literal secret: ``tracking.uri`` is ``ORCHESTRATOR_SECRET_TRACKING_URI``."""
    return f"ORCHESTRATOR_SECRET_{re.sub(r'[^A-Za-z0-9]+', '_', where).upper()}"


def conceal(text: str, where: str, written: str | None = None, *, whole: bool = False) -> str:
    """What files may say in place of a text; the literal secret in it goes into its variable.

    :param where: the option, as in ``tracking.uri``
    :param written: the reference the text came from; None: it was written as it is
    :param whole: the whole text is the secret; else the password of an address is
    """
    found = None if whole else _PASSWORD.match(text)
    if not whole and found is None:
        return text
    if written is not None and _VARIABLE.search(written):
        return written
    if _VARIABLE.search(text) or text == HIDDEN or (found is not None and found[2] == HIDDEN):
        return text  # hidden already
    secret = text if found is None else found[2]
    variable = variable_of(where)
    if os.environ.get(variable, secret) != secret and variable in _GIVEN:
        raise ConfigError(
            [
                Problem(
                    where, "two literal secrets for one option; write each as ${oc.env:NAME} of a variable of its own"
                )
            ]
        )
    os.environ[variable] = secret
    _GIVEN.add(variable)
    return HIDDEN if found is None else f"{found[1]}{HIDDEN}{text[found.end(2) :]}"


def reveal(text: str, where: str) -> str:
    """The text that :func:`conceal` hid, from the environment of this process.

    :raises ConfigError: a variable is not set
    """

    def looked_up(found: re.Match[str]) -> str:
        value = os.environ.get(found[1], found[2])
        if value is None:
            raise ConfigError([Problem(where, f"needs the environment variable {found[1]}, which is not set")])
        return value

    text = _VARIABLE.sub(looked_up, text)
    found = _PASSWORD.match(text)
    if text != HIDDEN and (found is None or found[2] != HIDDEN):
        return text
    variable = variable_of(where)
    secret = os.environ.get(variable)
    if secret is None:
        raise ConfigError(
            [Problem(where, f"its secret was given once and is not kept in files; set {variable} to it, and resume")]
        )
    return secret if found is None else f"{found[1]}{secret}{text[found.end(2) :]}"


_GIVEN: set[str] = set()  # variables that hold literal secrets of this process
