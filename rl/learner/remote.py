"""The learner on Ray: a Hub that holds the queue and the weights, and one long-lived TorchTrainer a run."""

import asyncio
import contextlib
import os
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.metrics import Counter, Gauge
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from executors.errors import ApprenticeError
from rl.learner.alone import AloneJob, AloneResult, fit_alone
from rl.learner.learner import weights_of
from rl.learner.rank import DivergedError, RankConfig, RankLoop
from rl.learner.sharding import Footprint
from rl.learner.work import Work
from rl.models.load import load_model
from rollouts.types import Snapshot

NAMESPACE = "apprentice"
_PATIENCE = 600.0
"""Seconds that any single answer of the Hub may take."""
_ENDING = 30.0
"""Seconds that a learner has to end in, when nobody waits for its work any more."""


class LearnerFailedError(ApprenticeError):
    """The learner stopped and could not be brought back."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a learner begins, or begins again."""

    checkpoint: str
    step: int
    version: int | None = None
    """Published as soon as the learner is up, where it is given."""


class Hub:
    """What the processes of a run share: the bounded queue of work, the latest weights, what the learner reported.

    A plain class whose methods are coroutines. Work stays here until a checkpoint covers it, so a learner that is
    restarted gets the same steps again.
    """

    def __init__(self, start: Start, bound: int, versions: int = 4) -> None:
        """
        Args:
            start: where the learner begins.
            bound: steps that may wait; ``put`` holds back whoever brings more.
            versions: of the weights that are kept.
        """
        self._start = start
        self._versions = versions
        self._bound = bound
        self._works: dict[int, Work] = {}
        self._taken = start.step
        self._closed = False
        self._failure: str | None = None
        self._snapshots: dict[int, Snapshot] = {}
        self._reports: dict[int, Mapping[str, float]] = {}
        self._changed = asyncio.Condition()

    async def start(self) -> Start:
        """Where a learner that has just been started begins; its attempt takes every step anew from there."""
        async with self._changed:
            self._taken = self._start.step
        return self._start

    async def put(self, works: Sequence[Work]) -> bool:
        """Queue steps, in order; False where there was no room in time, and nothing was queued."""
        async with self._changed:
            queued = max(self._works, default=self._start.step - 1)
            if not await self._until(lambda: queued + 1 - self._taken + len(works) <= max(self._bound, len(works))):
                return False
            self._works |= {work.step: work for work in works}
            self._changed.notify_all()
            return True

    async def take(self, step: int, limit: int) -> list[Work] | None:
        """The work from a step on; empty where none came in time, None where none will come."""
        async with self._changed:
            await self._until(lambda: step in self._works or self._closed)
            works = []
            while step in self._works and len(works) < limit:
                works.append(self._works[step])
                step += 1
            self._taken = max(self._taken, step)
            self._changed.notify_all()
            return works if works or not self._closed else None

    async def publish(self, version: int, weights: dict[str, Any]) -> None:
        """Keep weights for the rollout workers; the Hub owns them, so they outlive a learner."""
        reference = ray.put(weights)
        async with self._changed:
            self._snapshots[version] = Snapshot(version, [reference])
            for old in sorted(self._snapshots)[: -self._versions]:
                del self._snapshots[old]
            self._changed.notify_all()

    async def snapshot(self, version: int) -> Snapshot | None:
        """The weights of a version; the oldest kept where it is gone; None where it did not come in time."""
        async with self._changed:
            if not await self._until(lambda: max(self._snapshots, default=-1) >= version):
                return None
            return self._snapshots[min(known for known in self._snapshots if known >= version)]

    async def report(self, metrics: Mapping[int, Mapping[str, float]]) -> None:
        """Note what the learner says of its steps; a step that was repeated is counted once."""
        async with self._changed:
            self._reports.update(metrics)
            self._changed.notify_all()

    async def reports(self, step: int) -> dict[int, Mapping[str, float]]:
        """What was reported of the steps below; each is handed out once."""
        async with self._changed:
            return {known: self._reports.pop(known) for known in sorted(self._reports) if known < step}

    async def saved(self, start: Start) -> None:
        """A checkpoint is on disk: work before it is not needed any more."""
        async with self._changed:
            self._start = start
            self._works = {step: work for step, work in self._works.items() if step >= start.step}
            self._changed.notify_all()

    async def checkpoint(self, step: int) -> Start | None:
        """The newest checkpoint, at least of that step; None where it did not come in time."""
        async with self._changed:
            found = await self._until(lambda: self._start.step >= step)
            return self._start if found else None

    async def fail(self, cause: str) -> None:
        """The learner cannot go on, and starting it again would not help."""
        async with self._changed:
            self._failure = self._failure or cause
            self._closed = True
            self._changed.notify_all()

    async def failure(self) -> str | None:
        """Why the learner cannot go on; None while it can."""
        return self._failure

    async def close(self) -> None:
        """No more work will come."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def drop(self) -> None:
        """Nobody waits for the work that is left: the learner ends after what it has taken."""
        async with self._changed:
            self._works.clear()
            self._closed = True
            self._changed.notify_all()

    async def _until(self, true: Any, seconds: float = 10.0) -> bool:
        """Wait, with the lock, until something is true; whether it became so in time, and before a failure."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._changed.wait_for(lambda: true() or self._failure), seconds)
        return bool(true())


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerConfig:
    """How the learner is run."""

    workers: int = 1
    """Ranks that share each step's examples."""
    min_workers: int | None = None
    """Ranks that will do where the cluster has no room for more; as many as ``workers`` by default."""
    resources: Mapping[str, float] = field(default_factory=dict)
    """Custom resources of Ray that each rank takes."""
    max_failures: int = 3
    """Times that the ranks are started again before the run gives up."""
    rank: RankConfig
    storage: str
    """Of Ray Train's own records."""
    name: str
    """Of the run."""


