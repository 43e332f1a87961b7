"""Errors name their owner, survive the trip between processes, read as one text, and suggest what was meant."""

import json
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from orchestrator import errors
from orchestrator.errors import (
    ConfigError,
    ContextError,
    Failure,
    OrchestratorError,
    Problem,
    accuse,
    blame,
    blamed,
    caused_by,
    describe,
    did_you_mean,
)

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, OrchestratorError)]
MINE = "'mine' (dist 1.2) in sampler 'mine'"


class Options(BaseModel):
    scale: int = Field(1, gt=0)
    share: float = 0.0


class Dotted(Exception):
    """A stranger's, with a reduction of its own that keeps what it carries."""

    def __init__(self, left, right):
        self.left, self.right = left, right
        super().__init__(f"{left}.{right}")

    def __reduce__(self):
        return Dotted, (self.left, self.right), self.__dict__


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("I say nothing")


def invalid():
    Options(scale=-1, share="much")


def chained():
    try:
        raise KeyError("the cause")
    except KeyError as error:
        raise ValueError("what came of it\n  in detail") from error


def during():
    try:
        raise KeyError("the first")
    except KeyError:
        raise TypeError("while handling it")  # noqa: B904


def noted():
    error = ValueError("bad")
    error.add_note("in the second file")
    raise error


def raising(error):
    def fails():
        raise error

    return fails


# What anybody may raise, and how it reads but for whom it is blamed on.
SAID = [
    (raising(ValueError("one line")), "ValueError: one line"),
    (raising(KeyError("oops")), "KeyError: 'oops'"),
    (raising(ValueError("several\n  indented\n    lines\nand an end")), "ValueError: several\n  indented\n    lines\nand an end"),
    (raising(ValueError()), "ValueError"),
    (raising(AssertionError("")), "AssertionError"),
    (raising(Mute()), "Mute: <exception str() failed>"),
    (raising(Dotted("a", "b")), "Dotted: a.b"),
    (raising(ContextError("full", [2])), "ContextError: full"),
    (raising(OSError(2, "No such file", "x")), "FileNotFoundError: [Errno 2] No such file: 'x'"),
    (raising(ValueError("half a \udcff name")), "ValueError: half a \\udcff name"),
    (chained, "ValueError: what came of it\n  in detail"),
    (during, "TypeError: while handling it"),
    (noted, "ValueError: bad\nin the second file"),
    (
        raising(ExceptionGroup("two ways", [ValueError("a"), ExceptionGroup("in one", [KeyError("b")])])),
        "ExceptionGroup: two ways (2 sub-exceptions)\n  ValueError: a\n  ExceptionGroup: in one (1 sub-exception)\n"
        "    KeyError: 'b'",
    ),
    (
        invalid,
        "ValidationError: 2 validation errors for Options\n"
        "scale\n  Input should be greater than 0 [type=greater_than, input_value=-1, input_type=int]\n"
        "share\n  Input should be a valid number, unable to parse string as a number [type=float_parsing, "
        "input_value='much', input_type=str]",
    ),
]  # fmt: skip
said = pytest.mark.parametrize(("fails", "text"), SAID, ids=[text.partition("\n")[0] for _, text in SAID])


def caught(fails, *boundaries):
    """What comes out of boundaries, the innermost first."""
    try:
        if not boundaries:
            fails()
        else:
            *inner, (plugin, where) = boundaries
            with blame(plugin, where=where):
                raise caught(fails, *inner)
    except Exception as error:
        return error


def by_mine(fails):
    return caught(fails, ("'mine' (dist 1.2)", "sampler 'mine'"))


# --- the tree -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [kind for kind in CLASSES if kind is not OrchestratorError], ids=lambda kind: kind.__name__
)
def test_every_error_has_one_sentence_and_stands_in_the_tree(kind):
    assert kind.__name__ in (errors.__doc__ or "")
    assert (kind.__doc__ or "").count(".") == 1


