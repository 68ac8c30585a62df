"""What a finished run can be asked for: its policy, its figures; and what a config can be asked before there is one."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from executors.catalog import Catalog
from executors.errors import ConfigError, DataError
from executors.executor import Executor
from rewards.ranking import GOLD
from rewards.selectivity import LIVE
from rl.config import validate
from rl.data.tasks.benchmark import Benchmark
from rl.evaluation.evaluate import PairRanking, evaluate
from rl.evaluation.intervals import Ratio
from rl.learner.watch import objective_warnings
from rl.models.load import is_model
from rl.recipes.executors import ExecutorBuilder
from rl.recipes.lengths import require_lengths
from rl.recipes.prepared import prepare
from rl.recipes.ste_config import SteConfig
from rl.recipes.toolalpaca_config import ToolAlpacaConfig
from rl.recipes.toolgen_config import ToolGenConfig
from rl.recipes.toolkengpt_config import ToolkenGptConfig
from rl.recipes.trice import TriceConfig
from rl.run import Run
from rl.serving.policies import GoldPolicy, LocalPolicy, RecordedPolicy
from rl.serving.published import Published
from rollouts.formats import Format
from rollouts.formats.toolken import ToolkenFormat
from rollouts.policy import Source
from rollouts.types import Episode, Group, Snapshot, Task
from rollouts.worker import RolloutWorker, WorkerConfig

_CHECKED = 200
"""Gold attempts that ``check_config`` plays."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A run's policy and what it needs."""

    name: str
    run: Run
    config: TriceConfig
    checkpoint: Path
    format: Format
    catalog: Catalog


def open_trained(path: Path, checkpoint: str = "best") -> Trained:
    """A run's policy; its tasks need not be there, only its tools.

    Raises:
        ConfigError: the run is of another recipe.
        DataError: the folder is no run, or has no such checkpoint.
    """
    run = Run.open(path)
    if (recipe := run.config().get("recipe", "trice")) != "trice":
        raise ConfigError(f"{path} is a run of {recipe!r}, and has to be one of trice")
    config = validate(run.config(), TriceConfig, str(run.resolved))
    chosen = _chosen(path, checkpoint)
    return Trained(config.name, run, config, chosen, config.format.build(), config.tasks.catalog())


def _chosen(path: Path, checkpoint: str) -> Path:
    """The directory of a run's checkpoint. Raises DataError where there is none."""
    folder = path / "checkpoints"
    chosen = folder / checkpoint
    if not is_model(chosen):
        there = ", ".join(sorted(found.name for found in folder.glob("*") if not found.name.startswith("."))) or "none"
        raise DataError(f"{path} has no checkpoint {checkpoint!r}; there are: {there}")
    return chosen.resolve()


def _evaluate_staged(path: Path, checkpoint: str, split: str) -> dict[str, Ratio]:
    """Of a recipe each of whose stages has a folder of checkpoints: they are named as ``serve`` names them."""
    from rl.recipes import ste, toolalpaca

    run = Run.open(path)
    found = Published(path / "checkpoints", checkpoint, staged=True).default()
    content, origin, name = run.config(), str(run.resolved), f"{found.id}-step-{found.version}-{split}"
    if content["recipe"] == "ste":
        return ste.evaluate_run(run, validate(content, SteConfig, origin), found.path, split, name)
    return toolalpaca.evaluate_run(run, validate(content, ToolAlpacaConfig, origin), found.path, split, name)


def _evaluate_toolgen(path: Path, checkpoint: str, split: str) -> dict[str, Ratio]:
    from rl.recipes.toolgen import evaluate_run

    run = Run.open(path)
    config = validate(run.config(), ToolGenConfig, str(run.resolved))
    return evaluate_run(run, config, _chosen(path, checkpoint), split)


def _evaluate_toolken(path: Path, checkpoint: str, split: str) -> dict[str, Ratio]:
    from rl.recipes.served import open_run
    from rl.recipes.toolkengpt import evaluate_run

    opened = open_run(path)
    if split != "test" or checkpoint not in ("best", opened.choice) or not isinstance(opened.format, ToolkenFormat):
        raise ConfigError(
            f"{path} is a run of toolkengpt, whose last rows, in checkpoints/{opened.choice}, are evaluated on its "
            "test sets; leave --checkpoint and --split out"
        )
    assert opened.opener is not None
    run = Run.open(path)
    config = validate(run.config(), ToolkenGptConfig, str(run.resolved))
    return evaluate_run(config, opened.opener(opened.checkpoints / str(opened.choice), 0), opened.format)


class LocalPlayer:
    """Plays in this process, as evaluation asks."""

    def __init__(self, worker: RolloutWorker) -> None:
        self._worker = worker

    def play(
        self,
        tasks: Sequence[Task],
        sources: Sequence[Source],
        round: str,
        snapshots: Mapping[str, Snapshot] | None = None,
    ) -> list[Group]:
        """Let every source attempt every task."""
        return asyncio.run(self._worker.play(tasks, sources, round))


