"""From examples to tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from rl.data.examples import Example
from rl.data.packing import Document, Layout, Pass, documents, fitting, passes
from rl.losses.candidates import Candidates

PADDED = Layout()
"""Every candidate in a row of its own: what any model can read."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Candidates that are read in one forward pass: R rows of L positions."""

    ids: Tensor
    """[R, L] tokens, padded at the right."""
    position: Tensor
    """[R, L] where each token stands in its own candidate, prompt included; 0 where there is none."""
    document: Tensor
    """[R, L] to which document of its row a token belongs, from 0; -1 where there is none."""
    candidate: Tensor
    """[R, L] to which candidate of its document a token belongs, from 1; 0 for the prompt, which all of them see."""
    where: Tensor
    """[M] the token before each token that is scored, counted through the rows: where its logits stand."""
    target: Tensor
    """[M] the tokens that are scored: the policy's own, and those of observations where they were asked for."""
    place: Tensor
    """[M] where they stand in a batch's ``mask``, counted through it."""
    plain: bool
    """Whether every row holds a single candidate, so that a model's usual attention is all that is needed."""

    @property
    def positions(self) -> int:
        """That are read, padding included."""
        return self.ids.numel()

    def to(self, device: torch.device) -> "Piece":
        """The same on another device."""
        return Piece(*(getattr(self, field.name).to(device) for field in fields(self)[:-1]), plain=self.plain)


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
    behaviour: Tensor
    """[B, K, T] log-probability of each own token under the weights that wrote it; NaN where that is not known."""
    copies: Tensor
    """[B, K] how many equal candidates were merged into it."""
    own: Tensor
    """[B, K] True where the policy that is trained wrote it, unforced."""
    version: Tensor
    """[B, K] of the weights of that policy that wrote it; NaN where somebody else did."""
    observed: Tensor | None
    """[B, K, T] True where a token is an observation's; None where those were not asked for, and are not scored."""
    tokens: int
    """That are read, padding left out; a prompt counts once for all candidates behind it."""
    padded_length: int
    """Tokens of the longest candidate, prompt included."""
    documents: int
    """Times that a prompt is read."""
    left_out: int
    """Candidates that are over the budget, or that have no token of their own."""

    @property
    def count(self) -> int:
        """Candidates that there are."""
        return int((~self.rewards.isnan()).sum())

    @property
    def positions(self) -> int:
        """That are read, padding included."""
        return sum(piece.positions for piece in self.pieces)

    def candidates(
        self, logprobs: Tensor, *, reference: Tensor | None = None, version: int | None = None
    ) -> Candidates:
        """What objectives read, on the device of the log-probabilities.

        Args:
            logprobs: [B, K, T] of the tokens under the policy.
            reference: the same under the weights that the stage began with, where an objective asks for them.
            version: of the policy as it is, to say how far behind it its candidates are; None where nobody counts.
        """
        device = logprobs.device
        behind = None if version is None else (version - self.version).nan_to_num(nan=0.0).clamp(min=0).to(device)
        return Candidates(
            logprobs,
            self.mask.to(device),
            self.rewards.to(device),
            self.called.to(device),
            behaviour=self.behaviour.to(device),
            observed=None if self.observed is None else self.observed.to(device),
            copies=self.copies.to(device),
            own=self.own.to(device),
            reference=reference,
            staleness=behind,
        )


