"""Search in a local corpus of passages, such as an extract of Wikipedia, by BM25."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executors.errors import BadCallError, DataError
from executors.retrieval import Index
from executors.tool import Limits, Tool, as_tool

INSTANT_PASSAGES = 20_000
"""Up to so many, a search takes less than a millisecond or two and needs no thread of its own."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of text that can be found."""

    id: str
    title: str
    text: str


class Passages:
    """A corpus and its index. Another process reads the file again, or is sent the passages."""

    def __init__(self, source: str | Path | Sequence[Passage]) -> None:
        """
        Args:
            source: the passages themselves, or a file of them: JSON lines with ``text`` and perhaps ``id`` and
                ``title``, or tab-separated ``id``, text and perhaps a title, with or without a first line that names
                them.

        Raises:
            DataError: the file is not there, holds no passage, or a line of it is none.
        """
        self.source = Path(source) if isinstance(source, str | Path) else tuple(source)
        if isinstance(self.source, Path):
            text = _text(self.source)
            tabs = self.source.suffix.lower() == ".tsv"
            rows = (_tab_separated if tabs else _json_lines)(self.source, text)
            self.passages = tuple(rows)
        else:
            text = repr(self.source)
            self.passages = self.source
        self.version = hashlib.sha256(text.encode()).hexdigest()[:12]
        if not self.passages:
            raise DataError(f"{self.source or 'the corpus'} holds no passage; write JSON lines with 'title' and 'text'")
        self._index = Index(f"{passage.title} {passage.text}" for passage in self.passages)

    def __reduce__(self) -> tuple[Any, ...]:
        return Passages, (self.source,)

    def __len__(self) -> int:
        return len(self.passages)

    def search(self, query: str, k: int) -> list[Passage]:
        """The ``k`` passages that suit a query best; fewer where fewer share a word with it."""
        return [self.passages[position] for position, _ in self._index.search(query, k)]


@dataclass(frozen=True, slots=True)
class _Searcher:
    passages: Passages
    k: int

    def __call__(self, query: str) -> str:
        """Search an encyclopedia; the passages that suit the query best come back.

        Args:
            query: a name or a few telling words.
        """
        if not query.strip():
            raise BadCallError("the query is empty; give a name or a few words")
        found = self.passages.search(query, self.k)
        if not found:
            return "nothing was found; try other words"
        return "\n".join(f"[{i}] {p.title}: {p.text}" if p.title else f"[{i}] {p.text}" for i, p in enumerate(found, 1))


def wiki_search_tool(source: str | Path | Sequence[Passage], k: int = 2, *, name: str = "wiki_search") -> Tool:
    """Search over a corpus as a tool.

    Args:
        source: see ``Passages``; read and indexed at once.
        k: how many passages come back; TRICE gives two.
        name: of the tool.

    Raises:
        DataError: see ``Passages``.
    """
    passages = Passages(source)
    limits = Limits(retries=0, cache=True, version=f"{passages.version}-{k}")
    return as_tool(_Searcher(passages, k), name=name, instant=len(passages) <= INSTANT_PASSAGES, limits=limits)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise DataError(f"the passages in {path} cannot be read: {error}") from error


def _json_lines(path: Path, text: str) -> Iterator[Passage]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise DataError(
                f'{path}:{number}: a passage is an object with a \'text\', such as {{"title": ..., "text": ...}}'
            )
        yield Passage(str(row.get("id", number)), str(row.get("title") or ""), row["text"])


def _tab_separated(path: Path, text: str) -> Iterator[Passage]:
    columns = ["id", "text", "title"]
    for number, line in enumerate(text.split("\n"), 1):
        row = line.rstrip("\r").split("\t")
        if number == 1 and "text" in row:
            columns = row
        elif row != [""]:
            if not 2 <= len(row) <= len(columns):
                raise DataError(
                    f"{path}:{number}: {len(row)} fields; a passage has an id, a text and perhaps a title, by tabs"
                )
            named = dict(zip(columns, row, strict=False))
            yield Passage(named.get("id", str(number)), named.get("title", ""), named.get("text", ""))
