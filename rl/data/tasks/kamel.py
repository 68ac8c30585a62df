"""KAMEL as ToolkenGPT uses it: 234 relations of Wikidata as tools, which are chosen and never run."""

import json
import random
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from executors.catalog import Catalog
from executors.errors import DataError
from executors.tool import Tool
from executors.types import ToolCall, ToolSpec
from rl.config import Strict
from rl.data.spans import Marked, MarkedData, Span, Worked, last_place
from rl.data.tasks.benchmark import data_folder
from rl.data.tasks.funcqa import read_json
from rollouts.formats.toolken import QUESTION
from rollouts.types import Task

TEMPLATE = f"Question: {QUESTION}\nAnswer: The answer is"
_CALL = re.compile(r'<f>(P\d+)\((.*)\)="?(.*?)"?</f>', re.DOTALL)


class Kamel(Strict):
    """KAMEL's synthetic training sentences and its questions."""

    kind: Literal["kamel"] = "kamel"
    relations: Literal[30, 60, 100, 234] = 30
    """How many are offered: the first so many."""
    per_tool: int | None = Field(default=None, gt=0)
    """Training sentences of each relation at most, drawn by the seed; all by default."""
    validation: int = Field(default=1000, ge=0)
    """Of all training rows, those at the end that are kept for validation, as published."""
    seed: int = 0

    def load(self) -> MarkedData:
        """Read the data set; training texts of relations that are not offered are left out.

        Raises:
            DataError: it is not there or cannot be read.
        """
        folder = data_folder("kamel")
        numbers: dict[str, int] = _mapping(folder / "func_dict.json")
        about: dict[str, str] = _mapping(folder / "api_desc.json")
        tools = tuple(sorted(numbers, key=numbers.__getitem__)[: self.relations])
        rejected: list[str] = []
        marked: list[Marked | None] = []
        rows = read_json(folder / "train_clean.json")
        for number, row in enumerate(rows):
            text = marked_sentence(row)
            if text is None:
                rejected.append(f"row {number}: the result of {row['call'][0]!r} is not in its text")
            marked.append(text)
        split = len(marked) - self.validation
        pairs = zip(rows[:split], marked, strict=False)
        offered = frozenset(tools)
        every = [text for text in marked[:split] if text and text.spans[0].tool in offered]
        train = few(every, self.per_tool, self.seed)
        return MarkedData(
            tools=tools,
            catalog=Catalog([relation_tool(name, about.get(name, "")) for name in tools]),
            train=tuple(train),
            tasks=tuple(task for n, text in enumerate(train) if (task := _asked(n, text, tools)) is not None),
            validation=tuple(text for text in marked[split:] if text and text.spans[0].tool in offered),
            tests={"questions": _questions(folder / f"test_first_{self.relations}.json", tools)},
            rejected=tuple(rejected),
            template=TEMPLATE,
            worked=tuple(one for row, text in pairs if text and (one := _worked(row, text))),
        )


def relation_tool(name: str, about: str) -> Tool:
    """A relation as a tool without parameters. Choosing it is all there is: no knowledge base comes with the data."""
    return Tool(ToolSpec(name, about), chosen, instant=True)


def chosen() -> str:
    """What a tool says that is only chosen: nothing."""
    return ""


def marked_sentence(row: Any) -> Marked | None:
    """A synthetic sentence with its result marked; None where the result is not in it."""
    match = _CALL.fullmatch(str(row["call"][0]))
    if match is None:
        return None
    text, result = str(row["text"]), match[3].strip()
    for said in (result, re.sub(r"^.*?P\d+\s*", "", result)):  # some name the relation where the text has a word
        place = last_place(text, said)
        if said and place is not None:
            return Marked(text, (Span(place, place + len(said), match[1]),))
    return None


def few(texts: list[Marked], per_tool: int | None, seed: int) -> list[Marked]:
    """At most so many texts of each tool, drawn by the seed, in the order that they stood in."""
    if per_tool is None:
        return texts
    by_tool: dict[str, list[int]] = {}
    for index, text in enumerate(texts):
        by_tool.setdefault(text.spans[0].tool, []).append(index)
    generator = random.Random(f"kamel/{seed}")
    kept = [i for places in by_tool.values() for i in generator.sample(places, min(per_tool, len(places)))]
    return [texts[index] for index in sorted(kept)]


def _asked(number: int, marked: Marked, tools: tuple[str, ...]) -> Task | None:
    """The question that a sentence begins with; None where it begins with none."""
    question, found, _ = marked.text[: marked.spans[0].start].partition("?")
    if not found:
        return None
    return Task(
        id=f"kamel-train-{number}",
        prompt=f"{question}?",
        answer=marked.text[marked.spans[0].start : marked.spans[0].end],
        tools=tools,
        gold=ToolCall(marked.spans[0].tool, {}),
        needs_tool=True,
        labels={"relation": marked.spans[0].tool},
    )


def _worked(row: Any, marked: Marked) -> Worked | None:
    """The question that a sentence begins with, answered in the published form: by the result alone, or by its call."""
    span, match = marked.spans[0], _CALL.fullmatch(str(row["call"][0]))
    question, found, _ = marked.text[: span.start].partition("?")
    if not found or match is None:
        return None
    result = marked.text[span.start : span.end]
    subject = match[2].strip(' "')
    return Worked(
        question=f"{question}?",
        answer=result,
        called=f"<{span.tool}>({subject})={result}",
        result=result,
        tools=(span.tool,),
    )


def _questions(path: Path, tools: tuple[str, ...]) -> tuple[Task, ...]:
    tasks = []
    for number, row in enumerate(read_json(path)):
        answers = [text for answer in row["answer"] for text in (answer["chosen"], *answer["alternative"]) if text]
        first, *others = dict.fromkeys(map(str, answers))
        tasks.append(
            Task(
                id=f"{path.stem}-{number}",
                prompt=str(row["question"]),
                answer=first,
                aliases=tuple(others),
                tools=tools,
                gold=ToolCall(str(row["api"]), {}),
                needs_tool=True,
                labels={"relation": str(row["api"])},
            )
        )
    return tuple(tasks)


def _mapping(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__} and should hold a mapping")
    return content
