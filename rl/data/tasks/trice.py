"""TRICE's own files: its raw and dev sets, what its teacher adds to them, and its stage-1 data.

A row has ``id``, a question (``input``, ``instruction`` or ``question``), an ``answer`` (a text, a number, or a list
of aliases), and perhaps a call, as ``tool`` or as ``output``: ``calculator((12/60)*50)``. The four tasks, and what
their calls are here:

    Math  calculator(expression)     QA    WikiSearch(term)      -> wiki_search(query)
    LAMA  QA(question)               -> question_answer(question)
    MLQA  translator(question)       -> translate(text); no teacher is needed, the argument is the question
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from executors.catalog import Catalog
from executors.errors import ConfigError
from executors.named import Reference, load_catalog
from executors.types import ToolCall
from rl.config import FilePath, Strict
from rl.data.rows import Row, read_rows, usable
from rl.data.tasks.benchmark import Benchmark, split_by_prompt
from rollouts.types import Task

TriceTask = Literal["Math", "QA", "LAMA", "MLQA"]

DATASETS = ("ASDiv", "SVAMP", "GSM8K", "TREx", "NaturalQuestions", "TriviaQA", "WebQuestions")
"""What an id may hold; it then says which data set a row is of."""


@dataclass(frozen=True, slots=True)
class _Tool:
    """What a task calls."""

    token: str
    """In TRICE's files."""
    name: str
    """Here."""
    argument: str


_TOOLS: Mapping[TriceTask, _Tool] = {
    "Math": _Tool("calculator", "calculator", "expression"),
    "QA": _Tool("WikiSearch", "wiki_search", "query"),
    "LAMA": _Tool("QA", "question_answer", "question"),
    "MLQA": _Tool("translator", "translate", "text"),
}
_SAID = re.compile(r"^\s*the answer is:?\s+(.*?)\.?\s*$", re.IGNORECASE | re.DOTALL)


class TriceFiles(Strict):
    """One of TRICE's four tasks, from its files (JSON lines or a JSON list)."""

    kind: Literal["trice"] = "trice"
    task: TriceTask
    path: FilePath
    """Rows to train on."""
    test: FilePath | None = None
    """Rows to report on; without them, and always for validation, the hash of the question says which are held out."""
    tools: list[Reference] = []
    """Where the task's tool comes from, such as ``{wiki_search: {path: passages.jsonl}}``; Math has its calculator."""
    instruction: str = ""
    """Stands before every question."""
    skip_bad_rows: bool = False
    """Whether rows that cannot be used are left out (counted and reported) rather than an error."""
    validation_share: float = Field(default=0.05, gt=0, lt=0.5)
    test_share: float = Field(default=0.2, gt=0, lt=0.5)
    """Of ``path``, where there is no ``test``."""

    @model_validator(mode="after")
    def _has_its_tool(self) -> "TriceFiles":
        if self.task != "Math" and not self.tools:
            name = _TOOLS[self.task].name
            raise ValueError(f"tools: task {self.task} calls {name}; say where it comes from, such as {{{name}: ...}}")
        return self

    def catalog(self) -> Catalog:
        """The task's tool.

        Raises:
            ConfigError: it is not among ``tools``, or takes another argument.
        """
        wanted = _TOOLS[self.task]
        catalog = load_catalog(self.tools or [wanted.name])
        found = next((tool for tool in catalog if wanted.argument in tool.spec.parameters.get("properties", {})), None)
        if found is None:
            raise ConfigError(
                f"tasks.tools: task {self.task} calls a tool that takes {wanted.argument!r}, as {wanted.name} does, "
                f"and there are {', '.join(catalog.names)}"
            )
        return Catalog([found])

    def load(self, seed: int) -> Benchmark:
        """Read the files.

        Raises:
            ConfigError: see ``catalog``.
            DataError: a file cannot be read, has bad rows that are not to be skipped, or leaves a split empty.
        """
        catalog = self.catalog()
        rejected: list[str] = []
        tasks = self._read(Path(self.path), catalog, rejected)
        splits = split_by_prompt(tasks, self.validation_share, self.test_share, self.path)
        train, test = splits["train"], splits["test"]
        if self.test is not None:
            train, test = train + test, tuple(self._read(Path(self.test), catalog, rejected))
            held_out = {task.prompt for task in test}
            train = tuple(task for task in train if task.prompt not in held_out)
        return Benchmark(
            catalog=catalog,
            demonstrations=train,
            train=train,
            validation=splits["validation"],
            test=test,
            rejected=tuple(rejected),
        )

    def _read(self, path: Path, catalog: Catalog, rejected: list[str]) -> list[Task]:
        tasks: dict[str, Task] = {}
        bad: list[str] = []
        total = 0
        for place in read_rows(path):
            total += 1
            try:
                task = self._task(place.row, place.number, catalog.names[0])
                if task.id in tasks:
                    raise ValueError(f"its id {task.id!r} stands on another row too")
                tasks[task.id] = task
            except ValueError as error:
                bad.append(str(place.error(str(error))))
        if not self.skip_bad_rows:
            usable(bad, total, path, "set tasks.skip_bad_rows: true to go on without them")
        rejected += bad
        return list(tasks.values())

    def _task(self, row: Row, number: int, tool: str) -> Task:
        question = next((row[key] for key in ("question", "input", "instruction") if row.get(key)), None)
        if not isinstance(question, str):
            raise ValueError(f"no question (it has {', '.join(row) or 'nothing'})")
        written = next((row[key] for key in ("tool", "output") if row.get(key)), None)
        gold = read_call(self.task, str(written), tool) if written is not None else None
        if gold is None and self.task == "MLQA":
            gold = ToolCall(tool, {_TOOLS["MLQA"].argument: question.rpartition("Question:")[2].strip()})
        answers = read_answers(row.get("answer"))
        if not answers and written is not None and gold is None and (said := _SAID.match(str(written))):
            answers = (said[1],)
        if not answers and gold is None:
            raise ValueError("neither an answer nor a call")
        name = str(row.get("id", f"{self.task}-{number}"))
        dataset = next((known for known in DATASETS if known in name), self.task)
        return Task(
            id=name,
            prompt=f"{self.instruction}\n{question}" if self.instruction else question,
            answer=answers[0] if answers else None,
            aliases=answers[1:],
            tools=(tool,),
            gold=gold,
            labels={"task": self.task, "dataset": dataset},
        )


def read_call(task: TriceTask, text: str, tool: str) -> ToolCall | None:
    """The call that a text of TRICE's makes, as TRICE finds it: from the first bracket to the last; None where none.

    What its calculator is given is written as Python has it: without commas between digits, and ``**`` for ``^``.

    Args:
        task: whose tool is looked for.
        text: such as ``calculator((12/60)*50)``.
        tool: what the tool is called here.
    """
    known = _TOOLS[task]
    found = re.search(rf"\b{known.token}\((.*)\)", text)
    if found is None:
        return None
    argument = found[1].strip()
    if task == "Math":
        argument = re.sub(r"(?<=\d),(?=\d)", "", argument).replace("^", "**")
    return ToolCall(tool, {known.argument: argument})


def read_answers(given: Any) -> tuple[str, ...]:
    """The answer and its aliases; a text is one answer, never one for each of its letters. Raises ValueError."""
    several: Sequence[Any] = given if isinstance(given, list) else [given]
    answers = [answer for answer in several if answer not in (None, "")]
    for answer in answers:
        if isinstance(answer, bool) or not isinstance(answer, (str, int, float)):
            raise ValueError(f"an answer is a text or a number, not {json.dumps(answer)[:80]}")
    return tuple(map(str, answers))
