"""A client of OpenAI-compatible endpoints, for tools with a model behind them and for policies that live elsewhere."""

from __future__ import annotations

import asyncio
import json
import math
import random
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from executors.budget import Budget, BudgetError, Prices, Spent, Usage
from executors.errors import ApprenticeError, ConfigError, TransientError
from executors.keyring import Keyring
from executors.types import MalformedCall, ToolCall

if TYPE_CHECKING:
    import openai

Message = Mapping[str, Any]
"""One message of a chat, in OpenAI's form: ``{"role": ..., "content": ...}``."""

Model = Callable[..., Awaitable[str]]
"""Answers a chat with text: ``await model(messages, **options)``, the options being those of ``EndpointClient.chat``.
An ``EndpointClient`` is one; so is any async function of that form."""

_RETRIED = {408, 409, 425, 429}
_REJECTED = {400, 413, 422}
_KEY_REFUSED = {401, 403}
_MAX_WAIT = 60.0
"""Longest wait, in seconds, that a server may ask for between two tries."""


class RejectedError(ApprenticeError):
    """An endpoint refused one request for what is in it, such as a prompt that is too long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """Where a model answers, how patiently it is asked, and what it may cost."""

    base_url: str
    """Up to and including ``/v1``. The operator's word: a server on this machine is as good as any."""
    model: str
    key_env: str | None = None
    """The environment variable that holds the key, or several with commas between, used in turns; None sends none."""
    timeout: float = 60.0
    """Seconds for one try."""
    retries: int = 4
    """Further tries after 429, 5xx, a time-out, a lost connection or a reply that cannot be read."""
    backoff: float = 0.5
    """Seconds before the first further try; doubled each time. A server's ``Retry-After`` goes before it."""
    per_second: float | None = None
    """Requests started each second, in one process."""
    max_tokens: int = 1024
    """Of one reply, where the request does not say."""
    length_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls that limit."""
    prompt_price: float = 0.0
    """US dollars for a million tokens read."""
    completion_price: float = 0.0
    """US dollars for a million tokens written."""
    max_usd: float | None = None
    """What one process may spend here. A request that could cost more than what is left is not sent."""

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.base_url)
            works = parts.scheme in ("http", "https") and parts.hostname and parts.username is None and parts.port != 0
        except ValueError:
            works = False
        if not works:
            raise ConfigError("base_url must be like http://localhost:8000/v1; a key goes into key_env's variable")
        if not self.model:
            raise ConfigError("model is empty; name the model that the endpoint serves")
        for name in ("timeout", "max_tokens"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("retries", "backoff", "prompt_price", "completion_price"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.per_second is not None and not self.per_second > 0:
            raise ConfigError(f"per_second must be above 0, got {self.per_second}; leave it out for no limit")
        if self.max_usd is not None and not (self.max_usd > 0 and self.prompt_price + self.completion_price > 0):
            raise ConfigError("max_usd holds only with prices: set it above 0, and prompt_price and completion_price")

    @property
    def prices(self) -> Prices:
        """What a million tokens cost."""
        return Prices(self.prompt_price, self.completion_price)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a model answered."""

    text: str
    tool_calls: tuple[ToolCall | MalformedCall, ...] = ()
    """Malformed where the arguments are not a JSON object."""
    finish: str = "stop"
    """OpenAI's word for why it ended: ``stop``, ``length``, ``tool_calls``, ``content_filter``."""
    usage: Usage = Usage()
    cost: float = 0.0
    """In US dollars."""
    logprobs: tuple[tuple[str, float], ...] | None = None
    """Each token with its log-probability, where they were asked for and given."""


