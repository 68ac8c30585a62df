"""The tools of MCP servers, over stdio and streamable HTTP, as tools of ours.

A tool holds no connection, only the server's config: each process that calls it opens its own when first needed, keeps
it, and opens it again when it was lost. What a server keeps between calls is then gone, and it is one for all episodes:
an environment that must be an episode's own is better written as one (``executors.environment``).
"""

import asyncio
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from executors.errors import BadCallError, BlockedError, ConfigError, ToolError, TransientError
from executors.http.credentials import Pass, redact
from executors.mcp.config import McpServer, read_servers
from executors.mcp.connection import Connection, close, connection, submit
from executors.names import Identity, Names
from executors.openapi.references import Resolver
from executors.tool import Limits, Tool
from executors.types import ToolSpec

if TYPE_CHECKING:
    from mcp_types import CallToolResult
    from mcp_types import Tool as ServedTool

MAX_SCHEMA_CHARS = 100_000
"""Length of a schema, as JSON, above which its tool is skipped."""
STATUS = "apprentice/status"
"""Where a catalog served by ``executors.mcp.server`` says how a call ended."""

_ERRORS: dict[str, type[Exception]] = {
    "bad_call": BadCallError,
    "blocked": BlockedError,
    "unavailable": TransientError,
    "timeout": TimeoutError,
}


class McpServers:
    """The servers of one config, and their tools."""

    def __init__(self, config: str | Path | Mapping[str, Any]) -> None:
        """
        Args:
            config: the path of a ``mcpServers`` file, or what it holds.

        Raises:
            ConfigError: see ``read_servers``.
        """
        self.servers = read_servers(config)
        self.skipped: dict[str, str] = {}
        """Why a tool is not among the tools, by ``server/tool``; filled by ``tools``."""

    def tools(self) -> list[Tool]:
        """Connect to every server and list its tools, named ``server__tool``.

        Raises:
            ConfigError: a server cannot be reached, lacks a tool that the config names, or has others than pinned.
        """
        served = [(server, tool) for server, tools in self._listed() for tool in _wanted(server, tools)]
        names = Names(_identity(server, tool) for server, tool in served)
        self.skipped = {}
        found = []
        for server, tool in served:
            schema = _usable(tool.input_schema)
            if isinstance(schema, str):
                self.skipped[f"{server.name}/{tool.name}"] = schema
                continue
            name, description = names[_identity(server, tool)], tool.description or tool.title or ""
            spec = ToolSpec(name, description, schema, tool.output_schema)
            limits = Limits(timeout=server.timeout, idempotent=_is_idempotent(tool))
            found.append(Tool(spec, McpTool(server, tool.name).call, limits=limits))
        return found

    def sha256(self) -> dict[str, dict[str, str]]:
        """The digest of every tool by server: each what the server's ``sha256`` in the config may be."""
        return {server.name: _digests(_wanted(server, tools)) for server, tools in self._listed(check=False)}

    def close(self) -> None:
        """End this process's connections."""
        close(self.servers)

    def _listed(self, check: bool = True) -> list[tuple[McpServer, list["ServedTool"]]]:
        listings = [submit(connection(server).tools()) for server in self.servers]
        found, faults = [], []
        for server, listing in zip(self.servers, listings, strict=True):
            try:
                found.append((server, listing.result()))
                if check and (fault := _changed(server, found[-1][1])):
                    faults.append(fault)
            except TransientError as error:
                faults.append(str(error))
        if faults:
            raise ConfigError("; ".join(faults))
        return found


def mcp_tools(config: str | Path | Mapping[str, Any]) -> list[Tool]:
    """The tools of all servers of a config; see ``McpServers``."""
    return McpServers(config).tools()


@dataclass(frozen=True, slots=True)
class McpTool:
    """One tool of one server."""

    server: McpServer
    tool: str

    async def call(self, /, **arguments: Any) -> Any:
        """Call it, from any event loop.

        Raises:
            ToolError: what the server says went wrong; see ``Connection.call`` for the others.
        """
        return await asyncio.wrap_future(submit(self._call(arguments)))

    async def _call(self, arguments: dict[str, Any]) -> Any:
        try:
            channel = connection(self.server)
            if self.server.sha256 and (fault := _fault(channel, await channel.tools())):
                raise BlockedError(fault)
            return read_result(await channel.call(self.tool, arguments), self.server.expanded()[1])
        except ConfigError as error:
            raise TransientError(str(error)) from error


def read_result(result: "CallToolResult", passes: tuple[Pass, ...] = ()) -> Any:
    """What a policy reads of a result: its structured content, else its texts, with a mark for anything else.

    Args:
        result: what the server sent.
        passes: secrets, to be left out of it.

    Raises:
        ToolError: the result is an error; of the kind that our own servers name.
    """
    text = redact("\n".join(map(_content, result.content)), passes)
    if result.is_error:
        kind = _ERRORS.get(str((result.meta or {}).get(STATUS)), ToolError)
        raise kind(text or "the tool reports an error and does not say which")
    structured = result.structured_content
    if structured is None:
        return text
    if isinstance(structured, dict) and structured.keys() == {"result"}:
        structured = structured["result"]
    return json.loads(redact(json.dumps(structured), passes)) if passes else structured


