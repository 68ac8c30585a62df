"""A run's policy as a directory that transformers and PEFT read by themselves."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from executors.errors import ConfigError, DataError
from rl.cli import app
from rl.learner import checkpoint
from rl.models.load import load_model
from rl.models.lora import Adapter
from rl.models.tiny import build_model, build_tokenizer
from rl.recipes.exported_model import export_model

IDS = torch.tensor([[3, 5, 7, 11]])


@pytest.fixture
def run(tmp_path):
    """A run whose policy is an adapter that has learned something."""
    tokenizer = build_tokenizer(["a b c"], vocab_size=300)
    model = build_model(len(tokenizer), width=16, layers=1, heads=2, max_length=32, seed=1)
    folder = tmp_path / "run" / "checkpoints"
    checkpoint.begin(folder, model, tokenizer, adapter=Adapter(r=2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.5)
    checkpoint.save(folder, 4, model, tokenizer, {})
    return tmp_path / "run"


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def test_a_merged_model_is_plain_and_says_what_the_policy_said(run, tmp_path):
    done = CliRunner().invoke(app, ["export", str(run), "model", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert f"step-4 of {run} in {tmp_path / 'out'}" in done.output.replace("\n", "")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert not [name for name, _ in plain.named_parameters() if "lora" in name]
    assert torch.allclose(logits(plain), logits(load_model(run / "checkpoints" / "step-4")), atol=1e-5)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == len(
        AutoTokenizer.from_pretrained(run / "checkpoints" / "step-4")
    )


def test_an_adapter_is_read_by_peft_over_its_own_model(run, tmp_path):
    found = export_model(run, "adapter", tmp_path / "out", "step-4")
    said = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(said["base_model_name_or_path"])
    adapted = PeftModel.from_pretrained(base, tmp_path / "out")
    assert torch.allclose(logits(adapted), logits(load_model(found.path)), atol=1e-5)


def test_a_checkpoint_alone_is_exported_by_its_own_folder(run, tmp_path):
    assert export_model(run / "checkpoints" / "step-0", "model", tmp_path / "out").id == "step-0"
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.allclose(logits(plain), logits(load_model(run / "checkpoints" / "step-0")), atol=1e-5)


def test_what_cannot_be_written_is_said_and_nothing_is_left(run, tmp_path):
    whole = tmp_path / "whole"
    export_model(run, "model", whole)
    with pytest.raises(ConfigError, match="is there already"):
        export_model(run, "model", whole)
    with pytest.raises(ConfigError, match="without an adapter; export it as 'model'"):
        export_model(whole, "adapter", tmp_path / "none")
    with pytest.raises(DataError, match="has no checkpoint 'step-9'; there are: step-4, step-0"):
        export_model(run, "model", tmp_path / "none", "step-9")
    with pytest.raises(DataError, match="is no run"):
        export_model(tmp_path / "nothing", "model", tmp_path / "none")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "whole"]
