"""A recipe's session in one process, without Ray: what a study of arms, or TRL's trainers, sit down at."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rewards.ranking import GOLD
from rewards.selectivity import LIVE
from rl.data.examples import Encoder
from rl.evaluation.evaluate import PairRanking, Played, evaluate
from rl.learner import checkpoint
from rl.learner.alone import AloneJob, fit_alone
from rl.learner.learner import Stage, weights_of
from rl.learner.local import LocalLearner
from rl.learner.rank import RankConfig
from rl.learner.remote import Start
from rl.models.load import build_weights, load_model, load_tokenizer
from rl.recipes.parts import RecipeConfig
from rl.recipes.session import Session
from rl.serving.policies import GoldPolicy, LocalPolicy, RecordedPolicy
from rollouts.policy import Source
from rollouts.types import Group, Snapshot, Task
from rollouts.worker import RolloutWorker


class LocalPool:
    """One rollout worker in this process, as a ``RolloutPool`` would have it."""

    def __init__(self, worker: RolloutWorker) -> None:
        self.worker = worker
        self._loop = asyncio.Runner()
        self._spent = 0.0

    def play(
        self,
        tasks: Sequence[Task],
        sources: Sequence[Source],
        round: str,
        snapshots: Mapping[str, Snapshot] | None = None,
    ) -> list[Group]:
        began = time.process_time()
        for name, snapshot in (snapshots or {}).items():
            self.worker.load(name, snapshot.weights, snapshot.version)
        groups = self._loop.run(self.worker.play(tasks, sources, round))
        self._spent += time.process_time() - began
        return groups

    def pieces(
        self,
        tasks: Sequence[Task],
        sources: Sequence[Source],
        round: str,
        snapshots: Mapping[str, Snapshot] | None = None,
    ) -> Iterator[list[Group]]:
        yield self.play(tasks, sources, round, snapshots)

    def cpu_seconds(self) -> float:
        return self._spent

    def stop(self) -> None:
        self._loop.close()


class Desk(Session):
    """A recipe's session in this process, without Ray."""

    def __enter__(self) -> "Desk":
        start = self._start()
        self.tokenizer = load_tokenizer(Path(start.checkpoint))
        specs = {spec.name: spec for spec in self.benchmark.catalog.specs()}
        self.encoder = Encoder(self.tokenizer, self.format, specs, max_tokens=self.config.model.max_length)
        return self

    def clone(self) -> None:
        """Clone the policy and its peers, unless they are there."""
        config = self.config
        self._fit(self.run.folder("checkpoints").resolve(), "clone", 0, config.seed)
        for name, peer in config.peers.items():
            seed = config.seed + 1000 * (1 + peer.seed)
            folder = self.run.folder("peers").resolve() / name
            if not (folder / "step-0").exists():
                checkpoint.begin(folder, build_weights(config.model, self.tokenizer, seed), self.tokenizer)
            self._fit(folder, name, peer.seed, seed)

    def _fit(self, folder: Path, name: str, annotator: int, seed: int) -> None:
        cloning = self.config.cloning
        stage = Stage(name=name, objective=cloning.objective, optimiser=cloning.optimiser, steps=cloning.steps)
        fit_alone(
            AloneJob(
                start=str(folder / "step-0"),
                folder=str(folder),
                examples=tuple(self.demonstrations(annotator)),
                stage=stage,
                batch_size=cloning.batch_size,
                seed=seed,
            )
        )

    def open_local(self, cloned: Path) -> LocalPool:
        """The rollout worker, with the policies that a clone left in a folder."""
        steps = self.config.cloning.steps
        start = cloned / "checkpoints" / f"step-{steps}"
        policies: dict[str, Any] = {LIVE: LocalPolicy(LIVE, str(start), version=-1000)}
        for name in self.config.peers:
            policies[name] = LocalPolicy(name, str(cloned / "peers" / name / f"step-{steps}"))
        for name, replies in self.benchmark.recordings.items():
            policies[name] = RecordedPolicy(name, replies)
        policies.setdefault(GOLD, GoldPolicy(GOLD, self.benchmark.catalog, self.format))
        pool = LocalPool(RolloutWorker(self._worker_config(policies)))
        self._pool: Any = pool
        self._open.callback(pool.stop)
        return pool

    def learner(self, version: int | None = None) -> LocalLearner:  # type: ignore[override]
        """A learner that stands at the end of the cloning."""
        steps = self.config.cloning.steps
        settings = RankConfig(
            folder=str(self.run.folder("checkpoints").resolve()), errors=str(self.run.path / "errors")
        )
        return LocalLearner(settings, Start(str(self.checkpoint_at(steps)), steps, version))

    def test(self, path: Path, name: str, version: int) -> None:
        """Play the held-out tasks with a checkpoint; the attempts are kept under a name."""
        snapshot = Snapshot(version, weights_of(load_model(path)))
        evaluate(self.pool, self.benchmark.test, played(self.config), self.run, name, snapshot)


def played(config: RecipeConfig) -> Played:
    """How the policy's own attempts are measured."""
    if isinstance(config.evaluation, PairRanking):
        raise ValueError("this study measures attempts, and the config measures rankings")
    return config.evaluation


def judge_checkpoints(session: Desk) -> None:
    """Validate the checkpoints of a run that did not do so itself, and point ``best`` at the best."""
    found: dict[int, float] = {}
    for step in checkpoint.steps(session.run.path / "checkpoints"):
        if step < session.config.cloning.steps:
            continue
        snapshot = Snapshot(100_000 + step, weights_of(load_model(session.checkpoint_at(step))))
        told = session.validate(snapshot)
        session.run.log({"stage": "validate", "step": step, **told})
        found[step] = told["utility"]
    session.run.point_best(session.checkpoint_at(max(found, key=lambda step: (found[step], step))))
