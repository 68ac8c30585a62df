"""Checkpoints: whole or not there, pruned with care, and a run that goes on from one as if nothing had happened."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from executors.errors import DataError
from rl.data.examples import Example, Row
from rl.learner import checkpoint
from rl.learner.alone import AloneJob, fit_alone
from rl.learner.learner import Learner, Stage
from rl.learner.optimiser import OptimiserConfig
from rl.learner.rank import DivergedError, RankConfig, RankLoop
from rl.learner.sharding import Footprint
from rl.learner.work import Work, epochs
from rl.losses.objective import Dpo, Rrhf, RrhfD
from rl.models.load import TinyModel, load_model, require_config
from rl.models.tiny import build_model, build_tokenizer
from rl.run import Run
from tests.rl.test_learner import some_examples

STEPS = 8
MUON = OptimiserConfig(lr=1e-3, schedule="cosine")
ADAMW = OptimiserConfig(kind="adamw", lr=1e-3)


def works(optimiser=MUON, save=(), examples=None, objective=None) -> list[Work]:
    """A run of two stages."""
    batches = list(epochs(examples or some_examples(20), 4, STEPS, seed=0))
    first = Stage(name="clone", objective=RrhfD(), optimiser=ADAMW, steps=3)
    second = Stage(name="improve", objective=objective or Rrhf(), optimiser=optimiser, steps=STEPS - 3)
    return [
        Work(
            step=step,
            stage=first if step < 3 else second,
            stage_step=step if step < 3 else step - 3,
            examples=batches[step],
            save=step + 1 in save,
            publish=step if step + 1 in save else None,
        )
        for step in range(STEPS)
    ]


def begun(folder, dropout=0.0):
    """A checkpoint to begin from."""
    model = build_model(300, seed=5)
    model.config.attention_dropout = dropout
    return checkpoint.begin(folder, model, build_tokenizer(["a b c"], vocab_size=300))


def config(folder, **fields) -> RankConfig:
    return RankConfig(folder=str(folder), errors=str(folder.parent / "errors"), **fields)


def take(loop: RankLoop, steps: list[Work]) -> None:
    for work in steps:
        loop.learn(work)
        if work.save:
            loop.save(work.step + 1)


def digest(loop: RankLoop) -> list[bytes]:
    """Every bit of the weights and of the optimiser."""
    weights = [value.tobytes() for value in loop.learner.weights().values()]
    parts = loop.learner.state()["optimiser"]
    return weights + [
        tensor.numpy().tobytes()
        for part in parts
        for kept in part["state"].values()
        for tensor in kept.values()
        if isinstance(tensor, torch.Tensor)
    ]


@pytest.mark.parametrize(
    ("optimiser", "dropout", "objective"),
    [
        (MUON, 0.0, Rrhf()),
        (ADAMW, 0.0, Rrhf()),
        (ADAMW, 0.2, Rrhf()),
        (MUON, 0.0, RrhfD(kl_weight=0.1)),
        (ADAMW, 0.2, Dpo()),
    ],
    ids=["muon", "adamw", "dropout", "kl", "dpo"],
)
def test_a_run_that_is_killed_at_any_step_ends_bit_for_bit_as_one_that_is_not(tmp_path, optimiser, dropout, objective):
    start = begun(tmp_path / "whole", dropout)
    undisturbed = RankLoop(start, config(tmp_path / "whole"))
    assert undisturbed.learner.model.config.attention_dropout == dropout
    take(undisturbed, works(optimiser, objective=objective))
    saves = (2, 3, 6)
    for killed in range(1, STEPS):
        folder = tmp_path / f"killed-{killed}"
        take(RankLoop(begun(folder, dropout), config(folder)), works(optimiser, saves, objective=objective)[:killed])
        newest = checkpoint.newest(folder)
        assert newest == max((0, *(step for step in saves if step <= killed)))
        resumed = RankLoop(folder / f"step-{newest}", config(folder))
        take(resumed, works(optimiser, objective=objective)[newest:])
        assert digest(resumed) == digest(undisturbed), killed


def test_a_checkpoint_without_what_the_stage_began_with_is_refused(tmp_path):
    begun(tmp_path)
    loop = RankLoop(tmp_path / "step-0", config(tmp_path))
    take(loop, works(save=(5,))[:5])
    resumed = RankLoop(tmp_path / "step-5", config(tmp_path))
    with pytest.raises(DataError, match="saved without the weights that its stage began with"):
        resumed.learn(works(objective=Dpo())[5])


def test_a_process_that_is_killed_while_it_saves_leaves_the_checkpoint_before(tmp_path):
    """SIGKILL at many places of a save: what is there is whole, and what was acknowledged is there."""
    begun(tmp_path)
    code = f"""
