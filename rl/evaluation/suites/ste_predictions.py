"""Prediction files of STE: test items with what a model answered, and perhaps the flags that its answers were given."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from executors.errors import DataError
from executors.types import MalformedCall, ToolCall

_SHAPE = 'a prediction file maps each API to its items, {"API": [{"query", "action_input", "model_output"}, ...]}'

_UNANSWERED = "it has no model_output; it counts as an answer that cannot be read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One test item and the answer to it."""

    api: str
    """The expected one."""
    index: int
    """Among the items of its API, from 0."""
    query: str
    gold: Mapping[str, Any] | None
    """The expected arguments, as released; None where they cannot be read."""
    output: str
    """What the model wrote."""
    stored: tuple[ToolCall | MalformedCall, ...] | None = None
    """What was read of it when it was written (``parsed_result``), for models whose answers are not read again."""
    label: bool | None = None
    """Whether a judge found its arguments correct, where the file says so."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """The items of one file."""

    apis: tuple[str, ...]
    """Every API of the file, in its order: the names that a reply may call."""
    items: tuple[Prediction, ...]
    notes: tuple[str, ...] = field(default=())
    """What is odd about some rows, and what was made of it."""


def read_predictions(path: Path) -> Predictions:
    """A prediction file, in STE's form: items by API, or one list of items that name their API.

    An item without a readable answer counts as one that wrote nothing; one that is no item at all is left out. Both are
    noted.

    Raises:
        DataError: the file is not there, is not JSON, has another form, or has no item.
    """
    content = _loaded(path)
    if isinstance(content, list):
        content = _by_api(content, path)
    if not isinstance(content, Mapping):
        raise DataError(f"{path} holds a JSON {type(content).__name__}; {_SHAPE}")
    notes: list[str] = []
    items = [item for api, rows in content.items() for item in _items(api, rows, path, notes)]
    if not items:
        shown = f", such as: {notes[0]}" if notes else ""
        raise DataError(f"{path} has no prediction that could be scored{shown}; {_SHAPE}")
    if len(unanswered := [note for note in notes if note.endswith(_UNANSWERED)]) == len(items):
        raise DataError(f"{path} has {len(unanswered)} items and no answer to any of them; {_SHAPE}")
    return Predictions(tuple(content), tuple(items), tuple(notes))


def _loaded(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; name a prediction file") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); {_SHAPE}") from error


def _by_api(rows: list[Any], path: Path) -> dict[str, list[Any]]:
    grouped: dict[str, list[Any]] = {}
    for number, row in enumerate(rows):
        api = row.get("action") if isinstance(row, Mapping) else None
        if not isinstance(api, str):
            raise DataError(f"{path}, item {number}: it names no API as its 'action'; {_SHAPE}")
        grouped.setdefault(api, []).append(row)
    return grouped


def _items(api: str, rows: Any, path: Path, notes: list[str]) -> Iterator[Prediction]:
    if not isinstance(rows, list):
        raise DataError(f"{path}: {api!r} has a {type(rows).__name__} where its list of items should be; {_SHAPE}")
    for index, row in enumerate(rows):
        where = f"{api} {index}"
        if not isinstance(row, Mapping):
            notes.append(f"{where}: a {type(row).__name__} is no item; it is left out")
            continue
        gold = _object(row.get("action_input"))
        if gold is None:
            notes.append(f"{where}: its gold arguments cannot be read; no call of it counts as correct")
        if row.get("action", api) != api:
            notes.append(f"{where}: its action is {row['action']!r}; the API that it stands under is what is expected")
        stored = _stored(row.get("parsed_result"))
        output = row.get("model_output")
        if not isinstance(output, str):
            if stored is None:
                notes.append(f"{where}: {_UNANSWERED}")
            output = ""
        query = row.get("query")
        yield Prediction(
            api=api,
            index=index,
            query=query if isinstance(query, str) else "",
            gold=gold,
            output=output,
            stored=stored,
            label=_label(row),
        )


def _object(text: Any) -> Mapping[str, Any] | None:
    """Arguments that are an object, or the JSON of one."""
    if isinstance(text, str):
        try:
            text = json.loads(text)
        except (ValueError, RecursionError):
            return None
    return text if isinstance(text, Mapping) else None


def _stored(result: Any) -> tuple[ToolCall | MalformedCall, ...] | None:
    """The calls that a ``parsed_result`` has; none where it finished without one."""
    if not isinstance(result, Mapping):
        return None
    if result.get("finish"):
        return ()
    text = result.get("action_input")
    arguments = _object(text)
    action = result.get("action")
    if not result.get("parse_successful", True) or arguments is None or not isinstance(action, str):
        return (MalformedCall(str(text), "it was stored as one that could not be read"),)
    return (ToolCall(action, arguments),)


def _label(row: Mapping[str, Any]) -> bool | None:
    """What a judge said of the arguments: as its verdict was counted, or else by its own words."""
    counted = row.get("args_correct")
    if counted in (0, 1):
        return bool(counted)
    said = row.get("chatgpt_args_jud")
    return "No." not in said if isinstance(said, str) else None
