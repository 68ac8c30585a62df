"""A real API where a simulation would stand: its calls are sent, with keys from the environment."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from executors.errors import BadCallError, TransientError, UnknownToolError
from executors.http.client import Answer, HttpConfig
from executors.openapi.tools import Api, endpoints
from executors.types import Scene

_NOT_LET_IN = {401: "says who is asking wrongly", 402: "wants to be paid", 403: "does not let this key in"}
"""Statuses that are about who calls, which is the operator's to say and no fault of a call's."""


class RealApi:
    """Answers the calls of an API by calling it; a ``Backend`` as a ``Simulation`` is one."""

    def __init__(
        self, api: Api, *, server: str = "", secrets: Mapping[str, str] = {}, http: HttpConfig = HttpConfig()
    ) -> None:
        """
        Args:
            api: as ``read_openapi`` read it.
            server: where requests go, if not to the document's own.
            secrets: see ``openapi_tools``; policies are told of none of these parameters.
            http: see ``openapi_tools``.

        Raises:
            ConfigError: there is no server, it may not be reached, or a secret is not in the environment.
        """
        self._endpoints = {one.operation.name: one for one in endpoints(api, server=server, secrets=secrets, http=http)}
        self.api = replace(api, operations=tuple(one.operation for one in self._endpoints.values()))
        self.secrets = dict(secrets)

    def open(self, scene: Scene) -> None:
        """Nothing: what an episode changes, it changes for everybody."""

    async def answer(self, world: None, name: str, arguments: Mapping[str, Any]) -> Answer:
        """What the API answers to one call.

        Raises:
            ToolError: the guard refused the call, or it makes no request.
            TransientError: the API cannot be reached, or does not take the key.
            TimeoutError: the whole answer did not come in time.
        """
        if name not in self._endpoints:
            raise UnknownToolError(f"{self.api.title} has no operation {name!r}")
        if own := next((key for key in self.secrets if key in arguments), ""):
            raise BadCallError(f"{own!r} says who calls and is already set; leave it out")
        answer = await self._endpoints[name].answer(arguments)
        if (said := _NOT_LET_IN.get(answer.status)) is not None:
            raise TransientError(f"{self.api.title} {said}: {answer.content[:300]}")
        return answer

    def repeatable(self, name: str) -> bool:
        """Whether a call of an operation may be made again after a failure."""
        return self._endpoints[name].repeatable


def secrets_of(
    name: str, authentication: Mapping[str, Any], given: Mapping[str, str] | None = None
) -> tuple[dict[str, str], list[str]]:
    """By parameter that says who calls, the variable of the environment with its secret; and those that are not set.

    Args:
        name: of the API, such as ``apilayer weatherstack``.
        authentication: of its record, such as ``{"access_key": "***"}``; its values are not looked at.
        given: the variables where they are named otherwise than ``APILAYER_WEATHERSTACK_ACCESS_KEY``.
    """
    named = {parameter: _variable(name, parameter) for parameter in authentication} if given is None else dict(given)
    return named, [variable for variable in named.values() if not os.environ.get(variable)]


def _variable(name: str, parameter: str) -> str:
    spelt = "".join(sign if sign.isascii() and sign.isalnum() else "_" for sign in f"{name}_{parameter}")
    return spelt.upper()
