"""The sqlite store of runs without a server: there whole or not at all, made by one process at a time.

MLflow creates its tables in place and migrates them one by one; whoever is killed meanwhile, or opens the file beside
it, leaves or finds half a store that no MLflow opens again. So a store is made, or brought up to date, in a file beside
it that takes its place when it is complete, while a lock keeps others from doing the same.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

from orchestrator.api import OrchestratorError

logger = logging.getLogger("orchestrator_plugins.mlflow")

NAME = "mlflow.db"  # of the store in the folder that holds the runs
ARTIFACTS = "mlflow-artifacts"  # beside it
_SQLITE = "sqlite:///"
_HEADER = b"SQLite format 3\0"
_SIDE_FILES = ("-journal", "-wal", "-shm")  # sqlite would replay one of another file into the store
_QUIET = 5.0  # seconds nothing was written to half a store, before its maker counts as gone
_CONTENT = ("runs", "registered_models", "logged_models", "trace_info")  # tables of what users would miss


class State(StrEnum):
    """How a store stands."""

    MISSING = "missing"
    WHOLE = "whole"
    HALF_MADE = "half-made"  # without content: its maker was killed, or two made it at once
    OLDER = "older"
    NEWER = "newer"
    DAMAGED = "damaged"


def file_of(uri: str) -> Path | None:
    """The file of a sqlite store, absolute; None for servers, other databases and addresses with options."""
    if not uri.startswith(_SQLITE) or "?" in uri or uri in (_SQLITE, f"{_SQLITE}:memory:"):
        return None
    return Path(uri.removeprefix(_SQLITE)).absolute()


def uri_of(path: Path) -> str:
    """The address of a store's file; relative in its own folder, where no character of the folder's path matters."""
    return f"{_SQLITE}{path.name if Path.cwd() == path.parent else path}"


def holds(path: Path, run: str) -> bool:
    """Whether a store has a run, by MLflow's id. Looks without changing anything."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return database.execute("SELECT 1 FROM runs WHERE run_uuid = ?", (run,)).fetchone() is not None
    except sqlite3.Error:
        return False


def prepare(path: Path, *, ours: bool, say: Callable[[str], None] = logger.warning) -> None:
    """Leave a complete store of this MLflow's version at ``path``, made if need be.

    Half a store without content is moved aside and said, in the user's own store too. What is damaged, or of an
    older version, is moved aside or brought up to date where the store is ours, and left alone where it is not.

    :param ours: the store in the folder that holds the runs, not one that ``tracking.uri`` names
    :param say: takes what a user should know
    :raises OrchestratorError: the store cannot be used as it is
    """
    if look(path) is State.WHOLE:
        return
    with _sole_maker(path):
        for left in path.parent.glob(f".{path.name}.*.aside*"):
            left.unlink(missing_ok=True)
        state = look(path)
        if state is State.HALF_MADE:  # another program's perhaps, which knows no lock of ours
            while (quiet := time.time() - path.stat().st_mtime) < _QUIET:
                time.sleep(_QUIET - max(0.0, quiet))
            state = look(path)
        if state is State.HALF_MADE or (state is State.DAMAGED and ours):
            say(f"{path} was {state}; it is now {_move_aside(path, state)}, and a new one was made in its place")
        elif state is State.DAMAGED:
            raise OrchestratorError(f"{path} is no MLflow store, or a damaged one; name another in tracking.uri")
        elif state is State.NEWER:
            raise OrchestratorError(
                f"{path} was made by a newer MLflow; install that version, or name another store in tracking.uri"
            )
        elif state is State.OLDER and not ours:
            raise OrchestratorError(
                f"{path} was made by an older MLflow; make a copy of it, then: mlflow db upgrade {uri_of(path)}"
            )
        if state is State.OLDER:
            kept = _upgrade(path)
            say(f"{path} was brought up to the installed MLflow; what it was is kept as {kept}")
        elif state is not State.WHOLE:
            _make(path)


