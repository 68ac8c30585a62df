"""ToolGen's attempts: a thought, the token of a tool, its documentation, its arguments, what it says; and so on.

A tool's documentation is read only once its token stands there: naming a tool calls ``describe``, and the reply after
that is the arguments of the tool that was named. ``<<Finish>>`` stands before the answer.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from executors.tools.describe import documentation
from executors.types import MalformedCall, Observation, ToolCall, ToolSpec
from rollouts.formats import Format
from rollouts.types import Force, Task, Turn

ACTION = "Action:"
FINISH = "<<Finish>>"
DESCRIBE = "describe"
"""The tool that documents the others."""
GIVE_UP = "give_up_and_restart"
_ENDED = re.compile(rf"{re.escape(ACTION)}\s*{re.escape(FINISH)}")
"""Behind it stands the answer, whatever is in that."""


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
            return self.documented(seen.content)
        return self.seen(seen)

    def documented(self, told: str) -> str:
        """A tool's documentation as it is read, and what its arguments stand behind."""
        return f"\n{told[: self.max_documentation]}{self.INPUT}"

    def seen(self, observation: Observation) -> str:
        """What a tool gave, as it is read."""
        said = observation.content if observation.ok else f"error: {observation.content}"
        return f"{self.OBSERVATION}{said[: self.max_observation]}\n"

    def parse(self, text: str, specs: Sequence[ToolSpec]) -> tuple[ToolCall | MalformedCall, ...]:
        """The naming of a tool, by a reply of a policy that does not tell its calls apart."""
        if ACTION not in text or ended(text) is not None:
            return ()
        return (ToolCall(DESCRIBE, {"tool": text.rpartition(ACTION)[2].strip()}),)

    def answer(self, text: str) -> str:
        said = (ended(text) or "").strip()
        return "" if said.startswith(GIVE_UP) else said

    def answer_so_far(self, text: str, specs: Sequence[ToolSpec]) -> str | None:
        said = ended(text)
        if said is None or GIVE_UP.startswith(said.strip()[: len(GIVE_UP)]):
            return None
        return said.strip()

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


class JoinedFormat(AtomicFormat):
    """The same with a whole call in one reply: the tool's token, its documentation, its arguments.

    So calls are those of the tools themselves, and nothing else has to be called for their documentation.
    """

    name = "toolgen"

    def __init__(
        self,
        texts: Mapping[str, str],
        instruction: str = "",
        *,
        max_observation: int = 1024,
        max_documentation: int = 1024,
    ) -> None:
        """
        Args:
            texts: by the tool's name, what stands for it.
            instruction: stands before every request.
            max_observation: characters of a tool's answer that are read.
            max_documentation: characters of a tool's documentation that are read.
        """
        super().__init__(instruction, max_observation=max_observation, max_documentation=max_documentation)
        self.texts = dict(texts)
        self._tools = {text: name for name, text in texts.items()}

    def observed(self, turn: Turn) -> str:
        return self.seen(turn.observations[0])

    def parse(self, text: str, specs: Sequence[ToolSpec]) -> tuple[ToolCall | MalformedCall, ...]:
        """The call that a reply makes: the tool by its token, its arguments behind the documentation."""
        after = text.partition(ACTION)[2]
        if ACTION not in text or ended(text) is not None:
            return ()
        told, begun, given = after.rpartition(self.INPUT)
        token = (told if begun else given).strip().partition("\n")[0].strip()
        if token not in self._tools:
            return (MalformedCall(text, f"{token[:80]!r} stands for no tool"),)
        return (read_arguments(self._tools[token], given if begun else ""),)

    def write_call(self, call: ToolCall, specs: Sequence[ToolSpec]) -> str:
        spec = next((spec for spec in specs if spec.name == call.tool), ToolSpec(call.tool, ""))
        told = self.documented(documentation(spec))
        written = json.dumps(dict(call.arguments), ensure_ascii=False)
        return f"{ACTION}{self.texts.get(call.tool, call.tool)}{told}{written}\n"


def ended(text: str) -> str | None:
    """What stands behind the end of a reply that ends its attempt; None where it does not."""
    found = _ENDED.search(text)
    return None if found is None else text[found.end() :]


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
    return (ended(text) or "").strip().startswith(GIVE_UP)
