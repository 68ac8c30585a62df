"""Small trained matrices beside a model's own, which stay as they are (LoRA, Hu et al. 2021), by PEFT."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import TrainableTokensWrapper
from transformers import BitsAndBytesConfig, PreTrainedModel

from executors.errors import ConfigError, DataError
from rl.models.choice import Adapter

CONFIG = "adapter_config.json"
BASE = "base"
"""The folder beside a run's checkpoints with the model that their adapters belong to, where it is nowhere else."""


def add_adapter(model: PreTrainedModel, config: Adapter, base: Path, seed: int, rows: Sequence[int] = ()) -> None:
    """Give a model a fresh adapter, which changes nothing yet, and let only that be trained.

    Args:
        model: it changes in place.
        config: of the adapter.
        base: where the model itself is, for those who load the adapter later.
        seed: of the adapter's random half.
        rows: of the vocabulary, trained whole beside the adapter, of both matrices where there are two.

    Raises:
        ConfigError: the model has no such layers.
    """
    modules = config.target_modules
    matrices = _vocabulary(model) if rows and config.rows else ()
    made = LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules=modules,
        task_type="CAUSAL_LM",
        trainable_token_indices={name: list(rows) for name in matrices} or None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model.add_adapter(made)
        except ValueError as error:
            layers = sorted({n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)})
            raise ConfigError(
                f"model.adapter.target_modules {modules}: no adapter can be added there "
                f"({str(error).splitlines()[0][:200]}); the model's linear layers are called {', '.join(layers)}"
            ) from error
    model.peft_config["default"].base_model_name_or_path = str(base.resolve())
    train_adapter(model)


def _vocabulary(model: PreTrainedModel) -> tuple[str, ...]:
    """The names of the matrices that have a row for each token: one where input and output share it."""
    names = {id(module): name for name, module in model.named_modules()}
    inside, out = model.get_input_embeddings(), model.get_output_embeddings()
    tied = bool(getattr(model.config, "tie_word_embeddings", False)) or out is None
    return (names[id(inside)],) if tied else (names[id(inside)], names[id(out)])


def merge_rows(model: Any) -> None:
    """Write trained rows of the vocabulary into the matrices that they belong to; see ``add_adapter``."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, TrainableTokensWrapper):
            layer: Any = module.token_adapter
            layer.merge()
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, layer.get_base_layer())


def train_adapter(model: PreTrainedModel) -> None:
    """Let the adapters of a model be trained, and nothing else."""
    names = adapter_names(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)


def adapter_names(model: Any) -> frozenset[str]:
    """The names of those of a model's parameters that belong to its adapters; none where it has no adapter."""
    found = set()
    for prefix, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            kinds = set(module.adapter_layer_names)
            layer: Any = module
            own = (name for name, _ in layer.named_parameters() if name.partition(".")[0] in kinds)
            found |= {f"{prefix}.{name}" for name in own}
    return frozenset(found)


def base_of(path: Path) -> Path:
    """Where the model is that the adapter in a directory belongs to.

    Raises:
        DataError: it is not there any more, or the directory does not say.
    """
    try:
        named = json.loads((path / CONFIG).read_text())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path / CONFIG} does not say which model the adapter belongs to ({error})") from error
    beside = path.resolve().parent / BASE  # a run that was moved has it there still
    for base in (Path(named or ""), beside):
        if (base / "config.json").is_file():
            return base
    raise DataError(
        f"the adapter in {path} belongs to the model in {named}, which is not there, nor is it in {beside}; put it "
        f"back, or name its new place in {CONFIG} (base_model_name_or_path)"
    )


def load_adapter(model: PreTrainedModel, path: Path) -> None:
    """Give a model the adapter that a directory holds, and let only that be trained.

    Raises:
        DataError: it is the adapter of another model.
    """
    said = model.load_adapter(
        str(path),
        adapter_name="default",
        adapter_state_dict=older_weights(path),
        is_trainable=True,
        ignore_mismatched_sizes=True,  # told of below, by name
    )
    absent = _lacking(model, said.missing_keys) | said.unexpected_keys
    if wrong := misfits(absent, said.mismatched_keys):
        raise DataError(
            f"the adapter in {path} does not fit the model in {base_of(path)}: {wrong}; it was trained on another one"
        )
    train_adapter(model)


def older_weights(path: Path) -> dict[str, torch.Tensor] | None:
    """The weights of an adapter that older tools wrote to ``adapter_model.bin``; None where PEFT's file is there."""
    older = path / "adapter_model.bin"
    if (path / "adapter_model.safetensors").exists() or not older.exists():
        return None
    return torch.load(older, map_location="cpu", weights_only=True)


def _lacking(model: PreTrainedModel, missing: Iterable[str]) -> set[str]:
    """Those of the missing weights that are not another one's too: rows that two matrices share are saved once."""
    missing = set(missing)
    named = dict(model.named_parameters(remove_duplicate=False))
    held = {id(value) for name, value in named.items() if name not in missing}
    return {name for name in missing if id(named.get(name)) not in held}


def misfits(absent: Iterable[str], mismatched: Iterable[Any]) -> str:
    """What to say of weights that do not fit a model; nothing where all do.

    Args:
        absent: names that are on one side only.
        mismatched: names, each with the shape that was found and the one that was expected.
    """
    told = [f"{name} has shape {list(found)} instead of {list(wanted)}" for name, found, wanted in mismatched]
    told += [f"{name} is on one side only" for name in absent]
    more = f", and {len(told) - 2} more such" if len(told) > 2 else ""
    return ", ".join(sorted(told)[:2]) + more


def quantisation() -> BitsAndBytesConfig:
    """How QLoRA holds a model: 4 bits a weight, products in bfloat16 (Dettmers et al. 2023).

    Raises:
        ConfigError: this process has no GPU, or bitsandbytes is not installed.
    """
    if not torch.cuda.is_available():
        raise ConfigError(
            "model.adapter.kind qlora holds the model in 4 bits, which needs a GPU, and this process has none; "
            "take kind lora, or a machine with a GPU and learner.gpu: true"
        )
    try:
        import bitsandbytes  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        raise ConfigError("model.adapter.kind qlora needs bitsandbytes: pip install bitsandbytes") from error
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
