"""How large a model is, from its config alone: nothing is loaded."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rl.models.load import ModelConfig, TinyModel, is_adapter
from rl.models.lora import Adapter, base_of
from rl.models.tiny import build_model

_NAMED = re.compile(r"(\d+(?:\.\d+)?)\s*[bB](?![a-zA-Z])")
"""``8B`` in a path such as ``/models/Some-8B-Instruct``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of a model."""

    parameters: int
    trained: int
    """Of them, or of its adapters."""
    layers: int
    width: int
    vocabulary: int
    origin: str
    """Where these numbers come from."""


def size_of(model: ModelConfig) -> Size | None:
    """The size of a config's model; None where nothing says it.

    A directory that is not on this machine is judged by its name: ``8B`` is eight thousand million parameters, spread
    as is usual at that size.
    """
    if isinstance(model, TinyModel):
        with torch.device("meta"):
            built: Any = build_model(
                model.vocab_size,
                width=model.width,
                layers=model.layers,
                heads=model.heads,
                max_length=model.max_length,
            )
        return _measured(built, model.adapter, "built here from random weights")
    path = Path(model.path)
    folder = base_of(path) if is_adapter(path) else path
    if (folder / "config.json").is_file():
        config: Any = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            return _measured(AutoModelForCausalLM.from_config(config), model.adapter, f"{folder}/config.json")
    found = _NAMED.search(path.name)
    return None if found is None else _by_name(float(found[1]), model.adapter, path)


def _measured(model: Any, adapter: Adapter | None, origin: str) -> Size:
    config = model.config.get_text_config()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Size(
        parameters=parameters,
        trained=parameters if adapter is None else _adapted(model, adapter),
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        vocabulary=config.vocab_size,
        origin=origin,
    )


def _adapted(model: Any, adapter: Adapter) -> int:
    """Parameters of the adapters that a model would get."""
    head = model.get_output_embeddings()
    linear = [
        (name.rpartition(".")[2], module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    ]
    wanted = adapter.target_modules
    chosen = [module for name, module in linear if wanted == "all-linear" or name in wanted]
    return sum(adapter.r * (module.in_features + module.out_features) for module in chosen)


def _by_name(billions: float, adapter: Adapter | None, path: Path) -> Size:
    """A decoder of a usual shape: 12 widths squared a layer, and 128 wide for each layer."""
    parameters = int(billions * 1e9)
    layers = max(1, round((parameters / (12 * 128**2)) ** (1 / 3)))
    width = 128 * layers
    matrices = 7 if adapter is None or adapter.target_modules == "all-linear" else len(adapter.target_modules)
    trained = parameters if adapter is None else layers * matrices * adapter.r * 3 * width
    return Size(
        parameters=parameters,
        trained=trained,
        layers=layers,
        width=width,
        vocabulary=128_000,
        origin=f"the name of {path}, which is not on this machine",
    )
