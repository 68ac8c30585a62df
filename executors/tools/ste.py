"""STE's APIs: those that need no network are executed for real, the others are answered from their schemas.

What a policy is told of an API is what STE's descriptions say, read where they lie. What it does is one decorated
function, in the file of its subject:

    @ste_api("Numbers Translator%%Numbers Translator")
    def number_in_words(text: str = "1") -> str: ...
"""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from executors.errors import ConfigError
from executors.foreign import ForeignTool, read_ste
from executors.openapi.operations import Operation
from executors.openapi.tools import Api
from executors.simulation.simulated import simulated_tools
from executors.tool import Stateful, Tool
from executors.types import ToolSpec

F = TypeVar("F", bound=Callable[..., Any])

_SUBJECTS = ("numerals", "passwords", "places", "reckoning", "tables")
"""Files that hold implemented APIs."""


@dataclass(frozen=True, slots=True)
class Local:
    """How an API is executed here."""

    function: Callable[..., Any]
    state: Stateful | None


_LOCAL: dict[str, Local] = {}


def ste_api(name: str, *, state: Stateful | None = None) -> Callable[[F], F]:
    """Let a function answer for one of STE's APIs. The function itself stays as it is.

    Args:
        name: as STE writes it, ``tool%%api``. The function's parameters are the API's.
        state: what makes the episode's state, which then comes first.
    """

    def register(function: F) -> F:
        _LOCAL[name] = Local(function, state)
        return function

    return register


def local_apis() -> tuple[str, ...]:
    """The APIs that are executed here, as STE writes them."""
    _load()
    return tuple(_LOCAL)


def ste_tools(path: str | Path, names: Iterable[str] | None = None, *, simulate: bool = True) -> list[Tool]:
    """Tools of STE's APIs.

    Args:
        path: ``API_descriptions.json``, or the folder that holds it.
        names: as STE writes them, in the order wanted; all by default.
        simulate: whether those that are not executed here are answered from their schemas; else they are left out.

    Raises:
        DataError: the descriptions cannot be read.
        ConfigError: there is no such API.
    """
    _load()
    described = {raw_name(one): one for one in read_ste(path)}
    wanted = list(described if names is None else names)
    if unknown := [name for name in wanted if name not in described]:
        raise ConfigError(f"STE describes no API {unknown[0]!r}; its names are like 'Numbers%%Get math fact'")
    specs = {name: described[name].spec for name in wanted}
    played = simulated_specs([spec for name, spec in specs.items() if name not in _LOCAL]) if simulate else []
    tools = {tool.name: tool for tool in played} | {
        spec.name: Tool(spec, _LOCAL[name].function, instant=True, state=_LOCAL[name].state)
        for name, spec in specs.items()
        if name in _LOCAL
    }
    return [tools[spec.name] for spec in specs.values() if spec.name in tools]


def raw_name(tool: ForeignTool) -> str:
    """An API's name as STE writes it."""
    return f"{tool.identity.owner}%%{tool.identity.raw}" if tool.identity.owner else tool.identity.raw


def simulated_specs(specs: Iterable[ToolSpec]) -> list[Tool]:
    """Tools that hold calls to their schemas, and answer with plausible things that stay the same in an episode."""
    operations = tuple(
        Operation(
            name=spec.name,
            method="GET",
            path=f"/{spec.name}",
            description=spec.description,
            parameters=spec.parameters,
            arguments={},
            response=spec.returns or _ANSWER,
        )
        for spec in specs
    )
    if not operations:
        return []
    by_name = {tool.name: tool for tool in simulated_tools(Api(title="described", operations=operations))}
    return [by_name[operation.name] for operation in operations]


_ANSWER = {
    "type": "object",
    "properties": {
        "status": {"const": "ok"},
        "results": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": "integer"},
                    "name": {"type": "string"},
                    "description": {"type": "string"},
                },
                "required": ["id", "name", "description"],
            },
        },
    },
    "required": ["status", "results"],
}
"""What an API answers that does not say what it answers."""


def _load() -> None:
    for subject in _SUBJECTS:
        importlib.import_module(f"executors.tools.{subject}")
