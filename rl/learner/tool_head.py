"""Learning a tool head exactly and cheaply: the frozen model reads every text once, then it is softmax regression.

Words enter the loss only by the logarithm of their sum, which no tool's row changes. So of every place are kept the
hidden state, that logarithm and the gold logit, and an epoch costs a product with K rows instead of a pass.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from executors.errors import DataError
from rl.data.spans import MASKED, Targets
from rl.learner.head_fit import HeadFit
from rl.models.tool_head import ToolHead, hidden_and_logits


@dataclass(frozen=True, slots=True)
class Places:
    """What learning the rows needs of every place where something is predicted."""

    hidden: Tensor
    """[N, d]"""
    log_sum: Tensor
    """[N] the logarithm of the sum over words, ``logsumexp`` of their logits."""
    gold: Tensor
    """[N] the logit of the word that comes; 0 where a tool does."""
    best: Tensor
    """[N] the highest logit of a word."""
    tool: Tensor
    """[N] the number of the tool that is called; -1 where a word comes."""
    text: Tensor
    """[N] which text a place belongs to."""

    def __len__(self) -> int:
        return len(self.tool)

    def only(self, kept: Tensor) -> "Places":
        """Some of the places, by index or by mask."""
        return Places(*(getattr(self, name)[kept] for name in self.__slots__))

    def of_tools(self) -> "Places":
        """Those where a tool is called."""
        return self.only(self.tool >= 0)

    def shards(self, count: int) -> list["Places"]:
        """The same places in so many parts, texts kept whole; their losses and gradients add up."""
        return [self.only(self.text % count == part) for part in range(count)]


@torch.no_grad()
def read_places(model: PreTrainedModel, texts: Sequence[Targets], *, batch_size: int = 16, vocabulary: int) -> Places:
    """Let a frozen model read texts once.

    Args:
        model: it stays as it is.
        texts: see ``Targets``; masked places are left out.
        batch_size: texts of one pass.
        vocabulary: the label of the first tool.

    Raises:
        DataError: a text is longer than the model reads.
    """
    model.eval()
    parts: list[Places] = []
    limit = int(getattr(model.config, "max_position_embeddings", 1 << 30))
    for start in range(0, len(texts), batch_size):
        batch = texts[start : start + batch_size]
        longest = max(len(text.labels) for text in batch)
        if longest > limit:
            raise DataError(f"a text has {longest} tokens and the model reads {limit}; leave it out, or cut it")
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        labels = torch.full((len(batch), longest), MASKED)
        seen = torch.zeros(len(batch), longest, dtype=torch.long)
        for row, text in enumerate(batch):
            count = len(text.labels)
            ids[row, :count] = torch.tensor(text.ids[:count])
            labels[row, :count] = torch.tensor(text.labels)
            seen[row, :count] = 1
        hidden, logits = hidden_and_logits(model, ids.to(model.device), seen.to(model.device))
        which = torch.arange(start, start + len(batch))[:, None].expand_as(labels)
        counted = labels != MASKED
        parts.append(_places(hidden[counted], logits[counted], labels[counted], which[counted], vocabulary))
    return Places(*(torch.cat([getattr(part, name) for part in parts]) for name in Places.__slots__))


def _places(hidden: Tensor, logits: Tensor, labels: Tensor, text: Tensor, vocabulary: int) -> Places:
    logits = logits.float()
    tool = torch.where(labels >= vocabulary, labels - vocabulary, -1)
    word = torch.where(labels >= vocabulary, 0, labels)
    gold = logits.gather(-1, word[:, None].to(logits.device)).squeeze(-1).cpu()
    return Places(
        hidden.float().cpu(),
        logits.logsumexp(-1).cpu(),
        torch.where(tool >= 0, 0.0, gold),
        logits.amax(-1).cpu(),
        tool,
        text.clone(),
    )


def losses(weight: Tensor, places: Places) -> Tensor:
    """[N] The terms that ``joint_loss`` is the mean of, without the model.

    Args:
        weight: [K, d].
        places: what the frozen model gave.
    """
    tools = places.hidden @ weight.T
    total = torch.logaddexp(places.log_sum, tools.logsumexp(-1))
    called = tools.gather(-1, places.tool.clamp(min=0)[:, None]).squeeze(-1)
    return total - torch.where(places.tool >= 0, called, places.gold)


def gradient(weight: Tensor, places: Places, counts: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The sum of the losses and its gradient: what each tool got minus what it was due, times the state.

    Args:
        weight: [K, d].
        places: what the frozen model gave.
        counts: [N] how much each place counts; 1 by default.

    Returns:
        [] and [K, d].
    """
    tools = places.hidden @ weight.T
    total = torch.logaddexp(places.log_sum, tools.logsumexp(-1))
    called = torch.nonzero(places.tool >= 0).squeeze(-1)
    due = places.tool[called]
    terms = total - places.gold
    terms[called] -= tools[called, due]
    over = (tools - total[:, None]).exp_()
    over[called, due] -= 1
    if counts is not None:
        terms, over = terms * counts, over * counts[:, None]
    return terms.sum(), over.T @ places.hidden