class RemoteLearner:
    """A driver's handle on the learner: puts work, gets weights and reports."""

    def __init__(self, config: LearnerConfig, start: Start, bound: int, versions: int = 4) -> None:
        """
        Args:
            config: how the ranks are run.
            start: where they begin.
            bound: steps that may wait.
            versions: of the weights that are kept for rollout workers.
        """
        self.config = config
        unique = uuid.uuid4().hex[:8]
        self._hub_name = f"hub-{config.name}-{unique}"
        actor: Any = ray.remote(Hub)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.hub = actor.options(  # beside the driver: nothing that the run could outlive takes it along
            name=self._hub_name, namespace=NAMESPACE, num_cpus=0, max_concurrency=64, scheduling_strategy=here
        ).remote(start, bound, versions)
        self._failure: BaseException | None = None
        self._trainer = TorchTrainer(
            _train,
            train_loop_config={"hub": self._hub_name, "rank": asdict(config.rank)},
            torch_config=TorchConfig(backend="nccl" if config.rank.gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=config.workers if config.min_workers is None else (config.min_workers, config.workers),
                use_gpu=config.rank.gpu,
                resources_per_worker={"CPU": 1, **({"GPU": 1} if config.rank.gpu else {}), **config.resources},
            ),
            run_config=RunConfig(
                name=f"{config.name}-{unique}",
                storage_path=config.storage,
                failure_config=FailureConfig(max_failures=config.max_failures),
            ),
        )
        self._thread = threading.Thread(target=self._fit, name="ray-train", daemon=True)
        self._thread.start()

    def put(self, works: Sequence[Work]) -> None:
        """Queue steps; waits while the queue is full."""
        reference = ray.put(list(works))
        self._wait(self.hub.put, reference)

    def snapshot(self, version: int) -> Snapshot:
        """The weights of a version; waits for them."""
        return self._wait(self.hub.snapshot, version)

    def wait_saved(self, step: int) -> Start:
        """The newest checkpoint, at least of that step; waits for it."""
        return self._wait(self.hub.checkpoint, step)

    def reports(self, step: int) -> dict[int, Mapping[str, float]]:
        """What the learner reported of steps below this one and has not been fetched yet."""
        return self._ask(self.hub.reports.remote(step))

    def close(self) -> None:
        """Say that no more work will come; the ranks end by themselves, in the background."""
        self._ask(self.hub.close.remote())

    def join(self, seconds: float) -> None:
        """Wait for the ranks to end."""
        self._thread.join(seconds)

    def stop(self, seconds: float = _ENDING) -> None:
        """End the ranks, whatever they still had to do, and wait for that: when Ray is shut down under the thread that
        runs them, the process can crash."""
        with contextlib.suppress(RayError):
            ray.get(self.hub.drop.remote(), timeout=seconds)
        self.join(seconds)

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as error:
            self._failure = error

    def _wait(self, method: Any, argument: Any) -> Any:
        """What the Hub answers in the end; raises where the learner cannot go on."""
        while not (found := self._ask(method.remote(argument))):
            if (cause := self._ask(self.hub.failure.remote())) is not None:
                raise LearnerFailedError(cause)
        return found

    def _ask(self, reference: Any) -> Any:
        """The Hub's answer; raises where the learner has failed for good."""
        if self._failure is not None:
            raise LearnerFailedError(_cause(self._failure)) from self._failure
        try:
            return ray.get(reference, timeout=_PATIENCE)
        except RayError as error:
            raise LearnerFailedError(_cause(error)) from error


