"""The public surface: sorted, complete, documented."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import api


def test_all_is_sorted_and_names_nothing_twice():
    assert api.__all__ == sorted(set(api.__all__))


@pytest.mark.parametrize("name", api.__all__)
def test_every_public_name_resolves_and_is_documented(name):
    value = getattr(api, name)

    if inspect.isclass(value) or inspect.isfunction(value):
        own = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
        generated = (own or "").startswith(f"{name}(")  # what dataclass writes when nobody did
        assert own, f"{name} has no docstring"
        assert not generated, f"{name} has no docstring of its own"


def test_what_the_module_imports_is_public():
    tree = ast.parse(Path(api.__file__).read_text())
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("orchestrator")
        for alias in node.names
    }

    assert imported == set(api.__all__)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = api.nonsense


def test_importing_the_api_does_not_import_torch():
    code = "import sys, orchestrator.api; print('torch' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
