"""VirtualHome plans as ToolkenGPT has them: verbs and objects of a household as tools.

The graphs of the scenes, in which a plan would be carried out, cannot be had. So a plan is judged by what its own
prompt says of the scene; whether it reaches its goal is not known, and no figure here says so.
"""

import ast
import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from executors.catalog import Catalog
from executors.errors import DataError
from executors.tool import Tool
from executors.types import ToolSpec
from rl.config import Strict
from rl.data.spans import Marked, MarkedData, Span, in_order
from rl.data.tasks.benchmark import data_folder
from rl.data.tasks.funcqa import read_json
from rollouts.types import Task

END = "[END]"
_SCENE = re.compile(r"I am in (\[.*?\])\. The objects I can manipulate are (\[.*?\])\.\nGoal:\n", re.DOTALL)
_PLAN = "\nPlan:\n"
_BEGIN = "I am in ["


@dataclass(frozen=True, slots=True)
class Scene:
    """What a prompt says of the household."""

    room: str
    objects: frozenset[str]
    """All that may be handled, rooms among them, without angle brackets."""


class VirtualHome(Strict):
    """VirtualHome's plans."""

    kind: Literal["virtualhome"] = "virtualhome"
    validation: int = Field(default=47, gt=0)
    """Rows at the end that are kept for validation, as published."""
    shots: bool = True
    """Whether the three worked tasks that stand before each plan are read, as published."""

    def load(self) -> MarkedData:
        """Read the data set. The validation rows are the test tasks too: the published ones need the scenes' graphs.

        Raises:
            DataError: it is not there or cannot be read.
        """
        folder = data_folder("virtualhome")
        rows = read_json(folder / "legal_train_v4_embedding.json")
        numbers: dict[str, int] = json.loads((folder / "func_dict.json").read_text())
        tools = tuple(sorted(numbers, key=numbers.__getitem__))
        marked = [marked_plan(row, shots=self.shots) for row in rows]
        split = len(rows) - self.validation
        return MarkedData(
            tools=tools,
            catalog=Catalog([step_tool(name) for name in tools]),
            train=tuple(marked[:split]),
            validation=tuple(marked[split:]),
            tests={"plans": tuple(_task(split + n, text, tools) for n, text in enumerate(marked[split:]))},
            template="[QUESTION]",
        )


def step_tool(token: str) -> Tool:
    """A verb or an object as a tool, under a name that a tool may have: ``[WALK]`` is ``verb_WALK``.

    Its result is its own text, and what stands behind it in a plan.
    """
    return Tool(ToolSpec(step_name(token), f"Write {token}."), Step(token), instant=True)


@dataclass(frozen=True, slots=True)
class Step:
    """What runs behind a verb or an object."""

    token: str

    def __call__(self) -> str:
        """Its text: an object ends a line."""
        return self.token + ("\n" if self.token.startswith("<") else "" if self.token == END else " ")


def step_token(name: str) -> str:
    """The way back from ``step_name``."""
    kind, _, word = name.partition("_")
    return f"[{word}]" if kind == "verb" else f"<{word}>"


def step_name(token: str) -> str:
    """The tool's name of a verb or an object."""
    return f"{'verb' if token.startswith('[') else 'object'}_{token.strip('[]<>')}"


def marked_plan(row: Any, *, shots: bool = True) -> Marked:
    """A row with every verb and object of its last task's plan marked.

    Args:
        row: of the data set.
        shots: whether the worked tasks before it stay.

    Raises:
        DataError: one of them is not where it should be.
    """
    text = str(row["text"])
    text = text if shots else text[text.rfind(_BEGIN) :]
    start = text.rfind(_PLAN) + len(_PLAN)
    places = in_order(text, row["tar_eq"], start)
    spans = [Span(*place, tool) for place, tool in zip(places, row["tar_eq"], strict=True)]
    return Marked(text, tuple(spans))


def scene_of(text: str) -> Scene:
    """The scene of the last task of a prompt.

    Raises:
        DataError: the prompt does not say.
    """
    found = list(_SCENE.finditer(text))
    if not found:
        raise DataError(f"no scene is told in {text[-200:]!r}; it reads \"I am in ['room']. The objects I can ...\"")
    room, objects = (ast.literal_eval(part) for part in found[-1].groups())
    return Scene(room[0], frozenset(objects))


def _task(number: int, marked: Marked, tools: tuple[str, ...]) -> Task:
    place = marked.text.rfind(_PLAN) + len(_PLAN)
    return Task(
        id=f"virtualhome-{number}",
        prompt=marked.text[:place],
        answer=" ".join(span.tool for span in marked.spans),
        tools=tuple(step_name(tool) for tool in tools),
        needs_tool=True,
    )
