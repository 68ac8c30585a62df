"""Where a recipe's fits are done: in this process, or on ranks of a Ray cluster that all of them share.

A recipe that fits models one after the other says each as an ``AloneJob``. With a ``learner`` section in its config the
same job runs on as many ranks as that says, the model shared out among them by its strategy.
"""

from collections.abc import Iterable
from pathlib import Path

from executors.errors import ConfigError
from rl.fit import fit
from rl.learner import checkpoint
from rl.learner.alone import AloneJob, AloneResult, fit_alone
from rl.learner.rank import RankConfig
from rl.learner.remote import LearnerConfig, RemoteLearner, Start
from rl.progress import Progress
from rl.recipes.joined import Joined
from rl.recipes.parts import LearnerSettings
from rl.run import Run


class Fitter:
    """Fits models for one run."""

    def __init__(self, settings: LearnerSettings | None, cluster: Joined, run: Run, progress: Progress) -> None:
        """
        Args:
            settings: of the ranks; None fits in this process.
            cluster: that the ranks are on.
            run: in whose folder everything is.
            progress: what the user sees.
        """
        self.settings = settings
        self._cluster = cluster
        self._run = run
        self._progress = progress

    def fit(self, job: AloneJob) -> AloneResult:
        """Fit a model from start to end; what is there already is not fitted again.

        On ranks, a fit that was stopped goes on from its newest checkpoint.

        Args:
            job: what to fit. Its stage has a name that no other fit of the run has. On ranks, precision and the like
                are the settings'.

        Raises:
            ConfigError: it learns single rows, which ranks do not; or the cluster has no such GPUs.
            LearnerFailedError: the ranks stopped and could not be brought back.
            DivergedError: several steps in a row were not finite.
        """
        settings = self.settings
        if settings is None:
            return fit_alone(job)
        if job.rows:
            raise ConfigError("single tokens are learned in one process; leave the learner section out of the config")
        folder = Path(job.folder).resolve()
        done = folder / f"step-{job.stage.steps}"
        if not checkpoint.is_complete(done):
            self._fit(job, folder, settings)
        records = {
            one["step"]: one for one in self._run.metrics() if one.get("stage") == job.stage.name and "step" in one
        }
        return AloneResult(
            path=str(done),
            cpu_seconds=sum(one.get("cpu_seconds", 0.0) for one in records.values()),
            tokens=checkpoint.load_state(done).get("tokens", 0),
            loss=records[max(records)].get("loss", float("nan")) if records else float("nan"),
        )

    def _fit(self, job: AloneJob, folder: Path, settings: LearnerSettings) -> None:
        self._cluster.join(gpus=settings.workers * settings.gpu)
        checkpoint.sweep(folder)
        step = checkpoint.newest(folder)
        start = Start(str(Path(job.start).resolve()), 0) if step is None else Start(str(folder / f"step-{step}"), step)
        learner = RemoteLearner(self._config(job, folder, settings), start, bound=16)
        try:
            steps = job.stage.steps
            fit(
                learner,
                job.examples,
                job.stage,
                self._run,
                self._progress,
                batch_size=job.batch_size,
                seed=job.seed,
                save_every=max(1, min(200, -(-steps // 2))),
            )
            learner.close()
        finally:
            learner.stop()
        checkpoint.remove(folder, _superseded(folder, steps))

    def _config(self, job: AloneJob, folder: Path, settings: LearnerSettings) -> LearnerConfig:
        rank = RankConfig(
            folder=str(folder),
            errors=str(self._run.path.resolve() / "errors"),
            gpu=settings.gpu,
            footprint=settings.footprint,
            packing=settings.packing,
            max_tokens=settings.max_tokens,
            quantised=job.quantised,
        )
        return LearnerConfig(
            workers=settings.workers,
            min_workers=settings.min_workers,
            resources=settings.resources,
            max_failures=settings.max_failures,
            rank=rank,
            storage=str(self._run.folder("logs").resolve() / "train"),
            name=f"{self._run.path.name}-{job.stage.name}",
        )


def _superseded(folder: Path, last: int) -> Iterable[int]:
    """Checkpoints within a fit that is over."""
    return [step for step in checkpoint.steps(folder) if 0 < step < last]
