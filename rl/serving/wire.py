"""The wire form of OpenAI's chat completions: what a request may hold, and the errors that answer the others.

What is not supported is refused by name, never ignored.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypeVar, overload

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from executors.errors import ApprenticeError


class ChatError(ApprenticeError):
    """A request that is answered with an error, in OpenAI's shape."""

    def __init__(
        self, message: str, *, status: int = 400, param: str | None = None, code: str | None = "invalid_value"
    ) -> None:
        """
        Args:
            message: what was wrong, and what to try.
            status: of HTTP.
            param: the field at fault, such as ``messages[2].content``.
            code: a word for programs.
        """
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """The response's body."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class Wire(BaseModel):
    """What a client sends: fields that are not named are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """By the names of fields that are not supported, the values with which they ask for nothing, and may stand."""

    @model_validator(mode="before")
    @classmethod
    def _without_neutral(cls, value: Any) -> Any:
        """A field that is null, or that asks for nothing, is a field that is not given; official clients write both."""
        if not isinstance(value, Mapping):
            return value
        return {key: item for key, item in value.items() if item is not None and not cls._is_neutral(key, item)}

    @classmethod
    def _is_neutral(cls, key: str, item: Any) -> bool:
        nothing = cls.neutral.get(key, ())
        if isinstance(item, Mapping):
            item = {name: one for name, one in item.items() if one is not None}
        return any(item == each and isinstance(item, bool) == isinstance(each, bool) for each in nothing)


def joined(value: Any, *kinds: str) -> Any:
    """Content given in parts of these kinds as one text; what is no list as it is.

    Raises:
        ValueError: there is a part of another kind, or one that says more than a text.
    """
    if not isinstance(value, list):
        return value
    for part in value:
        if not (isinstance(part, Mapping) and part.get("type") in kinds and isinstance(part.get("text"), str)):
            raise ValueError(f"only parts of type {' or '.join(map(repr, kinds))} can be read")
        said = {key for key, item in part.items() if item not in (None, [])} - {"type", "text", "logprobs"}
        if said:
            raise ValueError(f"of a part {sorted(said)[0]!r} is not supported by this server")
    return "".join(part["text"] for part in value)


Text: TypeAlias = Annotated[str, BeforeValidator(lambda value: joined(value, "text"))]


def _listed(value: Any) -> Any:
    """One stop string or several as several."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


MAX_CHOICES = 8
Stop: TypeAlias = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], BeforeValidator(_listed), Field(max_length=4)
]


class Extra(Wire):
    """What OpenAI's fields have no place for; ``message.apprentice`` of a reply, in a stream of its last delta."""

    reply: str = ""
    """The policy's whole reply as it wrote it."""
    malformed_call: str | None = None
    """Why the reply, which set out to be a call, is none; the content is then the reply as it is."""
    unoffered_call: str | None = None
    """The tool that the reply calls and the request does not offer; the content is then the reply as it is."""
    untold_calls: int = 0
    """Calls of the reply beyond the first, which are left out where the request wants no parallel ones."""
    unread_messages: int = 0
    """Messages before the last question, which the policy did not read."""
    episode: dict[str, Any] | None = None
    """What the server did, turn by turn, where it ran the tools itself; see ``rl.serving.execution``."""


class _CalledFunction(Wire):
    name: str
    arguments: str


class WireCall(Wire):
    """A call of a tool."""

    id: str
    type: Literal["function"] = "function"
    function: _CalledFunction


class SystemMessage(Wire):
    """Read so that it can be refused by name."""

    role: Literal["system", "developer"]
    content: Text


class UserMessage(Wire):
    """A question."""

    role: Literal["user"]
    content: Text


class AssistantMessage(Wire):
    """What the policy said earlier: a text, a call, or both."""

    neutral = {"annotations": ([],)}

    role: Literal["assistant"]
    content: Text = ""
    tool_calls: list[WireCall] = []
    apprentice: Extra | None = None


class ToolMessage(Wire):
    """The result of a call, which the client ran."""

    role: Literal["tool"]
    tool_call_id: str
    content: Text


Message: TypeAlias = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


class _OfferedFunction(Wire):
    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: Literal[False] = False


class OfferedTool(Wire):
    """A tool that the reply may call."""

    type: Literal["function"]
    function: _OfferedFunction


class _NamedFunction(Wire):
    name: str


class NamedTool(Wire):
    """A ``tool_choice`` of one tool, which the reply then calls."""

    type: Literal["function"]
    function: _NamedFunction


class StreamOptions(Wire):
    """What a stream tells besides the reply."""

    neutral = {"include_obfuscation": (False,)}

    include_usage: bool = False


class PlainText(Wire):
    """A ``response_format`` that asks for nothing."""

    type: Literal["text"]


class JsonObject(Wire):
    """A ``response_format`` of any JSON object."""

    type: Literal["json_object"]

    @property
    def schema_(self) -> Mapping[str, Any]:
        """What the content follows."""
        return {"type": "object"}


class _NamedSchema(Wire):
    name: str = ""
    description: str = ""
    """Read by nobody, as the name: the policy is told of neither, nor of the schema, which the server enforces."""
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool = True
    """Either way the content follows the schema."""


