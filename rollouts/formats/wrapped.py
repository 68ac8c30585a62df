"""Any format with something about it changed; the rest is as it was."""

from collections.abc import Sequence

from executors.types import MalformedCall, ToolCall, ToolSpec
from rollouts.formats import Format
from rollouts.types import Force, Task, Turn


class Wrapped(Format):
    """Writes and reads as another format does; what differs, a subclass says."""

    def __init__(self, inner: Format) -> None:
        """
        Args:
            inner: the other format.
        """
        self.inner = inner
        self.name = inner.name
        self.stop = inner.stop
        self.parallel = inner.parallel

    def opening(self, task: Task, specs: Sequence[ToolSpec]) -> str:
        return self.inner.opening(task, specs)

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
