"""Which weights play which round: offline, iterative, online; and the same after a crash."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from executors.errors import ConfigError
from rewards.ranking import WeightedSum
from rl.config import validate
from rl.data.examples import Encoder
from rl.improve import Counts, Improvement, improve, start_version
from rl.learner import checkpoint
from rl.learner.learner import weights_of
from rl.learner.local import LocalLearner
from rl.learner.optimiser import OptimiserConfig
from rl.learner.rank import RankConfig
from rl.learner.remote import Start
from rl.losses.objective import Rrhf
from rl.models.load import load_model, load_tokenizer
from rl.progress import Progress
from rl.refresh import Refresh
from rl.run import Run
from rollouts.types import Snapshot
from tests.rl.test_improve import CATALOG, FORMAT, SOURCES, TASKS, Pool, StoppedError, begun


@pytest.mark.parametrize(
    ("refresh", "versions"),
    [
        (Refresh(), [0, 0, 1, 2, 3, 4]),
        (Refresh(kind="iterative", every=3), [0, 0, 0, 3, 3, 3]),
        (Refresh(kind="offline"), [0, 0, 0, 0, 0, 0]),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_the_weights_of_each_round_are_fixed_in_advance(refresh, versions):
    assert [refresh.version(round, max_lag=1) for round in range(6)] == versions


def test_rounds_of_the_same_weights_are_for_iterative_alone():
    with pytest.raises(ConfigError, match="offline has no use for it"):
        validate({"kind": "offline", "every": 3}, Refresh, "x")


def improved(path: Path, refresh: Refresh, stop_after: int | None = None) -> tuple[list[int], Counts]:
    """Four rounds from wherever the folder stands; which weights played, and what became of the groups."""
    folder = path / "checkpoints"
    config = Improvement(
        rounds=4,
        tasks_per_round=6,
        batch_size=6,
        objective=Rrhf(),
        optimiser=OptimiserConfig(kind="adamw", lr=3e-3),
        refresh=refresh,
        validate_every=1,
    )
    step = checkpoint.newest(folder)
    assert step is not None
    start = Start(str(folder / f"step-{step}"), step, start_version(step, 0, config))
    learner = LocalLearner(RankConfig(folder=str(folder), errors=str(path / "errors")), start)
    pool: Any = Pool(folder / "step-0")

    def validate(snapshot: Snapshot) -> dict[str, float]:
        if snapshot.version == stop_after:
            raise StoppedError
        return {"utility": 0.0}

    specs = {spec.name: spec for spec in CATALOG.specs()}
    try:
        counts = improve(
            learner,
            pool,
            TASKS,
            config,
            Run(path),
            Progress(Console(file=io.StringIO())),
            sources=SOURCES,
            judge=WeightedSum().rank,
            encoder=Encoder(load_tokenizer(folder / "step-0"), FORMAT, specs, max_tokens=96),
            validate=validate,
            offset=0,
            seed=0,
            keep=1,
        )
    except StoppedError:
        counts = Counts(0, 0, 0, 0, 0, 0)
    finally:
        pool.loop.close()
    return [version for _, version in pool.played], counts


@pytest.mark.parametrize(
    ("refresh", "versions"),
    [(Refresh(kind="offline"), [0, 0, 0, 0]), (Refresh(kind="iterative", every=2), [0, 0, 2, 2])],
    ids=["offline", "iterative"],
)
def test_old_candidates_are_learned_from_where_they_are_meant_to_be_old(refresh, versions, tmp_path, monkeypatch):
    def read(path: Path, version: int) -> Snapshot:
        return Snapshot(version, weights_of(load_model(path)))

    monkeypatch.setattr("rl.learner.remote.snapshot_of", read)
    begun(tmp_path / "whole" / "checkpoints")
    played, counts = improved(tmp_path / "whole", refresh)
    assert played == versions
    assert (counts.groups, counts.stale) == (24, 0)
    begun(tmp_path / "stopped" / "checkpoints")
    improved(tmp_path / "stopped", refresh, stop_after=3)
    again, counts = improved(tmp_path / "stopped", refresh)
    assert len(again) < 4
    assert again == versions[4 - len(again) :]
    assert (counts.groups, counts.stale) == (24, 0)
