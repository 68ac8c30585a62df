"""Environments in TRL's form: an object that an episode changes through the tools that are its methods.

A class with ``reset(**row) -> str | None``, public methods with hints and docstrings, and perhaps
``get_reward() -> float``: what ``GRPOTrainer(environment_factory=...)`` takes works here unchanged, and the other way
round. Here, methods may also be async, a ``reset`` need not take the whole row, and a ``close()`` without parameters
is called at the episode's end and is no tool.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from executors.errors import ConfigError, DataError
from executors.signature import read_signature
from executors.tool import Limits, Tool, adapt
from executors.types import Scene


@dataclass(slots=True)
class EnvironmentState:
    """One episode's environment, fresh and reset."""

    environment: Any
    opening: str = ""
    """What ``reset`` said: to be shown to the policy after its prompt."""

    async def get_reward(self) -> float | None:
        """The environment's own judgement of the episode; None where it gives none."""
        if not hasattr(self.environment, "get_reward"):
            return None
        reward = self.environment.get_reward()
        return float(await reward if inspect.isawaitable(reward) else reward)

    def close(self) -> Any:
        """Let the environment free what it holds; a coroutine where its ``close`` is one."""
        return self.environment.close() if _closes(type(self.environment)) else None


@dataclass(frozen=True, slots=True, eq=False)
class Environments:
    """Makes an environment for each episode."""

    factory: Callable[[], Any]
    """A class, or a function without parameters."""
    name: str
    """What its class is called."""
    is_async: bool = False
    """Whether making, resetting or closing it has to be awaited."""
    eager: bool = True
    """It is opened before the first call, because what ``reset`` says belongs to the prompt."""
    judges: bool = False
    """Whether its ``get_reward`` says what an episode is worth."""

    def open(self, scene: Scene) -> Any:
        """An ``EnvironmentState``, or a coroutine of one.

        ``reset`` is given what the row has for its parameters, or the whole row where it takes ``**row``; a parameter
        called ``seed`` gets the scene's where the row has none.

        Raises:
            DataError: the row lacks what ``reset`` needs.
            ConfigError: ``reset`` gave neither text nor None.
        """
        return self._aopen(scene) if self.is_async else self._open(scene)

    def _open(self, scene: Scene) -> EnvironmentState:
        state = EnvironmentState(self.factory())
        try:
            state.opening = self._opening(state.environment.reset(**self._row(state.environment, scene)))
        except BaseException:
            state.close()
            raise
        return state

    async def _aopen(self, scene: Scene) -> EnvironmentState:
        state = EnvironmentState(await _value(self.factory()))
        try:
            state.opening = self._opening(await _value(state.environment.reset(**self._row(state.environment, scene))))
        except BaseException:
            await _value(state.close())
            raise
        return state

    def _row(self, environment: Any, scene: Scene) -> dict[str, Any]:
        parameters = inspect.signature(environment.reset).parameters
        row = {"seed": scene.seed, **scene.row} if "seed" in parameters else dict(scene.row)
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return row
        needed = [key for key, parameter in parameters.items() if parameter.default is parameter.empty]
        if missing := [key for key in needed if key not in row]:
            raise DataError(
                f"{self.name}.reset needs {', '.join(missing)}, which the task does not have; "
                f"it has {', '.join(row) or 'nothing'}"
            )
        return {key: row[key] for key in parameters if key in row}

    def _opening(self, said: Any) -> str:
        if isinstance(said, list) and all(isinstance(part, dict) for part in said):
            said = "\n".join(str(part.get("text", f"[{part.get('type')}]")) for part in said)
        if not isinstance(said, str | None):
            raise ConfigError(f"{self.name}.reset gave a {type(said).__name__}; it may give a text or None")
        return said or ""


async def _value(made: Any) -> Any:
    return await made if inspect.isawaitable(made) else made


def environment_tools(factory: Callable[[], Any], *, name: str | None = None, limits: Limits = Limits()) -> list[Tool]:
    """The public methods of an environment as tools that share one environment per episode, in TRL's order.

    Args:
        factory: the class, or a function without parameters that makes an environment.
        name: set before the names of the tools, as ``name__method``, where a catalog holds several environments.
        limits: for each of the tools.

    Raises:
        ConfigError: there is no ``reset``, no tool, or a method that cannot be a tool.
    """
    kind = _class_of(factory)
    methods = dict(inspect.getmembers(kind, inspect.isfunction))
    if "reset" not in methods:
        raise ConfigError(f"{kind.__name__} has no reset method; an environment's reset makes it ready for an episode")
    hooks = {"reset", "get_reward"} | ({"close"} if _closes(kind) else set())
    awaited = (factory, methods["reset"], methods.get("close"))
    is_async = any(map(inspect.iscoroutinefunction, awaited))
    state = Environments(factory, kind.__name__, is_async, judges="get_reward" in methods)
    tools = []
    for method, function in methods.items():
        if method in hooks or method.startswith("_"):
            continue
        static = isinstance(inspect.getattr_static(kind, method), staticmethod)
        signature = read_signature(function, f"{name}__{method}" if name else method, method=not static)
        tools.append(Tool(signature.spec, adapt(function, signature, method), False, limits, state))
    if not tools:
        raise ConfigError(f"{kind.__name__} has no public method but its hooks, so a policy can do nothing in it")
    return tools


def _class_of(factory: Callable[[], Any]) -> type:
    """What a factory makes: its own class, what it says it returns, or what it makes when tried."""
    if inspect.isclass(factory):
        return factory
    if not callable(factory):
        raise ConfigError(f"{factory!r} is no factory of environments; give a class, or a function that makes one")
    said = inspect.signature(factory).return_annotation
    if inspect.isclass(said) and said is not inspect.Signature.empty:
        return said
    made = factory()
    if inspect.isawaitable(made):
        made.close() if inspect.iscoroutine(made) else None
        raise ConfigError(f"{factory!r} is async; write the class that it makes as its return type")
    return type(made)


def _closes(kind: type) -> bool:
    """Whether a class has a ``close`` that takes nothing: the hook."""
    close = getattr(kind, "close", None)
    return inspect.isfunction(close) and len(inspect.signature(close).parameters) == 1
