"""The wheel holds both packages with their data, and nothing else becomes importable."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    built = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(folder / built.stdout.strip().splitlines()[-1]) as wheel:
        return set(wheel.namelist())


def test_every_module_and_data_file_of_both_packages_is_in_the_wheel(names):
    for source, folder in (
        (ROOT, ROOT / "orchestrator"),
        (ROOT / "plugins", ROOT / "plugins" / "orchestrator_plugins"),
    ):
        tracked = subprocess.run(
            ["git", "ls-files", "--", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.splitlines()
        expected = {(ROOT / path).relative_to(source).as_posix() for path in tracked if (ROOT / path).is_file()}
        assert expected <= names


def test_templates_and_tokenizers_travel_as_data(names):
    assert "orchestrator/plugging/templates/shared/pyproject.toml.tmpl" in names
    assert "orchestrator/report/style.css" in names
    assert "orchestrator/report/templates/page.html" in names


def test_nothing_else_becomes_importable(names):
    tops = {name.split("/")[0] for name in names}

    assert {top for top in tops if not top.endswith(".dist-info")} == {"orchestrator", "orchestrator_plugins"}


def test_the_wheel_registers_the_command_and_the_plugins(names):
    (metadata,) = [name for name in names if name.endswith("entry_points.txt")]

    assert metadata.startswith("rl_orchestrator-")
    assert any(name.endswith("licenses/LICENSE") for name in names)