def look(path: Path) -> State:
    """Find out how a store stands."""
    import sqlalchemy
    from mlflow.store.db import utils

    try:
        if path.stat().st_size == 0:
            return State.MISSING
    except FileNotFoundError:
        return State.MISSING
    if _cut_off(path):
        return State.DAMAGED
    engine = _engine(path)
    try:
        revision = utils._get_schema_version(engine)
        tables = utils._all_tables_exist(engine)
        if tables and revision == utils._get_latest_schema_revision():
            return State.WHOLE
        if _has_content(engine):
            return State.OLDER if revision is None or _known(revision) else State.NEWER
        return State.HALF_MADE if _is_mlflows(engine) else State.DAMAGED
    except sqlalchemy.exc.OperationalError:
        raise  # locked, or the disk fails: nothing that a new store would cure
    except sqlalchemy.exc.DatabaseError:
        return State.DAMAGED
    finally:
        engine.dispose()


def _engine(path: Path) -> Any:
    import sqlalchemy

    address = sqlalchemy.URL.create("sqlite", database=str(path))
    return sqlalchemy.create_engine(address, poolclass=sqlalchemy.pool.NullPool, connect_args={"timeout": 20})


def _cut_off(path: Path) -> bool:
    """Whether a file is no sqlite database, or shorter than its header says."""
    with path.open("rb") as file:
        header = file.read(100)
        size = file.seek(0, os.SEEK_END)
    if len(header) < 100 or not header.startswith(_HEADER):
        return True
    page = int.from_bytes(header[16:18], "big")
    pages = int.from_bytes(header[28:32], "big")
    return size < pages * (65536 if page == 1 else page)


def _has_content(engine: Any) -> bool:
    import sqlalchemy

    tables = set(sqlalchemy.inspect(engine).get_table_names())
    with engine.connect() as connection:
        queries = (sqlalchemy.text(f"SELECT 1 FROM {table} LIMIT 1") for table in _CONTENT if table in tables)
        return any(connection.execute(query).first() is not None for query in queries)


def _is_mlflows(engine: Any) -> bool:
    """Whether the tables that are there are those a store begins with: the file of another program is not ours to move."""
    import sqlalchemy

    tables = {table for table in sqlalchemy.inspect(engine).get_table_names() if not table.startswith("_alembic")}
    return not tables or bool(tables & {"alembic_version", "experiments", "runs"})


def _known(revision: str) -> bool:
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from mlflow.store.db import utils

    try:
        return ScriptDirectory.from_config(utils._get_alembic_config("")).get_revision(revision) is not None
    except CommandError:
        return False


def _make(path: Path) -> None:
    """Make an empty store aside and put it in place."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    aside = _aside(path)
    made = SqlAlchemyStore(uri_of(aside), (path.parent / ARTIFACTS).as_uri())
    made.engine.dispose()
    _put(aside, path)


def _upgrade(path: Path) -> Path:
    """Bring a copy up to date and put it in place of the store, which is kept under another name and returned."""
    from mlflow.store.db import utils

    aside = _aside(path)
    with closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as old:
        old.execute("BEGIN IMMEDIATE")  # nobody writes to what is about to be replaced
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(aside)) as target:
            source.backup(target)
        engine = _engine(aside)
        before = utils._get_schema_version(engine)
        utils._upgrade_db(engine)
        engine.dispose()
        if look(aside) is not State.WHOLE:
            raise OrchestratorError(f"{path} could not be brought up to the installed MLflow; move it away")
        kept = path.with_name(f"{path.name}.of-{before}-{time.strftime('%Y%m%d-%H%M%S')}")
        shutil.copy2(path, kept)
        _put(aside, path)
    return kept


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.aside")


def _put(aside: Path, path: Path) -> None:
    with aside.open("rb") as file:
        os.fsync(file.fileno())
    for suffix in _SIDE_FILES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    aside.replace(path)


def _move_aside(path: Path, state: State) -> Path:
    """Rename a store, with the files sqlite keeps beside it."""
    kept = path.with_name(f"{path.name}.{state}-{time.strftime('%Y%m%d-%H%M%S')}")
    for suffix in _SIDE_FILES:
        side = path.with_name(path.name + suffix)
        if side.exists():
            side.replace(kept.with_name(kept.name + suffix))
    return path.replace(kept)


@contextmanager
def _sole_maker(path: Path) -> Iterator[None]:
    """Hold the lock beside a store; the kernel frees it when the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
