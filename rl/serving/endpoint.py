"""Models behind OpenAI-compatible endpoints as policies: teachers, hosted models, vLLM servers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from executors.budget import BudgetError
from executors.catalog import Catalog
from executors.endpoint import EndpointClient, RejectedError, Reply
from executors.errors import ConfigError, DataError, TransientError
from executors.types import MalformedCall, ToolCall, ToolSpec
from rollouts.formats import Format
from rollouts.formats.chat import ChatFormat
from rollouts.formats.messages import messages, on_wire
from rollouts.policy import PolicyUnavailableError, PromptTooLongError, Request
from rollouts.types import Completion

Mode = Literal["tools", "text"]
"""How an endpoint is asked.

- ``tools``: with messages and tools, as hosted models are trained; its calls are written in the run's format.
- ``text``: with the format's own text as one message, and the reply is read by the format.
"""

_MAX_STOPS = 4
"""That OpenAI's protocol takes."""
_TOO_LONG = ("context_length", "context length", "maximum context", "too long", "too many tokens", "prompt is too")


class EndpointPolicy:
    """Replies by way of an endpoint. What it cannot honour of a request, it refuses by name."""

    def __init__(
        self,
        name: str,
        client: EndpointClient,
        format: Format,
        catalog: Catalog,
        *,
        mode: Mode = "tools",
        system: str = "",
        logprobs: bool = False,
    ) -> None:
        """
        Args:
            name: of the policy.
            client: asks the endpoint, tries again, and keeps to its budget.
            format: of the run; every reply is written in it.
            catalog: the tools that tasks name.
            mode: how the endpoint is asked.
            system: the system message; none by default.
            logprobs: whether to ask for log-probabilities.

        Raises:
            ConfigError: the format's words are no text that an endpoint could be sent.
        """
        if mode == "text" and isinstance(format, ChatFormat):
            raise ConfigError(f"{name}: the chat format is another model's template; ask this endpoint in mode 'tools'")
        self.name = name
        self.version = 0
        self.client = client
        self.format = format
        self.catalog = catalog
        self.mode: Mode = mode
        self.system = system
        self.logprobs = logprobs
        self._said: dict[str, list[str]] = {}
        """By session, what each reply said beside its calls."""

    async def complete(self, request: Request) -> Completion:
        """See ``Policy.complete``.

        Raises:
            PromptTooLongError: the endpoint says that it cannot read so much.
            PolicyUnavailableError: no usable reply after all tries, the budget is spent, or the request was refused.
        """
        tokens = request.stop_ids or request.sampling.logit_bias or request.sampling.top_logprobs
        if tokens or request.constraint is not None or request.adapter:
            raise PolicyUnavailableError(f"{self.name} is behind an endpoint: it takes no tokens, biases or adapters")
        try:
            return await (self._with_tools(request) if self.mode == "tools" else self._with_text(request))
        except RejectedError as error:
            too_long = any(words in str(error).lower() for words in _TOO_LONG)
            raise (PromptTooLongError if too_long else PolicyUnavailableError)(str(error)) from error
        except (TransientError, BudgetError, ConfigError) as error:
            raise PolicyUnavailableError(str(error)) from error

    def release(self, session: str) -> None:
        self._said.pop(session, None)

    def load(self, weights: Mapping[str, Any], version: int) -> None:
        raise DataError(f"{self.name} is behind an endpoint, which takes no weights")

    async def _with_tools(self, request: Request) -> Completion:
        specs = self.catalog.specs(request.task.tools)
        said = self._said.setdefault(request.session, [])
        del said[len(request.turns) :]  # the session was begun anew
        chat = messages(request.task, request.turns, system=self.system, contents=said)
        tools = [spec.as_openai() for spec in specs]
        extra = _sampled(request) | (_choice(request, specs, self.format) if tools else {})
        reply = _readable(await self._ask(request, [on_wire(message) for message in chat], tools=tools, extra=extra))
        said.append(reply.text)
        calls = self._calls(reply)
        return self._completion(reply, self._written(reply, calls, specs), calls)

    async def _with_text(self, request: Request) -> Completion:
        text = "".join(part if isinstance(part, str) else part.text for part in request.segments) + request.prefix
        chat = [{"role": "system", "content": self.system}] if self.system else []
        chat.append({"role": "user", "content": text})
        reply = _readable(await self._ask(request, chat, stop=request.stop[:_MAX_STOPS], extra=_sampled(request)))
        written = self._stopped(request.prefix + reply.text, request, self.catalog.specs(request.task.tools))
        return self._completion(reply, written, None)

    async def _ask(self, request: Request, chat: Sequence[Mapping[str, Any]], **options: Any) -> Reply:
        return await self.client.chat(
            chat,
            temperature=request.sampling.temperature,
            max_tokens=request.sampling.max_tokens,
            seed=request.seed,
            logprobs=self.logprobs,
            **options,
        )

    def _calls(self, reply: Reply) -> tuple[ToolCall | MalformedCall, ...]:
        """The calls of a reply, one at most unless the format takes several."""
        if len(reply.tool_calls) > 1 and not self.format.parallel:
            text = "\n".join(_told(call) for call in reply.tool_calls)
            error = f"there are {len(reply.tool_calls)} calls in this reply; make one at a time"
            return (MalformedCall(text, error),)
        return reply.tool_calls

    def _written(self, reply: Reply, calls: Sequence[ToolCall | MalformedCall], specs: Sequence[ToolSpec]) -> str:
        """The reply in the format's words, so that it can be compared, shown and learned from beside the others."""
        if not calls:
            return self.format.write_answer(reply.text)
        readable = [call for call in calls if isinstance(call, ToolCall)]
        if len(readable) < len(calls):
            return "\n".join(filter(None, [reply.text, *map(_told, calls)]))
        text = self.format.write_calls(readable, specs, reply.text)
        return text if self.format.parse(text, specs) == calls else self.format.write_calls(readable, specs)

    def _stopped(self, text: str, request: Request, specs: Sequence[ToolSpec]) -> str:
        """The text with the stop string that ended it, which endpoints leave out and do not name."""
        if ends := [text.index(stop) + len(stop) for stop in request.stop if stop in text]:
            return text[: min(ends)]
        for stop in request.stop:
            calls = self.format.parse(text + stop, specs)
            if calls and all(isinstance(call, ToolCall) for call in calls):
                return text + stop
        return text

    def _completion(self, reply: Reply, text: str, calls: tuple[ToolCall | MalformedCall, ...] | None) -> Completion:
        ended = "stop" if self.format.stop and text.endswith(self.format.stop) else "end"
        return Completion(
            text=text,
            finish="length" if reply.finish == "length" else ended,
            logprobs=tuple(logprob for _, logprob in reply.logprobs or ()),
            prompt_tokens=reply.usage.prompt,
            written_tokens=reply.usage.completion,
            cost=reply.cost,
            calls=calls,
        )