class EndpointClient:
    """Asks one endpoint, keeps to its budget and its rate, and tries again what may pass.

    It may be used from several threads and event loops. Sent to another process it begins its count anew there.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        """
        Raises:
            ConfigError: the environment variable with the key is not set.
        """
        self.endpoint = endpoint
        self._keys = Keyring(endpoint.key_env, endpoint.base_url)
        self._budget = Budget(endpoint.max_usd)
        self._lock = threading.Lock()
        self._next_start = 0.0
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, openai.AsyncOpenAI]
        self._clients = weakref.WeakKeyDictionary()

    def __reduce__(self) -> tuple[Any, ...]:
        return EndpointClient, (self.endpoint,)

    @property
    def spent(self) -> Spent:
        """What was asked and spent so far, in this process."""
        return self._budget.spent

    async def __call__(self, messages: Sequence[Message], **options: Any) -> str:
        """The text alone of ``chat``."""
        return (await self.chat(messages, **options)).text

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        seed: int | None = None,
        response_format: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        logprobs: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> Reply:
        """Ask for one reply. What is left out is the server's to choose.

        Args:
            messages: the chat so far.
            temperature: 0 is greedy.
            max_tokens: of the reply; the endpoint's own limit where left out.
            stop: strings that end the reply.
            seed: for servers that sample by it.
            response_format: such as ``{"type": "json_object"}``.
            tools: in OpenAI's form (``ToolSpec.as_openai``).
            logprobs: whether to ask for the tokens' log-probabilities.
            extra: further fields of the request, such as ``top_p``.

        Raises:
            TransientError: no usable reply after all tries.
            BudgetError: it could cost more than what is left.
            RejectedError: the endpoint refuses this request.
            ConfigError: the endpoint refuses every request: a wrong key, no such model.
        """
        limit = max_tokens or self.endpoint.max_tokens
        body: dict[str, Any] = {"model": self.endpoint.model, "messages": [dict(message) for message in messages]}
        body[self.endpoint.length_field] = limit
        optional = {"temperature": temperature, "stop": list(stop) or None, "seed": seed, "tools": list(tools) or None}
        optional |= {"response_format": response_format, "logprobs": logprobs or None}
        body |= {name: value for name, value in optional.items() if value is not None} | dict(extra or {})
        worst = Usage(_bound([body["messages"], body.get("tools")]), limit)
        self._budget.request()
        tried, failure = 0, _Failure("")
        while tried <= self.endpoint.retries:
            if tried and not failure.other_key:
                await asyncio.sleep(self._pause(tried, failure))
            outcome = await self._try(body, worst)
            if isinstance(outcome, Reply):
                return outcome
            failure = outcome
            tried += not failure.other_key
        raise TransientError(
            f"{self._name} gave no usable reply in {self.endpoint.retries + 1} tries: {failure.reason}"
        )

    async def close(self) -> None:
        """Close the connections that this event loop holds."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    async def _try(self, body: Mapping[str, Any], worst: Usage) -> Reply | _Failure:
        """Send the request once. A failure that may pass is a value; one that will not is raised."""
        import openai

        await self._pace()
        reserved = self.endpoint.prices.cost(worst)
        self._budget.reserve(reserved)
        key = self._keys.current()
        headers = {"Authorization": f"Bearer {key or 'none'}"}
        usd, usage = reserved, Usage()  # until it is known better, the server may have charged for all of it
        try:
            async with asyncio.timeout(self.endpoint.timeout):
                completion = await self._client().chat.completions.create(**body, extra_headers=headers)
            reply = _read(completion, self.endpoint.prices, reserved)
            usd, usage = reply.cost, reply.usage
            return reply
        except (TimeoutError, openai.APITimeoutError):
            return _Failure(f"no answer within {self.endpoint.timeout:g} s")
        except openai.APIStatusError as error:
            usd = 0.0
            return self._judged(error, key)
        except openai.APIError as error:
            usd = 0.0 if type(error.__cause__).__name__ == "ConnectError" else reserved
            return _Failure(self._shown(f"{error.message} {error.__cause__ or ''}"))
        except UnicodeEncodeError as error:
            raise RejectedError(f"{self._name}: the request is not Unicode text: {error.reason}") from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            return _Failure(f"the reply is not a chat completion ({type(error).__name__})")
        finally:
            self._budget.settle(reserved, usd, usage)

    def _judged(self, error: openai.APIStatusError, key: str) -> _Failure:
        """A refusal by HTTP status: retried, with another key if it is this one that is refused, or raised."""
        said = self._shown(f"HTTP {error.status_code}: {error.message}")
        asked = _retry_after(error.response.headers.get("retry-after", ""))
        if error.status_code == 429 and self._keys.give_up(key, asked):
            return _Failure(said, other_key=True)
        if error.status_code in _KEY_REFUSED and self._keys.give_up(key):
            return _Failure(said, other_key=True)
        if error.status_code in _RETRIED or error.status_code >= 500:
            if asked > _MAX_WAIT:
                raise TransientError(f"{self._name} asks to wait {asked:.0f} s: {said}")
            return _Failure(said, asked)
        if error.status_code in _REJECTED:
            raise RejectedError(f"{self._name} refused a request: {said}")
        hint = f"; the key is read from {self.endpoint.key_env}" if error.status_code in _KEY_REFUSED else ""
        raise ConfigError(f"{self._name} refuses to answer: {said}{hint}")

    def _client(self) -> openai.AsyncOpenAI:
        """The client of the running event loop: connections cannot be shared between loops."""
        import openai

        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients[loop] = openai.AsyncOpenAI(
                base_url=self.endpoint.base_url,
                api_key=self._keys.current() or "none",
                max_retries=0,
                timeout=self.endpoint.timeout,
            )
        return self._clients[loop]

    async def _pace(self) -> None:
        """Wait for this request's turn."""
        if self.endpoint.per_second is None:
            return
        with self._lock:
            start = max(time.monotonic(), self._next_start)
            self._next_start = start + 1 / self.endpoint.per_second
        await asyncio.sleep(start - time.monotonic())

    def _pause(self, tried: int, failure: _Failure) -> float:
        """Seconds before the next try: what the server asked for, else doubling, with jitter."""
        own = min(self.endpoint.backoff * 2 ** (tried - 1), _MAX_WAIT)
        return max(failure.wait, own * random.uniform(0.75, 1.25))

    @property
    def _name(self) -> str:
        return f"{self.endpoint.model} at {self.endpoint.base_url}"

    def _shown(self, text: str) -> str:
        """What a server or a library said, short and without the keys."""
        return " ".join(self._keys.hidden(text).split())[:300]