import os, signal, sys
from pathlib import Path
from rl.learner import checkpoint
from rl.models.load import load_model, load_tokenizer
folder = Path({str(tmp_path)!r})
model, tokenizer = load_model(folder / "step-0"), load_tokenizer(folder / "step-0")
calls = 0
def count(frame, event, argument):
    global calls
    calls += event == "call" and frame.f_code.co_filename == checkpoint.__file__
    if calls == limit:
        os.kill(os.getpid(), signal.SIGKILL)
for limit in range(1, 43, 5):
    if (child := os.fork()) == 0:
        sys.setprofile(count)
        checkpoint.save(folder, limit, model, tokenizer, {{"stage": None}})
        sys.setprofile(None)
        os.write(1, f"{{limit}} ".encode())
        os._exit(0)
    os.waitpid(child, 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    acknowledged = [int(step) for step in done.stdout.split()]
    assert 0 < len(acknowledged) < 8
    assert all(checkpoint.problem(tmp_path / f"step-{step}") is None for step in checkpoint.steps(tmp_path))
    assert set(acknowledged) <= set(checkpoint.steps(tmp_path))
    assert list(tmp_path.glob(".step-*"))
    checkpoint.sweep(tmp_path)
    assert not list(tmp_path.glob(".step-*"))


def test_a_checkpoint_keeps_where_the_run_stands(tmp_path):
    loop = RankLoop(begun(tmp_path), config(tmp_path))
    take(loop, works(save=(4,))[:5])
    assert json.loads((tmp_path / "step-4" / "apprentice.json").read_text()) == {
        "step": 4,
        "stage": "improve",
        "version": 3,
    }
    state = checkpoint.load_state(tmp_path / "step-4")
    assert sorted(state["reports"]) == [0, 1, 2, 3]
    assert state["tokens"] > 0 and state["version"] == 3


def marked(folder, *names: str) -> None:
    """Checkpoints of a single small file each."""
    for name in names:
        (folder / name).mkdir()
        (folder / name / checkpoint.MANIFEST).write_text(json.dumps({"files": {}}))


def test_the_first_the_best_and_the_newest_are_never_pruned(tmp_path):
    marked(tmp_path, *(f"step-{step}" for step in (0, 10, 20, 30, 40, 50)))
    (tmp_path / "best").symlink_to("step-20")
    assert checkpoint.superfluous(tmp_path, 1) == [10, 30, 40]
    assert checkpoint.superfluous(tmp_path, 2, spare={30}) == [10]
    checkpoint.remove(tmp_path, [10, 30, 40])
    assert checkpoint.steps(tmp_path) == [0, 20, 50]
    assert not list(tmp_path.glob(".step-*"))


def test_the_newest_whole_one_is_kept_though_newer_ones_are_damaged(tmp_path):
    marked(tmp_path, "step-0", "step-10", "step-20", "step-30")
    for step in (20, 30):
        (tmp_path / f"step-{step}" / checkpoint.MANIFEST).write_text("{")
    assert checkpoint.superfluous(tmp_path, 1) == [20]


def test_a_folder_of_damaged_checkpoints_is_no_fresh_start(tmp_path):
    marked(tmp_path, "step-0", "step-10")
    for step in (0, 10):
        (tmp_path / f"step-{step}" / checkpoint.MANIFEST).unlink()
    with pytest.raises(DataError, match=r"no checkpoint in .* is whole \(step-10: it has no MANIFEST.json; step-0"):
        checkpoint.newest(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("model.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes instead of"),
        ("learner.pt", lambda path: path.unlink(), "learner.pt is missing"),
        ("config.json", lambda path: path.write_bytes(path.read_bytes()[::-1]), "config.json is not what was saved"),
    ],
)
def test_a_damaged_checkpoint_is_refused_with_the_file_named(tmp_path, name, change, told):
    start = begun(tmp_path)
    change(start / name)
    with pytest.raises(DataError, match=told):
        RankLoop(start, config(tmp_path))


