"""Attempts that others recorded, read as ranked rows: of RRHF, TRICE, ToolAlpaca and ToolBench.

What ``import_rows`` makes is a ranked file (``rl.data.ranked``), which ``tasks: {kind: ranked, path: ...}`` reads.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from executors.errors import ConfigError, DataError
from executors.openapi.tools import read_openapi
from executors.types import ToolSpec
from rl.data.conversations import UNREADABLE, Message, call_id, conversation, status
from rl.data.ranked import recorded_candidate, recorded_row
from rl.data.recorded import recorded_search
from rl.data.rows import Place, Row, read_rows, usable
from rl.data.searches import read_trees
from rl.data.tasks.benchmark import shown
from rl.data.toolalpaca import Instance, read_instances
from rollouts.formats.inline import ANSWER, END_OF_CALL
from rollouts.formats.toolalpaca import ToolAlpacaFormat

ImportFormat = Literal["rrhf", "trice", "toolalpaca", "toolbench"]

TRICE_TOOLS = {"calculator": "expression", "QA": "question", "WikiSearch": "query", "translator": "text"}
"""TRICE's tools, each with what we call its one argument."""

_CALL = re.compile(rf"\b({'|'.join(TRICE_TOOLS)})\((.*)\)")
_BEGUN = re.compile(rf"\b({'|'.join(TRICE_TOOLS)})\(")
_HINT = "\nHint: "
_GET_DETAILS = ToolSpec(
    "getDetails",
    "Ask the user for what is missing.",
    {"type": "object", "properties": {"Question": {"type": "string"}}, "required": ["Question"]},
)


@dataclass(slots=True)
class Imported:
    """What a file gave."""

    rows: list[Row] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    """Rows that cannot be used, and why."""

    @property
    def authors(self) -> str:
        """Whose attempts there are, and how many of each."""
        counts = Counter(candidate["source"] for row in self.rows for candidate in row["candidates"])
        return ", ".join(f"{name} ({count})" for name, count in counts.items())


def import_rows(path: Path, format: str, *, skip_bad_rows: bool = False) -> Imported:
    """Read a file of recorded attempts.

    Args:
        path: JSON lines, a JSON list, or Parquet; of ``toolbench``, a tree or chain, or a folder of them.
        format: one of ``ImportFormat``.
        skip_bad_rows: whether rows that cannot be used are left out and named, rather than an error.

    Raises:
        ConfigError: there is no such format.
        DataError: the file cannot be read, has bad rows that are not to be skipped, or nothing that can be used.
    """
    if format not in get_args(ImportFormat):
        raise ConfigError(f"no format {format!r} to import; there are {', '.join(get_args(ImportFormat))}")
    imported = Imported()
    skipped = imported.rejected if skip_bad_rows else None
    if format == "toolalpaca":
        _take_instances(path, imported, skipped)
    elif format == "toolbench":
        _take_searches(path, imported)
    else:
        read = {"rrhf": _rrhf, "trice": _trice}[format]
        for place in read_rows(path, skipped):
            try:
                imported.rows.append(_written(read(place)))
            except ValueError as error:
                imported.rejected.append(f"row {place.number}: {error}")
    if not skip_bad_rows:
        total = len(imported.rows) + len(imported.rejected)
        usable(imported.rejected, total, path, "leave them out with --skip-bad-rows")
    if not imported.rows:
        empty = "its records have no Instances, the attempts that rows are made of" if format == "toolalpaca" else ""
        why = shown(imported.rejected) or empty or "it is empty"
        raise DataError(f"{path} has no row that can be used as {format}: {why}")
    return imported


def _written(row: Row) -> Row:
    """The row, if a file can hold it. Raises ValueError for half of a surrogate pair."""
    json.dumps(row, ensure_ascii=False).encode()
    return row


def _rrhf(place: Place) -> Row:
    query, responses, scores, origin = _responses(place.row)
    candidates = [
        recorded_candidate(source, score, [response], [{"role": "assistant", "content": response}])
        for response, score, source in zip(responses, scores, origin, strict=True)
    ]
    return recorded_row(_id(place), query, candidates)


def _trice(place: Place) -> Row:
    query, responses, scores, origin = _responses(place.row)
    answers = place.row.get("answer")
    if not isinstance(answers, list) or len(answers) != len(responses):
        raise ValueError(f"its answer is a list of {len(responses)}, one for each response, not {str(answers)[:80]}")
    told = [_told(answer) for answer in answers]
    candidates = [
        _trice_candidate(source, score, response, answer)
        for response, score, source, answer in zip(responses, scores, origin, told, strict=True)
    ]
    said = {found[1] for response in responses if (found := _BEGUN.search(response))}
    offered = [name for name in TRICE_TOOLS if name in said or re.search(rf"\b{name}\b", query)]
    gold = origin.index("gold") if "gold" in origin else None
    known: dict[str, Any] = {}
    if gold is not None:
        known = {"answer": told[gold] or None, "needs_tool": bool(_BEGUN.search(responses[gold]))}
    return recorded_row(_id(place), query, candidates, tools=[_trice_tool(name) for name in offered], **known)


