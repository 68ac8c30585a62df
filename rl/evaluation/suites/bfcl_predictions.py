"""Files of answers to BFCL's questions, and what comes of scoring them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executors.errors import DataError
from rl.evaluation.intervals import Ratio, figure
from rl.evaluation.suites.bfcl import CATEGORIES, Call, Item, mistake
from rl.evaluation.suites.bfcl_python import python_calls

_ANSWERS = ("result", "prediction", "response", "calls")


@dataclass(frozen=True, slots=True)
class Answers:
    """What was answered, by question; None where it cannot be read as calls."""

    calls: Mapping[str, Sequence[Call] | None]
    notes: tuple[str, ...]
    """Rows that were odd."""


def read_answers(path: Path, items: Mapping[str, Item]) -> Answers:
    """Answers from JSON lines or a JSON list: ``id``, and ``result`` in Python's form or as JSON.

    Python's form is ``[f(a=1), g(b="x")]``; as JSON, a list of ``{name: arguments}``, of ``{"name", "arguments"}``, or
    of OpenAI's tool calls, the arguments an object or its text.

    Raises:
        DataError: the file cannot be read, or answers no question of BFCL's.
    """
    try:
        text = path.read_text(encoding="utf-8")
        rows = json.loads(text) if text.lstrip()[:1] == "[" else [json.loads(s) for s in text.splitlines() if s.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON lines: {error}") from error
    calls: dict[str, Sequence[Call] | None] = {}
    notes = []
    for number, row in enumerate(rows, start=1):
        id = row.get("id") if isinstance(row, dict) else None
        if not isinstance(id, str) or id not in items:
            notes.append(f"row {number} answers {id!r}, which is no question here; it is left out")
            continue
        if id in calls:
            notes.append(f"row {number} answers {id!r} once more; the first answer counts")
            continue
        found = next((row[key] for key in _ANSWERS if key in row), None)
        calls[id] = read_calls(found)
    if not calls:
        raise DataError(f"{path} answers none of the questions; a row is {{'id': 'simple_python_0', 'result': ...}}")
    return Answers(calls, tuple(notes))


def read_calls(result: Any) -> Sequence[Call] | None:
    """The calls of an answer; None where it is none."""
    if isinstance(result, str):
        try:
            read = json.loads(result.strip())
        except (ValueError, RecursionError):
            return python_calls(result)
        return read_calls(read) if isinstance(read, list | dict) else python_calls(result)
    if isinstance(result, Mapping):
        result = [result]
    if not isinstance(result, list):
        return None
    calls = [_json_call(one) for one in result]
    return None if None in calls else [call for call in calls if call is not None]


def _json_call(one: Any) -> Call | None:
    if isinstance(one, str):
        read = python_calls(one)
        return read[0] if read and len(read) == 1 else None
    if not isinstance(one, Mapping):
        return None
    if isinstance(one.get("function"), Mapping):
        one = one["function"]
    if "name" in one and "arguments" in one:
        one = {one["name"]: one["arguments"]}
    if len(one) != 1:
        return None
    ((name, arguments),) = one.items()
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return None
    return {str(name): arguments} if isinstance(arguments, Mapping) else None


def score(items: Mapping[str, Item], answers: Answers) -> dict[str, Any]:
    """By category and over all, how many answers are right; questions without an answer are wrong, and counted.

    A category that the file answers none of is left out.
    """
    wrong = {
        id: mistake(item, answers.calls[id]) if id in answers.calls else "there is no answer"
        for id, item in items.items()
    }
    answered = {items[id].category for id in answers.calls}
    figures: dict[str, Any] = {}
    for category in (*CATEGORIES, "overall"):
        ids = [id for id, item in items.items() if item.category in answered and category in (item.category, "overall")]
        if not ids:
            continue
        ratio = figure(Ratio([float(not wrong[id]) for id in ids]))
        figures[category] = {
            "n": len(ids),
            "correct": sum(not wrong[id] for id in ids),
            "accuracy": round(100 * ratio.value, 2),
            "low": round(100 * ratio.low, 2),
            "high": round(100 * ratio.high, 2),
            "unanswered": sum(id not in answers.calls for id in ids),
        }
    return {
        "figures": figures,
        "wrong": {id: told for id, told in wrong.items() if told and items[id].category in answered},
    }


def table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures as text."""
    lines = [f"{'category':<16}{'n':>6}{'correct':>9}{'accuracy':>10}   95%"]
    for name, one in figures.items():
        interval = f"[{one['low']:.1f}, {one['high']:.1f}]"
        lines.append(f"{name:<16}{one['n']:>6}{one['correct']:>9}{one['accuracy']:>9.2f}%   {interval}")
    return "\n".join(lines)
