"""Checkpoints in Hugging Face's format, with the learner's own state beside the weights."""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from executors.errors import DataError
from rl.models.choice import AdapterConfig
from rl.models.lora import BASE, add_adapter

STATE = "learner.pt"
MANIFEST = "MANIFEST.json"


def begin(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    adapter: AdapterConfig = None,
    base: Path | None = None,
    seed: int = 0,
    rows: Sequence[int] = (),
) -> Path:
    """Write ``folder/step-0``, where training starts: a model, or a fresh adapter of it.

    Args:
        folder: of the checkpoints.
        model: it gets the adapter.
        tokenizer: the model's.
        adapter: what to train instead of the model itself.
        base: where the model is that the adapter belongs to; written to ``folder/base`` where it is nowhere.
        seed: of the adapter.
        rows: of the vocabulary, which are trained beside the adapter.
    """
    if adapter is not None:
        if base is None:
            base = folder / BASE
            fresh = folder / f".{BASE}.{os.getpid()}"
            shutil.rmtree(fresh, ignore_errors=True)
            model.save_pretrained(fresh)
            tokenizer.save_pretrained(fresh)
            shutil.rmtree(base, ignore_errors=True)
            os.replace(fresh, base)
        add_adapter(model, adapter, base, seed, rows)
    return save(folder, 0, model, tokenizer, {"stage": None, "step_count": 0, "tokens": 0, "optimiser": None})


def save(
    folder: Path,
    step: int,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    state: dict[str, Any],
    weights: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write ``folder/step-N``: whole and on disk, or not at all.

    Beside the files stands a manifest with the size and SHA-256 of each, so that damage is seen before any is loaded.
    Of a model with an adapter only that is written; it names its model.

    Args:
        folder: of the checkpoints.
        step: the next one to take.
        model: what to save.
        tokenizer: the model's.
        state: the learner's own.
        weights: the model's, where it does not hold them whole itself.
    """
    path = folder / f"step-{step}"
    fresh = folder / f".step-{step}.{os.getpid()}"
    shutil.rmtree(fresh, ignore_errors=True)
    model.save_pretrained(fresh, state_dict=None if weights is None else dict(weights))
    tokenizer.save_pretrained(fresh)
    torch.save(state, fresh / STATE)
    position = {"step": step, "stage": state.get("stage"), "version": state.get("version")}
    (fresh / "apprentice.json").write_text(json.dumps(position))
    files = {found.name: {"bytes": found.stat().st_size, "sha256": _digest(found)} for found in sorted(fresh.iterdir())}
    (fresh / MANIFEST).write_text(json.dumps({"step": step, "files": files}, indent=1))
    for found in (*fresh.iterdir(), fresh):
        _sync(found)
    if problem(path) is None:  # the same step, taken again after a crash: it is there already
        shutil.rmtree(fresh)
        return path
    shutil.rmtree(path, ignore_errors=True)
    os.replace(fresh, path)
    _sync(folder)
    return path


def problem(path: Path, *, thorough: bool = True) -> str | None:
    """Why a folder is no whole checkpoint of the learner; None where it is one.

    Args:
        path: of the folder.
        thorough: read every file and compare its digest; else only the sizes are looked at.
    """
    try:
        files = json.loads((path / MANIFEST).read_text())["files"]
    except FileNotFoundError:
        return f"it has no {MANIFEST}"
    except (OSError, ValueError, KeyError, TypeError):
        return f"its {MANIFEST} cannot be read"
    for name, known in files.items():
        found = path / name
        if not found.is_file():
            return f"{name} is missing"
        if found.stat().st_size != known["bytes"]:
            return f"{name} has {found.stat().st_size} bytes instead of {known['bytes']}"
        if thorough and _digest(found) != known["sha256"]:
            return f"{name} is not what was saved"
    return None


def require(path: Path) -> None:
    """See that a folder is a whole checkpoint.

    Raises:
        DataError: it is not, and why.
    """
    if (why := problem(path)) is not None:
        raise DataError(
            f"{path} is no whole checkpoint: {why}; remove it and resume, which goes on from the newest that is whole"
        )


def is_complete(path: Path) -> bool:
    """Whether a folder is a whole checkpoint of the learner, as far as its files' sizes tell."""
    return problem(path, thorough=False) is None


def steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder, whole or not, in order."""
    names = (path.name.removeprefix("step-") for path in folder.glob("step-*"))
    return sorted(int(name) for name in names if name.isdigit())


def newest(folder: Path) -> int | None:
    """The step of the newest whole checkpoint in a folder; None where there is none. Damaged ones are passed over.

    Raises:
        DataError: there are checkpoints, and all of them are damaged.
    """
    damage = []
    for step in reversed(steps(folder)):
        if (why := problem(folder / f"step-{step}")) is None:
            return step
        damage.append(f"step-{step}: {why}")
    if damage:
        raise DataError(
            f"no checkpoint in {folder} is whole ({'; '.join(damage[:3])}); restore one from a copy, or start a new run"
        )
    return None


def superfluous(folder: Path, keep: int, spare: Iterable[int] = ()) -> list[int]:
    """The steps of the checkpoints that nothing needs any more: all but the newest.

    Never among them are the first, which says what the run began with, the best, and the newest that is whole, however
    damaged what came after it is.

    Args:
        folder: of the checkpoints.
        keep: how many of the newest stay; at least one.
        spare: further steps that stay.
    """
    known = steps(folder)
    best = folder / "best"
    spared = {0, *known[-max(1, keep) :], *spare, *([_step(best.resolve())] if best.exists() else [])}
    whole = next((step for step in reversed(known) if is_complete(folder / f"step-{step}")), None)
    return [step for step in known if step not in spared and step != whole]


def remove(folder: Path, gone: Iterable[int]) -> None:
    """Remove the checkpoints of some steps, each whole or not at all."""
    for step in gone:
        doomed = folder / f".step-{step}.{os.getpid()}"  # a name that ``sweep`` knows: half of it is no checkpoint
        shutil.rmtree(doomed, ignore_errors=True)
        os.replace(folder / f"step-{step}", doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def sweep(folder: Path) -> None:
    """Remove what writers that were killed have left half written."""
    for path in (*folder.glob(".step-*"), *folder.glob(f".{BASE}.*")):
        shutil.rmtree(path, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_state(path: Path) -> dict[str, Any]:
    """The learner's state in a checkpoint.

    Raises:
        DataError: it has none, or one that cannot be read.
    """
    if not (path / STATE).is_file():
        raise DataError(f"{path} has no {STATE}: it can be served and evaluated, but training cannot continue from it")
    try:
        return torch.load(path / STATE, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        told = (str(error).splitlines() or [""])[0][:200]
        raise DataError(
            f"{path / STATE} cannot be read ({type(error).__name__}: {told}); remove {path.name}"
        ) from error
