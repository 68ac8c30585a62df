"""Rows of other projects' files: JSON lines, a JSON list, Parquet; each with the place where it stands."""

import codecs
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow
import pyarrow.parquet

from executors.errors import DataError
from rl.data.tasks.benchmark import shown

Row: TypeAlias = dict[str, Any]

_BATCH = 512


@dataclass(frozen=True, slots=True)
class Place:
    """A row and where it stands."""

    path: Path
    number: int
    """Line of a file of lines, else the row's number, from 1."""
    row: Row

    def error(self, wrong: str) -> DataError:
        """What is wrong with the row, and where it is."""
        return DataError(f"{self.path}:{self.number}: {wrong}")


def read_rows(path: Path, rejected: list[str] | None = None) -> Iterator[Place]:
    """The rows of a file, by its content: JSON lines, one JSON list or object, or Parquet (``.parquet``).

    Args:
        path: of the file.
        rejected: where given, rows that are no JSON object are left out and named here.

    Raises:
        DataError: the file cannot be read, or a row is no JSON object; with its line.
    """
    try:
        if path.suffix == ".parquet":
            for number, row in enumerate(_parquet_rows(path), start=1):
                yield Place(path, number, row)
            return
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    for number, written in _pieces(path, content):
        try:
            row = _parsed(path, number, written)
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: a row is a JSON object, and this is a {type(row).__name__}")
        except DataError as error:
            if rejected is None:
                raise
            rejected.append(str(error))
            continue
        yield Place(path, number, row)


def usable(rejected: Sequence[str], total: int, path: Path, remedy: str) -> None:
    """See that no row had to be left out.

    Raises:
        DataError: some had to; the message has the first reasons.
    """
    if rejected:
        told = shown(rejected)
        raise DataError(f"{len(rejected)} of {total} rows of {path} cannot be used: {told}. Mend them, or {remedy}")


def _pieces(path: Path, content: bytes) -> Iterator[tuple[int, Any]]:
    """Lines and their numbers, not yet read; of a JSON list, its rows and theirs."""
    if content.lstrip()[:1] == b"[":
        yield from enumerate(_parsed(path, 1, content), start=1)
        return
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            yield number, line


def _parsed(path: Path, number: int, written: Any) -> Any:
    """A row from its line; one of a list is read already."""
    if not isinstance(written, bytes):
        return written
    try:
        return json.loads(written.decode())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}:{number}: this is not JSON ({error})") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH):
            nested = {field.name for field in batch.schema if _holds_json(field.type)}
            for row in batch.to_pylist():
                yield {name: _unpacked(value) if name in nested else value for name, value in row.items()}


def _holds_json(type: pyarrow.DataType) -> bool:
    return isinstance(type, pyarrow.JsonType) or (
        isinstance(type, pyarrow.ListType) and isinstance(type.value_type, pyarrow.JsonType)
    )


def _unpacked(value: Any) -> Any:
    if isinstance(value, str):
        return json.loads(value)
    return [json.loads(item) for item in value] if isinstance(value, list) else value