def _trice_candidate(source: str, score: float, response: str, answer: str) -> Row:
    """A response as replies in the inline format: a call is closed, and followed by the answer that it came to."""
    found = _CALL.search(response)
    if found is None:
        begun = _BEGUN.search(response)
        messages: list[Message] = [{"role": "assistant", "content": response}]
        if begun:
            error = f"error: the call is not closed: {begun[1]}( needs its ')'"
            messages.append({"role": "tool", "name": UNREADABLE, "content": error, "status": "malformed"})
        return recorded_candidate(source, score, [response], messages)
    function = {"name": found[1], "arguments": {TRICE_TOOLS[found[1]]: found[2].strip()}}
    call = {"id": call_id(0, 0), "type": "function", "function": function}
    result: Message = {"role": "tool", "tool_call_id": call["id"], "name": found[1], "content": answer, "status": "ok"}
    if not answer:
        result |= {"content": "error: it gave no answer", "status": "tool_error"}
    messages = [
        {"role": "assistant", "content": response[: found.start()].strip(), "tool_calls": [call]},
        result,
        {"role": "assistant", "content": answer},
    ]
    replies = [response[: found.end()].removesuffix(")") + END_OF_CALL, ANSWER + answer]
    return recorded_candidate(source, score, replies, messages)


def _trice_tool(name: str) -> dict[str, Any]:
    argument = TRICE_TOOLS[name]
    schema = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return ToolSpec(name, f"TRICE's {name}.", schema).as_openai()


def _responses(row: Mapping[str, Any]) -> tuple[str, list[str], list[float], list[str]]:
    """Query, responses, their scores and their authors. Raises ValueError where they do not go together."""
    query = row.get("query")
    if not isinstance(query, str) or not query:
        raise ValueError(f"its query is a text, not {query!r}; it has {', '.join(row) or 'nothing'}")
    responses, scores = row.get("responses"), row.get("scores")
    if not isinstance(responses, list) or not responses or not all(isinstance(each, str) for each in responses):
        raise ValueError(f"its responses are a list of texts, not {str(responses)[:80]}")
    if not isinstance(scores, list) or not all(_is_number(score) for score in scores):
        raise ValueError(f"its scores are a list of numbers, not {str(scores)[:80]}")
    if len(scores) != len(responses):
        raise ValueError(f"it has {len(responses)} responses and {len(scores)} scores; each response has one")
    origin = row.get("origin")
    if origin is None:  # a column of Parquet that other rows fill
        origin = [f"response_{number}" for number in range(1, len(responses) + 1)]
    if not isinstance(origin, list) or len(origin) != len(responses):
        raise ValueError(f"its origin is a list of {len(responses)}, one for each response, not {str(origin)[:80]}")
    return query, responses, [float(score) for score in scores], list(_apart(map(str, origin)))


def _apart(names: Iterator[str]) -> Iterator[str]:
    """The names, those that come again with a number."""
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}_{seen[name]}"


def _is_number(score: Any) -> bool:
    if isinstance(score, bool) or not isinstance(score, int | float):
        return False
    try:
        return math.isfinite(score)
    except OverflowError:
        return False


def _told(answer: Any) -> str:
    """An answer as text: of several, as TRICE does, the first."""
    if isinstance(answer, list):
        answer = answer[0] if answer else None
    return "" if answer is None else str(answer)


def _id(place: Place) -> str:
    return str(place.row.get("id", f"{place.path.stem}-{place.number}"))


def _take_searches(path: Path, imported: Imported) -> None:
    for id, one in read_trees(path).items():
        try:
            imported.rows.append(_written(recorded_search(one, id)))
        except ValueError as error:
            imported.rejected.append(f"query {id}: {error}")


def _take_instances(path: Path, imported: Imported, skipped: list[str] | None) -> None:
    known: dict[int, dict[str, ToolSpec]] = {}
    for instance in read_instances(path, skipped):
        if instance.episode.stop != "answer" or not instance.task.prompt:
            reason = instance.episode.error or f"it ended with {instance.episode.stop}"
            imported.rejected.append(f"instance {instance.task.id}: it has no answer to learn from ({reason})")
            continue
        if id(instance.api) not in known:
            known[id(instance.api)] = _specs(instance.api)
        try:
            imported.rows.append(_written(_instance_row(instance, known[id(instance.api)])))
        except ValueError as error:
            imported.rejected.append(f"instance {instance.task.id}: {error}")


def _specs(api: Mapping[str, Any]) -> dict[str, ToolSpec]:
    """The tools of an API's document; none where there is no document that can be read."""
    document = api.get("Documentation")
    try:
        operations = read_openapi(document).operations if document else ()
    except DataError:
        operations = ()
    return {operation.name: operation.spec for operation in operations}


def _instance_row(instance: Instance, specs: Mapping[str, ToolSpec]) -> Row:
    format = ToolAlpacaFormat()
    task, episode = instance.task, instance.episode
    offered = dict(specs)
    for name in task.tools:
        offered.setdefault(name, _GET_DETAILS if name == _GET_DETAILS.name else ToolSpec(name, ""))
    replies = [_in_test_v1(turn.completion.text, format, bool(turn.calls)) for turn in episode.turns]
    candidate = recorded_candidate(episode.source, 1.0, replies, conversation(episode, format, tuple(offered.values())))
    return recorded_row(
        task.id,
        task.prompt.rpartition(_HINT)[0] or task.prompt,
        [candidate | {"status": status(episode)}],
        tools=[spec.as_openai() for spec in offered.values()],
        format=format.name,
        answer=episode.answer,
    )


def _in_test_v1(text: str, format: ToolAlpacaFormat, calls: bool) -> str:
    """A reply in the words of ``test_v1``, as the published training data has them, and stopped where it calls."""
    for marker in ("Action Input:", "Action:", "Final Answer:"):
        before, found, after = text.rpartition(f"\n{marker}")
        if found:
            text = f"{before}\n{'ASSISTANT Response:' if marker.startswith('Final') else f'ASSISTANT {marker}'}{after}"
    return text + format.stop[0] if calls else text
