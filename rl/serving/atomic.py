"""ToolGen's agent as a policy for the one episode loop: a thought and a tool's token, then the tool's arguments.

The tool is named under a constraint, so that only tools that exist are; its documentation comes back from ``describe``
before the arguments are written. A call that was made before, or an attempt that gives up, is tried again with more
chance, as in the original.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from executors.retrieval import Index, text_of
from executors.tools.describe import documentation
from executors.types import MalformedCall, Observation, ToolCall, ToolSpec
from rl.models.constrained import ToolConstraint
from rl.models.tool_tokens import ToolTokens
from rl.models.trie import Trie
from rl.serving.engine import TransformersPolicy
from rl.serving.wire import ChatError
from rollouts.formats.atomic import ACTION, DESCRIBE, JoinedFormat, ended, gave_up, pending, read_arguments
from rollouts.policy import Request, derive_seed
from rollouts.types import Completion, Task, Turn

if TYPE_CHECKING:
    from rl.serving.structured import Structures

RETRIES = (0.6, 1.0, 1.0, 1.0)
"""Temperatures of further tries, as published."""
_SORRY = ("i'm sorry", "apologize")

Provider = Callable[[Task], Sequence[str] | None]
"""The tools that may be named for a task; None for all."""


def given(task: Task) -> tuple[str, ...]:
    """The tools that the task itself names, ``describe`` apart (``truth`` in the original)."""
    return tuple(name for name in task.tools if name != DESCRIBE)


def retrieved(specs: Sequence[ToolSpec], k: int = 5) -> Provider:
    """The tools that share the rarest words with a request (``retriever`` in the original, by BM25).

    Args:
        specs: of all tools; ``describe`` is never among those that are given.
        k: how many.
    """
    known = [spec for spec in specs if spec.name != DESCRIBE]
    index = Index(text_of(spec) for spec in known)
    return lambda task: [known[place].name for place, _ in index.search(task.prompt, k)]


def every(task: Task) -> None:
    """All tools (``all`` in the original)."""


def within(provider: Provider) -> Provider:
    """The tools that a provider gives, as far as the task names them too: what a request offers is the limit."""

    def offered(task: Task) -> list[str]:
        known = None if (names := provider(task)) is None else set(names)
        return [name for name in task.tools if name != DESCRIBE and (known is None or name in known)]

    return offered


def named_before(request: Request) -> tuple[str, ...]:
    """The tools that a search tried in this very place before."""
    calls = [call for turn in request.tried for call in turn.calls if isinstance(call, ToolCall)]
    return tuple(str(call.arguments["tool"]) if call.tool == DESCRIBE else call.tool for call in calls)


class AtomicPolicy:
    """An engine whose model names tools by tokens."""

    def __init__(
        self,
        engine: TransformersPolicy,
        tokens: ToolTokens,
        finish: str,
        *,
        provider: Provider = given,
        retries: Sequence[float] = (),
        max_arguments: int = 64,
        without: Callable[[Request], Sequence[str]] = named_before,
        schemas: Mapping[str, ToolSpec] | None = None,
    ) -> None:
        """
        Args:
            engine: of the model that has the tools' tokens.
            tokens: what stands for each tool, and for the end.
            finish: the name under which the end stands among them.
            provider: which tools may be named.
            retries: temperatures of further tries after a call that was made before, or an end without an answer;
                ``RETRIES`` are the original's.
            max_arguments: tokens of a call's arguments.
            without: tools that may not be named by this very reply; by default those that a search has tried there.
            schemas: by tool, the spec whose schema its arguments are held to; a tool without one, or with one that
                cannot be enforced, is called freely.
        """
        self.name, self.version = engine.name, engine.version
        self.engine = engine
        self.tokens = tokens
        self.finish = finish
        self.provider = provider
        self.retries = tuple(retries)
        self.max_arguments = max_arguments
        self.without = without
        self._texts = tokens.tools
        self._marker = engine.tokenizer.encode(ACTION, add_special_tokens=False)
        self._ends = [int(token) for token in _ends(engine)]
        self._tries: dict[tuple[str, ...], tuple[Trie, int]] = {}
        self._schemas = dict(schemas or {})
        self._structures: Structures | None = None
        self._matchers: dict[str, Any] = {}

    def release(self, session: str) -> None:
        self.engine.release(session)

    def load(self, weights: Mapping[str, Any], version: int) -> None:
        self.engine.load(weights, version)
        self.version = version

    async def complete(self, request: Request) -> Completion:
        """See ``Policy.complete``: a tool that is named, the call of the tool that was named last, or the answer."""
        if self.retries:  # what may yet be taken back is not told
            request = dataclasses.replace(request, on_text=None)
        completion = await self._once(request)
        for number, temperature in enumerate(self.retries, 1):
            if not self._poor(completion, request):
                break
            sampling = dataclasses.replace(request.sampling, temperature=temperature)
            completion = await self._once(dataclasses.replace(request, sampling=sampling, seed=request.seed + number))
        return completion

    def _poor(self, completion: Completion, request: Request) -> bool:
        """Whether a reply repeats a call, gives up, or is sorry."""
        before = [call for turn in request.turns for call in turn.calls]
        repeated = any(isinstance(c, ToolCall) and c.tool != DESCRIBE and c in before for c in completion.calls or ())
        said = (ended(completion.text) or "").lower()
        return repeated or gave_up(completion.text) or any(sorry in said for sorry in _SORRY)

    async def _once(self, request: Request) -> Completion:
        tool = pending(request.turns)
        return await (self._named(request) if tool is None else self._called(request, tool))

    async def _named(self, request: Request) -> Completion:
        """A thought and a tool, or the end and the answer behind it."""
        names = self.provider(request.task)
        offered = [name for name in self.tokens.texts if name != self.finish] if names is None else list(names)
        tried = set(self.without(request))
        names = tuple(name for name in offered if name not in tried)
        forced = bool(names) and request.prefix == ACTION
        trie, end = self._trie(names if forced else (*names, self.finish), ends=not forced)
        constraint = _Named(trie, self._ends, marker=self._marker, end=end)
        completion = await self.engine.complete(dataclasses.replace(request, constraint=constraint))
        _, marked, named = completion.text.rpartition(ACTION)
        if not marked or ended(completion.text) is not None:
            return dataclasses.replace(completion, calls=())
        name = self._texts.get(named.strip())
        if name is None:
            cut = MalformedCall(completion.text, f"{named.strip()[:80]!r} is no tool; the reply was cut")
            return dataclasses.replace(completion, calls=(cut,))
        naming = _without_end(completion, self._ends)
        return dataclasses.replace(naming, calls=(ToolCall(DESCRIBE, {"tool": name}),))

    async def _called(self, request: Request, tool: str) -> Completion:
        most = min(self.max_arguments, request.sampling.max_tokens)
        sampling = dataclasses.replace(request.sampling, max_tokens=most)
        constraint = self._held_to_schema(tool)
        asked = dataclasses.replace(request, sampling=sampling, stop=("\n",), constraint=constraint)
        completion = self._with_line(await self.engine.complete(asked))
        return dataclasses.replace(completion, calls=(read_arguments(tool, completion.text),))

    def _with_line(self, completion: Completion) -> Completion:
        """A call's input with the end of its line, which stands for the end of the reply."""
        if completion.finish != "end" or completion.text.endswith("\n"):
            return completion
        ended = dataclasses.replace(_without_end(completion, self._ends), text=f"{completion.text}\n")
        line = tuple(self.engine.tokenizer.encode("\n", add_special_tokens=False)) if completion.token_ids else ()
        return _followed(ended, line)

    def _held_to_schema(self, tool: str) -> Any:
        """What holds a call's arguments to the schema of its tool, made once a tool; None where nothing can."""
        if tool not in self._schemas:
            return None
        from rl.serving.structured import JsonConstraint, Structures

        if tool not in self._matchers:
            self._structures = self._structures or Structures(self.engine)
            try:
                self._matchers[tool] = self._structures.matcher(self._schemas[tool].parameters)
            except ChatError:
                self._matchers[tool] = None
        matcher = self._matchers[tool]
        return None if matcher is None else JsonConstraint(matcher.deep_copy())

    def _trie(self, names: tuple[str, ...], *, ends: bool) -> tuple[Trie, int]:
        """The tools' trie, and which of its sequences is the end, the last if any; the last few are kept."""
        if names not in self._tries:
            if len(self._tries) > 64:
                self._tries.clear()
            self._tries[names] = self.tokens.trie(self.engine.tokenizer, list(names)), len(names) - 1 if ends else -1
        return self._tries[names]


