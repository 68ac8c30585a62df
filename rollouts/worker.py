"""Plays many episodes at once with several policies. A plain class: tests and scripts use it without Ray."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from executors.errors import ApprenticeError, ConfigError
from executors.executor import Executor
from rollouts.episode import play
from rollouts.formats import Format
from rollouts.ledger import Attempt
from rollouts.policy import Policy, ScriptedPolicy, Source, derive_seed
from rollouts.search import Search, Searching, search
from rollouts.types import Episode, Group, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """What a worker is made of; everything that is built is built inside the worker's own process."""

    policies: Mapping[str, Callable[[], Policy]]
    """By name, how to build each policy."""
    executor: Callable[[], Executor]
    format: Format
    formats: Mapping[str, Format] = field(default_factory=dict)
    """By source, how it reads and writes, where that is not as the others do."""
    max_turns: int = 4
    seed: int = 0
    episodes: int = 512
    """Played at once; the others wait for their turn, in order."""
    concurrency: Mapping[str, int] = field(default_factory=dict)
    """By policy, of its episodes that are played at once: what an endpoint bears. No limit of its own by default."""
    searching: Searching | None = None
    """How far an attempt searches for an answer, going back where a way comes to nothing; the episode is its best way.
    None attempts once, and so does a policy that follows a script, which would say the same again."""
    on_search: Callable[[Search], None] | None = None
    """Told of every search, with all its ways, before its episode is given out."""


class RolloutWorker:
    """Holds policies and an executor, and lets sources attempt tasks."""

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        self.executor = config.executor()
        self.policies = {name: build() for name, build in config.policies.items()}
        self._running: dict[str, asyncio.Task[Episode]] = {}

    def load(self, policy: str, weights: Mapping[str, Any], version: int) -> None:
        """Give a policy published weights, unless it has that version."""
        if self.policies[policy].version != version:
            self.policies[policy].load(weights, version)

    async def play(self, tasks: Sequence[Task], sources: Sequence[Source], round: str) -> list[Group]:
        """Let every source attempt every task; the groups come in the order of the tasks. See ``stream``.

        A task that is named twice is attempted once.
        """
        distinct = list({task.id: task for task in tasks}.values())
        groups = {group.task.id: group async for group in self.stream(distinct, sources, round)}
        return [groups[task.id] for task in tasks]

    async def stream(
        self, tasks: Sequence[Task], sources: Sequence[Source], round: str, again: bool = False
    ) -> AsyncIterator[Group]:
        """Let every source attempt every task; a group comes as soon as its last episode is over.

        Args:
            tasks: what to attempt; their ids are unique.
            sources: who attempts, in the order that their episodes take in a group.
            round: part of each episode's seed, so that another round samples anew.
            again: whether a worker died that was at these tasks: calls that it wrote down are not made again.
        """
        for source in sources:
            if source.policy not in self.policies:
                raise ConfigError(
                    f"source {source.name!r} plays policy {source.policy!r}, and there are {sorted(self.policies)}"
                )
        self.executor.recall(round, again)
        room = asyncio.Semaphore(self.config.episodes)
        each = {name: asyncio.Semaphore(count) for name, count in self.config.concurrency.items()}
        groups = [asyncio.create_task(self._group(task, sources, round, room, each)) for task in tasks]
        try:
            for group in asyncio.as_completed(groups):
                yield await group
        finally:
            for unfinished in groups:
                unfinished.cancel()

    def cut(self, tasks: Sequence[str], round: str) -> None:
        """End the episodes of these tasks that are still being played; they come back as far as they got."""
        wanted = set(tasks)
        for id, running in self._running.items():
            if id.startswith(f"{round}/") and _task_of(running) in wanted:
                running.cancel("cut")

    async def _group(
        self,
        task: Task,
        sources: Sequence[Source],
        round: str,
        room: asyncio.Semaphore,
        each: Mapping[str, asyncio.Semaphore],
    ) -> Group:
        plays = [
            self._bounded(task, source, number, round, room, each.get(source.policy))
            for source in sources
            for number in range(source.count)
        ]
        return Group(task, tuple(await asyncio.gather(*plays)))

    async def _bounded(
        self,
        task: Task,
        source: Source,
        number: int,
        round: str,
        room: asyncio.Semaphore,
        own: asyncio.Semaphore | None,
    ) -> Episode:
        if own is not None:
            async with own:
                return await self._bounded(task, source, number, round, room, None)
        async with room:
            attempt = Attempt(round=round, task=task.id, source=source.name, number=number)
            running = asyncio.create_task(self._play(task, source, attempt), name=task.id)
            self._running[attempt.id] = running
            try:
                return await running
            finally:
                running.cancel()
                del self._running[attempt.id]

    async def _play(self, task: Task, source: Source, attempt: Attempt) -> Episode:
        policy, format = self.policies[source.policy], self.config.formats.get(source.name, self.config.format)
        seed = derive_seed(self.config.seed, attempt.round, task.id, source.name, attempt.number)
        searching, told = self.config.searching, self.config.on_search
        if searching is None or isinstance(policy, ScriptedPolicy):
            return await play(
                task,
                policy,
                self.executor,
                format,
                source=source,
                id=attempt.id,
                seed=seed,
                max_turns=self.config.max_turns,
            )
        found = await search(task, policy, self.executor, format, searching, source=source, id=attempt.id, seed=seed)
        if told is not None:
            told(found)
        return found.episode()


def _task_of(running: asyncio.Task[Episode]) -> str:
    return running.get_name()


class TooManyFailuresError(ApprenticeError):
    """The infrastructure let too few episodes finish for anything to be learned or measured."""


def require_played(groups: Sequence[Group], most: float = 0.2) -> None:
    """See that the infrastructure let most episodes finish.

    Args:
        groups: of one round.
        most: share of failed episodes that is borne; they are counted and left out.

    Raises:
        TooManyFailuresError: there are more; the message has the first cause.
    """
    episodes = [episode for group in groups for episode in group.episodes]
    failed = [episode for episode in episodes if episode.stop == "failed"]
    if len(failed) > most * len(episodes):
        raise TooManyFailuresError(
            f"{len(failed)} of {len(episodes)} episodes could not be finished, for reasons that are not the policy's; "
            f"the first: source {failed[0].source!r}, task {failed[0].task_id!r}: {failed[0].error}"
        )
