"""A named set of tools."""

import difflib
import importlib
from collections.abc import Iterable, Iterator, Sequence

from executors.errors import ConfigError, UnknownToolError
from executors.tool import Tool
from executors.types import ToolSpec


class Catalog:
    """Tools by name; the names are unique and the order is kept."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            if tool.name in self._tools:
                raise ConfigError(f"two tools are named {tool.name!r}; rename one with @tool(name=...)")
            self._tools[tool.name] = tool

    def __len__(self) -> int:
        return len(self._tools)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tools)

    def specs(self, names: Sequence[str] | None = None) -> tuple[ToolSpec, ...]:
        """What policies are told of the named tools, or of all."""
        return tuple(self.get(name).spec for name in (self.names if names is None else names))

    def get(self, name: str) -> Tool:
        """The tool of that name.

        Raises:
            UnknownToolError: there is none; the message, which the policy reads, names the closest.
        """
        if name in self._tools:
            return self._tools[name]
        close = difflib.get_close_matches(name, self._tools, n=3, cutoff=0.4) or list(self._tools)[:3]
        raise UnknownToolError(
            f"no tool named {name!r} among the {len(self)} in this catalog; closest: {', '.join(close)}"
        )


def load_tool(reference: str) -> Tool:
    """The tool that a config names: a built-in by its name, or ``package.module:attribute``.

    Raises:
        ConfigError: there is no such module or attribute, or it is not a tool.
    """
    module_name, _, attribute = reference.partition(":")
    if not attribute:
        module_name, attribute = f"executors.tools.{reference}", reference
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"tool {reference!r} was not found ({error}); name a built-in such as 'calculator', "
            "or 'package.module:function' of a module that Python can import"
        ) from error
    if not isinstance(found, Tool):
        raise ConfigError(f"{reference!r} is a {type(found).__name__}, not a tool; decorate it with @tool")
    return found
