"""Adapters: what is trained, saved, sent and loaded where only small matrices beside a model's own learn."""

import asyncio
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from executors.errors import ConfigError, DataError
from rl.learner import checkpoint
from rl.learner.learner import weights_of
from rl.learner.rank import RankLoop
from rl.models.load import (
    HuggingFaceModel,
    TinyModel,
    build_weights,
    is_adapter,
    load_merged,
    load_model,
    require_config,
    require_model,
)
from rl.models.lora import BASE, Adapter, adapter_names, add_adapter
from rl.models.tiny import build_model, build_tokenizer
from rl.recipes.parts import RecipeConfig
from rl.serving.engine import TransformersPolicy
from rl.serving.policies import LocalPolicy
from rollouts.policy import PolicyUnavailableError, Request
from rollouts.types import Sampling, Task
from tests.rl.test_checkpoint import config, digest, take, works

IDS = torch.tensor([[5, 6, 7, 8]])
ADAPTER = Adapter(r=4, alpha=8)


def begun(folder, adapter=ADAPTER, base=None):
    return checkpoint.begin(
        folder, build_model(300, seed=5), build_tokenizer(["a b c"], vocab_size=300), adapter=adapter, base=base, seed=3
    )


def learned(folder, steps=4):
    """A run's checkpoint after some steps, and its learner."""
    loop = RankLoop(begun(folder), config(folder))
    take(loop, works(save=(steps,))[:steps])
    return folder / f"step-{steps}", loop


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def test_a_fresh_adapter_changes_nothing_and_is_all_that_learns(tmp_path):
    start = begun(tmp_path)
    assert torch.equal(logits(load_model(start)), logits(build_model(300, seed=5)))
    path, loop = learned(tmp_path / "run")
    trained = load_model(path)
    assert not torch.allclose(logits(trained), logits(load_model(start)), atol=1e-3)
    moved = dict(trained.named_parameters())
    for name, value in build_model(300, seed=5).named_parameters():
        stem, _, leaf = name.rpartition(".")
        assert torch.equal(moved.get(name, moved.get(f"{stem}.base_layer.{leaf}")), value)
    assert adapter_names(trained) == {name for name, p in trained.named_parameters() if p.requires_grad}
    assert loop.learner.weights().keys() == adapter_names(trained)


def test_a_checkpoint_holds_the_adapter_and_names_the_model_beside_it(tmp_path):
    path, loop = learned(tmp_path)
    files = {found.name for found in path.iterdir()}
    assert "adapter_model.safetensors" in files and "model.safetensors" not in files
    require_model(path)
    assert is_adapter(path) and (tmp_path / BASE / "model.safetensors").is_file()
    assert torch.equal(logits(load_model(path)), logits(loop.learner.model))
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(path)), logits(loop.learner.model))
    require_config(path, TinyModel(adapter=ADAPTER))
    with pytest.raises(DataError, match=r"holds an adapter, and model.adapter is None"):
        require_config(path, TinyModel())


def test_a_run_with_an_adapter_goes_on_bit_for_bit(tmp_path):
    _, whole = learned(tmp_path / "whole", 6)
    path, _ = learned(tmp_path / "half", 4)
    resumed = RankLoop(path, config(tmp_path / "half"))
    take(resumed, works()[4:6])
    assert digest(resumed) == digest(whole)


def test_a_run_that_was_moved_finds_its_model_still(tmp_path):
    path, loop = learned(tmp_path / "old")
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert torch.equal(logits(load_model(tmp_path / "new" / path.name)), logits(loop.learner.model))
    shutil.rmtree(tmp_path / "new" / BASE)
    with pytest.raises(DataError, match=r"model in .*old/base, which is not there, nor is it in .*new/base"):
        load_model(tmp_path / "new" / path.name)


def test_an_adapter_of_another_model_is_refused_with_its_shapes(tmp_path):
    path, _ = learned(tmp_path)
    build_model(300, width=48).save_pretrained(tmp_path / "other")
    said = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps(said | {"base_model_name_or_path": str(tmp_path / "other")}))
    with pytest.raises(DataError, match=r"lora_A.default.weight has shape \[4, 256\] instead of \[4, 128\]"):
        load_model(path)


def test_an_adapter_that_older_tools_wrote_as_a_pickle_is_read_too_and_nothing_in_it_is_run(tmp_path):
    path, _ = learned(tmp_path)
    expected = logits(load_model(path))
    weights = path / "adapter_model.safetensors"
    torch.save(load_file(weights), path / "adapter_model.bin")
    weights.unlink()
    assert torch.equal(logits(load_model(path)), expected)
    plain = LocalPolicy("plain", str(tmp_path / BASE), adapters={"old": str(path)})()
    assert plain.adapters == ("old",)
    torch.save({"a": Path("x")}, path / "adapter_model.bin")
    with pytest.raises(DataError, match="cannot be loaded"):
        load_model(path)
    (path / "adapter_model.bin").write_bytes(b"")  # as a copy that was cut leaves it
    with pytest.raises(ConfigError, match="does not fit the model: EOFError"):
        LocalPolicy("plain", str(tmp_path / BASE), adapters={"old": str(path)})()


