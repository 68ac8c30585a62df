"""The episode log: append-only JSON lines, each with a checksum; what was written is never written again.

A line is an object whose last key is the CRC-32 of all that stands before it, so the file is ordinary JSON lines to
pandas and ``datasets``, and damage to any line is seen. A log that grows is cut into segments: ``name.00000.parquet``
and so on, each compacted once it is full (``rollouts.archive``), and ``name.jsonl``, which is being written.
"""

import contextlib
import errno
import fcntl
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from executors.errors import ApprenticeError, DataError
from rollouts.archive import compact_apart, segments, sweep, unpack

T = TypeVar("T")
_CRC = b',"crc":"'
_FULL = (errno.ENOSPC, errno.EDQUOT)


class LogFullError(ApprenticeError):
    """The disk took only a part of what was to be written; nothing of it was kept."""


class LogBrokenError(ApprenticeError):
    """The disk refused to confirm what was written: the log may not be written any further."""


class LogTakenError(ApprenticeError):
    """Another process writes this log."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A line that was not read, and why."""

    path: Path
    line: int
    """From 1; 0 for a part of a compacted segment."""
    reason: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{place} is damaged ({self.reason}); it was left out"


class Log(Generic[T]):
    """An append-only log of records of one type, durable when ``append`` returns.

    A last line that a crash cut is told by ``torn``, and dropped when the log is opened to append. A damaged line
    anywhere else is left out by ``read`` and told by ``damage``. One process at a time may write.
    """

    def __init__(self, path: Path, type: type[T], *, segment_bytes: int = 64 << 20) -> None:
        """
        Args:
            path: of the segment that is being written; the full ones stand beside it.
            type: of the records: a dataclass.
            segment_bytes: size at which a segment is sealed and compacted.
        """
        self.path = path
        self.damage: list[Damage] = []
        """What the last ``read`` had to leave out."""
        self.torn: Damage | None = None
        """A last line without an end, which the last ``read`` found: a crash cut it before anybody was told of it."""
        self._adapter: TypeAdapter[T] = TypeAdapter(type)
        self._segment_bytes = segment_bytes
        self._file: BinaryIO | None = None
        self._broken = ""

    def append(self, records: Iterable[T]) -> None:
        """Write records, all or none, and see them on disk before returning.

        Raises:
            LogFullError: the disk is full. The log is as before; the same records may be appended again.
            LogBrokenError: the disk failed to confirm. Open the log anew: what reached it is read from there.
            LogTakenError: another process writes this log.
        """
        lines = b"".join(_line(self._body(record)) for record in records)
        if not lines:
            return
        if self._broken:
            raise LogBrokenError(self._broken)
        file = self._writer()
        if file.tell() and file.tell() + len(lines) > self._segment_bytes:
            file = self._seal()
        self._commit(file, lines)

    def read(self) -> Iterator[T]:
        """Every whole record, in order. ``damage`` and ``torn`` have the others once all are read.

        Raises:
            DataError: a line is whole and no record of this type: another version wrote it.
        """
        self.damage = []
        self.torn = None
        for segment in segments(self.path):
            missing: list[str] = []
            yield from self._records(segment, unpack(segment, missing))
            self.damage += [Damage(segment, 0, reason) for reason in missing]
        if self.path.exists():
            with self.path.open("rb") as file:
                yield from self._records(self.path, file)

    def close(self) -> None:
        """Let others write."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> "Log[T]":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.close()

    def _records(self, path: Path, lines: Iterable[bytes]) -> Iterator[T]:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n") and path == self.path:
                self.torn = Damage(path, number, "a torn last line")
                return
            body = _checked(line)
            if body is None:
                self.damage.append(Damage(path, number, "its checksum is another than its content's"))
                continue
            try:
                yield self._record(body)
            except ValidationError as error:
                raise DataError(f"{path}:{number} was written by another version: {error.errors()[0]}") from error

    def _body(self, record: T) -> bytes:
        try:
            return self._adapter.dump_json(record)
        except PydanticSerializationError:  # half of a surrogate pair: only an escape can say it
            return json.dumps(self._adapter.dump_python(record), separators=(",", ":")).encode()

    def _record(self, body: bytes) -> T:
        try:
            return self._adapter.validate_json(body)
        except ValidationError as error:
            if error.errors()[0]["type"] != "json_invalid":
                raise
            return self._adapter.validate_python(json.loads(body))

    def _writer(self) -> BinaryIO:
        if self._file is None:
            fresh = not self.path.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("ab", buffering=0)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.close()
                raise LogTakenError(
                    f"{self.path} is being written by another process; wait for it, or end it, then try again"
                ) from error
            file.truncate(_whole(self.path))
            sweep(self.path)
            file.seek(0, os.SEEK_END)
            self._file = file  # type: ignore[assignment]
            if fresh:
                _sync_folder(self.path.parent)
        assert self._file is not None
        return self._file

    def _commit(self, file: BinaryIO, lines: bytes) -> None:
        """All of the lines on disk, or none."""
        before = file.tell()
        try:
            view = memoryview(lines)
            while view:
                view = view[file.write(view) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                file.truncate(before)
            if error.errno not in _FULL:
                raise LogBrokenError(f"{self.path} cannot be written: {error.strerror}") from error
            raise _full(self.path, len(lines)) from error
        try:
            os.fdatasync(file.fileno())
        except OSError as error:  # the kernel may have dropped the pages: a second fsync would lie
            self._broken = f"{self.path} could not be confirmed by the disk ({error.strerror}); check it, then --resume"
            raise LogBrokenError(self._broken) from error

    def _seal(self) -> BinaryIO:
        """Close the full segment, compact it, and begin the next one."""
        number = next((int(last.name.split(".")[-2]) + 1 for last in reversed(segments(self.path))), 0)
        sealed = self.path.with_suffix(f".{number:05d}{self.path.suffix}")
        os.replace(self.path, sealed)
        self.close()
        with contextlib.suppress(DataError):  # a segment that is not compacted is read as it is
            compact_apart(sealed)
        return self._writer()


def _line(body: bytes) -> bytes:
    return body[:-1] + _CRC + f'{zlib.crc32(body[:-1]):08x}"}}\n'.encode()


def _checked(line: bytes) -> bytes | None:
    """The record of a line, without its checksum; None where they disagree."""
    head, found, tail = line.rpartition(_CRC)
    return head + b"}" if found and tail == f'{zlib.crc32(head):08x}"}}\n'.encode() else None


def _whole(path: Path) -> int:
    """The length of a file up to the end of its last whole line."""
    with path.open("rb") as file:
        kept = file.seek(0, os.SEEK_END)
        while kept > 0:
            start = max(0, kept - (1 << 20))
            file.seek(start)
            newline = file.read(kept - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            kept = start
    return 0


def _sync_folder(folder: Path) -> None:
    """See on disk that a file was added to a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_json(path: Path, record: dict[str, object]) -> None:
    """Add one line to a plain JSON-lines file, such as ``metrics.jsonl``; a line that a crash cut stays apart from it.

    Raises:
        LogFullError: the disk is full; the file is as before.
    """
    line = json.dumps(record).encode() + b"\n"
    with path.open("ab+", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        torn = file.read(1) not in (b"", b"\n")
        view = memoryview(b"\n" + line if torn else line)
        try:
            while view:
                view = view[file.write(view) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                file.truncate(end)
            if error.errno not in _FULL:
                raise
            raise _full(path, len(line)) from error


def _full(path: Path, needed: int) -> LogFullError:
    return LogFullError(
        f"the disk is full: {path} needs {needed} more bytes; nothing is lost: free some space, then continue with "
        "--resume"
    )


def damaged(logs: Sequence[Log]) -> list[Damage]:
    """What the last readings of several logs left out, torn last lines included."""
    return [damage for log in logs for damage in (*log.damage, *filter(None, [log.torn]))]
