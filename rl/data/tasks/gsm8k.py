"""GSM8K's training and test questions, its annotations as gold calls.

A solution has several annotations, ``<<48/2=24>>``; TRICE makes one call. So the last annotation that comes to the
answer is written out: a number in it that an earlier annotation came to is replaced by that annotation, until only
numbers of the question are left, as far as they can be told. ``solutions: annotated`` keeps all calls instead, for the
annotated format.
"""

import hashlib
import math
import random
import re
from pathlib import Path
from typing import Literal

from pydantic import Field

from executors.catalog import Catalog
from executors.errors import DataError, ToolError
from executors.tools.calculator import calculate, calculator
from executors.types import ToolCall
from rewards.correctness import read_number
from rewards.ranking import GOLD
from rl.config import FolderPath, Strict
from rl.data.rows import Row, read_rows
from rl.data.tasks.benchmark import Benchmark, data_folder
from rollouts.formats.inline import AnnotatedFormat
from rollouts.types import Task

_ANNOTATION = re.compile(r"<<([^<>=]+)=([^<>]*)>>")
_LITERAL = re.compile(r"(?<![\d.])\d+(?:\.\d+)?(?![\d.])")
_MAX_CHARS = 200


class Gsm8k(Strict):
    """GSM8K with the calculator."""

    kind: Literal["gsm8k"] = "gsm8k"
    folder: FolderPath = ""
    """Where ``train.jsonl`` and ``test.jsonl`` are; ``gsm8k`` in ``$APPRENTICE_DATA`` by default."""
    solutions: Literal["one_call", "annotated"] = "one_call"
    """``one_call``: the annotations as one expression; ``annotated``: whole solutions, for the annotated format."""
    instruction: str = ""
    """Stands before every question."""
    train: int | None = Field(default=None, gt=0)
    """Training questions at most."""
    validation: int = Field(default=200, gt=0)
    """Of the training questions; never trained on, whatever the seed."""
    test: int | None = Field(default=None, gt=0)
    """Test questions at most."""

    def catalog(self) -> Catalog:
        """The calculator."""
        return Catalog([calculator])

    def load(self, seed: int) -> Benchmark:
        """Read the questions.

        Args:
            seed: of the order of the training questions, and of which are taken where not all are.

        Raises:
            DataError: the data is not there or cannot be read.
        """
        folder = Path(self.folder) if self.folder else data_folder("gsm8k")
        rejected: list[str] = []
        solutions: dict[str, str] = {}
        known = self._read(folder / "train.jsonl", rejected, solutions)
        test = self._read(folder / "test.jsonl", rejected, solutions)[: self.test]
        if len(known) <= self.validation:
            raise DataError(f"{folder} has {len(known)} training questions; {self.validation} are to validate")
        known.sort(key=lambda task: hashlib.blake2b(task.prompt.encode(), digest_size=8).digest())
        validation, train = known[: self.validation], known[self.validation :]
        random.Random(f"gsm8k/{seed}").shuffle(train)
        train = train[: self.train]
        annotated = self.solutions == "annotated"
        return Benchmark(
            catalog=self.catalog(),
            demonstrations=tuple(task for task in train if annotated or task.gold is not None),
            train=tuple(train),
            validation=tuple(validation),
            test=tuple(test),
            recordings={GOLD: {id: AnnotatedFormat.replies(text) for id, text in solutions.items()}}
            if annotated
            else {},
            rejected=tuple(rejected),
        )

    def _read(self, path: Path, rejected: list[str], solutions: dict[str, str]) -> list[Task]:
        tasks: dict[str, Task] = {}
        for place in read_rows(path):
            try:
                task, solution = self._task(place.row)
            except (KeyError, ValueError) as error:
                rejected.append(str(place.error(f"{type(error).__name__}: {error}")))
                continue
            tasks[task.id] = task
            solutions[task.id] = solution
        return list(tasks.values())

    def _task(self, row: Row) -> tuple[Task, str]:
        question, solution = str(row["question"]), str(row["answer"])
        answer = AnnotatedFormat().answer(solution).replace(",", "")
        if read_number(answer) is None:
            raise ValueError(f"its solution ends with no number but {answer[:40]!r}")
        expression = one_expression(solution, answer) if self.solutions == "one_call" else None
        task = Task(
            id=f"GSM8K-{hashlib.blake2b(question.encode(), digest_size=6).hexdigest()}",
            prompt=f"{self.instruction}\n{question}" if self.instruction else question,
            answer=answer,
            tools=(calculator.name,),
            gold=ToolCall(calculator.name, {"expression": expression}) if expression else None,
            labels={"task": "Math", "dataset": "GSM8K"},
        )
        return task, solution


def one_expression(solution: str, answer: str) -> str | None:
    """A solution's annotations as one expression that comes to its answer; None where there is none."""
    wanted = read_number(answer)
    earlier: dict[float, str] = {}
    found = None
    for match in _ANNOTATION.finditer(solution):
        result = read_number(match[2])
        expression = _LITERAL.sub(lambda number: _written_out(number[0], earlier), match[1].replace(",", "").strip())
        value = _value(expression)
        if result is None or value is None or not _close(value, result):
            continue
        earlier[result] = f"({expression})"
        if wanted is not None and _close(value, wanted):
            found = expression
    return found


def _written_out(number: str, earlier: dict[float, str]) -> str:
    expression = earlier.get(float(number), number)
    return expression if len(expression) <= _MAX_CHARS else number


def _value(expression: str) -> float | None:
    if len(expression) > 2 * _MAX_CHARS:
        return None
    try:
        return read_number(calculate(expression))
    except ToolError:
        return None


def _close(value: float, wanted: float) -> bool:
    return math.isclose(value, wanted, rel_tol=1e-6, abs_tol=1e-9)
