"""ToolGen's attempts: a thought, the token of a tool, its documentation, its arguments, what it says; and so on.

A tool's documentation is read only once its token stands there: naming a tool calls ``describe``, and the reply after
that is the arguments of the tool that was named. ``<<Finish>>`` stands before the answer.
"""

import json
from collections.abc import Sequence
from typing import Any

from executors.types import MalformedCall, ToolCall, ToolSpec
from rollouts.formats import Format
from rollouts.types import Force, Task, Turn

ACTION = "Action:"
FINISH = "<<Finish>>"
DESCRIBE = "describe"
"""The tool that documents the others."""
GIVE_UP = "give_up_and_restart"


class AtomicFormat(Format):
    """ToolGen's grammar. Which tool a reply's arguments are of is the policy's to say, who named it."""

    name = "atomic"
    INPUT = "\nInput: "
    OBSERVATION = "\nObservation: "

    def __init__(self, instruction: str = "", *, max_observation: int = 1024, max_documentation: int = 1024) -> None:
        """
        Args:
            instruction: stands before every request.
            max_observation: characters of a tool's answer that are read.
            max_documentation: characters of a tool's documentation that are read.
        """
        self.instruction = instruction
        self.max_observation = max_observation
        self.max_documentation = max_documentation
        self.stop: tuple[str, ...] = ()

    def asked(self, prompt: str) -> str:
        """A request as it is read."""
        return f"{self.instruction}Query: {prompt}\n"

    def opening(self, task: Task, specs: Sequence[ToolSpec]) -> str:
        return self.asked(task.prompt)

    def observed(self, turn: Turn) -> str:
        seen = turn.observations[0]
        if isinstance(turn.call, ToolCall) and turn.call.tool == DESCRIBE:
            return f"\n{seen.content[: self.max_documentation]}{self.INPUT}"
        said = seen.content if seen.ok else f"error: {seen.content}"
        return f"{self.OBSERVATION}{said[: self.max_observation]}\n"

    def parse(self, text: str, specs: Sequence[ToolSpec]) -> tuple[ToolCall | MalformedCall, ...]:
        """The naming of a tool, by a reply of a policy that does not tell its calls apart."""
        named = text.rpartition(ACTION)[2].strip()
        if ACTION not in text or named.startswith(FINISH):
            return ()
        return (ToolCall(DESCRIBE, {"tool": named}),)

    def answer(self, text: str) -> str:
        said = text.rpartition(FINISH)[2].strip() if FINISH in text else ""
        return "" if said.startswith(GIVE_UP) else said

    def answer_so_far(self, text: str, specs: Sequence[ToolSpec]) -> str | None:
        return text.rpartition(FINISH)[2].strip() if FINISH in text else None

    def forced(self, force: Force, specs: Sequence[ToolSpec]) -> str:
        return f"{ACTION}{FINISH} " if force == "direct" else ACTION

    def write_call(self, call: ToolCall, specs: Sequence[ToolSpec]) -> str:
        if call.tool == DESCRIBE:
            return f"{ACTION}{call.arguments.get('tool', '')}"
        return json.dumps(dict(call.arguments))

    def write_answer(self, answer: str) -> str:
        return f"{ACTION}{FINISH} {answer}"

    def markers(self, specs: Sequence[ToolSpec]) -> tuple[str, ...]:
        return (ACTION,)


def read_arguments(tool: str, text: str) -> ToolCall | MalformedCall:
    """The call of a tool by the JSON object that a reply begins with."""
    try:
        value: Any = json.JSONDecoder().raw_decode(text.lstrip())[0]
    except (ValueError, RecursionError) as error:
        return MalformedCall(text, f"the input of {tool} is no JSON: {error}; write one object, such as {{}}")
    if not isinstance(value, dict):
        return MalformedCall(text, f"the input of {tool} is a {type(value).__name__}; write one JSON object")
    return ToolCall(tool, value)


def pending(turns: Sequence[Turn]) -> str | None:
    """The tool that was named last and has not been called yet; None where a tool is to be named."""
    if not turns or not isinstance(turns[-1].call, ToolCall) or turns[-1].call.tool != DESCRIBE:
        return None
    seen = turns[-1].observation
    return str(turns[-1].call.arguments.get("tool", "")) if seen is not None and seen.ok else None


def gave_up(text: str) -> bool:
    """Whether a reply ends an attempt without an answer, to begin another."""
    return text.rpartition(FINISH)[2].strip().startswith(GIVE_UP) if FINISH in text else False
