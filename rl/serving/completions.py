"""OpenAI's older completions: a policy goes on with a text as it is, without a format around it.

What a format would write has to be in the prompt, in the policy's own raw words, and what the policy writes is told as
it is: calls, markers and all.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field

from rl.serving.protocol import drawn
from rl.serving.replies import before_stop, counted, envelope, growing, logprobs_of, reply, require_tokens, usage
from rl.serving.wire import ChatError, ChatRequest, Drawing
from rollouts.policy import Policy, Request, derive_seed
from rollouts.types import Completion, Sampling, Task

MAX_PROMPTS = 64
MAX_TOKENS = 16
"""Of a completion whose request does not say, as OpenAI has it."""


def _prompts(value: Any) -> Any:
    """Every form of prompt as several, each a text or token ids.

    Raises:
        ValueError: it has another form.
    """
    many = value if isinstance(value, list) and not _are_ids(value) else [value]
    for prompt in many:
        if not (isinstance(prompt, str) or _are_ids(prompt)):
            raise ValueError("it has to be a text, token ids, or a list of either")
        if not len(prompt):
            raise ValueError("a prompt is empty")
    return tuple(prompt if isinstance(prompt, str) else tuple(prompt) for prompt in many)


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(id) is int for id in value)


Prompts: TypeAlias = Annotated[
    tuple[str | tuple[int, ...], ...], BeforeValidator(_prompts), Field(min_length=1, max_length=MAX_PROMPTS)
]


class CompletionRequest(Drawing):
    """The body of ``POST /v1/completions``; a field that is not here is refused."""

    neutral = {
        "best_of": (1,),
        "echo": (False,),
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
        "suffix": ("",),
    }

    prompt: Prompts
    """Several are answered each for itself, and cannot be streamed."""
    logprobs: int | None = Field(None, ge=0, le=5)
    """Tells each token with its log-probability, and as many of the likeliest ones at its place."""


ReplyRequest: TypeAlias = ChatRequest | CompletionRequest
"""What an engine answers."""


class TextServer:
    """Answers completion requests with one policy."""

    def __init__(self, policy: Policy, sampling: Sampling) -> None:
        """
        Args:
            policy: who replies.
            sampling: where a request does not say; but for the tokens, see ``MAX_TOKENS``.
        """
        self.policy = policy
        self.sampling = sampling

    async def complete(self, asking: CompletionRequest) -> dict[str, Any]:
        """The whole response.

        Raises:
            ChatError: the request cannot be honoured, or the policy could not reply.
        """
        session = f"cmpl-{secrets.token_hex(12)}"
        requests = self._requests(asking, session)
        try:
            completions = await asyncio.gather(*(reply(self.policy, request, "prompt") for request in requests))
        finally:
            for request in requests:
                self.policy.release(request.session)
        choices = [self._choice(number, completion, asking) for number, completion in enumerate(completions)]
        read = sum(completion.prompt_tokens for completion in completions[:: asking.n])
        written = sum(len(completion.token_ids) for completion in completions)
        head = envelope(asking, session, "text_completion", self.policy)
        return head | {"choices": choices, "usage": counted(read, written)}

    async def stream(self, asking: CompletionRequest) -> AsyncGenerator[dict[str, Any]]:
        """The response in chunks, as the reply grows.

        Raises:
            ChatError: before the first chunk, where the request cannot be honoured; later, where the policy fails.
        """
        if len(asking.prompt) > 1 or asking.n > 1:
            field = "n" if asking.n > 1 else "prompt"
            raise ChatError("only one reply to one prompt can be streamed; leave 'stream' out", param=field)
        counting = bool(asking.stream_options and asking.stream_options.include_usage)
        session = f"cmpl-{secrets.token_hex(12)}"
        (request,) = self._requests(asking, session)
        head = envelope(asking, session, "text_completion", self.policy) | ({"usage": None} if counting else {})
        sent = ""
        async with aclosing(growing(self.policy, request, "prompt")) as texts:
            async for text in texts:
                if isinstance(text, Completion):
                    choice = self._choice(0, text, asking)
                    yield head | {"choices": [choice | {"text": choice["text"].removeprefix(sent)}]}
                    if counting:
                        yield head | {"choices": [], "usage": usage([text])}
                elif len(settled := before_stop(text, asking.stop)) > len(sent):
                    delta, sent = settled[len(sent) :], settled
                    yield head | {"choices": [{"index": 0, "text": delta, "logprobs": None, "finish_reason": None}]}

    def _requests(self, asking: CompletionRequest, session: str) -> list[Request]:
        """What the policy is asked: each prompt as often as replies to it are wanted."""
        if asking.stream_options and not asking.stream:
            raise ChatError("'stream_options' needs 'stream': true", param="stream_options")
        sampling = drawn(asking, self.sampling, asking.max_tokens or MAX_TOKENS, asking.logprobs or 0)
        require_tokens(self.policy, sampling.logit_bias, "logit_bias")
        seed = secrets.randbits(53) if asking.seed is None else derive_seed("completion", asking.seed)
        first = Request(
            task=Task(id=session, prompt=""), segments=(), session=session, sampling=sampling, stop=asking.stop
        )
        segments = [self._segment(prompt) for prompt in asking.prompt]
        return [
            replace(first, segments=(segment,), session=f"{session}/{place}/{number}", seed=derive_seed(seed, number))
            for place, segment in enumerate(segments)
            for number in range(asking.n)
        ]

    def _segment(self, prompt: str | tuple[int, ...]) -> str | Completion:
        if isinstance(prompt, str):
            return prompt
        from rl.models.pieces import fingerprint

        require_tokens(self.policy, prompt, "prompt")
        tokenizer: Any = getattr(self.policy, "tokenizer", None)
        return Completion(text="", token_ids=prompt, tokenizer=fingerprint(tokenizer))

    def _choice(self, index: int, completion: Completion, asking: CompletionRequest) -> dict[str, Any]:
        found = [at for stop in asking.stop if (at := completion.text.find(stop)) >= 0]
        text = completion.text[: min(found, default=None)]
        cut = completion.finish == "length" and not found
        return {
            "index": index,
            "text": text,
            "logprobs": None if asking.logprobs is None else self._logprobs(completion, len(text)),
            "finish_reason": "length" if cut else "stop",
        }

    def _logprobs(self, completion: Completion, length: int) -> dict[str, Any]:
        """The tokens of a text with their log-probabilities, in the form of completions."""
        rows: list[dict[str, Any]] = []
        offsets: list[int] = []
        at = 0
        for row in logprobs_of(completion, self.policy)["content"]:
            if at >= length:
                break
            rows.append(row)
            offsets.append(at)
            at += len(row["token"])
        return {
            "tokens": [row["token"] for row in rows],
            "token_logprobs": [row["logprob"] for row in rows],
            "top_logprobs": [_by_token(row["top_logprobs"]) for row in rows],
            "text_offset": offsets,
        }


def _by_token(top: Sequence[dict[str, Any]]) -> dict[str, float]:
    return {one["token"]: one["logprob"] for one in reversed(top)}
