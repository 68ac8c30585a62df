"""LoRA adapters of one model: several are loaded, one is active at a time."""

import warnings
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from peft import PeftModel
from peft.functional import set_adapter
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper

from executors.errors import ConfigError
from rl.models.lora import older_weights


class Adapters:
    """Loads, activates and removes a model's adapters, whether it came wrapped by PEFT or not."""

    def __init__(self, model: Any) -> None:
        """
        Args:
            model: of transformers, or one that PEFT has wrapped; the adapters that are active then are what the empty
                name stands for.
        """
        self._outer = model
        self.model: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        layers = self._layers()
        self._names = {name for layer in layers for name in getattr(layer, "_all_available_adapter_names", set)()}
        self._given = layers[0].active_adapters if layers and not layers[0].disable_adapters else []
        self._active: str | None = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the adapters that are loaded."""
        return tuple(sorted(self._names))

    def load(self, name: str, path: Path) -> None:
        """Load an adapter from a directory that PEFT saved.

        Raises:
            ConfigError: there is none, or it does not fit the model.
        """
        if not (path / "adapter_config.json").is_file():
            raise ConfigError(
                f"{path} is no adapter directory: it has no adapter_config.json; PEFT's save_pretrained writes one"
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if self._outer is self.model:
                    weights = older_weights(path)
                    self.model.load_adapter(str(path), adapter_name=name, hotswap=False, adapter_state_dict=weights)
                else:
                    self._outer.load_adapter(str(path), adapter_name=name)
        except (ValueError, RuntimeError, KeyError, TypeError, OSError, EOFError, UnpicklingError) as error:
            self._remove(name)
            first = (str(error).splitlines() or [""])[0][:300]
            raise ConfigError(
                f"the adapter in {path} does not fit the model: {type(error).__name__}: {first}"
            ) from error
        self._names.add(name)
        self._active = None

    def unload(self, name: str) -> None:
        """Remove an adapter.

        Raises:
            ConfigError: there is none of that name.
        """
        if name not in self._names:
            raise ConfigError(f"there is no adapter {name!r} to unload; there are {', '.join(self.names) or 'none'}")
        self._remove(name)
        self._names.discard(name)

    def _remove(self, name: str) -> None:
        self._active = None
        with warnings.catch_warnings(), suppress(ValueError, KeyError):  # there may be nothing of it
            warnings.simplefilter("ignore")
            self._outer.delete_adapter(name)

    def use(self, name: str) -> None:
        """Let an adapter be the active one; the empty name is for the model as it was given."""
        if name == self._active or not self._names:
            return
        wanted = [name] if name else [given for given in self._given if given in self._names]
        for layer in self._layers():
            layer.enable_adapters(bool(wanted))
        if wanted:
            set_adapter(self.model, wanted, inference_mode=True)
        self._active = name

    def _layers(self) -> list[Any]:
        kinds = (BaseTunerLayer, AuxiliaryTrainingWrapper)
        return [module for module in self.model.modules() if isinstance(module, kinds)]
