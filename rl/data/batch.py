"""From examples to tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rl.data.examples import Example, Row


@dataclass(frozen=True, slots=True)
class Piece:
    """N candidates of similar length, read in one forward pass."""

    ids: Tensor
    """[N, L] prompt and response, padded at the right."""
    attention: Tensor
    """[N, L] 1 where a token is."""
    position: Tensor
    """[N, T] index in ``ids`` of the token before each response token: where its logits stand."""
    target: Tensor
    """[N, T] the response tokens."""
    place: Tensor
    """[N, 2] the task and the candidate that each row is."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The candidates of B tasks, at most K each, of at most T response tokens."""

    pieces: tuple[Piece, ...]
    mask: Tensor
    """[B, K, T] True where a response token is the policy's own."""
    rewards: Tensor
    """[B, K] NaN where a task has fewer candidates."""
    called: Tensor
    """[B, K] True where the candidate set out to call a tool."""
    tokens: int
    """Tokens that are no padding."""
    padded_length: int
    """Tokens of the longest candidate, prompt included."""


def collate(examples: Sequence[Example], pad_id: int, *, piece_rows: int = 16) -> Batch:
    """Lay out the candidates of some tasks, similar lengths together.

    Args:
        examples: B tasks; none makes a batch without pieces, for a rank that has no share of a step.
        pad_id: token that fills rows.
        piece_rows: candidates of one forward pass, about.
    """
    rows = [(task, place, example, row) for task, example in enumerate(examples) for place, row in _places(example)]
    rows.sort(key=lambda item: len(item[2].prompt) + len(item[3].ids))
    count = max(1, round(len(rows) / piece_rows)) if rows else 0
    cuts = [round(index * len(rows) / max(1, count)) for index in range(count + 1)]
    pieces = tuple(_piece(rows[start:end], pad_id) for start, end in zip(cuts, cuts[1:], strict=False))
    shape = (len(examples), max((len(example.rows) for example in examples), default=1))
    mask = torch.zeros(*shape, max((len(row.ids) for _, _, _, row in rows), default=1), dtype=torch.bool)
    rewards = torch.full(shape, float("nan"))
    called = torch.zeros(shape, dtype=torch.bool)
    for task, place, _, row in rows:
        mask[task, place, : len(row.ids)] = torch.tensor(row.mask)
        rewards[task, place] = row.reward
        called[task, place] = row.called
    lengths = [len(example.prompt) + len(row.ids) for _, _, example, row in rows]
    return Batch(pieces, mask, rewards, called, sum(lengths), max(lengths, default=1))


def _places(example: Example) -> Sequence[tuple[int, Row]]:
    return list(enumerate(example.rows))


def _piece(rows: Sequence[tuple[int, int, Example, Row]], pad_id: int) -> Piece:
    length = max(len(example.prompt) + len(row.ids) for _, _, example, row in rows)
    width = max(len(row.ids) for _, _, _, row in rows)
    ids = torch.full((len(rows), length), pad_id)
    attention = torch.zeros(len(rows), length, dtype=torch.long)
    position = torch.zeros(len(rows), width, dtype=torch.long)
    target = torch.zeros(len(rows), width, dtype=torch.long)
    for index, (_, _, example, row) in enumerate(rows):
        start, size = len(example.prompt), len(row.ids)
        ids[index, : start + size] = torch.tensor(example.prompt + row.ids)
        attention[index, : start + size] = 1
        position[index, :size] = torch.arange(start - 1, start + size - 1)
        target[index, :size] = torch.tensor(row.ids)
    places = torch.tensor([(task, place) for task, place, _, _ in rows])
    return Piece(ids, attention, position, target, places)
