"""Plays many episodes at once with several policies. A plain class: tests and scripts use it without Ray."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from executors.errors import ApprenticeError, ConfigError
from executors.executor import Executor
from rollouts.episode import play
from rollouts.formats import Format
from rollouts.policy import Policy, Source, derive_seed
from rollouts.types import Episode, Group, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """What a worker is made of; everything that is built is built inside the worker's own process."""

    policies: Mapping[str, Callable[[], Policy]]
    """By name, how to build each policy."""
    executor: Callable[[], Executor]
    format: Format
    max_turns: int = 4
    seed: int = 0


class RolloutWorker:
    """Holds policies and an executor, and lets sources attempt tasks."""

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        self.executor = config.executor()
        self.policies = {name: build() for name, build in config.policies.items()}

    def load(self, policy: str, weights: Mapping[str, Any], version: int) -> None:
        """Give a policy published weights, unless it has that version."""
        if self.policies[policy].version != version:
            self.policies[policy].load(weights, version)

    async def play(self, tasks: Sequence[Task], sources: Sequence[Source], round: str) -> list[Group]:
        """Let every source attempt every task; all episodes run at once.

        Args:
            tasks: what to attempt.
            sources: who attempts, in the order that their episodes take in a group.
            round: part of each episode's seed, so that another round samples anew.
        """
        for source in sources:
            if source.policy not in self.policies:
                raise ConfigError(
                    f"source {source.name!r} plays policy {source.policy!r}, and there are {sorted(self.policies)}"
                )
        attempts = [(source, attempt) for source in sources for attempt in range(source.count)]
        episodes = await asyncio.gather(
            *(self._play(task, source, attempt, round) for task in tasks for source, attempt in attempts)
        )
        width = len(attempts)
        return [Group(task, tuple(episodes[i * width : (i + 1) * width])) for i, task in enumerate(tasks)]

    async def _play(self, task: Task, source: Source, attempt: int, round: str) -> Episode:
        return await play(
            task,
            self.policies[source.policy],
            self.executor,
            self.config.format,
            source=source,
            seed=derive_seed(self.config.seed, round, task.id, source.name, attempt),
            max_turns=self.config.max_turns,
        )


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
