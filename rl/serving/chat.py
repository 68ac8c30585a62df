"""A policy behind OpenAI's chat completions: a plain class, which the Ray Serve app and tests hold alike."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from executors.types import ToolCall, ToolSpec
from rl.serving.protocol import Answered, Asked, answer, ask
from rl.serving.wire import ChatError, ChatRequest
from rollouts.formats import Format
from rollouts.policy import Policy, PolicyUnavailableError, PromptTooLongError
from rollouts.types import Completion, Sampling

REPLY = Sampling(max_tokens=512)
"""How replies are drawn where a request does not say: greedy, as policies are evaluated."""


class ChatServer:
    """Answers chat requests with one policy. Requests that come at once are decoded together by its engine."""

    def __init__(
        self, policy: Policy, format: Format, specs: Sequence[ToolSpec], *, sampling: Sampling = REPLY
    ) -> None:
        """
        Args:
            policy: who replies.
            format: that it was trained to read and write.
            specs: the tools that it was trained with; callers run them.
            sampling: see ``REPLY``.
        """
        self.policy = policy
        self.format = format
        self.specs = tuple(specs)
        self.sampling = sampling

    async def complete(self, chat: ChatRequest) -> dict[str, Any]:
        """The whole response to a request.

        Raises:
            ChatError: the request cannot be honoured, or the policy could not reply.
        """
        asked = self._ask(chat)
        envelope = self._envelope(chat, asked, "chat.completion")
        every = asked.choices(chat.n)
        try:
            completions = await asyncio.gather(*(self._complete(one) for one in every))
        finally:
            for one in every:
                self.policy.release(one.request.session)
        choices = [self._choice(index, completion, asked, chat) for index, completion in enumerate(completions)]
        return envelope | {"choices": choices, "usage": usage(completions)}

    def _choice(self, index: int, completion: Completion, asked: Asked, chat: ChatRequest) -> dict[str, Any]:
        answered = answer(completion, asked, self.format, self.specs)
        message: dict[str, Any] = {"role": "assistant", "content": answered.content}
        if answered.calls:
            message["tool_calls"] = [_wire_call(call) for call in answered.calls]
        message |= _extra(answered)
        told = logprobs_of(completion, self.policy) if chat.logprobs else None
        return {"index": index, "message": message, "logprobs": told, "finish_reason": answered.finish}

    async def stream(self, chat: ChatRequest) -> AsyncIterator[dict[str, Any]]:
        """The response in chunks, as the reply grows.

        Content is sent as soon as the format says that it belongs to an answer; a call is sent whole, once it is
        complete. What was sent is sent: where the policy takes an answer back after all, the last delta's
        ``apprentice.reply`` tells what it wrote.

        Raises:
            ChatError: before the first chunk, where the request cannot be honoured; later, where the policy fails.
        """
        asked = self._ask(chat)
        counted = bool(chat.stream_options and chat.stream_options.include_usage)
        envelope = self._envelope(chat, asked, "chat.completion.chunk") | ({"usage": None} if counted else {})
        texts: asyncio.Queue[str | None] = asyncio.Queue()
        request = replace(asked.request, on_text=texts.put_nowait)
        reply = asyncio.ensure_future(self._complete(replace(asked, request=request)))
        reply.add_done_callback(lambda _: texts.put_nowait(None))
        sent = ""
        begun = False
        try:
            while (text := await texts.get()) is not None:
                if not begun:
                    yield envelope | _choice({"role": "assistant", "content": ""})
                    begun = True
                content = self.format.answer_so_far(_safe(text, asked.stop), self.specs) or ""
                if len(content) > len(sent):
                    yield envelope | _choice({"content": content[len(sent) :]})
                    sent = content
            completion = await reply
            answered = answer(completion, asked, self.format, self.specs)
            for delta in _last_deltas(answered, sent, begun):
                yield envelope | _choice(delta)
            last = _choice(_extra(answered), answered.finish)
            if chat.logprobs:
                last["choices"][0]["logprobs"] = logprobs_of(completion, self.policy)
            yield envelope | last
            if counted:
                yield envelope | {"choices": [], "usage": usage([completion])}
        finally:
            reply.cancel()
            with suppress(asyncio.CancelledError, ChatError):
                await reply
            self.policy.release(asked.request.session)

    def _ask(self, chat: ChatRequest) -> Asked:
        session = f"chatcmpl-{secrets.token_hex(12)}"
        return ask(chat, self.format, self.specs, session=session, defaults=self.sampling)

    async def _complete(self, asked: Asked) -> Completion:
        try:
            return await self.policy.complete(asked.request)
        except PromptTooLongError as error:
            raise ChatError(str(error), param="messages", code="context_length_exceeded") from error
        except PolicyUnavailableError as error:
            raise ChatError(str(error), status=503, code="policy_unavailable") from error

    def _envelope(self, chat: ChatRequest, asked: Asked, kind: str) -> dict[str, Any]:
        return {
            "id": asked.request.session,
            "object": kind,
            "created": int(time.time()),
            "model": chat.model,
            "system_fingerprint": f"v{self.policy.version}",
        }


def _last_deltas(answered: Answered, sent: str, begun: bool) -> list[dict[str, Any]]:
    """What of a complete reply has not been sent yet."""
    deltas: list[dict[str, Any]] = []
    if not begun:
        deltas.append({"role": "assistant", "content": None if answered.calls else ""})
    content = answered.content or ""
    if len(content) > len(sent) and content.startswith(sent):
        deltas.append({"content": content[len(sent) :]})
    if answered.calls:
        calls = [{"index": index, **_wire_call(call)} for index, call in enumerate(answered.calls)]
        deltas.append({"tool_calls": calls})
    return deltas


def _choice(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}


def _wire_call(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": call.tool, "arguments": arguments},
    }


def _extra(answered: Answered) -> dict[str, Any]:
    return {"apprentice": answered.extra.model_dump(exclude_defaults=True)}


def _safe(text: str, stops: Sequence[str]) -> str:
    """What of a growing text cannot become part of a stop string any more."""
    for stop in stops:
        if (at := text.find(stop)) >= 0:
            text = text[:at]
    held = max((size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0)
    return text[: len(text) - held]


def logprobs_of(completion: Completion, policy: Policy) -> dict[str, Any]:
    """Each token of a reply with its log-probability, in OpenAI's form.

    Raises:
        ChatError: the policy writes no tokens.
    """
    tokenizer = getattr(policy, "tokenizer", None)
    if tokenizer is None or len(completion.logprobs) != len(completion.token_ids):
        raise ChatError(f"{policy.name} tells no log-probabilities", param="logprobs", code="unsupported_value")

    def told(id: int, logprob: float) -> dict[str, Any]:
        text = tokenizer.decode([id])
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    tops = completion.top_logprobs or ((),) * len(completion.token_ids)
    rows = zip(completion.token_ids, completion.logprobs, tops, strict=True)
    return {
        "content": [told(id, logprob) | {"top_logprobs": [told(*one) for one in top]} for id, logprob, top in rows],
        "refusal": None,
    }


def usage(completions: Sequence[Completion]) -> dict[str, int]:
    """Tokens as the policy counts them, of replies with what they were made to begin with; the prompt counts once."""
    read, written = completions[0].prompt_tokens, sum(len(completion.token_ids) for completion in completions)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
