"""Checkpoints in Hugging Face's format, with the learner's own state beside the weights."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from executors.errors import DataError

STATE = "learner.pt"


def save(
    folder: Path, step: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, state: dict[str, Any]
) -> Path:
    """Write ``folder/step-N``: whole or not at all."""
    path = folder / f"step-{step}"
    fresh = folder / f".step-{step}.{os.getpid()}"
    shutil.rmtree(fresh, ignore_errors=True)
    model.save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    torch.save(state, fresh / STATE)
    (fresh / "apprentice.json").write_text(json.dumps({"step": step, "stage": state.get("stage")}))
    if is_complete(path):  # the same step, taken again after a crash: it is there already
        shutil.rmtree(fresh)
        return path
    shutil.rmtree(path, ignore_errors=True)
    os.replace(fresh, path)
    return path


def is_complete(path: Path) -> bool:
    """Whether a folder is a whole checkpoint of the learner."""
    return (path / STATE).is_file() and (path / "config.json").is_file()


def newest(folder: Path) -> int | None:
    """The step of the newest whole checkpoint in a folder; None where there is none."""
    steps = [int(path.name.removeprefix("step-")) for path in folder.glob("step-*") if is_complete(path)]
    return max(steps, default=None)


def load_state(path: Path) -> dict[str, Any]:
    """The learner's state in a checkpoint.

    Raises:
        DataError: it has none.
    """
    if not (path / STATE).is_file():
        raise DataError(f"{path} has no {STATE}: it can be served and evaluated, but training cannot continue from it")
    return torch.load(path / STATE, map_location="cpu", weights_only=True)
