"""Where keys and values lie: a strip holds those of one sequence, tails those of the rows being decoded."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one layer keeps of a token."""

    heads: int
    key: int
    value: int


@dataclass(frozen=True, slots=True)
class Layout:
    """What a model keeps of a token, layer by layer; layers that share another's keys and values are not among them."""

    numbers: tuple[int, ...]
    """The layers' numbers in the model."""
    layers: tuple[LayerShape, ...]
    dtype: torch.dtype
    device: torch.device

    @property
    def token_bytes(self) -> int:
        """Of one token in all layers."""
        return sum(layer.heads * (layer.key + layer.value) for layer in self.layers) * self.dtype.itemsize

    def empty(self, rows: int, length: int) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values by layer, [rows, heads, length, width] of zeros."""

        def zeros(heads: int, width: int) -> Tensor:
            return torch.zeros(rows, heads, length, width, dtype=self.dtype, device=self.device)

        return [zeros(s.heads, s.key) for s in self.layers], [zeros(s.heads, s.value) for s in self.layers]


class Strip:
    """Keys and values of one sequence, [1, heads, length, width] by layer; written from its beginning to its end."""

    __slots__ = ("keys", "length", "values")

    def __init__(self, keys: list[Tensor], values: list[Tensor]) -> None:
        self.keys = keys
        self.values = values
        self.length = keys[0].shape[2]

    @classmethod
    @torch.inference_mode()
    def empty(cls, layout: Layout, length: int) -> "Strip":
        """Room for a sequence."""
        return cls(*layout.empty(1, length))

    def cut(self, length: int) -> "Strip":
        """Its first tokens, where they lie."""
        return Strip([kv[:, :, :length] for kv in self.keys], [kv[:, :, :length] for kv in self.values])

    @torch.inference_mode()
    def copied(self, length: int) -> "Strip":
        """A copy of its first tokens."""
        return Strip([kv[:, :, :length].clone() for kv in self.keys], [kv[:, :, :length].clone() for kv in self.values])

    @torch.inference_mode()
    def copy(self, other: "Strip", length: int) -> None:
        """Begin with the first tokens of another."""
        for mine, theirs in zip(self.keys + self.values, other.keys + other.values, strict=True):
            mine[:, :, :length] = theirs[:, :, :length]


class Tails:
    """Keys and values of rows that grow, [rows, heads, width, D] by layer.

    A row's tokens lie from column 0 on. What lies beyond a row's length is finite and never read.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.rows = 0
        self.width = 0
        self.keys, self.values = layout.empty(0, 0)  # of no element: replaced by the first ``resize``

    @property
    def tokens(self) -> int:
        """That there is memory for."""
        return self.rows * self.width

    @torch.inference_mode()
    def resize(self, rows: int, width: int, lengths: Sequence[int]) -> None:
        """Make room for ``rows`` of ``width`` tokens; the first rows keep their first ``lengths`` tokens."""
        if (rows, width) == (self.rows, self.width):
            return
        kept, longest = len(lengths), max(lengths, default=0)
        keys, values = self._layout.empty(rows, width)
        if kept and longest:
            for new, old in zip(keys + values, self.keys + self.values, strict=True):
                new[:kept, :, :longest] = old[:kept, :, :longest]
        self.keys, self.values = keys, values
        self.rows, self.width = rows, width

    @torch.inference_mode()
    def put(self, row: int, strip: Strip, length: int) -> None:
        """Begin a row with the first tokens of a strip."""
        for tails, kept in zip(self.keys + self.values, strip.keys + strip.values, strict=True):
            tails[row, :, :length] = kept[0, :, :length]

    @torch.inference_mode()
    def take(self, row: int, length: int) -> Strip:
        """A copy of a row's tokens."""
        keys = [keys[row : row + 1, :, :length].clone() for keys in self.keys]
        return Strip(keys, [values[row : row + 1, :, :length].clone() for values in self.values])

    @torch.inference_mode()
    def move(self, source: int, target: int, length: int) -> None:
        """Let one row take another's place."""
        for tails in self.keys + self.values:
            tails[target, :, :length] = tails[source, :, :length]

    @torch.inference_mode()
    def wipe(self, row: int) -> None:
        """Forget a row whose numbers may not be finite."""
        for tails in self.keys + self.values:
            tails[row].zero_()