def _cause(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else type(error).__name__)
    return f"the learner failed and was not brought back: {told[:400]}; its own logs are in the run's logs/ray"


def _train(config: dict[str, Any]) -> None:
    """What each rank does: take work, learn, report, publish, save, until none will come."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    settings = RankConfig(**{**config["rank"], "footprint": Footprint(**config["rank"]["footprint"])})
    if not settings.gpu:
        torch.set_num_threads(1)
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    hub = ray.get_actor(config["hub"], namespace=NAMESPACE)
    start: Any = ray.get(hub.start.remote(), timeout=_PATIENCE)
    worker = RankLoop(Path(start.checkpoint), settings, rank, world)
    gauges = LearnerGauges(context.get_experiment_name()) if rank == 0 else None
    try:
        if start.version is not None:
            _publish(hub, worker, start.version)
        _take_steps(hub, worker, start.step, gauges)
    except DivergedError as error:  # begun again, it would only diverge again
        if rank == 0:
            ray.get(hub.fail.remote(str(error)), timeout=_PATIENCE)


def _take_steps(hub: Any, worker: RankLoop, step: int, gauges: "LearnerGauges | None") -> None:
    """Take work from a step on, until none will come; rank 0, which has the gauges, tells of it."""
    while (works := ray.get(hub.take.remote(step, 8), timeout=_PATIENCE)) is not None:
        for work in works:
            metrics = worker.learn(work)
            step = work.step + 1
            if gauges is not None:
                hub.report.remote({work.step: metrics})
                gauges.set(metrics, worker.learner.tokens)
            if work.publish is not None:
                _publish(hub, worker, work.publish)
            if work.save:
                path = worker.save(step)
                if path is not None:
                    ray.get(hub.saved.remote(Start(str(path), step, work.publish)), timeout=_PATIENCE)
                ray.train.report(dict(metrics))


def _publish(hub: Any, worker: RankLoop, version: int) -> None:
    """Send the weights that learn to the Hub: every rank gives its share of them, and rank 0 sends."""
    weights = worker.learner.weights()
    if weights:
        ray.get(hub.publish.remote(version, weights), timeout=_PATIENCE)


class LearnerGauges:
    """What the Ray dashboard's Prometheus endpoint shows of the learner."""

    def __init__(self, run: str) -> None:
        self._gauges: dict[str, Gauge] = {}
        self._tags = {"run": run}
        self._steps = Counter("apprentice_learner_steps", "Steps taken by the learner", tag_keys=("run",))
        self._tokens = Gauge("apprentice_learner_tokens", "Tokens read by rank 0", tag_keys=("run",))

    def set(self, metrics: Mapping[str, float], tokens: int) -> None:
        self._steps.inc(1.0, self._tags)
        self._tokens.set(float(tokens), self._tags)
        for name, value in metrics.items():
            clean = "apprentice_learner_" + name.replace("/", "_")
            if clean not in self._gauges:
                self._gauges[clean] = Gauge(clean, f"The learner's {name} at its last step", tag_keys=("run",))
            self._gauges[clean].set(float(value), self._tags)


def snapshot_of(path: Path, version: int) -> Snapshot:
    """The weights of a checkpoint, ready to be sent to rollout workers.

    Args:
        path: of the checkpoint.
        version: that policies will take them for; different for different weights.
    """
    return Snapshot(version, [ray.put(weights_of(load_model(path)))])


def weights_in(snapshot: Snapshot) -> dict[str, Any]:
    """The arrays of published weights."""
    return ray.get(snapshot.weights[0], timeout=_PATIENCE)


@dataclass(frozen=True, slots=True)
class Pending:
    """A fit that goes on in a process of its own."""

    reference: Any

    def result(self, timeout: float = 7200.0) -> AloneResult:
        """Wait for it."""
        return ray.get(self.reference, timeout=timeout)


def fit_alone_remotely(job: AloneJob) -> Pending:
    """Start a fit beside the run, in a process of its own."""
    return Pending(ray.remote(num_cpus=1, max_retries=2)(fit_alone).remote(job))
