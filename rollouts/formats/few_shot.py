"""Solved examples before every question, around any format: TRICE's few-shot baseline, and its teacher's prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from executors.types import ToolSpec
from rollouts.formats import Format
from rollouts.formats.wrapped import Wrapped
from rollouts.types import Episode, Task

DATASET = "dataset"
"""The label of a task that says which examples suit it."""


class FewShotFormat(Wrapped):
    """Another format, whose every question stands behind solved ones of the same data set."""

    def __init__(self, inner: Format, shots: Mapping[str, Sequence[str]]) -> None:
        """
        Args:
            inner: how everything else is written.
            shots: by data set, its solved examples as ``shot`` writes them; those of ``""`` serve every other task.
        """
        super().__init__(inner)
        self.shots = shots

    def opening(self, task: Task, specs: Sequence[ToolSpec]) -> str:
        shots = self.shots.get(task.labels.get(DATASET, ""), self.shots.get("", ()))
        shots = [one for one in shots if not one.startswith(f"{task.prompt}\n")]  # its own solution is none of them
        return super().opening(replace(task, prompt="\n\n".join([*shots, task.prompt])), specs)


def shot(task: Task, episode: Episode, format: Format) -> str:
    """A solved example: the question, every reply, and what came back, in a format's own words."""
    said = [f"{task.prompt}\n"]
    for number, turn in enumerate(episode.turns):
        said.append(turn.completion.text)
        if turn.observations and number + 1 < len(episode.turns):
            said.append(format.observed(turn))
    return "".join(said)
