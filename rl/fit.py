"""The first stage of a recipe: learn from examples that do not change."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from rl.data.examples import Example
from rl.learner import checkpoint
from rl.learner.learner import Stage
from rl.learner.local import LocalLearner
from rl.learner.remote import RemoteLearner, Start
from rl.learner.watch import Watch
from rl.learner.work import Work, epochs
from rl.progress import Progress
from rl.run import Run

LearnerHandle: TypeAlias = RemoteLearner | LocalLearner
"""Whoever takes the steps: the ranks of a run, or this process."""
_CHUNK = 8
"""Steps put at once."""


def fit(
    learner: LearnerHandle,
    examples: Sequence[Example],
    stage: Stage,
    run: Run,
    progress: Progress,
    *,
    batch_size: int,
    seed: int,
    offset: int = 0,
    save_every: int = 200,
    publish_last: int | None = None,
    keep: int | None = None,
) -> Start:
    """Let the learner go over examples for the stage's steps.

    Args:
        learner: takes the steps; it may stand anywhere in this stage, and goes on from there.
        examples: the same at every call, so that a resumed run goes on with the same batches.
        stage: what is minimised, how, for how many steps.
        run: where reports go.
        progress: what the user sees.
        batch_size: examples of one step.
        seed: of their order.
        offset: the step of the run at which the stage begins.
        save_every: steps between checkpoints.
        publish_last: version under which the last weights are published; None for not.
        keep: checkpoints that stay, beside those that others need (see ``checkpoint.superfluous``); None keeps all.

    Returns:
        The checkpoint after the last step.
    """
    began = learner.wait_saved(0).step
    watch = Watch()
    chunk: list[Work] = []
    logged = time.time()
    for stage_step, batch in enumerate(epochs(examples, batch_size, stage.steps, seed)):
        step = offset + stage_step
        if step < began:
            continue
        last = stage_step == stage.steps - 1
        saves = last or (stage_step + 1) % save_every == 0
        publish = publish_last if last else None
        chunk.append(Work(step=step, stage=stage, stage_step=stage_step, examples=batch, save=saves, publish=publish))
        if len(chunk) == _CHUNK or last:
            learner.put(chunk)
            chunk = []
            if time.time() - logged > 1 or last:
                logged = time.time()
                gone = unneeded(run, keep, {offset})
                report(learner, step + 1, stage, offset, run, progress, watch)
                checkpoint.remove(run.path / "checkpoints", gone)
    start = learner.wait_saved(offset + stage.steps)
    report(learner, offset + stage.steps, stage, offset, run, progress, watch)
    return start


def unneeded(run: Run, keep: int | None, spare: Iterable[int]) -> list[int]:
    """Checkpoints to remove once all has been fetched that was reported until now: they hold it too."""
    return [] if keep is None else checkpoint.superfluous(run.path / "checkpoints", keep, spare)


def report(
    learner: LearnerHandle, step: int, stage: Stage, offset: int, run: Run, progress: Progress, watch: Watch
) -> dict[int, Mapping[str, float]]:
    """Fetch what the learner reported of steps below this one: into metrics.jsonl, and the last to the user."""
    reports = learner.reports(step)
    for known, metrics in reports.items():
        run.log({"stage": stage.name, "step": known, **{name: round(value, 5) for name, value in metrics.items()}})
        if "skipped" in metrics:
            kept = run.path / "errors" / f"step-{known}.json"
            warn([f"step {known} was skipped: its loss or gradient is not finite; see {kept}"], run, progress)
        warn(watch.notice(metrics), run, progress)
    if reports:
        known = max(reports)
        progress.update(known + 1 - offset, stage.steps, reports[known])
    return reports


def warn(texts: Iterable[str], run: Run, progress: Progress) -> None:
    """Say what looks wrong, to the user and in metrics.jsonl."""
    for text in texts:
        run.log({"stage": "warning", "warning": text})
        progress.line(f"warning: {text}")
