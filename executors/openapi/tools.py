"""OpenAPI 3 documents: every operation becomes a tool that really sends its requests."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from executors.errors import BadCallError, BlockedError, ConfigError, DataError
from executors.http.client import Answer, HttpClient, HttpConfig
from executors.http.credentials import Credential, Scheme, read_schemes
from executors.http.egress import Guard, is_name
from executors.names import Identity, Names
from executors.openapi.documents import load_document
from executors.openapi.operations import Operation, OperationReader, Reading, read_server
from executors.openapi.references import Resolver
from executors.openapi.requests import build_request
from executors.tool import Limits, Tool

METHODS = ("get", "put", "post", "delete", "options", "head", "patch")
"""Those of OpenAPI but for ``trace``, which only sends back what it was sent, credentials included."""
_REPEATABLE = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE"}
"""Methods of which a second try after a failure does no harm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """What an OpenAPI document offers."""

    title: str
    operations: tuple[Operation, ...]
    server: str = ""
    """The first server's address; empty where the document names none."""
    schemes: Mapping[str, Scheme] = field(default_factory=dict)
    """The ways to say who calls, by name."""
    warnings: tuple[str, ...] = ()
    """What in the document could not be used, and was left out."""


def read_openapi(document: Mapping[str, Any] | str | Path, reading: Reading = Reading()) -> Api:
    """Read an OpenAPI 3.0 or 3.1 document.

    Mistakes in its parts do not stop it: what cannot be used is left out and listed in ``warnings``.

    Args:
        document: the document, its JSON or YAML text, or the path of its file.
        reading: how strictly calls are held to it.

    Raises:
        DataError: it is not an OpenAPI 3 document, or names no operation.
    """
    content = load_document(document)
    _check_kind(content)
    warnings: list[str] = []
    found = {_identity(place, reading): place for place in _walk(content, warnings)}
    if not found:
        raise DataError("the OpenAPI document names no operation: nothing under 'paths' has a method such as 'get'")
    names, operations = Names(found), []
    for identity, place in found.items():
        operation, problems = OperationReader(content, *place).read(names[identity], reading)
        operations.append(operation)
        warnings += problems
    title = Resolver(document=content).follow(content.get("info")).get("title")
    return Api(
        title=str(title or "untitled API"),
        operations=tuple(operations),
        server=read_server(content.get("servers")),
        schemes=read_schemes(content),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def openapi_tools(
    document: Mapping[str, Any] | str | Path | Api,
    *,
    server: str = "",
    secrets: Mapping[str, str] = {},
    http: HttpConfig = HttpConfig(),
    reading: Reading = Reading(),
) -> list[Tool]:
    """Tools that send their calls to the API that a document describes.

    Args:
        document: see ``read_openapi``; or what it gave.
        server: the address to send requests to, where it is not the document's own.
        secrets: the environment variable of each security scheme that is used, or of each parameter that says who
            calls. Policies are told of neither. Basic authentication wants ``user:password`` in the variable.
        http: where requests may go, and how much may come back. Where it allows no host, the server's own is allowed.
        reading: how strictly calls are held to the document.

    Raises:
        DataError: it is not an OpenAPI 3 document, or names no operation.
        ConfigError: there is no server, it may not be reached, or a secret is not in the environment.
    """
    api = document if isinstance(document, Api) else read_openapi(document, reading)
    tools = []
    for endpoint in endpoints(api, server=server, secrets=secrets, http=http):
        limits = Limits(
            timeout=http.deadline + 1, retries=2 if endpoint.repeatable else 0, idempotent=endpoint.repeatable
        )
        tools.append(Tool(endpoint.operation.spec, endpoint.call, limits=limits))
    return tools


def endpoints(
    api: Api, *, server: str = "", secrets: Mapping[str, str] = {}, http: HttpConfig = HttpConfig()
) -> "list[Endpoint]":
    """An API's operations with all that it takes to call them; see ``openapi_tools``.

    Raises:
        ConfigError: there is no server, it may not be reached, or a secret is not in the environment.
    """
    servers = {operation.name: server or operation.server or api.server for operation in api.operations}
    client = HttpClient(_allowing(http, sorted(set(servers.values()))))
    schemes, parameters = _credentials(api, secrets)
    found = []
    for operation in api.operations:
        credentials = (*_passes(operation, schemes), *_hidden(operation, parameters))
        hidden = operation.without(frozenset(credential.scheme.name for credential in credentials))
        found.append(Endpoint(operation=hidden, server=servers[operation.name], client=client, credentials=credentials))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An operation, and all that it takes to call it."""

    operation: Operation
    server: str
    client: HttpClient
    credentials: tuple[Credential, ...] = ()

    @property
    def repeatable(self) -> bool:
        """Whether a second try after a failure does no harm."""
        return self.operation.method in _REPEATABLE

    async def call(self, /, **arguments: Any) -> str:
        """Send one call and give what came back.

        Raises:
            ToolError: the call was refused: by the guard, by the API, or because it cannot be sent.
            TransientError: the API cannot be reached or failed.
            TimeoutError: the whole answer did not come in time.
        """
        return (await self.answer(arguments)).observed()

    async def answer(self, arguments: Mapping[str, Any]) -> Answer:
        """Send one call and give the answer, whatever its status.

        Raises:
            ToolError: the call was refused by the guard, or cannot be sent.
            TransientError: the API cannot be reached.
            TimeoutError: the whole answer did not come in time.
        """
        if own := [found.scheme.name for found in self.credentials if found.scheme.name in arguments]:
            raise BlockedError(f"{own[0]!r} says who calls and is already set; leave it out")
        request = build_request(self.operation, self.server, arguments)
        return await self.client.send(request, self.credentials)


def _check_kind(content: Mapping[str, Any]) -> None:
    if "swagger" in content:
        raise DataError(
            f"the document is Swagger {content['swagger']}, an older format; convert it to OpenAPI 3, for example "
            "with 'npx swagger2openapi' or at editor.swagger.io, and read the result"
        )
    version = str(content.get("openapi", ""))
    if not version.startswith("3."):
        keys = ", ".join(map(repr, list(content)[:6])) or "none"
        raise DataError(
            f"not an OpenAPI 3 document: 'openapi' is {version!r} and its keys are {keys}; "
            "give the document that starts with 'openapi: 3'"
        )
    if not isinstance(content.get("paths"), Mapping):
        raise DataError("the OpenAPI document has no 'paths', so there is no operation to call")


Place = tuple[str, str, Mapping[str, Any], Mapping[str, Any]]
"""Path, method, path item and operation."""


def _walk(content: Mapping[str, Any], warnings: list[str]) -> Iterator[Place]:
    """Everything under ``paths`` that is an operation."""
    resolver = Resolver(document=content, warnings=warnings)
    for path, item in content["paths"].items():
        shared = resolver.follow(item)
        for key, node in shared.items():
            if key in METHODS and isinstance(node, Mapping):
                yield path, key, shared, node
            elif key in (*METHODS, "trace") or key.startswith("/"):
                warnings.append(f"{path}: {key!r} is not an operation and was left out")


def _identity(place: Place, reading: Reading) -> Identity:
    """What an operation is called: without ``operationId``, as in ToolAlpaca, its path and its method."""
    path, method, _, node = place
    own = node.get("operationId")
    plain = path.strip("/").replace("/", "_").replace("{", "").replace("}", "")
    raw = own if isinstance(own, str) and own else f"{plain}_{method}"
    return Identity(raw, reading.owner, variant=f"{method} {path}")


def _allowing(http: HttpConfig, servers: list[str]) -> HttpConfig:
    """The config with the servers' hosts allowed, unless it allows some itself."""
    for server in servers:
        if urlsplit(server).scheme not in ("http", "https"):
            raise ConfigError(
                f"the document's server is {server!r}, no absolute address; name one with server='https://...'"
            )
    if not http.allow:
        hosts = {urlsplit(server).hostname or "" for server in servers}
        http = replace(http, allow=tuple(sorted(filter(is_name, hosts))))
    guard = Guard(http.allow, http.allow_private)
    for server in servers:
        try:
            guard.check(server)
        except (BlockedError, BadCallError) as error:
            raise ConfigError(
                f"requests to the server {server!r} would be blocked: {error}; put 'host:port' into allow, or, for a "
                "server of your own such as a local simulator, into allow_private"
            ) from error
    return http


def _credentials(api: Api, secrets: Mapping[str, str]) -> tuple[dict[str, Credential], dict[str, str]]:
    """The credentials by security scheme, and the variables by parameter."""
    known = {a.name for operation in api.operations for a in operation.arguments.values() if a.where in _CARRIERS}
    if unknown := [name for name in secrets if name not in api.schemes and name not in known]:
        raise ConfigError(
            f"{unknown[0]!r} is neither a security scheme nor a parameter of {api.title}; "
            f"its schemes: {', '.join(api.schemes) or 'none'}"
        )
    schemes = {name: Credential(api.schemes[name], secrets[name]) for name in secrets if name in api.schemes}
    return schemes, {name: variable for name, variable in secrets.items() if name not in api.schemes}


_CARRIERS = ("query", "header", "cookie")


def _passes(operation: Operation, schemes: Mapping[str, Credential]) -> tuple[Credential, ...]:
    """The credentials of the first set of schemes that can be served whole."""
    for names in operation.security:
        if all(name in schemes for name in names):
            return tuple(schemes[name] for name in names)
    return ()


def _hidden(operation: Operation, parameters: Mapping[str, str]) -> tuple[Credential, ...]:
    """The credentials that stand in for parameters."""
    return tuple(
        Credential(Scheme(kind="apiKey", where=a.where, name=a.name), parameters[a.name])
        for a in operation.arguments.values()
        if a.name in parameters and a.where in _CARRIERS
    )
