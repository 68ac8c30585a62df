"""OpenAI's chat completions, as far as a trained policy can honour them, to and from the project's own types.

``rl.serving.wire`` has the wire form. Three things differ from OpenAI's own models:

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
from dataclasses import dataclass, replace
from typing import Any, Literal

from executors.types import MalformedCall, Observation, ToolCall, ToolSpec
from rl.serving.offering import Offering
from rl.serving.wire import (
    AssistantMessage,
    ChatError,
    ChatRequest,
    Drawing,
    Extra,
    Message,
    PlainText,
    SystemMessage,
    ToolMessage,
    UserMessage,
    WireCall,
)
from rollouts.formats import Format
from rollouts.policy import Request, derive_seed
from rollouts.types import Completion, Sampling, Task, Turn


@dataclass(frozen=True, slots=True)
class Asked:
    """A chat request as the policy gets it."""

    request: Request
    specs: tuple[ToolSpec, ...]
    """Of the tools that replies are read with: those of the training, and those that the request describes."""
    offered: frozenset[str]
    """Names of the tools that the reply may call."""
    unread: int
    """Messages that the policy does not read."""
    stop: tuple[str, ...] = ()
    """Where the caller wants the reply cut."""
    parallel: bool = True
    """Whether the reply may be told with several calls."""
    schema: Mapping[str, Any] | None = None
    """The JSON schema of all that follows what the reply is made to begin with; None where anything may."""

    def choices(self, count: int) -> list["Asked"]:
        """The same, asked several times: each with a session and a seed of its own."""
        first = self.request
        return [
            self
            if number == 0
            else replace(
                self,
                request=replace(first, session=f"{first.session}/{number}", seed=derive_seed(first.seed, number)),
            )
            for number in range(count)
        ]

    def content_so_far(self, text: str, format: Format) -> str:
        """What of a growing reply is content for sure."""
        return self.behind(text) if self.schema is not None else format.answer_so_far(text, self.specs) or ""

    def behind(self, text: str) -> str:
        """What of a reply follows what it was made to begin with."""
        text, begun = text.lstrip(), self.request.prefix.lstrip()
        return "" if begun.startswith(text) else text.removeprefix(begun).strip()

    def cut(self, completion: Completion) -> Completion:
        """A reply without the caller's stop string and all that follows it."""
        found = [at for stop in self.stop if (at := completion.text.find(stop)) >= 0]
        return replace(completion, text=completion.text[: min(found)], finish="stop") if found else completion


def ask(
    chat: ChatRequest,
    format: Format,
    specs: Sequence[ToolSpec],
    *,
    session: str,
    defaults: Sampling = Sampling(),
    offering: Offering = Offering(),
) -> Asked:
    """What a policy is asked by a chat request.

    Args:
        chat: the request.
        format: how the policy was trained to read and write.
        specs: the tools that it was trained with.
        session: of the request; another for each.
        defaults: how replies are drawn where the request does not say.
        offering: what else the policy can be offered.

    Raises:
        ChatError: the request cannot be honoured, and why.
    """
    question, following = _last_question(chat.messages)
    prompt = chat.messages[question]
    specs = offering.known(chat, specs)
    offered = offering.offered(chat, specs, prompt.content)
    schema = _schema(chat, format, offered)
    task = Task(id=session, prompt=prompt.content, tools=tuple(spec.name for spec in offered))
    segments: list[str | Completion] = [format.opening(task, offered)]
    turns: list[Turn] = []
    index = question + 1
    while index < len(chat.messages):
        turn = _turn(following, index, format, specs)
        turns.append(turn)
        segments += [turn.completion, format.observed(turn)]
        index += 1 + len(turn.calls)
    if chat.stream_options and not chat.stream:
        raise ChatError("'stream_options' needs 'stream': true", param="stream_options")
    if chat.n > 1 and chat.stream:
        raise ChatError("'n' above 1 cannot be streamed; ask for one reply, or without 'stream'", param="n")
    if chat.apprentice.max_turns and not chat.apprentice.execute:
        raise ChatError("'apprentice.max_turns' needs 'apprentice.execute': true", param="apprentice.max_turns")
    if chat.top_logprobs and not chat.logprobs:
        raise ChatError("'top_logprobs' needs 'logprobs': true", param="top_logprobs")
    request = Request(
        task=task,
        segments=tuple(segments),
        turns=tuple(turns),
        session=session,
        sampling=_sampling(chat, defaults),
        stop=chat.stop if schema else (*format.stop, *chat.stop),
        prefix=_prefix(chat, format, offered),
        seed=secrets.randbits(53) if chat.seed is None else derive_seed("chat", chat.seed),
    )
    names = frozenset(task.tools)
    return Asked(request, tuple(specs), names, question, chat.stop, chat.parallel_tool_calls, schema)


def _schema(chat: ChatRequest, format: Format, offered: Sequence[ToolSpec]) -> Mapping[str, Any] | None:
    """What the whole content has to follow, where the request says so and the format has a place for it."""
    if chat.response_format is None or isinstance(chat.response_format, PlainText):
        return None
    if offered:
        raise ChatError(
            "a reply that may call tools cannot be held to 'response_format'; leave 'tools' out, or set 'tool_choice' "
            "to 'none'",
            param="response_format",
            code="unsupported_value",
        )
    begun = f"{format.forced('direct', ())}{{}}"
    if not format.write_answer("{}").lstrip().startswith(begun.lstrip()):
        raise ChatError(
            f"the policy's format ({format.name}) cannot be made to write an answer and nothing else, so it cannot be "
            "held to 'response_format'",
            param="response_format",
            code="unsupported_value",
        )
    return chat.response_format.schema_


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


