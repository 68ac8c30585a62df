"""The second stage of a recipe: several sources attempt tasks, the outcomes rank them, the learner follows.

Rounds are pipelined: while the learner takes the steps of one round, the workers play the next with weights that are
at most ``max_lag`` rounds old, or with those that ``refresh`` names. Which weights play which round is fixed in
advance, so the same seeds give the same run. A run that is resumed plays its first round with the newest weights there
are, where an unbroken one would have played it with those of ``max_lag`` rounds before.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from executors.errors import DataError
from rewards.selectivity import LIVE
from rewards.types import RankedGroup
from rl.data.examples import Encoder, Example
from rl.data.rounds import RoundGroup, Rounds, round_name
from rl.fit import LearnerHandle, report, unneeded, warn
from rl.improvement import Improvement
from rl.learner import checkpoint
from rl.learner.learner import Stage
from rl.learner.watch import Watch, group_figures, objective_warnings
from rl.learner.work import Work, epochs
from rl.progress import Progress
from rl.refresh import Players
from rl.run import Run
from rollouts.policy import Source
from rollouts.types import Group, Snapshot, Task


class Pool(Protocol):
    """What this stage asks of a ``RolloutPool``."""

    def pieces(
        self,
        tasks: Sequence[Task],
        sources: Sequence[Source],
        round: str,
        snapshots: Mapping[str, Snapshot] | None = None,
    ) -> Iterable[list[Group]]: ...

    def cpu_seconds(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the groups of a run."""

    groups: int
    candidates: int
    tied: int
    """Groups whose rewards are all equal: nothing to prefer, not learned from."""
    stale: int
    """Groups older than ``max_lag``: not learned from."""
    failed: int
    """Episodes that the infrastructure did not let finish: not ranked."""
    too_long: int
    """Candidates over the model's length: not learned from."""


def improve(
    learner: LearnerHandle,
    pool: Pool,
    tasks: Sequence[Task],
    config: Improvement,
    run: Run,
    progress: Progress,
    *,
    sources: Sequence[Source],
    judge: Callable[[Group], RankedGroup],
    encoder: Encoder,
    validate: Callable[[Snapshot], Mapping[str, float]],
    offset: int,
    seed: int,
    keep: int | None = None,
) -> Counts:
    """Play, rank, learn, for the configured rounds; a run that stopped on the way goes on where it was.

    Args:
        learner: takes the steps; it stands at the end of the stage before, or anywhere in this one.
        pool: plays the tasks.
        tasks: what is attempted; gone through once before any comes again.
        config: rounds, objective, optimiser.
        run: where groups, reports and the choice of the best checkpoint go.
        progress: what the user sees.
        sources: who attempts each task.
        judge: ranks a group.
        encoder: makes examples of ranked groups.
        validate: the figures of published weights on held-out tasks; ``utility`` chooses the best checkpoint.
        offset: the step of the run at which this stage begins.
        seed: of the order of the tasks.
        keep: checkpoints that stay, beside those that others need; None keeps all.

    Returns:
        What became of the groups.
    """
    played = _Played(learner, pool, config, run, progress, encoder, offset)
    watch, began = played.watch, played.began
    chooser = _Chooser(run, config, offset, progress, watch)
    warn(objective_warnings(config.objective), run, progress)
    for round, batch in enumerate(epochs(tasks, config.tasks_per_round, config.rounds, seed)):
        if round < began:
            continue
        chooser.consider(learner.snapshot(max(began, round - config.max_lag)), validate, learner)
        records = played.play(round, batch, sources, judge)
        played.learn(round, records)
        gone = unneeded(run, keep, chooser.needed() | {played.weights(round)})
        chooser.note(report(learner, offset + config.steps, played.stage, offset, run, progress, watch))
        checkpoint.remove(run.path / "checkpoints", gone)
    for version in range(max(began, config.rounds - config.max_lag), config.rounds + 1):
        chooser.consider(learner.snapshot(version), validate, learner)
    played.close(offset + config.steps)
    report(learner, offset + config.steps, played.stage, offset, run, progress, watch)
    return played.tally.counts()


