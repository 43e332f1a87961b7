"""Experiment files become plain data; what cannot be read is reported with its place."""

import pytest

from orchestrator.errors import ConfigError
from orchestrator.experiment.files import load_experiment, parse_experiment


def problems(text, overrides=()):
    with pytest.raises(ConfigError) as caught:
        parse_experiment(text, overrides)
    return [str(problem) for problem in caught.value.problems]


def test_numbers_keep_their_type_and_yaml_exponents_are_floats():
    raw = parse_experiment("name: x\noptimizer: {lr: 1e-5}\nbudget: {generated_tokens: 2_000_000}")

    assert raw.file["optimizer"]["lr"] == 1e-5
    assert raw.file["budget"]["generated_tokens"] == 2_000_000


def test_settings_of_the_command_line_are_nested_and_read_as_yaml():
    raw = parse_experiment("name: x", ["evaluation.k=[1, 4]", "arms.dars+rover.sampler.use=dars", "advantage=null"])

    assert raw.overrides == {
        "evaluation": {"k": [1, 4]},
        "arms": {"dars+rover": {"sampler": {"use": "dars"}}},
        "advantage": None,
    }


def test_plain_data_comes_out():
    raw = parse_experiment("a: {b: [1, {c: 2}]}")

    assert type(raw.file) is dict
    assert type(raw.file["a"]) is dict
    assert type(raw.file["a"]["b"]) is list


def test_bad_yaml_names_file_and_line(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("name: x\nschedule: [1\nseeds: 2\n")

    with pytest.raises(ConfigError) as caught:
        load_experiment(path)

    assert caught.value.problems[0].path.startswith(f"{path}:3:")


def test_a_key_written_twice_is_refused():
    assert "duplicate key seeds" in problems("seeds: 1\nseeds: 2")[0]


def test_yaml_that_asks_for_code_is_refused():
    (problem,) = problems("name: !!python/object/apply:os.system ['true']")

    assert "could not determine a constructor" in problem


def test_a_missing_file_is_named_with_its_neighbour(tmp_path):
    (tmp_path / "quickstart.yaml").write_text("name: x")

    with pytest.raises(ConfigError, match=r"no such file; did you mean '.*quickstart\.yaml'"):
        load_experiment(tmp_path / "quikstart.yaml")


@pytest.mark.parametrize("text", ["", "- 1\n- 2", "word"])
def test_what_is_no_mapping_of_values_is_no_experiment(text):
    if text:
        assert "expected a mapping" in problems(text)[0]
    else:
        assert parse_experiment(text).file == {}


def test_settings_without_an_equals_sign_are_all_reported():
    found = problems("name: x", ["steps", "=3", "a..b=1"])

    assert found == [f"{one}: expected key=value, as in schedule.steps=10" for one in ("steps", "=3", "a..b=1")]