def test_errors_refine_the_standard_types():
    assert issubclass(ConfigError, ValueError)
    assert issubclass(errors.PluginLoadError, ImportError)
    assert issubclass(errors.PluginContractError, TypeError)
    assert issubclass(errors.TrialError, RuntimeError)


def test_config_errors_list_every_problem_with_its_path():
    error = ConfigError([Problem("seeds", "twice"), "no path"])

    assert str(error) == describe(error) == "seeds: twice\nno path"


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_of_our_own_reads_without_its_type_unless_a_plugin_raised_it(kind):
    error = kind("wrong") if kind is not ConfigError else kind(["wrong"])

    assert describe(error) == "wrong"
    assert describe(accuse(error, MINE)) == f"{kind.__name__}: wrong; raised by plugin {MINE}"


# --- blame ----------------------------------------------------------------------------------------------------


@said
def test_the_innermost_boundary_is_blamed_and_says_so_once(fails, text):
    error = caught(
        fails, ("'mine' (dist 1.2)", "sampler 'mine'"), ("'mine' (dist 1.2)", "hook 'run_trial'"), ("'x'", "y")
    )

    assert blamed(error) == MINE
    assert error.__notes__[-1] == f"raised by plugin {MINE}"
    assert "".join(error.__notes__).count("raised by plugin") == 1
    assert describe(error) == f"{text}; raised by plugin {MINE}"


ARGUMENTS = {ConfigError: ([Problem("a.b", "wrong")],), ContextError: ("wrong", [3, 1]), Dotted: ("a", "b")}


@pytest.mark.parametrize("kind", [*CLASSES, ValueError, KeyError, OSError, Dotted], ids=lambda kind: kind.__name__)
def test_errors_survive_pickling_with_their_blame(kind):
    error = kind(*ARGUMENTS.get(kind, ("wrong",)))
    error.add_note("of the second file")
    accuse(error, MINE)

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is kind
    assert str(copy) == str(error)
    assert getattr(copy, "problems", None) == getattr(error, "problems", None)
    assert getattr(copy, "contexts", None) == getattr(error, "contexts", None)
    assert copy.__notes__ == error.__notes__ == ["of the second file", f"raised by plugin {MINE}"]
    assert blamed(caught(raising(copy), ("'another'", "hook 'run_trial'"))) == MINE
    assert describe(copy) == describe(error)


def test_a_group_is_blamed_on_who_raised_its_parts():
    group = ExceptionGroup("parallel", [ValueError("a"), accuse(KeyError("b"), MINE)])

    assert blamed(caught(raising(group), ("'another'", "reward 'x'"))) == MINE


def test_a_note_of_the_same_words_blames_nobody():
    error = ValueError("bad")
    error.add_note("raised by plugin of my own")

    assert blamed(error) is None
    assert describe(error) == "ValueError: bad\nraised by plugin of my own"


def test_blame_leaves_interrupts_alone():
    with pytest.raises(KeyboardInterrupt) as raised, blame("'x'", where="objective"):
        raise KeyboardInterrupt

    assert not hasattr(raised.value, "__notes__")
    assert blamed(raised.value) is None


# --- failures as data -----------------------------------------------------------------------------------------


@said
def test_a_failure_says_what_the_exception_says(fails, text):
    error = by_mine(fails)

    failure = Failure.of(error)

    assert failure.reason == text
    assert failure.type == type(error).__name__
    assert failure.blamed == MINE
    assert "raised by plugin" not in failure.message
    assert str(failure) == describe(failure) == describe(error)
    assert f"raised by plugin {MINE}" in failure.traceback
    assert "errors.pydantic.dev" not in failure.traceback + str(failure)


@said
def test_a_failure_is_plain_json(fails, text):
    failure = Failure.of(caught(fails))

    written = json.dumps(failure.to_json(), ensure_ascii=False).encode()

    assert set(json.loads(written)) == {"type", "message", "blamed", "traceback"}
    assert Failure.from_json(json.loads(written)) == failure


