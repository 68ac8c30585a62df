"""The transformers engine: one continuously batched decode loop for all concurrent episodes.

A reply that ends in a call leaves its keys and values behind; the observation is appended to them, so that nothing of
an episode is ever read twice. Rows join and leave the batch at any step, so a slow tool holds up nobody.
"""

import asyncio
import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rl.models.pieces import Pieces, fingerprint
from rl.serving.cache import Parked, RowCache, advance, extend
from rl.serving.sampling import choose, uniform
from rollouts.policy import PolicyUnavailableError, PromptTooLongError, Request
from rollouts.types import Completion

_TOKENS_PER_UPDATE = 4
"""Sampled tokens between two calls of ``Request.on_text``."""


@dataclass(slots=True)
class _Row:
    """One reply being written."""

    request: Request
    future: asyncio.Future[Completion]
    new: list[int]
    """Read next: a prompt, or what came since the session's last reply."""
    past: Parked | None
    forced: list[int]
    prompt: int
    """Tokens before the reply."""
    room: int
    """Tokens that the reply may grow to."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: bytes = b""


@dataclass(slots=True)
class _Session:
    """What an episode has read: which segments, and their keys and values but for the last token's."""

    segments: int
    past: Parked
    pending: list[int]


class TransformersPolicy:
    """Any causal Hugging Face model as a policy. Lives in one event loop; holds no thread of its own."""

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        version: int = 0,
        max_rows: int = 256,
    ) -> None:
        """
        Args:
            name: of the policy.
            model: in evaluation mode; its parameters are replaced in place by ``load``.
            tokenizer: the model's.
            version: of the weights.
            max_rows: replies decoded at once; more wait.
        """
        self.name = name
        self.version = version
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_rows = max_rows
        self.tokens_read = 0
        self.tokens_written = 0
        self._pieces = Pieces(tokenizer)
        self._fingerprint = fingerprint(tokenizer)
        self._ends = frozenset(_end_ids(model, tokenizer))
        self._limit = int(getattr(model.config, "max_position_embeddings", 0) or 1 << 30)
        self._encoded: dict[str, list[int]] = {}
        self._waiting: list[_Row] = []
        self._sessions: dict[str, _Session] = {}
        self._loop: asyncio.Task[None] | None = None

    async def complete(self, request: Request) -> Completion:
        """See ``Policy.complete``. Replies asked for at the same time are decoded together."""
        session = self._sessions.pop(request.session, None)
        if session and session.segments >= len(request.segments):
            session = None  # it was begun anew: nothing follows what was read
        done, new = (session.segments, list(session.pending)) if session else (0, [])
        for segment in request.segments[done:]:
            new += self._encode(segment) if isinstance(segment, str) else self._own(segment)
        held = session.past[0][0].shape[1] if session else 0
        room = min(request.sampling.max_tokens, self._limit - held - len(new))
        if room <= 0 and request.turn > 0:
            return Completion(text="", finish="length", tokenizer=self._fingerprint)
        if room <= 0:
            raise PromptTooLongError(
                f"task {request.task.id!r} takes {held + len(new)} tokens and {self.name} reads {self._limit} at most"
            )
        forced = self._encode(request.prefix) if request.prefix else []
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        past = session.past if session else None
        self._waiting.append(_Row(request, future, new, past, list(forced), held + len(new), room))
        if self._loop is None or self._loop.done():
            self._loop = asyncio.ensure_future(self._decode())
        return await future

    def release(self, session: str) -> None:
        self._sessions.pop(session, None)

    def load(self, weights: Mapping[str, Any], version: int) -> None:
        """Copy published weights into the model's own parameters."""
        parameters = dict(self.model.named_parameters())
        if missing := parameters.keys() ^ weights.keys():
            raise PolicyUnavailableError(f"published weights and {self.name} differ in {sorted(missing)[:3]}")
        with torch.no_grad():
            for name, value in weights.items():
                parameters[name].copy_(torch.from_numpy(np.array(value)))
        self.version = version
        self._sessions.clear()

    async def _decode(self) -> None:
        """Until no reply is left: admit, choose a token for every row, let finished rows go, read the rest."""
        rows: list[_Row] = []
        cache: RowCache | None = None
        logits: Tensor | None = None
        try:
            while self._waiting or rows:
                if admitted := self._admit(self.max_rows - len(rows)):
                    self.tokens_read += sum(len(row.new) for row in admitted)
                    more, fresh = extend(self.model, [row.new for row in admitted], [row.past for row in admitted])
                    rows += admitted
                    cache = fresh if cache is None else cache.joined(fresh)
                    logits = more if logits is None else torch.cat([logits, more])
                assert cache is not None and logits is not None
                tokens = self._choose(rows, logits)
                going = [index for index, row in enumerate(rows) if not self._finished(row, index, cache)]
                if len(going) < len(rows):
                    rows = [rows[index] for index in going]
                    cache = cache.select(going) if rows else None
                    tokens = tokens[going]
                logits = None
                if cache is not None:
                    logits, cache = advance(self.model, tokens, cache)
                await asyncio.sleep(0)
        except Exception as error:
            for row in [*rows, *self._waiting]:
                if not row.future.done():
                    row.future.set_exception(
                        PolicyUnavailableError(f"{self.name} failed: {type(error).__name__}: {error}")
                    )
            self._waiting.clear()
            raise

    def _admit(self, room: int) -> list[_Row]:
        admitted = self._waiting[: max(0, room)]
        del self._waiting[: len(admitted)]
        return admitted

    def _choose(self, rows: Sequence[_Row], logits: Tensor) -> Tensor:
        """[R] the next token of each row, forced or drawn; it and its log-probability are noted in the row."""
        seeds = np.array([row.request.seed for row in rows], dtype=np.uint64)
        positions = np.array([len(row.ids) for row in rows])
        tokens = choose(logits, [row.request.sampling for row in rows], uniform(seeds, positions))
        for index, row in enumerate(rows):
            if len(row.ids) < len(row.forced):
                tokens[index] = row.forced[len(row.ids)]
        logprobs = logits.log_softmax(-1).gather(-1, tokens[:, None]).squeeze(-1).tolist()
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs, strict=True):
            row.ids.append(token)
            row.logprobs.append(logprob)
        self.tokens_written += len(rows)
        return tokens

    def _finished(self, row: _Row, index: int, cache: RowCache) -> bool:
        """Whether the row's last token ends its reply; if so the reply is delivered, and kept for the next turn."""
        if row.future.done():  # cancelled by its episode
            return True
        last = row.ids[-1]
        stop = b""
        if last in self._ends:
            finish = "end"
        else:
            row.text = self._pieces.append(row.text, row.ids)
            stop = next((s for s in map(str.encode, row.request.stop) if s in row.text), b"")
            if stop:
                finish = "stop"
                row.text = row.text[: row.text.index(stop) + len(stop)]
            elif len(row.ids) >= row.room:
                finish = "length"
            else:
                _tell(row)
                return False
        if finish != "end":
            segments = len(row.request.segments) + 1
            self._sessions[row.request.session] = _Session(segments, cache.parked(index), [last])
        row.future.set_result(
            Completion(
                text=row.text.decode(errors="replace"),
                finish=finish,
                token_ids=tuple(row.ids),
                mask=tuple(position >= len(row.forced) for position in range(len(row.ids))),
                logprobs=tuple(row.logprobs),
                tokenizer=self._fingerprint,
                prompt_tokens=row.prompt,
            )
        )
        return True

    def _encode(self, text: str) -> list[int]:
        if text not in self._encoded:
            if len(self._encoded) > 20_000:
                self._encoded.clear()
            self._encoded[text] = self.tokenizer.encode(text, add_special_tokens=False)
        return self._encoded[text]

    def _own(self, completion: Completion) -> list[int]:
        """A completion's tokens: as they were sampled, or encoded where another kind of policy wrote it."""
        if completion.token_ids and completion.tokenizer == self._fingerprint:
            return list(completion.token_ids)
        return self._encode(completion.text)


def _tell(row: _Row) -> None:
    """Let whoever asked for a reply see how far it is: whole characters only."""
    sampled = len(row.ids) - len(row.forced)
    if row.request.on_text is not None and sampled > 0 and sampled % _TOKENS_PER_UPDATE == 1:
        row.request.on_text(codecs.getincrementaldecoder("utf-8")("replace").decode(row.text))


def _end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    configured: Any = getattr(model.generation_config, "eos_token_id", None)
    ends = set(configured if isinstance(configured, list) else [configured])
    own: Any = tokenizer.eos_token_id
    return {int(token) for token in ends | {own} if token is not None}