class JoinedPolicy:
    """The same with a whole call in one reply: a thought, the tool's token, its documentation, its arguments.

    The calls are those of the tools themselves, so that whoever runs them, such as a client of the endpoint, need not
    know how tools are named. The documentation stands among the reply's tokens as one that was not sampled.
    """

    def __init__(self, naming: AtomicPolicy, format: JoinedFormat, specs: Sequence[ToolSpec]) -> None:
        """
        Args:
            naming: names tools and writes their arguments.
            format: how the tasks are written.
            specs: of the tools, with what they are documented.
        """
        self.name, self.version = naming.name, naming.version
        self.naming, self.format = naming, format
        self.tokenizer: Any = naming.engine.tokenizer
        self.ends: frozenset[int] = getattr(naming.engine, "ends", frozenset())
        self._told = {spec.name: format.documented(documentation(spec)) for spec in specs}

    def release(self, session: str) -> None:
        self.naming.release(session)

    def load(self, weights: Mapping[str, Any], version: int) -> None:
        self.naming.load(weights, version)
        self.version = version

    async def complete(self, request: Request) -> Completion:
        """See ``Policy.complete``. Without a tool to name, or under another constraint, the engine goes on by itself.

        Tokens of the documentation have a log-probability of 0: they were given.
        """
        if request.constraint is not None or not request.task.tools:
            return await self.naming.engine.complete(request)
        named = await self.naming.complete(request)
        call = named.calls[0] if named.calls else None
        if not isinstance(call, ToolCall):
            return named
        tool = str(call.arguments["tool"])
        turn = Turn(named, (call,), (Observation(""),))
        room = request.sampling.max_tokens - len(named.token_ids)
        if room < 1:
            cut = MalformedCall(named.text, f"the reply was cut before the input of {tool}")
            return dataclasses.replace(named, calls=(cut,), finish="length")
        asked = dataclasses.replace(
            request,
            segments=(*request.segments, named, self._told[tool]),
            turns=(*request.turns, turn),
            sampling=dataclasses.replace(request.sampling, max_tokens=room),
            prefix="",
            seed=derive_seed(request.seed, "input"),
            on_text=None,
        )
        return self._joined(named, self._told[tool], await self.naming.complete(asked))

    def _joined(self, named: Completion, told: str, called: Completion) -> Completion:
        """The naming, the documentation and the input as one reply."""
        given = tuple(self.tokenizer.encode(told, add_special_tokens=False)) if called.token_ids else ()
        before = _followed(named, given)
        return dataclasses.replace(
            called,
            text=named.text + told + called.text,
            token_ids=before.token_ids + called.token_ids,
            mask=before.mask + called.mask,
            logprobs=before.logprobs + called.logprobs,
            top_logprobs=before.top_logprobs + called.top_logprobs,
            prompt_tokens=named.prompt_tokens,
            seconds=named.seconds + called.seconds,
        )