def evaluate_checkpoint(path: Path, checkpoint: str, split: str) -> dict[str, Ratio]:
    """The figures of a run's checkpoint on its validation or test tasks; the attempts are kept in the run.

    Raises:
        ConfigError: there is no such split.
    """
    if split not in ("validation", "test"):
        raise ConfigError(f"no split {split!r}; a policy is evaluated on validation or test")
    own = {"toolgen": _evaluate_toolgen, "toolkengpt": _evaluate_toolken}
    own |= dict.fromkeys(("ste", "toolalpaca"), _evaluate_staged)
    if (recipe := Run.open(path).config().get("recipe")) in own:
        return own[recipe](path, checkpoint, split)
    trained = open_trained(path, checkpoint)
    if trained.config.few_shot:
        raise ConfigError(f"{path} was measured behind solved examples, which 'apprentice train' alone puts there")
    worker = RolloutWorker(
        WorkerConfig(
            policies={LIVE: LocalPolicy(LIVE, str(trained.checkpoint), gpu=torch.cuda.is_available())},
            executor=ExecutorBuilder(trained.catalog, trained.config.rollouts.tool_timeout),
            format=trained.format,
            max_turns=trained.config.rollouts.max_turns,
            searching=trained.config.rollouts.searching,
        )
    )
    measure = trained.config.evaluation
    if isinstance(measure, PairRanking):
        raise ConfigError(f"{path} was measured by how it ranks recorded attempts, which 'apprentice train' alone does")
    benchmark = trained.config.tasks.load(trained.config.seed)
    tasks = benchmark.test if split == "test" else benchmark.validation
    name = f"{trained.checkpoint.name}-{split}"
    groups = evaluate(LocalPlayer(worker), tasks, measure, trained.run, name, None)
    return measure.ratios(groups)


def check_config(config: TriceConfig, loaded: Benchmark | None = None) -> Iterator[str]:
    """See that a config can work, short of training; yields what was found.

    Args:
        config: of the run.
        loaded: its tasks, where ``prepare`` has read them already.

    Raises:
        ConfigError: a source plays a policy that there is not, or the model does not read the tasks.
        DataError: the data cannot be used, or most gold attempts are wrong by the ranking's own rule.
    """
    benchmark = prepare(config) if loaded is None else loaded
    require_lengths(config, benchmark)
    format = config.format.build()
    yield f"config     {config.name}: every key is known, {len(config.sources)} sources"
    for text in objective_warnings(config.improvement.objective):
        yield f"warning    {text}"
    counts = ", ".join(
        f"{len(getattr(benchmark, split))} {split}" for split in ("demonstrations", "train", "validation", "test")
    )
    yield f"tasks      {counts}; {len(benchmark.rejected)} rows left out"
    for reason in benchmark.rejected[:3]:
        yield f"           {reason}"
    yield f"tools      {', '.join(benchmark.catalog.names[:8])}{' ...' if len(benchmark.catalog) > 8 else ''}"
    recorded = benchmark.recordings.get(GOLD)
    gold = RecordedPolicy(GOLD, recorded) if recorded else GoldPolicy(GOLD, benchmark.catalog, format)
    worker = RolloutWorker(
        WorkerConfig(
            policies={GOLD: gold},
            executor=lambda: Executor(benchmark.catalog, timeout=config.rollouts.tool_timeout),
            format=format,
            max_turns=config.rollouts.max_turns,
        )
    )
    groups = asyncio.run(worker.play(benchmark.train[:_CHECKED], [Source(name=GOLD, policy=GOLD)], "check"))
    attempts = [(group.task, group.episodes[0]) for group in groups]
    wrong = [(task, gold) for task, gold in attempts if not gold.finished or not config.rewards.right(task, gold)]
    yield f"gold       {len(attempts) - len(wrong)} of {len(attempts)} gold attempts are right"
    if len(wrong) > len(attempts) / 2:
        raise DataError(
            f"{len(wrong)} of {len(attempts)} gold attempts are wrong by the rewards' own rule, such as "
            f"{_told(*wrong[0])}; see rewards.match and the tasks' answers and gold calls"
        )


def _told(task: Task, gold: Episode) -> str:
    """What a gold attempt should have come to, and what it came to."""
    if not gold.finished:
        return f"that of task {task.id!r}, which failed: {gold.error}"
    read = [observation.content for observation in gold.observations]
    return (
        f"that of task {task.id!r}, which expects the answer {task.answer!r} and the call {task.gold}: "
        f"it made {len(gold.calls)} calls, read {read} and answered {gold.answer!r}"
    )
