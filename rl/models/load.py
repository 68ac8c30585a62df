"""Where a policy's model comes from: built here from a config, or a Hugging Face directory."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from executors.errors import DataError
from rl.models.choice import HuggingFaceModel, ModelConfig, TinyModel
from rl.models.lora import CONFIG as ADAPTER
from rl.models.lora import base_of, load_adapter, merge_rows, misfits, quantisation
from rl.models.tiny import build_model, build_tokenizer


def build_tokenizer_for(config: ModelConfig, texts: Iterable[str], markers: Sequence[str]) -> PreTrainedTokenizerBase:
    """The policy's tokenizer.

    Args:
        config: where the model comes from.
        texts: training texts, for a tokenizer that is built here.
        markers: pieces of the format's grammar that such a tokenizer keeps whole.
    """
    if isinstance(config, HuggingFaceModel):
        return load_tokenizer(Path(config.path))
    return build_tokenizer(texts, markers=markers, vocab_size=config.vocab_size, max_length=config.max_length)


def build_weights(config: ModelConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """The model that training starts from.

    Args:
        config: where it comes from.
        tokenizer: what it reads and writes.
        seed: of random weights.
    """
    if isinstance(config, HuggingFaceModel):
        return load_merged(Path(config.path))
    return build_model(
        len(tokenizer),
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        max_length=config.max_length,
        seed=seed,
    )


def load_model(path: Path, *, quantised: bool = False) -> PreTrainedModel:
    """A causal model from a directory, in float32; of one with an adapter, only that requires gradients.

    Args:
        path: of the model, or of an adapter that names its model.
        quantised: hold the model, though not its adapter, in 4 bits; see ``quantisation``.

    Raises:
        DataError: the directory does not hold one, or holds parts of different ones.
        ConfigError: it is to be held in 4 bits and cannot.
    """
    require_model(path)
    if not is_adapter(path):
        return _load(path, quantised)
    model = _load(base_of(path), quantised)
    try:
        load_adapter(model, path)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"the adapter in {path} cannot be loaded: {type(error).__name__}: {_first_line(error)}"
        ) from error
    return model


def load_merged(path: Path) -> PreTrainedModel:
    """A causal model from a directory, its adapter, where it has one, worked into its own weights.

    Raises:
        DataError: see ``load_model``.
    """
    model: Any = load_model(path)
    if not is_adapter(path):
        return model
    merge_rows(model)
    names = {name for name, _ in model.named_modules()}
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer) and name in names:
            module.merge()
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module.get_base_layer())
    plain = type(model)(model.config)
    plain.load_state_dict(model.state_dict())
    return plain


def _load(path: Path, quantised: bool) -> PreTrainedModel:
    options: dict[str, Any] = {"dtype": torch.float32, "local_files_only": True, "output_loading_info": True}
    options["ignore_mismatched_sizes"] = True  # they are told of below, by name
    if quantised:
        options |= {"quantization_config": quantisation(), "device_map": {"": torch.cuda.current_device()}}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(path, **options)
    except Exception as error:
        raise DataError(
            f"the model in {path} cannot be loaded: {type(error).__name__}: {_first_line(error)}"
        ) from error
    model, said = loaded
    if wrong := misfits(said["missing_keys"], said["mismatched_keys"]):
        raise DataError(
            f"the weights in {path} are not those of its config.json: {wrong}; the directory holds parts of different "
            "models, or half of one"
        )
    return model


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of the model in a directory.

    Raises:
        DataError: the directory does not hold one.
    """
    require_model(path)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:
        raise DataError(f"{path} has no usable tokenizer: {type(error).__name__}: {_first_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise DataError(f"the tokenizer in {path} names no end token; set eos_token in its tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that fills rows."""
    return _id(tokenizer.pad_token_id)


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends a reply."""
    return _id(tokenizer.eos_token_id)


def _id(token: object) -> int:
    if not isinstance(token, int):
        raise DataError(f"the tokenizer's padding or end token is {token!r}; set pad_token and eos_token")
    return token


def is_model(path: Path) -> bool:
    """Whether a directory holds a model, or the adapter of one."""
    return any((path / name).is_file() for name in ("config.json", ADAPTER))


def is_adapter(path: Path) -> bool:
    """Whether a directory holds the adapter of a model that is elsewhere."""
    return (path / ADAPTER).is_file()


def require_config(path: Path, config: ModelConfig) -> None:
    """See that a checkpoint is of the model that a config names.

    Raises:
        DataError: it is of another one.
    """
    if is_adapter(path) != (config.adapter is not None):
        held = "an adapter" if is_adapter(path) else "a whole model"
        raise DataError(
            f"{path} holds {held}, and model.adapter is {config.adapter}; it is a checkpoint of another run"
        )
    found = json.loads(((base_of(path) if is_adapter(path) else path) / "config.json").read_text())
    if isinstance(config, TinyModel):
        wanted = {
            "hidden_size": config.width,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
        }
    else:
        start = Path(config.path)
        said = json.loads(((base_of(start) if is_adapter(start) else start) / "config.json").read_text())
        names = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
        wanted = {name: said[name] for name in names if name in said}
    for name, value in wanted.items():
        if found.get(name) != value:
            raise DataError(
                f"{path} is a checkpoint of another model: its {name} is {found.get(name)}, and the config's is "
                f"{value}; resume the run with its own config, or start one of another name"
            )


def require_model(path: Path) -> None:
    """See that a directory holds a model.

    Raises:
        DataError: it does not.
    """
    if not is_model(path):
        there = ", ".join(sorted(os.listdir(path))[:5]) if path.is_dir() else "nothing"
        raise DataError(
            f"{path} is not a model directory: it has no config.json (there is {there or 'nothing'}); "
            "name a directory that save_pretrained wrote, such as runs/NAME/checkpoints/best"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:300]
