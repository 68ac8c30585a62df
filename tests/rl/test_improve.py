import asyncio
import io
import json
import math
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from executors.catalog import Catalog
from executors.executor import Executor
from executors.tools.calculator import calculator
from rewards.ranking import WeightedSum
from rewards.selectivity import LIVE
from rewards.types import Candidate, RankedGroup, Reward
from rl.data.examples import Encoder
from rl.data.rounds import RoundGroup
from rl.improve import Improvement, _Chooser, _works, current, improve, start_version
from rl.learner import checkpoint
from rl.learner.learner import Stage
from rl.learner.local import LocalLearner
from rl.learner.optimiser import OptimiserConfig
from rl.learner.rank import RankConfig
from rl.learner.remote import Start
from rl.learner.watch import Watch
from rl.losses.objective import Dpo, Grpo, Listwise, Rrhf, RrhfD, Sft
from rl.models.load import load_model, load_tokenizer
from rl.models.tiny import build_model, build_tokenizer
from rl.progress import Progress
from rl.run import Run
from rl.serving.policies import GoldPolicy, LocalPolicy
from rollouts.formats.inline import InlineFormat
from rollouts.policy import Source
from rollouts.types import Sampling, Snapshot, Task
from rollouts.worker import RolloutWorker, WorkerConfig
from tests.rewards.attempts import attempt

CONFIG = Improvement(rounds=5, tasks_per_round=10, batch_size=4, validate_every=2)
STAGE = Stage(name="improve", objective=CONFIG.objective, optimiser=CONFIG.optimiser, steps=CONFIG.steps)


def record(round, version) -> RoundGroup:
    group = RankedGroup(Task(id="t", prompt="?"), (Candidate(attempt(answer="1"), Reward(1)),))
    return RoundGroup(round, version, group)


def test_groups_of_weights_too_old_are_left_out():
    records = [record(6, version) for version in (3, 4, 5, 6)]
    assert [r.version for r in current(records, 6, 1)] == [5, 6]
    assert [r.version for r in current(records, 6, 0)] == [6]


def test_a_round_takes_as_many_steps_as_ever_and_shares_its_examples_evenly():
    works = list(_works(list(range(7)), STAGE, 1, CONFIG, offset=100))
    assert [work.step for work in works] == [103, 104, 105]
    assert [work.examples for work in works] == [(0, 1), (2, 3), (4, 5, 6)]
    assert [work.publish for work in works] == [None, None, 2]
    assert [work.save for work in works] == [False, False, True]


def test_the_last_round_is_saved_whatever_the_rhythm():
    assert next(reversed(list(_works(list(range(9)), STAGE, 4, CONFIG, offset=0)))).save


def test_a_learner_that_starts_inside_the_stage_publishes_the_version_that_it_has():
    assert start_version(99, 100, CONFIG) is None
    assert start_version(100, 100, CONFIG) == 0
    assert start_version(106, 100, CONFIG) == 2


class SavedAlready:
    def wait_saved(self, step):
        return None


