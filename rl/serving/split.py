"""Several policies behind one endpoint: who answers a request, and how many each has answered."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from executors.errors import ConfigError
from rl.serving.completions import ReplyRequest
from rl.serving.gate import Figures, caller
from rl.serving.http import Answer, Engine
from rl.serving.wire import Asking, unknown_model
from rollouts.policy import derive_seed

SPLIT = "split"
"""What clients call several policies together."""

Routed = TypeVar("Routed", bound=Asking)


@dataclass(frozen=True, slots=True)
class Split:
    """How requests that name no policy are shared out."""

    shares: Mapping[str, float]
    """By the policies' names; of their sum."""

    def __post_init__(self) -> None:
        if not self.shares or min(self.shares.values()) < 0 or sum(self.shares.values()) <= 0:
            raise ConfigError(f"shares of {dict(self.shares)} cannot be given out; take numbers such as 90,10")

    def choose(self, key: str) -> str:
        """The policy that answers to a key: always the same one, and each as often as its share among many keys."""
        left = derive_seed("split", key) / 2**53 * sum(self.shares.values())
        for name, share in self.shares.items():
            if left < share:
                return name
            left -= share
        return next(name for name, share in reversed([*self.shares.items()]) if share)


class Router:
    """Several Engines as one. A request names a policy, or one of its checkpoints, or leaves it to the split."""

    def __init__(self, engines: Mapping[str, Engine], split: Split | None, figures: Figures) -> None:
        """
        Args:
            engines: by the names of their policies.
            split: of the requests that name ``split``; None where there is one policy.
            figures: where answers are counted by policy.
        """
        self._engines = dict(engines)
        self._split = split
        self._figures = figures

    async def ready(self) -> int:
        """See ``Engine``: of the first policy."""
        versions = {name: await engine.ready() for name, engine in self._engines.items()}
        for name, version in versions.items():
            self._figures.version.labels(name).set(version)
        return next(iter(versions.values()))

    async def models(self) -> list[dict[str, Any]]:
        """See ``Engine``."""
        listed = [model for engine in self._engines.values() for model in await engine.models()]
        if self._split is None:
            return listed
        together = {"id": SPLIT, "object": "model", "created": listed[0]["created"], "owned_by": "apprentice"}
        return [together | {"split": dict(self._split.shares)}, *listed]

    async def complete(self, chat: ReplyRequest) -> Answer:
        """See ``Engine``."""
        name, chat = self._routed(chat)
        status = 503
        try:
            status, body = await (await self._engine(name, chat)).complete(chat)
        finally:
            self._count(name, status)
        return status, body

    async def stream(self, chat: ReplyRequest) -> AsyncIterator[Answer]:
        """See ``Engine``."""
        name, chat = self._routed(chat)
        status = 503
        try:
            async for status, chunk in (await self._engine(name, chat)).stream(chat):
                yield status, chunk
        finally:
            self._count(name, status)

    def _routed(self, request: Routed) -> tuple[str, Routed]:
        """The policy that answers a request, and the request as that is asked: its ``model`` says who answers."""
        if self._split is not None and request.model == SPLIT:
            name = self._split.choose(key_of(request))
            return name, request.model_copy(update={"model": name})
        name = request.model.partition(":")[0]
        return (next(iter(self._engines)) if len(self._engines) == 1 else name), request

    async def _engine(self, name: str, request: Asking) -> Engine:
        if name not in self._engines:
            raise unknown_model(request.model, [model["id"] for model in await self.models()])
        return self._engines[name]

    def _count(self, name: str, status: int) -> None:
        if name in self._engines:
            self._figures.policies.labels(name, str(status)).inc()


def key_of(request: Asking) -> str:
    """What keeps a conversation with one policy: its session, its user, or who asks; else what it began with."""
    labels = getattr(request, "metadata", None) or {}
    who = caller.get()
    for kind, value in (("session", labels.get("session")), ("user", request.user)):
        if value:
            return f"{who}/{kind}/{value}"
    if who:
        return f"{who}/key"
    messages: Sequence[Any] = getattr(request, "messages", ())
    return json.dumps(messages[0].model_dump() if messages else request.model_dump(), sort_keys=True, default=str)


def read_shares(text: str | None, names: Sequence[str]) -> Split | None:
    """The split that a command says, such as ``90,10``; even where it says none, None where there is one policy.

    Raises:
        ConfigError: it is no number for each policy.
    """
    if len(names) == 1:
        if text is not None:
            raise ConfigError("--split shares requests between several runs, and there is one; name another")
        return None
    try:
        shares = [float(part) for part in text.split(",")] if text is not None else [1.0] * len(names)
    except ValueError as error:
        raise ConfigError(f"--split {text!r} is no list of numbers; write one for each run, such as 90,10") from error
    if len(shares) != len(names):
        raise ConfigError(f"--split {text!r} has {len(shares)} numbers for {len(names)} runs; write one for each")
    return Split(dict(zip(names, shares, strict=True)))
