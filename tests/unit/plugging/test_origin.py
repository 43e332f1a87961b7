"""An error that comes out of a running hook is blamed on the code that raised it, never on a hook that only stood around."""

import sys
from types import ModuleType

import pytest

from orchestrator.errors import blamed
from orchestrator.plugging.manager import PluginManager

START = "import json\nfrom orchestrator.api import hookimpl\n"
WATCHES = "@hookimpl\ndef on_trial_start():\n    pass\n"
WRAPS = "@hookimpl(wrapper=True)\ndef run_trial():\n    return (yield)\n"
PLAYS = "@hookimpl\ndef run_trial():\n    return [json.loads(text) for text in ('1', 'no JSON')]\n"
PLAYS_DEEPER = "@hookimpl\ndef run_trial():\n    return loop()\n\ndef loop():\n    return json.loads('no JSON')\n"
FAILS_AFTER = "@hookimpl(wrapper=True)\ndef run_trial():\n    yield\n    return json.loads('no JSON')\n"
OBJECTIVE = "class Objective:\n    def terms(self):\n        return json.loads('no JSON')\n"
CORE = "from orchestrator.api import hookimpl\n@hookimpl(trylast=True)\ndef run_trial(components):\n    return components.terms()\n"


@pytest.fixture
def raised():
    """Registers plugins by source, lets the core play a trial with a component, and says who is blamed."""

    def run(component, **sources):
        manager = PluginManager()
        for name, source in sources.items():
            made = module(f"stranger_{name}", START + source)
            sys.modules[made.__name__] = made
            manager.register(made, name)
        manager.add_default(module("orchestrator.core_of_this_test", CORE))
        with pytest.raises(ValueError) as caught:
            manager.first("run_trial", trial=None, components=component(manager))
        return blamed(caught.value)

    yield run
    for name in [name for name in sys.modules if name.startswith("stranger_")]:
        del sys.modules[name]


def module(name, source):
    made = ModuleType(name)
    exec(compile(source, f"{name}.py", "exec"), vars(made))
    return made


def of_mine(manager):
    return sys.modules["stranger_mine"].Objective()


class OfTheCore:
    """A component of no plugin."""

    def __init__(self, manager=None):
        pass

    def terms(self):
        raise ValueError("the core gave up")


class Fine(OfTheCore):
    def terms(self):
        return "done"


@pytest.mark.parametrize("mine", [WATCHES, WRAPS])
@pytest.mark.parametrize("other", [WATCHES, WRAPS])
def test_a_component_is_blamed_in_its_own_code_whoever_wraps_the_hook(raised, mine, other):
    whom = "'mine' (unpackaged 0) in stranger_mine.Objective.terms"

    assert raised(of_mine, mine=mine + OBJECTIVE, other=other) == whom
    assert raised(of_mine, another=other, mine=mine + OBJECTIVE) == whom


@pytest.mark.parametrize("source", [WATCHES, WRAPS])
def test_an_error_of_the_core_is_blamed_on_nobody_who_wraps_the_hook(raised, source):
    assert raised(OfTheCore, mine=source) is None


@pytest.mark.parametrize("source", [PLAYS, PLAYS_DEEPER, FAILS_AFTER])
def test_a_plugin_whose_implementation_of_the_hook_fails_is_blamed_in_the_hook(raised, source):
    assert raised(Fine, mine=source, other=WRAPS) == "'mine' (unpackaged 0) in hook 'run_trial'"


def test_a_late_plugin_that_cannot_be_configured_is_blamed_itself():
    manager = PluginManager()
    manager.configure({})

    with pytest.raises(ValueError) as caught:
        manager.register(
            module("stranger", START + "@hookimpl\ndef configure(settings):\n    json.loads('no')\n"), "late"
        )

    assert blamed(caught.value) == "'late' (unpackaged 0) in hook 'configure'"
