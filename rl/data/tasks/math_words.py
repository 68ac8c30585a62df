"""Word problems with their equations, as SVAMP, ASDiv and their kin publish them: JSON lines, a JSON list, or XML."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from pydantic import Field

from executors.catalog import Catalog
from executors.errors import DataError, ToolError
from executors.tools.calculator import calculate, calculator
from executors.types import ToolCall
from rewards.correctness import read_number
from rl.config import FilePath, Strict
from rl.data.rows import read_rows, usable
from rl.data.tasks.benchmark import Benchmark, split_by_prompt
from rollouts.types import Task

_MAX_BYTES = 50_000_000


class MathWords(Strict):
    """Word problems of one number each, from a file in SVAMP's form (``Body``, ``Question``, ``Equation``, ``Answer``),
    in ASDiv's (``body``, ``question``, ``formula``, ``answer``; XML or JSON), or with ``sQuestion``, ``lEquations`` and
    ``lSolutions``, as MultiArith and AddSub have them."""

    kind: Literal["math_words"] = "math_words"
    path: FilePath
    dataset: str = ""
    """What to report it as; the file's name by default."""
    instruction: str = ""
    """Stands before every question."""
    skip_bad_rows: bool = False
    """Whether rows that cannot be used are left out (counted and reported) rather than an error."""
    validation_share: float = Field(default=0.05, gt=0, lt=0.5)
    test_share: float = Field(default=0.2, gt=0, lt=0.5)

    def catalog(self) -> Catalog:
        """The calculator."""
        return Catalog([calculator])

    def load(self, seed: int) -> Benchmark:
        """Read the file; the hash of its text says which split a problem is in.

        Raises:
            DataError: it cannot be read, has bad rows that are not to be skipped, or leaves a split empty.
        """
        path = Path(self.path)
        tasks: dict[str, Task] = {}
        rejected: list[str] = []
        total = 0
        for number, row in _rows(path):
            total += 1
            try:
                task = self._task(row, number)
                if task.id in tasks:
                    raise ValueError(f"its id {task.id!r} stands on another row too")
                tasks[task.id] = task
            except ValueError as error:
                rejected.append(f"{path}:{number}: {error}")
        if not self.skip_bad_rows:
            usable(rejected, total, path, "set tasks.skip_bad_rows: true to go on without them")
        splits = split_by_prompt(tasks.values(), self.validation_share, self.test_share, self.path)
        return Benchmark(
            catalog=self.catalog(),
            demonstrations=tuple(task for task in splits["train"] if task.gold is not None),
            train=splits["train"],
            validation=splits["validation"],
            test=splits["test"],
            rejected=tuple(rejected),
        )

    def _task(self, row: Mapping[str, Any], number: int) -> Task:
        low = {str(key).lower(): value for key, value in row.items()}
        told = [str(low[key]).strip() for key in ("body", "question", "squestion") if low.get(key)]
        if not told:
            raise ValueError(f"no problem (it has {', '.join(map(str, row)) or 'nothing'})")
        question = " ".join(text if text[-1] in ".?!" else f"{text}." for text in told)
        answer = _first(low, "answer", "lsolutions")
        if read_number(answer) is None:
            raise ValueError(f"its answer is no number but {answer[:40]!r}")
        value = re.split(r"\s*[(;]", answer)[0].strip().replace(",", "")
        dataset = self.dataset or Path(self.path).stem
        expression = read_equation(_first(low, "equation", "formula", "lequations"), value)
        return Task(
            id=f"{dataset}-{_first(low, 'id', 'iindex', '@id') or number}",
            prompt=f"{self.instruction}\n{question}" if self.instruction else question,
            answer=value,
            tools=(calculator.name,),
            gold=ToolCall(calculator.name, {"expression": expression}) if expression else None,
            labels={"task": "Math", "dataset": dataset},
        )


def read_equation(text: str, answer: str) -> str | None:
    """The side of an equation that comes to the answer: ``7+2`` of ``7+2=9``, ``7.0+2.0`` of ``X=7.0+2.0``; or None."""
    wanted = read_number(answer)
    for side in text.split("="):
        expression = re.sub(r"\s+", "", side).replace(",", "")
        if not re.search(r"[-+*/]", expression):
            continue
        try:
            if read_number(calculate(expression)) == wanted:
                return expression
        except ToolError:
            continue
    return None


def _first(row: Mapping[str, Any], *names: str) -> str:
    """The first of these fields that says something; of a list its first entry."""
    for name in names:
        value = row.get(name)
        if isinstance(value, list):
            value = value[0] if value else None
        if value not in (None, ""):
            return str(value)
    return ""


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if path.suffix.lower() != ".xml":
        for place in read_rows(path):
            yield place.number, place.row
        return
    try:
        content = path.read_bytes()
        if len(content) > _MAX_BYTES or b"<!ENTITY" in content:
            raise DataError(f"{path} is larger than {_MAX_BYTES:,} bytes, or defines entities of its own")
        root = ElementTree.fromstring(content)
    except (OSError, ElementTree.ParseError) as error:
        raise DataError(f"{path} cannot be read as XML: {error}") from error
    for number, problem in enumerate(root.iter("Problem"), start=1):
        yield number, {**problem.attrib, **{part.tag: (part.text or "").strip() for part in problem}}
