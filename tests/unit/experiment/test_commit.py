"""The commit is read from the repository's files; nothing that its config names is run."""

import subprocess
from pathlib import Path

import pytest

from orchestrator.experiment.commit import commit_of


def git(folder, *arguments):
    identity = [
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        "-c",
        "commit.gpgsign=false",
        "-c",
        "protocol.file.allow=always",
    ]
    done = subprocess.run(["git", *identity, "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "deep").mkdir()
    (folder / "deep" / "x.yaml").write_text("name: x\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    return folder


def test_the_commit_of_a_branch_is_found_from_below(repository):
    assert commit_of(repository / "deep") == git(repository, "rev-parse", "HEAD")


def test_packed_refs_detached_heads_and_branches_with_slashes_are_read(repository):
    git(repository, "checkout", "-qb", "a/b")
    git(repository, "commit", "-qm", "two", "--allow-empty")
    head = git(repository, "rev-parse", "HEAD")
    git(repository, "pack-refs", "--all")
    assert not (repository / ".git" / "refs" / "heads" / "a" / "b").exists()
    assert commit_of(repository) == head

    git(repository, "checkout", "-q", "--detach", "main")
    assert commit_of(repository) == git(repository, "rev-parse", "main")


def test_worktrees_and_submodules_are_followed(repository, tmp_path):
    git(repository, "worktree", "add", "-q", "-b", "other", str(tmp_path / "tree"))
    git(tmp_path / "tree", "commit", "-qm", "three", "--allow-empty")
    assert commit_of(tmp_path / "tree") == git(tmp_path / "tree", "rev-parse", "HEAD") != commit_of(repository)

    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q")
    git(outer, "submodule", "add", "-q", str(repository), "inner")
    assert commit_of(outer / "inner") == git(repository, "rev-parse", "HEAD")


def test_a_config_that_names_programs_runs_none(repository, tmp_path):
    """What ``git describe --dirty`` would run."""
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\ncat\n")
    program.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(program))
    git(repository, "config", "filter.evil.clean", str(program))
    (repository / ".gitattributes").write_text("* filter=evil\n")
    (repository / "deep" / "x.yaml").write_text("name: y\n")

    assert commit_of(repository) is not None
    assert not (tmp_path / "ran").exists()

    git(repository, "describe", "--always", "--dirty")  # the trap works
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "head", ["", "ref: refs/heads/none", "ref: ../../secret", "ref: refs/../../secret", "x" * 40, "\0"]
)
def test_a_head_that_leads_nowhere_is_not_recorded(tmp_path, head):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text(head)

    assert commit_of(tmp_path) is None


def test_a_file_of_that_name_that_is_none_of_gits_is_passed_over(tmp_path):
    (tmp_path / ".git").write_text("hello")

    assert commit_of(tmp_path) is None
    assert commit_of(Path("/")) is None
