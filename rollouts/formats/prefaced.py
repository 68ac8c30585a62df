"""Any format with something to read before its prompt: earlier trials, demonstrations."""

from collections.abc import Callable, Sequence

from executors.types import MalformedCall, ToolCall, ToolSpec
from rollouts.formats import Format
from rollouts.types import Force, Task, Turn


class Prefaced(Format):
    """A format whose prompt begins with a text of the task's own; all else is as it was."""

    def __init__(self, format: Format, preface: Callable[[Task], str]) -> None:
        """
        Args:
            format: how the task itself is written.
            preface: what stands before it.
        """
        self.inner = format
        self.preface = preface
        self.name = format.name
        self.stop = format.stop
        self.parallel = format.parallel

    def opening(self, task: Task, specs: Sequence[ToolSpec]) -> str:
        return self.preface(task) + self.inner.opening(task, specs)

    def observed(self, turn: Turn) -> str:
        return self.inner.observed(turn)

    def parse(self, text: str, specs: Sequence[ToolSpec]) -> tuple[ToolCall | MalformedCall, ...]:
        return self.inner.parse(text, specs)

    def gives_up(self, call: MalformedCall) -> bool:
        return self.inner.gives_up(call)

    def answer(self, text: str) -> str:
        return self.inner.answer(text)

    def answer_so_far(self, text: str, specs: Sequence[ToolSpec]) -> str | None:
        return self.inner.answer_so_far(text, specs)

    def forced(self, force: Force, specs: Sequence[ToolSpec]) -> str:
        return self.inner.forced(force, specs)

    def write_call(self, call: ToolCall, specs: Sequence[ToolSpec]) -> str:
        return self.inner.write_call(call, specs)

    def write_calls(self, calls: Sequence[ToolCall], specs: Sequence[ToolSpec], content: str = "") -> str:
        return self.inner.write_calls(calls, specs, content)

    def write_answer(self, answer: str) -> str:
        return self.inner.write_answer(answer)

    def markers(self, specs: Sequence[ToolSpec]) -> tuple[str, ...]:
        return self.inner.markers(specs)
