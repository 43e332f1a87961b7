"""Errors name their owner, survive the trip between processes, and suggest what was meant."""

import pickle

import pytest

from orchestrator import errors
from orchestrator.errors import ConfigError, OrchestratorError, Problem, blame, did_you_mean

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, OrchestratorError)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_errors_survive_pickling_with_their_notes(kind):
    error = kind([Problem("a.b", "wrong")]) if kind is ConfigError else kind("wrong")
    error.add_note("raised by plugin 'x' (dist 1.2) in objective")

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is kind
    assert str(copy) == str(error)
    assert copy.__notes__ == error.__notes__
    assert getattr(copy, "problems", None) == getattr(error, "problems", None)


@pytest.mark.parametrize(
    "kind", [kind for kind in CLASSES if kind is not OrchestratorError], ids=lambda kind: kind.__name__
)
def test_every_error_has_one_sentence_and_stands_in_the_tree(kind):
    assert kind.__name__ in (errors.__doc__ or "")
    assert (kind.__doc__ or "").count(".") == 1


def test_contexts_survive_pickling():
    assert pickle.loads(pickle.dumps(errors.ContextError("full", [3, 1]))).contexts == (3, 1)


def test_errors_refine_the_standard_types():
    assert issubclass(ConfigError, ValueError)
    assert issubclass(errors.PluginLoadError, ImportError)
    assert issubclass(errors.PluginContractError, TypeError)
    assert issubclass(errors.TrialError, RuntimeError)


def test_config_errors_list_every_problem_with_its_path():
    error = ConfigError([Problem("seeds", "twice"), "no path"])

    assert str(error) == "seeds: twice\nno path"


def test_blame_adds_the_plugin_once_and_lets_the_error_through():
    once, twice = (blame("'x' (dist 1.2)", where="objective") for _ in range(2))

    with pytest.raises(ZeroDivisionError) as caught, once, twice:
        1 / 0  # noqa: B018

    assert caught.value.__notes__ == ["raised by plugin 'x' (dist 1.2) in objective"]


def test_blame_leaves_interrupts_alone():
    with pytest.raises(KeyboardInterrupt) as caught, blame("'x'", where="objective"):
        raise KeyboardInterrupt

    assert not hasattr(caught.value, "__notes__")


def test_did_you_mean_suggests_only_what_is_near():
    assert did_you_mean("gropo", ["grpo", "ppo"]) == "; did you mean 'grpo'?"
    assert did_you_mean("xyz", ["grpo", "ppo"]) == "."
