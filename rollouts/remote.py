"""Rollouts on Ray: workers as actors, and a pool that sends them tasks and survives their deaths."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, WorkerCrashedError
from ray.util.metrics import Counter

from executors.errors import ApprenticeError
from rollouts.policy import Source
from rollouts.types import Group, Snapshot, Task
from rollouts.worker import RolloutWorker, WorkerConfig

_GONE = (ActorDiedError, ActorUnavailableError, WorkerCrashedError, GetTimeoutError)


class RolloutsFailedError(ApprenticeError):
    """Workers died again and again on the same tasks."""


class RemoteWorker:
    """A RolloutWorker in an actor: fetches published weights, and counts what it does for Ray's metrics."""

    def __init__(self, config: WorkerConfig) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._worker = RolloutWorker(config)
        self._episodes = Counter("apprentice_episodes", "Episodes played", tag_keys=("stop",))
        self._calls = Counter("apprentice_tool_calls", "Tool calls by their outcome", tag_keys=("status",))

    async def play(
        self, tasks: Sequence[Task], sources: Sequence[Source], round: str, snapshots: Mapping[str, Snapshot]
    ) -> list[Group]:
        """See ``RolloutWorker.play``; policies take the given weights first."""
        for policy, snapshot in snapshots.items():
            if self._worker.policies[policy].version != snapshot.version:
                weights = await snapshot.weights[0]
                self._worker.load(policy, weights, snapshot.version)
        groups = await self._worker.play(tasks, sources, round)
        for group in groups:
            for episode in group.episodes:
                self._episodes.inc(1.0, {"stop": episode.stop})
                for observation in episode.observations:
                    self._calls.inc(1.0, {"status": observation.status})
        return groups

    async def cpu_seconds(self) -> float:
        """CPU time that this worker's process has taken."""
        times = os.times()
        return times.user + times.system


class RolloutPool:
    """Sends tasks to workers and brings back their groups, in the order of the tasks."""

    def __init__(
        self, config: WorkerConfig, *, workers: int = 1, gpus: float = 0, timeout: float = 900.0, max_deaths: int = 3
    ) -> None:
        """
        Args:
            config: what each worker is made of.
            workers: how many.
            gpus: of each worker.
            timeout: seconds after which a worker that has not answered is taken for dead.
            max_deaths: of workers over the same tasks, before the run gives up.
        """
        actor: Any = ray.remote(RemoteWorker)
        options = actor.options(num_cpus=1, num_gpus=gpus, max_restarts=-1, max_concurrency=8)
        self._workers: list[Any] = [options.remote(config) for _ in range(workers)]
        self._timeout = timeout
        self._max_deaths = max_deaths
        self.deaths = 0
        """Of workers, so far."""

    def play(
        self,
        tasks: Sequence[Task],
        sources: Sequence[Source],
        round: str,
        snapshots: Mapping[str, Snapshot] | None = None,
    ) -> list[Group]:
        """Let every source attempt every task.

        An episode depends on the seed, the round, the task and the weights alone, so what a dead worker was at is
        played again elsewhere with the same outcome.

        Raises:
            RolloutsFailedError: workers died on the same tasks more than ``max_deaths`` times.
        """
        tasks = list(tasks)
        size = -(-len(tasks) // len(self._workers)) if tasks else 1
        chunks = [tasks[start : start + size] for start in range(0, len(tasks), size)]
        snapshots = dict(snapshots or {})

        def submit(index: int, deaths: int) -> Any:
            worker = self._workers[(index + deaths) % len(self._workers)]
            return worker.play.remote(chunks[index], list(sources), round, snapshots)

        waiting = {submit(index, 0): (index, 0) for index in range(len(chunks))}
        groups: dict[int, list[Group]] = {}
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=self._timeout)
            reference = ready[0] if ready else next(iter(waiting))
            index, deaths = waiting.pop(reference)
            try:
                groups[index] = ray.get(reference, timeout=self._timeout if ready else 0.1)
            except _GONE as error:
                self.deaths += 1
                if deaths + 1 > self._max_deaths:
                    raise RolloutsFailedError(
                        f"rollout workers died {deaths + 1} times over the same {len(chunks[index])} tasks; the last: "
                        f"{_cause(error)}; their own logs are in the run's logs/ray"
                    ) from error
                if isinstance(error, GetTimeoutError):  # it may live on: what it plays must not come twice
                    ray.kill(self._workers[(index + deaths) % len(self._workers)], no_restart=False)
                waiting[submit(index, deaths + 1)] = (index, deaths + 1)
        return [group for index in sorted(groups) for group in groups[index]]

    def cpu_seconds(self) -> float:
        """CPU time that the workers have taken; that of a worker that died is lost."""
        return sum(ray.get([worker.cpu_seconds.remote() for worker in self._workers], timeout=self._timeout))

    def stop(self) -> None:
        for worker in self._workers:
            ray.kill(worker)


def _cause(error: BaseException) -> str:
    """The line of Ray's message that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "Error" in line] or lines or [type(error).__name__]
    return f"{type(error).__name__}: {told[-1][:300]}"