class _Played:
    """The rounds of a stage: which weights play each, what comes of it, what is learned from it."""

    def __init__(
        self,
        learner: LearnerHandle,
        pool: Pool,
        config: Improvement,
        run: Run,
        progress: Progress,
        encoder: Encoder,
        offset: int,
    ) -> None:
        self.stage = Stage(name="improve", objective=config.objective, optimiser=config.optimiser, steps=config.steps)
        self.began = max(0, learner.wait_saved(0).step - offset) // config.steps_per_round
        self.watch = Watch()
        self.tally = _Tally()
        self._learner, self._pool, self._config, self._run = learner, pool, config, run
        self._progress, self._encoder, self._offset = progress, encoder, offset
        self._rounds = Rounds(run.path, self.began)
        for damage in self._rounds.damage:
            progress.line(f"{damage}; what it held is made again where it is needed")
        self._players = Players(config.refresh, learner, partial(_checkpoint, run, config, offset), self.began)
        for records in self._rounds.earlier(self.began):
            self.tally.add(records, encoder)

    def play(
        self, round: int, batch: Sequence[Task], sources: Sequence[Source], judge: Callable[[Group], RankedGroup]
    ) -> list[RoundGroup]:
        """Have the tasks of a round attempted and ranked; what a killed run has already played is not played again."""
        snapshot = self._players.of(round, self._config.max_lag)
        spent = self._pool.cpu_seconds()
        play = partial(self._pool.pieces, round=round_name(round), snapshots={LIVE: snapshot})
        records = self._rounds.complete(round, snapshot.version, batch, sources, play, judge)
        cpu_seconds = max(0.0, self._pool.cpu_seconds() - spent)
        self._run.log({"stage": "rollouts", "round": round, "cpu_seconds": cpu_seconds})
        figures = group_figures(record.group for record in records)
        self._run.log({"stage": "groups", "round": round, **figures})
        warn(self.watch.notice(figures), self._run, self._progress)
        return records

    def learn(self, round: int, records: Sequence[RoundGroup]) -> None:
        """Give the learner the steps of a round, made of the groups that are fresh enough."""
        version = self._config.refresh.version(round, self._config.max_lag)
        fresh = current(records, round, max(self._config.max_lag, round - version))
        self.tally.stale += len(records) - len(fresh)
        examples = self.tally.add(fresh, self._encoder)
        works = list(_works(examples, self.stage, round, self._config, self._offset))
        self._rounds.plan({work.step: [example.task_id for example in work.examples] for work in works}, fresh)
        self._learner.put(works)
        self._rounds.ledger.covered(self._learner.wait_saved(0).step)

    def weights(self, round: int) -> int:
        """The step of the weights that play a round."""
        return _step(self._config, self._offset, self._config.refresh.version(round, self._config.max_lag))

    def close(self, step: int) -> None:
        """Note that everything up to a step is learned and saved."""
        self._rounds.ledger.covered(self._learner.wait_saved(step).step)
        self._rounds.close()


def _step(config: Improvement, offset: int, version: int) -> int:
    """The step of the run that a version of this stage's weights was made by."""
    return offset + version * config.steps_per_round


def _checkpoint(run: Run, config: Improvement, offset: int, version: int) -> Path:
    return run.path / "checkpoints" / f"step-{_step(config, offset, version)}"


