"""What each objective makes of the same cloned policies: ``python -m benchmarks.study demo --seeds 0,1,2``.

``demo`` is ``configs/trice/tiny.yaml``, ``ste`` is ``configs/trice/ste_pool.yaml``, both shortened (see ``SMALLER``
and ``ROUNDS``). For every seed one policy is cloned, and every arm begins with it: the same tasks in the same order,
the same sources and optimiser. An arm changes the objective, or, where it says so, who attempts. Nothing is tuned for
any arm. Everything runs in this process, without Ray, and CPU-seconds are its own: those of rollouts and of steps,
evaluation left out. What is there already is not done again, so that seeds may run in processes of their own.
``--table`` prints what is there: held-out figures of the checkpoint that was best on validation tasks, their intervals
over seeds and questions, and the curves on validation tasks.

Arms whose name begins with ``trl_`` are TRL's own trainers; see ``benchmarks.study_trl``.
"""

import argparse
import io
import json
import os
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from rich.console import Console

from benchmarks.desk import Desk, LocalPool, judge_checkpoints, played
from executors.errors import ApprenticeError
from rl.config import override, read_yaml, validate
from rl.evaluation.evaluate import changes
from rl.evaluation.intervals import Ratio, mean_over_seeds
from rl.fit import fit
from rl.improve import improve
from rl.learner.learner import Stage
from rl.progress import Progress
from rl.recipes.trice import TriceConfig
from rl.run import Run, write_json
from rollouts.store import Log
from rollouts.types import Group

CONFIGS = {"demo": Path("configs/trice/tiny.yaml"), "ste": Path("configs/trice/ste_pool.yaml")}
ROUNDS = {"demo": 10, "ste": 8}
SMALLER: Mapping[str, tuple[str, ...]] = {
    "demo": (
        "peers={}",
        "sources=[{name: forced-direct, policy: live, force: direct}, "
        "{name: forced-call, policy: live, force: call, temperature: 0.6}, "
        "{name: cool, policy: live, count: 2, temperature: 0.7}, "
        "{name: hot, policy: live, count: 2, temperature: 1.2}, {name: gold, policy: gold}]",
        "tasks.test=400",
        "tasks.validation=150",
    ),
    "ste": (),
}
"""What is changed in a config for all arms, to save time: the demo goes without its peer."""
OWN = {
    "demo": "sources=[{name: forced-direct, policy: live, force: direct}, "
    "{name: own, policy: live, count: 8, temperature: 1.0}]",
    "ste": "sources=[{name: own, policy: live, count: 8, temperature: 1.0, max_tokens: 64}]",
}
"""Eight attempts of the policy itself, and nobody else's; on ``demo`` one more that says whether a call is needed."""
ARMS: Mapping[str, str] = {
    "rrhf_d": "{kind: rrhf_d, margin: 1.0, scale: 4.0, decision_weight: 8}",
    "listwise": "{kind: listwise}",
    "listwise_d": "{kind: listwise, score: decision, decision_weight: 8}",
    "best_of_n": "{kind: sft, decision_weight: 8}",
    "dpo": "{kind: dpo}",
    "grpo": "{kind: grpo}",
    "grpo_own": "{kind: grpo}",
    "rrhf": "{kind: rrhf}",
    "continued_cloning": "{kind: sft}",
}
"""By name, its objective. ``grpo_own`` learns from attempts of the policy alone, see ``OWN``."""
TRL = ("trl_dpo", "trl_grpo")


