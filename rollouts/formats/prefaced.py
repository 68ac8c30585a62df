"""Any format with something to read before its prompt: earlier trials, demonstrations."""

from collections.abc import Callable, Sequence

from executors.types import ToolSpec
from rollouts.formats import Format
from rollouts.formats.wrapped import Wrapped
from rollouts.types import Task


class Prefaced(Wrapped):
    """A format whose prompt begins with a text of the task's own; all else is as it was."""

    def __init__(self, format: Format, preface: Callable[[Task], str]) -> None:
        """
        Args:
            format: how the task itself is written.
            preface: what stands before it.
        """
        super().__init__(format)
        self.preface = preface

    def opening(self, task: Task, specs: Sequence[ToolSpec]) -> str:
        return self.preface(task) + super().opening(task, specs)
