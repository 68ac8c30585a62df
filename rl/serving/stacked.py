"""For models that do not take packed sequences: rows stacked in the model's own cache, aligned at their right ends.

So are read models with linear attention or state spaces, with compressed keys, with masks of their own making. Rows
still join and leave at any step, and sessions are kept between their turns; but rows are padded to the longest, and a
prompt is read once only for rows that come together.
"""

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import (
    DummyLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionLayer,
)

from rl.serving.memory import Memory, Parked
from rl.serving.rows import Row

_KNOWN = (DynamicLayer, LinearAttentionLayer, LinearAttentionAndFullAttentionLayer, DummyLayer)
_STATES = ("conv_states", "recurrent_states")


class Stack:
    """What a model keeps of several rows: by layer keys and values [R, H, T, D], or states [R, ...]."""

    __slots__ = ("layers", "mask")

    def __init__(self, layers: list[Any], mask: Tensor) -> None:
        """
        Args:
            layers: of transformers' caches.
            mask: [R, T] 1 where a column belongs to the row.
        """
        self.layers = layers
        self.mask = mask

    @property
    def length(self) -> int:
        """Tokens that there is memory for."""
        return self.mask.numel()

    def cut(self, length: int) -> "Stack | None":
        """One row's first tokens; None where a layer keeps a state, which says nothing of what came before."""
        if any(getattr(layer, name, None) for layer in self.layers for name in _STATES):
            return None
        mask = self.mask[:, :length]
        return Stack([_mapped(layer, lambda kv: kv[:, :, :length], None) for layer in self.layers], mask)

    def picked(self, rows: Sequence[int]) -> "Stack":
        """Some of the rows; leading columns that none of them uses are dropped."""
        index = torch.tensor(list(rows), device=self.mask.device)
        mask = self.mask[index]
        start = mask.shape[1] - int(mask.sum(-1).max())
        return Stack(
            [_mapped(layer, lambda kv: kv[index, :, start:], lambda s: s[index]) for layer in self.layers],
            mask[:, start:],
        )

    def joined(self, other: "Stack") -> "Stack":
        """These rows and the other's below them."""
        width = max(self.mask.shape[1], other.mask.shape[1])
        pad = torch.nn.functional.pad
        masks = [pad(stack.mask, (width - stack.mask.shape[1], 0)) for stack in (self, other)]

        def widened(layer: Any) -> Any:
            return _mapped(layer, lambda kv: pad(kv, (0, 0, width - kv.shape[2], 0)), lambda state: state)

        layers = []
        for mine, theirs in zip(map(widened, self.layers), map(widened, other.layers), strict=True):
            below = iter(_tensors(theirs))
            layers.append(_mapped(mine, *[lambda tensor: torch.cat([tensor, next(below)])] * 2))  # noqa: B023
        return Stack(layers, torch.cat(masks))


def _mapped(layer: Any, keys: Any, states: Any) -> Any:
    """A layer whose tensors are replaced, in the order of ``_tensors``."""
    new = copy.copy(layer)
    if getattr(layer, "keys", None) is not None:
        new.keys, new.values = keys(layer.keys), keys(layer.values)
    for name in _STATES:
        held = getattr(layer, name, None)
        if held is not None:
            setattr(new, name, {n: None if state is None else states(state) for n, state in held.items()})
    for name, item in vars(layer).items():
        if isinstance(item, dict) and name not in _STATES:
            setattr(new, name, dict(item))
    return new


def _tensors(layer: Any) -> list[Tensor]:
    found = [] if getattr(layer, "keys", None) is None else [layer.keys, layer.values]
    for name in _STATES:
        found += [state for state in (getattr(layer, name, None) or {}).values() if state is not None]
    return found


