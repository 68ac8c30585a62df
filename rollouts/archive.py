"""Full segments of a log, compacted to Parquet: smaller, quick to query, and still the exact lines."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from executors.errors import DataError

_LINE = "line"
"""Column of the line as it was written, checksum included."""
_DIGEST = b"sha256"
_JSON = b"json"
_BATCH = 512
"""Lines that are held at once."""
_TYPES = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string(), bool: pyarrow.bool_()}
"""Of columns whose values are all of one kind; others are JSON."""


def segments(path: Path) -> list[Path]:
    """The full segments of the log at ``path``, in order: compacted, or on the way there."""
    found = {
        segment.name.removeprefix(f"{path.stem}.")[:5]: segment
        for suffix in (path.suffix, ".parquet")  # where a crash left both, the compacted one is whole
        for segment in path.parent.glob(f"{path.stem}.[0-9][0-9][0-9][0-9][0-9]{suffix}")
    }
    return [found[number] for number in sorted(found)]


def compact(segment: Path) -> Path:
    """Write a sealed segment as Parquet beside it, then remove the original; both or neither, whenever it is killed.

    Each top-level key of the records is a column: numbers, texts and truth values as they are where all agree, else
    as JSON. The lines themselves are kept too, and the file carries the SHA-256 of the segment.
    """
    target = segment.with_suffix(".parquet")
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    schema = _schema(segment)
    with pyarrow.parquet.ParquetWriter(fresh, schema, compression="zstd") as writer:
        for lines in _batches(segment):
            writer.write_table(_table(lines, schema))
    descriptor = os.open(fresh, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(fresh, target)
    segment.unlink()
    return target


def compact_apart(segment: Path) -> None:
    """``compact`` in a process of its own, whose memory is gone with it.

    Raises:
        DataError: it failed; the segment stays as it is, and is read like that.
    """
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(segment)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        told = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
        raise DataError(f"{segment} could not be compacted: {told}")


def unpack(segment: Path, missing: list[str]) -> Iterator[bytes]:
    """The lines of a segment, as they were written.

    Args:
        segment: compacted or not.
        missing: what of a compacted one cannot be read, and why, is added here; the rest is read all the same.
    """
    if segment.suffix != ".parquet":
        with segment.open("rb") as file:
            yield from file
        return
    digest = hashlib.sha256()
    before = len(missing)
    try:
        with pyarrow.parquet.ParquetFile(segment) as file:
            sealed = (file.schema_arrow.metadata or {}).get(_DIGEST, b"").decode()
            for part in range(file.num_row_groups):
                try:
                    lines = file.read_row_group(part, columns=[_LINE]).column(0).to_pylist()
                except (OSError, pyarrow.ArrowException) as error:
                    missing.append(f"part {part + 1} of {file.num_row_groups} cannot be read: {error}")
                    continue
                digest.update(b"".join(lines))
                yield from lines
        if len(missing) == before and digest.hexdigest() != sealed:
            missing.append("its lines are not those that were sealed; restore it from a copy")
    except (OSError, pyarrow.ArrowException) as error:
        missing.append(f"it cannot be opened ({error}); restore it from a copy")


def sweep(path: Path) -> None:
    """Remove what a compaction that was killed left half-written beside the log at ``path``."""
    for left in leftovers(path):
        left.unlink(missing_ok=True)


def leftovers(path: Path) -> list[Path]:
    """Half-written segments of the log at ``path``."""
    return sorted(path.parent.glob(f".{path.stem}.[0-9][0-9][0-9][0-9][0-9].parquet.*"))


def _batches(segment: Path) -> Iterator[list[bytes]]:
    """A segment's lines, some at a time: never all of them at once."""
    with segment.open("rb") as file:
        while lines := list(itertools.islice(file, _BATCH)):
            yield lines


def _schema(segment: Path) -> pyarrow.Schema:
    """The columns that fit every line of a segment, and the digest of them all."""
    digest = hashlib.sha256()
    kinds: dict[str, set[type]] = {}
    for lines in _batches(segment):
        for line in lines:
            digest.update(line)
            for key, value in _row(line).items():
                kinds.setdefault(key, set()).update(() if value is None else (type(value),))
    fields = [pyarrow.field(_LINE, pyarrow.binary())]
    for key, found in kinds.items():
        plain = _TYPES.get(next(iter(found))) if len(found) == 1 else None
        fields.append(pyarrow.field(key, plain or pyarrow.string(), metadata=None if plain else {_JSON: b"1"}))
    return pyarrow.schema(fields, {_DIGEST: digest.hexdigest().encode()})


def _table(lines: list[bytes], schema: pyarrow.Schema) -> pyarrow.Table:
    rows = [_row(line) for line in lines]
    columns: list[Any] = [pyarrow.array(lines, type=pyarrow.binary())]
    for field in list(schema)[1:]:
        values = [row.get(field.name) for row in rows]
        if _JSON in (field.metadata or {}):
            values = [None if value is None else json.dumps(value) for value in values]
        columns.append(pyarrow.array(values, type=field.type))
    return pyarrow.table(columns, schema=schema)


def _row(line: bytes) -> Mapping[str, Any]:
    """The record of a line; nothing of a damaged one, of which only the line is kept."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return {key: value for key, value in row.items() if key not in (_LINE, "crc")} if isinstance(row, dict) else {}


if __name__ == "__main__":
    compact(Path(sys.argv[1]))
