"""The parts that run on Ray, on one small cluster: the Hub, the learner's ranks, the rollout pool."""

import asyncio
import math
import os
import signal
import threading
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch

from rl import remote
from rl.data.examples import Example, Row
from rl.learner import checkpoint
from rl.learner.head_fit import HeadFit
from rl.learner.heads.remote import fit_head_sharded
from rl.learner.learner import Learner, Stage, weights_of
from rl.learner.optimiser import OptimiserConfig
from rl.learner.rank import RankConfig
from rl.learner.remote import Hub, LearnerConfig, LearnerFailedError, RemoteLearner, Start
from rl.learner.sharding import Footprint
from rl.learner.tool_head import Places, fit_head
from rl.learner.work import Work, epochs
from rl.losses.objective import Rrhf
from rl.models.load import load_model
from rl.models.tiny import build_model, build_tokenizer
from rl.models.tool_head import fresh_head
from tests.rl.test_learner import some_examples

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    started = remote.start_local(num_cpus=8, object_store_mib=100, logs=tmp_path_factory.mktemp("logs"))
    yield started
    started.stop()


def work(step: int, **fields) -> Work:
    stage = Stage(name="s", objective=Rrhf(), optimiser=OptimiserConfig(kind="adamw", lr=1e-3), steps=12)
    return Work(step=step, stage=stage, stage_step=step, examples=(), **fields)


def test_the_hub_gives_a_restarted_learner_the_same_steps_again():
    async def scenario():
        hub = Hub(Start("c0", 0), bound=100)
        assert await hub.put([work(i) for i in range(6)])
        assert [w.step for w in await hub.take(0, 4)] == [0, 1, 2, 3]
        assert await hub.start() == Start("c0", 0)
        assert [w.step for w in await hub.take(0, 4)] == [0, 1, 2, 3]
        await hub.saved(Start("c4", 4))
        assert await hub.start() == Start("c4", 4)
        assert [w.step for w in await hub.take(4, 9)] == [4, 5]
        await hub.close()
        assert await hub.take(6, 1) is None

    asyncio.run(scenario())


def test_the_hub_holds_back_who_brings_more_than_its_bound(monkeypatch):
    async def scenario():
        hub = Hub(Start("c0", 0), bound=4)
        assert await hub.put([work(i) for i in range(4)])
        waiting = asyncio.ensure_future(hub.put([work(4)]))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await hub.take(0, 1)
        assert await waiting

    asyncio.run(scenario())


def test_a_repeated_steps_report_is_counted_once():
    async def scenario():
        hub = Hub(Start("c0", 0), bound=4)
        await hub.report({0: {"loss": 1.0}, 1: {"loss": 2.0}})
        await hub.report({1: {"loss": 2.0}})
        assert await hub.reports(9) == {0: {"loss": 1.0}, 1: {"loss": 2.0}}
        assert await hub.reports(9) == {}

    asyncio.run(scenario())


def test_a_learner_that_cannot_go_on_tells_everyone_who_waits():
    async def scenario():
        hub = Hub(Start("c0", 0), bound=4)
        waiting = [asyncio.ensure_future(each) for each in (hub.take(0, 1), hub.snapshot(3), hub.checkpoint(9))]
        await asyncio.sleep(0.05)
        await hub.fail("the loss is not finite")
        assert await asyncio.gather(*waiting) == [None, None, None]
        assert await hub.failure() == "the loss is not finite"

    asyncio.run(scenario())


def poisoned() -> tuple[Example, ...]:
    rows = (Row((7, 8), (True, True), math.inf, True), Row((9,), (True,), 0.0, False))
    return tuple(Example(f"t{i}", (5, 6), rows) for i in range(2))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "zero3"])
