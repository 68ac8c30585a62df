"""From a group of attempts to a ranked group: a weighted sum, a ladder of call levels, TRICE's, recorded, your own."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from executors.errors import DataError
from executors.settings import Strict
from rewards.arguments import CALL_LEVELS, ExtraKeys, call_level
from rewards.correctness import Match, correctness, read_number
from rewards.execution import executed, wellformed
from rewards.own import own_reward
from rewards.selectivity import need, selective
from rewards.types import Candidate, RankedGroup, Reward
from rollouts.types import Episode, Group, Task

GOLD = "gold"
"""Name of the source that gives the expected attempt."""
MAX_LEVELS = 50
"""Rewards that are counted one by one; recorded ones may be any numbers."""


class _Ranking(Strict):
    def rank(self, group: Group) -> RankedGroup:
        """Judge every attempt that the infrastructure let finish; best first, ties kept in the order of the sources."""
        made = [episode for episode in group.episodes if _made(group.task, episode)]
        judged = [episode for episode in made if episode.finished]
        rewards = self.rewards(Group(group.task, tuple(judged)))
        candidates = [Candidate(episode, reward) for episode, reward in zip(judged, rewards, strict=True)]
        candidates.sort(key=lambda candidate: -candidate.reward.value)
        return RankedGroup(group.task, tuple(candidates), dropped=len(made) - len(judged))

    def rewards(self, group: Group) -> Sequence[Reward]:
        """The reward of each of the group's episodes, in their order."""
        raise TypeError(f"{type(self).__name__} has to say how it rewards")

    def right(self, task: Task, episode: Episode) -> bool:
        """Whether an attempt is what was expected, by the rule that this ranking compares with."""
        raise TypeError(f"{type(self).__name__} has to say what is right")


class WeightedSum(_Ranking):
    """The sum of what an attempt got right, each part weighted."""

    kind: Literal["weighted"] = "weighted"
    match: Match = "numeric"
    """How answers are compared."""
    correct: float = 0.8
    """For a right answer."""
    selective: float = 0.2
    """For a right answer that called a tool exactly if the policy's own greedy direct answer is wrong."""
    executed: float = 0.0
    """Times the share of calls that ran."""
    wellformed: float = 0.1
    """For no malformed call."""
    environment: float = 0.0
    """Times what the environments of the tools say that the attempt is worth, where they say it."""

    def rewards(self, group: Group) -> Sequence[Reward]:
        right = {id(episode): correctness(group.task, episode, self.match) for episode in group.episodes}
        needs_tool = need(group, lambda episode: right[id(episode)])
        return [self._reward(episode, right[id(episode)], needs_tool) for episode in group.episodes]

    def right(self, task: Task, episode: Episode) -> bool:
        return correctness(task, episode, self.match) == 1

    def _reward(self, episode: Episode, right: float, needs_tool: bool | None) -> Reward:
        parts = {
            "correct": right,
            "selective": right * selective(episode, needs_tool),
            "executed": executed(episode),
            "wellformed": wellformed(episode),
        }
        if episode.environment_reward is not None:
            parts["environment"] = episode.environment_reward
        return Reward(sum(getattr(self, name) * value for name, value in parts.items()), parts)


class CallLadder(_Ranking):
    """Malformed or no call < wrong tool < wrong arguments < the expected call."""

    kind: Literal["call_ladder"] = "call_ladder"
    extra_keys: ExtraKeys = "ignore"
    """Whether arguments that were not expected pass."""

    def rewards(self, group: Group) -> Sequence[Reward]:
        levels = [call_level(group.task, episode, self.extra_keys) for episode in group.episodes]
        return [Reward(float(CALL_LEVELS.index(level)), {level: 1.0}) for level in levels]

    def right(self, task: Task, episode: Episode) -> bool:
        return call_level(task, episode, self.extra_keys) == "correct"


