"""Scores ToolkenGPT's inference logs on FuncQA: the answers by its metrics and by a corrected reading, and the calls.

A line of such a log is ``{"case_idx", "question", "func_calls", "generation", "status"}``; see ToolkenGPT, section 4.1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from executors.errors import DataError
from rl.config import Strict
from rl.data.rows import read_rows
from rl.data.tasks.funcqa import FuncQa, operation
from rl.evaluation.intervals import Ratio, figures
from rl.evaluation.toolken import answer_ratios
from rollouts.types import Task

Questions: TypeAlias = Literal["one_hop", "multi_hop", "one_hop_validation"]
_MARKERS: Mapping[str, str] = {"multi_hop": "####", "enlarged": "####"}
_MARKER = "answer is"


class FuncQaOptions(Strict):
    """Which questions a log answers."""

    questions: Questions = "one_hop"
    marker: str | None = None
    """What stands before an answer: by default ``####`` of multi-hop questions and ``answer is`` of others, as
    published."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log."""

    generation: str
    calls: tuple[str, ...]
    failed: bool
    """Whether its status is anything but ``success``."""


def score(file: Path, options: FuncQaOptions) -> dict[str, Any]:
    """The figures of a log: by name, each with its interval; and notes on odd lines.

    Questions that the log does not answer count as wrong.

    Raises:
        DataError: the data set or the log cannot be read, or the log is of other questions.
    """
    tasks = FuncQa().load().tests[options.questions]
    lines, notes = _read(file, tasks)
    marker = options.marker or marker_of(options.questions)
    texts = [lines[n].generation if n in lines else "" for n in range(len(tasks))]
    ratios = answer_ratios(texts, [str(task.answer) for task in tasks], marker)
    ratios["failed"] = Ratio([float(n not in lines or lines[n].failed) for n in range(len(tasks))])
    ratios["called"] = Ratio([float(n in lines and bool(lines[n].calls)) for n in range(len(tasks))])
    known = [(n, task.gold.tool) for n, task in enumerate(tasks) if task.gold is not None]
    if known:
        ratios["first_tool"] = Ratio([float(_first(lines.get(n)) == tool) for n, tool in known])
    return told(ratios, {"n": len(tasks), "answered": len(lines)}) | {"notes": notes}


def marker_of(questions: str) -> str:
    """What stands before the answers to a set of questions as published: FuncQA's, and GSM8K-XL's ``enlarged``."""
    return _MARKERS.get(questions, _MARKER)


def told(ratios: Mapping[str, Ratio], counts: Mapping[str, int]) -> dict[str, Any]:
    """What a suite says of some ratios: counts, plain values, ``intervals``, and ``text`` to be read."""
    measured = {name: figure.as_json() for name, figure in figures(ratios).items()}
    head = ", ".join(f"{name} {count}" for name, count in counts.items())
    rows = [f"{n:<16} {one['value']:.3f}  [{one['low']:.3f}, {one['high']:.3f}]" for n, one in measured.items()]
    plain = {name: one["value"] for name, one in measured.items()}
    return {**counts, **plain, "intervals": measured, "text": "\n".join([head, *rows])}


def _read(file: Path, tasks: Sequence[Task]) -> tuple[dict[int, Line], list[str]]:
    lines: dict[int, Line] = {}
    notes: list[str] = []
    for found in read_rows(file):
        row = found.row
        place = row.get("case_idx")
        if not isinstance(place, int) or not 0 <= place < len(tasks):
            raise found.error(f"case_idx is {place!r} and there are questions 0 to {len(tasks) - 1}")
        if _plain(row.get("question", tasks[place].prompt)) != _plain(tasks[place].prompt):
            raise found.error(
                f"question {place} is another one here; the log is of other questions: see --set questions=multi_hop"
            )
        if place in lines:
            notes.append(f"{file}:{found.number}: question {place} again; the last line counts")
        calls = tuple(map(str, row.get("func_calls") or ()))
        generation = str(row.get("generation") or "").replace("\\n", "\n")
        lines[place] = Line(generation, calls, row.get("status", "success") != "success")
    if len(lines) < len(tasks):
        notes.append(f"{len(tasks) - len(lines)} of {len(tasks)} questions have no line, and count as wrong")
    return lines, notes


def _first(line: Line | None) -> str | None:
    try:
        return operation(line.calls[0]) if line is not None and line.calls else None
    except DataError:
        return None


def _plain(text: object) -> str:
    return " ".join(str(text).replace("\\n", " ").split())