class StackedModel:
    """A model that reads rows in a cache of its own."""

    def __init__(self, model: PreTrainedModel) -> None:
        """
        Args:
            model: in evaluation mode.

        Raises:
            NotImplementedError: it keeps what cannot be stacked.
        """
        self._model = model
        known = inspect.signature(model.forward).parameters
        self._cache = "past_key_values" if "past_key_values" in known else "cache_params"
        self._keep = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        self._positions = "position_ids" in known
        layers = self._fresh()
        self._attends = any(isinstance(layer, DynamicLayer) for layer in layers)
        if self._cache not in known or not all(type(layer) in _KNOWN for layer in layers):
            raise NotImplementedError(f"{type(model).__name__} keeps {sorted({type(x).__name__ for x in layers})}")
        one = self.begin((1, 2))[1]
        sizes = [t.numel() * t.element_size() for layer in one.layers for t in _tensors(layer)]
        self.token_bytes = max(1, sum(sizes) // 2)
        """Of one token, states shared out among few of them."""

    def _fresh(self) -> list[Any]:
        """Layers of an empty cache. They keep whole sequences; windows are a matter of masks."""
        layers: list[Any] = list(DynamicCache(config=self._model.config).layers)
        for number, layer in enumerate(layers):
            if type(layer) is DynamicSlidingWindowLayer:
                layers[number] = DynamicLayer()
            elif type(layer) is LinearAttentionAndSlidingWindowAttentionLayer:
                layers[number] = LinearAttentionAndFullAttentionLayer(number_of_states=layer.number_of_states)
        return layers

    def begin(self, tokens: Sequence[int]) -> tuple[Tensor, Stack]:
        """[1, V] the logits after a sequence, and what is kept of it."""
        ids = torch.tensor([list(tokens)], device=self._model.device)
        empty = Stack(self._fresh(), torch.zeros(1, 0, dtype=torch.long, device=self._model.device))
        return self._read(ids, empty)

    def advance(self, tokens: Sequence[int], stack: Stack) -> tuple[Tensor, Stack]:
        """[R, V] the logits after one more token of every row; the stack is used up."""
        return self._read(torch.tensor(list(tokens), device=self._model.device)[:, None], stack)

    @torch.inference_mode()
    def _read(self, ids: Tensor, stack: Stack) -> tuple[Tensor, Stack]:
        mask = torch.cat([stack.mask, torch.ones_like(ids)], dim=1)
        cache = DynamicCache()
        cache.layers, cache.layer_class_to_replicate = stack.layers, None
        more: dict[str, Any] = {self._cache: cache, **self._keep}
        if self._attends:
            more["attention_mask"] = mask
        if self._positions:
            more["position_ids"] = stack.mask.sum(-1, keepdim=True) + torch.arange(ids.shape[1], device=ids.device)
        logits = self._model(input_ids=ids, use_cache=True, **more).logits[:, -1]
        return logits.float(), Stack(cache.layers, mask)


class StackedLane:
    """Stands where ``Lane`` stands, for models that are read in caches of their own."""

    def __init__(self, model: StackedModel, memory: Memory, adapter: str) -> None:
        """
        Args:
            model: whose adapter is the active one whenever the lane reads.
            memory: shared by the engine's lanes.
            adapter: whose rows these are.
        """
        self._model = model
        self._memory = memory
        self._adapter = adapter
        self._stack: Stack | None = None
        self._rows: list[Row | None] = []
        """As they are stacked; None for one that has left."""
        self._new: list[Row] = []
        self._claims: list[int] = []
        memory.tenants.append(self)

    @property
    def rows(self) -> list[Row]:
        """All rows, those included that have not begun."""
        return [*(row for row in self._rows if row), *self._new]

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.rows)

    @property
    def claimed(self) -> int:
        """Tokens that were promised to rows."""
        return len(self._claims) * max(self._claims, default=0)

    @property
    def taken(self) -> int:
        """Tokens that there is memory for, or that are claimed, whichever is more."""
        return max(self._stack.length if self._stack else 0, self.claimed)

    def trim(self) -> bool:
        """Give back the places of rows that have left; whether there were any."""
        if None not in self._rows:
            return False
        kept = [place for place, row in enumerate(self._rows) if row]
        self._stack = self._stack.picked(kept) if self._stack and kept else None
        self._rows = [row for row in self._rows if row]
        return True

    def admit(self, row: Row, siblings: bool) -> bool:
        """Take a row in, if there is room for it."""
        session, counts = row.request.session, self._memory.counts
        kept = self._memory.resume(session, self._adapter, row.tokens)
        row.claim = len(row.tokens) + row.room
        self._claims.append(row.claim)
        if not self._memory.make_room():
            self._claims.remove(row.claim)
            if kept:
                self._memory.park(session, kept)
            return False
        if kept is None:
            counts.reread += min(self._memory.returned(session), len(row.tokens))
            self._new.append(row)
            return True
        assert isinstance(kept.strip, Stack)
        row.todo = list(row.tokens[len(kept.tokens) :])
        counts.read += len(row.todo)
        self._join([row], kept.strip)
        return True

    def _join(self, rows: list[Row], stack: Stack) -> None:
        self.trim()
        self._stack = self._stack.joined(stack) if self._stack else stack
        self._rows += rows

    def read(self, most: int) -> tuple[list[Row], Tensor | None]:
        """One more token of every row, and new rows' prompts.

        Args:
            most: tokens after which no further prompt is begun.

        Returns:
            The rows that are ready for their next token, and [ready, V] the logits that it is chosen by.
        """
        self.trim()
        ready: list[Row] = []
        parts: list[Tensor] = []
        if self._stack:
            rows = [row for row in self._rows if row]
            logits, self._stack = self._model.advance([row.todo.pop(0) for row in rows], self._stack)
            done = [place for place, row in enumerate(rows) if not row.todo]
            ready, parts = [rows[place] for place in done], [logits[done]]
            self._memory.counts.passes += 1
        while self._new and most > 0:
            tokens = self._new[0].tokens
            same = [row for row in self._new if row.tokens == tokens]
            self._new = [row for row in self._new if row.tokens != tokens]
            logits, stack = self._model.begin(tokens)
            self._join(same, stack.picked([0] * len(same)))
            ready += same
            parts.append(logits.expand(len(same), -1))
            most -= len(tokens)
            counts = self._memory.counts
            counts.read, counts.passes = counts.read + len(tokens), counts.passes + 1
            counts.shared += (len(same) - 1) * len(tokens)
        return ready, torch.cat(parts) if parts else None

    def leave(self, row: Row, *, keep: bool = False) -> None:
        """Let a row go; with ``keep`` what it holds is kept for its session's next turn."""
        self._claims.remove(row.claim)
        if row in self._new:
            self._new.remove(row)
            return
        place = self._rows.index(row)
        if keep and not row.stale and self._stack:
            tokens = row.tokens + tuple(row.ids[:-1])
            parked = Parked(self._adapter, tokens, None, self._stack.picked([place]), self._memory.prompts.tick())
            self._memory.park(row.request.session, parked)
        self._rows[place] = None
        if not any(self._rows):
            self.trim()
        self._memory.make_room()

    def wipe(self, row: Row) -> None:
        """Its numbers go with it: rows are apart in every tensor."""

    def restart(self) -> None:
        """The weights are others: what rows hold is not kept for later."""
        for row in self._rows:
            if row:
                row.stale = True

    def close(self) -> None:
        """Let everything go."""
        self._rows.clear()
        self._new.clear()
        self._claims.clear()
        self._stack = None
        self._memory.tenants.remove(self)
