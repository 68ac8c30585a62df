"""Which weights answer a request: policies held for as long as requests are under way on them.

A request keeps the weights that it began with. Newer ones are loaded beside them and answer what comes later; older
ones go once nobody uses them. Checkpoints that are adapters of one model share it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from executors.errors import ConfigError, DataError
from rl.serving.chat import ChatServer
from rl.serving.wire import ChatError, unknown_model
from rollouts.policy import Policy, Request
from rollouts.types import Completion

if TYPE_CHECKING:
    from rl.serving.engine import TransformersPolicy
    from rl.serving.published import Checkpoint, Published

_MAX_ADAPTERS = 8
"""Adapters of one model that are kept in memory beside those in use."""

log = logging.getLogger(__name__)

Opener: TypeAlias = Callable[[Path, int], Policy]
"""Loads the policy in a directory; told which version it is. Called in a thread of its own."""


class Servers(Protocol):
    """The policies that requests may ask for by their ``model``."""

    @property
    def version(self) -> int:
        """Of the weights that answer by default."""
        ...

    def lease(self, model: str) -> AbstractAsyncContextManager[ChatServer]:
        """What answers a request, from its beginning to its end.

        Raises:
            ChatError: there is no such model, or it cannot be had now.
        """
        ...

    async def models(self) -> list[dict[str, Any]]:
        """As ``/v1/models`` lists them; the default comes first."""
        ...


class OneServer:
    """One policy under one name."""

    def __init__(self, server: ChatServer, model: Mapping[str, Any]) -> None:
        """
        Args:
            server: of the policy.
            model: as ``/v1/models`` describes it; its ``id`` is the name.
        """
        self._server = server
        self._model = dict(model)

    @property
    def version(self) -> int:
        """See ``Servers``."""
        return self._server.policy.version

    @asynccontextmanager
    async def lease(self, model: str) -> AsyncIterator[ChatServer]:
        """See ``Servers``."""
        if model != self._model["id"]:
            raise unknown_model(model, [self._model["id"]])
        yield self._server

    async def models(self) -> list[dict[str, Any]]:
        """See ``Servers``."""
        return [self._model]


class AdapterPolicy:
    """One adapter of an engine as a policy of its own."""

    def __init__(self, engine: "TransformersPolicy", adapter: str, version: int) -> None:
        """
        Args:
            engine: has the adapter.
            adapter: what the engine calls it.
            version: of the adapter's weights.
        """
        self.name = engine.name
        self.version = version
        self.engine = engine
        self.tokenizer = engine.tokenizer
        self.ends = engine.ends
        self.adapter = adapter

    async def complete(self, request: Request) -> Completion:
        """See ``Policy.complete``."""
        return await self.engine.complete(replace(request, adapter=self.adapter))

    def release(self, session: str) -> None:
        self.engine.release(session)

    def load(self, weights: Mapping[str, Any], version: int) -> None:
        raise DataError(f"{self.name} serves published adapters; load one from its directory")


@dataclass(slots=True)
class _Held:
    """A policy in memory, and how many requests are under way on it."""

    policy: Policy
    server: ChatServer
    leases: int = 0
    adapters: dict[tuple[Path, int], "_Held"] = field(default_factory=dict)
    """Of a model, the least recently used first; a lease of an adapter is one of its model too."""


class Weights:
    """The checkpoints of one run as Servers; lives in one event loop."""

    def __init__(
        self,
        name: str,
        published: "Published",
        opener: Opener,
        build: Callable[[Policy], ChatServer],
        *,
        adapters: Mapping[str, "Checkpoint"] = {},
        keep: int = 1,
        about: Mapping[str, Any] = {},
    ) -> None:
        """Loads the default.

        Args:
            name: what clients call the default; ``NAME:step-40`` is one of the others.
            published: the checkpoints.
            opener: loads a model.
            build: what answers with a policy.
            adapters: further ones, by what clients call them.
            keep: models kept in memory beside that which answers by default; what is asked for beyond takes the place
                of the least recently used one, once nobody uses that.
            about: what ``/v1/models`` says of the default beside the rest.

        Raises:
            DataError: the default is not there, or cannot be loaded.
        """
        self.name = name
        self._published = published
        self._opener = opener
        self._build = build
        self._adapters = dict(adapters)
        self._keep = max(1, keep)
        self._about = dict(about)
        self._held: dict[tuple[Path, int], _Held] = {}
        """Models by directory and time, the least recently used first."""
        self._loading = asyncio.Lock()
        self._released = asyncio.Event()
        self._refused: set[tuple[Path, int]] = set()
        self._current = published.default()
        self._put(self._current, opener(self._current.base, 0 if self._current.adapter else self._current.version))
        if self._current.adapter:
            self._add_adapter(self._current)

    @property
    def version(self) -> int:
        """See ``Servers``."""
        return self._current.version

    @property
    def held(self) -> int:
        """Models in memory."""
        return len(self._held)

    async def models(self) -> list[dict[str, Any]]:
        """See ``Servers``."""
        every = await asyncio.to_thread(self._published.every)
        named = [
            (self.name, self._current),
            *((f"{self.name}:{one.id}", one) for one in every),
            *self._adapters.items(),
        ]
        listed = [self._described(name, one) for name, one in named]
        return [listed[0] | self._about, *listed[1:]]

    def _described(self, name: str, one: "Checkpoint") -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": one.saved // 10**9,
            "owned_by": "apprentice",
            "checkpoint": one.id,
            "version": one.version,
            "adapter": one.adapter,
        }

    @asynccontextmanager
    async def lease(self, model: str) -> AsyncIterator[ChatServer]:
        """See ``Servers``."""
        wanted = self._current if model == self.name else await self._find(model)
        try:
            model_held, held = await self._hold(wanted)
        except (DataError, ConfigError) as error:
            raise ChatError(f"{model} cannot be loaded: {error}", status=503, code="model_unavailable") from error
        try:
            yield held.server
        finally:
            self._let_go(model_held, held)

    async def refresh(self) -> bool:
        """Let the weights answer by default that the folder names now; whether they are others than before.

        Raises:
            DataError, ConfigError: they are not there or cannot be loaded; those from before go on answering.
        """
        newest = await asyncio.to_thread(self._published.default)
        if _key(newest) in (_key(self._current), *self._refused):
            return False
        try:
            model_held, held = await self._hold(newest)
        except (DataError, ConfigError):
            self._refused.add(_key(newest))
            raise
        self._current = newest
        self._let_go(model_held, held)
        return True

    async def follow(self, seconds: float) -> None:
        """Refresh for ever, every so many seconds; what cannot be taken is told once, in the log."""
        told = ""
        while True:
            await asyncio.sleep(seconds)
            try:
                if await self.refresh():
                    log.warning("%s is at version %d now (%s)", self.name, self.version, self._current.id)
            except (DataError, ConfigError, OSError) as error:
                if str(error) != told:
                    log.error("%s stays at version %d: %s", self.name, self.version, error)
                told = str(error)

    async def _find(self, model: str) -> "Checkpoint":
        """The checkpoint that a request names. Raises ChatError where there is none."""
        if model in self._adapters:
            return self._adapters[model]
        name, _, id = model.partition(":")
        found = await asyncio.to_thread(self._published.find, id) if name == self.name else None
        if found is None:
            raise unknown_model(model, [one["id"] for one in await self.models()])
        return found

    async def _hold(self, wanted: "Checkpoint") -> tuple[_Held, _Held]:
        """The model and what answers, loaded where they are not, each with a lease more."""
        model_key = _model_key(wanted)
        if not self._is_loaded(wanted):
            async with self._loading:
                if model_key not in self._held:
                    await self._make_room()
                    version = 0 if wanted.adapter else wanted.version
                    self._put(wanted, await asyncio.to_thread(self._opener, wanted.base, version))
                if wanted.adapter and _key(wanted) not in self._held[model_key].adapters:
                    self._add_adapter(wanted)
        model = self._held[model_key] = self._held.pop(model_key)  # the most recently used is the last
        model.leases += 1
        if not wanted.adapter:
            return model, model
        held = model.adapters[_key(wanted)] = model.adapters.pop(_key(wanted))
        held.leases += 1
        return model, held

    def _is_loaded(self, wanted: "Checkpoint") -> bool:
        model = self._held.get(_model_key(wanted))
        return model is not None and (not wanted.adapter or _key(wanted) in model.adapters)

    def _let_go(self, model: _Held, held: _Held) -> None:
        model.leases -= 1
        if held is not model:
            held.leases -= 1
        self._released.set()

    async def _make_room(self) -> None:
        """Wait until one more model may be held; the one that answers by default stays, and so do those in use."""
        while len(self._held) > self._keep:
            current = _model_key(self._current)
            idle = next((key for key, held in self._held.items() if not held.leases and key != current), None)
            if idle is not None:
                del self._held[idle]
                continue
            self._released.clear()
            await self._released.wait()

    def _put(self, wanted: "Checkpoint", policy: Policy) -> None:
        self._held[_model_key(wanted)] = _Held(policy, self._build(policy))

    def _add_adapter(self, wanted: "Checkpoint") -> None:
        """Load an adapter on its model, which no decoding step can see half done, and forget the longest unused."""
        model = self._held[_model_key(wanted)]
        engine: Any = model.policy
        if not hasattr(engine, "load_adapter"):
            raise ConfigError(f"{self.name} is of a kind that takes no adapters")
        idle = [key for key, held in model.adapters.items() if not held.leases and key != _key(self._current)]
        for key in idle[: max(0, len(model.adapters) - _MAX_ADAPTERS + 1)]:
            gone: Any = model.adapters.pop(key).policy
            engine.unload_adapter(gone.adapter)
        name = f"{wanted.id.replace('.', '_')}-{wanted.saved}"  # PEFT takes no dots
        engine.load_adapter(name, wanted.path)
        policy = AdapterPolicy(engine, name, wanted.version)
        model.adapters[_key(wanted)] = _Held(policy, self._build(policy))


def _key(one: "Checkpoint") -> tuple[Path, int]:
    return one.path, one.saved


def _model_key(one: "Checkpoint") -> tuple[Path, int]:
    return one.base, one.base_saved
