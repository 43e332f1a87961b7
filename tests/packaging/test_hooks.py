"""The hook specifications are the manual: each has a summary, its parameters, its place and its version."""

import inspect
import re

import pytest

from orchestrator.contract import hookspecs
from orchestrator.plugging.manager import PluginManager

HOOKS = PluginManager().hook_names
VERBS = ("provide_", "check_", "configure", "run_", "on_")


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_says_what_a_plugin_author_must_know(name):
    function = getattr(hookspecs, name)
    documentation = inspect.getdoc(function) or ""
    summary, _, body = documentation.partition("\n")

    assert name.startswith(VERBS)
    assert summary.endswith((".", "."))
    for parameter in inspect.signature(function).parameters:
        assert re.search(rf":param {parameter}: \S", body), f"{name} does not explain {parameter}"
    assert re.search(r"^Called in: (the )?(driver|worker)", body, re.MULTILINE)
    assert re.search(r"Added in \d+\.\d+\.", body)


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_is_typed(name):
    signature = inspect.signature(getattr(hookspecs, name))

    assert signature.return_annotation is not inspect.Signature.empty
    assert all(one.annotation is not inspect.Parameter.empty for one in signature.parameters.values())


def test_the_verb_tells_the_convention():
    for name in HOOKS:
        options = getattr(hookspecs, name).orchestrator_spec
        assert options["firstresult"] == name.startswith("run_")
        assert options["historic"] == (name == "configure")
