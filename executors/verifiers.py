"""Toolsets and tasks of the verifiers library (its v1 interface), as tools and rows of ours.

A toolset is an object whose methods are marked with ``@vf.tool``; each episode has one of its own here, so that what it
keeps in ``self.state`` is that episode's. The library need not be importable by this module, which asks only for the
interface. Where it cannot be installed beside Apprentice, a toolset runs in an environment of its own as the MCP server
that it is: ``docs/tools.md`` says how. Rewards stay with the library, which judges its own traces.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from executors.errors import ConfigError, DataError
from executors.signature import read_signature
from executors.tool import Limits, Tool, adapt
from executors.types import Scene


@dataclass(slots=True)
class Opened:
    """One episode's toolset."""

    environment: Any
    """The toolset, by the name that adapted methods look for."""


@dataclass(frozen=True, slots=True, eq=False)
class Toolsets:
    """Makes a toolset for each episode, and sets it up."""

    factory: Callable[[], Any]

    async def open(self, scene: Scene) -> Opened:
        """A fresh toolset after its ``setup()``; what it would set up for one task alone is not asked for."""
        toolset = self.factory()
        if (setup := getattr(toolset, "setup", None)) is not None:
            made = setup()
            if inspect.isawaitable(made):
                await made
        return Opened(toolset)


def verifiers_tools(factory: Callable[[], Any], *, limits: Limits = Limits()) -> list[Tool]:
    """The tools of a toolset, named as its own server names them: ``{prefix}_{method}``.

    Args:
        factory: makes one, such as ``lambda: SearchToolset(SearchConfig())``.
        limits: of each tool.

    Raises:
        ConfigError: it makes no toolset, or a method of it cannot be a tool.
    """
    kind = type(factory())
    marked = _marked(kind)
    if not marked:
        raise ConfigError(f"{kind.__name__} has no method marked with @vf.tool, so it offers no tool")
    prefix = _prefix(kind)
    state = Toolsets(factory)
    tools = []
    for method, function in marked.items():
        own = getattr(function, "tool_name", None) or method
        signature = read_signature(function, f"{prefix}_{own}" if prefix else own, method=True)
        tools.append(Tool(signature.spec, adapt(function, signature, method), False, limits, state))
    return tools


def verifiers_rows(taskset: Iterable[Any]) -> list[Mapping[str, Any]]:
    """The tasks of a taskset as rows: ``id``, ``prompt`` and, where its data has one, ``answer``.

    Args:
        taskset: that ends; of one without an end, ``taskset.take(1000)``.

    Raises:
        DataError: a task has no prompt, since its user would speak first.
    """
    rows = []
    for number, task in enumerate(taskset):
        data = task.data
        if not (prompt := data.prompt_text):
            raise DataError(f"task {number} of the taskset has no prompt; a user that speaks first is not supported")
        system = f"{data.system_prompt}\n" if getattr(data, "system_prompt", None) else ""
        row = {"id": data.id or data.name or str(number), "prompt": f"{system}{prompt}"}
        answer = getattr(data, "answer", None)
        rows.append(row if answer is None else {**row, "answer": answer})
    return rows


def _marked(kind: type) -> dict[str, Callable[..., Any]]:
    """The methods that are tools, in the library's order; one that is overridden without the mark is none."""
    named = {name for one in kind.__mro__ for name, found in vars(one).items() if hasattr(found, "tool")}
    found = {name: getattr(kind, name) for name in sorted(named)}
    return {name: function for name, function in found.items() if hasattr(function, "tool") and callable(function)}


def _prefix(kind: type) -> str:
    """What stands before the tools' names: the class's own word, nothing, or its name in snake case."""
    said = getattr(kind, "TOOL_PREFIX", "")
    if said is None:
        return ""
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in kind.__name__)
    return said or snake.lstrip("_")
