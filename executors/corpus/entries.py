"""The list that a corpus begins with: what each API is called, in one line what it does, and its category."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executors.errors import DataError
from executors.schemas.vocabulary import Draw


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One API of the list."""

    name: str
    description: str = ""
    category: str = ""
    link: str = ""
    """Where its pages are; the server's address in documents made from it."""


def read_entries(path: Path) -> list[Entry]:
    """The entries of a file: ``{"entries": [...]}`` as public-apis gives it, or a list of objects with a Name.

    Of entries with the same name the first counts.

    Raises:
        DataError: the file cannot be read or holds no such list; with the place.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; name a list of APIs") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    rows = content.get("entries") if isinstance(content, Mapping) else content
    if not isinstance(rows, list) or not rows:
        raise DataError(f'{path} holds no list of APIs; it is {{"entries": [...]}} or a list of objects with a Name')
    entries: dict[str, Entry] = {}
    for number, row in enumerate(rows, start=1):
        entry = _entry(row, f"{path}, entry {number}")
        entries.setdefault(entry.name, entry)
    return list(entries.values())


def choose_entries(entries: Sequence[Entry], count: int, seed: int) -> list[Entry]:
    """Some of the entries, as evenly over their categories as those allow, the same for the same seed.

    Raises:
        DataError: there are not as many.
    """
    if count > len(entries):
        raise DataError(f"{count} APIs were asked for, and the list has {len(entries)} of different names")
    piles: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda one: Draw.of("entries", seed, one.name).key):
        piles.setdefault(entry.category, []).append(entry)
    chosen: list[Entry] = []
    depth = 0
    while len(chosen) < count:
        chosen += [piles[category][depth] for category in sorted(piles) if depth < len(piles[category])]
        depth += 1
    return chosen[:count]


def _entry(row: Any, place: str) -> Entry:
    if not isinstance(row, Mapping):
        raise DataError(f"{place}: an API is an object with a name, not {str(row)[:60]!r}")
    name = row.get("Name") or row.get("API")
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{place}: it has no Name (or API), its keys are {', '.join(map(str, row)) or 'none'}")
    said = {key: str(row.get(key.capitalize()) or "").strip() for key in ("description", "category", "link")}
    return Entry(name=name.strip(), **said)
