"""The keys of the endpoint: digests with labels, from the environment and from a file that may change meanwhile."""

import hashlib
import hmac
import logging
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from executors.errors import ConfigError

KEYS = "APPRENTICE_API_KEYS"
"""The environment variable with the keys: ``label:key`` or keys alone, separated by commas."""
KEYS_FILE = "APPRENTICE_API_KEYS_FILE"
"""The environment variable with the path of a file of such keys, one a line; it is read again when it changes."""
_LOOK_EVERY = 1.0
_SHORTEST = 16

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Keyring:
    """Who may ask. Without keys and without a file of them, everyone may; with an empty file, nobody."""

    fixed: Mapping[str, str] = field(default_factory=dict)
    """Labels by the digests of keys."""
    path: Path | None = None
    """The file with further ones, looked at again once a second when somebody asks."""
    _read: Mapping[str, str] = field(default_factory=dict)
    _stamp: tuple[int, ...] = ()
    _looked: float = -_LOOK_EVERY

    @property
    def required(self) -> bool:
        """Whether a key is asked for."""
        return bool(self.fixed) or self.path is not None

    def label(self, key: str) -> str | None:
        """Whose key it is; None where it is nobody's. Every key is compared, so that none is found by the time."""
        given = _digest(key)
        found = None
        for digest, label in self.digests().items():
            if hmac.compare_digest(digest, given):
                found = label
        return found

    def digests(self) -> dict[str, str]:
        """Labels by digests, as they are now; of a file that cannot be read, those of before."""
        if self.path is not None and time.monotonic() - self._looked >= _LOOK_EVERY:
            self._looked = time.monotonic()
            try:
                self._look(self.path)
            except (OSError, ConfigError, UnicodeDecodeError) as error:
                log.error("the keys of before stay in force: %s", error)
        return {**self.fixed, **self._read}

    def _look(self, path: Path) -> None:
        """Read the file if it has changed."""
        found = path.stat()
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if stamp != self._stamp:
            self._stamp = stamp  # a file that is wrong is told of once
            lines = (line.partition("#")[0] for line in path.read_text().splitlines())
            self._read = _digests(",".join(lines).split(","), str(path))


def keys_from_environment() -> Keyring:
    """The keys that the environment names.

    Raises:
        ConfigError: one is too short to be a key, or the file is not there.
    """
    path = Path(named).resolve() if (named := os.environ.get(KEYS_FILE, "")) else None
    ring = Keyring(_digests(os.environ.get(KEYS, "").split(","), KEYS), path)
    if path is not None:
        try:
            ring._look(path)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{KEYS_FILE}: {path} cannot be read ({error}); write it, a key a line") from error
    return ring


def _digests(entries: Iterable[str], origin: str) -> dict[str, str]:
    """Labels by digests of ``label:key`` or keys alone. Raises ConfigError where one is too short."""
    digests = {}
    for number, entry in enumerate(filter(None, map(str.strip, entries)), start=1):
        label, colon, key = entry.partition(":")
        label, key = (label.strip(), key.strip()) if colon else (f"key-{number}", entry)
        if len(key) < _SHORTEST:
            raise ConfigError(f"{origin}: {label!r} has fewer than {_SHORTEST} characters; take a random key of 32")
        digests[_digest(key)] = label
    return digests


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
