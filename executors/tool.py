"""``@tool``: a Python function, its hints and its docstring become a tool."""

import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, overload

from executors.errors import ConfigError
from executors.signature import Signature, read_signature
from executors.types import Scene, ToolSpec


class Stateful(Protocol):
    """Makes what the calls of one episode share: an environment, a jail, a simulated API.

    One with a true ``eager`` is opened before the first call, and what its state has as ``opening`` ends the prompt.
    One with a true ``judges`` is asked at the end what the episode is worth: its state's ``get_reward()``.
    """

    def open(self, scene: Scene) -> Any:
        """A fresh state for one episode; may be a coroutine. Its ``close()``, if any, is called at the end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How a tool may be used; None leaves it to the executor."""

    timeout: float | None = None
    """Seconds for one try."""
    retries: int = 2
    """Further tries after a ``TransientError``, with back-off."""
    per_second: float | None = None
    """Calls started each second, in one process."""
    concurrency: int | None = None
    """Calls under way at once, in one process."""
    cache: bool = False
    """Whether equal arguments give equal answers, so that an answer may be kept."""
    version: str = "1"
    """Changes whenever the tool answers differently: answers kept for another version are not used."""
    idempotent: bool = True
    """Whether a call does no harm when it is made again after a crash: not where it changes anything that outlives the
    episode, such as an order placed. A state that only its episode knows is no such thing."""

    def __post_init__(self) -> None:
        for name in ("timeout", "per_second"):
            if (most := getattr(self, name)) is not None and not most > 0:
                raise ConfigError(f"a tool's {name} must be over 0, got {most}; None leaves it to the executor")
        if self.concurrency is not None and self.concurrency < 1:
            raise ConfigError(f"a tool's concurrency must be at least 1, got {self.concurrency}; None is no limit")
        if self.retries < 0:
            raise ConfigError(f"a tool's retries must be at least 0, got {self.retries}")


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that policies may call, and what they are told of it."""

    spec: ToolSpec
    function: Callable[..., Any]
    """Sync or async, called with the arguments by name; after the episode's state where ``state`` is set."""
    instant: bool = False
    """True for a pure function that bounds its own work to milliseconds: it runs in place, without a time-out."""
    limits: Limits = Limits()
    state: Stateful | None = None
    """What makes the episode's state; tools that name the same one share the state."""

    @property
    def name(self) -> str:
        return self.spec.name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        """A tool that a module holds under its function's name is sent to other processes by that name.

        One of a script is sent whole, by what can send functions, such as Ray: no other process can import the script.
        """
        adapted = getattr(self.function, "__self__", None)
        function = adapted.function if isinstance(adapted, Adapted) else self.function
        module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
        if module != "__main__" and getattr(sys.modules.get(module), name, None) is self:
            return _imported, (module, name)
        return Tool, (self.spec, self.function, self.instant, self.limits, self.state)


def _imported(module: str, name: str) -> Tool:
    return getattr(importlib.import_module(module), name)


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *, name: str | None = None, instant: bool = False, limits: Limits = ...
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    instant: bool = False,
    limits: Limits = Limits(),
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a tool of a function: the signature is the schema, the docstring is what the policy reads.

    The description is the docstring up to its ``Args:`` section; each argument's own line there (Google style)
    becomes the description of its parameter. Every parameter needs a type hint.

    Args:
        function: the function; sync or async. It raises ``ToolError`` to refuse a call.
        name: the tool's name where it should differ from the function's.
        instant: see ``Tool.instant``.
        limits: see ``Limits``.

    Raises:
        ConfigError: a parameter without a hint, or a hint that has no JSON Schema.
    """

    def make(function: Callable[..., Any]) -> Tool:
        return as_tool(function, name=name, instant=instant, limits=limits)

    return make if function is None else make(function)


def as_tool(
    function: Callable[..., Any], *, name: str | None = None, instant: bool = False, limits: Limits = Limits()
) -> Tool:
    """A tool of anything that can be called, such as the functions given to TRL's trainers; a tool as it is.

    A function, a bound method, a ``functools.partial`` and an object with ``__call__`` will do; sync, async or a
    generator, whose pieces the executor joins. Arguments whose hints are no plain JSON types (pydantic models,
    dataclasses, ``TypedDict``, ``Enum``, dates) arrive as those types.

    Args:
        function: what is called.
        name: the tool's name where it should differ from the function's.
        instant: see ``Tool.instant``.
        limits: see ``Limits``.

    Raises:
        ConfigError: it cannot be called, has a parameter without a hint, or a hint that has no JSON Schema.
    """
    if isinstance(function, Tool):
        return function
    if not callable(function) or inspect.isclass(function):
        raise ConfigError(
            f"{function!r} is no function; make tools of a class with environment_tools, of an object by its __call__"
        )
    signature = read_signature(function, name or _name(function))
    return Tool(signature.spec, adapt(function, signature), instant, limits)


def _name(function: Callable[..., Any]) -> str:
    if isinstance(function, functools.partial):
        return _name(function.func)
    return getattr(function, "__name__", type(function).__name__)


def adapt(function: Callable[..., Any], signature: Signature, method: str = "") -> Callable[..., Any]:
    """What a tool calls: the function itself where it takes what JSON says.

    Args:
        function: what was decorated.
        signature: as ``read_signature`` read it.
        method: as what the ``environment`` of the episode's state, which comes first, has it; empty for a function.
    """
    adapted = Adapted(function, signature, method)
    called = adapted.called
    if not signature.conversions and not method:
        return called
    return adapted.arun if inspect.iscoroutinefunction(called) else adapted.run


@dataclass(frozen=True, slots=True)
class Adapted:
    """A function behind the conversion of its arguments."""

    function: Callable[..., Any]
    signature: Signature
    method: str = ""
    """Which method of the first argument's ``environment`` runs instead of the function."""

    @property
    def called(self) -> Callable[..., Any]:
        """What runs: of an object its ``__call__``, which shows whether it is async."""
        return self.function.__call__ if inspect.isfunction(type(self.function).__call__) else self.function

    def _call(self, args: tuple[Any, ...], arguments: dict[str, Any]) -> Any:
        arguments = self.signature.converted(arguments)
        if self.method:
            return getattr(args[0].environment, self.method)(*args[1:], **arguments)
        return self.function(*args, **arguments)

    def run(self, /, *args: Any, **arguments: Any) -> Any:
        return self._call(args, arguments)

    async def arun(self, /, *args: Any, **arguments: Any) -> Any:
        return await self._call(args, arguments)
