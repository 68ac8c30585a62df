"""How likely a model finds candidates: packed where it can read that, in passes, within a bound on memory."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils.import_utils import is_torch_flex_attn_available

from executors.errors import ConfigError
from rl.data.batch import Batch, Piece, collate
from rl.data.examples import Example, Row
from rl.data.packing import Layout
from rl.learner.blocks import MASKED, Blocks
from rl.learner.footprint import Packing

_MEMORY = 2 * 2**30
"""Bytes that activations may take on a CPU."""
_PART = 2**22
"""Logits that are summed at once."""
_FOREIGN = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""What a model raises that cannot read packed rows."""

log = logging.getLogger(__name__)


class Scorer:
    """Scores candidates with one model."""

    def __init__(
        self, model: PreTrainedModel, pad_id: int, *, packing: Packing = "auto", max_tokens: int | None = None
    ) -> None:
        """
        Args:
            model: any causal language model.
            pad_id: token that fills rows.
            packing: ``packed`` lets candidates stand behind one prompt, ``padded`` gives each its own; ``auto`` packs
                where the model is found to read packed rows as it reads others.
            max_tokens: positions whose activations are kept at once; candidates that are longer are left out. By
                default what a share of the memory holds, and no candidate is left out.
        """
        self.model = model
        self.reads: Any = model
        """What is called to read: the model, or what stands around it where ranks share it."""
        self.precision: torch.dtype | None = None
        """What products of a ``Reading`` are computed in; by default that of the weights."""
        self.pad_id = pad_id
        self.packing: Packing = packing
        self.max_tokens = max_tokens

    @cached_property
    def layout(self) -> Layout:
        """How candidates are laid out for this model; found out at the first use.

        Raises:
            ConfigError: the model cannot read packed rows, and was told to.
        """
        padded = Layout(pass_tokens=self._pass_tokens)
        if self.packing == "padded":
            return padded
        own = self.model.config._attn_implementation or "eager"
        reason = ""
        for attention in self._attentions(own):
            if attention != self.model.config._attn_implementation:
                self.model.set_attn_implementation(attention)
            wide = self._pass_tokens if attention == "flex_attention" else 0  # it leaves out what nobody sees
            layout = replace(padded, packed=True, row_tokens=wide)
            reason = self._obstacle(layout)
            if not reason:
                return layout
        if own != self.model.config._attn_implementation:
            self.model.set_attn_implementation(own)
        name = type(self.model).__name__
        if self.packing == "packed":
            raise ConfigError(f"learner.packing: {name} cannot read packed rows: {reason}; take auto or padded")
        log.warning("%s cannot read packed rows, so every candidate gets its own prompt: %s", name, reason)
        return padded

    @cached_property
    def budget(self) -> int:
        """Positions whose activations are kept at once."""
        return self.max_tokens or max(1, _memory(self.model) // _position_bytes(self.model))

    def lay_out(self, examples: Sequence[Example], *, observations: bool = False) -> Batch:
        """The candidates of some tasks in passes, each within the budget.

        Args:
            examples: the tasks.
            observations: whether the tokens of observations are to be scored too.
        """
        bound = self.max_tokens or max(self.budget, *(_longest(example) for example in examples), 1)
        return collate(examples, self.pad_id, replace(self.layout, max_tokens=bound), observations=observations)

    def score(self, batch: Batch) -> Tensor:
        """[B, K, T] log-probability of each token that is to be scored; 0 elsewhere."""
        scores = torch.zeros(batch.mask.numel(), device=self.model.device)
        for piece in batch.pieces:
            scores = scores.index_put((piece.place.to(scores.device),), self.read(piece))
        return scores.view(batch.mask.shape)

    def read(self, piece: Piece) -> Tensor:
        """[M] log-probabilities of a piece's targets; the head is applied where they are predicted, nowhere else."""
        piece = piece.to(self.model.device)
        chosen: Any = _Chosen.apply(self._logits(piece).float(), piece.target)
        return chosen

    def _logits(self, piece: Piece) -> Tensor:
        """[M, V] by the model's own head, and by whatever it does to logits after that."""
        selected = False

        def select(module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            nonlocal selected
            selected = True
            return (inputs[0].flatten(0, 1)[piece.where][None], *inputs[1:])

        model: Any = self.model
        head = model.get_output_embeddings()
        hook = head.register_forward_pre_hook(select) if head is not None else None
        try:
            if piece.plain:  # no token sees what stands at its right, so padding needs no mask
                logits = self.reads(input_ids=piece.ids, use_cache=False).logits
            else:
                there = torch.ones_like(piece.ids)  # without it, positions would be read for where documents begin
                with Blocks(piece).attending():
                    logits = self.reads(
                        input_ids=piece.ids, attention_mask=there, position_ids=piece.position, use_cache=False
                    ).logits
        finally:
            if hook is not None:
                hook.remove()
        logits = logits.flatten(0, 1)
        return logits if selected else logits[piece.where]

    @property
    def _pass_tokens(self) -> int:
        """More at once is no quicker on a CPU."""
        return 1024 if self.model.device.type == "cpu" else self.budget

    def _attentions(self, own: str) -> list[str]:
        """The kinds of attention to try. On a GPU FlexAttention comes first, since it skips what nobody sees."""
        flex = self.model.device.type == "cuda" and is_torch_flex_attn_available()
        kinds = ["flex_attention"] * flex + [own if own in MASKED else "sdpa"]
        return list(dict.fromkeys(kinds))

    @torch.no_grad()
    def _obstacle(self, layout: Layout) -> str:
        """Why the model cannot read packed rows, or nothing: some candidates are read both ways and compared."""
        examples = _sample(self.model)
        training = self.model.training
        self.model.eval()
        try:
            padded = self.score(collate(examples, self.pad_id))
            batch = collate(examples, self.pad_id, replace(layout, row_tokens=10_000))
            packed = self.score(batch)
            mixed = self.score(replace(batch, pieces=tuple(replace(piece, plain=True) for piece in batch.pieces)))
        except _FOREIGN as error:
            told = (str(error).splitlines() or [""])[0]
            return f"{type(error).__name__}: {told[:200]}"
        finally:
            self.model.train(training)
        apart, matters = float((packed - padded).abs().max()), float((mixed - padded).abs().max())
        rounding = 4 * torch.finfo(self.model.dtype).eps * float(padded.abs().max())
        if apart <= rounding + 0.01 * matters:
            return ""
        return f"log-probabilities differ by {apart:.2g} from those of the same candidates in rows of their own"


class Reading:
    """The scores of a batch, and the way back from their gradient to that of the model.

    Activations are kept of as many pieces as the budget holds. The others are read without, and once more on the way
    back (gradient caching, Gao et al. 2021). So a step of any size takes bounded memory, and the gradient is exact for
    every objective, also where it compares candidates of different pieces.
    """

    def __init__(
        self,
        scorer: Scorer,
        batch: Batch,
        *,
        kept: int | None = None,
        back: Callable[[Tensor, Tensor], None] = Tensor.backward,
    ) -> None:
        """
        Args:
            scorer: of the model.
            batch: what is read.
            kept: pieces whose activations are kept, where other ranks keep as many; every piece is then gone through
                on the way back, since they wait for it. By default what the budget holds.
            back: adds to the model's gradient, given what was read and its gradient.
        """
        self._scorer = scorer
        self._device = scorer.model.device
        self._every = kept is not None
        self._back = back
        kept = within(batch.pieces, scorer.budget) if kept is None else kept
        self._again: list[tuple[Piece, tuple[Tensor, Tensor | None]]] = []
        scores = torch.zeros(batch.mask.numel(), device=self._device)
        for piece in batch.pieces[: len(batch.pieces) - kept]:
            self._again.append((piece, _random_state(self._device)))
            with torch.no_grad():
                scores[piece.place.to(self._device)] = self._read(piece)
        self._kept = [(piece, self._read(piece)) for piece in batch.pieces[len(batch.pieces) - kept :]]
        for piece, read in self._kept:
            scores[piece.place.to(self._device)] = read.detach()
        self.scores = scores.view(batch.mask.shape).requires_grad_()
        """[B, K, T] log-probability of each token that is to be scored; 0 elsewhere."""

    @property
    def again(self) -> int:
        """Positions that are read twice, at most."""
        return sum(piece.positions for piece, _ in self._again)

    def backward(self) -> None:
        """Add to the model's gradient, given that of the scores; a piece that it leaves alone is not read again."""
        if self.scores.grad is None and not self._every:
            return
        gradient = torch.zeros_like(self.scores) if self.scores.grad is None else self.scores.grad
        gradient = gradient.flatten()
        while self._kept:
            piece, read = self._kept.pop()
            if (part := gradient[piece.place.to(self._device)]).any() or self._every:
                self._back(read, part)
            del read
        for piece, state in self._again:
            if (part := gradient[piece.place.to(self._device)]).any() or self._every:
                with _replayed(state, self._device):
                    self._back(self._read(piece), part)

    def _read(self, piece: Piece) -> Tensor:
        with torch.autocast(self._device.type, self._scorer.precision, enabled=self._scorer.precision is not None):
            return self._scorer.read(piece)


class _Chosen(torch.autograd.Function):
    """Log-probabilities of chosen tokens; on the way back the table of logits becomes its own gradient.

    Where a vocabulary is large that table is most of what a step takes, and there is never a second one.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        """[M] from [M, V] and [M]."""
        parts = logits.split(max(1, _PART // logits.shape[-1]))
        totals = torch.cat([part.logsumexp(-1) for part in parts])
        ctx.save_for_backward(logits, target, totals)
        return logits.gather(-1, target[:, None]).squeeze(-1) - totals

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """[M, V] from [M]; once only, and not where a model needs its logits on the way back: torch sees to both."""
        logits, target, totals = ctx.saved_tensors
        gradient = gradients[0][:, None]
        shares = logits.sub_(totals[:, None]).exp_()
        return shares.mul_(-gradient).scatter_add_(-1, target[:, None], gradient), None


def within(pieces: Sequence[Piece], budget: int) -> int:
    """How many of the last pieces a budget holds; one in any case."""
    kept = positions = 0
    for piece in reversed(pieces):
        positions += piece.positions
        if kept and positions > budget:
            break
        kept += 1
    return kept


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """What dropout will draw from."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


@contextmanager
def _replayed(state: tuple[Tensor, Tensor | None], device: torch.device) -> Iterator[None]:
    """Draw once more what was drawn from a state on."""
    with torch.random.fork_rng(devices=[] if state[1] is None else [device]):
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state(state[1], device)
        yield


def _longest(example: Example) -> int:
    return len(example.prompt) + max((len(row.ids) for row in example.rows), default=0)


def _sample(model: PreTrainedModel) -> list[Example]:
    """Two groups to try a model with, their prompts longer than its window where that is not wide."""
    config: Any = model.config.get_text_config()
    windows = (getattr(config, name, None) or 0 for name in ("sliding_window", "attention_chunk_size"))
    table = getattr(config, "max_position_embeddings", None) or 1 << 20
    length = max(2, min(12 + max(window for window in windows if window <= 256), table - 8))
    embedding: Any = model.get_input_embeddings()
    vocabulary = getattr(config, "vocab_size", 0) or embedding.weight.shape[0]  # of which a rank may have no share

    def words(first: int, count: int) -> tuple[int, ...]:
        return tuple((first + 7 * number) % vocabulary for number in range(count))

    def row(first: int, count: int) -> Row:
        return Row(words(first, count), (True,) * count, 0.0, False)

    first = Example("first", words(3, length), (row(5, 4), row(6, 1), row(9, 7)))
    return [first, Example("second", words(4, length - 1), (row(8, 3), row(2, 5)))]


def _memory(model: PreTrainedModel) -> int:
    """Bytes that activations may take: of a GPU half of what weights, gradients and AdamW's moments leave."""
    if model.device.type != "cuda":
        return _MEMORY
    held = sum(parameter.numel() * (parameter.element_size() + 12) for parameter in model.parameters())
    return max(_MEMORY, (torch.cuda.get_device_properties(model.device).total_memory - held) // 2)


def _position_bytes(model: PreTrainedModel) -> int:
    """Bytes that a position's activations take, about: 16 vectors and 4 inner ones a layer, and its logits."""
    config: Any = model.config.get_text_config()
    width = getattr(config, "hidden_size", 1024)
    inner = getattr(config, "intermediate_size", None) or 4 * width
    layers = getattr(config, "num_hidden_layers", 12)
    vocabulary = getattr(config, "vocab_size", 0)
    return model.dtype.itemsize * layers * (16 * width + 4 * inner) + 8 * vocabulary
