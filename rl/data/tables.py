"""Rows written to files that other projects read, JSON lines and Parquet, without changing a value.

``Dataset.from_list`` gives every call the arguments of all others, as nulls. JSON lines are read without that by
``datasets.load_dataset("json")``, and Parquet by way of the ``Json`` feature: what differs from row to row is a column
of JSON texts, which ``datasets`` turns into objects and pandas shows as they are.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from datasets import Features, Json, List

from executors.errors import ConfigError, DataError

_BATCH = 512
"""Rows of one Parquet row group."""


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], features: Features) -> None:
    """Write rows to a file that is either all of them or is not there.

    Args:
        path: ends in ``.parquet``, or in ``.jsonl`` or ``.json`` for JSON lines.
        rows: the rows.
        features: the columns of a Parquet file and their types.

    Raises:
        ConfigError: the file's name says no kind of file, or it cannot be written.
        DataError: a row holds what JSON cannot say, such as a reward that is no number.
    """
    write = {".parquet": _write_parquet, ".jsonl": _write_lines, ".json": _write_lines}.get(path.suffix)
    if write is None:
        raise ConfigError(f"{path} ends in {path.suffix or 'nothing'!r}; name a file that ends in .jsonl or .parquet")
    _replace(path, lambda fresh: write(fresh, rows, features))


def write_text(path: Path, text: str) -> None:
    """Write a text to a file that is either all of it or is not there.

    Raises:
        ConfigError: it cannot be written.
    """
    _replace(path, lambda fresh: fresh.write_text(text, encoding="utf-8"))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Let something write a file beside the one that is meant, then put it in its place."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(fresh)
            os.replace(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
    except UnicodeEncodeError as error:
        raise DataError(f"{path} cannot hold half of a surrogate pair: {error}") from error
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error


def written(value: Any) -> str:
    """A value as JSON.

    Raises:
        DataError: JSON cannot say it.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, TypeError) as error:
        raise DataError(f"this cannot be written as JSON ({error}): {str(value)[:200]}") from error
    return text


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]], features: Features) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(written(row) + "\n")


def _write_parquet(path: Path, rows: Iterable[Mapping[str, Any]], features: Features) -> None:
    schema = features.arrow_schema
    rows = iter(rows)
    with pyarrow.parquet.ParquetWriter(path, schema) as file:
        while batch := list(islice(rows, _BATCH)):
            columns = [
                _column([row[name] for row in batch], features[name], schema.field(name).type) for name in features
            ]
            file.write_table(pyarrow.Table.from_arrays(columns, schema=schema))


def _column(values: list[Any], feature: Any, type: pyarrow.DataType) -> pyarrow.Array:
    """A column; JSON is written here, since the writer of ``datasets`` rounds numbers to ten digits."""
    if isinstance(feature, Json):
        return pyarrow.array([written(value) for value in values], type=type)
    if isinstance(feature, List) and isinstance(feature.feature, Json):
        assert isinstance(type, pyarrow.ListType)
        items = pyarrow.array([written(item) for value in values for item in value], type=type.value_type)
        ends = [0]
        for value in values:
            ends.append(ends[-1] + len(value))
        return pyarrow.ListArray.from_arrays(pyarrow.array(ends, pyarrow.int32()), items, type=type)
    return pyarrow.array(values, type=type)
