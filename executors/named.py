"""Tools by the names and settings that a config gives them."""

import importlib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from executors.catalog import Catalog
from executors.environment import environment_tools
from executors.errors import ConfigError
from executors.offers import FILES, OFFERS, read_offer
from executors.tool import Tool, as_tool

Reference: TypeAlias = str | Mapping[str, Mapping[str, Any] | None]
"""``calculator``; ``package.module:attribute``; ``KIND:PATH``; or one of these with settings, ``{name: {...}}``."""

_FORMS = (
    "name a built-in such as 'calculator', 'package.module:attribute' of a module that Python can import, "
    f"or one of {', '.join(f'{kind}:PATH' for kind in FILES)}"
)


def load_tool(reference: Reference) -> Tool:
    """The tool that a config names.

    Raises:
        ConfigError: see ``load_tools``; or it is several tools.
        DataError: see ``load_tools``.
    """
    tools = load_tools(reference)
    if len(tools) != 1:
        names = ", ".join(tool.name for tool in tools) or "none"
        raise ConfigError(f"{_shown(reference)} is {len(tools)} tools: {names}; name one of them")
    return tools[0]


def load_tools(reference: Reference) -> list[Tool]:
    """The tools that a config names.

    Args:
        reference: a built-in such as ``calculator`` or ``dates``; ``package.module:attribute``, where the attribute is
            a tool, a function, an environment's class, or a list or a catalog of those; or ``KIND:PATH``: an
            ``openapi`` document, an ``mcp`` file of servers, a ``simulated`` OpenAPI document, a corpus for
            ``wiki_search``, or another project's catalog (``bfcl``, ``sealtools``, ``toolbench``, ``ste``), whose tools
            are described and have nothing behind them. With settings it is a mapping of one key: ``{wiki_search:
            {path: passages.jsonl, k: 3}}``, see ``executors.offers``; an attribute of a module is called with them.

    Raises:
        ConfigError: there is no such module or attribute, it is none of those, or its settings are wrong.
        DataError: a file cannot be read as what it should be.
    """
    name, settings = _read(reference)
    kind, _, path = name.partition(":")
    if kind in FILES and path and settings is None:
        return list(read_offer(kind, {"path": path}).tools())
    if name in OFFERS and settings is not None:
        return list(read_offer(name, settings).tools())
    found = _found(name)
    if settings is not None:
        found = _called(found, name, settings)
    return list(_as_tools(found, name))


def load_catalog(references: Sequence[Reference]) -> Catalog:
    """The catalog of all tools that a config names; ``describe`` among them documents the others.

    Raises:
        ConfigError: see ``load_tools``; or two tools share a name.
        DataError: see ``load_tools``.
    """
    named = [reference for reference in references if reference != "describe"]
    catalog = Catalog(tool for reference in named for tool in load_tools(reference))
    if len(named) == len(references):
        return catalog
    from executors.tools.describe import describe_tool

    return Catalog([*catalog, describe_tool(catalog)])


def _read(reference: Reference) -> tuple[str, Mapping[str, Any] | None]:
    """A reference's name, and its settings where it is written with some."""
    if isinstance(reference, str):
        return reference, None
    if not isinstance(reference, Mapping) or len(reference) != 1:
        raise ConfigError(f"a tool is a name, or one name with its settings, not {_shown(reference)}")
    ((name, settings),) = reference.items()
    if settings is not None and not isinstance(settings, Mapping):
        raise ConfigError(f"the settings of tool {name!r} are keys and values, not {_shown(settings)}")
    return str(name), settings or {}


def _called(found: Any, name: str, settings: Mapping[str, Any]) -> Any:
    """What a function of a user's module makes of settings."""
    if isinstance(found, Tool | Catalog) or inspect.isclass(found) or not callable(found):
        if not settings:
            return found
        raise ConfigError(f"tool {name!r} takes no settings; leave them out, or name a function that makes the tool")
    try:
        inspect.signature(found).bind(**settings)
    except TypeError as error:
        raise ConfigError(f"tool {name!r} was given other settings than it takes: {error}") from error
    return found(**settings)


def _as_tools(found: Any, name: str) -> Iterator[Tool]:
    if isinstance(found, Tool):
        yield found
    elif isinstance(found, Catalog | list | tuple):
        for item in found:
            yield from _as_tools(item, name)
    elif inspect.isclass(found):
        yield from environment_tools(found)
    elif callable(found):
        yield as_tool(found)
    else:
        raise ConfigError(f"{name!r} is a {type(found).__name__}, not a tool or several; decorate it with @tool")


def _found(name: str) -> Any:
    """What a name stands for; a built-in that is made without settings is made."""
    module_name, _, attribute = name.partition(":")
    if not attribute:
        module_name, attribute = f"executors.tools.{name}", name
    try:
        module = importlib.import_module(module_name)
        if hasattr(module, attribute) or name not in OFFERS:
            return getattr(module, attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"tool {name!r} was not found ({error}); {_FORMS}") from error
    tools: Iterable[Tool] = read_offer(name, {}).tools()
    return list(tools)


def _shown(value: Any) -> str:
    return repr(value)[:200]
