"""What it saves to play and learn at once: ``python -m benchmarks.learner_overlap [--rounds 6] [--delays 0,60]``.

The second stage of ``configs/trice/tiny.yaml`` (without its peer), on Ray, with one rollout worker and one rank: by
turns (``max_lag: 0``) and at once (``max_lag: 1``), from the same policy, in alternating order. The calculator takes
some milliseconds more; the policy is cloned just long enough to call it. Printed are the wall seconds of the stage,
without validation, their ratio for each pair of runs, the CPU-seconds that both took, how much of the rollouts' wall
was waiting for tools, and how stale the oldest candidate was that was learned from.
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from rich.console import Console

from executors.catalog import Catalog
from executors.tool import Tool
from executors.tools.calculator import calculator
from rl.config import override, read_yaml, validate
from rl.data.rounds import RoundLog
from rl.improve import improve
from rl.learner.alone import AloneJob, fit_alone
from rl.learner.learner import Stage
from rl.learner.remote import LearnerConfig, RemoteLearner, Start
from rl.progress import Progress
from rl.recipes.session import Session
from rl.recipes.trice import TriceConfig
from rl.run import Run

CONFIG = Path("configs/trice/tiny.yaml")
SOURCES = (
    "[{name: forced-direct, policy: live, force: direct}, "
    "{name: forced-call, policy: live, force: call, count: 4, temperature: 0.8}, {name: gold, policy: gold}]"
)


class Slow:
    """The calculator, some seconds later."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, /, expression: str) -> object:
        """Evaluate arithmetic."""
        time.sleep(self.seconds)
        return calculator.function(expression=expression)


def config_of(arguments: argparse.Namespace) -> TriceConfig:
    """The recipe's config, shortened."""
    changes = [
        "peers={}",
        f"sources={SOURCES}",
        f"cloning.steps={arguments.cloning}",
        f"improvement.rounds={arguments.rounds}",
        f"improvement.tasks_per_round={arguments.tasks}",
        f"improvement.batch_size={arguments.batch}",
        f"improvement.validate_every={arguments.rounds}",
        "ray.dashboard=false",
        "ray.num_cpus=8",
    ]
    return validate(override(read_yaml(CONFIG), changes), TriceConfig, str(CONFIG))


def run_stage(session: Session, start: Path, path: Path, max_lag: int) -> dict[str, float]:
    """One whole stage; returns what was measured."""
    config = session.config
    improvement = config.improvement.model_copy(update={"max_lag": max_lag})
    rank = replace(session._rank(), folder=str(path / "checkpoints"), errors=str(path / "errors"))
    settings = LearnerConfig(rank=rank, storage=str(path / "train"), name=path.name)
    learner = RemoteLearner(settings, Start(str(start), 0, 0), bound=2 * improvement.steps_per_round, versions=8)
    learner.snapshot(0)  # its processes are up
    (path / "checkpoints").mkdir(parents=True, exist_ok=True)
    run = Run(path)
    spent, began = session.pool.cpu_seconds(), time.perf_counter()
    improve(
        learner,
        session.pool,
        session.benchmark.train,
        improvement,
        run,
        session.progress,
        sources=[source.build() for source in config.sources],
        judge=config.rewards.rank,
        encoder=session.encoder,
        validate=lambda _: {"utility": 0.0},
        offset=0,
        seed=config.seed,
    )
    wall = time.perf_counter() - began
    spent = session.pool.cpu_seconds() - spent
    learned = sum(record.get("cpu_seconds", 0.0) for record in run.metrics() if record["stage"] == "improve")
    learner.close()
    learner.join(60)
    records = list(RoundLog(path).all())
    stale = max(record.round - record.version for record in records)
    return {"wall": wall, "rollout_cpu": spent, "learner_cpu": learned, "stale": float(stale)}


def measure(delay: float, arguments: argparse.Namespace, folder: Path) -> None:
    """Alternate both ways for a delay, and print what came out."""
    config = config_of(arguments)
    benchmark = config.tasks.load(config.seed)
    slow = Tool(calculator.spec, Slow(delay / 1000)) if delay else calculator
    benchmark = replace(benchmark, catalog=Catalog([slow]))
    quiet = Progress(Console(file=io.StringIO()))
    with Session(config, benchmark, Run(folder), quiet) as session:
        start = session.checkpoint_at(0)
        stage = Stage(name="clone", objective=config.cloning.objective, optimiser=config.cloning.optimiser, steps=1)
        stage = replace(stage, steps=config.cloning.steps)
        cloned = fit_alone(
            AloneJob(
                start=str(start),
                folder=str(folder / "cloned"),
                examples=tuple(session.demonstrations(0)),
                stage=stage,
                batch_size=config.cloning.batch_size,
                seed=config.seed,
            )
        )
        session.open_pool({})
        told: dict[int, list[dict[str, float]]] = {0: [], 1: []}
        for repetition in range(arguments.repetitions + 1):
            for max_lag in (0, 1) if repetition % 2 else (1, 0):
                path = folder / f"lag{max_lag}-{repetition}"
                figures = run_stage(session, Path(cloned.path), path, max_lag)
                if repetition:  # the first is the warm-up
                    told[max_lag].append(figures)
        ratios = [turns["wall"] / once["wall"] for turns, once in zip(told[0], told[1], strict=True)]
        cells = [_shown([figures["wall"] for figures in told[lag]]) for lag in (0, 1)]
        cpu = [statistics.median(f[name] for f in told[1]) for name in ("rollout_cpu", "learner_cpu")]
        stale = max(figures["stale"] for figures in told[1])
        waited = statistics.median(_waited(figures) for figures in told[0])
        rest = f"{_shown(ratios, '.2f')} | {cpu[0]:.1f} | {cpu[1]:.1f} | {waited:.0%} | {stale:.0f}"
        print(f"| {delay:g} | {cells[0]} | {cells[1]} | {rest} |", flush=True)


def _waited(figures: dict[str, float]) -> float:
    """By turns: the share of the rollouts' wall in which nobody computed, all but all of it waiting for tools."""
    rollouts = figures["wall"] - figures["learner_cpu"]
    return max(0.0, 1 - figures["rollout_cpu"] / rollouts)


def _shown(values: list[float], form: str = ".1f") -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def main() -> None:
    """Measure each delay, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delays", default="0,60", help="milliseconds that a call takes, each")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--tasks", type=int, default=48, help="of a round")
    parser.add_argument("--batch", type=int, default=16, help="tasks of a step: the fewer, the more steps there are")
    parser.add_argument("--cloning", type=int, default=300, help="steps")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    print(
        "| a call, ms | by turns, s | at once, s | times better | rollouts, CPU-s | learner, CPU-s "
        "| of the rollouts by turns, waiting | stale, at most |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for delay in map(float, arguments.delays.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            measure(delay, arguments, Path(folder).resolve())


if __name__ == "__main__":
    main()
