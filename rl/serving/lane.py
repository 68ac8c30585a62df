"""The rows that one adapter writes, their keys and values, and the prompts that are read for them."""

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from rl.serving.cache import Strip, Tails
from rl.serving.memory import Memory, Parked
from rl.serving.packing import RowRead, StripRead
from rl.serving.passes import PackedModel
from rl.serving.prompts import Prompt, common
from rl.serving.rows import Row

_ROUND = 32
"""The tails' width is a multiple of it."""
_WORTH = 64
"""Tokens for whose sake a prompt waits until another, which begins with them too, has been read."""


class Lane:
    """A continuously batched decode loop's state: rows join, read, and leave at any pass.

    A prompt is read once, into a strip of its own. Rows whose prompt has company attend it where it lies, and so do
    rows whose prompts have a long beginning in common; others copy it into their tail, so that they are attended all
    at once.
    """

    def __init__(self, model: PackedModel, memory: Memory, adapter: str, *, alone: int) -> None:
        """
        Args:
            model: whose adapter is the active one whenever the lane reads.
            memory: shared by the engine's lanes.
            adapter: whose rows these are.
            alone: tokens from which on a prompt is attended where it lies though a single row begins with it.
        """
        self._model = model
        self._memory = memory
        self._adapter = adapter
        self._alone = alone
        self._tails = Tails(model.layout)
        self._rows: list[Row] = []
        self._waiting: list[Row] = []
        """For their prompts."""
        self._reading: deque[Prompt] = deque()
        self._claims: list[int] = []
        memory.tenants.append(self)

    @property
    def rows(self) -> list[Row]:
        """All rows, those included that wait for their prompts."""
        return [*self._rows, *self._waiting]

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._rows or self._waiting)

    @property
    def claimed(self) -> int:
        """Tokens that were promised to rows."""
        return len(self._claims) * max(self._claims, default=0)

    @property
    def taken(self) -> int:
        """Tokens that the tails have memory for, or that are claimed, whichever is more."""
        return max(self._tails.tokens, self.claimed)

    def trim(self) -> bool:
        """Give back what the tails do not need; whether there was any."""
        if self._tails.tokens <= self.claimed:
            return False
        self._tails.resize(len(self._claims), max(self._claims, default=0), [row.length for row in self._rows])
        return True

    def admit(self, row: Row, siblings: bool) -> bool:
        """Take a row in, if there is room for it.

        Args:
            row: a reply to be written.
            siblings: whether others with the same prompt are about to come.
        """
        kept = self._memory.resume(row.request.session, self._adapter, row.tokens, row.head)
        return self._resume(row, kept) if kept else self._begin(row, siblings)

    def _resume(self, row: Row, kept: Parked) -> bool:
        row.todo = list(row.tokens[len(kept.tokens) :])
        if not self._claim(row, kept.strip.length + len(row.todo) + row.room):
            self._memory.park(row.request.session, kept)
            return False
        assert isinstance(kept.strip, Strip)
        row.prompt, row.shares = kept.prompt, kept.prompt is not None
        self._seat(row, kept.strip, kept.strip.length)
        self._memory.counts.read += len(row.todo)
        return True

    def _begin(self, row: Row, siblings: bool) -> bool:
        prompts = self._memory.prompts
        head = row.head
        known = prompts.find(self._adapter, head)
        if known is None and not siblings:
            known = prompts.beginning(self._adapter, head, self._alone)
        prompt = known or Prompt(self._adapter, head)
        prompts.hold(prompt)
        if known is None:
            prompts.add(prompt)
        row.prompt = prompt
        row.todo = list(row.tokens[len(prompt.tokens) :])
        rest = len(row.todo) + row.room
        row.shares = siblings or prompt.users > 1 or len(prompt.tokens) >= self._alone
        if not row.shares and not self._claim(row, len(head) + rest):
            row.shares = True
        if row.shares and not self._claim(row, rest):
            prompts.release(prompt)
            if known is None:
                prompts.forget(prompt)
            row.prompt = None
            return False
        counts = self._memory.counts
        counts.read += len(row.todo)
        counts.reread += min(self._memory.returned(row.request.session), len(row.todo) + (0 if known else len(head)))
        if known is None:
            self._reading.append(prompt)
        else:
            counts.shared += len(prompt.tokens)
        if prompt.logits is None and not prompt.partial:
            self._waiting.append(row)
        else:
            self._start(row)
        return True

    def _claim(self, row: Row, tail: int) -> bool:
        """Set memory aside for a row's tail."""
        self._claims.append(tail)
        row.claim = tail
        if self._memory.make_room():
            return True
        self._claims.remove(tail)
        return False

    def _start(self, row: Row) -> None:
        """Let a row whose prompt has been read begin."""
        prompt = row.prompt
        assert prompt is not None and prompt.strip is not None
        if row.shares:
            self._seat(row, None, 0)
        else:
            self._seat(row, prompt.strip, prompt.strip.length)
            row.prompt = None
            self._memory.prompts.release(prompt)
        row.logits = None if row.todo else prompt.logits

    def _seat(self, row: Row, strip: Strip | None, length: int) -> None:
        """Give a row a place in the tails, with what it begins with."""
        place = len(self._rows)
        if self._tails.rows <= place or self._tails.width < max(self._claims):
            self._widen()
        if strip is not None:
            self._tails.put(place, strip, length)
        row.length = length
        self._rows.append(row)

    def _widen(self) -> None:
        """Make room for all that was promised, and for half as many rows again and longer ones where memory allows."""
        rows, width = len(self._claims), max(self._claims)
        more = max(self._tails.rows, rows + rows // 2)
        wide = -(-max(self._tails.width, width + width // 4) // _ROUND) * _ROUND
        if more * wide - self.taken > self._memory.limit - self._memory.used:
            more, wide = rows, width
        self._tails.resize(more, wide, [row.length for row in self._rows])

    @torch.inference_mode()
    def read(self, most: int) -> tuple[list[Row], Tensor | None]:
        """One forward pass: every row's next token, and as much of prompts as fits.

        Args:
            most: tokens of prompts and observations that one pass reads.

        Returns:
            The rows that are ready for their next token, and [ready, V] the logits that it is chosen by.
        """
        reads, left = self._row_reads(most)
        strips = self._strip_reads(left)
        places = [place for place, row in enumerate(self._rows) if 0 < len(row.todo) == len(reads[place].tokens)]
        ready = [self._rows[place] for place in places]
        early = [row for row in self._rows if row.logits is not None]
        parts: list[Tensor] = []
        if strips or any(read.tokens for read in reads):
            ended = [n for n, (prompt, read) in enumerate(strips) if len(prompt.tokens) == read.end]
            asked = [*places, *(len(reads) + n for n in ended)]
            logits = self._model.read(self._tails, reads, [read for _, read in strips], asked)
            self._memory.counts.passes += 1
            self._note(reads, strips)
            parts = [logits[: len(ready)]] if ready else []
            for number, n in enumerate(ended, start=len(ready)):
                early += self._finish(strips[n][0], logits[number].clone())
        parts += [row.logits[None] for row in early if row.logits is not None]
        for row in early:
            row.logits = None
        return ready + early, torch.cat(parts) if len(parts) > 1 else next(iter(parts), None)

    def _note(self, reads: Sequence[RowRead], strips: Sequence[tuple[Prompt, StripRead]]) -> None:
        """What was read is no longer to do."""
        for row, read in zip(self._rows, reads, strict=True):
            row.length += len(read.tokens)
            del row.todo[: len(read.tokens)]
        for prompt, read in strips:
            prompt.length = read.end

    def _row_reads(self, most: int) -> tuple[list[RowRead], int]:
        reads = []
        for row in self._rows:
            count = min(len(row.todo), max(1, most))
            most -= count if count > 1 else 0
            prefix = row.prompt.strip if row.prompt else None
            reads.append(RowRead(row.todo[:count], row.length, prefix))
        return reads, most

    def _strip_reads(self, most: int) -> list[tuple[Prompt, StripRead]]:
        """As much of the prompts as fits, in the order that they came; one waits for another that begins alike."""
        reads: list[tuple[Prompt, StripRead]] = []
        for prompt in self._reading:
            if most <= 0 or (prompt.strip is None and not self._open(prompt, [other for other, _ in reads])):
                break
            assert prompt.strip is not None
            part = prompt.tokens[prompt.length : prompt.length + most]
            reads.append((prompt, StripRead(part, prompt.strip, prompt.length)))
            most -= len(part)
        self._memory.counts.read += sum(len(read.tokens) for _, read in reads)
        return reads

    def _open(self, prompt: Prompt, others: Sequence[Prompt]) -> bool:
        """Begin a prompt with what others have of it; False where it is better to wait for one that is being read."""
        found, same = self._memory.prompts.longest(prompt)
        if any(common(prompt.tokens, other.tokens) >= same + _WORTH for other in others):
            return False
        prompt.strip = Strip.empty(self._model.layout, len(prompt.tokens))
        if found is not None and found.strip is not None:
            prompt.strip.copy(found.strip, same)
            prompt.length = same
            self._memory.counts.shared += same
        return True

    def _finish(self, prompt: Prompt, logits: Tensor) -> list[Row]:
        """Let the rows begin that waited for a prompt; those that are ready for their first token."""
        self._reading.remove(prompt)
        self._memory.prompts.finish(prompt, logits)
        waited = [row for row in self._waiting if row.prompt is prompt]
        self._waiting = [row for row in self._waiting if row.prompt is not prompt]
        for row in waited:
            self._start(row)
        return [row for row in waited if row.logits is not None]

    def leave(self, row: Row, *, keep: bool = False) -> None:
        """Let a row go; with ``keep`` what it holds is kept for its session's next turn."""
        self._claims.remove(row.claim)
        prompts = self._memory.prompts
        if row in self._waiting:
            self._waiting.remove(row)
            assert row.prompt is not None
            prompts.release(row.prompt)
            if not row.prompt.users:
                self._reading.remove(row.prompt)
                prompts.forget(row.prompt)
            return
        place = self._rows.index(row)
        strip = self._tails.take(place, row.length) if keep and not row.stale else None
        last = self._rows.pop()
        if last is not row:
            self._rows[place] = last
            self._tails.move(len(self._rows), place, last.length)
        if strip is not None:
            tokens = row.tokens + tuple(row.ids[:-1])
            parked = Parked(self._adapter, tokens, row.prompt, strip, prompts.tick())
            self._memory.park(row.request.session, parked)
            self._memory.make_room()
        elif row.prompt:
            prompts.release(row.prompt)

    def wipe(self, row: Row) -> None:
        """Forget the numbers of a row that are none."""
        self._tails.wipe(self._rows.index(row))
        if prompt := self._memory.prompts.find(self._adapter, row.head):
            self._memory.prompts.forget(prompt)

    def restart(self) -> None:
        """The weights are others: prompts are read from their beginning, and what rows hold is not kept for later."""
        for prompt in self._reading:
            prompt.length = 0
        for row in self._rows:
            row.stale = True

    def close(self) -> None:
        """Let everything go."""
        for row in self.rows:
            self.leave(row)
        self._memory.tenants.remove(self)
