"""Generated projects are named soundly and never written over something."""

import tomllib

import pytest

from orchestrator.contract.component import Role
from orchestrator.errors import ConfigError
from orchestrator.plugging.scaffold import make_project


@pytest.mark.parametrize("role", list(Role))
def test_a_project_is_complete_and_its_sources_compile(tmp_path, role):
    project = make_project("my_part", role, tmp_path)

    metadata = tomllib.loads((project / "pyproject.toml").read_text())
    assert metadata["project"]["name"] == "my-part"
    assert metadata["project"]["entry-points"]["orchestrator.plugins"] == {"my_part": "my_part"}
    written = sorted(str(path.relative_to(project)) for path in project.rglob("*") if path.is_file())
    assert written == sorted(
        [
            "README.md",
            "my_part/__init__.py",
            "my_part/config.py",
            f"my_part/{role}.py",
            "pyproject.toml",
            "tests/test_my_part.py",
        ]
    )
    for path in project.rglob("*.py"):
        compile(path.read_text(), str(path), "exec")
    assert "$" not in "".join(path.read_text() for path in project.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("My Part", "did you mean 'my_part'"),
        ("class", "cannot name a package"),
        ("3d", "did you mean 'd'"),
        ("torch", "can be imported already"),
    ],
)
def test_names_that_cannot_be_packages_are_refused(tmp_path, name, expected):
    with pytest.raises(ConfigError, match=expected):
        make_project(name, "reward", tmp_path)


@pytest.mark.parametrize(("name", "role", "what"), [("dars_x", "sampler", "sampler"), ("mine", "reward", "plugin")])
def test_a_name_that_an_installed_plugin_has_is_refused(tmp_path, name, role, what):
    taken = {"plugin": ("mine",), "sampler": ("dars_x",), "reward": ("exact_x",)}

    with pytest.raises(ConfigError, match=f"'{name}' is the name of an installed {what}"):
        make_project(name, role, tmp_path, taken)
    assert make_project("another", role, tmp_path, taken).is_dir()


def test_unknown_roles_and_taken_folders_are_reported_together(tmp_path):
    (tmp_path / "my_part").mkdir()

    with pytest.raises(ConfigError) as caught:
        make_project("my_part", "rewards", tmp_path)

    first, second = map(str, caught.value.problems)
    assert "no role 'rewards'; did you mean 'reward'?" in first
    assert "exists already" in second
