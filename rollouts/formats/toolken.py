"""Tools as tokens inside running text (ToolkenGPT): the policy thinks in words, and a tool's result is spliced in.

The policy names a tool by a token of its own and writes the arguments apart, behind demonstrations of that tool; what
it goes on from is the text with the result in it, as if it had known. Other policies write ``<tool>(arguments)=`` in
their text, where ``inline`` is true: the baseline that the paper calls ReAct.
"""

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from executors.errors import ToolError
from executors.tools.calculator import evaluate
from executors.types import MalformedCall, ToolCall, ToolSpec
from rollouts.formats import Format
from rollouts.types import Episode, Force, Task, Turn

QUESTION = "[QUESTION]"
"""Where a template has the question."""
END_OF_CALL = ")="
MATH = f"Q: {QUESTION}\nA:"
"""How FuncQA's texts are written."""

_CALL = re.compile(r"<(\w+)>\(([^<>]*)\)=$")
_BEGUN = re.compile(r"<\w+>\(")


class ToolkenFormat(Format):
    """A template around the question, and results spliced into the text as they are."""

    name = "toolken"

    def __init__(self, template: str = MATH, *, marker: str = "", inline: bool = False, ending: str = "\n") -> None:
        """
        Args:
            template: what stands before a reply; it has ``[QUESTION]`` in it, and may begin with worked examples.
            marker: what stands before an answer, such as ``####`` or ``answer is``; without one the whole text is it.
            inline: whether calls are written in the text.
            ending: what an answer ends with.
        """
        self.template = template
        self.marker = marker
        self.inline = inline
        self.apart = not inline
        self.stop: tuple[str, ...] = (END_OF_CALL, ending) if inline else (ending,)

    def opening(self, task: Task, specs: Sequence[ToolSpec]) -> str:
        return self.template.replace(QUESTION, task.prompt)

    def observed(self, turn: Turn) -> str:
        """The results; nothing after a call that failed, so that the text goes on as if it had not been made."""
        return "".join(seen.content for seen in turn.observations if seen.ok)

    def parse(self, text: str, specs: Sequence[ToolSpec]) -> tuple[ToolCall | MalformedCall, ...]:
        if not self.inline:
            return ()
        if match := _CALL.search(text):
            spec = next((spec for spec in specs if spec.name == match[1]), None)
            return (call_of(match[1], match[2], spec),)
        if _BEGUN.search(text):
            return (MalformedCall(text, f"the call is not closed: it has to end with {END_OF_CALL!r}"),)
        if text.endswith(END_OF_CALL):  # the answer stopped here and is not over
            return (MalformedCall(text, "there is no <tool> before the brackets"),)
        return ()

    def answer(self, text: str) -> str:
        return (text.rpartition(self.marker)[2] if self.marker else text).strip()

    def answer_so_far(self, text: str, specs: Sequence[ToolSpec]) -> str | None:
        return None  # a tool's token may still come and change what the text says

    def forced(self, force: Force, specs: Sequence[ToolSpec]) -> str:
        return ""

    def write_call(self, call: ToolCall, specs: Sequence[ToolSpec]) -> str:
        return f"<{call.tool}>({written_arguments(call)}{END_OF_CALL}"

    def write_calls(self, calls: Sequence[ToolCall], specs: Sequence[ToolSpec], content: str = "") -> str:
        """Where calls are told apart, the words before them alone."""
        return super().write_calls(calls, specs, content) if self.inline else content

    def write_answer(self, answer: str) -> str:
        return f" {self.marker} {answer}" if self.marker else f" {answer}"

    def markers(self, specs: Sequence[ToolSpec]) -> tuple[str, ...]:
        return ()


def spliced(turns: Sequence[Turn]) -> str:
    """What a reader sees of an attempt: the policy's words with the results between them."""
    return "".join(turn.completion.text + "".join(o.content for o in turn.observations if o.ok) for turn in turns)


def with_calls(turns: Sequence[Turn]) -> str:
    """The same with each result replaced by the call that gave it: what tool mode reads."""
    text = ""
    for turn in turns:
        text += turn.completion.text
        if isinstance(turn.call, ToolCall) and turn.observation is not None and turn.observation.ok:
            text += f"<{turn.call.tool}>({written_arguments(turn.call)})={turn.observation.content}"
    return text


def called(episode: Episode) -> str | None:
    """The first tool that an attempt called; None where it called none."""
    return next((call.tool for call in episode.calls if isinstance(call, ToolCall)), None)


def written_arguments(call: ToolCall) -> str:
    """A call's arguments as tool mode writes them."""
    values = next(iter(call.arguments.values()), "")
    return (
        ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
        if isinstance(values, list)
        else str(values)
    )


def call_of(tool: str, arguments: str, spec: ToolSpec | None) -> ToolCall | MalformedCall:
    """A call of a tool by the text between its brackets: numbers, one text, or nothing, as the tool takes."""
    properties: Mapping[str, Any] = spec.parameters.get("properties", {}) if spec else {}
    if not properties:
        return ToolCall(tool, {})
    name = next(iter(properties))
    if properties[name].get("type") != "array":
        return ToolCall(tool, {name: arguments.strip()})
    try:
        return ToolCall(tool, {name: read_numbers(arguments)})
    except (ToolError, ValueError) as error:
        return MalformedCall(f"<{tool}>({arguments})", f"the arguments of {tool} cannot be read: {error}")


def read_numbers(text: str) -> list[int | float]:
    """The numbers that a policy wrote as arguments, cleaned of signs of money and equality, brackets, percent signs
    and, where the numbers are parted by a comma and a space, of the commas that part thousands.

    As published but for one thing: there every comma without a space behind it goes, so that ``0.5,4, 3`` has 0.54.

    Raises:
        ToolError: one is no number.
        ValueError: there is none.
    """
    text = re.sub(r"[=>$]", "", text)
    text = re.sub(r"\(+", "(", re.sub(r"\)+", ")", text)).strip("() ")
    if ", " in text:
        text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    parts = [part for part in text.replace(" ", "").split(",") if part]
    if not parts:
        raise ValueError("there are no numbers")
    return [_number(part) for part in parts]


def _number(text: str) -> int | float:
    value = evaluate(text.removesuffix("%"))
    exact = Fraction(value) / 100 if text.endswith("%") else value
    return int(exact) if Fraction(exact).denominator == 1 else float(exact)