async def consult(model: Model, messages: Sequence[Message], **options: Any) -> str:
    """What a tool with a model behind it calls.

    Raises:
        TransientError: the model cannot be asked, whatever the reason: that is no fault of the call.
    """
    try:
        return await model(messages, **options)
    except (ConfigError, BudgetError, RejectedError) as error:
        raise TransientError(str(error)) from error


@dataclass(frozen=True, slots=True)
class _Failure:
    """A try that failed and may pass."""

    reason: str
    wait: float = 0.0
    """Seconds that the server asked to wait."""
    other_key: bool = False
    """Whether there is another key to try at once."""


def _read(completion: Any, prices: Prices, worst: float) -> Reply:
    """A reply from what the client library made of the server's JSON, which it does not check.

    Raises:
        ValueError, TypeError, AttributeError: it is no chat completion.
    """
    if not completion.choices:
        raise ValueError("no choices")
    choice = completion.choices[0]
    message, text = choice.message, choice.message.content
    if not isinstance(text, str | None):
        raise TypeError("content is not text")
    counts: list[Any] = [getattr(completion.usage, f"{part}_tokens", None) for part in ("prompt", "completion")]
    usage = Usage(*counts) if all(isinstance(count, int) and count >= 0 for count in counts) else None
    given = choice.logprobs.content if choice.logprobs else None
    return Reply(
        text=text or "",
        tool_calls=tuple(_call(call.function.name, call.function.arguments) for call in message.tool_calls or ()),
        finish=str(choice.finish_reason or "stop"),
        usage=usage or Usage(),
        cost=worst if usage is None else prices.cost(usage),
        logprobs=None if given is None else tuple((str(token.token), float(token.logprob)) for token in given),
    )


def _call(name: str, arguments: str) -> ToolCall | MalformedCall:
    if not isinstance(name, str) or not isinstance(arguments, str):
        raise TypeError("a tool call without a name and arguments")
    try:
        read = json.loads(arguments or "{}")
    except (ValueError, RecursionError) as error:
        return MalformedCall(f"{name}({arguments})", f"the arguments of {name} are not JSON: {error}")
    if not isinstance(read, dict):
        return MalformedCall(f"{name}({arguments})", f"the arguments of {name} must be a JSON object")
    return ToolCall(name, read)


def _bound(value: Any) -> int:
    """No fewer tokens than a text has: a token is a byte at least. JSON's own marks stand for the chat template."""
    return len(json.dumps(value, ensure_ascii=False, default=str).encode(errors="replace"))


def _retry_after(value: str) -> float:
    """Seconds, from a ``Retry-After`` header: a number, or a date; 0 where it is neither."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
