"""Solved examples before every question, around any format: TRICE's few-shot baseline, and its teacher's prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from executors.types import MalformedCall, ToolCall, ToolSpec
from rollouts.formats import Format
from rollouts.types import Episode, Force, Task, Turn

DATASET = "dataset"
"""The label of a task that says which examples suit it."""


class FewShotFormat(Format):
    """Another format, whose every question stands behind solved ones of the same data set."""

    def __init__(self, inner: Format, shots: Mapping[str, Sequence[str]]) -> None:
        """
        Args:
            inner: how everything else is written.
            shots: by data set, its solved examples as ``shot`` writes them; those of ``""`` serve every other task.
        """
        self.inner = inner
        self.shots = shots
        self.name = inner.name
        self.stop = inner.stop
        self.parallel = inner.parallel

    def opening(self, task: Task, specs: Sequence[ToolSpec]) -> str:
        shots = self.shots.get(task.labels.get(DATASET, ""), self.shots.get("", ()))
        return self.inner.opening(replace(task, prompt="\n\n".join([*shots, task.prompt])), specs)

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


def shot(task: Task, episode: Episode, format: Format) -> str:
    """A solved example: the question, every reply, and what came back, in a format's own words."""
    said = [f"{task.prompt}\n"]
    for number, turn in enumerate(episode.turns):
        said.append(turn.completion.text)
        if turn.observations and number + 1 < len(episode.turns):
            said.append(format.observed(turn))
    return "".join(said)
