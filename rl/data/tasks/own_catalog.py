"""Requests to a user's own tools, whatever these come from: a Python file, an OpenAPI document, an MCP server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from executors.catalog import Catalog
from executors.errors import ConfigError, DataError, UnknownToolError
from executors.foreign import ForeignTool
from executors.named import Reference, load_catalog
from executors.names import Identity
from rl.config import FilePath, Strict
from rl.data.tasks.tool_requests import Query, Retrieval, Split, split_of

RESERVED = ("Finish", "describe")
"""Names that ToolGen's grammar has for itself: the end of an attempt, and what documents tools."""
_SHOWN = 3


class OwnCatalog(Strict):
    """Tools by reference, and requests as JSON lines: ``{"prompt": ..., "wanted": [names of the tools]}``.

    ``query`` or ``question`` may stand for ``prompt``; for ``wanted`` the ``call`` of a task, which is ``{"tool": ...,
    "arguments": ...}``. ``offered``, further tools that an attempt may use, and ``id`` are optional. The splits are
    made by the hash of the request.
    """

    kind: Literal["catalog"] = "catalog"
    tools: list[Reference] = Field(min_length=1)
    """Built-ins by name, ``package.module:attribute``, ``openapi:PATH``, ``mcp:PATH`` and the like, some with settings;
    see docs/tools.md."""
    requests: FilePath
    test_share: float = Field(default=0.25, gt=0, lt=1)
    validation_share: float = Field(default=0.1, gt=0, lt=1)

    def load(self) -> Retrieval:
        """Read the requests, and load the tools.

        Raises:
            ConfigError: there is no such tool, or one has a name that is taken.
            DataError: the file cannot be read, a row of it is no request, or a split is empty.
        """
        catalog = load_catalog(self.tools)
        if taken := [name for name in RESERVED if name in catalog]:
            raise ConfigError(f"data.tools has a tool named {taken[0]!r}, which ToolGen has for itself; rename it")
        tools = {
            tool.name: ForeignTool(spec=tool.spec, identity=Identity(tool.name), origin=f"data.tools: {tool.name}")
            for tool in catalog
        }
        splits: dict[Split, list[Query]] = {"train": [], "validation": [], "test": []}
        for query in self._queries(catalog):
            splits[split_of(query.text, self.test_share, self.validation_share)].append(query)
        if empty := [split for split, members in splits.items() if not members]:
            raise DataError(
                f"{self.requests} has {sum(map(len, splits.values()))} requests, and none falls into the {empty[0]} "
                "split; write more of them, or make data.test_share or data.validation_share larger"
            )
        return Retrieval(
            tools=tools,
            train=tuple(splits["train"]),
            validation=tuple(splits["validation"]),
            test=tuple(splits["test"]),
            catalog=catalog,
        )

    def _queries(self, catalog: Catalog) -> list[Query]:
        found: dict[str, Query] = {}
        problems: list[str] = []
        for number, line in self._lines():
            try:
                query = _query(json.loads(line), number, catalog, Path(self.requests).stem)
                if query.id in found:
                    raise ValueError(f"its id {query.id!r} stands on another row too")
                found[query.id] = query
            except (ValueError, UnknownToolError) as error:
                problems.append(f"row {number}: {error}")
        if problems:
            more = "; ..." if len(problems) > _SHOWN else ""
            raise DataError(
                f"{len(problems)} rows of {self.requests} are no requests: {'; '.join(problems[:_SHOWN])}{more}"
            )
        return list(found.values())

    def _lines(self) -> Iterator[tuple[int, str]]:
        try:
            lines = Path(self.requests).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeError) as error:
            raise DataError(f"cannot read {self.requests}: {error}; data.requests is a file of JSON lines") from error
        yield from ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _query(row: Any, number: int, catalog: Catalog, group: str) -> Query:
    """The request of a row.

    Raises:
        ValueError: it is none.
        UnknownToolError: it names a tool that there is not; the message names the closest.
    """
    if not isinstance(row, dict):
        raise ValueError(f"a row is an object, not a {type(row).__name__}")
    text = next((row[key] for key in ("prompt", "query", "question") if row.get(key)), None)
    if not isinstance(text, str):
        raise ValueError(f"no prompt (it has {', '.join(row) or 'nothing'})")
    call = row.get("call")
    given = row["wanted"] if "wanted" in row else [call.get("tool")] if isinstance(call, dict) else []
    wanted, offered = _named(given, "wanted", catalog), _named(row.get("offered", []), "offered", catalog)
    if not wanted:
        raise ValueError("it says neither by 'wanted' nor by 'call' which tools answer it")
    return Query(
        id=str(row.get("id", f"row-{number}")),
        text=text,
        wanted=wanted,
        offered=tuple(dict.fromkeys(wanted + offered)),
        group=group,
    )


def _named(given: Any, key: str, catalog: Catalog) -> tuple[str, ...]:
    """The tools that a row names, each once."""
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"{key!r} is a list of names of tools, not {json.dumps(given)[:80]}")
    return tuple(dict.fromkeys(catalog.get(name).name for name in given))
