"""Toolsets and tasks of the verifiers library: by its interface, and with the library where it is installed."""

from dataclasses import dataclass
from typing import Any

import pytest

from executors.catalog import Catalog
from executors.errors import ConfigError, DataError
from executors.executor import Executor
from executors.types import Scene, ToolCall
from executors.verifiers import verifiers_rows, verifiers_tools


def marked(name: str | None = None):
    """What the library's ``@vf.tool`` does to a method."""

    def mark(function):
        function.tool, function.tool_name = True, name
        return function

    return mark


class ShelfTools:
    """A toolset: it is set up once, and what is on the shelf is its rollout's."""

    TOOL_PREFIX: str | None = ""

    def __init__(self, items: tuple[str, ...] = ()) -> None:
        self.state = list(items)

    async def setup(self) -> None:
        self.state.append("dust")

    @marked()
    def put(self, item: str) -> str:
        """Put an item on the shelf.

        Args:
            item: what.
        """
        self.state.append(item)
        return ", ".join(self.state)

    @marked("look")
    async def looked_at(self) -> list[str]:
        """Say what is on the shelf."""
        return self.state

    @marked()
    def hidden(self) -> str:
        """Not for everyone."""
        return ""

    def helper(self) -> None: ...


class BareTools(ShelfTools):
    TOOL_PREFIX = None

    def hidden(self) -> str:
        return "no tool here"


def test_marked_methods_are_tools_named_as_the_library_serves_them():
    assert [tool.name for tool in verifiers_tools(ShelfTools)] == [
        "shelf_tools_hidden",
        "shelf_tools_look",
        "shelf_tools_put",
    ]
    bare = verifiers_tools(BareTools)
    assert [tool.name for tool in bare] == ["look", "put"]
    assert bare[1].spec.description == "Put an item on the shelf."
    with pytest.raises(ConfigError, match="no method marked"):
        verifiers_tools(object)


async def test_each_episode_has_a_toolset_of_its_own_that_was_set_up():
    executor = Executor(Catalog(verifiers_tools(lambda: BareTools(("cup",)))))
    one, two = executor.open(Scene("a")), executor.open(Scene("b"))
    assert (await one.arun(ToolCall("put", {"item": "pen"}))).content == "cup, dust, pen"
    assert (await two.arun(ToolCall("look", {}))).content == '["cup", "dust"]'
    assert (await one.arun(ToolCall("put", {"thing": "pen"}))).status == "bad_call"


@dataclass
class Data:
    prompt_text: str
    id: str | None = None
    name: str | None = None
    system_prompt: str | None = None
    answer: Any = None


@dataclass
class Work:
    data: Data


def test_tasks_are_rows():
    taskset = [Work(Data("Count.", id="c", answer="3")), Work(Data("Sing.", name="song", system_prompt="Be brief."))]
    assert verifiers_rows(taskset) == [
        {"id": "c", "prompt": "Count.", "answer": "3"},
        {"id": "song", "prompt": "Be brief.\nSing."},
    ]
    with pytest.raises(DataError, match="task 0 of the taskset has no prompt"):
        verifiers_rows([Work(Data(""))])


async def test_the_librarys_own_classes_are_understood():
    reason = "the verifiers library (openai<3, mcp==2.0) is not installed, and cannot be beside this package"
    vf = pytest.importorskip("verifiers.v1", reason=reason)

    class Config(vf.ToolsetConfig): ...

    class Count(vf.State):
        total: int = 0

    class CounterTools(vf.Toolset[Config, Count]):
        @vf.tool
        def add(self, more: int) -> str:
            """Add.

            Args:
                more: how many.
            """
            self.state.total += more
            return str(self.state.total)

    executor = Executor(Catalog(verifiers_tools(lambda: CounterTools(Config()))))
    one, two = executor.open(Scene("a")), executor.open(Scene("b"))
    for session, total in ((one, "2"), (two, "2"), (one, "4")):
        assert (await session.arun(ToolCall("counter_tools_add", {"more": 2}))).content == total
