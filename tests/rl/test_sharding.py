"""Two ranks that share a model out, by every strategy, against one that has it all."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as distributed
from torch import multiprocessing
from torch.distributed.fsdp import FSDPModule

from executors.errors import ConfigError
from rl.data.examples import Example, Row
from rl.learner import checkpoint, ranks
from rl.learner.learner import Learner, Stage, weights_of
from rl.learner.optimiser import OptimiserConfig
from rl.learner.sharding import Footprint, require_adamw, require_sharded
from rl.learner.work import epochs
from rl.losses.objective import Rrhf
from rl.models.load import load_model
from rl.models.lora import Adapter, add_adapter
from rl.models.tiny import build_model, build_tokenizer
from tests.rl.test_learner import some_examples

STEPS, HALF = 5, 3
SHARED = ("fsdp2", "zero2", "zero3")
TOLERANCE = 1e-5
"""Of weights that have moved by 1e-3 or more; sums over ranks are taken in another order."""


def stage(**objective) -> Stage:
    optimiser = OptimiserConfig(kind="adamw", lr=1e-3, warmup=0.0)
    return Stage(name="s", objective=Rrhf(**objective), optimiser=optimiser, steps=STEPS)


def batches() -> list[tuple[Example, ...]]:
    """Steps of seven ragged groups, one of them of a single group, so that a rank has nothing to read."""
    made = list(epochs(some_examples(30), 7, STEPS, seed=0))
    made[2] = made[2][:1]
    return made


def learner(model, strategy="ddp") -> Learner:
    """With a budget so small that most pieces are read twice."""
    return Learner(model, pad_id=0, max_tokens=60, footprint=Footprint(strategy=strategy))


def learn(made: Learner, start: int, end: int) -> list[dict[str, float]]:
    rank, world = ranks.mine(), ranks.count()
    return [made.step(made.share(batches()[i], rank, world), i) for i in range(start, end)]


def adapted(folder: Path):
    """A model with an adapter that has learned something already."""
    model = build_model(300, seed=6)
    add_adapter(model, Adapter(r=4), folder, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    return model


def poisoned() -> list[Example]:
    rows = (Row((7, 8), (True, True), math.inf, True), Row((9,), (True,), 0.0, False))
    return [Example("t0", (5, 6), rows), Example("t1", (5, 6), rows)]


# What each of the two processes does; rank 0 writes down what came of it.


def whole_run(strategy: str, folder: Path) -> dict[str, Any]:
    made = learner(build_model(300, seed=5), strategy)
    made.begin(stage())
    metrics = learn(made, 0, STEPS)
    return {"metrics": metrics, "weights": made.weights(), "state": made.state(), "kind": kind(made)}


def kind(made: Learner) -> str:
    if isinstance(made.model, FSDPModule):
        require_sharded(made.model)
        return "fsdp2"
    reads: Any = made.sharding.reads
    return f"zero{reads.zero_optimization_stage()}" if hasattr(reads, "zero_optimization_stage") else "ddp"


def half_run(strategy: str, folder: Path) -> dict[str, Any]:
    """A run that is saved half way."""
    made = learner(build_model(300, seed=5), strategy)
    made.begin(stage())
    learn(made, 0, HALF)
    state, weights = made.state(), made.saved()
    if ranks.mine() == 0:
        tokenizer = build_tokenizer(["a"], vocab_size=300)
        checkpoint.save(folder / strategy, HALF, made.model, tokenizer, state, weights)
    distributed.barrier()
    return {}


def continued_run(strategies: str, folder: Path) -> dict[str, Any]:
    """The other half, by another strategy."""
    before, after = strategies.split(",")
    path = folder / before / f"step-{HALF}"
    made = learner(load_model(path), after)
    made.restore(checkpoint.load_state(path), stage())
    learn(made, HALF, STEPS)
    return {"weights": made.weights(), "state": made.state()}


def adapter_run(strategy: str, folder: Path) -> dict[str, Any]:
    made = learner(adapted(folder), strategy)
    made.begin(stage())
    learn(made, 0, STEPS)
    return {"weights": made.weights(), "saved": sorted(made.saved())}


def skipping_run(strategy: str, folder: Path) -> dict[str, Any]:
    """A step whose loss is infinite, and one whose gradient is, between others; then another stage."""
    made = learner(build_model(300, seed=5), strategy)
    made.begin(stage(gap_margin=1.0))
    learn(made, 0, 2)
    before = (made.weights(), made.state())
    rank, world = ranks.mine(), ranks.count()
    told = [made.step(made.share(poisoned(), rank, world), 2)]
    norm = made.model.get_submodule("model.norm")
    hook: Any = norm.register_forward_hook(lambda module, inputs, output: infinite_gradient(output))
    told += learn(made, 2, 3)
    hook.remove()
    after = (made.weights(), made.state())
    learn(made, 3, STEPS)
    made.begin(stage())
    learn(made, 0, 1)
    return {"before": before, "after": after, "told": told, "weights": made.weights(), "skipped": made.skipped}


def infinite_gradient(output):
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient * math.inf)
    return output


SCENARIOS = [
    *((whole_run, strategy) for strategy in ("ddp", *SHARED)),
    *((half_run, strategy) for strategy in SHARED),
    *((continued_run, pair) for pair in ("fsdp2,zero3", "zero3,zero2", "zero2,fsdp2", "zero3,ddp")),
    *((adapter_run, strategy) for strategy in SHARED),
    *((skipping_run, strategy) for strategy in ("ddp", *SHARED)),
]


def rank_main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    for scenario, which in SCENARIOS:
        result = scenario(which, folder)
        if rank == 0:
            torch.save(result, folder / f"{scenario.__name__}-{which}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """What two ranks made of all scenarios."""
    folder = tmp_path_factory.mktemp("shared")
    multiprocessing.spawn(rank_main, args=(folder,), nprocs=2)
    return folder


@pytest.fixture(scope="module")
def alone() -> Learner:
    """One rank that has it all."""
    made = learner(build_model(300, seed=5))
    made.begin(stage())
    learn(made, 0, STEPS)
    return made


def result(folder: Path, scenario, which: str) -> dict[str, Any]:
    return torch.load(folder / f"{scenario.__name__}-{which}.pt", weights_only=False)


def apart(left: dict[str, Any], right: dict[str, Any]) -> float:
    """The largest difference of any weight."""
    assert left.keys() == right.keys()
    return max(abs(left[name] - right[name]).max() for name in left)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", *SHARED])
def test_ranks_that_share_a_model_learn_as_one_that_has_it(shared, alone, strategy):
    made = result(shared, whole_run, strategy)
    assert made["kind"] == strategy
    assert apart(made["weights"], weights_of(alone.model)) < TOLERANCE
    assert made["metrics"][0]["loss"] == pytest.approx(5.721465, abs=1e-4)
    assert any(metrics["positions_again"] for metrics in made["metrics"])
    ours, theirs = made["state"]["optimiser"][0], alone.state()["optimiser"][0]
    assert ours["state"].keys() == theirs["state"].keys()
    for index, kept in theirs["state"].items():
        for name, tensor in kept.items():
            assert torch.allclose(ours["state"][index][name], tensor, atol=1e-6), (index, name)


@pytest.mark.slow
@pytest.mark.parametrize("strategies", ["fsdp2,zero3", "zero3,zero2", "zero2,fsdp2", "zero3,ddp"])
def test_a_checkpoint_of_any_strategy_is_continued_by_any_other(shared, alone, strategies):
    assert apart(result(shared, continued_run, strategies)["weights"], weights_of(alone.model)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("strategy", SHARED)
def test_one_rank_continues_what_several_have_saved(shared, alone, strategy):
    path = shared / strategy / f"step-{HALF}"
    assert checkpoint.problem(path) is None
    made = learner(load_model(path))
    made.restore(checkpoint.load_state(path), stage())
    learn(made, HALF, STEPS)
    assert apart(made.weights(), weights_of(alone.model)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("strategy", SHARED)
def test_of_a_model_with_an_adapter_only_that_is_moved_sent_and_saved(shared, strategy, tmp_path):
    one = learner(adapted(tmp_path))
    one.begin(stage())
    learn(one, 0, STEPS)
    made = result(shared, adapter_run, strategy)
    assert apart(made["weights"], one.weights()) < TOLERANCE
    assert all("lora_" in name for name in made["weights"])
    assert made["saved"] == sorted(made["weights"])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", *SHARED])
def test_a_step_that_is_not_finite_changes_nothing_on_any_rank(shared, strategy):
    made = result(shared, skipping_run, strategy)
    assert [metrics["skipped"] for metrics in made["told"]] == [1.0, 1.0]
    assert math.isinf(made["told"][0]["loss"]) and math.isfinite(made["told"][1]["loss"])
    (weights, state), (after, then) = made["before"], made["after"]
    assert apart(weights, after) == 0
    for index, kept in state["optimiser"][0]["state"].items():
        assert all(torch.equal(tensor, then["optimiser"][0]["state"][index][name]) for name, tensor in kept.items())
    assert made["skipped"] == 2
    assert apart(made["weights"], after) > 1e-4
    assert all(abs(value).max() < 10 for value in made["weights"].values())


@pytest.mark.slow
@pytest.mark.parametrize("strategy", SHARED)
def test_what_comes_after_a_skipped_step_and_in_another_stage_is_the_same_for_all(shared, strategy):
    plain, made = result(shared, skipping_run, "ddp"), result(shared, skipping_run, strategy)
    for name, value in plain["weights"].items():
        # a stage begins with AdamW's full steps, also along gradients that are rounding and no more: the whole counts
        moved = np.linalg.norm(value - plain["after"][0][name])
        assert np.linalg.norm(value - made["weights"][name]) < 0.01 * moved, name


@pytest.mark.parametrize("strategy", SHARED)
def test_without_other_ranks_there_is_nobody_to_share_with(strategy):
    with pytest.raises(ConfigError, match=f"learner.strategy {strategy} shares a model out among the ranks"):
        learner(build_model(300), strategy)


def test_an_objective_with_a_reference_is_refused_where_ranks_have_shares():
    made = learner(build_model(300))
    made.sharding.lockstep = True
    with pytest.raises(ConfigError, match="ranks that share a model out do not keep"):
        made.begin(stage(kl_weight=0.1))


def test_muon_is_refused_where_ranks_have_shares_of_matrices():
    with pytest.raises(ConfigError, match=r"muon needs whole matrices, and learner.strategy zero2"):
        require_adamw(OptimiserConfig(kind="muon"), "zero2")


def test_a_model_that_was_quietly_not_shared_out_is_noticed():
    with pytest.raises(RuntimeError, match="FSDP2 was asked for and the model is a LlamaForCausalLM"):
        require_sharded(build_model(300))