class JsonSchema(Wire):
    """A ``response_format`` of JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: _NamedSchema

    @property
    def schema_(self) -> Mapping[str, Any]:
        """What the content follows."""
        return self.json_schema.schema_


ResponseFormat: TypeAlias = Annotated[PlainText | JsonObject | JsonSchema, Field(discriminator="type")]


class Apprentice(Wire):
    """What a chat request may ask of this server alone."""

    every_tool: bool = False
    """Whether all tools that the policy was trained with are offered, unsent; ``tools`` is then left out."""
    execute: bool = False
    """Whether the server itself runs the tools, turn by turn, and returns the whole episode."""
    max_turns: int | None = Field(default=None, ge=1, le=64)
    """Replies with calls after which an episode ends without an answer; at most as many as the server allows."""


class Asking(Wire):
    """What requests for replies have in common."""

    model: str
    temperature: float | None = Field(None, ge=0, le=2)
    """By default the server's, which is 0 unless it was started otherwise: replies are those that were evaluated."""
    top_p: float | None = Field(None, ge=0, le=1)
    stream: bool = False
    user: str | None = None
    """Read by nobody, as OpenAI says of it: a label of the caller's."""


class Drawing(Asking):
    """What requests for chat completions and for completions have in common."""

    max_tokens: int | None = Field(None, ge=1)
    seed: int | None = None
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    """Replies to the one request; several are drawn with seeds of their own, and cannot be streamed."""
    stop: Stop = ()
    """Where a reply ends, and is cut, if it comes so far."""
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] = {}
    """By token id, added to its logit."""
    stream_options: StreamOptions | None = None


class ChatRequest(Drawing):
    """The body of ``POST /v1/chat/completions``; a field that is not here is refused."""

    neutral = {
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
        "modalities": (["text"],),
        "reasoning_effort": ("none",),
        "service_tier": ("auto", "default"),
        "store": (False,),
        "verbosity": ("medium",),
    }

    messages: list[Message] = Field(min_length=1)
    tools: list[OfferedTool] = []
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    """By default ``auto`` where tools are offered, else ``none``."""
    parallel_tool_calls: bool = True
    """Where false, a reply that makes several calls is told up to the first; most formats allow one either way."""
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    """Whether each token of the whole reply, its format's words included, is told with its log-probability."""
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    metadata: dict[str, str] | None = None
    """Read by nobody: labels of the caller's."""
    safety_identifier: str | None = None
    """Read by nobody."""
    prompt_cache_key: str | None = None
    """Read by nobody: prompts that begin alike are read once in any case."""
    apprentice: Apprentice = Apprentice()


Requested = TypeVar("Requested", bound=Asking)


@overload
def read(body: bytes, model_id: str | None) -> ChatRequest: ...
@overload
def read(body: bytes, model_id: str | None, kind: type[Requested]) -> Requested: ...


def read(body: bytes, model_id: str | None, kind: type[Asking] = ChatRequest) -> Asking:
    """A request's body, checked.

    Args:
        body: as it came.
        model_id: what is served; None where the engine says whether there is such a model.
        kind: of request.

    Raises:
        ChatError: it is not JSON, a field is wrong or not supported, or it asks for another model.
    """
    try:
        content = json.loads(body)
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ChatError("the body holds half of a surrogate pair; write it whole", code="invalid_json") from error
    except (ValueError, RecursionError) as error:
        raise ChatError(f"the body is not JSON: {error}", code="invalid_json") from error
    try:
        request = kind.model_validate(content)
    except ValidationError as error:
        raise _refusal(error) from error
    if model_id is not None and request.model != model_id:
        raise unknown_model(request.model, [model_id])
    return request


def unknown_model(name: str, there: Iterable[str]) -> ChatError:
    """The error of a request for a model that is not served; it lists those that are."""
    message = f"no model {name!r} is served here; there are: {', '.join(there) or 'none'}"
    return ChatError(message, status=404, param="model", code="model_not_found")


def _refusal(error: ValidationError) -> ChatError:
    """The first mistake, in words, with the field's path as the client wrote it."""
    detail = error.errors()[0]
    location = _without_tags(list(detail["loc"]))
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    if detail["type"] == "extra_forbidden":
        return ChatError(f"{path!r} is not supported by this server", param=path, code="unsupported_parameter")
    if detail["type"] == "missing":
        return ChatError(f"{path!r} is missing", param=path, code="missing_required_parameter")
    if path == "tool_choice":
        return ChatError("'tool_choice' has to be 'none', 'auto', 'required' or name one function", param=path)
    problem = detail["msg"].removeprefix("Value error, ")
    given = json.dumps(detail["input"], default=str)
    shown = given if len(given) <= 80 else given[:77] + "..."
    return ChatError(f"{path or 'the body'!r}: {problem[:1].lower()}{problem[1:]}, got {shown}", param=path or None)


_TAGGED = {"messages": 2, "input": 2, "response_format": 1, "text": 2}
"""Where a field's path has the word by which pydantic tells one form from another."""
_WHOLE = ("tool_choice", "stop", "prompt")
"""Fields of several forms: pydantic says what is wrong with each form, and the client sent one."""


def _without_tags(location: list[int | str]) -> list[int | str]:
    """A path as the client wrote it."""
    if location and location[0] in _WHOLE:
        return location[:1]
    if location and len(location) > (tag := _TAGGED.get(str(location[0]), len(location))):
        del location[tag]
    return location
