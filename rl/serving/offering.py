"""The tools that a chat request offers: those of the policy's training, or, where it reads about its tools, any."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from executors.errors import DataError
from executors.names import is_name
from executors.schemas.parameters import Parameters
from executors.types import ToolSpec
from rl.serving.wire import ChatError, ChatRequest, NamedTool

_TOLD = 32
"""Names of tools in an error."""
_WORDS = frozenset({"description", "title", "default", "examples", "$comment"})
"""Of a schema, what holds no argument to anything."""


@dataclass(frozen=True, slots=True)
class Offering:
    """What a policy can be offered beside the tools of its training, and which of those where a request names none."""

    others: bool = False
    """Whether a request may describe tools of its own: the policy was trained to read what it is told of its tools."""
    chosen: Callable[[str], Sequence[str]] | None = None
    """By question, the tools that are meant where a request wants those of the training; by default all."""

    def names(self, question: str, specs: Sequence[ToolSpec]) -> tuple[str, ...]:
        """The tools that a question is offered which names none."""
        return tuple(spec.name for spec in specs) if self.chosen is None else tuple(self.chosen(question))

    def known(self, chat: ChatRequest, specs: Sequence[ToolSpec]) -> tuple[ToolSpec, ...]:
        """The tools that the policy knows as it reads a request: of tools with the same name, the request's.

        Raises:
            ChatError: the request describes a tool that is none.
        """
        if not self.others:
            return tuple(specs)
        described = _described(chat)
        told = {spec.name for spec in described}
        return (*described, *(spec for spec in specs if spec.name not in told))

    def offered(self, chat: ChatRequest, specs: Sequence[ToolSpec], question: str) -> tuple[ToolSpec, ...]:
        """The tools that the reply may call, as the policy knows them.

        Args:
            chat: the request.
            specs: the tools that the policy knows.
            question: of the request.

        Raises:
            ChatError: the request offers, or chooses, a tool that there is not.
        """
        known = {spec.name: spec for spec in specs}
        every = chat.apprentice.every_tool
        if every and chat.tools:
            raise ChatError(
                "'apprentice.every_tool' offers all tools; leave 'tools' out", param="apprentice.every_tool"
            )
        names = [*(self.names(question, specs) if every else ()), *_named(chat, known)]
        if isinstance(chat.tool_choice, NamedTool):
            name = chat.tool_choice.function.name
            if name not in names and not (every and name in known):
                raise ChatError(f"'tool_choice' names {name!r}, which 'tools' does not offer", param="tool_choice")
            return (known[name],)
        if chat.tool_choice == "required" and not names:
            raise ChatError("'tool_choice' is 'required' and 'tools' offers none", param="tool_choice")
        return () if chat.tool_choice == "none" else tuple(spec for spec in specs if spec.name in names)


def _named(chat: ChatRequest, known: Mapping[str, ToolSpec]) -> list[str]:
    """The names of the tools in a request. Raises ChatError where one is not as the policy knows it."""
    for index, tool in enumerate(chat.tools):
        name = tool.function.name
        if name not in known:
            there = ", ".join([*known][:_TOLD]) or "none"
            more = f" and {len(known) - _TOLD} more" if len(known) > _TOLD else ""
            raise ChatError(
                f"this policy was not trained with a tool {name!r}; it knows {there}{more}",
                param=f"tools[{index}].function.name",
                code="unsupported_value",
            )
        if other := _other(tool.function.parameters, known[name].parameters):
            raise ChatError(
                f"{name!r} takes the parameters that the policy was trained with: {other}",
                param=f"tools[{index}].function.parameters",
                code="unsupported_value",
            )
    return [tool.function.name for tool in chat.tools]


def _other(given: Mapping[str, Any], trained: Mapping[str, Any]) -> str:
    """What a request asks of a tool's parameters that the policy does not know of them; empty where that is nothing.

    A request may leave out what it knows, and tell of it in other words.
    """
    known, asked = trained.get("properties", {}), given.get("properties", {})
    if not isinstance(asked, Mapping) or set(asked) != set(known):
        return ", ".join(known) or "none"
    for name, schema in asked.items():
        keys = schema.keys() - _WORDS if isinstance(schema, Mapping) else ()
        there = known[name] if isinstance(known[name], Mapping) else {}
        differ = sorted(key for key in keys if schema[key] != there.get(key))
        if differ:
            return f"{differ[0]!r} of {name!r} is {json.dumps(there.get(differ[0]))} there"
    required = given.get("required", [])
    more = [name for name in required if name not in trained.get("required", [])] if isinstance(required, list) else []
    return f"{more[0]!r} may be left out there" if more else ""


def _described(chat: ChatRequest) -> list[ToolSpec]:
    """The tools of a request as it describes them. Raises ChatError where one is none."""
    found: dict[str, ToolSpec] = {}
    for index, tool in enumerate(chat.tools):
        function, here = tool.function, f"tools[{index}].function"
        if not is_name(function.name):
            told = f"{function.name!r} cannot be a tool's name: that is 1 to 64 letters, digits, _ and -"
            raise ChatError(told, param=f"{here}.name")
        if function.name in found:
            raise ChatError(f"two tools are named {function.name!r}", param=f"{here}.name")
        try:
            Parameters(function.parameters)
        except DataError as error:
            raise ChatError(str(error), param=f"{here}.parameters") from error
        if not all(isinstance(schema, dict) for schema in function.parameters.get("properties", {}).values()):
            raise ChatError("each of its properties has to be a schema of its own", param=f"{here}.parameters")
        found[function.name] = ToolSpec(function.name, function.description, function.parameters)
    return list(found.values())