@dataclass(frozen=True, slots=True)
class Arm:
    """One objective on one benchmark, begun with the clone of one seed."""

    benchmark: str
    name: str
    seed: int
    folder: Path
    rounds: int
    changes: tuple[str, ...] = ()

    @property
    def cloned(self) -> Path:
        """The folder of what it begins with."""
        return self.folder / self.benchmark / f"seed{self.seed}" / "start"

    @property
    def path(self) -> Path:
        return self.folder / self.benchmark / f"seed{self.seed}" / self.name

    def config(self) -> TriceConfig:
        """The recipe's config with this arm's changes."""
        path = CONFIGS[self.benchmark]
        content = read_yaml(path)
        every = max(1, self.rounds // 5)
        own = [OWN[self.benchmark]] if self.name.endswith("grpo_own") or self.name == "trl_grpo" else []
        changed = [
            f"seed={self.seed}",
            f"improvement.rounds={self.rounds}",
            f"improvement.validate_every={every}",
            "rollouts.journal=false",
            *SMALLER[self.benchmark],
            *self.changes,
            *own,
        ]
        if self.name in ARMS:
            changed.append(f"improvement.objective={ARMS[self.name]}")
        return validate(override(content, changed), TriceConfig, str(path))


def desk(config: TriceConfig, path: Path) -> Desk:
    """A session in a folder of its own, that tells nobody."""
    path.mkdir(parents=True, exist_ok=True)
    return Desk(config, config.tasks.load(config.seed), Run(path), Progress(Console(file=io.StringIO())))


def start(arm: Arm) -> None:
    """Clone what the arms of a seed begin with, and measure it."""
    if (arm.cloned / "result.json").exists():
        return
    config = arm.config()
    with desk(config, arm.cloned) as session:
        began = time.process_time()
        session.clone()
        spent = time.process_time() - began
        session.open_local(arm.cloned)
        session.test(session.checkpoint_at(config.cloning.steps), "final", -1)
    write_json(arm.cloned / "result.json", {"cpu_seconds": spent})


def take(arm: Arm) -> None:
    """Run an arm, unless it is there."""
    if (arm.path / "result.json").exists():
        return
    shutil.rmtree(arm.path, ignore_errors=True)
    config = arm.config()
    steps = config.cloning.steps
    for kept in ("step-0", f"step-{steps}"):
        shutil.copytree(arm.cloned / "checkpoints" / kept, arm.path / "checkpoints" / kept)
    with desk(config, arm.path) as session:
        pool = session.open_local(arm.cloned)
        stopped = ""
        try:
            if arm.name in TRL:
                from benchmarks.study_trl import train

                train(arm.name, session, pool)
            elif arm.name == "continued_cloning":
                clone_on(session, validate(read_yaml(CONFIGS[arm.benchmark]), TriceConfig, "").improvement.rounds)
            else:
                improve_alone(session, pool)
        except ApprenticeError as error:  # an arm that cannot go on is a result too
            stopped = str(error)
        best = (arm.path / "checkpoints" / "best").resolve()
        session.test(best, "final", -2)
        result = {"stopped": stopped, "best": best.name, "curve": curve(session)}
    write_json(arm.path / "result.json", result)


def improve_alone(session: Desk, pool: LocalPool) -> None:
    """The recipe's second stage."""
    config = session.config
    improve(
        session.learner(0),
        pool,
        session.benchmark.train,
        config.improvement,
        session.run,
        session.progress,
        sources=[source.build() for source in config.sources],
        judge=config.rewards.rank,
        encoder=session.encoder,
        validate=session.validate,
        offset=config.cloning.steps,
        seed=config.seed,
    )


def clone_on(session: Desk, rounds: int) -> None:
    """More cloning instead, for about as many CPU-seconds.

    Args:
        session: of the arm.
        rounds: that the config's own baseline was matched with.
    """
    config = session.config
    steps = round(config.baselines.continued_cloning_steps * config.improvement.rounds / rounds)
    every = max(1, steps // 5)
    stage = Stage(
        name="improve", objective=config.cloning.objective, optimiser=config.improvement.optimiser, steps=steps
    )
    fit(
        session.learner(),
        session.demonstrations(0),
        stage,
        session.run,
        session.progress,
        batch_size=config.cloning.batch_size,
        seed=config.seed + 1,
        offset=config.cloning.steps,
        save_every=every,
    )
    judge_checkpoints(session)


def curve(session: Desk) -> list[dict[str, float]]:
    """What validation said of a run's checkpoints, and the CPU-seconds that each had taken."""
    per_round = session.config.improvement.steps_per_round
    offset = session.config.cloning.steps
    told = list(session.run.metrics())
    points = []
    for record in told:
        if record["stage"] != "validate":
            continue
        done = record["step"] - offset
        spent = sum(
            other["cpu_seconds"]
            for other in told
            if "cpu_seconds" in other
            and (other["step"] < record["step"] if "step" in other else other["round"] * per_round < done)
        )
        figures = {name: record[name] for name in ("utility", "accuracy", "call_rate") if name in record}
        points.append({"step": done, "cpu_seconds": round(spent, 1), **figures})
    return points


def table(benchmark: str, names: Sequence[str], seeds: Sequence[int], folder: Path) -> str:
    """Markdown: held-out figures by arm, paired changes from the start, and the curves."""
    measure = played(Arm(benchmark, "rrhf_d", 0, folder, 1).config())
    shown = ("utility", "decisions", "needless", "missed", "accuracy") if benchmark == "demo" else ("correct",)
    if benchmark == "ste":
        shown = ("wellformed", "api_match", "correct")
    main = shown[0] if benchmark == "demo" else "correct"

    def ratios(name: str, seed: int) -> dict[str, Ratio]:
        path = Arm(benchmark, name, seed, folder, 1).path / "evaluation" / "final.jsonl"
        return measure.ratios(list(Log(path, Group).read()))

    def there(name: str) -> list[int]:
        return [s for s in seeds if (Arm(benchmark, name, s, folder, 1).path / "result.json").exists()]

    lines = [f"| arm | seeds | CPU-s | {' | '.join(shown)} | {main} over start |", "|---" * (len(shown) + 4) + "|"]
    curves = []
    for name in ("start", *names):
        if not (done := there(name)):
            continue
        runs = [ratios(name, seed) for seed in done]
        cells = [_cell(mean_over_seeds([run[key] for run in runs])) for key in shown]
        begun = [ratios("start", seed) for seed in done]
        change = "" if name == "start" else _cell(changes(runs, begun)[main], "+.3f")
        results = [json.loads((Arm(benchmark, name, s, folder, 1).path / "result.json").read_text()) for s in done]
        spent = "" if name == "start" else f"{statistics.mean(r['curve'][-1]['cpu_seconds'] for r in results):.0f}"
        lines.append(f"| {name} | {len(done)} | {spent} | {' | '.join(cells)} | {change} |")
        if name != "start":
            curves.append(f"| {name} | " + " | ".join(_points([result["curve"] for result in results])) + " |")
    return "\n".join([*lines, "", *curves])


def _cell(figure: Any, form: str = ".3f") -> str:
    return f"{figure.value:{form}} [{figure.low:{form}}, {figure.high:{form}}]"


def _points(curves: Sequence[Sequence[Mapping[str, float]]]) -> list[str]:
    """Mean CPU-seconds and utility of the checkpoints that stand at the same place in all curves."""
    points = zip(*curves, strict=False)
    means = [[statistics.mean(point[key] for point in at) for key in ("cpu_seconds", "utility")] for at in points]
    return [f"{seconds:.0f} s {utility:.3f}" for seconds, utility in means]


def main() -> None:
    """Run the arms that are named, or print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=list(CONFIGS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--arms", default=",".join((*ARMS, *TRL)))
    parser.add_argument("--rounds", type=int, default=0, help="of each arm (default: 10 on demo, 8 on ste)")
    parser.add_argument("--folder", type=Path, default=Path("runs/study"))
    parser.add_argument("--set", action="append", default=[], help="a change to the config, such as tasks.test=300")
    parser.add_argument("--table", action="store_true", help="print what is there, and run nothing")
    arguments = parser.parse_args()
    seeds, names = [int(seed) for seed in arguments.seeds.split(",")], arguments.arms.split(",")
    if arguments.table:
        print(table(arguments.benchmark, names, seeds, arguments.folder))
        return
    torch.set_num_threads(1)
    rounds = arguments.rounds or ROUNDS[arguments.benchmark]
    for seed in seeds:
        for name in names:
            arm = Arm(arguments.benchmark, name, seed, arguments.folder, rounds, tuple(arguments.set))
            start(Arm(arguments.benchmark, "rrhf_d", seed, arguments.folder, rounds, tuple(arguments.set)))
            began = time.process_time()
            take(arm)
            print(f"{arm.path}: {time.process_time() - began:.0f} CPU-seconds, evaluation among them", flush=True)


if __name__ == "__main__":
    main()