def test_what_follows_from_a_failure_is_blamed_like_it_and_shows_both_tracebacks():
    first = Failure.of(by_mine(invalid))

    failure = Failure.of(caught(raising(caused_by(errors.RolloutError("all failed"), first))))

    assert (failure.type, failure.message, failure.blamed) == ("RolloutError", "all failed", MINE)
    assert failure.traceback.startswith(first.traceback)
    assert "RolloutError: all failed" in failure.traceback
    assert Failure.from_json(failure.traceback) == failure
    assert pickle.loads(pickle.dumps(caused_by(errors.RolloutError("all failed"), first)))._cause == first
    assert blamed(caused_by(ValueError("alone"), None)) is None


def test_what_was_not_raised_has_no_traceback():
    assert Failure.of(errors.TrialError("its worker died")).traceback is None


def test_help_addresses_go_from_tracebacks_of_groups_too():
    failure = Failure.of(caught(raising(ExceptionGroup("both", [caught(invalid), caught(chained)]))))

    assert "errors.pydantic.dev" not in failure.traceback + failure.message
    assert "Input should be greater than 0" in failure.message


# --- the texts of older versions ------------------------------------------------------------------------------


@said
def test_a_traceback_of_an_older_version_is_read(fails, text):
    error = by_mine(fails)
    error.add_note("raised by plugin 'mine' (dist 1.2) in hook 'run_trial'")  # it blamed every boundary
    written = "".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace").decode()

    failure = Failure.from_json(written)

    group = "\n  ValueError: a"  # a group's parts stand elsewhere in a traceback
    assert failure.reason == text.partition(group)[0] or failure.type == "ExceptionGroup"
    assert failure.type == type(error).__name__
    assert failure.blamed == MINE
    assert failure.traceback.startswith(written[:60])


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("no luck", Failure(type="", message="no luck")),
        ("its worker died: 3 times", Failure(type="", message="its worker died: 3 times")),
        ("KeyError: 'x'", Failure(type="KeyError", message="'x'")),
        ("ValueError", Failure(type="ValueError", message="")),
        (
            "KeyError: 'the game hung'; raised by plugin 'worlds' (stranger 1.2) in episode",
            Failure(type="KeyError", message="'the game hung'", blamed="'worlds' (stranger 1.2) in episode"),
        ),
        (
            "ValueError: a\n  b; raised by plugin 'x' (y 1) in act; raised by plugin 'z' (y 1) in sampler",
            Failure(type="ValueError", message="a\n  b", blamed="'x' (y 1) in act"),
        ),
    ],
)
def test_a_line_of_an_older_version_is_read(text, failure):
    assert Failure.from_json(text) == failure
    assert str(failure) == text.partition("; raised by plugin 'z'")[0]


def test_a_traceback_inside_a_message_is_part_of_it():
    inner = "".join(traceback.format_exception(caught(invalid)))
    outer = caught(raising(RuntimeError(f"the start phase failed:\n{inner}")))

    assert Failure.from_json("".join(traceback.format_exception(outer))).type == "RuntimeError"


JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["type", "message", "blamed", "traceback"]) | st.text(), inner))  # fmt: skip
LINES = ["Traceback (most recent call last):", "  + Exception Group Traceback (most recent call last):", "  +-+---", "  x", "", "E: m", "raised by plugin p", "; raised by plugin q"]  # fmt: skip


@given(JSON | st.lists(st.sampled_from(LINES) | st.text()).map("\n".join))
def test_whatever_stands_in_a_file_reads_as_a_failure_or_none(value):
    failure = Failure.from_json(value)

    assert (failure is None) == (value is None or value == "")
    assert failure is None or Failure.from_json(json.loads(json.dumps(failure.to_json()))) == failure
    assert isinstance(str(failure), str)


# --- suggestions ----------------------------------------------------------------------------------------------


def test_did_you_mean_suggests_only_what_is_near():
    assert did_you_mean("gropo", ["grpo", "ppo"]) == "; did you mean 'grpo'?"
    assert did_you_mean("xyz", ["grpo", "ppo"]) == "."