def test_weights_of_another_model_are_refused_with_their_shapes(tmp_path):
    start = begun(tmp_path)
    build_model(300, width=48).save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", start)
    shape = r"model.embed_tokens.weight has shape \[300, 48\] instead of \[300, 96\]"
    with pytest.raises(DataError, match=f"{shape}, .* and 18 more such"):
        load_model(start)


def test_half_of_a_models_weights_are_refused_and_never_made_up(tmp_path):
    start = begun(tmp_path)
    build_model(300, layers=1).save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", start)
    with pytest.raises(DataError, match=r"model.layers.1.input_layernorm.weight is on one side only"):
        load_model(start)


def test_a_checkpoint_of_another_config_is_refused(tmp_path):
    start = begun(tmp_path)
    require_config(start, TinyModel(width=96, layers=2, heads=4))
    with pytest.raises(DataError, match="its hidden_size is 96, and the config's is 48"):
        require_config(start, TinyModel(width=48))


def test_the_optimiser_of_another_model_is_refused_with_its_shapes(tmp_path):
    loop = RankLoop(begun(tmp_path), config(tmp_path))
    take(loop, works(save=(2,))[:2])
    state = checkpoint.load_state(tmp_path / "step-2")
    stage = works()[0].stage
    with pytest.raises(DataError, match=r"has exp_avg of shape \[300, 96\] for parameter 0, and that of this model"):
        Learner(build_model(300, width=48), pad_id=0).restore(state, stage)
    with pytest.raises(DataError, match="optimiser moves 20 parameters and this model's 11"):
        Learner(build_model(300, layers=1), pad_id=0).restore(state, stage)
    with pytest.raises(DataError, match="was saved with 1 optimisers and the config asks for 2"):
        Learner(build_model(300), pad_id=0).restore(state, replace(stage, optimiser=MUON))


def test_a_learners_state_that_cannot_be_read_is_a_data_error(tmp_path):
    start = begun(tmp_path)
    (start / checkpoint.STATE).write_bytes(b"not a state")
    with pytest.raises(DataError, match=r"learner.pt cannot be read \(UnpicklingError"):
        checkpoint.load_state(start)


def poisoned() -> list[Example]:
    rows = (Row((7, 8), (True, True), math.inf, True, sources=("hot",)), Row((9,), (True,), 0.0, False))
    return [Example(f"t{i}", (5, 6), rows) for i in range(20)]


def test_a_step_that_is_not_finite_is_skipped_and_leaves_every_bit_as_it_was(tmp_path):
    objective = Rrhf(gap_margin=1.0)
    loop = RankLoop(begun(tmp_path), config(tmp_path))
    take(loop, works(objective=objective)[:5])
    before = digest(loop)
    bad = works(objective=objective, examples=poisoned())[5]
    metrics = loop.learn(bad)
    assert metrics["skipped"] == 1.0 and "loss" not in metrics
    assert digest(loop) == before
    written = json.loads((tmp_path.parent / "errors" / "step-5.json").read_text())
    assert (written["stage"], written["metrics"]["loss"]) == ("improve", "inf")
    assert written["groups"][0]["candidates"][0]["reward"] == "inf"
    assert written["groups"][0]["candidates"][0]["sources"] == ["hot"]
    assert "skipped" not in loop.learn(works(objective=objective)[6])
    assert digest(loop) != before
    assert loop.learner.skipped == 1


