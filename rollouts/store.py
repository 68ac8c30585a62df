"""The episode log: append-only JSON lines, each with a checksum; what was written is never written again."""

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from executors.errors import DataError

T = TypeVar("T")


class Log(Generic[T]):
    """An append-only file of records of one type.

    A line is ``<crc32 of the rest, 8 hex digits> <JSON>``. A last line that was cut by a crash is dropped when the
    log is opened to append; damage anywhere else is an error, never skipped.
    """

    def __init__(self, path: Path, type: type[T]) -> None:
        self.path = path
        self._adapter: TypeAdapter[T] = TypeAdapter(type)

    def append(self, records: Iterable[T]) -> None:
        """Write records and see them on disk before returning."""
        lines = b"".join(_line(self._adapter.dump_json(record)) for record in records)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._drop_torn_end()
        with self.path.open("ab") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> Iterator[T]:
        """Every record, in order; a torn last line is left out.

        Raises:
            DataError: a line other than the last is damaged.
        """
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                yield self._record(number, line)

    def _record(self, number: int, line: bytes) -> T:
        checksum, _, body = line.rstrip(b"\n").partition(b" ")
        if checksum != _checksum(body):
            raise DataError(
                f"{self.path}:{number} is damaged: its checksum is {checksum.decode(errors='replace')!r}, its content "
                f"gives {_checksum(body).decode()!r}; restore the file from a copy, or cut it before this line"
            )
        try:
            return self._adapter.validate_json(body)
        except ValidationError as error:
            raise DataError(f"{self.path}:{number} was written by another version: {error.errors()[0]}") from error

    def _drop_torn_end(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb+") as file:
            end = file.seek(0, os.SEEK_END)
            kept = end
            while kept > 0:
                start = max(0, kept - (1 << 20))
                file.seek(start)
                newline = file.read(kept - start).rfind(b"\n")
                kept = start + newline + 1 if newline >= 0 else start
                if newline >= 0:
                    break
            if kept != end:
                file.truncate(kept)


def _line(body: bytes) -> bytes:
    return _checksum(body) + b" " + body + b"\n"


def _checksum(body: bytes) -> bytes:
    return f"{zlib.crc32(body):08x}".encode()


def append_json(path: Path, record: dict[str, object]) -> None:
    """Add one line to a plain JSON-lines file, such as ``metrics.jsonl``."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