def _readable(reply: Reply) -> Reply:
    """The reply in text and calls that can be sent, logged and read again: JSON can spell what neither can hold."""
    return replace(reply, text=_whole(reply.text), tool_calls=tuple(map(_sound, reply.tool_calls)))


def _sound(call: ToolCall | MalformedCall) -> ToolCall | MalformedCall:
    """The call; a malformed one where it has half of a surrogate pair, or a number that is none."""
    if isinstance(call, MalformedCall):
        return MalformedCall(_whole(call.text), _whole(call.error))
    try:
        json.dumps([call.tool, dict(call.arguments)], ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        return MalformedCall(_whole(_told(call)), f"the arguments of {_whole(call.tool)} are not JSON: {error}")
    return call


def _whole(text: str) -> str:
    """The text, with a question mark for each half of a surrogate pair."""
    return text.encode(errors="replace").decode()


def _sampled(request: Request) -> dict[str, Any]:
    """Fields of a request that the client has no argument for; what OpenAI does not know is sent beside the rest."""
    sampling = request.sampling
    extra: dict[str, Any] = {"top_p": sampling.top_p} if sampling.top_p < 1 else {}
    further = {name: value for name in ("top_k", "min_p") if (value := getattr(sampling, name))}
    return extra | ({"extra_body": further} if further else {})


def _choice(request: Request, specs: Sequence[ToolSpec], format: Format) -> dict[str, Any]:
    """What becomes of a forced call or a forced answer, and of formats that make one call a reply."""
    extra: dict[str, Any] = {} if format.parallel else {"parallel_tool_calls": False}
    if request.force == "direct":
        extra["tool_choice"] = "none"
    elif request.force == "call":
        named = {"type": "function", "function": {"name": specs[0].name}}
        extra["tool_choice"] = named if len(specs) == 1 else "required"
    return extra


def _told(call: ToolCall | MalformedCall) -> str:
    return call.text if isinstance(call, MalformedCall) else f"{call.tool}({dict(call.arguments)})"