@dataclass(frozen=True, slots=True)
class Shard:
    """One part of the places, wherever it is kept. A plain class: what runs it in other processes is elsewhere."""

    places: Places

    def gradient(self, weight: np.ndarray, texts: Sequence[int] | None = None) -> tuple[float, np.ndarray, int]:
        """The loss summed over the part, its gradient, and the number of places.

        Args:
            weight: [K, d] the rows.
            texts: those of a step; all by default.
        """
        own = self.places
        if texts is not None:
            own = own.only(torch.isin(own.text, torch.tensor(list(texts), dtype=own.text.dtype)))
        loss, change = gradient(torch.from_numpy(np.array(weight)), own)
        return float(loss), change.numpy(), len(own)


Part = tuple[float, np.ndarray, int]
"""What a shard says of its places, see ``Shard.gradient``."""


def combined(parts: Iterable[Part]) -> tuple[float, np.ndarray]:
    """The mean loss and its gradient over all parts, see ``Shard.gradient``."""
    losses, gradients, counts = zip(*parts, strict=True)
    return sum(losses) / sum(counts), np.sum(gradients, axis=0) / sum(counts)


@dataclass(frozen=True, slots=True)
class Epoch:
    """What an epoch came to."""

    loss: float
    """Mean over its places, as the rows were at each step."""
    cpu_seconds: float


def fit_head(
    head: ToolHead, places: Places, config: HeadFit, *, weights: Tensor | None = None
) -> tuple[ToolHead, list[Epoch]]:
    """Learn the rows of a head by Adam.

    Args:
        head: where the rows begin; it stays as it is.
        places: of the training texts.
        config: how.
        weights: [N] how much each place counts; 1 by default. One below 0 makes what came there less likely.

    Returns:
        The learned head, and what each epoch came to.

    Raises:
        DataError: there is nothing to learn from.
    """
    if config.only_tools:
        weights = None if weights is None else weights[places.tool >= 0]
        places = places.of_tools()
    if not len(places):
        raise DataError("there are no places to learn tools from; the texts have no marked results")

    def step(rows: Tensor, batch: Tensor) -> tuple[float, Tensor]:
        loss, change = gradient(rows, places.only(batch), None if weights is None else weights[batch])
        return float(loss), change / len(batch)

    return _fitted(head, places, config, step)


def fit_shared(
    head: ToolHead, places: Places, config: HeadFit, ask: Callable[[np.ndarray, Sequence[int]], Iterable[Part]]
) -> tuple[ToolHead, list[Epoch]]:
    """The same where the places are kept in parts: every step adds up what each part says of it.

    Args:
        head: where the rows begin; it stays as it is.
        places: of the training texts, to know them by; as they were parted.
        config: how.
        ask: what every part says of the rows [K, d] and the texts of a step.

    Raises:
        DataError: there is nothing to learn from.
    """
    if not len(places):
        raise DataError("there are no places to learn tools from; the texts have no marked results")

    def step(rows: Tensor, batch: Tensor) -> tuple[float, Tensor]:
        loss, change = combined(ask(rows.numpy(), places.text[batch].unique().tolist()))
        return loss * len(batch), torch.from_numpy(change)

    return _fitted(head, places, config, step)


