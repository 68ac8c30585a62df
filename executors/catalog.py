"""A named set of tools."""

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from executors.errors import ConfigError, UnknownToolError
from executors.tool import Tool
from executors.types import ToolSpec

if TYPE_CHECKING:
    from executors.retrieval import Index

MAX_NAME = 80
"""Characters of an unknown tool's name that are read and repeated; policies write names of any length."""


class Catalog:
    """Tools by name; the names are unique and the order is kept."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            if tool.name in self._tools:
                raise ConfigError(f"two tools are named {tool.name!r}; rename one with @tool(name=...)")
            self._tools[tool.name] = tool
        self._near: NearNames | None = None
        self._index: Index | None = None

    def __len__(self) -> int:
        return len(self._tools)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets the tools; what is built for searching among them it builds itself."""
        return Catalog, (list(self),)

    def require(self) -> None:
        """See that what the tools run in can be had here, such as a sandbox; before a run starts.

        Raises:
            ApprenticeError: it cannot; the message says why and what to try.
        """
        for tool in self:
            for part in (tool.function, tool.state):
                if callable(required := getattr(part, "require", None)):
                    required()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tools)

    def specs(self, names: Sequence[str] | None = None) -> tuple[ToolSpec, ...]:
        """What policies are told of the named tools, or of all."""
        return tuple(self.get(name).spec for name in (self.names if names is None else names))

    def get(self, name: str) -> Tool:
        """The tool of that name.

        Raises:
            UnknownToolError: there is none; the message, which the policy reads, names the closest.
        """
        if name in self._tools:
            return self._tools[name]
        if not self._tools:
            raise UnknownToolError(f"no tool named {_cut(name)!r}: this catalog is empty")
        if self._near is None:
            self._near = NearNames(self._tools)
        close = self._near.closest(_cut(name)) or list(self._tools)[:3]
        raise UnknownToolError(
            f"no tool named {_cut(name)!r} among the {len(self)} in this catalog; closest: {', '.join(close)}"
        )

    def search(self, query: str, k: int = 10) -> list[tuple[str, float]]:
        """The ``k`` tools that suit a query best, by name, each with its BM25 score; of equals the earlier first.

        Tools that share no word with the query are never among them. The index is built at the first search.
        """
        if self._index is None:
            from executors.retrieval import Index, text_of

            self._index = Index(text_of(tool.spec) for tool in self)
        names = self.names
        return [(names[position], score) for position, score in self._index.search(query, k)]


class NearNames:
    """Finds the names that a misspelt one may have meant, among thousands, within milliseconds."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)
        self._folded = [_folded(name) for name in self._names]
        self._pairs = [_pairs(folded) for folded in self._folded]
        self._holders: dict[str, list[int]] = defaultdict(list)
        for position, pairs in enumerate(self._pairs):
            for pair in pairs:
                self._holders[pair].append(position)

    def closest(self, name: str, n: int = 3) -> list[str]:
        """Up to ``n`` names, the closest first; capitals and underscores count for nothing.

        Those that share the most pairs of letters are compared letter by letter; the others are not looked at.
        """
        folded = _folded(name)
        pairs = _pairs(folded)
        shared = Counter(position for pair in pairs for position in self._holders.get(pair, ()))
        likeness = [
            (count / (len(pairs) + len(self._pairs[position])), -position) for position, count in shared.items()
        ]
        matcher = difflib.SequenceMatcher(b=folded)
        compared = []
        for _, position in sorted(likeness, reverse=True)[:24]:
            matcher.set_seq1(self._folded[-position])
            compared.append((matcher.ratio(), position))
        best = sorted((pair for pair in compared if pair[0] >= 0.4), reverse=True)[:n]
        return [self._names[-position] for _, position in best]


def _folded(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _pairs(folded: str) -> frozenset[str]:
    marked = f" {folded} "
    return frozenset(marked[i : i + 2] for i in range(len(marked) - 1))


def _cut(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}..."
