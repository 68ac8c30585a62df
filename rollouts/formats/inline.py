"""Calls inside the running text, as TRICE and GSM8K write them.

``call``       ``calculator(12.5*37)->462.5`` and then ``Answer: 462.5``; a direct answer is ``Answer: 462.5`` at once.
``annotated``  ``16 - 3 = <<16-3>>13 eggs ...``: GSM8K's calculator annotations, any number in a solution.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from executors.types import MalformedCall, ToolCall, ToolSpec
from rollouts.formats import Format
from rollouts.types import Force, Task, Turn

ANSWER = "Answer: "
END_OF_CALL = ")->"

_CALL_BEGUN = re.compile(r"[A-Za-z_]\w*\(")
_UNSETTLED = re.compile(rf"[A-Za-z_]\w*(?:\(|$)|{re.escape(ANSWER.rstrip())}|\)-?$")
"""Where a growing answer may still turn into a call, or begin anew: a name, an end of call, another answer."""


class InlineFormat(Format):
    """``tool(arguments)->observation``. A tool of one parameter takes the text between the brackets as it is."""

    name = "inline"
    stop: tuple[str, ...] = (END_OF_CALL,)

    def __init__(self, instruction: str = "", template: str = "") -> None:
        """
        Args:
            instruction: stands before every question, such as TRICE's "Given a math problem, please answer it and
                you can use a calculator for help."; none by default.
            template: the whole prompt, with ``{question}`` where the question stands and ``{instruction}`` where the
                instruction does, as models that were tuned on one expect it; by default the one above the other.
        """
        self.instruction = instruction
        self.template = template or ("{instruction}\n{question}\n" if instruction else "{question}\n")

    def opening(self, task: Task, specs: Sequence[ToolSpec]) -> str:
        before, _, after = self.template.replace("{instruction}", self.instruction).partition("{question}")
        return f"{before}{task.prompt}{after}"

    def observed(self, turn: Turn) -> str:
        seen = turn.observations[0]
        return f"{seen.content}\n" if seen.ok else f"error: {seen.content}\n"

    def parse(self, text: str, specs: Sequence[ToolSpec]) -> tuple[ToolCall | MalformedCall, ...]:
        call = self._call(text, specs)
        return () if call is None else (call,)

    def _call(self, text: str, specs: Sequence[ToolSpec]) -> ToolCall | MalformedCall | None:
        begun = [(text.find(f"{spec.name}("), spec) for spec in specs if f"{spec.name}(" in text]
        if text.endswith(END_OF_CALL):
            if begun:
                start, spec = min(begun, key=lambda pair: pair[0])
                inside = text[start + len(spec.name) + 1 : -len(END_OF_CALL)]
                return _read_arguments(text, spec, inside)
            if match := re.search(r"([A-Za-z_]\w*)\((.*)\)->$", text, re.DOTALL):
                return ToolCall(match[1], {"input": match[2]})
            return MalformedCall(text, f"{END_OF_CALL!r} closes a call that names no tool")
        if begun:
            return MalformedCall(text, f"the call is not closed: it has to end with {END_OF_CALL!r}")
        return None

    def answer(self, text: str) -> str:
        return text.rpartition(ANSWER)[2].strip()

    def answer_so_far(self, text: str, specs: Sequence[ToolSpec]) -> str | None:
        before, begun, answer = text.partition(ANSWER)
        if not begun or _CALL_BEGUN.search(before):
            return None
        unsettled = _UNSETTLED.search(answer)
        return (answer[: unsettled.start()] if unsettled else answer).strip()

    def forced(self, force: Force, specs: Sequence[ToolSpec]) -> str:
        if force == "direct":
            return ANSWER
        return f"{specs[0].name}(" if len(specs) == 1 else ""

    def write_call(self, call: ToolCall, specs: Sequence[ToolSpec]) -> str:
        spec = next((spec for spec in specs if spec.name == call.tool), None)
        only = _only_parameter(spec) if spec else None
        if only is not None and set(call.arguments) == {only}:
            inside = str(call.arguments[only])
        else:
            inside = ", ".join(f"{key}={value!r}" for key, value in call.arguments.items())
        return f"{call.tool}({inside}{END_OF_CALL}"

    def write_answer(self, answer: str) -> str:
        return f"{ANSWER}{answer}"

    def markers(self, specs: Sequence[ToolSpec]) -> tuple[str, ...]:
        return (ANSWER, END_OF_CALL, *(f"{spec.name}(" for spec in specs))


def _only_parameter(spec: ToolSpec) -> str | None:
    names = list(spec.parameters.get("properties", {}))
    return names[0] if len(names) == 1 else None


def _read_arguments(text: str, spec: ToolSpec, inside: str) -> ToolCall | MalformedCall:
    only = _only_parameter(spec)
    if only is not None:
        return ToolCall(spec.name, {only: _as_type(inside.strip(), spec.parameters["properties"][only])})
    try:
        node = ast.parse(f"f({inside})", mode="eval").body
        assert isinstance(node, ast.Call)
        names = list(spec.parameters.get("properties", {}))
        values: dict[str, Any] = {names[i]: _literal(value) for i, value in enumerate(node.args)}
        values |= {str(keyword.arg): _literal(keyword.value) for keyword in node.keywords}
    except (*_UNREADABLE, IndexError, AssertionError):
        return MalformedCall(text, f"the arguments of {spec.name} cannot be read; write {spec.name}(name=value, ...)")
    return ToolCall(spec.name, values)


def _as_type(text: str, schema: Mapping[str, Any]) -> Any:
    """The text as the schema's type where it reads as one; the executor's validation says no otherwise."""
    if schema.get("type") in ("integer", "number", "boolean", "array", "object"):
        try:
            return _literal(text)
        except _UNREADABLE:
            return text
    return text


_UNREADABLE = (SyntaxError, ValueError, TypeError, RecursionError, MemoryError)
"""What reading a literal that a policy wrote may raise."""


def _literal(written: str | ast.expr) -> Any:
    """A Python literal's value as JSON has it, so that what is run is what is logged. See ``_UNREADABLE``."""
    value = json.loads(json.dumps(ast.literal_eval(written), allow_nan=False))
    json.dumps(value, ensure_ascii=False).encode()
    return value


