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
from executors.types import MalformedCall, ToolCall, ToolSpec
from rl.models.constrained import ToolConstraint
from rl.models.tool_tokens import ToolTokens
from rl.models.trie import Trie
from rl.serving.engine import TransformersPolicy
from rl.serving.wire import ChatError
from rollouts.formats.atomic import ACTION, DESCRIBE, FINISH, gave_up, pending, read_arguments
from rollouts.policy import Request
from rollouts.types import Completion, Task

if TYPE_CHECKING:
    from rl.serving.structured import Structures

RETRIES = (0.6, 1.0, 1.0, 1.0)
"""Temperatures of further tries, as published."""
_SORRY = ("i'm sorry", "apologize")

Provider = Callable[[Task], Sequence[str] | None]
"""The tools that may be named for a task; None for all."""


def given(task: Task) -> tuple[str, ...] | None:
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


def named_before(request: Request) -> tuple[str, ...]:
    """The tools that a search named in this very place before."""
    calls = (call for turn in request.tried for call in turn.calls)
    return tuple(str(c.arguments["tool"]) for c in calls if isinstance(c, ToolCall) and c.tool == DESCRIBE)


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
        said = completion.text.lower()
        return repeated or gave_up(completion.text) or (FINISH in completion.text and any(s in said for s in _SORRY))

    async def _once(self, request: Request) -> Completion:
        tool = pending(request.turns)
        return await (self._named(request) if tool is None else self._called(request, tool))

    async def _named(self, request: Request) -> Completion:
        """A thought and a tool, or the end and the answer behind it."""
        names = self.provider(request.task)
        offered = [name for name in self.tokens.texts if name != self.finish] if names is None else list(names)
        tried = set(self.without(request))
        trie, end = self._trie((*(name for name in offered if name not in tried), self.finish))
        constraint = _Named(trie, self._ends, marker=self._marker, end=end)
        completion = await self.engine.complete(dataclasses.replace(request, constraint=constraint))
        _, marked, named = completion.text.rpartition(ACTION)
        if not marked or named.strip().startswith(FINISH):
            return dataclasses.replace(completion, calls=())
        name = self._texts.get(named.strip())
        if name is None:
            cut = MalformedCall(completion.text, f"{named.strip()[:80]!r} is no tool; the reply was cut")
            return dataclasses.replace(completion, calls=(cut,))
        return dataclasses.replace(completion, calls=(ToolCall(DESCRIBE, {"tool": name}),))

    async def _called(self, request: Request, tool: str) -> Completion:
        sampling = dataclasses.replace(request.sampling, max_tokens=self.max_arguments)
        constraint = self._held_to_schema(tool)
        asked = dataclasses.replace(request, sampling=sampling, stop=("\n",), constraint=constraint)
        completion = await self.engine.complete(asked)
        return dataclasses.replace(completion, calls=(read_arguments(tool, completion.text),))

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

    def _trie(self, names: tuple[str, ...]) -> tuple[Trie, int]:
        """The tools' trie, and which of its sequences is the end; the last few are kept."""
        if names not in self._tries:
            if len(self._tries) > 64:
                self._tries.clear()
            self._tries[names] = self.tokens.trie(self.engine.tokenizer, list(names)), len(names) - 1
        return self._tries[names]


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


def _ends(engine: TransformersPolicy) -> set[int]:
    token: Any = engine.tokenizer.eos_token_id
    return {token}
