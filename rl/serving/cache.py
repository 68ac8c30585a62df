"""Keys and values of the rows that an engine decodes: rows join, grow, leave, and come back where they left."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

Parked: TypeAlias = list[tuple[Tensor, Tensor]]
"""One row's keys and values by layer, [H, n, D] each."""


@dataclass(slots=True)
class RowCache:
    """The rows being decoded, aligned at their right ends; columns that are no row's own are masked."""

    layers: list[tuple[Tensor, Tensor]]
    """By layer, keys and values [R, H, T, D]."""
    mask: Tensor
    """[R, T] 1 where a column belongs to the row."""

    @property
    def rows(self) -> int:
        return self.mask.shape[0]

    def lengths(self) -> Tensor:
        """[R] tokens that each row holds."""
        return self.mask.sum(-1)

    def select(self, rows: Sequence[int]) -> "RowCache":
        """Only the given rows, in the given order; leading columns that none of them uses are dropped."""
        index = torch.tensor(list(rows), dtype=torch.long, device=self.mask.device)
        mask = self.mask[index]
        used = mask.any(0).nonzero()
        start = int(used[0]) if len(used) else mask.shape[1]
        return RowCache([(k[index, :, start:], v[index, :, start:]) for k, v in self.layers], mask[:, start:])

    def joined(self, other: "RowCache") -> "RowCache":
        """These rows and the other's below them."""
        width = max(self.mask.shape[1], other.mask.shape[1])
        left, right = self._widened(width), other._widened(width)
        layers = [
            (torch.cat([k, other_k]), torch.cat([v, other_v]))
            for (k, v), (other_k, other_v) in zip(left.layers, right.layers, strict=True)
        ]
        return RowCache(layers, torch.cat([left.mask, right.mask]))

    def _widened(self, width: int) -> "RowCache":
        missing = width - self.mask.shape[1]
        if missing == 0:
            return self
        pad = torch.nn.functional.pad
        layers = [(pad(k, (0, 0, missing, 0)), pad(v, (0, 0, missing, 0))) for k, v in self.layers]
        return RowCache(layers, pad(self.mask, (missing, 0)))

    def parked(self, row: int) -> Parked:
        """A copy of one row's own keys and values."""
        own = self.mask[row].bool()
        return [(k[row, :, own], v[row, :, own]) for k, v in self.layers]


@torch.inference_mode()
def extend(
    model: PreTrainedModel, tokens: Sequence[Sequence[int]], past: Sequence[Parked | None]
) -> tuple[Tensor, RowCache]:
    """Read new tokens of several rows, each after its own past, in one forward pass.

    Args:
        model: a causal model.
        tokens: R rows of at least one token.
        past: R, what each row holds already; None for nothing.

    Returns:
        [R, V] the logits after each row's last token, and the rows' cache.
    """
    device = model.device
    old = [kept[0][0].shape[1] if kept else 0 for kept in past]
    width_old, width_new = max(old), max(map(len, tokens))
    ids = torch.zeros(len(tokens), width_new, dtype=torch.long)
    mask = torch.zeros(len(tokens), width_old + width_new, dtype=torch.long)
    for row, new in enumerate(tokens):
        ids[row, width_new - len(new) :] = torch.tensor(new)
        mask[row, width_old - old[row] : width_old] = 1
        mask[row, width_old + width_new - len(new) :] = 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, width_old:]
    cache = DynamicCache(_stack(past, old, width_old)) if width_old else DynamicCache()
    return _forward(model, ids.to(device), mask.to(device), positions.to(device), cache)


@torch.inference_mode()
def advance(model: PreTrainedModel, tokens: Tensor, cache: RowCache) -> tuple[Tensor, RowCache]:
    """Read one more token of every row.

    Args:
        tokens: [R] token ids.
        cache: the R rows.

    Returns:
        [R, V] the logits after it, and the grown cache.
    """
    positions = cache.lengths()[:, None]
    mask = torch.cat([cache.mask, torch.ones_like(cache.mask[:, :1])], dim=1)
    return _forward(model, tokens[:, None], mask, positions, DynamicCache(cache.layers))


def _forward(
    model: PreTrainedModel, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache
) -> tuple[Tensor, RowCache]:
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    layers: Any = cache.layers
    return output.logits[:, -1].float(), RowCache([(layer.keys, layer.values) for layer in layers], mask)


def _stack(past: Sequence[Parked | None], old: Sequence[int], width: int) -> list[tuple[Tensor, Tensor]]:
    """The parked rows as one batch by layer, [R, H, width, D], aligned at their right ends."""
    example = next(kept for kept in past if kept)
    layers = []
    for depth, (keys, values) in enumerate(example):
        k = keys.new_zeros(len(past), keys.shape[0], width, keys.shape[2])
        v = values.new_zeros(len(past), values.shape[0], width, values.shape[2])
        for row, kept in enumerate(past):
            if kept:
                k[row, :, width - old[row] :] = kept[depth][0]
                v[row, :, width - old[row] :] = kept[depth][1]
        layers.append((k, v))
    return layers
