"""What pluggy lets through is refused before anything registers; hooks are called with blame."""

import sys
from pathlib import Path

import pytest

from orchestrator.api import hookimpl
from orchestrator.errors import PluginContractError
from orchestrator.plugging.manager import PluginManager


class Sound:
    @hookimpl
    def provide_rewards(self):
        return []


def refuse(plugin):
    manager = PluginManager()
    with pytest.raises(PluginContractError) as caught:
        manager.register(plugin, "bad")
    assert manager.plugins == {}
    return str(caught.value)


class Unknown:
    @hookimpl
    def provide_reward(self):
        return []


class KeywordOnly:
    @hookimpl
    def on_step_end(self, *, step):
        pass


class Defaulted:
    @hookimpl
    def on_step_end(self, trial, step=3):
        pass


class Starred:
    @hookimpl
    def on_step_end(self, *arguments):
        pass


class StarStarred:
    @hookimpl
    def on_step_end(self, **arguments):
        pass


class Async:
    @hookimpl
    async def on_trial_start(self, trial):
        pass


class MisnamedArgument:
    @hookimpl
    def on_step_end(self, tiral):
        pass


class Unmarked:
    def provide_rewards(self):
        return []


class Empty:
    pass


class NeverRuns:
    @hookimpl
    def on_trial_start(self, trial):
        yield


class WrapsACollection:
    @hookimpl(wrapper=True)
    def provide_rewards(self):
        return (yield)


@pytest.mark.parametrize(
    ("plugin", "expected"),
    [
        (Unknown(), "unknown hook 'provide_reward'; did you mean 'provide_rewards'?"),
        (KeywordOnly(), "parameter 'step' is keyword-only; hooks are called by position, drop the `*`"),
        (Defaulted(), "parameter 'step' has a default and would not be passed; drop the default"),
        (Starred(), "starred parameter 'arguments' stays empty; name the arguments you want: ['trial', 'step'"),
        (StarStarred(), "starred parameter 'arguments' stays empty"),
        (Async(), "hook 'on_trial_start' is async and would never be awaited; make it a plain function"),
        (MisnamedArgument(), "has no argument 'tiral'; did you mean 'trial'?"),
        (Unmarked(), "provide_rewards has the name of a hook but no @hookimpl; add it"),
        (Empty(), "it implements no hook; mark functions with @hookimpl"),
        (Sound, "the entry point gives the class Sound; point it at a module, or at an instance: Sound()"),
        (NeverRuns(), "is a generator and its body would never run"),
        (WrapsACollection(), "takes no wrappers"),
    ],
    ids=lambda value: value.__class__.__name__ if not isinstance(value, str) else "",
)
def test_mistakes_pluggy_lets_through_are_refused_with_the_remedy(plugin, expected):
    message = refuse(plugin)

    assert message.startswith("plugin 'bad' (unpackaged 0): ")
    assert expected in message


def test_every_mistake_of_a_plugin_is_listed_at_once():
    class Two:
        provide_reward = Unknown.provide_reward
        on_step_end = Starred.on_step_end

    assert len(refuse(Two()).splitlines()) == 2


def test_static_methods_and_leading_arguments_are_fine():
    class Fine:
        @staticmethod
        @hookimpl
        def on_step_end(step):
            seen.append(step)

    seen, manager = [], PluginManager()
    manager.register(Fine(), "fine")

    manager.notify("on_step_end", trial=None, step=7, metrics={})

    assert seen == [7]


def test_a_name_is_taken_once():
    manager = PluginManager()
    manager.register(Sound(), "sound")

    with pytest.raises(PluginContractError, match="already registered"):
        manager.register(Sound(), "sound")


def test_generators_are_consumed_inside_the_boundary():
    class Late:
        @hookimpl
        def provide_rewards(self):
            yield 1
            raise ValueError("too late")

    manager = PluginManager()
    manager.register(Late(), "late")

    with pytest.raises(ValueError, match="too late") as caught:
        list(manager.call_each("provide_rewards"))
    assert caught.value.__notes__ == ["raised by plugin 'late' (unpackaged 0) in hook 'provide_rewards'"]


def test_results_that_are_no_lists_are_refused():
    class One:
        @hookimpl
        def provide_rewards(self):
            return "exact"

    manager = PluginManager()
    manager.register(One(), "one")

    with pytest.raises(PluginContractError, match=r"'one' .*returned str 'exact'; return a list"):
        list(manager.call_each("provide_rewards"))


def test_an_observer_that_raises_stops_no_other():
    class Fails:
        @hookimpl
        def on_trial_start(self, trial):
            raise OSError("disk full")

    class Watches:
        @hookimpl
        def on_trial_start(self, trial):
            seen.append(trial)

    seen, manager = [], PluginManager()
    manager.register(Fails(), "fails")
    manager.register(Watches(), "watches")

    ((info, error),) = manager.notify("on_trial_start", trial="t")

    assert seen == ["t"]
    assert (info.name, str(error)) == ("fails", "disk full")
    assert manager.failures == {"fails": 1}


def test_the_first_result_wins_and_the_core_comes_last():
    class Declines:
        @hookimpl
        def run_trial(self, trial, components):
            return None

    class Plays:
        @hookimpl
        def run_trial(self, trial):
            return "played"

    manager = PluginManager()
    assert not manager.implements("run_trial")
    manager.register(Plays(), "plays")
    manager.register(Declines(), "declines")

    assert manager.first("run_trial", trial=None, components=None) == "played"
    assert manager.implements("run_trial")


