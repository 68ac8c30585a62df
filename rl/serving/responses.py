"""OpenAI's responses, in the words of its chat completions: one way of answering, under two names.

A request becomes a chat request, and what is told of that becomes a response (``rl.serving.events``). Nothing is
stored: a conversation is sent whole each time.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag

from rl.serving.wire import Asking, ChatRequest, Extra, JsonObject, PlainText, Wire, joined

LOGPROBS = "message.output_text.logprobs"
"""What ``include`` may ask for."""

_Read: TypeAlias = Annotated[str, BeforeValidator(lambda value: joined(value, "input_text"))]
_Said: TypeAlias = Annotated[str, BeforeValidator(lambda value: joined(value, "output_text"))]


class _Item(Wire):
    neutral = {"phase": ("final_answer", "commentary")}

    id: str | None = None
    status: str | None = None
    """Both as the server wrote them; they say nothing that it does not know."""


class InputMessage(_Item):
    """A question, or a system's words, which the chat's own check refuses."""

    type: Literal["message"] = "message"
    role: Literal["user", "system", "developer"]
    content: _Read


class OutputMessage(_Item):
    """What the policy said earlier."""

    type: Literal["message"] = "message"
    role: Literal["assistant"]
    content: _Said
    apprentice: Extra | None = None


class FunctionCall(_Item):
    """A call that the policy made earlier."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    apprentice: Extra | None = None


class FunctionCallOutput(_Item):
    """What came of it."""

    type: Literal["function_call_output"]
    call_id: str
    output: _Read


def _kind(item: Any) -> str:
    type = item.get("type", "message") if isinstance(item, Mapping) else ""
    return "assistant" if type == "message" and item.get("role") == "assistant" else str(type)


Item: TypeAlias = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[OutputMessage, Tag("assistant")]
    | Annotated[FunctionCall, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")],
    Discriminator(
        _kind,
        custom_error_type="item",
        custom_error_message="an item is a message, a function_call or a function_call_output",
    ),
]


def _items(value: Any) -> Any:
    """A text alone as the question that it is."""
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


class _Function(Wire):
    type: Literal["function"]
    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: Literal[False] = False


class _NamedFunction(Wire):
    type: Literal["function"]
    name: str


class _Schema(Wire):
    type: Literal["json_schema"]
    name: str = ""
    description: str = ""
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool = True


class _Text(Wire):
    neutral = {"verbosity": ("medium",)}

    format: Annotated[PlainText | JsonObject | _Schema, Field(discriminator="type")] = PlainText(type="text")


class ResponseRequest(Asking):
    """The body of ``POST /v1/responses``; a field that is not here is refused."""

    neutral = {
        "background": (False,),
        "reasoning": ({}, {"effort": "none"}),
        "service_tier": ("auto", "default"),
        "store": (False,),
        "stream_options": ({}, {"include_obfuscation": False}),
        "truncation": ("disabled",),
    }

    input: Annotated[list[Item], BeforeValidator(_items), Field(min_length=1)]
    instructions: str | None = None
    """Read as a system message, and so refused where the policy's format has no place for one."""
    tools: list[_Function] = []
    tool_choice: Literal["none", "auto", "required"] | _NamedFunction | None = None
    parallel_tool_calls: bool = True
    max_output_tokens: int | None = Field(default=None, ge=1)
    text: _Text = _Text()
    include: list[Literal["message.output_text.logprobs"]] = []
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    """Asks for log-probabilities, as ``include`` does."""
    metadata: dict[str, str] | None = None
    """Read by nobody; told again with the response."""
    safety_identifier: str | None = None
    """Read by nobody."""
    prompt_cache_key: str | None = None
    """Read by nobody."""