def test_the_third_such_step_in_a_row_ends_the_run_and_a_good_one_between_counts_anew(tmp_path):
    objective = Rrhf(gap_margin=1.0)
    loop = RankLoop(begun(tmp_path / "run"), config(tmp_path / "run"))
    good, bad = works(objective=objective), works(objective=objective, examples=poisoned())
    take(loop, [*good[:3], bad[3], bad[4], good[5], bad[6]])
    loop.save(7)
    loop = RankLoop(tmp_path / "run" / "step-7", config(tmp_path / "run"))
    loop.learn(bad[7])
    with pytest.raises(DivergedError, match=r"3 steps in a row, the last of them step 7, .* groups are in .*errors"):
        loop.learn(bad[7])
    assert sorted(path.name for path in (tmp_path / "errors").iterdir()) == [
        f"step-{step}.json" for step in (3, 4, 6, 7)
    ]


def test_a_fit_alone_that_diverges_says_so(tmp_path):
    start = begun(tmp_path)
    stage = replace(works()[0].stage, objective=Rrhf(gap_margin=1.0), steps=5)
    job = AloneJob(
        start=str(start), folder=str(tmp_path / "p"), examples=tuple(poisoned()), stage=stage, batch_size=4, seed=0
    )
    with pytest.raises(DivergedError, match="3 steps in a row"):
        fit_alone(job)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.775, 0.55, 0.325]),
        ("cosine", [0.5, 1.0, 1.0, 0.8682, 0.55, 0.2318]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_learning_rates_rise_then_fall_as_the_schedule_says(schedule, expected):
    optimiser = OptimiserConfig(schedule=schedule, warmup=1 / 3, floor=0.1)
    scales = [optimiser.scale(step, 6) for step in range(6)]
    assert scales == pytest.approx(expected, abs=1e-4)


def test_tasks_that_have_changed_are_refused_on_resume_unless_allowed(tmp_path):
    run = Run(tmp_path)
    run.require_data({"train": "3 tasks, aa", "test": "2 tasks, bb"})
    run.require_data({"train": "3 tasks, aa", "test": "2 tasks, bb"})
    changed = {"train": "4 tasks, cc", "test": "2 tasks, bb"}
    with pytest.raises(DataError, match=r"\(train: 3 tasks, aa then, 4 tasks, cc now\).*--allow-changed-data"):
        run.require_data(changed)
    run.require_data(changed, allow_changed=True)
    run.require_data(changed)


def test_activations_that_are_computed_again_change_no_bit_of_the_gradient(tmp_path):
    plain = RankLoop(begun(tmp_path / "a", 0.1), config(tmp_path / "a"))
    footprint = Footprint(gradient_checkpointing=True)
    thrifty = RankLoop(begun(tmp_path / "b", 0.1), config(tmp_path / "b", footprint=footprint))
    assert thrifty.learner.model.is_gradient_checkpointing
    for loop in (plain, thrifty):
        take(loop, works()[:5])
    assert digest(plain) == digest(thrifty)


def test_bf16_computes_nearly_the_same_and_keeps_weights_in_float32(tmp_path):
    exact = RankLoop(begun(tmp_path / "a"), config(tmp_path / "a"))
    rough = RankLoop(begun(tmp_path / "b"), config(tmp_path / "b", footprint=Footprint(precision="bf16")))
    losses = [[loop.learn(work)["loss"] for work in works(ADAMW)] for loop in (exact, rough)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert {parameter.dtype for parameter in rough.learner.model.parameters()} == {torch.float32}
    for left, right in zip(exact.learner.weights().values(), rough.learner.weights().values(), strict=True):
        assert np.abs(left - right).max() < 0.02
