"""What can be offered with settings: files of other forms, models behind endpoints, the web, the sandbox."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from executors.endpoint import Endpoint, EndpointClient
from executors.errors import ConfigError
from executors.http.client import HttpClient, HttpConfig
from executors.tool import Tool


class _Offer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    def tools(self) -> Iterable[Tool]:
        """The tools. Raises ConfigError or DataError where they cannot be had."""
        raise TypeError(f"{type(self).__name__} has to say what it offers")


class _Reach(_Offer):
    """Where requests may go."""

    allow: tuple[str, ...] = ()
    """Hosts of the open internet: ``api.example.com``, ``*.example.com``, or with a port."""
    allow_private: tuple[str, ...] = ()
    """Exact ``host:port`` pairs that may be reached wherever they are, such as a local simulator."""
    deadline: float = Field(default=10.0, gt=0)
    """Seconds for a whole call, redirects included."""

    @property
    def http(self) -> HttpConfig:
        return HttpConfig(allow=self.allow, allow_private=self.allow_private, deadline=self.deadline)


class OpenApiOffer(_Reach):
    """An OpenAPI document, whose operations are really requested."""

    path: str
    server: str = ""
    """The address to send requests to, where it is not the document's own."""
    secrets: dict[str, str] = {}
    """The environment variable of each security scheme that is used, or of each parameter that says who calls."""
    check_references: bool = True
    """Whether arguments are also held to what a document says only by reference; see ``Reading``."""

    def tools(self) -> Iterable[Tool]:
        from executors.openapi.operations import Reading
        from executors.openapi.tools import openapi_tools

        reading = Reading(check_references=self.check_references)
        return openapi_tools(Path(self.path), server=self.server, secrets=self.secrets, http=self.http, reading=reading)


class SimulatedOffer(_Offer):
    """An OpenAPI document that is answered from itself, or by a model that plays the API."""

    path: str
    mode: Literal["lenient", "strict"] = "lenient"
    """What becomes of ids that no answer has named."""
    model: Endpoint | None = None
    """Plays the API, with a memory for each episode."""

    def tools(self) -> Iterable[Tool]:
        if self.model is not None:
            from executors.simulation.played import played_tools

            return played_tools(Path(self.path), EndpointClient(self.model))
        from executors.simulation.simulated import simulated_tools

        return simulated_tools(Path(self.path), mode=self.mode)


class McpOffer(_Offer):
    """The tools of MCP servers: a file of them, or the same written out."""

    path: str | None = None
    servers: dict[str, dict[str, Any]] = Field(default={}, alias="mcpServers")
    """By name; see docs/tools.md."""

    @model_validator(mode="after")
    def _one_of_both(self) -> "McpOffer":
        if (self.path is None) == (not self.servers):
            raise ValueError("give either path, a file of servers, or mcpServers, the servers themselves")
        return self

    def tools(self) -> Iterable[Tool]:
        from executors.mcp.client import mcp_tools

        return mcp_tools({"mcpServers": self.servers} if self.path is None else self.path)


class WikiSearchOffer(_Offer):
    """BM25 search over a local corpus."""

    path: str
    k: int = Field(default=2, gt=0)
    """Passages that come back."""
    name: str = "wiki_search"

    def tools(self) -> Iterable[Tool]:
        from executors.tools.wiki_search import wiki_search_tool

        return [wiki_search_tool(self.path, self.k, name=self.name)]


class QuestionAnswerOffer(_Offer):
    """A model that answers short questions."""

    model: Endpoint
    name: str = "question_answer"

    def tools(self) -> Iterable[Tool]:
        from executors.tools.question_answer import question_answer_tool

        return [question_answer_tool(EndpointClient(self.model), name=self.name)]


class TranslateOffer(_Offer):
    """A model that translates."""

    model: Endpoint
    name: str = "translate"

    def tools(self) -> Iterable[Tool]:
        from executors.tools.translate import translate_tool

        return [translate_tool(EndpointClient(self.model), name=self.name)]


class GetDetailsOffer(_Offer):
    """Asking the user: the task's row answers, or a model in the user's part."""

    key: str = "details"
    """Where in the row the answers are, or what the model's user knows besides the request."""
    model: Endpoint | None = None
    name: str = "get_details"

    def tools(self) -> Iterable[Tool]:
        from executors.tools.get_details import ModelUser, ScriptedUser, get_details_tool

        scripted = ScriptedUser(self.key)
        user = scripted if self.model is None else ModelUser(EndpointClient(self.model), details_key=self.key)
        return [get_details_tool(user, name=self.name)]


