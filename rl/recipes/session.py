"""What a recipe's run holds while it lasts: Ray, the benchmark, the learner, the rollout pool."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from executors.journal import await_writers, forget
from rewards.ranking import GOLD, level_counts
from rewards.selectivity import LIVE
from rewards.types import RankedGroup
from rl.data.examples import Encoder, Example
from rl.data.rounds import CALLS
from rl.data.tasks.benchmark import Benchmark
from rl.evaluation.evaluate import PairRanking, Played, evaluate, evaluated
from rl.evaluation.intervals import Ratio, figures
from rl.evaluation.ranking import rank_ratios
from rl.improve import start_version
from rl.learner import checkpoint
from rl.learner.alone import AloneJob, AloneResult
from rl.learner.learner import Learner, Stage, weights_of
from rl.learner.rank import RankConfig
from rl.learner.remote import LearnerConfig, Pending, RemoteLearner, Start, fit_alone_remotely, snapshot_of, weights_in
from rl.models.load import (
    HuggingFaceModel,
    build_tokenizer_for,
    build_weights,
    is_adapter,
    load_model,
    load_tokenizer,
    pad_id,
    require_config,
)
from rl.progress import Progress
from rl.recipes.cloning import Annotators, OwnAnswers
from rl.recipes.demonstrations import ROUNDS, Demonstrations, tokenizer_texts
from rl.recipes.executors import ExecutorBuilder, start_pools
from rl.recipes.parts import Peer, RecipeConfig
from rl.remote import require_gpus, require_storage
from rl.remote import start as start_ray
from rl.run import Run
from rl.serving.policies import GoldPolicy, LocalPolicy, RecordedPolicy
from rl.serving.sources import EndpointConfig, VllmConfig
from rollouts.formats import Format
from rollouts.remote import RolloutPool, Stragglers, Workers
from rollouts.types import Group, Snapshot, Task
from rollouts.worker import RolloutWorker, WorkerConfig, require_played


class Session:
    """Opens with the run and closes with it, whatever happens in between."""

    def __init__(self, config: RecipeConfig, benchmark: Benchmark, run: Run, progress: Progress) -> None:
        self.config = config
        self.benchmark = benchmark
        self.run = run
        self.progress = progress
        self.evaluated: dict[str, dict[str, Ratio]] = {}
        """By policy state (``start``, ``final``, baselines), its figures on the test tasks."""
        self.spent: dict[str, float] = {}
        """CPU-seconds by what they were spent on."""
        self.levels: dict[str, Mapping[str, int]] = {}
        """Candidates by their reward, of the groups that were learned from and of recorded ones that were held out."""
        self._open = contextlib.ExitStack()
        self._pool: RolloutPool | None = None
        self._calls = run.path.resolve() / CALLS
        self._builder = ExecutorBuilder(
            benchmark.catalog, config.rollouts.tool_timeout, self._calls if config.rollouts.journal else None
        )
        self._demonstrations = Demonstrations(config, benchmark, config.format.build(), self._worker_config)
        self._formats: Mapping[str, Format] = {}
        """By source, of those that read in another way than the policy."""
        self.format = self._demonstrations.policy_format()

    def __enter__(self) -> "Session":
        config = self.config
        if self.benchmark.rejected:
            self.progress.line(f"{len(self.benchmark.rejected)} rows left out, such as {self.benchmark.rejected[0]}")
        await_writers(self._calls)
        start = self._start()
        self.tokenizer = load_tokenizer(Path(start.checkpoint))
        specs = {spec.name: spec for spec in self.benchmark.catalog.specs()}
        self.encoder = Encoder(self.tokenizer, self.format, specs, max_tokens=config.model.max_length)
        cluster = start_ray(
            num_cpus=config.ray.num_cpus,
            object_store_mib=config.ray.object_store_mib,
            dashboard=config.ray.dashboard,
            logs=self.run.folder("logs").resolve(),
        )
        self._open.callback(cluster.stop)
        played = config.rollouts.workers * config.rollouts.gpus + config.executor.gpus
        played += sum(p.workers * p.gpus for one in config.policies.values() if (p := getattr(one, "place", None)))
        require_gpus(config.learner.workers * config.learner.gpu + played)
        if (nodes := require_storage(str(self.run.path.resolve()))) > 1:
            self.progress.line(f"Ray cluster    {nodes} nodes, each of which has the run's folder")
        if cluster.dashboard:
            self.progress.line(f"Ray dashboard  {cluster.dashboard}")
        if config.executor.pools:
            executors = start_pools(config.executor, self._builder)
            self._open.callback(executors.stop)
            self._builder = self._builder.with_crews(executors.crews)
        self.learner = RemoteLearner(
            LearnerConfig(
                workers=config.learner.workers,
                min_workers=config.learner.min_workers,
                resources=config.learner.resources,
                max_failures=config.learner.max_failures,
                rank=self._rank(),
                storage=str(self.run.folder("logs").resolve() / "train"),
                name=config.name,
            ),
            start,
            bound=2 * max(config.improvement.steps_per_round, 8),
            versions=config.improvement.max_lag + 3,
        )
        self._open.callback(self.learner.stop)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def pool(self) -> RolloutPool:
        if self._pool is None:
            raise RuntimeError("open_pool comes first")
        return self._pool

    def checkpoint_at(self, step: int) -> Path:
        """A checkpoint of this run."""
        return (self.run.path / "checkpoints" / f"step-{step}").resolve()

    def demonstrations(self, annotator: int, kind: Annotators | None = None) -> list[Example]:
        """The demonstrations of an annotator, really executed, as examples.

        Args:
            annotator: 0 for the policy's own; a peer has another, who draws anew where to call.
            kind: what they are like; as the config says by default.
        """
        return self.encoder.examples(self._demonstrations.annotated(annotator, kind or self.config.cloning.annotators))

    def cloned(self) -> list[Example]:
        """What stage 1 imitates, as examples: an annotator, or the policy's own answers and a teacher's calls."""
        cloning = self.config.cloning
        if not isinstance(cloning.demonstrator, OwnAnswers):
            return self.demonstrations(0)
        base = self.checkpoint_at(cloning.base_step)
        made = self._demonstrations.own(base, self.run, self.progress)
        for round in ROUNDS:
            forget(self._calls, round)
        return self.encoder.examples(made)

    def start_peers(self) -> dict[str, Pending]:
        """Begin to clone the peers, each in a process of its own; none where nobody would play them."""
        if "improve" not in self.config.stages:
            return {}
        return {name: self._start_peer(name, peer) for name, peer in self.config.peers.items()}

    def start_continued(self) -> Pending | None:
        """Begin the baseline of more cloning from the same start, beside the run; None where it is not asked for."""
        steps = self.config.baselines.continued_cloning_steps
        if not steps or "improve" not in self.config.stages:
            return None
        stage = Stage(
            name="continued_cloning",
            objective=self.config.cloning.objective,
            optimiser=self.config.improvement.optimiser,
            steps=steps,
        )
        start = self.checkpoint_at(self.config.offset)
        return self._fit_alone("continued_cloning", start, self.cloned(), stage, self.config.seed + 1)

    def fitted(self, name: str, pending: Pending) -> AloneResult:
        """Wait for a fit that was begun, and note its cost."""
        result = pending.result()
        self.spent[name] = result.cpu_seconds
        return result

    def open_pool(self, peers: Mapping[str, AloneResult]) -> None:
        """Start the rollout workers, each with the live policy, the peers, the gold one and the recorded ones."""
        start, gpu = self.checkpoint_at(0), self.config.rollouts.gpus > 0
        policies: dict[str, Any] = {LIVE: LocalPolicy(LIVE, str(start), version=-1000, gpu=gpu)}
        policies |= {name: LocalPolicy(name, result.path, gpu=gpu) for name, result in peers.items()}
        for name, replies in self.benchmark.recordings.items():
            policies[name] = RecordedPolicy(name, replies)
        policies.setdefault(GOLD, GoldPolicy(GOLD, self.benchmark.catalog, self.format))
        self._formats = self._demonstrations.source_formats()
        elsewhere: dict[str, Any] = {}
        kinds: dict[str, Workers] = {}
        rollouts = self.config.rollouts
        for name, policy in self.config.policies.items():
            place = getattr(policy, "place", None)
            build = policy.build(name, self.format, self.benchmark.catalog, gpu=place.gpus > 0 if place else gpu)
            if place is not None:
                placed = {"cpus": place.cpus, "gpus": place.gpus, "resources": place.resources}
                kinds[name] = Workers(config=self._worker_config({name: build}), count=place.workers, **placed)
            else:
                held = elsewhere if isinstance(policy, EndpointConfig | VllmConfig) else policies
                held[name] = build
        kinds["local"] = Workers(
            config=self._worker_config(policies),
            count=rollouts.workers,
            gpus=rollouts.gpus,
            resources=rollouts.resources,
        )
        if elsewhere:  # one process asks all endpoints, so that a budget is the run's
            kinds["endpoints"] = Workers(config=self._worker_config(elsewhere), cpus=0)
        cut = None if rollouts.cut is None else Stragglers(**rollouts.cut.model_dump())
        self._pool = RolloutPool(kinds, timeout=rollouts.timeout, stragglers=cut)
        self._open.callback(self._pool.stop)

    def measure(self, name: str, path: Path, version: int) -> dict[str, Ratio]:
        """The figures of a checkpoint on the test tasks.

        Args:
            name: of the state that the policy is in; its attempts are kept under that name.
            path: of the checkpoint.
            version: that no other weights have.
        """
        measure = self.config.evaluation
        if isinstance(measure, PairRanking):
            ranked = self._recorded(self.benchmark.test)
            self.levels["test"] = level_counts(ranked)
            return rank_ratios(self._scorer(weights_of(load_model(path))), self.encoder.examples(ranked))
        tasks = self.benchmark.test
        groups = evaluated(self.run, name, len(tasks))
        if groups is None:  # else the checkpoint may be gone by now
            groups = evaluate(self.pool, tasks, measure, self.run, name, snapshot_of(path, version))
        forget(self._calls, f"evaluation/{name}")
        self._by_hand(name, measure, groups)
        return measure.ratios(groups)

    def validate(self, snapshot: Snapshot) -> dict[str, float]:
        """The figures of published weights on the validation tasks."""
        measure = self.config.evaluation
        tasks = self.benchmark.validation
        if isinstance(measure, PairRanking):
            examples = self.encoder.examples(self._recorded(tasks))
            ratios = rank_ratios(self._scorer(weights_in(snapshot)), examples)
        else:
            forget(self._calls, "validation")  # of other weights
            groups = self.pool.play(tasks, measure.sources()[:1], "validation", {LIVE: snapshot})
            forget(self._calls, "validation")
            require_played(groups)
            ratios = measure.free_ratios(groups)
        return {name: figure.value for name, figure in figures(ratios).items()}

    def _scorer(self, weights: Mapping[str, Any]) -> Learner:
        """A learner in this process with the given weights, to score recorded attempts."""
        model = load_model(self.checkpoint_at(0))
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                parameters[name].copy_(torch.from_numpy(np.array(value)))
        return Learner(model, pad_id=pad_id(self.tokenizer))

    def _recorded(self, tasks: Sequence[Task]) -> list[RankedGroup]:
        """The ranked recorded attempts at some tasks."""
        sources = [source.build() for source in self.config.sources if source.policy in self.benchmark.recordings]
        worker = RolloutWorker(
            self._worker_config({name: RecordedPolicy(name, r) for name, r in self.benchmark.recordings.items()})
        )
        groups = asyncio.run(worker.play(tasks, sources, "recorded"))
        return [self.config.rewards.rank(group) for group in groups]

    def _by_hand(self, name: str, measure: Played, groups: Sequence[Group]) -> None:
        """Measure the baselines that take no training on the start's attempts."""
        if name == "start":
            for baseline, source in measure.by_hand().items():
                self.evaluated[baseline] = measure.ratios(groups, source)

    def cpu_seconds(self) -> dict[str, float]:
        """CPU-seconds by what they were spent on; what was repeated after a crash counts once."""
        records = [record for record in self.run.metrics() if "cpu_seconds" in record]
        learned = {record["step"]: record for record in records if "step" in record}
        played = {record["round"]: record for record in records if record["stage"] == "rollouts"}
        spent = dict(self.spent)
        for record in learned.values():
            name = f"{record['stage']}_learner"
            spent[name] = spent.get(name, 0.0) + record["cpu_seconds"]
        spent["improve_rollouts"] = sum(record["cpu_seconds"] for record in played.values())
        return {name: round(value, 1) for name, value in spent.items()}

    def _start_peer(self, name: str, peer: Peer) -> Pending:
        seed = self.config.seed + 1000 * (1 + peer.seed)
        start = self.run.folder("peers") / name / "step-0"
        if not start.exists():
            self._begin(start.parent, self.tokenizer, seed)
        stage = Stage(
            name=f"clone_{name}",
            objective=self.config.cloning.objective,
            optimiser=self.config.cloning.optimiser,
            steps=peer.steps or self.config.cloning.base_step + self.config.cloning.steps,
        )
        return self._fit_alone(name, start.resolve(), self.demonstrations(peer.seed), stage, seed)

    def _fit_alone(self, name: str, start: Path, examples: Sequence[Example], stage: Stage, seed: int) -> Pending:
        job = AloneJob(
            start=str(start),
            folder=str(self.run.folder("peers").resolve() / name),
            examples=tuple(examples),
            stage=stage,
            batch_size=self.config.cloning.batch_size,
            seed=seed,
        )
        return fit_alone_remotely(job)

    def _start(self) -> Start:
        """Where the learner begins: the newest checkpoint; in a fresh run, random or given weights as step 0."""
        folder = self.run.folder("checkpoints")
        checkpoint.sweep(folder)
        step = checkpoint.newest(folder)
        if step is None:
            markers = self.format.markers(self.benchmark.catalog.specs())
            texts = tokenizer_texts(self.benchmark, self.config.format.build())
            tokenizer = build_tokenizer_for(self.config.model, texts, markers)
            self._begin(folder, tokenizer, self.config.seed)
            step = 0
        require_config(self.checkpoint_at(step), self.config.model)
        self._recover_reports(folder)
        version = start_version(step, self.config.offset, self.config.improvement)
        return Start(str(self.checkpoint_at(step)), step, version)

    def _begin(self, folder: Path, tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
        """Write what training starts from as step 0."""
        model = self.config.model
        base = Path(model.path) if isinstance(model, HuggingFaceModel) and not is_adapter(Path(model.path)) else None
        weights = build_weights(model, tokenizer, seed)
        checkpoint.begin(folder, weights, tokenizer, adapter=model.adapter, base=base, seed=seed)

    def _recover_reports(self, folder: Path) -> None:
        """Log what the learner reported of steps that a checkpoint covers and that no driver lived to write down."""
        known = {record["step"] for record in self.run.metrics() if "cpu_seconds" in record and "step" in record}
        for path in folder.glob("step-*"):
            if checkpoint.is_complete(path):
                for step, (stage, metrics) in checkpoint.load_state(path).get("reports", {}).items():
                    if step not in known:
                        self.run.log({"stage": stage, "step": step, **metrics})

    def _rank(self) -> RankConfig:
        settings, adapter = self.config.learner, self.config.model.adapter
        return RankConfig(
            folder=str(self.run.folder("checkpoints").resolve()),
            errors=str(self.run.path.resolve() / "errors"),
            gpu=settings.gpu,
            footprint=settings.footprint,
            packing=settings.packing,
            max_tokens=settings.max_tokens,
            quantised=adapter is not None and adapter.kind == "qlora",
        )

    def _worker_config(self, policies: Mapping[str, Any], format: Format | None = None) -> WorkerConfig:
        return WorkerConfig(
            policies=policies,
            executor=self._builder,
            format=format or self.format,
            formats=self._formats,
            max_turns=self.config.rollouts.max_turns,
            seed=self.config.seed,
            concurrency={
                name: policy.concurrency
                for name, policy in self.config.policies.items()
                if isinstance(policy, EndpointConfig | VllmConfig)
            },
            searching=self.config.rollouts.searching,
        )
