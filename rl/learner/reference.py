"""The weights that a stage began with, kept to compare the policy with."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from executors.errors import DataError


class Reference:
    """A copy of those weights of a model that are trained; of a model with adapters, the adapters alone."""

    def __init__(self, model: nn.Module) -> None:
        """
        Args:
            model: the policy, whose weights are kept as they are now.
        """
        self._model = model
        self._kept: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.requires_grad
        }

    def restore(self, weights: Mapping[str, Tensor] | None) -> None:
        """Take what ``state`` gave of the same model.

        Raises:
            DataError: there is nothing, or it is of other weights.
        """
        if weights is None:
            raise DataError(
                "the checkpoint was saved without the weights that its stage began with, and the objective compares "
                "with them; continue with the objective that it was saved with"
            )
        here, there = ({name: tuple(t.shape) for name, t in kept.items()} for kept in (self._kept, weights))
        if here != there:
            odd = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
            raise DataError(
                f"the reference in the checkpoint does not fit this model: {odd[0]} has shape "
                f"{there.get(odd[0], 'none')}, and {here.get(odd[0], 'none')} is wanted; it is of another model, or of "
                "one whose trained parameters are others (see model.adapter)"
            )
        for name, kept in self._kept.items():
            kept.copy_(weights[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model be the reference for a while, without gradients and without dropout.

        What is computed before and needs a gradient keeps the weights that it was computed with, as long as its
        gradient is taken afterwards and not within.
        """
        training = self._model.training
        self._swap()
        self._model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self._swap()
            self._model.train(training)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return dict(self._kept)

    def _swap(self) -> None:
        parameters = dict(self._model.named_parameters())
        for name, kept in self._kept.items():
            self._kept[name], parameters[name].data = parameters[name].data, kept
