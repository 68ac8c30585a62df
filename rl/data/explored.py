"""What exploring found, as groups to learn from: what solved a query alone, or above what did not."""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from executors.errors import DataError
from executors.types import ToolCall, ToolSpec
from rewards.judge import by_rule
from rewards.types import Candidate, RankedGroup, Reward
from rl.data.paraphrase import Solved
from rollouts.formats import Format
from rollouts.formats.prefaced import Prefaced
from rollouts.memory import Trial
from rollouts.types import Completion, Episode, Task, Turn

MAX_OBSERVATION = 120
"""Characters of what a tool said that are read again in an example."""
TOOL_MODE = "You are a helpful assistant in tool mode: use the tools for what you are asked.\n"
"""Stands before examples that call, where modes are told apart."""
NORMAL_MODE = "You are a helpful assistant in normal mode.\n"
"""Stands before general examples."""


def in_modes(format: Format) -> Prefaced:
    """A format that tells a policy whether tools are asked of it, so that general answers stay what they were."""
    return Prefaced(format, lambda task: NORMAL_MODE if task.needs_tool is False else TOOL_MODE)


def rewritten(attempt: Episode, format: Format, specs: Sequence[ToolSpec], *, responses: bool) -> Episode:
    """An attempt as a demonstration: its last answered call in the format's words, and perhaps what came back.

    Args:
        attempt: one that made a call.
        format: how it is written.
        specs: of its tools.
        responses: whether the answer, which says what the tool said, is part of it.

    Raises:
        ValueError: it made none that could be read.
    """
    pairs = [
        (call, seen)
        for turn in attempt.turns
        for call, seen in zip(turn.calls, turn.observations, strict=True)
        if isinstance(call, ToolCall)
    ]
    if not pairs:
        raise ValueError(f"attempt {attempt.id!r} made no call that could be read")
    call, seen = next((pair for pair in reversed(pairs) if pair[1].ok), pairs[-1])
    seen = replace(seen, content=seen.content[:MAX_OBSERVATION])
    turns = [Turn(Completion(text=format.write_call(call, specs), finish="stop"), (call,), (seen,))]
    if responses:
        turns.append(Turn(Completion(text=format.write_answer(seen.content))))
    return replace(attempt, turns=tuple(turns), answer=seen.content if responses else None, stop="turn_limit")


def imitated(
    solved: Iterable[Solved], format: Format, specs: Mapping[str, ToolSpec], *, responses: bool = False
) -> list[RankedGroup]:
    """Each solved query with the attempt that solved it: supervised fine-tuning."""
    return [_group(task, [(attempt, 1.0)], format, specs, responses) for task, attempt in solved]


def ranked(
    solved: Iterable[Solved],
    rejected: Iterable[Solved],
    format: Format,
    specs: Mapping[str, ToolSpec],
    *,
    responses: bool = False,
    most: int = 3,
) -> list[RankedGroup]:
    """Each solved query with the attempts at it that failed, below: ranked learning.

    Args:
        solved: what is to be the likeliest; paraphrases share the failures of the query that they are of.
        rejected: what failed, by the same queries.
        format: how attempts are written.
        specs: of the tools.
        responses: see ``rewritten``.
        most: failures of one group.
    """
    failures: dict[str, list[Episode]] = {}
    for task, attempt in rejected:
        if any(isinstance(call, ToolCall) for call in attempt.calls):
            failures.setdefault(task.id, []).append(attempt)
    groups = []
    for task, attempt in solved:
        below = failures.get(attempt.task_id, [])[:most]
        groups.append(_group(task, [(attempt, 1.0), *((one, 0.0) for one in below)], format, specs, responses))
    return groups


def in_context(groups: Sequence[RankedGroup], share: float, seed: int) -> tuple[list[RankedGroup], list[RankedGroup]]:
    """Groups that are read alone, and those that are read behind demonstrations, so that their use is learned."""
    shuffled = list(groups)
    random.Random(f"in_context/{seed}").shuffle(shuffled)
    count = round(share * len(shuffled))
    return shuffled[count:], shuffled[:count]