def _fitted(
    head: ToolHead, places: Places, config: HeadFit, step: Callable[[Tensor, Tensor], tuple[float, Tensor]]
) -> tuple[ToolHead, list[Epoch]]:
    """The head after all epochs; a step gives a batch's summed loss, and the gradient of its mean."""
    rows = head.weight.clone()
    adam = _Adam(rows, config.lr)
    epochs = []
    for epoch in range(config.epochs):
        began, total = time.process_time(), 0.0
        for batch in _batches(places.text, config.batch_size, config.seed * 1000 + epoch):
            loss, change = step(rows, batch)
            adam.step(change)
            total += loss
        if not math.isfinite(total):
            raise DataError(f"the loss of epoch {epoch} is {total}; lower lr, which is {config.lr}")
        epochs.append(Epoch(total / len(places), time.process_time() - began))
    return replace(head, weight=rows), epochs


class _Adam:
    """Adam on one matrix, as torch has it (betas .9 and .999), without its cost for each of many small steps."""

    def __init__(self, rows: Tensor, lr: float) -> None:
        self.rows, self.lr, self.steps = rows, lr, 0
        self.mean, self.square = torch.zeros_like(rows), torch.zeros_like(rows)

    def step(self, change: Tensor) -> None:
        self.steps += 1
        self.mean.mul_(0.9).add_(change, alpha=0.1)
        self.square.mul_(0.999).addcmul_(change, change, value=0.001)
        scale = math.sqrt(1 - 0.999**self.steps)
        root = self.square.sqrt().div_(scale).add_(1e-8)
        self.rows.addcdiv_(self.mean, root, value=-self.lr / (1 - 0.9**self.steps))


def _batches(text: Tensor, size: int, seed: int) -> Iterator[Tensor]:
    """The places of so many texts at a time, in an order that the seed says."""
    order = torch.argsort(text, stable=True)
    _, counts = torch.unique_consecutive(text[order], return_counts=True)
    ends = counts.cumsum(0)
    ranges: list[Any] = [order[end - count : end] for end, count in zip(ends.tolist(), counts.tolist(), strict=True)]
    shuffled = torch.randperm(len(ranges), generator=torch.Generator().manual_seed(seed)).tolist()
    for start in range(0, len(ranges), size):
        yield torch.cat([ranges[index] for index in shuffled[start : start + size]])


@dataclass(frozen=True, slots=True)
class Hits:
    """How often a tool is called rightly, wrongly, and not where it should be."""

    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        """Of its calls, those that are right; NaN without calls."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else math.nan

    @property
    def recall(self) -> float:
        """Of the places where it should be called, those where it is; NaN without such places."""
        return self.right / (self.right + self.missed) if self.right + self.missed else math.nan

    @property
    def f1(self) -> float:
        """Both in one figure; NaN where the tool neither is nor should be called."""
        found = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / found if found else math.nan


@torch.no_grad()
def predicted(head: ToolHead, places: Places, bias: float = 0.0) -> Tensor:
    """[N] the tool that is likelier than every word and every other tool; -1 where a word is the likeliest."""
    logits = places.hidden @ head.weight.T + bias
    value, number = logits.max(-1)
    return torch.where(value > places.best, number, -1)


def hits(head: ToolHead, places: Places, bias: float = 0.0) -> dict[str, Hits]:
    """Each tool's hits, and under ``all`` those of all together (micro).

    Args:
        head: the tools.
        places: of held-out texts.
        bias: added to every tool's logit.
    """
    said = predicted(head, places, bias)
    found = {}
    for name, number in head.numbers.items():
        called, due = said == number, places.tool == number
        found[name] = Hits(int((called & due).sum()), int((called & ~due).sum()), int((~called & due).sum()))
    sums = [sum(getattr(one, part) for one in found.values()) for part in ("right", "wrong", "missed")]
    return {**found, "all": Hits(*sums)}
