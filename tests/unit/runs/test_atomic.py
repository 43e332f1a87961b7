"""Files and folders are there whole or not at all."""

import pytest

from orchestrator.runs import atomic
from orchestrator.runs.atomic import folder_aside, left_aside, remove, write_json, write_text, written_aside


def test_a_file_takes_the_place_of_the_one_before(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"x": 1})
    write_text(path, "two")

    assert path.read_text() == "two"
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "one")

    with pytest.raises(RuntimeError), written_aside(path) as file:  # noqa: PT012
        file.write(b"two")
        raise RuntimeError
    with pytest.raises(TypeError):
        write_json(path, object())

    assert path.read_text() == "one"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_takes_the_place_of_the_one_before(tmp_path):
    for text in ("one", "two"):
        with folder_aside(tmp_path / "made") as aside:
            (aside / f"{text}.txt").write_text(text)

    assert [path.name for path in (tmp_path / "made").iterdir()] == ["two.txt"]
    assert left_aside(tmp_path) == []


def test_an_error_leaves_the_folder_that_was_there(tmp_path):
    with folder_aside(tmp_path / "made") as aside:
        (aside / "one.txt").write_text("one")

    with pytest.raises(RuntimeError), folder_aside(tmp_path / "made") as aside:  # noqa: PT012
        (aside / "two.txt").write_text("two")
        raise RuntimeError

    assert [path.name for path in (tmp_path / "made").iterdir()] == ["one.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_what_a_killed_process_left_is_found(tmp_path):
    (tmp_path / ".step-000001.77").mkdir()
    (tmp_path / "step-000002").mkdir()

    assert [path.name for path in left_aside(tmp_path)] == [".step-000001.77"]


def test_a_kill_while_a_folder_is_removed_leaves_no_half_of_it_under_its_name(tmp_path, monkeypatch):
    folder = tmp_path / "step-000004"
    folder.mkdir()
    (folder / "model").write_text("weights")

    def killed(path, ignore_errors):
        if path.exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(atomic.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove(folder)

    assert not folder.exists()
    (left,) = left_aside(tmp_path)
    assert (left / "model").read_text() == "weights"
