"""Checksums notice every change and are read by the usual tool."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.runs import checksums


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.bin").write_bytes(bytes(range(256)))
    (tmp_path / "inner" / "b.txt").write_text("text")
    checksums.seal(tmp_path, [tmp_path / "a.bin", tmp_path / "inner" / "b.txt", tmp_path / "absent"])
    return tmp_path


def test_what_is_as_it_was_written_is_sound(folder):
    assert checksums.broken(folder) == []


@given(place=st.integers(0, 255), bit=st.integers(0, 7))
def test_every_flipped_bit_is_noticed(tmp_path_factory, place, bit):
    folder = tmp_path_factory.mktemp("flip")
    content = bytearray(range(256))
    (folder / "a.bin").write_bytes(content)
    checksums.seal(folder, [folder / "a.bin"])

    content[place] ^= 1 << bit
    (folder / "a.bin").write_bytes(content)

    assert checksums.broken(folder) == ["a.bin is not what was written: its checksum differs"]


def test_missing_files_and_damaged_lists_are_named(folder):
    (folder / "a.bin").unlink()
    assert checksums.broken(folder) == ["a.bin is missing"]
    (folder / checksums.NAME).write_text("0  ../../etc/passwd\nnonsense\n")
    assert all("no checksum" in line for line in checksums.broken(folder))
    (folder / checksums.NAME).write_bytes(b"\xff\xfe")
    assert "cannot be read" in checksums.broken(folder)[0]


def test_a_folder_that_was_never_sealed_is_not_judged(tmp_path):
    assert checksums.broken(tmp_path) == []


def test_unsealing_lets_files_change(folder):
    checksums.unseal(folder)
    (folder / "a.bin").write_bytes(b"")

    assert checksums.broken(folder) == []


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
def test_the_usual_tool_reads_the_list(folder):
    done = subprocess.run(["sha256sum", "-c", checksums.NAME], cwd=folder, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["a.bin: OK", "inner/b.txt: OK"]