def renamed(groups: Sequence[RankedGroup], names: Sequence[str], share: float, seed: int) -> dict[str, str]:
    """For a share of groups, another name for their tool, by task id.

    Where demonstrations give a tool a name that the policy does not know it by, only they can tell what to write: so it
    learns to read them, rather than to recall.

    Args:
        groups: whose tasks name one tool each.
        names: to choose from, such as those of tools that are yet to be met.
        share: of the groups.
        seed: settles which, and the names.
    """
    draw = random.Random(f"renamed/{seed}")
    return {group.task.id: draw.choice(list(names)) for group in groups if names and draw.random() < share}


def under_names(
    groups: Sequence[RankedGroup], aliases: Mapping[str, str], format: Format, specs: Mapping[str, ToolSpec]
) -> list[RankedGroup]:
    """The groups with their calls written under the other names of their tools; the rest as they were."""
    made = []
    for group in groups:
        alias = aliases.get(group.task.id)
        candidates = [replace(one, episode=_under(one.episode, alias, format, specs)) for one in group.candidates]
        made.append(RankedGroup(group.task, tuple(candidates)) if alias else group)
    return made


def _under(attempt: Episode, alias: str | None, format: Format, specs: Mapping[str, ToolSpec]) -> Episode:
    if alias is None:
        return attempt
    turns = []
    for turn in attempt.turns:
        calls = [ToolCall(alias, one.arguments) for one in turn.calls if isinstance(one, ToolCall)]
        text = format.write_call(calls[0], [specs[alias]]) if calls else turn.completion.text
        turns.append(replace(turn, completion=replace(turn.completion, text=text), calls=tuple(calls)))
    return replace(attempt, turns=tuple(turns))


def solved_of(trials: Iterable[Trial]) -> list[Solved]:
    """The meant calls of trials that ran: what an imaginer alone demonstrates."""
    found = []
    for trial in trials:
        for attempt in trial.attempts:
            verdict = by_rule(trial.task, attempt)
            if verdict is not None and verdict.passed:
                found.append((trial.task, attempt))
                break
    return found


def read_general(path: Path) -> list[Solved]:
    """General dialogues in STE's form, ``[{"dialog_history": [{"content"}], "response"}]``, as tasks without a tool.

    Raises:
        DataError: the file cannot be read, or is none of this kind.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [_general(number, row) for number, row in enumerate(rows)]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(
            f"{path} cannot be read as general dialogues ({type(error).__name__}: {error}); "
            'it is a list of {"dialog_history": [...], "response": "..."}'
        ) from error


def _general(number: int, row: Mapping[str, object]) -> Solved:
    history, response = row["dialog_history"], str(row["response"])
    if not isinstance(history, list):
        raise TypeError(f"item {number} has no list of messages")
    task = Task(id=f"general-{number}", prompt=str(history[-1]["content"]), answer=response, needs_tool=False)
    attempt = Episode(
        task_id=task.id, source="general", policy="general", version=0, turns=(), answer=response, stop="answer"
    )
    return task, attempt


def _group(
    task: Task,
    attempts: Sequence[tuple[Episode, float]],
    format: Format,
    specs: Mapping[str, ToolSpec],
    responses: bool,
) -> RankedGroup:
    offered = [specs[name] for name in task.tools]
    candidates = []
    for attempt, reward in attempts:
        if task.needs_tool is False:
            answer = Turn(Completion(text=format.write_answer(attempt.answer or "")))
            candidates.append(Candidate(replace(attempt, turns=(answer,)), Reward(reward)))
        else:
            candidates.append(Candidate(rewritten(attempt, format, offered, responses=responses), Reward(reward)))
    return RankedGroup(task, tuple(candidates))