def _content(block: Any) -> str:
    """One block as text; what is none is named and measured."""
    match block.type:
        case "text":
            return block.text
        case "image" | "audio":
            return f"[{block.type} {block.mime_type}, {len(block.data) * 3 // 4} bytes]"
        case "resource_link":
            return f"[resource {block.uri}]"
        case _:
            resource = block.resource
            return getattr(resource, "text", f"[resource {resource.uri}, {resource.mime_type or 'of unknown type'}]")


def _wanted(server: McpServer, tools: Iterable["ServedTool"]) -> list["ServedTool"]:
    served = {tool.name: tool for tool in tools}
    if server.tools is None:
        return list(served.values())
    if missing := [name for name in server.tools if name not in served]:
        raise ConfigError(
            f"MCP server {server.name!r} has no tool {', '.join(missing)}; it has {', '.join(served) or 'none'}"
        )
    return [served[name] for name in server.tools]


def _is_idempotent(tool: "ServedTool") -> bool:
    """Whether the server says that a call may be made twice; where it says nothing, it may not."""
    hints = tool.annotations
    return hints is not None and bool(hints.read_only_hint or hints.idempotent_hint)


def _identity(server: McpServer, tool: "ServedTool") -> Identity:
    return Identity(f"{server.name}__{tool.name}", variant=json.dumps([server.name, tool.name]))


def _usable(schema: Any) -> dict[str, Any] | str:
    """A served schema as it is, or rewritten where it is no JSON Schema 2020-12 on its own; or why it is of no use."""
    try:
        if len(json.dumps(schema)) > MAX_SCHEMA_CHARS:
            return f"its schema is longer than {MAX_SCHEMA_CHARS} characters"
        schema = {key: value for key, value in schema.items() if key not in ("$schema", "$id")}
        if not _stands_alone(schema):
            schema = Resolver(document=schema).schema(schema)
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"its schema is no JSON Schema: {error.message}"
    except (ValueError, RecursionError) as error:
        return f"its schema cannot be read: {error}"
    schema["properties"] = {
        name: ({} if kind else {"not": {}}) if isinstance(kind, bool) else kind
        for name, kind in schema.get("properties", {}).items()
    }
    return schema


def _stands_alone(schema: dict[str, Any]) -> bool:
    """Whether a schema is one of 2020-12 whose references all lead to something within it."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError:
        return False
    todo: list[Any] = [schema]
    while todo:
        node = todo.pop()
        if isinstance(node, Mapping):
            for key in ("$ref", "$dynamicRef"):
                if key in node and not (isinstance(node[key], str) and _leads_somewhere(node[key], schema)):
                    return False
            if "$id" in node or "$anchor" in node:
                return False
            todo.extend(node.values())
        elif isinstance(node, list):
            todo.extend(node)
    return True


def _leads_somewhere(reference: str, schema: Any) -> bool:
    if not reference.startswith("#"):
        return False
    for part in reference[1:].split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(schema, Mapping) or part not in schema:
            return False
        schema = schema[part]
    return reference == "#" or reference.startswith("#/")


def _digests(tools: Iterable["ServedTool"]) -> dict[str, str]:
    """A digest of each tool's description and schema."""
    said = {tool.name: [tool.description, tool.input_schema] for tool in tools}
    return {
        name: hashlib.sha256(json.dumps([name, *words], sort_keys=True).encode()).hexdigest()
        for name, words in sorted(said.items())
    }


def _fault(channel: Connection, tools: list["ServedTool"]) -> str:
    """How a server's tools differ from those pinned, found out once per session."""
    if channel.checked is None or channel.checked[0] is not tools:
        channel.checked = (tools, _changed(channel.server, tools))
    return channel.checked[1]


def _changed(server: McpServer, tools: Iterable["ServedTool"]) -> str:
    """How a server's tools differ from those pinned; empty where they do not."""
    digests = _digests(_wanted(server, tools))
    if not server.sha256:
        return ""
    if isinstance(server.sha256, str):
        whole = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
        changes = "" if whole == server.sha256 else f"their digest is {whole}, of {', '.join(digests)}"
    else:
        pinned = dict(server.sha256)
        parts = {
            "added": digests.keys() - pinned.keys(),
            "removed": pinned.keys() - digests.keys(),
            "changed": {name for name in digests.keys() & pinned.keys() if digests[name] != pinned[name]},
        }
        changes = "; ".join(f"{how}: {', '.join(sorted(names))}" for how, names in parts.items() if names)
    return changes and f"the tools of MCP server {server.name!r} are not those pinned by sha256: {changes}"