class AnnotatedFormat(InlineFormat):
    """GSM8K's annotations: a reply ends with ``<<expression>>``, and the tool's result goes on from there.

    ``<<expression=result>>``, as the data set has it, is a call too; the written result stands for nothing. The final
    line ``#### 18`` or ``A: 18`` is the answer. A solution may call in every line, so episodes need many turns.
    """

    name = "annotated"
    stop: tuple[str, ...] = (">>",)
    _CALL = re.compile(r"<<([^<>=]+)(?:=[^<>]*)?>>$")
    _ANSWER = re.compile(r"(?:####|A:)[ \t]*(.+)\s*$")

    def observed(self, turn: Turn) -> str:
        seen = turn.observations[0]
        return seen.content if seen.ok else "error"

    def _call(self, text: str, specs: Sequence[ToolSpec]) -> ToolCall | MalformedCall | None:
        if match := self._CALL.search(text):
            only = _only_parameter(specs[0]) if specs else None
            return ToolCall(specs[0].name if specs else "calculator", {only or "expression": match[1].strip()})
        if "<<" in text or text.endswith(">>"):
            return MalformedCall(text, "an annotation has to read <<expression>>")
        return None

    def answer(self, text: str) -> str:
        match = self._ANSWER.search(text)
        return match[1].strip() if match else ""

    def answer_so_far(self, text: str, specs: Sequence[ToolSpec]) -> str | None:
        return None  # the last line is the answer, and which line is the last shows at the end

    def forced(self, force: Force, specs: Sequence[ToolSpec]) -> str:
        return "A: " if force == "direct" else "<<"

    def write_call(self, call: ToolCall, specs: Sequence[ToolSpec]) -> str:
        return f"<<{next(iter(call.arguments.values()), '')}>>"

    def write_answer(self, answer: str) -> str:
        return f"A: {answer}"

    def markers(self, specs: Sequence[ToolSpec]) -> tuple[str, ...]:
        return ("<<", ">>", "A: ")

    @staticmethod
    def replies(solution: str) -> tuple[str, ...]:
        """A whole annotated solution as the replies that an episode asks for: cut after each annotation.

        What the solution's author wrote as the result, within ``<<expression=result>>`` and right after it, is
        dropped: the tool is run again and its result read instead.
        """
        return _cut(solution)


_ANNOTATION = re.compile(r"<<([^<>=]*)(?:=[^<>]*)?>>(?:-?\d+(?:,\d{3})*(?:\.\d+)?|-?\.\d+)?")


def _cut(solution: str) -> tuple[str, ...]:
    replies: list[str] = []
    start = 0
    for match in _ANNOTATION.finditer(solution):
        replies.append(f"{solution[start : match.start()]}<<{match[1]}>>")
        start = match.end()
    return (*replies, solution[start:])
