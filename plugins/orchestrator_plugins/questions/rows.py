"""Rows of a table, each with its place, from JSONL, CSV and Parquet files and Hugging Face datasets."""

from __future__ import annotations

import csv
import datetime
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

LINE = '{"prompt": "How much is 2 + 3?", "answer": "5"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row as it was read.

    :ivar place: where it stands, as in ``train.jsonl:12`` (a line) or ``train.parquet row 12``
    :ivar number: that line or row, 1-based
    :ivar values: plain JSON by column; what JSON has no word for stays as it was read
    :ivar alone: its columns are its own, not the table's
    """

    place: str
    number: int
    values: Mapping[str, Any]
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Bad:
    """What is wrong at a place."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


def read_rows(path: str, subset: str | None, split: str) -> Iterator[Row | Bad]:
    """Read every row of a file or dataset; one that cannot be read is said in its place.

    :param split: of a dataset: which one
    :raises ValueError: it is none of those, or cannot be read at all
    """
    file = Path(path).expanduser()
    reader = _READERS.get(file.suffix.lower())
    if file.is_file():
        if reader is None:
            raise ValueError(
                f"{file}: a file of kind {file.suffix or 'unknown'}; expected one of {', '.join(_READERS)}"
            )
        if subset is not None:
            raise ValueError(f"subset names a part of a dataset on the hub, and {file} is a file; leave it out")
        yield from _opened(file, reader)
    elif file.is_dir():
        yield from _dataset(path, subset, split, file)
    elif reader is not None or path.startswith(("/", "~", ".")) or path.count("/") > 1:
        raise ValueError(f"{file}: no such file; a path begins where the command runs, {Path.cwd()}")
    else:
        yield from _dataset(path, subset, split, None)


def _opened(file: Path, reader: Callable[[Path], Iterator[Row | Bad]]) -> Iterator[Row | Bad]:
    try:
        yield from reader(file)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: {error}; expected text in UTF-8") from error
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror or error}") from error


def _jsonl(file: Path) -> Iterator[Row | Bad]:
    with file.open(encoding="utf-8-sig") as lines:  # some editors begin files with a mark
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            place = f"{file}:{number}"
            try:
                values = json.loads(line, parse_constant=_no_number)
            except (ValueError, RecursionError) as error:
                yield Bad(place, f"is no JSON: {error}; expected a line such as {LINE}")
                continue
            if not isinstance(values, dict):
                yield Bad(place, f"holds a {type(values).__name__}; expected an object such as {LINE}")
                continue
            yield Row(place=place, number=number, values=values, alone=True)


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is not a number of JSON")


def _csv(file: Path, delimiter: str = ",") -> Iterator[Row | Bad]:
    csv.field_size_limit(2**31 - 1)
    with file.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        header: list[str] = []
        begins = 1
        try:
            for cells in reader:
                place, number, begins = f"{file}:{begins}", begins, reader.line_num + 1
                if not cells:
                    continue
                if not header:
                    header = [cell.strip() for cell in cells]
                    twice = sorted({name for name in header if header.count(name) > 1})
                    if twice:
                        raise ValueError(
                            f"{place}: the columns {', '.join(twice)} stand there twice; rename one of each"
                        )
                    continue
                if len(cells) != len(header):
                    yield Bad(
                        place, f"has {len(cells)} cells, and the header {len(header)}; quote cells with {delimiter!r}"
                    )
                    continue
                yield Row(place=place, number=number, values=dict(zip(header, cells, strict=True)))
        except csv.Error as error:
            yield Bad(f"{file}:{begins}", f"is no CSV: {error}; a quote inside a quoted cell is doubled")


def _tsv(file: Path) -> Iterator[Row | Bad]:
    yield from _csv(file, "\t")


def _parquet(file: Path) -> Iterator[Row | Bad]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise ValueError(f"{file}: reading Parquet needs pyarrow; pip install 'rl-orchestrator[questions]'") from None
    try:
        with parquet.ParquetFile(file) as opened:
            number = 0
            for batch in opened.iter_batches():
                for values in batch.to_pylist():
                    number += 1
                    yield Row(place=f"{file} row {number}", number=number, values=_plain(values))
    except pyarrow.ArrowException as error:
        raise ValueError(f"{file}: is no readable Parquet: {error}") from error


def _dataset(path: str, subset: str | None, split: str, folder: Path | None) -> Iterator[Row | Bad]:
    try:
        import datasets
    except ModuleNotFoundError:
        raise ValueError(
            f"{path}: a Hugging Face dataset needs the package datasets; pip install 'rl-orchestrator[questions]'"
        ) from None
    try:
        if folder is not None and any((folder / mark).is_file() for mark in ("dataset_dict.json", "state.json")):
            loaded: Any = datasets.load_from_disk(str(folder))
        else:
            loaded = datasets.load_dataset(path, subset)
    except Exception as error:  # the package raises of every kind: network, names, formats
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(f"{path}: cannot be loaded as a dataset: {type(error).__name__}: {reason}") from error
    if isinstance(loaded, Mapping):  # splits by name
        if split not in loaded:
            have = ", ".join(map(str, loaded))
            raise ValueError(f"{path}: no split {split!r}; it has: {have}. Name them: split: {{train: ..., eval: ...}}")
        loaded = loaded[split]
    for number, values in enumerate(loaded, start=1):
        yield Row(place=f"{path} [{split}] row {number}", number=number, values=_plain(values))


def _plain(value: Any) -> Any:
    """A value as JSON has it, as far as it can be said: dates as ISO 8601, missing numbers as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if hasattr(value, "tolist"):  # of numpy
        return _plain(value.tolist())
    return value


_READERS: dict[str, Callable[[Path], Iterator[Row | Bad]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