class _Named(ToolConstraint):
    """Free text again behind the end: that is the answer."""

    def __init__(self, trie: Trie, ends: Sequence[int], *, marker: Sequence[int], end: int) -> None:
        super().__init__(trie, ends, marker=marker)
        self._end = end
        self._over = False

    def allowed(self, ids: Sequence[int]) -> np.ndarray | None:
        if self._over:
            return None
        found = super().allowed(ids)
        self._over = self.item == self._end
        return None if self._over else found


def _without_end(completion: Completion, ends: Sequence[int]) -> Completion:
    """A reply without the token that ended it: what is read next follows as in an attempt that was learned from."""
    if not completion.token_ids or completion.token_ids[-1] not in ends:
        return completion
    return dataclasses.replace(
        completion,
        token_ids=completion.token_ids[:-1],
        mask=completion.mask[:-1],
        logprobs=completion.logprobs[:-1],
        top_logprobs=completion.top_logprobs[:-1],
    )


def _followed(completion: Completion, given: Sequence[int]) -> Completion:
    """A reply's tokens with some behind them that were not sampled; the text stays."""
    count = len(given)
    return dataclasses.replace(
        completion,
        token_ids=(*completion.token_ids, *given),
        mask=(*completion.mask, *(False,) * count),
        logprobs=(*completion.logprobs, *(0.0,) * count),
        top_logprobs=(*completion.top_logprobs, *((),) * count) if completion.top_logprobs else (),
    )


def _ends(engine: TransformersPolicy) -> set[int]:
    token: Any = engine.tokenizer.eos_token_id
    return {token}
