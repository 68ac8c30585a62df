"""Whether several machines have the same folder: each writes a note there, and reads the others'.

A folder is a path, or an address that ``pyarrow`` knows (``s3://bucket/runs``, ``gs://...``, ``file:///...``).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow
from pyarrow import fs

from executors.errors import ConfigError

NOTES = ".reached"
"""Folder of the notes; it is removed when all have been read."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")


@dataclass(frozen=True, slots=True)
class Notes:
    """Notes in a folder that machines are supposed to share. Sent to each of them."""

    folder: str
    """A path or an address."""

    def leave(self, name: str, text: str) -> str:
        """Write a note: under another name, then renamed, as checkpoints are. Says what went wrong, or nothing."""
        try:
            system, place = self._place()
            system.create_dir(place, recursive=True)
            with system.open_output_stream(f"{place}/.{name}") as stream:
                stream.write(text.encode())
            system.move(f"{place}/.{name}", f"{place}/{name}")
        except (OSError, pyarrow.ArrowException) as error:
            return f"it cannot write there: {_told(error)}"
        return ""

    def read(self, name: str, text: str) -> str:
        """Read a note of another's. Says what went wrong, or nothing."""
        try:
            system, place = self._place()
            with system.open_input_stream(f"{place}/{name}") as stream:
                found = stream.read().decode()
        except FileNotFoundError:
            return "it does not see what another machine wrote there: it has a folder of the same name to itself"
        except (OSError, pyarrow.ArrowException) as error:
            return f"it cannot read there: {_told(error)}"
        return "" if found == text else "it reads something else there than another machine wrote"

    def remove(self) -> None:
        """Take the notes away."""
        system, place = self._place()
        system.delete_dir(place)

    def answer(self, name: str, theirs: Mapping[str, str]) -> str:
        """What one machine does: read the notes of others, then leave its own. Says what went wrong, or nothing."""
        wrong = [told for note, text in theirs.items() if (told := self.read(note, text))]
        return wrong[0] if wrong else self.leave(name, name)

    def _place(self) -> tuple[Any, str]:
        folder = f"{self.folder.rstrip('/')}/{NOTES}"
        if _ADDRESS.match(self.folder):
            return fs.FileSystem.from_uri(folder)
        return fs.LocalFileSystem(), folder


def require_path(folder: str) -> None:
    """See that a run's folder is on a file system: its logs are appended to, its ledger locked, checkpoints renamed.

    Raises:
        ConfigError: it is the address of an object store.
    """
    if _ADDRESS.match(folder):
        raise ConfigError(
            f"{folder} is an object store, where nothing can be appended or locked; keep runs on a file system that "
            "every node mounts (NFS, EFS, Filestore, Lustre) and copy what is finished to the store"
        )


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
