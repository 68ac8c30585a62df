"""What attempts came to, in words, and which of them are worth a look."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from executors.types import MalformedCall, ToolCall
from rewards.correctness import Match, correctness
from rewards.selectivity import LIVE
from rewards.types import Candidate, RankedGroup
from rl.evaluation.selectivity import FREE
from rollouts.types import Episode, Group, Task

OUTCOMES = {
    "right": "#0a9e76",
    "wrong answer, no call": "#e0a458",
    "wrong answer after a call": "#c97b1e",
    "no answer": "#8f5a12",
    "malformed call": "#c2453d",
    "unknown tool": "#e07b74",
    "wrong tool": "#9c2f28",
    "bad arguments": "#d65f8a",
    "wrong arguments": "#a83c68",
    "tool failed": "#8a5bb5",
    "out of turns": "#5b7fb5",
    "out of tokens": "#8aa9d6",
    "not finished": "#7a7f87",
}
"""Every outcome in the order of a table, with its colour: greens for right, browns for answers, reds for calls."""
_TAKEN = 5
"""Attempts of each kind that are shown."""

Right = Callable[[Task, Episode], bool]


@dataclass(frozen=True, slots=True)
class Pair:
    """The same task before and after."""

    task: Task
    before: Episode
    after: Episode
    outcomes: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Chosen:
    """One attempt that is shown."""

    task: Task
    episode: Episode
    reward: float | None
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Attempts of four kinds."""

    best: Sequence[Chosen]
    worst: Sequence[Chosen]
    changed: Sequence[Pair]
    drawn: Sequence[Chosen]


def right_by(match: Match) -> Right:
    """Whether an attempt is right: by its answer, or where a task expects only a call, by that."""

    def right(task: Task, episode: Episode) -> bool:
        if task.answer is not None:
            return bool(correctness(task, episode, match))
        first = episode.calls[0] if episode.calls else None
        return task.gold is not None and isinstance(first, ToolCall) and first == task.gold

    return right


def outcome(task: Task, episode: Episode, right: Right) -> str:
    """The first thing that went wrong with an attempt; see ``OUTCOMES``."""
    if right(task, episode):
        return "right"
    if not episode.finished:
        return "not finished"
    for call, seen in ((c, o) for turn in episode.turns for c, o in zip(turn.calls, turn.observations, strict=True)):
        if isinstance(call, MalformedCall):
            return "malformed call"
        if seen.status == "bad_call":
            return "unknown tool" if task.tools and call.tool not in task.tools else "bad arguments"
        if task.gold is not None and call.tool != task.gold.tool:
            return "wrong tool"
        if not seen.ok:
            return "tool failed"
    if episode.malformed:
        return "malformed call"
    if episode.stop in ("token_limit", "prompt_limit"):
        return "out of tokens"
    if task.answer is None and task.gold is not None and episode.called:
        return "wrong arguments"
    if episode.stop == "turn_limit":
        return "out of turns"
    if episode.answer is None:
        return "no answer"
    return "wrong answer after a call" if episode.called else "wrong answer, no call"


def attempt_of(group: Group) -> Episode | None:
    """The attempt that figures are of: the free one, or the only one."""
    return next((one for one in group.episodes if one.source == FREE), group.episodes[0] if group.episodes else None)


def outcome_counts(groups: Iterable[Group], right: Right) -> dict[str, int]:
    """How many attempts came to what."""
    counts: dict[str, int] = {}
    for group in groups:
        if (episode := attempt_of(group)) is not None:
            name = outcome(group.task, episode, right)
            counts[name] = counts.get(name, 0) + 1
    return counts


def choose(
    before: Sequence[Group], after: Sequence[Group], ranked: Sequence[RankedGroup], right: Right, seed: int
) -> Samples:
    """Attempts to show.

    Args:
        before: held-out tasks, attempted at the start.
        after: the same at the end; where there is no start, these are all that is drawn from.
        ranked: groups that were learned from last; the policy's own attempts are chosen, where there are any.
        right: whether an attempt is right.
        seed: of those that are drawn.
    """
    every = [(group.task, candidate) for group in ranked for candidate in group.candidates]
    candidates = [found for found in every if found[1].episode.policy == LIVE] or every
    by_reward = sorted(candidates, key=lambda found: found[1].reward.value)
    draw = random.Random(seed)
    known = {group.task.id: episode for group in before if (episode := attempt_of(group)) is not None}
    shown = after or before
    return Samples(
        best=[_chosen(task, one, right) for task, one in _distinct(reversed(by_reward))],
        worst=[_chosen(task, one, right) for task, one in _distinct(by_reward)],
        changed=_changed(known, after, right),
        drawn=[
            Chosen(group.task, episode, None, outcome(group.task, episode, right))
            for group in draw.sample(list(shown), min(_TAKEN, len(shown)))
            if (episode := attempt_of(group)) is not None
        ],
    )


def _chosen(task: Task, candidate: Candidate, right: Right) -> Chosen:
    episode = candidate.episode
    return Chosen(task, episode, candidate.reward.value, outcome(task, episode, right))


def _distinct(candidates: Iterable[tuple[Task, Candidate]]) -> list[tuple[Task, Candidate]]:
    """The first few, of as many tasks."""
    found: dict[str, tuple[Task, Candidate]] = {}
    for task, candidate in candidates:
        if len(found) == _TAKEN:
            break
        found.setdefault(task.id, (task, candidate))
    return list(found.values())


def _changed(known: Mapping[str, Episode], after: Sequence[Group], right: Right) -> list[Pair]:
    """Tasks whose outcome changed, mended ones and broken ones by turns; then those that were written otherwise."""
    pairs = []
    for group in after:
        late, early = attempt_of(group), known.get(group.task.id)
        if late is None or early is None or early.text == late.text:
            continue
        outcomes = (outcome(group.task, early, right), outcome(group.task, late, right))
        pairs.append(Pair(group.task, early, late, outcomes))
    mended = [pair for pair in pairs if pair.outcomes[1] == "right" != pair.outcomes[0]]
    broken = [pair for pair in pairs if pair.outcomes[0] == "right" != pair.outcomes[1]]
    by_turns = [pair for both in zip(mended, broken, strict=False) for pair in both]
    ordered: dict[str, Pair] = {}
    for pair in (*by_turns, *mended, *broken, *pairs):
        ordered.setdefault(pair.task.id, pair)
    return list(ordered.values())[:_TAKEN]
