"""A user's own questions: JSON lines with a prompt and an answer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from executors.catalog import Catalog
from executors.errors import DataError, UnknownToolError
from executors.executor import Executor
from executors.named import Reference, load_catalog
from executors.types import ToolCall
from rl.config import FilePath, Strict
from rl.data.tasks.benchmark import Benchmark, shown, split_by_prompt
from rollouts.types import Task


class JsonLines(Strict):
    """Tasks from a file: a line is ``{"prompt": ..., "answer": ...}``.

    ``question`` or ``input`` may stand for ``prompt``; ``answer`` may be a list, whose further entries are aliases;
    ``id``, ``call`` (``{"tool": ..., "arguments": {...}}``: the expected call), ``level`` and ``labels`` (what an
    environment's ``reset`` is given by name, such as a ``seed``) are optional. The splits
    are made by the hash of the prompt.
    """

    kind: Literal["jsonl"] = "jsonl"
    path: FilePath
    tools: list[Reference] = Field(default_factory=lambda: ["calculator"])
    """Built-ins by name, ``package.module:function``, ``openapi:PATH`` and the like, some with settings; see
    docs/tools.md."""
    skip_bad_rows: bool = False
    """Whether rows that cannot be used are left out (counted and reported) rather than an error."""
    validation_share: float = Field(default=0.1, gt=0, lt=0.5)
    test_share: float = Field(default=0.2, gt=0, lt=0.5)

    def catalog(self) -> Catalog:
        """The tools by name.

        Raises:
            ConfigError: there is no such tool.
        """
        return load_catalog(self.tools)

    def load(self, seed: int) -> Benchmark:
        """Read the file.

        Raises:
            DataError: it is missing, or has bad rows that are not to be skipped, or leaves a split empty.
        """
        catalog = self.catalog()
        tasks, rejected = read_tasks(Path(self.path), catalog)
        if rejected and not self.skip_bad_rows:
            raise DataError(
                f"{len(rejected)} of {len(tasks) + len(rejected)} rows of {self.path} cannot be used: "
                f"{shown(rejected)}. Mend them, or set tasks.skip_bad_rows: true to go on without them"
            )
        splits = split_by_prompt(tasks, self.validation_share, self.test_share, self.path)
        return Benchmark(
            catalog=catalog,
            demonstrations=splits["train"],
            train=splits["train"],
            validation=splits["validation"],
            test=splits["test"],
            rejected=tuple(rejected),
        )


def read_tasks(path: Path, catalog: Catalog) -> tuple[list[Task], list[str]]:
    """The tasks of a file, and why other rows are none.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        lines = path.read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}; tasks.path names a file of JSON lines") from error
    executor = Executor(catalog)
    tasks: dict[str, Task] = {}
    rejected: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            task = read_row(json.loads(line), number, executor)
            if task.id in tasks:
                raise ValueError(f"its id {task.id!r} stands on another row too")
            tasks[task.id] = task
        except ValueError as error:
            rejected.append(f"row {number}: {error}")
    return list(tasks.values()), rejected


def read_row(row: Any, number: int, executor: Executor) -> Task:
    """The task of a row.

    Args:
        row: as read from JSON.
        number: of the row, from 1: its id, where it has none.
        executor: of the tools that may be called.

    Raises:
        ValueError: it is none; the message says why.
    """
    if not isinstance(row, dict):
        raise ValueError(f"a row is an object, not a {type(row).__name__}")
    prompt = next((row[key] for key in ("prompt", "question", "input") if row.get(key)), None)
    if not isinstance(prompt, str):
        raise ValueError(f"no prompt (it has {', '.join(row) or 'nothing'})")
    answers = _answers(row.get("answer"))
    gold = _call(row["call"], executor) if row.get("call") else None
    if not answers and gold is None:
        raise ValueError("no answer")
    return Task(
        id=str(row.get("id", f"row-{number}")),
        prompt=prompt,
        answer=answers[0] if answers else None,
        aliases=answers[1:],
        tools=executor.catalog.names,
        gold=gold,
        labels=_labels(row),
    )


def _labels(row: Mapping[str, Any]) -> dict[str, str]:
    given = row.get("labels") or {}
    if not isinstance(given, Mapping) or any(isinstance(value, dict | list) for value in given.values()):
        raise ValueError("labels are names with a text or a number each")
    level = {"level": row["level"]} if "level" in row else {}
    return {str(key): str(value) for key, value in {**given, **level}.items()}


def _answers(given: Any) -> tuple[str, ...]:
    """The answer and its aliases; null and an empty text are none."""
    answers = [answer for answer in (given if isinstance(given, list) else [given]) if answer not in (None, "")]
    for answer in answers:
        if isinstance(answer, bool) or not isinstance(answer, (str, int, float)):
            raise ValueError(f"an answer is a text or a number, not {json.dumps(answer)[:80]}")
    return tuple(map(str, answers))


def _call(call: Any, executor: Executor) -> ToolCall:
    if (
        not isinstance(call, dict)
        or not isinstance(call.get("tool"), str)
        or not isinstance(call.get("arguments"), dict)
    ):
        raise ValueError('a call reads {"tool": name, "arguments": {...}}')
    made = ToolCall(call["tool"], dict(call["arguments"]))
    try:
        problem = executor.problem(made)
    except UnknownToolError as error:
        problem = str(error)
    if problem:
        raise ValueError(f"its call: {problem}")
    return made