def test_best_is_the_checkpoint_with_the_highest_utility_and_no_number_is_the_least(tmp_path):
    run = Run(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    chooser = _Chooser(run, CONFIG, 100, Progress(), Watch())
    for version, utility in ((0, math.nan), (2, 0.5), (4, 0.3), (5, 0.5)):
        chooser.consider(Snapshot(version, None), lambda _, utility=utility: {"utility": utility}, SavedAlready())
    assert (tmp_path / "checkpoints" / "best").readlink().name == "step-115"
    assert json.loads((tmp_path / "state.json").read_text())["validated"]["0"] is None


def test_weights_without_a_checkpoint_or_judged_before_are_not_judged(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    chooser = _Chooser(Run(tmp_path), CONFIG, 0, Progress(), Watch())
    asked = []

    def validate(snapshot):
        asked.append(snapshot.version)
        return {"utility": 1.0}

    for version in (0, 1, 2, 2, 3):
        chooser.consider(Snapshot(version, None), validate, SavedAlready())
    assert asked == [0, 2]


CATALOG = Catalog([calculator])
FORMAT = InlineFormat()
TASKS = [
    Task(id=f"t{n}", prompt=f"What is {n} times 7?", answer=str(7 * n), tools=("calculator",), needs_tool=n > 5)
    for n in range(1, 13)
]
SOURCES = [
    Source(name="gold", policy="gold"),
    Source(name="direct", policy=LIVE, force="direct", sampling=Sampling(max_tokens=6)),
    Source(name="own", policy=LIVE, count=3, sampling=Sampling(temperature=1.0, max_tokens=6)),
]


class Pool:
    """A rollout pool of one worker, in this process."""

    def __init__(self, start: Path) -> None:
        policies = {"gold": GoldPolicy("gold", CATALOG, FORMAT), LIVE: LocalPolicy(LIVE, str(start), version=-1)}
        self.worker = RolloutWorker(WorkerConfig(policies=policies, executor=lambda: Executor(CATALOG), format=FORMAT))
        self.loop = asyncio.Runner()
        self.played: list[tuple[str, int]] = []

    def pieces(self, tasks, sources, round, snapshots=None):
        snapshot = snapshots[LIVE]
        self.worker.load(LIVE, snapshot.weights, snapshot.version)
        self.played.append((round, snapshot.version))
        yield self.loop.run(self.worker.play(tasks, sources, round))

    def cpu_seconds(self):
        return 0.0


class StoppedError(Exception):
    """Somebody pulled the plug."""


def begun(folder: Path) -> Path:
    tokenizer = build_tokenizer(
        [task.prompt for task in TASKS], markers=FORMAT.markers(CATALOG.specs()), vocab_size=300
    )
    return checkpoint.begin(folder, build_model(len(tokenizer), width=32, heads=2, seed=3), tokenizer)


def run_improve(path: Path, objective, *, max_lag=1, rounds=3, stop_after: int | None = None) -> Pool:
    """The stage in a folder of its own, from wherever it stands; optionally stopped when a round was learned."""
    folder = path / "checkpoints"
    config = Improvement(
        rounds=rounds,
        tasks_per_round=6,
        batch_size=3,
        objective=objective,
        optimiser=OptimiserConfig(kind="adamw", lr=3e-3),
        max_lag=max_lag,
        validate_every=1,
    )
    step = checkpoint.newest(folder)
    version = start_version(step, 0, config)
    learner = LocalLearner(
        RankConfig(folder=str(folder), errors=str(path / "errors")), Start(str(folder / f"step-{step}"), step, version)
    )
    pool = Pool(folder / "step-0")

    def validate(snapshot):
        if stop_after is not None and snapshot.version == stop_after:
            raise StoppedError
        return {"utility": float(snapshot.version)}

    try:
        improve(
            learner,
            pool,
            TASKS,
            config,
            Run(path),
            Progress(Console(file=io.StringIO())),
            sources=SOURCES,
            judge=WeightedSum().rank,
            encoder=Encoder(
                load_tokenizer(folder / "step-0"), FORMAT, {s.name: s for s in CATALOG.specs()}, max_tokens=96
            ),
            validate=validate,
            offset=0,
            seed=0,
        )
    finally:
        pool.loop.close()
    return pool


OBJECTIVES = [Sft(decision_weight=8), Rrhf(), RrhfD(kl_weight=0.1), Listwise(), Dpo(), Grpo()]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=[objective.kind for objective in OBJECTIVES])
def test_every_objective_improves_a_policy_on_its_own_attempts_and_others(objective, tmp_path):
    begun(tmp_path / "checkpoints")
    pool = run_improve(tmp_path, objective)
    assert pool.played == [("improve/0", 0), ("improve/1", 0), ("improve/2", 1)]
    told = [record for record in Run(tmp_path).metrics() if record["stage"] == "improve"]
    assert [record["step"] for record in told] == list(range(6))
    assert not any("skipped" in record for record in told)
    assert [record["staleness"] > 0 for record in told] == [False, False, True, True, True, True]
    assert all(0 < record["own"] < 1 for record in told)
    if objective.needs_reference:
        assert told[0]["reference_kl"] == pytest.approx(0, abs=1e-5) and told[-1]["reference_kl"] > 1e-4
    if isinstance(objective, Grpo):
        assert all(record["on_policy"] == pytest.approx(record["own"], abs=1e-4) for record in told)
        assert told[0]["drift"] == pytest.approx(0, abs=1e-4)
    assert (tmp_path / "checkpoints" / "best").resolve().name == "step-6"


@pytest.mark.parametrize("objective", [RrhfD(kl_weight=0.1), Dpo(), Grpo()], ids=["kl", "dpo", "grpo"])
def test_a_stage_that_is_stopped_and_resumed_ends_with_the_same_weights(objective, tmp_path):
    begun(tmp_path / "whole" / "checkpoints")
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    run_improve(tmp_path / "whole", objective, max_lag=0)
    with pytest.raises(StoppedError):
        run_improve(tmp_path / "stopped", objective, max_lag=0, stop_after=2)
    assert checkpoint.newest(tmp_path / "stopped" / "checkpoints") == 4
    resumed = run_improve(tmp_path / "stopped", objective, max_lag=0)
    assert resumed.played == [("improve/2", 2)]
    one, other = (load_model(tmp_path / name / "checkpoints" / "step-6").state_dict() for name in ("whole", "stopped"))
    assert all(one[name].equal(other[name]) for name in one)
