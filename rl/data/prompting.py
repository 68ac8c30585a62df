"""Prompts that show tools to a model as it is: the baselines of ToolkenGPT, and what its two modes stand behind.

Their words are ours, and their worked examples are drawn from the data's own training rows.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, TypeAlias

from executors.errors import ConfigError
from rl.data.spans import MarkedData, Worked
from rollouts.formats.toolken import QUESTION

Method: TypeAlias = Literal["zero_shot", "cot", "react", "icl", "descriptions"]
"""What a prompt shows.

- ``zero_shot``: the question, and how to end the answer.
- ``cot``: worked answers in words.
- ``react``: worked answers with calls written in them.
- ``icl``: a list of the tools with their descriptions, and a worked answer with each of them.
- ``descriptions``: the list, and worked answers with tools that are not on it.
"""
_SHOTS = {"zero_shot": 0, "cot": 4, "react": 4, "icl": 1, "descriptions": 8}
_LISTED = {"icl": 30, "descriptions": 60}
_CALLS = (
    "Tools may be called within an answer. A call is written <tool>(arguments)= with commas between arguments, and its "
    "result stands right behind it. Where an answer is begun, go on from where it ends."
)
_AS_BEFORE = "Answer the last question in the form of the answers before it."
_ENDINGS = {
    "####": "Work it out, and end with #### and the number alone.",
    "answer is": 'Work it out, and end with "So, the answer is" and the number.',
    "": "A few words are enough.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompting:
    """How a question is put to a model."""

    method: Method = "react"
    shots: int | None = None
    """Worked answers, with ``icl`` for each tool; as published by default: 4, 1 a tool, 8 of other tools."""
    listed: int | None = None
    """Tools in the list, the first so many; as published by default, which is 30 with examples and 60 without."""
    marker: str = ""
    """What stands before an answer: ``####``, ``answer is``, or nothing."""
    seed: int = 0
    """Draws the examples."""

    @property
    def calls(self) -> bool:
        """Whether calls are written in answers."""
        return self.method in ("react", "icl", "descriptions")

    def template(self, data: MarkedData) -> str:
        """The prompt, with ``[QUESTION]`` in it.

        Raises:
            ConfigError: the data have nothing to show.
        """
        names = data.tools[: self.listed or _LISTED.get(self.method, len(data.tools))]
        examples = self._examples(data, names)
        parts = [_CALLS] if self.calls else []
        if self.method in _LISTED:
            told = [f"<{spec.name}> {spec.description}" for spec in data.catalog.specs(names)]
            parts.append("\n".join(["These are the tools:", *told]))
        closing = _ENDINGS.get(self.marker, f"End with {self.marker} and the answer.")
        parts.append(_AS_BEFORE if examples else f"Answer the question. {closing}")
        return "\n\n".join([*parts, *(self.written(one, data.template) for one in examples), data.template])

    def template_of(self, tool: str, data: MarkedData, count: int) -> str:
        """Worked answers that call one tool, and the question: what tool mode reads."""
        shown = [self.written(one, data.template) for one in examples_of(data.worked, tool, count, self.seed)]
        return "\n\n".join([*shown, data.template])

    def written(self, example: Worked, template: str) -> str:
        """An example as a prompt shows it, with the ending that answers are to have."""
        answer = example.called if self.calls else example.answer
        if self.marker and self.marker not in answer:
            end = f"#### {example.result}" if self.marker == "####" else f"So, the {self.marker} {example.result}."
            answer = f"{answer} {end}"
        return f"{template.replace(QUESTION, example.question)} {answer}"

    def _examples(self, data: MarkedData, names: Sequence[str]) -> list[Worked]:
        count = _SHOTS[self.method] if self.shots is None else self.shots
        if count and not data.worked:
            raise ConfigError(f"method {self.method!r} shows worked answers, and these data have none; try 'zero_shot'")
        if self.method == "icl":
            return [one for name in names for one in examples_of(data.worked, name, count, self.seed)]
        others, offered = set(names), set(data.tools)
        if self.method == "descriptions":
            return drawn((one for one in data.worked if not others & set(one.tools)), count, self.seed)
        return drawn((one for one in data.worked if set(one.tools) <= offered), count, self.seed)


def drawn(worked: Iterable[Worked], count: int, seed: int) -> list[Worked]:
    """So many examples by the seed, with as many different first tools among them as there can be."""
    by_tool: dict[str, list[Worked]] = {}
    for one in _shuffled(worked, seed):
        by_tool.setdefault(one.tools[0], []).append(one)
    return [one for row in zip_longest(*by_tool.values()) for one in row if one is not None][:count]


def examples_of(worked: Iterable[Worked], tool: str, count: int, seed: int) -> list[Worked]:
    """So many examples that call a tool by the seed; those that call nothing else come first."""
    with_it = _shuffled((one for one in worked if tool in one.tools), seed)
    return sorted(with_it, key=lambda one: len(set(one.tools)))[:count]


def _shuffled(worked: Iterable[Worked], seed: int) -> list[Worked]:
    order = list(worked)
    random.Random(f"worked/{seed}").shuffle(order)
    return order
