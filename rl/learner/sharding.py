"""How the ranks hold a model between them: each a copy of it, or each a share.

Whatever holds it, a step is that of one rank that reads everything: gradients are summed, not averaged, since every
term is already divided by what all ranks have read. And whatever holds it, a checkpoint is the same: whole weights and
a whole optimiser, from which any number of ranks goes on with any strategy.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from executors.errors import ConfigError
from rl.data.batch import Batch, Piece
from rl.learner import ranks
from rl.learner.footprint import Footprint
from rl.learner.optimiser import Optimiser, OptimiserConfig, Steps


class Sharding(Protocol):
    """A model as the ranks hold it. All ranks call each method together."""

    reads: Any
    """What is called to read: the model, or what stands around it."""
    lockstep: bool
    """Whether ranks wait for each other in every pass, so that all of them have to make as many."""
    gradient_scale: float
    """What gradients are multiplied by before they are collected, so that what comes of it is their sum."""

    def optimiser(self, config: OptimiserConfig) -> Steps:
        """What updates the model in a stage that begins.

        Raises:
            ConfigError: these shares cannot be updated in that way.
        """
        ...

    def backward(self, read: Tensor, gradient: Tensor) -> None:
        """Add to the model's gradient, given that of what a pass has read."""
        ...

    def collect(self) -> None:
        """Sum the ranks' gradients, where that is not done on the way back."""
        ...

    def whole(self, names: set[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """Parameters and the buffers that are saved, by name, whole; of all names, or of some."""
        ...


class Replicated:
    """Every rank has the whole model and takes the same steps; see ``Sharding``."""

    lockstep = False
    gradient_scale = 1.0

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self.reads: Any = model

    def optimiser(self, config: OptimiserConfig) -> Steps:
        """See ``Sharding``."""
        return Optimiser(self._model, config)

    def backward(self, read: Tensor, gradient: Tensor) -> None:
        """See ``Sharding``."""
        read.backward(gradient)

    def collect(self) -> None:
        """Make every rank's gradient the sum over all ranks; zero for what none of them has used."""
        parameters = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if ranks.count() == 1:
            return
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        distributed.all_reduce(flat)
        offset = 0
        for grad in grads:
            grad.copy_(flat[offset : offset + grad.numel()].view_as(grad))
            offset += grad.numel()

    def whole(self, names: set[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """See ``Sharding``."""
        return kept(self._model, names)


class FullyShard:
    """Each rank has a share of every weight, and of its gradient and moments (torch's FSDP2); see ``Sharding``."""

    lockstep = True
    gradient_scale = 1.0

    def __init__(self, model: PreTrainedModel, *, gpu: bool = False) -> None:
        mesh = init_device_mesh("cuda" if gpu else "cpu", (ranks.count(),))
        layers = set(model._no_split_modules or ())
        for module in list(model.modules()):
            if type(module).__name__ in layers:
                fully_shard(module, mesh=mesh)
        fully_shard(model, mesh=mesh)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)  # gloo has no other
        require_sharded(model)
        self._model = model
        self.reads: Any = model

    def optimiser(self, config: OptimiserConfig) -> Steps:
        """See ``Sharding``."""
        require_adamw(config, "fsdp2")
        return Optimiser(self._model, config)

    def backward(self, read: Tensor, gradient: Tensor) -> None:
        """See ``Sharding``."""
        read.backward(gradient)

    def collect(self) -> None:
        """It was done on the way back."""

    def whole(self, names: set[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """See ``Sharding``."""
        for name, tensor in kept(self._model, names):
            yield name, tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard(model: PreTrainedModel, footprint: Footprint, *, gpu: bool = False) -> Sharding:
    """Let the ranks hold a model, loaded alike by all of them, in the way that a strategy says.

    Args:
        model: the same weights on every rank.
        footprint: how.
        gpu: whether each rank has a GPU.

    Raises:
        ConfigError: there are no ranks to share anything among.
    """
    if footprint.strategy == "ddp":
        whole: Any = model
        return Replicated(whole.cuda() if gpu else whole)
    if not (distributed.is_available() and distributed.is_initialized()):
        raise ConfigError(
            f"learner.strategy {footprint.strategy} shares a model out among the ranks of a process group, and there "
            "is none; use it under Ray Train or torchrun, or take ddp"
        )
    if footprint.strategy == "fsdp2":
        return FullyShard(model, gpu=gpu)
    from rl.learner.zero import Zero

    return Zero(model, 2 if footprint.strategy == "zero2" else 3, gpu=gpu, precision=footprint.dtype)


def require_adamw(config: OptimiserConfig, strategy: str) -> None:
    """See that an optimiser can work on shares of matrices.

    Raises:
        ConfigError: it cannot.
    """
    if config.kind != "adamw":
        raise ConfigError(
            f"optimiser.kind {config.kind} needs whole matrices, and learner.strategy {strategy} gives each rank a "
            "share of them; take optimiser.kind adamw, or learner.strategy ddp"
        )


def require_sharded(model: nn.Module) -> None:
    """See that every parameter of a model is shared out, and not quietly copied.

    Raises:
        RuntimeError: it is not.
    """
    if not isinstance(model, FSDPModule):
        raise RuntimeError(f"FSDP2 was asked for and the model is a {type(model).__name__}")
    if whole := [name for name, parameter in model.named_parameters() if not isinstance(parameter, DTensor)]:
        raise RuntimeError(f"FSDP2 was asked for and {whole[0]} is not shared out")


def kept(model: nn.Module, names: set[str] | None) -> Iterator[tuple[str, Tensor]]:
    """A model's parameters, tied ones once, and the buffers that are saved, by name; of all names, or of some."""
    saved = model.state_dict().keys()
    yield from ((name, p.detach()) for name, p in model.named_parameters() if names is None or name in names)
    yield from ((n, b) for n, b in model.named_buffers() if n in saved and (names is None or n in names))


def paced(batch: Batch, pad_id: int, device: torch.device) -> Batch:
    """A batch in as many pieces as that of the rank with the most: what is missing reads one token and asks nothing."""
    missing = ranks.most(len(batch.pieces), device) - len(batch.pieces)
    return replace(batch, pieces=(_nothing(pad_id),) * missing + batch.pieces)


def _nothing(pad_id: int) -> Piece:
    def filled(value: int) -> Tensor:
        return torch.full((1, 1), value, dtype=torch.int64)

    none = torch.zeros(0, dtype=torch.int64)
    return Piece(filled(pad_id), filled(0), filled(0), filled(0), where=none, target=none, place=none, plain=True)