class HttpOffer(_Reach):
    """Requests to the hosts that are allowed, and to no other."""

    def tools(self) -> Iterable[Tool]:
        from executors.tools.http import http_tool

        return [http_tool(HttpClient(self.http))]


class PythonOffer(_Offer):
    """Model-written Python in a sandbox."""

    lasting: bool = False
    """One interpreter for an episode, whose variables last, instead of a fresh one for each call."""
    wall_s: float | None = Field(default=None, gt=0)
    """Seconds for one program."""
    memory_mb: int | None = Field(default=None, gt=0)
    workers: int | None = Field(default=None, gt=0)
    """Programs at once in each process."""

    def tools(self) -> Iterable[Tool]:
        from executors.sandbox.types import SandboxConfig
        from executors.tools.python import python_tool

        given = self.model_dump(exclude={"lasting"}, exclude_none=True)
        return [python_tool(SandboxConfig(**given), lasting=self.lasting)]


class GymnasiumOffer(_Offer):
    """A Gymnasium environment, acted in step by step."""

    id: str
    """As it is registered, such as ``FrozenLake-v1``."""
    actions: tuple[str, ...] = ()
    """Names of discrete actions, in their order."""
    options: dict[str, Any] = {}
    """For ``gymnasium.make``."""
    description: str = ""
    name: str = "step"

    def tools(self) -> Iterable[Tool]:
        from executors.gymnasium import gymnasium_tools

        given = {"actions": self.actions, "options": self.options, "description": self.description}
        return gymnasium_tools(self.id, name=self.name, **given)


class OpenEnvOffer(_Offer):
    """An environment behind an OpenEnv server."""

    url: str
    timeout: float = Field(default=30.0, gt=0)
    """Seconds for each message."""
    name: str = "step"

    def tools(self) -> Iterable[Tool]:
        from executors.openenv import openenv_tools

        return openenv_tools(self.url, name=self.name, timeout=self.timeout)


class ForeignOffer(_Offer):
    """Another project's catalog, described only."""

    path: str
    kind: Literal["bfcl", "sealtools", "toolbench", "ste"]

    def tools(self) -> Iterable[Tool]:
        from executors.foreign import READERS, unbacked

        return unbacked(READERS[self.kind](Path(self.path)))


Offer: TypeAlias = (
    OpenApiOffer
    | SimulatedOffer
    | McpOffer
    | WikiSearchOffer
    | QuestionAnswerOffer
    | TranslateOffer
    | GetDetailsOffer
    | HttpOffer
    | PythonOffer
    | GymnasiumOffer
    | OpenEnvOffer
    | ForeignOffer
)

FOREIGN = ("bfcl", "sealtools", "toolbench", "ste")
OFFERS: Mapping[str, type[Offer]] = {
    "openapi": OpenApiOffer,
    "simulated": SimulatedOffer,
    "mcp": McpOffer,
    "wiki_search": WikiSearchOffer,
    "question_answer": QuestionAnswerOffer,
    "translate": TranslateOffer,
    "get_details": GetDetailsOffer,
    "http": HttpOffer,
    "python": PythonOffer,
    "gymnasium": GymnasiumOffer,
    "openenv": OpenEnvOffer,
    **dict.fromkeys(FOREIGN, ForeignOffer),
}
"""By the name that a config gives them."""
FILES = tuple(name for name, offer in OFFERS.items() if "path" in offer.model_fields)
"""What may stand before a colon and a path."""


def read_offer(name: str, settings: Mapping[str, Any]) -> Offer:
    """What a config offers.

    Args:
        name: one of ``OFFERS``.
        settings: as written.

    Raises:
        ConfigError: a setting is missing, unknown or wrong.
    """
    given = {**settings, "kind": name} if name in FOREIGN else settings
    model = OFFERS[name]
    try:
        return model.model_validate(given)
    except ValidationError as error:
        wrong = (f"{'.'.join(map(str, detail['loc'])) or name}: {detail['msg']}" for detail in error.errors())
        keys = ", ".join(field.alias or key for key, field in model.model_fields.items() if key != "kind")
        raise ConfigError(f"tool {name!r}: {'; '.join(wrong)}. Its settings are {keys}") from error
