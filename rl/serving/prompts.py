"""Prompts that were read, kept for whoever begins with the same tokens: siblings of a group, later rounds."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from rl.serving.cache import Strip

_BLOCK = 16
"""Tokens that are compared at once in search of a common beginning."""
_REST = 128
"""Tokens behind a common beginning up to which a prompt is read as a part of its row, and not kept by itself."""


@dataclass(slots=True, eq=False)
class Prompt:
    """A prompt that is read once."""

    adapter: str
    tokens: tuple[int, ...]
    strip: Strip | None = None
    """Its keys and values, from when it begins to be read."""
    length: int = 0
    """Tokens read so far."""
    logits: Tensor | None = None
    """[V] what follows it, once it is read."""
    users: int = 0
    """Rows and sessions that hold it."""
    used: int = 0
    """When it was last needed, by the table's clock."""
    partial: bool = False
    """Whether it is only what several prompts begin with, of which each goes on in its own way."""

    @property
    def key(self) -> tuple[str, tuple[int, ...], bool]:
        """By which it is found."""
        return self.adapter, self.tokens, self.partial


class Prompts:
    """The table of prompts. Those that somebody holds stay; of the others the longest unused goes first."""

    def __init__(self, logits_cost: int = 0) -> None:
        """
        Args:
            logits_cost: tokens that a prompt's logits take the memory of.
        """
        self.logits_cost = logits_cost
        self.tokens = 0
        """That all prompts take, those included that were forgotten and are held still."""
        self.idle_tokens = 0
        """That those take that nobody holds."""
        self._known: dict[tuple[str, tuple[int, ...], bool], Prompt] = {}
        self._idle: dict[Prompt, None] = {}
        self._blocks: dict[tuple[str, int], Prompt] = {}
        self._clock = itertools.count(1)

    def __len__(self) -> int:
        return len(self._known)

    def cost(self, prompt: Prompt) -> int:
        """Tokens that a prompt takes the memory of."""
        return len(prompt.tokens) + (0 if prompt.partial else self.logits_cost)

    def find(self, adapter: str, tokens: tuple[int, ...]) -> Prompt | None:
        """The prompt of exactly these tokens, read or being read."""
        return self._known.get((adapter, tokens, False))

    def beginning(self, adapter: str, tokens: tuple[int, ...], least: int) -> Prompt | None:
        """What a prompt has in common with others that were read, for all of them to attend it where it lies.

        Args:
            adapter: that is to read.
            tokens: of the prompt.
            least: tokens from which on that is worth it.

        Returns:
            All that was read of it, or up to a block less where more rows begin with that; None where it is too
            little, or where too much is left to be read.
        """
        found, same = self.longest(Prompt(adapter, tokens))
        if found is None or found.strip is None or same < least or len(tokens) - same > _REST:
            return None
        kept = (self._known.get((adapter, tokens[:length], True)) for length in range(same, same - _BLOCK, -1))
        if (known := max(filter(None, kept), key=lambda one: one.users, default=None)) is not None:
            return known
        begun = Prompt(adapter, tokens[:same], found.strip.copied(same), same, partial=True)
        self.add(begun)
        self._index(begun)
        return begun

    def add(self, prompt: Prompt) -> None:
        """A prompt that is about to be read, by whom it is held."""
        self._known[prompt.key] = prompt
        self.tokens += self.cost(prompt)

    def finish(self, prompt: Prompt, logits: Tensor) -> None:
        """A prompt was read to its end."""
        prompt.logits = logits
        if self._known.get(prompt.key) is prompt:
            self._index(prompt)

    def _index(self, prompt: Prompt) -> None:
        self._blocks |= {(prompt.adapter, block): prompt for block in _blocks(prompt.tokens)}

    def hold(self, prompt: Prompt) -> None:
        """Somebody needs it."""
        prompt.users += 1
        if prompt in self._idle:
            del self._idle[prompt]
            self.idle_tokens -= self.cost(prompt)

    def release(self, prompt: Prompt) -> None:
        """Somebody needs it no more."""
        prompt.users -= 1
        prompt.used = self.tick()
        if prompt.users:
            return
        if self._known.get(prompt.key) is prompt:
            self._idle[prompt] = None
            self.idle_tokens += self.cost(prompt)
        else:
            self.tokens -= self.cost(prompt)

    def forget(self, prompt: Prompt) -> None:
        """Nobody is to find it any more."""
        if self._known.get(prompt.key) is not prompt:
            return
        del self._known[prompt.key]
        if prompt in self._idle:
            del self._idle[prompt]
            self.idle_tokens -= self.cost(prompt)
            self.tokens -= self.cost(prompt)
        for block in _blocks(prompt.tokens):
            if self._blocks.get((prompt.adapter, block)) is prompt:
                del self._blocks[prompt.adapter, block]

    def clear(self, adapter: str | None = None) -> None:
        """Forget all prompts that were read, or those of one adapter."""
        for prompt in list(self._known.values()):
            if adapter in (None, prompt.adapter) and (prompt.partial or prompt.logits is not None):
                self.forget(prompt)

    def longest(self, prompt: Prompt) -> tuple[Prompt | None, int]:
        """The prompt read so far that shares the longest beginning with this one, and how many tokens.

        A whole block of them at least; and one token at least is left to be read.
        """
        for block in reversed(list(_blocks(prompt.tokens[:-1]))):
            if (other := self._blocks.get((prompt.adapter, block))) is not None:
                return other, common(prompt.tokens[:-1], other.tokens)
        return None, 0

    def idle(self) -> Prompt | None:
        """The prompt that nobody holds and that was unused for the longest."""
        return next(iter(self._idle), None)

    def tick(self) -> int:
        """The time."""
        return next(self._clock)


def _blocks(tokens: tuple[int, ...]) -> Iterator[int]:
    """A number for each beginning of whole blocks, that beginnings of other prompts have where they are equal."""
    number = 0
    for end in range(_BLOCK, len(tokens) + 1, _BLOCK):
        number = hash((number, tokens[end - _BLOCK : end]))
        yield number


def common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many tokens two prompts begin with alike."""
    least = min(len(one), len(other))
    if one[:least] == other[:least]:
        return least
    return next(n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
