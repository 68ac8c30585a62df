"""Trials on Ray: workers that make them wherever the cluster has room, and a pool that survives their deaths."""

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Sequence
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError, WorkerCrashedError

from executors.errors import ApprenticeError
from rl.serving.sources import Placement
from rl.trials.worker import Place, TrialConfig, TrialWorker
from rollouts.memory import Memory, Trial

_GONE = (RayActorError, WorkerCrashedError, ObjectLostError)
_MAX_DEATHS = 3
"""Of workers over the same trial, before exploring gives up."""
_PAUSE_S = 0.2
"""Between two looks at whether a lost worker is back."""
_CONCURRENCY = 256
"""Trials of one worker at once; further ones wait for their turn."""


class TrialsFailedError(ApprenticeError):
    """Workers could not be started, or died again and again over the same trial."""


class RemoteTrials:
    """A TrialWorker in an actor."""

    def __init__(self, config: TrialConfig) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._worker = TrialWorker(config)

    async def make(self, place: Place, known: Memory, recent: Sequence[Trial], again: bool) -> Trial | None:
        """See ``TrialWorker.make``."""
        return await self._worker.make(place, known, recent, again)

    async def ping(self) -> int:
        """That it is there; its process."""
        return os.getpid()


class TrialPool:
    """Workers that make trials. Each goes to the one that is least busy; which one that is changes nothing about it."""

    def __init__(self, config: TrialConfig, place: Placement, *, timeout: float = 900.0) -> None:
        """
        Args:
            config: of each worker.
            place: how many there are, and what each takes of the cluster.
            timeout: seconds after which a worker with a trial is asked whether it is there, that it may take to say
                so, and that one may take to come back. A trial takes as long as its models and tools may.

        Raises:
            TrialsFailedError: they cannot be started.
        """
        actor: Any = ray.remote(RemoteTrials)
        options = actor.options(
            num_cpus=place.cpus,
            num_gpus=place.gpus,
            resources=dict(place.resources) or None,
            max_restarts=-1,
            max_concurrency=_CONCURRENCY,
            scheduling_strategy="SPREAD",
        )
        self.workers: list[Any] = [options.remote(config) for _ in range(place.workers)]
        self.deaths = 0
        """Of workers, so far."""
        self._timeout = timeout
        self._busy: Counter[Any] = Counter()
        self._absent: set[Any] = set()
        try:
            ray.get([worker.ping.remote() for worker in self.workers], timeout=timeout)
        except (*_GONE, TimeoutError) as error:
            self.stop()
            raise TrialsFailedError(
                f"the workers that make trials could not be started: {_last_line(error)}; look whether the cluster has "
                "room for them (place), and what they load"
            ) from error

    async def make(self, place: Place, known: Memory, recent: Sequence[Trial]) -> Trial | None:
        """See ``TrialWorker.make``; where the worker dies, another one goes on with what it had written down.

        Raises:
            TrialsFailedError: that happened too often, or none came back.
        """
        for deaths in range(_MAX_DEATHS + 1):
            worker = await self._present()
            self._busy[worker] += 1
            try:
                return await self._made(worker, worker.make.remote(place, known, recent, deaths > 0))
            except RayTaskError as error:
                if isinstance(error.cause, ApprenticeError):
                    raise error.cause from None
                raise
            except (*_GONE, TimeoutError):
                self._lose(worker)
            finally:
                self._busy[worker] -= 1
        raise TrialsFailedError(f"{_MAX_DEATHS + 1} workers died over {place}; see the run's logs for their last words")

    def stop(self) -> None:
        """End all workers."""
        for worker in self.workers:
            ray.kill(worker)

    async def _made(self, worker: Any, trial: Awaitable[Trial | None]) -> Trial | None:
        """A trial that a worker is at, for as long as that answers; one that does not is ended."""
        making = asyncio.ensure_future(trial)
        try:
            while not (await asyncio.wait([making], timeout=self._timeout))[0]:
                if not await _answers(worker, self._timeout):
                    ray.kill(worker, no_restart=False)
                    break
            async with asyncio.timeout(self._timeout):
                return await making
        finally:
            making.cancel()

    async def _present(self) -> Any:
        """The worker with the fewest trials, of those that are there; waits for one."""
        clock = asyncio.get_running_loop()
        until = clock.time() + self._timeout
        while True:
            for worker in list(self._absent):
                if await _answers(worker, 1.0):
                    self._absent.discard(worker)
            there = [worker for worker in self.workers if worker not in self._absent]
            if there:
                return min(there, key=self._busy.__getitem__)
            if clock.time() > until:
                raise TrialsFailedError(f"no worker that makes trials came back within {self._timeout:g} s")
            await asyncio.sleep(_PAUSE_S)

    def _lose(self, worker: Any) -> None:
        """A worker is gone; Ray starts it again."""
        self.deaths += worker not in self._absent
        self._absent.add(worker)


async def _answers(worker: Any, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await worker.ping.remote()
    except (TimeoutError, *_GONE):
        return False
    return True


def _last_line(error: BaseException) -> str:
    """Of Ray's message, which may hold the traceback of another process, what was raised there."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:300]
