"""GSM8K-XL: GSM8K's questions with numbers made large, and training texts rebuilt from GSM8K's own annotations.

The published training file is not to be had. It was made of the solutions of GSM8K each of whose calculations takes one
kind of operation: there are 6,056 such in GSM8K's training set.
"""

import ast
import json
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from executors.catalog import Catalog
from executors.errors import DataError
from executors.tools.operations import OPERATIONS, operation_tools
from rl.config import Strict
from rl.data.spans import Marked, MarkedData, Span, worked_example
from rl.data.tasks.benchmark import data_folder
from rl.data.tasks.funcqa import come_true
from rollouts.formats.toolken import QUESTION
from rollouts.types import Task

TEMPLATE = f"Question: {QUESTION}\nAnswer:"
TOOLS = OPERATIONS[:4]
_NAMES: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.FloorDiv: "divide",
}
_ANNOTATION = re.compile(r"<<([^<>]*)=([^<>=]*)>>")


class Gsm8kXl(Strict):
    """GSM8K-XL's questions, and marked solutions of GSM8K's."""

    kind: Literal["gsm8k_xl"] = "gsm8k_xl"
    validation: int = Field(default=1000, gt=0)
    """Rows at the end that are kept for validation, as published."""

    def load(self) -> MarkedData:
        """Read both data sets.

        Raises:
            DataError: one is not there or cannot be read.
        """
        read = [pair for row in _rows(data_folder("gsm8k") / "train.jsonl") if (pair := _solved(row))]
        marked = [text for text, _ in read]
        tests = tuple(_task(n, row) for n, row in enumerate(_rows(data_folder("gsm8k_xl") / "test.jsonl")))
        return MarkedData(
            tools=TOOLS,
            catalog=Catalog(operation_tools(TOOLS)),
            train=tuple(marked[: -self.validation]),
            validation=tuple(marked[-self.validation :]),
            tests={"enlarged": tests},
            template=TEMPLATE,
            worked=tuple(
                one
                for text, arguments in read[: -self.validation]
                if len(text.spans) == len(arguments) and come_true(text, arguments)
                if (one := worked_example(text, arguments, TEMPLATE))
            ),
        )


def marked_solution(row: Any) -> Marked | None:
    """A solution of GSM8K's without its annotations, what each gave marked; None where one mixes operations.

    It is one line, as what a policy writes ends with its line.
    """
    solved = _solved(row)
    return solved[0] if solved else None


def _solved(row: Any) -> tuple[Marked, list[str]] | None:
    """A marked solution, and the arguments of each of its annotations, of which a few give what is not written."""
    solution = str(row["answer"]).replace("\n", " ")
    text, end, spans, arguments = f"{TEMPLATE.replace(QUESTION, row['question'])} ", 0, [], []
    for match in _ANNOTATION.finditer(solution):
        tool = only_operation(match[1])
        if tool is None:
            return None
        text += solution[end : match.start()]
        end = match.end()
        result = match[2].strip()
        written = _written(solution, end, result)
        arguments.append(", ".join(re.findall(r"[\d.]+%?", match[1])))
        if written:
            spans.append(Span(len(text), len(text) + len(written), tool))
    text += solution[end:]
    return (Marked(text, tuple(spans)), arguments) if end else None


def only_operation(expression: str) -> str | None:
    """The one operation that an expression takes between its numbers; None where it takes several or none."""
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    kinds = {type(node.op) for node in ast.walk(tree) if isinstance(node, ast.BinOp)}
    return _NAMES.get(kinds.pop()) if len(kinds) == 1 else None


def _written(solution: str, place: int, result: str) -> str:
    """The result as the solution writes it there: as annotated, or with thousands separated, or with zeros added."""
    match = re.compile(r"[-+]?\$?(?:\d[\d,]*)?(?:\.\d+)?").match(solution, place)
    said = match[0].rstrip(",") if match else ""
    if said and _number(said) is not None and _number(said) == _number(result):
        return said
    return result if result and solution.startswith(result, place) else ""


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", "").replace("$", "").rstrip("%"))
    except ValueError:
        return None


def fill(template: str, values: list[Any]) -> str:
    """A question with its numbers in their places: ``{v_1}`` is the first."""
    return re.sub(r"\{v_(\d+)\}", lambda match: _plain(values[int(match[1]) - 1]), template)


def _plain(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def chain(row: Any) -> list[tuple[str, float]]:
    """The steps of an enlarged question: an expression each, and what it gives."""
    steps = [step.rpartition("=") for step in row["enhanced_process"]]
    return [(expression.strip(), float(result)) for expression, _, result in steps]


def _task(number: int, row: Any) -> Task:
    return Task(
        id=f"gsm8k-xl-{number}",
        prompt=fill(row["question"], row["enhanced_v"] or row["v"]),  # one question has words in the places
        answer=_plain(float(row["enhanced_result"])),
        tools=TOOLS,
        needs_tool=True,
        labels={"steps": str(len(row["enhanced_process"]))},
    )


def _rows(path: Path) -> list[Any]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