class TriceLadder(_Ranking):
    """TRICE's scores. Yes and No say whether the attempt used a tool just as the gold attempt does.

    ``paper`` (section 3.2): right Yes 20 > right No 15 > wrong Yes 10 > wrong No 5 > malformed 0; gold 20.
    ``as_coded`` is what its published script computes: wrong answers ignore the tool and, where they are numbers,
    rank by their distance to the gold; sources in ``unchecked`` are never compared with anything.
    """

    kind: Literal["trice"] = "trice"
    mode: Literal["paper", "as_coded"] = "paper"
    match: Match = "numeric"
    """How answers are compared; ``trice`` is the published rule."""
    unchecked: tuple[str, ...] = ()
    """In ``as_coded`` mode, the sources that score by the gold attempt's tool use alone (published: ChatGPT)."""

    def rewards(self, group: Group) -> Sequence[Reward]:
        gold_called = _gold_called(group)
        if self.mode == "paper":
            return [self._paper(group, episode, gold_called) for episode in group.episodes]
        return self._as_coded(group, gold_called)

    def right(self, task: Task, episode: Episode) -> bool:
        return correctness(task, episode, self.match) == 1

    def _paper(self, group: Group, episode: Episode, gold_called: bool) -> Reward:
        if episode.source == GOLD:
            return Reward(20.0, {"gold": 1.0})
        if episode.malformed:
            return Reward(0.0, {"malformed": 1.0})
        right = bool(correctness(group.task, episode, self.match))
        agrees = episode.called == gold_called
        value = (20.0 if agrees else 15.0) if right else (10.0 if agrees else 5.0)
        return Reward(value, {f"{right}{'Yes' if agrees else 'No'}": 1.0})

    def _as_coded(self, group: Group, gold_called: bool) -> Sequence[Reward]:
        levels = [20.0, 15.0, 10.0, 5.0, 0.0]
        values: dict[int, float] = {}
        start = 1
        wrong: list[int] = []
        for index, episode in enumerate(group.episodes):
            if episode.source == GOLD:
                values[index] = 20.0
            elif episode.source in self.unchecked:
                values[index] = 20.0 if gold_called else 15.0
            elif not correctness(group.task, episode, self.match):
                wrong.append(index)
            elif episode.called == gold_called:
                values[index] = 20.0
            else:
                values[index], start = 15.0, 2
        expected = read_number(group.task.answer or "")
        if expected is None:
            values |= dict.fromkeys(wrong, levels[start])
        else:
            wrong.sort(key=lambda index: abs((read_number(group.episodes[index].answer or "") or 0.0) - expected))
            values |= {index: levels[min(start + place, 4)] for place, index in enumerate(wrong)}
        return [Reward(values[index]) for index in range(len(group.episodes))]


class Recorded(_Ranking):
    """The rewards that were recorded with the attempts, as they are."""

    kind: Literal["recorded"] = "recorded"

    def rewards(self, group: Group) -> Sequence[Reward]:
        return [Reward(_score(group.task, episode)) for episode in group.episodes]

    def right(self, task: Task, episode: Episode) -> bool:
        """Whether none of the recorded attempts at the task was given more."""
        return _score(task, episode) == max(task.scores.values())


class Own(_Ranking):
    """What the function ``reward(task, episode)`` of a user's own file says: a number, or numbers by part."""

    kind: Literal["own"] = "own"
    path: str
    """Of the file."""
    match: Match = "numeric"
    """How answers are compared where what is right has to be told."""

    def rewards(self, group: Group) -> Sequence[Reward]:
        return [own_reward(self.path, group.task, episode) for episode in group.episodes]

    def right(self, task: Task, episode: Episode) -> bool:
        return correctness(task, episode, self.match) == 1


def _score(task: Task, episode: Episode) -> float:
    if episode.policy not in task.scores:
        raise DataError(
            f"task {task.id!r} has no recorded reward for {episode.policy!r}, which source {episode.source!r} plays; "
            f"it has them for {', '.join(task.scores) or 'none'}: leave the source out, or choose another ranking"
        )
    return task.scores[episode.policy]


def _made(task: Task, episode: Episode) -> bool:
    """Whether there is an attempt to judge: not where a recording of others' attempts has none of this policy."""
    if not task.scores or episode.policy in task.scores or not episode.finished:
        return True
    return any(turn.completion.text or turn.completion.token_ids for turn in episode.turns)


def _gold_called(group: Group) -> bool:
    """Whether the gold attempt used a tool; from the task where no gold attempt was played."""
    for episode in group.episodes:
        if episode.source == GOLD:
            return episode.called
    return group.task.gold is not None if group.task.needs_tool is None else group.task.needs_tool


Ranking = Annotated[WeightedSum | CallLadder | TriceLadder | Recorded | Own, Field(discriminator="kind")]


def level_counts(groups: Iterable[RankedGroup]) -> Mapping[str, int]:
    """How many candidates got each reward, best first, as ``{"20": 12, ...}``; to one digit where they are many."""
    values = sorted((candidate.reward.value for group in groups for candidate in group.candidates), reverse=True)
    counts = Counter(f"{value:g}" for value in values)
    return dict(counts if len(counts) <= MAX_LEVELS else Counter(f"{value:.1g}" for value in values))