def test_errors_of_running_hooks_and_of_configure_are_blamed():
    class Fails:
        @hookimpl
        def run_trial(self):
            raise RuntimeError("lost")

        @hookimpl
        def configure(self, settings):
            raise KeyError(settings["version"])

    manager = PluginManager()
    manager.register(Fails(), "fails")

    with pytest.raises(RuntimeError, match="lost") as caught:
        manager.first("run_trial", trial=None, components=None)
    assert "plugin 'fails'" in caught.value.__notes__[0]
    with pytest.raises(KeyError) as caught:
        manager.configure({"version": "1"})
    assert "plugin 'fails'" in caught.value.__notes__[0]


def test_configure_reaches_plugins_that_come_late():
    class Configured:
        @hookimpl
        def configure(self, settings):
            seen.append(settings)

    seen, manager = [], PluginManager()
    manager.configure({"version": "1"})
    manager.register(Configured(), "late")
    manager.configure({"version": "1"})

    assert seen == [{"version": "1"}]


# --- discovery --------------------------------------------------------------------------------------------


def distribution(folder: Path, name: str, entry_points: dict[str, str], modules: dict[str, str]) -> None:
    """Write an installed distribution: modules and metadata, as pip would."""
    info = folder / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    rows = "\n".join(f"{key} = {value}" for key, value in entry_points.items())
    (info / "entry_points.txt").write_text(f"[orchestrator.plugins]\n{rows}\n")
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)


SOURCE = """
from orchestrator.api import hookimpl
@hookimpl
def provide_rewards():
    return []
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield lambda *arguments: distribution(tmp_path, *arguments)
    for name in set(sys.modules) - before:
        if name.startswith("stranger"):
            del sys.modules[name]


def test_an_installed_plugin_is_found_with_its_distribution_and_version(installed):
    installed("stranger-dist", {"stranger": "stranger_mod"}, {"stranger_mod": SOURCE})
    manager = PluginManager()

    manager.discover(["stranger"])

    assert str(manager.plugins["stranger"]) == "'stranger' (stranger-dist 1.2)"


def test_two_distributions_with_one_entry_point_name_are_refused(installed):
    installed("stranger-one", {"stranger": "stranger_one"}, {"stranger_one": SOURCE})
    installed("stranger-two", {"stranger": "stranger_two"}, {"stranger_two": SOURCE})

    with pytest.raises(PluginContractError, match="both register the entry point 'stranger'; uninstall one") as caught:
        PluginManager().discover(["stranger"])
    assert "stranger-one 1.2 and stranger-two 1.2" in str(caught.value)


@pytest.mark.parametrize("source", ["import nowhere_to_be_found", "1 / 0", "raise SystemExit(3)", "def ("])
def test_a_plugin_that_does_not_import_is_listed_as_broken(installed, source):
    installed("stranger-dist", {"stranger": "stranger_mod"}, {"stranger_mod": source})
    manager = PluginManager()

    manager.discover(["stranger"])

    assert manager.plugins == {}
    assert manager.broken["stranger"].info.distribution == "stranger-dist"
    assert manager.broken["stranger"].reason


def test_one_bad_plugin_keeps_all_others_from_registering(installed):
    installed("stranger-good", {"stranger_a": "stranger_good"}, {"stranger_good": SOURCE})
    installed("stranger-bad", {"stranger_b": "stranger_bad"}, {"stranger_bad": SOURCE.replace("rewards", "reward")})
    manager = PluginManager()

    with pytest.raises(PluginContractError, match=r"'stranger_b' \(stranger-bad 1\.2\): unknown hook"):
        manager.discover(["stranger_a", "stranger_b"])
    assert manager.plugins == {}


def test_without_strictness_bad_plugins_are_listed_and_good_ones_register(installed):
    installed("stranger-good", {"stranger_a": "stranger_good"}, {"stranger_good": SOURCE})
    installed("stranger-bad", {"stranger_b": "stranger_bad"}, {"stranger_bad": SOURCE.replace("rewards", "reward")})
    manager = PluginManager()

    manager.discover(["stranger_a", "stranger_b"], strict=False)

    assert list(manager.plugins) == ["stranger_a"]
    assert "unknown hook" in manager.broken["stranger_b"].reason


def test_a_plugin_that_is_not_installed_is_named_with_its_neighbour(installed):
    installed("stranger-dist", {"stranger": "stranger_mod"}, {"stranger_mod": SOURCE})

    with pytest.raises(PluginContractError, match="did you mean 'stranger'"):
        PluginManager().discover(["strangr"])


def test_the_fingerprint_follows_the_sources(installed, tmp_path):
    installed("stranger-dist", {"stranger": "stranger_mod"}, {"stranger_mod": SOURCE})

    def fingerprint():
        manager = PluginManager()
        manager.discover(["stranger"])
        return manager.fingerprint()["stranger"]

    before = fingerprint()
    (tmp_path / "stranger_mod.py").write_text(SOURCE + "\n# changed\n")

    assert before.startswith("stranger-dist 1.2 ")
    assert fingerprint() != before
