"""Components may name what builds them; it is imported when first built, relative to the plugin's module."""

from __future__ import annotations

import importlib
import sys

import pytest

from orchestrator.api import Component, PluginConfig, hookimpl
from orchestrator.errors import PluginContractError, describe
from orchestrator.plugging.manager import PluginManager
from orchestrator.plugging.registry import Registry
from orchestrator.testing import check_component, load_only

INIT = '''"""A stranger's plugin that imports nothing at load."""
from orchestrator.api import Component, ReportSection, hookimpl
from .config import Described, Options

@hookimpl
def provide_report_sections():
    return [
        ReportSection(name="lazy", render=".inner.sampler:render"),
        ReportSection(name="lost", render=".inner.sampler:renderer"),
    ]

@hookimpl
def provide_samplers():
    return [
        Component(name="lazy", config=Options, build=".inner.sampler:Lazy", summary="s"),
        Component(name="bare", build=".inner.sampler:Bare"),
        Component(name="absolute", config=Options, build="PACKAGE.inner.sampler:Lazy"),
        Component(name="misspelt", build=".inner.sampler:Bear"),
        Component(name="missing", build=".outer:Bare"),
        Component(name="described", config=Described, build=".inner.sampler:Lazy"),
    ]
'''
CONFIG = '''"""Options."""
from pydantic import Field
from orchestrator.api import PluginConfig

class Options(PluginConfig):
    count: int = Field(2, description="rollouts")

class Described(Options):
    """Every task gets the same number
    of rollouts.

    More is dearer.
    """
'''
SAMPLER = '''"""The samplers."""
from orchestrator.api import RolloutRequest

class Lazy:
    def __init__(self, config):
        self.count = config.count
    def sample(self, tasks, collect):
        return collect([RolloutRequest(task=task, count=self.count) for task in tasks])

class Bare(Lazy):
    def __init__(self):
        self.count = 1

def render(study):
    return f"<p>{study}</p>"
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    name = f"lazy_{tmp_path.name.replace('-', '_')}"
    package = tmp_path / name
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text(INIT.replace("PACKAGE", name))
    (package / "config.py").write_text(CONFIG)
    (package / "inner" / "__init__.py").write_text("")
    (package / "inner" / "sampler.py").write_text(SAMPLER)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return importlib.import_module(name)


def test_nothing_is_imported_before_the_first_build(plugin):
    registry = load_only(plugin)
    module = f"{plugin.__name__}.inner.sampler"
    registry.problems("sampler", "lazy", {"count": 3}, "sampler")
    assert module not in sys.modules

    built = registry.build("sampler", "lazy", {"count": 3})

    assert module in sys.modules
    assert (type(built).__name__, built.count) == ("Lazy", 3)


@pytest.mark.parametrize(("name", "count"), [("lazy", 2), ("bare", 1), ("absolute", 2)])
def test_a_name_is_called_with_the_options_or_with_nothing_where_there_are_none(plugin, name, count):
    assert load_only(plugin).build("sampler", name).count == count


def test_described_components_build_and_are_checked_like_any_other(plugin):
    registry = load_only(plugin)

    check_component(registry.describe("sampler", "lazy"), {"count": 2})
    check_component(registry.describe("sampler", "bare"))


def test_a_name_that_leads_nowhere_says_so_with_the_plugin(plugin):
    registry = load_only(plugin)

    with pytest.raises(PluginContractError) as misspelt:
        registry.build("sampler", "misspelt")
    with pytest.raises(ModuleNotFoundError) as missing:
        registry.build("sampler", "missing")

    assert "has no class or function 'Bear'; did you mean 'Bare'?" in describe(misspelt.value)
    for error in (misspelt.value, missing.value):
        assert f"raised by plugin '{plugin.__name__}'" in describe(error)


@pytest.mark.parametrize("build", [".sampler", "sampler:", ":Lazy", ".a b:Lazy", "", 3, None])
def test_what_builds_nothing_is_refused_at_load(build):
    class Options(PluginConfig):
        pass

    class Stranger:
        @hookimpl
        def provide_samplers(self):
            return [Component(name="x", config=Options, build=build)]

    manager = PluginManager()
    manager.register(Stranger())

    with pytest.raises(PluginContractError, match="build is"):
        Registry(manager)


@pytest.mark.parametrize(
    ("name", "summary"),
    [
        ("described", "Every task gets the same number of rollouts"),
        ("lazy", "s"),  # its own word stands
        ("absolute", ""),  # options without a docstring say nothing, least of all their base class's
        ("bare", ""),
    ],
)
def test_a_component_is_summarised_by_the_first_sentence_on_its_options(plugin, name, summary):
    assert load_only(plugin).describe("sampler", name).summary == summary


def test_a_report_section_is_imported_when_it_is_rendered(plugin):
    lazy, lost = (section for _, section in load_only(plugin).report_sections())
    module = f"{plugin.__name__}.inner.sampler"
    assert module not in sys.modules

    assert lazy.render("a study") == "<p>a study</p>"
    assert module in sys.modules
    with pytest.raises(PluginContractError, match="no class or function 'renderer'; did you mean 'render'"):
        lost.render("a study")