def test_two_ranks_learn_as_one_and_a_killed_rank_loses_nothing(cluster, tmp_path, strategy):
    stage = work(0).stage
    batches = list(epochs(some_examples(30), 6, stage.steps, seed=0))
    tokenizer = build_tokenizer(["a b c"], vocab_size=300)
    start = checkpoint.save(tmp_path / "checkpoints", 0, build_model(300, seed=5), tokenizer, {"stage": None})

    alone = Learner(load_model(start), pad_id=0)
    alone.begin(stage)
    for step, batch in enumerate(batches):
        alone.step(batch, step)

    footprint = Footprint(strategy=strategy)
    rank = RankConfig(folder=str(tmp_path / "checkpoints"), errors=str(tmp_path / "errors"), footprint=footprint)
    config = LearnerConfig(workers=2, rank=rank, storage=str(tmp_path / "train"), name="twins")
    learner = RemoteLearner(config, Start(str(start), 0), bound=100)

    def put(first, last):
        learner.put(
            [
                Work(
                    step=step,
                    stage=stage,
                    stage_step=step,
                    examples=batches[step],
                    save=step in (5, stage.steps - 1),
                    publish=step,
                )
                for step in range(first, last)
            ]
        )

    put(0, 8)
    learner.snapshot(7)  # past the checkpoint at 6: killing now costs steps 6 and 7
    ours = psutil.Process().children(recursive=True)
    victim = next(process for process in ours if "RayTrainWorker" in " ".join(process.cmdline()))
    os.kill(victim.pid, signal.SIGKILL)
    put(8, stage.steps)
    final = learner.wait_saved(stage.steps)
    reports = learner.reports(stage.steps)
    diverging = replace(stage, name="diverging", objective=Rrhf(gap_margin=1.0), steps=3)
    for step in range(stage.steps, stage.steps + 3):
        learner.put([Work(step=step, stage=diverging, stage_step=step - stage.steps, examples=poisoned())])
    with pytest.raises(LearnerFailedError, match="3 steps in a row, the last of them step 14, had a loss"):
        learner.wait_saved(stage.steps + 3)
    assert sorted(path.name for path in (tmp_path / "errors").iterdir()) == [f"step-{n}.json" for n in (12, 13, 14)]
    learner.join(60)

    assert sorted(reports) == list(range(stage.steps))
    expected, began = weights_of(alone.model), weights_of(load_model(start))
    for name, value in weights_of(load_model(tmp_path / "checkpoints" / f"step-{final.step}")).items():
        # AdamW makes full steps of gradients that are zero but for rounding: single entries differ, the whole does not
        apart = np.linalg.norm(value - expected[name]) / np.linalg.norm(value - began[name])
        assert apart < 0.01, (name, apart)


@pytest.mark.slow
def test_a_stopped_learner_drops_its_work_and_has_ended_before_ray_does(cluster, tmp_path):
    stage = replace(work(0).stage, steps=10_000)
    tokenizer = build_tokenizer(["a b c"], vocab_size=300)
    start = checkpoint.save(tmp_path / "checkpoints", 0, build_model(300, seed=5), tokenizer, {"stage": None})
    rank = RankConfig(folder=str(tmp_path / "checkpoints"), errors=str(tmp_path / "errors"))
    config = LearnerConfig(workers=1, rank=rank, storage=str(tmp_path / "train"), name="stopped")
    learner = RemoteLearner(config, Start(str(start), 0), bound=10_000)
    batches = epochs(some_examples(30), 6, 1000, seed=0)
    learner.put([Work(step=n, stage=stage, stage_step=n, examples=batch) for n, batch in enumerate(batches)])
    learner.stop(60)
    assert "ray-train" not in {thread.name for thread in threading.enumerate()}
    assert max(learner.reports(1000), default=0) < 999


def test_a_tool_head_learned_by_two_workers_is_that_of_one_process(cluster):
    generator = torch.Generator().manual_seed(0)
    tool = torch.randint(-1, 3, (40,), generator=generator)
    scores = torch.randn(3, 40, generator=generator)
    hidden = torch.randn(40, 8, generator=generator)
    gold = torch.where(tool >= 0, 0.0, scores[1])
    places = Places(hidden, scores[0].abs() + 3, gold, scores[2], tool, torch.arange(40) // 4)
    start, config = fresh_head(("a", "b", "c"), 8, 0), HeadFit(epochs=2, lr=0.05, batch_size=3)
    alone, epochs = fit_head(start, places, config)
    shared, told = fit_head_sharded(start, places, config, 2)
    assert torch.allclose(shared.weight, alone.weight, atol=1e-5)
    assert [one.loss for one in told] == pytest.approx([one.loss for one in epochs], abs=1e-5)
