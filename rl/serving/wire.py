"""The wire form of OpenAI's chat completions: what a request may hold, and the errors that answer the others.

What is not supported is refused by name, never ignored.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

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


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        """A field that is null is a field that is not given, as the official clients write it."""
        return {key: item for key, item in value.items() if item is not None} if isinstance(value, Mapping) else value


def _joined(value: Any) -> Any:
    """Content given in parts as one text."""
    if not isinstance(value, list):
        return value
    for part in value:
        if not (isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            raise ValueError("only parts of type 'text' can be read")
    return "".join(part["text"] for part in value)


Text: TypeAlias = Annotated[str, BeforeValidator(_joined)]


def _listed(value: Any) -> Any:
    """One stop string or several as several."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


MAX_CHOICES = 8
Stop: TypeAlias = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], BeforeValidator(_listed), Field(max_length=4)
]


class Extra(_Wire):
    """What OpenAI's fields have no place for; ``message.apprentice`` of a reply, in a stream of its last delta."""

    reply: str = ""
    """The policy's whole reply as it wrote it."""
    malformed_call: str | None = None
    """Why the reply, which set out to be a call, is none; the content is then the reply as it is."""
    unoffered_call: str | None = None
    """The tool that the reply calls and the request does not offer; the content is then the reply as it is."""
    unread_messages: int = 0
    """Messages before the last question, which the policy did not read."""


class _CalledFunction(_Wire):
    name: str
    arguments: str


class WireCall(_Wire):
    """A call of a tool."""

    id: str
    type: Literal["function"] = "function"
    function: _CalledFunction


class SystemMessage(_Wire):
    """Read so that it can be refused by name."""

    role: Literal["system", "developer"]
    content: Text


class UserMessage(_Wire):
    """A question."""

    role: Literal["user"]
    content: Text


class AssistantMessage(_Wire):
    """What the policy said earlier: a text, a call, or both."""

    role: Literal["assistant"]
    content: Text = ""
    tool_calls: list[WireCall] = []
    apprentice: Extra | None = None


class ToolMessage(_Wire):
    """The result of a call, which the client ran."""

    role: Literal["tool"]
    tool_call_id: str
    content: Text


Message: TypeAlias = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


class _OfferedFunction(_Wire):
    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: Literal[False] = False


class OfferedTool(_Wire):
    """A tool that the reply may call."""

    type: Literal["function"]
    function: _OfferedFunction


class _NamedFunction(_Wire):
    name: str


class NamedTool(_Wire):
    """A ``tool_choice`` of one tool, which the reply then calls."""

    type: Literal["function"]
    function: _NamedFunction


class StreamOptions(_Wire):
    """What a stream tells besides the reply."""

    include_usage: bool = False


class _PlainText(_Wire):
    type: Literal["text"]


class ChatRequest(_Wire):
    """The body of ``POST /v1/chat/completions``; a field that is not here is refused."""

    model: str
    messages: list[Message] = Field(min_length=1)
    tools: list[OfferedTool] = []
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    """By default ``auto`` where tools are offered, else ``none``."""
    parallel_tool_calls: bool | None = None
    """Either way a reply makes as many calls as its format allows; most formats allow one."""
    temperature: float | None = Field(None, ge=0, le=2)
    """By default the server's, which is 0 unless it was started otherwise: replies are those that were evaluated."""
    top_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int | None = None
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    """Replies to the one request; several are drawn with seeds of their own, and cannot be streamed."""
    stop: Stop = ()
    """Where a reply ends, and is cut, if it comes so far."""
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] = {}
    """By token id, added to its logit."""
    logprobs: bool = False
    """Whether each token of the whole reply, its format's words included, is told with its log-probability."""
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: _PlainText | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None
    """Read by nobody, as OpenAI says of it: a label of the caller's."""
    metadata: dict[str, str] | None = None
    """Read by nobody: labels of the caller's."""


def read(body: bytes, model_id: str) -> ChatRequest:
    """A request's body, checked.

    Raises:
        ChatError: it is not JSON, a field is wrong or not supported, or it asks for another model.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ChatError(f"the body is not JSON: {error}", code="invalid_json") from error
    try:
        request = ChatRequest.model_validate(content)
    except ValidationError as error:
        raise _refusal(error) from error
    if request.model != model_id:
        raise unknown_model(request.model, model_id)
    return request


def unknown_model(name: str, model_id: str) -> ChatError:
    """The error of a request for a model that is not served."""
    message = f"no model {name!r} is served here; there is {model_id!r}"
    return ChatError(message, status=404, param="model", code="model_not_found")


def _refusal(error: ValidationError) -> ChatError:
    """The first mistake, in words, with the field's path as the client wrote it."""
    detail = error.errors()[0]
    location = list(detail["loc"])
    if location[:1] == ["messages"] and len(location) > 2:
        del location[2]  # the role, by which pydantic tells messages apart
    if location[:1] in (["tool_choice"], ["response_format"], ["stop"]):
        location = location[:1]
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    if detail["type"] == "extra_forbidden":
        return ChatError(f"{path!r} is not supported by this server", param=path, code="unsupported_parameter")
    if detail["type"] == "missing":
        return ChatError(f"{path!r} is missing", param=path, code="missing_required_parameter")
    if path == "tool_choice":
        return ChatError("'tool_choice' has to be 'none', 'auto', 'required' or name one function", param=path)
    if path == "response_format":
        return ChatError(
            "'response_format' other than text is not supported by this server; offer a tool with the schema instead",
            param=path,
            code="unsupported_parameter",
        )
    problem = detail["msg"].removeprefix("Value error, ")
    given = json.dumps(detail["input"], default=str)
    shown = given if len(given) <= 80 else given[:77] + "..."
    return ChatError(f"{path or 'the body'!r}: {problem[:1].lower()}{problem[1:]}, got {shown}", param=path or None)
