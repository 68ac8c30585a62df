"""TRICE: tool learning with execution feedback (Qiao et al., 2024), online.

Behaviour cloning on demonstrations leaves a policy that can call its tools, and calls them badly. Then several models,
the policy among them, attempt each task; their calls are executed; the outcomes rank the attempts; and the policy is
moved to find them as likely as they are good. The paper does this once, offline; here the candidates are fresh.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rewards.ranking import level_counts
from rl.data.examples import Example
from rl.data.rounds import RoundLog
from rl.data.tasks.benchmark import Benchmark
from rl.evaluation.evaluate import summarise, write_summary
from rl.evaluation.intervals import Ratio, figures
from rl.evaluation.report import write_report
from rl.evaluation.selectivity import FURTHER
from rl.fit import fit
from rl.improve import Counts, improve
from rl.learner.learner import Stage
from rl.progress import Progress
from rl.recipes.cloning import OwnAnswers
from rl.recipes.parts import TriceConfig
from rl.recipes.session import Session
from rl.run import Run

_START, _FINAL, _LAST, _CONTINUED, _BASE = -1, -2, -3, -4, -5
"""Versions of weights that the learner did not publish."""


def train(config: TriceConfig, benchmark: Benchmark, run: Run, progress: Progress) -> dict[str, Any]:
    """Clone tool use, then reinforce it with execution feedback (TRICE, section 3).

    Returns:
        The summary that ``evaluation/summary.json`` holds.
    """
    with Session(config, benchmark, run, progress) as session:
        with progress.stage(_title(config)):
            _clone(config, session)
        counts = None
        continued = session.start_continued()
        if "improve" in config.stages:
            with progress.stage(f"2. Improve: {config.improvement.rounds} rounds of ranked candidates"):
                counts = _improve(config, session)
                best = (run.path / "checkpoints" / "best").resolve()
                last = session.checkpoint_at(config.offset + config.improvement.steps)
                _show(session, "final", best, _FINAL)
                if best != last:
                    _show(session, "last", last, _LAST)
        if continued is not None:
            with progress.stage(
                f"3. Compare: {config.baselines.continued_cloning_steps} more steps of cloning instead"
            ):
                result = session.fitted("continued_cloning", continued)
                _show(session, "continued_cloning", Path(result.path), _CONTINUED)
        session.learner.close()
        summary = _summary(config, session, counts)
        write_summary(run, summary)
        write_report(run, summary)
    return summary


def _title(config: TriceConfig) -> str:
    laid = f"{config.cloning.base_step} steps of foundation" if config.cloning.foundation else ""
    cloned = f"{config.cloning.steps} steps of behaviour cloning" if "clone" in config.stages else ""
    return f"1. Clone: {' and '.join(filter(None, (laid, cloned))) or 'nothing, the policy is taken as it is'}"


def _clone(config: TriceConfig, session: Session) -> None:
    """Stage 1: ``start`` is the policy after it; ``base``, where there is one, the policy that it began with."""
    peers = session.start_peers()
    cloning = config.cloning
    clones = "clone" in config.stages
    if (laid := cloning.foundation) is not None:
        optimiser = laid.optimiser or cloning.optimiser
        stage = Stage(name="foundation", objective=cloning.objective, optimiser=optimiser, steps=laid.steps)
        _fit(config, session, session.demonstrations(0, laid.demonstrator), stage, 0, publish=not clones)
    if clones:
        stage = Stage(name="clone", objective=cloning.objective, optimiser=cloning.optimiser, steps=cloning.steps)
        _fit(config, session, session.cloned(), stage, cloning.base_step, publish=True)
    session.open_pool({name: session.fitted(name, pending) for name, pending in peers.items()})
    if clones and (cloning.foundation is not None or isinstance(cloning.demonstrator, OwnAnswers)):
        _show(session, "base", session.checkpoint_at(cloning.base_step), _BASE)
    _show(session, "start", session.checkpoint_at(config.offset), _START)
    if "improve" not in config.stages:
        session.run.point_best(session.checkpoint_at(config.offset))


def _fit(
    config: TriceConfig, session: Session, examples: list[Example], stage: Stage, offset: int, *, publish: bool
) -> None:
    fit(
        session.learner,
        examples,
        stage,
        session.run,
        session.progress,
        batch_size=config.cloning.batch_size,
        seed=config.seed,
        offset=offset,
        save_every=config.cloning.save_every,
        publish_last=0 if publish else None,
        keep=config.learner.keep,
    )
    session.run.finish(stage.name, {"step": offset + stage.steps})


def _improve(config: TriceConfig, session: Session) -> Counts:
    counts = improve(
        session.learner,
        session.pool,
        session.benchmark.train,
        config.improvement,
        session.run,
        session.progress,
        sources=[source.build() for source in config.sources],
        judge=config.rewards.rank,
        encoder=session.encoder,
        validate=session.validate,
        offset=config.offset,
        seed=config.seed,
        keep=config.learner.keep,
    )
    records = RoundLog(session.run.path).all()
    session.levels["train"] = level_counts(record.group for record in records)
    session.run.finish("improve", asdict(counts))
    return counts


def _show(session: Session, name: str, checkpoint: Path, version: int) -> None:
    """Evaluate a state of the policy on the test tasks and say what came out."""
    session.evaluated[name] = session.measure(name, checkpoint, version)
    shown = {key: value for key, value in figures(session.evaluated[name]).items() if key not in FURTHER}
    told = ((key, figure.value) for key, figure in shown.items() if "/" not in key)
    words = "  ".join(f"{key.replace('_', ' ')} {value:.3f}" for key, value in told)
    session.progress.line(f"{name.replace('_', ' ')}: {words}")


def _summary(config: TriceConfig, session: Session, counts: Counts | None) -> dict[str, Any]:
    states: dict[str, dict[str, Ratio]] = dict(session.evaluated)
    extra = {
        "seed": config.seed,
        "groups": asdict(counts) if counts else {},
        "levels": session.levels,
        "rejected_rows": len(session.benchmark.rejected),
        "cpu_seconds": session.cpu_seconds(),
    }
    return summarise(states, len(session.benchmark.test), extra)
