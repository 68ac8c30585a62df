"""A run's policy for other programs: a plain model, or its adapter, in Hugging Face's and PEFT's formats."""

import os
import shutil
from pathlib import Path

from executors.errors import ConfigError, DataError
from rl.models.load import load_merged, load_tokenizer
from rl.models.lora import CONFIG as ADAPTER
from rl.serving.published import Checkpoint, Published

MODELS = ("model", "adapter")
"""What can be written: the whole model, an adapter worked into its weights; or the adapter alone."""
_ADAPTER_FILES = (ADAPTER, "adapter_model.safetensors")


def export_model(run: Path, kind: str, out: Path, checkpoint: str = "best") -> Checkpoint:
    """Write the policy of a checkpoint into a new folder.

    Args:
        run: a run's folder, or that of one checkpoint.
        kind: one of ``MODELS``.
        out: the folder; it must not be there.
        checkpoint: of the run: ``best``, ``newest``, or its name.

    Returns:
        The checkpoint that was written.

    Raises:
        ConfigError: the folder is there, or an adapter is asked for and there is none.
        DataError: there is no such checkpoint, or it cannot be loaded.
    """
    if out.exists():
        raise ConfigError(f"{out} is there already; name a folder that is not")
    found = _find(run, checkpoint)
    fresh = out.with_name(f".{out.name}.{os.getpid()}")
    fresh.mkdir(parents=True)
    try:
        if kind == "adapter":
            _copy_adapter(found, fresh)
        else:
            load_merged(found.path).save_pretrained(fresh)
        load_tokenizer(found.path).save_pretrained(fresh)
        fresh.rename(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return found


def _find(run: Path, checkpoint: str) -> Checkpoint:
    if (run / "checkpoints").is_dir():
        return Published((run / "checkpoints").resolve(), checkpoint).default()
    found = Published(run.resolve().parent, run.resolve().name).find(run.resolve().name)
    if found is None:
        raise DataError(f"{run} is no run (it has no checkpoints folder) and no checkpoint that is whole")
    return found


def _copy_adapter(found: Checkpoint, fresh: Path) -> None:
    if not found.adapter:
        raise ConfigError(f"{found.path} is a whole model without an adapter; export it as 'model'")
    for name in _ADAPTER_FILES:
        shutil.copyfile(found.path / name, fresh / name)
