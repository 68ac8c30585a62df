"""FuncQA: questions whose answers take one or several of thirteen arithmetic operations (ToolkenGPT)."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from executors.catalog import Catalog
from executors.errors import DataError, ToolError
from executors.tools.calculator import evaluate
from executors.tools.operations import OPERATIONS, Operation, operation_tools
from executors.types import ToolCall
from rl.config import Strict
from rl.data.spans import Marked, MarkedData, Span, Worked, last_place, with_calls, worked_example
from rl.data.tasks.benchmark import data_folder
from rollouts.formats.toolken import MATH, read_numbers
from rollouts.types import Task

VALIDATION_ROWS = 39
"""The last of the training rows, by position, as published."""
_CALL = re.compile(r"^(-?)<(\w+)>\((.*)\)\s*=?\s*(\S*)$")
_ANSWER = "\nA:"


class FuncQa(Strict):
    """FuncQA's texts and its one-hop and multi-hop questions."""

    kind: Literal["funcqa"] = "funcqa"

    def load(self) -> MarkedData:
        """Read the data set.

        Raises:
            DataError: it is not there or cannot be read.
        """
        folder = data_folder("funcqa")
        marked: list[Marked] = []
        shown: list[str] = []
        worked: list[Worked] = []
        rejected: list[str] = []
        rows = read_json(folder / "train.json")
        for number, row in enumerate(rows):
            try:
                marked.append(marked_text(row))
                arguments = [arguments_of(call) for call in row["tar_eq"]]
                shown.append(with_calls(marked[-1], arguments))
                if number < len(rows) - VALIDATION_ROWS and come_true(marked[-1], arguments):
                    worked += filter(None, [worked_example(marked[-1], arguments, MATH)])
            except DataError as error:
                rejected.append(f"row {number}: {error}")
                marked.append(Marked(str(row["text"]), ()))
                shown.append(marked[-1].text)
        tests = {"one_hop": _one_hop(folder / "funcqa_oh.json"), "multi_hop": _multi_hop(folder / "funcqa_mh.json")}
        tests |= {"one_hop_validation": _one_hop(folder / "funcqa_val.json")}
        held_out = {task.prompt.strip() for tasks in tests.values() for task in tasks}  # one stands in both
        return MarkedData(
            tools=OPERATIONS,
            catalog=Catalog(operation_tools()),
            train=tuple(marked[:-VALIDATION_ROWS]),
            validation=tuple(marked[-VALIDATION_ROWS:]),
            tests=tests,
            rejected=tuple(rejected),
            tasks=tuple(task for text in marked[:-VALIDATION_ROWS] if (task := _asked(text)) is not None),
            demonstrations=tuple(shown[:-VALIDATION_ROWS]),
            worked=tuple(one for one in worked if one.question not in held_out),
        )


def _asked(marked: Marked) -> Task | None:
    """The question of a training text, and its one result; None where there are several or none."""
    question, found, _ = marked.text.removeprefix("Q: ").partition(_ANSWER)
    if not found or len(marked.spans) != 1:
        return None
    span = marked.spans[0]
    return Task(
        id=f"funcqa-train-{hashlib.blake2b(marked.text.encode(), digest_size=6).hexdigest()}",
        prompt=question,
        answer=marked.text[span.start : span.end],
        tools=OPERATIONS,
        gold=ToolCall(span.tool, {}),
        needs_tool=True,
        labels={"operation": span.tool},
    )


def arguments_of(call: str) -> str:
    """The arguments of an annotation, parted by a comma and a space: of ``<add>(1,2)=3<eoe>`` they are ``1, 2``."""
    inside = call.partition("(")[2].rpartition("=")[0].strip().rstrip(")")
    return ", ".join(part.strip() for part in inside.split(","))


def come_true(marked: Marked, arguments: Sequence[str]) -> bool:
    """Whether every call, really made, comes within a hundredth of the result that the text has; some do not."""
    for span, inside in zip(marked.spans, arguments, strict=True):
        try:
            value = float(Operation(span.tool).value(read_numbers(inside)))
            said = float(re.sub(r"[$,]", "", marked.text[span.start : span.end]))
        except (ToolError, ValueError, OverflowError):
            return False
        if not math.isclose(value, said, rel_tol=0.01):
            return False
    return True


def marked_text(row: Mapping[str, Any]) -> Marked:
    """A training row with its results marked: where the copy of the text that has the calls in it puts them.

    Raises:
        DataError: a result is nowhere in the answer.
    """
    text = str(row["text"])
    start = text.find(_ANSWER) + len(_ANSWER) if _ANSWER in text else 0
    spans = []
    for call, said in zip(row["tar_eq"], row["tar_number"], strict=True):
        result = str(said).strip()
        place = _place_of(call, str(row.get("text_with_tools", "")), text, result, start)
        if place is None:
            raise DataError(f"the result {result!r} of {call!r} is not in the answer {text[start:]!r}")
        spans.append(Span(place, place + len(result), operation(call)))
        start = spans[-1].end
    return Marked(text, tuple(spans))


def _place_of(call: str, with_calls: str, text: str, result: str, start: int) -> int | None:
    """Where the call stands in the copy that has it, the result follows in the text; else its last place there."""
    before, found, _ = with_calls.partition(call)
    if found and text.startswith(stem := before.rstrip()):
        place = len(stem) + len(text[len(stem) :]) - len(text[len(stem) :].lstrip())
        if place >= start and text.startswith(result, place):
            return place
    return last_place(text, result, start)


def operation(call: str) -> str:
    """Which operation an annotation names, such as ``<add>(1, 2)=3<eoe>``.

    Raises:
        DataError: none of the thirteen.
    """
    match = re.search(r"[<\[](\w+)[>\]]", call)
    if match is None or match[1] not in OPERATIONS:
        raise DataError(f"{call!r} names none of FuncQA's operations: {', '.join(OPERATIONS)}")
    return match[1]


def read_call(annotation: str) -> tuple[bool, ToolCall]:
    """A gold call such as ``-<log>(0.1)=1``: whether its result is negated, and the call.

    Raises:
        DataError: it cannot be read.
        ToolError: one of its arguments is no number.
    """
    match = _CALL.match(annotation.replace("))", ")"))
    if match is None:
        raise DataError(f"{annotation!r} is no call such as '<add>(1, 2)=3'")
    values = [evaluate(part.strip()) for part in match[3].split(",")]
    numbers = [value if isinstance(value, int) else float(value) for value in values]
    return bool(match[1]), ToolCall(operation(annotation), {"numbers": numbers})


def _one_hop(path: Path) -> tuple[Task, ...]:
    tasks = []
    for number, row in enumerate(read_json(path)):
        negated, call = read_call(row["func"])
        labels = {"operation": call.tool, "negated": str(negated).lower()}
        tasks.append(_task(f"{path.stem}-{number}", row, labels, call))
    return tuple(tasks)


def _multi_hop(path: Path) -> tuple[Task, ...]:
    return tuple(
        _task(f"{path.stem}-{number}", row, {"hops": str(len(row["calculation"]))}, None)
        for number, row in enumerate(read_json(path))
    )


def _task(id: str, row: Mapping[str, Any], labels: Mapping[str, str], call: ToolCall | None) -> Task:
    return Task(
        id=id,
        prompt=str(row["question"]),
        answer=str(row["answer"]),
        tools=OPERATIONS,
        gold=call,
        needs_tool=True,
        labels=labels,
    )


def read_json(path: Path) -> list[Any]:
    """The items of a JSON list.

    Raises:
        DataError: there is none in the file.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} holds a {type(rows).__name__} and should hold a list")
    return rows
