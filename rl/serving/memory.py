"""How much an engine keeps: prompts, sessions between their turns, and room for the rows that are being decoded."""

from collections import Counter
from dataclasses import dataclass, fields
from typing import Protocol

from rl.serving.prompts import Prompt, Prompts, common


@dataclass(slots=True)
class Counts:
    """What an engine has done, in tokens; ``evicted`` and ``failed`` in sessions and replies."""

    read: int = 0
    """Of prompts and observations, gone through by the model."""
    shared: int = 0
    """Of prompts, not gone through: another request had begun alike."""
    reread: int = 0
    """Gone through again (they are among ``read``), since a session had to make room."""
    written: int = 0
    evicted: int = 0
    failed: int = 0
    passes: int = 0
    """Forward passes."""

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))

    def copy(self) -> "Counts":
        """As they are now."""
        return self - Counts()


class Kept(Protocol):
    """Keys and values, or whatever else a model keeps of what it has read."""

    @property
    def length(self) -> int:
        """Tokens that it takes the memory of."""
        ...

    def cut(self, length: int) -> "Kept | None":
        """As it was after its first tokens; None where that cannot be told any more."""
        ...


@dataclass(slots=True, eq=False)
class Parked:
    """A session between two turns: what it holds after its prompt."""

    adapter: str
    tokens: tuple[int, ...]
    """All that it has read."""
    prompt: Prompt | None
    """Attended where it lies; None where the strip holds it too."""
    strip: Kept
    used: int

    def cut(self, length: int) -> "Parked | None":
        """As it was when it had read so many tokens; None where that cannot be told, or its prompt goes further."""
        if length == len(self.tokens):
            return self
        own = length - (len(self.prompt.tokens) if self.prompt else 0)
        strip = self.strip.cut(own) if own > 0 else None
        return None if strip is None else Parked(self.adapter, self.tokens[:length], self.prompt, strip, self.used)


class Tenant(Protocol):
    """A lane, as far as memory goes."""

    @property
    def claimed(self) -> int:
        """Tokens that were promised to rows."""
        ...

    @property
    def taken(self) -> int:
        """Tokens that there is memory for, or that are claimed, whichever is more."""
        ...

    def trim(self) -> bool:
        """Give back what is not claimed; whether there was any."""
        ...


class Memory:
    """A budget of tokens, and who is evicted when it is short: the longest unused prompt or session."""

    def __init__(self, limit: int, logits_cost: int = 0) -> None:
        """
        Args:
            limit: tokens whose keys and values are kept at most.
            logits_cost: tokens that a prompt's logits take the memory of.
        """
        self.limit = limit
        self.counts = Counts()
        self.prompts = Prompts(logits_cost)
        self.tenants: list[Tenant] = []
        self._parked: dict[str, Parked] = {}
        self._parked_tokens = 0
        self._evicted: dict[str, int] = {}

    @property
    def used(self) -> int:
        """Tokens for which memory is taken or promised."""
        return self.prompts.tokens + self._parked_tokens + sum(tenant.taken for tenant in self.tenants)

    def make_room(self) -> bool:
        """Whether all that was promised fits, once others were evicted if they have to be."""
        if self.used <= self.limit:
            return True
        if self._fixed() > self.limit:
            return False
        while self.used > self.limit and (any(tenant.trim() for tenant in self.tenants) or self._evict()):
            pass
        return self.used <= self.limit

    def park(self, session: str, parked: Parked) -> None:
        """Keep a session until its next turn. It holds its prompt, and so does who parks it until then."""
        self.forget(session)
        self._parked[session] = parked
        self._parked_tokens += parked.strip.length

    def resume(self, session: str, adapter: str, tokens: tuple[int, ...], head: tuple[int, ...] = ()) -> Parked | None:
        """What is kept of a session, as far as what it is to read begins alike; it is no longer kept here then.

        Args:
            session: by its name.
            adapter: that is to read.
            tokens: what it is to read; one of them at least is left to be read.
            head: the first of them: where that prompt is known and the session has no more of it, it is forgotten.
        """
        kept = self._parked.get(session)
        if kept is None:
            return None
        same = kept.cut(common(kept.tokens, tokens[:-1])) if kept.adapter == adapter else None
        if same is None or (len(same.tokens) < len(head) and self.prompts.find(adapter, head)):
            self.forget(session)
            return None
        del self._parked[session]
        self._parked_tokens -= kept.strip.length
        return same

    def forget(self, session: str) -> None:
        """The session is over."""
        self._evicted.pop(session, None)
        self._drop(session)

    def clear(self, adapter: str | None = None) -> None:
        """Forget all that was read, or what one adapter read: its weights are others now."""
        for session in [name for name, kept in self._parked.items() if adapter in (None, kept.adapter)]:
            self._drop(session)
        self.prompts.clear(adapter)

    def returned(self, session: str) -> int:
        """How many tokens were kept of a session that was evicted and now has to be read again."""
        return self._evicted.pop(session, 0)

    def _drop(self, session: str) -> None:
        if kept := self._parked.pop(session, None):
            self._parked_tokens -= kept.strip.length
            if kept.prompt:
                self.prompts.release(kept.prompt)

    def _evict(self) -> bool:
        """Let the longest unused prompt or session go; whether there was one."""
        prompt = self.prompts.idle()
        session = next(iter(self._parked), None)
        if session is not None and (prompt is None or self._parked[session].used < prompt.used):
            self.counts.evicted += 1
            self._evicted[session] = len(self._parked[session].tokens)
            self._drop(session)
        elif prompt is not None:
            self.prompts.forget(prompt)
        return prompt is not None or session is not None

    def _fixed(self) -> int:
        """Tokens that no eviction would free."""
        holders = Counter(kept.prompt for kept in self._parked.values() if kept.prompt)
        parked = sum(self.prompts.cost(prompt) for prompt, count in holders.items() if prompt.users == count)
        slack = sum(tenant.taken - tenant.claimed for tenant in self.tenants)
        return self.used - self._parked_tokens - parked - self.prompts.idle_tokens - slack
