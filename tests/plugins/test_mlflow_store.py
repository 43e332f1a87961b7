"""The sqlite store without a server: whole or not there, whoever is killed and however many begin at once."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
from orchestrator_plugins.mlflow import companion, settings, store
from orchestrator_plugins.mlflow.store import State, look, prepare

from orchestrator.errors import OrchestratorError
from orchestrator.testing import make_plan

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A whole store, made once by the function under test."""
    path = tmp_path_factory.mktemp("made") / "mlflow.db"
    prepare(path, ours=True)
    return path


@pytest.fixture
def path(tmp_path, made):
    shutil.copy(made, tmp_path / "mlflow.db")
    return tmp_path / "mlflow.db"


def _change(path, *statements, old=True):
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()
    if old:
        os.utime(path, (time.time() - 60, time.time() - 60))


def _halve(path):
    """What a maker leaves that is killed in the middle: some tables, at the revision of one of the migrations."""
    _change(
        path,
        "DROP TABLE trace_info",
        "DROP TABLE logged_models",
        "UPDATE alembic_version SET version_num='451aebb31d03'",
    )


def _with_a_run(path):
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{path}")
    run = client.create_run(client.create_experiment("mine")).info.run_id
    client.log_metric(run, "m", 1.5)
    return run


def test_a_store_is_made_whole_and_nothing_else_is_left(made):
    assert look(made) is State.WHOLE
    assert sorted(found.name for found in made.parent.iterdir()) == ["mlflow.db", "mlflow.db.lock"]
    assert mlflow.MlflowClient(tracking_uri=f"sqlite:///{made}").get_experiment("0").name == "Default"


def test_half_a_store_of_an_earlier_version_is_moved_aside_and_said(path):
    _halve(path)
    path.with_name("mlflow.db-journal").write_bytes(b"of the half-made store")
    said = []

    assert look(path) is State.HALF_MADE
    prepare(path, ours=True, say=said.append)

    assert look(path) is State.WHOLE
    (kept,) = path.parent.glob("mlflow.db.half-made-*[0-9]")
    assert said == [f"{path} was half-made; it is now {kept}, and a new one was made in its place"]
    assert not path.with_name("mlflow.db-journal").exists()


def _older(path):
    from alembic import command
    from mlflow.store.db import utils

    engine = store._engine(path)
    config = utils._get_alembic_config(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "-1")
    engine.dispose()


def test_a_store_of_an_older_mlflow_is_brought_up_to_date_and_kept_as_it_was(path):
    run = _with_a_run(path)
    _older(path)
    said = []

    assert look(path) is State.OLDER
    with pytest.raises(OrchestratorError, match="mlflow db upgrade"):
        prepare(path, ours=False)
    prepare(path, ours=True, say=said.append)

    assert look(path) is State.WHOLE
    assert store.holds(path, run)
    (kept,) = path.parent.glob("mlflow.db.of-*")
    assert store.holds(kept, run)
    assert str(kept) in said[0]


def test_a_store_of_a_newer_mlflow_is_refused(path):
    _with_a_run(path)
    _change(path, "UPDATE alembic_version SET version_num='ffffffffffff'")

    with pytest.raises(OrchestratorError, match="made by a newer MLflow"):
        prepare(path, ours=True)


@pytest.mark.parametrize("damage", ["cut", "text", "beginning", "tables of another program"])
def test_what_is_no_store_is_not_touched_where_the_user_named_it(path, damage):
    content = path.read_bytes()
    if damage == "tables of another program":
        path.unlink()
        _change(path, "CREATE TABLE letters (text)")
    else:
        damaged = {
            "cut": content[: len(content) // 2],
            "text": b"notes of mine\n" * 9,
            "beginning": bytes(200) + content[200:],
        }
        path.write_bytes(damaged[damage])
    before = path.read_bytes()

    assert look(path) is State.DAMAGED
    with pytest.raises(OrchestratorError, match="no MLflow store, or a damaged one"):
        prepare(path, ours=False)

    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:////x/y.db", "/x/y.db"),
        ("http://h:5000", None),
        ("postgresql://u@h/d", None),
        ("sqlite:///file:x?uri=true", None),
        ("sqlite:///:memory:", None),
    ],
)
def test_the_file_of_a_store_is_read_from_its_address(uri, expected):
    found = store.file_of(uri)

    assert (None if found is None else str(found)) == expected


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:"])
def test_a_store_that_keeps_nothing_is_a_problem_of_the_plan(uri):
    (problem,) = settings.problems(make_plan(tracking={"uri": uri}))

    assert "keeps nothing" in problem.message


@pytest.mark.slow
def test_a_killed_maker_and_three_runs_begun_at_once_leave_one_store_with_all_of_them(tmp_path):
    folder = tmp_path / "it's #1, 50% ?"
    plan = make_plan(name="demo")
    runs = [folder / f"demo-{index}" for index in range(3)]
    code = f"from pathlib import Path; from orchestrator_plugins.mlflow.store import prepare; prepare(Path({str(tmp_path / 'mlflow.db')!r}), ours=True)"
    maker = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    while not any(found.stat().st_size > 20_000 for found in tmp_path.glob(".mlflow.db.*.aside")):
        assert maker.poll() is None
        time.sleep(0.01)
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    assert not (tmp_path / "mlflow.db").exists()
    folder.mkdir()
    for left in tmp_path.glob(".mlflow.db.*"):
        left.rename(folder / left.name)

    for run in runs:
        run.mkdir()
        (run / "plan.json").write_text("{}")
        companion.start(plan, run)
    for run in runs:
        companion.finish(run)

    shutil.copy(folder / "mlflow.db", tmp_path / "mlflow.db")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("demo").experiment_id])
    assert {(run.info.run_name, run.info.status) for run in found} == {(run.name, "FINISHED") for run in runs}
    assert len(found) == 3
    assert not list(folder.glob(".mlflow.db.*"))
    assert not list(folder.glob("mlflow.db.half-made*"))
