"""OpenAI's chat completions, as far as a trained policy can honour them, to and from the project's own types.

What is not supported is refused by name, never ignored. Three things differ from OpenAI's own models:

- Formats put one question to the policy. The last user message is that question, and what follows it (calls and their
  results) is read; earlier exchanges are not, and the reply says how many messages that were. System messages are
  refused: no format has a place for them.
- A policy knows the tools that it was trained with. A request offers some of them, with the same parameter names;
  descriptions and types are those of training.
- A message carries a field ``apprentice`` (see ``Extra``). It may come back with the message, and then the policy
  reads its own earlier reply as it wrote it.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from executors.errors import ApprenticeError
from executors.types import MalformedCall, Observation, ToolCall, ToolSpec
from rollouts.formats import Format
from rollouts.policy import Request, derive_seed
from rollouts.types import Completion, Sampling, Task


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


class ChatRequest(_Wire):
    """The body of ``POST /v1/chat/completions``; a field that is not here is refused."""

    model: str
    messages: list[Message] = Field(min_length=1)
    tools: list[OfferedTool] = []
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    """By default ``auto`` where tools are offered, else ``none``."""
    parallel_tool_calls: bool | None = None
    """Either way a reply makes one call at most."""
    temperature: float | None = Field(None, ge=0, le=2)
    """By default the server's, which is 0 unless it was started otherwise: replies are those that were evaluated."""
    top_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int | None = None
    n: Literal[1] = 1
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
    if location[:1] == ["tool_choice"]:
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
    problem = detail["msg"].removeprefix("Value error, ")
    given = json.dumps(detail["input"], default=str)
    shown = given if len(given) <= 80 else given[:77] + "..."
    return ChatError(f"{path or 'the body'!r}: {problem[:1].lower()}{problem[1:]}, got {shown}", param=path or None)


@dataclass(frozen=True, slots=True)
class Asked:
    """A chat request as the policy gets it."""

    request: Request
    offered: frozenset[str]
    """Names of the tools that the reply may call."""
    unread: int
    """Messages that the policy does not read."""


def ask(
    chat: ChatRequest, format: Format, specs: Sequence[ToolSpec], *, session: str, defaults: Sampling = Sampling()
) -> Asked:
    """What a policy is asked by a chat request.

    Args:
        chat: the request.
        format: how the policy was trained to read and write.
        specs: the tools that it was trained with.
        session: of the request; another for each.
        defaults: how replies are drawn where the request does not say.

    Raises:
        ChatError: the request cannot be honoured, and why.
    """
    offered = _offered(chat, specs)
    question, following = _last_question(chat.messages)
    prompt = chat.messages[question]
    task = Task(id=session, prompt=prompt.content, tools=tuple(spec.name for spec in offered))
    segments: list[str | Completion] = [format.opening(task, offered)]
    for index in range(question + 1, len(chat.messages), 2):
        segments += _turn(following, index, format, specs)
    if chat.stream_options and not chat.stream:
        raise ChatError("'stream_options' needs 'stream': true", param="stream_options")
    request = Request(
        task=task,
        segments=tuple(segments),
        session=session,
        sampling=_sampling(chat, defaults),
        stop=format.stop,
        prefix=_prefix(chat, format, offered),
        seed=secrets.randbits(53) if chat.seed is None else derive_seed("chat", chat.seed),
    )
    return Asked(request, frozenset(task.tools), question)


def _last_question(messages: Sequence[Message]) -> tuple[int, Mapping[int, Message]]:
    """Where the last user message stands, and the messages after it by their index; they are calls and results."""
    for index, message in enumerate(messages):
        if isinstance(message, SystemMessage):
            raise ChatError(
                "system messages are not supported: this policy reads a question and the results of its calls; "
                "put what it has to know into the user message",
                param=f"messages[{index}].role",
                code="unsupported_value",
            )
    users = [index for index, message in enumerate(messages) if isinstance(message, UserMessage)]
    if not users:
        raise ChatError("there is no user message, so there is no question", param="messages")
    if isinstance(messages[-1], AssistantMessage):
        raise ChatError(
            "the last message is the assistant's; it has to be a question or the result of a call",
            param=f"messages[{len(messages) - 1}].role",
        )
    return users[-1], {index: messages[index] for index in range(users[-1] + 1, len(messages))}


