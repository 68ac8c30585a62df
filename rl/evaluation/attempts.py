"""How well a policy with tools as tokens chooses and calls: figures of its attempts, and baselines without training."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from executors.retrieval import Index
from executors.types import ToolCall, ToolSpec
from rewards.correctness import read_number
from rl.data.spans import Marked
from rl.data.tasks.virtualhome import scene_of
from rl.evaluation.intervals import Ratio
from rl.evaluation.toolken import approximate, judge_plan, legacy_relation, relation
from rollouts.formats.toolken import called, spliced
from rollouts.types import Episode, Group, Task

_STEP = re.compile(r"\[\w+\]|<\w+>")
"""A verb or an object as a plan has it."""


def right_tool(task: Task, tool: str | None) -> float:
    """Whether it is the tool of the task's gold call."""
    return float(task.gold is not None and tool == task.gold.tool)


def right_answer(task: Task, text: str) -> float:
    """Whether the last number of a text is the answer, within a thousandth; of a task in words, whether it is in it."""
    expected = read_number(task.answer or "")
    if expected is None or task.aliases:
        return float(relation(None, text, "", (task.answer or "", *task.aliases)) == "object")
    said = read_number(text)
    return float(approximate(said, expected))


def attempt_ratios(groups: Sequence[Group]) -> dict[str, Ratio]:
    """The figures of one attempt at each task.

    Returns:
        ``tool``, the first call names the gold call's tool, left out where none is known; ``answer``, the answer is
        right; ``call_rate``; ``failed``, attempts in which a call failed or could not be read.
    """
    pairs = [(group.task, group.episodes[0]) for group in groups]
    known = [float(task.gold is not None) for task, _ in pairs]
    chosen = {"tool": Ratio([right_tool(task, called(episode)) for task, episode in pairs], known)}
    return (chosen if any(known) else {}) | {
        "answer": Ratio([right_answer(task, spliced(episode.turns)) for task, episode in pairs]),
        "call_rate": Ratio([float(episode.called) for _, episode in pairs]),
        "failed": Ratio([float(_failed(episode)) for _, episode in pairs]),
    }


def relation_ratios(groups: Sequence[Group]) -> dict[str, Ratio]:
    """KAMEL's figures: the relation called, or an answer in words; exact, and as the published script counts."""
    exact: list[str] = []
    legacy: list[str] = []
    for group in groups:
        task, episode = group.task, group.episodes[0]
        tool, answers = called(episode), [task.answer or "", *task.aliases]
        gold = task.gold.tool if task.gold else ""
        written = spliced(episode.turns) + (f"<{tool}>" if tool else "")
        exact.append(relation(tool, spliced(episode.turns), gold, answers))
        legacy.append(legacy_relation(written, gold, answers))
    return {
        "accuracy": Ratio([float(verdict in ("relation", "object")) for verdict in exact]),
        "legacy_accuracy": Ratio([float(verdict in ("relation", "object")) for verdict in legacy]),
        "wrong_relation": Ratio([float(verdict == "false_relation") for verdict in exact]),
    }


def plan_ratios(groups: Sequence[Group], verbs: Sequence[str]) -> dict[str, Ratio]:
    """VirtualHome's figures, of what is written and called together, by what the prompt says of the scene.

    Whether a plan reaches its goal is not among them: the scenes' graphs cannot be had.

    Args:
        groups: attempts.
        verbs: all that there are, ``[END]`` apart.

    Returns:
        ``legal``, plans without a fault; ``grounded``, plans whose objects are all there; ``same``, plans that are the
        written one to the end.
    """
    plans = [(group.task, _STEP.findall(spliced(group.episodes[0].turns))) for group in groups]
    judged = [judge_plan(tokens, scene_of(task.prompt), verbs) for task, tokens in plans]
    return {
        "legal": Ratio([float(verdict.fault is None and verdict.steps > 0) for verdict in judged]),
        "grounded": Ratio([float(verdict.grounded and verdict.steps > 0) for verdict in judged]),
        "same": Ratio([float(" ".join(tokens) == task.answer) for task, tokens in plans]),
    }


def by_words(tasks: Sequence[Task], specs: Sequence[ToolSpec]) -> Ratio:
    """How often the tool whose description suits a question best, by BM25, is the right one."""
    index = Index(f"{spec.name} {spec.description}" for spec in specs)
    found = [index.search(task.prompt, 1) for task in tasks]
    chosen = [specs[hits[0][0]].name if hits else None for hits in found]
    return Ratio([right_tool(task, tool) for task, tool in zip(tasks, chosen, strict=True)])


def by_habit(tasks: Sequence[Task], texts: Sequence[Marked]) -> Ratio:
    """How often the tool that the training texts call most is the right one."""
    counts: Mapping[str, int] = Counter(span.tool for text in texts for span in text.spans)
    usual = max(counts, key=lambda name: counts[name])
    return Ratio([right_tool(task, usual) for task in tasks])


def _failed(episode: Episode) -> bool:
    return any(
        not (isinstance(call, ToolCall) and seen.ok)
        for call, seen in zip(episode.calls, episode.observations, strict=True)
    )