def _turn(messages: Mapping[int, Message], index: int, format: Format, specs: Sequence[ToolSpec]) -> Turn:
    """The calls that stand at an index and the results that follow: what the policy wrote and what it read then."""
    caller = messages[index]
    here = f"messages[{index}]"
    single = "" if format.parallel else ", and this policy makes one call at a time"
    if not isinstance(caller, AssistantMessage) or not caller.tool_calls or (single and len(caller.tool_calls) > 1):
        raise ChatError(
            f"after a question stand assistant messages with tool calls, each followed by the tools' results{single}",
            param=here,
        )
    calls = tuple(_call(wire, f"{here}.tool_calls[{number}]") for number, wire in enumerate(caller.tool_calls))
    wanted = {wire.id: number for number, wire in enumerate(caller.tool_calls)}
    results: dict[int, Observation] = {}
    for place in range(index + 1, index + 1 + len(calls)):
        result = messages.get(place)
        if not isinstance(result, ToolMessage) or result.tool_call_id not in wanted:
            raise ChatError(
                f"call {next(iter(wanted), '')!r} has to be followed by its result", param=f"messages[{place}]"
            )
        results[wanted.pop(result.tool_call_id)] = Observation(result.content)
    own = caller.apprentice.reply if caller.apprentice else ""
    read = own and (format.apart or format.parse(own, specs) == calls)
    text = own if read else format.write_calls(calls, specs, caller.content)
    return Turn(Completion(text=text, finish="stop"), calls, tuple(results[number] for number in sorted(results)))


def _call(wire: WireCall, here: str) -> ToolCall:
    try:
        arguments = json.loads(wire.function.arguments)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise ChatError("arguments have to be a JSON object", param=f"{here}.function.arguments")
    return ToolCall(wire.function.name, arguments)


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
    return drawn(chat, defaults, next(iter(limits), defaults.max_tokens), chat.top_logprobs or 0)


def drawn(asking: Drawing, defaults: Sampling, max_tokens: int, top_logprobs: int) -> Sampling:
    """How replies are drawn that a request asks for.

    Args:
        asking: the request.
        defaults: where it does not say.
        max_tokens: of a reply.
        top_logprobs: to be told.

    Raises:
        ChatError: a bias is for no token.
    """
    for id in asking.logit_bias:
        if not (id.isascii() and id.isdecimal() and len(id) < 10):
            raise ChatError(f"'logit_bias' is by token id, and {id!r} is none", param="logit_bias")
    return Sampling(
        temperature=defaults.temperature if asking.temperature is None else asking.temperature,
        top_p=defaults.top_p if asking.top_p is None else asking.top_p,
        top_k=defaults.top_k,
        max_tokens=max_tokens,
        logit_bias={int(id): bias for id, bias in asking.logit_bias.items()},
        top_logprobs=top_logprobs,
    )


@dataclass(frozen=True, slots=True)
class Answered:
    """A policy's reply as a chat completion tells it."""

    content: str | None
    calls: tuple[ToolCall, ...]
    finish: Literal["stop", "length", "tool_calls"]
    extra: Extra


def _structured(asked: Asked, completion: Completion) -> str:
    """The content of a reply that follows a schema. Raises ChatError where it is whole and no JSON after all."""
    content = asked.behind(completion.text)
    if completion.finish == "end":
        try:
            json.loads(content)
        except (ValueError, RecursionError) as error:
            told = "the reply is not the JSON that its tokens were held to; this tokenizer is not supported"
            raise ChatError(told, status=503, code="policy_unavailable") from error
    return content


def answer(completion: Completion, asked: Asked, format: Format) -> Answered:
    """What to tell of a reply: calls of offered tools, or a text; a call that went wrong is told as such."""
    extra = Extra(reply=completion.text, unread_messages=asked.unread)
    completion = asked.cut(completion)
    finish: Literal["stop", "length"] = "length" if completion.finish == "length" else "stop"
    if asked.schema is not None:
        return Answered(_structured(asked, completion), (), finish, extra)
    offered: list[ToolCall] = []
    went_wrong: dict[str, str] = {}
    for call in format.parse(completion.text, asked.specs) if completion.calls is None else completion.calls:
        if isinstance(call, MalformedCall):
            went_wrong.setdefault("malformed_call", call.error)
        elif call.tool not in asked.offered:
            went_wrong.setdefault("unoffered_call", call.tool)
        else:
            offered.append(call)
    if offered and not went_wrong:
        if not asked.parallel:
            extra = extra.model_copy(update={"untold_calls": len(offered) - 1})
            del offered[1:]
        content = format.answer_so_far(completion.text, asked.specs) or None
        return Answered(content, tuple(offered), "tool_calls", extra)
    if not went_wrong:
        return Answered(format.answer(completion.text), (), finish, extra)
    return Answered(completion.text, (), finish, extra.model_copy(update=went_wrong))
