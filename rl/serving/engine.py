"""The transformers engine: one continuously batched decode loop for all concurrent episodes.

A reply leaves its keys and values behind until its session is released; the observation is appended to them, so that
nothing of an episode is ever read twice. A prompt is read once for all requests that begin with it. Rows join and leave
the batch at any step, so a slow tool holds up nobody. What is kept has a bound: requests beyond it wait, in order.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from executors.errors import ConfigError
from rl.models.lora import adapter_names
from rl.models.pieces import Pieces, fingerprint
from rl.serving.adapters import Adapters
from rl.serving.lane import Lane
from rl.serving.memory import Counts, Memory
from rl.serving.passes import LeanModel, PackedModel
from rl.serving.readers import budget, context, reader
from rl.serving.reread import RereadLane
from rl.serving.rows import Finish, Row
from rl.serving.sampling import choose, objection, steered, top, uniform
from rl.serving.stacked import StackedLane, StackedModel
from rollouts.policy import PolicyUnavailableError, PromptTooLongError, Request
from rollouts.types import Completion

AnyLane: TypeAlias = Lane | StackedLane | RereadLane

_ALONE = {"cpu": 256}
"""By device, tokens from which on a prompt is attended where it lies though only one row begins with it. Elsewhere than
on a CPU one more small product costs more than a wider big one."""


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
        max_cached_tokens: int | None = None,
        max_read: int = 512,
    ) -> None:
        """
        Args:
            name: of the policy.
            model: in evaluation mode; its parameters are replaced in place by ``load``.
            tokenizer: the model's.
            version: of the weights.
            max_rows: replies decoded at once; more wait.
            max_cached_tokens: tokens whose keys and values are kept at most, those of running replies included; by
                default what 2 GiB hold, on a GPU what half of its free memory holds.
            max_read: tokens of prompts and observations that one step reads, so that running replies go on meanwhile.

        Raises:
            ConfigError: the model is not a causal language model, or a bound lets nothing through.
        """
        for bound, value in (("max_rows", max_rows), ("max_cached_tokens", max_cached_tokens), ("max_read", max_read)):
            if value is not None and value < 1:
                raise ConfigError(f"{bound} of {name} must be 1 or more, got {value}")
        self.name = name
        self.version = version
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_rows = max_rows
        self.max_read = max_read
        self._parameters = dict(model.named_parameters())
        self._adapters = Adapters(model)
        self._reader = reader(self._adapters.model, name)
        logits_cost = self._reader.logits_cost if isinstance(self._reader, PackedModel) else 0
        self._memory = Memory(max_cached_tokens or budget(self._adapters.model, self._reader), logits_cost)
        self._pieces = Pieces(tokenizer)
        self._fingerprint = fingerprint(tokenizer)
        self._known = int(self._adapters.model.get_input_embeddings().weight.shape[0])
        self._choices = int(self._adapters.model.get_output_embeddings().weight.shape[0])
        self._ends = frozenset(_end_ids(model, tokenizer))
        self._limit = min(context(self._adapters.model), self._memory.limit - logits_cost)
        self._encoded: dict[str, tuple[int, ...]] = {}
        self._waiting: deque[Row] = deque()
        self._coming: Counter[tuple[str, tuple[int, ...]]] = Counter()
        self._lanes: dict[str, AnyLane] = {}
        self._loop: asyncio.Task[None] | None = None

    @property
    def counts(self) -> Counts:
        """Tokens read, shared, read again and written, and more, since the policy was made."""
        return self._memory.counts

    @property
    def cached_tokens(self) -> int:
        """Tokens whose keys and values are kept, or promised to running replies."""
        return self._memory.used

    @property
    def way(self) -> str:
        """How the model is read: ``lean`` or ``packed``, ``stacked`` in its own cache, or ``anew`` at every step."""
        ways = {LeanModel: "lean", PackedModel: "packed", StackedModel: "stacked"}
        return ways.get(type(self._reader), "anew")

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end a reply."""
        return self._ends

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that requests may ask for."""
        return self._adapters.names

    async def complete(self, request: Request) -> Completion:
        """See ``Policy.complete``. Replies asked for at the same time are decoded together.

        Raises:
            PromptTooLongError: what is to be read is longer than the model's context or than all that may be kept.
            PolicyUnavailableError: the adapter is unknown, the constraint allows nothing, the sampling or the tokens
                are none that the model has, or the model fails.
        """
        if request.adapter not in ("", *self.adapters):
            raise PolicyUnavailableError(
                f"{self.name} has no adapter {request.adapter!r}; it has {', '.join(self.adapters) or 'none'}"
            )
        row = self._row(request)
        self._waiting.append(row)
        self._coming[row.key] += 1
        if self._loop is None or self._loop.done():
            self._loop = asyncio.ensure_future(self._decode())
        return await row.future

    def release(self, session: str) -> None:
        self._memory.forget(session)

    def load(self, weights: Mapping[str, Any], version: int) -> None:
        """Copy published weights into the model's own parameters; all that was read with the old ones is forgotten.

        Replies that are being written go on with the new weights; what they had read stays as it was. Of a model with
        adapters, which alone have learned, theirs are enough.
        """
        differing = self._parameters.keys() ^ weights.keys()
        if differing and weights.keys() != adapter_names(self._adapters.model) & self._parameters.keys():
            raise PolicyUnavailableError(f"published weights and {self.name} differ in {sorted(differing)[:3]}")
        with torch.no_grad():
            for name, value in weights.items():
                self._parameters[name].copy_(torch.from_numpy(np.array(value)))
        self.version = version
        for lane in self._lanes.values():
            lane.restart()
        self._memory.clear()

    def load_adapter(self, name: str, path: str | Path) -> None:
        """Add a LoRA adapter from a directory in PEFT's format, or replace the one of that name.

        Raises:
            ConfigError: there is none, or it does not fit the model.
        """
        if name in self.adapters:
            self.unload_adapter(name)
        self._adapters.load(name, Path(path))

    def unload_adapter(self, name: str) -> None:
        """Remove an adapter; replies that it is writing fail.

        Raises:
            ConfigError: there is none of that name.
        """
        self._adapters.unload(name)
        error = PolicyUnavailableError(f"adapter {name!r} of {self.name} was unloaded while it was to write a reply")
        lane = self._lanes.pop(name, None)
        waiting = [row for row in self._waiting if row.request.adapter == name]
        for row in [*(lane.rows if lane else ()), *waiting]:
            row.fail(error)
        if lane:
            lane.close()
        self._memory.clear(name)

    def _row(self, request: Request) -> Row:
        """A reply to be written."""
        for stop in request.stop:
            _require_unicode(stop)
        tokens: list[int] = []
        head = 0
        for segment in request.segments:
            if isinstance(segment, Completion):
                head = head or len(tokens)
                tokens += self._own(segment)
            else:
                tokens += self._encode(segment)
        forced = self._encode(request.prefix) if request.prefix else ()
        self._require_readable(request, (*tokens, *forced))
        room = min(request.sampling.max_tokens, self._limit - len(tokens))
        if room <= 0:
            raise PromptTooLongError(
                f"task {request.task.id!r} takes {len(tokens)} tokens and {self.name} reads {self._limit} at most"
            )
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        return Row(request, future, tuple(tokens), tuple(tokens[: head or len(tokens)]), forced, room)

    def _require_readable(self, request: Request, tokens: tuple[int, ...]) -> None:
        """See that a request cannot fail in the midst of others.

        Raises:
            PolicyUnavailableError: it would.
        """
        if not tokens:
            raise PolicyUnavailableError(f"task {request.task.id!r} gives {self.name} nothing to read")
        if objected := objection(request.sampling, request.seed, self._choices):
            raise PolicyUnavailableError(f"task {request.task.id!r} cannot be sampled from {self.name}: {objected}")
        if (strange := max(tokens)) >= self._known or (strange := min(tokens)) < 0:
            raise PolicyUnavailableError(
                f"task {request.task.id!r} has token {strange} and {self.name} those from 0 to {self._known - 1}: give "
                "the tokenizer that the model was made with, or resize its embeddings"
            )

    async def _decode(self) -> None:
        """Until no reply is left: admit rows, read, choose a token for each, let finished ones go."""
        try:
            while self._waiting or any(lane.busy for lane in self._lanes.values()):
                with torch.inference_mode():
                    self._admit()
                    for name in list(self._lanes):
                        self._step(name)
                await asyncio.sleep(0)
        except Exception as error:
            for name in list(self._lanes):
                self._fail(name, error)
            while self._waiting:
                self._waiting.popleft().fail(self._failure(error))
            self._coming.clear()
            raise

    def _admit(self) -> None:
        """Let those in whose turn it is, in order, as far as there is room; forget those who no longer wait."""
        for lane in self._lanes.values():
            for row in lane.rows:
                if row.future.done():
                    lane.leave(row)
        running = sum(len(lane.rows) for lane in self._lanes.values())
        while self._waiting:
            row = self._waiting[0]
            if not row.future.done():
                if running >= self.max_rows or not self._lane(row.request.adapter).admit(
                    row, self._coming[row.key] > 1
                ):
                    return
                running += 1
            self._waiting.popleft()
            self._coming[row.key] -= 1
            if not self._coming[row.key]:
                del self._coming[row.key]

    def _lane(self, adapter: str) -> AnyLane:
        if adapter not in self._lanes:
            self._lanes[adapter] = self._new_lane(adapter)
        return self._lanes[adapter]

    def _new_lane(self, adapter: str) -> AnyLane:
        if isinstance(self._reader, PackedModel):
            alone = _ALONE.get(self.model.device.type, self._limit + 1)
            return Lane(self._reader, self._memory, adapter, alone=alone)
        if isinstance(self._reader, StackedModel):
            return StackedLane(self._reader, self._memory, adapter)
        return RereadLane(self._adapters.model, self._memory)

    def _step(self, name: str) -> None:
        """One pass of a lane; a failure is told to all who wait for its rows, and to nobody else."""
        lane = self._lanes[name]
        if not lane.busy:
            return
        try:
            self._adapters.use(name)
            rows, logits = lane.read(self.max_read)
            if rows and logits is not None:
                self._write(lane, rows, logits)
        except Exception as error:
            self._fail(name, error)

    def _fail(self, name: str, error: Exception) -> None:
        lane = self._lanes.pop(name)
        for row in lane.rows:
            self.counts.failed += 1
            row.fail(self._failure(error))
        lane.close()

    def _failure(self, error: Exception) -> PolicyUnavailableError:
        return PolicyUnavailableError(f"{self.name} failed: {type(error).__name__}: {error}")

    def _write(self, lane: AnyLane, rows: list[Row], logits: Tensor) -> None:
        """Choose the next token of each row, forced or drawn, and let those go that end with it."""
        allowed = [self._allowed(row, logits.shape[-1]) for row in rows]
        samplings = [row.request.sampling for row in rows]
        seeds = np.array([row.request.seed for row in rows], dtype=np.uint64)
        positions = np.array([len(row.ids) for row in rows])
        offered = steered(logits, samplings, allowed)
        if offered is not logits:
            self._require_choice(rows, offered)
        tokens = choose(offered, samplings, uniform(seeds, positions))
        for index, row in enumerate(rows):
            if len(row.ids) < len(row.forced):
                tokens[index] = row.forced[len(row.ids)]
        likely = logits.log_softmax(-1)
        logprobs = likely.gather(-1, tokens[:, None]).squeeze(-1).tolist()
        if any(sampling.top_logprobs for sampling in samplings):
            for row, told in zip(rows, top(likely, [sampling.top_logprobs for sampling in samplings]), strict=True):
                if row.request.sampling.top_logprobs:
                    row.likeliest.append(told)
        self.counts.written += len(rows)
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs, strict=True):
            if row.future.done():
                lane.leave(row)
            elif logprob != logprob:
                self._give_up(lane, row)
            elif finish := row.write(token, logprob, self._pieces, self._ends):
                self._deliver(lane, row, finish)
            else:
                row.todo = [token]

    def _allowed(self, row: Row, vocabulary: int) -> np.ndarray | None:
        """What a row's constraint allows; where that fails the row fails, alone."""
        try:
            return row.allowed(vocabulary)
        except PolicyUnavailableError as error:
            row.fail(error)
        except Exception as error:
            task = row.request.task.id
            row.fail(PolicyUnavailableError(f"the constraint of task {task!r} failed: {type(error).__name__}: {error}"))
        self.counts.failed += 1
        return None

    def _require_choice(self, rows: list[Row], offered: Tensor) -> None:
        """Fail the rows of which biases and constraints leave no token."""
        for index in (offered.amax(-1) == -torch.inf).nonzero()[:, 0].tolist():
            row = rows[index]
            if len(row.ids) >= len(row.forced) and not row.future.done():
                self.counts.failed += 1
                task = row.request.task.id
                row.fail(PolicyUnavailableError(f"the biases of task {task!r} leave no token after {len(row.ids)}"))

    def _give_up(self, lane: AnyLane, row: Row) -> None:
        self.counts.failed += 1
        row.fail(
            PolicyUnavailableError(
                f"{self.name} gave no numbers (NaN) for task {row.request.task.id!r} after {len(row.ids)} tokens: its "
                "weights or activations have overflowed; look at the last checkpoint's loss, or use float32"
            )
        )
        lane.wipe(row)
        lane.leave(row)

    def _deliver(self, lane: AnyLane, row: Row, finish: Finish) -> None:
        lane.leave(row, keep=True)
        row.future.set_result(row.completion(finish, self._fingerprint))

    def _encode(self, text: str) -> tuple[int, ...]:
        if text not in self._encoded:
            _require_unicode(text)
            if len(self._encoded) > 20_000:
                self._encoded.clear()
            self._encoded[text] = tuple(self.tokenizer.encode(text, add_special_tokens=False))
        return self._encoded[text]

    def _own(self, completion: Completion) -> Sequence[int]:
        """A completion's tokens: as they were sampled, or encoded where another kind of policy wrote it."""
        if completion.token_ids and completion.tokenizer == self._fingerprint:
            return completion.token_ids
        return self._encode(completion.text)


def _require_unicode(text: str) -> None:
    """Raises PolicyUnavailableError where a text is none that a tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        around = ascii(text[max(0, error.start - 20) : error.end + 20])
        raise PolicyUnavailableError(f"half of a surrogate pair cannot be read, at {around}; write it whole") from error


def _end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    configured: Any = getattr(model.generation_config, "eos_token_id", None)
    ends = set(configured if isinstance(configured, list) else [configured])
    own: Any = tokenizer.eos_token_id
    return {int(token) for token in ends | {own} if token is not None}
