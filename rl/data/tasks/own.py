"""Tasks and tools of a user's own Python file."""

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from executors.catalog import Catalog
from executors.errors import ConfigError, DataError
from executors.executor import Executor
from executors.named import load_catalog
from executors.own_file import load_own_file, own_frame
from rl.config import FilePath, Strict
from rl.data.tasks.benchmark import Benchmark, shown, split_by_prompt
from rl.data.tasks.jsonl import read_row
from rollouts.types import Task


class OwnFile(Strict):
    """Tasks from the ``tasks`` of a Python file: rows as in JSON lines, or ``Task`` values; a list, or a function.

    A function may take a ``seed``. ``tools`` of the file are functions, tools, environments' classes, or names of
    tools as a config writes them. The splits are made by the hash of the prompt.
    """

    kind: Literal["own"] = "own"
    path: FilePath
    validation_share: float = Field(default=0.1, gt=0, lt=0.5)
    test_share: float = Field(default=0.2, gt=0, lt=0.5)

    def catalog(self) -> Catalog:
        """The file's tools.

        Raises:
            ConfigError: the file fails, or its ``tools`` are none.
        """
        offered = getattr(load_own_file(self.path), "tools", None)
        if not isinstance(offered, list | tuple) or not offered:
            raise ConfigError(f"{self.path} has no list 'tools'; write tools = [my_function]")
        references = [one if isinstance(one, str | dict) else self._name(one) for one in offered]
        return load_catalog(references)

    def load(self, seed: int) -> Benchmark:
        """Read the tasks.

        Raises:
            ConfigError: the file has none, or fails.
            DataError: a row cannot be used, or a split is empty.
        """
        catalog = self.catalog()
        executor = Executor(catalog)
        tasks: dict[str, Task] = {}
        rejected: list[str] = []
        for number, row in enumerate(self._rows(seed), start=1):
            try:
                task = row if isinstance(row, Task) else read_row(row, number, executor)
            except ValueError as error:
                rejected.append(f"row {number}: {error}")
                continue
            if task.id in tasks:
                rejected.append(f"row {number}: its id {task.id!r} stands on another row too")
            tasks[task.id] = task
        if rejected:
            raise DataError(f"{len(rejected)} of the tasks of {self.path} cannot be used: {shown(rejected)}")
        splits = split_by_prompt(tasks.values(), self.validation_share, self.test_share, self.path)
        return Benchmark(
            catalog=catalog,
            demonstrations=tuple(task for task in splits["train"] if task.gold is not None or task.answer is not None),
            train=splits["train"],
            validation=splits["validation"],
            test=splits["test"],
        )

    def _rows(self, seed: int) -> Iterable[Any]:
        offered: Any = getattr(load_own_file(self.path), "tasks", None)
        if callable(offered):
            try:
                made: Any = offered(seed) if inspect.signature(offered).parameters else offered()
                offered = list(made)
            except Exception as error:
                raise ConfigError(f"{self.path}: tasks fails: {own_frame(error, Path(self.path).resolve())}") from error
        if not isinstance(offered, list | tuple) or not offered:
            raise ConfigError(f"{self.path} has no 'tasks': a list of rows with a prompt and an answer, or a function")
        return offered

    def _name(self, offered: Any) -> str:
        """What a config would call something of the file."""
        module = load_own_file(self.path)
        for name, value in vars(module).items():
            if value is offered:
                return f"{module.__name__}:{name}"
        raise ConfigError(f"{self.path}: tools holds {offered!r}, which has no name in the file; assign it to one")
