"""How weights move: Muon for hidden matrices with AdamW for the rest, or AdamW alone."""

import math
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from executors.errors import DataError
from rl.learner.schedule import OptimiserConfig

State: TypeAlias = list[dict[str, Any]]
"""What a checkpoint keeps of an optimiser: the state of each torch optimiser, its tensors whole."""


class Steps(Protocol):
    """Whatever updates a model; all ranks call each method together."""

    def step(self, scale: float) -> float:
        """Clip, update, and clear the gradients; with a gradient that is not finite nothing but the last is done.

        Args:
            scale: share of the peak learning rates.

        Returns:
            The gradient's norm before clipping.
        """
        ...

    def state(self) -> State:
        """What a checkpoint keeps, whole on rank 0 however it is spread."""
        ...

    def restore(self, state: State) -> None:
        """Continue from a state, whoever and however many have saved it.

        Raises:
            DataError: it is of another model or of another kind of optimiser.
        """
        ...


class Optimiser:
    """One or two torch optimisers that step together; see ``Steps``."""

    def __init__(self, model: nn.Module, config: OptimiserConfig) -> None:
        self.config = config
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        hidden = _hidden_matrices(model) if config.kind == "muon" else []
        known = {id(parameter) for parameter in hidden}
        rest = [parameter for parameter in self.parameters if id(parameter) not in known]
        self._parts: list[tuple[torch.optim.Optimizer, float]] = []
        if hidden:
            muon = torch.optim.Muon(
                hidden, lr=config.muon_lr, weight_decay=config.weight_decay, adjust_lr_fn="original"
            )
            self._parts.append((muon, config.muon_lr))
        if rest:
            adamw = torch.optim.AdamW(rest, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
            self._parts.append((adamw, config.lr))

    def step(self, scale: float) -> float:
        """See ``Steps``."""
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        size = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        for optimiser, lr in self._parts:
            if math.isfinite(size):
                for group in optimiser.param_groups:
                    group["lr"] = lr * scale
                optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return size

    def state(self) -> State:
        """See ``Steps``."""
        return [_mapped(optimiser.state_dict(), _whole) for optimiser, _ in self._parts]

    def restore(self, state: State) -> None:
        """See ``Steps``."""
        require_state(state, [optimiser for optimiser, _ in self._parts])
        for (optimiser, _), part in zip(self._parts, state, strict=True):
            own = [parameter for group in optimiser.param_groups for parameter in group["params"]]
            spread = {
                index: {name: _spread(value, own[index]) for name, value in kept.items()}
                for index, kept in part["state"].items()
            }
            optimiser.load_state_dict({**part, "state": spread})


def require_state(
    state: State, optimisers: Sequence[torch.optim.Optimizer], sizes: Sequence[torch.Size] | None = None
) -> None:
    """See that a saved state belongs to some optimisers.

    Args:
        state: what was saved.
        optimisers: that are to go on from it.
        sizes: of the parameters, where they are not held whole.

    Raises:
        DataError: it does not.
    """
    if len(state) != len(optimisers):
        raise DataError(
            f"the checkpoint was saved with {len(state)} optimisers and the config asks for {len(optimisers)}; "
            "continue with the optimiser.kind that it was saved with"
        )
    for part, optimiser in zip(state, optimisers, strict=True):
        own = sizes or [parameter.shape for group in optimiser.param_groups for parameter in group["params"]]
        known = sum(len(group["params"]) for group in part["param_groups"])
        if known != len(own):
            raise DataError(
                f"the checkpoint's optimiser moves {known} parameters and this model's {len(own)}: it is of another "
                "model, or of one whose trained parameters are others (see model.adapter)"
            )
        for index, kept in part["state"].items():
            for name, value in kept.items():
                if isinstance(value, Tensor) and value.ndim and value.shape != own[index]:
                    raise DataError(
                        f"the checkpoint's optimiser has {name} of shape {list(value.shape)} for parameter {index}, "
                        f"and that of this model is {list(own[index])}: it is of another model"
                    )


def _mapped(part: dict[str, Any], change: Any) -> dict[str, Any]:
    state = {index: {name: change(value) for name, value in kept.items()} for index, kept in part["state"].items()}
    return {**part, "state": state}


def _whole(value: Any) -> Any:
    """A tensor with the parts of all ranks; all of them have to ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _spread(value: Any, like: Tensor) -> Any:
    """This rank's part of a whole tensor, where the parameter that it belongs to is spread."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or not value.ndim:
        return value
    placed = value.to(like.device)
    return distribute_tensor(placed, like.device_mesh, like.placements, src_data_rank=None)


def _hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    ends = {
        id(parameter)
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) or name.endswith("lm_head")
        for parameter in module.parameters(recurse=False)
    }
    return [p for p in model.parameters() if p.ndim == 2 and p.requires_grad and id(p) not in ends]