def _works(examples: Sequence[Example], stage: Stage, round: int, config: Improvement, offset: int) -> Iterator[Work]:
    """The steps of a round: as many as ever, sharing its examples evenly."""
    per_round = config.steps_per_round
    if len(examples) < per_round:
        raise DataError(
            f"round {round} left {len(examples)} groups to learn from, and its {per_round} steps need one each: most "
            "were tied, failed or too long (see groups/improve.jsonl); add sources, or widen model.max_length"
        )
    for index in range(per_round):
        start, end = (round_ * len(examples) // per_round for round_ in (index, index + 1))
        last = index == per_round - 1
        finished = round + 1
        yield Work(
            step=offset + round * per_round + index,
            stage=stage,
            stage_step=round * per_round + index,
            examples=tuple(examples[start:end]),
            version=round,
            publish=finished if last else None,
            save=last and (_judged(finished, config) or config.refresh.saves(finished)),
        )


def _judged(version: int, config: Improvement) -> bool:
    """Whether the weights after so many rounds are saved and judged on the validation tasks."""
    return version % config.validate_every == 0 or version == config.rounds


class _Chooser:
    """Judges checkpoints on held-out tasks as they come by, and points ``best`` at the best one."""

    def __init__(self, run: Run, config: Improvement, offset: int, progress: Progress, watch: Watch) -> None:
        self._run = run
        self._config = config
        self._offset = offset
        self._progress = progress
        self._watch = watch
        self._learned: dict[str, float] = {}

    def note(self, reports: Mapping[int, Mapping[str, float]]) -> None:
        """Keep how well the learner's last steps ranked their candidates, to show beside the figures."""
        accuracies = [metrics["rank_accuracy"] for metrics in reports.values() if "rank_accuracy" in metrics]
        if accuracies:
            self._learned = {"rank_accuracy_learning": sum(accuracies) / len(accuracies)}

    def needed(self) -> set[int]:
        """The steps of checkpoints that are still to be judged, and of those that this stage stands between."""
        validated = self._run.state().get("validated", {})
        every = self._config.validate_every
        versions = [*range(every, self._config.rounds, every), 0, self._config.rounds]
        left = {version for version in versions if str(version) not in validated} | {0, self._config.rounds}
        return {_step(self._config, self._offset, version) for version in left}

    def consider(
        self, snapshot: Snapshot, validate: Callable[[Snapshot], Mapping[str, float]], learner: LearnerHandle
    ) -> None:
        """Validate weights that have a checkpoint and were not validated before."""
        version = snapshot.version
        validated = self._run.state().get("validated", {})
        if not _judged(version, self._config) or str(version) in validated:
            return
        figures = dict(validate(snapshot))
        step = _step(self._config, self._offset, version)
        learner.wait_saved(step)
        self._run.log({"stage": "validate", "round": version, "step": step, **figures})
        validated |= {str(version): figures["utility"]}
        best = max(validated, key=lambda known: (_or_least(validated[known]), int(known)))
        self._run.point_best(_checkpoint(self._run, self._config, self._offset, int(best)))
        self._run.write_state(validated=validated)  # last: what is not noted is judged again
        shown = "  ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in (figures | self._learned).items())
        self._progress.line(f"round {version:>3}/{self._config.rounds}  {shown}")
        warn(self._watch.notice(figures), self._run, self._progress)


def current(records: Sequence[RoundGroup], round: int, max_lag: int) -> list[RoundGroup]:
    """The groups that weights no more than ``max_lag`` rounds old have played."""
    return [record for record in records if round - record.version <= max_lag]


def _or_least(utility: float | None) -> float:
    """A utility to compare by, the noise of its sum left out; one that is no number is the least."""
    return -math.inf if utility is None or math.isnan(utility) else round(utility, 9)


class _Tally:
    def __init__(self) -> None:
        self.stale = 0
        self._groups = self._candidates = self._tied = self._failed = self._too_long = 0

    def add(self, records: Sequence[RoundGroup], encoder: Encoder) -> list[Example]:
        """Count a round's groups; returns what there is to learn from them."""
        before = encoder.too_long
        examples = encoder.examples(record.group for record in records if not record.group.tied)
        self._too_long += encoder.too_long - before
        self._groups += len(records)
        for record in records:
            self._candidates += len(record.group.candidates)
            self._tied += record.group.tied
            self._failed += record.group.dropped
        return examples

    def counts(self) -> Counts:
        return Counts(self._groups, self._candidates, self._tied, self.stale, self._failed, self._too_long)


def start_version(step: int, offset: int, config: Improvement) -> int | None:
    """The version that a learner publishes when it begins inside this stage; None where it begins before it."""
    return (step - offset) // config.steps_per_round if step >= offset else None
