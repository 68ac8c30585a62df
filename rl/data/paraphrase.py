"""More ways to say what was solved: as many examples for each tool as are wanted, no more and no fewer."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from executors.types import ToolSpec
from rollouts.phrasing import rephrased
from rollouts.types import Episode, Task

Solved = tuple[Task, Episode]
"""A query, and an attempt that solved it."""

_TRIES = 20


@dataclass(frozen=True, slots=True)
class Paraphrased:
    """Examples of every tool."""

    examples: tuple[Solved, ...]
    short: Mapping[str, int]
    """By tool, how many are missing: it has too few seeds for the cap, or nothing new is left to say."""


def paraphrase(
    solved: Sequence[Solved], specs: Mapping[str, ToolSpec], *, target: int, most: int | None = None, seed: int = 0
) -> Paraphrased:
    """Bring every tool to its target: seeds first, then paraphrases of them in turn; too many seeds are drawn from.

    Args:
        solved: the seeds; a tool is the one that its attempt calls, or that its task is labelled with.
        specs: of the tools.
        target: examples of each tool.
        most: examples of one seed at most, itself included; None for any number.
        seed: settles which, and the words.
    """
    by_tool: dict[str, list[Solved]] = defaultdict(list)
    for task, attempt in solved:
        tool = task.labels.get("tool") or (task.gold.tool if task.gold else "")
        if all(task.prompt != known.prompt for known, _ in by_tool[tool]):
            by_tool[tool].append((task, attempt))
    examples: list[Solved] = []
    short: dict[str, int] = {}
    for tool in sorted(by_tool):
        draw = random.Random(f"paraphrase/{tool}/{seed}")
        seeds = list(by_tool[tool])
        draw.shuffle(seeds)
        made = _grown(seeds[:target], specs.get(tool, ToolSpec(tool, "")), target, most, draw)
        examples += made
        if len(made) < target:
            short[tool] = target - len(made)
    return Paraphrased(tuple(examples), short)


def _grown(seeds: list[Solved], spec: ToolSpec, target: int, most: int | None, draw: random.Random) -> list[Solved]:
    made = list(seeds)
    said = {task.prompt for task, _ in seeds}
    rounds = 1
    while len(made) < target and (most is None or rounds < most):
        before = len(made)
        for task, attempt in seeds[: target - len(made)]:
            for _ in range(_TRIES):
                query = rephrased(task.prompt, task.gold, spec, draw)
                if query not in said:
                    said.add(query)
                    made.append((replace(task, id=f"{task.id}-p{rounds}", prompt=query), attempt))
                    break
        rounds += 1
        if len(made) == before:
            break
    return made
