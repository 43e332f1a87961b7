"""Experiment files are YAML 1.2: what is typed is what is read, and what would grow or nest without bounds is refused."""

import math
import time

import pytest

from orchestrator.contract.strict import as_written
from orchestrator.experiment.yaml12 import YamlError, read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            (word, word)
            for word in ("no", "yes", "on", "off", "n", "Y", "1:30", "2001-01-01", "1__0", "0o9", "1e", "nUll")
        ),
        *((word, True) for word in ("true", "True", "TRUE")),
        *((word, None) for word in ("", "~", "null", "NULL")),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("2_000_000", 2_000_000),
        ("1e-4", 1e-4),
        ("1.", 1.0),
        ("-.5", -0.5),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("!!float 1", 1.0),
        ("[1, {a: b}]", [1, {"a": "b"}]),
    ],
)
def test_words_mean_what_the_core_schema_says(text, value):
    found = read(text)

    assert found == value
    assert isinstance(found, type(value))


def test_numbers_that_are_not_finite_are_floats():
    assert read("[.inf, -.Inf]") == [math.inf, -math.inf]
    assert math.isnan(read(".NaN"))


def test_keys_stay_text_as_typed():
    text = "{no: 1, 1e-4: 2, 0.0001: 3, null: 4, 010: 5, true: 6, 1:30: 7}"

    assert read(text) == {"no": 1, "1e-4": 2, "0.0001": 3, "null": 4, "010": 5, "true": 6, "1:30": 7}


def test_numbers_remember_how_they_were_typed():
    assert [as_written(number) for number in read("[010, 1e3, 2024_01, 7, 0.5]")] == [
        "010",
        "1e3",
        "2024_01",
        "7",
        "0.5",
    ]


def test_aliases_and_merge_keys_are_spelt_out():
    assert read("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\ne: [*x]") == {
        "a": {"b": 1, "c": 2},
        "d": {"b": 1, "c": 3},
        "e": [{"b": 1, "c": 2}],
    }


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: 1\na: 2", 2, "duplicate key a"),
        ("no: 1\n'no': 2", 2, "duplicate key no"),
        ("a: 1\nb: [1", 2, "expected ',' or ']'"),
        ("\n? [1]\n: 2", 2, "a key that is no text"),
        ("a: &x [*x]", 1, "refers to nothing"),
        ("a: !!binary x", 1, "could not determine a constructor"),
        ("a: !!python/name:os.system x", 1, "could not determine a constructor"),
        ("a: !!int x", 1, "'x' is no int"),
        ("--- 1\n--- 2", 2, "a second document"),
        ("<<: 1", 1, "<< takes a mapping"),
        ("a: " + "9" * 5000, 1, "a whole number of 5000 digits"),
        ("[" * 500 + "]" * 500, 1, "nested deeper"),
        ("\n" + "{a: " * 5000, 2, "nested deeper"),
        ("x: " + "a" * 300_000, 0, "characters"),
        ("\0", 0, "special characters"),
        ('a: 1\nb: "\\udc80"', 2, "surrogate"),
        ('a: "\\0"', 1, "NUL"),
    ],
)
def test_what_is_no_experiment_is_refused_at_its_line(text, line, says):
    with pytest.raises(YamlError, match=r".") as caught:
        read(text)

    assert says in str(caught.value)
    assert caught.value.line == line


def test_aliases_that_multiply_are_refused_at_once():
    lines = ["a: &a [" + ",".join("1" * 10) + "]"]
    lines += [f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True)]
    began = time.process_time()

    with pytest.raises(YamlError, match="more than 50000 values"):
        read("\n".join(lines))

    assert time.process_time() - began < 1