def _turn(
    messages: Mapping[int, Message], index: int, format: Format, specs: Sequence[ToolSpec]
) -> tuple[Completion, str]:
    """The call and its result that stand at an index: what the policy wrote and what it read after it."""
    caller, result = messages[index], messages.get(index + 1)
    here = f"messages[{index}]"
    if not isinstance(caller, AssistantMessage) or len(caller.tool_calls) != 1:
        raise ChatError(
            "after a question stand pairs of an assistant message with one tool call and the tool's result",
            param=here,
        )
    wire = caller.tool_calls[0]
    if not isinstance(result, ToolMessage) or result.tool_call_id != wire.id:
        raise ChatError(f"call {wire.id!r} has to be followed by its result", param=f"messages[{index + 1}]")
    try:
        arguments = json.loads(wire.function.arguments)
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise ChatError("arguments have to be a JSON object", param=f"{here}.tool_calls[0].function.arguments")
    call = ToolCall(wire.function.name, arguments)
    own = caller.apprentice.reply if caller.apprentice else ""
    text = own if own and format.parse(own, specs) == call else caller.content + format.write_call(call, specs)
    return Completion(text=text, finish="stop"), format.observed(Observation(result.content))


def _offered(chat: ChatRequest, specs: Sequence[ToolSpec]) -> tuple[ToolSpec, ...]:
    """The tools that the reply may call, as the policy knows them."""
    known = {spec.name: spec for spec in specs}
    names = []
    for index, tool in enumerate(chat.tools):
        name = tool.function.name
        if name not in known:
            raise ChatError(
                f"this policy was not trained with a tool {name!r}; it knows {', '.join(known) or 'none'}",
                param=f"tools[{index}].function.name",
                code="unsupported_value",
            )
        trained = known[name].parameters.get("properties", {})
        if set(tool.function.parameters.get("properties", {})) != set(trained):
            raise ChatError(
                f"{name!r} takes the parameters that the policy was trained with: {', '.join(trained) or 'none'}",
                param=f"tools[{index}].function.parameters",
                code="unsupported_value",
            )
        names.append(name)
    if isinstance(chat.tool_choice, NamedTool):
        if chat.tool_choice.function.name not in names:
            name = chat.tool_choice.function.name
            raise ChatError(f"'tool_choice' names {name!r}, which 'tools' does not offer", param="tool_choice")
        return (known[chat.tool_choice.function.name],)
    if chat.tool_choice == "required" and not names:
        raise ChatError("'tool_choice' is 'required' and 'tools' offers none", param="tool_choice")
    return () if chat.tool_choice == "none" else tuple(spec for spec in specs if spec.name in names)


def _prefix(chat: ChatRequest, format: Format, offered: Sequence[ToolSpec]) -> str:
    """What the reply is made to begin with, so that it calls, or answers, as ``tool_choice`` says."""
    if not offered:
        return format.forced("direct", offered)
    if chat.tool_choice in (None, "auto"):
        return ""
    prefix = format.forced("call", offered)
    if not prefix:
        raise ChatError(
            f"the policy's format ({format.name}) cannot force a call among {len(offered)} tools; name one function",
            param="tool_choice",
            code="unsupported_value",
        )
    return prefix


def _sampling(chat: ChatRequest, defaults: Sampling) -> Sampling:
    limits = {limit for limit in (chat.max_tokens, chat.max_completion_tokens) if limit is not None}
    if len(limits) == 2:
        raise ChatError("'max_tokens' and 'max_completion_tokens' differ; give one", param="max_tokens")
    return Sampling(
        temperature=defaults.temperature if chat.temperature is None else chat.temperature,
        top_p=defaults.top_p if chat.top_p is None else chat.top_p,
        top_k=defaults.top_k,
        max_tokens=next(iter(limits), defaults.max_tokens),
    )


@dataclass(frozen=True, slots=True)
class Answered:
    """A policy's reply as a chat completion tells it."""

    content: str | None
    call: ToolCall | None
    finish: Literal["stop", "length", "tool_calls"]
    extra: Extra


def answer(completion: Completion, asked: Asked, format: Format, specs: Sequence[ToolSpec]) -> Answered:
    """What to tell of a reply: a call of an offered tool, or a text; a call that went wrong is told as such."""
    call = format.parse(completion.text, specs)
    extra = Extra(reply=completion.text, unread_messages=asked.unread)
    if isinstance(call, ToolCall) and call.tool in asked.offered:
        return Answered(format.answer_so_far(completion.text, specs) or None, call, "tool_calls", extra)
    finish: Literal["stop", "length"] = "length" if completion.finish == "length" else "stop"
    if call is None:
        return Answered(format.answer(completion.text), None, finish, extra)
    went_wrong = {"malformed_call": call.error} if isinstance(call, MalformedCall) else {"unoffered_call": call.tool}
    return Answered(completion.text, None, finish, extra.model_copy(update=went_wrong))