class Translation:
    """A request for a response as a chat request, and the chat's errors as the request's own."""

    def __init__(self, request: ResponseRequest) -> None:
        """
        Args:
            request: what is asked.
        """
        self.request = request
        self._places: list[str] = []
        """By the index of a message, where the request has it."""
        fields = {
            "model": request.model,
            "messages": self._messages(),
            "tools": [_tool(tool) for tool in request.tools],
            "tool_choice": _choice(request.tool_choice),
            "parallel_tool_calls": request.parallel_tool_calls,
            "max_tokens": request.max_output_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "logprobs": LOGPROBS in request.include or request.top_logprobs is not None,
            "top_logprobs": request.top_logprobs,
            "response_format": _format(request.text),
            "stream": request.stream,
            "stream_options": {"include_usage": True} if request.stream else None,
            "user": request.user,
            "metadata": request.metadata,
        }
        self.chat = ChatRequest.model_validate(fields)

    def _messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        if self.request.instructions:
            messages.append({"role": "system", "content": self.request.instructions})
            self._places.append("instructions")
        open = False  # whether the last message is the assistant's, so that a call belongs to it
        for index, item in enumerate(self.request.input):
            if isinstance(item, FunctionCall):
                if not open:
                    messages.append({"role": "assistant"})
                    self._places.append(f"input[{index}]")
                _add_call(messages[-1], item)
            else:
                messages.append(_message(item))
                self._places.append(f"input[{index}]")
            open = isinstance(item, FunctionCall | OutputMessage)
        return messages

    def error(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """An error of the chat's in the words of the request."""
        error = dict(body["error"])
        error["message"] = _WORDS_OF_CHAT.sub(lambda word: f"'{_FIELDS[word[1]]}'", error["message"])
        error["param"] = self._param(error["param"]) if error["param"] else None
        return {"error": error}

    def _param(self, param: str) -> str:
        if found := re.fullmatch(r"messages\[(\d+)\](.*)", param):
            place = self._places[min(int(found[1]), len(self._places) - 1)]
            return place if "tool_calls" in found[2] or place == "instructions" else place + found[2]
        root = re.match(r"\w+", param)
        name = root[0] if root else ""
        return (_FIELDS.get(name, name) + param[len(name) :]).replace(".function", "")


_FIELDS = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "logprobs": "include",
}
"""By the chat's name of a field, the response's."""
_WORDS_OF_CHAT = re.compile(f"'({'|'.join(_FIELDS)})'")


def _message(item: InputMessage | OutputMessage | FunctionCallOutput) -> dict[str, Any]:
    if isinstance(item, FunctionCallOutput):
        return {"role": "tool", "tool_call_id": item.call_id, "content": item.output}
    message: dict[str, Any] = {"role": item.role, "content": item.content}
    if isinstance(item, OutputMessage):
        message["apprentice"] = item.apprentice
    return message


def _add_call(message: dict[str, Any], item: FunctionCall) -> None:
    """Let an assistant's message make a call."""
    function = {"name": item.name, "arguments": item.arguments}
    message.setdefault("tool_calls", []).append({"id": item.call_id, "function": function})
    message["apprentice"] = message.get("apprentice") or item.apprentice


def _tool(tool: _Function) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _choice(choice: str | _NamedFunction | None) -> Any:
    return {"type": "function", "function": {"name": choice.name}} if isinstance(choice, _NamedFunction) else choice


def _format(text: _Text) -> dict[str, Any]:
    wanted = text.format
    if isinstance(wanted, _Schema):
        return {"type": "json_schema", "json_schema": {"name": wanted.name, "schema": wanted.schema_}}
    return {"type": wanted.type}


def as_told(request: ResponseRequest) -> dict[str, Any]:
    """What a response tells of its request."""
    tools: Sequence[_Function] = request.tools
    choice = request.tool_choice or ("auto" if tools else "none")
    return {
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata or {},
        "parallel_tool_calls": request.parallel_tool_calls,
        "previous_response_id": None,
        "store": False,
        "temperature": request.temperature,
        "text": request.text.model_dump(by_alias=True, exclude_defaults=False),
        "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
        "tools": [tool.model_dump() for tool in tools],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": request.top_p,
        "truncation": "disabled",
        "user": request.user,
    }
