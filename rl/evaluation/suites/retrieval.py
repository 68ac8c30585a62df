"""Scores lists of tools that were found for queries, by whatever found them: standard measures, and ToolGen's.

A line of the file is ``{"query_id": 588, "tools": [...]}``, best first. A tool is any name that the wanted ones use; of
ToolBench's, ``[tool, api]``, ``tool&&api`` or ToolGen's token ``<<tool&&api>>``.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from executors.errors import DataError
from rl.config import FilePath, Strict
from rl.data.rows import Place, read_rows
from rl.data.tasks.benchmark import data_folder
from rl.evaluation.retrieval import DEPTHS, retrieval_ratios
from rl.evaluation.suites.funcqa import told


class RetrievalOptions(Strict):
    """What should have been found."""

    golds: FilePath | None = None
    """A file with a line ``{"query_id", "tools"}`` for each query; ToolBench's ``relevant APIs`` are read too. By
    default StableToolBench's queries below ``$APPRENTICE_DATA``."""
    among: list[str] = []
    """Of the default, which files: such as ``[G1_instruction]``; all of them where none is named."""
    depths: list[int] = Field(default=list(DEPTHS), min_length=1)
    """Where lists are cut."""


def score(file: Path, options: RetrievalOptions) -> dict[str, Any]:
    """The figures of a file: by name, each with its interval; and notes. A query without a list has found nothing.

    Raises:
        DataError: a file cannot be read, or answers a query that there is not.
    """
    golds: dict[str, tuple[str, ...]] = {}
    for path in _gold_files(options):
        golds |= dict(_lists(read_rows(path)))
    found: dict[str, tuple[str, ...]] = {}
    notes: list[str] = []
    for place in read_rows(file):
        query, tools = _list(place)
        if query not in golds:
            raise place.error(f"there is no query {query}; see --set golds=FILE and --set among=[G1_instruction]")
        if len(set(tools)) < len(tools):
            notes.append(f"{file}:{place.number}: a tool is named twice; its first place counts")
        found[query] = tuple(dict.fromkeys(tools))
    if len(found) < len(golds):
        notes.append(f"{len(golds) - len(found)} of {len(golds)} queries have no line: nothing was found for them")
    ratios = retrieval_ratios([found.get(query, ()) for query in golds], list(golds.values()), options.depths)
    return told(ratios, {"n": len(golds), "answered": len(found)}) | {"notes": notes}


def _gold_files(options: RetrievalOptions) -> list[Path]:
    if options.golds is not None:
        return [Path(options.golds)]
    folder = data_folder("stabletoolbench")
    there = {path.stem: path for path in sorted(folder.glob("*.json"))}
    strange = sorted(set(options.among) - set(there))
    if strange:
        raise DataError(f"among: {folder} has no {strange[0]}.json; there are {', '.join(there)}")
    return [there[name] for name in options.among or there]


def _lists(places: Iterable[Place]) -> Iterable[tuple[str, tuple[str, ...]]]:
    for place in places:
        query, tools = _list(place)
        if not tools:
            raise place.error("a query wants no tool at all, and nothing can be measured on it")
        yield query, tools


def _list(place: Place) -> tuple[str, tuple[str, ...]]:
    row: Mapping[str, Any] = place.row
    tools = row.get("tools", row.get("relevant APIs"))
    if not isinstance(row.get("query_id"), int | str) or not isinstance(tools, list):
        raise place.error('a line reads {"query_id": 588, "tools": [...]}, the tools best first')
    return str(row["query_id"]), tuple(_name(place, tool) for tool in tools)


def _name(place: Place, tool: object) -> str:
    if isinstance(tool, list) and len(tool) == 2 and all(isinstance(part, str) for part in tool):
        return "&&".join(tool)
    if not isinstance(tool, str):
        raise place.error(f"a tool is a name or [tool, api], and this is {tool!r}")
    return tool.removeprefix("<<").removesuffix(">>")