def collate(examples: Sequence[Example], pad_id: int, layout: Layout = PADDED, *, observations: bool = False) -> Batch:
    """Lay out the candidates of some tasks.

    Args:
        examples: the tasks, of which those without a candidate that fits are left out; none makes a batch without
            pieces, for a rank that has no share of a step.
        pad_id: token that fills rows; nothing depends on it.
        layout: who stands where.
        observations: whether the tokens of observations are to be scored too.

    Raises:
        DataError: a prompt has no token.
    """
    kept, left_out = fitting(examples, layout.max_tokens)
    longest = max((len(row.ids) for example in kept for row in example.rows), default=1)
    shape = (len(kept), max((len(example.rows) for example in kept), default=1), longest)
    mask = np.zeros(shape, dtype=bool)
    rewards = np.full(shape[:2], np.nan, dtype=np.float32)
    called = np.zeros(shape[:2], dtype=bool)
    behaviour = np.full(shape, np.nan, dtype=np.float32)
    copies = np.zeros(shape[:2], dtype=np.int64)
    own = np.zeros(shape[:2], dtype=bool)
    version = np.full(shape[:2], np.nan, dtype=np.float32)
    observed = np.zeros(shape, dtype=bool)
    for task, example in enumerate(kept):
        for place, row in enumerate(example.rows):
            mask[task, place, : len(row.ids)] = row.mask
            rewards[task, place] = row.reward
            called[task, place] = row.called
            copies[task, place] = max(1, len(row.sources))
            own[task, place] = row.own
            version[task, place] = np.nan if row.version is None else row.version
            observed[task, place, : len(row.ids)] = np.logical_not(row.mask)
            if row.behaviour:
                behaviour[task, place, mask[task, place]] = row.behaviour
    made = documents(kept, layout)
    return Batch(
        pieces=tuple(_piece(block, pad_id, shape, observations) for block in passes(made, layout)),
        mask=torch.from_numpy(mask),
        rewards=torch.from_numpy(rewards),
        called=torch.from_numpy(called),
        behaviour=torch.from_numpy(behaviour),
        copies=torch.from_numpy(copies),
        own=torch.from_numpy(own),
        version=torch.from_numpy(version),
        observed=torch.from_numpy(observed) if observations else None,
        tokens=sum(document.size for document in made),
        padded_length=max((len(e.prompt) + len(row.ids) for e in kept for row in e.rows), default=1),
        documents=len(made),
        left_out=left_out,
    )


def _piece(block: Pass, pad_id: int, shape: tuple[int, int, int], observations: bool) -> Piece:
    size = (len(block.rows), block.width)
    ids = np.full(size, pad_id, dtype=np.int64)
    position = np.zeros(size, dtype=np.int64)
    document = np.full(size, -1, dtype=np.int64)
    candidate = np.zeros(size, dtype=np.int64)
    read_out: list[tuple[np.ndarray, ...]] = []
    for line, row in enumerate(block.rows):
        start = 0
        for number, item in enumerate(row):
            here = slice(start, start + item.size)
            document[line, here] = number
            ids[line, here], position[line, here], candidate[line, here] = _tokens(item)
            read_out += _read_out(item, line * block.width + start, shape, observations)
            start += item.size
    where, target, place = (torch.from_numpy(np.concatenate(part)) for part in zip(*read_out, strict=True))
    plain = all(len(row) == 1 and len(row[0].rows) == 1 for row in block.rows)
    tables = (torch.from_numpy(table) for table in (ids, position, document, candidate))
    return Piece(*tables, where=where, target=target, place=place, plain=plain)


def _tokens(item: Document) -> tuple[np.ndarray, ...]:
    """[size] each: a document's tokens, where each stands in its candidate, and to which candidate it belongs."""
    start, sizes = len(item.prompt), [len(row.ids) for _, row in item.rows]
    ids = np.concatenate([item.prompt, *(row.ids for _, row in item.rows)])
    position = np.concatenate([np.arange(start), *(np.arange(start, start + size) for size in sizes)])
    return ids, position, np.repeat(np.arange(len(sizes) + 1), [start, *sizes])


def _read_out(
    item: Document, first: int, shape: tuple[int, int, int], observations: bool
) -> list[tuple[np.ndarray, ...]]:
    """By candidate, where its tokens' logits stand, the tokens, and their places in the batch's mask.

    Args:
        item: the document.
        first: index of its first token, counted through the rows.
        shape: of the mask.
        observations: whether tokens of observations are among them.
    """
    _, width, longest = shape
    parts: list[tuple[np.ndarray, ...]] = []
    begin = last_of_prompt = first + len(item.prompt) - 1
    for place, row in item.rows:
        scored = np.arange(len(row.ids)) if observations else np.flatnonzero(row.mask)
        where = np.where(scored == 0, last_of_prompt, begin + scored)
        parts.append((where, np.asarray(row.ids)[scored], (item.task * width + place) * longest + scored))
        begin += len(row.ids)
    return parts