def test_a_merged_model_is_a_plain_one_that_computes_the_same(tmp_path):
    path, loop = learned(tmp_path)
    merged = load_merged(path)
    assert torch.allclose(logits(merged), logits(loop.learner.model), atol=1e-5)
    assert weights_of(merged).keys() == weights_of(build_model(300)).keys()
    again = build_weights(HuggingFaceModel(path=str(path)), build_tokenizer(["a"], vocab_size=300), 0)
    assert torch.equal(logits(again), logits(merged))


def request() -> Request:
    task = Task(id="t", prompt="a b", tools=())
    return Request(task=task, segments=("a b c",), session="s", sampling=Sampling(max_tokens=6))


def test_a_policy_takes_published_adapters_and_writes_what_the_learner_would(tmp_path):
    start = begun(tmp_path)
    policy = LocalPolicy("live", str(start), version=-1)()
    path, loop = learned(tmp_path / "run")
    published = loop.learner.weights()
    policy.load(published, 7)
    fresh = TransformersPolicy("x", load_merged(path), policy.tokenizer)
    replies = [asyncio.run(each.complete(request())) for each in (policy, fresh)]
    assert replies[0].token_ids == replies[1].token_ids
    assert np.allclose(replies[0].logprobs, replies[1].logprobs, atol=1e-4)
    assert policy.version == 7
    name, value = next(iter(published.items()))
    with pytest.raises(PolicyUnavailableError, match="published weights and live differ in"):
        policy.load({name: value}, 8)
    with pytest.raises(PolicyUnavailableError, match="published weights and plain differ in"):
        TransformersPolicy("plain", build_model(300), policy.tokenizer).load(published, 8)


def test_an_adapters_snapshot_is_a_twentieth_of_a_models():
    model = build_model(2048, width=512, layers=4, heads=8)
    whole = sum(value.nbytes for value in weights_of(model).values())
    add_adapter(model, Adapter(), Path("base"), 0)
    small = sum(value.nbytes for value in weights_of(model).values())
    assert small * 20 < whole, whole / small


def test_layers_that_a_model_lacks_are_told_with_those_it_has(tmp_path):
    with pytest.raises(ConfigError, match=r"target_modules \['query'\]: .*down_proj, gate_proj, k_proj, lm_head"):
        begun(tmp_path, Adapter(target_modules=["query"]))
    start = begun(tmp_path, Adapter(target_modules=["q_proj", "v_proj"]))
    assert len(adapter_names(load_model(start))) == 2 * 2 * 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU, where four bits can be held")
def test_without_a_gpu_four_bits_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="qlora holds the model in 4 bits, which needs a GPU"):
        load_model(begun(tmp_path, Adapter(kind="qlora")), quantised=True)


def recipe(**changes) -> RecipeConfig:
    stages = {"cloning": {"steps": 1}, "improvement": {"rounds": 1, "tasks_per_round": 1, "batch_size": 1}}
    content = {"name": "x", "sources": [{"name": "gold", "policy": "gold"}], **stages, **changes}
    for name, stage in stages.items():
        content[name] = stage | changes.get(name, {})
    return RecipeConfig.model_validate(content)


QLORA = {"kind": "tiny", "adapter": {"kind": "qlora"}}
KL = {"optimiser": {"kind": "adamw"}, "objective": {"kind": "rrhf", "kl_weight": 0.1}}
ADAMW = {"optimiser": {"kind": "adamw"}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": QLORA}, "kind qlora needs a GPU"),
        (
            {"model": QLORA, "learner": {"gpu": True, "strategy": "fsdp2"}},
            "weights of 4 bits cannot be shared out by fsdp2",
        ),
        ({"learner": {"strategy": "zero3"}}, "cloning.optimiser: muon needs whole matrices"),
        ({"learner": {"strategy": "zero3"}, "cloning": ADAMW}, "improvement.optimiser: muon needs whole matrices"),
        (
            {"learner": {"strategy": "zero2"}, "cloning": ADAMW, "improvement": KL},
            "improvement.objective: it compares with the weights of the stage's beginning",
        ),
        ({"learner": {"min_workers": 3, "workers": 2}}, "min_workers: 3 is more than workers, which is 2"),
    ],
)
def test_a_config_that_cannot_learn_is_refused_before_anything_starts(changes, told):
    with pytest.raises(ValidationError, match=told):
        recipe(**changes)
    recipe(learner={"strategy": "zero3"}, cloning=ADAMW, improvement=ADAMW)
